//! Ranges that are read a frame at a time: of a queue, of its replay, and of one that is gone.

use super::*;

/// All of a range, and the largest number of frames that were held at once is one.
fn read(queue: &Queue, range: &Batch) -> Vec<(Range<u64>, Vec<u8>)> {
    let mut reader = queue.read(range);
    let mut all = Vec::new();
    while let Some(slice) = reader.next().expect("memory reads") {
        all.push((slice.offsets, slice.frame.payload().to_vec()));
    }
    all
}

#[test]
fn a_range_has_the_boundaries_that_a_batch_would_have_and_reads_the_same_every_time() {
    let disk = mem();
    let queues = open(&disk);
    let queue = hook(&queues);
    let twin = queues.queue("twin", "acme", Start::Earliest).expect("it is made");
    (0..10).for_each(|n| append(&queues, "acme", 5 + n * 3));
    let mut batches = Vec::new();
    for limits in [of_records(7), BatchLimits { bytes_max: 333, ..ANY }, BatchLimits { bytes_max: 3, ..ANY }, ANY] {
        let batch = twin.next_batch(limits).expect("memory reads").expect("more");
        let range = queue.next_range(limits.into()).expect("memory reads").expect("more");
        assert_eq!((&range.offsets, range.bytes, range.slices.len()), (&batch.offsets, batch.bytes, 0));
        let slices = batch.slices.iter().map(|slice| (slice.offsets.clone(), slice.frame.payload().to_vec()));
        assert_eq!(read(&queue, &range), slices.collect::<Vec<_>>());
        assert_eq!(read(&queue, &range), read(&queue, &range));
        plan(&queue, &range);
        if limits != ANY {
            queue.settle(&range, Settled::Delivered);
        }
        batches.push(batch);
    }
    let last = queue.cursor().low;
    queues.tick().expect("memory writes");
    assert!(queue.balance().closes());
    drop((queue, twin, queues));

    let queues = open(&disk);
    let queue = hook(&queues);
    assert!(queue.waiting().expect("memory reads").comes_again);
    let again = queue.next_range(of_records(1).into()).expect("memory reads").expect("the planned one");
    assert_eq!((again.offsets.clone(), again.planned), (last..185, true));
    assert_eq!(read(&queue, &again).last().map(|(offsets, _)| offsets.end), Some(185));
    queue.settle_parts(&again, &[(180..182, Settled::Held)], Settled::Delivered);
    assert!(queue.balance().closes() && queue.lag().records == 0);
}

#[test]
fn a_range_never_spans_two_hours_of_receiving() {
    const HOUR: u64 = 3_600_000;
    let disk = mem();
    let clock = ManualClock::at(HOUR * 1_000 - 10);
    let queues = open_with(&disk, &clock, QueueOptions::inline());
    let queue = hook(&queues);
    for _ in 0..3 {
        append(&queues, "acme", 10);
        append(&queues, "acme", 10);
        clock.advance(Duration::from_millis(HOUR / 2 + 10));
    }
    let limits = RangeLimits { partition_ms: Some(HOUR), ..ANY.into() };
    let hours: Vec<Batch> = std::iter::from_fn(|| queue.next_range(limits).expect("memory reads")).collect();
    assert_eq!(hours.iter().map(|range| range.offsets.clone()).collect::<Vec<_>>(), [0..20, 20..40, 40..60]);
}

