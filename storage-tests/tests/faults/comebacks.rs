//! Names that come back with a power cut, or that it takes: after a sync of the directory that failed, the next one promises what
//! changed before it for nothing.

use forebay::clock::ManualClock;
use forebay::{Log, OpenError, Payload, inspect};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use storage_tests::fault::{Failure, Fault, OpKind, Performed};
use storage_tests::reading;
use storage_tests::sim_disk::{PowerCut, SimDisk};
use storage_tests::workload::tiny;

fn try_open(disk: &SimDisk, clock: &ManualClock) -> Result<Log, OpenError> {
    Log::open(Arc::new(disk.clone()), Arc::new(clock.clone()), Path::new("/log"), tiny())
}

fn open(disk: &SimDisk, clock: &ManualClock) -> Log {
    try_open(disk, clock).expect("it opens")
}

fn append(log: &Log, stream: &str, bytes: usize) {
    log.append_wait(stream, vec![Payload { bytes: vec![bytes as u8; bytes], records: 1 }]).expect("it is taken");
}

/// Of each of eight sealed segments "slow" needs one record and nobody the rest: the next round compacts them.
fn about_to_compact(disk: &SimDisk, clock: &ManualClock) -> Log {
    of_both(disk, clock, [("slow", 300), ("fast", 3_000)])
}

/// The same, with the records of each segment in this order.
fn of_both(disk: &SimDisk, clock: &ManualClock, records: [(&str, usize); 2]) -> Log {
    let log = open(disk, clock);
    for _ in 0..8 {
        records.iter().for_each(|(stream, bytes)| append(&log, stream, *bytes));
    }
    (0..2).for_each(|_| log.housekeep());
    let fast = log.stream("fast").expect("it was appended to");
    log.trim(fast, log.durable(fast).offset);
    log
}

/// Of the eight records of "slow", how many can be read; and what the log tells of damage.
fn seen(log: &Log) -> (usize, Vec<String>) {
    let read = reading::read(log, "slow").expect("the disk reads");
    let told = log.damages().iter().map(ToString::to_string).collect();
    (read.iter().filter(|seen| seen.frame.is_some()).count(), told)
}

const ALL_IS_THERE: (usize, Vec<String>) = (8, Vec::new());

/// Before: the index of a segment that had been compacted said that its last records were lost. It could not be emptied before it
/// was removed, and the removal was lost with a sync of the directory.
#[test]
fn an_index_that_comes_back_tells_nothing_of_what_was_compacted() {
    for seed in 0..10 {
        for n in 0..10 {
            let (disk, clock) = (SimDisk::new(seed), ManualClock::at(1_000_000));
            let log = about_to_compact(&disk, &clock);
            disk.inject(Fault::every(OpKind::Sync, Failure::Eio).on(".idx"));
            disk.inject(Fault::nth(OpKind::SyncDir, n, Failure::Eio));
            log.housekeep();
            disk.clear_faults();
            for _ in 0..3 {
                clock.advance(Duration::from_secs(1));
                log.housekeep();
            }
            drop(log);
            disk.power_cut(PowerCut::NothingUnsynced);
            assert_eq!(seen(&open(&disk, &clock)), ALL_IS_THERE, "seed {seed}, sync {n}");
        }
    }
}

/// Before: a start that takes away what a compact segment stands for removes the indexes as they are, and one that ended with a
/// failed sync of the directory left them to come back.
#[test]
fn an_index_that_a_start_removed_and_that_comes_back_tells_nothing_of_what_was_compacted() {
    let mut cases = 0;
    for seed in 0..4 {
        for ahead in 0..60 {
            for n in 0..4 {
                let (disk, clock) = (SimDisk::new(seed), ManualClock::at(1_000_000));
                let log = about_to_compact(&disk, &clock);
                disk.crash_at(disk.ops() + ahead, Performed::Nothing);
                log.housekeep();
                drop(log);
                disk.process_kill();
                disk.inject(Fault::nth(OpKind::SyncDir, n, Failure::Eio));
                let refused = try_open(&disk, &clock).is_err();
                disk.clear_faults();
                if !refused {
                    continue;
                }
                drop(open(&disk, &clock));
                disk.power_cut(PowerCut::NothingUnsynced);
                assert_eq!(seen(&open(&disk, &clock)), ALL_IS_THERE, "seed {seed}, {ahead} ahead, sync {n}");
                cases += 1;
            }
        }
    }
    assert!(cases > 300, "{cases}");
}

