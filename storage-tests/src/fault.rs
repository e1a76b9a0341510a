//! What is to go wrong on a simulated disk, and when: plans only, the disk carries them out.
//!
//! A [`Fault`] makes calls fail and the process lives on; it stays until [`cleared`](Faults::clear), across power cuts
//! too, as a bad disk does. A [`CrashPoint`] ends the process in the middle of one call. Nothing here is random: what
//! part of a failed write lands is the disk's choice.

use std::io::{self, ErrorKind};
use std::ops::Range;
use std::path::Path;

/// What is asked of a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OpKind {
    /// A file is made.
    Create,
    /// Bytes are written.
    Write,
    /// A file is synced.
    Sync,
    /// Blocks are reserved.
    Allocate,
    /// A file is cut or grown.
    SetLen,
    /// A file or a directory gets another name.
    Rename,
    /// A file or a directory is removed.
    Remove,
    /// A directory is synced.
    SyncDir,
    /// A directory is made.
    MakeDir,
    /// A file is opened. Changes nothing, so it has no index: only [`Fault::nth`] and its kin reach it.
    Open,
    /// Bytes are read; no index either.
    Read,
    /// A directory is listed; no index either.
    List,
}

/// How a call fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// EIO. A write may have landed in part; a failed sync marks its bytes clean (see `sim_disk`).
    Eio,
    /// ENOSPC, likewise.
    NoSpace,
    /// A write lands in part, never whole, and says `WriteZero`. Any other call fails as with `Eio`.
    ShortWrite,
    /// Any other errno: EROFS (30), EMFILE (24), EDQUOT (122).
    Os(i32),
}

impl Failure {
    /// The error that the caller sees.
    #[must_use]
    pub fn error(self, kind: OpKind) -> io::Error {
        match self {
            Self::ShortWrite if kind == OpKind::Write => ErrorKind::WriteZero.into(),
            Self::Eio | Self::ShortWrite => io::Error::from_raw_os_error(5),
            Self::NoSpace => io::Error::from_raw_os_error(28),
            Self::Os(errno) => io::Error::from_raw_os_error(errno),
        }
    }
}

/// Calls that fail. Of several faults that fit a call the one added first decides.
///
/// ```
/// use storage_tests::fault::{Failure, Fault, OpKind};
/// Fault::at_op(17, Failure::Eio);                                  // whatever is the disk's 17th change
/// Fault::nth(OpKind::Sync, 0, Failure::Eio).on(".seg");            // the next sync of a segment
/// Fault::nths(OpKind::Write, 2..5, Failure::NoSpace);              // the third to fifth write from now
/// Fault::every(OpKind::Read, Failure::Eio);                        // no read any more
/// ```
#[derive(Debug, Clone)]
pub struct Fault {
    when: When,
    path_part: Option<String>,
    failure: Failure,
}

#[derive(Debug, Clone)]
enum When {
    /// Indexes as the disk gives them.
    Ops(Range<u64>),
    /// Counted over the calls that fit, from when the fault was added.
    Nths { kind: OpKind, range: Range<u64>, seen: u64 },
}

impl Fault {
    /// The change with this index fails, whatever it is.
    #[must_use]
    pub fn at_op(op: u64, failure: Failure) -> Self {
        Self::in_ops(op..op + 1, failure)
    }

    /// All changes with these indexes fail.
    #[must_use]
    pub fn in_ops(ops: Range<u64>, failure: Failure) -> Self {
        Self { when: When::Ops(ops), path_part: None, failure }
    }

    /// The `n`th call of a kind fails; 0 is the next one.
    #[must_use]
    pub fn nth(kind: OpKind, n: u64, failure: Failure) -> Self {
        Self::nths(kind, n..n + 1, failure)
    }

    /// These calls of a kind fail; 0 is the next one.
    #[must_use]
    pub fn nths(kind: OpKind, range: Range<u64>, failure: Failure) -> Self {
        Self { when: When::Nths { kind, range, seen: 0 }, path_part: None, failure }
    }

    /// Every call of a kind fails from now on.
    #[must_use]
    pub fn every(kind: OpKind, failure: Failure) -> Self {
        Self::nths(kind, 0..u64::MAX, failure)
    }