#[test]
fn a_range_is_claimed_without_its_payloads_and_read_one_frame_at_a_time() {
    const FRAMES: usize = 200;
    let counted = CountedDisk::new(mem());
    let log = LogOptions { segment_bytes: 1 << 20, budget_bytes: 64 << 20, tail_cache_bytes: 0, ..LogOptions::small() };
    let (shared, clock) = (Arc::new(counted.clone()), Arc::new(ManualClock::at(0)));
    let queues = Queues::open(shared, clock, Path::new("data"), log, QueueOptions::inline()).expect("it opens");
    let queue = hook(&queues);
    for _ in 0..FRAMES {
        let payload = Payload { bytes: vec![1; 50_000], records: 100 };
        queues.log().append_wait("acme", vec![payload]).expect("it is taken");
    }
    let before = counted.counts();
    let waiting = queue.waiting().expect("memory reads");
    assert_eq!((waiting.records, waiting.bytes), (20_000, 10_000_000));
    assert!((counted.counts() - before).bytes_read < 1_000, "what waits is known without reading it");
    let first = queue.next_range(of_records(100).into()).expect("memory reads").expect("a frame");
    let claimed = (counted.counts() - before).bytes_read;
    assert!(claimed < 1_000, "{claimed} bytes for the header of one frame: nothing behind it is looked at");
    queue.settle(&first, Settled::Delivered);
    let range = queue.next_range(ANY.into()).expect("memory reads").expect("all");
    let claimed = (counted.counts() - before).bytes_read;
    assert!(claimed < FRAMES as u64 * 200, "{claimed} bytes for the headers and indexes");
    let mut reader = queue.read(&range);
    let mut slices = 0;
    while let Some(slice) = reader.next().expect("memory reads") {
        slices += 1;
        assert_eq!(Arc::strong_count(&slice.frame) - 1, usize::from(slices > 0), "only the log's cache has it as well");
    }
    assert_eq!((range.offsets.clone(), slices), (100..20_000, FRAMES - 1));
    let before = counted.counts();
    queue.settle(&range, Settled::Delivered);
    assert_eq!((counted.counts() - before).bytes_read, 0, "settling knows both ends");
    assert!(queue.balance().closes() && queue.balance().delivered.bytes == 10_000_000);
}

#[test]
fn whether_a_batch_would_fill_is_known_without_what_is_handed_out() {
    let disk = mem();
    let queues = open(&disk);
    let queue = hook(&queues);
    assert!(!queue.has_records(0), "no stream yet");
    append(&queues, "acme", 10);
    assert!(queue.has_records(10) && !queue.has_records(11));
    let batch = next(&queue, 4);
    assert!(queue.has_records(6) && !queue.has_records(7));
    queue.release(&batch);
    assert!(queue.has_records(1000), "it comes again as it was");
}

#[test]
fn what_waits_is_told_without_what_is_handed_out() {
    let disk = mem();
    let clock = ManualClock::at(1_000);
    let queues = open_with(&disk, &clock, QueueOptions::inline());
    let queue = hook(&queues);
    assert_eq!(queue.waiting().expect("memory reads"), Waiting::default());
    append(&queues, "acme", 10);
    clock.advance(Duration::from_secs(1));
    append(&queues, "acme", 10);
    let told = || queue.waiting().expect("memory reads");
    let all = Waiting { records: 20, bytes: 200, oldest_ingest_ms: Some(1_000), ..Waiting::default() };
    assert_eq!(told(), all);
    let first = next(&queue, 10);
    let rest = Waiting { records: 10, bytes: 100, oldest_ingest_ms: Some(2_000), ..Waiting::default() };
    assert_eq!(told(), rest);
    queue.release(&first);
    assert_eq!(told(), Waiting { comes_again: true, ..rest });
    queue.settle_range(15..20, Settled::Purged);
    append(&queues, "acme", 10);
    let bounded = Waiting { records: 5, bytes: 50, comes_again: true, bounded: true, ..rest };
    assert_eq!(told(), bounded);
    queue.settle(&first, Settled::Delivered);
    assert_eq!(told(), Waiting { comes_again: false, ..bounded });
    assert_eq!(next(&queue, 99).offsets, 10..15);
    assert_eq!((told().records, told().bounded), (10, false));
}

