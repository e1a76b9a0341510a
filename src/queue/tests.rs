use super::*;
use crate::clock::ManualClock;
use crate::disk::Disk;
use crate::disk::counted::CountedDisk;
use crate::disk::mem::MemDisk;
use crate::{LogOptions, Payload};
use std::path::Path;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

mod give_up;
mod handed_out;
mod hooked_disk;
mod marking;
mod meanwhile;
mod parting;
mod ranges;
mod rights;
mod ticks;
mod waking;

const ANY: BatchLimits = BatchLimits { records_max: u64::MAX, bytes_max: u64::MAX };

fn of_records(records_max: u64) -> BatchLimits {
    BatchLimits { records_max, ..ANY }
}

fn open_with(disk: &Arc<dyn Disk>, clock: &ManualClock, options: QueueOptions) -> Queues {
    let log = LogOptions { segment_bytes: 8 << 10, budget_bytes: 1 << 20, ..LogOptions::small() };
    Queues::open(Arc::clone(disk), Arc::new(clock.clone()), Path::new("data"), log, options).expect("it opens")
}

fn open(disk: &Arc<dyn Disk>) -> Queues {
    open_with(disk, &ManualClock::at(1_000_000), QueueOptions::inline())
}

fn mem() -> Arc<dyn Disk> {
    Arc::new(MemDisk::new())
}

/// Appends one frame of ten-byte records.
fn append(queues: &Queues, stream: &str, records: u32) {
    let bytes = (0..records * 10).map(|n| n as u8).collect();
    queues.log().append_wait(stream, vec![Payload { bytes, records }]).expect("it is taken");
}

fn hook(queues: &Queues) -> Queue {
    queues.queue("hook", "acme", Start::Earliest).expect("it is made")
}

fn next(queue: &Queue, records: u64) -> Batch {
    queue.next_batch(of_records(records)).expect("memory reads").expect("something waits")
}

/// Plans at once.
fn plan(queue: &Queue, batch: &Batch) {
    let heard = Arc::new(AtomicUsize::new(0));
    let theirs = Arc::clone(&heard);
    queue.plan(
        batch,
        Box::new(move |result| {
            result.expect("the plan is durable");
            theirs.fetch_add(1, Ordering::SeqCst);
        }),
    );
    assert_eq!(heard.load(Ordering::SeqCst), 1);
}

#[test]
fn records_come_in_order_and_settle_out_of_order_and_a_restart_goes_on_behind_them() {
    let disk = mem();
    let queues = open(&disk);
    let queue = hook(&queues);
    (0..10).for_each(|_| append(&queues, "acme", 10));
    let batches: Vec<_> = (0..4).map(|_| next(&queue, 25)).collect();
    assert_eq!(batches.iter().map(|batch| batch.offsets.clone()).collect::<Vec<_>>(), [0..25, 25..50, 50..75, 75..100]);
    assert_eq!(batches[1].slices.len(), 3);
    assert_eq!(batches[1].bytes, 250);
    assert!(!queue.has_more());
    assert!(queue.next_batch(ANY).expect("memory reads").is_none());
    for n in [3, 1, 0] {
        queue.settle(&batches[n], Settled::Delivered);
    }
    assert_eq!((queue.cursor().low, queue.lag().records, queue.lag().bytes, queue.lag().in_flight), (50, 25, 250, 25));
    queues.close().expect("memory closes");
    drop((queue, queues));

    let queues = open(&disk);
    let queue = hook(&queues);
    assert_eq!(next(&queue, 100).offsets, 50..75);
    let balance = queue.balance();
    assert!(balance.closes(), "{balance:?}");
    assert_eq!((balance.accepted.bytes, balance.delivered.records, balance.pending.bytes), (1000, 75, 250));
}

