//! Which records of a destination may come again after a crash: those that its queues have not settled, and those of its
//! replays. Nothing else comes.

use std::collections::BTreeMap;
use std::ops::Range;

use forebay::{Cursor, Queue, Queues};

use super::record_id;
use super::sink::Origin;

/// What one destination's queues have not settled, as it was at some moment. By default nobody knows, and anything may be.
#[derive(Debug)]
pub struct Unsettled {
    /// By prefix of the record id.
    streams: BTreeMap<String, Vec<Part>>,
    anything: bool,
    reaches_back_to_ms: Option<u64>,
}

/// What one queue has not settled.
#[derive(Debug)]
struct Part {
    offsets: Range<u64>,
    cursor: Cursor,
    /// Its records were delivered once, and are to be so twice.
    replayed: bool,
}

impl Default for Unsettled {
    fn default() -> Self {
        Self { streams: BTreeMap::new(), anything: true, reaches_back_to_ms: None }
    }
}

impl Unsettled {
    /// All is settled.
    #[must_use]
    pub fn nothing() -> Self {
        Self { streams: BTreeMap::new(), anything: false, reaches_back_to_ms: None }
    }

    /// As it is now, at this time by the wall clock.
    #[must_use]
    pub fn of(queues: &Queues, destination: &str, now_ms: u64) -> Self {
        let (log, stats) = (queues.log(), queues.stats());
        let mut unsettled = Self::nothing();
        let lost_cursors = stats.pinned || !stats.floor_damage.is_empty();
        for queue in queues.of(destination) {
            let Some(stream) = log.stream(queue.stream()) else { continue }; // nothing was ever appended to it
            let lag = queue.lag();
            // A letter has the id of the record that it is about.
            unsettled.anything |= queue.stream().starts_with('!') && lag.records > 0;
            if lost_cursors && lag.records > 0 {
                // What can't be read may be of any age.
                unsettled.reaches_back_to(queue.oldest_ingest_ms().unwrap_or(0).min(now_ms));
            }
            let mut add = |queue: &Queue, offsets, replayed| {
                let origin = Origin { log: log.log_id(), stream, offsets };
                unsettled.add(&origin, queue.cursor(), replayed);
            };
            add(&queue, 0..u64::MAX, false);
            let again = queue.replay_under_way();
            if let Some((again, replay)) = again.as_ref().and_then(|again| Some((again, again.replay()?))) {
                add(again, replay.offsets, again.redrives().is_none());
            }
        }
        unsettled
    }

    /// Of these records those that this cursor has not settled; `replayed`: they were delivered once, and are to be so twice.
    pub fn add(&mut self, records: &Origin, cursor: Cursor, replayed: bool) {
        let parts = self.streams.entry(record_id::prefix(records)).or_default();
        parts.push(Part { offsets: records.offsets.clone(), cursor, replayed });
    }

    /// Cursors were lost, and the oldest record that comes again is of this time, or even older.
    pub fn reaches_back_to(&mut self, ms: u64) {
        self.reaches_back_to_ms = Some(self.reaches_back_to_ms.map_or(ms, |known| known.min(ms)));
    }

    /// The time of the oldest record that comes again, by the wall clock, where cursors were lost: those that are left say
    /// nothing of where the others stood.
    #[must_use]
    pub fn oldest_ms(&self) -> Option<u64> {
        self.reaches_back_to_ms
    }

    /// Whether the record of this id was never settled. What is no id is none.
    #[must_use]
    pub fn has(&self, id: &str) -> bool {
        self.any(id, |part| !part.replayed)
    }

    /// Whether it may come once more, be it for a replay.
    #[must_use]
    pub fn may_come(&self, id: &str) -> bool {
        self.anything || self.any(id, |_| true)
    }

    fn any(&self, id: &str, of: impl Fn(&Part) -> bool) -> bool {
        let Some((prefix, offset)) = record_id::parse(id) else { return false };
        let parts = self.streams.get(prefix).map_or(&[][..], Vec::as_slice);
        parts.iter().any(|part| of(part) && part.offsets.contains(&offset) && !part.cursor.is_settled(offset))
    }
}

#[cfg(test)]
mod tests {
    use std::io::IoSlice;
    use std::path::Path;
    use std::sync::Arc;
    use std::time::Duration;

    use forebay::clock::ManualClock;
    use forebay::disk::Disk;
    use forebay::disk::mem::MemDisk;
    use forebay::{
        BatchLimits, LogOptions, Much, Payload, QueueOptions, ReplayFrom, ReplayMode, ReplayRequest, Settled, Start,
    };