#[test]
fn a_range_that_is_split_is_two_ranges() {
    let disk = mem();
    let queues = open(&disk);
    let queue = hook(&queues);
    (0..10).for_each(|_| append(&queues, "acme", 10));
    let range = queue.next_range(ANY.into()).expect("memory reads").expect("all");
    plan(&queue, &range);
    let halves = Arc::new(Mutex::new(None));
    let heard = Arc::clone(&halves);
    queue.split(&range, 33, Box::new(move |result| *heard.lock().expect("one thread") = result.ok()));
    let [first, second] = halves.lock().expect("one thread").take().expect("memory writes");
    assert_eq!((first.bytes, second.bytes, &second.offsets), (330, 670, &(33..100)));
    assert_eq!(read(&queue, &second).first().map(|(offsets, _)| offsets.clone()), Some(33..40));
    queue.settle(&second, Settled::Delivered);
    assert_eq!(queue.balance().delivered.bytes, 670);
    queues.tick().expect("memory writes");
    drop((queue, queues));
    let queues = open(&disk);
    let again = hook(&queues).next_range(ANY.into()).expect("memory reads").expect("the first half");
    assert_eq!((again.id, again.offsets), (first.id, 0..33));
}

#[test]
fn a_range_that_nobody_else_knows_of_is_made_shorter_and_what_was_left_of_it_is_fresh() {
    let queues = open(&mem());
    let queue = hook(&queues);
    (0..10).for_each(|_| append(&queues, "acme", 10));
    let claim = |limits: BatchLimits| queue.next_range(limits.into()).expect("memory reads").expect("something waits");
    let shorten = |range: &Batch, at| queue.shorten(range, at).expect("memory reads");
    let (range, behind) = (claim(of_records(60)), claim(of_records(20)));
    assert!([0, 60, 99].into_iter().all(|at| shorten(&range, at).is_none()), "it would be none, the same, or longer");
    let shorter = shorten(&range, 25).expect("nobody else knows of it");
    assert_eq!((&shorter.offsets, shorter.bytes, shorter.planned), (&(0..25), 250, false));
    assert_eq!(Some(&shorter.id), queue.batch_id(0..25).as_ref());
    assert!(shorten(&range, 20).is_none(), "it is no more");
    let rest = claim(ANY);
    assert_eq!((&rest.offsets, claim(ANY).offsets), (&(25..60), 80..100), "around what is handed out");
    plan(&queue, &rest);
    assert!(shorten(&rest, 30).is_none(), "its boundaries are durable");
    queue.release(&shorter);
    assert!(shorten(&shorter, 10).is_none(), "nobody has it");
    assert_eq!(claim(of_records(1)).id, shorter.id, "it comes again as it was made");
    [&shorter, &behind, &rest].into_iter().for_each(|batch| queue.settle(batch, Settled::Delivered));
    assert_eq!((queue.balance().delivered.records, queue.cursor().low), (80, 80));
    assert!(queue.balance().closes());
}

/// Before: the log was asked for each end of each part, while the window was locked: of a filter's parts ten thousand times.
#[test]
fn parts_of_a_range_settle_with_a_look_at_each_frame_and_not_at_each_part() {
    const FRAMES: u64 = 20;
    let counted = CountedDisk::new(mem());
    let log = LogOptions { segment_bytes: 1 << 20, budget_bytes: 64 << 20, tail_cache_bytes: 0, ..LogOptions::small() };
    let (shared, clock) = (Arc::new(counted.clone()), Arc::new(ManualClock::at(0)));
    let queues = Queues::open(shared, clock, Path::new("data"), log, QueueOptions::inline()).expect("it opens");
    let queue = hook(&queues);
    (0..FRAMES).for_each(|_| append(&queues, "acme", 500));
    let range = queue.next_range(ANY.into()).expect("memory reads").expect("all");
    let parts: Vec<_> = (0..FRAMES * 250).map(|n| (n * 2..n * 2 + 1, Settled::Filtered)).collect();
    let before = counted.counts();
    queue.settle_parts(&range, &parts, Settled::Delivered);
    let reads = (counted.counts() - before).reads;
    assert!(reads <= 2 * FRAMES, "{reads} reads");
    let balance = queue.balance();
    assert_eq!((balance.filtered.bytes, balance.delivered.bytes), (50_000, 50_000), "to the byte");
    assert!(balance.closes());
}

