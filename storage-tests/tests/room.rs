//! The budget of a log, and the room that files take which are on their way from one place to another.

use forebay::clock::ManualClock;
use forebay::disk::mem::MemDisk;
use forebay::disk::{Disk, File, Lock, Space};
use forebay::{Log, LogOptions, Payload};
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A disk on which housekeeping comes in between when a spare has become a segment and nobody knows it yet: as another
/// thread might, but in the same place every time.
#[derive(Clone, Default)]
struct Interrupted {
    disk: MemDisk,
    by: Arc<Mutex<Option<Log>>>,
    renamed: Arc<AtomicBool>,
}

impl Disk for Interrupted {
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
        self.disk.rename(from, to)?;
        self.renamed.store(to.extension().is_some_and(|end| end == "seg"), Ordering::SeqCst);
        Ok(())
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
        let log = self.by.lock().expect("one thread").clone();
        if self.renamed.swap(false, Ordering::SeqCst)
            && let Some(log) = log
        {
            log.housekeep();
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

/// Before: a spare that was being made a segment counted as neither, and housekeeping made another one in its place: one
/// segment more than the budget allows.
#[test]
fn housekeeping_in_the_midst_of_a_roll_does_not_take_the_room_of_the_segment_that_is_being_made() {
    let disk = Interrupted::default();
    let options = LogOptions {
        segment_bytes: 4 << 10,
        budget_bytes: 6 * (4 << 10),
        tail_cache_bytes: 0,
        replay_window: Duration::ZERO,
        ..LogOptions::small()
    };
    let clock = Arc::new(ManualClock::at(1_000_000));
    let log = Log::open(Arc::new(disk.clone()), clock, Path::new("/log"), options).expect("it opens");
    *disk.by.lock().expect("one thread") = Some(log.clone());
    let mut taken = 0;
    for _ in 0..20 {
        taken += u64::from(log.append_wait("a", vec![Payload { bytes: vec![7; 3_000], records: 1 }]).is_ok());
        let stats = log.stats();
        assert!(stats.bytes_used <= stats.bytes_limit, "{} of {} bytes", stats.bytes_used, stats.bytes_limit);
    }
    assert_eq!(taken, 5, "a segment each, and one that is kept for our own streams");
    *disk.by.lock().expect("one thread") = None;
}
