//! Reads one stream in order: from memory what is there, from disk the rest, and never past the durable tail.
//!
//! A reader touches its own stream's frames only. Damage and gaps are items of their own, so that whoever reads must
//! decide about them; nothing is skipped in silence.

mod search;

use self::search::Found;
use super::Shared;
use super::frame::{FrameHeader, Identity};
use super::index::FrameRef;
use crate::disk::read_exact_at;
use crate::log::limits::FRAME_HEADER_BYTES;
use crate::mutants::{self, Mutant};
use crate::offset::{Sequence, StreamId};
use std::fmt;
use std::io;
use std::ops::Range;
use std::sync::Arc;

/// How often a reader looks for a frame that moves while it looks. Segments move once a second at most where they are
/// not tiny.
const LOOKS_MAX: usize = 16;

/// Records as they were appended: one part of an append.
#[derive(Clone, PartialEq, Eq)]
pub struct Frame {
    /// The stream.
    pub stream: StreamId,
    /// Offset of the first record.
    pub first: u64,
    /// How many records it holds.
    pub records: u32,
    /// The stream's running total of payload bytes before this frame.
    pub bytes_before: u64,
    /// When it was committed, in milliseconds since 1970.
    pub ingest_ms: u64,
    pub(crate) payload: Vec<u8>,
}

/// A frame without its payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outline {
    /// Offset of the first record.
    pub first: u64,
    /// How many records it holds.
    pub records: u32,
    /// The stream's running total of payload bytes before this frame.
    pub bytes_before: u64,
    /// Bytes of its payload.
    pub bytes: u32,
    /// When it was committed, in milliseconds since 1970.
    pub ingest_ms: u64,
}

/// What [`Reader::skim`] meets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Skimmed {
    /// Records, whose payload was not looked at.
    Frame(Outline),
    /// Records that can't be had any more, as in [`Item::Lost`].
    Lost {
        /// Which ones.
        offsets: Range<u64>,
        /// What happened to them.
        why: String,
    },
}

/// What a reader meets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// Records.
    Frame(Arc<Frame>),
    /// Records that were acknowledged and can't be had any more.
    Lost {
        /// Which ones.
        offsets: Range<u64>,
        /// What happened to them.
        why: String,
    },
}

/// Why a read failed. Trying again may help; nothing was skipped.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The disk refused to read.
    #[error("can't read stream {stream} at offset {offset}{}", located(place.as_ref()))]
    Io {
        /// The stream's number.
        stream: StreamId,
        /// What was asked for.
        offset: u64,
        /// The segment and the position in its file, where that is known.
        place: Option<(Sequence, u32)>,
        /// What the disk said.
        source: io::Error,
    },
}

fn located(place: Option<&(Sequence, u32)>) -> String {
    place.map_or_else(String::new, |(segment, position)| format!(" (segment {segment}, position {position})"))
}

/// A position in a stream. Cheap to make; holds no file open.
pub struct Reader {
    shared: Arc<Shared>,
    stream: StreamId,
    next: u64,
    /// The segment of the last frame read.
    hint: Option<Sequence>,
}

// === impl Frame ===

impl Frame {
    /// The bytes that were appended.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// The offsets of its records.
    #[must_use]
    pub fn offsets(&self) -> Range<u64> {
        self.first..self.first + u64::from(self.records)
    }

    /// The stream's running total of payload bytes before `offset`, which lies in this frame or at its end. The log doesn't
    /// know where one record ends and the next begins, so bytes within a frame are shared out evenly; sums are exact.
    #[must_use]
    pub fn bytes_at(&self, offset: u64) -> u64 {
        self.outline().bytes_at(offset)
    }

    /// All but the payload.
    #[must_use]
    pub fn outline(&self) -> Outline {
        let Self { first, records, bytes_before, ingest_ms, .. } = *self;
        let bytes = u32::try_from(self.payload.len()).expect("a frame's header has 32 bits for its length");
        Outline { first, records, bytes_before, bytes, ingest_ms }
    }

    /// Bytes that it takes in memory, roughly.
    pub(crate) fn weight(&self) -> usize {
        self.payload.len() + size_of::<Self>() + 32
    }
}

impl Outline {
    /// The offsets of its records.
    #[must_use]
    pub fn offsets(&self) -> Range<u64> {
        self.first..self.first + u64::from(self.records)
    }

