//! The names of the log's files: the one place that spells and parses them.

use super::segment::Class;
use crate::offset::Sequence;
use std::fmt;

/// A file in the log's directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum FileName {
    /// `<sequence>.seg` or, for streams of our own, `<sequence>.sys`: frames.
    Segment(Sequence, Class),
    /// `<sequence>.idx`: what a sealed segment holds.
    Index(Sequence),
    /// `spare-<n>`: room taken ahead, to become a segment by a rename.
    Spare(u64),
    /// `streams.0` and `streams.1`: the stream table, written in turn.
    Streams(u8),
}

impl FileName {
    /// The file that has this name, or `None` for names that are not ours.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        let parsed = match name.split_once(['.', '-'])? {
            ("spare", n) => Self::Spare(n.parse().ok()?),
            ("streams", slot) => Self::Streams(slot.parse().ok().filter(|slot| *slot < 2)?),
            (sequence, kind) => {
                let sequence = Sequence(u64::from_str_radix(sequence, 16).ok()?);
                match kind {
                    "seg" => Self::Segment(sequence, Class::Main),
                    "sys" => Self::Segment(sequence, Class::System),
                    "idx" => Self::Index(sequence),
                    _ => return None,
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
            FileName::Segment(Sequence(u64::MAX), Class::System),
            FileName::Index(Sequence(0xabc)),
            FileName::Spare(17),
            FileName::Streams(1),
        ] {
            assert_eq!(FileName::parse(&name.to_string()), Some(name));
        }
    }

    #[test]
    fn other_files_and_other_spellings_are_not_ours() {
        let others =
            ["", "seg", "1.seg", "0000000000000001.SEG", "000000000000000A.seg", "streams.2", "spare-01", "x.idx"];
        for name in others {
            assert_eq!(FileName::parse(name), None, "{name}");
        }
    }
}
