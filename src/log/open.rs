//! Opens a log's directory: finds out what is there, recovers what was not sealed, and makes it safe to go on.
//!
//! Reads the stream table, one header per sealed segment, and the unsealed segments whole. Every step can be repeated:
//! a crash during recovery, however often, leaves a directory from which recovery comes to the same end. For that what
//! was found out is in a durable table before anything that said so goes. Damage to bytes never stops it, nor does a
//! full disk, nor an index that can't be read; a format from the future and an unreadable segment do. Nothing that may be somebody's is deleted: it is set
//! aside under another name.

mod compacted;
mod orphans;
mod settling;
mod tables;
mod tidying;

use super::catalog::{Catalog, Segment, Stage};
use super::compact;
use super::damage::Damage;
use super::file_name::{FileName, SegmentFile};
use super::files::Files;
use super::frame::{FrameHeader, Identity, Kind};
use super::index::{ActiveIndex, INDEX_HEADER_BYTES, IndexHeader, SegmentIndex};
use super::limits::{FRAME_HEADER_BYTES, SEGMENT_HEADER_BYTES, STREAM_NAME_BYTES_MAX};
use super::listing::{Listing, Superseded, read_header};
use super::options::{LogOptions, OpenError};
use super::recovery::{self, Scan};
use super::segment::{Class, Fate, Predecessor, SegmentHeader};
use super::stream_table::{StreamRow, StreamTable};
use crate::disk::{is_media_error, read_all};
use crate::mutants::{self, Mutant};
use crate::offset::{LogId, Sequence, StreamId};
use settling::last_of;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
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
    /// Copies of the stream table that the disk refused to read.
    pub(crate) tables_refused: u64,
    /// Bytes of files that are nobody's and stay until the next start.
    pub(crate) left_bytes: u64,
}

/// Recovery under way.
struct Opening<'a> {
    files: &'a Files,
    options: &'a LogOptions,
    /// Milliseconds since 1970.
    now_ms: u64,
    /// Segments at places before this one were sealed once, or recovered: all that is in them was synced.
    covers: Sequence,
    log_id: LogId,
    /// The id was made up because none could be read: whatever lies here is not ours to delete.
    id_lost: bool,
    rows: Vec<StreamRow>,
    segments: BTreeMap<Sequence, Segment>,
    damages: Vec<Damage>,
    /// The table on disk doesn't know all that was found out.
    changed: bool,
    /// Nothing in these was ever acknowledged.
    void: Vec<FileName>,
    /// What somebody needs of these is in compact segments.
    replaced: Superseded,
    /// Bytes of files that are nobody's and stay until the next start.
    left_bytes: u64,
    /// These have said all they know; they go once that is in the table.
    spent: Vec<FileName>,
    /// These are not ours.
    strange: Vec<FileName>,
}

/// Opens the directory of `files`, or makes it.
pub(crate) fn open(files: &Files, options: &LogOptions, now_ms: u64) -> Result<Opened, OpenError> {
    let mut listing = Listing::read(files)?;
    listing.leaves_numbers().map_err(OpenError::io("go on from the files in", files.dir()))?;
    let tables = tables::read(files, &listing)?;
    let empty = listing.segments.is_empty() && listing.indexes.is_empty() && listing.compact.is_empty();
    let voted = if tables.newest.is_none() { tables::id_from_segments(files, &listing)? } else { None };
    let table_lost = tables.newest.is_none() && !empty;
    let table = tables.newest.unwrap_or_else(|| StreamTable {
        // Where nothing can be read under any id: a new one, so that nothing new is taken for something old.
        log: voted.unwrap_or_else(|| LogId(files.disk().entropy())),
        generation: 0,
        next_sequence: Sequence(0),
        covers: Sequence(0),
        compacted: false,
        rows: Vec::new(),
    });
    if table_lost {
        tracing::error!("both copies of the stream table are damaged: made again from the segments");
    }
    tables::make_sound(files, &listing, &tables.good, &table)?;
    let (strange, mut void) = listing.settle_claims(files, table.log)?;
    let replaced = listing.settle_replaced();
    void.extend(listing.unfinished.iter().map(|sequence| FileName::Unfinished(*sequence)));
    let (generation, covers) = (table.generation, table.covers);
    let mut opening = Opening {
        files,
        options,
        now_ms,
        covers,
        log_id: table.log,
        id_lost: table_lost && voted.is_none(),
        rows: table.rows,
        segments: BTreeMap::new(),
        damages: Vec::new(),
        changed: table_lost,
        void,
        replaced,
        left_bytes: 0,
        spent: Vec::new(),
        strange,
    };
    opening.take_segments(&listing)?;
    if opening.takes_back_what_is_in_none()? {
        return open(files, options, now_ms);
    }
    let next_sequence = listing.next_sequence().max(table.next_sequence);
    let saved = opening.save(&mut listing, next_sequence, generation)?;
    opening.take_spares(&listing)?;
    let opened = opening.finish(next_sequence, saved, generation);
    Ok(Opened { tables_refused: tables.refused, ..opened })
}

