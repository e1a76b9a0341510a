//! A file that remembers its first failure.
//!
//! After a failed sync the kernel may have dropped the bytes and marked their pages clean; the next sync then says
//! `Ok` over bytes that are gone. So the first failure of a write, a sync, an allocation or a change of length is
//! final here: whatever would change or promise anything about the file is refused from then on. Reads go on. It
//! retries nothing and repairs nothing; there is no way back but to open the file anew and check every byte.

use crate::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::fmt;
use std::io::{self, ErrorKind, IoSlice};

use super::File;
use crate::mutants::{self, Mutant};

/// A file whose first failure is final.
///
/// ```
/// use forebay::disk::{Disk, File, latched::Latched, mem::MemDisk};
/// let file = Latched::new(MemDisk::new().create("log".as_ref())?);
/// file.sync_data()?;
/// assert!(file.failed().is_none());
/// # std::io::Result::Ok(())
/// ```
pub struct Latched {
    inner: Arc<dyn File>,
    failed: OnceLock<Failure>,
    syncing: Mutex<()>,
}

/// The failure that closed a file to writing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What was being done.
    pub operation: Operation,
    /// The kind of the error, which every later refusal has too.
    pub kind: ErrorKind,
    /// The error's own words.
    pub error: String,
}

/// What may fail for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// [`File::write_all_at`]
    Write,
    /// [`File::sync_data`]
    Sync,
    /// [`File::allocate`]
    Allocate,
    /// [`File::set_len`]
    SetLen,
}

impl Latched {
    /// Wraps a file that has not failed yet. All use of the file must go through this one wrapper.
    #[must_use]
    pub fn new(inner: Arc<dyn File>) -> Self {
        Self { inner, failed: OnceLock::new(), syncing: Mutex::new(()) }
    }

    /// The first failure, if there was one.
    #[must_use]
    pub fn failed(&self) -> Option<&Failure> {
        self.failed.get()
    }

    fn attempt(&self, operation: Operation, act: impl FnOnce(&dyn File) -> io::Result<()>) -> io::Result<()> {
        if let Some(failure) = self.failed.get().filter(|_| !mutants::on(Mutant::FailedFileUsedAgain)) {
            return Err(io::Error::new(failure.kind, Refused(failure.clone())));
        }
        act(&*self.inner).inspect_err(|error| {
            // Only the first of several at once is kept: they are one event.
            let _ = self.failed.set(Failure { operation, kind: error.kind(), error: error.to_string() });
        })
    }
}

impl File for Latched {
    fn read_at(&self, buf: &mut [u8], position: u64) -> io::Result<usize> {
        self.inner.read_at(buf, position)
    }

    fn write_all_at(&self, bufs: &[IoSlice<'_>], position: u64) -> io::Result<()> {
        self.attempt(Operation::Write, |file| file.write_all_at(bufs, position))
    }

    fn sync_data(&self) -> io::Result<()> {
        // One at a time. The kernel tells a failure once per open file: of two syncs at once one would hear of it
        // and the other return Ok for the same lost bytes.
        let _one = self.syncing.lock().unwrap_or_else(PoisonError::into_inner);
        self.attempt(Operation::Sync, |file| file.sync_data())
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.attempt(Operation::Allocate, |file| file.allocate(len))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.attempt(Operation::SetLen, |file| file.set_len(len))
    }

    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }
}

impl fmt::Debug for Latched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Latched").field("failed", &self.failed.get()).finish_non_exhaustive()
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Write => "write",
            Self::Sync => "sync",
            Self::Allocate => "allocate",
            Self::SetLen => "set length",
        })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} failed: {}", self.operation, self.error)
    }
}

