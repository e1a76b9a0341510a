//! What the fuzzers of the log call: everything that decodes its bytes from disk, with what must hold whatever the bytes are.
//!
//! Behind the feature `fuzzing` and no part of the API. Random bytes never meet a checksum, so each function can first
//! put the checksums right: then the decoders see fields that no writer would write. The corpora in `fuzz/corpus/` are
//! replayed by a plain test in `storage-tests/`.

use super::compact::CompactHeader;
use super::frame::{FrameHeader, Identity, Kind};
use super::index::{INDEX_HEADER_BYTES, SegmentIndex};
use super::limits::{FRAME_ALIGN, FRAME_HEADER_BYTES, SEGMENT_HEADER_BYTES};
use super::recovery::{self, Scan};
use super::segment::SegmentHeader;
use super::stream_table::StreamTable;
use crate::offset::{LogId, Sequence, StreamId};

/// The log of the golden files, so that real frames are seeds.
const LOG: LogId = LogId(0x0f0e_0d0c_0b0a_0908_0706_0504_0302_0100);

/// `data`: a position (4 bytes), then bytes that may be a frame. A frame that is accepted is written back as it was, and
/// the same bytes taken for fields make a frame that is read as it was written.
pub fn frame(data: &[u8]) {
    let Some((position, bytes)) = data.split_first_chunk::<4>() else { return };
    let position = u32::from_le_bytes(*position) / FRAME_ALIGN * FRAME_ALIGN;
    let identity = Identity::new(LOG, Sequence(0));
    if let Ok((header, payload)) = FrameHeader::decode_whole(&identity, position, bytes) {
        assert_eq!(payload.len(), header.payload_len as usize);
        assert!(header.stored_len() > header.payload_len);
        let again = header.encode(&identity, position);
        assert_eq!(FrameHeader::decode(&identity, position, &again), Ok(header));
    }
    let Some((header, payload)) = frame_of_fields(bytes, position) else { return };
    let mut written = header.encode(&identity, position).to_vec();
    written.extend_from_slice(payload);
    if let Ok((read, read_payload)) = FrameHeader::decode_whole(&identity, position, &written) {
        assert_eq!((read, read_payload), (header, payload));
        assert!(read.offsets().end >= read.first, "decode refuses what overflows");
    }
}

/// `data`: what others know to be synced (4 bytes), a place (4) and what to flip there (1), whether to put checksums
/// right (1, lowest bit), then a segment without its header.
pub fn recovery(data: &[u8]) {
    let Some((head, body)) = data.split_first_chunk::<10>() else { return };
    let known = u32::from_le_bytes(head[..4].try_into().expect("four bytes"));
    let damage_at = u32::from_le_bytes(head[4..8].try_into().expect("four bytes")) as usize;
    let mut bytes = vec![0; SEGMENT_HEADER_BYTES as usize];
    bytes.extend_from_slice(body);
    let identity = Identity::new(LOG, Sequence(0));
    if head[9] & 1 == 1 {
        repair_frames(&identity, &mut bytes);
    }
    if let Some(byte) = bytes.get_mut(damage_at) {
        *byte ^= head[8];
    }
    let scan = recovery::scan(&identity, &bytes, known);
    check_scan(&identity, &bytes, known, &scan);
}

/// `data`: what it is (1 byte modulo 3) and whether to put checksums right (its highest bit), then the file.
pub fn tables(data: &[u8]) {
    let Some((what, file)) = data.split_first() else { return };
    let (mut file, repair) = (file.to_vec(), what & 0x80 != 0);
    match (what & 0x7f) % 3 {
        0 => {
            if repair && file.len() >= INDEX_HEADER_BYTES {
                repair_index(&mut file);
            }
            check_index(&file);
        }
        1 => {
            if repair && file.len() >= 64 {
                repair_table(&mut file);
            }
            if let Ok(table) = StreamTable::decode(&file) {
                assert_eq!(StreamTable::decode(&table.encode()), Ok(table));
            }
        }
        _ => {
            if repair && file.len() >= SEGMENT_HEADER_BYTES as usize {
                file[..12].copy_from_slice(b"forebayS\x01\0\0\0");
                put_crc(&mut file, 0..124, 124);
            }
            if let Ok(header) = SegmentHeader::decode(&file) {
                assert_eq!(SegmentHeader::decode(&header.encode()), Ok(header));
            }
            if repair && file.len() >= SEGMENT_HEADER_BYTES as usize {
                file[..12].copy_from_slice(b"forebayC\x01\0\0\0");
                put_crc(&mut file, 0..124, 124);
            }
            if let Ok(header) = CompactHeader::decode(&file) {
                assert_eq!(CompactHeader::decode(&header.encode()), Ok(header));
            }
        }
    }
}

