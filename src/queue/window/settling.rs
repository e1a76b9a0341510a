//! Settling: what moves the cursor and the books of a [`Window`], together or not at all.
//!
//! Bytes come from the caller or from the marks of an open batch; what the cursor knows goes before both.

use super::verdict::Verdict;
use super::{SETTLED_RANGES_MAX, Window};
use crate::queue::balance::{Count, Settled};
use std::ops::Range;

/// A settled part, and the running totals at its ends as they were when it was settled: whoever enters it into the cursor later
/// need not ask for them again, and may get no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) offsets: Range<u64>,
    pub(super) bytes: Range<u64>,
    pub(super) as_: Settled,
}

impl Held {
    pub(super) fn count(&self) -> Count {
        Count { records: self.offsets.end - self.offsets.start, bytes: self.bytes.end - self.bytes.start }
    }

    pub(super) fn total_at(&self, offset: u64) -> Option<u64> {
        let ends = [(self.offsets.start, self.bytes.start), (self.offsets.end, self.bytes.end)];
        ends.into_iter().find(|(end, _)| *end == offset).map(|(_, bytes)| bytes)
    }

    /// What of it lies in one half of its batch. `total` is the running total where the halves meet.
    pub(super) fn within(&self, half: &Range<u64>, total: u64) -> Option<Self> {
        let offsets = self.offsets.start.max(half.start)..self.offsets.end.min(half.end);
        let cut = total.clamp(self.bytes.start, self.bytes.end);
        let bytes = self.total_at(offsets.start).unwrap_or(cut)..self.total_at(offsets.end).unwrap_or(cut);
        (!offsets.is_empty()).then_some(Self { offsets, bytes, as_: self.as_ })
    }
}

impl Window {
    /// Settles what of `offsets` is not settled yet, and says how much that was. `bytes_at` gives the running total at
    /// an offset for which no open batch can; a part for which it has no answer stays as it is. Records outside of
    /// open batches are settled only while the cursor has room.
    pub(crate) fn settle(
        &mut self,
        offsets: Range<u64>,
        as_: impl Into<Verdict>,
        bytes_at: impl Fn(u64) -> Option<u64>,
    ) -> Count {
        let verdict = as_.into();
        let occupied = self.occupied();
        let mut settled = Count::default();
        let mut from = offsets.start;
        while from < offsets.end {
            let Some(batch) = self.open_at_or_behind(from..offsets.end) else {
                settled += self.settle_outside(from..offsets.end, &verdict, &bytes_at);
                break;
            };
            if from < batch.start {
                settled += self.settle_outside(from..batch.start, &verdict, &bytes_at);
            }
            let part = from.max(batch.start)..offsets.end.min(batch.end);
            from = part.end;
            settled += self.settle_inside(batch.start, part, &verdict, &bytes_at);
        }
        // More than the limit only where an earlier version left a cursor with every range in use.
        assert!(self.occupied() < SETTLED_RANGES_MAX.max(occupied + 1), "batches and ranges have one limit");
        settled
    }

    /// The offsets at which [`settle`](Self::settle) and its kin may ask for the running total, in order, and the total where an
    /// open batch has it: for whoever reads the others before the window is locked. The log's writer waits for that lock, too.
    pub(crate) fn asks_for(&self, offsets: &Range<u64>, verdict: &Verdict) -> Vec<(u64, Option<u64>)> {
        if offsets.is_empty() {
            return Vec::new(); // also where they run backwards: behind the stream's end
        }
        let pieces = verdict.pieces(offsets.clone());
        let pieces = std::iter::once(offsets.start).chain(pieces.into_iter().map(|(piece, _)| piece.end));
        let open = self.open.range(..offsets.start).next_back().into_iter().chain(self.open.range(offsets.clone()));
        let left = self.left.range(..offsets.start).next_back().into_iter().chain(self.left.range(offsets.clone()));
        let open = open.map(|(start, batch)| [*start, batch.end]);
        let left = left.map(|(start, planned)| [*start, planned.end]);
        let known = |at: u64| at <= self.cursor.low || self.cursor.is_settled(at) || self.cursor.is_settled(at - 1);
        let within = |at: &u64| (offsets.start..=offsets.end).contains(at);
        let asked = pieces.chain(open.chain(left).flatten()).filter(|at| within(at) && !known(*at));
        let mut asked: Vec<_> = asked.map(|at| (at, self.total_in_batches(at))).collect();
        asked.sort_unstable();
        asked.dedup();
        asked
    }

    /// The running total at an offset, if a batch that reaches there knows it.
    fn total_in_batches(&self, offset: u64) -> Option<u64> {
        let mut reaches = self.open.range(..=offset).rev().take(2).filter(|(_, batch)| batch.end >= offset);
        reaches.find_map(|(_, batch)| batch.total_at(offset))
    }

