//! Compaction, in exact numbers.

use super::*;
use crate::disk::read_all;
use crate::log::compact::CompactHeader;
use crate::log::segment::{Class, SegmentHeader};
use crate::offset::{LogId, Sequence};
use std::path::PathBuf;

const SEGMENT: u64 = 4 << 10;

fn bench() -> Bench {
    let mut bench = Bench::new();
    (bench.options.segment_bytes, bench.options.tail_cache_bytes) = (SEGMENT as u32, 0);
    bench
}

/// So many segments of each of which "slow" needs 160 bytes and nobody the rest, and one more that is written to.
fn sparse(log: &Log, segments: u64) {
    for _ in 0..segments {
        append(log, "slow", 1, 100, 1);
        append(log, "fast", 2, 3_600, 1); // 3,656 with its header: no second one fits
    }
    append(log, "fast", 2, 3_600, 1);
    log.trim(log.stream("fast").expect("known"), u64::MAX);
}

/// The next round may compact at once.
fn no_pause(bench: &Bench, log: &Log) {
    use crate::clock::Clock;
    log.shared.keeper.lock().expect("no panic").compact_from = bench.clock.monotonic();
}

/// Of compact segments.
fn names(bench: &Bench) -> Vec<String> {
    let names = bench.disk.list(Path::new(DIR)).expect("memory lists").into_iter();
    names.filter(|name| name.ends_with(".seg") && name.contains('-')).collect()
}

/// One run, compacted, of a log that is closed: the path of its compact segment, which has no index yet.
fn just_compacted(bench: &Bench) -> PathBuf {
    let log = bench.open();
    sparse(&log, 10);
    log.housekeep();
    drop(log);
    let [name] = &names(bench)[..] else { panic!("one run was compacted") };
    Path::new(DIR).join(name)
}

/// Of the fourth segment the payload of its first frame.
fn damage_a_payload(bench: &Bench) -> PathBuf {
    let path = Path::new(DIR).join("0000000000000003.seg");
    let segment = bench.disk.open(&path).expect("it is there");
    segment.write_all_at(&[IoSlice::new(&[0xEE])], 128 + 56 + 7).expect("memory writes");
    path
}

#[test]
fn a_run_becomes_one_segment_of_what_is_needed_and_the_next_one_waits_for_what_it_cost() {
    let bench = bench();
    let log = bench.open();
    sparse(&log, 10);
    let before = bench.disk.counts();
    log.housekeep();
    assert!((bench.disk.counts() - before).writes < 10, "its ten frames are written together");
    let stats = log.stats();
    // A header and ten frames of 160 bytes.
    assert_eq!((stats.segments_compacted, stats.compacted_bytes, stats.segments), (10, 1_728, 2));
    // The compact one, the one that is written to, and three spares: of the run one was recycled.
    assert_eq!((stats.bytes_used, stats.housekeeping_errors), (1_728 + 4 * SEGMENT, 0));
    assert_eq!(read(&log, "slow", 0).len(), 10);
    assert_eq!(log.first_kept(log.stream("fast").expect("known")), 10);
    // 32 MiB a second.
    let from = log.shared.keeper.lock().expect("no panic").compact_from;
    assert_eq!(from, Duration::from_millis(1_000_000) + Duration::from_micros(51));
    sparse(&log, 10);
    log.housekeep();
    assert_eq!(log.stats().segments_compacted, 10, "no time went by");
    no_pause(&bench, &log);
    log.housekeep();
    assert!(log.stats().segments_compacted > 10, "it is time at that very moment");
}

/// The first place that it stands for is that of the first one in it.
#[test]
fn a_compact_segment_in_a_run_stands_for_all_that_it_stood_for() {
    let bench = bench();
    let log = bench.open();
    sparse(&log, 10);
    log.housekeep();
    sparse(&log, 10);
    log.trim(log.stream("slow").expect("known"), 8);
    log.housekeep(); // its index
    no_pause(&bench, &log);
    log.housekeep();
    let names = names(&bench);
    assert!(matches!(&names[..], [one] if one.contains(".0000000000000000-")), "{names:?}");
    drop(log);
    assert_eq!(read(&bench.open(), "slow", 8).len(), 12);
}