#[test]
fn limits_hold_in_records_and_bytes_and_a_single_record_is_always_taken() {
    let disk = mem();
    let queues = open(&disk);
    let queue = hook(&queues);
    append(&queues, "acme", 100);
    let bytes = |bytes_max| BatchLimits { bytes_max, ..ANY };
    let batches = [bytes(95), bytes(3), bytes(100), of_records(7), of_records(0), ANY]
        .map(|limits| queue.next_batch(limits).expect("memory reads").expect("more"));
    assert_eq!(batches.map(|batch| batch.bytes), [90, 10, 100, 70, 10, 720]);
    // Of a frame of which no record fits any more a batch has none, not even an empty slice.
    let queue = queues.queue("late", "acme", Start::Now).expect("it is made");
    (0..3).for_each(|_| append(&queues, "acme", 10));
    let full = queue.next_batch(bytes(100)).expect("memory reads").expect("more");
    assert_eq!((full.offsets.clone(), full.slices.len()), (100..110, 1));
    let full = queue.next_range(bytes(109).into()).expect("memory reads").expect("more");
    assert_eq!((full.offsets.clone(), full.bytes), (110..120, 100));
}

#[test]
fn a_new_queue_starts_where_it_is_told_and_an_old_one_where_it_is() {
    let disk = mem();
    let queues = open(&disk);
    append(&queues, "acme", 10);
    let start = |name: &str, start| queues.queue(name, "acme", start).expect("it is made").cursor().low;
    assert_eq!(start("now", Start::Now), 10);
    assert_eq!(start("earliest", Start::Earliest), 0);
    assert_eq!(start("at", Start::At(4)), 4);
    assert_eq!(queues.find("at", "acme").expect("just made").lag().bytes, 60);
    assert_eq!(start("beyond", Start::At(99)), 10);
    append(&queues, "acme", 10);
    assert_eq!(start("now", Start::Now), 10, "it was seen before");
    drop(queues);
    let queues = open(&disk);
    assert_eq!(queues.queue("now", "acme", Start::Now).expect("it is known").cursor().low, 10, "a crash later, too");
    assert!(queues.destination_known("at") && !queues.destination_known("nobody"));
    assert_eq!(queues.all().len(), 4);
}

#[test]
fn names_that_could_not_be_part_of_an_id_are_refused() {
    let queues = open(&mem());
    for name in ["", "a.b", "ü", "!plans", &"x".repeat(41)] {
        assert!(matches!(queues.queue(name, "acme", Start::Now), Err(QueueError::BadName { .. })), "{name}");
    }
    assert!(queues.queue(&"x".repeat(40), &"y".repeat(120), Start::Now).is_ok());
    assert!(queues.queue("a_b-C9", "acme", Start::Now).is_ok());
    for name in ["", "a\nb", &"y".repeat(121)] {
        let refused = queues.queue("hook", name, Start::Now);
        assert!(matches!(refused, Err(QueueError::BadName { what: "the stream's name", .. })), "{name}");
        assert!(queues.find("hook", name).is_none());
    }
}

#[test]
fn a_planned_batch_comes_again_after_a_crash_with_the_same_id_and_records() {
    let disk = mem();
    let queues = open(&disk);
    let queue = hook(&queues);
    queue.set_settings_revision(3);
    append(&queues, "acme", 100);
    let batches: Vec<_> = [10, 20, 30].into_iter().map(|records| next(&queue, records)).collect();
    batches.iter().for_each(|batch| plan(&queue, batch));
    plan(&queue, &batches[0]); // again: nothing more to do
    queue.settle(&batches[1], Settled::Delivered);
    queues.tick().expect("memory writes");
    queue.settle(&batches[0], Settled::Delivered); // not durable: it will come again
    drop((queue, queues));

    let queues = open(&disk);
    assert_eq!(queues.stats().plans_resumed, 2);
    let queue = hook(&queues);
    queue.set_settings_revision(4);
    for before in [&batches[0], &batches[2]] {
        let again = next(&queue, 1);
        assert_eq!((&again.id, &again.offsets), (&before.id, &before.offsets));
        assert!(again.planned);
        assert_eq!(again.settings_revision, 3, "finished under the settings it was made with");
        plan(&queue, &again);
        queue.settle(&again, Settled::Delivered);
    }
    assert_eq!(next(&queue, 9).settings_revision, 4);
    assert_eq!(queue.cursor().low, 60);
    assert!(queue.balance().closes());
}

