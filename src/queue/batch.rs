//! A batch as a value: which records were handed out together, how many may be, and who may decide on them.
//!
//! What always holds: a batch that nobody has any more is settled or comes again, whatever became of who had it; and it is
//! settled by its own queue only.

use super::{Inner, RangeLimits};
use crate::Frame;
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{Arc, Weak};
use std::fmt;
use std::ops::Range;

/// How large a batch may be. One record is always taken, however large.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchLimits {
    /// Records.
    pub records_max: u64,
    /// Bytes as stored in the log.
    pub bytes_max: u64,
}

/// Records that were handed out together. Copies are one batch: when the last one is dropped and it was not settled, it is given
/// back, and comes again.
#[derive(Debug, Clone)]
#[must_use = "a batch that is dropped is given back"]
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
    pub(super) right: Arc<Right>,
}

/// The right to decide on a batch.
pub(super) struct Right {
    /// Weak: a batch that somebody forgot about keeps no directory locked.
    queue: Weak<Inner>,
    offsets: Range<u64>,
    /// Not any more once it was settled, given back or replaced by another: the same boundaries may be out under another right
    /// then. Not yet of what is to be a batch.
    stands: AtomicBool,
}

/// The records of one frame that belong to a batch.
#[derive(Debug, Clone)]
pub struct Slice {
    /// The frame. It may begin before the slice and end behind it.
    pub frame: Arc<Frame>,
    /// The offsets of the records that belong to the batch.
    pub offsets: Range<u64>,
}

impl Right {
    /// One that does not stand yet.
    pub(super) fn to_be(queue: &Arc<Inner>, offsets: Range<u64>) -> Arc<Self> {
        Arc::new(Self { queue: Arc::downgrade(queue), offsets, stands: AtomicBool::new(false) })
    }

    /// The window has entered the batch.
    pub(super) fn begin(&self) {
        self.stands.store(true, Ordering::Release);
    }

    /// Whether it stood until now.
    pub(super) fn end(&self) -> bool {
        self.stands.swap(false, Ordering::AcqRel)
    }
}

impl Drop for Right {
    fn drop(&mut self) {
        if self.stands.load(Ordering::Acquire)
            && let Some(queue) = self.queue.upgrade()
        {
            queue.give_back(self);
        }
    }
}

impl fmt::Debug for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Right").field("stands", &self.stands).finish_non_exhaustive()
    }
}

impl Inner {
    /// The offsets of a batch that this queue has handed out. Whoever is asked about a batch begins here.
    ///
    /// # Panics
    /// When another queue has, or its offsets were changed: to settle them here would be to lose records without a word.
    pub(super) fn offsets_of(&self, batch: &Batch) -> Range<u64> {
        let Right { queue, offsets, .. } = &*batch.right;
        let ours = std::ptr::eq(queue.as_ptr(), self);
        assert!(ours, "batch {} is not one of {:?} for {:?}", batch.id, self.stream, self.destination);
        assert_eq!(*offsets, batch.offsets, "a batch keeps its offsets");
        offsets.clone()
    }

    /// Nobody has the batch any more, if somebody had until now.
    pub(super) fn give_back(&self, right: &Right) {
        let mut window = self.window();
        // Under the lock: a split that is just becoming known passes the right on, or finds that it was given back.
        let released = right.end() && window.release(&right.offsets);
        drop(window);
        if released {
            self.wake();
        }
    }
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
