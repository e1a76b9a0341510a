//! What tells one version of the configuration file from another.
//!
//! What always holds: the file is looked at before it is read, so that what is changed while it is being read, or while the
//! sidecar starts with what was read, counts as a change.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::Operations;

/// The file's times and size. A file that is replaced is another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Version {
    modified: Option<SystemTime>,
    bytes: u64,
    inode: u64,
}

impl Version {
    /// Waits for the disk. `None` while there is no file, and for what can be read once only, like a pipe.
    pub(super) fn of(path: &Path) -> Option<Self> {
        use std::os::unix::fs::MetadataExt as _;
        let metadata = std::fs::metadata(path).ok().filter(std::fs::Metadata::is_file)?;
        Some(Self { modified: metadata.modified().ok(), bytes: metadata.len(), inode: metadata.ino() })
    }
}

/// The configuration file as it was when somebody was about to read it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigFile {
    pub(super) path: PathBuf,
    pub(super) version: Option<Version>,
}

impl ConfigFile {
    /// To be called before it is read. Waits for the disk.
    #[must_use]
    pub fn before_reading(path: &Path) -> Self {
        Self { path: path.to_owned(), version: Version::of(path) }
    }
}

/// The same from a loop that must not wait for the disk.
pub(super) async fn look(path: &Path) -> Option<Version> {
    let path = path.to_owned();
    tokio::task::spawn_blocking(move || Version::of(&path)).await.expect("looking at a file does not panic")
}

impl Operations {
    /// Which version of the file was read last.
    pub(super) fn version_read(&self) -> Option<Version> {
        self.file().of.as_ref()?.version
    }

    /// Whether the file says something now that nobody has read.
    pub(super) async fn has_unread_change(&self) -> bool {
        let Some(ConfigFile { path, version }) = self.file().of.clone() else { return false };
        look(&path).await != version
    }
}
