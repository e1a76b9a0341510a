//! Waits for a fair share, and gives it back. Lanes in one gate share one whole, and have a budget each: work that is
//! over soon is not kept waiting by work that takes long, nor the other way round.
//!
//! What always holds: what is granted to a waiter that has left comes back at once, so that nothing is ever lost; all lanes
//! together never hold more than the whole; and of several places one is left for a lane that borrows, whatever the others
//! hold.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::{Amount, Asked, Demand, DemandId, FairShare, FlowId};

/// What is shared, for async code. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Gate(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    began: Instant,
    /// What a place is worth while it is held and others wait, in bytes a second.
    place_bytes_per_second: u64,
    /// No more is charged for that.
    charge_max: u64,
}

#[derive(Debug)]
struct State {
    whole: Amount,
    lanes: Vec<Lane>,
    /// The lane that is served first: they take turns, should there be fewer places than lanes.
    first: usize,
}

#[derive(Debug)]
struct Lane {
    share: FairShare,
    /// What it may hold when others want theirs.
    budget: Amount,
    /// It may hold more while they don't.
    borrows: bool,
    waiters: HashMap<DemandId, oneshot::Sender<Amount>>,
}

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Asker {
    pub(crate) flow: FlowId,
    /// At least 1.
    pub(crate) weight: u32,
}

/// What it asks for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Want {
    pub(crate) lane: usize,
    pub(crate) amount: Amount,
    /// What the same piece of work holds already.
    pub(crate) upon: Amount,
    /// What it is charged, in bytes.
    pub(crate) cost: u64,
    /// See [`Demand::doubtful`].
    pub(crate) doubtful: bool,
    /// Where there is not enough for all, so many bytes will do.
    pub(crate) bytes_least: u64,
}

/// What is had; dropping it gives it back.
#[derive(Debug)]
pub(crate) struct Held {
    gate: Gate,
    asker: Asker,
    lane: usize,
    amount: Amount,
    doubtful: bool,
    cost: u64,
    /// How long others had waited when it was had; see [`FairShare::pressures`].
    waited: [Duration; 2],
}

impl Gate {
    /// A gate without lanes that are apart: all of `whole` for everybody.
    pub(crate) fn new(whole: Amount) -> Self {
        Self::with_lanes(whole, &[(whole, true)], 0, 0)
    }

    /// A gate of several lanes: the budget of each, and whether it may hold more than that while others don't want theirs.
    /// A place that is held while others wait is charged by the second, up to `charge_max`.
    pub(crate) fn with_lanes(
        whole: Amount,
        lanes: &[(Amount, bool)],
        place_bytes_per_second: u64,
        charge_max: u64,
    ) -> Self {
        let lane = |&(budget, borrows): &(Amount, bool)| Lane {
            share: FairShare::new(budget),
            budget,
            borrows,
            waiters: HashMap::new(),
        };
        let state = Mutex::new(State { whole, lanes: lanes.iter().map(lane).collect(), first: 0 });
        Self(Arc::new(Shared { state, began: Instant::now(), place_bytes_per_second, charge_max }))
    }

    /// Changes what there is. What is held beyond it stays held.
    pub(crate) fn set_lanes(&self, whole: Amount, budgets: &[Amount]) {
        let mut state = self.lock();
        state.whole = whole;
        state.lanes.iter_mut().zip(budgets).for_each(|(lane, budget)| lane.budget = *budget);
        state.serve(self.now());
    }

    /// Waits for its turn.
    pub(crate) async fn take(&self, asker: Asker, want: Want) -> Held {
        match self.ask(asker, want).await {
            Ok(held) => held,
            Err(turn) => turn.come().await,
        }
    }

    /// The same, for as long as `patience` lasts.
    pub(crate) async fn take_within(&self, asker: Asker, want: Want, patience: Duration) -> Option<Held> {
        match self.ask(asker, want).await {
            Ok(held) => Some(held),
            Err(turn) => tokio::time::timeout(patience, turn.come()).await.ok(),
        }
    }

    /// What is held, in all lanes.
    pub(crate) fn used(&self) -> Amount {
        self.lock().used()
    }

    /// What there is.
    pub(crate) fn whole(&self) -> Amount {
        self.lock().whole
    }

    /// Who waits, in all lanes.
    pub(crate) fn waiting(&self) -> usize {
        self.lock().lanes.iter().map(|lane| lane.share.waiting()).sum()
    }

