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
