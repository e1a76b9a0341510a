//! The golden log with a compact segment: version 2 of the format must be read, and the same history must give the same
//! bytes. For a change of format see golden.rs.

use forebay::clock::ManualClock;
use forebay::disk::Disk;
use forebay::disk::mem::MemDisk;
use forebay::{Log, LogOptions, Payload, inspect};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use storage_tests::golden::{self, Files, Items};
use storage_tests::known_entropy::KnownEntropy;

const DIR: &str = "/log";
const START_MS: u64 = 1_795_450_894_000;
const COMPACT: &str = "0000000000000003.0000000000000000-0000000000000001.seg";

fn open(disk: impl Disk + 'static, clock: &ManualClock) -> Log {
    let options = LogOptions { segment_bytes: 4 << 10, budget_bytes: 1 << 20, ..LogOptions::small() };
    Log::open(Arc::new(disk), Arc::new(clock.clone()), Path::new(DIR), options).expect("it opens")
}

fn append(log: &Log, clock: &ManualClock, stream: &str, text: &str) {
    clock.advance(Duration::from_millis(1));
    log.append_wait(stream, vec![Payload { bytes: text.as_bytes().to_vec(), records: 2 }]).expect("it is taken");
}

/// Too long for what is left of the second segment.
fn last() -> String {
    "in a segment that is not sealed; ".repeat(10)
}

/// Two segments of which "acme-prod" needs one frame each; then they are one, and a third is written to.
fn history() -> MemDisk {
    let (disk, clock) = (MemDisk::new(), ManualClock::at(START_MS));
    let log = open(KnownEntropy(disk.clone()), &clock);
    for text in ["still waited for", "and so is this"] {
        append(&log, &clock, "acme-prod", text);
        append(&log, &clock, "beta-staging", &"x".repeat(3_650));
    }
    append(&log, &clock, "beta-staging", &last());
    let beta = log.stream("beta-staging").expect("it is known");
    log.trim(beta, 4);
    clock.advance(Duration::from_secs(1));
    log.housekeep();
    log.housekeep(); // writes its index
    assert_eq!(log.stats().segments_compacted, 2);
    disk
}

/// Without the room taken ahead, which is the same as in version 1.
fn files_of(disk: &MemDisk) -> Files {
    let mut files = golden::files_on(disk, Path::new(DIR));
    files.retain(|name, _| !name.starts_with("spare"));
    files
}

fn disk_of(files: &Files) -> MemDisk {
    golden::disk_with(files, Path::new(DIR))
}

fn texts(log: &Log, stream: &str) -> Items {
    golden::items(log, log.stream(stream).expect("it is known"))
}

fn check(log: &Log) {
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(texts(log, "acme-prod"), [(0..2, some("still waited for")), (2..4, some("and so is this"))]);
    assert_eq!(texts(log, "beta-staging"), [(0..4, None), (4..6, Some(last()))]);
    assert_eq!(log.damages(), []);
}

#[test]
fn the_same_history_gives_the_same_bytes_as_ever() {
    let written = files_of(&history());
    let golden = golden::files_beside("v2", &written);
    assert_eq!(written.keys().collect::<Vec<_>>(), golden.keys().collect::<Vec<_>>(), "which files there are");
    for (name, bytes) in &written {
        assert!(*bytes == golden[name], "{name} changed; is that meant?");
    }
}

#[test]
fn a_log_with_a_compact_segment_is_read_with_and_without_its_index() {
    let files = golden::files("v2");
    assert!(files.contains_key(COMPACT), "{:?}", files.keys());
    assert!(
        files.iter().any(|(name, bytes)| name.starts_with("streams.") && bytes[8] == 2),
        "older programs stop here"
    );
    for without in [None, Some("0000000000000003.idx")] {
        let mut files = files.clone();
        without.map(|name| files.remove(name).expect("it is there"));
        let clock = ManualClock::at(START_MS + 60_000);
        let log = open(disk_of(&files), &clock);
        check(&log);
        append(&log, &clock, "acme-prod", "and it goes on");
        assert_eq!(log.durable(log.stream("acme-prod").expect("it is known")).offset, 6);
    }
}

/// Without the index, and with any one byte of the compact segment rotten: what is lost is named, and nothing else is.
#[test]
fn a_byte_of_a_compact_segment_that_rots_is_named_if_records_are_lost_by_it() {
    let files = golden::files("v2");
    for at in 0..files[COMPACT].len() {
        let mut rotten = files.clone();
        rotten.remove("0000000000000003.idx");
        rotten.get_mut(COMPACT).expect("it is there")[at] ^= 0x40;
        let log = open(disk_of(&rotten), &ManualClock::at(START_MS));
        let met = texts(&log, "acme-prod");
        let whole = met.iter().all(|(_, text)| text.is_some());
        assert!(met.last().is_some_and(|(offsets, _)| offsets.end == 4), "{at:#x}: {met:?}");
        assert!(whole || !log.damages().is_empty(), "{at:#x}: records are missing in silence");
    }
}

#[test]
fn an_inspection_shows_what_opening_would() {
    let mut seen = Vec::new();
    let inspected = inspect(&disk_of(&golden::files("v2")), Path::new(DIR), |frame| {
        seen.push((frame.name.to_owned(), frame.offsets.clone()));
        ControlFlow::Continue(())
    });
    let inspected = inspected.expect("memory reads");
    assert_eq!((inspected.flaws, inspected.strangers), (vec![], vec![]));
    let name = |n: &str| n.to_owned();
    let expected = [(name("acme-prod"), 0..2), (name("acme-prod"), 2..4), (name("beta-staging"), 4..6)];
    assert_eq!(seen, expected);
}
