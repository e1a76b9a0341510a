mod doubted;
mod equals;
mod ideal;

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use ideal::Ideal;

const NOW: Duration = Duration::ZERO;

fn demand(flow: FlowId, weight: u32, bytes: u64) -> Demand {
    Demand { flow, weight, amount: Amount::place(bytes), upon: Amount::default(), cost: bytes, doubtful: false }
}

fn share(places: u64, bytes: u64) -> FairShare {
    FairShare::new(Amount { places, bytes })
}

/// Asks, and says whether it is had at once.
fn has(share: &mut FairShare, flow: FlowId, bytes: u64) -> bool {
    matches!(share.ask(demand(flow, 1, bytes), NOW), Asked::Granted(_))
}

/// Who is granted something, in order.
fn served(share: &mut FairShare, ids: &BTreeMap<DemandId, FlowId>) -> Vec<FlowId> {
    std::iter::from_fn(|| share.next(NOW)).map(|(id, _)| ids[&id]).collect()
}

fn wait(share: &mut FairShare, ids: &mut BTreeMap<DemandId, FlowId>, demand: Demand) {
    match share.ask(demand, NOW) {
        Asked::Waits(id) => drop(ids.insert(id, demand.flow)),
        Asked::Granted(_) => panic!("{demand:?} did not wait"),
    }
}

#[test]
fn of_two_who_always_want_more_one_of_thrice_the_weight_gets_thrice_as_much() {
    let (mut share, mut ids) = (share(1, 1000), BTreeMap::new());
    assert!(has(&mut share, 0, 10));
    for _ in 0..400 {
        wait(&mut share, &mut ids, demand(1, 1, 10));
        wait(&mut share, &mut ids, demand(3, 3, 10));
    }
    let (mut got, mut holds) = ([0, 0, 0, 0], 0);
    for _ in 0..400 {
        share.give_back(holds, Amount::place(10), false);
        holds = served(&mut share, &ids)[0];
        got[holds as usize] += 1;
    }
    assert!((99..=101).contains(&got[1]) && got[3] == 400 - got[1], "{got:?}");
}

#[test]
fn what_others_have_borrowed_is_waited_for_and_not_done_without() {
    let (mut share, mut ids) = (share(8, 500), BTreeMap::new());
    let capacity = Amount { places: 8, bytes: 500 };
    share.set_capacity(capacity, Amount { places: 0, bytes: 100 });
    wait(&mut share, &mut ids, demand(1, 1, 400));
    assert_eq!(share.next(NOW), None);
    share.set_capacity(capacity, Amount { places: 1, bytes: 400 });
    assert!(matches!(share.next(NOW), Some((_, amount)) if amount == Amount::place(400)));
}

#[test]
fn small_demands_go_before_a_large_one_only_as_far_as_is_fair() {
    let (mut share, mut ids) = (share(1, 1000), BTreeMap::new());
    assert!(has(&mut share, 0, 1));
    wait(&mut share, &mut ids, demand(1, 1, 100));
    let (mut before, mut holds) = (0, (0, 1));
    loop {
        wait(&mut share, &mut ids, demand(2, 1, 10));
        share.give_back(holds.0, Amount::place(holds.1), false);
        let next = served(&mut share, &ids)[0];
        if next == 1 {
            break;
        }
        (before, holds) = (before + 1, (next, 10));
    }
    assert!((9..=11).contains(&before), "{before} of ten bytes before one of a hundred");
}

#[test]
fn one_that_never_gives_back_keeps_nobody_out() {
    let mut share = share(64, 1 << 20);
    let mut hung = 0;
    while has(&mut share, 7, 100) {
        hung += 1;
    }
    assert_eq!(hung, 56, "all but an eighth is his while nobody else wants it");
    assert_eq!(share.next(NOW), None);
    for flow in 100..108 {
        assert!(has(&mut share, flow, 100), "{flow}");
    }
}

