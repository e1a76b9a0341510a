//! Catching up: what appends wait for while others read what lies on the disk, as fast as they can.
//!
//! What is read is taken out of the system's memory before each pass over it. The backlogs lie frame by frame in the same
//! segments: what is read ahead for one serves the other as well.

use crate::behind;
use crate::report::{Figure, Target, median, quantile};
use forebay::clock::{Clock, SystemClock};
use forebay::disk::Disk;
use forebay::disk::real::RealDisk;
use forebay::{Item, Log, LogOptions, Payload};
use rustix::fs::{Advice, fadvise};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

const BACKLOG_BYTES: usize = 2 << 30;
const PAYLOAD_BYTES: usize = 100_000;
const RECORDS: u32 = 1000;
/// As many as may read at once on two cores.
const READERS: usize = 2;
const APPENDERS: usize = 4;
/// Of each appender: together a tenth of what the disk takes.
const PAUSE: Duration = Duration::from_millis(20);
const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_secs(4);

/// What a round came to.
struct Round {
    /// Of appends, each in milliseconds.
    times: Vec<f64>,
    read_bytes: u64,
}

/// Appends alone and beside readers of a backlog, in turn: the 99th percentile of what an append takes.
pub(crate) fn measure() -> Vec<Figure> {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory on the disk under test");
    let options = LogOptions { budget_bytes: 8 << 30, replay_window: Duration::ZERO, ..LogOptions::default() };
    let log = Log::open(Arc::new(RealDisk), Arc::new(SystemClock::new()), dir.path(), options).expect("opens");
    let part = |byte: usize| Payload { bytes: vec![byte as u8; PAYLOAD_BYTES], records: RECORDS };
    for i in 0..BACKLOG_BYTES / PAYLOAD_BYTES {
        behind::append(&log, &format!("behind-{}", i % READERS), &[part(i)]);
    }
    log.append_wait("live", vec![part(0)]).expect("all before it are durable");
    thread::sleep(Duration::from_secs(2)); // segments are sealed, and room is taken ahead
    let (mut alone, mut beside, mut ratios, mut read) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    round(&log, dir.path(), 0);
    for _ in 0..ROUNDS {
        let [a, b] = [0, READERS].map(|readers| round(&log, dir.path(), readers));
        let [of_a, of_b] = [&a, &b].map(|round| quantile(round.times.clone(), 0.99));
        ratios.push(of_b / of_a);
        alone.push(of_a);
        beside.push(of_b);
        read.push(b.read_bytes as f64 / 1e6 / ROUND.as_secs_f64());
    }
    let span = |values: &[f64]| {
        let sorted = |share| quantile(values.to_vec(), share);
        format!("{:.2} to {:.2}", sorted(0.0), sorted(1.0))
    };
    vec![Figure {
        name: "catch_up",
        what: format!(
            "p99 of an append of {PAYLOAD_BYTES} bytes, {APPENDERS} threads that pause {PAUSE:?}, beside {READERS} readers that \
             have {:.0} MB/s; baseline without them; median of {ROUNDS} ratios, {}",
            median(read),
            span(&ratios)
        ),
        value: median(beside),
        unit: "ms",
        baseline: Some(median(alone)),
        ratio: Some(median(ratios)),
        target: Target::None,
    }]
}

fn round(log: &Log, dir: &Path, readers: usize) -> Round {
    let (stop, read_bytes, clock) = (AtomicBool::new(false), AtomicU64::new(0), SystemClock::new());
    let times = thread::scope(|scope| {
        for nth in 0..readers {
            let (stop, read_bytes) = (&stop, &read_bytes);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    read_through(log, dir, nth, stop, read_bytes);
                }
            });
        }
        let appender = || {
            let mut times = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                let part = Payload { bytes: vec![7; PAYLOAD_BYTES], records: RECORDS };
                let from = clock.monotonic();
                let appended = log.append_wait("live", vec![part]).expect("the disk takes it");
                times.push((clock.monotonic() - from).as_secs_f64() * 1e3);
                log.trim(appended.stream, appended.offsets.end);
                thread::sleep(PAUSE);
            }
            times
        };
        let appenders: Vec<_> = (0..APPENDERS).map(|_| scope.spawn(appender)).collect();
        thread::sleep(ROUND);
        stop.store(true, Ordering::Relaxed);
        appenders.into_iter().flat_map(|appender| appender.join().expect("no panic")).collect()
    });
    Round { times, read_bytes: read_bytes.into_inner() }
}

/// Reads one backlog from its beginning, from the disk.
fn read_through(log: &Log, dir: &Path, nth: usize, stop: &AtomicBool, read_bytes: &AtomicU64) {
    forget(dir);
    let stream = log.stream(&format!("behind-{nth}")).expect("it was appended to");
    let mut reader = log.reader(stream, 0);
    while !stop.load(Ordering::Relaxed) {
        match reader.next().expect("the disk is sound") {
            Some(Item::Frame(frame)) => drop(read_bytes.fetch_add(frame.payload().len() as u64, Ordering::Relaxed)),
            Some(Item::Lost { offsets, why }) => panic!("{offsets:?}: {why}"),
            None => return,
        }
    }
}

/// Has the system forget what it keeps of the log's segments.
#[expect(clippy::disallowed_methods, reason = "the harness is no part of the house")]
fn forget(dir: &Path) {
    for name in RealDisk.list(dir).expect("the log is there") {
        if name.ends_with(".seg")
            && let Ok(file) = std::fs::File::open(dir.join(name))
        {
            fadvise(&file, 0, None, Advice::DontNeed).expect("a file can be forgotten");
        }
    }
}
