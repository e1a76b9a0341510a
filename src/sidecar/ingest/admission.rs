//! A bounded good that environments share: the memory of bodies, and the threads that parse. A reservation is had at
//! once, waits its turn, or is refused. Counts units; knows not of what.
//!
//! What always holds: reservations together never pass the limit. When several wait, the environment that holds least
//! comes first, and within one the order of arrival; whoever is next is waited for, so that large bodies get their
//! turn under a stream of small ones.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use thiserror::Error;
use tokio::sync::oneshot;

/// The good and who has it. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Pool {
    shared: Arc<Shared>,
}

/// A reservation; dropping it gives the units back.
pub(crate) struct Held {
    shared: Arc<Shared>,
    environment: usize,
    units: u64,
}

/// Nothing came free in time.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("{used} of {limit} are taken")]
pub(crate) struct Exhausted {
    used: u64,
    limit: u64,
}

struct Shared {
    limit: u64,
    account: Mutex<Account>,
}

/// Lets the next one have a turn when dropped.
struct NextTurn<'a>(&'a Arc<Shared>);

struct Account {
    used: u64,
    used_by: Vec<u64>,
    waiting: VecDeque<Waiting>,
}

struct Waiting {
    environment: usize,
    units: u64,
    granted: oneshot::Sender<Held>,
}

impl Pool {
    pub(crate) fn new(limit: u64, environments: usize) -> Self {
        let account = Account { used: 0, used_by: vec![0; environments], waiting: VecDeque::new() };
        Self { shared: Arc::new(Shared { limit, account: Mutex::new(account) }) }
    }

    /// Makes room for the accounts of so many environments.
    pub(crate) fn make_room(&self, environments: usize) {
        let mut account = self.shared.account();
        let room = account.used_by.len().max(environments);
        account.used_by.resize(room, 0);
    }

    /// Units reserved now.
    pub(crate) fn used(&self) -> u64 {
        self.shared.account().used
    }

    /// Requests that wait now.
    pub(crate) fn waiting(&self) -> usize {
        let account = self.shared.account();
        account.waiting.iter().filter(|waiting| !waiting.granted.is_closed()).count()
    }

    /// Reserves `units`, or all there is when that is less: the largest body must be able to pass alone.
    pub(crate) async fn reserve(&self, environment: usize, units: u64, patience: Duration) -> Result<Held, Exhausted> {
        let units = units.min(self.shared.limit);
        let turn = match self.shared.now_or_later(environment, units) {
            Ok(held) => return Ok(held),
            Err(turn) => turn,
        };
        // Dropped after the turn, however this ends: who waited behind one that gave up may fit now.
        let _next = NextTurn(&self.shared);
        // A turn that nobody awaits any more (a timeout, a client that left) drops the `Held` that it is given, if any.
        match tokio::time::timeout(patience, turn).await {
            Ok(Ok(held)) => Ok(held),
            Ok(Err(_)) | Err(_) => Err(Exhausted { used: self.used(), limit: self.shared.limit }),
        }
    }
}

impl Held {
    /// Reserves `units` more. Waits with what it has, so two that grow may stand in each other's way until one's
    /// patience ends.
    pub(crate) async fn grow(&mut self, units: u64, patience: Duration) -> Result<(), Exhausted> {
        let pool = Pool { shared: Arc::clone(&self.shared) };
        let units = units.min(self.shared.limit.saturating_sub(self.units));
        let more = pool.reserve(self.environment, units, patience).await?;
        self.units += more.give_away();
        Ok(())
    }

    /// Gives back what is above `units`.
    pub(crate) fn shrink_to(&mut self, units: u64) {
        let back = self.units.saturating_sub(units);
        self.units -= back;
        self.shared.give_back(self.environment, back);
    }

    pub(crate) fn units(&self) -> u64 {
        self.units
    }

    /// Takes `units` of it, or all there is when that is less, as a reservation of their own.
    pub(crate) fn split(&mut self, units: u64) -> Held {
        let units = units.min(self.units);
        self.units -= units;
        Held { shared: Arc::clone(&self.shared), environment: self.environment, units }
    }

    fn give_away(mut self) -> u64 {
        std::mem::take(&mut self.units)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.shared.give_back(self.environment, self.units);
    }
}

impl Drop for NextTurn<'_> {
    fn drop(&mut self) {
        self.0.grant();
    }
}

impl Shared {
    fn account(&self) -> MutexGuard<'_, Account> {
        // No code that may panic runs under the lock in a half-done state: the numbers are sound.
        self.account.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now_or_later(self: &Arc<Self>, environment: usize, units: u64) -> Result<Held, oneshot::Receiver<Held>> {
        let mut account = self.account();
        if account.waiting.is_empty() && account.fits(units, self.limit) {
            account.take(environment, units);
            drop(account);
            return Ok(Held { shared: Arc::clone(self), environment, units });
        }
        let (granted, turn) = oneshot::channel();
        account.waiting.push_back(Waiting { environment, units, granted });
        drop(account);
        // The others in the queue may all have left.
        self.grant();
        Err(turn)
    }

    fn give_back(self: &Arc<Self>, environment: usize, units: u64) {
        if units == 0 {
            return;
        }
        let mut account = self.account();
        account.used -= units;
        account.used_by[environment] -= units;
        let anybody_waits = !account.waiting.is_empty();
        drop(account);
        if anybody_waits {
            self.grant();
        }
    }

