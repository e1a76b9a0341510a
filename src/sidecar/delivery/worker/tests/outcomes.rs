//! What follows from each outcome, as a table: a receiver's temper, and what has become of every record an hour later.

use super::drawer::Drawer;
use super::*;
use crate::delivery::outcome::{HeldRecord, Partial};
use crate::delivery::parking::Kind;

struct Stage {
    delivery: Delivery,
    queue: Script,
    drawer: Arc<Drawer>,
    receiver: Arc<Receiver>,
}

/// Batches of ten records.
fn stage(records: u64, receiver: Receiver) -> Stage {
    stage_on(Script::with_records(records), receiver, Some(1))
}

/// Without a seed it has threads for what takes long, as outside of tests.
fn stage_on(queue: Script, receiver: Receiver, seed: Option<u64>) -> Stage {
    let drawer = Arc::new(Drawer::default());
    let clock = Arc::new(ManualClock::at(1_000_000));
    let budget = Budget::new(BudgetLimits::default());
    let delivery = Delivery::beginning_with(budget, clock, Arc::clone(&drawer) as _, seed);
    let receiver = start(&delivery, "d", receiver, &queue);
    Stage { delivery, queue, drawer, receiver }
}

impl Stage {
    fn settled_as(&self, as_: Settled) -> Vec<u64> {
        let of = |(offset, how): (&u64, &Settled)| (*how == as_).then_some(*offset);
        self.queue.with(|state| state.settled.iter().filter_map(of).collect())
    }

    /// Each record that is settled as delivered was in a request that was taken, and letters are what the books say.
    fn check(&self) {
        assert_eq!(self.drawer.of(true), self.settled_as(Settled::DeadLettered));
        assert_eq!(self.drawer.of(false), self.settled_as(Settled::Held));
        let sent = self.receiver.sent();
        for offset in self.settled_as(Settled::Delivered) {
            assert!(sent.iter().any(|sent| sent.records.contains(&offset)), "{offset} was never sent");
        }
        let mut by_id: BTreeMap<String, Range<u64>> = BTreeMap::new();
        for sent in sent {
            let before = by_id.insert(sent.id.clone(), sent.offsets.clone());
            assert!(before.is_none_or(|before| before == sent.offsets), "one id, one batch");
        }
    }
}

fn status(status: u16) -> Failure {
    Failure::Status { status, words: String::new(), excerpt: "no".to_owned() }
}

fn rejected() -> Outcome {
    Outcome::Rejected { why: status(400) }
}

fn too_large() -> Outcome {
    Outcome::TooLarge { why: status(413) }
}

/// Those of `records` that are named.
fn partial(records: &[u64], rejected: &[u64], held: &[u64]) -> Outcome {
    let here = |named: &[u64]| named.iter().copied().filter(|at| records.contains(at)).collect::<Vec<_>>();
    let reject = |offset| RejectedRecord { offset, reason: "bad".to_owned() };
    let hold = |offset| HeldRecord { offset, wait: Duration::from_secs(30) };
    let (rejected, held) = (here(rejected), here(held));
    if rejected.is_empty() && held.is_empty() {
        return Outcome::Delivered;
    }
    let (rejected, held) = (rejected.into_iter().map(reject).collect(), held.into_iter().map(hold).collect());
    Outcome::Partial(Partial { rejected, held, why: status(400) })
}

/// What a receiver makes of the n-th request with these records.
type Makes = fn(usize, &[u64]) -> Outcome;

struct Row {
    name: &'static str,
    makes: Makes,
    /// Requests, at least and at most.
    requests: (usize, usize),
    dead: &'static [u64],
    held: &'static [u64],
    /// Records that still wait.
    pending: u64,
    state: &'static str,
}

