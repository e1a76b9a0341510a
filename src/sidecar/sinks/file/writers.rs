//! Who writes to a destination's files: one at a time, also while sinks of the destination follow one another.
//!
//! A disk that hangs outlives the sink that it holds up: the write goes on on its thread when nobody waits for it any more.
//! What always holds: the sink that comes next in that directory waits for it, and then looks anew at what the files hold,
//! since nobody has heard what became of that write.

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::Inner;
use super::threads::Threads;
use super::writer::Writer;
use crate::delivery::unsettled::Unsettled;

/// The files of one destination in one directory, for one writer at a time.
pub(super) type Place = tokio::sync::Mutex<Option<Held>>;

/// So many that nobody has in hand are remembered, beside as many as are in hand.
const FORGOTTEN_LATE: usize = 16;

/// A writer, and the sink that made it.
pub(super) struct Held {
    by: Arc<Inner>,
    writer: Writer,
}

/// The places that somebody has in hand: whoever makes sinks one behind the other gives all of them this one.
#[derive(Default)]
pub struct Writers {
    places: Mutex<Places>,
    threads: Arc<Threads>,
}

#[derive(Default)]
struct Places {
    /// By directory and destination.
    by: HashMap<(PathBuf, String), Weak<Place>>,
    /// How many were in hand when those that are not were last forgotten: that takes a look at each.
    kept: usize,
}

impl Writers {
    pub(super) fn threads(&self) -> Arc<Threads> {
        Arc::clone(&self.threads)
    }

    pub(super) fn place_of(&self, sink: &Inner) -> Arc<Place> {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        if places.by.len() > 2 * places.kept + FORGOTTEN_LATE {
            places.by.retain(|_, place| place.strong_count() > 0);
            places.kept = places.by.len();
        }
        let of = (sink.config.directory.clone(), sink.destination.clone());
        let known = places.by.get(&of).and_then(Weak::upgrade);
        known.unwrap_or_else(|| {
            let place = Arc::default();
            places.by.insert(of, Arc::downgrade(&place));
            place
        })
    }
}

/// The writer of this sink: the one that is held, if it made that, or one that has read the files as they are now.
pub(super) fn writer_of<'a>(sink: &Arc<Inner>, place: &'a mut Option<Held>) -> io::Result<&'a mut Writer> {
    place.take_if(|held| !Arc::ptr_eq(&held.by, sink));
    let held = match place {
        Some(held) => held,
        None => {
            let (disk, config) = (Arc::clone(&sink.disk), sink.config.clone());
            let now_ms = sink.clock.wall_ms();
            let unsettled = sink.queues.as_ref().map(|queues| Unsettled::of(queues, &sink.destination, now_ms));
            let mut lines = 0;
            let opened = Writer::open(disk, &sink.destination, config, &unsettled.unwrap_or_default(), &mut lines);
            sink.damaged.add(&sink.destination, lines);
            place.insert(Held { by: Arc::clone(sink), writer: opened? })
        }
    };
    Ok(&mut held.writer)
}

#[cfg(test)]
mod tests {
    use forebay::clock::ManualClock;
    use forebay::disk::mem::MemDisk;

    use super::super::FileSink;
    use super::*;
    use crate::config::FileConfig;

    #[test]
    fn who_is_gone_is_forgotten_and_who_is_there_is_not() {
        let writers = Writers::default();
        let sink = |id: &str| {
            let (disk, clock) = (Arc::new(MemDisk::new()), Arc::new(ManualClock::at(1)));
            FileSink::new(id, FileConfig::new("/out"), disk, clock).following(&writers)
        };
        let there: Vec<FileSink> = (0..20).map(|n| sink(&format!("there-{n}"))).collect();
        (0..1_000).for_each(|n| drop(sink(&format!("gone-{n}"))));
        let known = writers.places.lock().unwrap().by.len();
        assert!(known <= 20 * 3 + FORGOTTEN_LATE, "{known}");
        for (n, one) in there.iter().enumerate() {
            assert!(Arc::ptr_eq(&one.place, &sink(&format!("there-{n}")).place));
        }
    }
}
