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
    /// Their offsets in the control stream.
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::proto::v1::{ControlDestination, ControlPause};

    fn any_record() -> impl Strategy<Value = ControlRecord> {
        let made = ("[ab]", "[xy]").prop_map(|(id, settings)| Change::Destination(ControlDestination { id, settings }));
        let paused = ("[ab]", any::<bool>())
            .prop_map(|(destination, paused)| Change::Pause(ControlPause { destination, paused }));
        let snapshot =
            (0..4u32, 0..3u32).prop_map(|(records, number)| Change::Snapshot(ControlSnapshot { records, number }));
        let change = prop_oneof![4 => made.prop_map(Some), 2 => paused.prop_map(Some), 1 => snapshot.prop_map(Some), 1 => Just(None)];
        (0..3u32, change).prop_map(|(part_of, change)| ControlRecord { at_unix_ms: 1, part_of, change })
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_named(payload in prop::collection::vec(any::<u8>(), 0..200), records in 0..20u64) {
            let mut replay = Replay::default();
            replay.frame(7..7 + records, &payload);
            let named = replay.skipped.iter().map(|skipped| skipped.offsets.clone());
            prop_assert!(named.clone().all(|offsets| offsets.start >= 7 && offsets.end == 7 + records));
            prop_assert!(replay.skipped.len() <= 1);
            let _ = replay.end();
        }

        #[test]
        fn a_flipped_bit_costs_what_is_behind_it_and_nothing_before(
            records in prop::collection::vec(any_record(), 1..8),
            at in any::<prop::sample::Index>(),
            bit in 0..8u8,
        ) {
            let mut payload = Vec::new();
            for record in &records {
                record.encode_length_delimited(&mut payload).unwrap();
            }
            let at = at.index(payload.len());
            payload[at] ^= 1 << bit;
            let mut replay = Replay::default();
            replay.frame(0..records.len() as u64, &payload);
            let _ = replay.end();
        }

        /// Whatever records a crash, damage or a later version leaves in a row, reading them ends, and the last decision
        /// about a destination is the one that counts, unless a whole snapshot comes behind it.
        #[test]
        fn any_records_come_to_a_state(records in prop::collection::vec(any_record(), 0..40)) {
            let mut replay = Replay::default();
            for (offset, record) in (0..).zip(&records) {
                replay.record(offset, record.clone());
            }
            let whole_at = replay.snapshot_at;
            let Replay { state, .. } = replay.end();
            let no_snapshot = records.iter().all(|record| !matches!(record.change, Some(Change::Snapshot(_))));
            if no_snapshot {
                prop_assert_eq!(whole_at, 0);
                let mut plain = State::default();
                for record in records.iter().filter(|record| record.part_of == 0) {
                    record.change.iter().for_each(|change| plain.apply(change));
                }
                for id in plain.destinations.keys() {
                    prop_assert!(state.destinations.contains_key(id), "{} was decided and is not there", id);
                }
            }
        }
    }
}
