//! The whole of a simulated disk as one value: cloned it is a snapshot.
//!
//! It decides for each call whether it succeeds, fails or ends the process. What a crash leaves is decided in `cut.rs`;
//! handles and guards as a process holds them are `sim_disk.rs`'s affair.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use super::Op;
use super::content::Content;
use super::names::{Names, Node};
use super::tree::components;
use crate::fault::{CrashPoint, Failure, Faults, OpKind, Performed};
use crate::rng::Rng;

/// Enough for any test that does not set a limit.
const CAPACITY_BYTES: u64 = 1 << 40;

/// Files are in memory: a position beyond this is a caller's mistake, and an error rather than the end of the machine.
const FILE_BYTES_MAX: u64 = 1 << 28;

pub(super) const ROOT: u64 = 0;

#[derive(Clone)]
pub(super) struct State {
    pub(super) rng: Rng,
    pub(super) faults: Faults,
    pub(super) crash_point: Option<CrashPoint>,
    pub(super) crashed: bool,
    pub(super) capacity: u64,
    /// Counts the lives of the process: handles and locks of an earlier one are dead.
    pub(super) generation: u64,
    pub(super) ops: u64,
    pub(super) trace: Option<Vec<Op>>,
    pub(super) locks: HashMap<PathBuf, String>,
    pub(super) files: BTreeMap<u64, SimulatedFile>,
    pub(super) dirs: BTreeMap<u64, Names>,
    pub(super) next_node: u64,
}

#[derive(Clone, Default)]
pub(super) struct SimulatedFile {
    pub(super) content: Content,
    pub(super) handles: u32,
}

/// What becomes of a call.
enum Fate {
    Succeeds,
    Fails(Failure),
    /// The process ends in the midst of it.
    Ends(Performed),
}

