//! Opens a log's directory: finds out what is there, recovers what was not sealed, and makes it safe to go on.
//!
//! Reads the stream table, one header per sealed segment, and the unsealed segments whole. Every step can be repeated:
//! a crash during recovery, however often, leaves a directory from which recovery comes to the same end. Damage to bytes
//! never stops it; a format from the future and an unreadable disk do.

use super::catalog::{Catalog, Segment, Stage};
use super::damage::Damage;
use super::file_name::FileName;
use super::files::{Files, remove_if_there, write_whole};
use super::frame::{FrameHeader, Identity, Kind};
use super::index::{ActiveIndex, INDEX_HEADER_BYTES, IndexHeader, SegmentIndex};
use super::limits::{FRAME_HEADER_BYTES, SEGMENT_HEADER_BYTES, STREAM_NAME_BYTES_MAX, STREAMS_MAX};
use super::options::{LogOptions, OpenError};
use super::recovery::{self, Scan};
use super::segment::{BadHeader, Class, Fate, Predecessor, SegmentHeader};
use super::stream_table::{BadTable, StreamRow, StreamTable};
use crate::disk::{Disk, File, read_all};
use crate::offset::{LogId, Sequence, StreamId};
use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// What was found, ready to be worked with.
pub(crate) struct Opened {
    pub(crate) log_id: LogId,
    pub(crate) catalog: Catalog,
    pub(crate) next_sequence: Sequence,
    /// Per class: the last segment and its end.
    pub(crate) last: [Option<Predecessor>; 2],
    pub(crate) newest_ms: u64,
    pub(crate) table_generation: u64,
    pub(crate) table_stale: bool,
    pub(crate) damages: Vec<Damage>,
}

/// A directory's files, sorted out.
#[derive(Default)]
struct Listing {
    segments: BTreeMap<Sequence, Class>,
    indexes: Vec<Sequence>,
    spares: Vec<u64>,
    tables: Vec<u8>,
}

/// Recovery under way.
struct Opening<'a> {
    files: &'a Files,
    options: &'a LogOptions,
    log_id: LogId,
    rows: Vec<StreamRow>,
    segments: BTreeMap<Sequence, Segment>,
    damages: Vec<Damage>,
    changed: bool,
}

/// Opens the directory of `files`, or makes it.
pub(crate) fn open(files: &Files, options: &LogOptions) -> Result<Opened, OpenError> {
    let disk = &**files.disk();
    let listing = Listing::read(disk, files.dir())?;
    let table = read_tables(files, &listing)?;
    let fresh = table.is_none() && listing.segments.is_empty() && listing.indexes.is_empty();
    let log_id = match &table {
        Some(table) => table.log,
        None if fresh => LogId(disk.entropy()),
        None => id_from_segments(files, &listing)?,
    };
    let lost_table = table.is_none() && !fresh;
    let empty =
        StreamTable { log: log_id, generation: 0, next_sequence: Sequence(0), covers: Sequence(0), rows: Vec::new() };
    let table = table.unwrap_or(empty);
    let generation = table.generation;
    make_tables(files, &listing, &table)?;
    let mut opening = Opening {
        files,
        options,
        log_id,
        rows: table.rows,
        segments: BTreeMap::new(),
        damages: Vec::new(),
        changed: lost_table,
    };
    if lost_table {
        tracing::error!("both copies of the stream table are damaged: made again from the segments");
    }
    opening.take_segments(&listing, table.covers)?;
    opening.take_spares(&listing)?;
    let above = |sequence: &Sequence| Sequence(sequence.0 + 1);
    let named = listing.segments.keys().chain(&listing.indexes).map(above).max().unwrap_or(Sequence(0));
    Ok(opening.finish(named.max(table.next_sequence), generation))
}

// === impl Listing ===

