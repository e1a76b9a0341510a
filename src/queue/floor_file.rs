//! The floor: the one place that decides what may be deleted from the log. Holds every queue's cursor and books, and
//! how far the log was synced.
//!
//! A file of fixed-size pages, each with two slots. A commit writes the pages that changed, each into its older slot,
//! and syncs once; nothing when nothing changed. A torn write leaves the other slot. What always holds:
//!
//! - An entry that was committed is in at least one sound slot, and from the end of the commit that put it on its page
//!   on in both. So a commit that gives an entry a page (it is new, or outgrew its old one) has two rounds: first the
//!   taking pages, then those again together with the rest. In between the entry may lie on two pages: the one with
//!   the greater generation holds.
//! - The number of pages is fixed for the life of the file and stands in every slot: a shorter file is damage, not a
//!   small floor. A floor that needs more pages is written whole under another name and renamed into place.
//! - After a failed write or sync nothing is written to that file again: the next commit writes a new one whole. So does
//!   the first one after a start, which can't know what failed before it: its name and its bytes may be in the kernel's
//!   memory alone. In place only on a disk that has no room for it, which a rising floor has to drain.
//! - What a commit wrote to one slot of a page the next one writes to the other, changed again or not. So what the commit
//!   before the last one made durable is in both slots, and no rot of one of them takes it back: by that, and by nothing
//!   newer, the log may be trimmed.
//! - A page with both slots bad is damage: some queues are not known any more, so nothing may be deleted (`pinned`)
//!   before the operator says so. That outlives a restart.
//!
//! Does not know which segment may go; see [`Queues::tick`](super::set::Queues::tick).

mod entries;
mod entry;
#[cfg(feature = "fuzzing")]
pub(super) mod fuzzing;
mod layout;
mod load;
mod page;
mod whole;

pub(crate) use entry::{Extra, FloorEntry};

use super::limits::{FLOOR_PAGES_MAX, FLOOR_SLOT_BYTES, SYNCED_MARKS_MAX};
use crate::disk::{Disk, File, is_full};
use crate::failpoints::{self, Point};
use crate::mutants::{self, Mutant};
use crate::{LogId, SyncedMark};
use entries::Entries;
use layout::Placement;
use page::Header;
use std::collections::BTreeSet;
use std::io::{self, ErrorKind, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use whole::COMMITS_BETWEEN_TRIES;

/// The name of the floor in the data directory.
pub(crate) const FLOOR_NAME: &str = "floor";

/// The floor, in memory and on disk.
pub(crate) struct FloorFile {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    log_id: LogId,
    /// `None`: the next commit writes a new file whole.
    file: Option<Arc<dyn File>>,
    /// A start found the file: the next commit that finds room for it writes a new one.
    found: bool,
    /// Generation of the last round.
    generation: u64,
    entries: Entries,
    /// The page of each entry; 0 while it has none.
    page_of: Vec<u32>,
    /// Entries that have no page yet.
    homeless: Vec<u32>,
    /// Numbers of entries that were removed, for the next ones.
    free: BTreeSet<u32>,
    placement: Placement,
    pages: Vec<PageState>,
    changed: BTreeSet<usize>,
    /// Pages with an entry that only one of their slots holds, or with news that both are to hold.
    single: BTreeSet<usize>,
    /// Pages of which the last commit wrote one slot: the other one is a commit behind.
    lagging: BTreeSet<usize>,
    spare: Option<whole::Spare>,
    /// Commits that do not look for room again.
    commits_until_room: u32,
    synced: Vec<SyncedMark>,
    pinned: bool,
    keep_evidence: bool,
}

/// The generations in a page's slots; 0 where there is nothing sound.
#[derive(Debug, Clone, Copy, Default)]
struct PageState {
    slots: [u64; 2],
}

/// Number of an entry in this floor, for the life of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct EntryId(u32);

/// What a commit did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Committed {
    /// Slots written.
    pub(crate) slots: usize,
    /// Syncs of the file.
    pub(crate) syncs: usize,
    /// The file is a new one: both slots of every page hold what was committed.
    pub(crate) whole: bool,
}

