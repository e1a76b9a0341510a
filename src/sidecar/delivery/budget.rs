//! What all destinations share: requests in flight, memory for batches, and turns at heavy work. To each by its weight
//! (`fair_share`); work that takes long has a budget of its own.
//!
//! What always holds: whoever holds a part of the budget can finish without asking for more memory or requests, so
//! waiting never becomes a deadlock; and one that hangs holds its own share, and keeps nobody out.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::patience::OTHERS_WAIT_MAX;
use crate::fair_share::Amount;
use crate::fair_share::gate::{Asker, Gate, Held, Want};

/// What a batch may take while it is encoded, per stored byte: the stored bytes themselves and their JSON, which
/// repeats the field names in every record and is about three times as long.
pub const ENCODING_FACTOR: u64 = 4;

/// A batch that wants more than this part of the memory is bulk work, whatever its sink.
const LIVE_PART: u64 = 8;

/// However small batches are to be as stored, what they are encoded to may take so much.
const ENCODED_BYTES_LEAST: u64 = 4 << 20;

/// Where memory is short batches are not made smaller than this: a request costs about as much as 64 KiB of records.
pub(super) const BATCH_BYTES_LEAST: u64 = 64 << 10;
const BYTES_LEAST: u64 = BATCH_BYTES_LEAST * ENCODING_FACTOR;

/// A request that is held from others for a second is charged like so many bytes: at a tenth of a second for an answer,
/// what 100 KiB take.
const REQUEST_BYTES_PER_SECOND: u64 = 1 << 20;

/// No more is charged for one request that hung: its destination is not to be behind for ever.
const REQUEST_CHARGE_MAX: u64 = 4 << 20;

/// Reading and encoding takes so many bytes a second at least.
const TURN_BYTES_PER_SECOND: u64 = 100 << 20;

/// What one turn of a batch that is read as it is sent is charged: a part.
const PART_BYTES: u64 = 8 << 20;

/// The lanes of the budget.
const LIVE: usize = 0;
const BULK: usize = 1;
/// Bulk work of destinations that fail.
const DOUBTED: usize = 2;
/// Bulk work that takes long while others wait.
const SLOW: usize = 3;

/// How much of everything there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BudgetLimits {
    /// Requests in flight over all destinations.
    pub requests_max: usize,
    /// Memory of all batches being read, encoded or sent.
    pub bytes_max: u64,
    /// What of both bulk work may hold, in percent; while there is any, so much is kept for it.
    pub bulk_percent: u32,
    /// Batches being read from disk or encoded off the async workers at once.
    pub heavy_max: usize,
}

impl Default for BudgetLimits {
    /// 1,024 requests and 64 MiB of batches, half of it for bulk work, as in the configuration. As many turns at heavy
    /// work as there are processors: more would take CPU from ingest, and the disk reads ahead anyway.
    fn default() -> Self {
        let processors = std::thread::available_parallelism().map_or(2, |n| n.get());
        Self { requests_max: 1024, bytes_max: 64 << 20, bulk_percent: 50, heavy_max: processors.max(2) }
    }
}

/// The shared budget. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Budget {
    requests: Gate,
    heavy: Gate,
    flows: Arc<AtomicU32>,
}

/// One who shares the budget: a destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sharer(Asker);

/// A batch that asks for its part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Asking {
    pub(super) sharer: Sharer,
    /// Its destination fails: it may hold what it gets for long, and to no use. All those together get half, and of bulk
    /// work a part of their own: one object may be all that fits.
    pub(super) failing: bool,
    /// Its large batches take long: they wait for each other, and nobody else for them.
    pub(super) slow: bool,
}

impl Budget {
    /// A budget of which nothing is taken. Limits of 0 are taken as 1.
    #[must_use]
    pub fn new(limits: BudgetLimits) -> Self {
        let whole = Amount { places: limits.requests_max.max(1) as u64, bytes: limits.bytes_max.max(1) };
        let [live, bulk, doubted, slow] = budgets(whole, limits.bulk_percent);
        let lanes = [(live, true), (bulk, false), (doubted, false), (slow, false)];
        let turns = Amount { places: limits.heavy_max.max(1) as u64, bytes: u64::MAX };
        Self {
            requests: Gate::with_lanes(whole, &lanes, REQUEST_BYTES_PER_SECOND, REQUEST_CHARGE_MAX),
            heavy: Gate::with_lanes(turns, &[(turns, true)], TURN_BYTES_PER_SECOND, PART_BYTES),
            flows: Arc::default(),
        }
    }

    /// Another part for bulk work from now on. What is held beyond it is held until it is given back.
    pub fn set_bulk_percent(&self, percent: u32) {
        let whole = self.requests.whole();
        self.requests.set_lanes(whole, &budgets(whole, percent));
    }

    /// One more to share it with.
    #[must_use]
    pub fn sharer(&self, weight: u32) -> Sharer {
        Sharer(Asker { flow: self.flows.fetch_add(1, Ordering::Relaxed), weight: weight.max(1) })
    }

    /// Waits for one request and `bytes` of memory; for less where memory is short. More than there is counts as all
    /// there is.
    pub(super) async fn grant(&self, asking: Asking, bytes: u64) -> Grant {
        self.take(asking, self.lane_of(bytes), bytes, BYTES_LEAST).await
    }

