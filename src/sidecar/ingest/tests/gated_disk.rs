//! A disk in memory whose syncs wait or fail when told to.

use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};

use forebay::disk::{Disk, File, Lock, Space, mem::MemDisk};

/// What syncs do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Gate {
    Open,
    /// Wait until it opens.
    Closed,
    /// Fail, and writes too.
    Broken,
}

#[derive(Clone)]
pub(super) struct GatedDisk {
    inner: MemDisk,
    gate: Arc<(Mutex<Gate>, Condvar)>,
    /// No file whose name ends in this can be made.
    missing: Arc<Mutex<Option<&'static str>>>,
}

struct GatedFile {
    inner: Arc<dyn File>,
    disk: GatedDisk,
}

impl GatedDisk {
    pub(super) fn new() -> Self {
        let gate = Arc::new((Mutex::new(Gate::Open), Condvar::new()));
        Self { inner: MemDisk::new(), gate, missing: Arc::default() }
    }

    /// No file whose name ends in this can be made from now on.
    pub(super) fn refuse(&self, end: Option<&'static str>) {
        *self.missing.lock().unwrap() = end;
    }

    fn may_make(&self, path: &Path) -> io::Result<()> {
        let refused = self.missing.lock().unwrap().is_some_and(|end| path.to_string_lossy().ends_with(end));
        if refused { Err(io::Error::other("refused")) } else { Ok(()) }
    }

    pub(super) fn set(&self, gate: Gate) {
        *self.gate.0.lock().unwrap() = gate;
        self.gate.1.notify_all();
    }

    fn pass(&self) -> io::Result<()> {
        let gate = self.gate.1.wait_while(self.gate.0.lock().unwrap(), |gate| *gate == Gate::Closed).unwrap();
        if *gate == Gate::Broken { Err(io::Error::other("broken")) } else { Ok(()) }
    }

    fn may_write(&self) -> io::Result<()> {
        if *self.gate.0.lock().unwrap() == Gate::Broken { Err(io::Error::other("broken")) } else { Ok(()) }
    }

    fn gated(&self, inner: Arc<dyn File>) -> Arc<dyn File> {
        Arc::new(GatedFile { inner, disk: self.clone() })
    }
}

impl Disk for GatedDisk {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        self.may_write()?;
        self.may_make(path)?;
        self.inner.create(path).map(|file| self.gated(file))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        self.inner.open(path).map(|file| self.gated(file))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.inner.list(dir)
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.inner.create_dir(dir)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.may_make(to)?;
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
        self.pass()?;
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

impl File for GatedFile {
    fn read_at(&self, buf: &mut [u8], position: u64) -> io::Result<usize> {
        self.inner.read_at(buf, position)
    }

    fn write_all_at(&self, bufs: &[IoSlice<'_>], position: u64) -> io::Result<()> {
        self.disk.may_write()?;
        self.inner.write_all_at(bufs, position)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.disk.pass()?;
        self.inner.sync_data()
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.disk.may_write()?;
        self.inner.allocate(len)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.inner.set_len(len)
    }

    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }
}
