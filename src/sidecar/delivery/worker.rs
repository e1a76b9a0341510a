//! The loop of one destination: claim, send, settle; on anything but success wait, and send the same batch again.
//!
//! It does what [`Pace`] says and owns no policy. What always holds:
//! - A batch is settled only after the sink said [`Outcome::Delivered`]. Nothing is ever given up.
//! - While it waits, a failed batch lies in the queue and holds neither memory nor a request: a destination that is
//!   down costs its neighbours nothing but its probes.
//! - Idle it has no task, no future and no timer: it rests in its [`Post`] until it is woken.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use forebay::Settled;
use rand::rngs::SmallRng;
use tokio::sync::Notify;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

use super::attempt::{self, Landed};
use super::budget::Grant;
use super::outcome::{Failure, Outcome};
use super::pace::{Epoch, Pace, Verdict};
use super::sink::{BoxFuture, Sink};
use super::source::{BoxError, Claimed, Source};
use super::stats::{DeliveryStats, State, moment_ms};
use super::{Common, Settings};
use crate::causes;

/// While a request is under way, so long records gather that do not fill another: else a destination that is kept up with
/// gets, and the disk writes a plan for, as many requests as there are posts. Short against any receiver's answer.
const GATHERING: Duration = Duration::from_millis(5);

/// One destination as the outside has it: to wake it, to stop it, to watch it. Keeps its worker while that rests.
pub(super) struct Post {
    place: Mutex<Place>,
    wake: Notify,
    stopping: AtomicBool,
    /// An operator holds it: it rests, whatever there is to send.
    paused: AtomicBool,
    /// The number of the pace's epoch, for flights that have not sent yet.
    epoch: AtomicU64,
    pub(super) stats: DeliveryStats,
}

/// Where the worker is.
enum Place {
    /// Here: there is nothing to send, so there is no task.
    Resting(Worker),
    /// In its task. `woken` since it last looked for something to send.
    Working { task: JoinHandle<()>, woken: bool },
    /// It was told to stop.
    Ended,
}

impl Post {
    pub(super) fn new(worker: Worker) -> Arc<Self> {
        Arc::new(Self {
            place: Mutex::new(Place::Resting(worker)),
            wake: Notify::new(),
            stopping: AtomicBool::new(false),
            paused: AtomicBool::new(false),
            epoch: AtomicU64::new(0),
            stats: DeliveryStats::default(),
        })
    }

    /// There may be something to send. Does not wait for it.
    pub(super) fn wake(self: &Arc<Self>) {
        let mut place = self.place();
        match std::mem::replace(&mut *place, Place::Ended) {
            Place::Resting(worker) if self.paused() => *place = Place::Resting(worker),
            Place::Resting(worker) => {
                let runtime = worker.common.runtime.clone();
                *place = Place::Working { task: runtime.spawn(worker.run(Arc::clone(self))), woken: false };
            }
            Place::Working { task, .. } => {
                *place = Place::Working { task, woken: true };
                self.wake.notify_one();
            }
            Place::Ended => {}
        }
    }

    /// No batch is started until [`resume`](Self::resume); those in flight go on, and so does what they become.
    pub(super) fn pause(&self) {
        let place = self.place();
        self.paused.store(true, Ordering::Release);
        match &*place {
            Place::Resting(_) => self.stats.set_state(State::Paused),
            Place::Working { .. } => self.wake.notify_one(),
            Place::Ended => {}
        }
    }

    /// Batches are started again.
    pub(super) fn resume(self: &Arc<Self>) {
        let place = self.place();
        self.paused.store(false, Ordering::Release);
        if matches!(&*place, Place::Resting(_)) {
            self.stats.set_state(State::Idle);
        }
        drop(place);
        // It finds out by itself whether there is anything to send.
        self.wake();
    }

    /// No batch is started from now on; those in flight go on. Returns the task to wait for, if there is one.
    pub(super) fn stop(&self) -> Option<JoinHandle<()>> {
        self.stopping.store(true, Ordering::Release);
        let before = std::mem::replace(&mut *self.place(), Place::Ended);
        match before {
            Place::Resting(_) => self.stats.set_state(State::Stopped),
            Place::Working { task, .. } => {
                self.wake.notify_one();
                return Some(task);
            }
            Place::Ended => {}
        }
        None
    }

