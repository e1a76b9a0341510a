//! The log through its public door, on a disk in memory. Crashes and faults are in storage-tests/.

mod bounds;
mod compacting;
mod damage;
mod names;
mod numbers;
mod opening;
mod searches;
mod short_disk;

use super::*;
use crate::clock::ManualClock;
use crate::disk::counted::CountedDisk;
use crate::disk::mem::MemDisk;
use std::io::IoSlice;
use std::ops::Range;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

const DIR: &str = "/log";
const HEADER: usize = limits::FRAME_HEADER_BYTES as usize;

struct Bench {
    disk: Arc<CountedDisk>,
    clock: ManualClock,
    options: LogOptions,
}

impl Bench {
    fn new() -> Self {
        let disk = Arc::new(CountedDisk::new(Arc::new(MemDisk::new())));
        Self { disk, clock: ManualClock::at(1_000_000), options: LogOptions::small() }
    }

    fn open(&self) -> Log {
        self.try_open().expect("the log opens")
    }

    fn try_open(&self) -> Result<Log, OpenError> {
        let disk = Arc::clone(&self.disk) as Arc<dyn Disk>;
        Log::open(disk, Arc::new(self.clock.clone()), Path::new(DIR), self.options.clone())
    }
}

fn part(byte: u8, len: usize, records: u32) -> Payload {
    Payload { bytes: vec![byte; len], records }
}

fn append(log: &Log, stream: &str, byte: u8, len: usize, records: u32) -> Range<u64> {
    log.append_wait(stream, vec![part(byte, len, records)]).expect("appended").offsets
}

/// All that a stream holds: offsets and first payload byte of each frame, or the range lost.
fn read(log: &Log, stream: &str, from: u64) -> Vec<(Range<u64>, Option<u8>)> {
    let mut reader = log.reader(log.stream(stream).expect("the stream exists"), from);
    let mut items = Vec::new();
    while let Some(item) = reader.next().expect("the disk reads") {
        items.push(match item {
            Item::Frame(frame) => (frame.offsets(), frame.payload().first().copied()),
            Item::Lost { offsets, .. } => (offsets, None),
        });
    }
    items
}

fn wants_housekeeping(log: &Log) -> bool {
    *log.shared.keeper_wanted.lock().expect("no panic")
}

#[test]
fn what_is_appended_is_read_by_stream_in_order_and_after_reopening() {
    let bench = Bench::new();
    let log = bench.open();
    assert_eq!(append(&log, "a", 1, 100, 10), 0..10);
    assert_eq!(append(&log, "b", 2, 100, 5), 0..5);
    assert_eq!(append(&log, "a", 3, 100, 10), 10..20);
    let expected = vec![(0..10, Some(1)), (10..20, Some(3))];
    assert_eq!(read(&log, "a", 0), expected);
    assert_eq!(read(&log, "a", 12), [(10..20, Some(3))], "a first frame may start earlier");
    log.close().expect("closed");
    drop(log);
    let log = bench.open();
    assert_eq!(read(&log, "a", 0), expected);
    assert_eq!(read(&log, "b", 0), [(0..5, Some(2))]);
    assert_eq!(append(&log, "a", 4, 100, 1), 20..21);
    assert_eq!(log.durable(log.stream("a").expect("known")), Tail { offset: 21, bytes: 300 });
}

#[test]
fn a_lone_append_costs_one_write_and_one_sync() {
    let bench = Bench::new();
    let log = bench.open();
    append(&log, "a", 1, 100, 1);
    let before = bench.disk.counts();
    append(&log, "a", 1, 100, 1);
    let cost = bench.disk.counts() - before;
    assert_eq!((cost.writes, cost.file_syncs, cost.dir_syncs), (1, 1, 0));
}