/// Thirty records in batches of ten, and an hour. What is neither dead, held nor pending is delivered.
#[rustfmt::skip]
const ROWS: &[Row] = &[
    Row { name: "delivered", makes: |_, _| Outcome::Delivered,
          requests: (3, 3), dead: &[], held: &[], pending: 0, state: "idle" },
    Row { name: "throttled, then delivered", makes: |n, _| if n < 4 { throttled(Some(SECOND)) } else { Outcome::Delivered },
          requests: (7, 7), dead: &[], held: &[], pending: 0, state: "idle" },
    Row { name: "retry (an answer lost after the request), then delivered", makes: |n, _| if n < 4 { refused() } else { Outcome::Delivered },
          requests: (7, 7), dead: &[], held: &[], pending: 0, state: "idle" },
    Row { name: "too large above three records: halves, and nothing is lost", makes: |_, r| if r.len() > 3 { too_large() } else { Outcome::Delivered },
          requests: (21, 21), dead: &[], held: &[], pending: 0, state: "idle" },
    Row { name: "one record is too large by itself", makes: |_, r| if r.contains(&17) { too_large() } else { Outcome::Delivered },
          requests: (9, 14), dead: &[17], held: &[], pending: 0, state: "idle" },
    Row { name: "records rejected by name", makes: |_, r| partial(r, &[3, 14], &[]),
          requests: (5, 5), dead: &[3, 14], held: &[], pending: 0, state: "idle" },
    Row { name: "records held", makes: |_, r| partial(r, &[], &[4, 5, 29]),
          requests: (5, 5), dead: &[], held: &[4, 5, 29], pending: 0, state: "idle" },
    Row { name: "every record held", makes: |_, r| partial(r, &[], r),
          requests: (3, 3), dead: &[], held: &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29], pending: 0, state: "idle" },
    Row { name: "an answer that names what was not sent is not believed", makes: |_, _| Outcome::Partial(Partial {
              rejected: vec![RejectedRecord { offset: 1000, reason: String::new() }], held: vec![], why: status(400) }),
          requests: (60, 250), dead: &[], held: &[], pending: 30, state: "backoff" },
    Row { name: "the first record poisons its batch", makes: |_, r| if r.contains(&0) { rejected() } else { Outcome::Delivered },
          requests: (9, 12), dead: &[0], held: &[], pending: 0, state: "idle" },
    Row { name: "the last record poisons its batch", makes: |_, r| if r.contains(&29) { rejected() } else { Outcome::Delivered },
          requests: (9, 12), dead: &[29], held: &[], pending: 0, state: "idle" },
    Row { name: "two records poison both halves of a batch: refused, found out by a probe", makes: |_, r| if r.contains(&1) || r.contains(&8) { rejected() } else { Outcome::Delivered },
          requests: (9, 25), dead: &[1, 8], held: &[], pending: 0, state: "idle" },
    Row { name: "credentials refused", makes: |_, _| Outcome::Refused { why: status(401) },
          requests: (9, 15), dead: &[], held: &[], pending: 30, state: "refused" },
    Row { name: "credentials refused, then mended", makes: |n, _| if n < 4 { Outcome::Refused { why: status(403) } } else { Outcome::Delivered },
          requests: (7, 7), dead: &[], held: &[], pending: 0, state: "idle" },
    Row { name: "everything rejected", makes: |_, _| rejected(),
          requests: (8, 20), dead: &[], held: &[], pending: 30, state: "refused" },
    Row { name: "everything rejected by name", makes: |_, r| partial(r, r, &[]),
          requests: (8, 20), dead: &[], held: &[], pending: 30, state: "refused" },
    Row { name: "everything too large", makes: |_, _| too_large(),
          requests: (8, 20), dead: &[], held: &[], pending: 30, state: "refused" },
];

fn name(state: State) -> &'static str {
    match state {
        State::Idle => "idle",
        State::Sending => "sending",
        State::Backoff { .. } => "backoff",
        State::Refused { .. } => "refused",
        State::Paused => "paused",
        State::Stopped => "stopped",
    }
}

#[tokio::test(start_paused = true)]
async fn each_outcome_has_its_consequence() {
    for (row, seed) in ROWS.iter().flat_map(|row| (0..8).map(move |seed| (row, seed))) {
        let makes = row.makes;
        let receiver = reading(move |n, records| at_once(makes(n, records)));
        let stage = stage_on(Script::with_records(30), receiver, Some(seed));
        sleep(HOUR).await;
        stage.check();
        let (sent, snapshot) = (stage.receiver.sent(), stage.delivery.stats_of("d").unwrap());
        let brief: Vec<_> = sent.iter().map(|sent| (sent.at.as_millis(), &sent.id, sent.records.len())).collect();
        let place = format!("{}, seed {seed}: {brief:?}", row.name);
        assert_eq!((stage.drawer.of(true), stage.drawer.of(false)), (row.dead.to_vec(), row.held.to_vec()), "{place}");
        assert_eq!(30 - stage.queue.settled(), row.pending, "{place}");
        assert_eq!(name(snapshot.state), row.state, "{place}");
        assert!((row.requests.0..=row.requests.1).contains(&sent.len()), "{} requests, {place}", sent.len());
        let kept = (snapshot.dead_lettered_records, snapshot.held_records);
        assert_eq!(kept, (row.dead.len() as u64, row.held.len() as u64), "{place}");
        stage.delivery.shutdown(SECOND).await;
    }
}