/// What later callers hear.
#[derive(Debug, thiserror::Error)]
#[error("nothing more is written to this file since its {0}")]
struct Refused(Failure);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::mem::MemDisk;
    use crate::disk::{Disk, read_all};
    use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

    /// Fails one operation once, then works again: the treacherous kind of disk.
    struct FailsOnce {
        inner: Arc<dyn File>,
        operation: Operation,
        spent: AtomicBool,
        calls: AtomicU32,
    }

    impl FailsOnce {
        fn new(operation: Operation) -> Arc<Self> {
            let inner = MemDisk::new().create("file".as_ref()).unwrap();
            Arc::new(Self { inner, operation, spent: AtomicBool::new(false), calls: AtomicU32::new(0) })
        }

        fn step(&self, operation: Operation) -> io::Result<()> {
            self.calls.fetch_add(1, Ordering::SeqCst);
            if operation == self.operation && !self.spent.swap(true, Ordering::SeqCst) {
                return Err(io::Error::new(ErrorKind::StorageFull, "no room"));
            }
            Ok(())
        }
    }

    impl File for FailsOnce {
        fn read_at(&self, buf: &mut [u8], position: u64) -> io::Result<usize> {
            self.inner.read_at(buf, position)
        }
        fn write_all_at(&self, bufs: &[IoSlice<'_>], position: u64) -> io::Result<()> {
            self.step(Operation::Write)?;
            self.inner.write_all_at(bufs, position)
        }
        fn sync_data(&self) -> io::Result<()> {
            self.step(Operation::Sync)
        }
        fn allocate(&self, len: u64) -> io::Result<()> {
            self.step(Operation::Allocate)?;
            self.inner.allocate(len)
        }
        fn set_len(&self, len: u64) -> io::Result<()> {
            self.step(Operation::SetLen)?;
            self.inner.set_len(len)
        }
        fn len(&self) -> io::Result<u64> {
            self.inner.len()
        }
    }

    fn act(file: &dyn File, operation: Operation) -> io::Result<()> {
        match operation {
            Operation::Write => file.write_all_at(&[IoSlice::new(b"more")], 0),
            Operation::Sync => file.sync_data(),
            Operation::Allocate => file.allocate(9),
            Operation::SetLen => file.set_len(9),
        }
    }

    const ALL: [Operation; 4] = [Operation::Write, Operation::Sync, Operation::Allocate, Operation::SetLen];

    #[test]
    fn after_any_first_failure_nothing_reaches_the_file_any_more() {
        for first in ALL {
            let disk = FailsOnce::new(first);
            let file = Latched::new(Arc::clone(&disk) as Arc<dyn File>);
            for earlier in ALL.into_iter().filter(|earlier| *earlier != first) {
                act(&file, earlier).unwrap();
            }
            assert_eq!(file.failed(), None);
            let error = act(&file, first).unwrap_err();
            assert_eq!(error.to_string(), "no room", "the first error is passed on as it is");
            let calls = disk.calls.load(Ordering::SeqCst);

            for later in ALL {
                let refused = act(&file, later).unwrap_err();
                assert_eq!(refused.kind(), ErrorKind::StorageFull);
                let words = refused.to_string();
                assert!(words.ends_with(&format!("since its {first} failed: no room")), "{words}");
            }
            assert_eq!(disk.calls.load(Ordering::SeqCst), calls, "refused before it reached the disk");
            assert_eq!(file.failed().unwrap().operation, first);
            assert!(format!("{file:?}").contains("no room"), "whoever prints it sees why");
        }
    }

    #[test]
    fn reads_go_on_after_a_failure() {
        let file = Latched::new(FailsOnce::new(Operation::Sync));
        file.write_all_at(&[IoSlice::new(b"kept")], 0).unwrap();
        file.sync_data().unwrap_err();
        assert_eq!(read_all(&file).unwrap(), b"kept");
    }

    #[test]
    fn without_a_failure_everything_passes() {
        let disk = MemDisk::new();
        let file = Latched::new(disk.create("file".as_ref()).unwrap());
        for operation in ALL {
            act(&file, operation).unwrap();
        }
        assert_eq!(file.len().unwrap(), 9);
    }
}