    /// The stream's running total of payload bytes before `offset`; see [`Frame::bytes_at`].
    #[must_use]
    pub fn bytes_at(&self, offset: u64) -> u64 {
        let within = offset.clamp(self.first, self.offsets().end) - self.first;
        let share = u128::from(self.bytes) * u128::from(within) / u128::from(self.records.max(1));
        self.bytes_before + u64::try_from(share).expect("at most the payload's length")
    }
}

/// Without the records: they are somebody's, and many.
impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (stream, outline) = (self.stream, self.outline());
        f.debug_struct("Frame").field("stream", &stream).field("outline", &outline).finish_non_exhaustive()
    }
}

// === impl Reader ===

impl Reader {
    pub(crate) fn new(shared: Arc<Shared>, stream: StreamId, from: u64) -> Self {
        Self { shared, stream, next: from, hint: None }
    }

    /// The offset of the next record.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.next
    }

    /// Goes on at `offset`.
    pub fn seek(&mut self, offset: u64) {
        if offset < self.next {
            self.hint = None;
        }
        self.next = offset;
    }

    /// Whether the next item needs no disk.
    #[must_use]
    pub fn in_memory(&self) -> bool {
        let catalog = self.shared.catalog_read();
        let durable = catalog.stream(self.stream).map_or(0, |stream| stream.row.next);
        self.next >= durable || catalog.tail.get(self.stream, self.next).is_some()
    }

    /// The next item, or `None` at the durable tail. A first frame may start before the position asked for.
    ///
    /// # Errors
    /// When the disk can't be read. The position stays.
    #[expect(
        clippy::should_implement_trait,
        reason = "the usual name; the result is no iterator's, since the tail moves"
    )]
    pub fn next(&mut self) -> Result<Option<Item>, ReadError> {
        Ok(self.step(Depth::Payload)?.map(|met| match met {
            Met::Read(Read::Frame(frame)) => Item::Frame(frame),
            Met::Read(Read::Header(_)) => unreachable!("the payload was asked for"),
            Met::Lost { offsets, why } => Item::Lost { offsets, why },
        }))
    }

    /// Like [`next`](Self::next), but reads only the headers of frames: cheap, and blind to damage in payloads.
    ///
    /// # Errors
    /// When the disk can't be read. The position stays.
    pub fn skim(&mut self) -> Result<Option<Skimmed>, ReadError> {
        Ok(self.step(Depth::Header)?.map(|met| match met {
            Met::Read(read) => Skimmed::Frame(read.outline()),
            Met::Lost { offsets, why } => Skimmed::Lost { offsets, why },
        }))
    }

    fn step(&mut self, depth: Depth) -> Result<Option<Met>, ReadError> {
        let (durable, first_kept) = {
            let catalog = self.shared.catalog_read();
            let Some(stream) = catalog.stream(self.stream) else { return Ok(None) };
            if self.next >= stream.row.next {
                return Ok(None);
            }
            if let Some(frame) = catalog.tail.get(self.stream, self.next) {
                self.next = frame.offsets().end;
                self.hint = None; // whoever was served from memory is near the newest segment
                return Ok(Some(Met::Read(Read::Frame(frame))));
            }
            (stream.row.next, stream.row.first_kept)
        };
        if self.next < first_kept {
            return Ok(Some(self.lost(first_kept, "no longer kept")));
        }
        let read = self.step_on_disk(durable, depth);
        if let Err(error) = &read {
            self.shared.read_trouble.note(self.shared.clock.monotonic(), error);
        }
        read
    }

    fn step_on_disk(&mut self, durable: u64, depth: Depth) -> Result<Option<Met>, ReadError> {
        let (stream, offset) = (self.stream, self.next);
        let failed = |place, source| ReadError::Io { stream, offset, place, source };
        // A segment may be recycled between finding a frame in it and reading it: look again, then.
        for _ in 0..LOOKS_MAX {
            let moves = self.shared.catalog_read().moves;
            let found = self.find();
            let holds_it = matches!(&found, Ok(Some(found)) if found.frame.first <= self.next);
            if !holds_it && self.shared.catalog_read().moves != moves {
                self.hint = None; // it may have moved past the search, or its index was emptied in the midst of it
                continue;
            }
            let found = found.map_err(|e| failed(None, e))?;
            let Some(Found { place, sequence, frame }) = found else {
                return Ok(Some(self.lost(durable, "its frames are missing")));
            };
            if !holds_it {
                return Ok(Some(self.lost(frame.first.min(durable), "its frames are damaged or missing")));
            }
            let loaded = self.load((place, sequence), frame, depth);
            match loaded.map_err(|e| failed(Some((sequence, frame.position)), e))? {
                Loaded::Read(read) => {
                    self.next = read.outline().offsets().end;
                    self.hint = Some(place);
                    return Ok(Some(Met::Read(read)));
                }
                Loaded::Damaged if mutants::on(Mutant::DamageSkipped) => {
                    self.next = frame.next();
                    return self.step(depth);
                }
                Loaded::Damaged => {
                    let why = format!("damaged on disk: segment {sequence}, position {}", frame.position);
                    self.shared.note_damage(sequence, frame.position, Some((self.stream, frame.first..frame.next())));
                    return Ok(Some(self.lost(frame.next(), &why)));
                }
                Loaded::Gone => self.hint = None,
            }
        }
        Err(failed(None, io::Error::other("segments are reclaimed faster than they are read")))
    }

    fn lost(&mut self, to: u64, why: &str) -> Met {
        let offsets = self.next..to;
        self.next = to;
        Met::Lost { offsets, why: why.to_owned() }
    }

    fn load(&self, (place, sequence): (Sequence, Sequence), frame: FrameRef, depth: Depth) -> io::Result<Loaded> {
        if let Some(kept) = self.shared.read_cache.get(self.stream, frame.first) {
            return Ok(Loaded::Read(Read::Frame(kept)));
        }
        let at_place = self.shared.catalog_read().segments.get(&place).map(|segment| segment.file);
        let Some(segment) = at_place.filter(|file| file.sequence == sequence) else { return Ok(Loaded::Gone) };
        let Some(file) = self.shared.files.segment(segment)? else { return Ok(Loaded::Gone) };
        let payload_len = if depth == Depth::Payload { frame.payload_len as usize } else { 0 };
        let mut bytes = vec![0; FRAME_HEADER_BYTES as usize + payload_len];
        let read = read_exact_at(&*file, &mut bytes, u64::from(frame.position));
        if !self.shared.is_in_place(segment) {
            return Ok(Loaded::Gone);
        }
        match read {
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(Loaded::Damaged),
            other => other?,
        }
        let identity = Identity::new(self.shared.log_id, sequence);
        let header = match depth {
            Depth::Header => FrameHeader::decode(&identity, frame.position, &bytes),
            Depth::Payload => FrameHeader::decode_whole(&identity, frame.position, &bytes).map(|(header, _)| header),
        };
        let header = match header {
            Ok(header) if header.stream == self.stream && header.first == frame.first => header,
            _ => return Ok(Loaded::Damaged),
        };
        let FrameHeader { first, records, bytes_before, payload_len, ingest_ms, .. } = header;
        if depth == Depth::Header {
            let outline = Outline { first, records, bytes_before, bytes: payload_len, ingest_ms };
            return Ok(Loaded::Read(Read::Header(outline)));
        }
        bytes.drain(..FRAME_HEADER_BYTES as usize);
        let loaded = Arc::new(Frame::of(&header, bytes));
        self.shared.read_cache.put(&loaded);
        Ok(Loaded::Read(Read::Frame(loaded)))
    }
}

