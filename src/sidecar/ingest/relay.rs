//! Keeps posts as they came, for one upstream: in a log of its own, whose budget is the upstream's share of the disk.
//!
//! What always holds: the share is the log's own limit, so posts that are kept never take room from impressions, and
//! nothing here refuses an impression. What finds no room, no disk, or an upstream that does not run is counted as it is
//! turned away, and said in the log. Completion runs on that log's writer thread and blocks nothing.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use forebay::clock::Clock;
use forebay::{AppendError, Done, Log, OnFull, Payload};
use tokio::sync::oneshot;
use tracing::{error, info, warn};

use super::admission::Held;
use super::limits::{COMPLAINT_INTERVAL, RELAY_WARN_PERCENT};
use crate::post::TooManyKeys;

/// Where the posts of some environments are kept for one upstream.
pub struct Relay {
    destination: Arc<str>,
    /// `None` while the upstream is wanted and does not run.
    log: Option<Log>,
    clock: Arc<dyn Clock>,
    counts: Arc<Counts>,
}

/// Of one upstream, whether it runs or not.
#[derive(Default)]
struct Counts {
    kept: AtomicU64,
    kept_bytes: AtomicU64,
    missed: AtomicU64,
    refused: AtomicU64,
    said: Mutex<Said>,
}

/// What the operator was told, and when.
#[derive(Default)]
struct Said {
    looked: Option<Duration>,
    missed: Option<Duration>,
    missed_since: u64,
    filling: bool,
    failing: bool,
}

/// What became of posts since the start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelaySnapshot {
    /// The upstream's id.
    pub destination: Arc<str>,
    /// Posts that are kept, fsynced.
    pub kept: u64,
    /// Their bytes, as stored.
    pub kept_bytes: u64,
    /// Posts whose impressions were accepted, and which the upstream will never get: no room or no disk for them, or it did
    /// not run.
    pub missed: u64,
    /// Posts without impressions that were refused for the same reasons. Their senders know.
    pub refused: u64,
    /// Bytes of its share in use.
    pub used_bytes: u64,
    /// The share.
    pub limit_bytes: u64,
}

/// A post on its way to the disk.
pub(crate) type Keeping = oneshot::Receiver<Result<(), AppendError>>;

impl Relay {
    /// Keeps posts in `log` for the upstream `destination`.
    #[must_use]
    pub fn new(destination: Arc<str>, log: Log, clock: Arc<dyn Clock>) -> Self {
        Self { destination, log: Some(log), clock, counts: Arc::default() }
    }

    /// For an upstream that does not run, though it is wanted: what comes for it is turned away and counted.
    #[must_use]
    pub fn missing(destination: Arc<str>, clock: Arc<dyn Clock>) -> Self {
        Self { destination, log: None, clock, counts: Arc::default() }
    }

    /// The same upstream when its log is there. Goes on counting.
    #[must_use]
    pub fn found(&self, log: Log) -> Self {
        let (destination, clock) = (Arc::clone(&self.destination), Arc::clone(&self.clock));
        Self { destination, log: Some(log), clock, counts: Arc::clone(&self.counts) }
    }

    /// The upstream's id.
    #[must_use]
    pub fn destination(&self) -> &Arc<str> {
        &self.destination
    }

    /// Whether posts are kept here, and not turned away for want of an upstream that runs.
    #[must_use]
    pub fn is_there(&self) -> bool {
        self.log.is_some()
    }

    /// The counters and the share now.
    #[must_use]
    pub fn snapshot(&self) -> RelaySnapshot {
        let share = self.log.as_ref().map(Log::stats);
        let (used_bytes, limit_bytes) = share.map_or((0, 0), |log| (log.bytes_used, log.bytes_limit));
        let Counts { kept, kept_bytes, missed, refused, .. } = &*self.counts;
        RelaySnapshot {
            destination: Arc::clone(&self.destination),
            kept: kept.load(Relaxed),
            kept_bytes: kept_bytes.load(Relaxed),
            missed: missed.load(Relaxed),
            refused: refused.load(Relaxed),
            used_bytes,
            limit_bytes,
        }
    }