    /// Had at once, or a turn that is to come. What is beyond a share is given out only once whoever can run has asked for
    /// some: else who is polled first would have it all. (A thread that waits for its turn at heavy work yields to nobody; there the
    /// order is kept by what each has had.)
    async fn ask(&self, asker: Asker, want: Want) -> Result<Held, Turn> {
        let asked = self.line_up(asker, want);
        if asked.as_ref().is_err_and(|turn| turn.beyond) {
            // Whoever gives back meanwhile, or leaves, serves all the same: should it not come back, it keeps nobody.
            tokio::task::yield_now().await;
            self.lock().serve(self.now());
        }
        asked
    }

    fn line_up(&self, asker: Asker, want: Want) -> Result<Held, Turn> {
        let Want { lane, amount, upon, cost, doubtful, bytes_least } = want;
        let mut held = Held {
            gate: self.clone(),
            asker,
            lane,
            amount: Amount::default(),
            doubtful,
            cost,
            waited: Default::default(),
        };
        if amount == Amount::default() {
            return Ok(held);
        }
        let now = self.now();
        let mut state = self.lock();
        state.spread(lane);
        let Lane { share, waiters, .. } = &mut state.lanes[lane];
        held.waited = share.pressures(now);
        let Asker { flow, weight } = asker;
        let mut demand = Demand { flow, weight, amount, upon, cost, doubtful };
        if share.is_short() || !share.has_room(amount) {
            // Smaller batches for all instead of large ones for some.
            let bytes = share.share(flow, weight).bytes.max(bytes_least);
            if bytes < amount.bytes {
                (demand.amount.bytes, demand.cost) = (bytes, cost.min(bytes));
            }
        }
        match share.ask(demand, now) {
            Asked::Granted(amount) => {
                held.amount = amount;
                Ok(held)
            }
            Asked::Waits(id) => {
                let (granted, turn) = oneshot::channel();
                waiters.insert(id, granted);
                let beyond = share.waits_beyond(flow);
                if !beyond {
                    // It may be the first of those who are within their share.
                    state.serve(now);
                }
                Err(Turn { id, turn, held: Some(held), beyond })
            }
        }
    }

    fn now(&self) -> Duration {
        self.0.began.elapsed()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that can panic runs under this lock in a half-done state.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn used(&self) -> Amount {
        self.lanes.iter().fold(Amount::default(), |used, lane| used + lane.share.used())
    }

    /// Tells a lane what it may hold now.
    fn spread(&mut self, at: usize) {
        let (mut held, mut lent, mut wanted) = (Amount::default(), 0, Amount::default());
        for other in self.lanes.iter().enumerate().filter(|(other, _)| *other != at).map(|(_, lane)| lane) {
            held += other.share.used();
            lent += if other.borrows { 0 } else { other.share.used().places };
            wanted += other.wanted();
        }
        let lane = &mut self.lanes[at];
        let mut free = self.whole.without(held);
        if lane.borrows {
            // Others' budgets have a place at least, which may add up to all there are. Nor may it look as if there were none
            // at all: then nothing would be all there is, and had without waiting.
            let one = |amount: Amount| Amount { places: amount.places.max(1), ..amount };
            let bound = one(self.whole.without(wanted));
            // What is borrowed is what nobody has.
            lane.share.set_capacity(one(bound.min(free)), bound.min(free));
        } else {
            if self.whole.places > 1 {
                free.places = free.places.min((self.whole.places - 1).saturating_sub(lent));
            }
            // What is its own it waits for: less would be less than the work takes.
            lane.share.set_capacity(lane.budget, lane.budget.min(free));
        }
    }

    /// Grants whatever may be granted.
    fn serve(&mut self, now: Duration) {
        if self.lanes.iter().all(|lane| lane.share.waiting() == 0) {
            return;
        }
        let (lanes, first) = (self.lanes.len(), self.first);
        for at in (0..lanes).map(|step| (first + step) % lanes) {
            // What the one before was granted is gone.
            self.spread(at);
            let lane = &mut self.lanes[at];
            while let Some((id, amount)) = lane.share.next(now) {
                let waiter = lane.waiters.remove(&id).expect("who waits is known");
                // Who has left gives it back by itself, as soon as the lock is free.
                let _ = waiter.send(amount);
                self.first = (at + 1) % lanes;
            }
        }
    }
}

impl Lane {
    /// What is its own, if it wants any of it.
    fn wanted(&self) -> Amount {
        if self.share.is_idle() { Amount::default() } else { self.budget }
    }
}

/// A turn that is to come. Dropped before, it is given up.
struct Turn {
    id: DemandId,
    turn: oneshot::Receiver<Amount>,
    /// What will be had, as yet nothing.
    held: Option<Held>,
    /// It came to wait beyond its share.
    beyond: bool,
}

impl Turn {
    async fn come(mut self) -> Held {
        let amount = (&mut self.turn).await.expect("a gate forgets no waiter");
        let mut held = self.held.take().expect("it comes once");
        held.amount = amount;
        held.begin();
        held
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let Some(mut held) = self.held.take() else { return };
        let gate = held.gate.clone();
        let mut state = gate.lock();
        let now = gate.now();
        let lane = &mut state.lanes[held.lane];
        if lane.share.withdraw(held.asker.flow, self.id, now) {
            lane.waiters.remove(&self.id);
            // Who waited behind it may be next.
            state.serve(now);
        } else {
            // Granted, and not received.
            held.amount = self.turn.try_recv().unwrap_or_default();
        }
        drop(state);
        held.begin();
        drop(held);
    }
}

impl Held {
    /// What it is.
    pub(crate) fn amount(&self) -> Amount {
        self.amount
    }

