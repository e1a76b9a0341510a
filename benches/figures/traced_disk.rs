//! A real disk that remembers the size of every write, so that a baseline can repeat the same ones.

use forebay::disk::real::RealDisk;
use forebay::disk::{Disk, File, Lock, Space};
use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::{Arc, Mutex};

/// See the file's header.
#[derive(Default)]
pub(crate) struct TracedDisk {
    inner: RealDisk,
    writes: Arc<Mutex<Vec<usize>>>,
}

struct TracedFile {
    inner: Arc<dyn File>,
    writes: Arc<Mutex<Vec<usize>>>,
}

impl TracedDisk {
    /// The sizes of the writes since the last call.
    pub(crate) fn take_writes(&self) -> Vec<usize> {
        std::mem::take(&mut *self.writes.lock().expect("nothing panics with the lock held"))
    }

    fn traced(&self, inner: Arc<dyn File>) -> Arc<dyn File> {
        Arc::new(TracedFile { inner, writes: Arc::clone(&self.writes) })
    }
}

impl Disk for TracedDisk {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        self.inner.create(path).map(|file| self.traced(file))
    }
    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        self.inner.open(path).map(|file| self.traced(file))
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.inner.list(dir)
    }
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.inner.create_dir(dir)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
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

impl File for TracedFile {
    fn read_at(&self, buf: &mut [u8], position: u64) -> io::Result<usize> {
        self.inner.read_at(buf, position)
    }
    fn write_all_at(&self, bufs: &[IoSlice<'_>], position: u64) -> io::Result<()> {
        let bytes = bufs.iter().map(|buf| buf.len()).sum();
        self.writes.lock().expect("nothing panics with the lock held").push(bytes);
        self.inner.write_all_at(bufs, position)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.inner.sync_data()
    }
    fn allocate(&self, len: u64) -> io::Result<()> {
        self.inner.allocate(len)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.inner.set_len(len)
    }
    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }
}
