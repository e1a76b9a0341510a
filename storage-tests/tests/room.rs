//! The budget of a log, and the room that files take which are on their way from one place to another.

use forebay::clock::ManualClock;
use forebay::disk::mem::MemDisk;
use forebay::{Log, LogOptions, Payload};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use storage_tests::interrupted::Interrupted;

/// Before: a spare that was being made a segment counted as neither, and housekeeping made another one in its place: one
/// segment more than the budget allows.
#[test]
fn housekeeping_in_the_midst_of_a_roll_does_not_take_the_room_of_the_segment_that_is_being_made() {
    let disk = Interrupted::over(MemDisk::new());
    let options = LogOptions {
        segment_bytes: 4 << 10,
        budget_bytes: 6 * (4 << 10),
        tail_cache_bytes: 0,
        replay_window: Duration::ZERO,
        ..LogOptions::small()
    };
    let clock = Arc::new(ManualClock::at(1_000_000));
    let log = Log::open(Arc::new(disk.clone()), clock, Path::new("/log"), options).expect("it opens");
    let keeper = log.clone();
    disk.interrupt(Some(Arc::new(move |path| {
        if path.extension().is_some_and(|end| end == "seg") {
            keeper.housekeep();
        }
    })));
    let mut taken = 0;
    for _ in 0..20 {
        taken += u64::from(log.append_wait("a", vec![Payload { bytes: vec![7; 3_000], records: 1 }]).is_ok());
        let stats = log.stats();
        assert!(stats.bytes_used <= stats.bytes_limit, "{} of {} bytes", stats.bytes_used, stats.bytes_limit);
    }
    assert_eq!(taken, 5, "a segment each, and one that is kept for our own streams");
    disk.interrupt(None);
}