/// The receiver is misconfigured for an hour: its rejections are not the records' fault. With a backlog, with one record
/// at a time, and with batches in flight that were taken just before.
#[tokio::test(start_paused = true)]
async fn who_rejects_everything_for_an_hour_costs_no_record() {
    let began = Instant::now();
    let takes = move |from: Duration| began.elapsed() < from || began.elapsed() > from + HOUR;
    for (backlog, from) in [(100, Duration::ZERO), (1, Duration::ZERO), (0, Duration::ZERO), (1000, SECOND * 5)] {
        let from = began.elapsed() + from;
        let answer = move |_: usize, _: &[u64]| {
            let outcome = if takes(from) { Outcome::Delivered } else { rejected() };
            Answer::After(Duration::from_millis(200), outcome)
        };
        let stage = stage(backlog, reading(answer));
        for _ in 0..100 {
            sleep(HOUR / 100).await;
            stage.queue.append(1);
        }
        let bad = stage.receiver.sent().len();
        sleep(HOUR).await;
        stage.check();
        assert_eq!(stage.drawer.of(true), [0; 0], "zero dead letters");
        assert_eq!(stage.queue.settled(), backlog + 100);
        assert!(bad < 500, "{bad} requests: it was probed");
        assert_eq!(stage.delivery.stats_of("d").unwrap().state, State::Idle);
        stage.delivery.shutdown(SECOND).await;
    }
}

#[tokio::test(start_paused = true)]
async fn one_poisoned_record_delays_nobody_that_comes_after_it() {
    let stage = stage(1, reading(|_, r| at_once(if r.contains(&0) { rejected() } else { Outcome::Delivered })));
    sleep(HOUR * 3).await;
    assert_eq!((stage.queue.settled(), stage.drawer.of(true).len()), (0, 0), "nothing shows that it takes anything");
    assert_eq!(stage.delivery.stats_of("d").unwrap().undecided_records, 1);
    let asked = stage.receiver.sent().len();
    assert!((15..50).contains(&asked), "{asked}");
    stage.queue.append(1);
    sleep(SECOND).await;
    stage.check();
    assert_eq!((stage.queue.settled(), stage.drawer.of(true)), (2, vec![0]));
    let letter = stage.drawer.letters.lock().unwrap()[0].clone();
    assert_eq!((&*letter.destination, &*letter.reason, &*letter.excerpt), ("d", "answered 400: no", "no"));
    assert_eq!((letter.at_ms, letter.attempts as usize), (1_000_000, asked + 1));
}

#[tokio::test(start_paused = true)]
async fn poison_above_its_allowance_waits_and_the_rest_is_delivered() {
    let poison = |at: &u64| *at < 100 && at % 10 == 3;
    let answer = move |_: usize, records: &[u64]| {
        at_once(if records.iter().any(poison) { rejected() } else { Outcome::Delivered })
    };
    let stage = stage(100, reading(answer));
    sleep(HOUR * 24).await;
    stage.check();
    assert_eq!(stage.queue.settled() - stage.drawer.of(true).len() as u64, 90, "whatever is good is delivered");
    assert!(stage.drawer.of(true).len() <= 3, "{:?}", stage.drawer.of(true));
    // An operator who knows better: each time another three.
    for _ in 0..4 {
        stage.queue.append(1);
        assert!(stage.delivery.probe("d"));
        sleep(HOUR).await;
    }
    stage.check();
    let snapshot = stage.delivery.stats_of("d").unwrap();
    assert_eq!(stage.queue.settled(), 104, "{:?} {snapshot:?}", stage.drawer.of(true));
}

