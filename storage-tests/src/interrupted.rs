//! A disk in memory on which somebody comes in between: as another thread might, but in the same place every time.

use forebay::disk::mem::MemDisk;
use forebay::disk::{Disk, File, Lock, Space};
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

/// Called with the name that a file has just got.
pub type Interruption = Arc<dyn Fn(&Path) + Send + Sync>;

/// See the file's header. Clones are the same disk.
#[derive(Clone, Default)]
pub struct Interrupted {
    disk: MemDisk,
    by: Arc<Mutex<Option<Interruption>>>,
    at_open: Arc<Mutex<Option<Interruption>>>,
}

impl Interrupted {
    /// Has `by` called whenever a file was created or renamed, before anybody knows; `None` for nobody any more.
    pub fn interrupt(&self, by: Option<Interruption>) {
        *self.by.lock().unwrap_or_else(PoisonError::into_inner) = by;
    }

    /// Has `by` called before a file is opened, with its name; `None` for nobody any more.
    pub fn interrupt_opening(&self, by: Option<Interruption>) {
        *self.at_open.lock().unwrap_or_else(PoisonError::into_inner) = by;
    }

    fn named(&self, path: &Path) {
        let by = self.by.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(by) = by {
            by(path);
        }
    }
}

impl Disk for Interrupted {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let file = self.disk.create(path)?;
        self.named(path);
        Ok(file)
    }
    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let by = self.at_open.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(by) = by {
            by(path);
        }
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
        self.named(to);
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
