//! A disk in memory whose calls fail, and whose writes hang, when told to.

use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use forebay::disk::mem::MemDisk;
use forebay::disk::{Disk, File, Lock, Space};

/// How many of the next calls fail.
#[derive(Default)]
pub(crate) struct Faults {
    /// As of a bad sector.
    pub(crate) read: AtomicU32,
    pub(crate) write: AtomicU32,
    pub(crate) sync: AtomicU32,
    pub(crate) set_len: AtomicU32,
    pub(crate) rename: AtomicU32,
    pub(crate) sync_dir: AtomicU32,
}

fn fails(count: &AtomicU32) -> io::Result<()> {
    match count.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)) {
        Ok(_) => Err(io::Error::other("told to fail")),
        Err(_) => Ok(()),
    }
}

#[derive(Clone, Default)]
pub(crate) struct Faulty {
    pub(crate) inner: MemDisk,
    pub(crate) faults: Arc<Faults>,
    gate: Arc<Gate>,
}

/// Where writes wait before they do anything.
#[derive(Default)]
struct Gate {
    state: Mutex<Held>,
    moved: Condvar,
}

#[derive(Default)]
struct Held {
    closed: bool,
    waiting: usize,
}

/// Writes wait while this lives.
pub(crate) struct Hung(Arc<Gate>);

impl Drop for Hung {
    fn drop(&mut self) {
        self.0.state.lock().unwrap().closed = false;
        self.0.moved.notify_all();
    }
}

struct FaultyFile {
    inner: Arc<dyn File>,
    disk: Faulty,
}

impl Faulty {
    /// Whatever is written from now on waits until the guard is dropped.
    pub(crate) fn hang(&self) -> Hung {
        self.gate.state.lock().unwrap().closed = true;
        Hung(Arc::clone(&self.gate))
    }

    /// Returns when a write waits.
    pub(crate) fn wait_for_a_write(&self) {
        drop(self.gate.moved.wait_while(self.gate.state.lock().unwrap(), |held| held.waiting == 0).unwrap());
    }

    fn pass_gate(&self) {
        let mut held = self.gate.state.lock().unwrap();
        held.waiting += 1;
        self.gate.moved.notify_all();
        held = self.gate.moved.wait_while(held, |held| held.closed).unwrap();
        held.waiting -= 1;
    }

    fn wrap(&self, file: io::Result<Arc<dyn File>>) -> io::Result<Arc<dyn File>> {
        Ok(Arc::new(FaultyFile { inner: file?, disk: self.clone() }))
    }
}

impl Disk for Faulty {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        self.wrap(self.inner.create(path))
    }
    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        self.wrap(self.inner.open(path))
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.inner.list(dir)
    }
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.inner.create_dir(dir)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fails(&self.faults.rename)?;
        self.inner.rename(from, to)
    }
    fn rename_dir(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.inner.rename_dir(from, to)
    }
    fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        self.inner.remove_dir(dir)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.inner.remove(path)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        fails(&self.faults.sync_dir)?;
        self.inner.sync_dir(dir)
    }
    fn lock(&self, path: &Path, holder: &str) -> io::Result<Box<dyn Lock>> {
        self.inner.lock(path, holder)
    }
    fn space(&self, dir: &Path) -> io::Result<Space> {
        self.inner.space(dir)
    }
    fn entropy(&self) -> u128 {
        self.inner.entropy()
    }
}

impl File for FaultyFile {
    fn read_at(&self, buf: &mut [u8], position: u64) -> io::Result<usize> {
        fails(&self.disk.faults.read)
            .map_err(|_| io::Error::from_raw_os_error(rustix::io::Errno::IO.raw_os_error()))?;
        self.inner.read_at(buf, position)
    }
    fn write_all_at(&self, bufs: &[IoSlice<'_>], position: u64) -> io::Result<()> {
        self.disk.pass_gate();
        if let Err(error) = fails(&self.disk.faults.write) {
            self.inner.write_all_at(&[IoSlice::new(&bufs[0][..bufs[0].len() / 2])], position)?;
            return Err(error);
        }
        self.inner.write_all_at(bufs, position)
    }
    fn sync_data(&self) -> io::Result<()> {
        fails(&self.disk.faults.sync)?;
        self.inner.sync_data()
    }
    fn allocate(&self, len: u64) -> io::Result<()> {
        self.inner.allocate(len)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        fails(&self.disk.faults.set_len)?;
        self.inner.set_len(len)
    }
    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }
}
