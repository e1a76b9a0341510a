//! The stream `!control` itself: read at the start, appended to, and written anew as a snapshot when it has grown long.
//!
//! A frame holds whole records, one behind the other, each with its length before it. A snapshot is one append, so that
//! after a crash it is there as a whole or not at all; what is before it is trimmed only when it is durable.

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};

use forebay::clock::Clock;
use forebay::{AppendError, Item, Log, Payload, ReadError};
use prost::Message;

use super::state::State;
use crate::proto::v1::control_record::Change;
use crate::proto::v1::{ControlRecord, ControlSnapshot};

/// Where it lies in the log.
pub const CONTROL_STREAM: &str = "!control";

/// Records behind the last snapshot before another is worth it: they are read at every start.
const SNAPSHOT_AFTER: u64 = 1_000;

/// A frame is closed when it has this many bytes: what a crash-safe log likes to be handed.
const FRAME_BYTES: usize = 128 << 10;

/// What operators decided, and where it is written down.
pub struct Journal {
    log: Log,
    clock: Arc<dyn Clock>,
    state: RwLock<State>,
    /// Records since the last snapshot. Held while one writes.
    writing: Mutex<u64>,
}

/// Records that could not be read. What they said is not known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// Their offsets in [`CONTROL_STREAM`].
    pub offsets: Range<u64>,
    /// What is wrong with them.
    pub why: String,
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
        let Replay { state, since_snapshot, skipped, .. } = replay.end();
        Ok((Self { log, clock, state: RwLock::new(state), writing: Mutex::new(since_snapshot) }, skipped))
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
        let mut since_snapshot = self.writing();
        self.append(&changes)?;
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        changes.iter().for_each(|change| state.apply(change));
        drop(state);
        *since_snapshot += changes.len() as u64;
        self.shorten(&mut since_snapshot);
        Ok(())
    }

    /// Writes a snapshot where that shortens what a start has to read. One that fails is tried again later.
    fn shorten(&self, since_snapshot: &mut u64) {
        let state = self.state().changes();
        if *since_snapshot < SNAPSHOT_AFTER.max(2 * state.len() as u64) {
            return;
        }
        let records = u32::try_from(state.len()).expect("what is decided is limited");
        let mut changes = vec![Change::Snapshot(ControlSnapshot { records })];
        changes.extend(state);
        match self.append(&changes) {
            Ok(first) => {
                *since_snapshot = 0;
                if let Some(stream) = self.log.stream(CONTROL_STREAM) {
                    self.log.trim(stream, first);
                }
            }
            Err(error) => tracing::warn!(%error, "no snapshot of what operators decided could be written"),
        }
    }

    /// Returns the first record's offset.
    fn append(&self, changes: &[Change]) -> Result<u64, AppendError> {
        let at_unix_ms = self.clock.wall_ms();
        let mut parts: Vec<Payload> = Vec::new();
        for change in changes {
            let record = ControlRecord { at_unix_ms, change: Some(change.clone()) };
            if parts.last().is_none_or(|part| part.bytes.len() >= FRAME_BYTES) {
                parts.push(Payload { bytes: Vec::new(), records: 0 });
            }
            let part = parts.last_mut().expect("pushed above");
            record.encode_length_delimited(&mut part.bytes).expect("a vector grows");
            part.records += 1;
        }
        Ok(self.log.append_wait(CONTROL_STREAM, parts)?.offsets.start)
    }

    fn writing(&self) -> MutexGuard<'_, u64> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The records as they are read, one after the other.
#[derive(Default)]
struct Replay {
    state: State,
    since_snapshot: u64,
    /// Where the last whole snapshot begins.
    snapshot_at: u64,
    /// A snapshot that is being read.
    fresh: Option<Fresh>,
    skipped: Vec<Skipped>,
}

struct Fresh {
    at: u64,
    left: u32,
    changes: Vec<Change>,
}

impl Replay {
    fn frame(&mut self, offsets: Range<u64>, mut payload: &[u8]) {
        let mut offset = offsets.start;
        while offset < offsets.end {
            match ControlRecord::decode_length_delimited(&mut payload) {
                Ok(ControlRecord { change, .. }) => self.record(offset, change),
                Err(error) => return self.skip(offset..offsets.end, error.to_string()),
            }
            offset += 1;
        }
    }

    fn record(&mut self, offset: u64, change: Option<Change>) {
        self.since_snapshot += 1;
        if let Some(Change::Snapshot(ControlSnapshot { records })) = change {
            self.give_up_fresh();
            self.fresh = Some(Fresh { at: offset, left: records, changes: Vec::new() });
        } else if let Some(fresh) = &mut self.fresh {
            fresh.left -= 1;
            // A change of a later version: it counts, and says nothing to us.
            fresh.changes.extend(change);
        } else if let Some(change) = change {
            self.state.apply(&change);
        }
        if let Some(whole) = self.fresh.take_if(|fresh| fresh.left == 0) {
            self.state = State::default();
            whole.changes.iter().for_each(|change| self.state.apply(change));
            (self.snapshot_at, self.since_snapshot) = (whole.at, 0);
        }
    }

    fn skip(&mut self, offsets: Range<u64>, why: String) {
        self.give_up_fresh();
        self.skipped.push(Skipped { offsets, why });
    }

    /// What is there of a torn snapshot adds to what was known, and takes nothing away.
    fn give_up_fresh(&mut self) {
        for change in self.fresh.take().into_iter().flat_map(|fresh| fresh.changes) {
            self.state.apply(&change);
        }
    }

    fn end(mut self) -> Self {
        self.give_up_fresh();
        self
    }
}

#[cfg(test)]
mod tests;
