//! The table of every stream that ever was: what outlives a stream's frames. Pure: bytes in, bytes out.
//!
//! It is written whole, to two files in turn, whenever a segment is sealed; a damaged or torn one leaves the other.
//! No segment is deleted before a durable table covers its streams, so that a quiet stream whose frames are reclaimed
//! never starts again at 0.

use super::limits::{STREAM_NAME_BYTES_MAX, STREAMS_MAX};
use crate::offset::{LogId, Sequence};
use std::sync::Arc;

const MAGIC: [u8; 8] = *b"forebayT";
const VERSION: u32 = 1;
/// The same table of a log that has compact segments, so that a program which knows none stops here.
const VERSION_COMPACTED: u32 = 2;
const HEADER_BYTES: usize = 64;

/// One stream's row; its number is its place in the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StreamRow {
    pub(crate) name: Arc<str>,
    /// The offset that the next record gets, and so the running total of records.
    pub(crate) next: u64,
    /// Running total of payload bytes.
    pub(crate) bytes: u64,
    /// Nothing below this offset is kept.
    pub(crate) first_kept: u64,
}

/// The whole table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StreamTable {
    pub(crate) log: LogId,
    /// Counts the writes; the greater of two tables is the newer.
    pub(crate) generation: u64,
    /// No segment with this number or a greater one existed when it was written.
    pub(crate) next_sequence: Sequence,
    /// Segments below this number were sealed and are covered; later ones may hold more than the rows say.
    pub(crate) covers: Sequence,
    /// There are compact segments, or may be.
    pub(crate) compacted: bool,
    pub(crate) rows: Vec<StreamRow>,
}

/// Why a file was not taken for a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BadTable {
    /// Torn, damaged, or nothing of ours.
    Damaged,
    /// Whole, and of a version that this program doesn't know.
    Version(u32),
}

impl StreamTable {
    pub(crate) fn encode(&self) -> Vec<u8> {
        assert!(self.rows.len() <= STREAMS_MAX, "append refuses more streams");
        let mut body = Vec::new();
        for row in &self.rows {
            body.extend_from_slice(&row.next.to_le_bytes());
            body.extend_from_slice(&row.bytes.to_le_bytes());
            body.extend_from_slice(&row.first_kept.to_le_bytes());
            body.push(u8::try_from(row.name.len()).expect("append refuses longer names"));
            body.extend_from_slice(row.name.as_bytes());
        }
        let mut bytes = vec![0; HEADER_BYTES];
        bytes[0..8].copy_from_slice(&MAGIC);
        let version = if self.compacted { VERSION_COMPACTED } else { VERSION };
        bytes[8..12].copy_from_slice(&version.to_le_bytes());
        bytes[16..32].copy_from_slice(&self.log.0.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.generation.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.next_sequence.0.to_le_bytes());
        bytes[48..56].copy_from_slice(&self.covers.0.to_le_bytes());
        bytes[56..60].copy_from_slice(&(self.rows.len() as u32).to_le_bytes());
        bytes[12..16].copy_from_slice(&crc32fast::hash(&body).to_le_bytes());
        let crc = crc32fast::hash(&bytes[..60]);
        bytes[60..64].copy_from_slice(&crc.to_le_bytes());
        bytes.append(&mut body);
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, BadTable> {
        let (head, body) = bytes.split_at_checked(HEADER_BYTES).ok_or(BadTable::Damaged)?;
        let u32_at = |at: usize| u32::from_le_bytes(head[at..at + 4].try_into().expect("four bytes"));
        let u64_at = |at: usize| u64::from_le_bytes(head[at..at + 8].try_into().expect("eight bytes"));
        if head[..8] != MAGIC || crc32fast::hash(&head[..60]) != u32_at(60) {
            return Err(BadTable::Damaged);
        }
        if !(VERSION..=VERSION_COMPACTED).contains(&u32_at(8)) {
            return Err(BadTable::Version(u32_at(8)));
        }
        let compacted = u32_at(8) == VERSION_COMPACTED;
        let rows = decode_rows(body, u32_at(56) as usize, u32_at(12)).ok_or(BadTable::Damaged)?;
        let log = LogId(u128::from_le_bytes(head[16..32].try_into().expect("sixteen bytes")));
        let (next_sequence, covers) = (Sequence(u64_at(40)), Sequence(u64_at(48)));
        Ok(Self { log, generation: u64_at(32), next_sequence, covers, compacted, rows })
    }
}

fn decode_rows(body: &[u8], count: usize, crc: u32) -> Option<Vec<StreamRow>> {
    if count > STREAMS_MAX {
        return None;
    }
    let mut rows = Vec::with_capacity(count);
    let mut rest = body;
    for _ in 0..count {
        let (fixed, behind) = rest.split_at_checked(25)?;
        let name_len = usize::from(fixed[24]);
        let (name, behind) = behind.split_at_checked(name_len)?;
        let u64_at = |at: usize| u64::from_le_bytes(fixed[at..at + 8].try_into().expect("eight bytes"));
        rows.push(StreamRow {
            name: std::str::from_utf8(name).ok().filter(|name| name.len() <= STREAM_NAME_BYTES_MAX)?.into(),
            next: u64_at(0),
            bytes: u64_at(8),
            first_kept: u64_at(16),
        });
        rest = behind;
    }
    // A file that was longer before may have old bytes behind the rows: the checksum covers the rows alone.
    (crc32fast::hash(&body[..body.len() - rest.len()]) == crc).then_some(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(rows: u64) -> StreamTable {
        let rows: Vec<StreamRow> = (0..rows)
            .map(|i| StreamRow { name: format!("env-{i}").into(), next: i * 7, bytes: i * 100, first_kept: i })
            .collect();
        let (next_sequence, covers, compacted) = (Sequence(12), Sequence(11), rows.len() % 2 == 1);
        StreamTable { log: LogId(5), generation: 8, next_sequence, covers, compacted, rows }
    }

    #[test]
    fn what_is_written_is_read_even_before_the_rest_of_an_older_longer_table() {
        for rows in [0, 1, 1000] {
            let mut bytes = table(rows).encode();
            assert_eq!(StreamTable::decode(&bytes), Ok(table(rows)));
            bytes.extend_from_slice(&[0xaa; 100]);
            assert_eq!(StreamTable::decode(&bytes), Ok(table(rows)));
        }
    }

    #[test]
    fn every_flipped_bit_and_every_truncation_is_noticed() {
        let bytes = table(3).encode();
        for bit in 0..bytes.len() * 8 {
            let mut broken = bytes.clone();
            broken[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(StreamTable::decode(&broken), Err(BadTable::Damaged), "bit {bit}");
        }
        for len in 0..bytes.len() {
            assert_eq!(StreamTable::decode(&bytes[..len]), Err(BadTable::Damaged), "{len} bytes");
        }
    }

    #[test]
    fn a_later_version_is_named_and_not_taken_for_damage() {
        let mut bytes = table(1).encode();
        bytes[8] = 3;
        let crc = crc32fast::hash(&bytes[..60]);
        bytes[60..64].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(StreamTable::decode(&bytes), Err(BadTable::Version(3)));
    }
}
