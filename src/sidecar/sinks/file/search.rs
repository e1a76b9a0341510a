//! How far back the files of a destination are searched for records that come again. Pure.
//!
//! A record that is not settled may lie in any file that was written since the floor last knew anything: files may end
//! faster than the floor ticks, and each life of a process that is killed at once leaves one more. So it goes back until the
//! queues say that it is far enough, which is when [`QUIET_FILES`] files one behind the other hold nothing that is unsettled.

use super::names::Stage;
use crate::delivery::unsettled::Unsettled;

/// So many files without an unsettled record end the search, and of so many of the newest each record counts. More than one:
/// batches that were written one after the other may be settled in another order. Of those that are settled none comes
/// again by itself; those of a replay do, which the queues can't tell from what is to stand there twice.
const QUIET_FILES: usize = 2;

/// A search, from the newest file to the oldest.
pub(super) struct Search<'a> {
    unsettled: &'a Unsettled,
    /// Files that count: those that were set aside are as new as the one before them, and empty ones say nothing.
    files: usize,
    quiet: usize,
    any: bool,
}

/// The search of one file.
pub(super) struct Through<'s, 'a, F> {
    search: &'s mut Search<'a>,
    stage: Stage,
    note: F,
    lines: bool,
    unsettled: bool,
}

impl<'a> Search<'a> {
    pub(super) fn of(unsettled: &'a Unsettled) -> Self {
        Self { unsettled, files: 0, quiet: 0, any: false }
    }

    /// Whether files that are older hold nothing that may come again.
    pub(super) fn is_over(&self) -> bool {
        self.quiet >= QUIET_FILES
    }

    /// Whether this is the newest file, leaving out those that were set aside.
    pub(super) fn is_first(&mut self, stage: Stage) -> bool {
        let counts = !matches!(stage, Stage::Failed { .. });
        counts && !std::mem::replace(&mut self.any, true)
    }

    /// The lines of the next file; `note` hears of the records that are to be recognised.
    pub(super) fn through<F: FnMut(&str)>(&mut self, stage: Stage, note: F) -> Through<'_, 'a, F> {
        Through { search: self, stage, note, lines: false, unsettled: false }
    }
}

impl<F: FnMut(&str)> Through<'_, '_, F> {
    /// A line, by its id.
    pub(super) fn line(&mut self, id: &str) {
        self.lines = true;
        let unsettled = self.search.unsettled.has(id);
        self.unsettled |= unsettled;
        if unsettled || self.search.files < QUIET_FILES || self.stage == Stage::Open {
            (self.note)(id);
        }
    }
}

impl<F> Through<'_, '_, F> {
    /// That were all of them.
    pub(super) fn end(self) {
        let counts = self.lines && !matches!(self.stage, Stage::Failed { .. });
        self.search.files += usize::from(counts);
        if self.unsettled {
            self.search.quiet = 0;
        } else if counts {
            self.search.quiet += 1;
        }
    }
}
