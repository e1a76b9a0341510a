//! What of one stream is handed out to one destination, given back, and settled: the books of that are kept here too,
//! so that cursor and balance move together or not at all.
//!
//! Pure: reads nothing, knows no time. Bytes come from the caller as the stream's running total at an offset.
//!
//! What always holds:
//! - An offset is settled once; settling it again changes nothing.
//! - A batch that was handed out keeps its boundaries until it is settled, whatever is given back in between; but who has
//!   it, and has not planned it, may keep less of it.
//! - Settled ranges and open batches together are at most [`SETTLED_RANGES_MAX`]: an open batch can leave one range
//!   behind, so no settle of a whole batch ever finds the cursor full. The last places are for the batch at the low mark
//!   alone, which leaves no range, and for its halves: so whatever fills the others, there is always a batch that can be
//!   handed out, split as often as it takes, and settled. While there is no room a part of a batch that would make one range too many waits inside its batch for
//!   the rest, and one outside of batches is left as it is.
//!
//! ```text
//!   settled      open     settled  open       fresh
//!   ───────────┐┌───────┐┌───────┐┌────────┐
//!              low                          next                 tail
//! ```

mod left;
mod marking;
mod moving;
mod position;
mod settling;
mod split;
mod verdict;

use left::Left;
use position::Live;
pub use position::Position;
pub(crate) use position::pending_at;
use settling::Held;
pub(crate) use split::NoSplit;
pub(crate) use verdict::Verdict;

use super::balance::Books;
use super::cursor::Cursor;
use super::limits::{PLACES, SETTLED_RANGES_MAX};
use super::marked::Marked;
use super::marks::Marks;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// What a queue knows of its stream, apart from the records.
#[derive(Debug)]
pub(crate) struct Window {
    cursor: Cursor,
    books: Books,
    /// Batches that were handed out and are not settled, by first offset; they never overlap.
    open: BTreeMap<u64, OpenBatch>,
    /// Plans that a crash left, not yet handed out again, by first offset. They overlap neither each other nor `open`.
    left: Left,
    /// Everything below is settled, open or left: fresh batches of the first position start here or above.
    next: u64,
    /// The second read position. A label, kept nowhere: what is settled and open says all that must not be forgotten.
    live: Option<Box<Live>>,
    /// Where damage begins for which there was no place among the settled ranges: fresh batches end before it, so that
    /// it comes to lie at the low mark, where it needs none.
    #[expect(clippy::box_collection, reason = "a word instead of three in every idle queue, and almost always absent")]
    damaged: Option<Box<BTreeSet<u64>>>,
    /// What was given up where it lies; almost always absent.
    marked: Option<Box<Marked>>,
}

/// A batch that was handed out.
#[derive(Debug)]
struct OpenBatch {
    end: u64,
    given_back: bool,
    plan: Option<Plan>,
    /// A plan of it was submitted: from then on its boundaries may be durable, also where that failed.
    plan_asked: bool,
    marks: Marks,
    /// Where it is to be split, from when that is asked for until it is known to be durable.
    split: Option<Split>,
    /// Settled parts for which the cursor had no room. Not in the cursor nor in the books before the batch is whole.
    held: Vec<Held>,
}

/// A split that is under way, or failed and may be durable all the same.
#[derive(Debug, Clone, Copy)]
struct Split {
    at: u64,
    on_its_way: bool,
    /// It may be durable, there or where it was asked for before.
    doubtful: bool,
}

/// Boundaries that are durable.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Planned {
    end: u64,
    plan: Plan,
}

/// Where a batch's plan lies, and the settings it was made under.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Its offset in the stream of plans.
    pub(crate) offset: u64,
    /// The revision of the destination's settings.
    pub(crate) revision: u32,
}

/// What to hand out next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Offer {
    /// Exactly these records again: the batch was given back, or planned before a crash.
    Again { offsets: Range<u64>, plan: Option<Plan> },
    /// Fresh records: any number from the front of this range.
    Fresh(Range<u64>),
    /// Nothing waits.
    Nothing,
    /// Records wait, but the window is full: settle a batch first.
    Full,
}

impl OpenBatch {
    /// The running total at an offset, if its marks say it, or what waits in it for a place.
    fn total_at(&self, offset: u64) -> Option<u64> {
        self.marks.bytes_at(offset).or_else(|| self.held.iter().find_map(|part| part.total_at(offset)))
    }

    /// Whether nobody has it, and nothing is about to change its boundaries.
    fn can_come_again(&self) -> bool {
        self.given_back && !self.split.is_some_and(|split| split.on_its_way)
    }
}

impl Window {
    pub(crate) fn new(cursor: Cursor, books: Books) -> Self {
        let next = cursor.low;
        Self {
            cursor,
            books,
            open: BTreeMap::new(),
            left: Left::default(),
            next,
            live: None,
            damaged: None,
            marked: None,
        }
    }

