//! What the fuzzers of plans and of cursor hints call: see [`crate::fuzzing`].

pub use super::floor_file::fuzzing::floor_page;

use super::floor_file::FloorEntry;
use super::hint::Hint;
use super::limits::{BATCH_ID_BYTES_MAX, DESTINATION_BYTES_MAX};
use super::plan::{self, PlanRecord};
use crate::LogId;
use std::collections::HashMap;

/// `data`: a frame of plans. What is read is written back byte for byte, and no two batches share an id.
pub fn plans(data: &[u8]) {
    let Ok(plans) = plan::decode(data) else { return };
    assert_eq!(plan::encode(&plans), data, "what was read is what is written");
    let log_id = LogId(u128::from(crc32fast::hash(data)));
    let mut ids: HashMap<String, &PlanRecord> = HashMap::new();
    for plan in &plans {
        assert!(plan.offsets.start <= plan.offsets.end);
        let id = plan::batch_id(log_id, plan);
        if plan.destination.len() <= DESTINATION_BYTES_MAX {
            assert!(id.len() < BATCH_ID_BYTES_MAX, "{id}");
        }
        // The revision says how a batch is made, not which one it is.
        let batch = |plan: &PlanRecord| PlanRecord { revision: 0, ..plan.clone() };
        if let Some(other) = ids.insert(id, plan) {
            assert_eq!(batch(other), batch(plan), "two batches share an id");
        }
    }
}

/// `data`: whether to put the checksum right (1 byte, its highest bit), then a hint as a store gives it back. What is
/// read is written back with the same bytes, and goes on from itself exactly where its books agree with its cursor.
pub fn hint(data: &[u8]) {
    let Some((how, bytes)) = data.split_first() else { return };
    let mut bytes = bytes.to_vec();
    if how & 0x80 != 0 {
        let crc = crc32fast::hash(&bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
    }
    let Ok(hint) = Hint::decode(&bytes) else { return };
    let again = hint.encode();
    let body = again.len() - 4;
    assert_eq!(bytes[..body], again[..body], "what was read is what is written");
    assert_eq!(Hint::decode(&again).as_ref(), Ok(&hint), "and is read again");

    let Hint { log_id, incarnation, epoch, books, cursor } = hint.clone();
    let (end, agree) = (cursor.end(), books.agree_with(&cursor));
    let (destination, stream) = ("hook".into(), "acme".into());
    let floor = FloorEntry { destination, stream, stream_id: None, incarnation, epoch, books, cursor, extra: None };
    assert_eq!(hint.continues(&floor, log_id, end), agree, "with other books it is not believed");
    assert!(end == 0 || !hint.continues(&floor, log_id, end - 1), "ahead of the log it is not believed");
    assert!(!hint.continues(&floor, LogId(!log_id.0), end), "of another log it is not believed");
    let later = FloorEntry { epoch: epoch.wrapping_add(1), ..floor };
    assert!(!hint.continues(&later, log_id, end), "from before a replay it is not believed");
}
