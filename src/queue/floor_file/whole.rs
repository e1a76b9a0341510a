//! Writing a floor whole: to a new file, which takes the old one's name when all of it is durable.
//!
//! Until then the old one lies there untouched, be it the only one that a power cut would leave.
//!
//! Its blocks are taken ahead, as long as the disk has some: only a floor that rises lets segments go, so a full disk must
//! never keep it from being written anew, be it that its file has failed or that it has outgrown it. What holds: a file that
//! was taken ahead is empty, was made by this process, and is used once; whatever else has its name is somebody's past.

use super::{Committed, FLOOR_NAME, FloorError, FloorFile, PageState, layout};
use crate::disk::File;
use crate::failpoints::{self, Point};
use crate::mutants::{self, Mutant};
use crate::queue::limits::{FLOOR_PAGES_MAX, FLOOR_SLOT_BYTES};
use std::io::{self, ErrorKind, IoSlice};
use std::path::PathBuf;
use std::sync::Arc;

/// A floor that is being written whole, or the room for one.
const SPARE_NAME: &str = "floor.new";
/// After a try that found no room, so many commits go by: about a minute of ticks.
pub(super) const COMMITS_BETWEEN_TRIES: u32 = 600;
/// A copy of the last floor that was found damaged, for whoever looks into it.
pub(super) const EVIDENCE_NAME: &str = "floor.bad";

/// Room for the next floor.
pub(super) struct Spare {
    file: Arc<dyn File>,
    bytes: u64,
}

impl FloorFile {
    /// Writes everything to a new file, and puts it in place of the old one.
    pub(super) fn write_whole(&mut self) -> Result<Committed, FloorError> {
        let ids: Vec<u32> = self.entries().map(|(id, _)| id.0).collect();
        let placement = layout::place_all(&ids, |id| self.entries[id].encoded_len());
        let len = (placement.len() * 2 * FLOOR_SLOT_BYTES) as u64;
        // Taken, whatever comes of it: after a failure it is not written again.
        let spare = self.spare.take().filter(|spare| spare.bytes >= len);
        // Room before anything is arranged anew: without it one that a start found is gone on with as it lies.
        let file = match spare {
            Some(spare) => spare.file,
            None => self.make(len).map_err(|source| self.failed("make room for", source))?,
        };
        self.leave_the_file();
        self.preserve_evidence();
        self.homeless.clear();
        self.placement = placement;
        for (page, ids) in (0..).zip(&self.placement) {
            ids.iter().for_each(|id| self.page_of[*id as usize] = page);
        }
        // Two generations, so that no two slots of the page are equals.
        let (first, second) = (self.generation + 1, self.generation + 2);
        self.generation = second;
        self.pages = vec![PageState { slots: [first, second] }; self.placement.len()];

        // A floor that is longer than it says would be one that was cut, the other way round.
        file.set_len(len).map_err(|source| self.failed("cut", source))?;
        for page in 0..self.pages.len() {
            let slots = [self.encode(page, first), self.encode(page, second)];
            let position = (page * 2 * FLOOR_SLOT_BYTES) as u64;
            let slots = slots.each_ref().map(|slot| IoSlice::new(slot));
            let written = failpoints::around(Point::FloorFill, || file.write_all_at(&slots, position));
            written.map_err(|source| self.failed("write", source))?;
        }
        failpoints::around(Point::FloorFillSync, || file.sync_data()).map_err(|source| self.failed("sync", source))?;
        // The bytes before the name: a name that points at unsynced bytes would be no floor after a crash.
        let name = || self.disk.rename(&self.spare_path(), &self.dir.join(FLOOR_NAME));
        failpoints::around(Point::FloorName, name).map_err(|source| self.failed("rename", source))?;
        let sync = || mutants::unless(Mutant::FloorNameNotSynced, || self.disk.sync_dir(&self.dir));
        failpoints::around(Point::FloorNameSync, sync)
            .map_err(|source| self.failed("sync the directory of", source))?;
        self.file = Some(file);
        self.changed.clear();
        self.single.clear();
        self.lagging.clear();
        self.keep_evidence = false;
        Ok(Committed { slots: self.pages.len() * 2, syncs: 1, whole: true })
    }

    /// Takes room for the next floor, twice as long as this one, so that it may have grown; as long as this one where a full
    /// disk has no more. Best effort, and not with every commit: on its way a try that fails takes what others look for.
    pub(super) fn take_room_ahead(&mut self) {
        if self.spare.is_some() {
            return;
        }
        if self.commits_until_room > 0 {
            self.commits_until_room -= 1;
            return;
        }
        let bytes = |pages: usize| (pages * 2 * FLOOR_SLOT_BYTES) as u64;
        let (twice, same) = (bytes((self.pages.len() * 2).min(FLOOR_PAGES_MAX)), bytes(self.pages.len()));
        let made = [twice, same].into_iter().find_map(|bytes| match self.make(bytes) {
            Ok(file) => Some(Spare { file, bytes }),
            Err(error) => {
                tracing::debug!(%error, bytes, "no room for the next floor yet");
                None
            }
        });
        if made.is_none() {
            self.commits_until_room = COMMITS_BETWEEN_TRIES;
        }
        self.spare = made;
    }

    /// An empty file with blocks of its own.
    fn make(&self, bytes: u64) -> io::Result<Arc<dyn File>> {
        let path = self.spare_path();
        match self.disk.remove(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = failpoints::around(Point::FloorMake, || self.disk.create(&path))?;
        if let Err(error) = file.allocate(bytes) {
            let _ = self.disk.remove(&path); // half of it is no use, and may be what is missing elsewhere
            return Err(error);
        }
        Ok(file)
    }

    fn spare_path(&self) -> PathBuf {
        self.dir.join(SPARE_NAME)
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
