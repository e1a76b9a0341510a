//! A disk that gets short: who is refused, and that nobody else notices.

use forebay::clock::ManualClock;
use forebay::{AppendError, Log, LogOptions, LogState, Payload, Queue, QueueOptions, Queues, Settled, Start};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use storage_tests::fault::{Failure, Fault, OpKind};
use storage_tests::queues::{ANY, books_close, plan};
use storage_tests::sim_disk::{PowerCut, SimDisk};

const SEGMENT_BYTES: u64 = 16 << 10;

fn options(segments: u64) -> LogOptions {
    LogOptions {
        segment_bytes: SEGMENT_BYTES as u32,
        budget_bytes: segments * SEGMENT_BYTES,
        tail_cache_bytes: 0,
        replay_window: Duration::ZERO,
        ..LogOptions::small()
    }
}

fn open_log(disk: &SimDisk, clock: &ManualClock, segments: u64) -> Log {
    Log::open(Arc::new(disk.clone()), Arc::new(clock.clone()), Path::new("/log"), options(segments)).expect("it opens")
}

fn append(log: &Log, stream: &str, bytes: usize) -> Result<(), AppendError> {
    log.append_wait(stream, vec![Payload { bytes: vec![7; bytes], records: 1 }]).map(drop)
}

fn trim_all(log: &Log, stream: &str) {
    let id = log.stream(stream).expect("it was appended to");
    log.trim(id, log.durable(id).offset);
}

/// How often `trickle`, which nobody takes anything of, and `batches`, which is taken every tenth round, are refused while much
/// goes through that is delivered at once.
fn refusals(disk: &SimDisk, rounds: u64, trickle_bytes: usize) -> ([u64; 3], Log) {
    let clock = ManualClock::at(1_000_000);
    let log = open_log(disk, &clock, 200);
    let mut refused = [0; 3];
    for round in 0..rounds {
        for (n, (stream, bytes)) in
            [("trickle", trickle_bytes), ("batches", 1_500), ("brisk", 9_000)].into_iter().enumerate()
        {
            match append(&log, stream, bytes) {
                Ok(()) => {}
                Err(AppendError::OverShare { held, share }) => {
                    assert!(held > share);
                    refused[n] += 1;
                }
                Err(other) => panic!("round {round}: {other}"),
            }
        }
        trim_all(&log, "brisk");
        if round % 10 == 9 {
            trim_all(&log, "batches");
        }
        clock.advance(Duration::from_secs(1));
        log.housekeep();
    }
    (refused, log)
}

/// Compaction takes care of it: what settled records keep on the disk is gone before the disk is short.
#[test]
fn a_trickle_that_nobody_takes_makes_no_disk_short() {
    let disk = SimDisk::new(1);
    let (refused, log) = refusals(&disk, 800, 400);
    assert_eq!(refused, [0; 3]);
    let backlogs: u64 = log.streams().iter().map(|stream| stream.backlog_bytes).sum();
    let used = log.stats().bytes_used;
    assert!(used <= backlogs * 13 / 10 + 5 * SEGMENT_BYTES, "{used} used, {backlogs} needed");
}

/// Before: where compaction can't take care of it, since nothing can be read, the environment that always has a batch waiting was
/// refused, for its backlog is the larger; and the one that keeps the disk was not.
#[test]
fn whoever_keeps_the_disk_is_refused_and_not_whoever_has_the_larger_backlog() {
    let disk = SimDisk::new(1);
    disk.inject(Fault::every(OpKind::Read, Failure::Eio).on(".seg"));
    let ([trickle, batches, brisk], log) = refusals(&disk, 400, 40);
    assert!(trickle > 50 && (batches, brisk) == (0, 0), "{trickle}, {batches}, {brisk}");
    let held = |stream: &str| {
        let stats = log.streams().into_iter().find(|stats| &*stats.name == stream).expect("it was appended to");
        (stats.backlog_bytes, stats.held_bytes)
    };
    let (backlog, held_by_it) = held("trickle");
    assert!(backlog < 12_000 && held_by_it > 100 * SEGMENT_BYTES, "{backlog} {held_by_it}");
    assert_eq!(held("brisk"), (0, 0), "who keeps up is charged for nothing");
    assert_eq!(log.state(), LogState::Serving);
    // It is taken at last, and with that it holds nothing.
    disk.clear_faults();
    trim_all(&log, "trickle");
    (0..3).for_each(|_| log.housekeep());
    assert_eq!((log.stats().share_bytes, held("trickle")), (None, (0, 0)));
    append(&log, "trickle", 40).expect("nobody is refused");
}

