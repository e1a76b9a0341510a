//! What a cursor store keeps of a queue: its cursor and books, as a value that proves itself.
//!
//! A store may be lost, damaged without a sign, or be that of yesterday. So a hint is believed only where it agrees
//! with the floor about who the queue is and continues what the floor has; else it is as if it were not there.

use super::balance::{Books, KINDS};
use super::codec::{Decoder, Malformed};
use super::cursor::Cursor;
use super::cursor_store::KeyValue;
use super::floor_file::FloorEntry;
use crate::LogId;
use crate::mutants::{self, Mutant};

const VERSION: u8 = 2;

/// A queue's cursor and books at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hint {
    pub(crate) log_id: LogId,
    pub(crate) incarnation: u32,
    pub(crate) epoch: u32,
    pub(crate) books: Books,
    pub(crate) cursor: Cursor,
}

impl Hint {
    pub(crate) fn of(log_id: LogId, entry: &FloorEntry) -> Self {
        let FloorEntry { incarnation, epoch, books, cursor, .. } = entry;
        Self { log_id, incarnation: *incarnation, epoch: *epoch, books: books.clone(), cursor: cursor.clone() }
    }

    /// Whether it goes on from what the floor says of the same queue, and no further than the log.
    pub(crate) fn continues(&self, floor: &FloorEntry, log_id: LogId, durable_tail: u64) -> bool {
        if mutants::on(Mutant::AnyHintBelieved) {
            return true;
        }
        (self.log_id, self.incarnation, self.epoch) == (log_id, floor.incarnation, floor.epoch)
            && self.cursor.covers(&floor.cursor)
            && self.books.continues(&floor.books)
            && self.books.agree_with(&self.cursor)
            && self.cursor.end() <= durable_tail
    }

    /// Version (u8), log id (u128), incarnation, epoch (u32 each), books, cursor, and a CRC-32 of all that.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        out.extend_from_slice(&self.log_id.0.to_le_bytes());
        out.extend_from_slice(&self.incarnation.to_le_bytes());
        out.extend_from_slice(&self.epoch.to_le_bytes());
        self.books.encode(&mut out);
        self.cursor.encode(&mut out);
        let crc = crc32fast::hash(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let (body, crc) = bytes.split_last_chunk::<4>().ok_or(Malformed("ends too early"))?;
        if crc32fast::hash(body) != u32::from_le_bytes(*crc) {
            return Err(Malformed("the checksum is wrong"));
        }
        let mut from = Decoder::new(body);
        if from.u8()? != VERSION {
            return Err(Malformed("another version"));
        }
        let (log_id, incarnation, epoch) = (LogId(from.u128()?), from.u32()?, from.u32()?);
        Ok(Self {
            log_id,
            incarnation,
            epoch,
            books: Books::decode(&mut from, KINDS)?,
            cursor: Cursor::decode(&mut from)?,
        })
    }
}

/// The key of a queue's hint. No id has a zero byte, so no two queues share one.
pub(crate) fn key(destination: &str, stream: &str) -> Vec<u8> {
    [destination.as_bytes(), &[0], stream.as_bytes()].concat()
}

/// The key of a queue's hours, in the same store. No id is empty.
pub(crate) fn hours_key(destination: &str, stream: &str) -> Vec<u8> {
    [&[0], &*key(destination, stream)].concat()
}

/// What takes away all that a store knows of a queue.
pub(crate) fn nothing_of(destination: &str, stream: &str) -> [KeyValue; 2] {
    [key(destination, stream), hours_key(destination, stream)].map(|key| (key, Vec::new()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::balance::{Count, Settled};

    fn entry(settled: u64) -> FloorEntry {
        let mut books = Books::from(0, 0);
        books.post(Count { records: settled, bytes: settled * 10 }, Settled::Delivered);
        FloorEntry {
            destination: "hook".into(),
            stream: "acme".into(),
            stream_id: None,
            incarnation: 1,
            epoch: 2,
            books,
            cursor: Cursor::at(settled, settled * 10),
            extra: None,
        }
    }

    const LOG: LogId = LogId(42);

    #[test]
    fn a_hint_is_believed_when_it_continues_the_floor_and_only_then() {
        let floor = entry(100);
        let hint = Hint::of(LOG, &entry(150));
        assert!(hint.continues(&floor, LOG, 150));
        assert!(!hint.continues(&floor, LOG, 149), "ahead of the log");
        assert!(!hint.continues(&entry(151), LOG, 200), "behind the floor");
        assert!(!hint.continues(&floor, LogId(43), 150), "of another log");
        assert!(!Hint { incarnation: 0, ..hint.clone() }.continues(&floor, LOG, 150), "of a destination before this");
        assert!(!Hint { epoch: 1, ..hint.clone() }.continues(&floor, LOG, 150), "from before a replay");
        let mut hole = Cursor::at(90, 900);
        hole.insert(100..160, 1_000..1_600);
        // As many records as its books, and no further than the log: but 90 to 100, which the floor has settled.
        assert!(!Hint { cursor: hole, ..hint.clone() }.continues(&floor, LOG, 200));
        // What was delivered by the floor was let go by the other: both cannot be.
        let mut books = Books::from(0, 0);
        books.post(Count { records: 150, bytes: 1_500 }, Settled::Purged);
        assert!(
            !Hint { books, ..hint.clone() }.continues(&floor, LOG, 150),
            "with books that did not grow from the floor's"
        );
        assert!(!Hint { cursor: Cursor::at(150, 1), ..hint }.continues(&floor, LOG, 150), "with other books");
    }

    #[test]
    fn any_changed_or_missing_byte_is_noticed() {
        let mut hint = Hint::of(LOG, &entry(100));
        hint.cursor.insert(120..130, 1200..1300);
        let bytes = hint.encode();
        assert_eq!(Hint::decode(&bytes).as_ref(), Ok(&hint));
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert!(Hint::decode(&changed).is_err());
            assert!(Hint::decode(&bytes[..at]).is_err());
        }
    }
}
