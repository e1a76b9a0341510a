//! A rush: those that always want more than there is. Each has what its weight says, whoever is looked at first.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use super::gate::{Asker, Gate, Held, Want};
use super::*;

/// Holds all until everybody has asked.
const OUTSIDER: FlowId = 99;

/// Each always has one that waits, and asks for the next as soon as that is granted. Each batch is as large as any.
struct Rush {
    share: FairShare,
    weights: Vec<u32>,
    waits: BTreeMap<DemandId, FlowId>,
    /// The oldest first.
    held: VecDeque<FlowId>,
    had: Vec<u64>,
}

impl Rush {
    fn new(places: u64, weights: &[u32]) -> Self {
        let capacity = Amount { places, bytes: 1 << 20 };
        let (mut share, had) = (FairShare::new(capacity), vec![0; weights.len()]);
        let all = Demand { amount: capacity, ..demand(OUTSIDER, 1, 1) };
        assert!(matches!(share.ask(all, NOW), Asked::Granted(_)));
        let mut rush = Self { share, weights: weights.to_vec(), waits: BTreeMap::new(), held: VecDeque::new(), had };
        rush.ask();
        rush.share.give_back(OUTSIDER, capacity, false);
        rush.serve();
        rush.ask();
        rush
    }

    /// Each asks until it has to wait, and is served once all have asked; and again, as long as any is granted some.
    fn ask(&mut self) {
        loop {
            for flow in 0..self.weights.len() as FlowId {
                while !self.waits.values().any(|of| *of == flow) {
                    match self.share.ask(demand(flow, self.weights[flow as usize], LARGEST), NOW) {
                        Asked::Granted(_) => self.granted(flow),
                        Asked::Waits(id) => drop(self.waits.insert(id, flow)),
                    }
                }
            }
            if !self.serve() {
                return;
            }
        }
    }

    fn serve(&mut self) -> bool {
        let before = self.held.len();
        while let Some((id, _)) = self.share.next(NOW) {
            let flow = self.waits.remove(&id).expect("who is granted something waits");
            self.granted(flow);
        }
        self.held.len() > before
    }

    fn granted(&mut self, flow: FlowId) {
        self.held.push_back(flow);
        self.had[flow as usize] += 1;
    }

    /// All that are held end, as they began, so many before anybody is asked again.
    fn round(&mut self, at_once: usize) {
        let mut ending = std::mem::take(&mut self.held);
        while !ending.is_empty() {
            for flow in ending.drain(..at_once.min(ending.len())) {
                self.share.give_back(flow, Amount::place(LARGEST), false);
                self.serve();
            }
            self.ask();
        }
    }

    /// How many batches each has had, for each unit of its weight.
    fn each(&self) -> Vec<f64> {
        self.had.iter().zip(&self.weights).map(|(had, weight)| *had as f64 / f64::from(*weight)).collect()
    }
}

fn apart(each: &[f64]) -> f64 {
    each.iter().copied().fold(0.0, f64::max) - each.iter().copied().fold(f64::MAX, f64::min)
}

proptest! {
    /// Of thirteen places seven equals have one each within their shares, and six more among them: whoever was looked at
    /// first had four, in every round.
    #[test]
    fn of_equals_that_always_want_more_nobody_has_more_than_one_batch_above_another(
        flows in 2usize..20,
        places_each in 0.0..3.0,
        together in any::<bool>(),
    ) {
        let mut rush = Rush::new(1 + (places_each * flows as f64) as u64, &vec![1; flows]);
        for nth in 0..20 {
            prop_assert!(apart(&rush.each()) <= 1.0, "after {nth} rounds: {:?}", rush.had);
            rush.round(if together { usize::MAX } else { 1 });
        }
    }

    /// As long as each one's share is a batch at least: one is everybody's.
    #[test]
    fn of_those_that_always_want_more_each_has_what_its_weight_says(
        weights in proptest::collection::vec(1u32..5, 2..9),
        part in 1.0..3.0,
        together in any::<bool>(),
    ) {
        let all: u32 = weights.iter().sum();
        let mut rush = Rush::new((f64::from(all) * part) as u64 * 8 / 7 + 1, &weights);
        for nth in 0..20 {
            prop_assert!(apart(&rush.each()) <= 1.5, "after {nth} rounds: {:?} of {weights:?}", rush.had);
            rush.round(if together { usize::MAX } else { 1 });
        }
    }
}

/// Two that come and go have what is left over in turns. Each would be first, as it has had nothing.
#[test]
fn those_that_come_and_go_are_not_first_again_and_again() {
    let (mut share, mut ids) = (share(3, 1000), BTreeMap::new());
    assert!(has(&mut share, 1, 100) && has(&mut share, 2, 100));
    wait(&mut share, &mut ids, demand(2, 1, 100));
    assert_eq!(served(&mut share, &ids), [2], "nobody else wants it");
    wait(&mut share, &mut ids, demand(1, 1, 100));
    share.charge_beyond(1, 300);
    let mut turns = 0;
    for (goes, comes) in [(2, 3), (3, 2)].into_iter().cycle() {
        wait(&mut share, &mut ids, demand(comes, 1, 100));
        share.give_back(goes, Amount::place(100), false);
        assert_eq!(served(&mut share, &ids), [comes], "one is everybody's");
        wait(&mut share, &mut ids, demand(comes, 1, 100));
        share.give_back(goes, Amount::place(100), false);
        match served(&mut share, &ids)[..] {
            [1] => break,
            [it] => assert_eq!(it, comes),
            _ => panic!("nobody"),
        }
        turns += 1;
        assert!(turns < 20, "who has stayed waits for ever");
    }
    assert_eq!(turns, 2, "by then they have had as much");
}