/// Damage found in a floor. Cursors are missing, or could be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FloorDamage {
    /// There is a log, but no floor.
    #[error("the floor file is missing beside a log that has records")]
    Missing,
    /// The file is shorter than it was made.
    #[error("the floor file has {bytes} bytes of {expected}")]
    Truncated {
        /// The file's length.
        bytes: u64,
        /// What it should be.
        expected: u64,
    },
    /// Neither slot of a page is sound.
    #[error("page {page} of the floor file has no sound slot")]
    Page {
        /// The page's number. Page 0 holds no cursors.
        page: u32,
    },
    /// The file has no sound slot at all.
    #[error("the floor file ({bytes} bytes) has no sound slot")]
    Whole {
        /// The file's length.
        bytes: u64,
    },
    /// The floor is that of another log.
    #[error("the floor file belongs to log {found}, not to this one")]
    Foreign {
        /// The log that it belongs to.
        found: LogId,
    },
}

impl FloorDamage {
    /// Whether cursors may be missing, so that nothing may be deleted.
    pub(super) fn pins(&self) -> bool {
        !matches!(self, Self::Page { page: 0 })
    }
}

/// Why a floor cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FloorError {
    /// The disk refused. What was to be written is not durable.
    #[error("cannot {what} the floor file {path}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// Which file.
        path: PathBuf,
        /// What the disk said.
        source: io::Error,
    },
    /// Written by a newer program.
    #[error("the floor file {path} has format version {version}, this program knows up to {known}: use the newer program", known = page::VERSION)]
    NewerFormat {
        /// Which file.
        path: PathBuf,
        /// Its version.
        version: u16,
    },
}

impl FloorFile {
    /// Reads the floor in `dir`, whatever state it is in. Writes nothing.
    ///
    /// # Errors
    /// When the file cannot be opened or read, or a newer program wrote it. Damage is no error, nor is a slot that the
    /// disk refuses while the other one of its page is sound.
    pub(crate) fn load(disk: Arc<dyn Disk>, dir: &Path) -> Result<(Self, Found), FloorError> {
        let mut floor = Self {
            disk,
            dir: dir.to_owned(),
            log_id: LogId(0),
            file: None,
            found: false,
            generation: 0,
            entries: Entries::default(),
            page_of: Vec::new(),
            homeless: Vec::new(),
            free: BTreeSet::new(),
            placement: Placement::new(),
            pages: Vec::new(),
            changed: BTreeSet::new(),
            single: BTreeSet::new(),
            lagging: BTreeSet::new(),
            spare: None,
            commits_until_room: 0,
            synced: Vec::new(),
            pinned: false,
            keep_evidence: false,
        };
        let path = dir.join(FLOOR_NAME);
        let file = match floor.disk.open(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok((floor, Found::Nothing)),
            opened => opened.map_err(|source| FloorError::Io { what: "open", path: path.clone(), source })?,
        };
        let damage = floor.read(&*file, &path)?;
        floor.pinned |= damage.iter().any(FloorDamage::pins);
        floor.keep_evidence = !damage.is_empty();
        floor.file = damage.is_empty().then_some(file);
        floor.found = damage.is_empty();
        Ok((floor, Found::File(damage)))
    }

    /// Binds the floor to its log. One that is another log's, or missing beside a log with records, is damage.
    pub(crate) fn bind(&mut self, log_id: LogId, found: &Found, log_is_empty: bool) -> Option<FloorDamage> {
        let damage = match found {
            Found::Nothing => FloorDamage::Missing,
            Found::File(_) if self.generation > 0 && self.log_id != log_id => {
                FloorDamage::Foreign { found: self.log_id }
            }
            Found::File(_) => {
                self.log_id = log_id;
                self.pinned &= !log_is_empty; // there is nothing left to keep
                return None;
            }
        };
        self.log_id = log_id;
        self.leave_the_file();
        self.entries.clear();
        self.page_of.clear();
        self.homeless.clear();
        self.free.clear();
        self.synced.clear();
        self.lagging.clear();
        self.keep_evidence = matches!(damage, FloorDamage::Foreign { .. });
        self.pinned = !log_is_empty;
        (!log_is_empty || self.keep_evidence).then_some(damage)
    }

    /// An epoch that no queue has had, as far as chance can tell: for one whose past may be lost.
    pub(crate) fn another_epoch(&self) -> u32 {
        (self.disk.entropy() as u32).max(1)
    }

