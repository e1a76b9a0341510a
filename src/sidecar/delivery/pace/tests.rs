use super::*;
use crate::delivery::backoff::CAP;
use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::SmallRng;

const HOUR: Duration = Duration::from_secs(3600);

fn retry() -> Outcome {
    Outcome::Retry { why: Failure::Timeout }
}

fn throttled(retry_after: Option<Duration>) -> Outcome {
    Outcome::Throttled { retry_after, why: Failure::Timeout }
}

fn rng() -> SmallRng {
    SmallRng::seed_from_u64(3)
}

#[test]
fn a_named_moment_is_kept_to_the_second_and_jitter_only_adds() {
    let mut pace = Pace::new(4);
    pace.heard(&throttled(Some(HOUR)), pace.epoch(), Duration::from_secs(10), &mut rng());
    let Verdict::NotBefore(until) = pace.verdict(Duration::from_secs(10), 0) else { panic!("it may start") };
    assert!(until >= Duration::from_secs(10) + HOUR);
    assert!(until <= Duration::from_secs(11) + HOUR);
    assert_eq!(pace.verdict(until, 0), Verdict::Start);
}

#[test]
fn a_success_sent_before_a_throttle_does_not_lift_it() {
    let mut pace = Pace::new(4);
    let early = pace.epoch();
    pace.heard(&throttled(Some(HOUR)), early, Duration::ZERO, &mut rng());
    pace.heard(&Outcome::Delivered, early, Duration::ZERO, &mut rng());
    assert!(pace.failing());
    assert!(matches!(pace.verdict(HOUR / 2, 0), Verdict::NotBefore(_)));
}

#[test]
fn a_volley_that_fails_together_counts_once_but_the_longest_wait_holds() {
    let mut pace = Pace::new(8);
    let early = pace.epoch();
    for _ in 0..7 {
        pace.heard(&retry(), early, Duration::ZERO, &mut rng());
    }
    assert_eq!(pace.failures(), 1);
    pace.heard(&throttled(Some(HOUR)), early, Duration::ZERO, &mut rng());
    assert!(matches!(pace.verdict(HOUR - Duration::from_secs(1), 0), Verdict::NotBefore(_)));
}

/// A loop that panicked is told nothing twice: the destination asked for that hour, whatever became of the loop.
#[test]
fn one_that_is_begun_anew_keeps_to_the_moment_it_was_told_and_hears_nothing_of_before() {
    let mut pace = Pace::new(4);
    pace.heard(&throttled(Some(HOUR)), pace.epoch(), Duration::ZERO, &mut rng());
    let (before, old) = (pace.verdict(Duration::ZERO, 0), pace.epoch());
    let mut anew = pace.anew();
    assert_eq!(anew.verdict(Duration::ZERO, 0), before);
    assert_eq!((anew.failing(), anew.failures()), (false, 0));
    assert!(anew.epoch() != old);
    let Verdict::NotBefore(until) = before else { panic!("it may start") };
    assert_eq!(anew.verdict(until, 0), Verdict::Start);
    anew.heard(&throttled(Some(2 * HOUR)), old, Duration::ZERO, &mut rng());
    assert!(!anew.failing(), "what was started before is told apart");
}

fn refused() -> Outcome {
    Outcome::Refused { why: Failure::Timeout }
}

fn rejected() -> Outcome {
    Outcome::Rejected { why: Failure::Timeout }
}

#[test]
fn who_refuses_is_probed_in_a_minute_and_then_ever_more_rarely() {
    let (mut pace, mut rng, mut now, mut waits) = (Pace::new(4), rng(), Duration::ZERO, Vec::new());
    for _ in 0..7 {
        assert_eq!(pace.verdict(now, 0), Verdict::Start);
        pace.heard(&refused(), pace.epoch(), now, &mut rng);
        let Verdict::NotBefore(until) = pace.verdict(now, 0) else { panic!("it may start") };
        waits.push(until - now);
        now = until;
    }
    for (nth, wait) in waits.into_iter().enumerate() {
        let span = PROBE_CAP.min(PROBE_FIRST * (1 << nth));
        assert!(wait >= span / 2 && wait <= span, "{nth}: {wait:?}");
    }
    pace.heard(&Outcome::Delivered, pace.epoch(), now, &mut rng);
    assert!(!pace.refused() && pace.verdict(now, 0) == Verdict::Start);
}

#[test]
fn an_answer_about_records_ends_a_refusal_that_was_told_but_not_one_by_rejections() {
    let mut pace = Pace::new(4);
    pace.heard(&refused(), pace.epoch(), Duration::ZERO, &mut rng());
    pace.heard(&rejected(), pace.epoch(), Duration::ZERO, &mut rng());
    assert!(!pace.refused());
    pace.refuse(Refusal::Rejects, Duration::ZERO, &mut rng());
    pace.heard(&rejected(), pace.epoch(), HOUR, &mut rng());
    assert!(pace.refused() && matches!(pace.verdict(HOUR, 0), Verdict::NotBefore(_)));
    pace.probe(HOUR);
    assert_eq!(pace.verdict(HOUR, 0), Verdict::Start);
}

