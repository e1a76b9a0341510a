//! Batches that are read as they are sent: a range of records, of which one frame at a time is in memory.
//!
//! What always holds: every reading of a range yields the same records in the same frames, from its first to its last,
//! or says that some are lost; then the range is given up, and its id with it.

use super::{Batch, Inner, Queue, QueueError, Slice};
use crate::sync::Arc;
use crate::sync::atomic::Ordering;
use crate::{Item, ReadError, Reader, StreamId};
use std::ops::Range;

/// How large a range may be, and what it may span. One record is always taken, however large.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RangeLimits {
    /// Records.
    pub records_max: u64,
    /// Bytes as stored in the log.
    pub bytes_max: u64,
    /// A range never holds records that were taken in in different spans of so many milliseconds, counted from 1970:
    /// 3,600,000 for hours. A wall clock that jumps back ends a range early, and mixes nothing.
    pub partition_ms: Option<u64>,
}

/// Reads a claimed range, one frame at a time.
pub struct RangeReader {
    queue: Arc<Inner>,
    stream: StreamId,
    offsets: Range<u64>,
    reader: Reader,
    at: u64,
}

/// Why a range could not be read on.
#[derive(Debug, thiserror::Error)]
pub enum RangeError {
    /// The log could not be read. Try again, or read the range from its start.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Damage took a part of it. These records are settled as lost, the range is given up, and what is left of it comes
    /// in other ranges under other ids: do not send it, and abort what was begun.
    #[error("records {}..{} are lost to damage, so the range is given up", offsets.start, offsets.end)]
    Lost {
        /// Which records.
        offsets: Range<u64>,
    },
}

impl Queue {
    /// Reads a batch that was claimed with [`next_range`](Self::next_range) from its start, as often as it is called:
    /// each attempt to send it reads it anew, with the same records in the same frames. Of a queue that was deleted, or a
    /// replay that was cancelled, it reads what the log still keeps.
    ///
    /// ```
    /// # use forebay::{LogOptions, Payload, QueueOptions, Queues, RangeLimits, Settled, Start};
    /// # use std::{path::Path, sync::Arc};
    /// # let (disk, clock) = (Arc::new(forebay::disk::mem::MemDisk::new()), Arc::new(forebay::clock::SystemClock::new()));
    /// # let queues = Queues::open(disk, clock, Path::new("/data"), LogOptions::small(), QueueOptions::inline())?;
    /// # let queue = queues.queue("acme-s3", "acme-prod", Start::Earliest)?;
    /// for _ in 0..10 {
    ///     queues.log().append_wait("acme-prod", vec![Payload { bytes: vec![0; 100], records: 10 }])?;
    /// }
    /// // An object of at most a million records and 128 MiB, all of one hour.
    /// let limits = RangeLimits { records_max: 1_000_000, bytes_max: 128 << 20, partition_ms: Some(3_600_000) };
    /// let range = queue.next_range(limits)?.expect("a hundred records wait");
    /// let (mut reader, mut bytes) = (queue.read(&range), 0);
    /// while let Some(slice) = reader.next()? {
    ///     bytes += slice.frame.payload().len(); // one frame at a time
    /// }
    /// assert_eq!(bytes, 1_000);
    /// queue.settle(&range, Settled::Delivered);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Panics
    /// When the batch is another queue's, or its offsets were changed.
    #[must_use]
    pub fn read(&self, batch: &Batch) -> RangeReader {
        let (queue, offsets) = (Arc::clone(&self.inner), self.inner.offsets_of(batch));
        // Not by the queue: that may be gone while somebody is at work on its last batches.
        let stream = *queue.stream_id.get().expect("a batch is of a stream that exists");
        let reader = queue.context.log.reader(stream, offsets.start);
        RangeReader { queue, stream, at: offsets.start, offsets, reader }
    }

