//! Who goes on when is chosen here, at every lock, atomic and call to the disk, by a checker of schedules (shuttle):
//! the appender, its tail cache and readers, and the queues, each with a few threads and a few records, many times over.
//!
//! `cargo test -p storage-tests --features shuttle --test schedules`, of which `FOREBAY_SCHEDULES=n` tries n schedules a
//! test and `FOREBAY_SEED=n` begins with others. What fails prints its seed; `FOREBAY_SEED=<seed> FOREBAY_SCHEDULES=1`
//! plays it again. A thread that waits for ever is a failure, too.

use forebay::clock::ManualClock;
use forebay::{AppendError, Appended, BatchLimits, Item, Log, LogOptions, OnFull, Payload, QueueOptions, Queues};
use forebay::{OpenError, OpenQueuesError, Queue, Settled, Start, StreamId};
use shuttle::sync::mpsc::{Sender, channel};
use shuttle::thread;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use storage_tests::yielding::Yielding;

/// How many schedules a test tries unless it is told.
const SCHEDULES: u64 = 300;

/// Plays `scene` with one schedule after another.
fn every_way(scene: fn()) {
    let number = |name: &str, or: u64| {
        std::env::var(name).map_or(or, |text| text.parse().unwrap_or_else(|_| panic!("{name} must be a number")))
    };
    let first = number("FOREBAY_SEED", 0);
    for seed in first..first + number("FOREBAY_SCHEDULES", SCHEDULES) {
        let played = std::panic::catch_unwind(|| {
            let mut config = shuttle::Config::new();
            config.failure_persistence = shuttle::FailurePersistence::None;
            config.max_steps = shuttle::MaxSteps::FailAfter(1_000_000);
            config.stack_size = 256 << 10;
            let scheduler = shuttle::scheduler::RandomScheduler::new_from_seed(seed, 1);
            shuttle::Runner::new(scheduler, config).run(scene);
        });
        if let Err(why) = played {
            eprintln!("FOREBAY_SEED={seed} FOREBAY_SCHEDULES=1 plays this schedule again");
            std::panic::resume_unwind(why);
        }
    }
}

fn small() -> LogOptions {
    // Two appends fill the queue, a segment takes a dozen, and the tail cache two.
    LogOptions {
        inline: false,
        segment_bytes: 4 << 10,
        queue_bytes_max: 500,
        tail_cache_bytes: 500,
        budget_bytes: 1 << 20,
        ..LogOptions::small()
    }
}

fn open(disk: &Yielding) -> Log {
    let clock = ManualClock::at(1_000_000);
    Log::open(Arc::new(disk.clone()), Arc::new(clock), Path::new("/log"), small()).expect("it opens")
}

/// A payload that says who wrote it and as which.
fn payload(writer: u8, n: u8) -> Payload {
    Payload { bytes: [&[writer, n][..], &[0; 200]].concat(), records: 1 }
}

/// Who wrote what, by offset, up to the durable tail; in order, none missing, none twice, or it panics.
fn read_all(log: &Log, stream: StreamId, from: u64) -> BTreeMap<u64, (u8, u8)> {
    let mut reader = log.reader(stream, from);
    let mut found = BTreeMap::new();
    let mut next = from;
    while let Some(item) = reader.next().expect("the disk never fails") {
        let Item::Frame(frame) = item else { panic!("something acknowledged is lost: {item:?}") };
        assert_eq!(frame.offsets().start, next, "in order, and none missing");
        next = frame.offsets().end;
        // A record was durable before anybody could read it.
        assert!(next <= log.durable(stream).offset, "beyond the durable tail");
        found.insert(frame.offsets().start, (frame.payload()[0], frame.payload()[1]));
    }
    found
}

/// Who appended, as which of its own, and what became of it.
type Answered = (u8, u8, Result<Range<u64>, AppendError>);

/// Lets others go on so many times.
fn pause(turns: usize) {
    (0..turns).for_each(|_| thread::yield_now());
}

/// Appends at most so many, until it is told that the log is closed, and has it said at which offset each of them lies.
/// How many it appended.
fn write(log: &Log, writer: u8, most: u8, answers: &Sender<Answered>) -> usize {
    for n in 0..most {
        pause(10);
        let theirs = answers.clone();
        let done = Box::new(move |result: Result<Appended, AppendError>| {
            theirs.send((writer, n, result.map(|appended| appended.offsets))).expect("somebody listens");
        });
        if let Err(error) = log.append_group("s", vec![payload(writer, n)], OnFull::Wait, done) {
            assert!(matches!(error, AppendError::Closed), "{error}");
            return usize::from(n);
        }
    }
    usize::from(most)
}