#[test]
fn an_answer_about_records_is_no_failure() {
    let mut pace = Pace::new(4);
    pace.heard(&retry(), pace.epoch(), Duration::ZERO, &mut rng());
    pace.heard(&rejected(), pace.epoch(), HOUR, &mut rng());
    assert_eq!((pace.failing(), pace.failures(), pace.verdict(HOUR, 0)), (false, 0, Verdict::Start));
}

#[derive(Debug, Clone)]
enum Event {
    Rejected,
    Refused,
    Delivered,
    Retry,
    Throttled(Option<u64>),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        Just(Event::Delivered),
        Just(Event::Retry),
        Just(Event::Rejected),
        Just(Event::Refused),
        proptest::option::of(0u64..10_000).prop_map(Event::Throttled),
    ]
}

proptest! {
    /// Against any sequence of answers: one probe while failing, never before a named moment, never stuck.
    #[test]
    fn no_request_starts_before_its_time(seed: u64, events in proptest::collection::vec(event(), 1..60)) {
        let mut rng = SmallRng::seed_from_u64(seed);
        let mut pace = Pace::new(4);
        let mut now = Duration::ZERO;
        let mut named = Duration::ZERO;
        for event in events {
            if let Verdict::NotBefore(until) = pace.verdict(now, 0) {
                prop_assert!(until >= named);
                prop_assert!(until <= named.max(now) + CAP.max(PROBE_CAP), "the wait ends");
                now = until;
            }
            prop_assert_eq!(pace.verdict(now, 0), Verdict::Start);
            prop_assert!(!pace.failing() || pace.verdict(now, 1) == Verdict::Full);
            let outcome = match event {
                Event::Delivered => Outcome::Delivered,
                Event::Retry => retry(),
                Event::Rejected => rejected(),
                Event::Refused => refused(),
                Event::Throttled(seconds) => {
                    let wait = seconds.map(Duration::from_secs);
                    named = named.max(now + wait.unwrap_or_default());
                    throttled(wait)
                }
            };
            pace.heard(&outcome, pace.epoch(), now, &mut rng);
        }
    }
}

fn status(status: u16, retry_after: Option<Duration>) -> Outcome {
    Outcome::Throttled { retry_after, why: Failure::status(status) }
}

/// A pace that has sent a while, one request after the other, to who took them all.
fn in_full_swing(now: &mut Duration) -> Pace {
    let mut pace = Pace::new(4);
    for _ in 0..100 {
        pace.sending(Size { records: 10, bytes: 1000 }, *now);
        *now += Duration::from_millis(20);
        pace.heard(&Outcome::Delivered, pace.epoch(), *now, &mut rng());
        pace.taken(10, Duration::from_millis(20), pace.epoch(), *now);
    }
    pace
}

#[test]
fn a_429_speaks_of_the_rate_and_a_bare_503_of_the_destination() {
    for (outcome, of_rate) in [
        (status(429, None), true),
        (status(503, Some(Duration::from_secs(1))), true),
        (status(429, Some(Duration::ZERO)), true),
        (status(503, None), false),
        (retry(), false),
    ] {
        let mut now = HOUR;
        let mut pace = in_full_swing(&mut now);
        let allowed = pace.concurrency.allowed();
        pace.heard(&outcome, pace.epoch(), now, &mut rng());
        assert_eq!(pace.learned().is_some(), of_rate, "{outcome:?}");
        pace.heard(&Outcome::Delivered, pace.epoch(), now + HOUR, &mut rng());
        assert_eq!(pace.concurrency.allowed() == allowed, of_rate, "{outcome:?}: half, or all of it again");
    }
}

#[test]
fn who_knows_the_rate_answers_a_429_by_going_slower_and_not_by_a_pause() {
    let mut now = HOUR;
    let mut pace = in_full_swing(&mut now);
    pace.heard(&status(429, None), pace.epoch(), now, &mut rng());
    assert!(matches!(pace.verdict(now, 0), Verdict::NotBefore(_)), "nothing was known yet");
    now += Duration::from_secs(60);
    pace.sending(Size { records: 10, bytes: 1000 }, now);
    pace.heard(&Outcome::Delivered, pace.epoch(), now, &mut rng());
    pace.taken(10, Duration::from_millis(20), pace.epoch(), now);
    pace.heard(&status(429, None), pace.epoch(), now, &mut rng());
    let Verdict::Paced(until, By::Learned) = pace.verdict(now, 0) else { panic!("{:?}", pace.verdict(now, 0)) };
    assert!(until - now < Duration::from_millis(100));
    pace.heard(&status(429, None), pace.epoch(), until, &mut rng());
    assert!(matches!(pace.verdict(until, 0), Verdict::NotBefore(_)), "asked again, it waits");
}

#[test]
fn what_an_operator_allows_is_waited_for_and_said_so() {
    let limits = RateLimits { requests: std::num::NonZeroU32::new(2), ..RateLimits::default() };
    let mut pace = Pace::with(4, limits, None);
    for _ in 0..2 {
        assert_eq!(pace.verdict(HOUR, 0), Verdict::Start);
        pace.sending(Size { records: 10, bytes: 1000 }, HOUR);
    }
    assert_eq!(pace.verdict(HOUR, 0), Verdict::Paced(HOUR + Duration::from_millis(500), By::Operator));
}
