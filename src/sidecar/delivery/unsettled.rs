//! Which records of a destination its queues have not settled: what may come again after a crash, and what is sent for the
//! first time. Nothing else comes but a replay that somebody asked for.

use std::collections::BTreeMap;
use std::ops::Range;

use forebay::{Cursor, Queue, Queues};

use super::record_id;
use super::sink::Origin;

/// The records that one destination's queues have not settled, as it was at some moment.
#[derive(Debug, Default)]
pub struct Unsettled {
    /// By prefix of the record id: the queue for the stream, and that which sends again what was marked in it.
    streams: BTreeMap<String, Vec<(Range<u64>, Cursor)>>,
}

impl Unsettled {
    /// As it is now. Replays are left out: their records were delivered once, and are to stand there twice.
    #[must_use]
    pub fn of(queues: &Queues, destination: &str) -> Self {
        let (log, mut unsettled) = (queues.log(), Self::default());
        for queue in queues.of(destination) {
            let Some(stream) = log.stream(queue.stream()) else { continue }; // nothing was ever appended to it
            let mut add = |queue: &Queue, offsets: Range<u64>| {
                let origin = Origin { log: log.log_id(), stream, offsets };
                unsettled.add(&origin, queue.cursor());
            };
            add(&queue, 0..u64::MAX);
            let again = queue.replay_under_way();
            if let Some((again, offsets)) = again.as_ref().and_then(|again| Some((again, again.redrives()?))) {
                add(again, offsets);
            }
        }
        unsettled
    }

    /// Of these records those that this cursor has not settled.
    pub fn add(&mut self, records: &Origin, cursor: Cursor) {
        let queues = self.streams.entry(record_id::prefix(records)).or_default();
        queues.push((records.offsets.clone(), cursor));
    }

    /// Whether the record of this id is one of them. What is no id is none.
    #[must_use]
    pub fn has(&self, id: &str) -> bool {
        let Some((prefix, offset)) = record_id::parse(id) else { return false };
        let queues = self.streams.get(prefix).map_or(&[][..], Vec::as_slice);
        queues.iter().any(|(offsets, cursor)| offsets.contains(&offset) && !cursor.is_settled(offset))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use forebay::clock::ManualClock;
    use forebay::disk::mem::MemDisk;
    use forebay::{BatchLimits, LogOptions, Much, Payload, QueueOptions, Settled, Start};

    use super::*;

    const LIMITS: BatchLimits = BatchLimits { records_max: 10, bytes_max: 1 << 20 };

    #[test]
    fn it_is_what_the_cursor_has_not_passed_and_what_was_marked_and_is_sent_again() {
        let (disk, clock) = (Arc::new(MemDisk::new()), Arc::new(ManualClock::at(1_700_000_000_000)));
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
            let unsettled = Unsettled::of(&queues, "archive");
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
}