    /// Only on paths that contain `path_part`; other calls are neither failed nor counted.
    #[must_use]
    pub fn on(mut self, path_part: &str) -> Self {
        self.path_part = Some(path_part.to_owned());
        self
    }

    /// Whether this call is to fail. Counts it if it fits.
    fn strikes(&mut self, kind: OpKind, op: Option<u64>, path: &Path) -> bool {
        if let Some(part) = &self.path_part
            && !path.to_string_lossy().contains(part)
        {
            return false;
        }
        match &mut self.when {
            When::Ops(ops) => op.is_some_and(|op| ops.contains(&op)),
            When::Nths { kind: fits, range, seen } if *fits == kind => {
                *seen += 1;
                range.contains(&(*seen - 1))
            }
            When::Nths { .. } => false,
        }
    }
}

/// The faults of one disk.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    all: Vec<Fault>,
    struck: u64,
}

impl Faults {
    /// One more.
    pub fn add(&mut self, fault: Fault) {
        self.all.push(fault);
    }

    /// The disk works again.
    pub fn clear(&mut self) {
        self.all.clear();
    }

    /// How this call is to fail, if it is. `op` is its index if it changes the disk.
    pub fn strike(&mut self, kind: OpKind, op: Option<u64>, path: &Path) -> Option<Failure> {
        let mut struck = None;
        for fault in &mut self.all {
            // Asked of all, for each counts its own calls.
            if fault.strikes(kind, op, path) && struck.is_none() {
                struck = Some(fault.failure);
            }
        }
        self.struck += u64::from(struck.is_some());
        struck
    }

    /// How many calls have failed so far.
    #[must_use]
    pub fn struck(&self) -> u64 {
        self.struck
    }
}

/// The change in whose midst the process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CrashPoint {
    /// Its index.
    pub op: u64,
    /// How much of it is done.
    pub performed: Performed,
}

/// How much of its last change a process gets done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Performed {
    /// Nothing.
    Nothing,
    /// The first bytes, if it is a write; nothing otherwise.
    Bytes(usize),
    /// All of it: only the answer was not heard.
    All,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strikes(fault: Fault, calls: &[(OpKind, &str)]) -> Vec<bool> {
        let mut faults = Faults::default();
        faults.add(fault);
        let strike = |(op, (kind, path)): (usize, &(OpKind, &str))| {
            faults.strike(*kind, Some(op as u64), Path::new(path)).is_some()
        };
        calls.iter().enumerate().map(strike).collect()
    }

    #[test]
    fn an_index_counts_all_changes_and_a_kind_its_own() {
        use OpKind::{Sync, Write};
        let calls = [(Write, "a"), (Sync, "a"), (Write, "a"), (Sync, "b"), (Sync, "a")];
        let (yes, no) = (true, false);
        assert_eq!(strikes(Fault::at_op(2, Failure::Eio), &calls), [no, no, yes, no, no]);
        assert_eq!(strikes(Fault::in_ops(1..3, Failure::Eio), &calls), [no, yes, yes, no, no]);
        assert_eq!(strikes(Fault::nth(Sync, 1, Failure::Eio), &calls), [no, no, no, yes, no]);
        assert_eq!(strikes(Fault::nth(Sync, 1, Failure::Eio).on("a"), &calls), [no, no, no, no, yes]);
        assert_eq!(strikes(Fault::nths(Sync, 1..3, Failure::Eio), &calls), [no, no, no, yes, yes]);
        assert_eq!(strikes(Fault::every(Write, Failure::Eio), &calls), [yes, no, yes, no, no]);
    }

    #[test]
    fn errors_are_those_of_the_system() {
        assert_eq!(Failure::NoSpace.error(OpKind::Write).kind(), ErrorKind::StorageFull);
        assert_eq!(Failure::Eio.error(OpKind::Sync).raw_os_error(), Some(5));
        assert_eq!(Failure::ShortWrite.error(OpKind::Write).kind(), ErrorKind::WriteZero);
        assert_eq!(Failure::ShortWrite.error(OpKind::Sync).raw_os_error(), Some(5));
    }
}