#[test]
fn appends_that_wait_share_one_sync() {
    let mut bench = Bench::new();
    bench.options.inline = false;
    let log = bench.open();
    append(&log, "warm", 1, 10, 1);
    log.housekeep(); // room is taken ahead: no sync of the keeper's falls into what is counted
    // The writer is busy with a callback: everything that comes meanwhile goes with the next commit.
    let (entered, wait_entered) = sync_channel(1);
    let (release, wait_release) = sync_channel::<()>(1);
    log.append(
        "a",
        vec![1],
        1,
        Box::new(move |_| {
            entered.send(()).expect("the test listens");
            wait_release.recv().expect("the test releases");
        }),
    )
    .expect("queued");
    wait_entered.recv().expect("the callback runs");
    log.housekeep(); // so that the log's own thread has nothing left to sync
    let before = bench.disk.counts();
    let (done, wait_done) = sync_channel(100);
    for i in 0..100u8 {
        let done = done.clone();
        log.append(
            &format!("stream-{}", i % 7),
            vec![i; 50],
            1,
            Box::new(move |result| {
                done.send(result.is_ok()).expect("the test listens");
            }),
        )
        .expect("queued");
    }
    release.send(()).expect("the callback waits");
    assert!((0..100).all(|_| wait_done.recv().expect("answered")));
    let cost = bench.disk.counts() - before;
    assert_eq!(cost.file_syncs, 1, "a hundred waiting appends, one sync");
    assert_eq!((log.stats().appends, log.stats().commits), (102, 3), "two before, each in a commit of its own");
}

#[test]
fn a_full_queue_refuses_or_waits_as_asked() {
    let mut bench = Bench::new();
    bench.options.inline = false;
    bench.options.queue_bytes_max = 2 * HEADER + 100;
    let log = bench.open();
    let (done, wait_done) = sync_channel(1);
    let large = vec![part(0, 1_000, 1)];
    let done = Box::new(move |result: AppendResult| done.send(result.is_ok()).expect("the test listens"));
    log.append_group("a", large, OnFull::Refuse, done).expect("one alone is taken, however large");
    assert_eq!(wait_done.recv(), Ok(true));
    let (entered, wait_entered) = sync_channel(1);
    let (release, wait_release) = sync_channel::<()>(1);
    log.append(
        "a",
        vec![1; 10],
        1,
        Box::new(move |_| {
            entered.send(()).expect("the test listens");
            wait_release.recv().expect("the test releases");
        }),
    )
    .expect("queued");
    wait_entered.recv().expect("the callback runs");
    log.append("a", vec![2; 90], 1, Box::new(|_| ())).expect("room for it");
    let refused = log.append("a", vec![3; 11], 1, Box::new(|_| ()));
    let Err(AppendError::Busy { queued, limit }) = refused else { panic!("{refused:?}") };
    assert_eq!((queued, limit), (HEADER + 90, 2 * HEADER + 100));
    log.append("a", vec![4; 10], 1, Box::new(|_| ())).expect("up to the limit");
    let empty = log.append("a", Vec::new(), 1, Box::new(|_| ()));
    assert!(matches!(empty, Err(AppendError::Busy { .. })), "a record without a payload takes room, too");
    log.append(PLANS_STREAM, vec![5; 100], 1, Box::new(|_| ())).expect("what lets others leave");
    let waiter = std::thread::spawn({
        let log = log.clone();
        move || log.append_wait("a", vec![part(4, 50, 1)]).expect("appended").offsets
    });
    // So that it does wait.
    while log.shared.waiting().blocked == 0 {
        assert!(!waiter.is_finished(), "there is no room for it");
        std::thread::yield_now();
    }
    release.send(()).expect("the callback waits");
    assert_eq!(waiter.join().expect("no panic"), 4..5);
    assert_eq!(log.shared.waiting().blocked, 0);
}

#[test]
fn a_panicking_callback_stops_nobody() {
    let mut bench = Bench::new();
    bench.options.inline = false;
    let log = bench.open();
    log.append("a", vec![1], 1, Box::new(|_| panic!("the owner's bug"))).expect("queued");
    assert_eq!(append(&log, "a", 2, 1, 1), 1..2);
}

