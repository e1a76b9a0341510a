//! Records that were given up and lie where they lay: ranges of the stream that an overflow policy took out of the queue's
//! way, and what became of those that somebody decided on since.
//!
//! A value, kept with the queue's cursor and books, so that the three move together or not at all. What always holds: ranges
//! are in order, apart from each other or touching, at most [`MARKED_RANGES_MAX`]; every record that was ever marked is in a
//! range or in one of the counts; a queue pins the oldest of them.

use super::balance::{Balance, Count, End};
use super::codec::{Decoder, Malformed};
use super::limits::MARKED_RANGES_MAX;
use std::ops::Range;

/// Records that were given up, and lie in the stream as they did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MarkedRange {
    /// The first offset.
    pub start: u64,
    /// The offset behind the last.
    pub end: u64,
    /// The stream's running total of bytes at the first.
    pub start_bytes: u64,
    /// Their bytes in the log.
    pub bytes: u64,
    /// When the last of them was given up, in milliseconds since 1970.
    pub at_ms: u64,
}

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Marked {
    ranges: Vec<MarkedRange>,
    /// What became of those that are in no range any more: delivered, filtered, expired, purged, lost, and moved, which
    /// is what became a letter.
    done: [Count; KINDS],
    /// What is sent again now: nothing in it is marked, joined or let go meanwhile. Not kept; the queue that sends it is.
    again: Option<Range<u64>>,
}

const KINDS: usize = 6;

impl MarkedRange {
    /// Its records and bytes.
    #[must_use]
    pub fn count(&self) -> Count {
        Count { records: self.end - self.start, bytes: self.bytes }
    }

    /// Bytes of its encoding.
    const ENCODED_BYTES: usize = 40;

    pub(crate) fn lies_in(&self, offsets: &Range<u64>) -> bool {
        offsets.start <= self.start && self.end <= offsets.end
    }
}

impl Marked {
    pub(crate) fn ranges(&self) -> &[MarkedRange] {
        &self.ranges
    }

    /// Whether nothing was ever marked.
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Where the first record lies that is still to be had.
    pub(crate) fn first(&self) -> Option<End> {
        self.ranges.first().map(|range| End { offset: range.start, bytes: range.start_bytes })
    }

    /// Whether the record at `offset` lies where all is sent again now: also what is pending there is none of its business.
    pub(crate) fn is_sent_again(&self, offset: u64) -> bool {
        self.again.as_ref().is_some_and(|again| again.contains(&offset))
    }

    /// From now on this is sent again, or nothing is.
    pub(crate) fn set_again(&mut self, again: Option<Range<u64>>) {
        self.again = again;
    }

    /// Whether two ranges that follow each other may become one.
    fn may_join(&self, first: Range<u64>, second: u64) -> bool {
        first.end == second && !self.is_sent_again(first.start) && !self.is_sent_again(second)
    }

    /// The first of two ranges that may become one.
    fn joint(&self) -> Option<usize> {
        self.ranges.windows(2).position(|pair| self.may_join(pair[0].start..pair[0].end, pair[1].start))
    }

    /// Whether one more range that begins at `start` finds a place.
    pub(crate) fn has_room(&self, start: u64) -> bool {
        self.ranges.len() < MARKED_RANGES_MAX
            || self.ranges.last().is_some_and(|last| self.may_join(last.start..last.end, start))
            || self.joint().is_some()
    }

    /// Takes a range in, which may lie anywhere beside the others. Of ranges that touch the oldest become one when there is
    /// no place for one more; they count as given up when the later of them was.
    ///
    /// # Panics
    /// Where there is no [room](Self::has_room), or it overlaps another: something would count twice.
    pub(crate) fn add(&mut self, range: MarkedRange) {
        assert!(range.start < range.end, "a range holds a record");
        let at = self.ranges.partition_point(|other| other.end <= range.start);
        assert!(self.ranges.get(at).is_none_or(|next| range.end <= next.start), "a record is given up once");
        self.ranges.insert(at, range);
        if self.ranges.len() > MARKED_RANGES_MAX {
            let touch = self.joint().expect("asked before whether there is room");
            let later = self.ranges.remove(touch + 1);
            let first = &mut self.ranges[touch];
            (first.end, first.bytes) = (later.end, first.bytes + later.bytes);
            first.at_ms = first.at_ms.max(later.at_ms);
        }
    }

