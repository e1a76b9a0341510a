//! What the log knows in memory: its streams, its segments, and what was just appended.
//!
//! One lock holds it all. The writer changes it once a commit, *after* the sync, so that whatever readers see here is
//! durable: nobody reads past the durable tail because nobody can see past it.

use super::file_name::SegmentFile;
use super::frame::FrameHeader;
use super::index::{ActiveIndex, FrameRef};
use super::open::NAMELESS;
use super::reader::Frame;
use super::shared::check_name;
use super::stream_table::StreamRow;
use super::tail_cache::TailCache;
use crate::mutants::{self, Mutant};
use crate::offset::{Sequence, StreamId};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// See the file's header.
pub(crate) struct Catalog {
    pub(crate) streams: Vec<Stream>,
    by_name: HashMap<Arc<str>, StreamId>,
    /// In the order of the log, by their places: a stream's frames follow each other from place to place.
    pub(crate) segments: BTreeMap<Sequence, Segment>,
    /// Counts the times that frames got another place. Who finds none while that happens has to look again.
    pub(crate) moves: u64,
    /// No segment with this number or a greater one was ever here: what one that is being made will hold is not in
    /// these rows.
    pub(crate) unseen: Sequence,
    pub(crate) tail: TailCache,
}

/// A stream, as far as it is durable.
#[derive(Debug, Clone)]
pub(crate) struct Stream {
    pub(crate) row: StreamRow,
    /// Records below are needed by nobody; see [`Log::trim`](super::Log::trim).
    pub(crate) trimmed: u64,
    /// The stream's running total of payload bytes there: about, until whoever trims says it.
    pub(crate) trimmed_bytes: u64,
    /// Its part of what nobody needs and stays on the disk because of it; see short_disk.rs.
    pub(crate) pinned: u64,
    /// Its name is on disk: in a declaration or in the table.
    pub(crate) declared: bool,
}

/// A segment that holds frames, or may soon.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) file: SegmentFile,
    /// Where its frames end.
    pub(crate) end: u32,
    /// The size of its file.
    pub(crate) file_bytes: u64,
    pub(crate) newest_ms: u64,
    pub(crate) stage: Stage,
    /// A write or sync on its file has failed, and it is not cut yet where it ends.
    pub(crate) failed: bool,
    /// A stream that still needs it and up to where it must be trimmed: saves looking at all streams each time.
    pub(crate) blocker: Option<(StreamId, u64)>,
    /// Bytes of its frames that somebody needed when it was last weighed; see compaction.rs.
    pub(crate) live: Option<u64>,
    /// Something in it can't be read: it is not compacted.
    pub(crate) left_alone: bool,
}

/// Where a segment is in its life.
#[derive(Debug)]
pub(crate) enum Stage {
    /// Written to.
    Active(ActiveIndex),
    /// Full; its index is still to be written.
    Sealing(Arc<ActiveIndex>),
    /// Its index is on disk.
    Sealed,
}

impl Catalog {
    /// `named`: of so many rows, the first ones, the names are durable. `unseen`: all segments before it are in the rows.
    pub(crate) fn new(rows: Vec<StreamRow>, named: usize, unseen: Sequence, tail_cache_bytes: usize) -> Self {
        let by_name = rows.iter().enumerate().map(|(i, row)| (Arc::clone(&row.name), StreamId(i as u32))).collect();
        let stream = |(i, row): (usize, StreamRow)| Stream::new(row, i < named);
        let streams = rows.into_iter().enumerate().map(stream).collect();
        let (segments, tail) = (BTreeMap::new(), TailCache::new(tail_cache_bytes));
        Self { streams, by_name, segments, moves: 0, unseen, tail }
    }

    pub(crate) fn id(&self, name: &str) -> Option<StreamId> {
        self.by_name.get(name).copied()
    }

    pub(crate) fn stream(&self, id: StreamId) -> Option<&Stream> {
        self.streams.get(id.0 as usize)
    }

    /// Whether somebody needs something of a frame.
    pub(super) fn needs(&self, stream: StreamId, frame: &FrameRef) -> bool {
        self.stream(stream).is_none_or(|stream| stream.trimmed < frame.next())
    }

    pub(crate) fn stream_mut(&mut self, id: StreamId) -> Option<&mut Stream> {
        self.streams.get_mut(id.0 as usize)
    }

    pub(crate) fn add_stream(&mut self, name: Arc<str>) -> StreamId {
        let id = StreamId(u32::try_from(self.streams.len()).expect("STREAMS_MAX fits"));
        self.by_name.insert(Arc::clone(&name), id);
        let row = StreamRow { name, next: 0, bytes: 0, first_kept: 0 };
        self.streams.push(Stream::new(row, false));
        id
    }