#[test]
fn bad_appends_are_refused_with_what_is_wrong() {
    let bench = Bench::new();
    let log = bench.open();
    let refused = |stream: &str, parts| log.append_wait(stream, parts).expect_err("refused");
    assert!(matches!(refused("", vec![part(0, 1, 1)]), AppendError::BadName { .. }));
    assert!(matches!(refused("a\nb", vec![part(0, 1, 1)]), AppendError::BadName { .. }));
    assert!(matches!(refused(&"x".repeat(121), vec![part(0, 1, 1)]), AppendError::BadName { .. }));
    let all = part(0, bench.options.append_bytes_max as usize, 1);
    assert!(log.append_wait(&"x".repeat(120), vec![all]).is_ok(), "all that may be");
    let headers = 1 + bench.options.append_bytes_max as usize / HEADER;
    assert!(
        matches!(refused("a", vec![part(0, 0, 1); headers + 1]), AppendError::TooLarge { .. }),
        "all of them headers"
    );
    assert!(log.append_wait("a", vec![part(0, 0, 1); headers]).is_ok());
    assert!(matches!(refused("a", vec![]), AppendError::Empty));
    assert!(matches!(refused("a", vec![part(0, 1, 0)]), AppendError::Empty));
    let large = refused("a", vec![part(0, 600 << 10, 1), part(0, 600 << 10, 1)]);
    assert!(matches!(large, AppendError::TooLarge { .. }), "{large}");
    log.close().expect("closed");
    assert!(matches!(refused("a", vec![part(0, 1, 1)]), AppendError::Closed));
}

#[test]
fn an_append_larger_than_a_segment_gets_a_segment_of_its_own_size() {
    let bench = Bench::new();
    let log = bench.open();
    append(&log, "a", 1, 100, 1);
    assert_eq!(append(&log, "a", 2, 300 << 10, 7), 1..8);
    append(&log, "a", 3, 100, 1);
    assert_eq!(read(&log, "a", 0), [(0..1, Some(1)), (1..8, Some(2)), (8..9, Some(3))]);
}

#[test]
fn reading_what_is_no_longer_in_memory_touches_only_the_streams_own_frames() {
    let mut bench = Bench::new();
    bench.options.tail_cache_bytes = 0;
    bench.options.segment_bytes = 1 << 20;
    bench.options.budget_bytes = 64 << 20;
    let log = bench.open();
    for i in 0..50 {
        append(&log, "mine", i, 100, 1);
        append(&log, "other", i, 10_000, 1);
    }
    let before = bench.disk.counts();
    assert_eq!(read(&log, "mine", 0).len(), 50);
    let cost = bench.disk.counts() - before;
    assert_eq!(cost.bytes_read, 50 * (100 + u64::from(limits::FRAME_HEADER_BYTES)));
}

#[test]
fn a_tail_reader_reads_nothing_from_the_disk() {
    let bench = Bench::new();
    let log = bench.open();
    for i in 0..10 {
        append(&log, "a", i, 1000, 1);
    }
    let before = bench.disk.counts();
    assert_eq!(read(&log, "a", 0).len(), 10);
    assert_eq!((bench.disk.counts() - before).reads, 0);
}

#[test]
fn two_that_catch_up_near_each_other_read_each_frame_once_and_take_none_from_the_tail() {
    let mut bench = Bench::new();
    bench.options.tail_cache_bytes = 9_000; // eight of them
    let log = bench.open();
    (0..20).for_each(|i| _ = append(&log, "behind", i, 1_000, 1));
    (0..4).for_each(|i| _ = append(&log, "fresh", i, 1_000, 1));
    let stream = log.stream("behind").expect("known");
    let mut readers = [log.reader(stream, 0), log.reader(stream, 0)];
    let before = bench.disk.counts();
    for _ in 0..20 {
        for reader in &mut readers {
            assert!(matches!(reader.next(), Ok(Some(Item::Frame(_)))));
        }
    }
    assert_eq!((bench.disk.counts() - before).reads, 16, "four are in the tail still");
    let before = bench.disk.counts();
    assert_eq!(read(&log, "fresh", 0).len(), 4);
    assert_eq!((bench.disk.counts() - before).reads, 0);
}

