//! What others do while somebody reads what they are to claim, and damage that is met on the way.

use super::hooked_disk::HookedDisk;
use super::*;
use crate::queue::SplitError;

/// A log that keeps nothing in memory of what it wrote.
fn open_cold(disk: Arc<dyn Disk>) -> Queues {
    open_cold_at(disk, &ManualClock::at(1_000_000))
}

fn open_cold_at(disk: Arc<dyn Disk>, clock: &ManualClock) -> Queues {
    let log = LogOptions { segment_bytes: 8 << 10, budget_bytes: 1 << 20, tail_cache_bytes: 0, ..LogOptions::small() };
    Queues::open(disk, Arc::new(clock.clone()), Path::new("data"), log, QueueOptions::inline()).expect("it opens")
}

/// Queues of which every read goes to a disk that does something before it when it is told to, and one of them.
fn hooked() -> (Arc<HookedDisk>, Queues, Queue) {
    let disk = Arc::new(HookedDisk::new());
    let queues = open_cold(Arc::clone(&disk) as Arc<dyn Disk>);
    let queue = hook(&queues);
    (disk, queues, queue)
}

/// Has this done once, before the next read.
fn before_next_read(disk: &HookedDisk, act: impl Fn() + Send + Sync + 'static) {
    let is_done = AtomicBool::default();
    disk.before_reads(Some(Box::new(move || {
        if !is_done.swap(true, Ordering::SeqCst) {
            act();
        }
    })));
}

/// Settles records of ten bytes, without a look at the disk.
fn settle(queue: &Queue, offsets: Range<u64>, as_: Settled) {
    queue.inner.window().settle(offsets, as_, |offset| Some(offset * 10));
}

/// Turns bytes of the record with these bytes around, wherever it lies in the log.
fn damage(disk: &dyn Disk, record: [u8; 10]) {
    damage_before(disk, record, 0);
}

/// The same to the header of the frame of which that is the first record.
fn damage_header(disk: &dyn Disk, record: [u8; 10]) {
    damage_before(disk, record, 56);
}

fn damage_before(disk: &dyn Disk, record: [u8; 10], bytes_before: usize) {
    let segment = disk.open(Path::new("data/log/0000000000000000.seg")).expect("it is there");
    let bytes = crate::disk::read_all(&*segment).expect("memory reads");
    let at = bytes.windows(10).position(|ten| ten == record).expect("it was written") - bytes_before;
    segment.write_all_at(&[std::io::IoSlice::new(&[0xEE; 10])], at as u64).expect("memory writes");
}

/// A frame of ten records, all with these bytes.
fn append_all(queues: &Queues, record: [u8; 10]) {
    let bytes = record.repeat(10);
    queues.log().append_wait("acme", vec![Payload { bytes, records: 10 }]).expect("it is taken");
}

/// Queues over a log that has a frame of ten of each of these records on its disk alone, and one of them.
fn holding<const N: usize>(records: [[u8; 10]; N]) -> (Arc<dyn Disk>, Queues, Queue) {
    let disk = mem();
    let queues = open_cold(Arc::clone(&disk));
    let queue = hook(&queues);
    records.into_iter().for_each(|record| append_all(&queues, record));
    (disk, queues, queue)
}

#[test]
fn what_is_settled_while_it_is_read_is_not_handed_out() {
    let (disk, queues, queue) = hooked();
    append(&queues, "acme", 10);
    let theirs = queue.clone();
    before_next_read(&disk, move || settle(&theirs, 0..4, Settled::Purged));
    assert_eq!(next(&queue, 10).offsets, 4..10);
    disk.before_reads(None);
    assert_eq!((queue.balance().purged.records, queue.lag().records), (4, 6));
}

#[test]
fn who_asks_whether_the_disk_is_needed_does_not_wait_for_who_reads_it() {
    let (disk, queues, queue) = hooked();
    append(&queues, "acme", 10);
    let (theirs, needed) = (queue.clone(), Arc::<AtomicBool>::default());
    let told = Arc::clone(&needed);
    before_next_read(&disk, move || told.store(!theirs.ready_in_memory(4), Ordering::SeqCst));
    assert_eq!(next(&queue, 4).offsets, 0..4);
    disk.before_reads(None);
    assert!(needed.load(Ordering::SeqCst) && queue.ready_in_memory(6));
}

