//! How far a destination has got in a stream: a low mark, and the ranges above it that are settled already.
//!
//! A value, not a place: [`Window`](super::window::Window) moves it, the floor file and the cursor store keep it.
//! What always holds: everything below `low` is settled, `low` itself is not; the ranges are in order, above `low`,
//! apart from it and from each other (what touches is one range), and at most [`SETTLED_RANGES_MAX`].

use super::codec::{Decoder, Malformed};
use super::limits::SETTLED_RANGES_MAX;
use std::ops::Range;

/// A low mark and the settled ranges above it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Cursor {
    /// The first offset that is not settled.
    pub low: u64,
    /// The stream's running total of bytes at `low`.
    pub low_bytes: u64,
    /// What is settled above `low`, in order.
    pub settled: Vec<SettledRange>,
}

/// Offsets above the low mark that are settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SettledRange {
    /// The first offset.
    pub start: u64,
    /// The offset behind the last.
    pub end: u64,
    /// The stream's running total of bytes at `start`. Kept, not read again: where a frame is damaged later, the log
    /// could no longer say what this total was, and the books would not close.
    pub start_bytes: u64,
    /// The bytes of these records: the running total at `end` less `start_bytes`.
    pub bytes: u64,
}

impl Cursor {
    /// A cursor that has settled nothing from `low` on, where the stream's running total is `low_bytes`.
    #[must_use]
    pub fn at(low: u64, low_bytes: u64) -> Self {
        Self { low, low_bytes, settled: Vec::new() }
    }

    /// Records settled above the low mark.
    #[must_use]
    pub fn settled_records(&self) -> u64 {
        self.settled.iter().map(|range| range.end - range.start).sum()
    }

    /// Bytes settled above the low mark.
    #[must_use]
    pub fn settled_bytes(&self) -> u64 {
        self.settled.iter().map(|range| range.bytes).sum()
    }

