//! Where a [`Window`] hands out from: at one position, the oldest first, or at two, so that what comes in now need not wait
//! behind what is old.
//!
//! Both draw on the one set of what is settled and open, so a record is handed out once, whichever it comes from. What always
//! holds: a record lies below the place where the queue was parted or from it on, and so belongs to one of the two; that place
//! only moves forward, and is forgotten once all below it is settled. Nothing of this is durable: where it is
//! forgotten sooner, records are handed out in another order, and nothing else.

use super::Window;
use crate::queue::balance::{Count, End};
use crate::queue::cursor::Cursor;
use std::ops::Range;

/// Which records a handle of a queue hands out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Position {
    /// All, the oldest first.
    #[default]
    Only,
    /// Those below the place where the queue was parted; all of a queue that is not.
    Backlog,
    /// Those from there on; none of a queue that is not.
    Live,
}

/// The second read position.
#[derive(Debug)]
pub(super) struct Live {
    /// Where the queue was parted.
    from: End,
    /// Everything from there up to here is settled, open or left.
    next: u64,
}

impl Window {
    /// Parts the queue at `from`: what lies below it is the backlog. Does nothing where it would move back, or nothing would lie
    /// below.
    pub(crate) fn part(&mut self, from: End) {
        let is_ahead = self.parted_at().is_none_or(|at| at.offset < from.offset);
        if is_ahead && self.cursor.low < from.offset {
            self.live = Some(Box::new(Live { from, next: from.offset }));
        }
    }

    /// There is one position again.
    pub(crate) fn join(&mut self) {
        self.live = None;
    }

    /// Where the queue was parted, and the stream's running total there; nowhere once all below is settled.
    pub(crate) fn parted_at(&self) -> Option<End> {
        self.live.as_ref().map(|live| live.from).filter(|at| self.cursor.low < at.offset)
    }

    /// There is one position again if there is nothing below the second any more.
    pub(crate) fn join_where_they_met(&mut self) {
        if self.parted_at().is_none() {
            self.join();
        }
    }

    /// Where batches begin that a position hands out.
    pub(super) fn reach(&self, position: Position) -> Range<u64> {
        match (position, self.parted_at()) {
            (Position::Only, _) | (Position::Backlog, None) => 0..u64::MAX,
            (Position::Backlog, Some(at)) => 0..at.offset,
            (Position::Live, Some(at)) => at.offset..u64::MAX,
            (Position::Live, None) => u64::MAX..u64::MAX,
        }
    }

    /// From `at` on there may be fresh records again.
    pub(super) fn look_from(&mut self, at: u64) {
        self.next = self.next.min(at);
        if let Some(live) = &mut self.live {
            live.next = live.next.min(at.max(live.from.offset));
        }
    }

    /// The first run of records below `tail` in the position's reach that is neither settled, open nor left. Remembers how far
    /// it looked.
    pub(super) fn fresh(&mut self, position: Position, tail: u64) -> Option<Range<u64>> {
        let reach = self.reach(position);
        if reach.is_empty() {
            return None;
        }
        let tail = tail.min(reach.end);
        let looked = match (position, &mut self.live) {
            (Position::Live, Some(live)) => &mut live.next,
            _ => &mut self.next,
        };
        let mut next = (*looked).max(self.cursor.low).max(reach.start);
        let end = loop {
            let settled = self.cursor.settled.iter().find(|range| range.end > next);
            let open = self.open.range(..=next).next_back().filter(|(_, batch)| batch.end > next);
            let left = self.left.range(..=next).next_back().filter(|(_, planned)| planned.end > next);
            let taken = [
                settled.filter(|range| range.start <= next).map(|range| range.end),
                open.map(|(_, batch)| batch.end),
                left.map(|(_, planned)| planned.end),
            ];
            if let Some(end) = taken.into_iter().flatten().max() {
                next = end;
                continue;
            }
            let ends = [
                Some(tail),
                settled.map(|range| range.start),
                self.open.range(next..).next().map(|(start, _)| *start),
                self.left.range(next..).next().map(|(start, _)| *start),
                self.damaged.as_ref().and_then(|damaged| damaged.range(next + 1..).next().copied()),
            ];
            break ends.into_iter().flatten().min().expect("the tail is one of them");
        };
        *looked = next;
        (next < end).then_some(next..end)
    }