    /// Settles all of `offsets` but the batches and plans that reach beyond it: they stay whole, as they will be sent.
    /// From the low mark on it always has room, however many ranges there are.
    pub(crate) fn let_go(&mut self, offsets: Range<u64>, as_: Settled, bytes_at: impl Fn(u64) -> Option<u64>) -> Count {
        self.let_go_but(Vec::new(), offsets, as_, bytes_at)
    }

    /// The same, but what somebody has is left to them.
    pub(crate) fn let_waiting_go(
        &mut self,
        offsets: Range<u64>,
        as_: Settled,
        bytes_at: impl Fn(u64) -> Option<u64>,
    ) -> Count {
        let out = self.open.iter().filter(|(_, batch)| !batch.can_come_again());
        let out = out.map(|(start, batch)| *start..batch.end).collect();
        self.let_go_but(out, offsets, as_, bytes_at)
    }

    fn let_go_but(
        &mut self,
        mut kept: Vec<Range<u64>>,
        offsets: Range<u64>,
        as_: Settled,
        bytes_at: impl Fn(u64) -> Option<u64>,
    ) -> Count {
        let open = self.open.iter().map(|(start, batch)| *start..batch.end);
        let left = self.left.iter().map(|(start, planned)| *start..planned.end);
        let low = self.cursor.low;
        // What is settled of its beginning is no part that stays behind.
        let reaches_beyond = |whole: &Range<u64>| {
            (whole.start < offsets.end && offsets.end < whole.end)
                || (whole.start.max(low) < offsets.start && offsets.start < whole.end)
        };
        kept.extend(open.chain(left).filter(reaches_beyond));
        kept.sort_by_key(|whole| whole.start);
        let mut settled = Count::default();
        let mut from = offsets.start;
        for whole in kept {
            settled += self.settle(from..whole.start.min(offsets.end), as_, &bytes_at);
            from = from.max(whole.end);
        }
        settled += self.settle(from..offsets.end.max(from), as_, &bytes_at);
        let cursor = &self.cursor;
        self.left.retain(|start, planned| !cursor.unsettled(*start..planned.end).is_empty());
        settled
    }

    /// Settles damage as lost, which is in no open batch. Without a place for it, it has its turn at the low mark.
    pub(crate) fn lose(&mut self, hole: Range<u64>, bytes_at: impl Fn(u64) -> Option<u64>) -> Count {
        let lost = self.settle(hole.clone(), Settled::Lost, bytes_at);
        let low = self.cursor.low;
        let mut damaged = self.damaged.take().unwrap_or_default();
        damaged.retain(|at| *at > low);
        if !self.cursor.unsettled(hole.clone()).is_empty() {
            damaged.insert(hole.start);
            if damaged.len() > SETTLED_RANGES_MAX {
                damaged.pop_last(); // it is met again
            }
        }
        self.damaged = Some(damaged).filter(|damaged| !damaged.is_empty());
        lost
    }

    /// The open batch that holds the first of `offsets`, or the first one behind it.
    fn open_at_or_behind(&self, offsets: Range<u64>) -> Option<Range<u64>> {
        let before = self.open.range(..=offsets.start).next_back().filter(|(_, batch)| batch.end > offsets.start);
        before.or_else(|| self.open.range(offsets).next()).map(|(start, batch)| *start..batch.end)
    }

    /// Settles a part of the open batch that starts at `start`.
    pub(super) fn settle_inside(
        &mut self,
        start: u64,
        part: Range<u64>,
        verdict: &Verdict,
        bytes_at: &impl Fn(u64) -> Option<u64>,
    ) -> Count {
        let batch = self.open.get_mut(&start).expect("the caller found it");
        // Both come back unless the batch is done with.
        let (marks, held) = (std::mem::take(&mut batch.marks), std::mem::take(&mut batch.held));
        let end = batch.end;
        let waits = |offset| held.iter().find_map(|part| part.total_at(offset));
        let known = |offset| marks.bytes_at(offset).or_else(|| waits(offset)).or_else(|| bytes_at(offset));
        // Asked once: what was known when it was counted is what is entered.
        let fresh = self.cursor.unsettled(part).into_iter().flat_map(|part| without(part, &held));
        let fresh = fresh.map(|part| Some((self.totals(&part, known)?, part))).collect::<Option<Vec<_>>>();
        let fresh = fresh.unwrap_or_default();
        let count: Count = fresh.iter().map(|(bytes, part)| count(part, bytes)).sum();
        let unsettled: u64 = self.cursor.unsettled(start..end).iter().map(|part| part.end - part.start).sum();
        let waiting: u64 = held.iter().map(|part| part.count().records).sum();
        if unsettled == waiting + count.records {
            held.iter().for_each(|part| self.post_held(part));
            fresh.into_iter().for_each(|(bytes, part)| self.post(part, bytes, verdict, known));
            self.open.remove(&start);
        } else {
            let fresh = fresh.iter().flat_map(|(bytes, part)| pieces(part, bytes, verdict, known));
            let mut still_held = Vec::new();
            for part in held.iter().cloned().chain(fresh) {
                if self.has_spare() || self.cursor.touches(&part.offsets) {
                    self.post_held(&part);
                } else {
                    still_held.push(part);
                }
            }
            let batch = self.open.get_mut(&start).expect("it was there");
            (batch.marks, batch.held) = (marks, still_held);
        }
        count
    }