    /// Names a stream whose name is lost, unless another one has that name. It is declared anew before its next record.
    pub(crate) fn restore_name(&mut self, stream: StreamId, name: &str) -> bool {
        let taken = self.by_name.contains_key(name);
        let Some(known) = self.streams.get_mut(stream.0 as usize) else { return false };
        if taken || !known.row.name.starts_with(NAMELESS) || check_name(name).is_err() {
            return false;
        }
        self.by_name.remove(&known.row.name);
        (known.row.name, known.declared) = (name.into(), false);
        self.by_name.insert(Arc::clone(&known.row.name), stream);
        true
    }

    /// Takes in a frame of records that is durable at `position` of the active segment `sequence`.
    #[must_use]
    pub(crate) fn publish(
        &mut self,
        sequence: Sequence,
        position: u32,
        header: &FrameHeader,
        frame: Arc<Frame>,
    ) -> Vec<Arc<Frame>> {
        let segment = self.segments.get_mut(&sequence).expect("the writer adds a segment before its frames");
        let Stage::Active(index) = &mut segment.stage else { unreachable!("frames go to active segments") };
        index.add(position, header);
        segment.newest_ms = segment.newest_ms.max(header.ingest_ms);
        let stream = &mut self.streams[header.stream.0 as usize];
        assert!(stream.row.next <= header.first, "offsets never repeat");
        stream.row.next = header.offsets().end;
        stream.row.bytes = header.bytes_before + u64::from(header.payload_len);
        stream.declared = true;
        self.tail.push(frame)
    }

    /// The first segment at or behind `from`, with its frame that holds `offset` of `stream` or something
    /// behind it where the index is in memory.
    pub(crate) fn next_segment(&self, from: Sequence, stream: StreamId, offset: u64) -> Option<(Sequence, Place)> {
        let (place, segment) = self.segments.range(from..).next()?;
        Some((*place, segment.place(stream, offset)))
    }

    /// A segment behind `low` and before `before`, about `step` places before the last of these: that one for a step of 1. Otherwise
    /// like [`Catalog::next_segment`].
    pub(crate) fn segment_between(
        &self,
        low: Option<Sequence>,
        before: Sequence,
        step: u64,
        stream: StreamId,
        offset: u64,
    ) -> Option<(Sequence, Place)> {
        let from = low.map_or(Sequence(0), |low| Sequence(low.0 + 1));
        let (last, _) = self.segments.range(from..before).next_back()?;
        let at = Sequence(last.0.saturating_sub(step - 1)).max(from);
        let mut near = self.segments.range(from..=at).rev().chain(self.segments.range(at..before));
        let (place, segment) = near.next()?;
        Some((*place, segment.place(stream, offset)))
    }

    /// Whether nobody needs anything of a segment that has no index file yet. One that is written to holds something.
    pub(crate) fn is_settled(&self, place: Sequence) -> bool {
        let index = match self.segments.get(&place).map(|segment| &segment.stage) {
            Some(Stage::Active(index)) if !index.is_empty() => index,
            Some(Stage::Sealing(index)) => index,
            _ => return false,
        };
        let is_trimmed = |(id, next): (StreamId, u64)| self.stream(id).is_some_and(|stream| stream.trimmed >= next);
        index.ends().all(is_trimmed)
    }

    /// A segment that is not written to any more, for housekeeping. Nobody else takes one away, and that holds the lock of its
    /// rounds from before it found the segment here.
    pub(crate) fn at_rest(&self, place: Sequence) -> &Segment {
        self.segments.get(&place).expect("only housekeeping takes away what is not written to")
    }

    /// The same, to be changed.
    pub(crate) fn at_rest_mut(&mut self, place: Sequence) -> &mut Segment {
        self.segments.get_mut(&place).expect("only housekeeping takes away what is not written to")
    }

    /// Bytes of all segment files.
    pub(crate) fn segment_bytes(&self) -> u64 {
        self.segments.values().map(|segment| segment.file_bytes).sum()
    }
}

impl Stream {
    fn new(row: StreamRow, declared: bool) -> Self {
        let mut stream = Self { trimmed: 0, trimmed_bytes: 0, pinned: 0, row, declared };
        stream.trim(stream.row.first_kept);
        stream
    }

