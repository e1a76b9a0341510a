//! What a board shows of queues and deliveries that are made up.

use std::sync::atomic::{AtomicU64, Ordering};

use forebay::clock::ManualClock;
use forebay::{Balance, Count};

use super::super::disk_shares::EnvironmentOnDisk;
use super::super::messages;
use super::*;

fn count(records: u64) -> Count {
    Count { records, bytes: records * 100 }
}

fn queue(destination: &str, accepted: u64, delivered: u64) -> QueueReading {
    QueueReading {
        destination: destination.into(),
        stream: "acme-prod".into(),
        lag: forebay::Lag { records: accepted - delivered, ..forebay::Lag::default() },
        balance: Balance {
            accepted: count(accepted),
            delivered: count(delivered),
            pending: count(accepted - delivered),
            ..Balance::default()
        },
        ..QueueReading::default()
    }
}

fn key(destination: &str) -> Key {
    (destination.into(), "acme-prod".into())
}

/// A board of these, beside nothing else.
fn board(clock: ManualClock, queues: Each<QueueReading>, deliveries: Source<Vec<DeliveryReading>>) -> LagBoard {
    LagBoard::new(Arc::new(clock), queues, deliveries, Box::new(Sheets::new), Box::new(DiskReading::default))
}

/// A queue to which 100 records a second come and from which 300 go, on top of a backlog of 10,000.
fn draining(clock: &ManualClock) -> Each<QueueReading> {
    let clock = clock.clone();
    Box::new(move |each| {
        let seconds = clock.wall_ms() / 1_000;
        each(queue("hook", 10_000 + 100 * seconds, 300 * seconds));
    })
}

#[test]
fn rates_and_forecast_follow_from_readings_a_second_apart() {
    let clock = ManualClock::at(0);
    let board = board(clock.clone(), draining(&clock), Box::new(|| vec![delivery(DeliveryState::Delivering)]));
    assert_eq!(board.reading().lags[&key("hook")].forecast, Forecast::Unknown);
    for _ in 0..10 {
        clock.advance(Duration::from_secs(1));
        let _ = board.reading();
    }
    let reading = board.reading();
    let lag = &reading.lags[&key("hook")];
    assert_eq!(reading.at_unix_ms, 10_000);
    assert!((lag.arrived_per_second.unwrap() - 100.0).abs() < 1e-6);
    assert!((lag.delivered_per_second.unwrap() - 300.0).abs() < 1e-6);
    let Forecast::DrainsIn(time) = lag.forecast else { panic!("{:?}", lag.forecast) };
    assert!((time.as_secs_f64() - 40.0).abs() < 1e-3, "8,000 records at 200 a second: {time:?}");
}

#[test]
fn rates_are_fed_though_nobody_looks_and_nothing_else_is_kept() {
    let clock = ManualClock::at(0);
    let board = board(clock.clone(), draining(&clock), Box::new(Vec::new));
    let looked_at = board.reading();
    for _ in 0..10 {
        clock.advance(Duration::from_secs(1));
        board.sample();
    }
    assert_eq!(Arc::strong_count(&looked_at), 1, "an old reading is let go");
    let lag = &board.reading().lags[&key("hook")];
    assert!((lag.arrived_per_second.unwrap() - 100.0).abs() < 1e-6);
}

#[test]
fn what_is_kept_of_an_idle_queue_is_a_hundred_bytes() {
    assert!(size_of::<(Key, Rates<3>)>() <= 112);
}

#[test]
fn many_who_look_at_once_share_one_reading() {
    let clock = ManualClock::at(0);
    let asked = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&asked);
    let queues: Each<QueueReading> = Box::new(move |each| {
        counted.fetch_add(1, Ordering::SeqCst);
        each(queue("hook", 1, 0));
    });
    let board = board(clock.clone(), queues, Box::new(Vec::new));
    for _ in 0..1_000 {
        let _ = board.reading();
    }
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    clock.advance(FRESH_FOR);
    let _ = board.clone().reading();
    assert_eq!(asked.load(Ordering::SeqCst), 2);
}

#[test]
fn the_shares_of_the_disk_are_looked_for_every_ten_seconds() {
    let clock = ManualClock::at(0);
    let asked = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&asked);
    let disk: Source<DiskReading> = Box::new(move || {
        let backlog_bytes = 100 * counted.fetch_add(1, Ordering::SeqCst);
        let acme =
            EnvironmentOnDisk { environment: "acme-prod".into(), held_bytes: backlog_bytes, ..Default::default() };
        DiskReading { environments: vec![acme], ..DiskReading::default() }
    });
    let queues: Each<QueueReading> = Box::new(|each| each(queue("hook", 1, 0)));
    let board = LagBoard::new(Arc::new(clock.clone()), queues, Box::new(Vec::new), Box::new(Sheets::new), disk);
    for second in 0..25 {
        assert_eq!(board.reading().disk["acme-prod"].held_bytes, second / 10 * 100);
        clock.advance(Duration::from_secs(1));
    }
    assert_eq!(asked.load(Ordering::SeqCst), 3);
}

#[test]
fn a_queue_that_is_gone_leaves_nothing_behind() {
    let clock = ManualClock::at(0);
    let until_second_one = clock.clone();
    let queues: Each<QueueReading> = Box::new(move |each| {
        if until_second_one.wall_ms() < 1_000 {
            each(queue("hook", 1, 0));
        }
    });
    let board = board(clock.clone(), queues, Box::new(Vec::new));
    assert_eq!(board.reading().lags.len(), 1);
    clock.advance(Duration::from_secs(1));
    assert_eq!(board.reading().lags.len(), 0);
    assert!(board.inner.state.lock().unwrap().rates.is_empty());
}

