//! The header of a segment file: whose it is, which number it has, and where its predecessor ends.
//!
//! The predecessor's end is what makes a failed sync harmless: bytes that a dying file lets out late lie behind the
//! cut that the next segment's header names, and recovery ignores them. Segments of the same class between the
//! predecessor and this one are void: nothing in them was ever acknowledged.

use super::file_name::SegmentFile;
use super::limits::SEGMENT_HEADER_BYTES;
use crate::mutants::{self, Mutant};
use crate::offset::{LogId, Sequence};
use std::collections::BTreeMap;

const KIND: Kind = Kind { magic: *b"forebayS", version: 1 };

/// What the headers of one kind of segment begin with.
#[derive(Clone, Copy)]
pub(super) struct Kind {
    pub(super) magic: [u8; 8],
    pub(super) version: u32,
}

/// What all headers have in common, behind magic and version: it lies before byte 48, save for the checksum at the end.
pub(super) struct Head {
    pub(super) log: LogId,
    pub(super) sequence: Sequence,
    pub(super) class: Class,
    pub(super) created_ms: u64,
}

/// A whole header.
pub(super) type HeaderBytes = [u8; SEGMENT_HEADER_BYTES as usize];

/// Which streams a segment holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Streams of applications, and the plans that go with them.
    Main,
    /// Streams of our own (`!…`), kept apart so that a dead letter pins no impressions.
    System,
}

/// A segment's first bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) log: LogId,
    pub(crate) sequence: Sequence,
    pub(crate) class: Class,
    pub(crate) created_ms: u64,
    pub(crate) predecessor: Option<Predecessor>,
}

/// Where the last good segment of the class before this one ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Predecessor {
    pub(crate) sequence: Sequence,
    /// Its last successful sync: what lies behind was never acknowledged.
    pub(crate) end: u32,
}

/// Why a header was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BadHeader {
    /// Not ours, torn or damaged.
    Damaged,
    /// Ours, whole, and of a version that this program doesn't know.
    Version(u32),
}

/// What becomes of a segment that was not sealed, by what the next one of its class says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Nobody that can be read says anything: its own frames decide.
    Open,
    /// Who named its end has gone, as only one does whose predecessor is sealed and holds nothing behind its end: all of it was synced.
    Outlived,
    /// It ends here: all below was synced, nothing behind counts.
    CutAt(u32),
    /// The writer passed it over: nothing in it was ever acknowledged.
    Void,
}

impl Fate {
    /// The fate of `sequence`. `headers` are the good ones of the segments behind it, `files` all of the log's that no compact one replaces.
    pub(crate) fn of(
        sequence: Sequence,
        class: Class,
        headers: &BTreeMap<Sequence, SegmentHeader>,
        files: impl Iterator<Item = SegmentFile>,
    ) -> Self {
        let mut behind = headers.range(Sequence(sequence.0 + 1)..).filter(|(_, header)| header.class == class);
        let successor = behind.next().filter(|_| !mutants::on(Mutant::SuccessorNotHeard));
        match successor.map(|(_, header)| header.predecessor) {
            Some(Some(before)) if before.sequence == sequence => return Self::CutAt(before.end),
            Some(before) if before.is_none_or(|before| before.sequence < sequence) => return Self::Void,
            _ => {} // nobody, or who names one between them
        }
        let next = files.filter(|file| file.class == class && file.place() > sequence).min_by_key(|file| file.place());
        match next {
            // What it was made of came behind this one, and has gone.
            Some(next) if next.replaced.is_some() => Self::Outlived,
            Some(next) if successor.is_some_and(|(successor, _)| *successor == next.sequence) => Self::Outlived,
            // Its header can't be read: it may or may not have named this one.
            _ => Self::Open,
        }
    }
}

impl Head {
    /// A header of this kind that begins so; `fill` adds what only this kind has, at byte 13 and from byte 48 on.
    pub(super) fn encode(&self, kind: Kind, fill: impl FnOnce(&mut HeaderBytes)) -> HeaderBytes {
        let mut b = [0; SEGMENT_HEADER_BYTES as usize];
        b[0..8].copy_from_slice(&kind.magic);
        b[8..12].copy_from_slice(&kind.version.to_le_bytes());
        b[12] = match self.class {
            Class::Main => 0,
            Class::System => 1,
        };
        b[16..32].copy_from_slice(&self.log.0.to_le_bytes());
        b[32..40].copy_from_slice(&self.sequence.0.to_le_bytes());
        b[40..48].copy_from_slice(&self.created_ms.to_le_bytes());
        fill(&mut b);
        let crc = crc32fast::hash(&b[..124]);
        b[124..].copy_from_slice(&crc.to_le_bytes());
        b
    }

