//! Claiming: fixes the boundaries of the next batch and hands it out.
//!
//! Damage that is met on the way is settled as lost here. What always holds: a batch is entered into the window before
//! anybody has it, and its records were durable and unsettled then.

use super::marks::{Mark, Marks};
use super::reading::Gathered;
use super::window::{Offer, Plan};
use super::{Batch, BatchLimits, Inner, Queue, QueueError, Settled, lock, plan};
use crate::StreamId;
use std::sync::atomic::Ordering;

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
        let queue = &*self.inner;
        let Some(stream) = queue.stream_id() else { return Ok(None) };
        let mut reading = lock(&queue.reading);
        loop {
            let tail = queue.context.log.durable(stream).offset;
            let offer = queue.window().offer(tail);
            let (range, plan, again) = match offer {
                Offer::Again { offsets, plan } => (offsets, plan, true),
                Offer::Fresh(offsets) => (offsets, None, false),
                Offer::Nothing | Offer::Full => {
                    reading.rest();
                    return Ok(None);
                }
            };
            let limits = if again { BatchLimits { records_max: u64::MAX, bytes_max: u64::MAX } } else { limits };
            let gathered = reading.gather(&queue.context, stream, range.clone(), limits)?;
            if let Some(hole) = &gathered.hole {
                let bytes = queue.total_at(stream, hole.start)?..queue.total_at(stream, hole.end)?;
                let bytes_at = |offset| Some(if offset <= hole.start { bytes.start } else { bytes.end });
                let mut window = queue.window();
                if again {
                    // It cannot be sent as it stood: an id never stands for fewer records than it did.
                    window.dissolve(&range, |offset| queue.total_at(stream, offset).ok());
                }
                let lost = window.settle(hole.clone(), Settled::Lost, bytes_at);
                drop(window);
                queue.dirty.store(true, Ordering::Release);
                if lost.records > 0 {
                    tracing::error!(
                        destination = self.destination(),
                        stream = self.stream(),
                        ?hole,
                        records = lost.records,
                        "records are lost to damage and will not be delivered"
                    );
                }
                if again || (gathered.slices.is_empty() && lost.records > 0) {
                    continue;
                }
            }
            if gathered.slices.is_empty() {
                // At the tail, or at damage that has no place among the settled ranges before a batch is settled.
                return Ok(None);
            }
            if let Some(batch) = queue.claim(stream, gathered, plan) {
                return Ok(Some(batch));
            }
            // Somebody settled a part of it meanwhile.
        }
    }
}

impl Inner {
    /// Enters what was read into the window. `None` when the window changed since it made the offer.
    fn claim(&self, stream: StreamId, gathered: Gathered, plan: Option<Plan>) -> Option<Batch> {
        let slices = gathered.slices;
        let offsets = slices.first()?.offsets.start..slices.last()?.offsets.end;
        let marks = Marks::new(slices.iter().map(|slice| Mark {
            first: slice.frame.first,
            records: slice.frame.records,
            bytes: u32::try_from(slice.frame.payload().len()).expect("the log's appends are below 4 GiB"),
            bytes_before: slice.frame.bytes_before,
            ingest_ms: slice.frame.ingest_ms,
        }));
        if !self.window().claim(offsets.clone(), marks) {
            return None;
        }
        let settings_revision = plan.map_or_else(|| self.revision.load(Ordering::Relaxed), |plan| plan.revision);
        let record = self.plan_record(stream, offsets.clone(), settings_revision);
        let id = plan::batch_id(self.context.log_id, &record);
        Some(Batch { id, offsets, slices, bytes: gathered.bytes, settings_revision, planned: plan.is_some() })
    }
}
