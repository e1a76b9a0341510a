//! What the log's and the queue's own work costs without a disk: on files in memory, on the caller's thread, through the
//! public API. Beside each stands the least that anybody would have to do for the same.
//!
//! `cargo bench --bench log [-- NAME]`.

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use forebay::clock::SystemClock;
use forebay::disk::mem::MemDisk;
use forebay::disk::{Disk, File};
use forebay::{
    Batch, BatchLimits, Item, Log, LogOptions, Payload, Queue, QueueOptions, Queues, SeenFrame, Settled, Start,
    StoreChoice, inspect,
};
use std::collections::BTreeMap;
use std::hint::black_box;
use std::io::IoSlice;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

const STREAM: &str = "acme-prod";
const RECORDS: u32 = 100;
const PAYLOAD_BYTES: usize = 5_500;
/// Below a segment, so that all of it is in one, and that one not sealed.
const FRAMES: usize = 10_000;
const HEADER_BYTES: usize = 56;

criterion_group!(benches, append, read, scan, settle);
criterion_main!(benches);

fn options() -> LogOptions {
    LogOptions { prewrite: false, inline: true, tail_cache_bytes: 0, ..LogOptions::default() }
}

fn open(disk: &MemDisk) -> Log {
    Log::open(Arc::new(disk.clone()), Arc::new(SystemClock::new()), Path::new("/log"), options()).expect("opens")
}

fn payload() -> Payload {
    Payload { bytes: vec![7; PAYLOAD_BYTES], records: RECORDS }
}

/// A log of one segment.
fn filled() -> MemDisk {
    let disk = MemDisk::new();
    let log = open(&disk);
    for _ in 0..FRAMES {
        log.append_wait(STREAM, vec![payload()]).expect("memory takes it");
    }
    disk
}

/// A frame made and written; beside it the checksum and the copy alone.
fn append(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("append");
    group.throughput(Throughput::Bytes(PAYLOAD_BYTES as u64));
    let log = open(&MemDisk::new());
    let mut appended = 0;
    group.bench_function("forebay", |bencher| {
        let append = |payload| {
            let stored = log.append_wait(STREAM, vec![payload]).expect("memory takes it");
            appended += 1;
            if appended % 1_000 == 0 {
                // Nobody reads it: its segment is used again.
                log.trim(stored.stream, stored.offsets.end);
                log.housekeep();
            }
        };
        bencher.iter_batched(payload, append, BatchSize::SmallInput);
    });
    let file = MemDisk::new().create(Path::new("bare")).expect("memory");
    let (header, mut position) = ([0; HEADER_BYTES], 0);
    group.bench_function("checksum, write and sync", |bencher| {
        let write = |payload: Payload| {
            black_box(crc32fast::hash(&payload.bytes));
            position = (position + (PAYLOAD_BYTES + HEADER_BYTES) as u64) % (32 << 20);
            let bufs = [IoSlice::new(&header), IoSlice::new(&payload.bytes)];
            file.write_all_at(&bufs, position).and_then(|()| file.sync_data()).expect("memory");
        };
        bencher.iter_batched(payload, write, BatchSize::SmallInput);
    });
    group.finish();
}

/// A stream read from disk, frame by frame; beside it the same reads with their checksums.
fn read(criterion: &mut Criterion) {
    let disk = filled();
    let log = open(&disk);
    let stream = log.stream(STREAM).expect("it was appended to");
    let mut group = criterion.benchmark_group("read");
    group.throughput(Throughput::Bytes((FRAMES * PAYLOAD_BYTES) as u64)).sample_size(10);
    group.bench_function("forebay", |bencher| {
        bencher.iter(|| {
            let (mut reader, mut records) = (log.reader(stream, 0), 0);
            while let Some(Item::Frame(frame)) = reader.next().expect("memory gives it") {
                records += u64::from(frame.records);
            }
            assert_eq!(records, FRAMES as u64 * u64::from(RECORDS));
        });
    });
    let file = the_segment(&disk);
    group.bench_function("read and checksum", |bencher| {
        bencher.iter(|| {
            for n in 0..FRAMES {
                let mut bytes = vec![0; HEADER_BYTES + PAYLOAD_BYTES];
                file.read_at(&mut bytes, (n * (HEADER_BYTES + PAYLOAD_BYTES)) as u64).expect("memory gives it");
                black_box(crc32fast::hash(&bytes));
            }
        });
    });
    group.finish();
}

