//! Indexes at open whose segments are gone: what they know, and which of their records are lost.
//!
//! Told is what lies in no other segment, and nothing else: an index without its segment is no proof of a loss. What was compacted
//! lies in another one, and the name of an index that went comes back where a sync of the directory failed; or the name of a
//! compact segment was lost, and its index has come without it. So a start that finds one reads the indexes of its class.

use super::Opening;
use crate::disk::{is_media_error, read_all};
use crate::log::catalog::Stage;
use crate::log::damage::Damage;
use crate::log::file_name::FileName;
use crate::log::index::{FrameRef, SegmentIndex};
use crate::log::options::OpenError;
use crate::offset::{Sequence, StreamId};

/// An index without its segment, and its frames that are kept and were found nowhere.
struct Orphan {
    index: SegmentIndex,
    missing: Vec<(StreamId, FrameRef)>,
}

impl Opening<'_> {
    /// Takes what they know, and tells what is lost.
    pub(super) fn take_orphans(&mut self, sequences: impl Iterator<Item = Sequence>) -> Result<(), OpenError> {
        let mut orphans = Vec::new();
        for sequence in sequences {
            orphans.extend(self.orphan(sequence)?);
        }
        self.find_elsewhere(&mut orphans)?;
        for Orphan { index, missing } in &orphans {
            for end in index.streams() {
                let Some((_, last)) = missing.iter().rfind(|(stream, _)| *stream == end.stream) else { continue };
                self.damages.push(Damage {
                    segment: index.header.sequence,
                    positions: 0..index.header.end,
                    stream: Some(end.name.to_string()),
                    offsets: Some(last.next().saturating_sub(1)..last.next()),
                    what: "the segment's file is missing; the last of its records",
                });
            }
        }
        Ok(())
    }

    /// One of them, if it is good. It goes once what it knows is in the table.
    fn orphan(&mut self, sequence: Sequence) -> Result<Option<Orphan>, OpenError> {
        let name = FileName::Index(sequence);
        let path = self.files.path(name);
        let bytes = match self.files.disk().open(&path).and_then(|file| read_all(&*file)) {
            // What it says of lost records nobody can know; that there may be some is told, and it is kept for who can read it.
            Err(e) if is_media_error(&e) => {
                tracing::error!(path = %path.display(), error = %e, "the index of a segment that is gone can't be read");
                let what = "the segment's file is missing, and its index can't be read: set aside";
                self.note(sequence, 0..0, None, what);
                self.strange.push(name);
                return Ok(None);
            }
            read => read.map_err(OpenError::io("read", &path))?,
        };
        let Some(index) = SegmentIndex::decode(&bytes) else {
            self.void.push(name);
            return Ok(None);
        };
        if (index.header.log, index.header.sequence) != (self.log_id, sequence) {
            self.keep_aside(name, sequence);
            return Ok(None);
        }
        self.raise_from(&index);
        self.spent.push(name);
        let first_kept = |stream: StreamId| self.rows.get(stream.0 as usize).map(|row| row.first_kept);
        let is_kept =
            |(stream, frame): &(StreamId, FrameRef)| first_kept(*stream).is_some_and(|kept| kept < frame.next());
        let missing = index.frames().filter(is_kept).collect();
        Ok(Some(Orphan { index, missing }))
    }

    /// Crosses out what lies in segments that are there: an offset means one record for ever, so a frame of the same records is
    /// the same frame. Where an index is damaged or can't be read nothing is: in doubt it is told.
    fn find_elsewhere(&self, orphans: &mut [Orphan]) -> Result<(), OpenError> {
        for segment in self.segments.values() {
            let may_have =
                |orphan: &&mut Orphan| orphan.index.header.class == segment.file.class && !orphan.missing.is_empty();
            let looking: Vec<_> = orphans.iter_mut().filter(may_have).collect();
            if looking.is_empty() {
                continue;
            }
            if let Stage::Sealing(index) = &segment.stage {
                cross_out(looking, |stream, offset| index.locate(stream, offset));
                continue;
            }
            let sequence = segment.file.sequence;
            let is_own = |index: &SegmentIndex| (index.header.log, index.header.sequence) == (self.log_id, sequence);
            if let Some(index) = SegmentIndex::decode(&self.index_bytes(sequence, None)?).filter(is_own) {
                cross_out(looking, |stream, offset| index.locate(stream, offset));
            }
        }
        Ok(())
    }
}

fn cross_out(orphans: Vec<&mut Orphan>, locate: impl Fn(StreamId, u64) -> Option<FrameRef>) {
    let records = |frame: FrameRef| (frame.first, frame.records, frame.payload_len);
    for orphan in orphans {
        let is_there =
            |stream, frame: FrameRef| locate(stream, frame.first).is_some_and(|found| records(found) == records(frame));
        orphan.missing.retain(|(stream, frame)| !is_there(*stream, *frame));
    }
}