/// How much of a frame is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Depth {
    Header,
    Payload,
}

/// What is at a position.
enum Met {
    Read(Read),
    Lost { offsets: Range<u64>, why: String },
}

/// A frame as far as it was read.
enum Read {
    Frame(Arc<Frame>),
    Header(Outline),
}

impl Read {
    fn outline(&self) -> Outline {
        match self {
            Self::Frame(frame) => frame.outline(),
            Self::Header(outline) => *outline,
        }
    }
}

enum Loaded {
    Read(Read),
    Damaged,
    /// The segment was reclaimed meanwhile.
    Gone,
}

impl Frame {
    pub(crate) fn of(header: &FrameHeader, payload: Vec<u8>) -> Self {
        let FrameHeader { stream, first, records, bytes_before, ingest_ms, .. } = *header;
        Self { stream, first, records, bytes_before, ingest_ms, payload }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_where_it_was_met_as_far_as_that_is_known() {
        let error = |place| {
            ReadError::Io { stream: StreamId(3), offset: 70, place, source: io::Error::other("worn out") }.to_string()
        };
        let place = Some((Sequence(5), 4_096));
        assert_eq!(error(place), "can't read stream 3 at offset 70 (segment 5, position 4096)");
        assert_eq!(error(None), "can't read stream 3 at offset 70");
    }
}
