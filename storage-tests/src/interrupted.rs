//! A disk on which somebody comes in between: as another thread might, but in the same place every time.

use forebay::disk::{Disk, File, Lock, Space};
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

/// Called with the name that a file has just got.
pub type Interruption = Arc<dyn Fn(&Path) + Send + Sync>;

/// Called once.
type Once = Box<dyn FnOnce() + Send>;

/// See the file's header. Clones are the same disk.
#[derive(Clone)]
pub struct Interrupted<D> {
    disk: D,
    by: Arc<Mutex<Option<Interruption>>>,
    at_open: Arc<Mutex<Option<Interruption>>>,
    at_sync_dir: Arc<Mutex<Option<Once>>>,
}

impl<D> Interrupted<D> {
    /// This disk, on which nobody comes in between yet.
    pub fn over(disk: D) -> Self {
        Self { disk, by: Arc::default(), at_open: Arc::default(), at_sync_dir: Arc::default() }
    }

    /// Has `by` called whenever a file was created or renamed, before anybody knows; `None` for nobody any more.
    pub fn interrupt(&self, by: Option<Interruption>) {
        *self.by.lock().unwrap_or_else(PoisonError::into_inner) = by;
    }

    /// Has `by` called before a file is opened, with its name; `None` for nobody any more.
    pub fn interrupt_opening(&self, by: Option<Interruption>) {
        *self.at_open.lock().unwrap_or_else(PoisonError::into_inner) = by;
    }

    /// Has `by` called before a directory is synced, once.
    pub fn interrupt_next_sync_dir(&self, by: impl FnOnce() + Send + 'static) {
        *self.at_sync_dir.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(by));
    }

    /// Whether who was to come before a directory is synced has come.
    #[must_use]
    pub fn has_synced_dir(&self) -> bool {
        self.at_sync_dir.lock().unwrap_or_else(PoisonError::into_inner).is_none()
    }

    fn named(&self, path: &Path) {
        let by = self.by.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(by) = by {
            by(path);
        }
    }
}

impl<D: Disk> Disk for Interrupted<D> {
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
        let by = self.at_sync_dir.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(by) = by {
            by();
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
