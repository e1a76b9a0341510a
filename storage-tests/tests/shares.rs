//! The disk budget, shared by streams: whose backlog is above its share waits, and nobody else.

use forebay::clock::ManualClock;
use forebay::{AppendError, Item, Log, LogOptions, LogState, Payload};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use storage_tests::sim_disk::SimDisk;

const SEGMENT_BYTES: u32 = 4 << 10;

fn open(disk: &SimDisk, segments: u64) -> Log {
    let options = LogOptions {
        segment_bytes: SEGMENT_BYTES,
        budget_bytes: segments * u64::from(SEGMENT_BYTES),
        tail_cache_bytes: 0,
        replay_window: Duration::ZERO,
        ..LogOptions::small()
    };
    let (disk, clock) = (Arc::new(disk.clone()), Arc::new(ManualClock::at(1_000_000)));
    Log::open(disk, clock, Path::new("/log"), options).expect("it opens")
}

fn append(log: &Log, stream: &str, bytes: usize) -> Result<(), AppendError> {
    log.append_wait(stream, vec![Payload { bytes: vec![7; bytes], records: 1 }]).map(drop)
}

fn trim_all(log: &Log, stream: &str) {
    let id = log.stream(stream).expect("it was appended to");
    log.trim(id, log.durable(id).offset);
}

/// Records of a stream that can be read.
fn kept(log: &Log, stream: &str) -> u64 {
    let mut reader = log.reader(log.stream(stream).expect("it was appended to"), 0);
    let mut records = 0;
    while let Some(item) = reader.next().expect("the disk reads") {
        let Item::Frame(frame) = item else { panic!("lost: {item:?}") };
        records += u64::from(frame.records);
    }
    records
}

/// One stream that nobody takes anything of, among nine that are delivered at once: it alone is refused, for as long as its
/// backlog is what makes the disk short, and nothing that it was promised is lost.
#[test]
fn only_the_stream_whose_backlog_is_above_its_share_is_refused() {
    let disk = SimDisk::new(1);
    let log = open(&disk, 100);
    let names: Vec<String> = (0..10).map(|n| format!("env-{n}")).collect();
    let (mut taken, mut refused) = (0, 0);
    for _ in 0..400 {
        match append(&log, &names[0], 300) {
            Ok(()) => taken += 1,
            Err(AppendError::OverShare { held, share }) => {
                assert!(held > share);
                refused += 1;
            }
            Err(other) => panic!("{other}"),
        }
        for name in &names[1..] {
            append(&log, name, 300).expect("it keeps up, so it is taken");
            trim_all(&log, name);
        }
        log.housekeep();
        assert_eq!(log.state(), LogState::Serving);
    }
    assert!(taken > 50 && refused > 100, "{taken} taken, {refused} refused");
    let stats = log.stats();
    assert!(stats.share_bytes.is_some() && log.refuses(&names[0]).is_some() && log.refuses(&names[1]).is_none());
    let backlogs: Vec<u64> = log.streams().iter().map(|stream| stream.backlog_bytes).collect();
    assert_eq!((backlogs[0], backlogs[1..].iter().sum::<u64>()), (taken * 300, 0));
    assert_eq!(kept(&log, &names[0]), taken);

    trim_all(&log, &names[0]);
    (0..2).for_each(|_| log.housekeep());
    assert_eq!(log.stats().share_bytes, None);
    append(&log, &names[0], 300).expect("it has drained, so it is taken");
}

/// Of two that fall behind the one that holds more is refused first. The other goes on, up to where room gets scarce for those
/// who keep up: these are never refused.
#[test]
fn whoever_holds_less_goes_on_longer_and_whoever_keeps_up_for_ever() {
    let disk = SimDisk::new(2);
    let log = open(&disk, 200);
    let (mut heavy, mut light, mut after_heavy_was_refused) = (0, 0, 0);
    for _ in 0..3_000 {
        let taken = append(&log, "heavy", 900).is_ok();
        heavy += u64::from(taken);
        match append(&log, "light", 60) {
            Ok(()) => {
                light += 1;
                after_heavy_was_refused += u64::from(!taken);
            }
            Err(error) => assert!(matches!(error, AppendError::OverShare { .. }), "{error}"),
        }
        append(&log, "healthy", 60).expect("it keeps up");
        trim_all(&log, "healthy");
        log.housekeep();
    }
    assert!(log.refuses("heavy").is_some() && log.refuses("light").is_some(), "{heavy} {light}");
    assert!(after_heavy_was_refused > 100, "{after_heavy_was_refused} of {light}");
    assert_eq!((kept(&log, "heavy"), kept(&log, "light")), (heavy, light));
}

/// A restart knows nothing of shares and everything of backlogs: after the first trims it refuses whom it refused before.
#[test]
fn after_a_restart_the_same_stream_is_above_its_share() {
    let disk = SimDisk::new(3);
    let log = open(&disk, 100);
    while append(&log, "behind", 300).is_ok() {
        append(&log, "healthy", 300).expect("it keeps up");
        trim_all(&log, "healthy");
        log.housekeep();
    }
    drop(log);
    let log = open(&disk, 100);
    trim_all(&log, "healthy");
    (0..2).for_each(|_| log.housekeep());
    assert!(matches!(append(&log, "behind", 300), Err(AppendError::OverShare { .. })));
    append(&log, "healthy", 300).expect("it keeps up");
}