/// Nothing is wrong with any record: the receiver rejects one request in twenty, whatever is in it. So whole batches are found to be
/// good by their halves; a record that is alone when it is hit waits, and is a letter only if it is hit again.
#[tokio::test(start_paused = true)]
async fn who_rejects_by_chance_gets_all_but_what_it_rejected_alone_and_then_again() {
    use rand::{RngExt, SeedableRng};
    let mut letters = 0;
    for (seed, alone) in (0..8).flat_map(|seed| [(seed, false), (seed, true)]) {
        let by_chance = move |n: usize, _: &[u64]| {
            let hit = rand::rngs::SmallRng::seed_from_u64(seed << 32 | n as u64).random_ratio(1, 20);
            at_once(if hit { rejected() } else { Outcome::Delivered })
        };
        let stage = stage(if alone { 0 } else { 1_000 }, reading(by_chance));
        for _ in 0..if alone { 1_000 } else { 0 } {
            stage.queue.append(1);
            sleep(SECOND).await;
        }
        sleep(HOUR * 24).await;
        // Whatever shows that it takes something.
        stage.queue.append(1);
        sleep(HOUR * 24).await;
        stage.check();
        assert_eq!(stage.queue.settled(), 1_001, "seed {seed}, alone {alone}: nothing waits for ever");
        let (sent, dead) = (stage.receiver.sent(), stage.drawer.of(true));
        for record in &dead {
            let alone = sent.iter().filter(|sent| sent.records == [*record]).count();
            assert!(alone >= 2, "seed {seed}: {record} was sent alone {alone} times");
        }
        assert!(dead.len() <= if alone { 10 } else { 1 }, "seed {seed}, alone {alone}: {dead:?}");
        letters += dead.len();
        stage.delivery.shutdown(SECOND).await;
    }
    assert!(letters > 5, "{letters} of 8,000 that went alone: one in 400 is hit twice");
}

#[tokio::test(start_paused = true)]
async fn letters_that_cannot_be_kept_hold_their_batch_and_no_other() {
    let stage = stage(30, reading(|_, r| at_once(partial(r, &[3], &[]))));
    stage.drawer.refusals.store(5, Ordering::SeqCst);
    sleep(Duration::from_millis(40)).await;
    assert_eq!((stage.queue.settled(), stage.drawer.of(true).len()), (20, 0));
    sleep(HOUR).await;
    stage.check();
    assert_eq!((stage.queue.settled(), stage.drawer.of(true)), (30, vec![3]));
    assert_eq!(stage.receiver.sent().len(), 4, "nothing is sent again for it");
    assert!(stage.delivery.stats_of("d").unwrap().last_error.unwrap().contains("read-only"));
}

/// Before, the batch was there again at once, to go the same way: a circle without a wait.
#[tokio::test(start_paused = true)]
async fn a_batch_whose_letters_panic_comes_again_after_a_wait_and_holds_no_other() {
    let stage = stage_on(Script::with_records(30), reading(|_, r| at_once(partial(r, &[3], &[]))), None);
    stage.queue.with(|state| state.letters_panic = 1_000);
    sleep(SECOND * 10).await;
    assert_eq!((stage.queue.settled(), stage.drawer.of(true).len()), (20, 0));
    let asked = stage.queue.with(|state| state.letters_asked);
    assert!((2..40).contains(&asked), "{asked} times in ten seconds");
    assert!(stage.delivery.stats_of("d").unwrap().last_error.unwrap().contains("told to panic over letters"));
    stage.queue.with(|state| state.letters_panic = 0);
    sleep(HOUR).await;
    stage.check();
    assert_eq!((stage.queue.settled(), stage.drawer.of(true)), (30, vec![3]));
}

#[tokio::test(start_paused = true)]
async fn a_sink_that_knows_what_is_never_taken_leaves_it_out_and_it_is_a_dead_letter() {
    let receiver = Receiver { left_out: Some(12), ..receiver(|_| at_once(Outcome::Delivered)) };
    let stage = stage(13, receiver);
    sleep(SECOND).await;
    stage.check();
    assert_eq!((stage.queue.settled(), stage.drawer.of(true)), (13, vec![12]));
    let sent = stage.receiver.sent();
    assert_eq!(sent.iter().map(|sent| sent.records.clone()).collect::<Vec<_>>(), [(0..10).collect(), vec![10, 11]]);
    let letter = stage.drawer.letters.lock().unwrap()[0].clone();
    assert_eq!((&*letter.reason, letter.attempts), ("told to", 1));
}

#[tokio::test(start_paused = true)]
async fn a_record_that_cannot_be_encoded_is_found_and_becomes_a_dead_letter() {
    let receiver = Receiver { unencodable: Some(17), ..receiver(|_| at_once(Outcome::Delivered)) };
    let stage = stage(30, receiver);
    sleep(HOUR).await;
    stage.check();
    assert_eq!((stage.queue.settled(), stage.drawer.of(true)), (30, vec![17]));
    assert!(stage.drawer.letters.lock().unwrap()[0].reason.contains("cannot encode"));
}

