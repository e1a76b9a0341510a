//! Whose turn it is: the queues of a destination, one after the other, each as far as it has something; and of each of them what
//! came in since it fell behind, beside what waits, where [both](crate::delivery::catch_up) go.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::holds::{Hold, Holds};
use super::{Busy, Worker};
use crate::delivery::backoff::Backoff;
use crate::delivery::catch_up::{Both, GATHERS, Shares};
use crate::delivery::notes::Lane;
use crate::delivery::outcome::{Failure, Outcome};
use crate::delivery::rate::Size;
use crate::delivery::source::Source;

/// A queue, or what of it is live, and whether it had nothing when last asked.
pub(in crate::delivery) struct Turn {
    pub(super) source: Arc<dyn Source>,
    pub(super) dry: bool,
    /// Which place the queue has by itself: there is what is known of its batches.
    home: u32,
    /// Its batch is to fill until then, or until somebody looks again; or it waits by itself.
    pub(super) look_at: Duration,
    /// Why it, or who sends by it, waits or did until a moment ago. Nothing of almost all.
    pub(super) holds: Option<Box<Holds>>,
}

impl Turn {
    /// Those of the sources; with their second read positions, if there are to be `two`.
    pub(in crate::delivery) fn all(sources: &[Arc<dyn Source>], two: bool) -> Box<[Self]> {
        let mut turns = Vec::with_capacity(sources.len());
        for source in sources {
            let home = u32::try_from(turns.len()).expect("a destination has fewer sources");
            turns.push(Self::of(Arc::clone(source), home));
            turns.extend(source.live().filter(|_| two).map(|live| Self::of(live, home)));
        }
        turns.into()
    }

    fn of(source: Arc<dyn Source>, home: u32) -> Self {
        Self { source, dry: false, home, look_at: Duration::ZERO, holds: None }
    }

    /// See [`home`](Self::home).
    pub(super) fn home(&self) -> usize {
        self.home as usize
    }
}

/// Whose turn it is.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Chosen {
    /// Its place.
    pub(super) turn: usize,
    /// It goes beside a backlog.
    is_live: bool,
    /// One that does, if this does not, and the other way round, could have had the turn.
    other: bool,
}

/// What both read positions have had, and what is in flight of either.
#[derive(Debug, Default)]
pub(super) struct Beside {
    shares: Shares,
    /// The place from which on the next is looked for that goes beside a backlog: each of both goes round by itself.
    next_live: usize,
    /// Each flight has a copy, and lets go of it however it ends.
    flights: Both<Arc<()>>,
    /// Until when what is live at a place gathers, if there is a backlog to send meanwhile.
    gathers: BTreeMap<usize, Duration>,
    /// What [waits by itself](Worker::waits_alone), by place.
    alone: BTreeMap<usize, Alone>,
}

/// A batch that waits by itself, or did when it was last seen: it may have gone another way.
#[derive(Debug, Default)]
struct Alone {
    /// Where it begins; none where there is none yet.
    first: Option<u64>,
    backoff: Backoff,
    until: Duration,
}

impl Beside {
    /// Nothing is under way; who goes beside a backlog is looked for from this place on.
    pub(super) fn from(next_live: usize) -> Self {
        Self { next_live, ..Self::default() }
    }

    /// One request of the position that was chosen is in flight until what it returns is dropped.
    pub(super) fn slot(&self, chosen: Chosen) -> Arc<()> {
        Arc::clone(if chosen.is_live { &self.flights.live } else { &self.flights.backlog })
    }

    /// Whether something [waits by itself](Worker::waits_alone).
    pub(super) fn has_some_alone(&self, now: Duration) -> bool {
        self.alone.values().any(|alone| alone.until > now)
    }

    fn in_flight(&self) -> Both<usize> {
        let count = |flights: &Arc<()>| Arc::strong_count(flights) - 1;
        Both { backlog: count(&self.flights.backlog), live: count(&self.flights.live) }
    }
}

impl Worker {
    /// The next queue with something to send, in turn.
    pub(super) fn turn(&self, busy: &Busy) -> Option<Chosen> {
        let Some(catch_up) = self.settings.catch_up else {
            return Some(Chosen { turn: self.next_of(self.next, |_, _| true)?, ..Chosen::default() });
        };
        let (beside, allowed) = (&busy.beside, self.pace.allowed());
        let Both { backlog, live } = self.next_of_both(beside);
        // What fails is probed with what is oldest: an outage opens no batches at two ends.
        if let Some(turn) = backlog.filter(|_| self.pace.failing()) {
            return Some(Chosen { turn, ..Chosen::default() });
        }
        let wants = Both { backlog: backlog.is_some(), live: live.is_some() };
        let is_live = beside.shares.next(catch_up, wants, beside.in_flight(), allowed)?;
        let other = Shares::could_go(catch_up, !is_live, wants, beside.in_flight(), allowed);
        let turn = if is_live { live } else { backlog }?;
        Some(Chosen { turn, is_live, other })
    }

