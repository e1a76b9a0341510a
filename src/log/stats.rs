//! The log in numbers and states, as it shows itself. Counts; decides nothing.

use crate::offset::StreamId;
use crate::sync::Arc;
use crate::sync::atomic::{AtomicU64, Ordering};

/// Whether appends are taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogState {
    /// They are.
    Serving,
    /// The disk budget is used up: only what helps to drain it is taken.
    Full {
        /// Bytes in use.
        used: u64,
        /// Most bytes that may be used.
        limit: u64,
    },
    /// The disk refuses writes: nothing is taken, reading goes on.
    ReadOnly {
        /// What the disk said.
        why: Arc<str>,
        /// Since when, in milliseconds since 1970.
        since_ms: u64,
    },
}

/// Where a stream's durable records end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tail {
    /// The offset that the next record gets: also the running total of records.
    pub offset: u64,
    /// Running total of payload bytes.
    pub bytes: u64,
}

/// One stream in numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamStats {
    /// Its number.
    pub id: StreamId,
    /// Its name.
    pub name: Arc<str>,
    /// Its durable end.
    pub tail: Tail,
    /// Nothing below this offset is kept.
    pub first_kept: u64,
    /// Payload bytes that somebody still needs, and what was delivered behind those. Exact where a queue trims it; else to a few percent, since the log knows no
    /// record's size.
    pub backlog_bytes: u64,
    /// What it is charged for where the disk is short: its backlog, and its part of what is kept because of it though nobody
    /// needs it.
    pub held_bytes: u64,
}

/// The log in numbers, counted since it was opened unless said otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogStats {
    /// Whether appends are taken.
    pub state: LogState,
    /// Streams that ever were.
    pub streams: usize,
    /// Segments on disk.
    pub segments: usize,
    /// Bytes of segments and of room taken ahead.
    pub bytes_used: u64,
    /// The disk budget in bytes.
    pub bytes_limit: u64,
    /// The disk is short: a stream that holds more bytes than this is refused, and no other.
    pub share_bytes: Option<u64>,
    /// From so many bytes in use on the disk is short; all of the budget where it is too small to be shared.
    pub short_at_bytes: u64,
    /// Room that is always taken ahead, and what is written to: of the bytes in use so many hold nothing that is needed.
    pub ahead_bytes: u64,
    /// Payload bytes that somebody still needs, of all streams.
    pub needed_bytes: u64,
    /// Bytes of sealed segments beyond what is needed: kept for replay, or until they are compacted.
    pub pinned_bytes: u64,
    /// Bytes of just appended frames in memory.
    pub tail_cache_bytes: usize,
    /// Bytes that wait for the writer.
    pub queued_bytes: usize,
    /// Appends that became durable.
    pub appends: u64,
    /// Commits: each is one write and one sync.
    pub commits: u64,
    /// Segments taken away.
    pub segments_reclaimed: u64,
    /// Segments of which only what somebody needs was kept, in a compact one.
    pub segments_compacted: u64,
    /// Bytes that were written to compact segments.
    pub compacted_bytes: u64,
    /// Rounds of housekeeping that met an error.
    pub housekeeping_errors: u64,
    /// Reads of acknowledged records that the disk refused. Nothing is skipped for it: readers try again.
    pub reads_refused: u64,
    /// Damaged places met.
    pub damages: u64,
}

#[derive(Default)]
pub(super) struct Counters {
    pub(super) appends: Counter,
    pub(super) commits: Counter,
    pub(super) segments_reclaimed: Counter,
    pub(super) segments_compacted: Counter,
    pub(super) compacted_bytes: Counter,
    pub(super) housekeeping_errors: Counter,
}

#[derive(Default)]
pub(super) struct Counter(AtomicU64);

// === impl Counter ===

impl Counter {
    pub(super) fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