#[test]
fn a_hint_that_continues_the_floor_is_believed_and_one_of_another_time_is_not() {
    let disk = MemDisk::new();
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    let store = MemStore::default();
    let options = || QueueOptions { store: StoreChoice::Memory(store.clone()), ..QueueOptions::inline() };
    let queues = open_with(&shared, &ManualClock::at(0), options());
    let queue = hook(&queues);
    append(&queues, "acme", 100);
    queues.tick().expect("memory writes");
    let read = |path: &str| crate::disk::read_all(&*disk.open(path.as_ref()).expect("it is there")).expect("memory");
    let old_floor = read("data/floor");
    let batch = next(&queue, 40);
    queue.settle(&batch, Settled::Delivered);
    queues.tick().expect("memory writes");
    drop((queue, queues));

    // The floor loses its last tick: what the store remembers goes on from there.
    let file = disk.open("data/floor".as_ref()).expect("it is there");
    file.write_all_at(&[std::io::IoSlice::new(&old_floor)], 0).expect("memory writes");
    let queues = open_with(&shared, &ManualClock::at(0), options());
    assert_eq!((hook(&queues).cursor().low, queues.stats().hints_taken), (40, 1));
    assert!(hook(&queues).balance().closes());
    drop(queues);

    // A log that is new knows nothing of it.
    let queues = open_with(&mem(), &ManualClock::at(0), options());
    append(&queues, "acme", 100);
    assert_eq!(hook(&queues).cursor().low, 0);
}

#[test]
fn the_age_of_the_oldest_record_is_told_also_where_nothing_was_read() {
    let disk = mem();
    let clock = ManualClock::at(1_000_000);
    let queues = open_with(&disk, &clock, QueueOptions::inline());
    let queue = hook(&queues);
    assert_eq!(queue.lag().oldest_age_ms, None);
    append(&queues, "acme", 10);
    clock.advance(Duration::from_secs(5));
    append(&queues, "acme", 10);
    assert_eq!(queue.lag().oldest_age_ms, Some(5_000));
    let batch = next(&queue, 10);
    queue.settle(&batch, Settled::Delivered);
    assert_eq!(queue.lag().oldest_age_ms, Some(0));
    let batch = next(&queue, 10);
    clock.advance(Duration::from_secs(1));
    assert_eq!(queue.lag().oldest_age_ms, Some(1_000), "in flight is not delivered");
    queue.settle(&batch, Settled::Delivered);
    assert_eq!(queue.lag().oldest_age_ms, None);
}

#[test]
fn a_second_set_on_the_directory_is_refused_and_told_who_holds_it() {
    let disk = mem();
    let _queues = open(&disk);
    let options = (LogOptions::small(), QueueOptions::inline());
    let second = Queues::open(disk, Arc::new(ManualClock::at(0)), Path::new("data"), options.0, options.1);
    let error = second.err().expect("it is held").to_string();
    assert!(error.contains("forebay") && error.contains("stop it first"), "{error}");
}

#[test]
fn a_purge_settles_what_nobody_took() {
    let disk = mem();
    let queues = open(&disk);
    let queue = hook(&queues);
    append(&queues, "acme", 10);
    append(&queues, "acme", 10);
    let batch = next(&queue, 5);
    assert_eq!(queue.settle_range(5..1_000, Settled::Purged), 15, "never beyond the durable tail");
    assert!(!queue.has_more());
    queue.settle(&batch, Settled::Delivered);
    let balance = queue.balance();
    assert!(balance.closes());
    assert_eq!((balance.purged.records, balance.purged.bytes, balance.delivered.bytes), (15, 150, 50));
}

