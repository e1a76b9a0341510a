//! Queues that wait by themselves, of a destination whose [senders are apart](crate::delivery::sink::Sink::senders_apart):
//! it refuses, rejects or fails with what comes from them, and takes what others send.
//!
//! Where a queue has records of several senders, the sender waits instead of the queue: its letters, that is, which lie among
//! others'.
//!
//! What always holds: nothing of such a queue is given up. Its next batch is tried again, after a longer wait each time up to
//! a bound, and at once when an operator asks for it; no other queue waits for it, and the pace does not hear of it. A queue
//! that gets something through is as any other.

use std::collections::BTreeMap;
use std::time::Duration;

use forebay::{LogId, StreamId};

use super::landing::Batch;
use super::{Busy, Turn, Worker};
use crate::delivery::notes::Lane;
use crate::delivery::outcome::{Failure, Outcome};
use crate::delivery::poison::Sender;
use crate::delivery::stats::{Held, moment_ms};

/// How long a queue waits at first.
pub(super) const WAIT_MIN: Duration = Duration::from_secs(5);

/// How long it waits at most: a key that is mended is found within this time.
pub(super) const WAIT_MAX: Duration = Duration::from_secs(300);

/// So often a batch fails, while others are taken between its failures, before it is held to be its own fault: a destination
/// that fails with a third of all requests does so with one in four hundred batches.
pub(super) const FAILS_ALONE: u32 = 5;

/// Why a queue waits by itself.
#[derive(Debug)]
pub(super) struct Hold {
    cause: Cause,
    why: String,
    /// How often it has waited.
    waits: u32,
    /// By the wall clock.
    since_ms: u64,
    until_ms: u64,
    /// The same by our clock. `None`: the time has come, and there was no answer yet.
    until: Option<Duration>,
    /// One is being tried.
    tried: bool,
}

impl Hold {
    /// Whether its time has not come, or one is being tried.
    pub(super) fn is_put_off(&self) -> bool {
        self.until.is_some()
    }
}

/// What waits by itself of what comes from a queue.
#[derive(Debug, Default)]
pub(super) struct Holds {
    /// All of it.
    queue: Option<Hold>,
    /// What these senders sent, by log and stream.
    senders: BTreeMap<(LogId, StreamId), Hold>,
}

impl Holds {
    /// The senders that wait.
    pub(super) fn into_senders(self) -> impl Iterator<Item = (LogId, StreamId)> {
        self.senders.into_keys()
    }
}

impl Turn {
    /// Whether the queue waits by itself.
    pub(super) fn is_held(&self) -> bool {
        self.holds.as_ref().is_some_and(|holds| holds.queue.is_some())
    }

    /// Why this sender waits, if it does while others' records come from the queue.
    pub(super) fn hold_of(&self, sender: (LogId, StreamId)) -> Option<&Hold> {
        self.holds.as_ref()?.senders.get(&sender)
    }

    /// All that waits: the queue, and senders.
    fn all_holds(&self) -> impl Iterator<Item = &Hold> {
        self.holds.iter().flat_map(|holds| holds.queue.iter().chain(holds.senders.values()))
    }

    fn holds_mut(&mut self) -> &mut Holds {
        self.holds.get_or_insert_default()
    }

    fn forget_holds_if_none(&mut self) {
        self.holds.take_if(|holds| holds.queue.is_none() && holds.senders.is_empty());
    }
}

/// What the destination does with what comes from the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// It refuses the sender: any other answer shows that it does not any more.
    Refuses,
    /// It rejects too much of it: only what it takes shows that it does not any more.
    Rejects,
    /// It fails with the queue's next batch.
    Fails,
}

impl Worker {
    /// Who sent what comes from there.
    pub(super) fn sender(&self, batch: &Batch) -> Sender {
        match self.sink.senders_apart() {
            true => Sender::Stream(batch.queue.log, batch.queue.stream),
            false => Sender::All,
        }
    }

    /// The queue waits by itself, or of one with several senders this one.
    pub(super) fn hold(&mut self, busy: &mut Busy, lane: Lane, cause: Cause, why: &Failure) {
        let (now, now_ms) = (self.now(), self.common.clock.wall_ms());
        let turn = &mut self.queues[lane.queue];
        let sender = (lane.log, lane.stream);
        let before = turn.hold_of(sender).or_else(|| turn.holds.as_ref()?.queue.as_ref());
        // What was under way already says nothing new.
        if before.is_some_and(|hold| hold.cause == cause && !hold.tried && hold.until.is_some_and(|until| now < until))
        {
            return;
        }
        let waits = before.map_or(0, |hold| hold.waits);
        let wait = WAIT_MIN.saturating_mul(1 << waits.min(16)).min(WAIT_MAX);
        if before.is_none() {
            let (destination, stream) = (&*self.id, turn.source.stream());
            let sender = turn.source.sender(lane.log, lane.stream);
            tracing::warn!(
                destination,
                stream,
                sender,
                %why,
                "the destination does not take what comes from this queue: it waits in order and is tried again now and then, \
                 others go on; see to its key and its sender, then probe the destination"
            );
        }
        let (since_ms, until_ms, until) = (now_ms, moment_ms(now_ms, wait), Some(now + wait));
        let (why, waits) = (why.to_string(), waits.saturating_add(1));
        let hold = Hold { cause, why, waits, since_ms, until_ms, until, tried: false };
        if turn.source.put_off(lane.log, lane.stream, Some(until_ms)) {
            turn.holds_mut().senders.insert(sender, hold);
        } else {
            turn.look_at = now + wait;
            turn.holds_mut().queue = Some(hold);
        }
        self.show_holds(busy);
    }

