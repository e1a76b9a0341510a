//! The policy against receivers that are a line of arithmetic. How it fares in the loop, and what it costs there, the
//! recovery simulation shows.

use proptest::prelude::*;

use super::*;

const RECORDS: u64 = 10;

fn secs(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

fn speed(requests: f64) -> Speed {
    Speed { requests, records: requests * RECORDS as f64 }
}

/// Sends as soon as it may for some seconds; whatever comes faster than `takes` is refused. Returns what was taken and
/// what was refused.
fn send(learned: &mut Learned, now: &mut Duration, seconds: f64, takes: impl Fn(Duration) -> f64) -> (u32, u32) {
    let (end, mut taken, mut refused) = (*now + secs(seconds), 0, 0);
    let (mut room, mut at) = (1.0, *now);
    while *now < end {
        *now = (*now + Duration::from_millis(1)).max(learned.ready_at());
        learned.sending(RECORDS, *now);
        room = (room + (*now - at).as_secs_f64() * takes(*now)).min(2.0);
        at = *now;
        if room >= 1.0 {
            room -= 1.0;
            taken += 1;
            learned.taken(RECORDS, true, *now);
        } else {
            refused += 1;
            learned.asked_to_wait(secs(0.1), true, *now);
            *now += secs(0.1);
        }
    }
    (taken, refused)
}

#[test]
fn nothing_is_limited_before_it_is_asked_for() {
    let mut learned = Learned::default();
    for n in 0..1000 {
        learned.sending(RECORDS, secs(f64::from(n) * 0.01));
        learned.taken(RECORDS, true, secs(f64::from(n) * 0.01));
    }
    assert_eq!((learned.limit(), learned.known(), learned.ready_at()), (None, None, Duration::ZERO));
}

#[test]
fn it_finds_what_is_taken_and_stays_there() {
    let (mut learned, mut now) = (Learned::default(), secs(100.0));
    send(&mut learned, &mut now, 60.0, |_| 50.0);
    let known = learned.known().expect("it was asked to wait");
    assert!((known.requests - 50.0).abs() < 5.0, "{known:?}");
    let (taken, refused) = send(&mut learned, &mut now, 600.0, |_| 50.0);
    assert!(taken > 50 * 600 * 96 / 100 && refused * 50 < taken, "{taken} taken, {refused} refused");
}

#[test]
fn it_follows_up_and_down() {
    let (mut learned, mut now) = (Learned::default(), secs(100.0));
    send(&mut learned, &mut now, 60.0, |_| 50.0);
    for takes in [500.0, 20.0, 80.0] {
        send(&mut learned, &mut now, 60.0, |_| takes);
        let known = learned.known().expect("there is a limit").requests;
        assert!((known / takes - 1.0).abs() < 0.15, "{known} where {takes} are taken");
    }
}

/// Before: nine requests, nine idle minutes, and the tenth refused was taken for a destination that takes one a minute.
#[test]
fn what_was_taken_long_ago_is_no_measure_of_what_is_refused_now() {
    let mut learned = Learned::default();
    for n in 0..9 {
        learned.sending(RECORDS, secs(f64::from(n)));
        learned.taken(RECORDS, true, secs(f64::from(n)));
    }
    learned.asked_to_wait(secs(0.1), true, secs(540.0));
    let known = learned.known().expect("it was asked to wait");
    assert!((known.requests - FIRST_MIN).abs() < 1e-9, "{known:?}");
    assert!((known.records - FIRST_MIN * RECORDS as f64).abs() < 1e-9, "{known:?}");
}

#[test]
fn a_volley_that_is_refused_lowers_it_once() {
    let mut learned = Learned::kept(speed(100.0));
    let mut now = secs(0.0);
    send(&mut learned, &mut now, 10.0, |_| 1e9);
    let before = learned.limit().unwrap().requests;
    learned.asked_to_wait(secs(0.1), true, now);
    let after = learned.limit().unwrap().requests;
    for _ in 0..20 {
        learned.asked_to_wait(secs(0.1), false, now);
    }
    assert!(after < before && learned.limit().unwrap().requests == after);
}

/// Before: an outage that answers 503 for hours halved what was known at each probe, and in the end nothing was left.
#[test]
fn an_outage_that_asks_to_wait_leaves_what_was_known_and_is_climbed_out_of() {
    let (mut learned, mut now) = (Learned::default(), secs(0.0));
    send(&mut learned, &mut now, 120.0, |_| 50.0);
    let known = learned.known().unwrap().requests;
    for _ in 0..1000 {
        learned.asked_to_wait(secs(60.0), true, now);
        now += secs(60.0);
    }
    learned.taken(RECORDS, true, now);
    let back = learned.limit().unwrap().requests;
    assert!(back < known / 3.0, "a part of {known} at first: {back}");
    let (_, refused) = send(&mut learned, &mut now, 10.0, |_| 50.0);
    assert!(refused <= 1 && (learned.known().unwrap().requests / known - 1.0).abs() < 0.1, "{learned:?}");
}

#[test]
fn where_nothing_is_known_an_outage_is_climbed_out_of_and_then_forgotten() {
    let (mut learned, mut now) = (Learned::default(), secs(0.0));
    for _ in 0..5 {
        learned.failed(now);
        now += secs(5.0);
    }
    learned.taken(RECORDS, true, now);
    assert_eq!(learned.limit().map(|limit| limit.requests), Some(CLIMB_REQUESTS * worth_of_one()));
    assert_eq!(learned.known(), None, "that is nothing to be kept");
    // It never sends more than twenty a second by itself.
    for _ in 0..400 {
        now = (now + secs(0.05)).max(learned.ready_at());
        learned.sending(RECORDS, now);
        learned.taken(RECORDS, true, now);
    }
    assert_eq!(learned.limit(), None);
}

/// Before: two records a second, where the first batch after the outage had one, and a batch of a thousand cost minutes.
#[test]
fn a_small_batch_after_an_outage_does_not_hold_up_large_ones() {
    let (mut learned, mut now) = (Learned::default(), secs(0.0));
    for _ in 0..5 {
        learned.failed(now);
        now += secs(5.0);
    }
    let began = now;
    for records in [1, 68].into_iter().chain([1000; 20]) {
        now = now.max(learned.ready_at());
        learned.sending(records, now);
        learned.taken(records, true, now);
    }
    assert!(now - began <= secs(5.0), "twenty thousand records took {:?}", now - began);
}

/// What a receiver of twenty requests a second takes, which asks to wait so long, in so many seconds after an outage: at
/// first a batch of `first` records, then such of a thousand.
fn recovery(first: u64, pause: f64, seconds: f64) -> u64 {
    let (mut learned, mut now) = (Learned::default(), secs(0.0));
    for _ in 0..5 {
        learned.failed(now);
        now += secs(5.0);
    }
    let (mut records, mut taken, mut room, mut at, end) = (first, 0, 5.0, now, now + secs(seconds));
    while now < end {
        now = (now + Duration::from_millis(1)).max(learned.ready_at());
        learned.sending(records, now);
        room = (room + (now - at).as_secs_f64() * 20.0).min(5.0);
        at = now;
        if room >= 1.0 {
            room -= 1.0;
            taken += records;
            learned.taken(records, true, now);
            records = 1000;
        } else {
            learned.asked_to_wait(secs(pause), true, now);
            now += secs(pause);
        }
    }
    taken
}

/// Before: the climb counted requests, but the first refusal went by the records of the first batch: a thousand cost two
/// seconds then, for as long as the limit was held.
#[test]
fn a_small_first_batch_makes_no_difference_where_the_climb_meets_a_limit() {
    for (pause, seconds) in [(1.0, 120.0), (30.0, 900.0)] {
        let (small, large) = (recovery(1, pause, seconds), recovery(1000, pause, seconds));
        assert!(small * 10 > large * 8, "{small} of {large} where each refusal costs {pause} s");
    }
}

/// What the first request after an outage adds.
fn worth_of_one() -> f64 {
    (1.0 / CLIMB_REQUESTS).exp2()
}

#[test]
fn what_was_kept_is_begun_with_in_part() {
    let learned = Learned::kept(speed(40.0));
    assert_eq!(learned.limit(), Some(speed(20.0)));
    assert_eq!(learned.known(), Some(speed(40.0)));
    for unsound in [f64::NAN, 0.0, -1.0, f64::INFINITY] {
        assert_eq!(Learned::kept(Speed { requests: unsound, records: 10.0 }).limit(), None);
    }
}

#[test]
fn small_requests_are_no_more_and_large_ones_no_larger_than_what_was_taken() {
    let (mut learned, mut now) = (Learned::default(), secs(0.0));
    send(&mut learned, &mut now, 60.0, |_| 50.0);
    let limit = learned.limit().unwrap();
    let spacing = |records| {
        let mut learned = learned.clone();
        learned.sending(records, now + secs(60.0));
        (learned.ready_at() - (now + secs(60.0))).as_secs_f64()
    };
    let slack = SLACK.as_secs_f64() + 1e-6;
    assert!((spacing(1) - 1.0 / limit.requests).abs() < slack);
    assert!((spacing(500) - 500.0 / limit.records).abs() < slack);
    assert!((spacing(100_000) - RECORDS_SECONDS).abs() < slack, "of such it knows nothing");
}

/// Before: a record a second was learned of single records, and a batch of five hundred cost five minutes.
#[test]
fn what_single_records_were_refused_for_does_not_hold_up_a_backlog() {
    let (mut learned, mut now) = (Learned::default(), secs(100.0));
    for n in 0..1000 {
        now = (now + secs(0.1)).max(learned.ready_at());
        learned.sending(1, now);
        if n % 2 == 0 {
            learned.taken(1, true, now);
        } else {
            learned.asked_to_wait(secs(0.1), true, now);
        }
    }
    let limit = learned.limit().expect("it was asked to wait");
    assert!(limit.records < 5.0, "{limit:?}");
    let began = now;
    for _ in 0..30 {
        now = now.max(learned.ready_at());
        learned.sending(500, now);
        learned.taken(500, true, now);
    }
    assert!(now - began <= secs(60.0), "fifteen thousand records took {:?}", now - began);
}

#[derive(Debug, Clone)]
enum Event {
    Taken(u64, bool),
    Asked(u64, bool),
    Failed,
    Pause(u64),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => (1u64..100_000, any::<bool>()).prop_map(|(records, current)| Event::Taken(records, current)),
        2 => (0u64..100_000, any::<bool>()).prop_map(|(ms, current)| Event::Asked(ms, current)),
        1 => Just(Event::Failed),
        2 => (0u64..1_000_000).prop_map(Event::Pause),
    ]
}

proptest! {
    /// Whatever is answered: the limit can be kept to, and a request starts again in time.
    #[test]
    fn no_history_ends_in_a_limit_that_lets_nothing_through(
        kept in proptest::option::of(0.02f64..1e9),
        events in proptest::collection::vec(event(), 1..300),
    ) {
        let mut learned = kept.map_or_else(Learned::default, |requests| Learned::kept(speed(requests)));
        let mut now = secs(1.0);
        for event in events {
            match event {
                Event::Taken(records, current) => {
                    now = now.max(learned.ready_at());
                    learned.sending(records, now);
                    let wait = learned.ready_at().saturating_sub(now);
                    prop_assert!(wait <= Duration::from_secs(24 * 3600), "{wait:?}");
                    learned.taken(records, current, now);
                }
                Event::Asked(ms, current) => learned.asked_to_wait(Duration::from_millis(ms), current, now),
                Event::Failed => learned.failed(now),
                Event::Pause(ms) => now += Duration::from_millis(ms),
            }
            if let Some(limit) = learned.limit() {
                prop_assert!(limit.requests.is_finite() && limit.requests > 0.0);
                prop_assert!(limit.records > 0.0);
            }
            prop_assert!(learned.known().is_none_or(Speed::is_sound));
        }
    }
}
