//! Decides, from the bytes of an unsealed segment, what was acknowledged, what is damaged, and where to cut.
//!
//! Pure: bytes in, verdict out. The rule (docs/durability.md has the proof by cases): every frame names the position up
//! to which the segment was synced when it was written. Let S be the greatest of these, of what the floor recorded, and
//! of what the next segment's header says, or all of a segment that was sealed. Below S everything was acknowledged, so
//! a broken frame there is *damage*: it is named and what follows is read. At or above S nothing was ever acknowledged
//! behind the first broken frame, and all of it is cut, valid-looking or not, because in a torn group any sector may
//! have landed.

use super::frame::{FrameHeader, Identity, NotAFrame};
use super::limits::{FRAME_ALIGN, FRAME_HEADER_BYTES, SEGMENT_HEADER_BYTES};
use crate::mutants::{self, Mutant};
use std::ops::Range;

/// What a segment's bytes say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Scan {
    /// The frames to keep, in the order of their positions.
    pub(crate) frames: Vec<Found>,
    /// Where the kept part ends: everything behind is cut.
    pub(crate) end: u32,
    /// Everything below was synced before the crash.
    pub(crate) synced: u32,
    /// The first sync had returned, by what frames or others say of it: before that nothing was promised, a whole header neither.
    pub(crate) promised: bool,
    /// Broken places below `synced`: acknowledged data that is damaged.
    pub(crate) holes: Vec<Hole>,
    /// A frame of a version from the future stands here.
    pub(crate) newer: Option<u8>,
}

/// A frame and its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) position: u32,
    pub(crate) header: FrameHeader,
}

impl Found {
    /// The zeros that fill it up to where the next frame may start. No checksum covers them.
    pub(crate) fn padding(&self) -> Range<u32> {
        let end = self.position.saturating_add(self.header.stored_len());
        (self.position + FRAME_HEADER_BYTES).saturating_add(self.header.payload_len).min(end)..end
    }
}

/// Damaged bytes of acknowledged frames.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hole {
    pub(crate) positions: Range<u32>,
    /// The frame's header, when only its payload is damaged: says exactly what is lost.
    pub(crate) named: Option<FrameHeader>,
}

/// Reads a segment that was not sealed. `bytes` is the whole file (header included), up to the successor's cut where
/// there is one; `known_synced` is what other sources say was synced (0 for nothing).
pub(crate) fn scan(identity: &Identity, bytes: &[u8], known_synced: u32) -> Scan {
    scan_of(false, identity, bytes, known_synced)
}

/// The same of a segment that was `sealed` once, where nobody can say any more how far it goes: all of it was synced, so up to its
/// last frame whose header is good what is broken is damage.
pub(crate) fn scan_of(sealed: bool, identity: &Identity, bytes: &[u8], known_synced: u32) -> Scan {
    let seen = walk(identity, bytes);
    let file_end = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    let believed = |_: &&FrameHeader| !mutants::on(Mutant::SyncedMarkNotBelieved);
    let named =
        seen.pieces.iter().filter_map(Piece::header).filter(believed).map(|header| header.synced).max().unwrap_or(0);
    let has_header = |piece: &&Piece| sealed && piece.header().is_some();
    let sealed_end = seen.pieces.iter().rfind(has_header).map_or(0, |piece| piece.positions().end);
    let at_most = file_end.max(SEGMENT_HEADER_BYTES);
    let promised = named.max(known_synced).min(at_most) > SEGMENT_HEADER_BYTES;
    let synced = named.max(known_synced).max(sealed_end).max(SEGMENT_HEADER_BYTES).min(at_most);
    let mut scan = Scan { frames: Vec::new(), end: synced, synced, promised, holes: Vec::new(), newer: seen.newer };
    let mut group: Vec<Found> = Vec::new(); // an append above S whose last frame has not been seen yet
    let mut whole = true; // nothing at or above S was broken so far
    for piece in seen.pieces {
        let Range { start, end } = piece.positions();
        if start < synced {
            match piece {
                Piece::Frame(found) => {
                    scan.frames.push(found);
                    // A whole frame is never cut, whoever says where the sync ended. A file may end within the last padding.
                    scan.end = scan.end.max(end.min(file_end));
                }
                Piece::Broken { named, .. } => {
                    scan.holes.push(Hole { positions: start..end.min(synced), named });
                    whole &= end <= synced;
                }
            }
            continue;
        }
        // Pieces lie behind one another: one that is whole starts where the one before has ended.
        match piece {
            Piece::Frame(found) if whole && found.header.group_first == group.is_empty() => {
                group.push(found);
                if found.header.group_last || mutants::on(Mutant::HalfAGroupKept) {
                    scan.end = end.min(file_end);
                    scan.frames.append(&mut group);
                }
            }
            _ => whole = mutants::on(Mutant::FramesBehindABreakTaken),
        }
        if !whole {
            break;
        }
    }
    if known_synced > at_most {
        // The file is shorter than what was synced of it.
        scan.holes.push(Hole { positions: at_most..known_synced, named: None });
    }
    scan
}

