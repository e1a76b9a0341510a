//! The log's directory: makes segment files, keeps spare ones, and takes old ones away.
//!
//! A spare is room taken ahead. It becomes a segment by a rename, so that its blocks are allocated and, once recycled,
//! already written: appending then overwrites, which is the cheapest durable write there is. Stale frames in it never
//! pass for live ones (see frame.rs). The last `reserve` spares are for our own streams only, so that a full disk can
//! always be drained.

mod small;

use super::LogOptions;
use super::compact;
use super::dir_sync::{DirSync, Since};
use super::file_name::{FileName, SegmentFile};
use super::limits::{SEGMENT_HEADER_BYTES, UNSYNCED_BYTES_MAX};
use super::strays::Strays;
use crate::disk::latched::Latched;
use crate::disk::{Disk, File, is_full};
use crate::failpoints::{self, Point};
use crate::mutants::{self, Mutant};
use crate::offset::{LogId, Sequence};
use crate::sync::{Arc, Mutex, PoisonError};
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};

/// What is written where there is to be nothing: few, and again and again, for what has held a megabyte of them once stays with
/// the process.
static ZEROS: [u8; 16 << 10] = [0; 16 << 10];

/// So many zeros.
fn zeros(len: usize) -> Vec<IoSlice<'static>> {
    let mut slices = vec![IoSlice::new(&ZEROS); len / ZEROS.len()];
    let rest = &ZEROS[..len % ZEROS.len()];
    slices.extend((!rest.is_empty()).then(|| IoSlice::new(rest)));
    slices
}

/// See the file's header.
pub(crate) struct Files {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    names: DirSync,
    segment_bytes: u32,
    spares: Mutex<Spares>,
    open: Mutex<OpenFiles>,
    open_max: usize,
    /// Small files whose names are not durable yet, and since when.
    unsynced: Mutex<BTreeMap<FileName, Since>>,
    /// Stream tables that a start found and nobody has written since. Neither their names nor their bytes are sure to be durable:
    /// what a failed sync lost is shown until the power fails, and no start can know of it.
    found: Mutex<BTreeSet<FileName>>,
    strays: Strays,
}

#[derive(Default)]
struct Spares {
    names: VecDeque<u64>,
    next: u64,
}

#[derive(Default)]
struct OpenFiles {
    by_sequence: HashMap<Sequence, Arc<dyn File>>,
    order: VecDeque<Sequence>,
}

/// Which spares may be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Records of applications: all but the reserve.
    Ingest,
    /// What is needed to drain a full disk: the reserve too.
    Drain,
}

/// A new segment's file: its name is durable, its content is whatever it is.
pub(crate) struct Fresh {
    pub(crate) file: Arc<Latched>,
    pub(crate) bytes: u64,
}

impl Files {
    pub(crate) fn new(disk: Arc<dyn Disk>, dir: PathBuf, options: &LogOptions) -> Self {
        let &LogOptions { segment_bytes, open_segments_max: open_max, .. } = options;
        let (names, strays) = (DirSync::new(Arc::clone(&disk), &dir), Strays::new(Arc::clone(&disk)));
        let (spares, open) = (Mutex::default(), Mutex::default());
        let (unsynced, found) = (Mutex::default(), Mutex::default());
        Self { disk, dir, names, segment_bytes, spares, open, open_max, unsynced, found, strays }
    }