    /// The offset behind the highest one that is settled: the stream reached at least this far.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.settled.last().map_or(self.low, |range| range.end)
    }

    /// Whether everything that `other` has settled is settled here.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        self.low >= other.low && other.settled.iter().all(|range| self.unsettled(range.start..range.end).is_empty())
    }

    /// Whether the record at `offset` is settled.
    #[must_use]
    pub fn is_settled(&self, offset: u64) -> bool {
        let at = self.settled.partition_point(|range| range.end <= offset);
        offset < self.low || self.settled.get(at).is_some_and(|range| range.start <= offset)
    }

    /// The parts of `offsets` that are not settled, in order.
    pub(crate) fn unsettled(&self, offsets: Range<u64>) -> Vec<Range<u64>> {
        let mut parts = Vec::new();
        let mut from = offsets.start.max(self.low);
        let first = self.settled.partition_point(|range| range.end <= from);
        for range in self.settled.get(first..).unwrap_or_default() {
            if range.start >= offsets.end {
                break;
            }
            if from < range.start {
                parts.push(from..range.start);
            }
            from = range.end;
        }
        if from < offsets.end {
            parts.push(from..offsets.end);
        }
        parts
    }

    /// Whether `offsets` touches the low mark or a settled range, so that settling it makes no new range.
    pub(crate) fn touches(&self, offsets: &Range<u64>) -> bool {
        let next = self.settled.partition_point(|range| range.end < offsets.start);
        offsets.start <= self.low || self.settled.get(next).is_some_and(|range| range.start <= offsets.end)
    }

    /// The nearest places around an unsettled part whose running totals are known: where what is settled below it ends,
    /// and where what is settled above it begins.
    pub(crate) fn around(&self, part: &Range<u64>) -> ((u64, u64), Option<(u64, u64)>) {
        let above = self.settled.partition_point(|range| range.end <= part.start);
        let below = self.settled[..above].last().map(|range| (range.end, range.start_bytes + range.bytes));
        let above = self.settled.get(above).map(|range| (range.start, range.start_bytes));
        (below.unwrap_or((self.low, self.low_bytes)), above)
    }

    /// Settles `offsets`; `bytes` are the running totals at its ends, which must fit [`around`](Self::around) it.
    ///
    /// # Panics
    /// When a part of it is settled already, or the totals do not fit: something would count twice.
    pub(crate) fn insert(&mut self, offsets: Range<u64>, bytes: Range<u64>) {
        assert!(offsets.start < offsets.end && offsets.start >= self.low, "an offset is settled once");
        let (below, above) = self.around(&offsets);
        assert!(below.1 <= bytes.start && bytes.start <= bytes.end, "running totals rise");
        assert!(below.0 < offsets.start || below.1 == bytes.start, "sums telescope");
        assert!(above.is_none_or(|(at, most)| bytes.end <= most && (offsets.end < at || bytes.end == most)));
        let at = self.settled.partition_point(|range| range.end < offsets.start);
        let mut merged = SettledRange {
            start: offsets.start,
            end: offsets.end,
            start_bytes: bytes.start,
            bytes: bytes.end - bytes.start,
        };
        let mut until = at;
        while let Some(range) = self.settled.get(until).filter(|range| range.start <= offsets.end) {
            assert!(range.end == offsets.start || range.start == offsets.end, "an offset is settled once");
            if range.start < merged.start {
                (merged.start, merged.start_bytes) = (range.start, range.start_bytes);
            }
            merged.end = merged.end.max(range.end);
            merged.bytes += range.bytes;
            until += 1;
        }
        if merged.start == self.low {
            self.low = merged.end;
            self.low_bytes = merged.start_bytes + merged.bytes;
            // What touched the low mark was merged, so `at` is 0 here: nothing lies below it.
            self.settled.drain(at..until);
        } else {
            self.settled.splice(at..until, [merged]);
        }
        if self.settled.is_empty() {
            // An idle queue keeps nothing: the capacity of a busy hour would stay for ever.
            self.settled = Vec::new();
        }
    }

    /// Bytes that [`encode`](Self::encode) writes at most.
    pub(crate) const ENCODED_BYTES_MAX: usize = 8 + 8 + 2 + SETTLED_RANGES_MAX * SettledRange::ENCODED_BYTES;

    /// Appends `low`, `low_bytes`, the number of ranges (u16) and per range start, end,
    /// start_bytes and bytes, little-endian.
    /// Whoever embeds it brings the version and the checksum.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        assert!(self.settled.len() <= SETTLED_RANGES_MAX, "the window opens no batch beyond the limit");
        out.extend_from_slice(&self.low.to_le_bytes());
        out.extend_from_slice(&self.low_bytes.to_le_bytes());
        let count = u16::try_from(self.settled.len()).expect("at most 256");
        out.extend_from_slice(&count.to_le_bytes());
        for range in &self.settled {
            for number in [range.start, range.end, range.start_bytes, range.bytes] {
                out.extend_from_slice(&number.to_le_bytes());
            }
        }
    }

    /// Takes a cursor off `from`; what it returns holds what this file promises.
    pub(crate) fn decode(from: &mut Decoder<'_>) -> Result<Self, Malformed> {
        let mut cursor = Self::at(from.u64()?, from.u64()?);
        let count = usize::from(from.u16()?);
        if count > SETTLED_RANGES_MAX {
            return Err(Malformed("more settled ranges than a cursor may have"));
        }
        cursor.settled.reserve_exact(count);
        for _ in 0..count {
            let range =
                SettledRange { start: from.u64()?, end: from.u64()?, start_bytes: from.u64()?, bytes: from.u64()? };
            if range.start <= cursor.end() || range.end <= range.start {
                return Err(Malformed("settled ranges out of order"));
            }
            let end_bytes = cursor.settled.last().map_or(cursor.low_bytes, |last| last.start_bytes + last.bytes);
            if range.start_bytes < end_bytes || range.start_bytes.checked_add(range.bytes).is_none() {
                return Err(Malformed("running totals out of order"));
            }
            cursor.settled.push(range);
        }
        Ok(cursor)
    }
}

impl SettledRange {
    /// Bytes of its encoding.
    pub(crate) const ENCODED_BYTES: usize = 32;
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Settles offsets of a stream with ten bytes a record.
    fn settle(cursor: &mut Cursor, offsets: Range<u64>) {
        cursor.insert(offsets.clone(), offsets.start * 10..offsets.end * 10);
    }

    fn ranges(cursor: &Cursor) -> Vec<(u64, u64, u64)> {
        cursor.settled.iter().map(|range| (range.start, range.end, range.bytes)).collect()
    }

    #[test]
    fn what_touches_becomes_one_range_and_what_touches_the_low_mark_moves_it() {
        let mut cursor = Cursor::at(10, 100);
        settle(&mut cursor, 20..30);
        settle(&mut cursor, 40..50);
        assert_eq!(ranges(&cursor), [(20, 30, 100), (40, 50, 100)]);
        settle(&mut cursor, 30..40);
        assert_eq!(ranges(&cursor), [(20, 50, 300)]);
        settle(&mut cursor, 10..20);
        assert_eq!(cursor, Cursor::at(50, 500));
    }