#[test]
fn a_purge_up_to_an_offset_settles_batches_in_flight_and_the_books_are_exact() {
    let disk = mem();
    let queues = open(&disk);
    let queue = hook(&queues);
    (0..10).for_each(|_| append(&queues, "acme", 10));
    let batches: Vec<_> = (0..4).map(|_| next(&queue, 15)).collect();
    batches[..3].iter().for_each(|batch| plan(&queue, batch));
    queue.settle(&batches[1], Settled::Delivered);
    queue.release(&batches[2]);
    // 45..60 reaches beyond it, and is left whole.
    let purged = queue.purge(0..50).expect("memory reads");
    assert_eq!((purged.records, purged.bytes), (30, 300));
    queue.settle(&batches[0], Settled::Delivered);
    queue.release(&batches[2]);
    assert_eq!(queue.cursor().low, 45);
    let balance = queue.balance();
    assert!(balance.closes());
    assert_eq!((balance.delivered.records, balance.purged.records, balance.pending.records), (15, 30, 55));
    queues.tick().expect("memory writes");
    drop((queue, queues));

    let queues = open(&disk);
    let queue = hook(&queues);
    assert_eq!((queues.stats().plans_resumed, next(&queue, 20).offsets), (0, 45..65), "the fourth had no plan");
    assert_eq!(queue.purge(0..u64::MAX).expect("memory reads").records, 55);
    assert!(!queue.has_more() && queue.balance().closes());
}

#[test]
fn a_batch_settles_in_many_ways_at_once_and_a_crash_has_all_of_it_or_nothing() {
    let disk = mem();
    let queues = open(&disk);
    let queue = hook(&queues);
    append(&queues, "acme", 30);
    let batch = next(&queue, 20);
    let parts = [(15..16, Settled::DeadLettered), (2..5, Settled::Filtered), (5..7, Settled::Held)];
    assert_eq!(queue.settle_parts(&batch, &parts, Settled::Delivered), 20);
    assert_eq!(queue.settle_parts(&batch, &parts, Settled::Purged), 0, "it is settled once");
    queues.tick().expect("memory writes");
    drop((queue, queues));
    let queues = open(&disk);
    let queue = hook(&queues);
    let balance = queue.balance();
    assert!(balance.closes());
    let counts = [balance.delivered, balance.filtered, balance.held, balance.dead_lettered, balance.pending];
    assert_eq!(counts.map(|count| (count.records, count.bytes)), [(14, 140), (3, 30), (2, 20), (1, 10), (10, 100)]);
}

#[test]
fn with_threads_everything_works_by_itself() {
    let disk = mem();
    let clock = Arc::new(crate::clock::SystemClock::new());
    let options = QueueOptions {
        store: StoreChoice::Memory(MemStore::default()),
        tick: Duration::from_millis(1),
        ..QueueOptions::default()
    };
    let log = LogOptions { inline: false, ..LogOptions::small() };
    let queues = Queues::open(Arc::clone(&disk), clock, Path::new("data"), log, options).expect("it opens");
    let queue = hook(&queues);
    let (more, arrived) = std::sync::mpsc::sync_channel(1);
    queue.on_more(Arc::new(move || {
        let _ = more.try_send(());
    }));
    for _ in 0..50 {
        append(&queues, "acme", 10);
        arrived.recv_timeout(Duration::from_secs(30)).expect("it wakes");
        let batch = next(&queue, 10);
        let (planned, is_planned) = std::sync::mpsc::sync_channel(1);
        queue.plan(&batch, Box::new(move |result| planned.send(result).expect("somebody listens")));
        is_planned.recv_timeout(Duration::from_secs(30)).expect("it answers").expect("the plan is durable");
        queue.settle(&batch, Settled::Delivered);
    }
    queues.close().expect("memory closes");
    drop((queue, queues));
    let queues = open(&disk);
    assert_eq!(hook(&queues).cursor().low, 500);
    let stats = queues.stats();
    let (floor_commits, floor_syncs) = (stats.floor_commits, stats.floor_syncs);
    let sound = QueuesStats { queues: 1, floor_commits, floor_syncs, ..QueuesStats::default() };
    assert_eq!(stats, sound, "of a sound start");
}

