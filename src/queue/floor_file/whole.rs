//! Writing a floor whole: to a new file, which takes the old one's name when all of it is durable.

use super::{Committed, FLOOR_NAME, FloorError, FloorFile, PageState, layout};
use crate::queue::limits::FLOOR_SLOT_BYTES;
use std::io::{self, ErrorKind, IoSlice};

/// A floor that is being written whole.
const SPARE_NAME: &str = "floor.new";
/// A copy of the last floor that was found damaged, for whoever looks into it.
pub(super) const EVIDENCE_NAME: &str = "floor.bad";

impl FloorFile {
    /// Writes everything to a new file, and puts it in place of the old one.
    pub(super) fn write_whole(&mut self) -> Result<Committed, FloorError> {
        self.preserve_evidence();
        self.homeless.clear();
        let ids: Vec<u32> = self.entries().map(|(id, _)| id.0).collect();
        self.placement = layout::place_all(&ids, |id| self.entries[id as usize].encoded_len());
        for (page, ids) in (0..).zip(&self.placement) {
            ids.iter().for_each(|id| self.page_of[*id as usize] = page);
        }
        // Two generations, so that no two slots of the page are equals.
        let (first, second) = (self.generation + 1, self.generation + 2);
        self.generation = second;
        self.pages = vec![PageState { slots: [first, second] }; self.placement.len()];

        let spare = self.dir.join(SPARE_NAME);
        match self.disk.remove(&spare) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(self.failed("make room for", error)),
            _ => {}
        }
        let file = self.disk.create(&spare).map_err(|source| self.failed("create", source))?;
        let len = (self.pages.len() * 2 * FLOOR_SLOT_BYTES) as u64;
        // Blocks now: a full disk must never keep the floor from rising, for only that frees segments.
        file.allocate(len).map_err(|source| self.failed("allocate", source))?;
        for page in 0..self.pages.len() {
            let slots = [self.encode(page, first), self.encode(page, second)];
            let position = (page * 2 * FLOOR_SLOT_BYTES) as u64;
            let slots = slots.each_ref().map(|slot| IoSlice::new(slot));
            file.write_all_at(&slots, position).map_err(|source| self.failed("write", source))?;
        }
        file.sync_data().map_err(|source| self.failed("sync", source))?;
        // The bytes before the name: a name that points at unsynced bytes would be no floor after a crash.
        self.disk.rename(&spare, &self.dir.join(FLOOR_NAME)).map_err(|source| self.failed("rename", source))?;
        self.disk.sync_dir(&self.dir).map_err(|source| self.failed("sync the directory of", source))?;
        self.file = Some(file);
        self.changed.clear();
        self.single.clear();
        self.keep_evidence = false;
        Ok(Committed { slots: self.pages.len() * 2, syncs: 1 })
    }

    /// Copies a damaged floor aside before it is replaced. Best effort: it is for a person, not for us.
    fn preserve_evidence(&self) {
        if !self.keep_evidence {
            return;
        }
        let aside = self.dir.join(EVIDENCE_NAME);
        let copy = || -> io::Result<()> {
            let bytes = crate::disk::read_all(&*self.disk.open(&self.dir.join(FLOOR_NAME))?)?;
            let _ = self.disk.remove(&aside);
            self.disk.create(&aside)?.write_all_at(&[IoSlice::new(&bytes)], 0)
        };
        if let Err(error) = copy() {
            tracing::warn!(%error, "could not keep a copy of the damaged floor file");
        }
    }
}