#[test]
fn a_reader_knows_whether_its_next_item_needs_the_disk() {
    let mut bench = Bench::new();
    bench.options.tail_cache_bytes = 2_500;
    let log = bench.open();
    for i in 0..10 {
        append(&log, "a", i, 1000, 1);
    }
    let mut reader = log.reader(log.stream("a").expect("known"), 0);
    assert!(!reader.in_memory(), "it was the first to go");
    reader.seek(9);
    assert!(reader.in_memory(), "it is the last that came");
    reader.seek(10);
    assert!(reader.in_memory(), "there is nothing to read");
}

#[test]
fn a_log_tells_up_to_where_it_is_synced() {
    let bench = Bench::new();
    let log = bench.open();
    append(&log, "a", 1, 100, 1);
    let [before] = log.synced()[..] else { panic!("one segment is written to: {:?}", log.synced()) };
    append(&log, "a", 2, 100, 1);
    let [behind] = log.synced()[..] else { panic!("one segment is written to: {:?}", log.synced()) };
    assert_eq!(behind.sequence, before.sequence);
    assert_eq!(behind.position - before.position, limits::FRAME_HEADER_BYTES + 104, "a frame of a hundred bytes");
}

#[test]
fn a_segments_header_that_was_damaged_is_told_and_its_records_are_served() {
    let bench = Bench::new();
    let log = bench.open();
    (1..=3).for_each(|i| _ = append(&log, "a", i, 100, 1));
    drop(log); // no close: it is not sealed
    let segment = bench.disk.open(&Path::new(DIR).join("0000000000000000.seg")).expect("it is there");
    segment.write_all_at(&[IoSlice::new(&[0xEE; 8])], 16).expect("memory writes");
    let log = bench.open();
    let told = log.damages();
    assert!(matches!(&told[..], [damage] if damage.positions == (0..limits::SEGMENT_HEADER_BYTES)), "{told:?}");
    assert_eq!(read(&log, "a", 0), [(0..1, Some(1)), (1..2, Some(2)), (2..3, Some(3))]);
}

#[test]
fn a_segment_of_nothing_but_damage_counts_stays_for_the_replay_window_and_goes() {
    let mut bench = Bench::new();
    bench.options.replay_window = Duration::from_secs(60);
    let log = bench.open();
    append(&log, "a", 1, 1000, 1);
    bench.options.synced = log.synced();
    drop(log);
    let segment = bench.disk.open(&Path::new(DIR).join("0000000000000000.seg")).expect("it is there");
    let position = limits::SEGMENT_HEADER_BYTES;
    let end = bench.options.synced[0].position;
    segment.write_all_at(&[IoSlice::new(&vec![0xEE; (end - position) as usize])], u64::from(position)).expect("writes");
    let log = bench.open();
    let told = log.damages();
    assert!(matches!(&told[..], [damage] if damage.positions == (position..end)), "{told:?}");
    let beside_spares = log.stats().bytes_used % u64::from(bench.options.segment_bytes);
    assert_eq!((log.stats().segments, beside_spares), (1, u64::from(end)));
    append(&log, "a", 2, 1000, 1);
    drop(log);
    bench.clock.advance(Duration::from_secs(59));
    let log = bench.open();
    log.housekeep();
    assert_eq!(log.stats().segments, 2, "it stays for who wants to look at it");
    bench.clock.advance(Duration::from_secs(120));
    log.housekeep();
    assert_eq!(log.stats().segments, 1);
    assert_eq!(read(&log, "a", 0), [(0..1, Some(2))]);
}

#[test]
fn opening_reads_what_is_not_sealed_and_not_the_log() {
    const SEGMENT: u32 = 64 << 10;
    let mut bench = Bench::new();
    bench.options.segment_bytes = SEGMENT;
    bench.options.budget_bytes = 16 << 20;
    let log = bench.open();
    for i in 0..200 {
        append(&log, "a", i, 4000, 10);
    }
    assert!(log.stats().segments > 10);
    drop(log); // no close: as after a kill
    let before = bench.disk.counts();
    let log = bench.open();
    let bytes_read = (bench.disk.counts() - before).bytes_read;
    assert!(bytes_read < 2 * u64::from(SEGMENT), "{bytes_read} of 800,000 bytes");
    assert_eq!(read(&log, "a", 0).len(), 200);
}