/// A receiver that names so many may be the one that is wrong: what it does not name is delivered, in parts, and of the others no
/// more than may be poison are letters.
#[tokio::test(start_paused = true)]
async fn more_records_than_may_be_poison_are_not_believed_to_be_though_they_are_named() {
    let stage = stage(30, reading(|_, r| at_once(partial(r, &[0, 1, 2, 3, 4, 5, 6, 7], &[]))));
    sleep(HOUR * 24).await;
    stage.check();
    let dead = stage.drawer.of(true);
    assert!(dead.len() <= 3 && dead.iter().all(|offset| *offset < 8), "{dead:?}");
    assert_eq!(stage.queue.settled(), 22 + dead.len() as u64);
}

/// Held records are in nobody's way, and their wait is counted from the answer.
#[tokio::test(start_paused = true)]
async fn a_held_record_says_when_it_may_be_sent() {
    let stage = stage(10, reading(|_, r| at_once(partial(r, &[], &[4]))));
    sleep(SECOND).await;
    stage.check();
    assert_eq!(stage.drawer.letters.lock().unwrap()[0].kind, Kind::Held { not_before_ms: 1_030_000 });
    let sent = stage.receiver.sent();
    assert_eq!((sent.len(), &sent[0].id), (2, &sent[1].id), "the same batch, without it");
    assert_eq!(sent[1].records, [0, 1, 2, 3, 5, 6, 7, 8, 9]);
}

/// The process dies in the middle of a search, again and again: what is found is the same.
#[tokio::test(start_paused = true)]
async fn a_search_that_is_cut_off_goes_on_and_finds_the_same() {
    for cut in 1..12 {
        let queue = Script::with_records(20);
        let answer = |_: usize, r: &[u64]| {
            let outcome = if r.contains(&6) { rejected() } else { Outcome::Delivered };
            Answer::After(SECOND, outcome)
        };
        let first = stage_on(queue.clone(), reading(answer), Some(1));
        sleep(SECOND * cut).await;
        first.delivery.shutdown(Duration::ZERO).await;
        drop(first.delivery);
        sleep(SECOND).await;
        let before: Vec<u64> = first.drawer.of(true);
        let second = stage_on(queue.clone(), reading(answer), Some(1));
        second.drawer.letters.lock().unwrap().extend(first.drawer.letters.lock().unwrap().drain(..));
        sleep(HOUR).await;
        // Whatever shows that the receiver takes something.
        queue.append(1);
        sleep(HOUR).await;
        assert_eq!(second.queue.settled(), 21, "cut after {cut} s, {before:?}");
        assert_eq!(second.drawer.of(true), [6], "cut after {cut} s");
        second.delivery.shutdown(SECOND).await;
    }
}

/// Receivers of random tempers: each record settles once, only poison is dead, and good records are never kept back.
#[tokio::test(start_paused = true)]
async fn whatever_is_answered_every_record_ends_in_one_place() {
    use rand::{RngExt, SeedableRng};
    for seed in 0..60 {
        let mut rng = rand::rngs::SmallRng::seed_from_u64(seed);
        let poison: Vec<u64> = (0..rng.random_range(0..4)).map(|_| rng.random_range(0..200)).collect();
        let named: Vec<u64> = (0..rng.random_range(0..3)).map(|_| rng.random_range(0..200)).collect();
        let held: Vec<u64> = (0..rng.random_range(0..4)).map(|_| rng.random_range(0..200)).collect();
        let held: Vec<u64> = held.into_iter().filter(|at| !named.contains(at)).collect();
        let size_max = rng.random_range(1..12);
        let faults: Vec<u32> = (0..200).map(|_| rng.random_range(0..10)).collect();
        let temper = {
            let (poison, named, held) = (poison.clone(), named.clone(), held.clone());
            move |n: usize, records: &[u64]| {
                let outcome = match faults.get(n) {
                    Some(0) => throttled(Some(SECOND)),
                    Some(1) => refused(),
                    Some(2) => Outcome::Refused { why: status(401) },
                    _ if records.len() > size_max => too_large(),
                    _ if records.iter().any(|at| poison.contains(at)) => rejected(),
                    _ => partial(records, &named, &held),
                };
                Answer::After(Duration::from_millis(n as u64 % 50), outcome)
            }
        };
        let stage = stage(200, reading(temper));
        sleep(HOUR * 24 * 7).await;
        stage.check();
        for dead in stage.drawer.of(true) {
            assert!(poison.contains(&dead) || named.contains(&dead), "seed {seed}: {dead} is good");
        }
        let waits = |at: &u64| !stage.queue.with(|state| state.settled.contains_key(at));
        for at in (0..200).filter(waits) {
            let state = stage.delivery.stats_of("d").unwrap().state;
            let known = poison.contains(&at) || named.contains(&at);
            assert!(known, "seed {seed}: {at} is good and waits, {state:?}, {poison:?} {named:?} {held:?}");
        }
        stage.delivery.shutdown(SECOND).await;
    }
}

