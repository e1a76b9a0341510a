//! Who is next, and who may take how much, where many share what is limited: requests, memory, threads. Weighted fair
//! queueing. Pure; [`gate`] waits with it.
//!
//! What always holds:
//! - What is held together never passes the capacity.
//! - Of those who wait within their share nobody falls behind what the ideal [`Fluid`] would have given by more than one
//!   largest demand, whatever arrives, ends, or never ends. Who is one too many of those that may be of no use stands
//!   aside meanwhile: the fluid passes it by, and flows to it from the moment on at which it lines up again.
//! - Those that may be of no use hold half at most, or are a single one. None of them is granted anything before one that
//!   came before it, is within its share, and has stood aside because they were too many: small ones for which there is
//!   always room don't keep out a large one. So they wait for whatever that one waits for, if need be until one that hangs
//!   has come to its end.
//! - While others wait within their share nobody is given more than its own (one demand at a time is everybody's). What
//!   nobody wants goes to who can use it, to who has had least first, except for a part that is kept for who comes next: so
//!   one that holds all it could get, and never gives it back, keeps nobody out.
//! - Who holds nothing and waits for nothing costs nothing.

mod amount;
mod beyond;
mod doubted;
mod flow;
mod fluid;
pub(crate) mod gate;
mod pressure;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use forebay::mutants::{self, Mutant};

pub(crate) use amount::Amount;
use beyond::Had;
use flow::{Flow, Line, Place, Waiting};
pub(crate) use fluid::FlowId;
use fluid::{Fluid, span};
use pressure::Pressure;

/// This part of the capacity is kept for those who hold less than their share.
pub(crate) const RESERVE: u64 = 8;

/// What is wanted by whom.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Demand {
    pub(crate) flow: FlowId,
    /// Of two that both want more, one of twice the weight gets twice as much. At least 1, and always the same: who is to
    /// have another comes as another flow.
    pub(crate) weight: u32,
    pub(crate) amount: Amount,
    /// What the same piece of work holds already.
    pub(crate) upon: Amount,
    /// What it is charged, in bytes.
    pub(crate) cost: u64,
    /// It may well hold what it gets for long, and to no use: all such together get half at most.
    pub(crate) doubtful: bool,
}

/// Names a demand that waits.
pub(crate) type DemandId = u64;

/// What became of a demand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    /// It is had: all of it, or all there is if that is less.
    Granted(Amount),
    /// It waits under this name.
    Waits(DemandId),
}

/// What a step came to.
enum Step {
    Granted(DemandId, Amount),
    /// Who was first stands aside.
    SetAside,
    Nothing,
}

/// What is shared, who has it and who waits.
#[derive(Debug)]
pub(crate) struct FairShare {
    capacity: Amount,
    /// What may be held of it now: others that share the whole may hold some.
    free: Amount,
    used: Amount,
    /// What of it may be of no use.
    doubtful: Amount,
    flows: HashMap<FlowId, Flow>,
    /// The weights of all who hold something or wait.
    present: u64,
    fluid: Fluid,
    had: Had,
    lines: [BTreeMap<Place, FlowId>; 3],
    /// Those that may be of no use, stood aside, and have lined up again: it is their turn.
    called: BTreeSet<DemandId>,
    last_id: DemandId,
    waiting: usize,
    /// For how long somebody has waited within its share.
    pressure: Pressure,
    /// The same of those beyond theirs, too.
    rush: Pressure,
}

impl FairShare {
    /// So much to share, of which nobody has anything.
    pub(crate) fn new(capacity: Amount) -> Self {
        Self {
            capacity,
            free: capacity,
            used: Amount::default(),
            doubtful: Amount::default(),
            flows: HashMap::new(),
            present: 0,
            fluid: Fluid::default(),
            had: Had::default(),
            lines: Default::default(),
            called: BTreeSet::new(),
            last_id: 0,
            waiting: 0,
            pressure: Pressure::default(),
            rush: Pressure::default(),
        }
    }