/// Three threads whose appends do not fit into the queue together, while two read what there is: each append is
/// answered once, where it says it lies it is, and so it is after the log was closed and opened again.
#[test]
fn appends_that_wait_for_room_are_answered_once_and_lie_where_they_say() {
    every_way(|| {
        let disk = Yielding::default();
        let log = open(&disk);
        let (answer, answers) = channel();
        let writers = (0..3).map(|writer| {
            let (log, answer) = (log.clone(), answer.clone());
            thread::spawn(move || assert_eq!(write(&log, writer, 4, &answer), 4))
        });
        let readers = (0..2).map(|_| {
            let log = log.clone();
            thread::spawn(move || {
                for _ in 0..3 {
                    log.stream("s").map(|stream| read_all(&log, stream, 0));
                }
            })
        });
        for running in writers.chain(readers.collect::<Vec<_>>()).collect::<Vec<_>>() {
            running.join().expect("no thread panics");
        }
        drop(answer);
        let told: BTreeMap<u64, (u8, u8)> = answers
            .iter()
            .map(|(writer, n, offsets)| (offsets.expect("the disk never fails").start, (writer, n)))
            .collect();
        assert_eq!(told.len(), 12, "each has a place of its own");
        let stream = log.stream("s").expect("there are records");
        assert_eq!(read_all(&log, stream, 0), told);
        log.close().expect("closes");
        drop(log);
        let log = open(&disk);
        assert_eq!(read_all(&log, log.stream("s").expect("it was kept"), 0), told);
    });
}

/// Whose append was taken while the log is closed is answered, with the place, and then it is there; whose was not is
/// told that the log is closed.
#[test]
fn a_close_in_the_middle_of_appends_leaves_nobody_waiting() {
    every_way(|| {
        let disk = Yielding::default();
        let log = open(&disk);
        let (answer, answers) = channel();
        let writers: Vec<_> = (0..2)
            .map(|writer| {
                let (log, answer) = (log.clone(), answer.clone());
                thread::spawn(move || write(&log, writer, 100, &answer))
            })
            .collect();
        let closing = {
            let log = log.clone();
            thread::spawn(move || {
                pause(100);
                log.close().expect("closes");
            })
        };
        let taken: usize = writers.into_iter().map(|writer| writer.join().expect("no thread panics")).sum();
        closing.join().expect("no thread panics");
        drop((answer, log));
        let place = |(writer, n, offsets): Answered| {
            (offsets.expect("it was taken, and the disk never fails").start, (writer, n))
        };
        let told: BTreeMap<u64, (u8, u8)> = answers.iter().map(place).collect();
        assert_eq!(told.len(), taken, "each that was taken is answered once");
        let log = open(&disk);
        let kept = log.stream("s").map(|stream| read_all(&log, stream, 0)).unwrap_or_default();
        assert_eq!(kept, told);
    });
}

/// Segments are sealed, recycled and made while one thread appends, one reads behind it and one lets go of what was
/// read: the reader meets every record once, whether it comes from memory or from a file that is on its way out.
#[test]
fn a_reader_meets_each_record_once_while_segments_come_and_go() {
    every_way(|| {
        const RECORDS: u8 = 40;
        let disk = Yielding::default();
        let log = open(&disk);
        log.append_wait("s", vec![payload(0, 0)]).expect("taken");
        let stream = log.stream("s").expect("it has a record");
        let appending = {
            let log = log.clone();
            thread::spawn(move || {
                for n in 1..RECORDS {
                    let end = log.append_wait("s", vec![payload(0, n)]).expect("taken").offsets.end;
                    assert!(log.durable(stream).offset >= end, "who is answered can read it");
                }
            })
        };
        let (read, is_read) = channel();
        let reading = {
            let log = log.clone();
            thread::spawn(move || {
                let mut next = 0;
                while next < u64::from(RECORDS) {
                    for (offset, (_, n)) in read_all(&log, stream, next) {
                        assert_eq!((offset, u64::from(n)), (next, next), "each record once, in order");
                        next += 1;
                    }
                    read.send(next).expect("somebody lets go");
                    thread::yield_now();
                }
            })
        };
        let letting_go = {
            let log = log.clone();
            thread::spawn(move || {
                for before in is_read.iter() {
                    log.trim(stream, before);
                    log.housekeep();
                }
            })
        };
        for running in [appending, reading, letting_go] {
            running.join().expect("no thread panics");
        }
        assert_eq!(log.durable(stream).offset, u64::from(RECORDS));
        assert_eq!(log.damages(), []);
    });
}

