//! A disk on which any other thread may go on before and behind each call, as far as a checker of schedules is asked.

use forebay::disk::mem::MemDisk;
use forebay::disk::{Disk, File, Lock, Space};
use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::Arc;

/// See the file's header. Clones are the same disk.
#[derive(Clone, Default)]
pub struct Yielding(MemDisk);

struct YieldingFile(Arc<dyn File>);

/// Lets others go on, then does it, then lets others go on.
fn between<T>(call: impl FnOnce() -> T) -> T {
    shuttle::thread::yield_now();
    let result = call();
    shuttle::thread::yield_now();
    result
}

impl Disk for Yielding {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        between(|| self.0.create(path)).map(|file| Arc::new(YieldingFile(file)) as _)
    }
    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        between(|| self.0.open(path)).map(|file| Arc::new(YieldingFile(file)) as _)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.0.list(dir)
    }
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.0.create_dir(dir)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        between(|| self.0.rename(from, to))
    }
    fn rename_dir(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.rename_dir(from, to)
    }
    fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        self.0.remove_dir(dir)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        between(|| self.0.remove(path))
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        between(|| self.0.sync_dir(dir))
    }
    fn lock(&self, path: &Path, holder: &str) -> io::Result<Box<dyn Lock>> {
        self.0.lock(path, holder)
    }
    fn space(&self, dir: &Path) -> io::Result<Space> {
        self.0.space(dir)
    }
    fn entropy(&self) -> u128 {
        self.0.entropy()
    }
}

impl File for YieldingFile {
    fn read_at(&self, buf: &mut [u8], position: u64) -> io::Result<usize> {
        between(|| self.0.read_at(buf, position))
    }
    fn write_all_at(&self, bufs: &[IoSlice<'_>], position: u64) -> io::Result<()> {
        between(|| self.0.write_all_at(bufs, position))
    }
    fn sync_data(&self) -> io::Result<()> {
        between(|| self.0.sync_data())
    }
    fn allocate(&self, len: u64) -> io::Result<()> {
        self.0.allocate(len)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }
}
