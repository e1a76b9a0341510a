//! The loop of one destination: claim, send, and do what follows from the answer.
//!
//! It does what [`Pace`] says about when, and what `landing` says about what. What always holds:
//! - A batch is settled only after its destination took it, or after what it did not take is kept elsewhere. Nothing is
//!   ever given up.
//! - While it waits, a failed batch lies in the queue and holds neither memory nor a request: a destination that is
//!   down costs its neighbours nothing but its probes.
//! - Idle it has no task, no future and no timer: it rests in its [`Post`] until it is woken.

mod anew;
mod asides;
mod holds;
mod landing;
mod memory;
mod post;
mod told;
mod turns;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use forebay::Settled;
use forebay::mutants::{self, Mutant};
use rand::rngs::SmallRng;
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;

use super::attempt;
use super::budget::{Asking, Grant, Sharer};
use super::claiming;
use super::load::Load;
use super::notes::Lane;
use super::outcome::{Failure, Outcome};
use super::pace::{Epoch, Pace, Verdict};
use super::poison::Mark;
use super::rate::{By, Size};
use super::sink::{BoxFuture, Sink};
use super::source::BoxError;
use super::stats::{State, Waits, moment_ms};
use super::{Common, Settings};
use crate::causes;
use asides::Asides;
use landing::{Batch, Chore, Flown, KeepingBytes};
use turns::{Beside, Chosen};

pub(super) use memory::Memory;
pub(super) use post::Post;
pub(super) use turns::Turn;

/// While a request is under way, so long records gather that do not fill another: else a destination that is kept up with
/// gets, and the disk writes a plan for, as many requests as there are posts. Short against any receiver's answer.
const GATHERING: Duration = Duration::from_millis(5);

/// Batches whose letters are being kept or that are being split, at most: more wait in the queue.
const CHORES_MAX: usize = 64;

/// What a destination is, busy or not.
pub(super) struct Worker {
    pub(super) id: Arc<str>,
    pub(super) common: Arc<Common>,
    pub(super) sink: Arc<dyn Sink>,
    pub(super) queues: Box<[Turn]>,
    /// The queue whose turn it is, of those that do not go beside a backlog.
    pub(super) next: usize,
    pub(super) settings: Settings,
    /// As which it shares with the others.
    pub(super) sharer: Sharer,
    pub(super) pace: Pace,
    pub(super) memory: Memory,
}

type Prepared = Result<claiming::Prepared, BoxError>;

/// What is under way while a destination is busy.
struct Busy {
    post: Arc<Post>,
    rng: SmallRng,
    flights: JoinSet<Flown>,
    chores: JoinSet<Chore>,
    asides: Asides,
    keeping: KeepingBytes,
    beside: Beside,
    preparing: Option<BoxFuture<'static, Prepared>>,
    /// What that is made ready from, or was last.
    chosen: Chosen,
    /// News came since that began: what it did not find may be there now.
    news_meanwhile: bool,
}

impl Busy {
    /// Nothing is under way.
    fn is_still(&self) -> bool {
        self.flights.is_empty() && self.chores.is_empty() && self.preparing.is_none()
    }
}

enum Event {
    Landed(Result<Flown, JoinError>),
    Done(Result<Chore, JoinError>),
    Prepared(Prepared),
    Woken,
    Due,
}

impl Worker {
    /// Sends until there is nothing to send, or it is told to stop and nothing is in flight. Then it goes to rest.
    async fn run(mut self, post: Arc<Post>) {
        loop {
            self.busy_to_the_end(&post).await;
            let Some(woken) = post.rest(self) else { return };
            self = woken;
        }
    }

    /// With nothing under way.
    fn idle(&self, post: &Arc<Post>) -> Busy {
        Busy {
            post: Arc::clone(post),
            rng: self.common.rng(),
            flights: JoinSet::new(),
            chores: JoinSet::new(),
            asides: Asides::default(),
            keeping: KeepingBytes::default(),
            beside: Beside::from(self.next),
            preparing: None,
            chosen: Chosen::default(),
            news_meanwhile: false,
        }
    }