    /// The same, and the running totals at its ends where they are known.
    pub(crate) fn fresh_known(&mut self, position: Position, tail: End) -> Option<(Range<u64>, [Option<u64>; 2])> {
        let run = self.fresh(position, tail.offset)?;
        let cursor = &self.cursor;
        let ((below, below_bytes), above) = cursor.around(&run);
        let before = self.open.range(..run.start).next_back().filter(|(_, batch)| batch.end == run.start);
        let parted = |at: u64| self.parted_at().filter(|parted| parted.offset == at).map(|parted| parted.bytes);
        let start = (below == run.start).then_some(below_bytes);
        let start = start.or_else(|| before.and_then(|(_, batch)| batch.marks.bytes_at(run.start)));
        let start = start.or_else(|| parted(run.start));
        let end = (tail.offset == run.end).then_some(tail.bytes);
        let end = end.or_else(|| above.filter(|(at, _)| *at == run.end).map(|(_, bytes)| bytes));
        let end = end.or_else(|| self.open.get(&run.end).and_then(|batch| batch.marks.bytes_at(run.end)));
        let end = end.or_else(|| parted(run.end));
        Some((run, [start, end]))
    }

    /// The first record that nobody had yet, of those at the second position if there is one; and how many places are taken by
    /// settled ranges and by batches that may leave one.
    pub(crate) fn front(&mut self, tail: u64) -> Option<(u64, usize)> {
        self.join_where_they_met();
        let position = if self.live.is_some() { Position::Live } else { Position::Only };
        Some((self.fresh(position, tail)?.start, self.occupied()))
    }

    /// When the record at `offset` was taken in, if a batch that is handed out tells.
    pub(crate) fn open_ms(&self, offset: u64) -> Option<u64> {
        let (_, batch) = self.open.range(..=offset).next_back()?;
        batch.marks.ingest_ms(offset)
    }

    /// Whether something waits at a position that was handed out or planned before.
    pub(crate) fn comes_again(&mut self, position: Position, tail: u64) -> bool {
        self.drop_settled_plans(position);
        let reach = self.reach(position);
        self.open.range(reach.clone()).any(|(_, batch)| batch.can_come_again())
            || self.left.range(reach).next().is_some_and(|(_, planned)| planned.end <= tail)
    }

    /// Forgets plans in a position's reach that were settled whole before they were handed out.
    pub(super) fn drop_settled_plans(&mut self, position: Position) {
        while let Some((&start, planned)) = self.left.range(self.reach(position)).next() {
            if !self.cursor.unsettled(start..planned.end).is_empty() {
                break;
            }
            self.left.remove(start);
        }
    }
}

/// What is not settled in the reach of a position, of a queue that was parted there.
pub(crate) fn pending_at(cursor: &Cursor, parted: Option<End>, position: Position, tail: End) -> Count {
    let all = cursor.pending(tail);
    let Some(at) = parted.filter(|_| position != Position::Only) else {
        return if position == Position::Live { Count::default() } else { all };
    };
    let unsettled = cursor.unsettled(at.offset..tail.offset.max(at.offset));
    // Of a range that reaches across, what lies behind.
    let settled = cursor.settled.iter().filter(|range| range.end > at.offset);
    let settled =
        settled.map(|range| (range.start_bytes + range.bytes).saturating_sub(range.start_bytes.max(at.bytes)));
    let live = Count {
        records: unsettled.iter().map(|part| part.end - part.start).sum(),
        bytes: tail.bytes.saturating_sub(at.bytes).saturating_sub(settled.sum()),
    };
    match position {
        Position::Live => live,
        _ => Count { records: all.records.saturating_sub(live.records), bytes: all.bytes.saturating_sub(live.bytes) },
    }
}
