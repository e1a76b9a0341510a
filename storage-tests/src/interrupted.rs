//! A disk on which somebody comes in between: as another thread might, but in the same place every time.

use forebay::disk::{Disk, File, Lock, Space};
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Called with the name that a file has just got.
pub type Interruption = Arc<dyn Fn(&Path) + Send + Sync>;

/// Called with the name under which a file was opened, and how many bytes are to be written to it.
pub type WriteInterruption = Arc<dyn Fn(&Path, usize) + Send + Sync>;

/// Called once.
type Once = Box<dyn FnOnce() + Send>;

/// See the file's header. Clones are the same disk.
#[derive(Clone)]
pub struct Interrupted<D> {
    disk: D,
    by: Arc<Mutex<Option<Interruption>>>,
    at_open: Arc<Mutex<Option<Interruption>>>,
    at_name: Arc<Mutex<Option<Once>>>,
    at_read: At<Interruption>,
    at_write: At<WriteInterruption>,
}

type At<T> = Arc<Mutex<Option<T>>>;

struct InterruptedFile {
    file: Arc<dyn File>,
    path: PathBuf,
    at_read: At<Interruption>,
    at_write: At<WriteInterruption>,
}

impl<D> Interrupted<D> {
    /// This disk, on which nobody comes in between yet.
    pub fn over(disk: D) -> Self {
        Self {
            disk,
            by: Arc::default(),
            at_open: Arc::default(),
            at_name: Arc::default(),
            at_read: Arc::default(),
            at_write: Arc::default(),
        }
    }

    /// Has `by` called whenever a file was created or renamed, before anybody knows; `None` for nobody any more.
    pub fn interrupt(&self, by: Option<Interruption>) {
        *self.by.lock().unwrap_or_else(PoisonError::into_inner) = by;
    }

    /// Has `by` called before a file is opened, with its name; `None` for nobody any more.
    pub fn interrupt_opening(&self, by: Option<Interruption>) {
        *self.at_open.lock().unwrap_or_else(PoisonError::into_inner) = by;
    }

    /// Has `by` called before anything is read from a file, with the name under which it was opened; `None` for nobody any more.
    pub fn interrupt_reading(&self, by: Option<Interruption>) {
        *self.at_read.lock().unwrap_or_else(PoisonError::into_inner) = by;
    }

    /// Has `by` called before anything is written to a file; `None` for nobody any more.
    pub fn interrupt_writing(&self, by: Option<WriteInterruption>) {
        *self.at_write.lock().unwrap_or_else(PoisonError::into_inner) = by;
    }

    /// Has `by` called once, when the next file was created or renamed and before anybody knows.
    pub fn interrupt_next_name(&self, by: impl FnOnce() + Send + 'static) {
        *self.at_name.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(by));
    }

    /// Whether who was to come once has come.
    #[must_use]
    pub fn has_named(&self) -> bool {
        self.at_name.lock().unwrap_or_else(PoisonError::into_inner).is_none()
    }

    fn opened(&self, path: &Path, file: Arc<dyn File>) -> Arc<dyn File> {
        let (at_read, at_write) = (Arc::clone(&self.at_read), Arc::clone(&self.at_write));
        Arc::new(InterruptedFile { file, path: path.to_owned(), at_read, at_write })
    }

    fn named(&self, path: &Path) {
        let once = self.at_name.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(once) = once {
            once();
        }
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
        Ok(self.opened(path, file))
    }
    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let by = self.at_open.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(by) = by {
            by(path);
        }
        Ok(self.opened(path, self.disk.open(path)?))
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

impl File for InterruptedFile {
    fn read_at(&self, buf: &mut [u8], position: u64) -> io::Result<usize> {
        let by = self.at_read.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(by) = by {
            by(&self.path);
        }
        self.file.read_at(buf, position)
    }
    fn write_all_at(&self, bufs: &[IoSlice<'_>], position: u64) -> io::Result<()> {
        let by = self.at_write.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(by) = by {
            by(&self.path, bufs.iter().map(|buf| buf.len()).sum());
        }
        self.file.write_all_at(bufs, position)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }
    fn allocate(&self, len: u64) -> io::Result<()> {
        self.file.allocate(len)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
}
