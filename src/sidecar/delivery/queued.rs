//! The real source of batches: one queue of the log, as the loop of a destination sees it. Adds names, no policy.
//!
//! What the destination's filter leaves out is excepted from the job, and settled as filtered when the rest of its batch
//! settles. What always holds: a claim that ends without being settled goes back to the queue, whatever ended it. While a batch
//! is being sent its records are not held in memory for the queue's sake.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use forebay::{Batch, BatchLimits, Frame, LogId, Queue, Settled, Slice};

use super::filter::Filters;
use super::sink::{Environment, Job, Origin, Part};
use super::source::{BoxError, Claimed, Limits, Source, Ticket};

/// One destination's queue of one environment.
pub struct Queued {
    queue: Queue,
    log: LogId,
    environment: Arc<Environment>,
    filters: Option<Filters>,
}

impl Queued {
    /// The source that `queue` of the log `log` is, for an environment.
    #[must_use]
    pub fn new(queue: Queue, log: LogId, environment: Arc<Environment>) -> Self {
        Self { queue, log, environment, filters: None }
    }

    /// The same, for a destination that does not get everything.
    #[must_use]
    pub fn with_filters(self, filters: Filters) -> Self {
        Self { filters: Some(filters), ..self }
    }

    /// What of the job is filtered out, under the settings of `revision`.
    fn filtered(&self, job: &Job, revision: u32) -> Result<Vec<Range<u64>>, BoxError> {
        let filter = self.filters.as_ref().and_then(|filters| filters.at(revision));
        Ok(filter.map(|filter| filter.filtered(job.runs())).transpose()?.unwrap_or_default())
    }
}

impl Source for Queued {
    fn has_more(&self) -> bool {
        self.queue.has_more()
    }

    fn in_memory(&self) -> bool {
        // To filter is to read every record: too long for an async worker.
        self.filters.is_none() && self.queue.ready_in_memory()
    }

    fn next(&self, limits: Limits) -> Result<Option<Claimed>, BoxError> {
        let limits = BatchLimits { records_max: limits.records_max, bytes_max: limits.bytes_max };
        let Some(mut batch) = self.queue.next_batch(limits)? else { return Ok(None) };
        let slices = std::mem::take(&mut batch.slices);
        // From here on a panic hands the batch back, too.
        let mut ticket = Box::new(Claim { queue: self.queue.clone(), batch: Some(batch), filtered: Vec::new() });
        let batch = ticket.batch.as_ref().expect("set above");
        let stream = slices.first().ok_or("a batch without records")?.frame.stream;
        let mut job = Job {
            id: batch.id.as_str().into(),
            origin: Origin { log: self.log, stream, offsets: batch.offsets.clone() },
            environment: Arc::clone(&self.environment),
            parts: slices.into_iter().map(part).collect(),
            except: Arc::default(),
            bytes: batch.bytes,
        };
        let filtered = self.filtered(&job, batch.settings_revision)?;
        if !filtered.is_empty() {
            job.except = filtered.iter().cloned().flatten().collect();
            ticket.filtered = filtered;
        }
        Ok(Some(Claimed { job, ticket }))
    }

    fn on_more(&self, wake: Arc<dyn Fn() + Send + Sync>) {
        self.queue.on_more(wake);
    }
}

/// The right to a batch of a queue.
struct Claim {
    queue: Queue,
    /// Without its records; gone once settled.
    batch: Option<Batch>,
    /// Offsets that the destination does not get.
    filtered: Vec<Range<u64>>,
}

impl Ticket for Claim {
    fn plan(&self, done: Box<dyn FnOnce(Result<(), BoxError>) + Send>) {
        let batch = self.batch.as_ref().expect("only settling takes it, and that takes the ticket");
        self.queue.plan(batch, Box::new(move |result| done(result.map_err(BoxError::from))));
    }

    fn settle(mut self: Box<Self>) {
        if let Some(batch) = self.batch.take() {
            let filtered: Vec<_> = self.filtered.drain(..).map(|range| (range, Settled::Filtered)).collect();
            self.queue.settle_parts(&batch, &filtered, Settled::Delivered);
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if let Some(batch) = &self.batch {
            self.queue.release(batch);
        }
    }
}

/// A frame's payload, shared with the log's cache and not copied.
struct Payload(Arc<Frame>);

impl AsRef<[u8]> for Payload {
    fn as_ref(&self) -> &[u8] {
        self.0.payload()
    }
}

fn part(slice: Slice) -> Part {
    let within = |offset: u64| usize::try_from(offset - slice.frame.first).expect("a frame's records fit in memory");
    let (skip, end) = (within(slice.offsets.start), within(slice.offsets.end));
    Part { payload: Bytes::from_owner(Payload(slice.frame)), skip, take: end - skip }
}

#[cfg(test)]
mod tests;
