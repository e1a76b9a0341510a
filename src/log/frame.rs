//! Turns records into frames and back. Reads and writes nothing; positions are the caller's affair.
//!
//! A frame is one part of an append: a header of 56 bytes and an opaque payload, drawn byte by byte in docs/format.md.
//! The header's checksum covers the log's id, the segment's number and the frame's own position besides the header, so
//! that a stale frame in a recycled file, a frame at the wrong place, and bytes in a payload that look like a frame can
//! never pass for a live one. Header and payload have a checksum each: when only the payload is damaged, the header
//! still says exactly which records were lost.

use super::limits::{FRAME_ALIGN, FRAME_HEADER_BYTES, STREAMS_MAX};
use crate::mutants::{self, Mutant};
use crate::offset::{LogId, Sequence, StreamId};
use std::ops::Range;

/// The version of frames written today.
const VERSION: u8 = 1;

const FLAG_FIRST: u8 = 1;
const FLAG_LAST: u8 = 2;

/// What a frame holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Records of a stream.
    Records,
    /// A stream's name: the payload. Written before the stream's first records; holds none itself.
    Declaration,
}

/// Everything about a frame but its payload and its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FrameHeader {
    pub(crate) kind: Kind,
    pub(crate) stream: StreamId,
    /// Offset of the first record; also the stream's running total of records before this frame.
    pub(crate) first: u64,
    pub(crate) records: u32,
    /// The stream's running total of payload bytes before this frame.
    pub(crate) bytes_before: u64,
    /// Milliseconds since 1970 when it was committed; never less than an earlier frame's of its stream.
    pub(crate) ingest_ms: u64,
    /// Everything in the segment below this position was synced when the frame was written.
    pub(crate) synced: u32,
    /// The first frame of its append.
    pub(crate) group_first: bool,
    /// The last frame of its append. Recovery keeps an append whole or drops it whole.
    pub(crate) group_last: bool,
    pub(crate) payload_len: u32,
    pub(crate) payload_crc: u32,
}

/// Whose frames these are: part of every header's checksum.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    state: crc32fast::Hasher,
}

/// Why bytes are not a frame of this place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NotAFrame {
    /// Too few bytes, a wrong checksum, or another frame's place: nothing is known.
    Header,
    /// The header is good and its payload isn't: these records are damaged.
    Payload(FrameHeader),
    /// A good header of a version that this program doesn't know.
    Version(u8),
}

// === impl FrameHeader ===

impl FrameHeader {
    /// The offsets of its records.
    pub(crate) fn offsets(&self) -> Range<u64> {
        self.first..self.first + u64::from(self.records)
    }

    /// Bytes from its start to where the next frame may start.
    pub(crate) fn stored_len(&self) -> u32 {
        stored_len(self.payload_len)
    }

    /// The header's bytes for this `position`.
    pub(crate) fn encode(&self, identity: &Identity, position: u32) -> [u8; FRAME_HEADER_BYTES as usize] {
        assert!(position.is_multiple_of(FRAME_ALIGN), "frames are aligned");
        assert!(self.synced <= position, "what is synced lies before what is written");
        let mut b = [0; FRAME_HEADER_BYTES as usize];
        b[4..8].copy_from_slice(&self.payload_crc.to_le_bytes());
        b[8..12].copy_from_slice(&self.payload_len.to_le_bytes());
        b[12] = VERSION;
        b[13] = match self.kind {
            Kind::Records => 1,
            Kind::Declaration => 2,
        };
        b[14] = if self.group_first { FLAG_FIRST } else { 0 } | if self.group_last { FLAG_LAST } else { 0 };
        b[15] = 0; // codec: the payload is stored as it was given
        b[16..20].copy_from_slice(&self.stream.0.to_le_bytes());
        b[20..24].copy_from_slice(&self.records.to_le_bytes());
        b[24..32].copy_from_slice(&self.first.to_le_bytes());
        b[32..40].copy_from_slice(&self.bytes_before.to_le_bytes());
        b[40..48].copy_from_slice(&self.ingest_ms.to_le_bytes());
        b[48..52].copy_from_slice(&self.synced.to_le_bytes());
        let crc = identity.header_crc(position, &b[4..]);
        b[0..4].copy_from_slice(&crc.to_le_bytes());
        b
    }