/// Nothing in the window; of what is beyond a tenth of the budget the oldest, to the segment.
#[test]
fn what_is_kept_for_replay_is_not_compacted() {
    for (budget, compacted) in [(1_000 * SEGMENT, 0), (50 * SEGMENT, 6)] {
        let mut bench = bench();
        (bench.options.replay_window, bench.options.budget_bytes) = (Duration::from_secs(3_600), budget);
        let log = bench.open();
        sparse(&log, 10);
        (0..3).for_each(|_| log.housekeep());
        // Of eleven segments the newest five are a tenth.
        assert_eq!(log.stats().segments_compacted, compacted);
        assert_eq!(read(&log, "slow", 0).len(), 10);
        bench.clock.advance(Duration::from_secs(3_600));
        log.housekeep();
        assert!(log.stats().segments_compacted > compacted, "the window is over");
    }
}

/// Sixty-four are looked into in a round, and what they keep is told when all were.
#[test]
fn what_streams_keep_is_told_when_all_segments_were_looked_into_and_forgotten_when_it_is_little() {
    let bench = bench();
    let log = bench.open();
    sparse(&log, 70);
    let slow = || {
        let slow = log.streams().into_iter().find(|stream| &*stream.name == "slow").expect("known");
        (slow.backlog_bytes, slow.held_bytes)
    };
    let weighed = || log.shared.keeper.lock().expect("no panic").weighed;
    log.housekeep();
    assert_eq!((weighed(), slow()), (Sequence(64), (7_000, 7_000)));
    assert_eq!(log.stats().segments_compacted, 24, "3,840 bytes of 3,968");
    no_pause(&bench, &log);
    log.housekeep();
    assert_eq!((weighed(), slow()), (Sequence(0), (7_000, 7_000 + 70 * (SEGMENT - 160))));
    for _ in 0..4 {
        no_pause(&bench, &log);
        log.housekeep();
    }
    assert_eq!((log.stats().segments_compacted, slow()), (70, (7_000, 7_000)));
}

/// Before: a small compact segment was written anew with each round, for the bytes of its header.
#[test]
fn damage_parts_a_run_and_is_left_alone_and_so_is_what_was_compacted() {
    let bench = bench();
    let log = bench.open();
    sparse(&log, 10);
    let path = damage_a_payload(&bench);
    for compacted in [0, 6, 9, 9] {
        no_pause(&bench, &log);
        log.housekeep();
        assert_eq!((log.stats().segments_compacted, log.stats().housekeeping_errors), (compacted, 1));
    }
    assert!(bench.disk.open(&path).is_ok(), "it stays as it is");
    let whole: Vec<bool> = read(&log, "slow", 0).into_iter().map(|(_, kept)| kept.is_some()).collect();
    assert_eq!(whole, (0..10).map(|n| n != 3).collect::<Vec<_>>());
}

/// Each look would read it whole.
#[test]
fn of_a_segment_that_is_left_alone_nothing_is_known_where_its_index_is_damaged_and_the_others_have_their_turn() {
    let mut bench = bench();
    bench.options.index_cache_bytes = 0;
    let log = bench.open();
    sparse(&log, 10);
    damage_a_payload(&bench);
    log.housekeep();
    assert_eq!((log.stats().segments_compacted, log.stats().housekeeping_errors), (0, 1));
    damage_index(&bench, "0000000000000003.idx");
    for compacted in [6, 9, 9] {
        no_pause(&bench, &log);
        log.housekeep();
        assert_eq!((log.stats().segments_compacted, log.stats().housekeeping_errors), (compacted, 1));
    }
    assert_eq!(log.damages(), [], "its index was not made again from its frames");
}

