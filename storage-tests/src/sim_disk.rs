//! A disk that crashes and fails on command, and the same way again from the same seed.
//!
//! It keeps, side by side, what a process reads and what is durable. It promises exactly what the seam in
//! `forebay::disk` promises and breaks everything else that it may:
//!
//! - A power cut keeps of un-synced bytes what [`PowerCut`] says: at the worst each sector its old or its new bytes or
//!   a mixture torn at any byte, and the length on its own.
//! - A name that was made, renamed or removed and whose directory was not synced survives or not, each for itself;
//!   removed files come back. A file that is synced may still lose its name.
//! - A sync that fails leaves each dirty sector durable or not and none dirty: the next sync succeeds and makes none
//!   of them durable, while reads go on showing them. A failed sync of a directory does the same to its names.
//! - A failed write may have landed in part.
//!
//! It is not a model of one file system; where they differ it does the worse. It knows no time. With one thread it is
//! deterministic; with several as far as their order is. Directories made by `create_dir` are durable, as promised.
//!
//! ```
//! use forebay::disk::Disk;
//! use storage_tests::sim_disk::{PowerCut, SimDisk};
//! let disk = SimDisk::new(1);
//! disk.create("/file".as_ref())?.sync_data()?;
//! disk.power_cut(PowerCut::NothingUnsynced);
//! assert!(disk.open("/file".as_ref()).is_err(), "the directory was not synced");
//! # std::io::Result::Ok(())
//! ```

mod content;
mod cut;
mod names;
mod state;
#[cfg(test)]
mod tests;
mod tree;

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use forebay::disk::{Disk, File, Lock, Space};

use self::state::{State, dead};
use crate::fault::{CrashPoint, Fault, OpKind, Performed};
use crate::rng::Rng;

/// The simulated disk. Clones are the same disk; for another one that is equal see [`SimDisk::snapshot`].
#[derive(Clone)]
pub struct SimDisk {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    gate: Mutex<Gate>,
    gate_moved: Condvar,
}

/// Holds syncs back while tests arrange what waits behind them.
#[derive(Default)]
struct Gate {
    held: u32,
    waiting: usize,
}

/// What a power cut leaves of that which was not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PowerCut {
    /// Nothing: only what was promised.
    NothingUnsynced,
    /// Everything, save what a failed sync lost.
    Everything,
    /// All up to a point in time chosen by chance, over all files and names; a write at that point up to any byte.
    Prefix,
    /// All changes before this one, and of this one, if it is a write, the first bytes.
    PrefixOf {
        /// Index of the change.
        op: u64,
        /// How much of it.
        bytes: usize,
    },
    /// Of the write with this index the bytes `from..to`, and of all other changes what `rest` says.
    InWrite {
        /// Index of the write.
        op: u64,
        /// Its first byte that survives.
        from: usize,
        /// The byte behind its last that does.
        to: usize,
        /// What of all else.
        rest: Rest,
    },
    /// By chance, each sector and each name for itself, torn at any byte; a sector may also keep an older state.
    RandomSubset,
    /// Of all dirty sectors (`0..dirty_sectors()`) this one alone; and all names and lengths.
    OnlySector(usize),
    /// All dirty sectors but this one; and all names and lengths.
    AllButSector(usize),
}

/// What a power cut in the midst of a write leaves of all else that was not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rest {
    /// Everything.
    All,
    /// The bytes of all files, and no name.
    Bytes,
    /// Nothing.
    Nothing,
}

/// A change that was asked of the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Op {
    /// Its index: what [`SimDisk::crash_at`] and [`Fault::at_op`] take.
    pub op: u64,
    /// What it was.
    pub kind: OpKind,
    /// On which file or directory (of a rename the old name).
    pub path: PathBuf,
    /// How many bytes, if it was a write.
    pub bytes: usize,
}

/// A disk as it was at a moment, with its seed's state, faults and crash point. Cheap: bytes are shared until written.
#[derive(Clone)]
pub struct Snapshot {
    state: State,
}