fn delivery(state: DeliveryState) -> DeliveryReading {
    DeliveryReading { destination: "hook".into(), state, ..DeliveryReading::default() }
}

#[test]
fn an_error_is_cut_and_cannot_speak_to_the_terminal() {
    let deliveries: Source<Vec<DeliveryReading>> = Box::new(|| {
        let last_error = Some(format!("\u{1b}[2J{}", "é".repeat(1_000)));
        vec![DeliveryReading { last_error, ..delivery(DeliveryState::Retrying) }]
    });
    let queues: Each<QueueReading> = Box::new(|each| each(queue("hook", 1, 0)));
    let reading = board(ManualClock::at(0), queues, deliveries).reading();
    let message = reading.deliveries["hook"].last_error.clone().unwrap();
    assert_eq!(message.chars().count(), ERROR_CHARS_MAX);
    assert!(message.starts_with(" [2J"), "{message}");
}

/// Before, an upstream whose SDK key is refused was idle, with no reason and no next attempt.
#[test]
fn a_queue_that_waits_by_itself_says_why_and_the_others_say_how_they_are() {
    let deliveries: Source<Vec<DeliveryReading>> = Box::new(|| {
        let of = |stream: &str, refused| HeldReading {
            stream: stream.to_owned(),
            why: "answered\n401".to_owned(),
            since_unix_ms: 5,
            until_unix_ms: 10,
            refused,
        };
        let held = vec![of("acme-prod", true), of("fails", false), of("empty", true)];
        vec![DeliveryReading { held, last_error: Some("of old".to_owned()), ..delivery(DeliveryState::Delivering) }]
    });
    let queues: Each<QueueReading> = Box::new(|each| {
        let other = |stream: &str, pending| QueueReading { stream: stream.into(), ..queue("hook", pending, 0) };
        [queue("hook", 1, 0), other("fails", 1), other("empty", 0), other("good", 1)].into_iter().for_each(each);
    });
    let reading = board(ManualClock::at(0), queues, deliveries).reading();
    let shown = |stream: &str| {
        let key: Key = ("hook".into(), stream.into());
        let lag = messages::lag(&key, &reading.lags[&key], &reading.disk);
        (lag.state().as_str_name(), lag.last_error.unwrap().message, lag.next_attempt_unix_ms)
    };
    assert_eq!(shown("acme-prod"), ("DELIVERY_STATE_REFUSED", "answered 401".to_owned(), Some(10)));
    assert_eq!(shown("fails"), ("DELIVERY_STATE_RETRYING", "answered 401".to_owned(), Some(10)));
    assert_eq!(shown("empty"), ("DELIVERY_STATE_IDLE", "of old".to_owned(), None));
    assert_eq!(shown("good"), ("DELIVERY_STATE_DELIVERING", "of old".to_owned(), None));
    assert_eq!(reading.deliveries["hook"].worst_state(), DeliveryState::Refused, "an alert goes by it");
}

#[test]
fn a_busy_destination_is_idle_where_nothing_waits() {
    let deliveries: Source<Vec<DeliveryReading>> = Box::new(|| vec![delivery(DeliveryState::Delivering)]);
    let queues: Each<QueueReading> = Box::new(|each| {
        let other = QueueReading { stream: "other".into(), ..queue("hook", 5, 5) };
        let left = QueueReading { stream: "left".into(), left_behind: true, ..queue("hook", 5, 0) };
        let all = [queue("hook", 1, 0), other, left, queue("gone", 1, 0), queue("hook!replay-1", 1, 0)];
        all.into_iter().for_each(each);
    });
    let reading = board(ManualClock::at(0), queues, deliveries).reading();
    assert_eq!(reading.lags[&key("hook")].state, Some(DeliveryState::Delivering));
    assert_eq!(reading.lags[&("hook".into(), "other".into())].state, Some(DeliveryState::Idle));
    assert_eq!(reading.lags[&key("gone")].state, None, "nothing delivers it");
    let left = &reading.lags[&("hook".into(), "left".into())];
    assert_eq!((left.state, left.forecast), (None, Forecast::Never), "its environment was taken out");
    assert_eq!(
        reading.lags[&key("hook!replay-1")].state,
        Some(DeliveryState::Delivering),
        "the loop of its destination"
    );
}

/// Before, what was left of its rates had a destination that was paused a second ago keep up.
#[test]
fn what_nobody_sends_never_drains() {
    for (state, stands) in [
        (None, true),
        (Some(DeliveryState::Paused), true),
        (Some(DeliveryState::Refused), true),
        (Some(DeliveryState::Retrying), false),
        (Some(DeliveryState::Delivering), false),
    ] {
        let clock = ManualClock::at(0);
        let deliveries: Source<Vec<DeliveryReading>> = Box::new(move || state.map(delivery).into_iter().collect());
        let board = board(clock.clone(), draining(&clock), deliveries);
        for _ in 0..10 {
            let _ = board.reading();
            clock.advance(Duration::from_secs(1));
        }
        let forecast = board.reading().lags[&key("hook")].forecast;
        assert_eq!(forecast == Forecast::Never, stands, "{state:?}: {forecast:?}");
        let nothing: Each<QueueReading> = Box::new(|each| each(queue("hook", 5, 5)));
        let deliveries: Source<Vec<DeliveryReading>> = Box::new(move || state.map(delivery).into_iter().collect());
        let drained = self::board(clock, nothing, deliveries).reading().lags[&key("hook")].forecast;
        assert_eq!(drained, Forecast::DrainsIn(Duration::ZERO), "{state:?}: nothing waits");
    }
}
