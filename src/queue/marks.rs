//! How many bytes the stream had at each offset of a batch, and when its records came: what remains of its frames once
//! they are sent, so that settling never reads the log. A few words per frame; says nothing of any offset outside.
//!
//! Of a range that is read as it is sent, and may hold a million frames, only its ends are known, and where it was
//! split. In between the log is asked.

use crate::Outline;
use std::ops::Range;

/// One frame, as far as a batch reaches into it, in offset order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mark {
    /// The frame's first offset.
    pub(crate) first: u64,
    /// Its records.
    pub(crate) records: u32,
    /// Its bytes.
    pub(crate) bytes: u32,
    /// The stream's running total before it.
    pub(crate) bytes_before: u64,
    /// When it was taken in.
    pub(crate) ingest_ms: u64,
}

/// What is known of the records of a batch.
#[derive(Debug, Clone)]
pub(crate) enum Marks {
    /// Every frame under it.
    Frames(Box<[Mark]>),
    /// The stream's running total at a few offsets, and when the record at the first of them came.
    Points(Box<[(u64, u64)]>, Option<u64>),
}

impl Default for Marks {
    fn default() -> Self {
        Self::Frames(Box::default())
    }
}

impl Marks {
    pub(crate) fn new(frames: impl IntoIterator<Item = Mark>) -> Self {
        Self::Frames(frames.into_iter().collect())
    }

    /// Those of a range of records: the running totals at its ends.
    pub(crate) fn ends(offsets: &Range<u64>, bytes: Range<u64>, ingest_ms: Option<u64>) -> Self {
        Self::Points([(offsets.start, bytes.start), (offsets.end, bytes.end)].into(), ingest_ms)
    }

    /// Those of a part of the batch. `middle` is where it was cut, and the running total there.
    pub(crate) fn of(&self, offsets: &Range<u64>, middle: (u64, u64)) -> Self {
        let frames = match self {
            Self::Frames(frames) => frames,
            Self::Points(points, ingest_ms) => {
                let known = points.iter().copied().filter(|(at, _)| *at != middle.0).chain([middle]);
                let mut within: Vec<_> = known.filter(|(at, _)| (offsets.start..=offsets.end).contains(at)).collect();
                within.sort_unstable();
                let same_start = points.first().is_some_and(|(at, _)| *at == offsets.start);
                return Self::Points(within.into(), ingest_ms.filter(|_| same_start));
            }
        };
        let reaches = |mark: &&Mark| mark.first < offsets.end && offsets.start < mark.first + u64::from(mark.records);
        Self::Frames(frames.iter().filter(reaches).copied().collect())
    }

    /// The running total at `offset`: exact where frames meet, shared evenly by the records within one.
    pub(crate) fn bytes_at(&self, offset: u64) -> Option<u64> {
        let frames = match self {
            Self::Frames(frames) => frames,
            Self::Points(points, _) => return points.iter().find(|(at, _)| *at == offset).map(|(_, bytes)| *bytes),
        };
        let mark = frames[..frames.partition_point(|mark| mark.first <= offset)].last()?;
        let into = offset - mark.first;
        (into <= u64::from(mark.records)).then(|| mark.bytes_before.wrapping_add(mark.share(into)))
    }

    /// When the record at `offset` was taken in.
    pub(crate) fn ingest_ms(&self, offset: u64) -> Option<u64> {
        let frames = match self {
            Self::Frames(frames) => frames,
            Self::Points(points, ingest_ms) => {
                return ingest_ms.filter(|_| points.first().is_some_and(|(at, _)| *at == offset));
            }
        };
        let mark = frames[..frames.partition_point(|mark| mark.first <= offset)].last()?;
        (offset - mark.first < u64::from(mark.records)).then_some(mark.ingest_ms)
    }
}

impl Mark {
    pub(crate) fn of(frame: &Outline) -> Self {
        let Outline { first, records, bytes_before, bytes, ingest_ms } = *frame;
        Self { first, records, bytes, bytes_before, ingest_ms }
    }

    /// The bytes of its first `records` records.
    fn share(&self, records: u64) -> u64 {
        // At most 2^32 * 2^32: no overflow. The quotient is at most the frame's bytes.
        records * u64::from(self.bytes) / u64::from(self.records)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(first: u64, records: u32, bytes: u32, bytes_before: u64) -> Mark {
        Mark { first, records, bytes, bytes_before, ingest_ms: first }
    }

    #[test]
    fn shares_of_a_frame_add_up_to_the_frame() {
        let marks = Marks::new([mark(10, 3, 100, 1000), mark(13, 2, 7, 1100)]);
        let totals: Vec<_> = (10..=15).map(|offset| marks.bytes_at(offset)).collect();
        assert_eq!(totals, [1000, 1033, 1066, 1100, 1103, 1107].map(Some));
        assert_eq!((marks.bytes_at(9), marks.bytes_at(16)), (None, None));
        let half = marks.of(&(13..14), (13, 1100));
        assert_eq!((half.bytes_at(12), half.bytes_at(13), half.bytes_at(14)), (None, Some(1100), Some(1103)));
        assert_eq!((marks.ingest_ms(12), marks.ingest_ms(14), marks.ingest_ms(15)), (Some(10), Some(13), None));
    }

    #[test]
    fn of_a_range_the_ends_are_known_and_where_it_was_split() {
        let marks = Marks::ends(&(10..90), 1_000..9_000, Some(5));
        assert_eq!([10, 50, 90].map(|at| marks.bytes_at(at)), [Some(1_000), None, Some(9_000)]);
        assert_eq!((marks.ingest_ms(10), marks.ingest_ms(11)), (Some(5), None));
        let (first, second) = (marks.of(&(10..40), (40, 3_333)), marks.of(&(40..90), (40, 3_333)));
        assert_eq!([10, 40, 90].map(|at| first.bytes_at(at)), [Some(1_000), Some(3_333), None]);
        assert_eq!([10, 40, 90].map(|at| second.bytes_at(at)), [None, Some(3_333), Some(9_000)]);
        assert_eq!((first.ingest_ms(10), second.ingest_ms(40)), (Some(5), None));
    }
}
