//! The balance sheet of each destination, over all of its queues and its letters'. Only looks.

use std::collections::BTreeMap;
use std::sync::Arc;

use forebay::{Balance, Queue};

use crate::delivery::sheet::{MARKED, sheet};
use crate::letters::{Letters, waiting};

/// By destination.
pub(super) type Sheets = BTreeMap<Arc<str>, Balance>;

/// The sheets of those destinations that are `wanted`. Replays have books of their own and are left
/// out, save those of what was given up.
pub(super) fn of(queues: &[Queue], letters: Option<&Letters>, wanted: impl Fn(&str) -> bool) -> Sheets {
    let mut balances: BTreeMap<Arc<str>, Vec<(Arc<str>, Balance)>> = BTreeMap::new();
    for queue in queues {
        match queue.replay() {
            None if wanted(queue.destination()) => {
                let books = balances.entry(queue.destination_name()).or_default();
                books.push((queue.stream_name(), queue.balance()));
                let (pending, marked) = waiting(queue);
                if marked != Balance::default() {
                    // What is sent again is pending, in the books of its replay.
                    books.push((MARKED.into(), Balance { pending, ..marked }));
                }
            }
            Some(replay) if queue.redrives().is_some() && wanted(&replay.of) => {
                balances.entry(replay.of).or_default().push((queue.stream_name(), queue.balance()));
            }
            _ => {}
        }
    }
    let sheet = |(destination, queues): (Arc<str>, Vec<(Arc<str>, Balance)>)| {
        let in_doubt = letters.map(|letters| letters.in_doubt(&destination)).unwrap_or_default();
        let sheet = sheet(queues.iter().map(|(stream, balance)| (&**stream, *balance)), in_doubt);
        (destination, sheet)
    };
    balances.into_iter().map(sheet).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use forebay::clock::ManualClock;
    use forebay::disk::mem::MemDisk;
    use forebay::{BatchLimits, LogOptions, Much, Payload, QueueOptions, Queues, Settled, Start};

    use super::*;

    /// In records: pending, dead-lettered, delivered, purged.
    fn told(queues: &Queues) -> [u64; 4] {
        let sheets = of(&queues.all(), None, |destination| destination == "hook");
        let [(_, sheet)] = &sheets.iter().collect::<Vec<_>>()[..] else { panic!("{sheets:?}") };
        assert!(sheet.closes() && sheet.accepted.records == 100, "{sheet:?}");
        [sheet.pending, sheet.dead_lettered, sheet.delivered, sheet.purged].map(|count| count.records)
    }

    #[test]
    fn what_is_given_up_where_it_lies_stands_in_the_sheet_once_whatever_becomes_of_it() {
        let (disk, clock) = (Arc::new(MemDisk::new()), Arc::new(ManualClock::at(7_200_000)));
        let queues =
            Queues::open(disk, clock, Path::new("/data"), LogOptions::small(), QueueOptions::inline()).unwrap();
        queues.log().append_wait("prod", vec![Payload { bytes: vec![0; 1_000], records: 100 }]).unwrap();
        let queue = queues.queue("hook", "prod", Start::Earliest).unwrap();
        queue.mark_oldest(Much::Bytes(300)).unwrap();
        assert_eq!(told(&queues), [70, 30, 0, 0]);
        queue.settle_range(30..40, Settled::Delivered);
        queue.mark_oldest(Much::Bytes(200)).unwrap();
        assert_eq!(told(&queues), [40, 50, 10, 0]);
        let redrive = queues.redrive("hook", "prod", 0..50).unwrap().unwrap();
        assert_eq!(told(&queues), [70, 20, 10, 0], "what is sent again is pending");
        let limits = BatchLimits { records_max: 12, bytes_max: u64::MAX };
        let batch = redrive.next_batch(limits).unwrap().unwrap();
        redrive.settle(&batch, Settled::Delivered);
        assert_eq!(told(&queues), [58, 20, 22, 0]);
        assert_eq!(queue.let_marked_go(0..100, Settled::Purged).records, 20);
        assert_eq!(told(&queues), [58, 0, 22, 20]);
        redrive.settle_range(0..30, Settled::Delivered);
        (0..3).for_each(|_| queues.tick().unwrap());
        assert_eq!((told(&queues), queues.replays().len()), ([40, 0, 40, 20], 0));
    }
}
