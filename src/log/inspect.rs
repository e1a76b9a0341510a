//! Looks at a log's directory without opening it: for the operator with a damaged disk. Writes nothing, takes no lock.
//!
//! What it says of a log that is in use may be a moment old; of one at rest it is exact.

use super::file_name::FileName;
use super::frame::{FrameHeader, Identity, Kind};
use super::index::SegmentIndex;
use super::limits::{FRAME_HEADER_BYTES, SEGMENT_HEADER_BYTES};
use super::options::OpenError;
use super::recovery;
use super::segment::{Class, SegmentHeader};
use super::stream_table::StreamTable;
use crate::disk::{Disk, read_all};
use crate::offset::{LogId, Sequence, StreamId};
use std::ops::Range;
use std::path::Path;

/// What a log's directory holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspected {
    /// The log's id, where a stream table can be read.
    pub log_id: Option<LogId>,
    /// Name, next offset and first kept offset of each stream in the table.
    pub streams: Vec<(String, Range<u64>)>,
    /// The segments in order.
    pub segments: Vec<SegmentReport>,
    /// Files that are not ours.
    pub strangers: Vec<String>,
    /// Room taken ahead, in files.
    pub spares: usize,
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
    /// Its header is good.
    pub header: bool,
    /// Frames that can be read.
    pub frames: u64,
    /// Records in them.
    pub records: u64,
    /// Damaged places among what was acknowledged: where, and whose records where that is known.
    pub damage: Vec<DamagedRange>,
}

/// A damaged place, and whose records lay there where that is known.
pub type DamagedRange = (Range<u32>, Option<(StreamId, Range<u64>)>);

/// Reads every segment in `dir`, calling `each` with every record frame: its segment, position, stream, offsets, ingest
/// time and payload.
///
/// # Errors
/// When the directory or a file in it can't be read.
pub fn inspect(
    disk: &dyn Disk,
    dir: &Path,
    mut each: impl FnMut(Sequence, u32, StreamId, Range<u64>, u64, &[u8]),
) -> Result<Inspected, OpenError> {
    let mut names: Vec<String> = disk.list(dir).map_err(OpenError::io("list", dir))?;
    names.sort_unstable();
    let mut seen =
        Inspected { log_id: None, streams: Vec::new(), segments: Vec::new(), strangers: Vec::new(), spares: 0 };
    let mut newest = 0;
    let mut segments = Vec::new();
    for name in names {
        match FileName::parse(&name) {
            Some(FileName::Segment(sequence, class)) => segments.push((sequence, class)),
            Some(FileName::Spare(_)) => seen.spares += 1,
            Some(FileName::Streams(_)) => {
                let bytes = read(disk, &dir.join(name))?;
                if let Ok(table) = StreamTable::decode(&bytes)
                    && table.generation >= newest
                {
                    newest = table.generation;
                    seen.log_id = Some(table.log);
                    seen.streams =
                        table.rows.iter().map(|row| (row.name.to_string(), row.first_kept..row.next)).collect();
                }
            }
            Some(FileName::Index(_)) => {}
            None if name == super::LOCK_FILE => {}
            None => seen.strangers.push(name),
        }
    }
    for (sequence, class) in segments {
        let bytes = read(disk, &dir.join(FileName::Segment(sequence, class).to_string()))?;
        let header = SegmentHeader::decode(&bytes).ok().filter(|header| header.sequence == sequence);
        let log = seen.log_id.or(header.map(|header| header.log)).unwrap_or(LogId(0));
        let index = read(disk, &dir.join(FileName::Index(sequence).to_string())).ok();
        let sealed_end = index.and_then(|bytes| SegmentIndex::decode(&bytes)).map(|index| index.header.end);
        let end = sealed_end.map_or(bytes.len(), |end| (end as usize).min(bytes.len()));
        let scan = recovery::scan(&Identity::new(log, sequence), &bytes[..end], sealed_end.unwrap_or(0));
        let mut records = 0;
        for found in scan.frames.iter().filter(|found| found.header.kind == Kind::Records) {
            let FrameHeader { stream, ingest_ms, payload_len, .. } = found.header;
            let from = (found.position + FRAME_HEADER_BYTES) as usize;
            let payload = &bytes[from..from + payload_len as usize];
            each(sequence, found.position, stream, found.header.offsets(), ingest_ms, payload);
            records += u64::from(found.header.records);
        }
        let named = |header: Option<FrameHeader>| header.map(|header| (header.stream, header.offsets()));
        seen.segments.push(SegmentReport {
            sequence,
            class,
            file_bytes: bytes.len() as u64,
            end: scan.end.max(SEGMENT_HEADER_BYTES),
            sealed: sealed_end.is_some(),
            header: header.is_some(),
            frames: scan.frames.len() as u64,
            records,
            damage: scan.holes.into_iter().map(|hole| (hole.positions, named(hole.named))).collect(),
        });
    }
    Ok(seen)
}

fn read(disk: &dyn Disk, path: &Path) -> Result<Vec<u8>, OpenError> {
    disk.open(path).and_then(|file| read_all(&*file)).map_err(OpenError::io("read", path))
}
