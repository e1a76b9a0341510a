//! A queue that is handed out at two positions.

use super::hooked_disk::HookedDisk;
use super::*;

const FRESH_MS: u64 = 60_000;

fn open_at(disk: &Arc<dyn Disk>, clock: &ManualClock) -> Queues {
    open_with(disk, clock, QueueOptions::inline())
}

/// Drains a handle, and says what came.
fn drain(queue: &Queue) -> Vec<Range<u64>> {
    let next = || queue.next_batch(of_records(7)).expect("memory reads");
    std::iter::from_fn(next).inspect(|batch| queue.settle(batch, Settled::Delivered)).map(|b| b.offsets).collect()
}

#[test]
fn after_a_restart_live_goes_on_where_it_was_if_that_is_fresh_and_no_record_comes_twice() {
    let (disk, clock) = (mem(), ManualClock::at(1_000_000));
    let queues = open_at(&disk, &clock);
    let queue = hook(&queues);
    append(&queues, "acme", 100);
    clock.advance(Duration::from_secs(3_600));
    assert!(queue.part(FRESH_MS));
    append(&queues, "acme", 30);
    assert_eq!(queue.front(), Some(Front { taken_in_ms: 4_600_000, age_ms: 0, ranges: 0 }));
    let live = queue.live().next_batch(of_records(20)).expect("memory reads").expect("it came since");
    queue.settle(&live, Settled::Delivered);
    queues.close().expect("memory closes");
    drop((queue, queues));

    let queues = open_at(&disk, &clock);
    let queue = hook(&queues);
    assert!(queue.live().next_batch(ANY).expect("memory reads").is_none(), "it is not parted yet");
    clock.advance(Duration::from_secs(5));
    assert!(queue.part(FRESH_MS));
    assert_eq!(drain(&queue.live()).first(), Some(&(120..127)), "behind what live had delivered");
    let lag = queue.lag();
    assert_eq!((lag.records, lag.oldest_age_ms, lag.live_age_ms), (100, Some(3_605_000), Some(0)));
    assert_eq!(drain(&queue.backlog()).len(), 15);
    assert_eq!(queue.balance().delivered.records, 130);
    assert!(queue.balance().closes());
}

#[test]
fn what_waited_through_a_long_stop_is_backlog() {
    let (disk, clock) = (mem(), ManualClock::at(1_000_000));
    let queues = open_at(&disk, &clock);
    let queue = hook(&queues);
    append(&queues, "acme", 100);
    queue.part(FRESH_MS);
    append(&queues, "acme", 30);
    let live = queue.live().next_batch(of_records(20)).expect("memory reads").expect("it came since");
    queue.settle(&live, Settled::Delivered);
    queues.close().expect("memory closes");
    drop((queue, queues));

    clock.advance(Duration::from_secs(3_600));
    let queues = open_at(&disk, &clock);
    let queue = hook(&queues);
    assert!(queue.part(FRESH_MS));
    assert!(!queue.live().has_more());
    append(&queues, "acme", 5);
    let live = drain(&queue.live());
    assert_eq!((live.len(), live[0].clone()), (1, 130..135));
    assert_eq!(drain(&queue.backlog()).iter().map(|offsets| offsets.end - offsets.start).sum::<u64>(), 110);
    assert_eq!((queue.lag().records, queue.cursor().low), (0, 135));
}

#[test]
fn the_age_of_what_is_fresh_is_told_beside_that_of_the_oldest() {
    let (disk, clock) = (mem(), ManualClock::at(1_000_000));
    let queues = open_at(&disk, &clock);
    let queue = hook(&queues);
    append(&queues, "acme", 10);
    clock.advance(Duration::from_secs(100));
    let oldest = Front { taken_in_ms: 1_000_000, age_ms: 100_000, ranges: 0 };
    assert_eq!(queue.front(), Some(oldest), "of one position the oldest");
    queue.part(FRESH_MS);
    assert_eq!((queue.front(), queue.lag().live_age_ms), (None, Some(0)));
    append(&queues, "acme", 10);
    clock.advance(Duration::from_secs(1));
    let lag = queue.lag();
    assert_eq!((lag.oldest_age_ms, lag.live_age_ms), (Some(101_000), Some(1_000)));
    assert_eq!(
        (queue.live().pending().records, queue.backlog().pending().bytes, queue.pending().bytes),
        (10, 100, 200)
    );
}