#[test]
fn a_segment_goes_when_all_its_streams_are_trimmed_and_the_window_is_over() {
    let mut bench = Bench::new();
    bench.options.replay_window = Duration::from_secs(60);
    let log = bench.open();
    for i in 0..40 {
        append(&log, "a", i, 4000, 1);
        append(&log, "b", i, 4000, 1);
    }
    log.housekeep();
    let all = log.stats().segments;
    assert!(all >= 4, "{all} segments");
    let (a, b) = (log.stream("a").expect("known"), log.stream("b").expect("known"));
    log.trim(a, 40);
    bench.clock.advance(Duration::from_secs(61));
    log.housekeep();
    assert_eq!(log.stats().segments, all, "b still needs them");
    log.trim(b, 40);
    log.housekeep();
    assert_eq!(log.stats().segments, 1, "all but the one that is written to");
    assert_eq!(log.stats().bytes_used, 4 * (64 << 10), "that one, and of the others three are room taken ahead");
    assert!(log.first_kept(a) > 0);
    let next = append(&log, "a", 99, 10, 1);
    assert_eq!(next, 40..41);
}

#[test]
fn settled_segments_stay_for_the_replay_window() {
    let mut bench = Bench::new();
    bench.options.replay_window = Duration::from_secs(60);
    let log = bench.open();
    for i in 0..20 {
        append(&log, "a", i, 4000, 1);
    }
    log.trim(log.stream("a").expect("known"), 20);
    log.housekeep();
    assert_eq!(read(&log, "a", 0).len(), 20, "still there for replay");
}

#[test]
fn a_quiet_stream_goes_on_where_it_was_after_its_frames_are_reclaimed() {
    let bench = Bench::new();
    let log = bench.open();
    append(&log, "quiet", 1, 100, 7);
    for i in 0..40 {
        append(&log, "busy", i, 4000, 1);
    }
    log.trim(log.stream("quiet").expect("known"), 7);
    log.trim(log.stream("busy").expect("known"), 40);
    log.housekeep();
    assert_eq!(log.first_kept(log.stream("quiet").expect("known")), 7);
    drop(log);
    let log = bench.open();
    assert_eq!(append(&log, "quiet", 2, 100, 1), 7..8);
    assert_eq!(log.durable(log.stream("quiet").expect("known")).bytes, 200);
    assert_eq!(read(&log, "quiet", 7), [(7..8, Some(2))]);
}

#[test]
fn recycled_files_show_nothing_of_what_they_held() {
    let bench = Bench::new();
    let log = bench.open();
    for round in 0..6u8 {
        for _ in 0..30 {
            append(&log, "a", round, 4000, 1);
        }
        log.trim(log.stream("a").expect("known"), u64::MAX);
        log.housekeep();
    }
    assert!(log.stats().segments_reclaimed > 5);
    drop(log);
    let log = bench.open();
    assert_eq!(log.damages(), []);
    let tail = log.durable(log.stream("a").expect("known"));
    assert_eq!(tail, Tail { offset: 180, bytes: 180 * 4000 });
}

#[test]
fn a_full_budget_refuses_applications_serves_our_own_and_ends_when_there_is_room() {
    let mut bench = Bench::new();
    bench.options.budget_bytes = 6 * (64 << 10);
    let log = bench.open();
    let mut taken = 0;
    let refused = loop {
        match log.append_wait("a", vec![part(1, 4000, 1)]) {
            Ok(_) => taken += 1,
            Err(e) => break e,
        }
        assert!(taken < 1000, "the budget holds");
    };
    assert!(matches!(refused, AppendError::Full { .. }), "{refused}");
    assert!(log.stats().bytes_used <= bench.options.budget_bytes);
    log.housekeep();
    assert!(matches!(log.state(), LogState::Full { .. }), "the reserve alone is no room");
    append(&log, PLANS_STREAM, 7, 100, 1);
    append(&log, "!dead/x", 7, 100, 1);
    log.housekeep();
    assert!(log.append_wait("a", vec![part(1, 4000, 1)]).is_err(), "nothing was freed yet");
    assert!(!wants_housekeeping(&log));
    log.trim(log.stream("a").expect("known"), taken);
    assert!(wants_housekeeping(&log), "there may be room now");
    log.housekeep();
    assert_eq!(append(&log, "a", 2, 4000, 1), taken..taken + 1);
    assert_eq!(log.state(), LogState::Serving);
}

