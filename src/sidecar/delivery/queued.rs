//! The real source of batches: one queue of the log, as the loop of a destination sees it. Adds names, no policy.
//!
//! What always holds: a claim that ends without being settled goes back to the queue, whatever ended it. While a batch
//! is being sent its records are not held in memory for the queue's sake.

use std::sync::Arc;

use bytes::Bytes;
use forebay::{Batch, BatchLimits, Frame, LogId, Queue, Settled, Slice};

use super::sink::{Environment, Job, Origin, Part};
use super::source::{BoxError, Claimed, Limits, Source, Ticket};

/// One destination's queue of one environment.
pub struct Queued {
    queue: Queue,
    log: LogId,
    environment: Arc<Environment>,
}

impl Queued {
    /// The source that `queue` of the log `log` is, for an environment.
    #[must_use]
    pub fn new(queue: Queue, log: LogId, environment: Arc<Environment>) -> Self {
        Self { queue, log, environment }
    }
}

impl Source for Queued {
    fn has_more(&self) -> bool {
        self.queue.has_more()
    }

    fn in_memory(&self) -> bool {
        self.queue.ready_in_memory()
    }

    fn next(&self, limits: Limits) -> Result<Option<Claimed>, BoxError> {
        let limits = BatchLimits { records_max: limits.records_max, bytes_max: limits.bytes_max };
        let Some(mut batch) = self.queue.next_batch(limits)? else { return Ok(None) };
        let slices = std::mem::take(&mut batch.slices);
        // From here on a panic hands the batch back, too.
        let ticket = Box::new(Claim { queue: self.queue.clone(), batch: Some(batch) });
        let batch = ticket.batch.as_ref().expect("set above");
        let stream = slices.first().ok_or("a batch without records")?.frame.stream;
        let job = Job {
            id: batch.id.as_str().into(),
            origin: Origin { log: self.log, stream, offsets: batch.offsets.clone() },
            environment: Arc::clone(&self.environment),
            parts: slices.into_iter().map(part).collect(),
            except: Arc::default(),
            bytes: batch.bytes,
        };
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
}

impl Ticket for Claim {
    fn plan(&self, done: Box<dyn FnOnce(Result<(), BoxError>) + Send>) {
        let batch = self.batch.as_ref().expect("only settling takes it, and that takes the ticket");
        self.queue.plan(batch, Box::new(move |result| done(result.map_err(BoxError::from))));
    }

    fn settle(mut self: Box<Self>) {
        if let Some(batch) = self.batch.take() {
            self.queue.settle(&batch, Settled::Delivered);
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
    Part { payload: Bytes::from_owner(Payload(slice.frame)), skip, take: end - skip, first: slice.offsets.start }
}
