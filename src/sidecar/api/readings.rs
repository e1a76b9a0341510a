//! What the API shows, as plain values, and where it comes from.
//!
//! The API sits beside ingest and delivery and knows neither: whoever wires the sidecar gives it one closure for each thing to
//! look at. Every closure is called often and only looks: it changes nothing and waits for nothing but a short lock.

use std::sync::Arc;
use std::time::Duration;

use forebay::{LogState, LogStats};

use super::destinations::Operations;
use super::disk_shares::DiskReading;
use crate::letters::Letters;
use crate::ready::Readiness;

/// Asks for the present value of something.
pub type Source<T> = Box<dyn Fn() -> T + Send + Sync>;

/// Shows the present value of each of many in turn. Whoever looks decides what to keep: with thousands of them a list
/// that is made and thrown away every second would be most of what they cost.
pub type Each<T> = Box<dyn Fn(&mut dyn FnMut(T)) + Send + Sync>;

/// Everything that the API looks at.
pub struct Sources {
    /// Every queue that can be behind.
    pub queues: Each<QueueReading>,
    /// Every queue that has books, among them those of dead letters.
    pub booked: Source<Vec<forebay::Queue>>,
    /// What delivers them. A queue that is not among these is kept, but not delivered.
    pub deliveries: Source<Vec<DeliveryReading>>,
    /// The way in.
    pub ingest: Source<IngestReading>,
    /// The log.
    pub log: Source<LogReading>,
    /// What environments have of the disk.
    pub disk: Source<DiskReading>,
    /// What operators may have sent once more, if they may.
    pub replayed: Option<Replayed>,
    /// The configuration file.
    pub reloads: Source<ReloadReading>,
    /// The threads that run tasks, where these are watched.
    pub threads: Source<Vec<ThreadsReading>>,
    /// What operators may have done, where that is possible.
    pub operations: Option<Arc<dyn Operations>>,
    /// The letters, where there are any to be seen to.
    pub letters: Option<Arc<Letters>>,
    /// Whether to send here. What the log says of itself is added: it needs no block.
    pub readiness: Readiness,
}

/// What operators may have sent once more.
#[derive(Clone)]
pub struct Replayed {
    /// The queues of all destinations.
    pub queues: forebay::Queues,
    /// Whether the destination of this id drops nothing that it has, whatever its id: then it has it twice.
    pub keeps_repeats: Arc<dyn Fn(&str) -> bool + Send + Sync>,
}

impl Sources {
    /// Sources that have nothing to show and are ready.
    #[must_use]
    pub fn empty() -> Self {
        Self {
            queues: Box::new(|_| ()),
            booked: Box::new(Vec::new),
            deliveries: Box::new(Vec::new),
            ingest: Box::new(IngestReading::default),
            log: Box::new(LogReading::empty),
            disk: Box::new(DiskReading::default),
            replayed: None,
            reloads: Box::new(ReloadReading::default),
            threads: Box::new(Vec::new),
            operations: None,
            letters: None,
            readiness: Readiness::new(),
        }
    }
}

/// What came of the configuration file's changes since the process began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReloadReading {
    /// Times that it was read again and obeyed.
    pub done: u64,
    /// Times that it was not.
    pub failed: u64,
    /// Whether the last time was one of those, or a destination of it does not run as it says: what runs is not what the file says.
    pub last_failed: bool,
}

/// Threads that share what is ready to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ThreadsReading {
    /// What they are called, after `forebay-`. Becomes a label value.
    pub threads: &'static str,
    /// For how long what is new there has had no turn; zero where it had.
    pub waits: Duration,
    /// Stalls since the start: times that it had none for so long that something must be wrong.
    pub stalls: u64,
}

/// One queue: how far a destination is behind on a stream, and where every record went.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct QueueReading {
    /// The destination's id.
    pub destination: Arc<str>,
    /// The stream's name.
    pub stream: Arc<str>,
    /// What is accepted and not settled.
    pub lag: forebay::Lag,
    /// What became of everything.
    pub balance: forebay::Balance,
    /// What is coming for what waits too long, where an operator has set that.
    pub overflow: Option<OverflowReading>,
    /// Whether nothing takes from it, though its destination may run: its environment was taken out.
    pub left_behind: bool,
}