#[test]
fn while_others_wait_nobody_is_given_more_than_its_share() {
    let (mut share, mut ids) = (share(4, 1000), BTreeMap::new());
    for _ in 0..3 {
        assert!(has(&mut share, 1, 10));
    }
    assert!(has(&mut share, 2, 10));
    // Came first, and holds more than its half.
    wait(&mut share, &mut ids, demand(1, 1, 10));
    wait(&mut share, &mut ids, demand(3, 1, 10));
    share.give_back(2, Amount::place(10), false);
    assert_eq!(served(&mut share, &ids), [3]);
    share.give_back(3, Amount::place(10), false);
    assert_eq!(served(&mut share, &ids), [1], "now nobody else wants it");
}

#[test]
fn what_was_held_while_others_waited_is_paid_for_at_the_next_turn() {
    let (mut share, mut ids) = (share(1, 1000), BTreeMap::new());
    assert!(has(&mut share, 1, 10));
    for _ in 0..20 {
        wait(&mut share, &mut ids, demand(1, 1, 10));
        wait(&mut share, &mut ids, demand(2, 1, 10));
    }
    share.charge(1, 100);
    let mut holds = 1;
    let mut order = Vec::new();
    for _ in 0..12 {
        share.give_back(holds, Amount::place(10), false);
        holds = served(&mut share, &ids)[0];
        order.push(holds);
    }
    let first = order.iter().position(|flow| *flow == 1);
    assert_eq!(first, Some(10), "ten of the other's first: {order:?}");
}

/// What happens to a share.
#[derive(Debug, Clone)]
enum Op {
    Ask {
        flow: FlowId,
        bytes: u64,
        doubtful: bool,
    },
    /// One that is held ends; charged with so much more.
    End {
        at: usize,
        overtime: u64,
    },
    /// One that waits gives up.
    Leave {
        at: usize,
    },
    /// Whatever this one holds now is never given back.
    Hang {
        flow: FlowId,
    },
}

const FLOWS: u32 = 6;
const LARGEST: u64 = 100;

fn op() -> impl Strategy<Value = Op> {
    let overtime = prop_oneof![4 => Just(0u64), 1 => 1..=LARGEST];
    prop_oneof![
        8 => (0..FLOWS, 1..=LARGEST, proptest::bool::weighted(0.3))
            .prop_map(|(flow, bytes, doubtful)| Op::Ask { flow, bytes, doubtful }),
        6 => (0usize..64, overtime).prop_map(|(at, overtime)| Op::End { at, overtime }),
        1 => (0usize..64).prop_map(|at| Op::Leave { at }),
        1 => (0..FLOWS).prop_map(|flow| Op::Hang { flow }),
    ]
}

/// A share, and beside it our own books and the ideal.
struct Checked {
    share: FairShare,
    ideal: Ideal,
    weights: Vec<u32>,
    held: Vec<(FlowId, Amount, bool)>,
    hung: Vec<(FlowId, Amount, bool)>,
    waiting: Vec<(DemandId, Demand)>,
    /// Who stood aside when we last looked: the fluid passes them by.
    aside: [bool; FLOWS as usize],
    /// Those that were one too many of what may be of no use.
    stood_aside: BTreeSet<DemandId>,
}

impl Checked {
    fn new(capacity: Amount, weights: Vec<u32>) -> Self {
        let share = FairShare::new(capacity);
        let (held, hung, waiting) = (Vec::new(), Vec::new(), Vec::new());
        let (aside, stood_aside) = ([false; FLOWS as usize], BTreeSet::new());
        Self { share, ideal: Ideal::default(), weights, held, hung, waiting, aside, stood_aside }
    }

    fn cost(&self, flow: FlowId) -> f64 {
        let its = self.waiting.iter().filter(|(_, demand)| demand.flow == flow);
        its.map(|(_, demand)| demand.cost as f64).sum()
    }

    fn holds(&self, flow: FlowId) -> Amount {
        let its = self.held.iter().chain(&self.hung).filter(|(of, _, _)| *of == flow);
        its.fold(Amount::default(), |sum, (_, amount, _)| sum + *amount)
    }

    fn share_of(&self, flow: FlowId) -> Amount {
        let present = (0..FLOWS).filter(|of| self.holds(*of) != Amount::default() || self.cost(*of) > 0.0);
        let all: u32 = present.map(|of| self.weights[of as usize]).sum();
        let all_shares = self.share.capacity.without(self.share.reserve());
        all_shares.part(u64::from(self.weights[flow as usize]), u64::from(all))
    }