    /// Takes a worker that found nothing to send. Gives it back if it was woken meanwhile.
    fn rest(&self, worker: Worker) -> Option<Worker> {
        self.stats.set_in_flight(0);
        let mut place = self.place();
        match &mut *place {
            Place::Working { woken, .. } if *woken && !self.paused() => {
                *woken = false;
                return Some(worker);
            }
            Place::Ended => self.stats.set_state(State::Stopped),
            _ => {
                self.stats.set_state(if self.paused() { State::Paused } else { State::Idle });
                *place = Place::Resting(worker);
            }
        }
        None
    }

    fn stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    fn paused(&self) -> bool {
        self.paused.load(Ordering::Acquire)
    }

    /// No batch may be started now.
    fn held(&self) -> bool {
        self.stopping() || self.paused()
    }

    fn place(&self) -> MutexGuard<'_, Place> {
        // Nothing that can panic runs between two changes of a place.
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a destination is, busy or not.
pub(super) struct Worker {
    pub(super) id: Arc<str>,
    pub(super) common: Arc<Common>,
    pub(super) sink: Arc<dyn Sink>,
    pub(super) queues: Box<[Turn]>,
    /// The queue whose turn it is.
    pub(super) next: usize,
    pub(super) settings: Settings,
    pub(super) pace: Pace,
}

/// A queue, and whether it had nothing when last asked.
pub(super) struct Turn {
    pub(super) source: Arc<dyn Source>,
    pub(super) dry: bool,
}

type Prepared = Result<Option<(Claimed, Grant)>, BoxError>;

/// What is under way while a destination is busy.
struct Busy {
    post: Arc<Post>,
    rng: SmallRng,
    flights: JoinSet<(Epoch, Landed)>,
    preparing: Option<BoxFuture<'static, Prepared>>,
    preparing_from: usize,
}

enum Event {
    Landed(Result<(Epoch, Landed), tokio::task::JoinError>),
    Prepared(Prepared),
    Woken,
    Due,
}

impl Worker {
    /// Sends until there is nothing to send, or it is told to stop and nothing is in flight. Then it goes to rest.
    async fn run(mut self, post: Arc<Post>) {
        loop {
            self.busy(&post).await;
            let Some(woken) = post.rest(self) else { return };
            self = woken;
        }
    }

    /// Sends until there is nothing to send and nothing in flight.
    async fn busy(&mut self, post: &Arc<Post>) {
        let mut busy = Busy {
            post: Arc::clone(post),
            rng: rand::make_rng(),
            flights: JoinSet::new(),
            preparing: None,
            preparing_from: 0,
        };
        self.wet();
        loop {
            let verdict = self.pace.verdict(self.now(), busy.flights.len());
            if post.held() {
                // A claim in the making is handed back by its drop.
                busy.preparing = None;
            } else if busy.preparing.is_none() && verdict == Verdict::Start {
                self.prepare(&mut busy);
            }
            let due = match verdict {
                Verdict::NotBefore(due) if !post.held() && self.turn().is_some() => Some(due),
                _ => None,
            };
            if busy.flights.is_empty() && busy.preparing.is_none() && due.is_none() {
                return;
            }
            self.report(&busy, due);
            match self.event(&mut busy, due).await {
                Event::Landed(landed) => {
                    self.landed(&mut busy, landed);
                    self.wet();
                }
                Event::Prepared(prepared) => self.prepared(&mut busy, prepared),
                Event::Woken => self.wet(),
                Event::Due => {}
            }
        }
    }

    /// The next thing that happens. Landings first: they free what the others wait for.
    async fn event(&self, busy: &mut Busy, due: Option<Duration>) -> Event {
        tokio::select! {
            biased;
            Some(landed) = busy.flights.join_next() => Event::Landed(landed),
            prepared = ready(&mut busy.preparing) => Event::Prepared(prepared),
            () = self.sleep_until(due) => Event::Due,
            () = busy.post.wake.notified() => Event::Woken,
        }
    }

    /// Begins to make the next batch ready, if a queue has one.
    fn prepare(&mut self, busy: &mut Busy) {
        let Some(turn) = self.turn() else { return };
        self.next = (turn + 1) % self.queues.len();
        let source = Arc::clone(&self.queues[turn].source);
        busy.preparing_from = turn;
        let gathers = !busy.flights.is_empty() && !source.fills(self.settings.limits);
        let prepared = attempt::prepare(Arc::clone(&self.common), source, self.settings.limits);
        busy.preparing = Some(Box::pin(async move {
            if gathers {
                tokio::time::sleep(GATHERING).await;
            }
            prepared.await
        }));
    }

