//! What is known of batches that were sent, are not settled, and come again. Pure.
//!
//! Losing a note is harmless: then its batch is sent as if for the first time, under the same id, and what becomes of it
//! is found out anew. So a crash needs none of them.

use std::collections::BTreeMap;
use std::ops::Range;

use forebay::{LogId, StreamId};

use super::apart::Apart;
use super::poison::Mark;

/// Notes about batches that never came again (an operator purged them, damage took them) are in the way from here on.
const NOTES_MAX: usize = 4096;

/// What is known of a batch.
#[derive(Debug, Clone, Default)]
pub(super) struct Note {
    /// Under suspicion since then: see [`Poison`](super::poison::Poison).
    pub(super) since: Option<Mark>,
    /// The rejection that the search began with of which this batch is a piece.
    pub(super) run: Option<Mark>,
    /// What is not sent again with it.
    pub(super) apart: Apart,
    /// How often it was sent.
    pub(super) sends: u32,
    /// How often it failed, and others were taken since the failure before.
    pub(super) failures: u32,
    /// How many batches had been taken when it failed last.
    pub(super) taken: u64,
    /// It is not to be sent, but to be split here.
    pub(super) split_at: Option<u64>,
    /// It is not to be sent: only the records apart from it are still to be kept.
    pub(super) kept_only: bool,
}

/// Where a batch's offsets count: a queue, and the stream that the records are of. Letters of all of a destination's streams
/// come from one queue, so the queue alone does not tell them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Lane {
    /// The queue's place among those of the destination.
    pub(super) queue: usize,
    /// The log that the stream is in.
    pub(super) log: LogId,
    /// The stream.
    pub(super) stream: StreamId,
}

/// The notes of one destination, by lane and offsets.
#[derive(Debug, Default)]
pub(super) struct Notes(BTreeMap<(Lane, u64, u64), Note>);

impl Notes {
    pub(super) fn get(&self, lane: Lane, offsets: &Range<u64>) -> Option<&Note> {
        self.0.get(&key(lane, offsets))
    }

    /// The note about a batch, made if there is none.
    pub(super) fn make(&mut self, lane: Lane, offsets: &Range<u64>) -> &mut Note {
        let key = key(lane, offsets);
        if self.0.len() >= NOTES_MAX && !self.0.contains_key(&key) {
            self.0.clear();
        }
        self.0.entry(key).or_default()
    }

    pub(super) fn take(&mut self, lane: Lane, offsets: &Range<u64>) -> Option<Note> {
        self.0.remove(&key(lane, offsets))
    }

    /// Whether pieces of a search are under way or wait.
    pub(super) fn searching(&self, run: Mark) -> bool {
        self.0.values().any(|note| note.run == Some(run) && !note.kept_only)
    }
}

fn key(lane: Lane, offsets: &Range<u64>) -> (Lane, u64, u64) {
    (lane, offsets.start, offsets.end)
}