    /// Takes out the ranges that lie in `offsets`, which was sent again, and counts what `became` of their records: of each as
    /// told, and the rest as moved. Nothing if none does.
    pub(crate) fn resolve(&mut self, offsets: &Range<u64>, became: &Balance) -> Count {
        self.take_out(became, |range| range.lies_in(offsets))
    }

    /// The same with what is not sent again.
    pub(crate) fn let_go(&mut self, offsets: &Range<u64>, became: &Balance) -> Count {
        let again = self.again.clone().unwrap_or_default();
        self.take_out(became, |range| range.lies_in(offsets) && !again.contains(&range.start))
    }

    fn take_out(&mut self, became: &Balance, goes: impl Fn(&MarkedRange) -> bool) -> Count {
        let (out, left) = self.ranges.iter().copied().partition::<Vec<_>, _>(goes);
        self.ranges = left;
        let all: Count = out.iter().map(MarkedRange::count).sum();
        let mut rest = all;
        let Balance { delivered, filtered, expired, purged, lost, .. } = *became;
        for (done, told) in self.done.iter_mut().zip([delivered, filtered, expired, purged, lost]) {
            let part = Count { records: told.records.min(rest.records), bytes: told.bytes.min(rest.bytes) };
            *done += part;
            rest = Count { records: rest.records - part.records, bytes: rest.bytes - part.bytes };
        }
        self.done[KINDS - 1] += rest;
        all
    }

    /// The books of what was ever marked; `pending` is what nobody has decided on, `dead_lettered` what became a letter.
    pub(crate) fn balance(&self) -> Balance {
        let [delivered, filtered, expired, purged, lost, dead_lettered] = self.done;
        let pending = self.ranges.iter().map(MarkedRange::count).sum();
        let balance =
            Balance { delivered, filtered, expired, purged, lost, dead_lettered, pending, ..Balance::default() };
        Balance { accepted: balance.settled() + pending, ..balance }
    }

    /// The longest encoding.
    pub(crate) const ENCODED_BYTES_MAX: usize = 1 + KINDS * 16 + MARKED_RANGES_MAX * MarkedRange::ENCODED_BYTES;

    pub(crate) fn encoded_len(&self) -> usize {
        1 + KINDS * 16 + self.ranges.len() * MarkedRange::ENCODED_BYTES
    }

    /// Appends the counts (records and bytes of each), the number of ranges (u8), and per range start, end,
    /// the running total at its start, bytes and when.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        for count in self.done {
            out.extend_from_slice(&count.records.to_le_bytes());
            out.extend_from_slice(&count.bytes.to_le_bytes());
        }
        out.push(u8::try_from(self.ranges.len()).expect("at most 64"));
        for MarkedRange { start, end, start_bytes, bytes, at_ms } in &self.ranges {
            for number in [start, end, start_bytes, bytes, at_ms] {
                out.extend_from_slice(&number.to_le_bytes());
            }
        }
    }

    /// Takes one off `from`; what it returns holds what this file promises.
    pub(crate) fn decode(from: &mut Decoder<'_>) -> Result<Self, Malformed> {
        let mut marked = Self::default();
        for count in &mut marked.done {
            *count = Count { records: from.u64()?, bytes: from.u64()? };
        }
        let count = usize::from(from.u8()?);
        if count > MARKED_RANGES_MAX {
            return Err(Malformed("more marked ranges than a queue may have"));
        }
        let mut sum = marked.done.iter().try_fold(Count::default(), |sum, count| added(sum, *count));
        for _ in 0..count {
            let (start, end, start_bytes) = (from.u64()?, from.u64()?, from.u64()?);
            let range = MarkedRange { start, end, start_bytes, bytes: from.u64()?, at_ms: from.u64()? };
            let before = marked.ranges.last().map_or(0, |last| last.end);
            if range.start < before || range.end <= range.start {
                return Err(Malformed("marked ranges out of order"));
            }
            sum = sum.and_then(|sum| added(sum, range.count()));
            marked.ranges.push(range);
        }
        sum.map(|_| marked).ok_or(Malformed("counts beyond any stream"))
    }
}

