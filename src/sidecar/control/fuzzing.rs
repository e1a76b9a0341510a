//! What the fuzzer of `!control` calls: see [`crate::fuzzing`].

use prost::Message;

use super::replay::Replay;
use super::state::State;
use crate::proto::v1::control_record::Change;
use crate::proto::v1::{ControlRecord, ControlSnapshot};

/// `data`: frames, each of a byte (its records, modulo 8, and one), two of the payload's length, and the payload. Whatever
/// they are comes to a state, as large as they were at most; what can't be read is named; and a snapshot of the state is
/// that state again.
pub fn control(data: &[u8]) {
    let (mut replay, mut tail, mut rest) = (Replay::default(), 0, data);
    while let [records, low, high, behind @ ..] = rest {
        let len = usize::from(u16::from_le_bytes([*low, *high])).min(behind.len());
        let (payload, behind) = behind.split_at(len);
        let offsets = tail..tail + 1 + u64::from(records % 8);
        (tail, rest) = (offsets.end, behind);
        replay.frame(offsets, payload);
    }
    let Replay { state, snapshot_at, skipped, .. } = replay.end();
    assert!(snapshot_at <= tail && skipped.iter().all(|skipped| skipped.offsets.end <= tail));
    assert!(skipped.windows(2).all(|two| two[0].offsets.end <= two[1].offsets.start), "each is named once");
    let changes = state.changes();
    let record = |part_of, change: &Change| ControlRecord { at_unix_ms: 0, part_of, change: Some(change.clone()) };
    // The fingerprint of a key is written anew with all of its 16 bytes, however short it was.
    let bytes: usize = changes.iter().map(|change| record(0, change).encoded_len()).sum();
    assert!(bytes <= 16 * data.len(), "{bytes} bytes of {}", data.len());

    let mut again = State::default();
    changes.iter().for_each(|change| again.apply(change));
    assert_eq!(again.changes(), changes, "what a state says comes to that state");
    let mut snapshot = Replay::default();
    let records = u32::try_from(changes.len()).expect("no more than bytes");
    snapshot.record(0, record(0, &Change::Snapshot(ControlSnapshot { records, number: 1 })));
    for (offset, change) in (1..).zip(&changes) {
        let mut bytes = Vec::new();
        record(1, change).encode_length_delimited(&mut bytes).expect("a vector grows");
        snapshot.frame(offset..offset + 1, &bytes);
    }
    let Replay { state, skipped, .. } = snapshot.end();
    assert!(skipped.is_empty() && state.changes() == changes, "a snapshot is read as it was written");
}