/// When records are given up, if nothing changes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OverflowReading {
    /// When the oldest that waits will be too old.
    pub too_old_at_unix_ms: Option<u64>,
    /// So many bytes more may wait for the destination.
    pub bytes_left: Option<u64>,
}

/// What a destination is doing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum DeliveryState {
    /// Nothing waits.
    #[default]
    Idle,
    /// Batches are on their way and are being taken.
    Delivering,
    /// The destination asked for less.
    Throttled,
    /// The last attempt failed and is being repeated.
    Retrying,
    /// The destination refuses; it is probed now and then.
    Refused,
    /// An operator has paused it.
    Paused,
    /// The sidecar is stopping: no more batches are started.
    Stopping,
    /// It could not be started, and is tried again.
    NotStarted,
}

/// What a destination is sent a second, at most. What is `None` is not limited.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct RateReading {
    /// Requests, as an operator says.
    pub allowed_requests: Option<u32>,
    /// Records, as an operator says.
    pub allowed_records: Option<u32>,
    /// Bytes, as an operator says.
    pub allowed_bytes: Option<u64>,
    /// Requests, as was learned.
    pub learned_requests: Option<f64>,
    /// Records, as was learned.
    pub learned_records: Option<f64>,
}

/// What a request waits for, where nothing failed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum WaitsFor {
    /// Nothing, or as the state says.
    #[default]
    Nothing,
    /// An answer: as many requests are in flight as may be.
    Answers,
    /// Its part of what destinations share, or the disk.
    Share,
    /// The rate that an operator allows.
    AllowedRate,
    /// The rate that was learned.
    LearnedRate,
    /// The moment from which on the destination takes more, as it said.
    Reset,
}

/// How delivery fares with one destination, since the start.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DeliveryReading {
    /// The destination's id.
    pub destination: Arc<str>,
    /// What it is doing.
    pub state: DeliveryState,
    /// When the next attempt is due, while it waits (wall clock).
    pub next_attempt_unix_ms: Option<u64>,
    /// The last failure, in words. Must hold no secret; is shortened.
    pub last_error: Option<String>,
    /// When it was, if that is known (wall clock).
    pub last_error_unix_ms: Option<u64>,
    /// When something was last delivered (wall clock).
    pub last_success_unix_ms: Option<u64>,
    /// Failures since then.
    pub failures_in_a_row: u64,
    /// Requests that were answered or given up, by what came of them. The names become label values: few, and fixed at
    /// compile time.
    pub requests: Vec<(&'static str, u64)>,
    /// Requests on their way now.
    pub requests_in_flight: u64,
    /// Bytes of bodies, as sent.
    pub sent_bytes: u64,
    /// Answers that were about records or about the destination itself, by what they meant; they are among the requests.
    pub verdicts: Vec<(&'static str, u64)>,
    /// Records that were rejected and are not yet decided on.
    pub undecided_records: u64,
    /// How fast it is sent to.
    pub rate: RateReading,
    /// What its next request waits for.
    pub waits_for: WaitsFor,
    /// Its queues that wait by themselves.
    pub held: Vec<HeldReading>,
    /// Why it does not run as was decided, if it does not. Must hold no secret; is shortened.
    pub not_as_decided: Option<String>,
}

/// A queue that its destination does not take from, while it takes what others send.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeldReading {
    /// The stream that it reads.
    pub stream: String,
    /// What was answered to it, in words. Must hold no secret; is shortened.
    pub why: String,
    /// When that was (wall clock).
    pub since_unix_ms: u64,
    /// When it is tried again (wall clock).
    pub until_unix_ms: u64,
    /// It is refused; not a batch of it that fails.
    pub refused: bool,
}

impl DeliveryReading {
    /// What the destination is doing, as one word: that it refuses one of its queues is worse than what it does with the
    /// others.
    #[must_use]
    pub fn worst_state(&self) -> DeliveryState {
        match self.state {
            DeliveryState::Paused | DeliveryState::Stopping | DeliveryState::NotStarted => self.state,
            _ if self.held.iter().any(|held| held.refused) => DeliveryState::Refused,
            other => other,
        }
    }
}

