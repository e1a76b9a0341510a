//! Queues as one would keep them on paper: what was acknowledged, planned and settled, and what a crash may leave of it.
//!
//! What it finds wrong is a panic: whoever drives it says which case it was.

use crate::queues::{ANY, check_content, claim, half_id};
use forebay::{Batch, Cursor, Queue, Queues, Settled, Start};
use std::collections::BTreeMap;
use std::ops::Range;

/// What happened, as those outside know it.
#[derive(Debug, Clone, Default)]
pub struct Model {
    /// Per stream, the content of each acknowledged record.
    pub acked: BTreeMap<&'static str, BTreeMap<u64, u64>>,
    /// What is known of each queue, by destination and stream.
    pub queues: BTreeMap<(&'static str, &'static str), QueueModel>,
    /// Appends that were asked for and not answered; of a stream that is not here nobody knows.
    pub(crate) asked: BTreeMap<&'static str, Vec<Range<u64>>>,
    pub(crate) content: u64,
}

/// What is known of one queue.
#[derive(Debug, Clone, Default)]
pub struct QueueModel {
    /// Settled by us, and how, so that cursor and books may say so.
    pub(crate) settled: BTreeMap<u64, Settled>,
    /// What the last tick that succeeded made durable.
    pub(crate) durable: Cursor,
    pub(crate) out: Vec<Batch>,
    /// Planned and acknowledged as such, by first offset. Each comes again as it stood until it is settled.
    pub(crate) planned: BTreeMap<u64, (Range<u64>, String)>,
    /// Splits that failed, and where: after a crash such a batch may come whole or in halves.
    pub(crate) maybe_split: Vec<(Range<u64>, u64)>,
    /// Every id that ever was, and its records.
    pub(crate) ids: BTreeMap<String, Range<u64>>,
}

impl QueueModel {
    /// Settles these as far as they are not yet: the first word about a record stands.
    pub(crate) fn settle(&mut self, offsets: Range<u64>, as_: Settled) {
        offsets.for_each(|offset| _ = self.settled.entry(offset).or_insert(as_));
    }

    /// A plan is durable: it comes again as it stands, and its id is never another one's.
    pub(crate) fn plan(&mut self, offsets: Range<u64>, id: &str) {
        let before = self.ids.insert(id.to_owned(), offsets.clone());
        assert!(before.is_none_or(|before| before == offsets), "{id} is given to other records: {offsets:?}");
        self.planned.insert(offsets.start, (offsets, id.to_owned()));
    }

    /// The books say of every record what became of it, and nothing is missing.
    pub(crate) fn check_books(&self, queue: &Queue) {
        use Settled::{DeadLettered, Delivered, Expired, Filtered, Held, Lost, Purged};
        let balance = queue.balance();
        let place = format!("{}/{}: {balance:?}", queue.destination(), queue.stream());
        let told = [
            (Delivered, balance.delivered),
            (DeadLettered, balance.dead_lettered),
            (Filtered, balance.filtered),
            (Expired, balance.expired),
            (Purged, balance.purged),
            (Lost, balance.lost),
            (Held, balance.held),
        ];
        for (as_, count) in told {
            let known = self.settled.values().filter(|known| **known == as_).count();
            assert_eq!(count.records, known as u64, "{as_:?} of {place}");
        }
        let (tail, settled) = (queue.lag().durable_tail, self.settled.len() as u64);
        assert_eq!((balance.accepted.records, balance.pending.records), (tail, tail - settled), "{place}");
        assert!(balance.closes(), "{place}");
    }
}

impl Model {
    /// Records of `stream` are acknowledged, from the offset `first` on.
    pub(crate) fn acknowledge(&mut self, stream: &'static str, first: u64, contents: Range<u64>) {
        self.asked.entry(stream).and_modify(|asked| asked.retain(|asked| *asked != contents));
        let acked = self.acked.entry(stream).or_default();
        for (offset, content) in (first..).zip(contents) {
            assert_eq!(acked.insert(offset, content), None, "{stream}: offset {offset} is given twice");
        }
    }