    /// Sends until there is nothing to send and nothing in flight.
    async fn busy(&mut self, busy: &mut Busy) {
        let post = Arc::clone(&busy.post);
        // Of a destination that gets its records in order nothing is sent beside what a batch becomes.
        let chores_max = if self.settings.ordered { 1 } else { CHORES_MAX };
        self.wet();
        loop {
            if post.take_news() {
                busy.news_meanwhile = true;
                self.wet();
            }
            if post.take_probe() {
                self.probe(busy);
            }
            let verdict = self.pace.verdict(self.now(), busy.flights.len());
            if post.held() {
                // A claim in the making is handed back by its drop.
                busy.preparing = None;
            } else if busy.preparing.is_none() && verdict == Verdict::Start && busy.chores.len() < chores_max {
                self.prepare(busy);
            }
            let due = if post.held() { None } else { self.due(busy, verdict) };
            if busy.is_still() && due.is_none() {
                // Those that waited by themselves have nothing to be tried with.
                self.lift_all(busy);
                return;
            }
            self.report(busy, verdict, due);
            if !post.may_sleep(!post.held() && self.listens(busy, verdict)) {
                continue;
            }
            match self.event(busy, due).await {
                Event::Landed(landed) => {
                    self.landed(busy, landed);
                    self.wet();
                }
                Event::Done(chore) => {
                    self.done(busy, chore);
                    self.wet();
                }
                Event::Prepared(prepared) => self.prepared(busy, prepared),
                Event::Woken => self.wet(),
                Event::Due => {
                    self.try_apart();
                    self.retest_if_due(busy);
                }
            }
        }
    }

    /// Whether records that come now would change anything.
    fn listens(&self, busy: &Busy, verdict: Verdict) -> bool {
        let now = self.now();
        let may_have_none = |turn: &Turn| turn.look_at <= now || !turn.source.has_more();
        let free = busy.preparing.is_none() && verdict != Verdict::Full;
        free && self.turn(busy).is_none() && self.queues.iter().any(may_have_none)
    }

    /// When something is to be done by itself: the pace allows more, or what is in doubt is to be tried again.
    fn due(&self, busy: &Busy, verdict: Verdict) -> Option<Duration> {
        let allowed = match verdict {
            Verdict::NotBefore(_) if mutants::on(Mutant::FailureNotTriedAgain) => None,
            Verdict::NotBefore(due) | Verdict::Paced(due, _)
                if self.turn(busy).is_some() || self.filling().is_some() =>
            {
                Some(due)
            }
            Verdict::Start if busy.preparing.is_none() => self.filling(),
            _ => None,
        };
        allowed.into_iter().chain(busy.asides.retest_at()).chain(self.apart_until()).min()
    }

    /// The next thing that happens. Landings first: they free what the others wait for.
    async fn event(&self, busy: &mut Busy, due: Option<Duration>) -> Event {
        tokio::select! {
            biased;
            Some(landed) = busy.flights.join_next() => Event::Landed(landed),
            Some(chore) = busy.chores.join_next() => Event::Done(chore),
            prepared = ready(&mut busy.preparing) => Event::Prepared(prepared),
            () = self.sleep_until(due) => Event::Due,
            () = busy.post.wake.notified() => Event::Woken,
        }
    }