    /// Serves those who wait, as far as the memory reaches.
    fn grant(self: &Arc<Self>) {
        loop {
            let mut account = self.account();
            let Some(next) = account.take_next(self.limit) else { return };
            // A grant that nobody receives comes back through `give_back`, so the lock must be free by then.
            drop(account);
            let held = Held { shared: Arc::clone(self), environment: next.environment, units: next.units };
            drop(next.granted.send(held));
        }
    }
}

impl Account {
    fn fits(&self, units: u64, limit: u64) -> bool {
        self.used + units <= limit
    }

    fn take(&mut self, environment: usize, units: u64) {
        self.used += units;
        self.used_by[environment] += units;
    }

    /// The one whose turn it is, with its units taken; `None` when nobody waits or it does not fit yet.
    fn take_next(&mut self, limit: u64) -> Option<Waiting> {
        self.waiting.retain(|waiting| !waiting.granted.is_closed());
        let turns = self.waiting.iter().enumerate();
        // `min_by_key` keeps the first of equals: the order of arrival.
        let (place, _) = turns.min_by_key(|(_, waiting)| self.used_by[waiting.environment])?;
        if !self.fits(self.waiting[place].units, limit) {
            return None;
        }
        let next = self.waiting.remove(place)?;
        self.take(next.environment, next.units);
        Some(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(3600);
    const SHORT: Duration = Duration::from_millis(1);

    #[tokio::test]
    async fn what_is_dropped_is_free_again() {
        let pool = Pool::new(100, 1);
        let mut held = pool.reserve(0, 30, SHORT).await.unwrap();
        held.grow(50, SHORT).await.unwrap();
        assert_eq!((pool.used(), held.units()), (80, 80));
        held.shrink_to(10);
        assert_eq!(pool.used(), 10);
        drop(held);
        assert_eq!(pool.used(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_too_long_is_refused_and_leaves_nothing_behind() {
        let pool = Pool::new(100, 1);
        let held = pool.reserve(0, 90, SHORT).await.unwrap();
        let refused = pool.reserve(0, 20, SHORT).await.err().unwrap();
        assert_eq!(refused, Exhausted { used: 90, limit: 100 });
        assert_eq!(pool.waiting(), 0);
        let small = pool.reserve(0, 10, SHORT).await.unwrap();
        drop((held, small));
        assert_eq!(pool.used(), 0);
    }

    #[tokio::test]
    async fn more_than_there_is_means_all_there_is() {
        let pool = Pool::new(100, 1);
        let mut held = pool.reserve(0, 1_000, SHORT).await.unwrap();
        held.grow(1_000, SHORT).await.unwrap();
        assert_eq!(pool.used(), 100);
    }

    #[tokio::test(start_paused = true)]
    async fn the_environment_that_holds_least_is_served_first() {
        let pool = Pool::new(100, 2);
        let greedy = pool.reserve(0, 60, LONG).await.unwrap();
        let mut modest = pool.reserve(1, 40, LONG).await.unwrap();
        let spawn = |environment| {
            let pool = pool.clone();
            tokio::spawn(async move { pool.reserve(environment, 30, LONG).await })
        };
        let more_for_greedy = spawn(0);
        tokio::task::yield_now().await;
        let more_for_modest = spawn(1);
        tokio::task::yield_now().await;
        assert_eq!(pool.waiting(), 2);
        modest.shrink_to(10);
        let served = more_for_modest.await.unwrap().unwrap();
        assert!(!more_for_greedy.is_finished(), "came earlier, holds more");
        drop((served, greedy));
        more_for_greedy.await.unwrap().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_large_body_is_not_overtaken_for_ever_by_small_ones() {
        let pool = Pool::new(100, 1);
        let held = pool.reserve(0, 50, LONG).await.unwrap();
        let large = tokio::spawn({
            let pool = pool.clone();
            async move { pool.reserve(0, 80, LONG).await }
        });
        tokio::task::yield_now().await;
        assert!(pool.reserve(0, 1, SHORT).await.is_err(), "would fit, and would keep the large one waiting");
        drop(held);
        assert_eq!(large.await.unwrap().unwrap().units(), 80);
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_behind_one_that_gives_up_is_served_at_once() {
        let pool = Pool::new(100, 1);
        let _held = pool.reserve(0, 50, LONG).await.unwrap();
        let spawn = |units, patience| {
            let pool = pool.clone();
            tokio::spawn(async move { pool.reserve(0, units, patience).await.map(|_| ()) })
        };
        let large = spawn(80, SHORT);
        tokio::task::yield_now().await;
        let small = spawn(10, 2 * SHORT);
        assert!(large.await.unwrap().is_err());
        small.await.unwrap().unwrap();

        let leaves = spawn(80, LONG);
        tokio::task::yield_now().await;
        let small = spawn(10, SHORT);
        tokio::task::yield_now().await;
        leaves.abort();
        small.await.unwrap().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_grant_that_nobody_waits_for_any_more_comes_back() {
        let pool = Pool::new(100, 1);
        let held = pool.reserve(0, 100, LONG).await.unwrap();
        let leaves = tokio::spawn({
            let pool = pool.clone();
            async move { pool.reserve(0, 50, LONG).await.map(|held| held.units()) }
        });
        tokio::task::yield_now().await;
        // Granted here, and never polled again.
        drop(held);
        leaves.abort();
        let _ = leaves.await;
        tokio::task::yield_now().await;
        assert_eq!(pool.used(), 0);
    }
}