fn open_queues(disk: &Yielding) -> (Queues, Queue) {
    let clock = ManualClock::at(1_000_000);
    let options = QueueOptions { inline: false, ..QueueOptions::inline() };
    let log_options = LogOptions { queue_bytes_max: 1 << 20, ..small() };
    let open = || {
        let (disk, clock) = (Arc::new(disk.clone()), Arc::new(clock.clone()));
        Queues::open(disk, clock, Path::new("/data"), log_options.clone(), options.clone())
    };
    let queues = loop {
        match open() {
            // Dropped without a close, the one before lets go of the directory when its writer is through with the last answer.
            Err(OpenQueuesError::Log(OpenError::Locked { .. }) | OpenQueuesError::Locked { .. }) => thread::yield_now(),
            opened => break opened.expect("it opens"),
        }
    };
    let queue = queues.queue("d", "s", Start::Earliest).expect("it is made");
    (queues, queue)
}

/// Takes one batch, with its plan, and settles it; every third it gives back the first time. Whether there was one.
fn deliver(queue: &Queue, taken: &mut u32) -> Option<Range<u64>> {
    let batch = queue.next_batch(BatchLimits { records_max: 2, bytes_max: 1 << 20 }).expect("the disk never fails")?;
    *taken += 1;
    if *taken % 3 == 1 {
        queue.release(&batch);
        return Some(0..0);
    }
    let (done, planned) = channel();
    queue.plan(&batch, Box::new(move |result| done.send(result.map_err(|e| e.to_string())).expect("somebody waits")));
    planned.recv().expect("it is answered").expect("the disk never fails");
    queue.settle(&batch, Settled::Delivered);
    Some(batch.offsets)
}

/// Two workers of one queue, an appender and whoever ticks: each record is handed out for good once, the books close at
/// every moment, and whoever opens the directory again, whenever the last one stopped, finds no settled record pending
/// that a tick had seen settled, and no record missing.
#[test]
fn each_record_is_settled_once_whoever_takes_it_and_whenever_it_is_ticked() {
    every_way(|| {
        const RECORDS: u64 = 10;
        let disk = Yielding::default();
        let (queues, queue) = open_queues(&disk);
        let appending = {
            let log = queues.log().clone();
            thread::spawn(move || {
                for n in 0..RECORDS as u8 {
                    log.append_wait("s", vec![payload(0, n)]).expect("taken");
                }
            })
        };
        let workers: Vec<_> = (0..2)
            .map(|_| {
                let queue = queue.clone();
                thread::spawn(move || {
                    let (mut mine, mut taken) = (Vec::new(), 0);
                    while queue.balance().delivered.records < RECORDS {
                        match deliver(&queue, &mut taken) {
                            Some(offsets) => mine.extend(offsets),
                            None => thread::yield_now(),
                        }
                    }
                    mine
                })
            })
            .collect();
        let ticking = {
            let (queues, queue) = (queues.clone(), queue.clone());
            thread::spawn(move || {
                while queue.balance().delivered.records < RECORDS {
                    assert!(queue.balance().closes(), "{:?}", queue.balance());
                    queues.tick().expect("the disk never fails");
                }
            })
        };
        appending.join().expect("no thread panics");
        ticking.join().expect("no thread panics");
        let mut settled: Vec<u64> =
            workers.into_iter().flat_map(|worker| worker.join().expect("no thread panics")).collect();
        settled.sort_unstable();
        assert_eq!(settled, (0..RECORDS).collect::<Vec<_>>(), "each record once");
        queues.tick().expect("the disk never fails");
        drop((queue, queues)); // without a close, as a crash
        let (queues, queue) = open_queues(&disk);
        assert_eq!(queue.balance().delivered.records, RECORDS);
        assert_eq!(queue.balance().pending.records, 0);
        assert_eq!(
            queue.next_batch(BatchLimits { records_max: 2, bytes_max: 1 << 20 }).expect("reads").map(|_| ()),
            None
        );
        queues.close().expect("closes");
    });
}
