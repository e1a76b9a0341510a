//! What the fuzzer of letters calls: see [`crate::fuzzing`].

use prost::Message;

use super::filter::{Filter, Shown};
use super::{Shelf, packed};
use crate::delivery::record_id;

/// `data`: how many letters a frame says to have (1 byte), then its payload. What is read holds no more than was there, can
/// be shown, found by its id and moved, and is written and read again as it was.
pub fn letters(data: &[u8]) {
    let Some((records, payload)) = data.split_first() else { return };
    let Some(letters) = packed::unpack(payload, u32::from(*records)) else { return };
    assert_eq!(letters.len(), usize::from(*records));
    let bytes: usize = letters.iter().map(Message::encoded_len).sum();
    assert!(bytes <= payload.len(), "{bytes} bytes of {}", payload.len());
    for letter in &letters {
        let id = letter.record_id();
        assert_eq!(record_id::parse(&id).map(|(_, offset)| offset), Some(letter.offset));
        assert_eq!(Shown::of(letter.clone()).id, id);
        let its_own = Filter {
            ids: vec![id],
            environment: Some(letter.environment_id.clone()),
            reason: Some(letter.reason.clone()),
            from_ms: Some(letter.at_ms),
            ..Filter::default()
        };
        assert!(its_own.matches(letter) && its_own.bad_id().is_none() && Filter::default().matches(letter));
        for from in [None, Some((Shelf::Dead, 7)), Some((Shelf::Held, 7))] {
            assert_eq!(letter.clone().moved(from).moved_from(), from);
        }
        let _ = (letter.whence(), letter.first_shelf(), letter.environment(), letter.flag());
    }
    let mut again = Vec::new();
    for payload in packed::payloads(letters.clone()) {
        assert!(payload.records > 0, "no frame is empty");
        again.extend(packed::unpack(&payload.bytes, payload.records).expect("what is written is read"));
    }
    assert!(again == letters, "what was read is what is written");
}
