//! Plans that are written again: which may be, and where they lie then.
//!
//! A batch that is being split, or that may have been, keeps the plan that it has: behind its halves it would be taken for what
//! came after them.

use super::{Plan, Window};
use std::ops::Range;

impl Window {
    /// The batches whose plans lie below `before` and may be written again, in order.
    pub(crate) fn plans_below(&self, before: u64) -> Vec<(Range<u64>, Plan)> {
        let open = self.open.iter().filter(|(_, batch)| batch.split.is_none());
        let open = open.filter_map(|(start, batch)| Some((*start..batch.end, batch.plan?)));
        let left = self.left.iter().map(|(start, planned)| (*start..planned.end, planned.plan));
        open.chain(left).filter(|(_, plan)| plan.offset < before).collect()
    }

    /// The plan of the batch with these boundaries, if it still lies there and may be written again.
    pub(crate) fn plan_at(&self, offsets: &Range<u64>, at: u64) -> Option<Plan> {
        let open = self.open.get(&offsets.start).filter(|batch| batch.end == offsets.end && batch.split.is_none());
        let left = self.left.get(&offsets.start).filter(|planned| planned.end == offsets.end);
        let plan = open.and_then(|batch| batch.plan).or_else(|| left.map(|planned| planned.plan));
        plan.filter(|plan| plan.offset == at)
    }

    /// The plan of the batch with these boundaries was written again, and lies there instead of at `from`. Nothing happens if the
    /// batch is no more.
    pub(crate) fn moved(&mut self, offsets: &Range<u64>, from: u64, to: u64) {
        let open = self.open.get_mut(&offsets.start).filter(|batch| batch.end == offsets.end);
        let left = self.left.get_mut(offsets.start).filter(|planned| planned.end == offsets.end);
        let plans = [open.and_then(|batch| batch.plan.as_mut()), left.map(|planned| &mut planned.plan)];
        for plan in plans.into_iter().flatten().filter(|plan| plan.offset == from) {
            plan.offset = to;
        }
    }
}
