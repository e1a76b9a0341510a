//! Letters as they lie in the log: `proto/forebay/v1/letter.proto`, packed into payloads and taken out again. Pure.
//!
//! What always holds: a payload of n letters is n records of its stream, the i-th letter being the i-th record.

use std::sync::Arc;

use forebay::{LogId, Payload, StreamId};
use prost::Message;

use super::Shelf;
use super::doubts::Whence;
use crate::delivery::parking::{Kind, Letter, LetterOrigin};
use crate::delivery::record_id;
use crate::delivery::sink::{Environment, Origin};
use crate::impression::{StoredBatch, cut_out};
pub(super) use crate::proto::v1::Letter as Packed;
use crate::proto::v1::Letters;

/// Bytes of letters in one payload: as large as a frame of records.
const PAYLOAD_BYTES_MAX: usize = 256 << 10;

/// A sink bounds what it says; whoever does not is cut here.
const TEXT_CHARS_MAX: usize = 1024;

/// A letter as it is kept. A record that cannot be read is kept with all of its batch around it.
pub(super) fn pack(letter: &Letter, batch_id: String, from: Option<(Shelf, u64)>) -> Packed {
    let (record, index) = match cut_out(&letter.payload, letter.index) {
        Ok(record) => (record, 0),
        Err(_) => (letter.payload.to_vec(), u32::try_from(letter.index).unwrap_or(u32::MAX)),
    };
    let cut = |text: &str| text.chars().take(TEXT_CHARS_MAX).collect();
    let log = letter.origin.log.0;
    let (held, not_before_ms) = match letter.kind {
        Kind::Dead => (false, 0),
        Kind::Held { not_before_ms } => (true, not_before_ms),
    };
    Packed {
        log_high: (log >> 64) as u64,
        log_low: log as u64,
        stream: letter.origin.stream.0,
        offset: letter.origin.offset,
        environment_id: letter.environment.id.clone(),
        environment_name: letter.environment.name.clone(),
        record,
        index,
        reason: cut(&letter.reason),
        excerpt: cut(&letter.excerpt),
        at_ms: letter.at_ms,
        attempts: letter.attempts,
        not_before_ms,
        batch_id,
        first_held: held,
        from_dead: None,
        from_held: None,
        replay: letter.replay,
    }
    .moved(from)
}

/// The payloads that hold these letters, in their order: appended one after the other they make up the stream.
pub(super) fn payloads(letters: Vec<Packed>) -> Vec<Payload> {
    let mut payloads = Vec::new();
    let (mut gathered, mut bytes) = (Vec::new(), 0);
    for letter in letters {
        let len = letter.encoded_len();
        if bytes > 0 && bytes + len > PAYLOAD_BYTES_MAX {
            payloads.push(payload(std::mem::take(&mut gathered)));
            bytes = 0;
        }
        bytes += len;
        gathered.push(letter);
    }
    if !gathered.is_empty() {
        payloads.push(payload(gathered));
    }
    payloads
}

fn payload(letters: Vec<Packed>) -> Payload {
    let records = u32::try_from(letters.len()).expect("a payload holds fewer letters than bytes");
    Payload { bytes: Letters { letters }.encode_to_vec(), records }
}

/// The letters of a payload of `records` records. `None` if it is none of ours.
pub(super) fn unpack(payload: &[u8], records: u32) -> Option<Vec<Packed>> {
    let letters = Letters::decode(payload).ok()?.letters;
    // No stream has a record behind which there is no offset.
    let sound = letters.len() == records as usize && letters.iter().all(|letter| letter.offset < u64::MAX);
    sound.then_some(letters)
}

impl Packed {
    /// The record's origin.
    pub(super) fn origin(&self) -> LetterOrigin {
        let log = u128::from(self.log_high) << 64 | u128::from(self.log_low);
        LetterOrigin { log: LogId(log), stream: StreamId(self.stream), offset: self.offset }
    }

    /// Where the record was taken out.
    pub(super) fn whence(&self) -> Whence {
        Whence { origin: self.origin(), replay: self.replay }
    }

    /// The record's id.
    pub(super) fn record_id(&self) -> String {
        let LetterOrigin { log, stream, offset } = self.origin();
        let prefix = record_id::prefix(&Origin { log, stream, offsets: offset..offset + 1 });
        format!("{prefix}{offset}")
    }

    /// The environment as it was when the letter was written.
    pub(super) fn environment(&self) -> Arc<Environment> {
        Arc::new(Environment { id: self.environment_id.clone(), name: self.environment_name.clone() })
    }

    /// Where it lay before.
    pub(super) fn moved_from(&self) -> Option<(Shelf, u64)> {
        let dead = self.from_dead.map(|offset| (Shelf::Dead, offset));
        dead.or(self.from_held.map(|offset| (Shelf::Held, offset)))
    }

    /// The same letter, that lay elsewhere before.
    pub(super) fn moved(self, from: Option<(Shelf, u64)>) -> Self {
        let at = |shelf| from.filter(|(of, _)| *of == shelf).map(|(_, offset)| offset);
        Self { from_dead: at(Shelf::Dead), from_held: at(Shelf::Held), ..self }
    }

    /// On which shelf it was put first.
    pub(super) fn first_shelf(&self) -> Shelf {
        if self.first_held { Shelf::Held } else { Shelf::Dead }
    }

    /// The flag that was evaluated, as JSON text; `None` if the record cannot be read.
    pub(super) fn flag(&self) -> Option<&str> {
        let batch = StoredBatch::decode(&self.record).ok()?;
        let record = batch.records().nth(self.index as usize)?.ok()?;
        std::str::from_utf8(record.flag.as_bytes()).ok()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_bytes_are_letters_or_none_and_whatever_they_say_can_be_shown(
            payload in prop::collection::vec(any::<u8>(), 0..300),
            records in 0..4u32,
        ) {
            for letter in unpack(&payload, records).unwrap_or_default() {
                let _ = (letter.whence(), letter.moved_from(), letter.first_shelf(), letter.record_id(), letter.flag());
            }
        }

        #[test]
        fn letters_come_out_as_they_went_in_and_a_flipped_bit_harms_nobody(
            texts in prop::collection::vec(("[a-z]{0,20}", 0..u64::MAX, any::<u32>()), 1..6),
            at in any::<prop::sample::Index>(),
            bit in 0..8u8,
        ) {
            let letter = |(reason, offset, replay): (String, u64, u32)| Packed {
                record: reason.clone().into_bytes(),
                reason,
                offset,
                replay,
                ..Packed::default()
            };
            let letters: Vec<Packed> = texts.into_iter().map(letter).collect();
            let mut payloads = payloads(letters.clone());
            prop_assert_eq!(payloads.len(), 1);
            let Payload { mut bytes, records } = payloads.remove(0);
            prop_assert_eq!(unpack(&bytes, records), Some(letters));
            prop_assert_eq!(unpack(&bytes, records + 1), None);
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            for letter in unpack(&bytes, records).unwrap_or_default() {
                let _ = (letter.whence(), letter.record_id(), letter.flag());
            }
        }
    }
}
