//! A batch as a value: which records were handed out together, and how many may be.

use super::RangeLimits;
use crate::Frame;
use std::ops::Range;
use std::sync::Arc;

/// How large a batch may be. One record is always taken, however large.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchLimits {
    /// Records.
    pub records_max: u64,
    /// Bytes as stored in the log.
    pub bytes_max: u64,
}

/// Records that were handed out together.
#[derive(Debug, Clone)]
pub struct Batch {
    /// Tells this batch from every other, of this log and any: `[A-Za-z0-9_-]`, under 100 characters. The same
    /// destination, stream and boundaries have the same id, always.
    pub id: String,
    /// The offsets of its records.
    pub offsets: Range<u64>,
    /// The records, frame by frame. None for a range: see [`Queue::read`](super::Queue::read).
    pub slices: Vec<Slice>,
    /// Their bytes as stored.
    pub bytes: u64,
    /// The revision of the destination's settings that it was made under; see [`Queue::set_settings_revision`](super::Queue::set_settings_revision).
    pub settings_revision: u32,
    /// Whether its boundaries are durable already: it was planned before a crash, or before it was given back.
    pub planned: bool,
}

/// The records of one frame that belong to a batch.
#[derive(Debug, Clone)]
pub struct Slice {
    /// The frame. It may begin before the slice and end behind it.
    pub frame: Arc<Frame>,
    /// The offsets of the records that belong to the batch.
    pub offsets: Range<u64>,
}

impl BatchLimits {
    /// No limits: for what comes again as it was.
    pub(super) const NONE: Self = Self { records_max: u64::MAX, bytes_max: u64::MAX };
}

impl From<BatchLimits> for RangeLimits {
    fn from(BatchLimits { records_max, bytes_max }: BatchLimits) -> Self {
        Self { records_max, bytes_max, partition_ms: None }
    }
}

impl Slice {
    /// The part of it that lies within these offsets.
    pub(super) fn within(&self, offsets: &Range<u64>) -> Option<Self> {
        let cut = self.offsets.start.max(offsets.start)..self.offsets.end.min(offsets.end);
        (!cut.is_empty()).then(|| Self { frame: Arc::clone(&self.frame), offsets: cut })
    }
}