    /// How a header of this kind begins, and all of its bytes.
    pub(super) fn decode(kind: Kind, bytes: &[u8]) -> Result<(Self, &HeaderBytes), BadHeader> {
        let b = bytes.first_chunk::<{ SEGMENT_HEADER_BYTES as usize }>().ok_or(BadHeader::Damaged)?;
        if b[..8] != kind.magic || crc32fast::hash(&b[..124]) != u32_at(b, 124) {
            return Err(BadHeader::Damaged);
        }
        // Magic and checksum keep their places in every version, so that a version is told apart from damage.
        if u32_at(b, 8) != kind.version {
            return Err(BadHeader::Version(u32_at(b, 8)));
        }
        let class = match b[12] {
            0 => Class::Main,
            1 => Class::System,
            _ => return Err(BadHeader::Damaged),
        };
        let log = LogId(u128::from_le_bytes(b[16..32].try_into().expect("sixteen bytes")));
        Ok((Self { log, sequence: Sequence(u64_at(b, 32)), class, created_ms: u64_at(b, 40) }, b))
    }
}

pub(super) fn u32_at(b: &HeaderBytes, at: usize) -> u32 {
    u32::from_le_bytes(b[at..at + 4].try_into().expect("four bytes"))
}

pub(super) fn u64_at(b: &HeaderBytes, at: usize) -> u64 {
    u64::from_le_bytes(b[at..at + 8].try_into().expect("eight bytes"))
}

impl SegmentHeader {
    pub(crate) fn encode(&self) -> HeaderBytes {
        let Self { log, sequence, class, created_ms, predecessor } = *self;
        Head { log, sequence, class, created_ms }.encode(KIND, |b| {
            b[13] = u8::from(predecessor.is_some());
            if let Some(predecessor) = predecessor {
                b[48..56].copy_from_slice(&predecessor.sequence.0.to_le_bytes());
                b[56..60].copy_from_slice(&predecessor.end.to_le_bytes());
            }
        })
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, BadHeader> {
        let (Head { log, sequence, class, created_ms }, b) = Head::decode(KIND, bytes)?;
        let before = || Predecessor { sequence: Sequence(u64_at(b, 48)), end: u32_at(b, 56) };
        Ok(Self { log, sequence, class, created_ms, predecessor: (b[13] == 1).then(before) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::compact::Replaced;

    fn header() -> SegmentHeader {
        SegmentHeader {
            log: LogId(0xfeed),
            sequence: Sequence(9),
            class: Class::System,
            created_ms: 77,
            predecessor: Some(Predecessor { sequence: Sequence(7), end: 4096 }),
        }
    }

    #[test]
    fn what_is_written_is_read() {
        assert_eq!(SegmentHeader::decode(&header().encode()), Ok(header()));
        let first = SegmentHeader { predecessor: None, class: Class::Main, ..header() };
        assert_eq!(SegmentHeader::decode(&first.encode()), Ok(first));
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let bytes = header().encode();
        for bit in 0..bytes.len() * 8 {
            let mut broken = bytes;
            broken[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(SegmentHeader::decode(&broken), Err(BadHeader::Damaged), "bit {bit}");
        }
    }

    #[test]
    fn a_segment_ends_where_the_next_of_its_class_says() {
        let main = |predecessor| SegmentHeader { class: Class::Main, predecessor, ..header() };
        let before = |sequence, end| Some(Predecessor { sequence: Sequence(sequence), end });
        let headers: BTreeMap<Sequence, SegmentHeader> = [
            (Sequence(5), main(None)),
            (Sequence(6), header()),
            (Sequence(7), main(before(5, 999))),
            (Sequence(9), main(before(5, 512))),
            (Sequence(11), main(before(10, 512))),
        ]
        .into();
        let plain = |(sequence, class)| SegmentFile::plain(Sequence(sequence), class);
        let files: Vec<SegmentFile> =
            [4, 5, 7, 9, 11].map(|n| (n, Class::Main)).into_iter().chain([(6, Class::System)]).map(plain).collect();
        let fate = |sequence, class| Fate::of(Sequence(sequence), class, &headers, files.iter().copied());
        assert_eq!(fate(4, Class::Main), Fate::Void, "the first one behind names none");
        assert_eq!(fate(5, Class::Main), Fate::CutAt(999));
        assert_eq!(fate(7, Class::Main), Fate::Void);
        assert_eq!(fate(9, Class::Main), Fate::Outlived, "the one that 11 names was behind it");
        assert_eq!(fate(11, Class::Main), Fate::Open);
        assert_eq!(fate(6, Class::System), Fate::Open);
        // One whose header can't be read may have said where 9 ends; a compact one stands for those that did.
        let with = |file| Fate::of(Sequence(9), Class::Main, &headers, files.iter().copied().chain([file]));
        assert_eq!(with(plain((10, Class::Main))), Fate::Open);
        let replaced = Some(Replaced { first: Sequence(10), last: Sequence(10) });
        let compact = SegmentFile { sequence: Sequence(14), class: Class::Main, replaced };
        assert_eq!(with(compact), Fate::Outlived);
        let alone = Fate::of(Sequence(9), Class::Main, &BTreeMap::new(), [compact].into_iter());
        assert_eq!(alone, Fate::Outlived);
    }

    #[test]
    fn a_later_version_is_named_and_not_taken_for_damage() {
        let mut bytes = header().encode();
        bytes[8..12].copy_from_slice(&2u32.to_le_bytes());
        let crc = crc32fast::hash(&bytes[..124]);
        bytes[124..].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(SegmentHeader::decode(&bytes), Err(BadHeader::Version(2)));
    }
}