#[test]
fn a_handle_that_knows_one_position_takes_all_that_there_is() {
    let disk = mem();
    let queues = open(&disk);
    let queue = hook(&queues);
    append(&queues, "acme", 10);
    queue.part(0);
    append(&queues, "acme", 10);
    assert_eq!(next(&queue, 100).offsets, 0..20, "as if it had never been parted");
    assert!(!queue.live().has_more() && queue.lag().live_age_ms.is_none());
}

#[test]
fn each_position_waits_and_fills_by_itself() {
    let (disk, clock) = (mem(), ManualClock::at(1_000_000));
    let queues = open_at(&disk, &clock);
    let queue = hook(&queues);
    append(&queues, "acme", 10);
    queue.part(0);
    clock.advance(Duration::from_secs(9));
    append(&queues, "acme", 4);
    let live = queue.live().waiting().expect("memory reads");
    assert_eq!((live.records, live.bytes, live.bounded, live.oldest_ingest_ms), (4, 40, false, Some(1_009_000)));
    let old = queue.backlog().waiting().expect("memory reads");
    assert_eq!((old.records, old.bytes, old.bounded, old.oldest_ingest_ms), (10, 100, true, Some(1_000_000)));
    assert!(queue.live().has_records(4) && !queue.live().has_records(5) && !queue.backlog().has_records(11));
    let range = queue.live().next_range(ANY.into()).expect("memory reads").expect("four wait");
    queue.live().release(&range);
    assert!(queue.live().waiting().expect("memory reads").comes_again);
    assert!(!queue.backlog().waiting().expect("memory reads").comes_again);
}

#[test]
fn giving_up_and_purging_begin_with_the_oldest_whichever_position_it_is_of() {
    let (disk, clock) = (mem(), ManualClock::at(1_000_000));
    let queues = open_at(&disk, &clock);
    let queue = hook(&queues);
    append(&queues, "acme", 10);
    queue.part(0);
    append(&queues, "acme", 10);
    append(&queues, "acme", 10);
    let live = queue.live().next_batch(of_records(5)).expect("memory reads").expect("it came since");
    queue.settle(&live, Settled::Delivered);
    assert_eq!(queue.drop_oldest(Much::Bytes(40), u64::MAX).expect("memory reads").records, 4);
    assert_eq!(queue.mark_oldest(Much::Bytes(30)).expect("memory reads").records, 3);
    assert_eq!(queue.cursor().low, 7);
    assert_eq!(next(&queue.backlog(), 10).offsets, 7..10);
    assert_eq!(queue.mark_oldest(Much::Bytes(30)).expect("memory reads").records, 3, "15 to 18: the oldest nobody had");
    assert_eq!(queue.purge(0..20).expect("memory reads").records, 5, "7 to 10 were out, 18 to 20 were not");
    assert_eq!((queue.cursor().low, next(&queue.backlog(), 100).offsets), (20, 20..30));
    assert!(queue.balance().closes());
}

/// A log that keeps nothing in memory of what it wrote.
fn open_cold(disk: Arc<dyn Disk>) -> Queues {
    let log = LogOptions { segment_bytes: 8 << 10, budget_bytes: 1 << 20, tail_cache_bytes: 0, ..LogOptions::small() };
    let clock = Arc::new(ManualClock::at(1_000_000));
    Queues::open(disk, clock, Path::new("data"), log, QueueOptions::inline()).expect("it opens")
}

