//! What a log says of itself, in exact numbers.

use super::*;
use crate::log::compaction::Thrift;

#[test]
fn a_log_is_told_in_numbers() {
    const SEGMENT: u64 = 64 << 10;
    let mut bench = Bench::new();
    bench.options.budget_bytes = 20 * SEGMENT;
    let log = bench.open();
    for n in 0..20 {
        append(&log, "a", n, 4000, 2);
        append(&log, "b", n, 4000, 1);
    }
    log.housekeep();
    log.trim(log.stream("a").expect("known"), 40);
    let stats = log.stats();
    assert_eq!(
        (stats.appends, stats.commits, stats.streams, stats.segments),
        (40, 40, 2, 3),
        "sixteen frames a segment"
    );
    // Three segments, the reserve and one more; a tenth of twenty is two, which is the least that is shared.
    let bytes = (stats.bytes_used, stats.bytes_limit, stats.short_at_bytes, stats.ahead_bytes);
    assert_eq!(bytes, (5 * SEGMENT, 20 * SEGMENT, 18 * SEGMENT, 4 * SEGMENT));
    assert_eq!((stats.needed_bytes, stats.pinned_bytes), (80_000, 2 * SEGMENT - 80_000), "of two that are sealed");
    assert_eq!((stats.share_bytes, stats.housekeeping_errors, stats.damages), (None, 0, 0));
    log.set_budget_bytes(20 * SEGMENT - 1);
    assert_eq!(log.stats().short_at_bytes, 20 * SEGMENT - 1, "too small to be shared");
}

#[test]
fn room_is_taken_ahead_at_a_start_and_by_housekeeping_up_to_one_beyond_the_reserve() {
    let bench = Bench::new();
    let used = |log: &Log| log.stats().bytes_used / (64 << 10);
    for spares in [1, 2, 2] {
        assert_eq!(used(&bench.open()), spares);
    }
    let log = bench.open();
    log.housekeep();
    assert_eq!(used(&log), 2);
    // The one that it takes is made good, under a number that none of those has which were found.
    append(&log, "a", 1, 10, 1);
    log.housekeep();
    assert_eq!((used(&log), log.stats().housekeeping_errors), (3, 0));
}

#[test]
fn a_backlog_goes_by_the_average_where_it_is_not_known_what_was_trimmed() {
    let log = Bench::new().open();
    append(&log, "a", 1, 100, 3);
    append(&log, "a", 1, 50, 2);
    let a = log.stream("a").expect("known");
    let backlog = || log.streams()[0].backlog_bytes;
    log.trim(a, 1);
    assert_eq!(backlog(), 120, "a fifth of it went");
    log.trim(a, 3);
    assert_eq!(backlog(), 60, "half of the rest");
    assert_eq!((log.keep(a, 1), backlog()), (1, 120), "a third of what had gone");
    log.trim(a, 99);
    assert_eq!((backlog(), log.stats().needed_bytes), (0, 0));
}

/// So many hundredths of what is needed may lie there, and a segment more; on a short disk no more than a quarter of its last tenth.
#[test]
fn much_that_nobody_needs_is_more_than_so_much_and_a_segment() {
    const SEGMENT: u64 = 64 << 10;
    let log = Bench::new().open();
    append(&log, "a", 1, 51_200, 1);
    (0..4).for_each(|_| _ = append(&log, "b", 1, 20_000, 1));
    log.housekeep();
    log.trim(log.stream("b").expect("known"), u64::MAX);
    assert_eq!(log.shared.sealed_and_needed(), (2 * SEGMENT, 51_200));
    // 512 × 128 are just a segment.
    let holds_much = |worth, of: Thrift| log.shared.holds_much_that_nobody_needs(Thrift { worth, ..of });
    assert_eq!([128, 127].map(|worth| holds_much(worth, Thrift::USUAL)), [false, true]);
    // Of 79,872 bytes that nobody needs.
    for (budget, expected) in [(3_194_880, false), (3_194_870, true)] {
        log.shared.set_budget(budget);
        assert_eq!([Thrift::USUAL, Thrift::SHORT].map(|of| holds_much(128, of)), [false, expected], "{budget}");
    }
}