impl SimDisk {
    /// An empty disk with an endless supply of room.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self::of(State::new(seed))
    }

    /// A new disk that is as the other one was. Its handles and locks are not taken over.
    #[must_use]
    pub fn from_snapshot(snapshot: &Snapshot) -> Self {
        let disk = Self::of(snapshot.state.clone());
        disk.restore(snapshot);
        disk
    }

    /// The disk as it is now.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        Snapshot { state: self.state().clone() }
    }

    /// Makes the disk as it was. All open handles die and the lock is free; a crash stays a crash until the next
    /// [`SimDisk::power_cut`] or [`SimDisk::process_kill`].
    pub fn restore(&self, snapshot: &Snapshot) {
        let mut state = self.state();
        let generation = state.generation.max(snapshot.state.generation);
        let (crashed, crash_point) = (snapshot.state.crashed, snapshot.state.crash_point);
        *state = snapshot.state.clone();
        state.generation = generation;
        state.end_process();
        (state.crashed, state.crash_point) = (crashed, crash_point);
    }

    /// Other chances from here on: what a restored disk needs to go another way.
    pub fn reseed(&self, seed: u64) {
        self.state().rng = Rng::new(seed);
    }

    // Ends of the process

    /// The power fails and comes back: all handles are dead, the lock is free, and of what was not synced there is what
    /// `cut` leaves. All of it is durable now. Faults stay; the crash point is gone.
    pub fn power_cut(&self, cut: PowerCut) {
        self.state().cut_power(cut);
    }

    /// SIGKILL: all handles are dead and the lock is free, but the kernel lives, so nothing is lost (and nothing is
    /// synced by it either).
    pub fn process_kill(&self) {
        self.state().end_process();
    }

    /// Ends the process in the midst of the change with this index: that one, of which `performed` is done, and every
    /// later call of any kind fails, until [`SimDisk::power_cut`] or [`SimDisk::process_kill`]. An index that has
    /// passed means the next change.
    pub fn crash_at(&self, op: u64, performed: Performed) {
        self.state().crash_point = Some(CrashPoint { op, performed });
    }

    /// Whether the crash point was reached.
    #[must_use]
    pub fn crashed(&self) -> bool {
        self.state().crashed
    }

    // Faults

    /// From now on calls fail as this fault says.
    pub fn inject(&self, fault: Fault) {
        self.state().faults.add(fault);
    }

    /// The disk works again. What a failed sync lost stays lost.
    pub fn clear_faults(&self) {
        self.state().faults.clear();
    }

    /// How many calls have failed by a fault so far.
    #[must_use]
    pub fn struck(&self) -> u64 {
        self.state().faults.struck()
    }

    /// Room for this many bytes in all. Less than is in use is fine: then nothing grows.
    pub fn set_capacity(&self, bytes: u64) {
        self.state().capacity = bytes;
    }

    /// Holds back every `sync_data` until the guard is dropped. The calls wait before they do anything.
    #[must_use]
    pub fn hold_syncs(&self) -> HeldSyncs {
        self.gate().held += 1;
        HeldSyncs { disk: self.clone() }
    }

    // What there is

    /// How many changes were asked so far: the index of the next one.
    #[must_use]
    pub fn ops(&self) -> u64 {
        self.state().ops
    }

    /// Keeps a list of the changes from now on.
    pub fn start_trace(&self) {
        self.state().trace = Some(Vec::new());
    }

    /// The changes since [`SimDisk::start_trace`], which ends.
    #[must_use]
    pub fn take_trace(&self) -> Vec<Op> {
        self.state().trace.take().unwrap_or_default()
    }

    /// How many sectors a cut would have to decide about.
    #[must_use]
    pub fn dirty_sectors(&self) -> usize {
        self.state().dirty_sectors()
    }

    /// The tears of an un-synced write that differ: after each of these numbers of bytes the file is another one than it
    /// is a byte earlier, be what was not synced before it there or not. None for a change that is no write.
    #[must_use]
    pub fn tears(&self, op: u64) -> Vec<usize> {
        self.state().files.values().flat_map(|file| file.content.tears(op)).collect()
    }

    /// All files that a process sees, with absolute paths.
    #[must_use]
    pub fn paths(&self) -> Vec<PathBuf> {
        self.state().paths()
    }

    /// What a process would read, past all faults and on a crashed disk too.
    #[must_use]
    pub fn read_live(&self, path: &Path) -> Option<Vec<u8>> {
        let state = self.state();
        let file = state.find_file(path).ok()?;
        Some(state.content(file).live().to_vec())
    }

    /// What is sure to survive a power cut: nothing if the name is not.
    #[must_use]
    pub fn read_durable(&self, path: &Path) -> Option<Vec<u8>> {
        Some(self.state().find_durable(path)?.durable().to_vec())
    }

    // Damage

    /// Turns one bit of a file (bit 9 is the second lowest of its second byte), in cache and on the platter.
    ///
    /// # Panics
    /// When there is no such file or it is shorter.
    pub fn flip_bit(&self, path: &Path, bit: u64) {
        let mut state = self.state();
        let file = state.find_file(path).expect("a bit is flipped in a file that is there");
        let byte = usize::try_from(bit / 8).expect("files are in memory");
        assert!(byte < state.content(file).live().len(), "bit {bit} lies beyond the file");
        state.content_mut(file).flip_bit(byte, u32::try_from(bit % 8).expect("less than 8"));
    }

    /// Puts these bytes in the place of a file's, or of none: durable at once, past all faults.
    ///
    /// # Panics
    /// When the directory is not there or the path names one.
    pub fn overwrite(&self, path: &Path, bytes: &[u8]) {
        self.state().overwrite(path, bytes.to_vec()).expect("overwrite needs a path in a directory that is there");
    }

    /// Removes a file: durable at once, past all faults.
    ///
    /// # Panics
    /// When there is none.
    pub fn erase(&self, path: &Path) {
        self.state().erase(path).expect("a file is erased that is there");
    }

    fn of(state: State) -> Self {
        Self {
            shared: Arc::new(Shared { state: Mutex::new(state), gate: Mutex::default(), gate_moved: Condvar::new() }),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn gate(&self) -> MutexGuard<'_, Gate> {
        self.shared.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pass_gate(&self) {
        let mut gate = self.gate();
        gate.waiting += 1;
        self.shared.gate_moved.notify_all();
        while gate.held > 0 {
            gate = self.shared.gate_moved.wait(gate).unwrap_or_else(PoisonError::into_inner);
        }
        gate.waiting -= 1;
    }

    fn handle(&self, path: &Path, open: impl FnOnce(&mut State) -> io::Result<u64>) -> io::Result<Arc<dyn File>> {
        let mut state = self.state();
        let file = open(&mut state)?;
        state.add_handle(file);
        let generation = state.generation;
        Ok(Arc::new(SimFile { disk: self.clone(), path: path.to_owned(), file, generation }))
    }
}

impl Disk for SimDisk {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        self.handle(path, |state| state.create(path))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        self.handle(path, |state| state.open(path))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.state().list(dir)
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.state().create_dir(dir)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.state().rename(from, to)
    }

    fn rename_dir(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.state().rename_dir(from, to)
    }

    fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        self.state().remove_dir(dir)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.state().remove(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.state().sync_dir(dir)
    }

    fn lock(&self, path: &Path, holder: &str) -> io::Result<Box<dyn Lock>> {
        let mut state = self.state();
        state.lock(path, holder)?;
        Ok(Box::new(SimLock { disk: self.clone(), path: path.to_owned(), generation: state.generation }))
    }

    fn space(&self, dir: &Path) -> io::Result<Space> {
        let state = self.state();
        if state.crashed {
            return Err(dead());
        }
        state.find_dir(dir)?;
        Ok(Space { total: state.capacity, free: state.capacity.saturating_sub(state.used()) })
    }

    fn entropy(&self) -> u128 {
        let mut state = self.state();
        u128::from(state.rng.bits()) << 64 | u128::from(state.rng.bits())
    }
}