#[test]
fn who_asks_whether_a_queue_is_parted_does_not_wait_for_who_reads_and_that_one_lets_go() {
    let (disk, queues, queue) = hooked();
    append(&queues, "acme", 10);
    queue.part(0);
    append(&queues, "acme", 10);
    let (theirs, joined) = (queue.clone(), Arc::<AtomicBool>::default());
    let told = Arc::clone(&joined);
    before_next_read(&disk, move || {
        settle(&theirs, 0..10, Settled::Purged);
        told.store(!theirs.is_parted(), Ordering::SeqCst);
    });
    assert!(queue.live().next_batch(ANY).expect("memory reads").is_none(), "there is no second position any more");
    disk.before_reads(None);
    assert!(joined.load(Ordering::SeqCst));
    assert_eq!(queue.inner.context.held_bytes.load(Ordering::SeqCst), 0);
    assert_eq!(next(&queue, 100).offsets, 10..20);
}

#[test]
fn a_plan_that_damage_took_a_part_of_is_given_up_and_what_is_left_comes_under_other_ids() {
    let (disk, queues, queue) = holding([*b"aaaaaaaaaa", *b"bbbbbbbbbb", *b"cccccccccc"]);
    let whole = next(&queue, 30);
    plan(&queue, &whole);
    queues.tick().expect("memory writes");
    let id = whole.id.clone();
    drop((whole, queue, queues));
    damage(&*disk, *b"bbbbbbbbbb");

    let queues = open_cold(Arc::clone(&disk));
    assert_eq!(queues.stats().plans_resumed, 1);
    let queue = hook(&queues);
    let batches = [next(&queue, 30), next(&queue, 30)];
    assert_eq!(batches.each_ref().map(|batch| batch.offsets.clone()), [0..10, 20..30]);
    assert!(batches.iter().all(|batch| batch.id != id && !batch.planned));
    assert!(queue.next_batch(ANY).expect("memory reads").is_none());
    let balance = queue.balance();
    assert_eq!((balance.lost.records, balance.pending.records, balance.closes()), (10, 20, true));
}

/// Before: where somebody settled the damage that was met, between the read and the look at what was read, it was said that nothing
/// waits.
#[test]
fn damage_that_somebody_settled_meanwhile_is_passed_and_what_lies_behind_it_is_handed_out() {
    let (disk, queues, queue) = hooked();
    [*b"aaaaaaaaaa", *b"bbbbbbbbbb"].into_iter().for_each(|record| append_all(&queues, record));
    damage(&*disk, *b"aaaaaaaaaa");
    let theirs = queue.clone();
    before_next_read(&disk, move || settle(&theirs, 0..10, Settled::Purged));
    let batch = queue.next_batch(ANY).expect("memory reads");
    disk.before_reads(None);
    assert_eq!(batch.map(|batch| batch.offsets.clone()), Some(10..20));
    let balance = queue.balance();
    assert_eq!((balance.lost.records, balance.purged.records, balance.closes()), (0, 10, true), "it is settled once");
}

#[test]
fn a_batch_of_a_queue_that_was_deleted_is_neither_split_nor_made_shorter() {
    let queues = open(&mem());
    let queue = hook(&queues);
    append(&queues, "acme", 10);
    let batch = next(&queue, 10);
    queues.delete("hook", None).expect("memory writes");
    assert!(queue.shorten(&batch, 5).expect("memory reads").is_none());
    let heard = Arc::<AtomicBool>::default();
    let told = Arc::clone(&heard);
    queue.split(
        &batch,
        5,
        Box::new(move |halves| told.store(matches!(halves, Err(SplitError::NotOut)), Ordering::SeqCst)),
    );
    assert!(heard.load(Ordering::SeqCst));
}

#[test]
fn of_a_queue_whose_stream_is_not_there_yet_nothing_waits_and_no_disk_is_asked() {
    let queues = open(&mem());
    let queue = hook(&queues);
    assert!(queue.front_in_memory() && queue.front().is_none() && !queue.has_bytes(0));
    append(&queues, "acme", 10);
    assert!(queue.has_bytes(100) && queue.front().is_some());
    let _all = next(&queue, 10);
    assert!(queue.front_in_memory() && queue.front().is_none(), "somebody has all of it");
}