    /// Checks what a crash left against what must and may be left, and goes on from there. Says how many records it asked for.
    pub fn check_after_crash(&mut self, queues: &Queues) -> u64 {
        let stats = queues.stats();
        assert_eq!((stats.cursors_ahead, stats.cursors_below, stats.plans_lost), (0, 0, 0), "{stats:?}");
        assert_eq!((stats.floor_damage, stats.pinned), (vec![], false));
        let mut lows: BTreeMap<&str, u64> = BTreeMap::new();
        for (&(destination, stream), model) in &mut self.queues {
            let queue = queues.queue(destination, stream, Start::Earliest).expect("it is there");
            let cursor = queue.cursor();
            lows.entry(stream).and_modify(|low| *low = cursor.low.min(*low)).or_insert(cursor.low);
            assert!(cursor.covers(&model.durable), "{destination}/{stream}: {cursor:?} after {:?}", model.durable);
            let settled = |offset| cursor.is_settled(offset);
            assert!((0..cursor.end()).filter(|o| settled(*o)).all(|o| model.settled.contains_key(&o)), "{cursor:?}");
            model.settled.retain(|offset, _| settled(*offset));
            model.check_books(&queue);

            // Open plans come first and as they stood; those whose answer the crash swallowed may come, too.
            let (mut missing, mut resumed) = (std::mem::take(&mut model.planned), Vec::new());
            missing.retain(|_, (offsets, _)| !offsets.clone().all(&settled));
            while let Some(batch) = claim(&queue, ANY) {
                assert!(batch.planned || missing.is_empty(), "plans come first: {missing:?} not before {batch:?}");
                check_content(&self.acked[stream], self.asked.get(stream), &batch);
                if let Some((offsets, id)) = missing.remove(&batch.offsets.start) {
                    if model.maybe_split.contains(&(offsets.clone(), batch.offsets.end)) {
                        // The first half: the second one must come as well.
                        let second = batch.offsets.end..offsets.end;
                        missing.insert(second.start, (second.clone(), half_id(&batch, &second)));
                    } else {
                        assert_eq!((&offsets, &id), (&batch.offsets, &batch.id));
                    }
                }
                let before = model.ids.get(&batch.id);
                assert!(before.is_none_or(|before| *before == batch.offsets), "an id of other records: {batch:?}");
                if batch.planned {
                    model.plan(batch.offsets.clone(), &batch.id);
                }
                resumed.push(batch);
            }
            // Of a batch whose first half is settled only the second one comes.
            let second = |(split, at): &(Range<u64>, u64), whole: &Range<u64>| {
                split == whole && resumed.iter().any(|half| half.offsets == (*at..whole.end))
            };
            missing.retain(|_, (whole, _)| !model.maybe_split.iter().any(|split| second(split, whole)));
            assert!(missing.is_empty(), "{destination}/{stream}: plans lost: {missing:?}");
            let comes = |offset: u64| resumed.iter().any(|batch| batch.offsets.contains(&offset));
            let acked = self.acked[stream].range(cursor.low..).map(|(offset, _)| *offset);
            let lost: Vec<u64> = acked.filter(|offset| !settled(*offset) && !comes(*offset)).collect();
            assert!(lost.is_empty(), "{destination}/{stream}: acknowledged and lost: {lost:?}");
            let order: Vec<_> = resumed.iter().map(|batch| (!batch.planned, batch.offsets.start)).collect();
            assert!(order.is_sorted(), "{destination}/{stream}: out of order: {order:?}");
            resumed.iter().for_each(|batch| queue.release(batch));
            (model.durable, model.out, model.maybe_split) = (cursor.clone(), Vec::new(), Vec::new());
        }
        lows.into_iter().map(|(stream, low)| self.acked[stream].range(low..).count() as u64).sum()
    }

    /// All cursors are durable as they stand.
    pub fn after_tick(&mut self, queues: &Queues) {
        for (&(destination, stream), model) in &mut self.queues {
            model.durable = queues.queue(destination, stream, Start::Earliest).expect("it is there").cursor();
        }
    }
}
