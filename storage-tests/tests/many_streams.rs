//! A hundred thousand streams: what each costs in memory once it is quiet, or cold, and a start among them.
#![expect(clippy::disallowed_methods, reason = "times a start on a real disk")]

use allocation_counter::measure;
use forebay::clock::{ManualClock, SystemClock};
use forebay::disk::mem::MemDisk;
use forebay::disk::real::RealDisk;
use forebay::{Log, LogOptions, OnFull, Payload};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::Duration;
use storage_tests::resident::resident_bytes;

const STREAMS: u64 = 100_000;

fn open(dir: &Path) -> Log {
    let options = LogOptions {
        segment_bytes: 4 << 20,
        budget_bytes: 1 << 30,
        tail_cache_bytes: 1 << 20,
        replay_window: Duration::ZERO,
        prewrite: false,
        ..LogOptions::default()
    };
    Log::open(Arc::new(RealDisk), Arc::new(SystemClock::new()), dir, options).expect("it opens")
}

/// One record to each of the streams, all of them durable.
fn append_to_all(log: &Log) {
    let (done, heard) = sync_channel(STREAMS as usize);
    for n in 0..STREAMS {
        let (done, payload) = (done.clone(), Payload { bytes: vec![7; 100], records: 1 });
        let answer = Box::new(move |appended: Result<_, _>| done.send(appended.is_ok()).expect("somebody listens"));
        log.append_group(&format!("environment-{n:06}"), vec![payload], OnFull::Wait, answer).expect("it is queued");
    }
    assert!((0..STREAMS).all(|_| heard.recv().expect("each is answered")));
}

#[test]
fn a_quiet_stream_costs_less_than_two_kilobytes_and_a_start_among_a_hundred_thousand_is_short() {
    let dir = tempfile::tempdir().expect("a directory");
    let log = open(dir.path());
    let before = resident_bytes();
    (0..3).for_each(|_| append_to_all(&log));
    for stream in log.streams() {
        log.trim(stream.id, stream.tail.offset);
    }
    (0..3).for_each(|_| log.housekeep());
    let stats = log.stats();
    assert_eq!(stats.streams as u64, STREAMS);
    let each = resident_bytes().saturating_sub(before) / STREAMS;
    println!("{each} bytes of memory a stream, all caches among them; {} segments are left", stats.segments);
    assert!(each <= 2_000, "{each} bytes a stream");
    log.close().expect("a good disk");
    drop(log);
    let began = std::time::Instant::now();
    let log = open(dir.path());
    println!("opened in {:?}", began.elapsed());
    assert_eq!(log.stats().streams as u64, STREAMS);
    assert!(began.elapsed() < Duration::from_secs(30), "on a starved machine, too");
}

/// Its number, its name, where it ends, and how to find it by its name: offsets and totals outlive the records.
#[test]
fn a_cold_stream_costs_two_hundred_bytes_of_memory_and_no_more() {
    let (disk, clock) = (Arc::new(MemDisk::new()), Arc::new(ManualClock::at(1_700_000_000_000)));
    let open = || {
        let options = LogOptions { budget_bytes: 1 << 30, ..LogOptions::small() };
        Log::open(disk.clone(), clock.clone(), Path::new("/log"), options).expect("it opens")
    };
    let log = open();
    for n in 0..STREAMS {
        let payload = Payload { bytes: vec![7; 100], records: 1 };
        log.append_wait(&format!("environment-{n:06}"), vec![payload]).expect("it is taken");
    }
    for stream in log.streams() {
        log.trim(stream.id, stream.tail.offset);
    }
    (0..3).for_each(|_| log.housekeep());
    log.close().expect("a good disk");
    drop(log);
    let mut log = None;
    let cost = measure(|| log = Some(open()));
    let stats = log.expect("it is open").stats();
    let each = u64::try_from(cost.bytes_current).expect("it is kept") / STREAMS;
    println!("{each} bytes of memory a stream; {} segments are left", stats.segments);
    assert_eq!(stats.streams as u64, STREAMS);
    assert!(stats.segments <= 4, "nothing is kept of them on the disk: {} segments", stats.segments);
    assert!(each <= 200, "{each} bytes a stream");
}
