//! SIGKILL before and after each named point of the log and its queues, under load; then what was promised is there, the
//! books close, and it goes on. The points of the sidecar are in its own `tests/process/failpoints.rs`.
//!
//! Plain `cargo test` takes some of them, `FOREBAY_FAILPOINTS=1` all. What is killed is a process, so its kernel keeps what was
//! written: lost sectors are the simulated disk's affair.

use forebay::failpoints::Point;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use storage_tests::crash_points::number;
use storage_tests::crew::{self, Until};
use storage_tests::promises::{self, Promised, Promiser};
use storage_tests::rng::Rng;

const TEST: &str = "a_kill_at_any_named_point_loses_nothing_that_was_promised";

/// Appends between two opens of one process: some segments, and one of them compacted.
const ROUND: &str = "300";

/// A process that died so leaves frames that may not be durable.
const UNSYNCED: &str = "FramesSync:before:40";

/// Each point from both sides.
fn cases() -> Vec<(Point, &'static str)> {
    let points = Point::LOG.iter().chain(Point::QUEUES);
    points.flat_map(|point| ["before", "after"].map(|side| (*point, side))).collect()
}

/// Lives until it is killed there by its own hand; `false` when it never came there, and ended as it should.
fn is_killed_at(failpoint: &str, dir: &Path, promised: &mut Promised) -> bool {
    let env = [(promises::ROUND, ROUND), ("FOREBAY_FAILPOINT", failpoint)];
    let (status, said) = Promiser::start(TEST, dir, &env).end();
    promised.hear(&said);
    let killed = status.signal() == Some(9);
    assert!(killed || status.success(), "{failpoint}: it ended with {status}");
    killed
}

/// One point, from one side.
fn case(nth: u64) {
    let (point, side) = cases()[nth as usize];
    let later = 2 + Rng::new(nth).below(4);
    // In the midst of things; else at the first time; else in the recovery from a kill.
    for (before, time) in [(None, later), (None, 1), (Some(UNSYNCED), 1)] {
        let place = tempfile::tempdir().expect("room");
        let (dir, mut promised) = (place.path().join("data"), Promised::default());
        if let Some(before) = before {
            assert!(is_killed_at(before, &dir, &mut promised), "{before}");
        }
        if !is_killed_at(&format!("{point:?}:{side}:{time}"), &dir, &mut promised) {
            continue;
        }
        // Twice: whatever the first one met when it started, the next one may meet again.
        let again = is_killed_at(&format!("{point:?}:{side}:1"), &dir, &mut promised);
        promised.check(&dir);
        let env = [(promises::ROUND, "60")];
        let (status, said) = Promiser::start(TEST, &dir, &env).end();
        assert!(status.success(), "it goes on behind {point:?}, {side}: {status}");
        promised.hear(&said);
        promised.check(&dir);
        assert!(promised.appends() > 60, "{again}: it did something");
        return;
    }
    panic!("nothing ever comes to {point:?} ({}), {side}", point.what());
}

/// Its state may be anything then: the process ends, and what was promised is what the disk holds.
#[test]
fn a_panic_of_the_writer_in_the_midst_of_a_commit_ends_the_process_and_answers_nothing() {
    for point in [Point::FramesWrite, Point::FramesSync, Point::FramesPublish, Point::SegmentHeader] {
        for side in ["before", "after"] {
            let place = tempfile::tempdir().expect("room");
            let (dir, mut promised) = (place.path().join("data"), Promised::default());
            let told = format!("{point:?}:{side}:5:panic");
            let env = [(promises::ROUND, ROUND), ("FOREBAY_FAILPOINT", &*told)];
            let (status, said) = Promiser::start(TEST, &dir, &env).end();
            assert_eq!(status.signal(), Some(6), "{told}: it ended with {status}");
            promised.hear(&said);
            promised.check(&dir);
        }
    }
}

#[test]
fn a_kill_at_any_named_point_loses_nothing_that_was_promised() {
    if let Some(dir) = std::env::var_os(promises::DIR) {
        return promises::make(Path::new(&dir));
    }
    let (all, stride) = (cases().len() as u64, number("FOREBAY_FAILPOINTS", 9).max(1));
    let one = number("FOREBAY_CASE", u64::MAX);
    if one < all {
        return case(one);
    }
    let some = all.div_ceil(stride);
    let repeat = |nth| format!("FOREBAY_CASE={} cargo test -p storage-tests --test failpoints", nth * stride);
    let counted = |nth| {
        if nth < some {
            case(nth * stride);
        }
        u64::from(nth < some)
    };
    let done = crew::each(0, Until::all(some), counted, repeat);
    println!("failpoints of the log and its queues, before and after: {done}; there are {all}");
}