    /// The same, of no less: for a batch that can't be made smaller.
    pub(super) async fn grant_whole(&self, asking: Asking, bytes: u64) -> Grant {
        self.take(asking, self.lane_of(bytes), bytes, u64::MAX).await
    }

    /// The same for work that holds its part for long, and needs all of it: all of that together never holds more than
    /// bulk's part, so that short work always finds some.
    pub(super) async fn grant_bulk(&self, asking: Asking, bytes: u64) -> Grant {
        self.take(asking, BULK, bytes, u64::MAX).await
    }

    fn lane_of(&self, bytes: u64) -> usize {
        if bytes > self.requests.whole().bytes / LIVE_PART { BULK } else { LIVE }
    }

    async fn take(&self, asking: Asking, lane: usize, bytes: u64, bytes_least: u64) -> Grant {
        let Asking { sharer, failing, slow } = asking;
        let (lane, doubtful) = match lane {
            BULK if slow => (SLOW, false),
            BULK if failing => (DOUBTED, false),
            lane => (lane, failing),
        };
        let amount = Amount::place(bytes.max(1));
        let want = Want { lane, amount, upon: Amount::default(), cost: bytes, doubtful, bytes_least };
        Grant(Box::new(self.requests.take(sharer.0, want).await))
    }

    /// Waits for a turn at heavy work on so many bytes.
    pub(super) async fn heavy(&self, sharer: Sharer, bytes: u64) -> Turn {
        turn(&self.heavy, sharer, bytes).await
    }

    /// The turns at heavy work, for who needs nothing else of the budget.
    #[must_use]
    pub fn turns(&self, sharer: Sharer) -> Turns {
        Turns(Some((self.heavy.clone(), sharer)))
    }

    /// How much memory a batch may take while it is encoded: what its size allows, twice over, since usual records come to
    /// six times what they are as stored; and no more than there is.
    pub(super) fn encoded_bytes_max(&self, batch_bytes_max: u64) -> u64 {
        let wanted = batch_bytes_max.saturating_mul(ENCODING_FACTOR).max(ENCODED_BYTES_LEAST).saturating_mul(2);
        wanted.min(self.bytes_max())
    }

    /// All the memory that there is to share, in bytes.
    pub(super) fn bytes_max(&self) -> u64 {
        self.requests.whole().bytes
    }

    /// Requests that may start now.
    #[must_use]
    pub fn free_requests(&self) -> usize {
        self.requests.whole().without(self.requests.used()).places as usize
    }

    /// Memory that is free now, in bytes.
    #[must_use]
    pub fn free_bytes(&self) -> u64 {
        self.requests.whole().without(self.requests.used()).bytes
    }

    /// Batches that wait for a request or for memory now.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.requests.waiting()
    }
}

/// What each lane may hold when others want theirs: live work all of it, bulk work its part. What fails and is bulk has half
/// as much, but half of live work's part at most, and what is slow half of that.
fn budgets(whole: Amount, bulk_percent: u32) -> [Amount; 4] {
    let some = |amount: Amount| Amount { places: amount.places.max(1), bytes: amount.bytes.max(1) };
    let bulk = some(whole.part(u64::from(bulk_percent.min(100)), 100));
    let doubted = some(bulk.part(1, 2).min(whole.without(bulk).part(1, 2)));
    [whole, bulk, doubted, some(doubted.part(1, 2))]
}

/// One request's part of the budget; dropping it gives it back.
#[derive(Debug)]
pub(super) struct Grant(Box<Held>);

impl Grant {
    /// The memory of it.
    pub(super) fn bytes(&self) -> u64 {
        self.0.amount().bytes
    }

    /// Ends when others have waited for this for [`OTHERS_WAIT_MAX`] since it was had. Never for what only such wait for
    /// who take as long.
    pub(super) async fn outstayed(&self) {
        if self.0.lane() == SLOW {
            return std::future::pending().await;
        }
        while let Some(left) = OTHERS_WAIT_MAX.checked_sub(self.0.pressed()).filter(|left| !left.is_zero()) {
            tokio::time::sleep(left).await;
        }
    }

    /// Gives back all memory above `bytes`. Never takes more.
    pub(super) fn shrink(&mut self, bytes: u64) {
        self.0.shrink_to(bytes);
    }
}

/// Turns at heavy work. Without a budget behind them everybody has one.
#[derive(Debug, Clone, Default)]
pub struct Turns(Option<(Gate, Sharer)>);

impl Turns {
    /// Waits for one, for a part of a batch. Hold it for milliseconds: others wait for theirs.
    pub async fn turn(&self) -> Option<Turn> {
        self.turn_of(PART_BYTES).await
    }

    /// The same for work on so many bytes.
    pub async fn turn_of(&self, bytes: u64) -> Option<Turn> {
        let (heavy, sharer) = self.0.as_ref()?;
        Some(turn(heavy, *sharer, bytes).await)
    }
}

/// A turn at heavy work; dropping it lets the next one in.
#[derive(Debug)]
pub struct Turn(#[expect(dead_code, reason = "held for its drop")] Held);

async fn turn(heavy: &Gate, sharer: Sharer, bytes: u64) -> Turn {
    let (amount, upon) = (Amount::place(0), Amount::default());
    let want = Want { lane: 0, amount, upon, cost: bytes, doubtful: false, bytes_least: 0 };
    Turn(heavy.take(sharer.0, want).await)
}

#[cfg(test)]
mod tests;