// === impl Opening ===

impl Opening<'_> {
    /// Goes through all segments in order: sealed ones by their index's header, the others whole.
    fn take_segments(&mut self, listing: &Listing) -> Result<(), OpenError> {
        let mut sealed = BTreeMap::new();
        for sequence in listing.indexes.iter().filter(|sequence| listing.segments.contains_key(sequence)) {
            sealed.extend(self.sealed(*sequence)?.map(|header| (*sequence, header)));
        }
        let headers = self.read_headers(listing, &sealed)?;
        for (sequence, class) in &listing.segments {
            match sealed.remove(sequence) {
                Some(header) => {
                    self.take_sealed(header, SegmentFile::plain(*sequence, header.class))?;
                }
                None => self.recover(*sequence, *class, &headers, listing)?,
            }
        }
        for file in &listing.compact {
            let sealed = if listing.indexes.contains(&file.sequence) { self.sealed(file.sequence)? } else { None };
            match sealed {
                Some(header) => self.take_sealed(header, *file)?,
                None => self.recover_compact(*file)?,
            }
        }
        let of_a_compact_one = |sequence: &Sequence| listing.compact.iter().any(|file| file.sequence == *sequence);
        let has_none = |sequence: &&Sequence| !listing.segments.contains_key(sequence) && !of_a_compact_one(sequence);
        self.take_orphans(listing.indexes.iter().filter(has_none).copied())
    }

    /// The headers of all segments that are not sealed, and for each of them the next good one of its class, which says where it ends.
    /// One whose index is torn or damaged is not sealed, whatever its files are called. No other header is worth a look, or a start that
    /// fails because it can't be read.
    fn read_headers(
        &self,
        listing: &Listing,
        sealed: &BTreeMap<Sequence, IndexHeader>,
    ) -> Result<BTreeMap<Sequence, SegmentHeader>, OpenError> {
        let mut headers = BTreeMap::new();
        let mut is_waited_for = BTreeSet::new();
        for (sequence, class) in &listing.segments {
            let is_open = !sealed.contains_key(sequence);
            if is_open || is_waited_for.contains(class) {
                let header = read_header(self.files, *sequence, *class)?;
                if let Some(header) = header.filter(|header| self.is_ours(header, *sequence)) {
                    headers.insert(*sequence, header);
                    is_waited_for.remove(class);
                }
            }
            if is_open {
                is_waited_for.insert(*class);
            }
        }
        Ok(headers)
    }

    fn is_ours(&self, header: &SegmentHeader, sequence: Sequence) -> bool {
        header.log == self.log_id && header.sequence == sequence
    }

    /// The index header of a sealed segment, if it is good.
    fn sealed(&self, sequence: Sequence) -> Result<Option<IndexHeader>, OpenError> {
        let header = IndexHeader::decode(&self.index_bytes(sequence, Some(INDEX_HEADER_BYTES))?);
        Ok(header.filter(|header| header.log == self.log_id && header.sequence == sequence))
    }

    /// The first bytes of an index, or all of them. None where the disk can't read it: it says nothing that its segment
    /// and the next one's header do not say, so it is as good as torn, and housekeeping writes it anew.
    fn index_bytes(&self, sequence: Sequence, first: Option<usize>) -> Result<Vec<u8>, OpenError> {
        let path = self.files.path(FileName::Index(sequence));
        let read = self.files.disk().open(&path).and_then(|file| match first {
            None => read_all(&*file),
            Some(len) => {
                let mut bytes = vec![0; len];
                let n = file.read_at(&mut bytes, 0)?;
                bytes.truncate(n);
                Ok(bytes)
            }
        });
        match read {
            Err(e) if is_media_error(&e) => {
                tracing::warn!(path = %path.display(), error = %e, "an index can't be read: its segment is read instead");
                Ok(Vec::new())
            }
            other => other.map_err(OpenError::io("read", &path)),
        }
    }

    fn take_sealed(&mut self, header: IndexHeader, segment: SegmentFile) -> Result<(), OpenError> {
        let IndexHeader { sequence, end, failed, newest_ms, .. } = header;
        let path = self.files.path(segment.name());
        let file = self.files.disk().open(&path).map_err(OpenError::io("open", &path))?;
        let mut file_bytes = file.len().map_err(OpenError::io("measure", &path))?;
        let is_cut = failed && self.files.holds(segment, self.log_id);
        if is_cut {
            // What a failed sync may have left behind the end must not outlive the index that hides it. Where it ends there already,
            // too: the start that cut it may have failed in its sync.
            self.cut(&*file, end).map_err(OpenError::io("cut", &path))?;
            file_bytes = file_bytes.min(u64::from(end));
        }
        if segment.place() >= self.covers {
            match SegmentIndex::decode(&self.index_bytes(sequence, None)?) {
                Some(index) => self.raise_from(&index),
                // Its header is good: the segment is made out again from its frames, all of which were synced.
                None => return self.recover_to(segment, Some(end), false),
            }
        }
        let mut known = Segment::new(segment, end, file_bytes, newest_ms, Stage::Sealed);
        // One that could not be cut, since its header can't be read: what names its end stays as long as it does.
        known.failed = failed && !is_cut;
        self.segments.insert(segment.place(), known);
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
        listing: &Listing,
    ) -> Result<(), OpenError> {
        match Fate::of(sequence, class, headers, listing.files()) {
            Fate::CutAt(end) => self.recover_to(SegmentFile::plain(sequence, class), Some(end), false),
            fate @ (Fate::Open | Fate::Outlived) => {
                self.recover_to(SegmentFile::plain(sequence, class), None, fate == Fate::Outlived)
            }
            Fate::Void => {
                self.void.push(FileName::Segment(sequence, class));
                Ok(())
            }
        }
    }

    /// Recovers a segment, up to `cut` where that is known: all below it was synced, nothing behind it counts. `outlived`: so was all of
    /// it, for who named its end has gone.
    fn recover_to(&mut self, segment: SegmentFile, cut: Option<u32>, outlived: bool) -> Result<(), OpenError> {
        let (sequence, name) = (segment.sequence, segment.name());
        let path = self.files.path(name);
        let file = self.files.disk().open(&path).map_err(OpenError::io("open", &path))?;
        let mut bytes = read_all(&*file).map_err(OpenError::io("read", &path))?;
        bytes.truncate(cut.unwrap_or(u32::MAX) as usize);
        let marks = self.options.synced.iter().filter(|mark| mark.sequence == sequence).map(|mark| mark.position);
        let known = marks.chain(cut).max().unwrap_or(0);
        let sealed = cut.is_none() && (outlived || segment.replaced.is_some() || segment.place() < self.covers);
        let scan = recovery::scan_of(sealed, &Identity::new(self.log_id, sequence), &bytes, known);
        if let Some(version) = scan.newer {
            return Err(OpenError::Newer { path, version: u32::from(version) });
        }
        let whose = compact::owner(segment.replaced.is_some(), &bytes);
        let nothing = scan.frames.is_empty() && scan.holes.is_empty();
        if nothing || self.was_recycled(compact::owner_of_either(&bytes), sequence, &scan) {
            let foreign = self.id_lost || whose.is_some_and(|(log, _)| log != self.log_id);
            if foreign {
                self.keep_aside(name, sequence)
            } else {
                self.void.push(name)
            }
            return Ok(());
        }
        if scan.promised && whose != Some((self.log_id, sequence)) {
            self.note(sequence, 0..SEGMENT_HEADER_BYTES, None, "the segment's header is damaged");
        }
        let mut index = self.take_frames(sequence, &bytes, &scan);
        // Its first sync never returned, and brought the frames without it.
        let is_without = segment.replaced.is_none() && whose != Some((self.log_id, sequence));
        let header = is_without.then(|| self.header_of(segment).encode());
        self.settle(&*file, &bytes, &scan, header).map_err(OpenError::io("cut", &path))?;
        // One of nothing but damage stays for the replay window, for the operator to look at, and counts like the others.
        let newest_ms = scan.frames.iter().map(|found| found.header.ingest_ms).max().unwrap_or(self.now_ms);
        index.is_of(newest_ms);
        // Housekeeping seals it. Until then the next start comes to the same end: the rest was cut for good.
        let (stage, file_bytes) = (Stage::Sealing(Arc::new(index)), u64::from(scan.end));
        self.segments.insert(segment.place(), Segment::new(segment, scan.end, file_bytes, newest_ms, stage));
        Ok(())
    }

    /// Whether the file was recycled and has this segment's name again, as after a sync of the directory that failed: it is
    /// another segment's, and what there is left of this one in it is no longer kept.
    fn was_recycled(&self, whose: Option<(LogId, Sequence)>, sequence: Sequence, scan: &Scan) -> bool {
        let is_gone = |found: &recovery::Found| {
            let row = self.rows.get(found.header.stream.0 as usize);
            row.is_some_and(|row| found.header.offsets().end <= row.first_kept)
        };
        whose.is_some_and(|(log, owner)| log == self.log_id && owner != sequence) && scan.frames.iter().all(is_gone)
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
                    if !mutants::on(Mutant::DamagedOffsetsForgotten) {
                        self.raise(&header);
                    }
                    self.note(sequence, hole.positions.clone(), Some(&header), "the payload's checksum is wrong");
                }
                Some(_) => self.note(sequence, hole.positions.clone(), None, "a stream's name can't be read"),
                None => self.note(sequence, hole.positions.clone(), None, "no frame can be read here"),
            }
        }
        index
    }

    fn raise(&mut self, header: &FrameHeader) {
        self.declare(header.stream, "");
        let row = &mut self.rows[header.stream.0 as usize];
        row.next = row.next.max(header.offsets().end);
        row.bytes = row.bytes.max(header.bytes_before + u64::from(header.payload_len));
    }

    /// Makes a stream known. Without a name (its declaration is damaged) it gets one that says so.
    fn declare(&mut self, stream: StreamId, name: &str) {
        let at = stream.0 as usize;
        while self.rows.len() <= at {
            let name = format!("{NAMELESS}{}", self.rows.len()).into();
            self.rows.push(StreamRow { name, next: 0, bytes: 0, first_kept: 0 });
        }
        let nameless = self.rows[at].name.starts_with(NAMELESS);
        if nameless && !name.is_empty() && name.len() <= STREAM_NAME_BYTES_MAX {
            self.rows[at].name = name.into();
        }
    }

    fn note(&mut self, segment: Sequence, positions: Range<u32>, header: Option<&FrameHeader>, what: &'static str) {
        let stream = header.and_then(|header| self.rows.get(header.stream.0 as usize)).map(|row| row.name.to_string());
        self.damages.push(Damage { segment, positions, stream, offsets: header.map(FrameHeader::offsets), what });
    }

    fn finish(self, next_sequence: Sequence, saved: bool, generation: u64) -> Opened {
        let last = [Class::Main, Class::System].map(|class| last_of(class, &self.segments));
        let newest_ms = self.segments.values().map(|segment| segment.newest_ms).max().unwrap_or(0);
        // Names that were read may not be durable: until they are, who appends says them again.
        let named = if saved { self.rows.len() } else { 0 };
        let mut catalog = Catalog::new(self.rows, named, next_sequence, self.options.tail_cache_bytes);
        catalog.segments = self.segments;
        Opened {
            log_id: self.log_id,
            catalog,
            next_sequence,
            last,
            newest_ms,
            table_generation: generation + u64::from(saved && self.changed),
            table_stale: !saved,
            damages: self.damages,
            tables_refused: 0,
            left_bytes: self.left_bytes,
        }
    }
}

/// Stands before the number of a stream whose name is lost.
pub(crate) const NAMELESS: &str = "!nameless/";