/// Before: whoever asked for an age read the disk with the ages locked, and a loop that only asked whether it could go on without
/// the disk waited for that read.
#[test]
fn nobody_waits_for_the_read_of_an_age() {
    let disk = Arc::new(HookedDisk::new());
    let queues = open_cold(Arc::clone(&disk) as Arc<dyn Disk>);
    let queue = hook(&queues);
    append(&queues, "acme", 10);
    let (theirs, reads, waits) = (queue.clone(), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let counts = (Arc::clone(&reads), Arc::clone(&waits));
    disk.before_reads(Some(Box::new(move || {
        counts.0.fetch_add(1, Ordering::SeqCst);
        counts.1.fetch_add(usize::from(theirs.inner.ages.try_lock().is_err()), Ordering::SeqCst);
    })));
    assert!(!queue.front_in_memory());
    assert_eq!(queue.front().map(|front| front.age_ms), Some(0));
    assert!(queue.front_in_memory() && queue.lag().oldest_age_ms == Some(0));
    disk.before_reads(None);
    assert!(reads.load(Ordering::SeqCst) > 0 && waits.load(Ordering::SeqCst) == 0);
}

/// Before: with two positions the age of the oldest record was read from the disk again and again.
#[test]
fn the_age_of_the_oldest_is_read_once_however_many_others_are_asked_for() {
    let disk = Arc::new(CountedDisk::new(mem()));
    let queues = open_cold(Arc::clone(&disk) as Arc<dyn Disk>);
    let queue = hook(&queues);
    append(&queues, "acme", 10);
    queue.part(0);
    (0..20).for_each(|_| append(&queues, "acme", 10));
    assert_eq!(queue.lag().oldest_age_ms, Some(0));
    for _ in 0..20 {
        assert!(queue.front().is_some());
        let before = disk.counts();
        let lag = queue.lag();
        assert_eq!((lag.oldest_age_ms, lag.live_age_ms, (disk.counts() - before).reads), (Some(0), Some(0), 0));
        let live = queue.live().next_batch(of_records(10)).expect("memory reads").expect("more came since");
        let before = disk.counts();
        assert_eq!((queue.lag().live_age_ms, (disk.counts() - before).reads), (Some(0), 0), "a batch tells its age");
        queue.settle(&live, Settled::Delivered);
    }
}

/// Before: as long as nobody asked what was next (its destination was paused), live was told of as if it still went beside.
#[test]
fn where_they_have_met_nothing_is_told_of_two_positions() {
    let queues = open(&mem());
    let queue = hook(&queues);
    append(&queues, "acme", 10);
    queue.part(0);
    append(&queues, "acme", 10);
    assert!(queue.is_parted() && queue.lag().live_age_ms.is_some());
    queue.settle_range(0..12, Settled::Delivered);
    assert_eq!((queue.lag().records, queue.lag().live_age_ms), (8, None));
    assert_eq!((queue.live().pending(), queue.backlog().pending()), (Count::default(), queue.pending()));
    assert!(!queue.is_parted() && queue.backlog().has_records(8));
}

/// Before: the frame that live had come to was kept until the queue was behind again, and counted against what all may keep.
#[test]
fn where_they_have_met_nothing_is_kept_of_what_live_read() {
    let queues = open_cold(mem());
    let queue = hook(&queues);
    append(&queues, "acme", 10);
    queue.part(0);
    append(&queues, "acme", 10);
    for queue in [queue.live(), queue.backlog()] {
        while queue.has_more() {
            queue.settle(&next(&queue, 7), Settled::Delivered);
        }
    }
    let held = || queue.inner.context.held_bytes.load(Ordering::SeqCst);
    assert!(held() > 0 && !queue.is_parted());
    assert!(queue.next_batch(ANY).expect("memory reads").is_none());
    assert_eq!(held(), 0);
}

#[test]
fn whether_so_many_bytes_wait_is_told_of_what_nobody_had_at_each_position() {
    let queues = open(&mem());
    let queue = hook(&queues);
    append(&queues, "acme", 10);
    assert!(queue.has_bytes(100) && !queue.has_bytes(101));
    queue.part(0);
    append(&queues, "acme", 5);
    assert!(queue.live().has_bytes(50) && !queue.live().has_bytes(51) && !queue.backlog().has_bytes(101));
    let live = queue.live().next_batch(of_records(3)).expect("memory reads").expect("five came since");
    assert!(queue.live().has_bytes(20) && !queue.live().has_bytes(21), "what is out does not wait");
    queue.settle(&live, Settled::Delivered);
    assert!(queue.live().has_bytes(20) && !queue.live().has_bytes(21));
}

#[test]
fn a_queue_knows_whether_its_next_batch_needs_the_disk() {
    let queues = open_cold(mem());
    let queue = hook(&queues);
    append(&queues, "acme", 10);
    assert!(!queue.ready_in_memory(4));
    let first = next(&queue, 4);
    assert!(queue.ready_in_memory(6), "the frame is at hand");
    queue.settle(&first, Settled::Delivered);
    append(&queues, "acme", 10);
    assert!(queue.ready_in_memory(6) && !queue.ready_in_memory(7), "what is behind it is not");
    queue.release(&next(&queue, 6));
    assert!(queue.ready_in_memory(100), "what comes again is what it was");
    queue.settle(&next(&queue, 6), Settled::Delivered);
    assert!(!queue.ready_in_memory(1), "another frame");
    let _rest = next(&queue, 100);
    assert!(queue.ready_in_memory(1), "nothing waits");
    let warm = open(&mem());
    append(&warm, "acme", 10);
    append(&warm, "acme", 10);
    assert!(hook(&warm).ready_in_memory(100));
    let queue = hook(&warm);
    queue.settle(&next(&queue, 4), Settled::Delivered);
    assert!(queue.ready_in_memory(100), "at hand, and behind it what was just appended");
}
