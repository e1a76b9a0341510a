//! What a segment holds, per stream: where its frames lie and which offsets they cover.
//!
//! A sealed segment's index is a file of its own, so that opening a log reads one small header per segment and a cursor
//! reads only its own stream's frames. It can always be made again from the segment. Pure: bytes in, bytes out.

use super::frame::FrameHeader;
use super::limits::STREAMS_MAX;
use super::segment::Class;
use crate::offset::{LogId, Sequence, StreamId};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

const MAGIC: [u8; 8] = *b"forebayI";
const VERSION: u32 = 1;
const RUN_BYTES: usize = 24;
const FRAME_BYTES: usize = 20;

/// Bytes of an index file's header.
pub(crate) const INDEX_HEADER_BYTES: usize = 80;

/// Where one frame lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FrameRef {
    pub(crate) first: u64,
    pub(crate) position: u32,
    pub(crate) payload_len: u32,
    pub(crate) records: u32,
}

/// The frames of one stream in one segment, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Run {
    stream: StreamId,
    name: Arc<str>,
    frames: Range<usize>,
    /// The stream's running total of payload bytes behind its last frame here.
    bytes_after: u64,
}

/// One stream's part of a sealed segment, without its frames.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StreamEnd<'a> {
    pub(crate) stream: StreamId,
    pub(crate) name: &'a Arc<str>,
    /// The offset behind its last frame here.
    pub(crate) next: u64,
    /// Its running total of payload bytes there.
    pub(crate) bytes: u64,
}

/// What a sealed segment holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SegmentIndex {
    pub(crate) header: IndexHeader,
    runs: Vec<Run>,
    frames: Vec<FrameRef>,
}

/// A sealed segment in a few numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct IndexHeader {
    pub(crate) log: LogId,
    pub(crate) sequence: Sequence,
    pub(crate) class: Class,
    /// Where its frames end. What lies behind was never acknowledged.
    pub(crate) end: u32,
    /// A write or sync on the segment's file has failed: the file may still hold bytes behind `end`.
    pub(crate) failed: bool,
    /// Ingest time of the newest frame, milliseconds since 1970.
    pub(crate) newest_ms: u64,
    body_len: u32,
    body_crc: u32,
}

/// The index of a segment that is still written to.
#[derive(Debug, Default)]
pub(crate) struct ActiveIndex {
    by_stream: BTreeMap<StreamId, ActiveRun>,
    frames: usize,
    newest_ms: u64,
}

#[derive(Debug, Default)]
struct ActiveRun {
    frames: Vec<FrameRef>,
    bytes_after: u64,
}

// === impl FrameRef ===

impl FrameRef {
    pub(crate) fn of(position: u32, header: &FrameHeader) -> Self {
        Self { first: header.first, position, payload_len: header.payload_len, records: header.records }
    }

    pub(crate) fn next(&self) -> u64 {
        self.first.saturating_add(u64::from(self.records))
    }
}

/// The first of `frames` that holds `offset` or something behind it.
fn locate(frames: &[FrameRef], offset: u64) -> Option<FrameRef> {
    frames.get(frames.partition_point(|frame| frame.next() <= offset)).copied()
}

// === impl ActiveIndex ===

impl ActiveIndex {
    pub(crate) fn add(&mut self, position: u32, header: &FrameHeader) {
        let run = self.by_stream.entry(header.stream).or_default();
        run.frames.push(FrameRef::of(position, header));
        run.bytes_after = header.bytes_before + u64::from(header.payload_len);
        self.frames += 1;
        self.newest_ms = self.newest_ms.max(header.ingest_ms);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.frames == 0
    }

    /// What it holds beside frames of records is of then.
    pub(crate) fn is_of(&mut self, ms: u64) {
        self.newest_ms = self.newest_ms.max(ms);
    }

    /// Ingest time of its newest frame.
    pub(crate) fn newest_ms(&self) -> u64 {
        self.newest_ms
    }

    /// Each stream, and the offset behind its last frame here.
    pub(crate) fn ends(&self) -> impl Iterator<Item = (StreamId, u64)> {
        self.by_stream.iter().map(|(stream, run)| (*stream, run.frames.last().map_or(0, FrameRef::next)))
    }

