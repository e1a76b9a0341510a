//! The turn at heavy work of a thread that reads and encodes: held while it works, given back while it waits.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::runtime::Handle;

use crate::delivery::budget::{Turn, Turns};

/// A thread's turn. Waits in place: not for async workers.
pub(super) struct Heavy {
    turns: Turns,
    runtime: Handle,
    held: Mutex<Option<Turn>>,
}

impl Heavy {
    /// No turn yet. To be made where a runtime is at hand.
    pub(super) fn new(turns: Turns) -> Self {
        Self { turns, runtime: Handle::current(), held: Mutex::default() }
    }

    /// Waits for a turn, and holds it.
    pub(super) fn take(&self) {
        let turn = self.runtime.block_on(self.turns.turn());
        *self.held() = turn;
    }

    /// Lets others work.
    pub(super) fn give_back(&self) {
        *self.held() = None;
    }

    /// Waits for something else, and lets others work meanwhile.
    pub(super) fn without<T>(&self, waiting: impl Future<Output = T>) -> T {
        self.give_back();
        let waited = self.runtime.block_on(waiting);
        self.take();
        waited
    }

    fn held(&self) -> MutexGuard<'_, Option<Turn>> {
        // Nothing that can panic runs under this lock.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
