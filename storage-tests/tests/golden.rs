//! Golden files: a log that an earlier build wrote must be read, and the same appends must give the same bytes.
//!
//! The first is the promise to whoever upgrades. The second makes a change of format loud: whoever means one raises the
//! version, keeps the old directory, and writes a new one with `FOREBAY_WRITE_GOLDEN=1 cargo test -p storage-tests
//! --test golden`. The bytes are drawn in docs/format.md, whose hexdump is checked here too.

use forebay::clock::ManualClock;
use forebay::disk::Disk;
use forebay::disk::mem::MemDisk;
use forebay::{Log, LogId, LogOptions, LogState, PLANS_STREAM, Payload, Sequence, SyncedMark};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use storage_tests::golden::{self, Files, Items};
use storage_tests::known_entropy::{ENTROPY, KnownEntropy};

const DIR: &str = "/log";
const START_MS: u64 = 1_795_450_894_000;

/// The smallest geometry, so that the files stay small in the repository.
fn options() -> LogOptions {
    LogOptions { segment_bytes: 4 << 10, budget_bytes: 1 << 20, ..LogOptions::small() }
}

fn open(disk: impl Disk + 'static, clock: &ManualClock) -> Log {
    open_with(disk, clock, options())
}

fn open_with(disk: impl Disk + 'static, clock: &ManualClock, options: LogOptions) -> Log {
    Log::open(Arc::new(disk), Arc::new(clock.clone()), Path::new(DIR), options).expect("the log opens")
}

fn parts(parts: &[(&str, u32)]) -> Vec<Payload> {
    parts.iter().map(|(text, records)| Payload { bytes: text.as_bytes().to_vec(), records: *records }).collect()
}

/// What every golden log holds: written by the code of today into a disk in memory, and then the power goes.
fn write() -> MemDisk {
    let disk = MemDisk::new();
    let clock = ManualClock::at(START_MS);
    let log = open(KnownEntropy(disk.clone()), &clock);
    let append = |stream: &str, these: &[(&str, u32)]| {
        clock.advance(Duration::from_millis(1));
        log.append_wait(stream, parts(these)).expect("appended")
    };
    append("acme-prod", &[("hello", 2)]);
    append("acme-prod", &[("world!!!", 3)]);
    append("beta-staging", &[("one append, ", 1), ("three frames, ", 1), ("kept whole or dropped whole", 2)]);
    append(PLANS_STREAM, &[("a plan lies with the records it is about", 1)]);
    append("!dead/acme-hook", &[("ours, in a segment of its own", 1)]);
    // Offsets 5 and 6 were seen by a cursor whose frames a crash took: they are never given again.
    log.raise_next("acme-prod", 7);
    append("acme-prod", &[("behind a gap", 1)]);
    // Too large for what is left of the segment: it is sealed and a second one begun.
    append("beta-staging", &[("x".repeat(3500).as_str(), 100)]);
    append("acme-prod", &[("in a segment that is not sealed", 1)]);
    assert_eq!(log.state(), LogState::Serving);
    disk
}

/// What a reader of that log must get.
fn expected() -> BTreeMap<&'static str, Items> {
    let some = |text: &str| Some(text.to_owned());
    BTreeMap::from([
        (
            "acme-prod",
            vec![
                (0..2, some("hello")),
                (2..5, some("world!!!")),
                (5..7, None),
                (7..8, some("behind a gap")),
                (8..9, some("in a segment that is not sealed")),
            ],
        ),
        (
            "beta-staging",
            vec![
                (0..1, some("one append, ")),
                (1..2, some("three frames, ")),
                (2..4, some("kept whole or dropped whole")),
                (4..104, Some("x".repeat(3500))),
            ],
        ),
        (PLANS_STREAM, vec![(0..1, some("a plan lies with the records it is about"))]),
        ("!dead/acme-hook", vec![(0..1, some("ours, in a segment of its own"))]),
    ])
}

fn read(log: &Log) -> BTreeMap<String, Items> {
    log.streams().into_iter().map(|stats| (stats.name.to_string(), golden::items(log, stats.id))).collect()
}

