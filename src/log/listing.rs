//! What lies in a log's directory, sorted out by name. Reads names, and headers only where two files claim one number.

use super::file_name::{FileName, SegmentFile};
use super::files::Files;
use super::limits::{NUMBER_MAX, SEGMENT_HEADER_BYTES};
use super::options::OpenError;
use super::segment::{BadHeader, Class, SegmentHeader};
use crate::offset::{LogId, Sequence};
use std::collections::{BTreeMap, BTreeSet};
use std::io;

/// A directory's files.
#[derive(Default)]
pub(super) struct Listing {
    pub(super) segments: BTreeMap<Sequence, Class>,
    pub(super) indexes: BTreeSet<Sequence>,
    /// Compact segments; once [`Listing::settle_replaced`] has gone through them, those that hold.
    pub(super) compact: Vec<SegmentFile>,
    /// Compact segments that were being written.
    pub(super) unfinished: Vec<Sequence>,
    pub(super) spares: Vec<u64>,
    pub(super) tables: Vec<u8>,
    /// Numbers that a segment of each class claims; `segments` has one of them.
    claimed_twice: Vec<Sequence>,
}

/// Segments that are in compact ones.
#[derive(Default)]
pub(super) struct Superseded {
    /// Their files, and those of their indexes.
    pub(super) gone: Vec<FileName>,
    /// What they are in.
    pub(super) by: Vec<SegmentFile>,
}

impl Listing {
    pub(super) fn read(files: &Files) -> Result<Self, OpenError> {
        let mut listing = Self::default();
        for name in files.disk().list(files.dir()).map_err(OpenError::io("list", files.dir()))? {
            match FileName::parse(&name) {
                Some(FileName::Segment(sequence, class)) => {
                    if listing.segments.insert(sequence, class).is_some() {
                        listing.claimed_twice.push(sequence);
                    }
                }
                Some(FileName::Compact(sequence, class, replaced)) => {
                    listing.compact.push(SegmentFile { sequence, class, replaced: Some(replaced) });
                }
                Some(FileName::Unfinished(sequence)) => listing.unfinished.push(sequence),
                Some(FileName::Index(sequence)) => drop(listing.indexes.insert(sequence)),
                Some(FileName::Spare(n)) => listing.spares.push(n),
                Some(FileName::Streams(slot)) => listing.tables.push(slot),
                None if name == crate::disk::dir_lock::LOCK_FILE => {}
                None => tracing::warn!(name, "a file that is not ours lies in the log's directory; left alone"),
            }
        }
        listing.spares.sort_unstable();
        Ok(listing)
    }

    /// The number that no file has, nor any behind it.
    pub(super) fn next_sequence(&self) -> Sequence {
        let above = |sequence: &Sequence| Sequence(sequence.0.saturating_add(1));
        let compact = self.compact.iter().map(|file| &file.sequence);
        let all = self.segments.keys().chain(&self.indexes).chain(&self.unfinished).chain(compact);
        all.map(above).max().unwrap_or(Sequence(0))
    }

    /// # Errors
    /// Where those that come next would soon pass for a stranger's.
    pub(super) fn leaves_numbers(&self) -> io::Result<()> {
        let next = self.next_sequence().0.max(self.spares.last().copied().unwrap_or(0));
        if next <= NUMBER_MAX / 2 { Ok(()) } else { Err(io::Error::other("one has a number that no log reaches")) }
    }

    /// Takes out what compact segments replace: segments of their class at the places that they stand for, made before
    /// them, compact ones too. What somebody needs of those is in them, or it would have no such name. Returns the files.
    pub(super) fn settle_replaced(&mut self) -> Superseded {
        let mut found = std::mem::take(&mut self.compact);
        found.sort_by_key(|file| std::cmp::Reverse(file.sequence));
        let mut replaced = Vec::new();
        for file in found {
            if file.is_replaced_by(&self.compact) { replaced.push(file) } else { self.compact.push(file) }
        }
        let plain = self.segments.iter().map(|(sequence, class)| SegmentFile::plain(*sequence, *class));
        replaced.extend(plain.filter(|file| file.is_replaced_by(&self.compact)));
        let holds = |by: &SegmentFile| replaced.iter().any(|file| file.is_replaced_by(std::slice::from_ref(by)));
        let by = self.compact.iter().copied().filter(holds).collect();
        let mut gone = Vec::new();
        for file in replaced {
            self.segments.remove(&file.sequence);
            gone.extend(self.indexes.remove(&file.sequence).then_some(FileName::Index(file.sequence)));
            gone.push(file.name());
        }
        Superseded { gone, by }
    }

    /// All segments.
    pub(super) fn files(&self) -> impl Iterator<Item = SegmentFile> {
        let plain = self.segments.iter().map(|(sequence, class)| SegmentFile::plain(*sequence, *class));
        plain.chain(self.compact.iter().copied())
    }

    /// Of two segments with one number keeps the compact one, or the one whose header says the same as its name. Returns the others: those
    /// with a header that says something else, and those that hold nothing (a name that a failure left behind).
    pub(super) fn settle_claims(
        &mut self,
        files: &Files,
        log: LogId,
    ) -> Result<(Vec<FileName>, Vec<FileName>), OpenError> {
        let (mut strange, mut void) = (Vec::new(), Vec::new());
        // A compact segment got its name when all of it was synced. A plain one of its number is a name that a failure left behind
        // before a start: it was gone then, so the number was given again. Its index is the compact one's.
        for sequence in self.compact.iter().map(|file| file.sequence) {
            let Some(class) = self.segments.remove(&sequence) else { continue };
            let of = if holds_nothing(files, log, sequence, class)? { &mut void } else { &mut strange };
            of.push(FileName::Segment(sequence, class));
            self.claimed_twice.retain(|twice| *twice != sequence);
        }
        for sequence in std::mem::take(&mut self.claimed_twice) {
            let fits = |class| {
                let header = read_header(files, sequence, class)?;
                Ok(header.is_some_and(|h| (h.log, h.sequence, h.class) == (log, sequence, class)))
            };
            let (kept, other) = match fits(Class::System)? && !fits(Class::Main)? {
                true => (Class::System, Class::Main),
                false => (Class::Main, Class::System),
            };
            self.segments.insert(sequence, kept);
            let of = if holds_nothing(files, log, sequence, other)? { &mut void } else { &mut strange };
            of.push(FileName::Segment(sequence, other));
        }
        Ok((strange, void))
    }
}

/// Whether a segment's name is one that a failure left behind: of its number nothing was ever written there.
fn holds_nothing(files: &Files, log: LogId, sequence: Sequence, class: Class) -> Result<bool, OpenError> {
    Ok(read_header(files, sequence, class)?.is_none_or(|h| h.log == log && h.sequence != sequence))
}

/// A segment's header, if it is a good one, of whatever log and number.
pub(super) fn read_header(files: &Files, sequence: Sequence, class: Class) -> Result<Option<SegmentHeader>, OpenError> {
    let path = files.path(FileName::Segment(sequence, class));
    let file = files.disk().open(&path).map_err(OpenError::io("open", &path))?;
    let mut bytes = [0; SEGMENT_HEADER_BYTES as usize];
    let n = file.read_at(&mut bytes, 0).map_err(OpenError::io("read", &path))?;
    match SegmentHeader::decode(&bytes[..n]) {
        Ok(header) => Ok(Some(header)),
        Err(BadHeader::Version(version)) => Err(OpenError::Newer { path, version }),
        // Torn, stale or damaged: the frames decide.
        Err(BadHeader::Damaged) => Ok(None),
    }
}
