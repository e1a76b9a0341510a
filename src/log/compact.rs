//! What a compact segment is: frames that somebody still needs, in the place of neighbours that held more.
//!
//! Its file has a number of its own, by which its frames prove themselves; its place in the order of the log is that of the
//! last segment that it replaces. Both stand in its name, so that a look at the directory tells what holds; and in its
//! header, for whoever has the file alone. It has its name only once all of it is synced.

use super::segment::{BadHeader, Class, Head, HeaderBytes, Kind, SegmentHeader, u32_at, u64_at};
use crate::offset::{LogId, Sequence};

const KIND: Kind = Kind { magic: *b"forebayC", version: 1 };

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

/// The same of a file that may be of either kind, whatever its name says.
pub(crate) fn owner_of_either(bytes: &[u8]) -> Option<(LogId, Sequence)> {
    owner(false, bytes).or_else(|| owner(true, bytes))
}

impl Replaced {
    /// Whether a segment at this place is one of them.
    pub(crate) fn has(self, place: Sequence) -> bool {
        (self.first..=self.last).contains(&place)
    }
}

impl CompactHeader {
    pub(crate) fn encode(&self) -> HeaderBytes {
        let Self { log, sequence, class, created_ms, replaced, end } = *self;
        Head { log, sequence, class, created_ms }.encode(KIND, |b| {
            b[48..56].copy_from_slice(&replaced.first.0.to_le_bytes());
            b[56..64].copy_from_slice(&replaced.last.0.to_le_bytes());
            b[64..68].copy_from_slice(&end.to_le_bytes());
        })
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, BadHeader> {
        let (Head { log, sequence, class, created_ms }, b) = Head::decode(KIND, bytes)?;
        let replaced = Replaced { first: Sequence(u64_at(b, 48)), last: Sequence(u64_at(b, 56)) };
        Ok(Self { log, sequence, class, created_ms, replaced, end: u32_at(b, 64) })
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
