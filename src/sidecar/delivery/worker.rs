//! The loop of one destination: claim, send, settle; on anything but success wait, and send the same batch again.
//!
//! It does what [`Pace`] says and owns no policy. What always holds:
//! - A batch is settled only after the sink said [`Outcome::Delivered`]. Nothing is ever given up.
//! - While it waits, a failed batch lies in the queue and holds neither memory nor a request: a destination that is
//!   down costs its neighbours nothing but its probes.
//! - Idle it holds one small future and no timer; what sending needs is allocated when there is something to send.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rand::rngs::SmallRng;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::attempt::{self, Landed};
use super::budget::Grant;
use super::outcome::{Failure, Outcome};
use super::pace::{Epoch, Pace, Verdict};
use super::sink::{BoxFuture, Sink};
use super::source::{BoxError, Claimed, Source};
use super::stats::{DeliveryStats, State, moment_ms};
use super::{Common, Settings};

/// What the outside has of a worker: to wake it, to stop it, to watch it.
#[derive(Debug, Default)]
pub(super) struct Post {
    wake: Notify,
    stopping: AtomicBool,
    /// The number of the pace's epoch, for flights that have not sent yet.
    epoch: AtomicU64,
    pub(super) stats: Arc<DeliveryStats>,
}

impl Post {
    pub(super) fn wake(&self) {
        self.wake.notify_one();
    }

    /// No batch is started from now on; those in flight go on.
    pub(super) fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        self.wake();
    }

    fn stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }
}

/// One destination's loop.
pub(super) struct Worker {
    pub(super) id: Arc<str>,
    pub(super) common: Arc<Common>,
    pub(super) post: Arc<Post>,
    pub(super) sink: Arc<dyn Sink>,
    pub(super) queues: Box<[Turn]>,
    /// The queue whose turn it is.
    pub(super) next: usize,
    pub(super) settings: Settings,
    pub(super) pace: Pace,
    pub(super) rng: SmallRng,
    /// The moment from which the pace counts.
    pub(super) began: Instant,
}

/// A queue, and whether it had nothing when last asked.
pub(super) struct Turn {
    pub(super) source: Arc<dyn Source>,
    pub(super) dry: bool,
}

type Prepared = Result<Option<(Claimed, Grant)>, BoxError>;

/// What is under way while a destination is busy.
#[derive(Default)]
struct Busy {
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
    /// Runs until told to stop and nothing is in flight.
    pub(super) async fn run(mut self) {
        while !self.post.stopping() {
            // In a box, so that ten thousand idle destinations do not each hold the room for being busy.
            Box::pin(self.busy()).await;
            self.post.stats.set_in_flight(0);
            if self.post.stopping() {
                break;
            }
            self.post.stats.set_state(State::Idle);
            // A wake-up since `busy` last looked is kept by the Notify.
            self.post.wake.notified().await;
        }
        self.post.stats.set_state(State::Stopped);
    }

    /// Sends until there is nothing to send and nothing in flight.
    async fn busy(&mut self) {
        let mut busy = Busy::default();
        self.queues.iter_mut().for_each(|turn| turn.dry = false);
        loop {
            let verdict = self.pace.verdict(self.now(), busy.flights.len());
            if self.post.stopping() {
                // A claim in the making is handed back by its drop.
                busy.preparing = None;
            } else if busy.preparing.is_none() && verdict == Verdict::Start {
                self.prepare(&mut busy);
            }
            let due = match verdict {
                Verdict::NotBefore(due) if !self.post.stopping() && self.turn().is_some() => Some(due),
                _ => None,
            };
            if busy.flights.is_empty() && busy.preparing.is_none() && due.is_none() {
                return;
            }
            self.report(&busy, due);
            match self.event(&mut busy, due).await {
                Event::Landed(landed) => {
                    self.landed(landed);
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
            () = self.post.wake.notified() => Event::Woken,
        }
    }

    /// Begins to make the next batch ready, if a queue has one.
    fn prepare(&mut self, busy: &mut Busy) {
        let Some(turn) = self.turn() else { return };
        self.next = (turn + 1) % self.queues.len();
        let source = Arc::clone(&self.queues[turn].source);
        busy.preparing_from = turn;
        busy.preparing = Some(Box::pin(attempt::prepare(Arc::clone(&self.common), source, self.settings.limits)));
    }

    fn prepared(&mut self, busy: &mut Busy, prepared: Prepared) {
        match prepared {
            Ok(None) => self.queues[busy.preparing_from].dry = true,
            Err(why) => {
                let why = Failure::Local(format!("the next batch could not be read: {why}"));
                self.heard(&Outcome::Retry { why }, self.pace.epoch());
            }
            // While we waited for the budget, a failure may have told us to wait: then the batch goes back.
            Ok(Some((claimed, grant))) if self.pace.verdict(self.now(), busy.flights.len()) == Verdict::Start => {
                let epoch = self.pace.epoch();
                let post = Arc::clone(&self.post);
                // Of another epoch: the destination failed meanwhile, and all but one probe waits.
                let go = move || post.epoch.load(Ordering::Acquire) == epoch.number();
                let flight = attempt::fly(
                    Arc::clone(&self.common),
                    Arc::clone(&self.sink),
                    Arc::clone(&self.post.stats),
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

    fn landed(&mut self, landed: Result<(Epoch, Landed), tokio::task::JoinError>) {
        let (epoch, landed) = match landed {
            Ok(landed) => landed,
            Err(panic) => {
                let why = Failure::Local(format!("the attempt stopped: {panic}"));
                return self.heard(&Outcome::Retry { why }, self.pace.epoch());
            }
        };
        let Landed { ticket, outcome, records } = landed;
        // Not sent: it goes back by the ticket's drop, to come again when its time has come.
        let Some(outcome) = outcome else { return };
        if outcome == Outcome::Delivered {
            ticket.settle();
            self.post.stats.delivered(records, self.common.clock.wall_ms());
            self.heard(&outcome, epoch);
        } else {
            // First learn to wait, then hand the batch back: its return wakes us.
            self.heard(&outcome, epoch);
            drop(ticket);
        }
    }

    /// Takes in an outcome; says so in the log when a destination begins to fail and when it is back.
    fn heard(&mut self, outcome: &Outcome, epoch: Epoch) {
        let failed_before = self.pace.failing();
        let now = self.now();
        self.pace.heard(outcome, epoch, now, &mut self.rng);
        self.post.epoch.store(self.pace.epoch().number(), Ordering::Release);
        match outcome {
            Outcome::Delivered => {
                if failed_before && !self.pace.failing() {
                    tracing::info!(destination = %self.id, "the destination takes batches again");
                }
            }
            Outcome::Throttled { why, .. } | Outcome::Retry { why } => {
                self.post.stats.failed(outcome);
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
        self.post.stats.set_in_flight(busy.flights.len());
        let state = match due {
            Some(due) if busy.flights.is_empty() => {
                let wait = due.saturating_sub(self.now());
                State::Backoff { until_ms: moment_ms(self.common.clock.wall_ms(), wait) }
            }
            _ => State::Sending,
        };
        self.post.stats.set_state(state);
    }

    fn now(&self) -> Duration {
        Instant::now() - self.began
    }

    async fn sleep_until(&self, due: Option<Duration>) {
        match due {
            Some(due) => tokio::time::sleep_until(self.began + due).await,
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