    /// Reads the header that stands at `position`. `bytes` start there.
    pub(crate) fn decode(identity: &Identity, position: u32, bytes: &[u8]) -> Result<Self, NotAFrame> {
        let Some(b) = bytes.first_chunk::<{ FRAME_HEADER_BYTES as usize }>() else { return Err(NotAFrame::Header) };
        // The cheap refusal first: a search behind damage looks at every eighth byte of a segment.
        if b[12] == 0 || identity.header_crc(position, &b[4..]) != u32_at(b, 0) {
            return Err(NotAFrame::Header);
        }
        if b[12] != VERSION {
            return Err(NotAFrame::Version(b[12]));
        }
        let kind = match b[13] {
            1 => Kind::Records,
            2 => Kind::Declaration,
            _ => return Err(NotAFrame::Header),
        };
        let header = Self {
            kind,
            stream: StreamId(u32_at(b, 16)),
            first: u64_at(b, 24),
            records: u32_at(b, 20),
            bytes_before: u64_at(b, 32),
            ingest_ms: u64_at(b, 40),
            synced: u32_at(b, 48),
            group_first: b[14] & FLAG_FIRST != 0,
            group_last: b[14] & FLAG_LAST != 0,
            payload_len: u32_at(b, 8),
            payload_crc: u32_at(b, 4),
        };
        // A checksum is no proof against a header that some other program made: keep later sums from overflowing, and the table
        // of streams from growing to whatever number it names.
        let sane = header.synced <= position
            && (header.stream.0 as usize) < STREAMS_MAX
            && header.first.checked_add(u64::from(header.records)).is_some()
            && header.bytes_before.checked_add(u64::from(header.payload_len)).is_some();
        if sane { Ok(header) } else { Err(NotAFrame::Header) }
    }

    /// Reads the frame that stands at `position` and checks its payload, which begins behind the header in `bytes`.
    pub(crate) fn decode_whole<'a>(
        identity: &Identity,
        position: u32,
        bytes: &'a [u8],
    ) -> Result<(Self, &'a [u8]), NotAFrame> {
        let header = Self::decode(identity, position, bytes)?;
        let payload = bytes[FRAME_HEADER_BYTES as usize..].get(..header.payload_len as usize);
        match payload {
            Some(payload)
                if crc32fast::hash(payload) == header.payload_crc || mutants::on(Mutant::PayloadNotChecked) =>
            {
                Ok((header, payload))
            }
            _ => Err(NotAFrame::Payload(header)),
        }
    }
}

// === impl Identity ===

impl Identity {
    pub(crate) fn new(log: LogId, sequence: Sequence) -> Self {
        let mut state = crc32fast::Hasher::new();
        state.update(&log.0.to_le_bytes());
        state.update(&sequence.0.to_le_bytes());
        Self { state }
    }

    fn header_crc(&self, position: u32, header: &[u8]) -> u32 {
        let mut state = self.state.clone();
        state.update(&if mutants::on(Mutant::FrameOfAnyPlaceTaken) { [0; 4] } else { position.to_le_bytes() });
        state.update(header);
        state.finalize()
    }
}

/// Bytes that a frame with this payload takes in a segment.
pub(crate) fn stored_len(payload_len: u32) -> u32 {
    FRAME_HEADER_BYTES.saturating_add(payload_len).checked_next_multiple_of(FRAME_ALIGN).unwrap_or(u32::MAX)
}