    fn is_within(&self, demand: &Demand) -> bool {
        let held = self.holds(demand.flow);
        held == Amount::default() || (held + demand.amount).within(self.share_of(demand.flow))
    }

    fn stands_aside(&self, flow: FlowId) -> bool {
        self.share.flows.get(&flow).is_some_and(|it| it.line != Line::Within && !it.waiting.is_empty())
    }

    /// What the share's own fluid still owes, in bytes.
    fn fluid_wants(&self, flow: FlowId) -> f64 {
        let owed = self.share.flows.get(&flow).map_or(0, |it| it.end.saturating_sub(self.share.fluid.now()));
        owed as f64 / span(1, 1) as f64 * f64::from(self.weights[flow as usize])
    }

    /// Takes in what changed, and checks that it is fair.
    fn look(&mut self) -> Result<(), TestCaseError> {
        if self.share.lines[Line::Within as usize].is_empty() {
            self.ideal.end();
        }
        for flow in 0..FLOWS {
            let (is, cost) = (self.stands_aside(flow), self.cost(flow));
            match (std::mem::replace(&mut self.aside[flow as usize], is), is) {
                (false, true) => {
                    let first = self.share.first_of(flow).demand;
                    prop_assert!(!self.is_within(&first) || first.doubtful, "{first:?} is passed by within its share");
                    self.ideal.want(flow, -cost);
                }
                (true, false) => self.ideal.want(flow, cost),
                _ => {}
            }
            let (fluid, ideal) = (self.fluid_wants(flow), self.ideal.wants(flow));
            prop_assert!((fluid - ideal).abs() < 0.01, "the fluid owes flow {flow} {fluid} bytes, the ideal {ideal}");
            let behind = if is { 0.0 } else { cost - ideal };
            prop_assert!(behind <= LARGEST as f64 + 0.01, "flow {flow} is {behind} bytes behind its share");
        }
        self.stood_aside.extend(self.share.lines[Line::Doubted as usize].keys().map(|(_, id)| *id));
        for (_, id) in self.share.lines[Line::Beyond as usize].keys() {
            self.stood_aside.remove(id);
        }
        let held = (0..FLOWS).fold(Amount::default(), |sum, flow| sum + self.holds(flow));
        prop_assert_eq!(held, self.share.used());
        prop_assert!(held.within(self.share.capacity), "{:?} of {:?}", held, self.share.capacity);
        let doubtful: Vec<Amount> = self
            .held
            .iter()
            .chain(&self.hung)
            .filter(|(_, _, doubtful)| *doubtful)
            .map(|(_, amount, _)| *amount)
            .collect();
        let sum = doubtful.iter().fold(Amount::default(), |sum, amount| sum + *amount);
        prop_assert_eq!(sum, self.share.doubtful);
        prop_assert!(doubtful.len() <= 1 || sum.within(self.share.capacity.part(1, 2)), "half is {:?}", sum);
        for id in &self.share.called {
            let is_its = |it: &Flow| it.line == Line::Within && it.waiting.front().is_some_and(|first| first.id == *id);
            prop_assert!(self.share.flows.values().any(is_its), "{} was called, and waits no more", id);
        }
        prop_assert_eq!(self.waiting.len(), self.share.waiting());
        Ok(())
    }

    fn serve(&mut self) -> Result<(), TestCaseError> {
        loop {
            self.look()?;
            self.share.look_at_doubted();
            // Who lined up again shares in what flows from here on, the very next grant included.
            self.look()?;
            match self.share.step() {
                Step::Nothing => return self.look(),
                Step::SetAside => {}
                Step::Granted(id, amount) => self.granted(id, amount)?,
            }
        }
    }

    /// Nobody that may be of no use goes before another such that came before it, is within its share, and has stood aside.
    fn goes_in_turn(&self, id: DemandId, demand: &Demand) -> Result<(), TestCaseError> {
        let stood_aside = self.waiting.iter().filter(|(of, _)| *of < id && self.stood_aside.contains(of));
        let before: Vec<_> = stood_aside.filter(|(_, demand)| self.is_within(demand)).map(|(of, _)| *of).collect();
        prop_assert!(!demand.doubtful || before.is_empty(), "{} goes before {:?}", id, before);
        Ok(())
    }