    /// The log's synced positions as of the last commit.
    pub(crate) fn synced(&self) -> &[SyncedMark] {
        &self.synced
    }

    /// Whether entries were lost that nobody can name: nothing may be deleted.
    pub(crate) fn is_pinned(&self) -> bool {
        self.pinned
    }

    /// The operator takes the loss: from the next commit on the floor is what its entries say.
    pub(crate) fn unpin(&mut self) {
        self.pinned = false;
        self.leave_the_file(); // the flag stands in every slot
    }

    /// The loss is not taken after all: what says so could not be written. Slots that say it may have come through.
    pub(crate) fn pin_again(&mut self) {
        self.pinned = true;
        self.leave_the_file();
    }

    /// The next commit writes a new one whole, or fails.
    fn leave_the_file(&mut self) {
        self.file = None;
        self.found = false;
    }

    /// All entries.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (EntryId, &FloorEntry)> {
        (0..).map(EntryId).zip(self.entries.iter()).filter(|(id, _)| !self.free.contains(&id.0))
    }

    /// An entry that is there, as the next commit writes it.
    pub(crate) fn entry(&self, id: EntryId) -> &FloorEntry {
        &self.entries[id.0]
    }

    /// Adds an entry; durable after the next commit. `None` when the floor has no room for another queue.
    pub(crate) fn add(&mut self, entry: FloorEntry) -> Option<EntryId> {
        let id = match self.free.pop_first() {
            Some(id) => {
                self.entries[id] = entry;
                id
            }
            None => {
                let id = u32::try_from(self.entries.len()).ok().filter(|id| (*id as usize) < FLOOR_PAGES_MAX - 1)?;
                self.entries.push(entry);
                self.page_of.push(0);
                id
            }
        };
        self.homeless.push(id);
        Some(EntryId(id))
    }

    /// Has the next commit write the entry into both slots of its page: no rot of one of them takes it back.
    pub(crate) fn hold_fast(&mut self, id: EntryId) {
        let page = self.page_of[id.0 as usize] as usize;
        if page != 0 {
            self.changed.insert(page);
            self.single.insert(page);
        }
    }

    /// Takes an entry away; durable after the next commit, and in both slots of its page then: no rot of one of them
    /// brings it back.
    pub(crate) fn remove(&mut self, id: EntryId) {
        let EntryId(id) = id;
        self.hold_fast(EntryId(id));
        let page = std::mem::take(&mut self.page_of[id as usize]) as usize;
        self.placement.get_mut(page).into_iter().for_each(|ids| ids.retain(|there| *there != id));
        self.homeless.retain(|homeless| *homeless != id);
        self.free.insert(id);
    }

    /// Changes an entry; durable after the next commit. Of the same queue, in the same epoch, the cursor never goes back: what is
    /// settled is delivered, and may be gone.
    pub(crate) fn set(&mut self, id: EntryId, entry: FloorEntry) {
        let EntryId(id) = id;
        let before = &self.entries[id];
        if *before != entry {
            let of = |entry: &FloorEntry| (entry.incarnation, entry.epoch);
            assert!(of(before) != of(&entry) || entry.cursor.covers(&before.cursor), "a cursor goes back");
            self.entries[id] = entry;
            let page = self.page_of[id as usize] as usize;
            self.changed.extend((page != 0).then_some(page)); // one without a page is written with its first
        }
    }

    /// Adds synced marks, or moves those of the same segments; durable after the next commit. Marks of the last run
    /// stay until newer ones push them out: until its segments are sealed a crash would want them again.
    pub(crate) fn add_synced(&mut self, marks: Vec<SyncedMark>) {
        let fresh = marks.into_iter().filter(|mark| !self.synced.contains(mark)).collect::<Vec<_>>();
        if fresh.is_empty() {
            return;
        }
        self.synced.retain(|old| fresh.iter().all(|mark| mark.sequence != old.sequence));
        self.synced.extend(fresh);
        self.synced.sort_by_key(|mark| mark.sequence);
        self.synced.drain(..self.synced.len().saturating_sub(SYNCED_MARKS_MAX));
        self.changed.insert(0);
    }

    /// Makes all that was added and set durable. One sync; none when nothing changed now or with the last commit; two when
    /// entries got a new page. The first one after a start writes all of it.
    ///
    /// # Errors
    /// Then nothing of it can be relied upon, and the next commit writes a new file.
    pub(crate) fn commit(&mut self) -> Result<Committed, FloorError> {
        if self.found && self.commits_until_room == 0 {
            match self.write_anew() {
                Err(FloorError::Io { source, .. }) if self.found && is_full(&source) => {
                    self.commits_until_room = COMMITS_BETWEEN_TRIES;
                }
                written => return written,
            }
        }
        let Some(file) = self.file.take() else { return self.write_anew() };
        let Some(givers) = self.settle_in() else { return self.write_anew() };
        if givers.iter().any(|page| self.single.contains(page)) {
            // Its sound slot is the only home of an entry that is about to leave it.
            return self.write_anew();
        }
        let mut done = Committed::default();
        let takers: Vec<usize> = self.single.iter().copied().collect();
        let all: BTreeSet<usize> = self.changed.iter().chain(&self.single).chain(&self.lagging).copied().collect();
        let all: Vec<usize> = all.into_iter().collect();
        for round in [takers, all] {
            if !round.is_empty() {
                self.write_round(&*file, &round)?;
                done.slots += round.len();
                done.syncs += 1;
            }
        }
        self.lagging = &self.changed - &self.single;
        self.changed.clear();
        self.single.clear();
        self.file = Some(file); // only now: after an error it stays away
        if done.syncs > 0 {
            self.take_room_ahead();
        }
        Ok(done)
    }

    fn write_anew(&mut self) -> Result<Committed, FloorError> {
        let done = self.write_whole()?;
        self.take_room_ahead();
        Ok(done)
    }

    /// Gives a page to every entry that has none or outgrew it. Returns the pages that lost one, or `None` when the
    /// file is too small.
    fn settle_in(&mut self) -> Option<Vec<usize>> {
        let homeless = std::mem::take(&mut self.homeless);
        let entries = &self.entries;
        let len_of = |id: u32| entries[id].encoded_len();
        // Those that lag are written, too; what is there may be of an older version, whose entries took less room.
        let changed = self.changed.union(&self.lagging).copied();
        let moves = layout::rearrange(&mut self.placement, changed, homeless, len_of)?;
        for &page in &moves.takers {
            for &id in &self.placement[page] {
                self.page_of[id as usize] = u32::try_from(page).expect("at most 65,536 pages");
            }
        }
        self.single.extend(moves.takers.iter().copied());
        self.changed.extend(moves.takers);
        self.changed.extend(moves.givers.iter().copied());
        Some(moves.givers)
    }

    /// Writes these pages into their older slots, and syncs.
    fn write_round(&mut self, file: &dyn File, pages: &[usize]) -> Result<(), FloorError> {
        self.generation += 1;
        for &page in pages {
            let [first, second] = self.pages[page].slots;
            let slot = usize::from(second < first);
            let bytes = self.encode(page, self.generation);
            let position = ((page * 2 + slot) * FLOOR_SLOT_BYTES) as u64;
            let written =
                failpoints::around(Point::FloorWrite, || file.write_all_at(&[IoSlice::new(&bytes)], position));
            written.map_err(|source| self.failed("write", source))?;
            self.pages[page].slots[slot] = self.generation;
        }
        let sync = || mutants::unless(Mutant::FloorNotSynced, || file.sync_data());
        failpoints::around(Point::FloorSync, sync).map_err(|source| self.failed("sync", source))
    }

    fn encode(&self, page: usize, generation: u64) -> Vec<u8> {
        let number = |n: usize| u32::try_from(n).expect("at most 65,536 pages");
        let header = Header {
            page: number(page),
            pages: number(self.pages.len()),
            generation,
            log_id: self.log_id,
            pinned: self.pinned,
        };
        if page == 0 {
            return page::encode_marks(header, &self.synced);
        }
        page::encode(header, self.placement[page].iter().map(|id| &self.entries[*id]))
    }

    fn failed(&self, what: &'static str, source: io::Error) -> FloorError {
        FloorError::Io { what, path: self.dir.join(FLOOR_NAME), source }
    }
}

/// What was there to load.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// No file.
    Nothing,
    /// A file, with this damage.
    File(Vec<FloorDamage>),
}

#[cfg(test)]
mod tests;