impl Listing {
    fn read(disk: &dyn Disk, dir: &Path) -> Result<Self, OpenError> {
        let mut listing = Self::default();
        for name in disk.list(dir).map_err(OpenError::io("list", dir))? {
            match FileName::parse(&name) {
                Some(FileName::Segment(sequence, class)) => {
                    if listing.segments.insert(sequence, class).is_some() {
                        tracing::warn!(%sequence, "two segments have this number; one of them is a stranger's");
                    }
                }
                Some(FileName::Index(sequence)) => listing.indexes.push(sequence),
                Some(FileName::Spare(n)) => listing.spares.push(n),
                Some(FileName::Streams(slot)) => listing.tables.push(slot),
                None if name == super::LOCK_FILE => {}
                None => tracing::warn!(name, "a file that is not ours lies in the log's directory; left alone"),
            }
        }
        listing.spares.sort_unstable();
        Ok(listing)
    }
}

// === impl Opening ===

impl Opening<'_> {
    /// Goes through all segments in order: sealed ones by their index's header, the others whole.
    fn take_segments(&mut self, listing: &Listing, covers: Sequence) -> Result<(), OpenError> {
        let headers = self.read_headers(listing)?;
        for (sequence, class) in &listing.segments {
            let sealed = if listing.indexes.contains(sequence) { self.sealed(*sequence)? } else { None };
            match sealed {
                Some(header) => self.take_sealed(header, *sequence >= covers)?,
                None => self.recover(*sequence, *class, &headers)?,
            }
        }
        for sequence in &listing.indexes {
            if !listing.segments.contains_key(sequence) {
                self.take_orphan(*sequence)?;
            }
        }
        Ok(())
    }

    /// The headers of all segments that are not sealed and of those behind them.
    fn read_headers(&self, listing: &Listing) -> Result<BTreeMap<Sequence, SegmentHeader>, OpenError> {
        let mut headers = BTreeMap::new();
        let Some(from) = listing.segments.keys().find(|sequence| !listing.indexes.contains(sequence)) else {
            return Ok(headers);
        };
        for (sequence, class) in listing.segments.range(from..) {
            let path = self.files.path(FileName::Segment(*sequence, *class));
            let file = self.files.disk().open(&path).map_err(OpenError::io("open", &path))?;
            let mut bytes = [0; SEGMENT_HEADER_BYTES as usize];
            let n = file.read_at(&mut bytes, 0).map_err(OpenError::io("read", &path))?;
            match SegmentHeader::decode(&bytes[..n]) {
                Ok(header) if header.log == self.log_id && header.sequence == *sequence => {
                    headers.insert(*sequence, header);
                }
                Err(BadHeader::Version(version)) => return Err(OpenError::Newer { path, version }),
                // A stale header of a recycled file, a torn one, or a stranger's: the frames decide.
                Ok(_) | Err(BadHeader::Damaged) => {}
            }
        }
        Ok(headers)
    }

    /// The index header of a sealed segment, if it is good.
    fn sealed(&self, sequence: Sequence) -> Result<Option<IndexHeader>, OpenError> {
        let path = self.files.path(FileName::Index(sequence));
        let file = self.files.disk().open(&path).map_err(OpenError::io("open", &path))?;
        let mut bytes = [0; INDEX_HEADER_BYTES];
        let n = file.read_at(&mut bytes, 0).map_err(OpenError::io("read", &path))?;
        let header = IndexHeader::decode(&bytes[..n]);
        Ok(header.filter(|header| header.log == self.log_id && header.sequence == sequence))
    }

    fn take_sealed(&mut self, header: IndexHeader, uncovered: bool) -> Result<(), OpenError> {
        let IndexHeader { sequence, class, end, failed, newest_ms, .. } = header;
        let path = self.files.path(FileName::Segment(sequence, class));
        let file = self.files.disk().open(&path).map_err(OpenError::io("open", &path))?;
        let mut file_bytes = file.len().map_err(OpenError::io("measure", &path))?;
        if failed && file_bytes > u64::from(end) {
            // What a failed sync may have left behind the end must not outlive the index that hides it.
            self.cut(&*file, end).map_err(OpenError::io("cut", &path))?;
            file_bytes = u64::from(end);
        }
        if uncovered {
            let path = self.files.path(FileName::Index(sequence));
            let bytes = self.files.disk().open(&path).and_then(|file| read_all(&*file));
            match SegmentIndex::decode(&bytes.map_err(OpenError::io("read", &path))?) {
                Some(index) => self.raise_from(&index),
                // Its header was good: the segment is made out again from its frames, all of which were synced.
                None => return self.recover_to(sequence, class, Some(end), None),
            }
        }
        let stage = Stage::Sealed;
        let segment = Segment { class, end, file_bytes, newest_ms, stage, failed: false, blocker: None };
        self.segments.insert(sequence, segment);
        Ok(())
    }

    fn raise_from(&mut self, index: &SegmentIndex) {
        self.changed = true;
        for end in index.streams() {
            self.declare(end.stream, end.name);
            let row = &mut self.rows[end.stream.0 as usize];
            row.next = row.next.max(end.next);
            row.bytes = row.bytes.max(end.bytes);
        }
    }

    /// Recovers a segment that was not sealed, by what the next segment of its class says about it.
    fn recover(
        &mut self,
        sequence: Sequence,
        class: Class,
        headers: &BTreeMap<Sequence, SegmentHeader>,
    ) -> Result<(), OpenError> {
        match Fate::of(sequence, class, headers) {
            Fate::CutAt(end) => self.recover_to(sequence, class, Some(end), headers.get(&sequence)),
            Fate::Void => self.remove(FileName::Segment(sequence, class)),
            Fate::Open => self.recover_to(sequence, class, None, headers.get(&sequence)),
        }
    }

    /// Recovers a segment, up to `cut` where that is known: all below it was synced, nothing behind it counts.
    fn recover_to(
        &mut self,
        sequence: Sequence,
        class: Class,
        cut: Option<u32>,
        header: Option<&SegmentHeader>,
    ) -> Result<(), OpenError> {
        let path = self.files.path(FileName::Segment(sequence, class));
        let file = self.files.disk().open(&path).map_err(OpenError::io("open", &path))?;
        let mut bytes = read_all(&*file).map_err(OpenError::io("read", &path))?;
        bytes.truncate(cut.unwrap_or(u32::MAX) as usize);
        let marks = self.options.synced.iter().filter(|mark| mark.sequence == sequence).map(|mark| mark.position);
        let known = marks.chain(cut).max().unwrap_or(0);
        let scan = recovery::scan(&Identity::new(self.log_id, sequence), &bytes, known);
        if let Some(version) = scan.newer {
            return Err(OpenError::Newer { path, version: u32::from(version) });
        }
        if scan.frames.is_empty() && scan.holes.is_empty() {
            return self.remove(FileName::Segment(sequence, class));
        }
        if header.is_none() {
            self.note(sequence, 0..SEGMENT_HEADER_BYTES, None, "the segment's header is damaged");
        }
        let index = self.take_frames(sequence, &bytes, &scan);
        // Cut for good, synced and sealed before anything is served: the next start need not decide again.
        self.cut(&*file, scan.end).map_err(OpenError::io("cut", &path))?;
        let newest_ms = scan.frames.iter().map(|found| found.header.ingest_ms).max().unwrap_or(0);
        if index.is_empty() {
            return Ok(()); // declarations or damage only: nothing to read, and kept for the operator until the next start
        }
        let names = |stream: StreamId| Arc::clone(&self.rows[stream.0 as usize].name);
        let sealed = index.seal(self.log_id, (sequence, class), scan.end, false, names);
        let index_path = self.files.path(FileName::Index(sequence));
        write_whole(&**self.files.disk(), &index_path, &sealed.encode())
            .map_err(OpenError::io("write", &index_path))?;
        let (stage, file_bytes) = (Stage::Sealed, u64::from(scan.end));
        let segment = Segment { class, end: scan.end, file_bytes, newest_ms, stage, failed: false, blocker: None };
        self.segments.insert(sequence, segment);
        Ok(())
    }

    /// Books the frames and the damage of a recovered segment.
    fn take_frames(&mut self, sequence: Sequence, bytes: &[u8], scan: &Scan) -> ActiveIndex {
        self.changed = true;
        let mut index = ActiveIndex::default();
        for found in &scan.frames {
            match found.header.kind {
                Kind::Declaration => {
                    let from = (found.position + FRAME_HEADER_BYTES) as usize;
                    let name = &bytes[from..from + found.header.payload_len as usize];
                    self.declare(found.header.stream, &String::from_utf8_lossy(name));
                }
                Kind::Records => {
                    self.raise(&found.header);
                    index.add(found.position, &found.header);
                }
            }
        }
        for hole in &scan.holes {
            match hole.named {
                Some(header) if header.kind == Kind::Records => {
                    self.raise(&header);
                    self.note(sequence, hole.positions.clone(), Some(&header), "the payload's checksum is wrong");
                }
                _ => self.note(sequence, hole.positions.clone(), None, "no frame can be read here"),
            }
        }
        index
    }

    fn raise(&mut self, header: &FrameHeader) {
        if header.stream.0 as usize >= STREAMS_MAX {
            return;
        }
        self.declare(header.stream, "");
        let row = &mut self.rows[header.stream.0 as usize];
        row.next = row.next.max(header.offsets().end);
        row.bytes = row.bytes.max(header.bytes_before + u64::from(header.payload_len));
    }

    /// Makes a stream known. Without a name (its declaration is damaged) it gets one that says so.
    fn declare(&mut self, stream: StreamId, name: &str) {
        let at = stream.0 as usize;
        if at >= STREAMS_MAX {
            return;
        }
        while self.rows.len() <= at {
            let name = format!("{NAMELESS}{}", self.rows.len()).into();
            self.rows.push(StreamRow { name, next: 0, bytes: 0, first_kept: 0 });
        }
        let nameless = self.rows[at].name.starts_with(NAMELESS);
        if nameless && !name.is_empty() && name.len() <= STREAM_NAME_BYTES_MAX {
            self.rows[at].name = name.into();
        }
    }

    /// An index whose segment is gone: its records are lost, and that is said.
    fn take_orphan(&mut self, sequence: Sequence) -> Result<(), OpenError> {
        let path = self.files.path(FileName::Index(sequence));
        let bytes = self.files.disk().open(&path).and_then(|file| read_all(&*file));
        if let Some(index) = SegmentIndex::decode(&bytes.map_err(OpenError::io("read", &path))?) {
            self.raise_from(&index);
            let missed: Vec<_> = index
                .streams()
                .filter(|end| self.rows[end.stream.0 as usize].first_kept < end.next)
                .map(|end| (end.name.to_string(), end.next))
                .collect();
            for (stream, next) in missed {
                self.damages.push(Damage {
                    segment: sequence,
                    positions: 0..index.header.end,
                    stream: Some(stream),
                    offsets: Some(next.saturating_sub(1)..next),
                    what: "the segment's file is missing; the last of its records",
                });
            }
        }
        self.remove(FileName::Index(sequence))
    }

    fn note(
        &mut self,
        segment: Sequence,
        positions: std::ops::Range<u32>,
        header: Option<&FrameHeader>,
        what: &'static str,
    ) {
        let stream = header.and_then(|header| self.rows.get(header.stream.0 as usize)).map(|row| row.name.to_string());
        self.damages.push(Damage { segment, positions, stream, offsets: header.map(FrameHeader::offsets), what });
    }

    fn cut(&self, file: &dyn File, end: u32) -> io::Result<()> {
        if file.len()? > u64::from(end) {
            file.set_len(u64::from(end))?;
        }
        file.sync_data()
    }

    fn remove(&self, name: FileName) -> Result<(), OpenError> {
        let path = self.files.path(name);
        remove_if_there(&**self.files.disk(), &path).map_err(OpenError::io("remove", &path))
    }

    fn take_spares(&self, listing: &Listing) -> Result<(), OpenError> {
        for n in &listing.spares {
            let path = self.files.path(FileName::Spare(*n));
            self.files.adopt_spare(*n).map_err(OpenError::io("look at", &path))?;
        }
        self.files.sync_dir().map_err(OpenError::io("sync", self.files.dir()))
    }

    fn finish(self, next_sequence: Sequence, table_generation: u64) -> Opened {
        let last = [Class::Main, Class::System].map(|class| {
            let of_class = self.segments.iter().rev().find(|(_, segment)| segment.class == class);
            of_class.map(|(sequence, segment)| Predecessor { sequence: *sequence, end: segment.end })
        });
        let newest_ms = self.segments.values().map(|segment| segment.newest_ms).max().unwrap_or(0);
        let mut catalog = Catalog::new(self.rows, self.options.tail_cache_bytes);
        catalog.segments = self.segments;
        Opened {
            log_id: self.log_id,
            catalog,
            next_sequence,
            last,
            newest_ms,
            table_generation,
            table_stale: self.changed,
            damages: self.damages,
        }
    }
}

