//! The stream `!control` itself: read at the start, appended to, and written anew as a snapshot when it has grown long.
//!
//! A frame holds whole records, one behind the other, each with its length before it. A snapshot may be larger than an
//! append: it has a number that all its records name, so that one that a crash cut off is told from what was decided
//! later. What is before it is trimmed only when all of it is durable.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};

use forebay::clock::Clock;
use forebay::failpoints::{self, Point};
use forebay::{AppendError, Item, Log, Payload, ReadError};
use prost::Message;

use super::replay::{Replay, Skipped};
use super::state::State;
use crate::proto::v1::control_record::Change;
use crate::proto::v1::{ControlRecord, ControlSnapshot};

/// Where it lies in the log.
pub const CONTROL_STREAM: &str = "!control";

/// Records behind the last snapshot before another is worth it: they are read at every start.
const SNAPSHOT_AFTER: u64 = 1_000;

/// A frame is closed when it has this many bytes: what a crash-safe log likes to be handed.
const FRAME_BYTES: usize = 128 << 10;

/// An append of a snapshot is closed when it has this many bytes: far below what any log takes at once.
const APPEND_BYTES: usize = 1 << 20;

/// After a snapshot that failed, the next one is tried when so many more records have come.
const AGAIN_AFTER: u64 = 100;

/// What operators decided, and where it is written down.
pub struct Journal {
    log: Log,
    clock: Arc<dyn Clock>,
    sizes: Sizes,
    state: RwLock<State>,
    /// Held while one writes.
    writing: Mutex<Writing>,
}

/// When a snapshot is made, and of what. Smaller in tests.
#[derive(Debug, Clone, Copy)]
struct Sizes {
    snapshot_after: u64,
    append_bytes: usize,
}

const SIZES: Sizes = Sizes { snapshot_after: SNAPSHOT_AFTER, append_bytes: APPEND_BYTES };

/// How far the stream is.
#[derive(Debug, Clone, Copy, Default)]
struct Writing {
    /// Records since the last snapshot.
    since_snapshot: u64,
    /// The number of the last snapshot, whole or not.
    snapshots: u32,
    /// No snapshot before so many records are there: the last one failed.
    not_before: u64,
}

/// A decision could not be written down. It does not hold.
#[derive(Debug, thiserror::Error)]
#[error("it can't be written down, so nothing was changed")]
pub struct JournalError(#[from] AppendError);

impl Journal {
    /// Reads the stream. What cannot be read is named and skipped.
    ///
    /// # Errors
    /// When the disk refuses to be read.
    pub fn open(log: Log, clock: Arc<dyn Clock>) -> Result<(Self, Vec<Skipped>), ReadError> {
        Self::open_with(log, clock, SIZES)
    }

    fn open_with(log: Log, clock: Arc<dyn Clock>, sizes: Sizes) -> Result<(Self, Vec<Skipped>), ReadError> {
        let mut replay = Replay::default();
        if let Some(stream) = log.stream(CONTROL_STREAM) {
            let mut reader = log.reader(stream, log.first_kept(stream));
            while let Some(item) = reader.next()? {
                match item {
                    Item::Frame(frame) => replay.frame(frame.offsets(), frame.payload()),
                    Item::Lost { offsets, .. } => replay.skip(offsets, "the log has lost them".to_owned()),
                }
            }
            // A process that ended before it could say so has not.
            log.trim(stream, replay.snapshot_at);
        }
        let Replay { state, since_snapshot, snapshots, skipped, .. } = replay.end();
        let writing = Writing { since_snapshot, snapshots, not_before: 0 };
        Ok((Self { log, clock, sizes, state: RwLock::new(state), writing: Mutex::new(writing) }, skipped))
    }

    /// What is decided now.
    pub fn state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes changes durable, all of them or none, then counts them as decided. Waits for the disk.
    ///
    /// # Errors
    /// When they are not durable; then nothing is decided.
    pub fn decide(&self, changes: Vec<Change>) -> Result<(), JournalError> {
        if changes.is_empty() {
            return Ok(());
        }
        let mut writing = self.writing();
        let mut parts = Parts::default();
        changes.iter().for_each(|change| parts.push(self.record(0, change)));
        failpoints::around(Point::ControlAppend, || self.log.append_wait(CONTROL_STREAM, parts.take()))?;
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        failpoints::around(Point::ControlApply, || changes.iter().for_each(|change| state.apply(change)));
        drop(state);
        writing.since_snapshot += changes.len() as u64;
        self.shorten(&mut writing);
        Ok(())
    }

    /// Writes a snapshot where that shortens what a start has to read. One that fails is tried again later.
    fn shorten(&self, writing: &mut Writing) {
        let state = self.state().changes();
        let worth_it = self.sizes.snapshot_after.max(2 * state.len() as u64);
        if writing.since_snapshot < worth_it.max(writing.not_before) {
            return;
        }
        match self.snapshot(writing, &state) {
            Ok(first) => {
                (writing.since_snapshot, writing.not_before) = (0, 0);
                if let Some(stream) = self.log.stream(CONTROL_STREAM) {
                    self.log.trim(stream, first);
                }
            }
            Err(error) => {
                writing.not_before = writing.since_snapshot + AGAIN_AFTER;
                tracing::warn!(%error, "no snapshot of what operators decided could be written");
            }
        }
    }

    /// Says once more all that was decided, in as many appends as it takes. Returns the first record's offset.
    fn snapshot(&self, writing: &mut Writing, state: &[Change]) -> Result<u64, AppendError> {
        let records = u32::try_from(state.len()).expect("what is decided is limited");
        writing.snapshots = writing.snapshots.wrapping_add(1).max(1);
        let number = writing.snapshots;
        let begin = Change::Snapshot(ControlSnapshot { records, number });
        let (mut parts, mut first) = (Parts::default(), None);
        for change in [&begin].into_iter().chain(state) {
            if parts.bytes() >= self.sizes.append_bytes {
                self.append(&mut parts, &mut first, writing)?;
            }
            parts.push(self.record(number, change));
        }
        self.append(&mut parts, &mut first, writing)?;
        Ok(first.expect("one append at least"))
    }

    fn append(&self, parts: &mut Parts, first: &mut Option<u64>, writing: &mut Writing) -> Result<(), AppendError> {
        let offsets = self.log.append_wait(CONTROL_STREAM, parts.take())?.offsets;
        // Should the rest fail: it is read at every start, like any other.
        writing.since_snapshot += offsets.end - offsets.start;
        first.get_or_insert(offsets.start);
        Ok(())
    }

    fn record(&self, part_of: u32, change: &Change) -> ControlRecord {
        ControlRecord { at_unix_ms: self.clock.wall_ms(), part_of, change: Some(change.clone()) }
    }

    fn writing(&self) -> MutexGuard<'_, Writing> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Records on their way into one append, as frames.
#[derive(Default)]
struct Parts(Vec<Payload>);

impl Parts {
    fn push(&mut self, record: ControlRecord) {
        if self.0.last().is_none_or(|part| part.bytes.len() >= FRAME_BYTES) {
            self.0.push(Payload { bytes: Vec::new(), records: 0 });
        }
        let part = self.0.last_mut().expect("pushed above");
        record.encode_length_delimited(&mut part.bytes).expect("a vector grows");
        part.records += 1;
    }

    fn bytes(&self) -> usize {
        self.0.iter().map(|part| part.bytes.len()).sum()
    }

    fn take(&mut self) -> Vec<Payload> {
        std::mem::take(&mut self.0)
    }
}

#[cfg(test)]
mod tests;