fn u32_at(b: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(b[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(b: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(b[at..at + 8].try_into().expect("eight bytes"))
}

#[cfg(test)]
impl FrameHeader {
    /// One record of a stream, with no payload and nothing known of what was synced.
    pub(crate) fn sample(stream: u32, first: u64) -> Self {
        Self {
            kind: Kind::Records,
            stream: StreamId(stream),
            first,
            records: 1,
            bytes_before: 0,
            ingest_ms: 0,
            synced: 0,
            group_first: true,
            group_last: true,
            payload_len: 0,
            payload_crc: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn identity() -> Identity {
        Identity::new(LogId(7), Sequence(3))
    }

    fn header(payload: &[u8]) -> FrameHeader {
        FrameHeader {
            kind: Kind::Records,
            stream: StreamId(5),
            first: 1000,
            records: 3,
            bytes_before: 9000,
            ingest_ms: 1_795_450_894_053,
            synced: 128,
            group_first: true,
            group_last: true,
            payload_len: payload.len() as u32,
            payload_crc: crc32fast::hash(payload),
        }
    }

    fn whole(position: u32, payload: &[u8]) -> Vec<u8> {
        let mut bytes = header(payload).encode(&identity(), position).to_vec();
        bytes.extend_from_slice(payload);
        bytes
    }

    #[test]
    fn a_frame_is_bound_to_its_log_its_segment_and_its_position() {
        let bytes = whole(256, b"abc");
        assert!(FrameHeader::decode_whole(&identity(), 256, &bytes).is_ok());
        assert_eq!(FrameHeader::decode(&identity(), 264, &bytes), Err(NotAFrame::Header));
        let other_segment = Identity::new(LogId(7), Sequence(4));
        assert_eq!(FrameHeader::decode(&other_segment, 256, &bytes), Err(NotAFrame::Header));
        let other_log = Identity::new(LogId(8), Sequence(3));
        assert_eq!(FrameHeader::decode(&other_log, 256, &bytes), Err(NotAFrame::Header));
    }

    #[test]
    fn every_flipped_bit_is_noticed_and_a_flipped_payload_still_names_its_records() {
        let bytes = whole(256, b"some payload");
        for bit in 0..bytes.len() * 8 {
            let mut broken = bytes.clone();
            broken[bit / 8] ^= 1 << (bit % 8);
            let read = FrameHeader::decode_whole(&identity(), 256, &broken);
            let noticed = match bit / 8 < FRAME_HEADER_BYTES as usize {
                true => read == Err(NotAFrame::Header),
                false => matches!(&read, Err(NotAFrame::Payload(named)) if named.offsets() == (1000..1003)),
            };
            assert!(noticed, "bit {bit}: {read:?}");
        }
    }

    #[test]
    fn a_frame_of_a_later_version_is_told_apart_from_damage() {
        let mut bytes = whole(256, b"abc");
        bytes[12] = 2;
        let crc = identity().header_crc(256, &bytes[4..FRAME_HEADER_BYTES as usize]);
        bytes[..4].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(FrameHeader::decode(&identity(), 256, &bytes), Err(NotAFrame::Version(2)));
    }

    /// A header that some other program made, checksum and all.
    fn made(change: impl FnOnce(&mut FrameHeader), kind: u8) -> Result<FrameHeader, NotAFrame> {
        let mut header = header(b"");
        change(&mut header);
        let mut bytes = FrameHeader { synced: 0, ..header }.encode(&identity(), 256);
        bytes[13] = kind;
        bytes[48..52].copy_from_slice(&header.synced.to_le_bytes());
        let crc = identity().header_crc(256, &bytes[4..]);
        bytes[..4].copy_from_slice(&crc.to_le_bytes());
        FrameHeader::decode(&identity(), 256, &bytes)
    }

    #[test]
    fn a_header_of_which_no_good_could_come_is_none_whatever_its_checksum_says() {
        let sound: [fn(&mut FrameHeader); 4] = [
            |of| of.synced = 256,
            |of| of.stream.0 = STREAMS_MAX as u32 - 1,
            |of| of.first = u64::MAX - 3,
            |of| (of.bytes_before, of.payload_len) = (u64::MAX - 1, 1),
        ];
        assert!(sound.into_iter().all(|change| made(change, 1).is_ok()));
        let wrong: [fn(&mut FrameHeader); 4] = [
            |of| of.synced = 257,
            |of| of.stream.0 = STREAMS_MAX as u32,
            |of| of.first = u64::MAX - 2,
            |of| (of.bytes_before, of.payload_len) = (u64::MAX, 1),
        ];
        for change in wrong {
            assert_eq!(made(change, 1), Err(NotAFrame::Header));
        }
        assert_eq!(made(|_| (), 3), Err(NotAFrame::Header), "neither records nor a name");
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(
            stream in 0..STREAMS_MAX as u32, first in 0..u64::MAX / 2, records: u32, bytes_before in 0..u64::MAX / 2, ingest_ms: u64,
            at in 16u32..1 << 20, synced in 0u32..128, group_first: bool, group_last: bool,
            payload in proptest::collection::vec(any::<u8>(), 0..100),
        ) {
            let position = at * FRAME_ALIGN;
            let header = FrameHeader {
                kind: Kind::Records, stream: StreamId(stream), first, records, bytes_before, ingest_ms, synced,
                group_first, group_last, payload_len: payload.len() as u32, payload_crc: crc32fast::hash(&payload),
            };
            let mut bytes = header.encode(&identity(), position).to_vec();
            bytes.extend_from_slice(&payload);
            let (read, body) = FrameHeader::decode_whole(&identity(), position, &bytes).expect("just written");
            prop_assert_eq!(read, header);
            prop_assert_eq!(body, &payload[..]);
        }

        #[test]
        fn arbitrary_bytes_are_never_a_frame(bytes in proptest::collection::vec(any::<u8>(), 0..200), at in 0u32..1000) {
            prop_assert!(FrameHeader::decode_whole(&identity(), at * 8, &bytes).is_err());
        }
    }
}
