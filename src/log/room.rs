//! Room in the budget: how large that is, what files take of it, and what is taken for files that are on their way from one
//! place to another.
//!
//! What always holds: a file counts from before it is made until after it is gone, also while it is a spare no more and a
//! segment not yet. So two threads that look for room at once never both take the last of it. The budget may change at any
//! moment; one that is lowered takes nothing away that somebody needs.

use super::keeper::Keeper;
use super::shared::Shared;
use crate::mutants::{self, Mutant};
use crate::sync::atomic::Ordering;
use crate::sync::{MutexGuard, PoisonError};
use std::io;

/// Room that is taken until it is dropped: by then the file counts by itself, or is gone.
pub(super) struct Claim<'a> {
    shared: &'a Shared,
    bytes: u64,
}

impl Claim<'_> {
    /// Goes on counting until somebody [lets go](Shared::let_go) of so many bytes.
    pub(super) fn keep(self) -> u64 {
        let bytes = self.bytes;
        std::mem::forget(self);
        bytes
    }
}

impl Shared {
    /// Most bytes of all files together, as of now.
    pub(super) fn budget(&self) -> u64 {
        self.budget.load(Ordering::Relaxed)
    }

    /// Another budget, from now on. Returns what it is: enough to work in, if nothing else.
    pub(super) fn set_budget(&self, bytes: u64) -> u64 {
        let bytes = bytes.max(self.options.budget_bytes_min());
        if self.budget.swap(bytes, Ordering::Relaxed) != bytes {
            self.request_housekeeping(); // it takes the room that there is now, or gives back what is too much
        }
        bytes
    }

    /// From how many bytes on a disk of this budget is short: then what is only kept for replay goes, and who holds more than its share
    /// is refused. The rest is for all others to go on in. None for a budget of which a tenth is no two segments: it can't be
    /// shared.
    pub(super) fn short_at(&self, budget: u64) -> Option<u64> {
        let rest = budget / 10;
        (rest >= 2 * u64::from(self.options.segment_bytes)).then(|| budget - rest)
    }

    /// Whether files of so many bytes beside those that are held are within the budget.
    pub(super) fn is_room_for(&self, keeper: &Keeper, bytes: u64) -> bool {
        self.bytes_held(keeper) + bytes <= self.budget()
    }

    /// What was taken ahead of a budget that is lower now goes, but for the reserve: it would be written to.
    pub(super) fn give_back(&self, keeper: &Keeper) -> io::Result<()> {
        while !self.is_room_for(keeper, 0) && self.files.remove_spare(self.options.reserve_segments)? {}
        Ok(())
    }

    /// Bytes of all segments and spares, and of those that are being made.
    pub(super) fn bytes_used(&self) -> u64 {
        self.used_beside(&self.claimed())
    }

    /// Takes room for a file that is to be made. `None` when the budget has none.
    pub(super) fn claim(&self, bytes: u64) -> Option<Claim<'_>> {
        let mut claimed = self.claimed();
        let used = self.used_beside(&claimed);
        (used + bytes <= self.budget() || mutants::on(Mutant::BudgetOverrun)).then(|| {
            *claimed += bytes;
            Claim { shared: self, bytes }
        })
    }

    /// Goes on counting a file that leaves its place.
    pub(super) fn hold(&self, bytes: u64) -> Claim<'_> {
        *self.claimed() += bytes;
        Claim { shared: self, bytes }
    }

    /// Counts no longer what was [kept](Claim::keep) for a file that took its time to go.
    pub(super) fn let_go(&self, bytes: u64) {
        *self.claimed() -= bytes;
    }

    /// Counted under the lock that claims are let go under: what moves meanwhile is seen twice, perhaps, but once at least.
    fn used_beside(&self, claimed: &MutexGuard<'_, u64>) -> u64 {
        self.catalog_read().segment_bytes() + self.files.spare_bytes() + self.files.strays().bytes() + **claimed
    }

    fn claimed(&self) -> MutexGuard<'_, u64> {
        self.claimed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        *self.shared.claimed() -= self.bytes;
    }
}
