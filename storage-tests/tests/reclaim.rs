//! Taking segments away on a disk that does not let all of them go.

use forebay::clock::ManualClock;
use forebay::{Item, Log, LogOptions, Payload};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use storage_tests::fault::{Failure, Fault, OpKind};
use storage_tests::sim_disk::{PowerCut, SimDisk};

fn options() -> LogOptions {
    LogOptions {
        segment_bytes: 4 << 10,
        budget_bytes: 4 << 20,
        tail_cache_bytes: 0,
        replay_window: Duration::ZERO,
        ..LogOptions::small()
    }
}

fn open(disk: &SimDisk) -> Log {
    let clock = Arc::new(ManualClock::at(1_000_000));
    Log::open(Arc::new(disk.clone()), clock, Path::new("/log"), options()).expect("it opens")
}

/// Ten segments of one stream, and then none of it is needed any more.
fn ten_segments(log: &Log) {
    for _ in 0..10 {
        log.append_wait("a", vec![Payload { bytes: vec![7; 3_000], records: 1 }]).expect("it is taken");
    }
    log.housekeep();
    let stream = log.stream("a").expect("it was appended to");
    log.trim(stream, log.durable(stream).offset);
}

fn segments(disk: &SimDisk) -> usize {
    disk.paths().iter().filter(|path| path.extension().is_some_and(|end| end == "seg")).count()
}

/// Before: a segment that could not be taken away at once was forgotten. Its file stayed, outside of the budget, until
/// the next start; and what names the end of a failed one could go before it.
#[test]
fn a_segment_that_does_not_go_at_once_goes_later() {
    for kind in [OpKind::Rename, OpKind::Remove] {
        let disk = SimDisk::new(1);
        let log = open(&disk);
        ten_segments(&log);
        assert_eq!((segments(&disk), log.stats().segments), (10, 10));
        disk.inject(Fault::every(kind, Failure::Eio).on("seg"));
        disk.inject(Fault::every(kind, Failure::Eio).on("idx"));
        log.housekeep();
        assert_eq!(segments(&disk), log.stats().segments, "{kind:?}: all that is there is known and counted");
        disk.clear_faults();
        (0..2).for_each(|_| log.housekeep());
        assert_eq!((segments(&disk), log.stats().segments), (1, 1), "{kind:?}");
    }
}

/// Though there is room for all, and the time of none is over.
#[test]
fn of_what_everybody_has_the_newest_is_kept_for_replay_and_a_tenth_of_the_budget_at_most() {
    let (disk, clock) = (SimDisk::new(1), ManualClock::at(1_000_000));
    let options = LogOptions { replay_window: Duration::from_secs(3_600), budget_bytes: 400 << 10, ..options() };
    let log = Log::open(Arc::new(disk.clone()), Arc::new(clock), Path::new("/log"), options).expect("it opens");
    (0..3).for_each(|_| ten_segments(&log));
    log.housekeep();
    let kept = segments(&disk);
    assert!((8..=11).contains(&kept), "40 KiB, and what is written to: {kept} of 30");
    let stream = log.stream("a").expect("it was appended to");
    assert_eq!(log.first_kept(stream), 30 - kept as u64);
    let mut reader = log.reader(stream, log.first_kept(stream));
    let read = std::iter::from_fn(|| reader.next().expect("it reads"));
    assert_eq!(read.filter(|item| matches!(item, Item::Frame(_))).count(), kept);
}

/// What is in a file says whose it is: one whose name leads to another segment's goes, and is no spare, for that one would be
/// written over.
#[test]
fn a_segments_name_that_leads_to_another_segments_file_makes_no_spare_of_it() {
    let spares = |anothers: bool| {
        let disk = SimDisk::new(1);
        let log = open(&disk);
        ten_segments(&log);
        let path = |n: u64| Path::new("/log").join(format!("{n:016x}.seg"));
        let last = disk.read_live(&path(9)).expect("it is written to");
        if anothers {
            (0..9).for_each(|n| disk.overwrite(&path(n), &last));
        }
        log.housekeep();
        assert_eq!(segments(&disk), 1);
        disk.paths().iter().filter(|path| path.to_string_lossy().contains("spare-")).count()
    };
    let (ours, anothers) = (spares(false), spares(true));
    assert!(ours > anothers, "{ours} where they are ours, {anothers} where they are not");
}

