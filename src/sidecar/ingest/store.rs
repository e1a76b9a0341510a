//! From a body to the log: parse it, append what it holds, and say when that is durable.
//!
//! What always holds: nothing is appended unless the whole body could be read; its impressions are one atomic append;
//! what it has that cannot be an impression is queued before them, so that a body is never answered with a 2xx while
//! a part of it is nowhere. Once queued an append goes on, whoever still listens.

use std::sync::Arc;

use bytes::Bytes;
use forebay::{AppendError, Appended, Done, Log, LogState, OnFull, Payload};
use thiserror::Error;
use tokio::sync::oneshot;

use super::admission::Held;
use super::environments::Environments;
use super::rejects::{self, Sender};
use super::stats::IngestStats;
use crate::impression::{self, BatchMeta, Form, Unreadable};

/// Where bodies go.
pub(crate) struct Store {
    log: Log,
    environments: Arc<Environments>,
    stats: Arc<IngestStats>,
    parse_limits: impression::Limits,
}

/// An append under way.
pub(crate) struct Queued {
    /// Impressions in it.
    pub(crate) accepted: u64,
    /// Elements that cannot be one.
    pub(crate) rejected: u64,
    appends: Vec<oneshot::Receiver<Result<Appended, AppendError>>>,
}

/// Why a body was not stored.
#[derive(Debug, Error)]
pub(crate) enum StoreError {
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
    #[error(transparent)]
    Append(#[from] AppendError),
    #[error("the log was closed")]
    Closed,
}

impl Store {
    pub(crate) fn new(log: Log, environments: Arc<Environments>, stats: Arc<IngestStats>) -> Self {
        Self { log, environments, stats, parse_limits: impression::Limits::default() }
    }

    /// Parses and queues a body of `environment`. Does not wait for the disk; see [`Queued::durable`]. `held` is the
    /// memory of the body: what the stored form needs is given back when it is on disk, the rest at once.
    pub(crate) fn queue(
        &self,
        environment: usize,
        body: Bytes,
        form: Form,
        meta: &BatchMeta<'_>,
        mut held: Held,
    ) -> Result<Queued, StoreError> {
        let parsed = impression::parse(&body, form, meta, &self.parse_limits)?;
        // Before the rejects take memory of their own.
        drop(body);
        let set_aside = Sender { received_ms: meta.received_ms, sdk_key: meta.sdk_key_index, sdk: meta.sdk };
        let set_aside = rejects::encode(parsed.rejects, &set_aside);
        let (accepted, rejected) = (parsed.records, parsed.rejected);
        let parts: Vec<Payload> =
            parsed.parts.into_iter().map(|part| Payload { bytes: part.payload, records: part.records }).collect();
        let stored_bytes: usize = set_aside.iter().chain(&parts).map(|part| part.bytes.len()).sum();
        held.shrink_to(stored_bytes as u64);
        let held = Arc::new(held);

        let to = &self.environments.all()[environment];
        let mut queued = Queued { accepted, rejected, appends: Vec::with_capacity(2) };
        if !set_aside.is_empty() {
            // The log would take them from its reserve, which is there to drain a full disk and not for what comes in.
            if let LogState::Full { used, limit } = self.log.state() {
                return Err(AppendError::Full { used, limit }.into());
            }
            let stats = Arc::clone(&self.stats);
            let count = move || stats.rejected(environment, rejected);
            queued.appends.push(self.append(to.rejects_stream(), set_aside, &held, count)?);
        }
        if !parts.is_empty() {
            let (stats, routed) = (Arc::clone(&self.stats), to.routed());
            let count = move || stats.accepted(environment, accepted, routed);
            queued.appends.push(self.append(to.id(), parts, &held, count)?);
        }
        Ok(queued)
    }

    fn append(
        &self,
        stream: &str,
        parts: Vec<Payload>,
        held: &Arc<Held>,
        count: impl FnOnce() + Send + 'static,
    ) -> Result<oneshot::Receiver<Result<Appended, AppendError>>, AppendError> {
        let (answer, answered) = oneshot::channel();
        let held = Arc::clone(held);
        // Runs on the log's writer thread: counts, gives back, wakes; nothing of it blocks.
        let done: Done = Box::new(move |result| {
            if result.is_ok() {
                count();
            }
            drop(held);
            // Nobody listens any more when the client has left.
            let _ = answer.send(result);
        });
        self.log.append_group(stream, parts, OnFull::Refuse, done)?;
        Ok(answered)
    }
}

impl Queued {
    /// Waits until all of it survives a crash.
    pub(crate) async fn durable(&mut self) -> Result<(), StoreError> {
        for append in self.appends.drain(..) {
            append.await.map_err(|_| StoreError::Closed)??;
        }
        Ok(())
    }
}
