//! What came in and what was refused, counted. Plain atomics; who shows them asks for a [`Snapshot`].
//!
//! What always holds: every request is counted once as answered, ignored, or refused for one reason; impressions count
//! when they are durable, whether or not the sender heard of it. Numbers only grow. A head that is cut off is no request.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use super::environments::{Environments, KeyOwner};

/// Why a request, or its body, was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The head cannot be read (400), or is too long (431).
    Head,
    /// No SDK key, or one that nobody configured (401).
    UnknownKey,
    /// Cannot be read at all: not JSON, truncated, damaged (400).
    Unreadable,
    /// Above the limit of a body (413).
    TooLarge,
    /// An encoding that we cannot undo (415).
    Encoding,
    /// The head or the body did not come in time (408).
    Slow,
    /// The client left before its body was complete.
    Disconnected,
    /// No memory came free in time (503).
    Memory,
    /// The log's queue was full (503).
    Busy,
    /// The log takes nothing: its disk is full or failed (503).
    Disk,
    /// Nothing lives at the path, or not with this method (404, 405).
    NotFound,
}

impl Refusal {
    /// All reasons.
    pub const ALL: [Self; 11] = [
        Self::Head,
        Self::UnknownKey,
        Self::Unreadable,
        Self::TooLarge,
        Self::Encoding,
        Self::Slow,
        Self::Disconnected,
        Self::Memory,
        Self::Busy,
        Self::Disk,
        Self::NotFound,
    ];

    /// The reason as a label of metrics.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Head => "head",
            Self::UnknownKey => "unknown_key",
            Self::Unreadable => "unreadable",
            Self::TooLarge => "too_large",
            Self::Encoding => "encoding",
            Self::Slow => "slow",
            Self::Disconnected => "disconnected",
            Self::Memory => "memory",
            Self::Busy => "busy",
            Self::Disk => "disk",
            Self::NotFound => "not_found",
        }
    }
}

/// The counters of the whole way in.
#[derive(Debug)]
pub struct IngestStats {
    /// By place. Only grows.
    environments: RwLock<Vec<EnvironmentStats>>,
    /// Requests whose sender we do not know.
    strangers: Refusals,
    ignored: AtomicU64,
    connections: AtomicU64,
    connections_open: AtomicU64,
}

#[derive(Debug, Default)]
struct EnvironmentStats {
    id: Arc<str>,
    requests: AtomicU64,
    body_bytes: AtomicU64,
    accepted: AtomicU64,
    rejected: AtomicU64,
    unrouted: AtomicU64,
    refusals: Refusals,
    unreadable_by_key: Vec<AtomicU64>,
}

#[derive(Debug, Default)]
struct Refusals([AtomicU64; Refusal::ALL.len()]);

/// The counters at one moment. Those of one request may be seen in part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// In the order in which they came; those that are gone stay, with what they had counted.
    pub environments: Vec<EnvironmentSnapshot>,
    /// Requests refused before their environment was known: (reason, count).
    pub strangers: Vec<(Refusal, u64)>,
    /// Posts of SDKs that are taken and dropped (counts, unique keys, events, metrics).
    pub ignored: u64,
    /// Connections accepted since the start.
    pub connections: u64,
    /// Connections open now.
    pub connections_open: u64,
}

/// One environment's counters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnvironmentSnapshot {
    /// The environment's id.
    pub id: Arc<str>,
    /// Requests answered with a 2xx for what they brought.
    pub requests: u64,
    /// Bodies that arrived, decoded, whatever became of them.
    pub body_bytes: u64,
    /// Impressions made durable.
    pub accepted: u64,
    /// Elements that cannot be an impression, kept in the rejects stream.
    pub rejected: u64,
    /// Impressions made durable for which no destination is configured.
    pub unrouted: u64,
    /// Refused requests: (reason, count).
    pub refusals: Vec<(Refusal, u64)>,
    /// Unreadable bodies by the key's place in the configuration.
    pub unreadable_by_key: Vec<u64>,
}

impl IngestStats {
    pub(crate) fn new(environments: &Environments) -> Self {
        let stats = Self {
            environments: RwLock::default(),
            strangers: Refusals::default(),
            ignored: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            connections_open: AtomicU64::new(0),
        };
        stats.make_room(environments);
        stats
    }

    /// Makes counters for what is new among the environments and their keys.
    pub(crate) fn make_room(&self, environments: &Environments) {
        let mut all = self.environments.write().unwrap_or_else(PoisonError::into_inner);
        for (place, environment) in environments.all().iter().enumerate() {
            if place == all.len() {
                all.push(EnvironmentStats { id: environment.id().into(), ..EnvironmentStats::default() });
            }
            let by_key = &mut all[place].unreadable_by_key;
            let room = by_key.len().max(environment.keys());
            by_key.resize_with(room, || AtomicU64::new(0));
        }
    }