/// Fills the log until it refuses, and says how many appends it took.
fn fill(log: &Log, stream: &str) -> u64 {
    for taken in 0..1_000 {
        match log.append_wait(stream, vec![part(1, 4000, 1)]) {
            Ok(_) => {}
            Err(AppendError::Full { .. }) => return taken,
            Err(e) => panic!("refused for another reason: {e}"),
        }
    }
    panic!("the budget does not hold");
}

#[test]
fn a_budget_that_is_raised_takes_what_was_refused_and_one_that_is_lowered_refuses_and_keeps_everything() {
    const SEGMENT: u64 = 64 << 10;
    let mut bench = Bench::new();
    bench.options.budget_bytes = 6 * SEGMENT;
    let log = bench.open();
    let few = fill(&log, "a");
    assert_eq!(log.set_budget_bytes(12 * SEGMENT), 12 * SEGMENT);
    assert_eq!((log.state(), log.stats().bytes_limit), (LogState::Serving, 12 * SEGMENT));
    let more = fill(&log, "a");
    assert!(more > few, "{few} in 6 segments, {more} in as many more");
    assert!(log.stats().bytes_used <= 12 * SEGMENT);

    // What is there is more than the budget now. Nothing of it goes, and it still can be drained.
    assert_eq!(log.set_budget_bytes(6 * SEGMENT), 6 * SEGMENT);
    let still = read(&log, "a", 0).len() as u64;
    assert_eq!(still, few + more);
    append(&log, PLANS_STREAM, 7, 100, 1);
    append(&log, "!dead/x", 7, 100, 1);
    let a = log.stream("a").expect("known");
    log.trim(a, few);
    log.housekeep();
    assert!(log.append_wait("a", vec![part(1, 4000, 1)]).is_err(), "what went does not come back as room for more");
    log.trim(a, few + more);
    log.housekeep();
    assert!(fill(&log, "a") <= few);
    assert!(log.stats().bytes_used <= 6 * SEGMENT, "{} bytes", log.stats().bytes_used);

    assert_eq!(log.set_budget_bytes(1), 4 * SEGMENT, "the reserve, one of each class to write to, the next one");
}

#[test]
fn a_budget_that_is_lowered_is_not_taken_up_by_what_was_taken_ahead() {
    const SEGMENT: u64 = 64 << 10;
    let mut bench = Bench::new();
    bench.options.budget_bytes = 40 * SEGMENT;
    let log = bench.open();
    (0..100).for_each(|i| _ = append(&log, "a", i, 4000, 1));
    log.housekeep();
    let segments = log.stats().segments;
    log.set_budget_bytes(3 * SEGMENT);
    fill(&log, "a");
    assert_eq!(log.stats().segments, segments, "the one that is written to is filled, and no other is made");
    assert_eq!(log.stats().bytes_used, (segments as u64 + bench.options.reserve_segments as u64) * SEGMENT);
}

#[test]
fn a_second_log_on_the_directory_is_refused_and_told_by_whom() {
    let bench = Bench::new();
    let log = bench.open();
    let Err(refused) = bench.try_open() else { panic!("opened twice") };
    let text = refused.to_string();
    assert!(text.contains(&std::process::id().to_string()), "{text}");
    drop(log);
    bench.open();
}

#[test]
fn offsets_seen_by_others_are_never_given_again() {
    let bench = Bench::new();
    let log = bench.open();
    append(&log, "a", 1, 10, 5);
    log.raise_next("a", 9);
    log.raise_next("new", 3);
    assert_eq!(append(&log, "a", 2, 10, 1), 9..10);
    assert_eq!(append(&log, "new", 2, 10, 1), 3..4);
    assert_eq!(read(&log, "a", 0), [(0..5, Some(1)), (5..9, None), (9..10, Some(2))]);
    drop(log);
    let log = bench.open();
    assert_eq!(read(&log, "a", 0), [(0..5, Some(1)), (5..9, None), (9..10, Some(2))]);
}

