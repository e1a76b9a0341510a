//! How many bytes the stream had at each offset of a batch, and when its records came: what remains of its frames once
//! they are sent, so that settling never reads the log. A few words per frame; says nothing of any offset outside.

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

/// The frames under a batch.
#[derive(Debug, Clone, Default)]
pub(crate) struct Marks(Box<[Mark]>);

impl Marks {
    pub(crate) fn new(frames: impl IntoIterator<Item = Mark>) -> Self {
        Self(frames.into_iter().collect())
    }

    /// Those of the frames that a part of the batch reaches into.
    pub(crate) fn of(&self, offsets: &Range<u64>) -> Self {
        let reaches = |mark: &&Mark| mark.first < offsets.end && offsets.start < mark.first + u64::from(mark.records);
        Self(self.0.iter().filter(reaches).copied().collect())
    }

    /// The running total at `offset`: exact where frames meet, shared evenly by the records within one.
    pub(crate) fn bytes_at(&self, offset: u64) -> Option<u64> {
        let mark = self.0[..self.0.partition_point(|mark| mark.first <= offset)].last()?;
        let into = offset - mark.first;
        (into <= u64::from(mark.records)).then(|| mark.bytes_before.wrapping_add(mark.share(into)))
    }

    /// When the record at `offset` was taken in.
    pub(crate) fn ingest_ms(&self, offset: u64) -> Option<u64> {
        let mark = self.0[..self.0.partition_point(|mark| mark.first <= offset)].last()?;
        (offset - mark.first < u64::from(mark.records)).then_some(mark.ingest_ms)
    }
}

impl Mark {
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
        assert_eq!(marks.of(&(13..14)).0, [mark(13, 2, 7, 1100)].into());
        assert_eq!((marks.ingest_ms(12), marks.ingest_ms(14), marks.ingest_ms(15)), (Some(10), Some(13), None));
    }
}
