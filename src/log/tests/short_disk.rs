//! What goes and who is refused on a short disk, to the segment.

use super::*;

const SEGMENT: u64 = 4 << 10;

/// Forty segments: the disk is short when more than 36 are in use.
fn bench() -> Bench {
    let mut bench = Bench::new();
    (bench.options.segment_bytes, bench.options.tail_cache_bytes) = (SEGMENT as u32, 0);
    bench.options.budget_bytes = 40 * SEGMENT;
    bench
}

/// Appends that take a segment each, with little beside it that is not needed.
fn fill_segments(log: &Log, stream: &str, segments: u64) {
    (0..segments).for_each(|_| _ = append(log, stream, 1, 3_800, 1));
}

/// Four are a tenth of the budget: more would go in any case.
#[test]
fn what_is_only_kept_for_replay_goes_when_the_disk_is_short_and_not_before() {
    let mut bench = bench();
    bench.options.replay_window = Duration::from_secs(3_600);
    let log = bench.open();
    fill_segments(&log, "kept", 29);
    fill_segments(&log, "replayed", 4);
    fill_segments(&log, "kept", 1);
    log.trim(log.stream("replayed").expect("known"), u64::MAX);
    log.housekeep();
    assert_eq!((log.stats().bytes_used, log.stats().segments_reclaimed), (36 * SEGMENT, 0), "with two taken ahead");
    fill_segments(&log, "kept", 1);
    log.housekeep();
    assert_eq!(log.stats().segments_reclaimed, 4);
    assert_eq!(read(&log, "kept", 0).len(), 31);
}

/// Of the last tenth one segment is gone; of the rest one is taken ahead, so that two of three are left.
#[test]
fn on_a_short_disk_whoever_holds_more_than_what_is_left_in_proportion_is_refused() {
    for told in [true, false] {
        let bench = bench();
        let log = bench.open();
        fill_segments(&log, "a", 34);
        if told {
            log.trim(log.stream("a").expect("known"), 0);
        }
        log.housekeep();
        assert_eq!((log.stats().bytes_used, log.stats().share_bytes), (36 * SEGMENT, None));
        fill_segments(&log, "a", 1);
        log.housekeep();
        if !told {
            bench.clock.advance(limits::SHARES_UNTOLD - Duration::from_millis(1));
            log.housekeep();
            assert_eq!(log.stats().share_bytes, None, "nobody said yet what is needed");
            bench.clock.advance(Duration::from_millis(1));
            log.housekeep();
        }
        // Of 35 × 3,800 bytes, and of 34 × 240 that nobody needs beside them, two thirds.
        assert_eq!(log.stats().share_bytes, Some(94_106));
        let refused = log.refuses("a");
        assert!(matches!(refused, Some(AppendError::OverShare { held: 141_160, share: 94_106 })), "{refused:?}");
        assert!(log.refuses("b").is_none() && log.refuses("!dead/x").is_none());
    }
}

#[test]
fn who_holds_just_its_share_is_taken_and_who_lets_go_on_a_short_disk_has_that_looked_at() {
    let log = bench().open();
    fill_segments(&log, "a", 2);
    let a = log.stream("a").expect("known");
    for (share, refused) in [(7_600, false), (7_599, true)] {
        log.shared.share.store(share, Ordering::SeqCst);
        assert_eq!(log.refuses("a").is_some(), refused, "7,600 of {share}");
    }
    log.shared.share.store(NO_SHARE, Ordering::SeqCst);
    log.trim(a, 1);
    assert!(!wants_housekeeping(&log), "nobody waits for it");
    log.shared.share.store(1, Ordering::SeqCst);
    log.trim(a, 2);
    assert!(wants_housekeeping(&log));
}

/// It is what a disk that holds more than its budget is drained with.
#[test]
fn the_reserve_is_made_good_by_the_first_segment_that_goes_though_there_is_no_room() {
    let log = bench().open();
    fill_segments(&log, "a", 10);
    assert_eq!(log.set_budget_bytes(0), 4 * SEGMENT);
    assert_eq!(log.stats().bytes_used, 11 * SEGMENT, "of what was taken ahead the reserve alone is left");
    append(&log, "!ours", 1, 100, 1);
    assert_eq!((log.stats().segments, log.stats().bytes_used), (11, 11 * SEGMENT), "it is made of the reserve");
    log.trim(log.stream("a").expect("known"), 1);
    log.housekeep();
    assert_eq!((log.stats().segments, log.stats().bytes_used), (10, 11 * SEGMENT));
}

#[test]
fn a_budget_that_was_told_already_asks_for_no_housekeeping_and_another_one_does() {
    let bench = bench();
    let log = bench.open();
    log.shared.housekeep_if_wanted(); // as it may be after a start
    log.shared.set_budget(bench.options.budget_bytes);
    assert!(!wants_housekeeping(&log));
    log.shared.set_budget(bench.options.budget_bytes - 1);
    assert!(wants_housekeeping(&log));
}

/// Whoever says so waits for no disk: the log's own thread gives back what is too much.
#[test]
fn a_budget_that_is_lowered_is_kept_by_the_logs_own_thread_where_it_has_one() {
    let mut bench = bench();
    bench.options.inline = false;
    let log = bench.open();
    (0..3).for_each(|_| _ = append(&log, "a", 1, 3_800, 1));
    log.housekeep(); // with two ahead
    let used = log.stats().bytes_used;
    assert_eq!(log.set_budget_bytes(used - 1), used - 1);
    while log.stats().bytes_used >= used {
        std::thread::yield_now();
    }
    assert_eq!(log.stats().bytes_used, used - SEGMENT, "one that was taken ahead");
    log.close().expect("closed");
}