    /// What of these records is settled, in order: also what waits inside its batch for room.
    pub(crate) fn settled_within(&self, offsets: &Range<u64>) -> Vec<Range<u64>> {
        let batch = self.open.get(&offsets.start).filter(|batch| batch.end == offsets.end);
        let held = batch.map_or(&[][..], |batch| &batch.held);
        let (mut settled, mut from) = (Vec::new(), offsets.start);
        let open = self.cursor.unsettled(offsets.clone()).into_iter().flat_map(|part| without(part, held));
        for part in open.chain(std::iter::once(offsets.end..offsets.end)) {
            if from < part.start {
                settled.push(from..part.start);
            }
            from = part.end;
        }
        settled
    }

    /// Settles records that are in no open batch.
    fn settle_outside(&mut self, part: Range<u64>, verdict: &Verdict, bytes_at: &impl Fn(u64) -> Option<u64>) -> Count {
        let mut settled = Count::default();
        for part in self.cursor.unsettled(part) {
            if (self.has_spare() || self.cursor.touches(&part))
                && let Some(bytes) = self.totals(&part, bytes_at)
            {
                settled += count(&part, &bytes);
                self.post(part, bytes, verdict, bytes_at);
            }
        }
        settled
    }

    fn post_held(&mut self, part: &Held) {
        self.post(part.offsets.clone(), part.bytes.clone(), &part.as_.into(), |_| None);
    }

    /// Enters a part into the cursor and the books: at one stroke, in however many ways it settles. `bytes` are the running totals
    /// at its ends, as far as the cursor knows no others by now.
    fn post(
        &mut self,
        offsets: Range<u64>,
        bytes: Range<u64>,
        verdict: &Verdict,
        bytes_at: impl Fn(u64) -> Option<u64>,
    ) {
        let either = |offset| Some(if offset == offsets.start { bytes.start } else { bytes.end });
        let bytes = self.totals(&offsets, either).expect("both are known");
        for piece in pieces(&offsets, &bytes, verdict, bytes_at) {
            self.books.post(piece.count(), piece.as_);
        }
        self.cursor.insert(offsets, bytes);
        debug_assert!(self.books.agree_with(&self.cursor), "cursor and books move together");
    }

    /// The running totals at the ends of a part. What the cursor knows goes before what the log says: inside a frame
    /// that was damaged meanwhile the log has other answers, and sums must telescope all the same.
    fn totals(&self, part: &Range<u64>, bytes_at: impl Fn(u64) -> Option<u64>) -> Option<Range<u64>> {
        let (below, above) = self.cursor.around(part);
        let total = |offset| match (below, above) {
            ((at, bytes), _) | (_, Some((at, bytes))) if at == offset => Some(bytes),
            ((_, least), above) => Some(bytes_at(offset)?.clamp(least, above.map_or(u64::MAX, |(_, most)| most))),
        };
        let (start, end) = (total(part.start)?, total(part.end)?);
        Some(start..end.max(start))
    }
}

/// Records and bytes of a part.
fn count(part: &Range<u64>, bytes: &Range<u64>) -> Count {
    Count { records: part.end - part.start, bytes: bytes.end - bytes.start }
}

/// The pieces of a part, each of which settles in one way. What cannot be read between them is shared evenly: records are exact,
/// and the sum is.
fn pieces(
    part: &Range<u64>,
    bytes: &Range<u64>,
    verdict: &Verdict,
    bytes_at: impl Fn(u64) -> Option<u64>,
) -> impl Iterator<Item = Held> {
    let (part, bytes) = (part.clone(), bytes.clone());
    let mut from = bytes.start;
    verdict.pieces(part.clone()).into_iter().map(move |(piece, as_)| {
        let even = || {
            let share = u128::from(bytes.end - bytes.start) * u128::from(piece.end - part.start)
                / u128::from(part.end - part.start);
            bytes.start + u64::try_from(share).expect("at most the bytes of the part")
        };
        let until = match piece.end == part.end {
            true => bytes.end,
            false => bytes_at(piece.end).unwrap_or_else(even).clamp(from, bytes.end),
        };
        let bytes = from..until;
        from = until;
        Held { offsets: piece, bytes, as_ }
    })
}

/// What of `part` is in none of `held`.
fn without(part: Range<u64>, held: &[Held]) -> Vec<Range<u64>> {
    let mut parts = vec![part];
    for Held { offsets: hole, .. } in held {
        parts = (parts.into_iter())
            .flat_map(|part| [part.start..part.end.min(hole.start), part.start.max(hole.end)..part.end])
            .filter(|part| part.start < part.end)
            .collect();
    }
    parts
}

impl std::iter::Sum for Count {
    fn sum<I: Iterator<Item = Self>>(counts: I) -> Self {
        counts.fold(Self::default(), |sum, count| sum + count)
    }
}