    fn prepared(&mut self, busy: &mut Busy, prepared: Prepared) {
        match prepared {
            Ok(None) => self.queues[busy.preparing_from].dry = true,
            Err(why) => {
                let why = Failure::Local(format!("the next batch could not be read: {}", causes::line(&*why)));
                self.heard(busy, &Outcome::Retry { why }, self.pace.epoch());
            }
            // Nothing of it is for this destination: there is no request to make, and no word of the destination's to heed.
            Ok(Some((claimed, _))) if claimed.job.is_empty() => claimed.ticket.settle(&[], Settled::Delivered),
            // While we waited for the budget, a failure may have told us to wait: then the batch goes back.
            Ok(Some((claimed, grant))) if self.pace.verdict(self.now(), busy.flights.len()) == Verdict::Start => {
                let epoch = self.pace.epoch();
                let post = Arc::clone(&busy.post);
                let go = move |bytes| {
                    // Of another epoch: the destination failed meanwhile, and all but one probe waits.
                    let go = post.epoch.load(Ordering::Acquire) == epoch.number();
                    if go {
                        post.stats.sending(bytes);
                    }
                    go
                };
                let flight = attempt::fly(
                    Arc::clone(&self.common),
                    Arc::clone(&self.sink),
                    claimed,
                    grant,
                    self.settings.timeout,
                    go,
                );
                busy.flights.spawn(async move { (epoch, flight.await) });
            }
            Ok(Some(_)) => {}
        }
    }

    fn landed(&mut self, busy: &mut Busy, landed: Result<(Epoch, Landed), tokio::task::JoinError>) {
        let (epoch, landed) = match landed {
            Ok(landed) => landed,
            Err(panic) => {
                let why = Failure::Local(format!("the attempt stopped: {panic}"));
                return self.heard(busy, &Outcome::Retry { why }, self.pace.epoch());
            }
        };
        let Landed { ticket, outcome, records } = landed;
        // Not sent: it goes back by the ticket's drop, to come again when its time has come.
        let Some(outcome) = outcome else { return };
        if outcome == Outcome::Delivered {
            ticket.settle(&[], Settled::Delivered);
            busy.post.stats.delivered(records, self.common.clock.wall_ms());
            self.heard(busy, &outcome, epoch);
        } else {
            // First learn to wait, then hand the batch back: its return wakes us.
            self.heard(busy, &outcome, epoch);
            drop(ticket);
        }
    }

    /// Takes in an outcome; says so in the log when a destination begins to fail and when it is back.
    fn heard(&mut self, busy: &mut Busy, outcome: &Outcome, epoch: Epoch) {
        let failed_before = self.pace.failing();
        let now = self.now();
        self.pace.heard(outcome, epoch, now, &mut busy.rng);
        busy.post.epoch.store(self.pace.epoch().number(), Ordering::Release);
        match outcome.failure() {
            None => {
                if failed_before && !self.pace.failing() {
                    tracing::info!(destination = %self.id, "the destination takes batches again");
                }
            }
            Some(why) => {
                busy.post.stats.failed(outcome, self.common.clock.wall_ms());
                if !failed_before {
                    tracing::warn!(destination = %self.id, %why, "the destination does not take batches; will retry");
                }
            }
        }
    }

    /// The next queue with something to send, in turn.
    fn turn(&self) -> Option<usize> {
        let n = self.queues.len();
        (0..n).map(|step| (self.next + step) % n).find(|&at| {
            let turn = &self.queues[at];
            !turn.dry && turn.source.has_more()
        })
    }

    /// Something moved: queues that had nothing may have something.
    fn wet(&mut self) {
        self.queues.iter_mut().for_each(|turn| turn.dry = false);
    }

    fn report(&self, busy: &Busy, due: Option<Duration>) {
        busy.post.stats.set_in_flight(busy.flights.len());
        let state = match due {
            Some(due) if busy.flights.is_empty() => {
                let wait = due.saturating_sub(self.now());
                State::Backoff { until_ms: moment_ms(self.common.clock.wall_ms(), wait) }
            }
            _ => State::Sending,
        };
        busy.post.stats.set_state(state);
    }

    fn now(&self) -> Duration {
        Instant::now() - self.common.began
    }

    async fn sleep_until(&self, due: Option<Duration>) {
        match due {
            Some(due) => tokio::time::sleep_until(self.common.began + due).await,
            None => std::future::pending().await,
        }
    }
}

/// Waits for what is being prepared; for ever if nothing is. Keeps its place in the budget's line when cancelled.
async fn ready(preparing: &mut Option<BoxFuture<'static, Prepared>>) -> Prepared {
    let Some(future) = preparing else { return std::future::pending().await };
    let prepared = future.await;
    *preparing = None;
    prepared
}

#[cfg(test)]
mod tests;
