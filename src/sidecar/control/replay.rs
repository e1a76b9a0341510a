//! The records of `!control` as they are read at the start, one after the other. Pure.
//!
//! What always holds: a snapshot counts for what was before it only when it is there as a whole; one that was cut off, by a
//! crash or by damage, adds to what is known and takes nothing away.

use std::ops::Range;

use prost::Message;

use super::state::State;
use crate::proto::v1::control_record::Change;
use crate::proto::v1::{ControlRecord, ControlSnapshot};

/// Records that could not be read. What they said is not known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// Their offsets in [`CONTROL_STREAM`].
    pub offsets: Range<u64>,
    /// What is wrong with them.
    pub why: String,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Replay {
    pub(super) state: State,
    pub(super) since_snapshot: u64,
    /// The greatest number of a snapshot.
    pub(super) snapshots: u32,
    /// Where the last whole snapshot begins.
    pub(super) snapshot_at: u64,
    /// A snapshot that is being read.
    fresh: Option<Fresh>,
    pub(super) skipped: Vec<Skipped>,
}

#[derive(Debug)]
struct Fresh {
    at: u64,
    number: u32,
    left: u32,
    changes: Vec<Change>,
}

impl Replay {
    pub(super) fn frame(&mut self, offsets: Range<u64>, mut payload: &[u8]) {
        let mut offset = offsets.start;
        while offset < offsets.end {
            match ControlRecord::decode_length_delimited(&mut payload) {
                Ok(record) => self.record(offset, record),
                Err(error) => return self.skip(offset..offsets.end, error.to_string()),
            }
            offset += 1;
        }
    }

    pub(super) fn record(&mut self, offset: u64, ControlRecord { part_of, change, .. }: ControlRecord) {
        self.since_snapshot += 1;
        self.snapshots = self.snapshots.max(part_of);
        match (&mut self.fresh, change) {
            (_, Some(Change::Snapshot(ControlSnapshot { records, number }))) => {
                self.give_up_fresh();
                self.snapshots = self.snapshots.max(number);
                self.fresh = Some(Fresh { at: offset, number, left: records, changes: Vec::new() });
            }
            (Some(fresh), change) if fresh.number == part_of => {
                fresh.left -= 1;
                // A change of a later version: it counts, and says nothing to us.
                fresh.changes.extend(change);
            }
            // What a crash cut off ends where something else was decided; and of one whose beginning damage took, all is left
            // that is there.
            (_, change) => {
                self.give_up_fresh();
                match change {
                    Some(change) if part_of == 0 => self.state.apply(&change),
                    Some(change) => self.state.restate(&change),
                    None => {}
                }
            }
        }
        if let Some(whole) = self.fresh.take_if(|fresh| fresh.left == 0) {
            self.state = State::default();
            whole.changes.iter().for_each(|change| self.state.apply(change));
            (self.snapshot_at, self.since_snapshot) = (whole.at, 0);
        }
    }

    pub(super) fn skip(&mut self, offsets: Range<u64>, why: String) {
        self.give_up_fresh();
        self.skipped.push(Skipped { offsets, why });
    }

    /// What is there of a torn snapshot adds to what was known, and takes nothing away.
    fn give_up_fresh(&mut self) {
        for change in self.fresh.take().into_iter().flat_map(|fresh| fresh.changes) {
            self.state.restate(&change);
        }
    }

    pub(super) fn end(mut self) -> Self {
        self.give_up_fresh();
        self
    }
}