#[test]
fn a_compact_segment_ends_where_its_header_says_and_then_where_its_index_does() {
    let bench = bench();
    let log = bench.open();
    sparse(&log, 10);
    log.housekeep();
    for sealed in [false, true] {
        let seen =
            inspect(&*bench.disk, Path::new(DIR), |_| std::ops::ControlFlow::Continue(())).expect("it only looks");
        let SegmentReport { file_bytes, end, frames, .. } = seen.segments[0];
        assert_eq!((file_bytes, end, frames, seen.segments[0].sealed), (1_728, 1_728, 10, sealed));
        assert!(seen.flaws.is_empty() && seen.segments.iter().all(|segment| segment.damage.is_empty()), "{seen:?}");
        log.housekeep();
    }
}

/// Ten segments, the one that is written to, and the reserve: that goes to the compact one, and three of the ten are the next.
#[test]
fn a_log_without_room_is_compacted_by_way_of_the_reserve_which_is_cut_to_what_it_holds() {
    let mut bench = bench();
    bench.options.budget_bytes = 12 * SEGMENT;
    let log = bench.open();
    sparse(&log, 10);
    assert_eq!(log.stats().bytes_used, 12 * SEGMENT);
    log.housekeep();
    assert_eq!((log.stats().segments_compacted, log.stats().bytes_used), (10, 1_728 + 4 * SEGMENT));
    let [name] = &names(&bench)[..] else { panic!("one is compact") };
    let file = bench.disk.open(&Path::new(DIR).join(name)).expect("just listed");
    assert_eq!(file.len().expect("memory"), 1_728);
}

/// A program that knows no compact segments must not open a log that may have one.
#[test]
fn the_stream_table_says_that_there_are_compact_segments_before_there_is_one_and_after_a_start() {
    let bench = bench();
    let newest = || {
        let read = |slot| {
            let file = bench.disk.open(&Path::new(DIR).join(format!("streams.{slot}"))).expect("there are two");
            stream_table::StreamTable::decode(&crate::disk::read_all(&*file).expect("memory reads")).expect("sound")
        };
        [0, 1].map(read).into_iter().max_by_key(|table| table.generation).expect("two")
    };
    let log = bench.open();
    sparse(&log, 10);
    assert!(!newest().compacted);
    log.housekeep();
    assert!(newest().compacted);
    drop(log);
    let log = bench.open();
    let before = newest().generation;
    log.raise_next("new", 3);
    log.housekeep();
    assert!(newest().generation > before && newest().compacted);
}

/// As a crash leaves it between the name of a compact segment and the end of what is in it.
fn beside_what_it_replaces(bench: &Bench) -> PathBuf {
    let log = bench.open();
    sparse(&log, 10);
    let path_of = |name: &String| Path::new(DIR).join(name);
    let bytes_of = |path: &Path| read_all(&*bench.disk.open(path).expect("it is there")).expect("memory reads");
    let before: Vec<_> = bench.disk.list(Path::new(DIR)).expect("memory lists");
    let before: Vec<_> = before.iter().filter(|name| name.ends_with(".seg")).map(path_of).collect();
    let run: Vec<_> = before.into_iter().map(|path| (bytes_of(&path), path)).collect();
    log.housekeep();
    drop(log);
    let [compact] = &names(bench)[..] else { panic!("one run was compacted") };
    for (bytes, path) in run {
        if bench.disk.open(&path).is_err() {
            let file = bench.disk.create(&path).expect("its name is free");
            file.write_all_at(&[IoSlice::new(&bytes)], 0).expect("memory writes");
        }
    }
    path_of(compact)
}

#[test]
fn what_a_compact_segment_replaces_goes_at_the_next_start_and_all_of_it_is_served() {
    let bench = bench();
    let compact = beside_what_it_replaces(&bench);
    let log = bench.open();
    assert!(bench.disk.open(&compact).is_ok());
    assert_eq!((log.stats().segments, read(&log, "slow", 0).len()), (2, 10));
}