    /// What it is of.
    pub(crate) fn lane(&self) -> usize {
        self.lane
    }

    /// For how long others have waited within their share since it was had.
    pub(crate) fn pressed(&self) -> Duration {
        let now = self.gate.now();
        self.gate.lock().lanes[self.lane].share.pressures(now)[0].saturating_sub(self.waited[0])
    }

    /// It is had: from now on others wait for it.
    fn begin(&mut self) {
        let now = self.gate.now();
        self.waited = self.gate.lock().lanes[self.lane].share.pressures(now);
    }

    /// Gives back all bytes above these. Never takes more.
    pub(crate) fn shrink_to(&mut self, bytes: u64) {
        self.give_back(Amount::bytes(self.amount.bytes.saturating_sub(bytes)));
    }

    /// Takes so many bytes of it, or all there are, as something that is had on its own.
    pub(crate) fn split(&mut self, bytes: u64) -> Held {
        let amount = Amount::bytes(bytes.min(self.amount.bytes));
        self.amount -= amount;
        Held {
            gate: self.gate.clone(),
            asker: self.asker,
            lane: self.lane,
            amount,
            doubtful: self.doubtful,
            cost: self.cost,
            waited: self.waited,
        }
    }

    /// Makes one of two that the same asker has of the same gate.
    pub(crate) fn join(&mut self, mut other: Held) {
        self.amount += std::mem::take(&mut other.amount);
    }

    fn give_back(&mut self, amount: Amount) {
        if amount == Amount::default() {
            return;
        }
        self.amount -= amount;
        let now = self.gate.now();
        let mut state = self.gate.lock();
        state.lanes[self.lane].share.give_back(self.asker.flow, amount, self.doubtful);
        state.serve(now);
    }

    /// What it is charged for having been held while others waited for so long, beyond what it was charged at first.
    fn overtime(&self, waited: Duration) -> u64 {
        let shared = &*self.gate.0;
        let worth =
            waited.as_millis() * u128::from(shared.place_bytes_per_second) / 1000 * u128::from(self.amount.places);
        u64::try_from(worth).unwrap_or(u64::MAX).saturating_sub(self.cost).min(shared.charge_max)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if self.amount == Amount::default() {
            return;
        }
        let (gate, now) = (self.gate.clone(), self.gate.now());
        let mut state = gate.lock();
        let share = &mut state.lanes[self.lane].share;
        let [within, beyond] = share.pressures(now);
        let overtime = self.overtime(within.saturating_sub(self.waited[0]));
        if overtime > 0 {
            share.charge(self.asker.flow, overtime);
        }
        let overtime = self.overtime(beyond.saturating_sub(self.waited[1]));
        if overtime > 0 {
            share.charge_beyond(self.asker.flow, overtime);
        }
        share.give_back(self.asker.flow, self.amount, self.doubtful);
        state.serve(now);
    }
}