fn replay_of_ten(queues: &Queues) -> Queue {
    let queue = hook(queues);
    append(queues, "acme", 10);
    let batch = next(&queue, 10);
    plan(&queue, &batch);
    queue.settle(&batch, Settled::Delivered);
    let request = ReplayRequest { from: ReplayFrom::Earliest, to: None, mode: ReplayMode::Fill };
    queues.replay("hook", "acme", request).expect("ten records are settled")
}

/// Before: of a replay this was an id with the replay's name in it, which no batch has.
#[test]
fn the_id_that_a_batch_of_a_replay_would_have_is_its_destinations() {
    let queues = open(&mem());
    let replay = replay_of_ten(&queues);
    assert_eq!(replay.batch_id(3..4), hook(&queues).batch_id(3..4));
    let batch = next(&replay, 10);
    assert_eq!(replay.batch_id(batch.offsets.clone()), Some(batch.id));
}

/// Before: what came to the stream after its end counted as well.
#[test]
fn a_replay_that_is_handed_out_has_no_records_whatever_comes_to_the_stream() {
    let queues = open(&mem());
    let replay = replay_of_ten(&queues);
    append(&queues, "acme", 100);
    let _out = next(&replay, 10);
    assert!(!replay.has_records(1) && hook(&queues).has_records(100));
}

/// Before: whoever was at work on a range of a queue that was deleted, or of a replay that was cancelled, panicked when it
/// tried once more.
#[test]
fn a_range_of_a_queue_that_is_gone_is_read_as_far_as_it_is_kept_and_settles_nothing() {
    let queues = open(&mem());
    let replay = replay_of_ten(&queues);
    let range = replay.next_range(ANY.into()).expect("memory reads").expect("ten records");
    queues.cancel_replay("hook", "acme").expect("memory writes").expect("it was under way");
    assert_eq!(read(&replay, &range).len(), 1, "the records are still kept");
    replay.settle(&range, Settled::Delivered);
    assert_eq!(replay.balance().delivered.records, 0);

    let queue = hook(&queues);
    append(&queues, "acme", 10);
    let range = queue.next_range(ANY.into()).expect("memory reads").expect("ten records");
    let mut begun = queue.read(&range);
    queues.delete("hook", None).expect("memory writes");
    for _ in 0..200 {
        append(&queues, "acme", 100); // until its segment is used again
        queues.tick().expect("memory writes");
    }
    assert!(matches!(begun.next(), Err(RangeError::Lost { .. })), "it is no longer kept");
    assert!(matches!(queue.read(&range).next(), Err(RangeError::Lost { .. })));
    assert_eq!(queue.balance().lost.records, 0, "nothing that anybody waits for is lost");
}

/// Before: it was made shorter while its plan was on its way, or had failed and might be durable all the same; whoever had asked
/// for the plan would have sent what was handed out a second time.
#[test]
fn a_range_is_not_made_shorter_once_a_plan_was_asked_for() {
    let queues = open(&mem());
    let queue = hook(&queues);
    append(&queues, "acme", 10);
    let claim = || queue.next_range(ANY.into()).expect("memory reads").expect("something waits");
    let range = claim();
    queues.log().close().expect("memory writes");
    queue.plan(&range, Box::new(|planned| assert!(planned.is_err(), "a log that is closed takes none")));
    assert!(queue.shorten(&range, 5).expect("memory reads").is_none());
    queue.release(&range);
    let again = claim();
    assert_eq!(again.id, range.id);
    assert!(queue.shorten(&again, 5).expect("memory reads").is_none(), "nor after it was given back");
}
