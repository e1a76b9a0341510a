//! The lag of every queue, with rates and forecast: one reading, shared by all who ask.
//!
//! A reading asks every queue, so it is taken at most ten times a second however many look, and at least as often as someone
//! calls [`LagBoard::reading`]: the server does so every second, that the rates are known when an operator comes.
//! Does not wait for anything but the queues' own locks. Never holds a queue that is gone.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use forebay::clock::Clock;

use super::forecast::{Forecast, forecast};
use super::rates::Rate;
use super::readings::{DeliveryReading, DeliveryState, QueueReading, Source};

/// A reading younger than this is fresh enough for anyone: no person sees the difference, and ten watchers cost what one does.
const FRESH_FOR: Duration = Duration::from_millis(100);

/// Longer errors are cut: enough for a status, a host and a sentence.
const ERROR_CHARS_MAX: usize = 300;

/// Reads the queues. Cheap to clone; all clones share the rates.
#[derive(Clone)]
pub struct LagBoard {
    inner: Arc<Inner>,
}

struct Inner {
    clock: Arc<dyn Clock>,
    queues: Source<Vec<QueueReading>>,
    deliveries: Source<Vec<DeliveryReading>>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    latest: Option<(Duration, Arc<Reading>)>,
    rates: HashMap<Key, Rates>,
}

/// A destination and a stream: the name of a queue, in the order in which queues are listed.
pub type Key = (String, String);

#[derive(Default)]
struct Rates {
    arrived: Rate,
    settled: Rate,
    delivered: Rate,
}

/// All queues at one moment.
#[derive(Debug, Default)]
pub struct Reading {
    /// When, by the wall clock.
    pub at_unix_ms: u64,
    /// By destination and stream.
    pub lags: BTreeMap<Key, Lag>,
}

/// One queue: how far it is behind and where that leads.
#[derive(Debug, Clone, PartialEq)]
pub struct Lag {
    /// What the queue says.
    pub queue: QueueReading,
    /// What delivery says; `None` when nothing delivers this queue.
    pub delivery: Option<DeliveryReading>,
    /// Records a second.
    pub arrived_per_second: Option<f64>,
    /// Records a second.
    pub settled_per_second: Option<f64>,
    /// Records a second.
    pub delivered_per_second: Option<f64>,
    /// Where it leads.
    pub forecast: Forecast,
}

impl LagBoard {
    /// A board over these queues and what delivers them. Reads nothing yet.
    #[must_use]
    pub fn new(
        clock: Arc<dyn Clock>,
        queues: Source<Vec<QueueReading>>,
        deliveries: Source<Vec<DeliveryReading>>,
    ) -> Self {
        Self { inner: Arc::new(Inner { clock, queues, deliveries, state: Mutex::default() }) }
    }

    /// The lag of every queue, a tenth of a second old at most.
    ///
    /// May take a while with thousands of queues: async callers give it a thread that may block.
    #[must_use]
    pub fn reading(&self) -> Arc<Reading> {
        let inner = &*self.inner;
        // A panic in a source leaves rates and reading as they were before it: whole, if old.
        let mut state = inner.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now = inner.clock.monotonic();
        if let Some((at, latest)) = &state.latest
            && now.saturating_sub(*at) < FRESH_FOR
        {
            return Arc::clone(latest);
        }
        let reading = Arc::new(read(inner, &mut state.rates, now));
        state.latest = Some((now, Arc::clone(&reading)));
        reading
    }
}

fn read(inner: &Inner, rates: &mut HashMap<Key, Rates>, now: Duration) -> Reading {
    let at_unix_ms = inner.clock.wall_ms();
    let mut deliveries: HashMap<Key, DeliveryReading> = (inner.deliveries)()
        .into_iter()
        .map(|delivery| ((delivery.destination.clone(), delivery.stream.clone()), delivery))
        .collect();
    let lags: BTreeMap<Key, Lag> = (inner.queues)()
        .into_iter()
        .map(|queue| {
            let key = (queue.destination.clone(), queue.stream.clone());
            let delivery = deliveries.remove(&key);
            let lag = lag(queue, delivery, rates.entry(key.clone()).or_default(), now);
            (key, lag)
        })
        .collect();
    rates.retain(|key, _| lags.contains_key(key));
    Reading { at_unix_ms, lags }
}

