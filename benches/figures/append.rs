//! Appending: what the log adds to a bare write and fdatasync of the same bytes in the same group sizes.
//!
//! The baseline overwrites already written blocks through the same `Disk`; the log does so too once its segments are
//! recycled, which the warm-up sees to. Its bytes are made as the log's are: by another thread, each payload anew, since
//! an append takes its payload for good. What one buffer gives that is written again and again is told beside it: it
//! never leaves the processor's cache, which nothing that is worth storing does.

use crate::report::{Figure, Target, median};
use crate::traced_disk::TracedDisk;
use forebay::clock::{Clock, SystemClock};
use forebay::disk::{Disk, File};
use forebay::{Log, LogOptions, Payload};
use std::io::IoSlice;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::sync_channel;
use std::time::Duration;

const THREADS: usize = 16;
const PAYLOAD_BYTES: usize = 100_000;
const RECORDS: u32 = 1000;
const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_secs(2);
/// The baseline's file: larger than the writes of a round reach in one turn, so that each block rests between two.
const BASELINE_BYTES: u64 = 256 << 20;

struct Rig {
    disk: Arc<TracedDisk>,
    clock: Arc<SystemClock>,
    log: Log,
    baseline: Arc<dyn File>,
    /// Removes all of it.
    _dir: tempfile::TempDir,
}

/// 16 threads, payloads of 100 KB: bytes a second against the bare loop.
pub(crate) fn throughput() -> Vec<Figure> {
    let rig = Rig::new();
    rig.append_for(Duration::from_secs(4)); // until segments are recycled
    let (mut rates, mut bare, mut hot, mut group_bytes) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        rig.disk.take_writes();
        rates.push(rig.append_for(ROUND));
        let writes: Vec<usize> = rig.disk.take_writes().into_iter().filter(|bytes| *bytes >= PAYLOAD_BYTES).collect();
        group_bytes.push(writes.iter().sum::<usize>() as f64 / writes.len() as f64);
        bare.push(rig.bare(&writes));
        hot.push(rig.bare_hot(&writes));
    }
    let what = format!(
        "{THREADS} threads, {PAYLOAD_BYTES}-byte payloads of {RECORDS} records, groups of {:.0} KB on average, sync on; \
         baseline overwrites written blocks with the same group sizes",
        median(group_bytes) / 1e3
    );
    let figure = |beside: &str, baselines: Vec<f64>, target| Figure {
        name: "append_throughput",
        what: format!("{what}, {beside}"),
        value: median(rates.clone()) / 1e6,
        unit: "MB/s",
        ratio: Some(median(rates.iter().zip(&baselines).map(|(rate, baseline)| rate / baseline).collect())),
        baseline: Some(median(baselines) / 1e6),
        target,
    };
    vec![
        figure("of payloads that another thread makes", bare, Target::RatioAtLeast(0.8)),
        figure("of one buffer that stays in the cache", hot, Target::None),
    ]
}

/// A lone append of 1 KB: median time against a bare write and fdatasync, one of each in turn.
pub(crate) fn latency() -> Vec<Figure> {
    let rig = Rig::new();
    let append = || {
        rig.log.append_wait("lone", vec![Payload { bytes: vec![7; 1024], records: 10 }]).expect("the disk takes it");
    };
    (0..200).for_each(|_| append());
    let bytes = vec![9; 1024 + 56];
    let mut log_times = Vec::new();
    let mut bare_times = Vec::new();
    for i in 0..3000u64 {
        let from = rig.clock.monotonic();
        append();
        let between = rig.clock.monotonic();
        let position = (i * bytes.len() as u64) % (BASELINE_BYTES / 2);
        rig.baseline.write_all_at(&[IoSlice::new(&bytes)], position).expect("the disk takes it");
        rig.baseline.sync_data().expect("the disk takes it");
        log_times.push((between - from).as_secs_f64() * 1e6);
        bare_times.push((rig.clock.monotonic() - between).as_secs_f64() * 1e6);
    }
    let (value, baseline) = (median(log_times), median(bare_times));
    vec![Figure {
        name: "append_latency",
        what: "one append of 1 KB at a time, 3000 of them, each followed by a bare write + fdatasync that overwrites \
               written blocks; medians"
            .into(),
        value,
        unit: "us",
        baseline: Some(baseline),
        ratio: Some(value / baseline),
        target: Target::RatioAtMost(1.3),
    }]
}

