//! Two things at once: while one thread is in the middle of a call to the disk, another one does its work. Played on
//! one thread: the disk itself does the other one's work before the call that is named.

use forebay::clock::ManualClock;
use forebay::disk::{Disk, File, Lock, Space};
use forebay::{Log, LogOptions, Payload};
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use storage_tests::fault::{Failure, Fault, OpKind};
use storage_tests::sim_disk::{PowerCut, SimDisk};

type Other = Box<dyn FnOnce() + Send>;

/// A simulated disk that does something else before it syncs a directory, once.
#[derive(Clone)]
struct Interleaved {
    disk: SimDisk,
    at_sync_dir: Arc<Mutex<Option<Other>>>,
}

impl Interleaved {
    fn new(disk: &SimDisk) -> Self {
        Self { disk: disk.clone(), at_sync_dir: Arc::default() }
    }

    fn at_next_sync_dir(&self, other: impl FnOnce() + Send + 'static) {
        *self.at_sync_dir.lock().expect("one thread") = Some(Box::new(other));
    }

    fn is_done(&self) -> bool {
        self.at_sync_dir.lock().expect("one thread").is_none()
    }
}

impl Disk for Interleaved {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        self.disk.create(path)
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        self.disk.open(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.disk.list(dir)
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.disk.create_dir(dir)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn rename_dir(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename_dir(from, to)
    }

    fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        self.disk.remove_dir(dir)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.disk.remove(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let other = self.at_sync_dir.lock().expect("one thread").take();
        if let Some(other) = other {
            other();
        }
        self.disk.sync_dir(dir)
    }

    fn lock(&self, path: &Path, holder: &str) -> io::Result<Box<dyn Lock>> {
        self.disk.lock(path, holder)
    }

    fn space(&self, dir: &Path) -> io::Result<Space> {
        self.disk.space(dir)
    }

    fn entropy(&self) -> u128 {
        self.disk.entropy()
    }
}

fn open(disk: &Interleaved) -> Log {
    let options = LogOptions {
        segment_bytes: 4 << 10,
        budget_bytes: 4 << 20,
        replay_window: Duration::ZERO,
        ..LogOptions::small()
    };
    let clock = ManualClock::at(1_000_000);
    Log::open(Arc::new(disk.clone()), Arc::new(clock), Path::new("/log"), options).expect("it opens")
}

fn append(log: &Log, stream: &str, bytes: usize) -> u64 {
    let payload = Payload { bytes: vec![7; bytes], records: 1 };
    log.append_wait(stream, vec![payload]).expect("it is taken").offsets.start
}

/// Before: a table that was written while a segment was in the making said that it covered that segment. A crash after
/// the segment was sealed, and before the next table, forgot the streams that had begun in it: their offsets and their
/// numbers were given out a second time.
#[test]
fn a_table_that_is_written_while_a_segment_is_made_does_not_cover_it() {
    for cut in [PowerCut::NothingUnsynced, PowerCut::Everything] {
        let sim = SimDisk::new(1);
        let disk = Interleaved::new(&sim);
        let log = open(&disk);
        append(&log, "old", 100);
        drop(log);
        sim.power_cut(cut);
        let log = open(&disk);
        let keeper = log.clone();
        disk.at_next_sync_dir(move || keeper.housekeep());
        assert_eq!(append(&log, "new", 100), 0);
        assert!(disk.is_done());
        sim.inject(Fault::every(OpKind::Write, Failure::Eio).on("streams"));
        for _ in 0..4 {
            append(&log, "old", 2_000);
        }
        drop(log);
        sim.power_cut(cut);
        sim.clear_faults();
        let log = open(&disk);
        let new = log.stream("new").expect("its record was acknowledged");
        assert_eq!(log.durable(new).offset, 1);
        assert_eq!(append(&log, "newer", 100), 0);
        assert_eq!(append(&log, "new", 100), 1);
        assert!(log.damages().is_empty());
    }
}