fn check_scan(identity: &Identity, bytes: &[u8], known: u32, scan: &Scan) {
    // A file that is no whole header yet is none.
    let file_end = (bytes.len() as u32).max(SEGMENT_HEADER_BYTES);
    assert!(scan.synced <= scan.end && scan.end <= file_end, "nothing is kept that is not there: {scan:?}");
    // Where others know of more than the file has, what is missing is a hole behind its end.
    let in_file = |hole: &&recovery::Hole| (hole.positions.start as usize) < bytes.len();
    let mut pieces: Vec<_> = scan.holes.iter().filter(in_file).map(|hole| hole.positions.clone()).collect();
    for hole in scan.holes.iter().filter(in_file) {
        assert!(hole.positions.start < hole.positions.end && hole.positions.end <= scan.synced, "{hole:?}");
    }
    for found in &scan.frames {
        let at = found.position;
        let read = FrameHeader::decode_whole(identity, at, &bytes[at as usize..]);
        assert_eq!(read.map(|(header, _)| header), Ok(found.header), "a frame that is kept is whole");
        pieces.push(at..at + found.header.stored_len());
    }
    pieces.sort_unstable_by_key(|piece| piece.start);
    let mut at = SEGMENT_HEADER_BYTES;
    for piece in &pieces {
        assert_eq!(piece.start, at, "kept frames and named damage lie end to end: nothing is skipped in silence");
        at = piece.end;
    }
    assert!(scan.newer.is_some() || at >= scan.synced, "all that was acknowledged is accounted for");
    let unsynced: Vec<_> = scan.frames.iter().filter(|found| found.position >= scan.synced).collect();
    let starts_whole = unsynced.first().is_none_or(|first| first.header.group_first);
    assert!(starts_whole && unsynced.last().is_none_or(|last| last.header.group_last), "appends are whole");
    // A mark that lies inside of a frame is nobody's: the writer's are where frames end.
    let true_mark = |hole: &recovery::Hole| {
        hole.named.is_none_or(|header| hole.positions.start.saturating_add(header.stored_len()) <= scan.end)
    };
    if scan.newer.is_none() && at == scan.end && scan.holes.iter().all(true_mark) {
        // The last frame's padding may be missing.
        let kept = &bytes[..(scan.end as usize).min(bytes.len())];
        let again = recovery::scan(identity, kept, known.max(kept.len() as u32));
        let same = (&again.frames, &again.holes, again.end.next_multiple_of(FRAME_ALIGN));
        assert_eq!(same, (&scan.frames, &scan.holes, scan.end.next_multiple_of(FRAME_ALIGN)), "a second start agrees");
    }
}

fn check_index(file: &[u8]) {
    let Some(index) = SegmentIndex::decode(file) else { return };
    let written = index.encode();
    let again = SegmentIndex::decode(&written).expect("what is written is read");
    assert_eq!(again.encode(), written);
    for end in index.streams() {
        let _ = index.locate(end.stream, 0);
        assert_eq!(index.locate(end.stream, u64::MAX), None, "nothing lies behind the last offset there is");
    }
}

/// Takes bytes for the fields of a header that can be written, and what follows for the payload.
fn frame_of_fields(bytes: &[u8], position: u32) -> Option<(FrameHeader, &[u8])> {
    let (fields, rest) = bytes.split_first_chunk::<{ FRAME_HEADER_BYTES as usize }>()?;
    let u32_at = |at: usize| u32::from_le_bytes(fields[at..at + 4].try_into().expect("four bytes"));
    let u64_at = |at: usize| u64::from_le_bytes(fields[at..at + 8].try_into().expect("eight bytes"));
    let payload = &rest[..rest.len().min(u32_at(8) as usize)];
    let header = FrameHeader {
        kind: if fields[13] == 2 { Kind::Declaration } else { Kind::Records },
        stream: StreamId(u32_at(16)),
        first: u64_at(24),
        records: u32_at(20),
        bytes_before: u64_at(32),
        ingest_ms: u64_at(40),
        synced: u32_at(48).min(position),
        group_first: fields[14] & 1 != 0,
        group_last: fields[14] & 2 != 0,
        payload_len: payload.len() as u32,
        payload_crc: crc32fast::hash(payload),
    };
    Some((header, payload))
}

/// Makes frames of the bytes, one behind the other.
fn repair_frames(identity: &Identity, bytes: &mut [u8]) {
    let mut position = SEGMENT_HEADER_BYTES;
    while let Some((header, _)) = bytes.get(position as usize..).and_then(|bytes| frame_of_fields(bytes, position)) {
        let at = position as usize;
        bytes[at..at + FRAME_HEADER_BYTES as usize].copy_from_slice(&header.encode(identity, position));
        position += header.stored_len();
    }
}

fn repair_index(file: &mut [u8]) {
    let body_len = (file.len() - INDEX_HEADER_BYTES) as u32;
    file[..12].copy_from_slice(b"forebayI\x01\0\0\0");
    file[52..56].copy_from_slice(&body_len.to_le_bytes());
    put_crc(file, INDEX_HEADER_BYTES..file.len(), 56);
    put_crc(file, 0..76, 76);
}

fn repair_table(file: &mut [u8]) {
    file[..12].copy_from_slice(b"forebayT\x01\0\0\0");
    let rows = u32::from_le_bytes(file[56..60].try_into().expect("four bytes"));
    let mut end = 64;
    for _ in 0..rows {
        let Some(name_len) = file.get(end + 24) else { break };
        end += 25 + usize::from(*name_len);
    }
    put_crc(file, 64..end.min(file.len()), 12);
    put_crc(file, 0..60, 60);
}

fn put_crc(bytes: &mut [u8], covered: std::ops::Range<usize>, at: usize) {
    let crc = crc32fast::hash(&bytes[covered]);
    bytes[at..at + 4].copy_from_slice(&crc.to_le_bytes());
}