#[test]
fn bytes_within_a_frame_are_shared_out_and_sum_up() {
    let bench = Bench::new();
    let log = bench.open();
    append(&log, "a", 1, 100, 3);
    append(&log, "a", 1, 50, 2);
    let a = log.stream("a").expect("known");
    let at: Vec<u64> = (0..=5).map(|offset| log.bytes_at(a, offset).expect("readable")).collect();
    assert_eq!(at, [0, 33, 66, 100, 125, 150]);
}

#[test]
fn a_watcher_hears_of_each_stream_after_the_commit() {
    let bench = Bench::new();
    let log = bench.open();
    let heard: Arc<Mutex<Vec<(StreamId, u64)>>> = Arc::default();
    let sink = Arc::clone(&heard);
    log.watch(Arc::new(move |stream, tail| sink.lock().expect("no panic").push((stream, tail))));
    append(&log, "a", 1, 10, 4);
    append(&log, "b", 1, 10, 2);
    assert_eq!(*heard.lock().expect("no panic"), [(StreamId(0), 4), (StreamId(1), 2)]);
}

#[test]
fn a_stream_known_only_from_a_cursor_keeps_its_name_across_a_crash() {
    let bench = Bench::new();
    let log = bench.open();
    log.raise_next("new", 3);
    append(&log, "new", 2, 10, 1);
    drop(log); // no close: the table was never written
    let log = bench.open();
    assert_eq!(read(&log, "new", 3), [(3..4, Some(2))]);
}

#[test]
fn a_watcher_that_panics_stops_nobody() {
    let log = Bench { options: LogOptions { inline: false, ..LogOptions::small() }, ..Bench::new() }.open();
    log.watch(Arc::new(|_, _| panic!("the owner's bug")));
    let (heard, hears) = sync_channel(8);
    log.watch(Arc::new(move |_, tail| heard.send(tail).expect("somebody listens")));
    append(&log, "a", 1, 1, 1);
    append(&log, "a", 1, 1, 1);
    assert_eq!((hears.recv(), hears.recv()), (Ok(1), Ok(2)));
}

#[test]
fn room_is_taken_ahead_in_steps_of_which_each_is_synced() {
    let mut bench = Bench::new();
    let segment_bytes = (1 << 20) + (4 << 10);
    bench.options = LogOptions { segment_bytes, prewrite: true, ..LogOptions::small() };
    let log = bench.open();
    let before = bench.disk.counts();
    log.housekeep();
    let cost = bench.disk.counts() - before;
    assert_eq!(cost.bytes_written, u64::from(segment_bytes), "zeros over a spare, once");
    assert_eq!(cost.file_syncs, 3, "a megabyte, the rest, and all of it");
}

/// Before: with both classes' segments and the reserve the least budget was used up, so that nothing ever ended the full one.
#[test]
fn the_least_budget_is_enough_for_whoever_is_delivered() {
    let mut bench = Bench::new();
    bench.options.budget_bytes = bench.options.budget_bytes_min();
    let log = bench.open();
    append(&log, "!dead/x", 1, 100, 1);
    for n in 0..200 {
        let offsets = append(&log, "a", 1, 4000, 1);
        assert_eq!(offsets, n..n + 1);
        log.trim(log.stream("a").expect("known"), offsets.end);
        log.housekeep();
    }
    bench.options.budget_bytes -= 1;
    drop(log);
    assert!(matches!(bench.try_open(), Err(OpenError::Option { name: "budget_bytes", .. })));
}

/// Before: where others' records and the reserve were all of the budget, a segment that was written to stayed for ever.
#[test]
fn a_log_that_is_full_of_others_records_takes_more_as_soon_as_the_last_segment_is_delivered() {
    // Also where each append is a large one, which is refused alone.
    for (large_append_bytes, kept, len) in [(1 << 20, 16, 4000), (3000, 31, 2000)] {
        let mut bench = Bench::new();
        bench.options.budget_bytes = bench.options.budget_bytes_min();
        bench.options.large_append_bytes = large_append_bytes;
        let log = bench.open();
        append(&log, "!dead/x", 1, 100, 1);
        for _ in 0..kept {
            append(&log, "kept", 1, len, 1);
        }
        let mut full = 0;
        for _ in 0..100 {
            let appended = match log.append_wait("a", vec![part(1, 4000, 1)]) {
                Err(AppendError::Full { .. }) => {
                    full += 1;
                    log.housekeep();
                    log.append_wait("a", vec![part(1, 4000, 1)])
                }
                other => other,
            };
            log.trim(log.stream("a").expect("known"), appended.expect("there is room again").offsets.end);
        }
        assert!(full > 2, "full {full} times");
        assert_eq!(read(&log, "kept", 0).len(), kept);
    }
}