#[test]
fn a_compact_segment_that_turned_to_nothing_replaces_nothing() {
    let bench = bench();
    let compact = beside_what_it_replaces(&bench);
    let file = bench.disk.open(&compact).expect("it is there");
    let len = file.len().expect("memory tells") as usize;
    file.write_all_at(&[IoSlice::new(&vec![0; len])], 0).expect("memory writes");
    let index = compact.file_name().and_then(|name| name.to_str()).map(|name| format!("{}.idx", &name[..16]));
    let _ = bench.disk.remove(&Path::new(DIR).join(index.expect("a name")));
    let log = bench.open();
    assert!(bench.disk.open(&compact).is_err());
    assert_eq!(read(&log, "slow", 0).iter().filter(|(_, byte)| *byte == Some(1)).count(), 10);
}

/// Frames prove themselves: all that its header adds is where they end, and each of them says so of those before it.
#[test]
fn a_compact_segment_with_the_header_of_another_one_is_damage_and_its_records_are_served() {
    for anothers in [true, false] {
        let bench = bench();
        let file = bench.disk.open(&just_compacted(&bench)).expect("just listed");
        let header = CompactHeader::decode(&read_all(&*file).expect("memory reads")).expect("just written");
        // Of an end that this one does not have.
        let of = if anothers {
            CompactHeader { log: LogId(1), end: 128, ..header }
        } else {
            CompactHeader { sequence: Sequence(header.sequence.0 + 1), end: 128, ..header }
        };
        file.write_all_at(&[IoSlice::new(&of.encode())], 0).expect("memory writes");
        let log = bench.open();
        let told = log.damages();
        assert!(matches!(&told[..], [damage] if damage.positions == (0..limits::SEGMENT_HEADER_BYTES)), "{told:?}");
        assert_eq!(read(&log, "slow", 0).iter().filter(|(_, byte)| *byte == Some(1)).count(), 10);
    }
}

/// It may say in another way where its frames end, and which they stand for.
#[test]
fn a_compact_segment_of_a_later_version_stops_the_start_and_stays_as_it_is() {
    let bench = bench();
    let path = just_compacted(&bench);
    let mut bytes = read_all(&*bench.disk.open(&path).expect("just listed")).expect("memory reads");
    bytes[8] = 99;
    let crc = crc32fast::hash(&bytes[..124]);
    bytes[124..128].copy_from_slice(&crc.to_le_bytes());
    files::write_whole(&*bench.disk, &path, &bytes).expect("memory writes");
    let refused = bench.try_open().map(drop);
    assert!(matches!(&refused, Err(OpenError::Newer { path: at, version: 99 }) if *at == path), "{refused:?}");
    assert!(read_all(&*bench.disk.open(&path).expect("it is there")).expect("memory reads") == bytes);
}

/// Writes a byte of an index anew: of its body, so that its header is good.
fn damage_index(bench: &Bench, name: &str) {
    let file = bench.disk.open(&Path::new(DIR).join(name)).expect("it is sealed");
    file.write_all_at(&[IoSlice::new(&[0xEE])], index::INDEX_HEADER_BYTES as u64 + 1).expect("memory writes");
}

/// The name of an index comes back where a sync of the directory failed. In doubt it is told.
#[test]
fn what_an_index_without_its_segment_says_is_told_where_the_one_that_has_its_records_is_damaged() {
    for damaged in [false, true] {
        let bench = bench();
        let log = bench.open();
        sparse(&log, 10);
        let first = Path::new(DIR).join("0000000000000000.idx");
        let index = read_all(&*bench.disk.open(&first).expect("it is sealed")).expect("memory reads");
        // It is compacted, and what it is in then has an index and a table that covers it.
        (0..2).for_each(|_| log.housekeep());
        drop(log);
        let [compact] = &names(&bench)[..] else { panic!("one run was compacted") };
        if damaged {
            damage_index(&bench, &format!("{}.idx", &compact[..16]));
        }
        files::write_whole(&*bench.disk, &first, &index).expect("memory writes");
        let log = bench.open();
        let told: Vec<_> = log.damages().into_iter().map(|damage| (damage.stream, damage.offsets)).collect();
        let lost = (Some("slow".to_owned()), Some(0..1));
        assert_eq!(told, if damaged { vec![lost] } else { vec![] });
        assert_eq!(read(&log, "slow", 0).iter().filter(|(_, byte)| *byte == Some(1)).count(), 10, "and all is served");
        assert!(bench.disk.open(&first).is_err(), "it has said what it knows, and goes");
    }
}

