//! Where damage is said to lie.

use super::*;

#[test]
fn a_damaged_frame_is_told_where_it_lies_with_an_index_and_without() {
    for without_index in [false, true] {
        let mut bench = Bench::new();
        bench.options.tail_cache_bytes = 0;
        let log = bench.open();
        (1..=3).for_each(|n| _ = append(&log, "a", n, 100, 1));
        log.close().expect("closed");
        drop(log);
        // The header of the segment, the stream's name (64 bytes), and frames of 160 bytes.
        let second = limits::SEGMENT_HEADER_BYTES + 64 + 160;
        let segment = bench.disk.open(&Path::new(DIR).join("0000000000000000.seg")).expect("it is there");
        segment.write_all_at(&[IoSlice::new(&[0xEE])], u64::from(second) + 60).expect("memory writes");
        let log = bench.open();
        if without_index {
            bench.disk.remove(&Path::new(DIR).join("0000000000000000.idx")).expect("it is there");
        }
        assert_eq!(read(&log, "a", 0), [(0..1, Some(1)), (1..2, None), (2..3, Some(3))]);
        let positions = second..second + limits::FRAME_HEADER_BYTES;
        let (stream, offsets) = (Some("a".to_owned()), Some(1..2));
        let segment = crate::Sequence(0);
        assert_eq!(
            log.damages(),
            [Damage { segment, positions, stream, offsets, what: "a frame's checksum is wrong" }]
        );
    }
}

/// As of an index that somebody brought back: its checksums are right, and what it says is not.
#[test]
fn a_frame_that_is_not_the_one_its_index_says_is_damage_and_nobody_gets_anothers_records() {
    for second in ["a", "b"] {
        let mut bench = Bench::new();
        bench.options.tail_cache_bytes = 0;
        let log = bench.open();
        append(&log, "a", 1, 100, 1);
        append(&log, second, 2, 100, 1);
        log.close().expect("closed");
        drop(log);
        let index = bench.disk.open(&Path::new(DIR).join("0000000000000000.idx")).expect("it is there");
        let mut bytes = crate::disk::read_all(&*index).expect("memory reads");
        let (header, body) = bytes.split_at_mut(index::INDEX_HEADER_BYTES);
        // Behind two numbers and the runs: the frames, each with its first record, its position, its length.
        let frames = 8 + 24 * usize::from(body[0]);
        let (one, other) = body[frames..frames + 40].split_at_mut(20);
        one[8..12].swap_with_slice(&mut other[8..12]);
        header[56..60].copy_from_slice(&crc32fast::hash(body).to_le_bytes());
        let crc = crc32fast::hash(&header[..76]);
        header[76..].copy_from_slice(&crc.to_le_bytes());
        index.write_all_at(&[IoSlice::new(&bytes)], 0).expect("memory writes");
        let log = bench.open();
        assert!(read(&log, "a", 0).into_iter().chain(read(&log, second, 0)).all(|(_, kept)| kept.is_none()));
        assert_eq!(log.damages().len(), 2);
    }
}