/// What lies in no other segment is told as before, and up to the last record that is missing.
#[test]
fn an_index_without_its_segment_tells_what_lies_in_no_other() {
    let (disk, clock) = (SimDisk::new(1), ManualClock::at(1_000_000));
    let log = about_to_compact(&disk, &clock);
    let index = |n: u64| Path::new("/log").join(format!("{n:016x}.idx"));
    let before: Vec<_> = (0..8).filter_map(|n| Some((index(n), disk.read_live(&index(n))?))).collect();
    log.housekeep();
    drop(log);
    disk.process_kill();
    before.iter().for_each(|(path, bytes)| disk.overwrite(path, bytes));
    let whole = SimDisk::from_snapshot(&disk.snapshot());
    let look = |disk: &SimDisk| inspect(disk, Path::new("/log"), |_| ControlFlow::Continue(())).expect("it only looks");
    assert!(look(&whole).flaws.iter().all(|flaw| flaw.mended), "{:?}", look(&whole).flaws);
    assert_eq!(seen(&open(&whole, &clock)), ALL_IS_THERE);

    // A frame of the compact one is rotten.
    let paths = disk.paths();
    let compact = paths.iter().find(|path| path.to_string_lossy().contains("-0")).expect("it was compacted");
    disk.flip_bit(compact, (128 + 60) * 8);
    let not_mended: Vec<_> = look(&disk).flaws.into_iter().filter(|flaw| !flaw.mended).map(|flaw| flaw.file).collect();
    assert_eq!(not_mended, ["0000000000000000.idx"]);
    let (read, told) = seen(&open(&disk, &clock));
    let by_an_index: Vec<_> = told.iter().filter(|told| told.contains("file is missing")).collect();
    assert_eq!((read, by_an_index.len()), (7, 1), "{told:?}");
    assert!(by_an_index[0].contains("0..1"), "{told:?}");
}

/// Before: the next segment named the place of a compact segment as the one before it, with the compact one's end. Where that lost its
/// name to a power cut the segment of that number was cut there, if its own index was damaged.
#[test]
fn a_segment_whose_compact_one_lost_its_name_is_not_cut_where_that_ended() {
    let mut lost = 0;
    for seed in 0..6 {
        for n in 0..8 {
            let (disk, clock) = (SimDisk::new(seed), ManualClock::at(1_000_000));
            // What is needed lies behind where the compact one ends.
            of_both(&disk, &clock, [("fast", 3_000), ("slow", 300)]).close().expect("a good disk");
            // The last one as well: no other follows before the start that finds it lost.
            let log = open(&disk, &clock);
            (0..2).for_each(|_| log.housekeep());
            let fast = log.stream("fast").expect("it was appended to");
            log.trim(fast, log.durable(fast).offset);
            disk.inject(Fault::nth(OpKind::SyncDir, n, Failure::Eio));
            disk.inject(Fault::every(OpKind::Remove, Failure::Eio).on(".seg"));
            log.housekeep();
            drop(log);
            disk.process_kill();
            disk.clear_faults();
            // Nor can it get its name anew.
            disk.inject(Fault::every(OpKind::Create, Failure::Eio).on(".new"));
            let log = open(&disk, &clock);
            disk.clear_faults();
            append(&log, "fast", 3_000);
            drop(log);
            let compact = |disk: &SimDisk| disk.paths().into_iter().find(|path| path.to_string_lossy().contains("-0"));
            let was = compact(&disk);
            disk.power_cut(PowerCut::NothingUnsynced);
            if let (Some(path), None) = (was, compact(&disk)) {
                // The last that it stood for.
                let name = path.to_string_lossy();
                let last = name.rsplit(['-', '.']).nth(1).expect("a compact segment's name");
                disk.overwrite(format!("/log/{last}.idx").as_ref(), b"damaged");
                lost += 1;
            }
            assert_eq!(seen(&open(&disk, &clock)), ALL_IS_THERE, "seed {seed}, sync {n}: {:?}", disk.paths());
        }
    }
    assert!(lost > 0, "of none the name is lost");
}
