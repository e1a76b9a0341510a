//! Indexes and stream tables: small files that are written whole, and whose names have to be as durable as what they say.

use super::{Files, remove_if_there, write_whole};
use crate::disk::is_full;
use crate::failpoints::{self, Point};
use crate::log::dir_sync::Since;
use crate::log::file_name::FileName;
use crate::offset::Sequence;
use crate::sync::{MutexGuard, PoisonError};
use std::collections::{BTreeMap, BTreeSet};
use std::io;

impl Files {
    /// Writes a small file as [`write_whole`] does; when it returns `Ok` its name is durable, too. Where the old file of that name
    /// refuses it, as a bad place on a disk does, its name may be lost, or a start [found it](Self::find_table), a new one takes its
    /// place. A crash leaves the old one or the new one; what lies beside them, under the name of an unfinished segment, goes at the
    /// next open. `beside` is a number for that name which no compact segment has.
    pub(crate) fn write_or_replace(
        &self,
        name: FileName,
        bytes: &[u8],
        beside: impl FnOnce() -> Sequence,
    ) -> io::Result<()> {
        let path = self.path(name);
        let found = self.found().contains(&name);
        let written = match found || self.is_in_doubt(name) {
            true => Err(io::Error::other("a sync that failed may have lost its name")),
            false => write_whole(&*self.disk, &path, bytes),
        };
        match written {
            Ok(()) => return self.sync_name(name),
            // A full disk has no room under another name either.
            Err(e) if is_full(&e) => return Err(e),
            Err(_) if found => {}
            Err(e) => {
                tracing::warn!(path = %path.display(), error = %e, "a file can't be written: a new one takes its place");
            }
        }
        let unfinished = self.path(FileName::Unfinished(beside()));
        remove_if_there(&*self.disk, &unfinished)?;
        // Synced before the rename: the name must not pass from what may be whole to what is not.
        let replaced = write_whole(&*self.disk, &unfinished, bytes).and_then(|()| {
            self.unsynced().insert(name, self.mark_names());
            self.disk.rename(&unfinished, &path)?;
            self.sync_name(name)
        });
        let replaced = replaced.inspect_err(|_| self.strays.give_up(unfinished, bytes.len() as u64));
        match replaced {
            // It needs no room but its own there, and a full disk has to be drained.
            Err(e) if found && is_full(&e) => {
                write_whole(&*self.disk, &path, bytes).and_then(|()| self.sync_name(name))
            }
            Ok(()) => {
                self.found().remove(&name);
                Ok(())
            }
            failed => failed,
        }
    }

    /// A start found this stream table: the first to be written in its place is a new file, which leaves the old one as it is until
    /// it is whole and durable. The other one, which was taken for the newest, may turn out not to be there.
    pub(crate) fn find_table(&self, slot: u8) {
        self.found().insert(FileName::Streams(slot));
    }

    /// Whether there are such tables.
    pub(crate) fn has_found_tables(&self) -> bool {
        !self.found().is_empty()
    }

    /// Whether a sync has failed since the file got this name and before that was durable. A table that no start found has it since.
    fn is_in_doubt(&self, name: FileName) -> bool {
        let mut unsynced = self.unsynced();
        let since = match name {
            FileName::Streams(_) => unsynced.get(&name).copied(),
            _ => Some(*unsynced.entry(name).or_insert_with(|| self.mark_names())),
        };
        since.is_some_and(|since| !self.names.holds(since))
    }

    fn sync_name(&self, name: FileName) -> io::Result<()> {
        let Some(since) = self.unsynced().get(&name).copied() else { return Ok(()) };
        failpoints::around(Point::IndexNameSync, || self.sync_names(since))?;
        self.unsynced().remove(&name);
        Ok(())
    }

    pub(super) fn unsynced(&self) -> MutexGuard<'_, BTreeMap<FileName, Since>> {
        self.unsynced.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn found(&self) -> MutexGuard<'_, BTreeSet<FileName>> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