/// By the clock's word the replay window is over, or has hardly begun: that decides of what everybody has, and of nothing else.
#[test]
fn a_clock_that_jumps_ends_the_replay_window_early_or_late_and_takes_nothing_that_somebody_needs() {
    const YEAR_MS: u64 = 365 * 24 * 3_600_000;
    for (jumped_ms, kept) in [(2 * YEAR_MS, false), (100 * YEAR_MS, false), (0, true)] {
        let disk = SimDisk::new(1);
        let options = LogOptions { replay_window: Duration::from_secs(3_600), ..options() };
        let open_at = |now_ms| {
            let clock = Arc::new(ManualClock::at(now_ms));
            Log::open(Arc::new(disk.clone()), clock, Path::new("/log"), options.clone()).expect("it opens")
        };
        let log = open_at(YEAR_MS);
        for n in 0..20 {
            let name = if n < 10 { "a" } else { "b" };
            log.append_wait(name, vec![Payload { bytes: vec![n; 3_000], records: 1 }]).expect("it is taken");
        }
        log.housekeep();
        drop(log);
        let log = open_at(jumped_ms);
        let [a, b] = ["a", "b"].map(|name| log.stream(name).expect("it is known"));
        // All of one is settled, and nothing of the other.
        log.trim(a, log.durable(a).offset);
        (0..3).for_each(|_| log.housekeep());
        let left = |stream| {
            let (mut reader, mut left) = (log.reader(stream, log.first_kept(stream)), 0);
            while let Some(item) = reader.next().expect("the disk reads") {
                left += usize::from(matches!(item, Item::Frame(_)));
            }
            left
        };
        assert_eq!(left(b), 10, "at {jumped_ms}");
        assert_eq!(left(a), if kept { 10 } else { 0 }, "at {jumped_ms}");
        assert!(log.stats().bytes_used <= options.budget_bytes);
        // Whatever time it is.
        log.append_wait("b", vec![Payload { bytes: vec![1; 3_000], records: 1 }]).expect("it is taken");
    }
}

/// Bytes of the files that count.
fn bytes(disk: &SimDisk) -> u64 {
    let counts = |name: &str| name.contains("spare-") || name.ends_with(".seg");
    let paths = disk.paths().into_iter().filter(|path| counts(&path.to_string_lossy()));
    paths.map(|path| disk.read_live(&path).expect("it is there").len() as u64).sum()
}

/// Before: spares whose names a failed sync of the directory had left to chance lay there and were in no budget.
#[test]
fn what_is_no_spare_for_want_of_a_sync_counts_until_it_is_gone() {
    let disk = SimDisk::new(1);
    let log = open(&disk);
    ten_segments(&log);
    let spares = || disk.paths().iter().filter(|path| path.to_string_lossy().contains("spare-")).count();
    let (before, all_before) = (spares(), disk.paths());
    disk.inject(Fault::every(OpKind::SyncDir, Failure::Eio));
    disk.inject(Fault::every(OpKind::Remove, Failure::Eio).on("spare-"));
    log.housekeep();
    assert!(spares() > before, "some have a spare's name");
    assert_eq!(log.stats().bytes_used, bytes(&disk));
    let mut doubtful = disk.paths();
    doubtful.retain(|path| path.to_string_lossy().contains("spare-") && !all_before.contains(path));
    disk.clear_faults();
    log.housekeep();
    assert_eq!(log.stats().bytes_used, bytes(&disk));
    assert!(
        doubtful.iter().all(|path| !disk.paths().contains(path)),
        "none of them is taken for a spare: {doubtful:?}"
    );
    assert_eq!(segments(&disk), 1);
}