fn lag(queue: QueueReading, delivery: Option<DeliveryReading>, rates: &mut Rates, now: Duration) -> Lag {
    let balance = &queue.balance;
    rates.arrived.sample(now, balance.accepted.records);
    rates.settled.sample(now, balance.accepted.records.saturating_sub(balance.pending.records));
    rates.delivered.sample(now, balance.delivered.records);
    let arrived_per_second = rates.arrived.per_second();
    let settled_per_second = rates.settled.per_second();
    Lag {
        forecast: forecast(queue.behind.records, settled_per_second, arrived_per_second),
        delivery: delivery.map(|delivery| fit_to_show(delivery, &queue)),
        queue,
        arrived_per_second,
        settled_per_second,
        delivered_per_second: rates.delivered.per_second(),
    }
}

/// An error's text comes from afar: it is cut, and made safe for a terminal. A state that says "delivering" over an empty
/// queue is a moment old.
fn fit_to_show(mut delivery: DeliveryReading, queue: &QueueReading) -> DeliveryReading {
    if let Some((_, message)) = &mut delivery.last_error {
        *message = message
            .chars()
            .take(ERROR_CHARS_MAX)
            .map(|character| if character.is_control() { ' ' } else { character })
            .collect();
    }
    if delivery.state == DeliveryState::Delivering && queue.behind.records == 0 {
        delivery.state = DeliveryState::Idle;
    }
    delivery
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use forebay::clock::ManualClock;

    use super::super::readings::{Balance, Count};
    use super::*;

    fn count(records: u64) -> Count {
        Count { records, bytes: records * 100 }
    }

    fn queue(destination: &str, accepted: u64, delivered: u64) -> QueueReading {
        QueueReading {
            destination: destination.to_owned(),
            stream: "acme-prod".to_owned(),
            behind: count(accepted - delivered),
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
        (destination.to_owned(), "acme-prod".to_owned())
    }

    /// A queue to which 100 records a second come and from which 300 go, on top of a backlog of 10,000.
    fn draining(clock: &ManualClock) -> Source<Vec<QueueReading>> {
        let clock = clock.clone();
        Box::new(move || {
            let seconds = clock.wall_ms() / 1_000;
            vec![queue("hook", 10_000 + 100 * seconds, 300 * seconds)]
        })
    }

    #[test]
    fn rates_and_forecast_follow_from_readings_a_second_apart() {
        let clock = ManualClock::at(0);
        let board = LagBoard::new(Arc::new(clock.clone()), draining(&clock), Box::new(Vec::new));
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
    fn many_who_look_at_once_share_one_reading() {
        let clock = ManualClock::at(0);
        let asked = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&asked);
        let queues: Source<Vec<QueueReading>> = Box::new(move || {
            counted.fetch_add(1, Ordering::SeqCst);
            vec![queue("hook", 1, 0)]
        });
        let board = LagBoard::new(Arc::new(clock.clone()), queues, Box::new(Vec::new));
        for _ in 0..1_000 {
            let _ = board.reading();
        }
        assert_eq!(asked.load(Ordering::SeqCst), 1);
        clock.advance(FRESH_FOR);
        let _ = board.clone().reading();
        assert_eq!(asked.load(Ordering::SeqCst), 2);
    }

    #[test]
    fn a_queue_that_is_gone_leaves_nothing_behind() {
        let clock = ManualClock::at(0);
        let until_second_one = clock.clone();
        let queues: Source<Vec<QueueReading>> =
            Box::new(move || if until_second_one.wall_ms() < 1_000 { vec![queue("hook", 1, 0)] } else { Vec::new() });
        let board = LagBoard::new(Arc::new(clock.clone()), queues, Box::new(Vec::new));
        assert_eq!(board.reading().lags.len(), 1);
        clock.advance(Duration::from_secs(1));
        assert_eq!(board.reading().lags.len(), 0);
        assert!(board.inner.state.lock().unwrap().rates.is_empty());
    }

    #[test]
    fn an_error_is_cut_and_cannot_speak_to_the_terminal() {
        let clock = ManualClock::at(0);
        let deliveries: Source<Vec<DeliveryReading>> = Box::new(|| {
            vec![DeliveryReading {
                destination: "hook".to_owned(),
                stream: "acme-prod".to_owned(),
                state: DeliveryState::Retrying,
                last_error: Some((7, format!("\u{1b}[2J{}", "é".repeat(1_000)))),
                ..DeliveryReading::default()
            }]
        });
        let queues: Source<Vec<QueueReading>> = Box::new(|| vec![queue("hook", 1, 0), queue("gone", 1, 0)]);
        let reading = LagBoard::new(Arc::new(clock), queues, deliveries).reading();
        let delivery = reading.lags[&key("hook")].delivery.clone().unwrap();
        let (at, message) = delivery.last_error.unwrap();
        assert_eq!((at, message.chars().count()), (7, ERROR_CHARS_MAX));
        assert!(message.starts_with(" [2J"), "{message}");
        assert_eq!(reading.lags[&key("gone")].delivery, None, "nothing delivers it");
    }
}
