//! The loop at a rate: an operator's, one that answers tell, one that was learned; and in order.

use std::num::{NonZeroU32, NonZeroU64};

use super::*;
use crate::delivery::KnownRate;
use crate::delivery::outcome::{HeldRecord, Partial};
use crate::delivery::rate::learned::Speed;
use crate::delivery::rate::{By, RateLimits};
use crate::delivery::stats::Waits;

fn start_with(delivery: &Delivery, receiver: Receiver, queue: &Script, settings: Settings) -> Arc<Receiver> {
    let receiver = Arc::new(receiver);
    delivery.start("d", Arc::clone(&receiver) as Arc<dyn Sink>, vec![Arc::new(queue.clone())], settings).unwrap();
    receiver
}

fn at_rate(requests: u32, records: u32, bytes: u64) -> Settings {
    let limits = RateLimits {
        requests: NonZeroU32::new(requests),
        records: NonZeroU32::new(records),
        bytes: NonZeroU64::new(bytes),
    };
    Settings { rate: Some(Box::new(KnownRate { limits, learned: None })), ..settings() }
}

/// How many of what each second held.
fn by_second(receiver: &Receiver, of: impl Fn(&Sent) -> u64) -> Vec<u64> {
    let mut seconds = Vec::new();
    for sent in receiver.sent() {
        let second = sent.at.as_secs() as usize;
        seconds.resize(seconds.len().max(second + 1), 0);
        seconds[second] += of(&sent);
    }
    seconds
}