fn added(sum: Count, count: Count) -> Option<Count> {
    Some(Count { records: sum.records.checked_add(count.records)?, bytes: sum.bytes.checked_add(count.bytes)? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn range(start: u64, end: u64) -> MarkedRange {
        MarkedRange { start, end, start_bytes: start * 10, bytes: (end - start) * 10, at_ms: start }
    }

    fn became(delivered: u64) -> Balance {
        Balance { delivered: Count { records: delivered, bytes: delivered * 10 }, ..Balance::default() }
    }

    #[test]
    fn what_was_decided_on_is_in_no_range_and_counts_once() {
        let mut marked = Marked::default();
        [range(20, 30), range(0, 10), range(10, 15)].into_iter().for_each(|range| marked.add(range));
        assert_eq!(
            (marked.first().map(|first| first.offset), marked.ranges().len(), marked.balance().pending.records),
            (Some(0), 3, 25)
        );
        assert_eq!(marked.resolve(&(0..15), &became(12)).records, 15);
        assert_eq!(marked.resolve(&(0..15), &became(12)).records, 0, "once");
        let balance = marked.balance();
        assert!(balance.closes() && marked.first() == Some(End { offset: 20, bytes: 200 }));
        assert_eq!((balance.delivered.records, balance.dead_lettered.records, balance.pending.records), (12, 3, 10));
    }

    #[test]
    fn when_no_place_is_left_the_oldest_that_touch_become_one() {
        let mut marked = Marked::default();
        (0..MARKED_RANGES_MAX as u64).for_each(|n| marked.add(range(n * 10 + n / 2, n * 10 + n / 2 + 10)));
        let next = MARKED_RANGES_MAX as u64 * 11;
        assert!(marked.has_room(next));
        marked.add(range(next, next + 10));
        assert_eq!(marked.ranges().len(), MARKED_RANGES_MAX);
        assert_eq!(marked.ranges()[0], MarkedRange { start: 0, end: 20, start_bytes: 0, bytes: 200, at_ms: 10 });
        let mut apart = Marked::default();
        (0..MARKED_RANGES_MAX as u64).for_each(|n| apart.add(range(n * 20, n * 20 + 10)));
        assert!(!apart.has_room(next * 20) && apart.has_room(MARKED_RANGES_MAX as u64 * 20 - 10));
    }

    #[test]
    fn what_is_sent_again_joins_nothing_and_is_not_let_go() {
        let mut marked = Marked::default();
        (0..MARKED_RANGES_MAX as u64).for_each(|n| marked.add(range(n * 20 + 10 * (n % 2), n * 20 + 20)));
        // 0..20, 30..40, 40..60, 70..80, 80..100 and so on; one more would touch the last.
        let next = MARKED_RANGES_MAX as u64 * 20;
        marked.set_again(Some(0..next));
        assert!(!marked.has_room(next), "no two that may become one");
        assert_eq!(marked.let_go(&(0..next * 2), &became(u64::MAX >> 8)), Count::default());
        marked.set_again(Some(30..40));
        assert!(marked.has_room(next) && marked.is_sent_again(39) && !marked.is_sent_again(40));
        marked.add(range(next, next + 10));
        assert_eq!(marked.resolve(&(30..40), &became(10)).records, 10, "it is a range of its own still");
        marked.set_again(None);
        assert_eq!(marked.let_go(&(0..30), &became(0)).records, 20, "now it may");
    }

    #[test]
    fn ranges_of_more_bytes_than_a_stream_can_have_are_refused() {
        let of_bytes = |start, bytes| MarkedRange { bytes, ..range(start, start + 1) };
        let decoded = |ranges: [MarkedRange; 2]| {
            let mut bytes = Vec::new();
            Marked { ranges: ranges.to_vec(), ..Marked::default() }.encode(&mut bytes);
            Marked::decode(&mut Decoder::new(&bytes))
        };
        assert!(decoded([of_bytes(0, u64::MAX - 7), of_bytes(1, 7)]).is_ok());
        assert!(decoded([of_bytes(0, u64::MAX - 7), of_bytes(1, 8)]).is_err());
    }

    proptest! {
        #[test]
        fn decoding_any_bytes_gives_a_sound_value_or_an_error(
            bytes in prop::collection::vec(any::<u8>(), 0..300), ranges in prop::collection::vec((0..50u64, 1..50u64), 0..9),
        ) {
            if let Ok(marked) = Marked::decode(&mut Decoder::new(&bytes)) {
                let mut again = Vec::new();
                marked.encode(&mut again);
                prop_assert_eq!(&bytes[..again.len()], &again[..]);
            }
            let (mut marked, mut at) = (Marked::default(), 0);
            for (gap, len) in ranges {
                marked.add(range(at + gap, at + gap + len));
                at += gap + len;
            }
            let mut bytes = Vec::new();
            marked.encode(&mut bytes);
            prop_assert_eq!(bytes.len(), marked.encoded_len());
            prop_assert_eq!(Marked::decode(&mut Decoder::new(&bytes)), Ok(marked));
        }
    }
}
