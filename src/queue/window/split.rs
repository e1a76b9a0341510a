//! Splitting an open batch in two, each a batch of its own with a plan of its own.
//!
//! A split is asked for, made durable by the caller, and then done or failed. From the first on it has its place among
//! ranges and batches, so that what is durable always fits. A split that failed may be durable all the same: until it
//! is asked for again and done, the batch must not be sent whole.

use super::{OpenBatch, Plan, Split, Window};
use crate::queue::balance::Settled;
use std::ops::Range;

/// Why a batch is not split.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoSplit {
    /// It is settled, given back, or being split.
    NotOut,
    /// The window has no place for another batch.
    NoRoom,
}

impl Window {
    /// Takes the place for a second half of the open batch with these boundaries. The settings revision and whether the
    /// batch has a plan are as before.
    pub(crate) fn begin_split(&mut self, offsets: &Range<u64>, at: u64) -> Result<Option<Plan>, NoSplit> {
        assert!(offsets.start < at && at < offsets.end, "both halves hold a record");
        let spare = self.has_room_to_split(offsets.start);
        let batch = self.open.get_mut(&offsets.start).filter(|batch| batch.end == offsets.end && !batch.given_back);
        let batch = batch.ok_or(NoSplit::NotOut)?;
        match batch.split {
            Some(Split { on_its_way: true, .. }) => return Err(NoSplit::NotOut),
            None if !spare => return Err(NoSplit::NoRoom),
            before => batch.split = Some(Split { at, on_its_way: true, doubtful: before.is_some() }),
        }
        Ok(batch.plan)
    }

    /// The halves are durable, or need no plans: they are open batches from now on, given back if the whole was meanwhile.
    /// Nothing happens if the whole is settled by now. `total` is the running total at `at`.
    pub(crate) fn split(&mut self, offsets: &Range<u64>, at: u64, total: u64, plans: [Option<Plan>; 2]) {
        if self.open.get(&offsets.start).is_none_or(|batch| batch.end != offsets.end || batch.split.is_none()) {
            return;
        }
        let OpenBatch { given_back, marks, held, .. } = self.open.remove(&offsets.start).expect("found above");
        for (half, plan) in [offsets.start..at, at..offsets.end].into_iter().zip(plans) {
            let held = held.iter().filter_map(|part| part.within(&half, total)).collect();
            let marks = marks.of(&half, (at, total));
            let batch = OpenBatch { end: half.end, given_back, plan, plan_asked: false, marks, split: None, held };
            self.open.insert(half.start, batch);
            // A half all of whose records are settled needs no place.
            self.settle_inside(half.start, half.start..half.start, &Settled::Delivered.into(), &|_| None);
        }
    }

    /// The split could not be made durable, or not for certain if so: then it stays on the batch.
    pub(crate) fn fail_split(&mut self, offsets: &Range<u64>, maybe_durable: bool) {
        if let Some(batch) = self.open.get_mut(&offsets.start).filter(|batch| batch.end == offsets.end) {
            batch.split = (batch.split.map(|split| Split {
                on_its_way: false,
                doubtful: split.doubtful || maybe_durable,
                ..split
            }))
            .filter(|split| split.doubtful);
        }
    }

    /// Where the open batch with these boundaries was to be split, if it is not known whether that is durable.
    pub(crate) fn failed_split(&self, offsets: &Range<u64>) -> Option<u64> {
        let batch = self.open.get(&offsets.start).filter(|batch| batch.end == offsets.end)?;
        batch.split.filter(|split| !split.on_its_way).map(|split| split.at)
    }

    /// The running total at an offset of the open batch that starts at `start`, if its marks say it.
    pub(crate) fn marked_total(&self, start: u64, offset: u64) -> Option<u64> {
        self.open.get(&start)?.marks.bytes_at(offset)
    }
}