struct SimFile {
    disk: SimDisk,
    path: PathBuf,
    file: u64,
    generation: u64,
}

impl SimFile {
    fn state(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.disk.state();
        if state.generation == self.generation { Ok(state) } else { Err(dead()) }
    }
}

impl File for SimFile {
    fn read_at(&self, buf: &mut [u8], position: u64) -> io::Result<usize> {
        self.state()?.read(self.file, &self.path, buf, position)
    }

    fn write_all_at(&self, bufs: &[IoSlice<'_>], position: u64) -> io::Result<()> {
        let bytes = bufs.iter().map(|buf| &**buf).collect::<Vec<_>>().concat();
        self.state()?.write(self.file, &self.path, &bytes, position)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.disk.pass_gate();
        self.state()?.sync(self.file, &self.path)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.state()?.allocate(self.file, &self.path, len)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.state()?.set_len(self.file, &self.path, len)
    }

    fn len(&self) -> io::Result<u64> {
        let state = self.state()?;
        if state.crashed { Err(dead()) } else { Ok(state.content(self.file).live().len() as u64) }
    }
}

impl Drop for SimFile {
    fn drop(&mut self) {
        if let Ok(mut state) = self.state() {
            state.drop_handle(self.file);
        }
    }
}

struct SimLock {
    disk: SimDisk,
    path: PathBuf,
    generation: u64,
}

impl Lock for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        let mut state = self.disk.state();
        if state.generation == self.generation {
            state.locks.remove(&self.path);
        }
    }
}

/// Syncs wait while this lives.
pub struct HeldSyncs {
    disk: SimDisk,
}

impl HeldSyncs {
    /// Returns when at least `n` syncs wait.
    pub fn wait_for(&self, n: usize) {
        let mut gate = self.disk.gate();
        while gate.waiting < n {
            gate = self.disk.shared.gate_moved.wait(gate).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Drop for HeldSyncs {
    fn drop(&mut self) {
        self.disk.gate().held -= 1;
        self.disk.shared.gate_moved.notify_all();
    }
}
