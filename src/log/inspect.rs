//! Looks at a log's directory without opening it: for the operator with a damaged disk. Writes nothing, takes no lock.
//!
//! It judges as opening would: what was never acknowledged is no damage, and what opening would cut is not shown. It
//! knows less than opening in one respect: the synced positions that are kept outside of the log. So damage to the last
//! frames of a segment that was not sealed can pass for a torn end. Of a log that is in use it tells what was there a
//! moment ago; of one at rest it is exact.

use super::compact::{self, CompactHeader};
use super::damage::Damage;
use super::file_name::{FileName, SegmentFile};
use super::frame::{Identity, Kind, stored_len};
use super::index::{FrameRef, SegmentIndex};
use super::limits::{FRAME_HEADER_BYTES, SEGMENT_HEADER_BYTES};
use super::open::NAMELESS;
use super::options::OpenError;
use super::recovery::{self, Found, Hole};
use super::segment::{BadHeader, Class, Fate, SegmentHeader};
use super::stream_table::{BadTable, StreamTable};
use crate::disk::{Disk, File, dir_lock, read_all, read_exact_at};
use crate::offset::{LogId, Sequence, StreamId};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::{ControlFlow, Range};
use std::path::Path;
use std::sync::Arc;

/// What is read at a time where a disk refuses to give a whole file: its own blocks are no smaller.
const SALVAGE_BYTES: usize = 4096;

/// What a log's directory holds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Inspected {
    /// The log's id, where anything says it.
    pub log_id: Option<LogId>,
    /// The streams by their numbers.
    pub streams: Vec<SeenStream>,
    /// The segments in order.
    pub segments: Vec<SegmentReport>,
    /// Files beside the segments that can't be used.
    pub flaws: Vec<Flaw>,
    /// Files that are not ours.
    pub strangers: Vec<String>,
    /// Room taken ahead, in files.
    pub spares: usize,
}

/// One stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenStream {
    /// Its name.
    pub name: String,
    /// From the first record that is kept to the one that comes next.
    pub offsets: Range<u64>,
    /// Records that can be read.
    pub records: u64,
}

/// One segment, read from end to end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentReport {
    /// Its number.
    pub sequence: Sequence,
    /// Which streams it holds.
    pub class: Class,
    /// Bytes of its file.
    pub file_bytes: u64,
    /// Where its frames end.
    pub end: u32,
    /// Its index is there and good.
    pub sealed: bool,
    /// Frames that can be read.
    pub frames: u64,
    /// Records in them.
    pub records: u64,
    /// Damaged places among what was acknowledged.
    pub damage: Vec<Damage>,
}

/// A file that can't be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flaw {
    /// Its name.
    pub file: String,
    /// What is wrong with it, and what that means.
    pub what: &'static str,
    /// A crash can leave it so and opening mends it: no sign of a damaged disk.
    pub mended: bool,
}

/// A frame of records that can be read.
#[derive(Debug, Clone)]
pub struct SeenFrame<'a> {
    /// Its segment.
    pub segment: Sequence,
    /// Where it starts there.
    pub position: u32,
    /// The number of its stream.
    pub stream: StreamId,
    /// The name of its stream.
    pub name: &'a str,
    /// Its records.
    pub offsets: Range<u64>,
    /// When they were stored, in milliseconds since 1970.
    pub ingest_ms: u64,
    /// Their bytes.
    pub payload: &'a [u8],
}

