//! Which upstreams have a log on this disk: a directory each, and beside it a note, an empty file of its name, since a
//! [`Disk`] lists files only.
//!
//! What always holds: the note is durable before the log is made and goes after it, so that no log is there that nobody
//! knows of; and a log goes as a whole, at one stroke, whatever a crash comes between.

use std::io::{self, ErrorKind};
use std::path::PathBuf;
use std::sync::Arc;

use forebay::disk::Disk;

/// Behind the upstream's id, in which there is no dot.
const NOTE: &str = ".upstream";

/// The same for a directory that is about to be removed.
const GOING: &str = ".going";

/// The directories of all upstreams.
pub(super) struct Directories {
    root: PathBuf,
    disk: Arc<dyn Disk>,
}

impl Directories {
    pub(super) fn new(root: PathBuf, disk: Arc<dyn Disk>) -> Self {
        Self { root, disk }
    }

    /// Where an upstream's log lies.
    pub(super) fn of(&self, id: &str) -> PathBuf {
        self.root.join(id)
    }

    /// Has it known, durably, that there is a log of this upstream, or is about to be.
    pub(super) fn note(&self, id: &str) -> io::Result<()> {
        self.disk.create_dir(&self.root)?;
        match self.disk.create(&self.named(id, NOTE)) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        self.disk.sync_dir(&self.root)
    }

    /// The upstreams that have a log. What a crash left of one that was removed goes now.
    pub(super) fn listed(&self) -> io::Result<Vec<String>> {
        let names = match self.disk.list(&self.root) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            names => names?,
        };
        let mut listed = Vec::new();
        for id in names.iter().filter_map(|name| name.strip_suffix(NOTE)) {
            self.disk.remove_dir(&self.named(id, GOING))?;
            match self.disk.list(&self.of(id)) {
                Err(error) if error.kind() == ErrorKind::NotFound => self.forget(id)?,
                files => {
                    files?;
                    listed.push(id.to_owned());
                }
            }
        }
        listed.sort_unstable();
        Ok(listed)
    }

    /// Removes the log of an upstream, which nobody may have open. There is none afterwards, or all of it.
    pub(super) fn remove(&self, id: &str) -> io::Result<()> {
        if self.disk.list(&self.root).is_err_and(|error| error.kind() == ErrorKind::NotFound) {
            return Ok(()); // no upstream ever was
        }
        let going = self.named(id, GOING);
        self.disk.remove_dir(&going)?;
        match self.disk.rename_dir(&self.of(id), &going) {
            // It had none, or the last try came so far.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            renamed => renamed?,
        }
        self.disk.sync_dir(&self.root)?;
        self.disk.remove_dir(&going)?;
        self.forget(id)
    }

    fn forget(&self, id: &str) -> io::Result<()> {
        match self.disk.remove(&self.named(id, NOTE)) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        self.disk.sync_dir(&self.root)
    }

    fn named(&self, id: &str, what: &str) -> PathBuf {
        self.root.join(format!("{id}{what}"))
    }
}

#[cfg(test)]
mod tests;