/// What came in since the start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IngestReading {
    /// By environment.
    pub environments: Vec<EnvironmentReading>,
    /// By upstream: posts kept as they came.
    pub relays: Vec<RelayReading>,
    /// Requests refused: the environment if it was known, the reason (few, and fixed at compile time), how many.
    pub refused: Vec<(Option<String>, &'static str, u64)>,
    /// Posts of other kinds, answered and not kept.
    pub ignored_requests: u64,
    /// Connections open now.
    pub connections_open: u64,
    /// Memory that request bodies hold now.
    pub body_bytes_held: u64,
    /// The most they may hold.
    pub body_bytes_held_max: u64,
}

/// What one upstream's log took in since the start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RelayReading {
    /// The upstream's id.
    pub destination: Arc<str>,
    /// Posts, by what became of them. The names become label values.
    pub posts: [(&'static str, u64); 3],
    /// Bytes of those that were kept, as stored.
    pub kept_bytes: u64,
    /// Bytes of its share of the disk in use.
    pub used_bytes: u64,
    /// The share.
    pub limit_bytes: u64,
}

/// What came in for one environment since the start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EnvironmentReading {
    /// The environment's id.
    pub environment: String,
    /// Requests that were acknowledged.
    pub accepted_requests: u64,
    /// The impressions in them.
    pub accepted_records: u64,
    /// Those of them that no destination takes.
    pub unrouted_records: u64,
    /// Elements that are no impressions, kept as raw text with the reason.
    pub rejected_records: u64,
    /// Bytes of bodies that arrived, decompressed, whatever became of them.
    pub body_bytes: u64,
    /// Bodies that could not be read at all, by the place of their SDK key in the configuration.
    pub unreadable_by_key: Vec<u64>,
}

/// The log and what is kept beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogReading {
    /// What the log says.
    pub log: forebay::LogStats,
    /// Ticks of the floor that wrote something, since the start.
    pub floor_writes: u64,
    /// Ticks that could not write it, since the start.
    pub floor_errors: u64,
    /// Whether cursors were lost that nobody can name, so that nothing is deleted.
    pub floor_pinned: bool,
    /// How often the sled index was set aside and made anew since the start.
    pub sled_resets: u64,
    /// Dead letters by destination, of those that have or had some.
    pub dead_letters: Vec<(Arc<str>, forebay::Count)>,
    /// Lines of file destinations that could not be read back, at least, by destination, of those that had some.
    pub damaged_lines: Vec<(Arc<str>, u64)>,
}

impl LogReading {
    /// A log that is empty and serves.
    #[must_use]
    pub fn empty() -> Self {
        let log = LogStats {
            state: LogState::Serving,
            streams: 0,
            segments: 0,
            bytes_used: 0,
            bytes_limit: 0,
            share_bytes: None,
            short_at_bytes: 0,
            ahead_bytes: 0,
            needed_bytes: 0,
            pinned_bytes: 0,
            tail_cache_bytes: 0,
            queued_bytes: 0,
            appends: 0,
            commits: 0,
            segments_reclaimed: 0,
            segments_compacted: 0,
            compacted_bytes: 0,
            housekeeping_errors: 0,
            reads_refused: 0,
            damages: 0,
        };
        Self {
            log,
            floor_writes: 0,
            floor_errors: 0,
            floor_pinned: false,
            sled_resets: 0,
            dead_letters: Vec::new(),
            damaged_lines: Vec::new(),
        }
    }
}

/// Why a log in this state makes the sidecar not ready; `None` when it does not.
#[must_use]
pub fn not_ready_because(state: &LogState) -> Option<String> {
    match state {
        LogState::Serving => None,
        LogState::Full { used, limit } => Some(format!(
            "the log is full: {used} of {limit} bytes are used; delivery goes on and makes room, or raise the budget"
        )),
        LogState::ReadOnly { why, .. } => {
            Some(format!("the log is read-only: {why}; delivery goes on, and writing resumes when the disk does"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_log_that_serves_is_ready() {
        assert_eq!(not_ready_because(&LogState::Serving), None);
        let full = not_ready_because(&LogState::Full { used: 9, limit: 10 }).unwrap();
        assert!(full.contains("9 of 10 bytes"), "{full}");
        let failed = not_ready_because(&LogState::ReadOnly { why: "input/output error".into(), since_ms: 1 }).unwrap();
        assert!(failed.contains("input/output error") && failed.contains("delivery goes on"), "{failed}");
    }
}
