//! The lag of every queue, with rates and forecast: one reading, shared by all who ask.
//!
//! A reading asks every queue, so it is taken at most ten times a second however many look. The server calls
//! [`LagBoard::sample`] every second, that the rates are known when an operator comes: that feeds them and keeps nothing
//! else, so that queues at which nobody looks cost the memory of their rates only. Waits for the queues' own locks, and
//! for the disk where an oldest record is not in memory. Never holds a queue that is gone.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use forebay::clock::Clock;

use super::disk_shares::{self, DiskReading, DiskShares};
use super::forecast::{Forecast, forecast};
use super::gives_up::gives_up_at;
use super::rates::Rates;
use super::readings::{DeliveryReading, DeliveryState, Each, HeldReading, QueueReading, Source};
use super::sheets::Sheets;

/// A reading younger than this is fresh enough for anyone: no person sees the difference, and ten watchers cost what one does.
const FRESH_FOR: Duration = Duration::from_millis(100);

/// How much of the disk environments hold, and how fast they come in, changes slowly, and looking goes through all hours of all
/// queues.
const DISK_FRESH_FOR: Duration = Duration::from_secs(10);

/// Longer errors are cut: enough for a status, a host and a sentence.
const ERROR_CHARS_MAX: usize = 300;

/// Reads the queues. Cheap to clone; all clones share the rates.
#[derive(Clone)]
pub struct LagBoard {
    inner: Arc<Inner>,
}

struct Inner {
    clock: Arc<dyn Clock>,
    began: Duration,
    queues: Each<QueueReading>,
    deliveries: Source<Vec<DeliveryReading>>,
    sheets: Source<Sheets>,
    disk: Source<DiskReading>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    latest: Option<(Duration, Arc<Reading>)>,
    disk: Option<(Duration, Arc<DiskShares>)>,
    rates: QueueRates,
}

/// A destination and a stream: the name of a queue, in the order in which queues are listed.
pub type Key = (Arc<str>, Arc<str>);

/// How fast records arrive at each queue, are settled, and are delivered. In order of the keys, which is that in which
/// queues are shown: a list, since a map's spare room would double what idle queues cost.
type QueueRates = Vec<Box<(Key, Rates<3>)>>;

/// All queues at one moment.
#[derive(Debug, Default)]
pub struct Reading {
    /// When, by the wall clock.
    pub at_unix_ms: u64,
    /// By destination and stream.
    pub lags: BTreeMap<Key, Lag>,
    /// What delivers, by destination.
    pub deliveries: BTreeMap<Arc<str>, Arc<DeliveryReading>>,
    /// Where every record of a destination is, by destination.
    pub sheets: Sheets,
    /// What each environment holds of the disk, some seconds ago.
    pub disk: Arc<DiskShares>,
}

/// One queue: how far it is behind and where that leads.
#[derive(Debug, Clone, PartialEq)]
pub struct Lag {
    /// What the queue says.
    pub queue: QueueReading,
    /// What delivers it; `None` when nothing does.
    pub delivery: Option<Arc<DeliveryReading>>,
    /// What its destination is doing about it; `None` when nothing delivers it.
    pub state: Option<DeliveryState>,
    /// Why it waits by itself, if it does.
    pub held: Option<HeldReading>,
    /// Records a second.
    pub arrived_per_second: Option<f64>,
    /// Records a second.
    pub settled_per_second: Option<f64>,
    /// Records a second.
    pub delivered_per_second: Option<f64>,
    /// Where it leads.
    pub forecast: Forecast,
    /// When the oldest that waits is given up, at the present rates; `None` when that is not foreseen, as for almost all.
    pub gives_up_at_unix_ms: Option<u64>,
}

impl LagBoard {
    /// A board over these queues, what delivers them, and what environments hold of the disk. Reads nothing yet.
    #[must_use]
    pub fn new(
        clock: Arc<dyn Clock>,
        queues: Each<QueueReading>,
        deliveries: Source<Vec<DeliveryReading>>,
        sheets: Source<Sheets>,
        disk: Source<DiskReading>,
    ) -> Self {
        let (began, state) = (clock.monotonic(), Mutex::default());
        Self { inner: Arc::new(Inner { clock, began, queues, deliveries, sheets, disk, state }) }
    }

    /// The lag of every queue, a tenth of a second old at most.
    ///
    /// May take a while with thousands of queues: async callers give it a thread that may block.
    #[must_use]
    pub fn reading(&self) -> Arc<Reading> {
        let inner = &*self.inner;
        let mut state = inner.lock();
        let now = inner.clock.monotonic();
        if let Some(latest) = state.fresh(now) {
            return latest;
        }
        let disk = state.disk_shares(now, &inner.disk);
        let reading = Arc::new(read(inner, &mut state.rates, now, disk));
        state.latest = Some((now, Arc::clone(&reading)));
        reading
    }