    pub(crate) fn disk(&self) -> &Arc<dyn Disk> {
        &self.disk
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn path(&self, name: FileName) -> PathBuf {
        self.dir.join(name.to_string())
    }

    /// Taken before names are changed, for the [sync](Self::sync_names) that makes them durable.
    pub(crate) fn mark_names(&self) -> Since {
        self.names.mark()
    }

    /// Makes durable every name that was changed since. See `dir_sync` for what a failure means.
    pub(crate) fn sync_names(&self, since: Since) -> io::Result<()> {
        self.names.sync(since)
    }

    /// Files that were given up.
    pub(super) fn strays(&self) -> &Strays {
        &self.strays
    }

    /// Bytes of all spares.
    pub(crate) fn spare_bytes(&self) -> u64 {
        self.spare_count() as u64 * u64::from(self.segment_bytes)
    }

    pub(crate) fn spare_count(&self) -> usize {
        self.spares().names.len()
    }

    /// A spare found at open. One of another size than today's is no use.
    pub(crate) fn adopt_spare(&self, n: u64) -> io::Result<()> {
        let path = self.path(FileName::Spare(n));
        let fits = self.disk.open(&path)?.len()? == u64::from(self.segment_bytes);
        let mut spares = self.spares();
        spares.next = spares.next.max(n + 1);
        if fits {
            spares.names.push_back(n);
            return Ok(());
        }
        drop(spares);
        self.disk.remove(&path)
    }

    /// Makes one more spare. `prewrite` writes zeros over it, so that its blocks are known to the file system.
    pub(crate) fn make_spare(&self, prewrite: bool) -> io::Result<()> {
        let n = self.spares().take_number();
        let path = self.path(FileName::Spare(n));
        let file = failpoints::around(Point::SpareMake, || self.disk.create(&path))?;
        let filled = self.fill(&*file, prewrite);
        if let Err(e) = filled {
            // Half a spare is no use, and its blocks may be what is missing.
            self.strays.give_up(path, u64::from(self.segment_bytes));
            return Err(e);
        }
        self.spares().names.push_back(n);
        Ok(())
    }

    fn fill(&self, file: &dyn File, prewrite: bool) -> io::Result<()> {
        let len = u64::from(self.segment_bytes);
        failpoints::around(Point::SpareAllocate, || file.allocate(len))?;
        if prewrite {
            let mut at = 0;
            while at < len {
                let n = (len - at).min(UNSYNCED_BYTES_MAX as u64);
                file.write_all_at(&zeros(n as usize), at)?;
                file.sync_data()?;
                at += n;
            }
        }
        failpoints::around(Point::SpareSync, || file.sync_data())
    }

    /// A segment file of at least `bytes`: a spare where one fits and may be taken, else a new one. `room` says whether
    /// a new one may be made. When it returns `Ok` the name is durable.
    ///
    /// # Errors
    /// `StorageFull` when no file may be made or the disk has no room.
    pub(crate) fn make_segment(
        &self,
        name: FileName,
        bytes: u32,
        reserve: usize,
        purpose: Purpose,
        room: bool,
    ) -> io::Result<Fresh> {
        let path = self.path(name);
        let since = self.mark_names();
        let spare = if bytes > self.segment_bytes { None } else { self.take_spare(reserve, purpose) };
        let made = match spare {
            Some(n) => self.rename_spare(n, &path).and_then(|()| self.disk.open(&path)),
            None if room => self.disk.create(&path).and_then(|file| {
                file.allocate(u64::from(bytes.max(self.segment_bytes)))?;
                Ok(file)
            }),
            None => return Err(io::ErrorKind::StorageFull.into()),
        };
        let made = made.and_then(|file| {
            let len = file.len()?;
            // Before the first frame: a segment whose name is lost takes its acknowledged frames with it.
            let sync = || mutants::unless(Mutant::SegmentNameNotSynced, || self.sync_names(since));
            failpoints::around(Point::SegmentNameSync, sync)?;
            Ok(Fresh { file: Arc::new(Latched::new(file)), bytes: len })
        });
        if made.is_err() {
            self.strays.give_up(path, u64::from(bytes.max(self.segment_bytes)));
        }
        made
    }

    /// A file of at least `bytes`, no more than a segment has, for a compact one, under the name of one that is not finished. `room` says whether a
    /// new one may be made. Else, and on a full disk, it is a spare, of the reserve if need be: compaction makes room.
    pub(crate) fn make_compact(&self, sequence: Sequence, bytes: u64, room: bool) -> io::Result<Latched> {
        let path = self.path(FileName::Unfinished(sequence));
        let new = || -> io::Result<Arc<dyn File>> {
            let file = self.disk.create(&path)?;
            file.allocate(bytes)?;
            Ok(file)
        };
        let made = match if room { new() } else { Err(io::ErrorKind::StorageFull.into()) } {
            Err(e) if is_full(&e) => {
                remove_if_there(&*self.disk, &path)?;
                let spare = self.take_spare(0, Purpose::Drain).ok_or(e)?;
                let since = self.mark_names();
                let made = self.rename_spare(spare, &path).and_then(|()| self.disk.open(&path));
                // Before the first frame. Were the name lost the file could become the segment of this very number, and
                // frames that were meant for a compact one would lie behind its own and prove themselves.
                made.and_then(|file| self.sync_names(since).map(|()| file))
            }
            made => made,
        };
        made.map(Latched::new)
    }

    fn rename_spare(&self, n: u64, path: &Path) -> io::Result<()> {
        let renamed = failpoints::around(Point::SegmentTake, || self.disk.rename(&self.path(FileName::Spare(n)), path));
        renamed.inspect_err(|e| {
            if e.kind() != io::ErrorKind::NotFound {
                self.spares().names.push_front(n); // still one, and perhaps the last of the reserve
            }
        })
    }

    fn take_spare(&self, reserve: usize, purpose: Purpose) -> Option<u64> {
        let mut spares = self.spares();
        let kept = if purpose == Purpose::Drain { 0 } else { reserve };
        if spares.names.len() > kept { spares.names.pop_front() } else { None }
    }

    /// Removes a spare beyond the reserve. `false` where there is none.
    pub(crate) fn remove_spare(&self, reserve: usize) -> io::Result<bool> {
        let Some(n) = self.take_spare(reserve, Purpose::Ingest) else { return Ok(false) };
        remove_if_there(&*self.disk, &self.path(FileName::Spare(n))).inspect_err(|_| {
            self.spares().names.push_back(n); // it takes its room still
        })?;
        Ok(true)
    }

    /// Removes a spare whose name a failed sync left to chance.
    pub(crate) fn remove_doubtful_spare(&self, n: u64) -> io::Result<()> {
        remove_if_there(&*self.disk, &self.path(FileName::Spare(n)))
    }

    /// Empties the index of a file: should its name come back, it says nothing. A sync of a directory that failed may have lost
    /// the removal, and no later one brings that back.
    pub(crate) fn empty_index(&self, file: SegmentFile) -> io::Result<()> {
        self.cut_if_there(FileName::Index(file.sequence), 0)
    }

    /// Cuts what a failed sync may have let out, behind `end`, or all where nothing was ever acknowledged, before the segment's name
    /// goes: where a sync of the directory fails the name may come back, and by then the header that hides those bytes may be gone.
    pub(crate) fn cut_failed(&self, file: SegmentFile, end: u32) -> io::Result<()> {
        self.cut_if_there(file.name(), if end > SEGMENT_HEADER_BYTES { end } else { 0 })
    }

    /// Durably.
    fn cut_if_there(&self, name: FileName, end: u32) -> io::Result<()> {
        match self.disk.open(&self.path(name)) {
            Ok(file) => cut(&*file, u64::from(end)).and_then(|()| file.sync_data()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(e) => Err(e),
        }
    }

    /// Takes the index of a file away.
    pub(crate) fn remove_index(&self, file: SegmentFile) -> io::Result<()> {
        let name = FileName::Index(file.sequence);
        self.unsynced().remove(&name);
        let path = self.path(name);
        failpoints::around(Point::IndexRemove, || remove_if_there(&*self.disk, &path))
    }

    /// The same as [`retire`](Self::retire) for a segment of `log` with acknowledged records, whose file becomes a spare if that is
    /// `wanted`. One that has failed, and ends at `failed`, is cut and becomes none; neither does another segment's file, which
    /// has this one's name, too, since a sync of the directory failed: that may be in use, and is not cut either.
    pub(crate) fn reclaim(
        &self,
        file: SegmentFile,
        file_bytes: u64,
        log: LogId,
        failed: Option<u32>,
        wanted: bool,
    ) -> io::Result<Option<u64>> {
        let ours = self.holds(file, log) || mutants::on(Mutant::RecycledWithoutLooking);
        if let Some(end) = failed.filter(|_| ours) {
            self.cut_failed(file, end)?;
        }
        self.retire(file, file_bytes, wanted && failed.is_none() && ours)
    }

    /// Takes a segment and its index away. When `recycle` and its size fit its file gets a spare's name, and is one once
    /// [`Files::sync_names`] has made that durable and [`Files::add_spare`] is told.
    pub(crate) fn retire(&self, file: SegmentFile, file_bytes: u64, recycle: bool) -> io::Result<Option<u64>> {
        self.forget(file.sequence);
        self.remove_index(file)?;
        let path = self.path(file.name());
        if recycle && file_bytes == u64::from(self.segment_bytes) {
            let n = self.spares().take_number();
            let spare = self.path(FileName::Spare(n));
            failpoints::around(Point::SegmentRecycle, || self.disk.rename(&path, &spare))?;
            return Ok(Some(n));
        }
        failpoints::around(Point::SegmentRemove, || remove_if_there(&*self.disk, &path)).map(|()| None)
    }

    /// Whether the file that has a segment's name has its header too.
    pub(crate) fn holds(&self, file: SegmentFile, log: LogId) -> bool {
        let mut bytes = [0; SEGMENT_HEADER_BYTES as usize];
        let read = self.disk.open(&self.path(file.name())).and_then(|file| file.read_at(&mut bytes, 0));
        let Ok(n) = read else { return false };
        compact::owner(file.replaced.is_some(), &bytes[..n]) == Some((log, file.sequence))
    }

    /// This name is durable now.
    pub(crate) fn add_spare(&self, n: u64) {
        self.spares().names.push_back(n);
    }

    /// A segment's file for reading, from a bounded set of open ones. `None` when it is gone.
    pub(crate) fn segment(&self, file: SegmentFile) -> io::Result<Option<Arc<dyn File>>> {
        let sequence = file.sequence;
        if let Some(file) = self.open().by_sequence.get(&sequence) {
            return Ok(Some(Arc::clone(file)));
        }
        let file = match self.disk.open(&self.path(file.name())) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e),
        };
        self.keep_open(sequence, Arc::clone(&file));
        Ok(Some(file))
    }

