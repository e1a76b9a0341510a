//! What all destinations share: requests in flight, memory for batches, and turns at heavy work. Fair by being first
//! come, first served; a destination holds only what its own concurrency allows.
//!
//! What always holds: whoever holds a part of the budget can finish without asking for more memory or requests, so
//! waiting never becomes a deadlock.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Memory is counted in units of this many bytes, so that a semaphore's count suffices for any machine.
const UNIT_BYTES: u64 = 1024;

/// What a batch may take while it is encoded, per stored byte: the stored bytes themselves and their JSON, which
/// repeats the field names in every record and is about three times as long.
pub const ENCODING_FACTOR: u64 = 4;

/// How much of everything there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BudgetLimits {
    /// Requests in flight over all destinations.
    pub requests_max: usize,
    /// Memory of all batches being read, encoded or sent.
    pub bytes_max: u64,
    /// Batches being read from disk or encoded off the async workers at once.
    pub heavy_max: usize,
}

impl Default for BudgetLimits {
    /// 256 requests and 64 MiB of batches, as in the configuration. As many turns at heavy work as there are
    /// processors: more would take CPU from ingest, and the disk reads ahead anyway.
    fn default() -> Self {
        let processors = std::thread::available_parallelism().map_or(2, |n| n.get());
        Self { requests_max: 256, bytes_max: 64 << 20, heavy_max: processors.max(2) }
    }
}

/// The shared budget. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Budget {
    requests: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
    heavy: Arc<Semaphore>,
    units_max: u32,
    /// The half of it that bulk work may hold.
    bulk: Arc<Semaphore>,
    bulk_units_max: u32,
}

impl Budget {
    /// A budget of which nothing is taken. Limits of 0 are taken as 1.
    #[must_use]
    pub fn new(limits: BudgetLimits) -> Self {
        let units_max = u32::try_from(limits.bytes_max / UNIT_BYTES).unwrap_or(u32::MAX).max(1);
        let permits = |n: usize| Arc::new(Semaphore::new(n.clamp(1, Semaphore::MAX_PERMITS)));
        Self {
            requests: permits(limits.requests_max),
            bytes: permits(units_max as usize),
            heavy: permits(limits.heavy_max),
            units_max,
            bulk: permits(units_max as usize / 2),
            bulk_units_max: (units_max / 2).max(1),
        }
    }

    /// Waits for one request and `bytes` of memory. More memory than there is counts as all there is.
    pub async fn grant(&self, bytes: u64) -> Grant {
        let request = acquire(&self.requests, 1).await;
        let bytes = acquire(&self.bytes, units(bytes).min(self.units_max)).await;
        Grant { _request: request, bytes, bulk: None }
    }

    /// The same for work that holds its part for long: all of that together never holds more than half of the memory,
    /// so that short work always finds some.
    pub async fn grant_bulk(&self, bytes: u64) -> Grant {
        let units = units(bytes).min(self.bulk_units_max);
        // In this order: who waits for bulk's half holds nothing that others need.
        let bulk = acquire(&self.bulk, units).await;
        let request = acquire(&self.requests, 1).await;
        let bytes = acquire(&self.bytes, units).await;
        Grant { _request: request, bytes, bulk: Some(bulk) }
    }

    /// Waits for a turn at heavy work.
    pub async fn heavy(&self) -> Turn {
        Turn(acquire(&self.heavy, 1).await)
    }

    /// The turns at heavy work, for who needs nothing else of the budget.
    #[must_use]
    pub fn turns(&self) -> Turns {
        Turns(Some(Arc::clone(&self.heavy)))
    }

    /// Requests in flight now.
    #[must_use]
    pub fn free_requests(&self) -> usize {
        self.requests.available_permits()
    }

    /// Memory that is free now, in bytes.
    #[must_use]
    pub fn free_bytes(&self) -> u64 {
        self.bytes.available_permits() as u64 * UNIT_BYTES
    }
}

/// One request's part of the budget; dropping it gives it back.
#[derive(Debug)]
pub struct Grant {
    _request: OwnedSemaphorePermit,
    bytes: OwnedSemaphorePermit,
    bulk: Option<OwnedSemaphorePermit>,
}

