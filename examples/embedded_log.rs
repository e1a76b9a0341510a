//! The log as a library: several writers, one reader behind them, a second start.
//!
//! `cargo run --example embedded_log [DIRECTORY]`; without a directory it uses a temporary one and removes it.

use forebay::clock::SystemClock;
use forebay::disk::Disk;
use forebay::disk::real::RealDisk;
use forebay::{Item, Log, LogOptions, OnFull, Payload};
use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::sync_channel;

const WRITERS: usize = 4;
const APPENDS: usize = 250;
const STREAM: &str = "orders";

fn main() -> Result<(), Box<dyn Error>> {
    let temporary = std::env::args_os().nth(1).is_none();
    let dir = std::env::args_os()
        .nth(1)
        .map_or_else(|| std::env::temp_dir().join(format!("forebay-example-{}", std::process::id())), PathBuf::from);
    let first = open(&dir)?;
    println!("log {} in {}", first.log_id(), dir.display());
    write_from_many_threads(&first)?;
    append_without_waiting(&first)?;
    first.close()?; // seals; what was acknowledged is safe without it
    drop(first); // lets go of the directory

    let second = open(&dir)?;
    let (frames, records) = read_all(&second)?;
    println!("after a second start: {records} records in {frames} frames of {STREAM:?}");
    println!("{:#?}", second.stats());
    second.close()?;
    if temporary {
        RealDisk.remove_dir(&dir)?;
    }
    Ok(())
}

fn open(dir: &Path) -> Result<Log, Box<dyn Error>> {
    // 1 MiB segments, so that the example takes little room; the default is 64 MiB.
    let options = LogOptions { segment_bytes: 1 << 20, budget_bytes: 64 << 20, ..LogOptions::default() };
    Ok(Log::open(Arc::new(RealDisk), Arc::new(SystemClock::new()), dir, options)?)
}

/// Each append returns when it is fsynced. Those of several threads share their syncs.
fn write_from_many_threads(log: &Log) -> Result<(), Box<dyn Error>> {
    let threads: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let log = log.clone();
            std::thread::spawn(move || {
                for n in 0..APPENDS {
                    let bytes = format!("writer {writer}, order {n}").into_bytes();
                    log.append_wait(STREAM, vec![Payload { bytes, records: 1 }])?;
                }
                Ok::<(), forebay::AppendError>(())
            })
        })
        .collect();
    for thread in threads {
        thread.join().expect("a writer does not panic")?;
    }
    let stats = log.stats();
    println!("{} appends from {WRITERS} threads took {} commits of one sync each", stats.appends, stats.commits);
    Ok(())
}

/// The other way: go on at once and be called back when the records are durable.
fn append_without_waiting(log: &Log) -> Result<(), Box<dyn Error>> {
    let (done, is_done) = sync_channel(1);
    // Two parts are two frames, and one append: after a crash both are there or none.
    let parts = ["one part", "another part"].map(|text| Payload { bytes: text.into(), records: 1 });
    log.append_group(
        STREAM,
        parts.into(),
        OnFull::Wait,
        Box::new(move |result| done.send(result).unwrap_or_default()),
    )?;
    println!("the last append lies at {:?}", is_done.recv()??.offsets);
    Ok(())
}

fn read_all(log: &Log) -> Result<(u64, u64), Box<dyn Error>> {
    let stream = log.stream(STREAM).ok_or("the stream is gone")?;
    let (mut frames, mut records) = (0, 0);
    let mut reader = log.reader(stream, log.first_kept(stream));
    while let Some(item) = reader.next()? {
        match item {
            Item::Frame(frame) => {
                frames += 1;
                records += u64::from(frame.records);
            }
            Item::Lost { offsets, why } => println!("records {offsets:?} are lost: {why}"),
        }
    }
    Ok((frames, records))
}