    /// What there is to share from now on, and what of it may be held now. What is held beyond either stays held; a
    /// demand is of what there is, and waits until so much may be held.
    pub(crate) fn set_capacity(&mut self, capacity: Amount, free: Amount) {
        (self.capacity, self.free) = (capacity, free);
    }

    /// What is held.
    pub(crate) fn used(&self) -> Amount {
        self.used
    }

    /// Demands that wait.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting
    }

    /// Whether anybody waits for what is taken. Those that are too many of what may be of no use wait for each other only;
    /// who may have what it waits for has only just come.
    pub(crate) fn is_short(&self) -> bool {
        let waits = |first: &Waiting| !self.may_beyond(&first.demand);
        !self.lines[Line::Within as usize].is_empty() || self.first_beyond().is_some_and(waits)
    }

    /// Whether nobody holds anything or waits.
    pub(crate) fn is_idle(&self) -> bool {
        self.present == 0
    }

    /// For how long all in all somebody has waited within its share: what is held meanwhile is held from others. And the same for
    /// those that wait beyond their share, too.
    pub(crate) fn pressures(&self, now: Duration) -> [Duration; 2] {
        [self.pressure.until(now), self.rush.until(now)]
    }

    /// What one of this weight may hold while others wait, itself counted among them.
    pub(crate) fn share(&self, flow: FlowId, weight: u32) -> Amount {
        let weight = u64::from(weight.max(1));
        let there = self.flows.get(&flow).filter(|it| it.is_present()).map_or(0, |it| u64::from(it.weight));
        self.capacity.without(self.reserve()).part(weight, self.present - there + weight)
    }

    /// Asks for something, more than none. Granted at once, if it is within its flow's share; or it waits, and
    /// [`next`](Self::next) says when it is. What is beyond a share is for who has had least of all that want it: so first
    /// let all ask that can.
    pub(crate) fn ask(&mut self, demand: Demand, now: Duration) -> Asked {
        let flow = demand.flow;
        self.arrive(flow, demand.weight.max(1));
        if self.may_at_once(&demand) {
            self.flow(flow).had = self.had_and(demand.cost, flow);
            return Asked::Granted(self.take(&demand));
        }
        self.last_id += 1;
        self.waiting += 1;
        let id = self.last_id;
        let fluid_now = self.fluid.now();
        let line = if self.is_due(&demand) { Line::Within } else { Line::Beyond };
        self.change(flow, |it| {
            if it.waiting.is_empty() {
                it.line = line;
            }
            if it.line == Line::Within {
                it.end = it.end.max(fluid_now) + span(demand.cost, it.weight);
            }
            it.waiting.push_back(Waiting { id, demand, filled: it.end });
        });
        self.press(now);
        Asked::Waits(id)
    }

    /// Grants the next demand that may be granted: all of it, or all there is if that is less.
    pub(crate) fn next(&mut self, now: Duration) -> Option<(DemandId, Amount)> {
        let granted = loop {
            self.look_at_doubted();
            match self.step() {
                Step::Granted(id, amount) => break Some((id, amount)),
                Step::SetAside => {}
                Step::Nothing => break None,
            }
        };
        self.press(now);
        granted
    }

    /// Takes back a demand that waits. `false`: it does not; it was granted.
    pub(crate) fn withdraw(&mut self, flow: FlowId, id: DemandId, now: Duration) -> bool {
        let waiting = self.flows.get(&flow).map(|it| &it.waiting);
        let at = waiting.and_then(|waiting| waiting.iter().position(|other| other.id == id));
        let Some(at) = at else { return false };
        let now_in_fluid = self.fluid.now();
        self.change(flow, |it| {
            let Waiting { demand, .. } = it.waiting.remove(at).expect("found there");
            if it.line == Line::Within {
                let owed = it.end.saturating_sub(now_in_fluid).saturating_sub(span(demand.cost, it.weight));
                // What the fluid brought to the first is of no use to the others.
                it.stand(now_in_fluid, if at == 0 { owed.max(it.wants()) } else { owed });
            } else if at == 0 {
                // The next of it may be within its share.
                it.line_up(now_in_fluid);
            }
        });
        self.waiting -= 1;
        self.called.remove(&id);
        self.leave(flow);
        self.settle_if_all_have();
        self.press(now);
        true
    }

    /// Gives back some of what was granted, or all.
    pub(crate) fn give_back(&mut self, flow: FlowId, amount: Amount, doubtful: bool) {
        self.used -= amount;
        self.flow(flow).held -= amount;
        if doubtful {
            self.doubtful -= amount;
        }
        if self.flow(flow).line == Line::Beyond {
            self.line_up(flow);
        }
        self.leave(flow);
    }

    /// Charges more than was said at first: it was held for long while others waited within their share. To be charged
    /// before it is given back.
    pub(crate) fn charge(&mut self, flow: FlowId, cost: u64) {
        // Where nobody waits nothing is taken from anybody.
        if !self.lines[Line::Within as usize].is_empty() {
            let now = self.fluid.now();
            self.change(flow, |it| {
                let owed = it.end.saturating_sub(now) + span(cost, it.weight);
                if it.line == Line::Within { it.stand(now, owed) } else { it.end = now + owed }
            });
        }
    }

    /// The same for as long as anybody waited: what is beyond the shares goes to others first.
    pub(crate) fn charge_beyond(&mut self, flow: FlowId, cost: u64) {
        let had = self.had_and(cost, flow);
        self.change(flow, |it| it.had = had);
    }

    /// One step on the way to the next grant.
    fn step(&mut self) -> Step {
        let Some((&(_, id), &flow)) = self.lines[Line::Within as usize].first_key_value() else {
            return self.step_beyond();
        };
        let demand = self.first_of(flow).demand;
        let aside = match (self.is_doubted(id, &demand), self.is_due(&demand)) {
            (_, false) => Line::Beyond,
            (true, true) => Line::Doubted,
            // Whose turn it is is waited for: else small demands would keep out a large one for ever.
            _ if !self.fits(demand.amount) => return Step::Nothing,
            _ => return Step::Granted(id, self.grant(flow)),
        };
        self.called.remove(&id);
        self.change(flow, |it| it.stand_aside(aside));
        self.settle_if_all_have();
        Step::SetAside
    }

    /// Whether it may be granted without waiting.
    fn may_at_once(&self, demand: &Demand) -> bool {
        let nobody_before = self.lines[Line::Within as usize].is_empty() && self.flows[&demand.flow].waiting.is_empty();
        nobody_before && self.fits(demand.amount) && !self.is_doubted(self.last_id + 1, demand) && self.is_due(demand)
    }

    /// Whether anybody waits but those that are too many of what may be of no use.
    fn somebody_waits(&self) -> bool {
        let [within, beyond, _] = &self.lines;
        !within.is_empty() || !beyond.is_empty()
    }

    /// Whether it is within its flow's share.
    fn is_due(&self, demand: &Demand) -> bool {
        let held = self.flows[&demand.flow].held;
        held == demand.upon || (held + demand.amount).within(self.share(demand.flow, demand.weight))
    }

    fn leaves_reserve(&self, amount: Amount) -> bool {
        (self.used + amount + self.reserve()).within(self.capacity)
    }

    /// What is kept for those who hold less than their share.
    fn reserve(&self) -> Amount {
        if mutants::on(Mutant::NothingKeptForOthers) { Amount::default() } else { self.capacity.part(1, RESERVE) }
    }

    /// Whether there is so much and the reserve besides.
    pub(crate) fn has_room(&self, amount: Amount) -> bool {
        self.leaves_reserve(amount)
    }

    /// Whether there is so much, or nothing is taken.
    fn fits(&self, amount: Amount) -> bool {
        let all = self.used + amount.min(self.capacity);
        all.within(self.capacity) && all.within(self.free)
    }

    /// Grants the first demand of a flow.
    fn grant(&mut self, flow: FlowId) -> Amount {
        let Waiting { id, demand, .. } = *self.first_of(flow);
        let (was_within, now) = (self.flows[&flow].line == Line::Within, self.fluid.now());
        let had = self.had_and(demand.cost, flow);
        let amount = self.take(&demand);
        self.waiting -= 1;
        self.called.remove(&id);
        self.change(flow, |it| {
            it.waiting.pop_front();
            it.had = had;
            // Else its end stays as it is: the fluid owes it the same, granted or not.
            if !was_within {
                it.line_up(now);
            }
        });
        if was_within {
            let flows = &mut self.flows;
            self.fluid.flow(demand.cost, |flow| forget_absent(flows, flow));
        }
        self.settle_if_all_have();
        amount
    }

    fn take(&mut self, demand: &Demand) -> Amount {
        let amount = demand.amount.min(self.capacity);
        self.used += amount;
        if demand.doubtful {
            self.doubtful += amount;
        }
        self.flow(demand.flow).held += amount;
        amount
    }

    /// Once all that was wanted within the shares is granted, nobody is ahead of anybody.
    fn settle_if_all_have(&mut self) {
        if !self.lines[Line::Within as usize].is_empty() {
            return;
        }
        let flows = &mut self.flows;
        self.fluid.end(|flow| {
            flows.entry(flow).and_modify(|it| it.end = 0);
            forget_absent(flows, flow);
        });
    }

    /// What its first demand waits for may have changed: it is looked at anew.
    fn line_up(&mut self, flow: FlowId) {
        let now = self.fluid.now();
        self.change(flow, |it| it.line_up(now));
    }

    /// Changes what decides on where a flow stands, and puts it there.
    fn change(&mut self, flow: FlowId, change: impl FnOnce(&mut Flow)) {
        let it = self.flows.get_mut(&flow).expect("who holds or waits is known");
        if let Some(place) = it.place.take() {
            self.lines[it.line as usize].remove(&place);
        }
        self.fluid.leave(flow, it.weight, it.end);
        change(it);
        self.fluid.enter(flow, it.weight, it.end);
        if let Some(first) = it.waiting.front() {
            let before = match it.line {
                Line::Within => first.filled,
                Line::Beyond => self.had.place(it.had),
                Line::Doubted => 0,
            };
            let place = (before, first.id);
            it.place = Some(place);
            self.lines[it.line as usize].insert(place, flow);
        }
    }

    /// Somebody of this weight is there, or comes.
    fn arrive(&mut self, flow: FlowId, weight: u32) {
        let had = self.had.at_first();
        let it = self.flows.entry(flow).or_insert_with(|| Flow { weight, had, ..Flow::default() });
        if !it.is_present() {
            self.present += u64::from(it.weight);
        }
    }

    /// It may have gone.
    fn leave(&mut self, flow: FlowId) {
        let it = self.flow(flow);
        if !it.is_present() {
            let (weight, end) = (it.weight, it.end);
            self.present -= u64::from(weight);
            // Who got ahead of the fluid is remembered until that has come up to it.
            if end <= self.fluid.now() {
                self.flows.remove(&flow);
            }
        }
    }

    /// The first demand of one who waits.
    fn first_of(&self, flow: FlowId) -> &Waiting {
        &self.flows[&flow].waiting[0]
    }

    fn flow(&mut self, flow: FlowId) -> &mut Flow {
        self.flows.get_mut(&flow).expect("who holds or waits is known")
    }

    fn press(&mut self, now: Duration) {
        self.pressure.set(!self.lines[Line::Within as usize].is_empty(), now);
        self.rush.set(self.somebody_waits(), now);
    }
}

fn forget_absent(flows: &mut HashMap<FlowId, Flow>, flow: FlowId) {
    if flows.get(&flow).is_some_and(|it| !it.is_present()) {
        flows.remove(&flow);
    }
}