#[test]
fn a_range_ends_before_a_frame_whose_header_is_damaged_and_the_next_begins_behind_it() {
    let (disk, _queues, queue) = holding([*b"aaaaaaaaaa", *b"bbbbbbbbbb", *b"cccccccccc"]);
    damage_header(&*disk, *b"bbbbbbbbbb");
    let ranges: Vec<Batch> = std::iter::from_fn(|| queue.next_range(ANY.into()).expect("memory reads")).collect();
    assert_eq!(
        ranges.iter().map(|range| (range.offsets.clone(), range.bytes)).collect::<Vec<_>>(),
        [(0..10, 100), (20..30, 100)]
    );
    let balance = queue.balance();
    assert_eq!((balance.lost.records, balance.lost.bytes, balance.pending.records), (10, 100, 20));
    assert!(balance.closes());
}

#[test]
fn a_record_that_damage_took_is_not_had_and_the_range_is_not_given_up_for_it() {
    let (disk, _queues, queue) = holding([*b"aaaaaaaaaa", *b"bbbbbbbbbb", *b"cccccccccc"]);
    let range = queue.next_range(ANY.into()).expect("memory reads").expect("thirty wait");
    damage(&*disk, *b"bbbbbbbbbb");
    let at = |offset| queue.slice_at(&range, offset).expect("memory reads").map(|slice| slice.offsets);
    assert_eq!([3, 12, 25].map(at), [Some(3..10), None, Some(25..30)]);
    queue.settle(&range, Settled::Delivered);
    let balance = queue.balance();
    assert_eq!((balance.delivered.records, balance.lost.records), (30, 0), "as the destination answered");
}

#[test]
fn what_is_purged_up_to_the_end_of_a_frame_that_is_lost_is_counted_to_the_byte() {
    let (disk, _queues, queue) = holding([*b"aaaaaaaaaa", *b"bbbbbbbbbb"]);
    damage_header(&*disk, *b"aaaaaaaaaa");
    assert_eq!(queue.purge(0..10).expect("memory reads"), Count { records: 10, bytes: 100 });
    assert_eq!((queue.lag().bytes, next(&queue, 100).offsets), (100, 10..20));
    assert!(queue.balance().closes());
}

/// The totals that are asked for then are not those that were read.
#[test]
fn what_is_handed_out_while_the_log_is_asked_for_totals_is_settled_with_what_lies_around_it() {
    let (disk, queues, queue) = hooked();
    append(&queues, "acme", 10);
    queue.part(0);
    append(&queues, "acme", 10);
    let theirs = queue.clone();
    before_next_read(&disk, move || {
        assert!(theirs.inner.window().claim(Position::Live, 10..15, marks::Marks::default()));
    });
    assert_eq!(queue.settle_range(0..20, Settled::Purged), 20);
    disk.before_reads(None);
    let balance = queue.balance();
    assert_eq!((balance.purged, balance.closes()), (Count { records: 20, bytes: 200 }, true));
}

#[test]
fn what_is_lost_is_of_the_time_of_what_follows_it_and_newer_than_all_where_nothing_does() {
    let (disk, clock) = (mem(), ManualClock::at(1_000_000));
    let queues = open_cold_at(Arc::clone(&disk), &clock);
    for record in [*b"aaaaaaaaaa", *b"bbbbbbbbbb", *b"cccccccccc", *b"dddddddddd"] {
        append_all(&queues, record);
        clock.advance(Duration::from_secs(1));
    }
    let at = |ms| queues.offset_at("acme", ms).expect("memory reads");
    assert_eq!([1_000_000, 1_000_001, 1_001_001, 1_002_001, 1_003_001].map(at), [0, 10, 20, 30, 40]);
    [*b"bbbbbbbbbb", *b"dddddddddd"].into_iter().for_each(|record| damage_header(&*disk, record));
    assert_eq!([1_000_000, 1_000_001, 1_001_001, 1_002_001, 1_003_001].map(at), [0, 10, 10, 30, 30]);
}
