//! Room in the budget: what files take, and what is taken for files that are on their way from one place to another.
//!
//! What always holds: a file counts from before it is made until after it is gone, also while it is a spare no more and a
//! segment not yet. So two threads that look for room at once never both take the last of it.

use super::shared::Shared;
use crate::mutants::{self, Mutant};
use crate::sync::{MutexGuard, PoisonError};

/// Room that is taken until it is dropped: by then the file counts by itself, or is gone.
pub(super) struct Claim<'a> {
    shared: &'a Shared,
    bytes: u64,
}

impl Shared {
    /// Bytes of all segments and spares, and of those that are being made.
    pub(super) fn bytes_used(&self) -> u64 {
        self.used_beside(&self.claimed())
    }

    /// Takes room for a file that is to be made. `None` when the budget has none.
    pub(super) fn claim(&self, bytes: u64) -> Option<Claim<'_>> {
        let mut claimed = self.claimed();
        let used = self.used_beside(&claimed);
        (used + bytes <= self.options.budget_bytes || mutants::on(Mutant::BudgetOverrun)).then(|| {
            *claimed += bytes;
            Claim { shared: self, bytes }
        })
    }

    /// Goes on counting a file that leaves its place.
    pub(super) fn hold(&self, bytes: u64) -> Claim<'_> {
        *self.claimed() += bytes;
        Claim { shared: self, bytes }
    }

    /// Counts no longer what was [held](Self::hold) for a file that took its time to go.
    pub(super) fn let_go(&self, bytes: u64) {
        *self.claimed() -= bytes;
    }

    /// Counted under the lock that claims are let go under: what moves meanwhile is seen twice, perhaps, but once at least.
    fn used_beside(&self, claimed: &MutexGuard<'_, u64>) -> u64 {
        self.catalog_read().segment_bytes() + self.files.spare_bytes() + **claimed
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