impl State {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            rng: Rng::new(seed),
            faults: Faults::default(),
            crash_point: None,
            crashed: false,
            capacity: CAPACITY_BYTES,
            generation: 0,
            ops: 0,
            trace: None,
            locks: HashMap::new(),
            files: BTreeMap::new(),
            dirs: BTreeMap::from([(ROOT, Names::default())]),
            next_node: ROOT + 1,
        }
    }

    // Names

    pub(super) fn create(&mut self, path: &Path) -> io::Result<u64> {
        self.change(OpKind::Create, path, |state, op| {
            let (dir, name) = state.parent(path)?;
            if state.dir(dir).get(&name).is_some() {
                return Err(ErrorKind::AlreadyExists.into());
            }
            let file = state.new_node();
            state.files.insert(file, SimulatedFile::default());
            state.dir_mut(dir).put(op, name, Node::File(file));
            Ok(file)
        })
    }

    pub(super) fn open(&mut self, path: &Path) -> io::Result<u64> {
        self.look(OpKind::Open, path)?;
        self.find_file(path)
    }

    pub(super) fn list(&mut self, path: &Path) -> io::Result<Vec<String>> {
        self.look(OpKind::List, path)?;
        let dir = self.find_dir(path)?;
        Ok(self.dir(dir).live().filter(|(_, node)| matches!(node, Node::File(_))).map(|(n, _)| n.to_string()).collect())
    }

    pub(super) fn create_dir(&mut self, path: &Path) -> io::Result<()> {
        self.change(OpKind::MakeDir, path, |state, _| {
            let mut dir = ROOT;
            for name in components(path)? {
                dir = match state.dir(dir).get(&name) {
                    Some(Node::Dir(below)) => below,
                    Some(Node::File(_)) => return Err(ErrorKind::NotADirectory.into()),
                    None => {
                        let below = state.new_node();
                        state.dirs.insert(below, Names::default());
                        state.dir_mut(dir).put_durably(name, Node::Dir(below));
                        below
                    }
                };
            }
            Ok(())
        })
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        self.change(OpKind::Rename, from, |state, op| {
            let (dir, old, new) = state.siblings(from, to)?;
            match (state.dir(dir).get(&old), state.dir(dir).get(&new)) {
                (None, _) => Err(ErrorKind::NotFound.into()),
                (Some(Node::Dir(_)), _) | (_, Some(Node::Dir(_))) => Err(ErrorKind::IsADirectory.into()),
                (Some(Node::File(_)), _) => {
                    state.dir_mut(dir).rename(op, old, new);
                    Ok(())
                }
            }
        })
    }

    pub(super) fn rename_dir(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        self.change(OpKind::Rename, from, |state, op| {
            let (dir, old, new) = state.siblings(from, to)?;
            match (state.dir(dir).get(&old), state.dir(dir).get(&new)) {
                (None, _) => Err(ErrorKind::NotFound.into()),
                (Some(Node::File(_)), _) | (_, Some(Node::File(_))) => Err(ErrorKind::NotADirectory.into()),
                (_, Some(Node::Dir(taken))) if state.dir(taken).live().next().is_some() => {
                    Err(ErrorKind::DirectoryNotEmpty.into())
                }
                (Some(Node::Dir(_)), _) => {
                    state.dir_mut(dir).rename(op, old, new);
                    Ok(())
                }
            }
        })
    }

    pub(super) fn remove_dir(&mut self, path: &Path) -> io::Result<()> {
        self.change(OpKind::Remove, path, |state, op| {
            let found = state.parent(path).map(|(dir, name)| (dir, state.dir(dir).get(&name), name));
            match found {
                Ok((_, Some(Node::File(_)), _)) => Err(ErrorKind::NotADirectory.into()),
                Ok((dir, Some(Node::Dir(_)), name)) => {
                    state.dir_mut(dir).remove(op, name);
                    Ok(())
                }
                Ok((_, None, _)) => Ok(()),
                Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
                Err(error) => Err(error),
            }
        })
    }

    pub(super) fn remove(&mut self, path: &Path) -> io::Result<()> {
        self.change(OpKind::Remove, path, |state, op| {
            state.find_file(path)?;
            let (dir, name) = state.parent(path)?;
            state.dir_mut(dir).remove(op, name);
            Ok(())
        })
    }

    pub(super) fn sync_dir(&mut self, path: &Path) -> io::Result<()> {
        match self.begin(OpKind::SyncDir, path, 0)?.1 {
            Fate::Succeeds => {
                let dir = self.find_dir(path)?;
                self.dir_mut(dir).settle(|_| true);
                self.collect();
                Ok(())
            }
            Fate::Fails(failure) => {
                let dir = self.find_dir(path)?;
                let mut rng = self.rng.clone();
                self.dir_mut(dir).settle(|_| rng.chance(1, 2));
                self.rng = rng;
                Err(failure.error(OpKind::SyncDir))
            }
            Fate::Ends(performed) => {
                if performed == Performed::All {
                    let dir = self.find_dir(path)?;
                    self.dir_mut(dir).settle(|_| true);
                }
                Err(dead())
            }
        }
    }

    /// Not an operation with an index, and its file is durable at once: nobody syncs it and nobody needs it.
    pub(super) fn lock(&mut self, path: &Path, holder: &str) -> io::Result<()> {
        self.alive()?;
        if let Some(holder) = self.locks.get(path) {
            return Err(io::Error::new(ErrorKind::WouldBlock, format!("held by {holder}")));
        }
        self.overwrite(path, holder.as_bytes().to_vec())?;
        self.locks.insert(path.to_owned(), holder.to_owned());
        Ok(())
    }

    // Bytes

    pub(super) fn read(&mut self, file: u64, path: &Path, buf: &mut [u8], position: u64) -> io::Result<usize> {
        self.look(OpKind::Read, path)?;
        let live = self.content(file).live();
        let start = usize::try_from(position).map_or(live.len(), |start| start.min(live.len()));
        let n = buf.len().min(live.len() - start);
        buf[..n].copy_from_slice(&live[start..start + n]);
        Ok(n)
    }

    pub(super) fn write(&mut self, file: u64, path: &Path, bytes: &[u8], position: u64) -> io::Result<()> {
        let at = in_memory(position.saturating_add(bytes.len() as u64)).and(in_memory(position))?;
        let (op, fate) = self.begin(OpKind::Write, path, bytes.len())?;
        let fits = self.fits(file, at, bytes.len());
        let (lands, result) = match fate {
            Fate::Fails(failure) => {
                let lands = match failure {
                    Failure::ShortWrite => self.rng.below(bytes.len().max(1)),
                    _ => self.rng.below(bytes.len() + 1),
                };
                (lands, Err(failure.error(OpKind::Write)))
            }
            Fate::Ends(Performed::Nothing) => (0, Err(dead())),
            Fate::Ends(Performed::Bytes(n)) => (n.min(bytes.len()), Err(dead())),
            Fate::Ends(Performed::All) => (bytes.len(), Err(dead())),
            Fate::Succeeds if fits < bytes.len() => (fits, Err(Failure::NoSpace.error(OpKind::Write))),
            Fate::Succeeds => (bytes.len(), Ok(())),
        };
        self.file_mut(file).content.write(op, at, bytes[..lands.min(fits)].into());
        result
    }

    pub(super) fn sync(&mut self, file: u64, path: &Path) -> io::Result<()> {
        match self.begin(OpKind::Sync, path, 0)?.1 {
            Fate::Succeeds => {
                self.file_mut(file).content.sync();
                Ok(())
            }
            Fate::Fails(failure) => {
                let mut rng = self.rng.clone();
                self.file_mut(file).content.fail_sync(&mut rng);
                self.rng = rng;
                Err(failure.error(OpKind::Sync))
            }
            Fate::Ends(performed) => {
                if performed == Performed::All {
                    self.file_mut(file).content.sync();
                }
                Err(dead())
            }
        }
    }

    pub(super) fn allocate(&mut self, file: u64, path: &Path, len: u64) -> io::Result<()> {
        self.change(OpKind::Allocate, path, |state, op| {
            let len = in_memory(len)?;
            if state.fits(file, 0, len) < len {
                return Err(Failure::NoSpace.error(OpKind::Allocate));
            }
            state.file_mut(file).content.allocate(op, len);
            Ok(())
        })
    }

    pub(super) fn set_len(&mut self, file: u64, path: &Path, len: u64) -> io::Result<()> {
        self.change(OpKind::SetLen, path, |state, op| {
            state.file_mut(file).content.set_len(op, in_memory(len)?);
            Ok(())
        })
    }

    pub(super) fn content(&self, file: u64) -> &Content {
        &self.files[&file].content
    }

    pub(super) fn content_mut(&mut self, file: u64) -> &mut Content {
        &mut self.file_mut(file).content
    }

    pub(super) fn add_handle(&mut self, file: u64) {
        self.file_mut(file).handles += 1;
    }

    pub(super) fn drop_handle(&mut self, file: u64) {
        self.file_mut(file).handles -= 1;
    }

    // Each call's beginning

    fn alive(&self) -> io::Result<()> {
        if self.crashed { Err(dead()) } else { Ok(()) }
    }

    /// A call that changes nothing.
    fn look(&mut self, kind: OpKind, path: &Path) -> io::Result<()> {
        self.alive()?;
        match self.faults.strike(kind, None, path) {
            None => Ok(()),
            Some(failure) => Err(failure.error(kind)),
        }
    }

    /// A change that is done or not, and fails without a trace.
    fn change<T>(
        &mut self,
        kind: OpKind,
        path: &Path,
        act: impl FnOnce(&mut Self, u64) -> io::Result<T>,
    ) -> io::Result<T> {
        match self.begin(kind, path, 0)? {
            (op, Fate::Succeeds) => act(self, op),
            (_, Fate::Fails(failure)) => Err(failure.error(kind)),
            (op, Fate::Ends(Performed::All)) => act(self, op).and_then(|_| Err(dead())),
            (_, Fate::Ends(_)) => Err(dead()),
        }
    }

    /// Gives a change its index and decides its fate.
    fn begin(&mut self, kind: OpKind, path: &Path, bytes: usize) -> io::Result<(u64, Fate)> {
        self.alive()?;
        let op = self.ops;
        self.ops += 1;
        if let Some(trace) = &mut self.trace {
            trace.push(Op { op, kind, path: path.to_owned(), bytes });
        }
        // Asked in any case, for it counts.
        let failure = self.faults.strike(kind, Some(op), path);
        let fate = match (self.crash_point, failure) {
            (Some(point), _) if point.op <= op => {
                self.crashed = true;
                Fate::Ends(if point.op == op { point.performed } else { Performed::Nothing })
            }
            (_, Some(failure)) => Fate::Fails(failure),
            (_, None) => Fate::Succeeds,
        };
        Ok((op, fate))
    }

    // Helpers

    /// How many of `len` bytes at `at` find room.
    fn fits(&self, file: u64, at: usize, len: usize) -> usize {
        let reserved = self.content(file).reserved();
        let end = (at + len) as u64;
        if end <= reserved {
            return len;
        }
        let room = reserved.saturating_add(self.capacity.saturating_sub(self.used()));
        usize::try_from(room.min(end).saturating_sub(at as u64)).expect("at most len")
    }
}

/// What every call hears after the crash point and through the handles of an earlier life.
pub(super) fn dead() -> io::Error {
    io::Error::other("the simulated process has ended")
}

fn in_memory(position: u64) -> io::Result<usize> {
    match usize::try_from(position) {
        Ok(index) if position <= FILE_BYTES_MAX => Ok(index),
        _ => Err(ErrorKind::FileTooLarge.into()),
    }
}
