use super::*;
use proptest::prelude::*;

fn header(stream: u32, first: u64, records: u32, ingest_ms: u64) -> FrameHeader {
    FrameHeader { records, ingest_ms, payload_len: 8, ..FrameHeader::sample(stream, first) }
}

fn index(frames: &[(u32, u32)]) -> SegmentIndex {
    let mut active = ActiveIndex::default();
    let mut next = BTreeMap::<u32, u64>::new();
    let mut position = 128;
    for (stream, records) in frames {
        let first = next.entry(*stream).or_default();
        active.add(position, &header(*stream, *first, *records, u64::from(position)));
        *first += u64::from(*records);
        position += 64;
    }
    active.seal(LogId(3), (Sequence(4), Class::Main), position, false, |id| format!("stream {id}").into())
}

#[test]
fn a_frame_is_found_by_any_offset_in_it_and_by_an_offset_in_the_gap_before_it() {
    let index = index(&[(1, 10), (2, 5), (1, 10)]);
    assert_eq!(index.locate(StreamId(1), 0).map(|f| f.position), Some(128));
    assert_eq!(index.locate(StreamId(1), 9).map(|f| f.position), Some(128));
    assert_eq!(index.locate(StreamId(1), 10).map(|f| f.position), Some(256));
    assert_eq!(index.locate(StreamId(1), 20), None);
    assert_eq!(index.locate(StreamId(3), 0), None);
}

#[test]
fn every_flipped_bit_is_noticed() {
    let bytes = index(&[(1, 10), (2, 5)]).encode();
    for bit in 0..bytes.len() * 8 {
        let mut broken = bytes.clone();
        broken[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(SegmentIndex::decode(&broken), None, "bit {bit}");
    }
}

#[test]
fn an_index_weighs_as_much_as_its_runs_and_frames() {
    let (run, frame) = (size_of::<Run>(), size_of::<FrameRef>());
    assert_eq!(index(&[(1, 10), (2, 5), (1, 10)]).weight(), 2 * run + 3 * frame);
}

#[test]
fn a_header_comes_back_with_the_time_of_the_newest_frame_wherever_that_is() {
    let mut active = ActiveIndex::default();
    assert!(active.is_empty() && active.newest_ms() == 0);
    for (position, first, ingest_ms) in [(128, 0, 77), (192, 1, 66)] {
        active.add(position, &header(1, first, 1, ingest_ms));
    }
    assert!(!active.is_empty() && active.newest_ms() == 77);
    for (class, failed) in [(Class::Main, false), (Class::System, true)] {
        let sealed = active.seal(LogId(3), (Sequence(4), class), 256, failed, |_| "a".into());
        let read = SegmentIndex::decode(&sealed.encode()).expect("just written").header;
        assert_eq!((read.log, read.sequence, read.class), (LogId(3), Sequence(4), class));
        assert_eq!((read.end, read.failed, read.newest_ms), (256, failed, 77));
    }
}

/// An index whose checksums are right all the same.
fn changed(body: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let sound = index(&[(1, 10), (2, 5)]);
    let mut bytes = sound.encode().split_off(INDEX_HEADER_BYTES);
    body(&mut bytes);
    let header = IndexHeader { body_len: bytes.len() as u32, body_crc: crc32fast::hash(&bytes), ..sound.header };
    [&header.encode()[..], &bytes].concat()
}

#[test]
fn a_body_that_does_not_add_up_is_no_index_whatever_its_checksum_says() {
    assert!(SegmentIndex::decode(&changed(|_| ())).is_some());
    // Behind the numbers of runs and frames each run says: its stream, its first frame, how many, its name's length.
    let says = |at: usize, number: u32| {
        SegmentIndex::decode(&changed(|body| body[at..at + 4].copy_from_slice(&number.to_le_bytes())))
    };
    assert_eq!(says(0, u32::MAX), None, "more runs than there are");
    assert_eq!(says(4, u32::MAX), None, "more frames than there are");
    assert_eq!(says(8, 2), None, "two runs of one stream");
    assert!(says(32, STREAMS_MAX as u32 - 1).is_some(), "the last stream that a log may have");
    assert_eq!(says(32, STREAMS_MAX as u32), None, "one that no log has");
    assert_eq!(says(12, 1).map(|index| index.runs[0].frames.clone()), Some(1..2), "the last frame there is");
    assert_eq!(says(12, 2), None, "a frame behind the last");
    assert_eq!(says(16, 0), None, "a run without a frame");
    assert_eq!(says(20, 100), None, "a name of which only the beginning is there");
    assert_eq!(SegmentIndex::decode(&changed(|body| *body.last_mut().expect("a name") = 0xff)), None, "no text");
}

#[test]
fn an_index_that_was_cut_or_is_of_a_later_version_is_none() {
    let mut bytes = changed(|_| ());
    assert!((0..bytes.len()).all(|len| SegmentIndex::decode(&bytes[..len]).is_none()));
    bytes[8] = 2;
    let crc = crc32fast::hash(&bytes[..76]);
    bytes[76..INDEX_HEADER_BYTES].copy_from_slice(&crc.to_le_bytes());
    assert_eq!(SegmentIndex::decode(&bytes), None);
}

proptest! {
    #[test]
    fn what_is_encoded_is_decoded(frames in proptest::collection::vec((0u32..20, 1u32..50), 0..60)) {
        let index = index(&frames);
        let read = SegmentIndex::decode(&index.encode()).expect("just written");
        prop_assert_eq!(&read.runs, &index.runs);
        prop_assert_eq!(&read.frames, &index.frames);
    }

    #[test]
    fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        prop_assert_eq!(SegmentIndex::decode(&bytes), None);
    }
}