/// A segment that was not sealed, judged frame by frame as recovery does; beside it one read and one checksum of all.
fn scan(criterion: &mut Criterion) {
    let disk = filled();
    let mut group = criterion.benchmark_group("scan");
    group.throughput(Throughput::Bytes((FRAMES * PAYLOAD_BYTES) as u64)).sample_size(10);
    group.bench_function("forebay", |bencher| {
        bencher.iter(|| {
            let mut frames = 0;
            let each = |_: &SeenFrame<'_>| {
                frames += 1;
                ControlFlow::Continue(())
            };
            inspect(&disk, Path::new("/log"), each).expect("memory gives it");
            assert_eq!(frames, FRAMES);
        });
    });
    let file = the_segment(&disk);
    group.bench_function("read and checksum", |bencher| {
        bencher.iter(|| crc32fast::hash(&forebay::disk::read_all(&*file).expect("memory gives it")));
    });
    group.finish();
}

/// Batches claimed and settled, the second of each pair first; beside it a map of ranges that are merged.
fn settle(criterion: &mut Criterion) {
    const BATCHES: usize = 100;
    let mut group = criterion.benchmark_group("settle");
    group.throughput(Throughput::Elements(BATCHES as u64));
    let limits = BatchLimits { records_max: u64::from(RECORDS), bytes_max: 1 << 20 };
    let claim = |queue: &Queue| -> Vec<Batch> {
        let batches = (0..BATCHES).filter_map(|_| queue.next_batch(limits).expect("memory gives it"));
        batches.collect()
    };
    let log_options = LogOptions { tail_cache_bytes: 64 << 20, ..options() };
    let queue_options = QueueOptions { store: StoreChoice::None, inline: true, ..QueueOptions::default() };
    let (disk, clock) = (Arc::new(MemDisk::new()), Arc::new(SystemClock::new()));
    let queues = Queues::open(disk, clock, Path::new("/data"), log_options, queue_options).expect("opens");
    let queue = queues.queue("hook", STREAM, Start::Earliest).expect("a name as any");
    group.bench_function("forebay", |bencher| {
        let setup = || {
            for _ in 0..BATCHES {
                queues.log().append_wait(STREAM, vec![payload()]).expect("memory takes it");
            }
            queues.tick().expect("memory takes it");
            queues.log().housekeep();
        };
        let settle = |()| {
            let batches = claim(&queue);
            assert_eq!(batches.len(), BATCHES);
            for pair in batches.chunks(2) {
                pair.iter().rev().for_each(|batch| queue.settle(batch, Settled::Delivered));
            }
        };
        bencher.iter_batched(setup, settle, BatchSize::PerIteration);
    });
    group.bench_function("a map of ranges", |bencher| {
        bencher.iter(|| {
            let (mut settled, mut low) = (BTreeMap::new(), 0);
            for pair in 0..BATCHES as u64 / 2 {
                for first in [(pair * 2 + 1) * u64::from(RECORDS), pair * 2 * u64::from(RECORDS)] {
                    settled.insert(first, first + u64::from(RECORDS));
                    while let Some(end) = settled.remove(&low) {
                        low = end;
                    }
                }
            }
            assert_eq!(low, BATCHES as u64 * u64::from(RECORDS));
        });
    });
    group.finish();
}

fn the_segment(disk: &MemDisk) -> Arc<dyn File> {
    let dir = Path::new("/log");
    let names = disk.list(dir).expect("memory gives it");
    let segment = names.iter().find(|name| name.ends_with(".seg")).expect("it was written to");
    disk.open(&dir.join(segment)).expect("memory gives it")
}