    pub(crate) fn locate(&self, stream: StreamId, offset: u64) -> Option<FrameRef> {
        locate(&self.by_stream.get(&stream)?.frames, offset)
    }

    /// The sealed form. `name_of` knows every stream that has frames here.
    pub(crate) fn seal(
        &self,
        log: LogId,
        (sequence, class): (Sequence, Class),
        end: u32,
        failed: bool,
        name_of: impl Fn(StreamId) -> Arc<str>,
    ) -> SegmentIndex {
        let mut runs = Vec::with_capacity(self.by_stream.len());
        let mut frames = Vec::with_capacity(self.frames);
        for (stream, own) in &self.by_stream {
            let from = frames.len();
            frames.extend_from_slice(&own.frames);
            let (name, bytes_after) = (name_of(*stream), own.bytes_after);
            runs.push(Run { stream: *stream, name, frames: from..frames.len(), bytes_after });
        }
        let newest_ms = self.newest_ms;
        let header = IndexHeader { log, sequence, class, end, failed, newest_ms, body_len: 0, body_crc: 0 };
        SegmentIndex { header, runs, frames }
    }
}

// === impl SegmentIndex ===

impl SegmentIndex {
    /// The first frame of `stream` that holds `offset` or something behind it.
    pub(crate) fn locate(&self, stream: StreamId, offset: u64) -> Option<FrameRef> {
        let at = self.runs.binary_search_by_key(&stream, |run| run.stream).ok()?;
        locate(&self.frames[self.runs[at].frames.clone()], offset)
    }

    /// Every frame, by stream.
    pub(crate) fn frames(&self) -> impl Iterator<Item = (StreamId, FrameRef)> {
        self.runs.iter().flat_map(|run| self.frames[run.frames.clone()].iter().map(|frame| (run.stream, *frame)))
    }

    /// Where each stream that has frames here ends.
    pub(crate) fn streams(&self) -> impl Iterator<Item = StreamEnd<'_>> {
        self.runs.iter().map(|run| {
            let last = self.frames[run.frames.clone()].last().expect("a run has a frame");
            StreamEnd { stream: run.stream, name: &run.name, next: last.next(), bytes: run.bytes_after }
        })
    }

    /// Bytes that it takes in memory, roughly.
    pub(crate) fn weight(&self) -> usize {
        self.runs.len() * size_of::<Run>() + self.frames.len() * size_of::<FrameRef>()
    }

    /// The file's bytes.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut body = Vec::new();
        body.extend_from_slice(&(self.runs.len() as u32).to_le_bytes());
        body.extend_from_slice(&(self.frames.len() as u32).to_le_bytes());
        for run in &self.runs {
            body.extend_from_slice(&run.stream.0.to_le_bytes());
            body.extend_from_slice(&(run.frames.start as u32).to_le_bytes());
            body.extend_from_slice(&(run.frames.len() as u32).to_le_bytes());
            body.extend_from_slice(&(run.name.len() as u32).to_le_bytes());
            body.extend_from_slice(&run.bytes_after.to_le_bytes());
        }
        for frame in &self.frames {
            body.extend_from_slice(&frame.first.to_le_bytes());
            body.extend_from_slice(&frame.position.to_le_bytes());
            body.extend_from_slice(&frame.payload_len.to_le_bytes());
            body.extend_from_slice(&frame.records.to_le_bytes());
        }
        for run in &self.runs {
            body.extend_from_slice(run.name.as_bytes());
        }
        let header = IndexHeader { body_len: body.len() as u32, body_crc: crc32fast::hash(&body), ..self.header };
        let mut bytes = header.encode().to_vec();
        bytes.append(&mut body);
        bytes
    }

    /// Reads a whole index file; `None` for anything that is not one, whole and undamaged.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let header = IndexHeader::decode(bytes)?;
        let body = bytes.get(INDEX_HEADER_BYTES..)?.get(..header.body_len as usize)?;
        if crc32fast::hash(body) != header.body_crc {
            return None;
        }
        let mut rest = body;
        let run_count = take_u32(&mut rest)? as usize;
        let frame_count = take_u32(&mut rest)? as usize;
        let run_bytes = take(&mut rest, run_count.checked_mul(RUN_BYTES)?)?;
        let frame_bytes = take(&mut rest, frame_count.checked_mul(FRAME_BYTES)?)?;
        let mut frames = Vec::with_capacity(frame_count);
        for mut b in frame_bytes.chunks_exact(FRAME_BYTES) {
            let first = u64::from_le_bytes(take(&mut b, 8)?.try_into().ok()?);
            let (position, payload_len, records) = (take_u32(&mut b)?, take_u32(&mut b)?, take_u32(&mut b)?);
            frames.push(FrameRef { first, position, payload_len, records });
        }
        let mut runs = Vec::with_capacity(run_count);
        for mut b in run_bytes.chunks_exact(RUN_BYTES) {
            let (stream, from, len) = (take_u32(&mut b)?, take_u32(&mut b)? as usize, take_u32(&mut b)? as usize);
            let name = std::str::from_utf8(take(&mut rest, take_u32(&mut b)? as usize)?).ok()?;
            let bytes_after = u64::from_le_bytes(take(&mut b, 8)?.try_into().ok()?);
            if stream as usize >= STREAMS_MAX || len == 0 || from.checked_add(len)? > frame_count {
                return None;
            }
            runs.push(Run { stream: StreamId(stream), name: name.into(), frames: from..from + len, bytes_after });
        }
        let sorted = runs.is_sorted_by(|a, b| a.stream < b.stream);
        sorted.then_some(Self { header, runs, frames })
    }
}