/// Before: all others heard `Full` until the next housekeeping, though there was room for what they had.
#[test]
fn an_append_too_large_for_what_is_left_is_refused_alone() {
    let bench = Bench::new();
    let log = bench.open();
    let large = || vec![part(1, 2 * bench.options.segment_bytes as usize, 1)];
    let refused = loop {
        match log.append_wait("a", large()) {
            Ok(_) => append(&log, "b", 1, 100, 1),
            Err(error) => break error,
        };
    };
    assert!(matches!(refused, AppendError::Full { .. }), "{refused}");
    assert_eq!(log.state(), LogState::Serving);
    append(&log, "b", 1, 100, 1);
    assert!(matches!(log.append_wait("a", large()), Err(AppendError::Full { .. })));
    append(&log, "b", 1, 100, 1);
    // What is no larger than a segment says for all what there is: nothing.
    let full = loop {
        match log.append_wait("b", vec![part(1, 1000, 1)]) {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert!(matches!((full, log.state()), (AppendError::Full { .. }, LogState::Full { .. })));
}

/// Before: ingest times stood still until the clock had caught up with where it once was, over restarts too.
#[test]
fn a_clock_that_was_far_ahead_for_a_moment_does_not_stay_in_the_log() {
    const YEARS_MS: u64 = 10 * 365 * 86_400_000;
    let bench = Bench::new();
    let ingest_ms = |log: &Log| {
        let from = append(log, "a", 1, 10, 1).start;
        let mut reader = log.reader(log.stream("a").expect("known"), from);
        let Some(Item::Frame(frame)) = reader.next().expect("memory reads") else { panic!("it was just appended") };
        frame.ingest_ms
    };
    let log = bench.open();
    assert_eq!(ingest_ms(&log), 1_000_000);
    bench.clock.set_wall_ms(1_000_000 - 60_000);
    assert_eq!(ingest_ms(&log), 1_000_000, "a small step back changes nothing");
    bench.clock.set_wall_ms(1_000_000 + YEARS_MS);
    assert_eq!(ingest_ms(&log), 1_000_000 + YEARS_MS);
    bench.clock.set_wall_ms(1_000_001);
    assert_eq!(ingest_ms(&log), 1_000_001);
    bench.clock.set_wall_ms(1_000_000 + YEARS_MS);
    assert_eq!(ingest_ms(&log), 1_000_000 + YEARS_MS);
    log.close().expect("closed");
    drop(log);
    bench.clock.set_wall_ms(1_000_002);
    assert_eq!(ingest_ms(&bench.open()), 1_000_002);
}

/// Before: such a name went into the stream table, which could not be read any more.
#[test]
fn a_name_that_no_append_may_have_is_never_raised() {
    let bench = Bench::new();
    let log = bench.open();
    let name = "x".repeat(limits::STREAM_NAME_BYTES_MAX + 1);
    log.raise_next(&name, 7);
    assert_eq!(log.stream(&name), None);
}

/// Before: of two clones that were dropped at once each left it to the other to end the threads.
#[test]
fn the_last_clones_dropped_at_once_let_the_directory_go() {
    let mut bench = Bench::new();
    bench.options.inline = false;
    for _ in 0..200 {
        let log = loop {
            match bench.try_open() {
                Err(OpenError::Locked { .. }) => std::thread::yield_now(), // its threads are on their way out
                opened => break opened.expect("the log opens"),
            }
        };
        let clone = log.clone();
        let other = std::thread::spawn(move || drop(clone));
        drop(log);
        other.join().expect("no panic");
    }
}
