//! Reads the records of one queue: keeps the place, and the frame it stopped in, so that a frame which is drained in
//! many batches is read once.
//!
//! Decides nothing: it is told from where to where, and says what is there and what is not.

use super::limits::{BATCH_RECORDS_MAX, HELD_BYTES_MAX};
use super::{BatchLimits, Context, Slice};
use crate::{Frame, Item, Log, ReadError, Reader, StreamId};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Where a queue reads.
#[derive(Default)]
pub(super) struct Reading {
    /// In a box: a queue at rest has none.
    reader: Option<Box<Reader>>,
    held: Option<Held>,
}

/// A frame that the next batch goes on in. All queues together hold a limited number of bytes this way; beyond it a
/// frame is left to the log's caches.
struct Held {
    frame: Arc<Frame>,
    budget: Arc<AtomicUsize>,
}

/// Records from the front of a range.
#[derive(Default)]
pub(super) struct Gathered {
    pub(super) slices: Vec<Slice>,
    pub(super) bytes: u64,
    /// What follows them is lost.
    pub(super) hole: Option<Range<u64>>,
}

impl Reading {
    /// Lets go of everything: the queue is idle.
    pub(super) fn rest(&mut self) {
        *self = Self::default();
    }

    /// Whether the record at `offset` is in the frame at hand.
    pub(super) fn holds(&self, offset: u64) -> bool {
        self.held.as_ref().is_some_and(|held| held.frame.offsets().contains(&offset))
    }

    /// Reads `range` from the front, up to the limits, the first hole, or its end.
    pub(super) fn gather(
        &mut self,
        context: &Context,
        stream: StreamId,
        range: Range<u64>,
        limits: BatchLimits,
    ) -> Result<Gathered, ReadError> {
        let end = range.end.min(range.start.saturating_add(limits.records_max.clamp(1, BATCH_RECORDS_MAX)));
        let mut gathered = Gathered::default();
        let mut at = range.start;
        while at < end {
            match self.item(context, stream, at)? {
                Some(Item::Frame(frame)) => {
                    let room = limits.bytes_max.saturating_sub(gathered.bytes);
                    let most = at..end.min(frame.offsets().end);
                    let offsets = fitting(&frame, most.clone(), room, gathered.slices.is_empty());
                    if !offsets.is_empty() {
                        gathered.bytes += frame.bytes_at(offsets.end) - frame.bytes_at(offsets.start);
                        gathered.slices.push(Slice { frame, offsets: offsets.clone() });
                    }
                    at = offsets.end;
                    if offsets != most {
                        break;
                    }
                }
                Some(Item::Lost { offsets, .. }) => {
                    gathered.hole = Some(at..offsets.end.min(range.end));
                    break;
                }
                None => break,
            }
        }
        Ok(gathered)
    }

    /// What is at `offset`.
    fn item(&mut self, context: &Context, stream: StreamId, offset: u64) -> Result<Option<Item>, ReadError> {
        if let Some(held) = self.held.as_ref().filter(|held| held.frame.offsets().contains(&offset)) {
            return Ok(Some(Item::Frame(Arc::clone(&held.frame))));
        }
        self.held = None;
        let reader = self.reader.get_or_insert_with(|| Box::new(context.log.reader(stream, offset)));
        if reader.position() != offset {
            reader.seek(offset);
        }
        let item = reader.next()?;
        if let Some(Item::Frame(frame)) = &item {
            self.held = Held::within_budget(frame, &context.held_bytes);
        }
        Ok(item)
    }
}

/// The records of `most` that fit into `room` bytes; one at least, if `one`.
fn fitting(frame: &Frame, most: Range<u64>, room: u64, one: bool) -> Range<u64> {
    let from = frame.bytes_at(most.start);
    let fits = |end: u64| frame.bytes_at(end) - from <= room;
    // Between the last end known to fit and the first known not to.
    let (mut fit, mut beyond) = (most.start, most.end + 1);
    while fit + 1 < beyond {
        let middle = fit + (beyond - fit) / 2;
        if fits(middle) { fit = middle } else { beyond = middle }
    }
    if fit == most.start && one { most.start..most.start + 1 } else { most.start..fit }
}

/// The stream's running total at `offset`: where the record before it ends. Where that one is lost, what the log says
/// of the next one that is not.
pub(super) fn total_at(log: &Log, stream: StreamId, offset: u64) -> Result<u64, ReadError> {
    if let Some(before) = offset.checked_sub(1)
        && let Some(Item::Frame(frame)) = log.reader(stream, before).next()?
    {
        return Ok(frame.bytes_at(offset));
    }
    log.bytes_at(stream, offset)
}

/// When the record at `offset` was taken in, if it can be read.
pub(super) fn ingest_ms(log: &Log, stream: StreamId, offset: u64) -> Option<u64> {
    match log.reader(stream, offset).next() {
        Ok(Some(Item::Frame(frame))) => Some(frame.ingest_ms),
        _ => None,
    }
}

impl Held {
    fn within_budget(frame: &Arc<Frame>, budget: &Arc<AtomicUsize>) -> Option<Self> {
        let bytes = frame.payload().len();
        let held = Self { frame: Arc::clone(frame), budget: Arc::clone(budget) };
        let before = budget.fetch_add(bytes, Ordering::Relaxed);
        (before + bytes <= HELD_BYTES_MAX).then_some(held)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.budget.fetch_sub(self.frame.payload().len(), Ordering::Relaxed);
    }
}