    use super::*;

    const NOW: u64 = 1_700_000_000_000;
    const LIMITS: BatchLimits = BatchLimits { records_max: 10, bytes_max: 1 << 20 };

    #[test]
    fn it_is_what_the_cursor_has_not_passed_and_what_was_marked_and_is_sent_again() {
        let (disk, clock) = (Arc::new(MemDisk::new()), Arc::new(ManualClock::at(NOW)));
        let (log, options) = (LogOptions::small(), QueueOptions::inline());
        let queues = Queues::open(disk, clock, Path::new("/data"), log, options).unwrap();
        let queue = queues.queue("archive", "acme-prod", Start::Earliest).unwrap();
        queues.queue("archive", "never-used", Start::Earliest).unwrap();
        for _ in 0..5 {
            queues.log().append_wait("acme-prod", vec![Payload { bytes: vec![0; 100], records: 10 }]).unwrap();
        }
        let id =
            |offset: u64| format!("{}-{}-{offset}", queues.log().log_id(), queues.log().stream("acme-prod").unwrap());
        let found = || {
            let unsettled = Unsettled::of(&queues, "archive", NOW);
            assert_eq!(unsettled.oldest_ms(), None, "no cursor was lost");
            assert!(!unsettled.has(&format!("{}-99-5", queues.log().log_id())) && !unsettled.has("nothing"));
            (0..60).filter(|offset| unsettled.has(&id(*offset))).collect::<Vec<u64>>()
        };
        let batches: Vec<_> = (0..3).map(|_| queue.next_batch(LIMITS).unwrap().unwrap()).collect();
        queue.settle(&batches[0], Settled::Delivered);
        queue.settle(&batches[2], Settled::Delivered);
        assert_eq!(found(), (10..20).chain(30..60).collect::<Vec<u64>>());
        // The second was sent; what nobody had yet is marked where it lies: it does not come again by itself...
        queue.settle(&batches[1], Settled::Delivered);
        queue.mark_oldest(Much::Bytes(100)).unwrap();
        assert_eq!(found(), (40..60).collect::<Vec<u64>>());
        // ... but when it is sent again, until that queue has settled it.
        let again = queues.redrive("archive", "acme-prod", 30..40).unwrap().expect("ten are marked");
        assert_eq!(found(), (30..60).collect::<Vec<u64>>());
        again.settle(&again.next_batch(LIMITS).unwrap().unwrap(), Settled::Delivered);
        assert_eq!(found(), (40..60).collect::<Vec<u64>>());
    }

    #[test]
    fn a_replay_is_known_apart_and_lost_cursors_reach_back_to_the_oldest_record() {
        let (disk, clock) = (Arc::new(MemDisk::new()), Arc::new(ManualClock::at(NOW)));
        let open = || {
            let (disk, clock) = (Arc::clone(&disk), Arc::clone(&clock));
            Queues::open(disk, clock, Path::new("/data"), LogOptions::small(), QueueOptions::inline()).unwrap()
        };
        let queues = open();
        let queue = queues.queue("archive", "acme-prod", Start::Earliest).unwrap();
        queues.log().append_wait("acme-prod", vec![Payload { bytes: vec![0; 100], records: 10 }]).unwrap();
        let id = |queues: &Queues, offset: u64| {
            format!("{}-{}-{offset}", queues.log().log_id(), queues.log().stream("acme-prod").unwrap())
        };
        queue.settle(&queue.next_batch(LIMITS).unwrap().unwrap(), Settled::Delivered);
        let found = |queues: &Queues| {
            let unsettled = Unsettled::of(queues, "archive", NOW + 500);
            let id = id(queues, 5);
            (unsettled.has(&id), unsettled.may_come(&id), unsettled.oldest_ms())
        };
        assert_eq!(found(&queues), (false, false, None));
        let request = ReplayRequest { from: ReplayFrom::Earliest, to: None, mode: ReplayMode::Fill };
        drop(queues.replay("archive", "acme-prod", request).unwrap());
        assert_eq!(found(&queues), (false, true, None));
        drop(queue);
        queues.close().unwrap();
        drop(queues);
        let floor = disk.open(Path::new("/data/floor")).unwrap();
        let len = floor.len().unwrap();
        floor.write_all_at(&[IoSlice::new(&vec![0xff; len as usize])], 0).unwrap();
        clock.advance(Duration::from_millis(500));
        let queues = open();
        queues.queue("archive", "acme-prod", Start::Earliest).unwrap();
        assert_eq!(found(&queues), (true, true, Some(NOW)));
    }
}