/// Before: what could not be made, and not be removed either, lay there until the next start and was in no budget: one file more
/// with each round.
#[test]
fn what_is_given_up_and_does_not_go_counts_until_it_is_gone() {
    let disk = SimDisk::new(1);
    let log = open(&disk);
    ten_segments(&log);
    let before = disk.paths().len();
    disk.inject(Fault::every(OpKind::Sync, Failure::Eio).on("spare-"));
    disk.inject(Fault::every(OpKind::Remove, Failure::Eio));
    let budget = log.set_budget_bytes(log.stats().bytes_used + (64 << 10));
    for _ in 0..20 {
        // It takes the spare that there is, and housekeeping makes another one.
        let _ = log.append_wait("a", vec![Payload { bytes: vec![7; 3_000], records: 1 }]);
        log.housekeep();
    }
    assert!(disk.paths().len() > before, "some lie there");
    let stats = log.stats();
    assert_eq!(stats.bytes_used, bytes(&disk));
    assert!(stats.bytes_used <= budget, "{stats:?}");
    disk.clear_faults();
    log.trim(log.stream("a").expect("it is known"), u64::MAX);
    (0..2).for_each(|_| log.housekeep());
    assert_eq!(log.stats().bytes_used, bytes(&disk));
    assert!(disk.paths().len() <= before, "all of them are gone");
}

#[test]
fn a_spare_in_doubt_leaves_less_room_for_those_that_are_taken_ahead() {
    let disk = SimDisk::new(1);
    let log = open(&disk);
    // Needed, so that a budget of a little less than there is can be worked in.
    for _ in 0..3 {
        let payload = forebay::Payload { bytes: vec![1; 3_000], records: 1 };
        log.append_wait("kept", vec![payload]).expect("taken");
    }
    ten_segments(&log);
    let before = disk.paths();
    disk.inject(Fault::nth(OpKind::SyncDir, 0, Failure::Eio));
    disk.inject(Fault::every(OpKind::Remove, Failure::Eio).on("spare-"));
    log.housekeep();
    let is_new = |path: &PathBuf| path.to_string_lossy().contains("spare-") && !before.contains(path);
    // Those that are made to take their places come behind them.
    let doubtful = disk.paths().into_iter().filter(is_new).min().expect("some have a spare's name");
    disk.clear_faults();
    disk.inject(Fault::every(OpKind::Remove, Failure::Eio).on(&doubtful.to_string_lossy()));
    log.housekeep();
    let used = log.stats().bytes_used;
    assert_eq!(log.set_budget_bytes(used - 1), used - 1, "it can be worked in");
    log.housekeep();
    assert!(disk.paths().contains(&doubtful) && log.stats().bytes_used < used, "another one has gone for it");
}

/// Before: an index whose name a failed sync of the directory had left to chance was written once more under it, and the next
/// sync was believed.
#[test]
fn an_index_whose_name_may_be_lost_gets_it_anew() {
    for seed in 0..8 {
        let disk = SimDisk::new(seed);
        let log = open(&disk);
        for name in [".idx", ".new"] {
            disk.inject(Fault::every(OpKind::Create, Failure::Eio).on(name));
        }
        (0..2).for_each(|_| drop(log.append_wait("a", vec![Payload { bytes: vec![7; 3_000], records: 1 }])));
        disk.clear_faults();
        disk.inject(Fault::nth(OpKind::SyncDir, 0, Failure::Eio));
        (0..2).for_each(|_| log.housekeep());
        let index = disk.paths().into_iter().find(|path| path.extension().is_some_and(|end| end == "idx"));
        let index = index.expect("a segment is sealed");
        drop(log);
        disk.power_cut(PowerCut::NothingUnsynced);
        assert!(disk.read_live(&index).is_some_and(|bytes| !bytes.is_empty()), "seed {seed}");
    }
}

/// Before: one segment that the disk refused to read kept every other from going, until the disk was full.
#[test]
fn a_segment_that_cannot_be_read_keeps_no_other() {
    let disk = SimDisk::new(1);
    let log = open(&disk);
    ten_segments(&log);
    drop(log);
    let log = open(&disk);
    let stream = log.stream("a").expect("it is known");
    log.trim(stream, log.durable(stream).offset);
    let bad = disk.paths().into_iter().filter(|path| path.extension().is_some_and(|end| end == "idx")).nth(4);
    let bad = bad.expect("nine are sealed").file_stem().expect("a name").to_string_lossy().into_owned();
    // Both its index and itself, from which the index could be made again.
    disk.inject(Fault::every(OpKind::Read, Failure::Eio).on(&bad));
    (0..3).for_each(|_| log.housekeep());
    assert!(log.stats().segments <= 2, "the one, and perhaps the last: {}", log.stats().segments);
    assert!(log.stats().housekeeping_errors > 0, "and it is told");
}
