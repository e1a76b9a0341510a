//! A bounded good that environments share: the memory of bodies, the threads that parse, what waits for the disk. A
//! reservation is had at once, waits its turn, or is refused. Counts units; knows not of what.
//!
//! What always holds: reservations together never pass the limit. When it is short only those wait that would hold more
//! than their fair share ([`fair_share`](crate::fair_share)): a part is kept for who holds nothing yet, so that one that
//! posts more than there is room for is refused, and nobody else.

use std::time::Duration;

use thiserror::Error;

use crate::fair_share::gate::{Asker, Gate, Held as Share, Want};
use crate::fair_share::{Amount, RESERVE};

/// The good and who has it. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Pool {
    gate: Gate,
    limit: u64,
}

/// A reservation; dropping it gives the units back.
pub(crate) struct Held {
    share: Share,
    pool: Pool,
    environment: usize,
}

/// Nothing came free in time.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("{used} of {limit} are taken")]
pub(crate) struct Exhausted {
    used: u64,
    limit: u64,
}

impl Pool {
    /// So many units.
    pub(crate) fn new(limit: u64) -> Self {
        Self { gate: Gate::new(Amount { places: u64::MAX, bytes: limit.max(1) }), limit: limit.max(1) }
    }

    /// Units reserved now.
    pub(crate) fn used(&self) -> u64 {
        self.gate.used().bytes
    }

    /// Requests that wait now.
    pub(crate) fn waiting(&self) -> usize {
        self.gate.waiting()
    }

    /// Reserves `units`, or as many as one may have when that is less: the largest body must be able to pass alone, and
    /// leaves room for small ones.
    pub(crate) async fn reserve(&self, environment: usize, units: u64, patience: Duration) -> Result<Held, Exhausted> {
        self.reserve_for(environment, units, units, patience).await
    }

    /// Reserves `units` for work that costs so much: who waits is served by that.
    pub(crate) async fn reserve_for(
        &self,
        environment: usize,
        units: u64,
        cost: u64,
        patience: Duration,
    ) -> Result<Held, Exhausted> {
        let share = self.take(environment, units.min(self.most()), 0, cost, patience).await?;
        Ok(Held { share, pool: self.clone(), environment })
    }

    async fn take(
        &self,
        environment: usize,
        units: u64,
        upon: u64,
        cost: u64,
        patience: Duration,
    ) -> Result<Share, Exhausted> {
        let flow = u32::try_from(environment).unwrap_or(u32::MAX);
        let (amount, upon) = (Amount::bytes(units), Amount::bytes(upon));
        let want = Want { lane: 0, amount, upon, cost, doubtful: false, bytes_least: u64::MAX };
        let share = self.gate.take_within(Asker { flow, weight: 1 }, want, patience).await;
        share.ok_or_else(|| Exhausted { used: self.used(), limit: self.limit })
    }

    /// As many as one may have: besides what is kept for others, as much is left for who sent it.
    fn most(&self) -> u64 {
        self.limit - 2 * (self.limit / RESERVE)
    }
}

impl Held {
    /// Reserves `units` more. Waits with what it has, so two that grow may stand in each other's way until one's
    /// patience ends.
    pub(crate) async fn grow(&mut self, units: u64, patience: Duration) -> Result<(), Exhausted> {
        let held = self.units();
        let units = units.min(self.pool.most().saturating_sub(held));
        let more = self.pool.take(self.environment, units, held, units, patience).await?;
        self.share.join(more);
        Ok(())
    }

    /// Gives back what is above `units`.
    pub(crate) fn shrink_to(&mut self, units: u64) {
        self.share.shrink_to(units);
    }

    pub(crate) fn units(&self) -> u64 {
        self.share.amount().bytes
    }

    /// Takes `units` of it, or all there is when that is less, as a reservation of their own.
    pub(crate) fn split(&mut self, units: u64) -> Held {
        Held { share: self.share.split(units), pool: self.pool.clone(), environment: self.environment }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(3600);
    const SHORT: Duration = Duration::from_millis(1);

    #[tokio::test]
    async fn what_is_dropped_is_free_again() {
        let pool = Pool::new(100);
        let mut held = pool.reserve(0, 30, SHORT).await.unwrap();
        held.grow(40, SHORT).await.unwrap();
        assert_eq!((pool.used(), held.units()), (70, 70));
        held.shrink_to(10);
        assert_eq!(pool.used(), 10);
        drop(held);
        assert_eq!(pool.used(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_too_long_is_refused_and_leaves_nothing_behind() {
        let pool = Pool::new(100);
        let held = pool.reserve(0, 76, SHORT).await.unwrap();
        let refused = pool.reserve(0, 20, SHORT).await.err().unwrap();
        assert_eq!(refused, Exhausted { used: 76, limit: 100 });
        assert_eq!(pool.waiting(), 0);
        let small = pool.reserve(0, 7, SHORT).await.unwrap();
        drop((held, small));
        assert_eq!(pool.used(), 0);
    }

    #[tokio::test]
    async fn more_than_there_is_means_all_there_is() {
        let pool = Pool::new(100);
        let mut held = pool.reserve(0, 1_000, SHORT).await.unwrap();
        held.grow(1_000, SHORT).await.unwrap();
        assert_eq!(pool.used(), 76, "two eighths are left");
    }

    #[tokio::test(start_paused = true)]
    async fn the_environment_that_holds_its_share_is_served_after_one_that_holds_less() {
        let pool = Pool::new(100);
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

    /// Ten times as much as there is room for, in the largest bodies there are.
    #[tokio::test(start_paused = true)]
    async fn an_environment_that_floods_waits_and_is_refused_and_no_other_notices() {
        let pool = Pool::new(100);
        let mut flood = tokio::task::JoinSet::new();
        for _ in 0..10 {
            let pool = pool.clone();
            flood.spawn(
                async move { pool.reserve(0, 100, 5 * SHORT).await.map(|held| Box::leak(Box::new(held)).units()) },
            );
        }
        tokio::task::yield_now().await;
        for environment in 1..50 {
            let held = pool.reserve(environment, 2, Duration::ZERO).await.unwrap();
            assert_eq!(held.units(), 2);
        }
        let had = flood.join_all().await;
        assert_eq!(had.iter().filter(|had| had.is_ok()).count(), 1, "one fits");
        assert_eq!(pool.waiting(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_large_body_is_not_overtaken_for_ever_by_small_ones() {
        let pool = Pool::new(100);
        let held = pool.reserve(0, 50, LONG).await.unwrap();
        let large = tokio::spawn({
            let pool = pool.clone();
            async move { pool.reserve(0, 70, LONG).await }
        });
        tokio::task::yield_now().await;
        assert!(pool.reserve(0, 1, SHORT).await.is_err(), "would fit, and would keep the large one waiting");
        drop(held);
        assert_eq!(large.await.unwrap().unwrap().units(), 70);
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_behind_one_that_gives_up_is_served_at_once() {
        let pool = Pool::new(100);
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
        let pool = Pool::new(100);
        let held = pool.reserve(0, 76, LONG).await.unwrap();
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
