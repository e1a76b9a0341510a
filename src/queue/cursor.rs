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
    /// The bytes of these records: the running total at `end` less the one at `start`.
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

    /// Settles `offsets`, of `bytes` bytes.
    ///
    /// # Panics
    /// When a part of it is settled already: its bytes would count twice.
    pub(crate) fn insert(&mut self, offsets: Range<u64>, bytes: u64) {
        assert!(offsets.start < offsets.end && offsets.start >= self.low, "an offset is settled once");
        let at = self.settled.partition_point(|range| range.end < offsets.start);
        let mut merged = SettledRange { start: offsets.start, end: offsets.end, bytes };
        let mut until = at;
        while let Some(range) = self.settled.get(until).filter(|range| range.start <= offsets.end) {
            assert!(range.end == offsets.start || range.start == offsets.end, "an offset is settled once");
            merged.start = merged.start.min(range.start);
            merged.end = merged.end.max(range.end);
            merged.bytes += range.bytes;
            until += 1;
        }
        if merged.start == self.low {
            self.low = merged.end;
            self.low_bytes = self.low_bytes.wrapping_add(merged.bytes);
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
    pub(crate) const ENCODED_BYTES_MAX: usize = 8 + 8 + 2 + SETTLED_RANGES_MAX * 24;

    /// Appends `low`, `low_bytes`, the number of ranges (u16) and per range start, end and bytes, little-endian.
    /// Whoever embeds it brings the version and the checksum.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        assert!(self.settled.len() <= SETTLED_RANGES_MAX, "the window opens no batch beyond the limit");
        out.extend_from_slice(&self.low.to_le_bytes());
        out.extend_from_slice(&self.low_bytes.to_le_bytes());
        let count = u16::try_from(self.settled.len()).expect("at most 256");
        out.extend_from_slice(&count.to_le_bytes());
        for range in &self.settled {
            out.extend_from_slice(&range.start.to_le_bytes());
            out.extend_from_slice(&range.end.to_le_bytes());
            out.extend_from_slice(&range.bytes.to_le_bytes());
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
            let range = SettledRange { start: from.u64()?, end: from.u64()?, bytes: from.u64()? };
            if range.start <= cursor.end() || range.end <= range.start {
                return Err(Malformed("settled ranges out of order"));
            }
            cursor.settled.push(range);
        }
        if cursor.settled.iter().try_fold(0u64, |sum, range| sum.checked_add(range.bytes)).is_none() {
            return Err(Malformed("more settled bytes than any stream has"));
        }
        Ok(cursor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ranges(cursor: &Cursor) -> Vec<(u64, u64, u64)> {
        cursor.settled.iter().map(|range| (range.start, range.end, range.bytes)).collect()
    }

    #[test]
    fn what_touches_becomes_one_range_and_what_touches_the_low_mark_moves_it() {
        let mut cursor = Cursor::at(10, 1000);
        cursor.insert(20..30, 5);
        cursor.insert(40..50, 7);
        assert_eq!(ranges(&cursor), [(20, 30, 5), (40, 50, 7)]);
        cursor.insert(30..40, 1);
        assert_eq!(ranges(&cursor), [(20, 50, 13)]);
        cursor.insert(10..20, 2);
        assert_eq!(cursor, Cursor::at(50, 1015));
    }

    #[test]
    fn the_unsettled_parts_of_a_range_are_what_no_settled_range_covers() {
        let mut cursor = Cursor::at(10, 0);
        cursor.insert(20..30, 0);
        cursor.insert(40..50, 0);
        assert_eq!(cursor.unsettled(0..60), [10..20, 30..40, 50..60]);
        assert_eq!(cursor.unsettled(22..55), [30..40, 50..55]);
        assert_eq!(cursor.unsettled(20..30), []);
        assert_eq!(cursor.unsettled(0..10), []);
        assert_eq!(cursor.unsettled(25..25), []);
    }

    #[test]
    fn a_cursor_covers_itself_and_what_came_before_it() {
        let mut before = Cursor::at(10, 0);
        before.insert(20..30, 0);
        let mut after = before.clone();
        after.insert(10..15, 0);
        assert!(after.covers(&before) && after.covers(&after));
        assert!(!before.covers(&after));
        assert!(!Cursor::at(15, 0).covers(&before), "20..30 is missing");
    }

    #[test]
    fn a_cursor_with_every_range_in_use_has_the_greatest_encoding() {
        let mut cursor = Cursor::at(0, 0);
        for n in 1..=SETTLED_RANGES_MAX as u64 {
            cursor.insert(n * 2..n * 2 + 1, 1);
        }
        let mut bytes = Vec::new();
        cursor.encode(&mut bytes);
        assert_eq!(bytes.len(), Cursor::ENCODED_BYTES_MAX);
        assert_eq!(Cursor::decode(&mut Decoder::new(&bytes)), Ok(cursor));
    }

    #[test]
    fn ranges_that_touch_overlap_or_run_backwards_are_refused() {
        for ranges in [[(5, 9), (20, 30)], [(11, 20), (20, 30)], [(20, 30), (11, 12)], [(11, 11), (20, 30)]] {
            let settled = ranges.map(|(start, end)| SettledRange { start, end, bytes: 0 }).to_vec();
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
}