    /// Feeds the rates, and lets go of a reading that is old. May take a while, as [`reading`](Self::reading).
    pub fn sample(&self) {
        let inner = &*self.inner;
        let mut state = inner.lock();
        let now = inner.clock.monotonic();
        if state.fresh(now).is_some() {
            return; // it has fed them
        }
        sample(inner, &mut state.rates, now, |_, _| ());
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic in a source leaves rates and reading as they were before it: whole, if old.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The latest reading while it is fresh. An old one is of no use to anybody.
    fn fresh(&mut self, now: Duration) -> Option<Arc<Reading>> {
        self.latest.take_if(|(at, _)| now.saturating_sub(*at) >= FRESH_FOR);
        self.latest.as_ref().map(|(_, latest)| Arc::clone(latest))
    }

    /// The shares of the disk, some seconds old at most.
    fn disk_shares(&mut self, now: Duration, disk: &Source<DiskReading>) -> Arc<DiskShares> {
        self.disk.take_if(|(at, _)| now.saturating_sub(*at) >= DISK_FRESH_FOR);
        let (_, shares) = self.disk.get_or_insert_with(|| (now, Arc::new(disk_shares::shares(&disk()))));
        Arc::clone(shares)
    }
}

/// Asks every queue, feeds its rates, and shows it with them. Forgets queues that are gone.
fn sample(inner: &Inner, rates: &mut QueueRates, now: Duration, mut show: impl FnMut(QueueReading, &Rates<3>)) {
    // What never had anything is not watched: there may be thousands, and these are the rates of each.
    let mut nothing = Rates::from(inner.began, [0; 3]);
    nothing.sample(now, [0; 3]);
    (inner.queues)(&mut |queue| {
        let balance = &queue.balance;
        let settled = balance.accepted.records.saturating_sub(balance.pending.records);
        let counts = [balance.accepted.records, settled, balance.delivered.records];
        let key = (Arc::clone(&queue.destination), Arc::clone(&queue.stream));
        match rates.binary_search_by(|known| known.0.cmp(&key)) {
            Ok(at) => {
                rates[at].1.sample(now, counts);
                show(queue, &rates[at].1);
            }
            Err(_) if counts == [0; 3] => show(queue, &nothing),
            Err(at) => {
                rates.insert(at, Box::new((key, Rates::from(now, counts))));
                show(queue, &rates[at].1);
            }
        }
    });
    rates.retain(|known| known.1.at() >= now);
}

fn read(inner: &Inner, rates: &mut QueueRates, now: Duration, disk: Arc<DiskShares>) -> Reading {
    let at_unix_ms = inner.clock.wall_ms();
    let deliveries: BTreeMap<Arc<str>, Arc<DeliveryReading>> = (inner.deliveries)()
        .into_iter()
        .map(|delivery| (Arc::clone(&delivery.destination), Arc::new(fit_to_show(delivery))))
        .collect();
    let mut lags = BTreeMap::new();
    sample(inner, rates, now, |queue, rates| {
        let key = (Arc::clone(&queue.destination), Arc::clone(&queue.stream));
        // A replay's queue, `<id>!replay-<n>`, is sent by the loop of its destination.
        let id = key.0.split_once('!').map_or(&*key.0, |(id, _)| id);
        let delivery = deliveries.get(id).filter(|_| !queue.left_behind).cloned();
        lags.insert(key, lag(queue, delivery, rates, at_unix_ms));
    });
    Reading { at_unix_ms, lags, deliveries, sheets: (inner.sheets)(), disk }
}

fn lag(queue: QueueReading, delivery: Option<Arc<DeliveryReading>>, rates: &Rates<3>, now_ms: u64) -> Lag {
    let [arrived_per_second, settled_per_second, delivered_per_second] = rates.per_second();
    let held = delivery.as_ref().and_then(|delivery| delivery.held.iter().find(|held| *held.stream == *queue.stream));
    let held = held.filter(|_| queue.lag.records > 0).cloned();
    let state = delivery.as_ref().map(|delivery| state(delivery.state, held.as_ref(), queue.lag.records));
    // What went a moment ago is no sign of what goes, where nothing is sent.
    let stands =
        matches!(state, None | Some(DeliveryState::Paused | DeliveryState::Refused | DeliveryState::NotStarted))
            && queue.lag.records > 0;
    Lag {
        forecast: match stands {
            true => Forecast::Never,
            false => forecast(queue.lag.records, settled_per_second, arrived_per_second),
        },
        gives_up_at_unix_ms: gives_up_at(&queue, settled_per_second, arrived_per_second, now_ms),
        state,
        held,
        delivery,
        queue,
        arrived_per_second,
        settled_per_second,
        delivered_per_second,
    }
}

/// A destination may be busy with one stream and have nothing of another, or not take it.
fn state(destination: DeliveryState, held: Option<&HeldReading>, records_behind: u64) -> DeliveryState {
    match (destination, held) {
        (DeliveryState::Paused | DeliveryState::Stopping | DeliveryState::NotStarted, _) => destination,
        (_, Some(held)) if held.refused => DeliveryState::Refused,
        (_, Some(_)) => DeliveryState::Retrying,
        (DeliveryState::Delivering, _) if records_behind == 0 => DeliveryState::Idle,
        (other, _) => other,
    }
}

/// An error's text comes from afar: it is cut, and made safe for a terminal.
fn fit_to_show(mut delivery: DeliveryReading) -> DeliveryReading {
    let fit = |message: String| {
        message
            .chars()
            .take(ERROR_CHARS_MAX)
            .map(|character| if character.is_control() { ' ' } else { character })
            .collect()
    };
    delivery.last_error = delivery.last_error.map(fit);
    delivery.not_as_decided = delivery.not_as_decided.map(fit);
    delivery.held.iter_mut().for_each(|held| held.why = fit(std::mem::take(&mut held.why)));
    delivery
}

#[cfg(test)]
mod tests;