/// Reads every segment in `dir`, calling `each` with every frame of records that opening would keep, in the order in
/// which they were written. Stops early when `each` says so; what is told then covers what was read.
///
/// # Errors
/// When the directory can't be listed, a file can't be opened, or a later version wrote it. A place that the disk
/// refuses to read is damage, no error.
pub fn inspect(
    disk: &dyn Disk,
    dir: &Path,
    mut each: impl FnMut(&SeenFrame<'_>) -> ControlFlow<()>,
) -> Result<Inspected, OpenError> {
    let mut names: Vec<String> = disk.list(dir).map_err(OpenError::io("list", dir))?;
    names.sort_unstable();
    let (seen, headers, missing) = (Inspected::default(), BTreeMap::new(), BTreeSet::new());
    let mut inspection = Inspection { disk, dir, seen, from_table: 0, covers: Sequence(0), headers, missing };
    // A number may be claimed twice: by a name that a failure left behind, which holds nothing under it.
    let (mut segments, mut indexes, mut tables, mut compact) = (BTreeSet::new(), Vec::new(), Vec::new(), Vec::new());
    for name in names {
        match FileName::parse(&name) {
            Some(FileName::Segment(sequence, class)) => {
                segments.insert((sequence, class));
            }
            Some(FileName::Compact(sequence, class, replaced)) => {
                compact.push(SegmentFile { sequence, class, replaced: Some(replaced) });
            }
            Some(FileName::Unfinished(_)) => {
                let what = "a compact segment that was not finished; nobody needs it";
                inspection.seen.flaws.push(Flaw { file: name, what, mended: true });
            }
            Some(FileName::Index(sequence)) => indexes.push(sequence),
            Some(FileName::Streams(_)) => tables.push(name),
            Some(FileName::Spare(_)) => inspection.seen.spares += 1,
            None if name == dir_lock::LOCK_FILE => {}
            None => inspection.seen.strangers.push(name),
        }
    }
    inspection.read_tables(&tables)?;
    inspection.read_headers(&segments)?;
    let plain = segments.iter().map(|(sequence, class)| SegmentFile::plain(*sequence, *class));
    let all: Vec<SegmentFile> = plain.chain(compact.iter().copied()).collect();
    // As opening judges: see `Listing::settle_claims`.
    let is_shadow =
        |file: &SegmentFile| file.replaced.is_none() && compact.iter().any(|compact| compact.sequence == file.sequence);
    let (shadows, all_but_shadows): (Vec<_>, Vec<_>) = all.iter().copied().partition(is_shadow);
    let what = "a name that a failure left behind: a compact segment has its number";
    let flaw = |file: SegmentFile| Flaw { file: file.name().to_string(), what, mended: true };
    inspection.seen.flaws.extend(shadows.into_iter().map(flaw));
    let (replaced, mut kept): (Vec<_>, Vec<_>) =
        all_but_shadows.into_iter().partition(|file| file.is_replaced_by(&compact));
    let what = "a compact segment stands in its place; nobody needs it";
    let flaw = |file: SegmentFile| Flaw { file: file.name().to_string(), what, mended: true };
    inspection.seen.flaws.extend(replaced.into_iter().map(flaw));
    kept.sort_by_key(|file| (file.place(), file.sequence));
    let mut orphans = Vec::new();
    for sequence in indexes.into_iter().filter(|sequence| !all.iter().any(|file| file.sequence == *sequence)) {
        orphans.extend(inspection.index(sequence)?);
    }
    inspection.missing = orphans.iter().flat_map(SegmentIndex::frames).map(records_of).collect();
    for file in &kept {
        if inspection.segment(*file, &kept, &mut each)?.is_break() {
            return Ok(inspection.seen);
        }
    }
    orphans.iter().for_each(|index| inspection.orphan(index));
    Ok(inspection.seen)
}

struct Inspection<'a> {
    disk: &'a dyn Disk,
    dir: &'a Path,
    seen: Inspected,
    /// Streams below this number are in the table, which says what is kept of them.
    from_table: usize,
    /// Segments at places before this one were sealed once.
    covers: Sequence,
    headers: BTreeMap<Sequence, SegmentHeader>,
    /// Frames of indexes without a segment that were seen in no segment yet.
    missing: BTreeSet<Records>,
}

/// A frame's stream, first offset, records, and length of the payload: the same wherever it lies.
type Records = (StreamId, u64, u32, u32);

