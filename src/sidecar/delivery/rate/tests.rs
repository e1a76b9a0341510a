//! What an operator allows, and what answers say.

use proptest::prelude::*;

use super::*;

fn limits(requests: u32, records: u32, bytes: u64) -> RateLimits {
    RateLimits { requests: NonZeroU32::new(requests), records: NonZeroU32::new(records), bytes: NonZeroU64::new(bytes) }
}

fn size(records: u64, bytes: u64) -> Size {
    Size { records, bytes }
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn what_is_not_limited_waits_for_nothing() {
    let mut rate = Rate::default();
    (0..1000).for_each(|_| rate.sending(size(1000, 1 << 20), SECOND));
    assert_eq!(rate.ready_at().0, Duration::ZERO);
}

#[test]
fn the_tightest_limit_is_what_is_waited_for() {
    let now = SECOND * 100;
    let at = |limits, size| {
        let mut rate = Rate::new(limits, None);
        (0..20).for_each(|_| rate.sending(size, now));
        assert_eq!(rate.ready_at().1, By::Operator);
        (rate.ready_at().0 - now).as_millis()
    };
    assert_eq!(at(limits(10, 0, 0), size(1, 1)), 1_100, "ten at once, and eleven more to wait for");
    assert_eq!(at(limits(10, 100, 0), size(10, 1)), 1_100);
    assert_eq!(at(limits(10, 50, 0), size(10, 1)), 3_200);
    assert_eq!(at(limits(0, 0, 1000), size(1, 500)), 9_500);
}

#[test]
fn a_batch_is_no_larger_than_what_a_second_allows() {
    let own = Limits { records_max: 1000, bytes_max: 1 << 20 };
    assert_eq!(RateLimits::default().batch(own), own);
    assert_eq!(limits(1, 300, 2000).batch(own), Limits { records_max: 300, bytes_max: 2000 });
    assert_eq!(limits(1, 5000, 1 << 30).batch(own), own);
}

#[test]
fn what_the_destination_says_is_left_is_sent_and_no_more_until_it_says_otherwise() {
    let mut rate = Rate::default();
    rate.told(2, SECOND * 60);
    for _ in 0..2 {
        assert_eq!(rate.ready_at().0, Duration::ZERO);
        rate.sending(size(1, 1), SECOND);
    }
    assert_eq!(rate.ready_at(), (SECOND * 60, By::Told));
    rate.told(5, SECOND * 60);
    assert_eq!(rate.ready_at().0, Duration::ZERO);
    rate.told(0, SECOND * 60);
    rate.sending(size(1, 1), SECOND * 61);
    assert_eq!(rate.ready_at().0, Duration::ZERO, "that time is over");
    rate.told(0, SECOND * 90);
    rate.probe(SECOND * 61);
    assert_eq!(rate.ready_at().0, Duration::ZERO, "an operator knows better");
}

#[test]
fn who_probes_waits_for_nothing_that_was_learned_but_for_what_the_operator_set() {
    let slow = Speed { requests: 1.0 / 50.0, records: 1.0 };
    let mut rate = Rate::new(RateLimits::default(), Some(slow));
    rate.sending(size(1, 1), SECOND);
    assert_eq!(rate.ready_at().1, By::Learned);
    assert!(rate.ready_at().0 > SECOND * 60);
    rate.probe(SECOND * 2);
    assert!(rate.ready_at().0 <= SECOND * 2);
    let mut rate = Rate::new(limits(0, 1, 0), None);
    rate.sending(size(30, 1), SECOND);
    let before = rate.ready_at();
    rate.probe(SECOND * 2);
    assert_eq!((rate.ready_at(), before.1), (before, By::Operator));
}

proptest! {
    /// Whoever sends as soon as the rate lets it: within any span no more than its seconds' worth and one second's more;
    /// what is larger than a second's worth goes alone. And it always goes on.
    #[test]
    fn no_span_holds_more_than_its_seconds_and_one_more(
        requests in 1u32..50,
        records in 1u32..5_000,
        sends in proptest::collection::vec((0u64..500, 1u64..5_000), 1..80),
    ) {
        let limits = limits(requests, records, 0);
        let (mut rate, mut now) = (Rate::new(limits, None), SECOND * 100);
        let mut sent: Vec<(Duration, u64)> = Vec::new();
        for (pause, wanted) in sends {
            now += Duration::from_millis(pause);
            prop_assert!(rate.ready_at().0.saturating_sub(now) <= SECOND * 2, "it waits for one batch at most");
            now = now.max(rate.ready_at().0);
            let batch = limits.batch(Limits { records_max: wanted, bytes_max: u64::MAX });
            rate.sending(size(batch.records_max, 1), now);
            sent.push((now, batch.records_max));
        }
        for from in 0..sent.len() {
            let mut sum = 0;
            for (n, (at, of)) in (1u64..).zip(&sent[from..]) {
                sum += of;
                let seconds = (*at - sent[from].0).as_secs_f64() + 1.0 + 1e-6;
                prop_assert!(n as f64 <= (seconds * f64::from(requests)).max(1.0) + 1e-6, "{n} requests in {seconds} s");
                prop_assert!(sum as f64 <= seconds * f64::from(records) + *of as f64, "{sum} records in {seconds} s");
            }
        }
    }
}
