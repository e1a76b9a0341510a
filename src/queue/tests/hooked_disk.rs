//! A disk that does something before each read.

use std::io::{self, IoSlice};

use super::*;
use crate::disk::{File, Space};

type Hook = Arc<std::sync::Mutex<Option<Box<dyn Fn() + Send + Sync>>>>;

pub(super) struct HookedDisk {
    inner: MemDisk,
    hook: Hook,
}

struct HookedFile {
    inner: Arc<dyn File>,
    hook: Hook,
}

impl HookedDisk {
    pub(super) fn new() -> Self {
        Self { inner: MemDisk::new(), hook: Hook::default() }
    }

    /// From now on this is done before each read, or nothing is.
    pub(super) fn before_reads(&self, hook: Option<Box<dyn Fn() + Send + Sync>>) {
        *self.hook.lock().expect("no hook panics") = hook;
    }

    fn hooked(&self, inner: Arc<dyn File>) -> Arc<dyn File> {
        Arc::new(HookedFile { inner, hook: Arc::clone(&self.hook) })
    }
}

impl Disk for HookedDisk {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        Ok(self.hooked(self.inner.create(path)?))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        Ok(self.hooked(self.inner.open(path)?))
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

impl File for HookedFile {
    fn read_at(&self, buf: &mut [u8], position: u64) -> io::Result<usize> {
        if let Some(hook) = &*self.hook.lock().expect("no hook panics") {
            hook();
        }
        self.inner.read_at(buf, position)
    }

    fn write_all_at(&self, bufs: &[IoSlice<'_>], position: u64) -> io::Result<()> {
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
