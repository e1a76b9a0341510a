//! The journal over a real log in memory: what it holds after another start, and after damage.

use std::path::Path;

use forebay::LogOptions;
use forebay::clock::ManualClock;
use forebay::disk::mem::MemDisk;

use storage_tests::any_change::power_cut_at_any_change;
use storage_tests::fault::Performed;
use storage_tests::sim_disk::{PowerCut, SimDisk};

use super::*;
use crate::proto::v1::{ControlDestination, ControlDrain, ControlDrainEnd, ControlForget, ControlPause};

fn log(disk: &MemDisk) -> Log {
    let clock = Arc::new(ManualClock::at(1_000));
    Log::open(Arc::new(disk.clone()), clock, Path::new("log"), LogOptions { inline: true, ..LogOptions::default() })
        .unwrap()
}

fn journal(disk: &MemDisk) -> (Journal, Vec<Skipped>) {
    Journal::open(log(disk), Arc::new(ManualClock::at(1_000))).unwrap()
}

fn made(id: &str, settings: &str) -> Change {
    Change::Destination(ControlDestination { id: id.to_owned(), settings: settings.to_owned() })
}

fn paused(id: &str, paused: bool) -> Change {
    Change::Pause(ControlPause { destination: id.to_owned(), paused })
}

#[test]
fn what_was_decided_is_there_after_another_start() {
    let disk = MemDisk::default();
    let (first, skipped) = journal(&disk);
    assert!(skipped.is_empty() && first.state().changes().is_empty());
    first.decide(vec![made("a", "one"), made("b", "two"), paused("a", true)]).unwrap();
    first.decide(vec![made("a", "three"), paused("a", false), paused("file", true)]).unwrap();
    first.decide(vec![Change::DestinationDeleted(ControlForget { id: "b".to_owned() })]).unwrap();
    let expected = first.state().changes();
    drop(first);
    let (again, skipped) = journal(&disk);
    assert_eq!((again.state().changes(), skipped), (expected, vec![]));
    let state = again.state();
    assert_eq!(state.destinations["a"].reveal(), "three");
    assert!(!state.destinations.contains_key("b") && state.paused.contains("file"));
}

#[test]
fn a_long_stream_is_shortened_to_a_snapshot_and_says_the_same() {
    let disk = MemDisk::default();
    let (first, _) = journal(&disk);
    for n in 0..SNAPSHOT_AFTER + 10 {
        first.decide(vec![made(&format!("d{}", n % 7), &n.to_string()), paused("d3", n % 2 == 0)]).unwrap();
    }
    let expected = first.state().changes();
    assert!(first.writing().since_snapshot < SNAPSHOT_AFTER, "a snapshot was written");
    drop(first);
    let mut read = Replay::default();
    let log = log(&disk);
    let mut reader = log.reader(log.stream(CONTROL_STREAM).unwrap(), 0);
    while let Some(Item::Frame(frame)) = reader.next().unwrap() {
        read.frame(frame.offsets(), frame.payload());
    }
    assert!(read.snapshot_at >= SNAPSHOT_AFTER && read.since_snapshot < SNAPSHOT_AFTER);
    drop((reader, log));
    assert_eq!(journal(&disk).0.state().changes(), expected);
}

#[test]
fn a_damaged_record_is_named_and_undoes_nothing() {
    let encode = |changes: &[Change]| {
        let mut bytes = Vec::new();
        for change in changes {
            let record = ControlRecord { at_unix_ms: 1, part_of: 0, change: Some(change.clone()) };
            record.encode_length_delimited(&mut bytes).unwrap();
        }
        bytes
    };
    let mut replay = Replay::default();
    replay.frame(0..2, &encode(&[made("a", "one"), paused("a", true)]));
    replay.skip(2..3, "lost".to_owned());
    replay.frame(3..5, &[&encode(&[made("b", "two")])[..], &[0xff, 0xff]].concat());
    let Replay { state, skipped, .. } = replay.end();
    assert_eq!(state.changes(), [made("a", "one"), made("b", "two"), paused("a", true)]);
    assert_eq!(skipped.iter().map(|skipped| skipped.offsets.clone()).collect::<Vec<_>>(), [2..3, 4..5]);
}

fn record(part_of: u32, change: Change) -> ControlRecord {
    ControlRecord { at_unix_ms: 1, part_of, change: Some(change) }
}

fn snapshot(number: u32, records: u32) -> ControlRecord {
    record(number, Change::Snapshot(ControlSnapshot { records, number }))
}

fn drained(id: &str) -> Change {
    let ends = vec![ControlDrainEnd { stream: "prod".to_owned(), offset: 7 }];
    Change::Drain(ControlDrain { destination: id.to_owned(), ends })
}

#[test]
fn a_torn_snapshot_takes_nothing_away() {
    for number in [0, 1] {
        let mut replay = Replay::default();
        replay.record(0, record(0, made("a", "one")));
        replay.record(1, record(0, drained("a")));
        replay.record(2, snapshot(number, 3));
        replay.record(3, record(number, made("a", "one")));
        replay.record(4, record(number, made("b", "two")));
        replay.skip(5..6, "lost".to_owned());
        replay.record(6, record(0, made("c", "three")));
        let Replay { state, snapshot_at, .. } = replay.end();
        let all = [made("a", "one"), made("b", "two"), made("c", "three"), drained("a")];
        assert_eq!(state.changes(), all, "of version {number}");
        assert_eq!(snapshot_at, 0, "it is nothing to trim to");
    }
}