    /// Begins to make the next batch ready, if a queue has one.
    fn prepare(&mut self, busy: &mut Busy) {
        let Some(chosen) = self.turn(busy) else { return };
        self.takes_turn(busy, chosen);
        let source = Arc::clone(&self.queues[chosen.turn].source);
        busy.news_meanwhile = false;
        let (common, sink) = (Arc::clone(&self.common), Arc::clone(&self.sink));
        let Settings { limits, batch_wait_max, .. } = self.settings;
        // An object is as large as it is to be, whatever a second allows.
        let limits = if sink.large().is_some() { limits } else { self.pace.batch(limits) };
        let in_flight = !busy.flights.is_empty();
        let gathers = in_flight && !source.fills(limits);
        let asking = Asking { sharer: self.sharer, failing: self.pace.failing(), slow: self.memory.is_slow() };
        let prepared = claiming::prepare(common, asking, source, sink, limits, batch_wait_max);
        busy.preparing = Some(Box::pin(async move {
            if gathers {
                tokio::time::sleep(GATHERING).await;
            } else if in_flight {
                // Those that have none in flight ask first: else who is woken first has as many as it may before they do.
                tokio::task::yield_now().await;
            }
            prepared.await
        }));
    }

    fn prepared(&mut self, busy: &mut Busy, prepared: Prepared) {
        if let Ok(claiming::Prepared::Batch(..) | claiming::Prepared::TooLong(..)) = &prepared {
            self.goes_on(busy, busy.chosen.turn, None);
        }
        match prepared {
            Ok(claiming::Prepared::Nothing) => self.queues[busy.chosen.turn].dry = !busy.news_meanwhile,
            Ok(claiming::Prepared::NotYet(wait)) => self.queues[busy.chosen.turn].look_at = self.now() + wait,
            Err(why) => {
                let why = Failure::Unread(causes::line(&*why));
                self.waits_alone(busy, busy.chosen.turn, None, &why);
            }
            Ok(claiming::Prepared::Batch(load, grant)) => self.claimed(busy, load, grant, false),
            Ok(claiming::Prepared::TooLong(load, grant)) => self.claimed(busy, load, grant, true),
        }
    }

    /// A batch is ours. Mostly it is sent; in halves, if it is too long once it is encoded and not one record.
    fn claimed(&mut self, busy: &mut Busy, mut load: Load, grant: Grant, too_long: bool) {
        if self.waits_on(busy, busy.chosen.turn, load.offsets().start) {
            return; // it goes back
        }
        let queue = load.lane(self.queues[busy.chosen.turn].home());
        let note = self.memory.note(queue, &load.offsets());
        if let Some(note) = note {
            load.leave_out(&note.apart);
        }
        let (shape, is_noted, turn) = (load.shape(), note.is_some(), busy.chosen.turn);
        if note.is_some_and(|note| note.kept_only) {
            return self.keep(busy, Batch { queue, turn, ticket: load.into_ticket(), shape });
        }
        // Notes may be forgotten; its queue knows all the same that it must not be sent whole.
        if let Some(at) = note.and_then(|note| note.split_at).or_else(|| load.ticket().to_be_split()) {
            return self.split(busy, Batch { queue, turn, ticket: load.into_ticket(), shape }, at);
        }
        if shape.records == 0 && !is_noted {
            // Nothing of it is for this destination: no request to make, and no word of the destination's to heed.
            return load.into_ticket().settle(&[], Settled::Delivered);
        }
        if let Some(at) = shape.middle.filter(|_| too_long) {
            return self.too_long(busy, Batch { queue, turn, ticket: load.into_ticket(), shape }, at);
        }
        // While we waited for the budget, a failure may have told us to wait: then the batch goes back.
        if self.pace.verdict(self.now(), busy.flights.len()) == Verdict::Start {
            let size = Size { records: shape.records, bytes: shape.bytes };
            self.count_share(busy, size);
            self.pace.sending(size, self.now());
            self.tries(queue);
            self.launch(busy, queue, load, grant);
        }
    }

    fn launch(&mut self, busy: &mut Busy, queue: Lane, load: Load, grant: Grant) {
        let (epoch, begun) = (self.pace.epoch(), self.memory.poison().now());
        let post = Arc::clone(&busy.post);
        let go = move |bytes| {
            // Of another epoch: the destination failed meanwhile, and all but one probe waits.
            let go = post.epoch.load(Ordering::Acquire) == epoch.number();
            if go {
                post.stats.sending(bytes);
            }
            go
        };
        let (common, sink) = (Arc::clone(&self.common), Arc::clone(&self.sink));
        let flight = attempt::fly(common, self.sharer, sink, load, grant, self.settings.timeout, go);
        let (turn, slot) = (busy.chosen.turn, busy.beside.slot(busy.chosen));
        busy.flights.spawn(async move {
            let _slot = slot;
            Flown { queue, turn, epoch, begun, landed: flight.await }
        });
    }

