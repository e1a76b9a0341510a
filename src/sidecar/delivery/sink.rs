//! The seam between the loop of a destination and a vendor's protocol: what a sink is given and what it answers.
//!
//! A sink turns a batch into bytes ([`Sink::encode`], CPU only) and brings bytes to the destination ([`Sink::send`]).
//! It decides nothing about when, how often, or what becomes of the batch: that follows from the [`Outcome`].

use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use forebay::{LogId, StreamId};
use tokio::time::Instant;

use super::outcome::Outcome;

/// A future on the heap, so that traits with futures stay object-safe and idle tasks stay small.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Where batches go: one destination's protocol and settings.
pub trait Sink: Send + Sync {
    /// Names the bytes that [`encode`](Self::encode) makes. Two sinks that return equal formats make equal bytes of
    /// equal jobs, so that they can share them.
    fn format(&self) -> Format;

    /// Turns the records of a job into the bytes to send. Needs CPU only: no I/O, no clock. The same job gives the
    /// same bytes, always.
    ///
    /// # Errors
    /// When a record cannot be read back.
    fn encode(&self, job: &Job) -> Result<Encoded, EncodeError>;

    /// Brings the bytes to the destination, as the batch named `id`. Answers by `deadline`, or soon after if stopping
    /// half way would do harm. Dropping the future gives up; the destination may then have the batch or not.
    fn send<'a>(&'a self, encoded: &'a Encoded, id: &'a str, deadline: Instant) -> BoxFuture<'a, Outcome>;

    /// Whether the batch's boundaries must be durable before its first byte leaves: yes wherever the destination
    /// tells repeats apart by batch.
    fn needs_plan(&self) -> bool;
}

/// A name for an encoding; see [`Sink::format`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Format {
    /// Which encoder.
    pub name: &'static str,
    /// The gzip level, if compressed.
    pub gzip: Option<u8>,
}

/// Where records come from: equal origins are equal records, on every machine, for ever.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Origin {
    /// The log.
    pub log: LogId,
    /// The stream in it.
    pub stream: StreamId,
    /// Their offsets in the stream.
    pub offsets: Range<u64>,
}

impl Origin {
    /// How many records.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.offsets.end - self.offsets.start
    }
}

/// An environment, as destinations are told of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Environment {
    /// Its id.
    pub id: String,
    /// Its name for people.
    pub name: String,
}

/// One batch, ready to be encoded. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Job {
    /// The batch's id: the same at every attempt.
    pub id: Arc<str>,
    /// Which records these are.
    pub origin: Origin,
    /// The environment that they belong to.
    pub environment: Arc<Environment>,
    /// The records in order; together they make up `origin.offsets`.
    pub parts: Vec<Part>,
    /// Their size as stored.
    pub bytes: u64,
}

/// Some consecutive records of one stored batch.
#[derive(Debug, Clone)]
pub struct Part {
    /// The stored batch as a whole.
    pub payload: Bytes,
    /// How many of its records come before these.
    pub skip: usize,
    /// How many to take.
    pub take: usize,
}

/// What one request carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    /// The records in it.
    pub origin: Origin,
    /// The bytes, compressed if the format says so.
    pub body: Bytes,
}

/// A job that cannot be turned into bytes.
#[derive(Debug, thiserror::Error)]
#[error("cannot encode stream {}, offsets {}..{}: {why}", at.stream, at.offsets.start, at.offsets.end)]
pub struct EncodeError {
    /// The records of the job.
    pub at: Origin,
    /// What is wrong with them.
    pub why: String,
}