    fn environments(&self) -> RwLockReadGuard<'_, Vec<EnvironmentStats>> {
        self.environments.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The counters now.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            environments: self.environments().iter().map(EnvironmentStats::snapshot).collect(),
            strangers: self.strangers.snapshot(),
            ignored: self.ignored.load(Relaxed),
            connections: self.connections.load(Relaxed),
            connections_open: self.connections_open.load(Relaxed),
        }
    }

    /// A request was answered with a 2xx.
    pub(crate) fn request(&self, environment: usize) {
        self.environments()[environment].requests.fetch_add(1, Relaxed);
    }

    /// A body arrived.
    pub(crate) fn body(&self, environment: usize, bytes: u64) {
        self.environments()[environment].body_bytes.fetch_add(bytes, Relaxed);
    }

    /// Impressions are durable.
    pub(crate) fn accepted(&self, environment: usize, impressions: u64, routed: bool) {
        let environments = self.environments();
        let stats = &environments[environment];
        stats.accepted.fetch_add(impressions, Relaxed);
        if !routed {
            stats.unrouted.fetch_add(impressions, Relaxed);
        }
    }

    /// Elements that cannot be impressions are durable.
    pub(crate) fn rejected(&self, environment: usize, elements: u64) {
        self.environments()[environment].rejected.fetch_add(elements, Relaxed);
    }

    pub(crate) fn refused(&self, environment: Option<usize>, why: Refusal) {
        let environments = self.environments();
        let refusals = environment.map_or(&self.strangers, |place| &environments[place].refusals);
        refusals.0[why as usize].fetch_add(1, Relaxed);
    }

    pub(crate) fn unreadable_of_key(&self, owner: KeyOwner) {
        if let Some(count) = self.environments()[owner.environment].unreadable_by_key.get(owner.key as usize) {
            count.fetch_add(1, Relaxed);
        }
    }

    pub(crate) fn ignored(&self) {
        self.ignored.fetch_add(1, Relaxed);
    }

    pub(crate) fn connected(&self) {
        self.connections.fetch_add(1, Relaxed);
        self.connections_open.fetch_add(1, Relaxed);
    }

    pub(crate) fn disconnected(&self) {
        self.connections_open.fetch_sub(1, Relaxed);
    }
}

impl EnvironmentStats {
    fn snapshot(&self) -> EnvironmentSnapshot {
        EnvironmentSnapshot {
            id: Arc::clone(&self.id),
            requests: self.requests.load(Relaxed),
            body_bytes: self.body_bytes.load(Relaxed),
            accepted: self.accepted.load(Relaxed),
            rejected: self.rejected.load(Relaxed),
            unrouted: self.unrouted.load(Relaxed),
            refusals: self.refusals.snapshot(),
            unreadable_by_key: self.unreadable_by_key.iter().map(|count| count.load(Relaxed)).collect(),
        }
    }
}

impl Refusals {
    fn snapshot(&self) -> Vec<(Refusal, u64)> {
        Refusal::ALL.into_iter().map(|why| (why, self.0[why as usize].load(Relaxed))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_own_counter_and_label() {
        let environments = Environments::new([("prod".to_owned(), vec!["key"])]).unwrap();
        let stats = IngestStats::new(&environments);
        for (count, why) in Refusal::ALL.into_iter().enumerate() {
            for _ in 0..count {
                stats.refused(Some(0), why);
            }
        }
        let counts: Vec<u64> = stats.snapshot().environments[0].refusals.iter().map(|(_, count)| *count).collect();
        assert_eq!(counts, (0..Refusal::ALL.len() as u64).collect::<Vec<_>>());
        let mut labels: Vec<_> = Refusal::ALL.into_iter().map(Refusal::label).collect();
        labels.sort_unstable();
        labels.dedup();
        assert_eq!(labels.len(), Refusal::ALL.len());
    }

    #[test]
    fn what_nobody_waits_for_is_counted_as_unrouted_too() {
        let environments = Environments::new([("prod".to_owned(), vec!["key"])]).unwrap();
        let stats = IngestStats::new(&environments);
        stats.accepted(0, 3, true);
        stats.accepted(0, 4, false);
        let prod = &stats.snapshot().environments[0];
        assert_eq!((prod.accepted, prod.unrouted), (7, 4));
    }
}