/// Before, whatever was decided behind a snapshot that a crash had cut off would have been taken for the rest of it.
#[test]
fn what_is_decided_behind_a_torn_snapshot_is_no_part_of_it() {
    let mut replay = Replay::default();
    for (offset, id) in (0..).zip(["a", "b", "c"]) {
        replay.record(offset, record(0, made(id, "one")));
    }
    replay.record(3, snapshot(4, 3));
    replay.record(4, record(4, made("a", "one")));
    replay.record(5, record(0, made("a", "two")));
    replay.record(6, record(0, paused("b", true)));
    let Replay { state, snapshots, since_snapshot, .. } = replay.end();
    assert_eq!(state.changes(), [made("a", "two"), made("b", "one"), made("c", "one"), paused("b", true)]);
    assert_eq!((snapshots, since_snapshot), (4, 7));
}

/// Decisions with a snapshot of several appends among them. Returns what was decided when the disk gave up.
fn life(disk: &SimDisk, decided: &mut u64) -> Result<(), String> {
    let (journal, _) = small(disk)?;
    for n in *decided..LIFE {
        journal.decide(decision(n)).map_err(|error| error.to_string())?;
        *decided = n + 1;
    }
    Ok(())
}

const LIFE: u64 = 22;

fn decision(n: u64) -> Vec<Change> {
    let id = format!("d{}", n % 5);
    match n {
        11 => vec![drained("d0")],
        n if n % 7 == 6 => vec![paused(&id, n % 2 == 0), made("both", &n.to_string())],
        n => vec![made(&id, &format!("{n}-{}", "x".repeat(100)))],
    }
}

fn small(disk: &SimDisk) -> Result<(Journal, Vec<Skipped>), String> {
    let clock = Arc::new(ManualClock::at(1_000));
    let options = LogOptions { inline: true, ..LogOptions::small() };
    let log = Log::open(Arc::new(disk.clone()), Arc::clone(&clock) as Arc<dyn Clock>, Path::new("/log"), options);
    let sizes = Sizes { snapshot_after: 8, append_bytes: 200 };
    Journal::open_with(log.map_err(|error| error.to_string())?, clock, sizes).map_err(|error| error.to_string())
}

fn state_after(decisions: u64) -> Vec<Change> {
    let mut state = State::default();
    (0..decisions).flat_map(decision).for_each(|change| state.apply(&change));
    state.changes()
}

#[test]
fn a_power_cut_at_any_change_leaves_every_decision_that_was_answered_and_no_half_of_another() {
    let start = SimDisk::new(5);
    small(&start).unwrap();
    let snapshot = start.snapshot();
    let changes = power_cut_at_any_change(&snapshot, life, |disk, decided, case| {
        let what = format!("{case}, {decided} answered");
        let (journal, skipped) = small(disk).unwrap();
        assert_eq!(skipped, [], "{what}");
        let there = journal.state().changes();
        // One may have become durable that nobody heard of.
        let known = (decided..=(decided + 1).min(LIFE)).find(|known| state_after(*known) == there);
        let Some(mut known) = known else { panic!("{what}: {there:?}") };
        drop(journal);
        // And once more, soon after: behind a snapshot that was cut off, say.
        for after in [3, 5, 8] {
            let again = SimDisk::from_snapshot(&disk.snapshot());
            again.crash_at(again.ops() + after, Performed::All);
            let mut later = known;
            let _ = life(&again, &mut later);
            again.power_cut(PowerCut::Everything);
            let there = small(&again).unwrap().0.state().changes();
            let as_decided = (later..=(later + 1).min(LIFE)).any(|known| state_after(known) == there);
            assert!(as_decided, "{what}, then {later} at the second crash, {after} changes on: {there:?}");
        }
        // And it goes on from there, over the next starts.
        life(disk, &mut known).unwrap();
        let (journal, _) = small(disk).unwrap();
        assert_eq!(journal.state().changes(), state_after(LIFE), "{what}, later");
    });
    let whole = SimDisk::from_snapshot(&snapshot);
    life(&whole, &mut 0).unwrap();
    let (journal, _) = small(&whole).unwrap();
    assert!(journal.writing().snapshots >= 1 && changes > 20, "{changes} changes, {:?}", journal.writing());
}

/// Before, a snapshot was one append: more than the log takes at once, and the stream was never shortened again.
#[test]
fn a_snapshot_may_be_larger_than_an_append() {
    let disk = MemDisk::default();
    let open = || {
        let clock = Arc::new(ManualClock::at(1_000));
        let options = LogOptions { inline: true, append_bytes_max: 100_000, ..LogOptions::small() };
        let log = Log::open(Arc::new(disk.clone()), Arc::clone(&clock) as Arc<dyn Clock>, Path::new("log"), options);
        Journal::open_with(log.unwrap(), clock, Sizes { snapshot_after: 60, append_bytes: 50_000 }).unwrap().0
    };
    let journal = open();
    let huge = |n: u64| made(&format!("d{}", n % 20), &format!("{n}{}", "y".repeat(20_000)));
    for n in 0..70 {
        journal.decide(vec![huge(n)]).unwrap();
    }
    assert!(journal.writing().since_snapshot < 60, "it was shortened: {:?}", journal.writing());
    let expected = journal.state().changes();
    drop(journal);
    let again = open();
    assert_eq!(again.state().changes(), expected);
    let writing = *again.writing();
    assert_eq!((writing.since_snapshot, writing.snapshots), (10, 1));
}