impl Rig {
    fn new() -> Self {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory on the disk under test");
        let disk = Arc::new(TracedDisk::default());
        let clock = Arc::new(SystemClock::new());
        let options = LogOptions { replay_window: Duration::ZERO, budget_bytes: 2 << 30, ..LogOptions::default() };
        let log = Log::open(disk.clone(), clock.clone(), &dir.path().join("log"), options).expect("opens");
        let baseline = written_file(&*disk, &dir.path().join("baseline"));
        std::thread::sleep(Duration::from_secs(1)); // housekeeping takes its room ahead
        Self { disk, clock, log, baseline, _dir: dir }
    }

    /// Appends for that long; returns payload bytes a second. What is appended is trimmed, so that segments recycle.
    fn append_for(&self, time: Duration) -> f64 {
        let stop = AtomicBool::new(false);
        let from = self.clock.monotonic();
        let appended: u64 = std::thread::scope(|scope| {
            let worker = |i: usize| {
                let (log, stop) = (&self.log, &stop);
                move || {
                    let mut appended = 0;
                    while !stop.load(Ordering::Relaxed) {
                        let part = Payload { bytes: vec![i as u8; PAYLOAD_BYTES], records: RECORDS };
                        log.append_wait(&format!("stream-{i}"), vec![part]).expect("the disk takes it");
                        appended += PAYLOAD_BYTES as u64;
                    }
                    appended
                }
            };
            let workers: Vec<_> = (0..THREADS).map(|i| scope.spawn(worker(i))).collect();
            while self.clock.monotonic() - from < time {
                std::thread::sleep(Duration::from_millis(50));
                for stream in self.log.streams() {
                    self.log.trim(stream.id, stream.tail.offset);
                }
            }
            stop.store(true, Ordering::Relaxed);
            workers.into_iter().map(|worker| worker.join().expect("no panic")).sum()
        });
        appended as f64 / (self.clock.monotonic() - from).as_secs_f64()
    }

    /// Writes and syncs groups of these sizes, of payloads that another thread makes; returns bytes a second.
    fn bare(&self, groups: &[usize]) -> f64 {
        std::thread::scope(|scope| {
            let (made, make) = sync_channel::<Vec<Vec<u8>>>(2);
            let payloads =
                |group: usize| (0..group).step_by(PAYLOAD_BYTES).map(move |at| PAYLOAD_BYTES.min(group - at));
            scope.spawn(move || {
                for (i, group) in groups.iter().enumerate() {
                    // Nobody takes them any more when a write failed; the panic there says so.
                    let _ = made.send(payloads(*group).map(|bytes| vec![i as u8; bytes]).collect());
                }
            });
            self.write_groups(groups, |group, write| {
                let payloads = make.recv().expect("one for each group");
                assert_eq!(payloads.iter().map(Vec::len).sum::<usize>(), group);
                write(&payloads.iter().map(|payload| IoSlice::new(payload)).collect::<Vec<_>>());
            })
        })
    }

    /// The same of one buffer.
    fn bare_hot(&self, groups: &[usize]) -> f64 {
        let bytes = vec![3u8; groups.iter().copied().max().unwrap_or(1)];
        self.write_groups(groups, |group, write| write(&[IoSlice::new(&bytes[..group])]))
    }

    /// Has `each` group written behind the one before, and synced.
    fn write_groups(&self, groups: &[usize], mut each: impl FnMut(usize, &dyn Fn(&[IoSlice<'_>]))) -> f64 {
        let mut position = 0;
        let from = self.clock.monotonic();
        for group in groups {
            if position + *group as u64 > BASELINE_BYTES {
                position = 0;
            }
            each(*group, &|bufs| {
                self.baseline.write_all_at(bufs, position).expect("the disk takes it");
                self.baseline.sync_data().expect("the disk takes it");
            });
            position += *group as u64;
        }
        groups.iter().sum::<usize>() as f64 / (self.clock.monotonic() - from).as_secs_f64()
    }
}

/// A file whose blocks are all written and known to the file system.
fn written_file(disk: &dyn Disk, path: &Path) -> Arc<dyn File> {
    let file = disk.create(path).expect("creates");
    let zeros = vec![0; 1 << 20];
    for position in (0..BASELINE_BYTES).step_by(zeros.len()) {
        file.write_all_at(&[IoSlice::new(&zeros)], position).expect("writes");
    }
    file.sync_data().expect("syncs");
    file
}
