//! From a body to the log: parse it, append what it holds, and say when that is durable.
//!
//! What always holds: nothing is appended unless the whole body could be read; its impressions are one atomic append;
//! what it has that cannot be an impression is on disk before them, so that a body is never answered with a 2xx while
//! a part of it is nowhere, nor refused (and sent again) with its impressions stored. Once queued an append goes on, whoever still listens.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use forebay::{AppendError, Done, Log, OnFull, Payload};
use thiserror::Error;
use tokio::sync::oneshot;

use super::admission::Held;
use super::environments::Environment;
use super::rejects::{self, Sender};
use super::relay::{Keeping, Relay};
use super::stats::IngestStats;
use crate::impression::{self, BatchMeta, Form, Unreadable};

/// Where bodies go.
pub(crate) struct Store {
    log: Log,
    stats: Arc<IngestStats>,
    parse_limits: impression::Limits,
}

/// An append under way.
pub(crate) struct Queued {
    /// Impressions in it.
    pub(crate) accepted: u64,
    /// Elements that cannot be one.
    pub(crate) rejected: u64,
    /// Why the first of them cannot.
    pub(crate) first_reject: Option<String>,
    answered: oneshot::Receiver<Result<(), AppendError>>,
    /// The post as it came, where an upstream wants it.
    kept: Option<Keeping>,
}

/// A post that is to be kept as it came.
pub(crate) struct Original {
    pub(crate) relay: Arc<Relay>,
    /// The stream of its key; see [`post::stream`].
    pub(crate) stream: String,
    /// Its stored form.
    pub(crate) post: Vec<u8>,
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
    pub(crate) fn new(log: Log, stats: Arc<IngestStats>) -> Self {
        Self { log, stats, parse_limits: impression::Limits::default() }
    }

    /// Parses and queues a body of the environment at a place. Does not wait for the disk; see [`Queued::durable`]. `held` is the
    /// memory of the body, and `on_its_way` its part of what may be on the way to the disk: what the stored form needs of both is
    /// given back when it is on disk, the rest at once.
    ///
    /// `original` is made of a body that could be read, and kept beside its impressions: both are on their way at once,
    /// and what comes of it changes nothing for them. Where the impressions are refused when they are queued it is not
    /// kept; where their disk fails behind that, the upstream may get it, and once more when the sender repeats it.
    pub(crate) fn queue(
        &self,
        (environment, to): (usize, &Environment),
        body: Bytes,
        form: Form,
        meta: &BatchMeta<'_>,
        (mut held, mut on_its_way): (Held, Held),
        original: impl FnOnce(&Bytes) -> Option<Original>,
    ) -> Result<Queued, StoreError> {
        let parsed = impression::parse(&body, form, meta, &self.parse_limits)?;
        let original = original(&body);
        // Before the rejects take memory of their own.
        drop(body);
        // Each of them has it, so it is cut as it is for impressions.
        let sdk = &meta.sdk[..meta.sdk.len().min(self.parse_limits.shared_bytes_max)];
        let set_aside = Sender { received_ms: meta.received_ms, sdk_key: meta.sdk_key_index, sdk };
        let first_reject = parsed.rejects.first().map(|reject| reject.reason.clone());
        let set_aside = rejects::encode(parsed.rejects, &set_aside);
        let (accepted, rejected) = (parsed.records, parsed.rejected);
        let parts: Vec<Payload> =
            parsed.parts.into_iter().map(|part| Payload { bytes: part.payload, records: part.records }).collect();
        let stored_bytes: usize = set_aside.iter().chain(&parts).map(|part| part.bytes.len()).sum();
        let kept_held = original.as_ref().map(|original| held.split(original.post.len() as u64));
        held.shrink_to(stored_bytes as u64);
        on_its_way.shrink_to(stored_bytes as u64);
        let mut steps = VecDeque::new();
        if !set_aside.is_empty() {
            // The log would take them from its reserve, which is there to drain a full disk and not for what comes in.
            // Nor those of a post whose impressions are refused: it is sent again.
            if let Some(refused) = self.log.refuses(to.id()) {
                return Err(refused.into());
            }
            let stats = Arc::clone(&self.stats);
            let count = Box::new(move || stats.rejected(environment, rejected));
            steps.push_back(Step { stream: to.rejects_stream().to_owned(), parts: set_aside, count });
        }
        if !parts.is_empty() {
            let (stats, routed) = (Arc::clone(&self.stats), to.routed());
            let count = Box::new(move || stats.accepted(environment, accepted, routed));
            steps.push_back(Step { stream: to.id().to_owned(), parts, count });
        }
        let (answer, answered) = oneshot::channel();
        let queued = append(&self.log, steps, (held, on_its_way), &Arc::new(Mutex::new(Some(answer))));
        let kept = original.zip(kept_held).filter(|_| queued);
        let kept = kept.map(|(Original { relay, stream, post }, held)| relay.keep(&stream, post, held, true));
        Ok(Queued { accepted, rejected, first_reject, answered, kept })
    }
}

/// One append of a body.
struct Step {
    stream: String,
    parts: Vec<Payload>,
    count: Box<dyn FnOnce() + Send>,
}

type Answer = Arc<Mutex<Option<oneshot::Sender<Result<(), AppendError>>>>>;

/// Appends step by step, each when the one before is on disk, and answers behind the last or the first that fails. From
/// the second step on this runs on the log's writer thread: it counts, queues, gives back, wakes; nothing of it blocks.
/// Says whether the first one was queued.
fn append(log: &Log, mut steps: VecDeque<Step>, held: (Held, Held), answer: &Answer) -> bool {
    let Some(Step { stream, parts, count }) = steps.pop_front() else {
        drop(held);
        tell(answer, Ok(()));
        return true;
    };
    let (then, theirs) = (log.clone(), Arc::clone(answer));
    let done: Done = Box::new(move |result| match result {
        Ok(_) => {
            count();
            let _ = append(&then, steps, held, &theirs);
        }
        Err(error) => {
            drop((steps, held));
            tell(&theirs, Err(error));
        }
    });
    match log.append_group(&stream, parts, OnFull::Refuse, done) {
        Ok(()) => true,
        Err(error) => {
            tell(answer, Err(error));
            false
        }
    }
}

fn tell(answer: &Answer, result: Result<(), AppendError>) {
    // Nobody listens any more when the client has left.
    let _ = answer.lock().unwrap_or_else(PoisonError::into_inner).take().map(|answer| answer.send(result));
}

impl Queued {
    /// Waits until all of it survives a crash, the post as it came included, or is counted as missed upstream.
    pub(crate) async fn durable(&mut self) -> Result<(), StoreError> {
        (&mut self.answered).await.map_err(|_| StoreError::Closed)??;
        if let Some(kept) = &mut self.kept {
            // Whatever came of it, it is counted there and no reason to refuse the impressions.
            let _ = kept.await;
        }
        Ok(())
    }
}
