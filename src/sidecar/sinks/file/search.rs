//! How far back the files of a destination are searched for records that come again, and which of their lines a crash may have
//! left in the page cache only. Pure.
//!
//! A record that is not settled may lie in any file that was written since the floor last knew anything: files may end
//! faster than the floor ticks, and each life of a process that is killed at once leaves one more. So it goes back until the
//! queues say that it is far enough, which is when [`QUIET_FILES`] files one behind the other hold nothing that is unsettled;
//! where cursors were lost, until files are older than all that comes again.

use super::names::{Name, Stage};
use crate::delivery::unsettled::Unsettled;

/// So many files without an unsettled record end the search. More than one: batches that were written one after the other may
/// be settled in another order. And in so many of the newest the records of a replay are recognised: of older ones its queue
/// can't tell which were written for it.
const QUIET_FILES: usize = 2;

/// A search, from the newest file to the oldest.
pub(super) struct Search<'a> {
    unsettled: &'a Unsettled,
    /// Files that count: those that were set aside are as new as the one before them, and empty ones say nothing.
    files: usize,
    quiet: usize,
    any: bool,
    /// When the last one was opened: those before it hold what is older.
    opened_ms: u64,
}

/// The search of one file.
pub(super) struct Through<'s, 'a, F> {
    search: &'s mut Search<'a>,
    stage: Stage,
    note: F,
    lines: bool,
    unsettled: bool,
    doubtful_from: Option<u64>,
}

impl<'a> Search<'a> {
    pub(super) fn of(unsettled: &'a Unsettled) -> Self {
        Self { unsettled, files: 0, quiet: 0, any: false, opened_ms: u64::MAX }
    }

    /// Whether files that are older hold nothing that may come again.
    pub(super) fn is_over(&self) -> bool {
        self.quiet >= QUIET_FILES && self.unsettled.oldest_ms().is_none_or(|oldest| self.opened_ms < oldest)
    }

    /// Whether this is the newest file, leaving out those that were set aside.
    pub(super) fn is_first(&mut self, stage: Stage) -> bool {
        let counts = !matches!(stage, Stage::Failed { .. });
        counts && !std::mem::replace(&mut self.any, true)
    }

    /// The lines of the next file; `note` hears of the records that are to be recognised.
    pub(super) fn through<F: FnMut(&str)>(&mut self, name: &Name, stage: Stage, note: F) -> Through<'_, 'a, F> {
        self.opened_ms = name.opened_ms;
        Through { search: self, stage, note, lines: false, unsettled: false, doubtful_from: None }
    }
}

impl<F: FnMut(&str)> Through<'_, '_, F> {
    /// A line, by its id, and where it, or the frame that it lies in, begins.
    pub(super) fn line(&mut self, id: &str, at: u64) {
        self.lines = true;
        let (unsettled, may_come) = (self.search.unsettled.has(id), self.search.unsettled.may_come(id));
        self.unsettled |= unsettled;
        if may_come {
            self.doubtful_from.get_or_insert(at);
        }
        let recent = self.search.files < QUIET_FILES || self.stage == Stage::Open;
        if unsettled || (may_come && recent) {
            (self.note)(id);
        }
    }
}

impl<F> Through<'_, '_, F> {
    /// That were all of them. Returns from where on they are not known to be synced: what was settled was.
    pub(super) fn end(self) -> Option<u64> {
        let counts = self.lines && !matches!(self.stage, Stage::Failed { .. });
        self.search.files += usize::from(counts);
        if self.unsettled {
            self.search.quiet = 0;
        } else if counts {
            self.search.quiet += 1;
        }
        self.doubtful_from
    }
}