fn records_of((stream, frame): (StreamId, FrameRef)) -> Records {
    (stream, frame.first, frame.records, frame.payload_len)
}

impl Inspection<'_> {
    /// The newer of the good tables.
    fn read_tables(&mut self, names: &[String]) -> Result<(), OpenError> {
        let mut newest: Option<StreamTable> = None;
        let mut bad = Vec::new();
        for name in names {
            let Some(bytes) = self.read(name)? else { continue };
            match StreamTable::decode(&bytes) {
                Ok(table) if newest.as_ref().is_none_or(|newest| newest.generation < table.generation) => {
                    newest = Some(table);
                }
                Ok(_) => {}
                Err(BadTable::Version(version)) => return Err(self.newer(name, version)),
                Err(BadTable::Damaged) => bad.push(name.clone()),
            }
        }
        let mended = newest.is_some();
        let what = if mended {
            "this copy of the stream table is torn or damaged; the other one is good"
        } else {
            "the stream table is damaged; it is made again from the segments, without streams that have no records left"
        };
        self.seen.flaws.extend(bad.into_iter().map(|file| Flaw { file, what, mended }));
        if let Some(table) = newest {
            self.seen.log_id = Some(table.log);
            (self.from_table, self.covers) = (table.rows.len(), table.covers);
            let stream = |row: super::stream_table::StreamRow| SeenStream {
                name: row.name.to_string(),
                offsets: row.first_kept..row.next,
                records: 0,
            };
            self.seen.streams = table.rows.into_iter().map(stream).collect();
        }
        Ok(())
    }

    fn read_headers(&mut self, segments: &BTreeSet<(Sequence, Class)>) -> Result<(), OpenError> {
        for (sequence, class) in segments {
            let name = FileName::Segment(*sequence, *class).to_string();
            let Some(file) = self.open(&name)? else { continue };
            let mut bytes = [0; SEGMENT_HEADER_BYTES as usize];
            // A header that can't be read is a damaged one: the frames decide.
            let Ok(n) = file.read_at(&mut bytes, 0) else { continue };
            match SegmentHeader::decode(&bytes[..n]) {
                Ok(header)
                    if (header.sequence, header.class) == (*sequence, *class)
                        && self.seen.log_id.is_none_or(|id| id == header.log) =>
                {
                    self.seen.log_id = Some(header.log);
                    self.headers.insert(*sequence, header);
                }
                Err(BadHeader::Version(version)) => return Err(self.newer(&name, version)),
                Ok(_) | Err(BadHeader::Damaged) => {}
            }
        }
        Ok(())
    }

    fn segment(
        &mut self,
        file: SegmentFile,
        kept: &[SegmentFile],
        each: &mut impl FnMut(&SeenFrame<'_>) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, OpenError> {
        let (sequence, class, name) = (file.sequence, file.class, file.name().to_string());
        let Some(mut bytes) = self.read(&name)? else { return Ok(ControlFlow::Continue(())) };
        let index = self.index(sequence)?.filter(|index| index.header.class == class);
        let is_open = index.is_none() && file.replaced.is_none();
        let fate = is_open.then(|| Fate::of(sequence, class, &self.headers, kept.iter().copied()));
        let cut = match (&index, file.replaced) {
            (Some(index), _) => Some(index.header.end),
            (None, Some(_)) => CompactHeader::decode(&bytes).ok().map(|header| header.end),
            (None, None) => match fate {
                Some(Fate::CutAt(end)) => Some(end),
                Some(Fate::Void) => Some(SEGMENT_HEADER_BYTES),
                Some(Fate::Open | Fate::Outlived) | None => None,
            },
        };
        let whose = compact::owner(file.replaced.is_some(), &bytes);
        let file_bytes = bytes.len() as u64;
        bytes.truncate(cut.unwrap_or(u32::MAX) as usize);
        let log = self.seen.log_id.unwrap_or(LogId(0));
        let is_sealed = fate == Some(Fate::Outlived) || file.replaced.is_some() || file.place() < self.covers;
        let sealed = cut.is_none() && is_sealed;
        let scan = recovery::scan_of(sealed, &Identity::new(log, sequence), &bytes, cut.unwrap_or(0));
        if let Some(version) = scan.newer {
            return Err(self.newer(&name, u32::from(version)));
        }
        let mut report = SegmentReport {
            sequence,
            class,
            file_bytes,
            end: scan.end.max(SEGMENT_HEADER_BYTES),
            sealed: index.is_some(),
            frames: 0,
            records: 0,
            damage: Vec::new(),
        };
        let mut flow = ControlFlow::Continue(());
        for found in &scan.frames {
            report.frames += 1;
            report.records += u64::from(found.header.records);
            flow = self.frame(sequence, found, &bytes, each);
            if flow.is_break() {
                break;
            }
        }
        for hole in &scan.holes {
            self.damage(sequence, hole, index.as_ref(), &mut report.damage);
        }
        // What was never acknowledged may be torn there; opening it mends that.
        let is_damaged = |found: &Found| {
            let Range { start, end } = found.padding();
            end <= scan.synced && bytes[start as usize..end as usize].iter().any(|byte| *byte != 0)
        };
        if scan.frames.iter().any(is_damaged) {
            let what = "bytes between its frames are damaged; no record is";
            self.seen.flaws.push(Flaw { file: name.clone(), what, mended: false });
        }
        if scan.promised && whose != Some((log, sequence)) {
            let what = "the segment's header is damaged; its records are read all the same";
            self.seen.flaws.push(Flaw { file: name, what, mended: false });
        }
        self.seen.segments.push(report);
        Ok(flow)
    }

    /// Books a frame, and shows it if it holds records.
    fn frame(
        &mut self,
        segment: Sequence,
        found: &Found,
        bytes: &[u8],
        each: &mut impl FnMut(&SeenFrame<'_>) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let Found { position, header } = *found;
        let from = (position + FRAME_HEADER_BYTES) as usize;
        let payload = &bytes[from..from + header.payload_len as usize];
        if header.kind == Kind::Declaration {
            self.declare(header.stream, &String::from_utf8_lossy(payload));
            return ControlFlow::Continue(());
        }
        self.missing.remove(&records_of((header.stream, FrameRef::of(position, &header))));
        let offsets = header.offsets();
        let in_table = (header.stream.0 as usize) < self.from_table;
        let stream = self.declare(header.stream, "");
        // Where it ends an index may have told already.
        if stream.records == 0 && !in_table {
            stream.offsets.start = offsets.start;
        }
        stream.offsets.end = stream.offsets.end.max(offsets.end);
        stream.records += u64::from(header.records);
        let (name, ingest_ms) = (stream.name.as_str(), header.ingest_ms);
        each(&SeenFrame { segment, position, stream: header.stream, name, offsets, ingest_ms, payload })
    }

    /// Says whose records lay in a hole: the frame's own header knows, or else the segment's index.
    fn damage(&self, segment: Sequence, hole: &Hole, index: Option<&SegmentIndex>, into: &mut Vec<Damage>) {
        let name = |stream: StreamId| self.seen.streams.get(stream.0 as usize).map(|stream| stream.name.clone());
        if let Some(header) = hole.named.filter(|header| header.kind == Kind::Records) {
            let what = "the payload's checksum is wrong";
            let (positions, offsets) = (hole.positions.clone(), Some(header.offsets()));
            into.push(Damage { segment, positions, stream: name(header.stream), offsets, what });
            return;
        }
        let what = "no frame can be read here";
        let lay_there = |position: u32| hole.positions.contains(&position);
        let frames = index.into_iter().flat_map(SegmentIndex::frames).filter(|(_, frame)| lay_there(frame.position));
        let before = into.len();
        into.extend(frames.map(|(stream, frame)| Damage {
            segment,
            positions: frame.position..frame.position.saturating_add(stored_len(frame.payload_len)),
            stream: name(stream),
            offsets: Some(frame.first..frame.next()),
            what,
        }));
        into[before..].sort_by_key(|damage| damage.positions.start);
        if into.len() == before {
            into.push(Damage { segment, positions: hole.positions.clone(), stream: None, offsets: None, what });
        }
    }

    /// A sealed segment's index, if it is good. Makes its streams known.
    fn index(&mut self, sequence: Sequence) -> Result<Option<SegmentIndex>, OpenError> {
        let file = FileName::Index(sequence).to_string();
        let Some(bytes) = self.read(&file)? else { return Ok(None) };
        let log = self.seen.log_id;
        let ours =
            |index: &SegmentIndex| index.header.sequence == sequence && log.is_none_or(|id| id == index.header.log);
        let Some(index) = SegmentIndex::decode(&bytes).filter(ours) else {
            let what = "this index is torn or damaged; it is made again from its segment";
            self.seen.flaws.push(Flaw { file, what, mended: true });
            return Ok(None);
        };
        for end in index.streams() {
            let stream = self.declare(end.stream, end.name);
            stream.offsets.end = stream.offsets.end.max(end.next);
        }
        Ok(Some(index))
    }

    /// An index whose segment is gone. Both go together, so records are missing unless nobody was to keep them, or they lie in
    /// another segment.
    fn orphan(&mut self, index: &SegmentIndex) {
        // What a stream begins with is what the table says, not what is left of it.
        let in_table = self.seen.streams.get(..self.from_table).unwrap_or_default();
        let kept = |stream: StreamId| in_table.get(stream.0 as usize).map_or(0, |stream| stream.offsets.start);
        let mut is_kept = index.frames().filter(|(stream, frame)| kept(*stream) < frame.next());
        let missed = is_kept.any(|frame| self.missing.contains(&records_of(frame)));
        let what = if missed {
            "the segment of this index is missing: its records are lost"
        } else {
            "the segment of this index was reclaimed"
        };
        let file = FileName::Index(index.header.sequence).to_string();
        self.seen.flaws.push(Flaw { file, what, mended: !missed });
    }

    /// Makes a stream known. Without a name (its declaration is damaged) it gets one that says so.
    fn declare(&mut self, stream: StreamId, name: &str) -> &mut SeenStream {
        let (at, streams) = (stream.0 as usize, &mut self.seen.streams);
        while streams.len() <= at {
            let name = format!("{NAMELESS}{}", streams.len());
            streams.push(SeenStream { name, offsets: 0..0, records: 0 });
        }
        if !name.is_empty() && streams[at].name.starts_with(NAMELESS) {
            streams[at].name = name.to_owned();
        }
        &mut streams[at]
    }

    /// A file; `None` if it was reclaimed since the directory was listed.
    fn open(&self, name: &str) -> Result<Option<Arc<dyn File>>, OpenError> {
        let path = self.dir.join(name);
        match self.disk.open(&path) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(OpenError::io("open", &path)(error)),
        }
    }

    /// What the disk gives of a file; `None` if it was reclaimed since the directory was listed.
    fn read(&self, name: &str) -> Result<Option<Vec<u8>>, OpenError> {
        let Some(file) = self.open(name)? else { return Ok(None) };
        let bytes = read_all(&*file).or_else(|_| salvage(&*file));
        bytes.map(Some).map_err(OpenError::io("read", &self.dir.join(name)))
    }

    fn newer(&self, name: &str, version: u32) -> OpenError {
        OpenError::Newer { path: self.dir.join(name), version }
    }
}

/// All of a file, with zeros where the disk gives nothing: no checksum takes them for what was there.
fn salvage(file: &dyn File) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(file.len()?).map_err(io::Error::other)?];
    for (number, block) in bytes.chunks_mut(SALVAGE_BYTES).enumerate() {
        if read_exact_at(file, block, (number * SALVAGE_BYTES) as u64).is_err() {
            block.fill(0);
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests;