    pub(crate) fn cursor(&self) -> &Cursor {
        &self.cursor
    }

    pub(crate) fn books(&self) -> &Books {
        &self.books
    }

    /// Takes over a plan that was open when the last process ended; they come in the order in which they were made. One
    /// that overlaps earlier ones replaces them: a batch was split, or given up for damage and planned anew. Says how
    /// many it replaced.
    pub(crate) fn adopt(&mut self, offsets: Range<u64>, plan: Plan) -> usize {
        assert!(self.open.is_empty(), "plans are adopted before anything is handed out");
        if offsets.is_empty() {
            return 0;
        }
        let before = self.left.range(..offsets.start).next_back().filter(|(_, left)| left.end > offsets.start);
        let overlapped = before.into_iter().chain(self.left.range(offsets.clone())).map(|(start, _)| *start);
        let overlapped: Vec<u64> = overlapped.collect();
        let replaced = overlapped.iter().filter_map(|start| Some((*start, self.left.remove(*start)?)));
        let replaced = replaced.filter(|(start, left)| (*start, left.end) != (offsets.start, offsets.end)).count();
        if !self.cursor.unsettled(offsets.clone()).is_empty() {
            self.left.insert(offsets.start, Planned { end: offsets.end, plan });
        }
        replaced
    }

    /// Plans of the last process that are still to be handed out.
    pub(crate) fn plans_left(&self) -> usize {
        self.left.len()
    }

    /// What to hand out next at a position, if the stream ends at `tail`: what was given back or planned first, in order.
    pub(crate) fn offer(&mut self, position: Position, tail: u64) -> Offer {
        self.join_where_they_met();
        self.drop_settled_plans(position);
        let reach = self.reach(position);
        let again = self.open.range(reach.clone()).find(|(_, batch)| batch.can_come_again());
        let planned = self.left.range(reach).next().filter(|(_, planned)| planned.end <= tail);
        let (fits, blocked) = match planned {
            Some((&start, planned)) if self.has_room_at(start) => (Some((start, planned)), false),
            planned => (None, planned.is_some()),
        };
        match (again, fits) {
            (Some((&start, batch)), fits) if fits.is_none_or(|(other, _)| start < other) => {
                return Offer::Again { offsets: start..batch.end, plan: batch.plan };
            }
            (_, Some((start, planned))) => {
                return Offer::Again { offsets: start..planned.end, plan: Some(planned.plan) };
            }
            _ => {}
        }
        match self.fresh(position, tail) {
            Some(offsets) if self.has_room_at(offsets.start) => Offer::Fresh(offsets),
            None if !blocked => Offer::Nothing,
            _ => Offer::Full,
        }
    }

    /// Hands out `offsets`, which was offered at `position`; a fresh one may be a part from the front. `false` when it was
    /// settled or changed since the offer: ask again.
    pub(crate) fn claim(&mut self, position: Position, offsets: Range<u64>, marks: Marks) -> bool {
        assert!(!offsets.is_empty(), "a batch holds a record");
        if let Some(batch) = self.open.get_mut(&offsets.start) {
            let same = batch.end == offsets.end && batch.can_come_again();
            if same {
                batch.given_back = false;
                batch.marks = marks;
            }
            return same;
        }
        let left = self.left.get(&offsets.start).filter(|planned| planned.end == offsets.end);
        let plan = left.map(|planned| planned.plan);
        let fits = self.has_room_at(offsets.start);
        if !fits || (plan.is_none() && self.fresh(position, offsets.end) != Some(offsets.clone())) {
            return false;
        }
        self.left.remove(offsets.start);
        let batch = OpenBatch {
            end: offsets.end,
            given_back: false,
            plan,
            plan_asked: false,
            marks,
            split: None,
            held: Vec::new(),
        };
        self.open.insert(offsets.start, batch);
        true
    }

    /// Ends an open batch at `at`, which lies inside; what follows is fresh again. `false` where that can't be: its
    /// boundaries are or may be durable or are about to change, nobody has it, or something of it waits for room. `total` is the running
    /// total at `at`.
    pub(crate) fn shorten(&mut self, offsets: &Range<u64>, at: u64, total: u64) -> bool {
        let batch = self.open.get_mut(&offsets.start).filter(|batch| batch.end == offsets.end && !batch.given_back);
        let is_free = |batch: &&mut OpenBatch| {
            batch.plan.is_none() && !batch.plan_asked && batch.split.is_none() && batch.held.is_empty()
        };
        let Some(batch) = batch.filter(is_free) else { return false };
        batch.marks = batch.marks.of(&(offsets.start..at), (at, total));
        batch.end = at;
        self.look_from(at);
        true
    }