    #[test]
    fn the_unsettled_parts_of_a_range_are_what_no_settled_range_covers() {
        let mut cursor = Cursor::at(10, 100);
        settle(&mut cursor, 20..30);
        settle(&mut cursor, 40..50);
        assert_eq!(cursor.unsettled(0..60), [10..20, 30..40, 50..60]);
        assert_eq!(cursor.unsettled(22..55), [30..40, 50..55]);
        assert_eq!(cursor.unsettled(20..30), []);
        assert_eq!(cursor.unsettled(0..10), []);
        assert_eq!(cursor.unsettled(25..25), []);
        let settled: Vec<u64> = (0..60).filter(|&offset| cursor.is_settled(offset)).collect();
        assert_eq!(settled, (0..10).chain(20..30).chain(40..50).collect::<Vec<_>>());
    }

    #[test]
    fn a_cursor_covers_itself_and_what_came_before_it() {
        let mut before = Cursor::at(10, 100);
        settle(&mut before, 20..30);
        let mut after = before.clone();
        settle(&mut after, 10..15);
        assert!(after.covers(&before) && after.covers(&after));
        assert!(!before.covers(&after));
        assert!(!Cursor::at(15, 150).covers(&before), "20..30 is missing");
    }

    #[test]
    fn a_cursor_at_the_end_of_all_numbers_goes_forward_and_no_further() {
        let (last, most) = (u64::MAX, u64::MAX - 7);
        let mut cursor = Cursor::at(last - 10, most - 100);
        let mut before = cursor.clone();
        for (offsets, bytes) in [
            (last - 4..last - 2, most - 40..most - 20),
            (last - 1..last, most - 10..most),
            (last - 10..last - 4, most - 100..most - 40),
            (last - 2..last - 1, most - 20..most - 10),
        ] {
            cursor.insert(offsets, bytes);
            assert!(cursor.covers(&before) && !before.covers(&cursor) && cursor.low >= before.low);
            let mut encoded = Vec::new();
            cursor.encode(&mut encoded);
            assert_eq!(Cursor::decode(&mut Decoder::new(&encoded)).as_ref(), Ok(&cursor));
            before = cursor.clone();
        }
        assert_eq!(cursor, Cursor::at(last, most));
        assert!(cursor.is_settled(last - 1) && !cursor.is_settled(last));
        assert_eq!(cursor.unsettled(0..last), [], "all that there is");
    }

    #[test]
    fn a_cursor_with_every_range_in_use_has_the_greatest_encoding() {
        let mut cursor = Cursor::at(0, 0);
        for n in 1..=SETTLED_RANGES_MAX as u64 {
            settle(&mut cursor, n * 2..n * 2 + 1);
        }
        let mut bytes = Vec::new();
        cursor.encode(&mut bytes);
        assert_eq!(bytes.len(), Cursor::ENCODED_BYTES_MAX);
        assert_eq!(Cursor::decode(&mut Decoder::new(&bytes)), Ok(cursor));
    }

    #[test]
    fn ranges_that_touch_overlap_or_run_backwards_are_refused() {
        for ranges in [[(5, 9), (20, 30)], [(11, 20), (20, 30)], [(20, 30), (11, 12)], [(11, 11), (20, 30)]] {
            let settled = ranges.map(|(start, end)| SettledRange { start, end, start_bytes: 0, bytes: 0 }).to_vec();
            let mut bytes = Vec::new();
            Cursor { low: 10, low_bytes: 0, settled }.encode(&mut bytes);
            assert_eq!(Cursor::decode(&mut Decoder::new(&bytes)), Err(Malformed("settled ranges out of order")));
        }
    }

    proptest! {
        #[test]
        fn decoding_any_bytes_gives_a_sound_cursor_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(cursor) = Cursor::decode(&mut Decoder::new(&bytes)) {
                let mut again = Vec::new();
                cursor.encode(&mut again);
                prop_assert_eq!(&bytes[..again.len()], &again[..]);
            }
        }
    }

    #[test]
    fn running_totals_that_fall_or_run_over_are_refused() {
        let decoded = |ranges: &[(u64, u64)]| {
            let settled = ranges.iter().enumerate().map(|(n, &(start_bytes, bytes))| {
                let start = 20 + 20 * n as u64;
                SettledRange { start, end: start + 10, start_bytes, bytes }
            });
            let mut encoded = Vec::new();
            Cursor { low: 10, low_bytes: 100, settled: settled.collect() }.encode(&mut encoded);
            Cursor::decode(&mut Decoder::new(&encoded)).map(|_| ())
        };
        for sound in [&[(100, 50)][..], &[(100, 50), (150, 1)], &[(u64::MAX - 1, 1)]] {
            assert_eq!(decoded(sound), Ok(()), "{sound:?}");
        }
        for wrong in [&[(99, 50)][..], &[(100, 50), (149, 1)], &[(u64::MAX, 1)]] {
            assert_eq!(decoded(wrong), Err(Malformed("running totals out of order")), "{wrong:?}");
        }
    }
}
