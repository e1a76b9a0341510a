use super::*;
use crate::delivery::backoff::CAP;
use crate::delivery::outcome::Failure;
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
