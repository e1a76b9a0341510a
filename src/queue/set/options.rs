//! What can be set when queues are opened, what they tell in numbers, and the errors of opening and closing them.

use crate::disk::dir_lock::Refused;
use crate::queue::balance::Count;
use crate::queue::cursor_store::StoreChoice;
use crate::queue::floor_file::{FloorDamage, FloorError};
use crate::queue::limits::PLANS_KEPT_MIN;
use crate::{CloseError, OpenError, ReadError};
use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// How a set of queues behaves.
#[derive(Debug, Clone)]
pub struct QueueOptions {
    /// Where hints about cursors are kept.
    pub store: StoreChoice,
    /// How long the store may take to open, and over one batch.
    pub store_deadline: Duration,
    /// How often cursors are made durable: what a crash repeats beyond the requests in flight. A millisecond at least.
    pub tick: Duration,
    /// Start no threads: ticks are the caller's to make, and the store works on the caller's thread. The log has an
    /// option of its own for its threads, which is set along with this.
    pub inline: bool,
    /// Plans that the log keeps though most of them are settled, before the few that keep them are written again behind them.
    pub plans_kept_min: u64,
}

/// Where a queue begins that was never seen before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// At the durable tail.
    Now,
    /// At the oldest record that is kept.
    Earliest,
    /// At this offset, or the nearest that is kept or next.
    At(u64),
    /// At the first record that was taken in at this moment or later, in milliseconds since 1970; see
    /// [`offset_at`](super::Queues::offset_at).
    Time(u64),
}

/// What deleting took away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Deleted {
    /// Queues, not counting replays.
    pub queues: usize,
    /// What these had not settled, all together.
    pub pending: Count,
}

/// The queues in numbers, since they were opened.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct QueuesStats {
    /// Queues there are.
    pub queues: usize,
    /// Ticks that wrote the floor.
    pub floor_commits: u64,
    /// Syncs of the floor.
    pub floor_syncs: u64,
    /// Ticks that could not write the floor. Nothing is deleted from the log after one, until one succeeds.
    pub floor_errors: u64,
    /// What the last of them said.
    pub floor_error: Option<String>,
    /// Damage found when the floor was read.
    pub floor_damage: Vec<FloorDamage>,
    /// Cursors were lost that nobody can name: nothing is deleted before [`accept_floor_loss`](super::Queues::accept_floor_loss).
    pub pinned: bool,
    /// Cursors that were ahead of the log when they were read: the log has lost records.
    pub cursors_ahead: u64,
    /// Cursors that were below the oldest record kept: the records between are counted as lost.
    pub cursors_below: u64,
    /// Streams that have another number than the floor remembers: their batches go on under new ids.
    pub streams_renumbered: u64,
    /// Streams whose names were lost by damage, and which have them again by what the floor remembers.
    pub streams_named_again: u64,
    /// Cursor hints that were believed.
    pub hints_taken: u64,
    /// Cursor hints that were not: damaged, or not of this log, destination and time.
    pub hints_refused: u64,
    /// Plans that were open when the last process ended, and come first now.
    pub plans_resumed: u64,
    /// Plans that could not be read.
    pub plans_lost: u64,
    /// Plans that later ones replaced: batches that were split, or given up for damage.
    pub plans_replaced: u64,
    /// Plans that were written again, since they were open for long and kept many others in the log.
    pub plans_moved: u64,
    /// Times that the cursor store was set aside when it was opened.
    pub store_resets: u64,
    /// Why the cursor store is not used any more.
    pub store_given_up: Option<String>,
    /// Batches that the cursor store took.
    pub store_batches: u64,
}

/// Why a set of queues cannot be opened. Damage to bytes is no reason; see [`QueuesStats`].
#[derive(Debug, thiserror::Error)]
pub enum OpenQueuesError {
    /// Another process has the directory.
    #[error("{}: another process has this directory open ({holder}); stop it first, or use another directory", dir.display())]
    Locked {
        /// The directory.
        dir: PathBuf,
        /// What the holder wrote about itself.
        holder: String,
    },
    /// The disk refused.
    #[error("{}: can't {what}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// What the disk said.
        source: io::Error,
    },
    /// The floor cannot be used.
    #[error(transparent)]
    Floor(#[from] FloorError),
    /// The log cannot be opened.
    #[error(transparent)]
    Log(#[from] OpenError),
    /// The log cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A thread could not be started.
    #[error("can't start the thread of the ticks")]
    NoThread(#[source] io::Error),
}

impl From<Refused> for OpenQueuesError {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Held { dir, holder } => Self::Locked { dir, holder },
            Refused::Disk { path, source } => Self::Io { what: "lock", path, source },
        }
    }
}

/// Why closing met an error. Nothing acknowledged is lost by it; what was settled last may be sent again.
#[derive(Debug, thiserror::Error)]
pub enum CloseQueuesError {
    /// The last cursors could not be written.
    #[error(transparent)]
    Floor(#[from] FloorError),
    /// The log could not be sealed.
    #[error(transparent)]
    Log(#[from] CloseError),
}

impl Default for QueueOptions {
    fn default() -> Self {
        Self {
            store: StoreChoice::default(),
            store_deadline: Duration::from_secs(5),
            tick: Duration::from_millis(100),
            inline: false,
            plans_kept_min: PLANS_KEPT_MIN,
        }
    }
}

impl QueueOptions {
    /// No threads and no store: for simulations and for programs with one thread.
    #[must_use]
    pub fn inline() -> Self {
        Self { store: StoreChoice::None, inline: true, ..Self::default() }
    }
}

impl QueuesStats {
    pub(super) fn count_commit(&mut self, syncs: usize) {
        self.floor_commits += u64::from(syncs > 0);
        self.floor_syncs += syncs as u64;
    }

    pub(super) fn count_error(&mut self, error: &FloorError) {
        self.floor_errors += 1;
        self.floor_error = Some(error.to_string());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_counts_once_however_many_syncs_it_took_and_not_at_all_without_one() {
        let mut stats = QueuesStats::default();
        for syncs in [0, 1, 3] {
            stats.count_commit(syncs);
        }
        assert_eq!((stats.floor_commits, stats.floor_syncs), (2, 4));
    }
}
