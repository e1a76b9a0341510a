//! Claiming: fixes the boundaries of the next batch and hands it out.
//!
//! Damage that is met on the way is settled as lost here. What always holds: a batch is entered into the window before
//! anybody has it, and its records were durable and unsettled then.

use super::batch::Right;
use super::reading::{Gathered, Reading};
use super::window::{Offer, Plan};
use super::{Batch, BatchLimits, Inner, Position, Queue, QueueError, RangeLimits, Settled, lock};
use crate::mutants::{self, Mutant};
use crate::sync::Arc;
use crate::sync::atomic::Ordering;
use crate::{ReadError, StreamId};
use std::ops::Range;

impl Queue {
    /// Claims the next records: first batches that were planned before a crash or given back, with the same boundaries
    /// whatever `limits` says, then fresh ones. `None` when nothing waits, or when so many batches are open that one
    /// must be settled first. May read the disk; see [`ready_in_memory`](Self::ready_in_memory).
    ///
    /// Records that damage took are settled as lost here, and a batch ends before them.
    ///
    /// # Errors
    /// When the log cannot be read. Nothing is claimed then.
    pub fn next_batch(&self, limits: BatchLimits) -> Result<Option<Batch>, QueueError> {
        self.claim_next(|reading, stream, range, again| match again {
            true => reading.gather(&self.inner.context, stream, range, BatchLimits::NONE),
            false => reading.gather(&self.inner.context, stream, range, limits),
        })
    }

    /// Like [`next_batch`](Self::next_batch), without the records: fixes the boundaries of a batch that may be far larger
    /// than memory, from the headers of its frames alone. Read it with [`read`](Self::read), as often as needed; plan,
    /// split, settle and release it like any other.
    ///
    /// What comes again may be just as large, so whoever claims ranges claims everything that way.
    ///
    /// # Errors
    /// When the log cannot be read. Nothing is claimed then.
    pub fn next_range(&self, limits: RangeLimits) -> Result<Option<Batch>, QueueError> {
        self.claim_next(|reading, stream, range, again| match again {
            true => Reading::resurvey(&self.inner.context, stream, range),
            false => reading.survey(&self.inner.context, stream, range, limits),
        })
    }

    /// Hands out less than was claimed: from `at` on its records are fresh again, as if they had never been claimed. For who
    /// reads a range and finds that so much of it is enough. `None`, and nothing has changed, when others may go by its
    /// boundaries (it is planned or a plan was ever asked for, settled, given back or being split), or when `at` does not lie
    /// inside.
    ///
    /// ```
    /// # use forebay::{LogOptions, Payload, QueueOptions, Queues, RangeLimits, Start};
    /// # use std::{path::Path, sync::Arc};
    /// # let (disk, clock) = (Arc::new(forebay::disk::mem::MemDisk::new()), Arc::new(forebay::clock::SystemClock::new()));
    /// # let queues = Queues::open(disk, clock, Path::new("/data"), LogOptions::small(), QueueOptions::inline())?;
    /// # let queue = queues.queue("acme-s3", "acme-prod", Start::Earliest)?;
    /// queues.log().append_wait("acme-prod", vec![Payload { bytes: vec![0; 100], records: 10 }])?;
    /// let limits = RangeLimits { records_max: 1_000_000, bytes_max: 128 << 20, partition_ms: None };
    /// let range = queue.next_range(limits)?.expect("ten records wait");
    /// let shorter = queue.shorten(&range, 6)?.expect("it is not planned");
    /// assert_eq!((shorter.offsets, shorter.bytes), (0..6, 60));
    /// assert_eq!(queue.next_range(limits)?.expect("the rest waits").offsets, 6..10);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// When the log cannot be read. Nothing has changed then.
    ///
    /// # Panics
    /// When the batch is another queue's, or its offsets were changed.
    pub fn shorten(&self, batch: &Batch, at: u64) -> Result<Option<Batch>, QueueError> {
        if at <= batch.offsets.start || at >= batch.offsets.end {
            return Ok(None);
        }
        let offsets = self.inner.offsets_of(batch);
        let Some(([shorter, _], total)) = self.halves(batch, at)? else { return Ok(None) };
        if !self.inner.window().shorten(&offsets, at, total) {
            return Ok(None);
        }
        batch.right.end();
        shorter.right.begin();
        Ok(Some(shorter))
    }