fn disk_of(files: &Files) -> MemDisk {
    golden::disk_with(files, Path::new(DIR))
}

/// As a person would print it: lines of the same byte sixteen times are left out.
fn hexdump(bytes: &[u8]) -> String {
    let mut text = String::new();
    let says_something = |line: &[u8]| line.iter().any(|byte| *byte != line[0]);
    for (at, line) in bytes.chunks(16).enumerate().filter(|(_, line)| says_something(line)) {
        let hex: Vec<String> = line.iter().map(|byte| format!("{byte:02x}")).collect();
        let shown: String = line
            .iter()
            .map(|byte| if byte.is_ascii_graphic() || *byte == b' ' { *byte as char } else { '.' })
            .collect();
        writeln!(text, "{:04x}  {:<47}  {shown}", at * 16, hex.join(" ")).expect("a string takes all");
    }
    text
}

#[test]
fn a_log_of_version_1_is_read_to_the_last_record() {
    let disk = disk_of(&golden::files("v1"));
    let log = open(disk, &ManualClock::at(START_MS + 60_000));
    assert_eq!(log.log_id(), LogId(ENTROPY));
    let read = read(&log);
    let read: BTreeMap<&str, _> = read.iter().map(|(name, items)| (name.as_str(), items.clone())).collect();
    assert_eq!(read, expected());
    assert_eq!(log.damages(), []);
    let next = log.append_wait("acme-prod", parts(&[("and it goes on", 1)])).expect("appended");
    assert_eq!(next.offsets, 9..10);
}

/// Without a mark the last commit of a segment passes for a torn tail: docs/durability.md, limits.
#[test]
fn a_byte_that_rots_anywhere_is_named_if_records_are_lost_by_it() {
    let files = golden::files("v1");
    let mark = |sequence, position| SyncedMark { sequence: Sequence(sequence), position };
    let synced = vec![mark(1, 0x120), mark(2, 0xec0)];
    let expected = expected();
    for (name, bytes) in &files {
        for at in 0..bytes.len() {
            let mut rotten = files.clone();
            rotten.get_mut(name).expect("it is there")[at] ^= 0x40;
            let options = LogOptions { synced: synced.clone(), ..options() };
            let log = open_with(disk_of(&rotten), &ManualClock::at(START_MS), options);
            let read = read(&log);
            let same = expected.iter().all(|(stream, items)| read.get(*stream) == Some(items));
            assert!(
                same || !log.damages().is_empty(),
                "byte {at:#x} of {name}: records are missing in silence: {read:?}"
            );
        }
    }
}

#[test]
fn the_same_appends_give_the_same_bytes_as_ever() {
    let written = golden::files_on(&write(), Path::new(DIR));
    let golden = golden::files_beside("v1", &written);
    let names = |files: &Files| files.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&written), names(&golden), "which files there are");
    for (name, bytes) in &written {
        let same = *bytes == golden[name];
        assert!(same, "{name} changed; is that meant?\nnow\n{}was\n{}", hexdump(bytes), hexdump(&golden[name]));
    }
}

#[test]
fn the_worked_example_in_the_docs_is_these_very_bytes() {
    let docs = storage_tests::repository::read("docs/format.md");
    for (name, bytes) in golden::files("v1") {
        for line in hexdump(&bytes).lines() {
            assert!(docs.contains(line), "docs/format.md should show this line of {name}:\n{line}");
        }
    }
}

#[test]
fn a_file_cut_anywhere_still_opens() {
    let files = golden::files("v1");
    for name in
        ["0000000000000002.seg", "0000000000000001.sys", "0000000000000000.seg", "0000000000000000.idx", "streams.1"]
    {
        for len in 0..=files[name].len() {
            let mut cut = files.clone();
            cut.get_mut(name).expect("it is there").truncate(len);
            let log = open(disk_of(&cut), &ManualClock::at(START_MS));
            read(&log);
            let next = log.append_wait("acme-prod", parts(&[("and it goes on", 1)])).expect("appended");
            assert_eq!(next.offsets.end - next.offsets.start, 1);
        }
    }
}