    /// The destination said something else than `cause` about what comes from the queue, or from this sender of its.
    pub(super) fn lift(&mut self, busy: &mut Busy, lane: Lane, unless: Option<Cause>) {
        let turn = &mut self.queues[lane.queue];
        let sender = (lane.log, lane.stream);
        let Some(holds) = &mut turn.holds else { return };
        let mut lifted = false;
        if holds.senders.get(&sender).is_some_and(|hold| unless != Some(hold.cause)) {
            holds.senders.remove(&sender);
            turn.source.put_off(lane.log, lane.stream, None);
            lifted = true;
        }
        if holds.queue.take_if(|hold| unless != Some(hold.cause)).is_some() {
            turn.look_at = Duration::ZERO;
            lifted = true;
        }
        if lifted {
            turn.forget_holds_if_none();
            let (destination, stream) = (&*self.id, turn.source.stream());
            let sender = turn.source.sender(lane.log, lane.stream);
            tracing::info!(destination, stream, sender, "the destination takes what comes from this queue again");
            self.show_holds(busy);
        }
    }

    /// None of them waits any longer; what they waited for is found out anew.
    pub(super) fn lift_all(&mut self, busy: &mut Busy) {
        let mut any = false;
        for turn in self.queues.iter_mut() {
            let Some(holds) = turn.holds.take() else { continue };
            any = true;
            for (log, stream) in holds.senders.into_keys() {
                turn.source.put_off(log, stream, None);
            }
            if holds.queue.is_some() {
                turn.look_at = Duration::ZERO;
            }
        }
        if any {
            self.show_holds(busy);
        }
    }

    /// When the first of the senders is to be tried again that wait in a queue with others.
    pub(super) fn apart_until(&self) -> Option<Duration> {
        let senders =
            self.queues.iter().filter_map(|turn| turn.holds.as_ref()).flat_map(|holds| holds.senders.values());
        senders.filter_map(|hold| hold.until).min()
    }

    /// A batch of one of them is being sent: its others wait for what comes of that.
    pub(super) fn tries(&mut self, lane: Lane) {
        let (now, now_ms) = (self.now(), self.common.clock.wall_ms());
        let turn = &mut self.queues[lane.queue];
        let Some(holds) = &mut turn.holds else { return };
        let Some(hold) = holds.senders.get_mut(&(lane.log, lane.stream)) else { return };
        (hold.until, hold.tried) = (Some(now + WAIT_MAX), true);
        turn.source.put_off(lane.log, lane.stream, Some(moment_ms(now_ms, WAIT_MAX)));
    }

    /// Has those of them tried whose time has come.
    pub(super) fn try_apart(&mut self) {
        let now = self.now();
        let mut any = false;
        for turn in self.queues.iter_mut() {
            for ((log, stream), hold) in turn.holds.iter_mut().flat_map(|holds| &mut holds.senders) {
                if hold.until.take_if(|until| *until <= now).is_some() {
                    turn.source.put_off(*log, *stream, None);
                    any = true;
                }
            }
        }
        if any {
            self.wet();
        }
    }

    /// Whether it is this batch that fails, and not the destination: that took others between its failures.
    pub(super) fn fails_alone(&mut self, batch: &Batch, outcome: &Outcome) -> bool {
        if !self.sink.senders_apart() || !may_be_its_own(outcome) {
            return false;
        }
        let (taken, failing) = (self.memory.taken(), self.pace.failing());
        let note = self.memory.notes().make(batch.queue, &batch.shape.offsets);
        if note.failures == 0 || note.taken != taken {
            (note.failures, note.taken) = (note.failures.saturating_add(1), taken);
            return note.failures >= FAILS_ALONE;
        }
        // Nothing else was sent since: what was known of it holds, unless others fail as well.
        note.failures >= FAILS_ALONE && !failing
    }

    /// Whether all that there is to do is to wait for such queues: those that others come from have nothing.
    pub(super) fn waits_for_holds_only(&self, busy: &Busy) -> bool {
        let mut waiting = self.queues.iter().filter(|turn| !turn.dry && turn.source.has_more());
        let waits = |turn: &Turn| turn.holds.is_some();
        self.queues.iter().any(waits)
            && busy.is_still()
            && waiting.all(Turn::is_held)
            && busy.asides.queues().all(|queue| waits(&self.queues[queue]))
    }

    fn show_holds(&self, busy: &Busy) {
        let held = |turn: &Turn| {
            let stream = turn.source.stream();
            let held = |hold: &Hold| Held {
                stream: stream.clone(),
                why: hold.why.clone(),
                since_ms: hold.since_ms,
                until_ms: hold.until_ms,
                refused: hold.cause != Cause::Fails,
            };
            turn.all_holds().map(held).collect::<Vec<_>>()
        };
        busy.post.stats.set_held(self.queues.iter().flat_map(held).collect());
    }
}

/// A request to wait is about all that is sent, and who can't be reached takes nothing from anybody.
fn may_be_its_own(outcome: &Outcome) -> bool {
    match outcome {
        Outcome::Throttled { retry_after: None, why: Failure::Status { status: 503, .. } } => true,
        Outcome::Retry { why } | Outcome::Refused { why } => !matches!(why, Failure::Connect(_)),
        _ => false,
    }
}
