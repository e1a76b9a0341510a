//! How a reader finds a record far back, and what that costs: nothing of the indexes is kept in memory here.

use super::*;
use proptest::prelude::*;

/// Each frame of so many bytes is alone in its segment.
const PAYLOAD_BYTES: usize = 2_200;

fn bench() -> Bench {
    let mut bench = Bench::new();
    (bench.options.tail_cache_bytes, bench.options.index_cache_bytes) = (0, 0);
    bench.options.segment_bytes = 4 << 10;
    bench
}

/// Looks for one record. Returns how many files were opened for that: indexes, and the segment that it lies in.
fn look(bench: &Bench, log: &Log, stream: &str, offset: u64) -> u64 {
    let before = bench.disk.counts();
    let skimmed = log.reader(log.stream(stream).expect("known"), offset).skim().expect("memory reads");
    assert!(matches!(skimmed, Some(Skimmed::Frame(frame)) if frame.offsets().contains(&offset)), "{stream}: {offset}");
    (bench.disk.counts() - before).opens
}

/// Before: the first look of each stream far back read the indexes of all that is newer, after each start.
#[test]
fn a_look_far_back_reads_few_indexes() {
    const SEGMENTS: u64 = 1_000;
    let bench = bench();
    let log = bench.open();
    append(&log, "early", 1, 10, 1);
    (0..SEGMENTS).for_each(|_| _ = append(&log, "in all", 1, PAYLOAD_BYTES, 1));
    append(&log, "late", 1, 10, 1);
    drop(log);
    for offset in [0, 1, 2, SEGMENTS / 3, SEGMENTS / 2, SEGMENTS - 100, SEGMENTS - 2, SEGMENTS - 1] {
        let log = bench.open();
        assert!(log.stats().segments as u64 >= SEGMENTS);
        let first = look(&bench, &log, "in all", offset);
        assert!(first <= 22, "{first} for record {offset}: twice the logarithm of a thousand, and the segment");
        let again = look(&bench, &log, "in all", offset);
        assert!(again <= 3, "{again} where somebody was before");
        assert!(look(&bench, &log, "late", 0) <= 2, "the tail is near");
    }
    let all = look(&bench, &bench.open(), "early", 0);
    assert!(all <= SEGMENTS + 10, "{all}: of a stream that is nowhere else no index is read twice");
}

#[test]
fn a_reader_that_goes_back_finds_what_lies_before_where_it_was() {
    let bench = bench();
    let log = bench.open();
    (0..10).for_each(|n| _ = append(&log, "a", n, PAYLOAD_BYTES, 1));
    let mut reader = log.reader(log.stream("a").expect("known"), 0);
    while reader.next().expect("memory reads").is_some() {}
    for offset in [2, 5, 0] {
        reader.seek(offset);
        let item = reader.next().expect("memory reads");
        assert!(matches!(item, Some(Item::Frame(frame)) if frame.offsets() == (offset..offset + 1)), "from {offset}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Before, behind and in the midst of what other streams and damage leave of a stream's places.
    #[test]
    fn a_record_is_found_wherever_it_lies(
        runs in prop::collection::vec((0..3_usize, 1..30_usize), 1..12),
        lost in prop::collection::vec(any::<prop::sample::Index>(), 0..4),
        looks in prop::collection::vec(any::<prop::sample::Index>(), 1..12),
    ) {
        const STREAMS: [&str; 3] = ["a", "b", "c"];
        let bench = bench();
        let log = bench.open();
        append(&log, "a", 1, PAYLOAD_BYTES, 3);
        for (stream, frames) in runs {
            (0..frames).for_each(|_| _ = append(&log, STREAMS[stream], 1, PAYLOAD_BYTES, 3));
        }
        append(&log, "a", 1, PAYLOAD_BYTES, 3);
        let end = log.durable(log.stream("a").expect("known")).offset;
        drop(log);
        // Some segments are gone with their indexes. The last one tells what there was.
        let mut numbers: Vec<String> = (bench.disk.list(Path::new(DIR)).expect("memory lists").into_iter())
            .filter_map(|name| name.strip_suffix(".seg").map(str::to_owned))
            .collect();
        numbers.sort_unstable();
        numbers.pop();
        for number in lost.iter().map(|index| index.get(&numbers)) {
            for kind in ["seg", "idx"] {
                let _ = bench.disk.remove(&Path::new(DIR).join(format!("{number}.{kind}")));
            }
        }
        let all = read(&bench.open(), "a", 0);
        prop_assert_eq!(all.last().map(|(offsets, _)| offsets.end), Some(end));
        let in_lost = all.iter().filter(|(_, kept)| kept.is_none()).map(|(lost, _)| lost.end - 2);
        let anywhere = looks.iter().map(|index| index.index(end as usize) as u64);
        for offset in in_lost.chain(anywhere) {
            let log = bench.open(); // nobody was there before
            let found = read(&log, "a", offset);
            let (whose, kept) = all.iter().find(|(offsets, _)| offsets.contains(&offset)).expect("each is in one");
            // Of what is lost the part before is not asked for.
            let from = if kept.is_some() { whose.start } else { offset };
            prop_assert_eq!(&found[0], &(from..whose.end, *kept));
        }
    }
}

/// Nothing is made again from a segment that is written to: what is in it is in memory.
#[test]
fn there_is_an_index_of_sealed_segments_alone() {
    let bench = bench();
    let log = bench.open();
    (0..2).for_each(|_| _ = append(&log, "a", 1, PAYLOAD_BYTES, 1));
    let end_of = |n| log.shared.index(crate::Sequence(n)).expect("memory reads").map(|index| index.header.end);
    // The first one has the name of the stream as well.
    assert_eq!(end_of(0), Some(log.synced()[0].position + 64));
    let before = bench.disk.counts();
    assert_eq!([1, 2].map(end_of), [None; 2], "one is written to, and one is not there");
    assert_eq!((bench.disk.counts() - before).opens, 0);
}