/// A queue of the records of two streams, as letters come: offsets do not tell them apart.
struct TwoStreams([Script; 2]);

impl Source for TwoStreams {
    fn has_more(&self) -> bool {
        self.0.iter().any(Source::has_more)
    }

    fn in_memory(&self, _: Limits) -> bool {
        true
    }

    fn next(&self, limits: Limits) -> Result<Option<Claimed>, BoxError> {
        let first = self.0[0].next(limits)?;
        if first.is_some() { Ok(first) } else { self.0[1].next(limits) }
    }

    fn next_large(&self, _: Limits, _: Option<u64>, _: &Heavy) -> Result<Option<Claimed<LargeJob>>, BoxError> {
        Ok(None)
    }

    fn waiting(&self) -> Result<Waiting, BoxError> {
        self.0[0].waiting()
    }

    fn on_more(&self, wake: Arc<dyn Fn() + Send + Sync>) {
        self.0.iter().for_each(|script| script.on_more(Arc::clone(&wake)));
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_known_of_a_batch_is_not_taken_for_another_streams() {
    let drawer = Arc::new(Drawer::default());
    // So the letter of the first is still to be kept when the second is claimed.
    drawer.refusals.store(5, Ordering::SeqCst);
    let delivery =
        delivering(Budget::new(BudgetLimits::default()), Arc::new(ManualClock::at(0)), Arc::clone(&drawer) as _);
    let receiver = Arc::new(receiver(|n| at_once(if n == 0 { partial(&[3], &[3], &[]) } else { Outcome::Delivered })));
    let scripts = [Script::of_stream(1, 10), Script::of_stream(2, 10)];
    let source = Arc::new(TwoStreams(scripts.clone()));
    delivery.start("d", Arc::clone(&receiver) as Arc<dyn Sink>, vec![source], settings()).unwrap();
    sleep(HOUR).await;
    let ids: Vec<String> = receiver.sent().into_iter().map(|sent| sent.id).collect();
    assert_eq!(ids, ["batch-1-0-10", "batch-1-0-10", "batch-2-0-10"]);
    let dead = |script: &Script| {
        let of = |(offset, how): (&u64, &Settled)| (*how == Settled::DeadLettered).then_some(*offset);
        script.with(|state| (state.settled.len(), state.settled.iter().filter_map(of).collect::<Vec<_>>()))
    };
    assert_eq!((dead(&scripts[0]), dead(&scripts[1])), ((10, vec![3]), (10, vec![])));
}

/// What a sink knows by itself was taken for the destination's word: a refusal was over, the waits between its probes began
/// anew, and what was in doubt was held to be proven.
#[tokio::test(start_paused = true)]
async fn what_a_sink_decides_by_itself_is_no_word_of_the_destination() {
    let own = |records: &[u64]| {
        let held = vec![HeldRecord { offset: records[0], wait: HOUR * 9 }];
        let why = Failure::Local("one has to wait".to_owned());
        Outcome::Partial(Partial { rejected: Vec::new(), held, why })
    };
    let refused = || Outcome::Refused { why: status(401) };
    let answer = move |n: usize, records: &[u64]| {
        at_once(if n % 2 == 1 && records.len() > 1 { own(records) } else { refused() })
    };
    let stage = stage(10, reading(answer));
    sleep(Duration::from_secs(600)).await;
    stage.check();
    let (asked, state) = (stage.receiver.sent().len(), stage.delivery.stats_of("d").unwrap().state);
    assert!(matches!(state, State::Refused { .. }), "{state:?}");
    // A probe after half a minute to a minute, and ever more rarely, each with what the sink knows by itself beside it.
    assert!(asked <= 12, "{asked} requests in ten minutes");
}
