//! The seam between the loop of a destination and its queues: where batches are claimed, planned, settled, handed back.
//!
//! Two things implement it: the real queue ([`super::queued`]) and the script of the worker's tests. What always
//! holds: a claimed batch is either settled or, when its [`Ticket`] is dropped, handed back with the same id and the
//! same boundaries. No panic, timeout or cancelled task can lose a claim.

use std::sync::Arc;

use super::sink::Job;

/// One destination's queue of one stream.
pub trait Source: Send + Sync {
    /// Whether a batch could be claimed now. Cheap; does not touch the disk.
    fn has_more(&self) -> bool;

    /// Whether the next claim is served from memory. Otherwise it reads the disk and must not run on an async worker.
    fn in_memory(&self) -> bool;

    /// Claims the next batch: those handed back first, as they were. `None` when there is nothing to send now.
    ///
    /// # Errors
    /// When the records cannot be read. They stay queued.
    fn next(&self, limits: Limits) -> Result<Option<Claimed>, BoxError>;

    /// Names whom to wake when records arrive or a batch is handed back. Called from any thread; must not block.
    fn on_more(&self, wake: Arc<dyn Fn() + Send + Sync>);
}

/// The size of a batch. One record is always taken, however large.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Records in a batch, at most.
    pub records_max: u64,
    /// Stored bytes in a batch, at most.
    pub bytes_max: u64,
}

/// A batch that is ours to send.
pub struct Claimed {
    /// Its records.
    pub job: Job,
    /// Our right to it.
    pub ticket: Box<dyn Ticket>,
}

/// The right to settle one batch. Dropped without [`settle`](Self::settle) it hands the batch back.
pub trait Ticket: Send + Sync {
    /// Makes the batch's boundaries durable. `done` runs when they are, on any thread, and must not block.
    fn plan(&self, done: Box<dyn FnOnce(Result<(), BoxError>) + Send>);

    /// The destination has the batch: it is never claimed again.
    fn settle(self: Box<Self>);
}

/// An error of which the loop only needs the text.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