    /// Nobody needs the records below `before`.
    pub(crate) fn trim(&mut self, before: u64) {
        let before = before + u64::from(mutants::on(Mutant::OneRecordTrimmedTooMany));
        let (from, to) = (self.trimmed, before.min(self.row.next));
        if to > from {
            let rest = self.row.bytes.saturating_sub(self.trimmed_bytes);
            self.trimmed_bytes += part(rest, to - from, self.row.next - from);
            self.trimmed = to;
        }
    }

    /// Nobody needs the records below `before`, where the stream's running total is `bytes`.
    pub(crate) fn trim_at(&mut self, before: u64, bytes: u64) {
        self.trim(before);
        if self.trimmed == before {
            self.trimmed_bytes = bytes.min(self.row.bytes);
        }
    }

    /// The records from `from` on are needed again.
    pub(crate) fn keep(&mut self, from: u64) {
        if from < self.trimmed {
            self.trimmed_bytes = part(self.trimmed_bytes, from, self.trimmed);
            self.trimmed = from;
        }
    }

    /// Payload bytes that somebody still needs. Where it is not known what was trimmed, records count with the average of those
    /// around them, so it is exact when there are none.
    pub(crate) fn backlog(&self) -> u64 {
        self.row.bytes.saturating_sub(self.trimmed_bytes)
    }

    /// What it is charged for on a short disk: its backlog, and its part of what stays because of it. Who has no backlog keeps
    /// nothing.
    pub(crate) fn held(&self) -> u64 {
        let backlog = self.backlog();
        if backlog == 0 { 0 } else { backlog + self.pinned }
    }
}

/// As much of `bytes` as `records` are of `all`.
fn part(bytes: u64, records: u64, all: u64) -> u64 {
    let part = u128::from(bytes) * u128::from(records.min(all)) / u128::from(all.max(1));
    u64::try_from(part).expect("a part of bytes")
}

/// What the catalog can say about a stream's frames in a segment.
pub(crate) enum Place {
    /// The number of its file, and the frame there that holds the offset or something behind it, if there is one.
    Known(Sequence, Option<FrameRef>),
    /// Look into the index on disk.
    OnDisk,
}

impl Segment {
    pub(crate) fn new(file: SegmentFile, end: u32, file_bytes: u64, newest_ms: u64, stage: Stage) -> Self {
        let (failed, blocker, live, left_alone) = (false, None, None, false);
        Self { file, end, file_bytes, newest_ms, stage, failed, blocker, live, left_alone }
    }

    /// Whether the segment behind it, which names its end, must stay as long as it does: bytes behind its end may be on the disk
    /// that were never acknowledged, or nothing else says where it ends.
    pub(crate) fn end_is_named_behind(&self) -> bool {
        let has_no_index = self.file.replaced.is_none() && !matches!(self.stage, Stage::Sealed);
        self.failed || has_no_index
    }

    fn place(&self, stream: StreamId, offset: u64) -> Place {
        match &self.stage {
            Stage::Active(index) => Place::Known(self.file.sequence, index.locate(stream, offset)),
            Stage::Sealing(index) => Place::Known(self.file.sequence, index.locate(stream, offset)),
            Stage::Sealed => Place::OnDisk,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::segment::Class;

    /// Who is not sure that nothing of it is needed keeps it.
    #[test]
    fn only_what_has_no_index_file_yet_and_of_which_nothing_is_needed_is_settled() {
        let row = StreamRow { name: "a".into(), next: 5, bytes: 0, first_kept: 0 };
        let mut catalog = Catalog::new(vec![row], 1, Sequence(5), 0);
        let holds = || {
            let mut index = ActiveIndex::default();
            index.add(128, &FrameHeader::sample(0, 3));
            index
        };
        let stages = [
            Stage::Active(ActiveIndex::default()),
            Stage::Active(holds()),
            Stage::Sealing(Arc::new(holds())),
            Stage::Sealing(Arc::default()),
            Stage::Sealed,
        ];
        for (n, stage) in (0..).zip(stages) {
            let file = SegmentFile::plain(Sequence(n), Class::Main);
            catalog.segments.insert(Sequence(n), Segment::new(file, 256, 4_096, 0, stage));
        }
        // The last one is not there.
        let settled = |catalog: &Catalog| [0, 1, 2, 3, 4, 5].map(|n| catalog.is_settled(Sequence(n)));
        let trim = |catalog: &mut Catalog, before| catalog.stream_mut(StreamId(0)).expect("known").trim(before);
        trim(&mut catalog, 3);
        assert_eq!(settled(&catalog), [false, false, false, true, false, false], "its record is needed");
        trim(&mut catalog, 4);
        assert_eq!(settled(&catalog), [false, true, true, true, false, false]);
    }
}