/// Before: a stream that others had done with, or that nobody was subscribed to, went on being trimmed up to there when
/// a queue was made that began further back. What the new queue waited for was deleted and counted as lost.
#[test]
fn what_a_new_queue_still_needs_is_kept_though_all_others_are_done_with_it() {
    for others in [true, false] {
        let disk = mem();
        let clock = ManualClock::at(0);
        let log = LogOptions {
            segment_bytes: 8 << 10,
            tail_cache_bytes: 0,
            replay_window: Duration::from_secs(3600),
            ..LogOptions::small()
        };
        let queues = Queues::open(disk, Arc::new(clock.clone()), Path::new("data"), log, QueueOptions::inline());
        let queues = queues.expect("it opens");
        (0..40).for_each(|_| append(&queues, "acme", 100));
        if others {
            let fast = queues.queue("fast", "acme", Start::Earliest).expect("it is made");
            while let Some(batch) = fast.next_batch(ANY).expect("memory reads") {
                fast.settle(&batch, Settled::Delivered);
            }
        }
        queues.tick().expect("memory writes");
        let queue = hook(&queues);
        clock.advance(Duration::from_secs(7200));
        for _ in 0..3 {
            append(&queues, "other", 100);
            queues.tick().expect("memory writes");
            queues.log().housekeep();
        }
        let mut records = 0;
        while let Some(batch) = queue.next_batch(ANY).expect("memory reads") {
            records += batch.offsets.end - batch.offsets.start;
            queue.settle(&batch, Settled::Delivered);
        }
        assert_eq!((records, queue.balance().lost.records), (4000, 0), "others: {others}");
        // And once it has them, they go.
        (0..2).for_each(|_| queues.tick().expect("memory writes"));
        queues.log().housekeep();
        assert!(queues.log().first_kept(queues.log().stream("acme").expect("it is there")) > 0);
    }
}

/// Before: a crash right after a queue was made forgot the queue, and with it the plans it had made already: the same
/// records went out again under other ids.
#[test]
fn a_plan_outlives_a_crash_that_comes_before_the_first_tick_of_its_queue() {
    let disk = mem();
    let queues = open(&disk);
    append(&queues, "acme", 100);
    let queue = hook(&queues);
    let sent = [next(&queue, 30), next(&queue, 20)];
    sent.iter().for_each(|batch| plan(&queue, batch));
    append(&queues, "acme", 100);
    drop((queue, queues));

    let queues = open(&disk);
    let again = [0, 1].map(|_| next(&hook(&queues), u64::MAX));
    assert_eq!(again.each_ref().map(|batch| &batch.id), sent.each_ref().map(|batch| &batch.id));
    assert!(again.iter().all(|batch| batch.planned) && queues.stats().plans_resumed == 2);
}