// With queues

struct House {
    queues: Queues,
    others: Vec<Queue>,
    sick: Option<Queue>,
}

/// Environments that are taken at once, and the last few a batch a minute.
const OTHERS: usize = 12;
const IN_BATCHES: usize = 2;
const ROUND: Duration = Duration::from_millis(250);
const ROUNDS_PER_MINUTE: u64 = 240;

fn open(disk: &SimDisk, clock: &ManualClock, options: LogOptions) -> Queues {
    let (disk, clock) = (Arc::new(disk.clone()), Arc::new(clock.clone()));
    let queues = Queues::open(disk, clock, Path::new("/data"), options, QueueOptions::inline()).expect("it opens");
    books_close(&queues);
    queues
}

impl House {
    fn open(disk: &SimDisk, clock: &ManualClock, segments: u64, sick: bool) -> Self {
        let queues = open(disk, clock, options(segments));
        let queue = |name: &str| queues.queue(name, name, Start::Earliest).expect("it is there, or made");
        let others = (0..OTHERS).map(|n| queue(&format!("env-{n}"))).collect();
        Self { sick: sick.then(|| queue("sick")), others, queues }
    }
}

fn deliver(queue: &Queue, planned: bool) {
    while let Some(batch) = queue.next_batch(ANY).expect("it reads") {
        if planned {
            plan(queue, &batch);
        }
        queue.settle(&batch, Settled::Delivered);
    }
}

/// What became of an environment's records.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
struct Came {
    accepted: u64,
    refused: u64,
    delivered: u64,
}

/// Ten minutes of all environments, with a power cut in the midst; with or without one that takes nothing for that long and has
/// half of all traffic, after so many hundredths of the disk that came for it at once. The plan of its first batch waits and keeps all
/// plans behind it. What became of the others' records, what of the sick one's,
/// and for how many rounds it was refused.
fn ten_minutes(segments: u64, ahead: u64, with_sick: bool) -> (Vec<Came>, Came, u64) {
    let (disk, clock) = (SimDisk::new(7), ManualClock::at(1_000_000));
    let mut house = House::open(&disk, &clock, segments, with_sick);
    let mut came = vec![Came { accepted: 0, refused: 0, delivered: 0 }; OTHERS + 1];
    let mut rounds_over_share = 0;
    for round in 0..10 * ROUNDS_PER_MINUTE {
        let take = |name: &str, records: u32, came: &mut Came| {
            let payload = Payload { bytes: vec![7; records as usize * 100], records };
            match house.queues.log().append_wait(name, vec![payload]) {
                Ok(_) => came.accepted += u64::from(records),
                Err(AppendError::OverShare { .. }) => came.refused += u64::from(records),
                Err(other) => panic!("round {round}, {name}: {other}"),
            }
        };
        if with_sick {
            let before = came[OTHERS].refused;
            take("sick", 24, &mut came[OTHERS]);
            rounds_over_share += u64::from(came[OTHERS].refused > before);
        }
        if round == 0
            && let Some(queue) = &house.sick
        {
            plan(queue, &queue.next_batch(ANY).expect("it reads").expect("it came just now"));
            // Segments of which all is needed: nothing is to be had there.
            for _ in 0..segments * SEGMENT_BYTES * ahead / 100 / 2_500 {
                take("sick", 24, &mut came[OTHERS]);
            }
        }
        for (n, queue) in house.others.iter().enumerate() {
            take(queue.stream(), 1, &mut came[n]);
            if n < OTHERS - IN_BATCHES || round % ROUNDS_PER_MINUTE == 0 {
                // Some in each segment, and together little beside one: as much as there is room for in a segment of real size.
                deliver(queue, n == 0 && round % 8 == 0);
            }
        }
        clock.advance(ROUND);
        house.queues.tick().expect("the disk is sound");
        if round % 4 == 0 {
            house.queues.log().housekeep();
        }
        if round == 6 * ROUNDS_PER_MINUTE {
            drop(house);
            disk.power_cut(PowerCut::RandomSubset);
            house = House::open(&disk, &clock, segments, with_sick);
        }
    }
    // It is mended.
    house.sick.iter().chain(&house.others).for_each(|queue| deliver(queue, true));
    (0..3).for_each(|_| house.queues.tick().expect("the disk is sound"));
    house.queues.log().housekeep();
    assert_eq!(house.queues.log().stats().share_bytes, None, "and with that nobody is refused any more");
    books_close(&house.queues);
    for (came, queue) in came.iter_mut().zip(house.others.iter().chain(&house.sick)) {
        let balance = queue.balance();
        assert_eq!((balance.lost.records, balance.accepted.records), (0, came.accepted), "{}", queue.stream());
        came.delivered = balance.delivered.records;
    }
    let sick = came.pop().expect("the last one");
    (came, sick, rounds_over_share)
}

