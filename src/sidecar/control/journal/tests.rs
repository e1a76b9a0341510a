//! The journal over a real log in memory: what it holds after another start, and after damage.

use std::path::Path;

use forebay::LogOptions;
use forebay::clock::ManualClock;
use forebay::disk::mem::MemDisk;

use super::*;
use crate::proto::v1::{ControlDestination, ControlForget, ControlPause};

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
    assert!(*first.writing() < SNAPSHOT_AFTER, "a snapshot was written");
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
            let record = ControlRecord { at_unix_ms: 1, change: Some(change.clone()) };
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

#[test]
fn a_torn_snapshot_takes_nothing_away() {
    let mut replay = Replay::default();
    replay.record(0, Some(made("a", "one")));
    replay.record(1, Some(Change::Snapshot(ControlSnapshot { records: 3 })));
    replay.record(2, Some(made("b", "two")));
    replay.skip(3..5, "lost".to_owned());
    replay.record(5, Some(made("c", "three")));
    let Replay { state, snapshot_at, .. } = replay.end();
    assert_eq!(state.changes(), [made("a", "one"), made("b", "two"), made("c", "three")]);
    assert_eq!(snapshot_at, 0, "it is nothing to trim to");
}
