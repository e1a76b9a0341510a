//! Counts what is asked of a disk: tests and benches count syncs and bytes instead of timing them.
//!
//! A call counts when it is made, whether it succeeds or not; bytes written are those handed over, bytes read those
//! that came back. Making a directory, the lock, listing and asking for room are not counted.

use std::io::{self, IoSlice};
use std::ops::Sub;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Disk, File, Lock, Space};

/// A disk that counts. Clones share their counts.
///
/// ```
/// use std::sync::Arc;
/// use forebay::disk::{Disk, counted::CountedDisk, mem::MemDisk};
/// let disk = CountedDisk::new(Arc::new(MemDisk::new()));
/// let file = disk.create("file".as_ref())?;
/// let before = disk.counts();
/// file.sync_data()?;
/// assert_eq!((disk.counts() - before).file_syncs, 1);
/// # std::io::Result::Ok(())
/// ```
#[derive(Clone)]
pub struct CountedDisk {
    inner: Arc<dyn Disk>,
    counters: Arc<Counters>,
}

impl CountedDisk {
    /// Counts from zero what is asked of `inner` through this disk.
    #[must_use]
    pub fn new(inner: Arc<dyn Disk>) -> Self {
        Self { inner, counters: Arc::default() }
    }

    /// The counts so far. Read one by one: exact only while nobody uses the disk.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counters.read()
    }

    fn counted(&self, file: io::Result<Arc<dyn File>>) -> io::Result<Arc<dyn File>> {
        Ok(Arc::new(CountedFile { inner: file?, counters: Arc::clone(&self.counters) }))
    }
}

/// Keeps the two lists of what is counted the same.
macro_rules! counts {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// How often each thing was asked of a disk, and how many bytes moved.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
        pub struct Counts {
            $($(#[$doc])* pub $name: u64,)*
        }

        #[derive(Default)]
        struct Counters {
            $($name: AtomicU64,)*
        }

        impl Counters {
            fn read(&self) -> Counts {
                Counts { $($name: self.$name.load(Ordering::Relaxed),)* }
            }
        }

        /// What was counted since `before`.
        impl Sub for Counts {
            type Output = Counts;

            fn sub(self, before: Counts) -> Counts {
                Counts { $($name: self.$name - before.$name,)* }
            }
        }
    };
}

counts! {
    /// Calls of [`File::sync_data`].
    file_syncs,
    /// Calls of [`Disk::sync_dir`].
    dir_syncs,
    /// Calls of [`File::write_all_at`], however many buffers each had.
    writes,
    /// Bytes handed to those.
    bytes_written,
    /// Calls of [`File::read_at`].
    reads,
    /// Bytes those gave back.
    bytes_read,
    /// Calls of [`File::allocate`].
    allocates,
    /// Calls of [`File::set_len`].
    set_lens,
    /// Calls of [`Disk::create`].
    creates,
    /// Calls of [`Disk::open`].
    opens,
    /// Calls of [`Disk::rename`] and [`Disk::rename_dir`].
    renames,
    /// Calls of [`Disk::remove`] and [`Disk::remove_dir`].
    removes,
}

impl Disk for CountedDisk {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        add(&self.counters.creates, 1);
        self.counted(self.inner.create(path))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        add(&self.counters.opens, 1);
        self.counted(self.inner.open(path))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.inner.list(dir)
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.inner.create_dir(dir)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        add(&self.counters.renames, 1);
        self.inner.rename(from, to)
    }

    fn rename_dir(&self, from: &Path, to: &Path) -> io::Result<()> {
        add(&self.counters.renames, 1);
        self.inner.rename_dir(from, to)
    }

    fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        add(&self.counters.removes, 1);
        self.inner.remove_dir(dir)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        add(&self.counters.removes, 1);
        self.inner.remove(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        add(&self.counters.dir_syncs, 1);
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

struct CountedFile {
    inner: Arc<dyn File>,
    counters: Arc<Counters>,
}

impl File for CountedFile {
    fn read_at(&self, buf: &mut [u8], position: u64) -> io::Result<usize> {
        add(&self.counters.reads, 1);
        let read = self.inner.read_at(buf, position)?;
        add(&self.counters.bytes_read, read);
        Ok(read)
    }

    fn write_all_at(&self, bufs: &[IoSlice<'_>], position: u64) -> io::Result<()> {
        add(&self.counters.writes, 1);
        add(&self.counters.bytes_written, bufs.iter().map(|buf| buf.len()).sum());
        self.inner.write_all_at(bufs, position)
    }

    fn sync_data(&self) -> io::Result<()> {
        add(&self.counters.file_syncs, 1);
        self.inner.sync_data()
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        add(&self.counters.allocates, 1);
        self.inner.allocate(len)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        add(&self.counters.set_lens, 1);
        self.inner.set_len(len)
    }

    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }
}

fn add(counter: &AtomicU64, n: usize) {
    counter.fetch_add(n as u64, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::mem::MemDisk;

    #[test]
    fn each_call_is_counted_once_and_under_its_own_name() {
        let disk = CountedDisk::new(Arc::new(MemDisk::new()));
        disk.create_dir("d".as_ref()).unwrap();
        assert_eq!(disk.counts(), Counts::default(), "a directory is not a file");

        let file = disk.create("d/a".as_ref()).unwrap();
        file.write_all_at(&[IoSlice::new(b"abc"), IoSlice::new(b"de")], 0).unwrap();
        assert_eq!(file.read_at(&mut [0; 9], 3).unwrap(), 2);
        file.allocate(9).unwrap();
        file.set_len(7).unwrap();
        file.sync_data().unwrap();
        disk.open("d/a".as_ref()).unwrap();
        disk.rename("d/a".as_ref(), "d/b".as_ref()).unwrap();
        disk.remove("d/b".as_ref()).unwrap();
        disk.sync_dir("d".as_ref()).unwrap();
        let once = Counts {
            file_syncs: 1,
            dir_syncs: 1,
            writes: 1,
            bytes_written: 5,
            reads: 1,
            bytes_read: 2,
            allocates: 1,
            set_lens: 1,
            creates: 1,
            opens: 1,
            renames: 1,
            removes: 1,
        };
        assert_eq!(disk.counts(), once);

        let before = disk.clone().counts();
        assert!(disk.remove("d/b".as_ref()).is_err());
        assert_eq!(disk.counts() - before, Counts { removes: 1, ..Counts::default() }, "a failed call counts");
    }
}