    /// Queues a post of `stream`; the answer comes when it is on disk, or will never be. `held` is its memory until
    /// then. `taken`: its impressions are accepted whatever becomes of it here, so that a failure is a miss of the
    /// upstream's and not the sender's to mend.
    pub(crate) fn keep(self: &Arc<Self>, stream: &str, post: Vec<u8>, held: Held, taken: bool) -> Keeping {
        let (answer, answered) = oneshot::channel();
        let Some(log) = &self.log else {
            self.turned_away(taken, &"it does not run: what keeps it from that is in the log");
            return answered;
        };
        let bytes = post.len() as u64;
        let relay = Arc::clone(self);
        // In a cell, for the log calls back or returns an error, never both, and both need it.
        let answer = Arc::new(Mutex::new(Some(answer)));
        let theirs = Arc::clone(&answer);
        let done: Done = Box::new(move |result| {
            drop(held);
            relay.note(result.as_ref().map(|_| bytes).map_err(|error| (error, taken)));
            tell(&theirs, result.map(|_| ()));
        });
        let parts = vec![Payload { bytes: post, records: 1 }];
        if let Err(error) = log.append_group(stream, parts, OnFull::Refuse, done) {
            self.note(Err((&error, taken)));
            tell(&answer, Err(error));
        }
        answered
    }

    /// The post of impressions that are accepted is none that can be kept.
    pub(crate) fn misses(&self, why: &TooManyKeys) {
        self.turned_away(true, why);
    }

    fn turned_away(&self, taken: bool, why: &dyn fmt::Display) {
        let count = if taken { &self.counts.missed } else { &self.counts.refused };
        count.fetch_add(1, Relaxed);
        self.complain(why, self.clock.monotonic());
    }

    /// Counts, and tells the operator what changed.
    fn note(&self, result: Result<u64, (&AppendError, bool)>) {
        match result {
            Ok(bytes) => {
                let now = self.clock.monotonic();
                self.counts.kept.fetch_add(1, Relaxed);
                self.counts.kept_bytes.fetch_add(bytes, Relaxed);
                let mut said = self.said();
                if std::mem::take(&mut said.failing) {
                    info!(upstream = %self.destination, "posts are kept for the upstream again");
                }
                let due = said.looked.is_none_or(|last| now.saturating_sub(last) >= Duration::from_secs(1));
                if due {
                    said.looked = Some(now);
                    self.look(&mut said);
                }
            }
            Err((error, taken)) => self.turned_away(taken, error),
        }
    }

    /// Warns once as the share runs short, before anything is missed.
    fn look(&self, said: &mut Said) {
        let Some(stats) = self.log.as_ref().map(Log::stats) else { return };
        let (used, limit) = (stats.bytes_used, stats.bytes_limit);
        let filling = used >= limit / 100 * RELAY_WARN_PERCENT;
        if filling && !said.filling {
            warn!(
                upstream = %self.destination,
                used,
                limit,
                "posts that wait for the upstream have taken most of their share of the disk: when it is full, later \
                 ones are missed upstream (impressions are accepted all the same); mend the upstream or raise max_bytes"
            );
        }
        said.filling = filling;
    }

    fn complain(&self, why: &dyn fmt::Display, now: Duration) {
        let mut said = self.said();
        said.failing = true;
        said.missed_since += 1;
        if said.missed.is_some_and(|last| now.saturating_sub(last) < COMPLAINT_INTERVAL) {
            return;
        }
        said.missed = Some(now);
        let posts = std::mem::take(&mut said.missed_since);
        error!(
            upstream = %self.destination,
            posts,
            error = %why,
            "posts could not be kept for the upstream: it will never get those whose impressions were accepted, the \
             others were refused (503); impressions themselves are safe"
        );
    }

    fn said(&self) -> std::sync::MutexGuard<'_, Said> {
        self.counts.said.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Relay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Relay").field("destination", &self.destination).finish_non_exhaustive()
    }
}

type Answer = Mutex<Option<oneshot::Sender<Result<(), AppendError>>>>;

fn tell(answer: &Answer, result: Result<(), AppendError>) {
    // Nobody listens any more when the client has left.
    let _ = answer.lock().unwrap_or_else(PoisonError::into_inner).take().map(|answer| answer.send(result));
}
