//! The names of the log's files: the one place that spells and parses them.

use super::compact::Replaced;
use super::limits::NUMBER_MAX;
use super::segment::Class;
use crate::offset::Sequence;
use std::fmt;

/// A file in the log's directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum FileName {
    /// `<sequence>.seg` or, for streams of our own, `<sequence>.sys`: frames.
    Segment(Sequence, Class),
    /// `<sequence>.<first>-<last>.seg` (or `.sys`): a compact segment, in the place of those from `first` to `last`.
    Compact(Sequence, Class, Replaced),
    /// `<sequence>.new`: a compact segment that is being written. Nobody reads it.
    Unfinished(Sequence),
    /// `<sequence>.idx`: what a sealed segment holds.
    Index(Sequence),
    /// `spare-<n>`: room taken ahead, to become a segment by a rename.
    Spare(u64),
    /// `streams.0` and `streams.1`: the stream table, written in turn.
    Streams(u8),
}

/// The file of a segment. Its number proves its frames; its place is where they stand in the order of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SegmentFile {
    pub(crate) sequence: Sequence,
    pub(crate) class: Class,
    /// What it stands in the place of, if it is a compact one.
    pub(crate) replaced: Option<Replaced>,
}

impl SegmentFile {
    /// One that is no compact one: its number is its place.
    pub(crate) fn plain(sequence: Sequence, class: Class) -> Self {
        Self { sequence, class, replaced: None }
    }

    pub(crate) fn place(self) -> Sequence {
        self.replaced.map_or(self.sequence, |replaced| replaced.last)
    }

    /// Whether one of `others` stands in its place: a compact segment of its class, made after it.
    pub(crate) fn is_replaced_by(self, others: &[Self]) -> bool {
        let replaces = |by: &Self| {
            let has_place = by.replaced.is_some_and(|replaced| replaced.has(self.place()));
            by.class == self.class && by.sequence > self.sequence && has_place
        };
        others.iter().any(replaces)
    }

    pub(crate) fn name(self) -> FileName {
        match self.replaced {
            Some(replaced) => FileName::Compact(self.sequence, self.class, replaced),
            None => FileName::Segment(self.sequence, self.class),
        }
    }
}

impl FileName {
    /// The file that has this name, or `None` for names that are not ours.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        let parsed = match name.split_once(['.', '-'])? {
            ("spare", n) => Self::Spare(n.parse().ok().filter(|n| *n <= NUMBER_MAX)?),
            ("streams", slot) => Self::Streams(slot.parse().ok().filter(|slot| *slot < 2)?),
            (sequence, kind) => {
                let number = |digits| u64::from_str_radix(digits, 16).ok().filter(|n| *n <= NUMBER_MAX).map(Sequence);
                let sequence = number(sequence)?;
                match kind {
                    "seg" => Self::Segment(sequence, Class::Main),
                    "sys" => Self::Segment(sequence, Class::System),
                    "idx" => Self::Index(sequence),
                    "new" => Self::Unfinished(sequence),
                    _ => {
                        let (places, kind) = kind.split_once('.')?;
                        let class = match kind {
                            "seg" => Class::Main,
                            "sys" => Class::System,
                            _ => return None,
                        };
                        let (first, last) = places.split_once('-')?;
                        let replaced = Replaced { first: number(first)?, last: number(last)? };
                        Self::Compact(sequence, class, replaced)
                    }
                }
            }
        };
        // Exactly one spelling per file: `01.seg` and `1.seg` must not both be segment 1.
        (parsed.to_string() == name).then_some(parsed)
    }
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Segment(sequence, Class::Main) => write!(f, "{:016x}.seg", sequence.0),
            Self::Segment(sequence, Class::System) => write!(f, "{:016x}.sys", sequence.0),
            Self::Compact(sequence, class, Replaced { first, last }) => {
                let end = if *class == Class::Main { "seg" } else { "sys" };
                write!(f, "{:016x}.{:016x}-{:016x}.{end}", sequence.0, first.0, last.0)
            }
            Self::Unfinished(sequence) => write!(f, "{:016x}.new", sequence.0),
            Self::Index(sequence) => write!(f, "{:016x}.idx", sequence.0),
            Self::Spare(n) => write!(f, "spare-{n}"),
            Self::Streams(slot) => write!(f, "streams.{slot}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_read_as_what_it_was_written_as() {
        for name in [
            FileName::Segment(Sequence(0), Class::Main),
            FileName::Segment(Sequence(NUMBER_MAX), Class::System),
            FileName::Index(Sequence(0xabc)),
            FileName::Unfinished(Sequence(0xabc)),
            FileName::Compact(Sequence(9), Class::Main, Replaced { first: Sequence(1), last: Sequence(1) }),
            FileName::Compact(Sequence(NUMBER_MAX), Class::System, Replaced { first: Sequence(0), last: Sequence(7) }),
            FileName::Spare(17),
            FileName::Streams(1),
        ] {
            assert_eq!(FileName::parse(&name.to_string()), Some(name));
        }
    }

    #[test]
    fn other_files_and_other_spellings_are_not_ours() {
        let others = [
            "",
            "seg",
            "1.seg",
            "0000000000000001.SEG",
            "000000000000000A.seg",
            "streams.2",
            "spare-01",
            "spare-x",
            "x.idx",
            "0001000000000001.seg",
            "spare-281474976710657",
            "0000000000000009.0000000000000001-0001000000000001.seg",
            "0000000000000009.1-1.seg",
            "0000000000000009.x-0000000000000001.seg",
            "0000000000000009.0000000000000001-x.seg",
            "0000000000000009.0000000000000001.seg",
            "0000000000000009.0000000000000001-0000000000000001.idx",
        ];
        for name in others {
            assert_eq!(FileName::parse(name), None, "{name}");
        }
    }

    #[test]
    fn a_segment_is_replaced_by_a_later_compact_one_of_its_class_that_has_its_place() {
        let compact = |sequence, first, last| {
            let replaced = Some(Replaced { first: Sequence(first), last: Sequence(last) });
            SegmentFile { sequence: Sequence(sequence), class: Class::Main, replaced }
        };
        let plain = |sequence, class| SegmentFile::plain(Sequence(sequence), class);
        let by = [plain(2, Class::System), compact(9, 1, 3)];
        let replaced = [plain(1, Class::Main), plain(3, Class::Main), compact(5, 0, 2)];
        assert!(replaced.iter().all(|file| file.is_replaced_by(&by)));
        let others = [plain(0, Class::Main), plain(4, Class::Main), plain(2, Class::System), by[1], compact(10, 2, 3)];
        assert!(!others.iter().any(|file| file.is_replaced_by(&by)));
    }
}
