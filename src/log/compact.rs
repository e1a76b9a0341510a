//! What a compact segment is: frames that somebody still needs, in the place of neighbours that held more.
//!
//! Its file has a number of its own, by which its frames prove themselves; its place in the order of the log is that of the
//! last segment that it replaces. Both stand in its name, so that a look at the directory tells what holds; and in its
//! header, for whoever has the file alone. It has its name only once all of it is synced.

use super::limits::SEGMENT_HEADER_BYTES;
use super::segment::{BadHeader, Class, SegmentHeader};
use crate::offset::{LogId, Sequence};

const MAGIC: [u8; 8] = *b"forebayC";
const VERSION: u32 = 1;

/// The segments that a compact one replaces: all of its class from the first place to the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Replaced {
    pub(crate) first: Sequence,
    pub(crate) last: Sequence,
}

/// A compact segment's first bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CompactHeader {
    pub(crate) log: LogId,
    pub(crate) sequence: Sequence,
    pub(crate) class: Class,
    pub(crate) created_ms: u64,
    pub(crate) replaced: Replaced,
    /// Where its frames end: all of it was synced before it got its name.
    pub(crate) end: u32,
}

/// The log and the number that the header of a segment names, compact or not, if it is a good one.
pub(crate) fn owner(compact: bool, bytes: &[u8]) -> Option<(LogId, Sequence)> {
    if compact {
        CompactHeader::decode(bytes).ok().map(|header| (header.log, header.sequence))
    } else {
        SegmentHeader::decode(bytes).ok().map(|header| (header.log, header.sequence))
    }
}

impl Replaced {
    /// Whether a segment at this place is one of them.
    pub(crate) fn has(self, place: Sequence) -> bool {
        (self.first..=self.last).contains(&place)
    }
}

impl CompactHeader {
    pub(crate) fn encode(&self) -> [u8; SEGMENT_HEADER_BYTES as usize] {
        let mut b = [0; SEGMENT_HEADER_BYTES as usize];
        b[0..8].copy_from_slice(&MAGIC);
        b[8..12].copy_from_slice(&VERSION.to_le_bytes());
        b[12] = match self.class {
            Class::Main => 0,
            Class::System => 1,
        };
        b[16..32].copy_from_slice(&self.log.0.to_le_bytes());
        b[32..40].copy_from_slice(&self.sequence.0.to_le_bytes());
        b[40..48].copy_from_slice(&self.created_ms.to_le_bytes());
        b[48..56].copy_from_slice(&self.replaced.first.0.to_le_bytes());
        b[56..64].copy_from_slice(&self.replaced.last.0.to_le_bytes());
        b[64..68].copy_from_slice(&self.end.to_le_bytes());
        let crc = crc32fast::hash(&b[..124]);
        b[124..].copy_from_slice(&crc.to_le_bytes());
        b
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, BadHeader> {
        let b = bytes.first_chunk::<{ SEGMENT_HEADER_BYTES as usize }>().ok_or(BadHeader::Damaged)?;
        let u32_at = |at: usize| u32::from_le_bytes(b[at..at + 4].try_into().expect("four bytes"));
        let u64_at = |at: usize| u64::from_le_bytes(b[at..at + 8].try_into().expect("eight bytes"));
        if b[..8] != MAGIC || crc32fast::hash(&b[..124]) != u32_at(124) {
            return Err(BadHeader::Damaged);
        }
        if u32_at(8) != VERSION {
            return Err(BadHeader::Version(u32_at(8)));
        }
        let class = match b[12] {
            0 => Class::Main,
            1 => Class::System,
            _ => return Err(BadHeader::Damaged),
        };
        Ok(Self {
            log: LogId(u128::from_le_bytes(b[16..32].try_into().expect("sixteen bytes"))),
            sequence: Sequence(u64_at(32)),
            class,
            created_ms: u64_at(40),
            replaced: Replaced { first: Sequence(u64_at(48)), last: Sequence(u64_at(56)) },
            end: u32_at(64),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> CompactHeader {
        CompactHeader {
            log: LogId(0xfeed),
            sequence: Sequence(19),
            class: Class::Main,
            created_ms: 77,
            replaced: Replaced { first: Sequence(3), last: Sequence(9) },
            end: 4_096,
        }
    }

    #[test]
    fn what_is_written_is_read_and_every_flipped_bit_is_noticed() {
        let bytes = header().encode();
        assert_eq!(CompactHeader::decode(&bytes), Ok(header()));
        for bit in 0..bytes.len() * 8 {
            let mut broken = bytes;
            broken[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(CompactHeader::decode(&broken), Err(BadHeader::Damaged), "bit {bit}");
        }
    }

    #[test]
    fn a_later_version_is_named_and_not_taken_for_damage() {
        let mut bytes = header().encode();
        bytes[8] = 2;
        let crc = crc32fast::hash(&bytes[..124]);
        bytes[124..].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(CompactHeader::decode(&bytes), Err(BadHeader::Version(2)));
    }

    #[test]
    fn both_ends_are_replaced() {
        let replaced = header().replaced;
        let of = |place: u64| replaced.has(Sequence(place));
        assert!(!of(2) && of(3) && of(9) && !of(10));
    }
}