#[tokio::test(start_paused = true)]
async fn an_operators_rate_is_kept_to_and_used_up() {
    let requests: fn(&Sent) -> u64 = |_| 1;
    let records: fn(&Sent) -> u64 = |sent| sent.offsets.end - sent.offsets.start;
    // Requests of ten records, of a thousand bytes each.
    for (settings, of, a_second) in
        [(at_rate(5, 0, 0), requests, 5), (at_rate(0, 30, 0), records, 30), (at_rate(0, 0, 4000), requests, 4)]
    {
        let (delivery, queue) = (delivery(), Script::with_records(10_000));
        let receiver = start_with(&delivery, receiver(|_| at_once(Outcome::Delivered)), &queue, settings);
        sleep(Duration::from_millis(20_500)).await;
        assert_eq!(delivery.stats_of("d").unwrap().waits, Waits::Rate(By::Operator));
        assert_eq!(delivery.stats_of("d").unwrap().state, State::Sending);
        let seconds = by_second(&receiver, of);
        assert!(seconds[0] <= 2 * a_second, "a second's worth at once: {seconds:?}");
        assert!(seconds[1..20].iter().all(|n| n.abs_diff(a_second) <= 10.min(a_second / 3)), "{seconds:?}");
        let sum: u64 = seconds[..20].iter().sum();
        assert!((20 * a_second..=21 * a_second).contains(&sum), "{sum} in twenty seconds: {seconds:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_batch_is_no_larger_than_a_second_of_its_rate() {
    let (delivery, queue) = (delivery(), Script::with_records(100));
    let receiver = start_with(&delivery, receiver(|_| at_once(Outcome::Delivered)), &queue, at_rate(0, 3, 0));
    sleep(HOUR).await;
    assert_eq!(queue.settled(), 100);
    assert!(receiver.sent().iter().all(|sent| sent.records.len() <= 3));
}

#[tokio::test(start_paused = true)]
async fn what_an_answer_says_is_left_is_sent_and_then_the_reset_is_waited_for() {
    let (delivery, queue) = (delivery(), Script::with_records(1000));
    let receiver = start_with(&delivery, receiver(|_| at_once(Outcome::Delivered)), &queue, settings());
    *receiver.told.lock().unwrap() = Some(Told { requests: 3, until: Instant::now() + SECOND * 60 });
    sleep(SECOND * 59).await;
    assert_eq!(receiver.sent().len(), 4, "the one that told, and three more");
    let snapshot = delivery.stats_of("d").unwrap();
    assert!(matches!(snapshot.state, State::Backoff { .. }) && snapshot.asked_to_wait, "{snapshot:?}");
    assert_eq!(snapshot.waits, Waits::Rate(By::Told));
    sleep(SECOND * 2).await;
    assert_eq!(queue.settled(), 1000);
    assert_eq!(delivery.stats_of("d").unwrap().failures.iter().sum::<u64>(), 0, "nothing failed");
}

#[tokio::test(start_paused = true)]
async fn an_operator_who_probes_does_not_wait_for_what_an_answer_said() {
    let (delivery, queue) = (delivery(), Script::with_records(100));
    let receiver = start_with(&delivery, receiver(|_| at_once(Outcome::Delivered)), &queue, settings());
    *receiver.told.lock().unwrap() = Some(Told { requests: 0, until: Instant::now() + HOUR });
    sleep(SECOND * 60).await;
    assert_eq!(receiver.sent().len(), 1);
    delivery.probe("d");
    sleep(SECOND).await;
    assert_eq!(queue.settled(), 100);
}

/// Before: where each life sent one batch, it was always one of the same environment.
#[tokio::test(start_paused = true)]
async fn after_each_start_another_queue_may_be_the_first() {
    let mut first = [0; 2];
    for _ in 0..64 {
        let queues = [Script::with_records(10), Script::with_records(10)];
        let (budget, clock) = (Budget::new(BudgetLimits::default()), Arc::new(ManualClock::at(0)));
        let delivery = Delivery::new(budget, clock, Arc::new(NoParking)); // by chance
        let one = receiver(|n| if n == 0 { at_once(Outcome::Delivered) } else { Answer::Hang });
        let sources = queues.iter().map(|queue| Arc::new(queue.clone()) as Arc<dyn Source>).collect();
        let alone = Settings { concurrency_max: 1, ..settings() };
        delivery.start("d", Arc::new(one), sources, alone).unwrap();
        sleep(SECOND).await;
        assert_eq!(queues[0].settled() + queues[1].settled(), 10);
        first[usize::from(queues[1].settled() > 0)] += 1;
    }
    assert!(first.iter().all(|times| *times > 0), "{first:?}");
}

/// Takes twenty requests a second and no more.
fn twenty_a_second() -> Receiver {
    let (began, last) = (Instant::now(), AtomicU64::new(0));
    receiver(move |_| {
        let now = began.elapsed().as_millis() as u64;
        let last_at = last.load(Ordering::SeqCst);
        let taken = last_at == 0 || now >= last_at + 50;
        if taken {
            last.store(now, Ordering::SeqCst);
        }
        Answer::After(Duration::from_millis(20), if taken { Outcome::Delivered } else { throttled(None) })
    })
}

#[tokio::test(start_paused = true)]
async fn what_was_learned_is_shown_and_begun_with_in_part_the_next_time() {
    // Chance is the same each time: the receiver forgives no millisecond.
    let clock = Arc::new(ManualClock::at(1_000_000));
    let delivery = Delivery::beginning_with(Budget::new(BudgetLimits::default()), clock, Arc::new(NoParking), Some(1));
    let queue = Script::with_records(100_000);
    start_with(&delivery, twenty_a_second(), &queue, settings());
    sleep(SECOND * 60).await;
    let before = delivery.stats_of("d").unwrap();
    let learned = before.learned.expect("it was asked to wait");
    let known = learned.known.expect("by now");
    assert!((known.requests - 20.0).abs() < 2.0 && (known.records - 200.0).abs() < 20.0, "{known:?}");
    delivery.stop("d", SECOND).await;
    let rate = KnownRate { learned: Some(known), ..KnownRate::default() };
    let receiver =
        start_with(&delivery, twenty_a_second(), &queue, Settings { rate: Some(Box::new(rate)), ..settings() });
    sleep(SECOND * 5).await;
    let snapshot = delivery.stats_of("d").unwrap();
    let throttled = snapshot.throttled - before.throttled;
    assert!(throttled <= 3, "it knows, and looks for more: {throttled}");
    let seconds = by_second(&receiver, |_| 1);
    assert!(seconds[0] < 17 && seconds[4] > 17, "it climbs: {seconds:?}");
}

#[tokio::test(start_paused = true)]
async fn a_speed_that_cannot_be_is_not_believed() {
    let (delivery, queue) = (delivery(), Script::with_records(1000));
    let learned = Some(Speed { requests: f64::NAN, records: -3.0 });
    let rate = KnownRate { learned, ..KnownRate::default() };
    start_with(
        &delivery,
        receiver(|_| at_once(Outcome::Delivered)),
        &queue,
        Settings { rate: Some(Box::new(rate)), ..settings() },
    );
    sleep(SECOND).await;
    assert_eq!(queue.settled(), 1000);
}

#[tokio::test(start_paused = true)]
async fn in_order_one_is_in_flight_and_what_failed_or_was_split_comes_before_what_is_behind_it() {
    let (delivery, queue) = (delivery(), Script::with_records(200));
    // The third fails twice, and batches of ten records are too large from the fifth on.
    let answer = |n: usize, records: &[u64]| {
        let outcome = match n {
            2 | 3 => refused(),
            _ if n > 4 && records.len() > 5 => Outcome::TooLarge { why: Failure::status(413) },
            _ => Outcome::Delivered,
        };
        Answer::After(Duration::from_millis(n as u64 * 7 % 30), outcome)
    };
    let ordered = Settings { ordered: true, concurrency_max: 8, ..settings() };
    let receiver = start_with(&delivery, reading(answer), &queue, ordered);
    sleep(HOUR).await;
    assert_eq!(queue.settled(), 200);
    assert_eq!(receiver.in_flight_max.load(Ordering::SeqCst), 1);
    let sent = receiver.sent();
    let mut taken = Vec::new();
    for (n, sent) in sent.iter().enumerate() {
        if !matches!(n, 2 | 3) && (n <= 4 || sent.records.len() <= 5) {
            taken.extend(sent.records.iter().copied());
        }
    }
    assert_eq!(taken, (0..200).collect::<Vec<_>>());
}

/// Letters are kept while others would go on.
#[tokio::test(start_paused = true)]
async fn in_order_nothing_passes_a_batch_whose_letters_are_being_kept() {
    let (delivery, queue) = (delivery(), Script::with_records(40));
    let answer = |n: usize, records: &[u64]| {
        let why = Failure::status(429);
        let held = vec![HeldRecord { offset: records[0], wait: SECOND }];
        at_once(match n {
            0 => Outcome::Partial(Partial { rejected: Vec::new(), held, why }),
            _ => Outcome::Delivered,
        })
    };
    // Nobody keeps letters here, so the first batch waits for ever.
    let receiver = start_with(&delivery, reading(answer), &queue, Settings { ordered: true, ..settings() });
    sleep(SECOND * 30).await;
    let sent: Vec<u64> = receiver.sent().iter().map(|sent| sent.records.len() as u64).collect();
    assert_eq!((sent, queue.settled()), (vec![10, 9], 0));
}