    /// A plan of the open batch with these boundaries is submitted.
    pub(crate) fn ask_plan(&mut self, offsets: &Range<u64>) {
        if let Some(batch) = self.open.get_mut(&offsets.start).filter(|batch| batch.end == offsets.end) {
            batch.plan_asked = true;
        }
    }

    /// The plan of the open batch with these boundaries became durable.
    pub(crate) fn planned(&mut self, offsets: &Range<u64>, plan: Plan) {
        if let Some(batch) = self.open.get_mut(&offsets.start).filter(|batch| batch.end == offsets.end) {
            batch.plan.get_or_insert(plan);
        }
    }

    /// The plan of the open batch with these boundaries, if it is durable.
    pub(crate) fn plan_of(&self, offsets: &Range<u64>) -> Option<Plan> {
        self.open.get(&offsets.start).filter(|batch| batch.end == offsets.end)?.plan
    }

    /// Whether a batch with these boundaries is open.
    pub(crate) fn is_open(&self, offsets: &Range<u64>) -> bool {
        self.open.get(&offsets.start).is_some_and(|batch| batch.end == offsets.end)
    }

    /// Takes a batch back: the next offer names the same boundaries. `false` when there is no such open batch.
    pub(crate) fn release(&mut self, offsets: &Range<u64>) -> bool {
        let batch = self.open.get_mut(&offsets.start).filter(|batch| batch.end == offsets.end && !batch.given_back);
        batch.map(|batch| batch.given_back = true).is_some()
    }

    /// Gives up the boundaries of a batch or plan that cannot be sent as it stood, because damage took a part of it.
    /// What is left of it becomes fresh again, under other boundaries and so under other ids. Nothing happens where
    /// another batch begins there by now: somebody else has met the damage before.
    pub(crate) fn dissolve(&mut self, offsets: &Range<u64>) {
        let left = self.left.get(&offsets.start).is_some_and(|planned| planned.end == offsets.end);
        let open = self.open.get(&offsets.start).is_some_and(|batch| batch.end == offsets.end);
        if !left && !open {
            return;
        }
        if left {
            self.left.remove(offsets.start);
        }
        let batch = if open { self.open.remove(&offsets.start) } else { None };
        self.look_from(offsets.start);
        for part in batch.into_iter().flat_map(|batch| batch.held) {
            self.settle(part.offsets.clone(), part.as_, |offset| part.total_at(offset));
        }
    }

    /// Records in batches that are handed out now.
    pub(crate) fn in_flight(&self) -> u64 {
        let out = self.open.iter().filter(|(_, batch)| !batch.given_back);
        out.map(|(&start, batch)| {
            let open = self.cursor.unsettled(start..batch.end).iter().map(|part| part.end - part.start).sum::<u64>();
            open - batch.held.iter().map(|part| part.count().records).sum::<u64>()
        })
        .sum()
    }

    /// The offset of the oldest plan that is still needed: not of one that was settled before it was handed out.
    pub(crate) fn oldest_plan(&self) -> Option<u64> {
        let open = self.open.values().filter_map(|batch| batch.plan);
        let waits = |(start, planned): &(&u64, &Planned)| !self.cursor.unsettled(**start..planned.end).is_empty();
        let left = self.left.iter().filter(waits).map(|(_, planned)| planned.plan);
        open.chain(left).map(|plan| plan.offset).min()
    }

    /// When the record at the low mark was taken in, if a batch that is handed out tells.
    pub(crate) fn oldest_ms(&self) -> Option<u64> {
        let (_, batch) = self.open.range(..=self.cursor.low).next_back()?;
        batch.marks.ingest_ms(self.cursor.low)
    }

    /// Whether one more range, or batch above the low mark, has a place.
    pub(crate) fn has_spare(&self) -> bool {
        self.occupied() < PLACES - 1
    }

    /// Whether the open batch that starts at `start` may become two. At the low mark almost always: it is the one that
    /// all others wait for.
    fn has_room_to_split(&self, start: u64) -> bool {
        let at_low = start <= self.cursor.low;
        self.has_spare() || (at_low && self.occupied() < SETTLED_RANGES_MAX - 1)
    }

    /// Whether a batch that begins at `start` may be opened.
    fn has_room_at(&self, start: u64) -> bool {
        start <= self.cursor.low || self.has_spare()
    }

    /// Places taken by settled ranges and by batches that may leave one: all but the one at the low mark.
    fn occupied(&self) -> usize {
        let low = self.cursor.low;
        let at_low = self.open.range(..=low).next_back().is_some_and(|(_, batch)| batch.end > low);
        let split = self.open.values().filter(|batch| batch.split.is_some()).count();
        self.cursor.settled.len() + self.open.len() + split - usize::from(at_low)
    }
}

#[cfg(test)]
mod tests;