    /// The record at `offset` of a batch, and what follows it in its frame; `None` where damage took it. Gives nothing up, as
    /// [`read`](Self::read) does: for who has the destination's answer already, and settles the batch by that.
    ///
    /// # Errors
    /// When the log cannot be read.
    ///
    /// # Panics
    /// When the batch is another queue's, or its offsets were changed.
    pub fn slice_at(&self, batch: &Batch, offset: u64) -> Result<Option<Slice>, ReadError> {
        let offsets = offset..self.inner.offsets_of(batch).end;
        let Some(stream) = self.inner.stream_id() else { return Ok(None) };
        Ok(match self.inner.context.log.reader(stream, offset).next()? {
            Some(Item::Frame(frame)) => Some(Slice { offsets: offset..frame.offsets().end.min(offsets.end), frame }),
            Some(Item::Lost { .. }) | None => None,
        })
    }
}

impl RangeReader {
    /// The next records, `None` behind the last. May read the disk.
    ///
    /// # Errors
    /// When the log cannot be read, or damage took some of the records.
    #[expect(clippy::should_implement_trait, reason = "the usual name; an iterator's items could not be tried again")]
    pub fn next(&mut self) -> Result<Option<Slice>, RangeError> {
        if self.at >= self.offsets.end {
            return Ok(None);
        }
        if self.reader.position() != self.at {
            self.reader.seek(self.at);
        }
        match self.reader.next()? {
            Some(Item::Frame(frame)) => {
                let offsets = self.at..frame.offsets().end.min(self.offsets.end);
                self.at = offsets.end;
                Ok(Some(Slice { frame, offsets }))
            }
            Some(Item::Lost { offsets, .. }) => Err(self.lost(self.at..offsets.end.min(self.offsets.end))?),
            None => Err(self.lost(self.at..self.offsets.end)?), // the log lost its end while it was open
        }
    }

    /// Gives the range up, unless it is settled or was given up before, or its queue is gone.
    fn lost(&self, hole: Range<u64>) -> Result<RangeError, ReadError> {
        if !self.queue.gone.load(Ordering::Acquire) && self.queue.window().is_open(&self.offsets) {
            self.queue.lose(self.stream, hole.clone(), Some(&self.offsets))?;
            self.queue.wake();
        }
        Ok(RangeError::Lost { offsets: hole })
    }
}

/// What a claim would find. See [`Queue::waiting`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Waiting {
    /// A batch that was planned before a crash or given back comes first, as it was.
    pub comes_again: bool,
    /// Fresh records that one batch could take, if its limits allowed.
    pub records: u64,
    /// Their bytes in the log.
    pub bytes: u64,
    /// When the first of them was taken in, in milliseconds since 1970. `None` when there is none, or when it cannot be
    /// read.
    pub oldest_ingest_ms: Option<u64>,
    /// Their number does not grow any more: what follows them is settled or handed out already.
    pub bounded: bool,
}

impl Queue {
    /// What waits to be claimed: is it time to make a batch of it? Mostly without the disk; after a change of the first
    /// record the header of its frame may be read.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn waiting(&self) -> Result<Waiting, QueueError> {
        let queue = &*self.inner;
        let Some(stream) = queue.stream_id() else { return Ok(Waiting::default()) };
        let tail = queue.end();
        let mut window = queue.window();
        let comes_again = window.comes_again(self.position, tail.offset);
        let fresh = window.fresh_known(self.position, tail);
        drop(window);
        let Some((offsets, [start, end])) = fresh else { return Ok(Waiting { comes_again, ..Waiting::default() }) };
        let total = |known: Option<u64>, offset| known.map_or_else(|| queue.total_at(stream, offset), Ok);
        let bytes = total(end, offsets.end)?.saturating_sub(total(start, offsets.start)?);
        Ok(Waiting {
            comes_again,
            records: offsets.end - offsets.start,
            bytes,
            oldest_ingest_ms: queue.ingest_ms(offsets.start),
            bounded: offsets.end < tail.offset,
        })
    }
}