    /// Claims what is offered. `look` reads it from the front: all of it if it comes again.
    fn claim_next(
        &self,
        look: impl Fn(&mut Reading, StreamId, Range<u64>, bool) -> Result<Gathered, ReadError>,
    ) -> Result<Option<Batch>, QueueError> {
        let queue = &self.inner;
        let Some(stream) = queue.stream_id() else { return Ok(None) };
        let position = self.position;
        let mut reading = lock(queue.reading(position));
        if position == Position::Only {
            queue.window().join();
        }
        loop {
            let tail = queue.tail(stream).offset;
            let offer = queue.offer(position, tail);
            let (range, plan, again) = match offer {
                Offer::Again { offsets, plan } => (offsets, plan, true),
                Offer::Fresh(offsets) => (offsets, None, false),
                Offer::Nothing | Offer::Full => {
                    reading.rest();
                    return Ok(None);
                }
            };
            let gathered = look(&mut reading, stream, range.clone(), again)?;
            if let Some(hole) = gathered.hole.clone() {
                queue.lose(stream, hole, again.then_some(&range))?;
                if again || gathered.offsets.is_empty() {
                    continue; // it is settled by now, or the window is full, and says so
                }
            }
            if gathered.offsets.is_empty() {
                return Ok(None); // the log has less than it said: nothing is to be had there now
            }
            if let Some(batch) = queue.claim(stream, position, gathered, plan) {
                if mutants::on(Mutant::ClaimSettles) {
                    self.settle(&batch, Settled::Delivered);
                }
                return Ok(Some(batch));
            }
            // Somebody settled a part of it meanwhile.
        }
    }
}

impl Inner {
    /// What to hand out next: nothing more of a replay that is cancelled.
    pub(super) fn offer(&self, position: Position, tail: u64) -> Offer {
        let cancelled = self.replay.as_ref().is_some_and(|bounds| bounds.cancelled.load(Ordering::Acquire));
        if cancelled { Offer::Nothing } else { self.window().offer(position, tail) }
    }

    /// Enters what was read into the window. `None` when the window changed since it made the offer.
    fn claim(
        self: &Arc<Self>,
        stream: StreamId,
        position: Position,
        gathered: Gathered,
        plan: Option<Plan>,
    ) -> Option<Batch> {
        let Gathered { offsets, marks, slices, bytes, .. } = gathered;
        let right = Right::to_be(self, offsets.clone());
        if !self.window().claim(position, offsets.clone(), marks) {
            return None;
        }
        right.begin();
        let settings_revision = plan.map_or_else(|| self.revision.load(Ordering::Relaxed), |plan| plan.revision);
        let id = self.batch_id(stream, offsets.clone());
        Some(Batch { id, offsets, slices, bytes, settings_revision, planned: plan.is_some(), right })
    }

    /// Settles as lost what damage took. A batch that it is a part of is given up, as it cannot be sent as it stood: an id
    /// never stands for fewer records than it did. What is left of it is fresh again.
    pub(super) fn lose(&self, stream: StreamId, hole: Range<u64>, batch: Option<&Range<u64>>) -> Result<(), ReadError> {
        let bytes = self.total_at(stream, hole.start)?..self.total_at(stream, hole.end)?;
        let bytes_at = |offset| Some(if offset <= hole.start { bytes.start } else { bytes.end });
        let mut window = self.window();
        if let Some(batch) = batch {
            window.dissolve(batch);
        }
        let lost = window.lose(hole.clone(), bytes_at);
        drop(window);
        self.touch();
        if lost.records > 0 {
            tracing::error!(
                destination = %self.destination,
                stream = %self.stream,
                ?hole,
                records = lost.records,
                "records are lost to damage and will not be delivered"
            );
        }
        Ok(())
    }
}