fn gate(places: u64) -> Gate {
    Gate::new(Amount { places, bytes: u64::MAX })
}

fn place() -> Want {
    let (amount, upon) = (Amount::place(0), Amount::default());
    Want { lane: 0, amount, upon, cost: 1, doubtful: false, bytes_least: 0 }
}

async fn take(gate: &Gate, flow: FlowId, weight: u32) -> Held {
    gate.take(Asker { flow, weight }, place()).await
}

/// Asks for more for ever; each that is had is held for so long, one after the other, and counted.
fn always_wants(gate: &Gate, (flow, weight): (usize, u32), held_ms: &'static [u64], had: &Arc<Mutex<Vec<f64>>>) {
    let (gate, had) = (gate.clone(), Arc::clone(had));
    tokio::spawn(async move {
        for held_ms in held_ms.iter().cycle() {
            let held = take(&gate, flow as FlowId, weight).await;
            had.lock().unwrap()[flow] += 1.0 / f64::from(weight);
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(*held_ms)).await;
                drop(held);
            });
        }
    });
}

#[tokio::test(start_paused = true)]
async fn whoever_is_polled_first_has_no_more_than_the_others() {
    for (places, weights) in
        [(14, &[1; 7][..]), (30, &[1; 7]), (100, &[1; 30]), (14, &[1, 1, 2, 3]), (64, &[4, 1, 1, 1])]
    {
        let (gate, had) = (gate(places), Arc::new(Mutex::new(vec![0.0; weights.len()])));
        for (flow, weight) in weights.iter().copied().enumerate() {
            // All answers come in the same moment.
            always_wants(&gate, (flow, weight), &[1000], &had);
        }
        // Who was first had all for the first second.
        tokio::time::sleep(Duration::from_millis(20_500)).await;
        had.lock().unwrap().fill(0.0);
        tokio::time::sleep(Duration::from_secs(100)).await;
        let had = had.lock().unwrap();
        assert!(apart(&had) <= 2.0, "of {places} places: {had:?}");
        let sum: f64 = had.iter().zip(weights).map(|(had, weight)| had * f64::from(*weight)).sum();
        let all = 100.0 * (places - places / RESERVE) as f64;
        assert!((sum - all).abs() < 0.1, "{sum} of {all}: nothing is left unused");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_left_over_goes_to_slow_ones_no_longer_than_to_quick_ones() {
    let (places, had) = (Amount { places: 8, bytes: u64::MAX }, Arc::new(Mutex::new(vec![0.0; 2])));
    let gate = Gate::with_lanes(places, &[(places, true)], 1, 100);
    always_wants(&gate, (0, 1), &[9000, 10_000, 11_000], &had);
    always_wants(&gate, (1, 1), &[900, 950, 1000, 1050, 1100], &had);
    tokio::time::sleep(Duration::from_millis(100_500)).await;
    had.lock().unwrap().fill(0.0);
    tokio::time::sleep(Duration::from_secs(200)).await;
    // Each has three within its share; the seventh place is the quick one's for about half of the time.
    let quick = had.lock().unwrap()[1];
    assert!((680.0..=720.0).contains(&quick), "{quick}");
}

#[tokio::test(start_paused = true)]
async fn what_nobody_else_wants_is_had_without_waiting_for_anybody() {
    let gate = gate(64);
    // It is there, and wants no more.
    let _other = take(&gate, 2, 1).await;
    let mut held = Vec::new();
    while let Some(more) = gate.take_within(Asker { flow: 1, weight: 1 }, place(), Duration::ZERO).await {
        held.push(more);
    }
    assert_eq!(held.len(), 55, "all but one, and an eighth that is kept");
    assert_eq!(gate.waiting(), 0);
}

#[tokio::test(start_paused = true)]
async fn who_leaves_before_it_is_looked_at_leaves_nothing_behind_and_keeps_nobody_waiting() {
    let gate = gate(3);
    let _held = (take(&gate, 1, 1).await, take(&gate, 2, 1).await);
    let mut leaves = Box::pin(take(&gate, 1, 1));
    assert!(polled(&mut leaves).await.is_none(), "it is beyond its share: others may ask first");
    let waits = tokio::spawn({
        let gate = gate.clone();
        async move { take(&gate, 2, 1).await }
    });
    tokio::task::yield_now().await;
    drop(leaves);
    let held = waits.await.unwrap();
    assert_eq!((gate.used().places, gate.waiting()), (3, 0));
    let mut leaves = Box::pin(take(&gate, 1, 1));
    assert!(polled(&mut leaves).await.is_none());
    drop((leaves, held));
    assert_eq!((gate.used().places, gate.waiting()), (2, 0));
}

/// Polls it once.
async fn polled<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
    std::future::poll_fn(|cx| match std::pin::Pin::new(&mut *future).poll(cx) {
        std::task::Poll::Ready(it) => std::task::Poll::Ready(Some(it)),
        std::task::Poll::Pending => std::task::Poll::Ready(None),
    })
    .await
}