/// A stretch of a segment: a good frame, or bytes that are none.
#[derive(Debug)]
enum Piece {
    Frame(Found),
    Broken { positions: Range<u32>, named: Option<FrameHeader> },
}

struct Walk {
    pieces: Vec<Piece>,
    newer: Option<u8>,
}

/// Everything in the file, frame by frame, with the broken stretches between them.
fn walk(identity: &Identity, bytes: &[u8]) -> Walk {
    let file_end = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    let mut walk = Walk { pieces: Vec::new(), newer: None };
    let mut position = SEGMENT_HEADER_BYTES;
    while position < file_end {
        match FrameHeader::decode_whole(identity, position, &bytes[position as usize..]) {
            Ok((header, _)) => {
                walk.pieces.push(Piece::Frame(Found { position, header }));
                position = position.saturating_add(header.stored_len());
            }
            Err(NotAFrame::Payload(header)) => {
                let end = position.saturating_add(header.stored_len()).min(file_end);
                // The length is the header's word, and the header is good: but a frame that starts inside wins, since
                // a payload can be cut short by what was written over it.
                let end = next_header(identity, bytes, position + FRAME_ALIGN, end).unwrap_or(end);
                walk.pieces.push(Piece::Broken { positions: position..end, named: Some(header) });
                position = end;
            }
            Err(NotAFrame::Version(version)) => {
                walk.newer = Some(version);
                break;
            }
            Err(NotAFrame::Header) => {
                let end = next_header(identity, bytes, position + FRAME_ALIGN, file_end).unwrap_or(file_end);
                walk.pieces.push(Piece::Broken { positions: position..end, named: None });
                position = end;
            }
        }
    }
    walk
}

/// Where the header of a frame of this segment stands, whatever stands around it.
pub(crate) fn headers(identity: &Identity, bytes: &[u8]) -> Vec<u32> {
    let file_end = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    let from = |from| next_header(identity, bytes, from, file_end);
    std::iter::successors(from(SEGMENT_HEADER_BYTES), |at| from(at + FRAME_ALIGN)).collect()
}

/// The first position in `from..to` at which a good header of this segment stands.
fn next_header(identity: &Identity, bytes: &[u8], from: u32, to: u32) -> Option<u32> {
    (from..to)
        .step_by(FRAME_ALIGN as usize)
        .find(|&at| !matches!(FrameHeader::decode(identity, at, &bytes[at as usize..]), Err(NotAFrame::Header)))
}

// === impl Piece ===

impl Piece {
    fn positions(&self) -> Range<u32> {
        match self {
            Self::Frame(found) => found.position..found.position.saturating_add(found.header.stored_len()),
            Self::Broken { positions, .. } => positions.clone(),
        }
    }

    fn header(&self) -> Option<&FrameHeader> {
        match self {
            Self::Frame(found) => Some(&found.header),
            Self::Broken { named, .. } => named.as_ref(),
        }
    }
}

#[cfg(test)]
mod tests;
