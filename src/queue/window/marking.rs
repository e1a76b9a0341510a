//! Marking: fresh records are settled as dead-lettered and remembered, so that they can be had where they lie.
//!
//! What always holds: only records that nobody has had are marked, so no batch with a plan was ever sent with one of them, and
//! any that is made of them later is the first; while some are sent again nothing between them is marked.

use super::{Position, Window};
use crate::queue::balance::{Balance, Count, Settled};
use crate::queue::marked::{Marked, MarkedRange};
use std::ops::Range;

impl Window {
    /// What was marked, if anything ever was.
    pub(crate) fn marked(&self) -> Option<&Marked> {
        self.marked.as_deref()
    }

    /// The same, as it was when the last process ended.
    pub(crate) fn with_marked(mut self, marked: Marked) -> Self {
        self.marked = (!marked.is_empty()).then(|| Box::new(marked));
        self
    }

    /// Marks `offsets`, at the front of the fresh records, with the running totals at their ends. `None` when that changed
    /// since somebody looked, or there is no place for it.
    pub(crate) fn mark(&mut self, offsets: Range<u64>, totals: Range<u64>, at_ms: u64) -> Option<Count> {
        let is_fresh = self.fresh(Position::Only, offsets.end) == Some(offsets.clone());
        let marks = self.marked.as_ref().is_none_or(|marked| marked.has_room(offsets.start));
        let marks = marks && !self.is_sent_again(offsets.start);
        if !is_fresh || !marks || !(self.has_spare() || self.cursor.touches(&offsets)) {
            return None;
        }
        let total = |at: u64| Some(if at <= offsets.start { totals.start } else { totals.end });
        let count = self.settle(offsets.clone(), Settled::DeadLettered, total);
        assert_eq!(count.records, offsets.end - offsets.start, "there was a place for all of it");
        let (start, end, start_bytes) = (offsets.start, offsets.end, totals.start);
        let range = MarkedRange { start, end, start_bytes, bytes: count.bytes, at_ms };
        self.marked.get_or_insert_default().add(range);
        Some(count)
    }

    /// Whether the record at `offset` lies where all that is marked is sent again now.
    pub(crate) fn is_sent_again(&self, offset: u64) -> bool {
        self.marked.as_ref().is_some_and(|marked| marked.is_sent_again(offset))
    }

    /// The marked ranges in `offsets`, whole: from now on they are sent again, until [`end_again`](Self::end_again).
    pub(crate) fn send_again(&mut self, offsets: &Range<u64>) -> Vec<MarkedRange> {
        let Some(marked) = &mut self.marked else { return Vec::new() };
        let ranges: Vec<MarkedRange> = marked.ranges().iter().filter(|range| range.lies_in(offsets)).copied().collect();
        if let (Some(first), Some(last)) = (ranges.first(), ranges.last()) {
            marked.set_again(Some(first.start..last.end));
        }
        ranges
    }

    /// What is marked within `offsets`, in order.
    pub(crate) fn marked_in(&self, offsets: &Range<u64>) -> Vec<Range<u64>> {
        let ranges = self.marked.iter().flat_map(|marked| marked.ranges());
        let parts = ranges.map(|range| range.start.max(offsets.start)..range.end.min(offsets.end));
        parts.filter(|part| !part.is_empty()).collect()
    }

    /// Nothing is sent again any more.
    pub(crate) fn end_again(&mut self) {
        if let Some(marked) = &mut self.marked {
            marked.set_again(None);
        }
    }

    /// Takes out what was marked in `offsets` and sent again: this is what `became` of it.
    pub(crate) fn resolve_marked(&mut self, offsets: &Range<u64>, became: &Balance) -> Count {
        self.marked.as_mut().map(|marked| marked.resolve(offsets, became)).unwrap_or_default()
    }

    /// Takes out the ranges in `offsets` that are not sent again: this is what `became` of them.
    pub(crate) fn let_marked_go(&mut self, offsets: &Range<u64>, became: &Balance) -> Count {
        self.marked.as_mut().map(|marked| marked.let_go(offsets, became)).unwrap_or_default()
    }
}