/// Stands before the number of a stream whose name is lost.
pub(super) const NAMELESS: &str = "!nameless/";

/// Makes the files of the stream table that are not there, so that writing the table later changes no name. In a fresh
/// log this comes before anything else: the log's id must outlive the first record.
fn make_tables(files: &Files, listing: &Listing, table: &StreamTable) -> Result<(), OpenError> {
    let missing: Vec<u8> = (0..2).filter(|slot| !listing.tables.contains(slot)).collect();
    for slot in &missing {
        let path = files.path(FileName::Streams(*slot));
        write_whole(&**files.disk(), &path, &table.encode()).map_err(OpenError::io("write", &path))?;
    }
    if missing.is_empty() { Ok(()) } else { files.sync_dir().map_err(OpenError::io("sync", files.dir())) }
}

/// The newer of the two stream tables.
fn read_tables(files: &Files, listing: &Listing) -> Result<Option<StreamTable>, OpenError> {
    let mut newest: Option<StreamTable> = None;
    for slot in &listing.tables {
        let path = files.path(FileName::Streams(*slot));
        let bytes = files.disk().open(&path).and_then(|file| read_all(&*file)).map_err(OpenError::io("read", &path))?;
        match StreamTable::decode(&bytes) {
            Ok(table) if newest.as_ref().is_none_or(|newest| newest.generation < table.generation) => {
                newest = Some(table);
            }
            Ok(_) => {}
            Err(BadTable::Version(version)) => return Err(OpenError::Newer { path, version }),
            Err(BadTable::Damaged) => {
                tracing::warn!(path = %path.display(), "this copy of the stream table is torn or damaged")
            }
        }
    }
    Ok(newest)
}

/// The log's id, when both copies of the table are damaged: what most segments say.
fn id_from_segments(files: &Files, listing: &Listing) -> Result<LogId, OpenError> {
    let mut votes: BTreeMap<LogId, usize> = BTreeMap::new();
    for (sequence, class) in &listing.segments {
        let path = files.path(FileName::Segment(*sequence, *class));
        let file = files.disk().open(&path).map_err(OpenError::io("open", &path))?;
        let mut bytes = [0; SEGMENT_HEADER_BYTES as usize];
        let n = file.read_at(&mut bytes, 0).map_err(OpenError::io("read", &path))?;
        match SegmentHeader::decode(&bytes[..n]) {
            Ok(header) => *votes.entry(header.log).or_default() += 1,
            Err(BadHeader::Version(version)) => return Err(OpenError::Newer { path, version }),
            Err(BadHeader::Damaged) => {}
        }
    }
    let winner = votes.into_iter().max_by_key(|(_, votes)| *votes).map(|(log, _)| log);
    // Nothing can be read under any id: a new one, so that nothing new is taken for something old.
    Ok(winner.unwrap_or_else(|| LogId(files.disk().entropy())))
}