    /// Keeps a handle for reading.
    pub(crate) fn keep_open(&self, sequence: Sequence, file: Arc<dyn File>) {
        let mut open = self.open();
        if open.by_sequence.insert(sequence, file).is_none() {
            open.order.push_back(sequence);
        }
        while open.order.len() > self.open_max {
            let oldest = open.order.pop_front().expect("longer than the limit");
            open.by_sequence.remove(&oldest);
        }
    }

    fn forget(&self, sequence: Sequence) {
        let mut open = self.open();
        open.by_sequence.remove(&sequence);
        open.order.retain(|kept| *kept != sequence);
    }

    fn spares(&self) -> crate::sync::MutexGuard<'_, Spares> {
        self.spares.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(&self) -> crate::sync::MutexGuard<'_, OpenFiles> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Spares {
    /// A number that no spare ever had. Spent, whatever comes of it.
    fn take_number(&mut self) -> u64 {
        self.next += 1;
        self.next - 1
    }
}

/// Writes a small file whole and syncs it. Its name is not durable until its directory is synced. May be tried again
/// after a failure: every byte is written anew, so that nothing hangs on what a failed sync left behind.
pub(crate) fn write_whole(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let file = match disk.create(path) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => disk.open(path)?,
        other => other?,
    };
    failpoints::around(Point::SmallWrite, || file.write_all_at(&[IoSlice::new(bytes)], 0))?;
    failpoints::around(Point::SmallCut, || file.set_len(bytes.len() as u64))?;
    failpoints::around(Point::SmallSync, || mutants::unless(Mutant::SmallFileNotSynced, || file.sync_data()))
}

/// Has a file end there, once it is synced. Said anew also where it does: if the sync of an earlier cut has failed that is shown, and a
/// power cut takes it back. By way of another length, since a file system passes over the one that it has.
pub(crate) fn cut(file: &dyn File, end: u64) -> io::Result<()> {
    if file.len()? == end {
        file.set_len(end + 1)?;
    }
    file.set_len(end)
}

pub(crate) fn remove_if_there(disk: &dyn Disk, path: &Path) -> io::Result<()> {
    match disk.remove(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests;
