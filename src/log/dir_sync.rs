//! Makes names in the log's directory durable, where two threads change them: the writer and housekeeping.
//!
//! A sync of a directory that fails leaves every name that changed before it to chance, whoever changed it, and only one hears
//! of it: the next sync returns `Ok` and proves nothing for them. So syncs go one at a time, the failed ones are counted, and who
//! changes a name takes the count before.
//!
//! What always holds: a sync that returns `Ok` has made durable every name that was changed since its mark.

use crate::disk::Disk;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Arc, Mutex, PoisonError};
use std::io;
use std::path::{Path, PathBuf};

/// See the file's header.
pub(super) struct DirSync {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    /// Held by who syncs: nobody's `Ok` overtakes another one's failure.
    one_at_a_time: Mutex<()>,
    failed: AtomicU64,
}

/// A moment before names were changed: what a sync is to cover.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Since(u64);

impl DirSync {
    pub(super) fn new(disk: Arc<dyn Disk>, dir: &Path) -> Self {
        Self { disk, dir: dir.to_owned(), one_at_a_time: Mutex::default(), failed: AtomicU64::default() }
    }

    /// Now: taken before the first change of a name.
    pub(super) fn mark(&self) -> Since {
        Since(self.failed.load(Ordering::SeqCst))
    }

    /// Whether no sync has failed since, which may have lost a name that was changed.
    pub(super) fn holds(&self, since: Since) -> bool {
        self.mark() == since
    }

    /// Makes durable what was changed since.
    ///
    /// # Errors
    /// Also when somebody else's sync failed meanwhile. Which of the names are durable nobody knows then, and no other sync
    /// tells: only another change of a name can be made durable.
    pub(super) fn sync(&self, since: Since) -> io::Result<()> {
        let _alone = self.one_at_a_time.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(e) = self.disk.sync_dir(&self.dir) {
            self.failed.fetch_add(1, Ordering::SeqCst);
            return Err(e);
        }
        if self.holds(since) {
            return Ok(());
        }
        Err(io::Error::other(
            "a sync of the log's directory has failed meanwhile: names that were changed before may be lost",
        ))
    }
}