/// One environment's destination takes nothing until its backlog is over its share of the disk, and for minutes more. What others
/// get in and out is what it would be without it, and nothing that was acknowledged is lost, neither theirs nor its own. Before, where
/// all was needed of the segments that it had, and plans of the others in each new one, these filled the disk before they were
/// compacted: a tenth of what was needed was more than the last tenth of a disk of fewer than some two hundred segments.
#[test]
fn a_destination_over_its_disk_share_for_minutes_changes_nothing_for_the_others() {
    for (segments, ahead) in [(100, 0), (130, 88)] {
        let (alone, ..) = ten_minutes(segments, ahead, false);
        let (beside, sick, rounds_over_share) = ten_minutes(segments, ahead, true);
        println!(
            "{segments} segments, {rounds_over_share} rounds over its share: {sick:?}; the others {:?}",
            beside[0]
        );
        assert!(rounds_over_share > 4 * ROUNDS_PER_MINUTE, "{rounds_over_share}");
        assert!(sick.accepted * 100 > segments * 7 / 10 * SEGMENT_BYTES, "it had nearly all of the disk: {sick:?}");
        assert_eq!(sick.delivered, sick.accepted, "all that was acknowledged, in the end");
        for (n, (alone, beside)) in alone.iter().zip(&beside).enumerate() {
            assert_eq!(alone.refused, 0);
            assert_eq!(beside, alone, "{segments} segments, environment {n}");
        }
    }
}

/// Decision 163.
#[test]
fn a_batch_that_waits_keeps_what_was_settled_behind_it_is_charged_for_it_and_lets_it_go() {
    let (disk, clock) = (SimDisk::new(11), ManualClock::at(1_000_000));
    let queues = open(&disk, &clock, options(200));
    let queue = queues.queue("hook", "acme", Start::Earliest).expect("it is made");
    append(queues.log(), "acme", 100).expect("there is room");
    let waits = queue.next_batch(ANY).expect("it reads").expect("it came just now");
    let keep_house = |rounds| {
        for _ in 0..rounds {
            queues.tick().expect("the disk is sound");
            clock.advance(ROUND);
            queues.log().housekeep();
        }
    };
    for _ in 0..400 {
        append(queues.log(), "acme", 2_000).expect("there is room");
        deliver(&queue, false);
        keep_house(1);
    }
    let of_acme = || {
        let stats =
            queues.log().streams().into_iter().find(|stats| &*stats.name == "acme").expect("it was appended to");
        (stats.backlog_bytes, stats.held_bytes, queues.log().stats().bytes_used)
    };
    assert_eq!((queue.lag().bytes, queue.lag().records), (100, 1), "one record is undelivered");
    let (backlog, held, used) = of_acme();
    assert!(backlog == 800_100 && held >= backlog && used >= held, "{backlog} {held} {used}");
    queue.settle(&waits, Settled::Delivered);
    keep_house(3);
    let (backlog, held, used) = of_acme();
    assert!((backlog, held) == (0, 0) && used <= 5 * SEGMENT_BYTES, "{backlog} {held} {used}");
}