    /// An operator wants to know now, and vouches for the destination.
    fn probe(&mut self, busy: &mut Busy) {
        self.memory.poison().forgive();
        let now = self.now();
        self.pace.probe(now);
        self.put_back_all(busy);
        self.lift_all(busy);
        self.try_alone(busy);
        self.wet();
    }

    /// Takes in an outcome, and says in the log what it has to hear of.
    fn heard(&mut self, busy: &mut Busy, outcome: &Outcome, epoch: Epoch) {
        let refused_before = self.pace.refused();
        let now = self.now();
        self.pace.heard(outcome, epoch, now, &mut busy.rng);
        busy.post.epoch.store(self.pace.epoch().number(), Ordering::Release);
        if !self.pace.failing() && self.memory.told().takes() {
            tracing::info!(destination = %self.id, "the destination takes batches again");
        }
        let Some(why) = outcome.failure() else { return };
        busy.post.stats.failed(outcome, self.common.clock.wall_ms());
        match outcome {
            Outcome::Refused { .. } if !refused_before && self.pace.refused() => self.alert(why),
            Outcome::Throttled { .. } | Outcome::Retry { .. } if !refused_before && self.memory.told().fails(now) => {
                tracing::warn!(destination = %self.id, %why, "the destination does not take batches; will retry");
            }
            _ => {}
        }
    }

    /// Says once that somebody has to look at a destination.
    fn alert(&mut self, why: &Failure) {
        let now = self.now();
        self.memory.told().refuses(now);
        tracing::error!(
            destination = %self.id,
            %why,
            "the destination refuses what it is sent: everything is kept, and it is tried now and then; see to its settings and \
             to the receiver, then probe it"
        );
    }

    fn report(&self, busy: &Busy, verdict: Verdict, due: Option<Duration>) {
        busy.post.stats.set_in_flight(busy.flights.len());
        busy.post.stats.set_undecided(busy.asides.len());
        let wait = due.unwrap_or_default().saturating_sub(self.now());
        let until_ms = moment_ms(self.common.clock.wall_ms(), wait);
        let told = matches!(verdict, Verdict::Paced(_, By::Told));
        let state = match due {
            _ if self.pace.refused() => State::Refused { until_ms },
            // They say of themselves what they wait for.
            Some(_) if self.waits_for_holds_only(busy) => State::Idle,
            Some(_) if busy.is_still() && busy.beside.has_some_alone(self.now()) => State::Backoff { until_ms },
            Some(_) if told && busy.flights.is_empty() => {
                busy.post.stats.asked_to_wait();
                State::Backoff { until_ms }
            }
            // Not while a batch only fills, or waits for its turn at its rate.
            Some(_) if !matches!(verdict, Verdict::NotBefore(_)) && busy.asides.len() == 0 => State::Sending,
            Some(_) if busy.flights.is_empty() && busy.preparing.is_none() => State::Backoff { until_ms },
            _ => State::Sending,
        };
        // A try after a failure is no delivery yet.
        let state = if state == State::Sending && self.pace.failing() { State::Backoff { until_ms: 0 } } else { state };
        busy.post.stats.set_state(state);
        busy.post.stats.set_waits(match verdict {
            Verdict::Paced(_, by) => Waits::Rate(by),
            Verdict::Full => Waits::Answers,
            Verdict::Start if busy.preparing.is_some() => Waits::Share,
            Verdict::Start | Verdict::NotBefore(_) => Waits::Nothing,
        });
        busy.post.stats.set_rate(self.pace.learned(), self.pace.known());
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