    fn granted(&mut self, id: DemandId, amount: Amount) -> Result<(), TestCaseError> {
        let at = self.waiting.iter().position(|(waits, _)| *waits == id).expect("who is granted something waits");
        let (_, demand) = self.waiting[at];
        self.goes_in_turn(id, &demand)?;
        let was_aside = self.aside[demand.flow as usize];
        let others_wait = self.share.lines[Line::Within as usize].values().any(|other| *other != demand.flow);
        prop_assert!(self.is_within(&demand) || !others_wait, "{demand:?} is beyond its share, and others wait");
        self.waiting.remove(at);
        self.held.push((demand.flow, amount, demand.doubtful));
        if !was_aside {
            self.ideal.flow(demand.cost, &self.weights);
        }
        Ok(())
    }

    fn apply(&mut self, op: Op) -> Result<(), TestCaseError> {
        match op {
            Op::Ask { flow, bytes, doubtful } => {
                let demand = Demand { doubtful, ..demand(flow, self.weights[flow as usize], bytes) };
                match self.share.ask(demand, NOW) {
                    Asked::Granted(amount) => {
                        prop_assert!(self.is_within(&demand), "{:?} is had before others could ask", demand);
                        self.goes_in_turn(DemandId::MAX, &demand)?;
                        self.held.push((flow, amount, doubtful));
                    }
                    Asked::Waits(id) => {
                        self.waiting.push((id, demand));
                        if !self.aside[flow as usize] {
                            self.ideal.want(flow, bytes as f64);
                        }
                    }
                }
            }
            Op::End { at, overtime } if !self.held.is_empty() => {
                let (flow, amount, doubtful) = self.held.swap_remove(at % self.held.len());
                if overtime > 0 && !self.share.lines[Line::Within as usize].is_empty() {
                    self.share.charge(flow, overtime);
                    self.ideal.want(flow, overtime as f64);
                }
                self.share.give_back(flow, amount, doubtful);
            }
            Op::Leave { at } if !self.waiting.is_empty() => {
                let (id, demand) = self.waiting.remove(at % self.waiting.len());
                let flow = demand.flow;
                let first = self.share.first_of(flow).id == id;
                prop_assert!(self.share.withdraw(flow, id, NOW));
                if !self.aside[flow as usize] {
                    self.ideal.want(flow, -(demand.cost as f64));
                    if first {
                        // What the fluid brought to it is of no use to the others.
                        let short = self.cost(flow) - self.ideal.wants(flow);
                        self.ideal.want(flow, short.max(0.0));
                    }
                }
            }
            Op::Hang { flow } => {
                let (hangs, goes_on) = self.held.drain(..).partition(|(of, _, _)| *of == flow);
                self.held = goes_on;
                let hangs: Vec<(FlowId, Amount, bool)> = hangs;
                self.hung.extend(hangs);
            }
            Op::End { .. } | Op::Leave { .. } => {}
        }
        self.serve()
    }
}

proptest! {
    /// The promise of the whole file.
    #[test]
    fn nobody_within_its_share_falls_behind_it_by_more_than_one_largest_batch(
        places in 1u64..12,
        bytes in LARGEST..600,
        weights in proptest::collection::vec(1u32..5, FLOWS as usize),
        ops in proptest::collection::vec(op(), 1..200),
    ) {
        let mut checked = Checked::new(Amount { places, bytes }, weights);
        for op in ops {
            checked.apply(op)?;
        }
        // Those that hung come back: nothing is left, and nobody waits for ever.
        let hung = std::mem::take(&mut checked.hung);
        checked.held.extend(hung);
        while !checked.held.is_empty() {
            checked.apply(Op::End { at: 0, overtime: 0 })?;
        }
        prop_assert_eq!(checked.share.waiting(), 0, "{:?}", checked.share);
        prop_assert!(checked.share.is_idle() && checked.share.flows.is_empty(), "{:?}", checked.share);
    }
}