/// Before: a log that was just opened took all that it had for needed; so on a short disk everybody was refused until the queues
/// had their first tick.
#[test]
fn after_a_restart_on_a_short_disk_nobody_is_refused_before_it_is_known_what_is_needed() {
    let (disk, clock) = (SimDisk::new(3), ManualClock::at(1_000_000));
    let queue_of = |queues: &Queues, name: &str| queues.queue(name, name, Start::Earliest).expect("it is made");
    let take = |queues: &Queues, name: &str, bytes| append(queues.log(), name, bytes);
    let queues = open(&disk, &clock, options(100));
    let names = ["heavy", "light", "healthy"];
    let healthy = queue_of(&queues, names[2]);
    let others = [queue_of(&queues, names[0]), queue_of(&queues, names[1])];
    let full = AtomicU64::new(0);
    for _ in 0..6_000 {
        let refused = [take(&queues, "heavy", 3_000).is_err(), take(&queues, "light", 200).is_err()];
        take(&queues, "healthy", 250).expect("it keeps up");
        deliver(&healthy, true);
        queues.tick().expect("the disk is sound");
        clock.advance(ROUND);
        queues.log().housekeep();
        if refused == [true; 2] && full.fetch_add(1, Ordering::Relaxed) > 3 {
            break;
        }
    }
    assert!(full.into_inner() > 3, "both hold more than their share");
    drop((healthy, others, queues));
    disk.power_cut(PowerCut::NothingUnsynced);

    let queues = open(&disk, &clock, options(100));
    queues.log().housekeep();
    for name in names {
        take(&queues, name, 10).expect("nobody is refused yet");
    }
    for _ in 0..3 {
        queues.tick().expect("the disk is sound");
        queues.log().housekeep();
    }
    take(&queues, "healthy", 60).expect("it keeps up");
    assert!(matches!(take(&queues, "heavy", 60), Err(AppendError::OverShare { .. })));
}

/// Before: what was trimmed counted with the average of all records that ever were.
#[test]
fn a_backlog_is_known_to_the_byte_after_a_restart() {
    let (disk, clock) = (SimDisk::new(4), ManualClock::at(1_000_000));
    let queues = open(&disk, &clock, options(100));
    let queue = queues.queue("a", "a", Start::Earliest).expect("it is made");
    for bytes in [10, 10, 10, 10, 3_000, 5_000] {
        append(queues.log(), "a", bytes).expect("there is room");
    }
    queue.settle_range(0..4, Settled::Delivered);
    (0..3).for_each(|_| queues.tick().expect("the disk is sound"));
    let backlog = |queues: &Queues| {
        let streams = queues.log().streams();
        streams.iter().find(|stream| &*stream.name == "a").expect("appended to").backlog_bytes
    };
    assert_eq!((backlog(&queues), queue.lag().bytes), (8_000, 8_000));
    drop((queue, queues));
    disk.power_cut(PowerCut::NothingUnsynced);
    let queues = open(&disk, &clock, options(100));
    (0..3).for_each(|_| queues.tick().expect("the disk is sound"));
    assert_eq!(backlog(&queues), 8_000);
}