    /// The next queue of which a backlog is to be sent, and the next one of which what is fresh is. Those that are not behind
    /// are of the latter as soon as another one is.
    fn next_of_both(&self, beside: &Beside) -> Both<Option<usize>> {
        let any_parted = self.queues.iter().any(|turn| turn.source.is_parted());
        let is_live = |turn: &Turn| any_parted && turn.source.is_fresh();
        let backlog = self.next_of(self.next, |_, turn| !is_live(turn));
        let (now, limits) = (self.now(), self.pace.batch(self.settings.limits));
        let gathers = |at: usize, turn: &Turn| {
            beside.gathers.get(&at).is_some_and(|until| *until > now) && !turn.source.fills(limits)
        };
        let live =
            self.next_of(beside.next_live, |at, turn| is_live(turn) && (backlog.is_none() || !gathers(at, turn)));
        Both { backlog, live }
    }

    /// The next one of these, from a place on, that has something.
    fn next_of(&self, from: usize, these: impl Fn(usize, &Turn) -> bool) -> Option<usize> {
        let (n, now) = (self.queues.len(), self.now());
        (0..n).map(|step| (from + step) % n).find(|&at| {
            let turn = &self.queues[at];
            !turn.dry && turn.look_at <= now && turn.source.has_more() && these(at, turn)
        })
    }

    /// It has its turn, and those behind it come next.
    pub(super) fn takes_turn(&mut self, busy: &mut Busy, chosen: Chosen) {
        let next = if chosen.is_live { &mut busy.beside.next_live } else { &mut self.next };
        *next = (chosen.turn + 1) % self.queues.len();
        busy.chosen = chosen;
    }

    /// A request of this size starts, of what was made ready last: it counts against the share of its position.
    pub(super) fn count_share(&mut self, busy: &mut Busy, size: Size) {
        let Some(catch_up) = self.settings.catch_up else { return };
        let Chosen { turn, is_live, other } = busy.chosen;
        if is_live {
            busy.beside.gathers.insert(turn, self.now() + GATHERS);
        }
        busy.beside.shares.sent(catch_up, is_live, self.pace.cost(size), other);
    }

    /// What is next at this place can't be had or be done with, for a reason on our side: it waits by itself, and others go on. That is
    /// no word of the destination's. `first` is where the batch begins; none where there is none yet.
    pub(super) fn waits_alone(&mut self, busy: &mut Busy, at: usize, first: Option<u64>, why: &Failure) {
        let now = self.now();
        let turn = &mut self.queues[at];
        let alone = busy.beside.alone.entry(at).or_default();
        if alone.first != first || alone.backoff.failures() == 0 {
            let (destination, stream) = (&*self.id, turn.source.stream());
            tracing::error!(destination, stream, %why, "what is next of this queue waits, and is tried again");
            alone.first = first;
        }
        alone.until = now + alone.backoff.next(&mut busy.rng);
        // Where the destination does not take what comes from there it is not tried sooner for that.
        turn.look_at = if turn.is_held() { turn.look_at.max(alone.until) } else { alone.until };
        busy.post.stats.failed(&Outcome::Retry { why: why.clone() }, self.common.clock.wall_ms());
    }

    /// Whether this batch is one that waits by itself now: it was claimed before that was known. Then so does its place, whatever
    /// it was to wait for since.
    pub(super) fn waits_on(&mut self, busy: &Busy, at: usize, first: u64) -> bool {
        let alone = busy.beside.alone.get(&at).filter(|alone| alone.first == Some(first) && alone.until > self.now());
        let Some(alone) = alone else { return false };
        let turn = &mut self.queues[at];
        turn.look_at = turn.look_at.max(alone.until);
        true
    }

    /// What waited at this place waits no more: not by what became of another batch.
    pub(super) fn goes_on(&mut self, busy: &mut Busy, at: usize, first: Option<u64>) {
        if busy.beside.alone.get(&at).is_some_and(|alone| alone.first == first) {
            busy.beside.alone.remove(&at);
            let (destination, stream) = (&*self.id, self.queues[at].source.stream());
            tracing::info!(destination, stream, "what waited of this queue goes on");
        }
    }

    /// What waits by itself is tried now.
    pub(super) fn try_alone(&mut self, busy: &mut Busy) {
        for (at, alone) in &mut busy.beside.alone {
            (alone.until, self.queues[*at].look_at) = (Duration::ZERO, Duration::ZERO);
        }
    }

    /// When to look again at the first queue whose batch fills.
    pub(super) fn filling(&self) -> Option<Duration> {
        let now = self.now();
        let fills = |turn: &&Turn| !turn.dry && turn.look_at > now && turn.source.has_more();
        self.queues.iter().filter(fills).map(|turn| turn.look_at).min()
    }

    /// Something moved: queues that had nothing may have something.
    pub(super) fn wet(&mut self) {
        self.queues.iter_mut().for_each(|turn| turn.dry = false);
    }

    /// Whether something else of whoever waits by itself is to be tried; of the queue `preparing` one is about to be.
    pub(super) fn is_probed(&self, lane: Lane, preparing: Option<usize>) -> bool {
        let turn = &self.queues[lane.queue];
        let apart = turn.hold_of((lane.log, lane.stream));
        let is_prepared = preparing.is_some_and(|at| self.queues[at].home() == lane.queue);
        let has_more = is_prepared || turn.source.has_more();
        // The queue does not say whether it has more of a sender that is put off: that is seen when its time has come, and
        // then maybe not before others' records went.
        apart.is_some_and(Hold::is_put_off) || ((apart.is_some() || turn.is_held()) && has_more)
    }
}