// === impl IndexHeader ===

impl IndexHeader {
    fn encode(&self) -> [u8; INDEX_HEADER_BYTES] {
        let mut b = [0; INDEX_HEADER_BYTES];
        b[0..8].copy_from_slice(&MAGIC);
        b[8..12].copy_from_slice(&VERSION.to_le_bytes());
        b[12] = match self.class {
            Class::Main => 0,
            Class::System => 1,
        };
        b[13] = u8::from(self.failed);
        b[16..32].copy_from_slice(&self.log.0.to_le_bytes());
        b[32..40].copy_from_slice(&self.sequence.0.to_le_bytes());
        b[40..48].copy_from_slice(&self.newest_ms.to_le_bytes());
        b[48..52].copy_from_slice(&self.end.to_le_bytes());
        b[52..56].copy_from_slice(&self.body_len.to_le_bytes());
        b[56..60].copy_from_slice(&self.body_crc.to_le_bytes());
        let crc = crc32fast::hash(&b[..76]);
        b[76..].copy_from_slice(&crc.to_le_bytes());
        b
    }

    /// Reads the header at the start of an index file; `None` for anything else. An index of a later version is no
    /// index to us: it is made again from its segment, whose own version decides whether we may.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let b = bytes.first_chunk::<INDEX_HEADER_BYTES>()?;
        let u32_at = |at: usize| u32::from_le_bytes(b[at..at + 4].try_into().expect("four bytes"));
        let u64_at = |at: usize| u64::from_le_bytes(b[at..at + 8].try_into().expect("eight bytes"));
        if b[..8] != MAGIC || crc32fast::hash(&b[..76]) != u32_at(76) || u32_at(8) != VERSION {
            return None;
        }
        Some(Self {
            log: LogId(u128::from_le_bytes(b[16..32].try_into().expect("sixteen bytes"))),
            sequence: Sequence(u64_at(32)),
            class: if b[12] == 0 { Class::Main } else { Class::System },
            end: u32_at(48),
            failed: b[13] != 0,
            newest_ms: u64_at(40),
            body_len: u32_at(52),
            body_crc: u32_at(56),
        })
    }
}

fn take<'a>(bytes: &mut &'a [u8], n: usize) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(n)?;
    *bytes = rest;
    Some(taken)
}

fn take_u32(bytes: &mut &[u8]) -> Option<u32> {
    take(bytes, 4)?.try_into().ok().map(u32::from_le_bytes)
}

#[cfg(test)]
mod tests;
