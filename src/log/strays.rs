//! Files that were given up in the midst of being made, and that the disk did not let go: they take their room still, so they
//! count against the budget until they are gone.
//!
//! What always holds: no other thread uses their names again. Those of segments, spares and compact segments are spent; that of
//! an index that is to take another one's place is used by housekeeping alone.

use super::files::remove_if_there;
use crate::disk::Disk;
use crate::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::io;
use std::path::{Path, PathBuf};

/// See the file's header.
pub(super) struct Strays {
    disk: Arc<dyn Disk>,
    /// With the most that each may take.
    files: Mutex<Vec<(PathBuf, u64)>>,
}

impl Strays {
    pub(super) fn new(disk: Arc<dyn Disk>) -> Self {
        Self { disk, files: Mutex::default() }
    }

    /// Removes a file; one that stays is tried [again](Self::remove) and counts meanwhile.
    pub(super) fn give_up(&self, path: PathBuf, bytes: u64) {
        if let Err(error) = self.try_remove(&path) {
            tracing::warn!(path = %path.display(), %error, "a file that nobody uses can't be removed; later");
            let mut files = self.files();
            files.retain(|(known, _)| *known != path);
            files.push((path, bytes));
        }
    }

    /// What they take.
    pub(super) fn bytes(&self) -> u64 {
        self.files().iter().map(|(_, bytes)| bytes).sum()
    }

    /// Tries again to remove them.
    pub(super) fn remove(&self) -> io::Result<()> {
        let files = self.files().clone();
        let mut removed = Ok(());
        for (path, _) in files {
            match self.try_remove(&path) {
                Ok(()) => self.files().retain(|(stays, _)| *stays != path),
                Err(error) => removed = Err(error),
            }
        }
        removed
    }

    /// A file that was never made is gone, too. A disk that takes no changes refuses to remove even that, and says only to who
    /// opens it that it is not there.
    fn try_remove(&self, path: &Path) -> io::Result<()> {
        let removed = remove_if_there(&*self.disk, path);
        let is_gone = || self.disk.open(path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
        if removed.is_err() && is_gone() { Ok(()) } else { removed }
    }

    fn files(&self) -> MutexGuard<'_, Vec<(PathBuf, u64)>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