/// Nobody of ours makes it, so it is somebody's: nothing that may be is deleted.
#[test]
fn a_segment_of_a_compact_ones_number_that_is_what_its_name_says_is_set_aside_and_takes_nothing_from_that() {
    for theirs in [false, true] {
        let bench = bench();
        let log = bench.open();
        sparse(&log, 10);
        (0..2).for_each(|_| log.housekeep());
        let id = if theirs { LogId(1) } else { log.log_id() };
        drop(log);
        let [compact] = &names(&bench)[..] else { panic!("one run was compacted") };
        let sequence = Sequence(u64::from_str_radix(&compact[..16], 16).expect("a number"));
        let header = SegmentHeader { log: id, sequence, class: Class::Main, created_ms: 1, predecessor: None };
        let name = format!("{}.seg", &compact[..16]);
        let file = bench.disk.create(&Path::new(DIR).join(&name)).expect("its name is free");
        file.write_all_at(&[IoSlice::new(&header.encode())], 0).expect("memory writes");
        let log = bench.open();
        assert_eq!((names(&bench), log.damages()), (vec![compact.clone()], vec![]));
        let aside = bench.disk.open(&Path::new(DIR).join(format!("{name}.bad"))).expect("it was set aside");
        assert_eq!(read_all(&*aside).expect("memory reads"), header.encode());
        assert_eq!(read(&log, "slow", 0).len(), 10);
    }
}

/// Before: compact segments had no vote. A log of nothing else got another id, and they were set aside as another log's.
#[test]
fn a_log_of_compact_segments_alone_keeps_its_id_when_both_tables_are_damaged() {
    let bench = bench();
    let log = bench.open();
    let id = log.log_id();
    sparse(&log, 10);
    log.housekeep();
    drop(log);
    let kept = names(&bench);
    assert_eq!(kept.len(), 1);
    for name in bench.disk.list(Path::new(DIR)).expect("memory lists") {
        let path = Path::new(DIR).join(&name);
        if name.starts_with("streams.") {
            files::write_whole(&*bench.disk, &path, b"damaged").expect("memory writes");
        } else if !kept.contains(&name) {
            bench.disk.remove(&path).expect("it is there");
        }
    }
    let log = bench.open();
    assert_eq!((log.log_id(), names(&bench)), (id, kept));
    assert_eq!(
        log.reader(StreamId(0), 0).next().expect("memory reads").map(|item| matches!(item, Item::Frame(_))),
        Some(true)
    );
}

/// Before: of a file that had been recycled, and had its old name still, only a plain segment's header was known. What a compact one
/// had left of the old frames was told as damage, and the compact one was cut with it.
#[test]
fn a_name_that_leads_to_a_file_which_became_a_compact_segment_is_nobodys() {
    let bench = bench();
    let log = bench.open();
    (0..3).for_each(|_| _ = append(&log, "old", 1, 1_000, 1));
    append(&log, "old", 1, 600, 1);
    let first = Path::new(DIR).join("0000000000000000.seg");
    let mut bytes = read_all(&*bench.disk.open(&first).expect("it is written to")).expect("memory reads");
    sparse(&log, 10);
    log.trim(log.stream("old").expect("known"), u64::MAX);
    (0..2).for_each(|_| log.housekeep());
    assert!(bench.disk.open(&first).is_err(), "it went");
    drop(log);
    let [compact] = &names(&bench)[..] else { panic!("one run, one segment") };
    let compact = read_all(&*bench.disk.open(&Path::new(DIR).join(compact)).expect("there")).expect("memory reads");
    bytes[..compact.len()].copy_from_slice(&compact);
    files::write_whole(&*bench.disk, &first, &bytes).expect("memory writes");
    let log = bench.open();
    assert_eq!((log.damages(), read(&log, "slow", 0).len()), (Vec::new(), 10));
    assert!(bench.disk.open(&first).is_err(), "the name goes");
}
