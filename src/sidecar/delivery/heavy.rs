//! The turn at heavy work of a thread that reads and encodes: held while it works, given back while it waits.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::runtime::Handle;

use super::budget::{Turn, Turns};

/// A thread's turn. Waits in place: not for async workers.
pub struct Heavy {
    turns: Turns,
    runtime: Handle,
    held: Mutex<Option<Turn>>,
}

impl Heavy {
    /// No turn yet.
    ///
    /// # Panics
    /// Where no runtime is at hand.
    #[must_use]
    pub fn new(turns: Turns) -> Self {
        Self { turns, runtime: Handle::current(), held: Mutex::default() }
    }

    /// With a turn that it has already.
    ///
    /// # Panics
    /// Where no runtime is at hand.
    #[must_use]
    pub fn holding(turn: Turn, turns: Turns) -> Self {
        let heavy = Self::new(turns);
        *heavy.held() = Some(turn);
        heavy
    }

    /// Waits for a turn, and holds it.
    pub fn take(&self) {
        let turn = self.runtime.block_on(self.turns.turn());
        *self.held() = turn;
    }

    /// Lets others work.
    pub fn give_back(&self) {
        *self.held() = None;
    }

    /// Lets others work, then goes on. The next turn is charged `bytes`: how much work it is going to be is not known
    /// before it is read, so it is as much as it was just now.
    pub fn pass(&self, bytes: u64) {
        self.give_back();
        let turn = self.runtime.block_on(self.turns.turn_of(bytes));
        *self.held() = turn;
    }

    /// Waits for something else, and lets others work meanwhile.
    pub fn without<T>(&self, waiting: impl Future<Output = T>) -> T {
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
