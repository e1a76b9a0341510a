use super::*;

fn status(status: u16) -> Outcome {
    Outcome::Retry { why: Failure::status(status) }
}

fn count(snapshot: &Snapshot, name: &str) -> u64 {
    snapshot.failures[CLASSES.iter().position(|class| *class == name).unwrap()]
}

#[test]
fn every_failure_is_counted_under_its_own_name() {
    let stats = DeliveryStats::default();
    for code in [100, 301, 404, 429, 500, 502, 503, 999] {
        stats.failed(&status(code), 1);
    }
    for why in [Failure::Timeout, Failure::Connect("x".into()), Failure::Broken("x".into())] {
        stats.failed(&Outcome::Retry { why }, 1);
    }
    stats.failed(&Outcome::Retry { why: Failure::Disk("full".into()) }, 2);
    stats.failed(&Outcome::Retry { why: Failure::Panic("oh".into()) }, 2);
    stats.failed(&Outcome::Retry { why: Failure::Local("no plan".into()) }, 3);
    let snapshot = stats.snapshot();
    let counts: Vec<u64> = CLASSES.iter().map(|class| count(&snapshot, class)).collect();
    assert_eq!(counts, [1, 1, 1, 2, 1, 2, 1, 2, 1, 1, 1]);
    assert_eq!(snapshot.failures_in_a_row, 14);
    assert_eq!((snapshot.last_error.as_deref(), snapshot.last_error_ms), (Some("no plan"), Some(3)));
}

#[test]
fn a_success_ends_the_row_and_keeps_the_last_error() {
    let stats = DeliveryStats::default();
    let fresh = stats.snapshot();
    assert_eq!((fresh.last_success_ms, fresh.last_error_ms), (None, None));
    assert_eq!(stats.failed(&status(500), 1_200), 1);
    stats.delivered(10, 1234);
    let snapshot = stats.snapshot();
    assert_eq!((snapshot.failures_in_a_row, snapshot.delivered_records), (0, 10));
    assert_eq!(snapshot.last_success_ms, Some(1234));
    assert_eq!((snapshot.last_error.as_deref(), snapshot.last_error_ms), (Some("answered 500"), Some(1_200)));
}

#[test]
fn a_long_error_is_cut_at_a_character() {
    let stats = DeliveryStats::default();
    stats.failed(&Outcome::Retry { why: Failure::Connect("ä".repeat(100_000)) }, 1);
    let text = stats.snapshot().last_error.unwrap();
    assert!(text.len() <= ERROR_TEXT_MAX + '…'.len_utf8() && text.ends_with('…'));
}

#[test]
fn what_is_waited_for_and_what_was_learned_read_back_as_they_were_set() {
    let stats = DeliveryStats::default();
    let rates = [By::Operator, By::Learned, By::Told].map(Waits::Rate);
    for waits in rates.into_iter().chain([Waits::Answers, Waits::Share, Waits::Nothing]) {
        stats.set_waits(waits);
        assert_eq!(stats.snapshot().waits, waits);
    }
    let speed = Speed { requests: 3.0, records: 30.0 };
    for learned in [None, Some(Learned { now: speed, known: Some(speed) }), None] {
        stats.set_rate(learned.map(|learned| learned.now), learned.and_then(|learned| learned.known));
        assert_eq!(stats.snapshot().learned, learned);
    }
}

#[test]
fn what_was_counted_before_is_counted_on_from() {
    let before = DeliveryStats::default();
    before.sending(100);
    before.delivered(10, 77);
    before.failed(&Outcome::Throttled { retry_after: None, why: Failure::Timeout }, 78);
    before.kept(2, 3);
    before.set_in_flight(4);
    before.set_state(State::Stopped);
    let (counted, after) = (before.snapshot(), DeliveryStats::default());
    after.go_on_from(counted.clone());
    let expected = Snapshot { state: State::Idle, asked_to_wait: false, failures_in_a_row: 0, in_flight: 0, ..counted };
    assert_eq!(after.snapshot(), expected);
    let untroubled = DeliveryStats::default();
    untroubled.go_on_from(DeliveryStats::default().snapshot());
    assert!(untroubled.troubles.get().is_none(), "an idle one costs what it did");
}

#[test]
fn a_state_reads_back_as_it_was_set() {
    let stats = DeliveryStats::default();
    let (backoff, refused) = (State::Backoff { until_ms: 77 }, State::Refused { until_ms: 78 });
    for state in [State::Sending, backoff, refused, State::Stopped, State::Paused, State::Idle] {
        stats.set_state(state);
        assert_eq!(stats.snapshot().state, state);
    }
}
