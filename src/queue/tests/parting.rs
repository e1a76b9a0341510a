//! A queue that is handed out at two positions.

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
    assert_eq!(queue.front(), Some(Front { age_ms: 0, ranges: 0 }));
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
    assert_eq!(queue.front(), Some(Front { age_ms: 100_000, ranges: 0 }), "of one position the oldest");
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