impl Grant {
    /// Gives back all memory above `bytes`. Never takes more.
    pub fn shrink(&mut self, bytes: u64) {
        for permit in [Some(&mut self.bytes), self.bulk.as_mut()].into_iter().flatten() {
            let surplus = permit.num_permits().saturating_sub(units(bytes) as usize);
            drop(permit.split(surplus));
        }
    }
}

/// Turns at heavy work. Without a budget behind them everybody has one.
#[derive(Debug, Clone, Default)]
pub struct Turns(Option<Arc<Semaphore>>);

impl Turns {
    /// Waits for one. Hold it for milliseconds: others wait for theirs.
    pub async fn turn(&self) -> Option<Turn> {
        match &self.0 {
            Some(heavy) => Some(Turn(acquire(heavy, 1).await)),
            None => None,
        }
    }
}

/// A turn at heavy work; dropping it lets the next one in.
#[derive(Debug)]
pub struct Turn(#[expect(dead_code, reason = "held for its drop")] OwnedSemaphorePermit);

fn units(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX).max(1)
}

async fn acquire(semaphore: &Arc<Semaphore>, n: u32) -> OwnedSemaphorePermit {
    Arc::clone(semaphore).acquire_many_owned(n).await.expect("budgets are never closed")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget() -> Budget {
        Budget::new(BudgetLimits { requests_max: 2, bytes_max: 10 * UNIT_BYTES, heavy_max: 1 })
    }

    #[tokio::test]
    async fn what_is_granted_is_missing_until_it_is_dropped() {
        let budget = budget();
        let mut grant = budget.grant(4 * UNIT_BYTES).await;
        assert_eq!((budget.free_requests(), budget.free_bytes()), (1, 6 * UNIT_BYTES));
        grant.shrink(UNIT_BYTES + 1);
        assert_eq!(budget.free_bytes(), 8 * UNIT_BYTES, "rounded up to two units");
        grant.shrink(9 * UNIT_BYTES);
        assert_eq!(budget.free_bytes(), 8 * UNIT_BYTES, "shrinking never grows");
        drop(grant);
        assert_eq!((budget.free_requests(), budget.free_bytes()), (2, 10 * UNIT_BYTES));
    }

    #[tokio::test]
    async fn a_batch_larger_than_the_budget_waits_for_all_of_it_and_goes() {
        let budget = budget();
        let _grant = budget.grant(u64::MAX).await;
        assert_eq!(budget.free_bytes(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn bulk_work_never_holds_more_than_half_of_the_memory() {
        let budget = budget();
        let mut first = budget.grant_bulk(4 * UNIT_BYTES).await;
        let second = tokio::spawn({
            let budget = budget.clone();
            async move { budget.grant_bulk(100 * UNIT_BYTES).await }
        });
        tokio::task::yield_now().await;
        assert!(!second.is_finished());
        assert_eq!(budget.free_requests(), 1, "who waits holds no request");
        let _live = budget.grant(5 * UNIT_BYTES).await;
        first.shrink(UNIT_BYTES);
        tokio::task::yield_now().await;
        assert!(!second.is_finished(), "one unit of bulk's five is taken");
        drop(first);
        let second = second.await.unwrap();
        assert_eq!(budget.free_bytes(), 0, "all of its half, and five for the live one");
        drop(second);
        assert_eq!(budget.free_bytes(), 5 * UNIT_BYTES);
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_much_is_not_overtaken_by_who_wants_little() {
        let budget = budget();
        let first = budget.grant(5 * UNIT_BYTES).await;
        let large = tokio::spawn({
            let budget = budget.clone();
            async move { budget.grant(8 * UNIT_BYTES).await }
        });
        tokio::task::yield_now().await;
        let small = tokio::spawn({
            let budget = budget.clone();
            async move { budget.grant(UNIT_BYTES).await }
        });
        tokio::task::yield_now().await;
        assert!(!small.is_finished(), "there is room for it, but it came later");
        drop(first);
        let large = large.await.unwrap();
        drop(large);
        small.await.unwrap();
    }
}
