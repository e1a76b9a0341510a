//! What an operator does with dead letters: looks at them, sends them again, lets them go.
//!
//! Everything goes through the stream from its oldest letter on, a bounded stretch at a time; who asks goes on where the
//! last stretch ended. What always holds: a letter that is sent again is durable on the held shelf before it is gone from
//! the dead one; what is let go is counted as that, once.

use forebay::{Balance, ReadError, Settled};

use super::Shelf;
use super::desk::{Desk, Shelves, runs};
use super::doubts::Origins;
use super::filter::{Filter, Shown};
use super::packed::Packed;
use super::shelf::RANGES_MAX;
use crate::delivery::source::BoxError;

/// Letters read in one stretch: a few tens of megabytes from the disk at most, mostly a few.
const READ_MAX: usize = 20_000;

/// Why dead letters could not be seen to.
#[derive(Debug, thiserror::Error)]
pub enum SweepError {
    /// The log cannot be read.
    #[error("the dead letters cannot be read")]
    Read(#[from] ReadError),
    /// The log takes nothing.
    #[error("the letters could not be moved: what was not moved is where it was")]
    Move(#[source] BoxError),
    /// What was let go is there again after a crash.
    #[error("the letters were let go, and a crash would bring them back: ask again")]
    Keep(#[source] BoxError),
}

/// A stretch of dead letters.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Page {
    /// Those that match, oldest first. Fewer than asked for, or none, does not mean that these are all.
    pub letters: Vec<Shown>,
    /// Where to go on; `None` at the end.
    pub next: Option<u64>,
}

/// What was done in one stretch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Step {
    /// Letters that were sent again or let go.
    pub done: u64,
    /// Where to go on; `None` at the end.
    pub next: Option<u64>,
}

/// A stretch, and what it left.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Swept {
    pub(super) step: Step,
    /// When the oldest of what was read and stays was taken out, in milliseconds since 1970.
    pub(super) left_ms: Option<u64>,
}

/// What is to become of letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// Sent again.
    Redriven,
    /// Let go: counted as this.
    Gone(Settled),
}

impl Desk {
    /// How many dead letters there are, and their bytes as stored.
    #[must_use]
    pub fn dead(&self) -> forebay::Count {
        match self.shelves() {
            Some(shelves) => balance(shelves).pending,
            None if self.is_unread() => {
                let queue = self.ground.queues.find(&self.destination, &Shelf::Dead.stream(&self.destination));
                queue.map(|queue| queue.balance().pending).unwrap_or_default()
            }
            None => forebay::Count::default(),
        }
    }

    /// Shows dead letters that match, from the place `from` on, at most `most`. Reads the disk.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn list(&self, filter: &Filter, from: u64, most: usize) -> Result<Page, SweepError> {
        let Some(shelves) = self.shelves() else { return Ok(Page::default()) };
        let mut page = Page::default();
        let (mut walk, mut read) = (shelves.place(Shelf::Dead).walk(from), 0);
        while let Some(letters) = walk.next()? {
            for (offset, letter) in letters {
                if page.letters.len() >= most || read >= READ_MAX {
                    page.next = Some(offset);
                    return Ok(page);
                }
                read += 1;
                if filter.matches(&letter) && !shelves.is_gone(Shelf::Dead, offset) {
                    page.letters.push(Shown::of(letter));
                }
            }
        }
        Ok(page)
    }

    /// Sends letters that match again, from the place `from` on, a stretch of them: durable when it returns. Blocks.
    ///
    /// # Errors
    /// When the log cannot be read or takes nothing; what was not moved is where it was.
    pub fn redrive(&self, filter: &Filter, from: u64) -> Result<Step, SweepError> {
        Ok(self.sweep(filter, from, READ_MAX, Fate::Redriven)?.step)
    }

    /// Lets letters that match go for good, from the place `from` on, a stretch of them: durably when it returns, and with them
    /// whatever was [let go](Self::let_marked_go) where it lies. Blocks.
    ///
    /// # Errors
    /// When the log cannot be read, or the disk does not keep what was let go: it is gone until a crash, and for good when
    /// another purge succeeds.
    pub fn purge(&self, filter: &Filter, from: u64) -> Result<Step, SweepError> {
        let swept = self.sweep(filter, from, READ_MAX, Fate::Gone(Settled::Purged))?;
        if self.shelves().is_some_and(|shelves| shelves.state().flights.has_late(Shelf::Dead, Settled::Purged)) {
            return Err(SweepError::Keep("too many others lie between them for now".into()));
        }
        // Also where nothing was found: whoever asks again was told before that it failed.
        self.ground.queues.tick().map_err(|error| SweepError::Keep(error.into()))?;
        Ok(swept.step)
    }

    pub(super) fn sweep(&self, filter: &Filter, from: u64, most: usize, fate: Fate) -> Result<Swept, SweepError> {
        let Some(_inside) = self.enter() else { return Ok(Swept::default()) };
        let Some(shelves) = self.shelves() else { return Ok(Swept::default()) };
        let place = shelves.place(Shelf::Dead);
        let _moving = place.moving();
        // What is let go needs no room in the log, and makes some: not being able to move others is no reason to keep it.
        let tidy = |until| match (self.tidy(shelves, place, until), fate) {
            (Err(error), Fate::Redriven) => Err(SweepError::Move(error)),
            _ => Ok(()),
        };
        tidy(u64::MAX)?;
        let (mut step, mut left_ms, mut read) = (Step::default(), None, 0);
        let (mut walk, mut seen) = (place.walk(from), Origins::default());
        while let Some(letters) = walk.next()? {
            read += letters.len();
            let mut meant = |(offset, letter): &(u64, Packed)| {
                filter.matches(letter) && !shelves.is_gone(Shelf::Dead, *offset) && self.is_taken_out(letter, &mut seen)
            };
            let (meant, left): (Vec<_>, Vec<_>) = letters.into_iter().partition(|letter| meant(letter));
            left_ms = left.iter().map(|(_, letter)| letter.at_ms).chain(left_ms).min();
            step.done += meant.len() as u64;
            self.seal(shelves, meant, fate).map_err(SweepError::Move)?;
            // What was passed over moves behind the others; what was not read yet stays before us.
            tidy(walk.at)?;
            shelves.settle_late();
            if read >= most || place.cursor().settled.len() > RANGES_MAX {
                step.next = Some(walk.at);
                break;
            }
        }
        if step.done > 0 && fate == Fate::Redriven {
            self.wake();
        }
        Ok(Swept { step, left_ms })
    }

    /// Gives letters their fate.
    fn seal(&self, shelves: &Shelves, letters: Vec<(u64, Packed)>, fate: Fate) -> Result<(), BoxError> {
        match fate {
            Fate::Redriven => {
                let not_before_ms = self.now_ms();
                let again = |(offset, letter): (u64, Packed)| {
                    Packed { not_before_ms, ..letter }.moved(Some((Shelf::Dead, offset)))
                };
                shelves.put(Shelf::Held, letters.into_iter().map(again).collect())
            }
            Fate::Gone(as_) => {
                for run in runs(letters.into_iter().map(|(offset, _)| offset).collect()) {
                    shelves.settle(Shelf::Dead, run, as_);
                }
                Ok(())
            }
        }
    }
}

fn balance(shelves: &Shelves) -> Balance {
    shelves.place(Shelf::Dead).queue.balance()
}