/// Before: a plan was refused while ingest had filled the log's queue, so every destination backed off because what came
/// in was too much.
#[test]
fn a_plan_is_taken_while_the_queue_of_appends_is_full() {
    use std::sync::mpsc::sync_channel;
    let by_hand =
        QueueOptions { store: StoreChoice::None, tick: Duration::from_secs(3_600), ..QueueOptions::default() };
    let log = LogOptions { inline: false, queue_bytes_max: 100, ..LogOptions::small() };
    let clock = Arc::new(crate::clock::SystemClock::new());
    let queues = Queues::open(mem(), clock, Path::new("data"), log, by_hand).expect("it opens");
    let queue = hook(&queues);
    append(&queues, "acme", 10);
    let batch = next(&queue, 10);

    // The writer stops in a callback, and the queue fills behind it.
    let (reached, is_there) = sync_channel(0);
    let (let_go, gate) = sync_channel::<()>(0);
    let stop = move |_: Result<crate::Appended, crate::AppendError>| {
        reached.send(()).expect("somebody waits");
        let _ = gate.recv();
    };
    queues.log().append("other", vec![1], 1, Box::new(stop)).expect("it is taken");
    is_there.recv().expect("the writer comes by");
    queues.log().append("other", vec![1; 100], 1, Box::new(|_| {})).expect("it is taken");
    let busy = queues.log().append("other", vec![1], 1, Box::new(|_| {}));
    assert!(matches!(busy, Err(crate::AppendError::Busy { .. })));
    let (done, planned) = sync_channel(1);
    queue.plan(&batch, Box::new(move |result| done.send(result.is_ok()).expect("somebody waits")));
    drop(let_go);
    assert_eq!(planned.recv(), Ok(true));
}

#[test]
fn an_idle_queue_is_two_small_values() {
    let (queue, floor) = (size_of::<Inner>(), size_of::<floor_file::FloorEntry>());
    assert!(queue <= 360 && floor <= 136, "{queue} bytes beside {floor} in the floor");
}

#[test]
fn a_large_append_drained_in_small_batches_is_read_about_once() {
    const PARTS: usize = 24;
    const PART_BYTES: usize = 256 << 10;
    let disk = Arc::new(crate::disk::counted::CountedDisk::new(mem()));
    let log = LogOptions {
        segment_bytes: 16 << 20,
        append_bytes_max: 16 << 20,
        budget_bytes: 256 << 20,
        tail_cache_bytes: 0,
        ..LogOptions::small()
    };
    let shared = Arc::clone(&disk) as Arc<dyn Disk>;
    let queues = Queues::open(shared, Arc::new(ManualClock::at(0)), Path::new("data"), log, QueueOptions::inline());
    let queues = queues.expect("it opens");
    let queue = hook(&queues);
    let part = || crate::Payload { bytes: vec![1; PART_BYTES], records: 2_500 };
    queues.log().append_wait("acme", (0..PARTS).map(|_| part()).collect()).expect("memory writes");
    let before = disk.counts();
    let mut records = 0;
    let limits = BatchLimits { records_max: 500, bytes_max: u64::MAX };
    while let Some(batch) = queue.next_batch(limits).expect("memory reads") {
        records += batch.offsets.end - batch.offsets.start;
        queue.settle(&batch, Settled::Delivered);
    }
    assert_eq!(records, PARTS as u64 * 2_500);
    let read = (disk.counts() - before).bytes_read;
    assert!(read <= (PARTS * PART_BYTES) as u64 * 12 / 10, "{read} bytes read");
}

/// Before: of the plans that were made while one commit answered, with everything on the caller's thread, all but the first
/// waited for somebody to plan again.
#[test]
fn plans_made_in_callbacks_of_one_commit_are_all_answered() {
    let queues = open(&mem());
    let queue = hook(&queues);
    append(&queues, "acme", 30);
    let batches: Vec<Batch> = (0..3).map(|_| next(&queue, 10)).collect();
    let planned = Arc::new(AtomicUsize::new(0));
    let (theirs, count) = (queue.clone(), Arc::clone(&planned));
    let made = move |_| {
        for batch in &batches {
            let count = Arc::clone(&count);
            let answered = move |result: Result<(), PlanError>| {
                result.expect("the plan is durable");
                count.fetch_add(1, Ordering::SeqCst);
            };
            theirs.plan(batch, Box::new(answered));
        }
    };
    queues.log().append("other", vec![1], 1, Box::new(made)).expect("it is taken");
    assert_eq!(planned.load(Ordering::SeqCst), 3);
}
