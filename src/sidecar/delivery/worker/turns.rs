//! Whose turn it is: the queues of a destination, one after the other, each as far as it has something; and of each of them what
//! came in since it fell behind, beside what waits, where [both](crate::delivery::catch_up) go.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::holds::{Hold, Holds};
use super::{Busy, Worker};
use crate::delivery::catch_up::{Both, GATHERS, Shares};
use crate::delivery::notes::Lane;
use crate::delivery::rate::Size;
use crate::delivery::source::Source;

/// A queue, or what of it is live, and whether it had nothing when last asked.
pub(in crate::delivery) struct Turn {
    pub(super) source: Arc<dyn Source>,
    pub(super) dry: bool,
    /// It is the second read position of a queue.
    pub(super) is_live: bool,
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
            turns.push(Self::of(Arc::clone(source), home, false));
            turns.extend(source.live().filter(|_| two).map(|live| Self::of(live, home, true)));
        }
        turns.into()
    }

    fn of(source: Arc<dyn Source>, home: u32, is_live: bool) -> Self {
        Self { source, dry: false, is_live, home, look_at: Duration::ZERO, holds: None }
    }

    /// See [`home`](Self::home).
    pub(super) fn home(&self) -> usize {
        self.home as usize
    }
}

/// What both read positions have had, and what is in flight of either.
#[derive(Debug, Default)]
pub(super) struct Beside {
    shares: Shares,
    /// Each flight has a copy, and lets go of it however it ends.
    flights: Both<Arc<()>>,
    /// Until when what is live at a place gathers, if there is a backlog to send meanwhile.
    gathers: BTreeMap<usize, Duration>,
}

impl Beside {
    /// One request of this position is in flight until what it returns is dropped.
    pub(super) fn slot(&self, live: bool) -> Arc<()> {
        Arc::clone(if live { &self.flights.live } else { &self.flights.backlog })
    }

    fn in_flight(&self) -> Both<usize> {
        let count = |flights: &Arc<()>| Arc::strong_count(flights) - 1;
        Both { backlog: count(&self.flights.backlog), live: count(&self.flights.live) }
    }
}

impl Worker {
    /// The next queue with something to send, in turn.
    pub(super) fn turn(&self, busy: &Busy) -> Option<usize> {
        let Some(catch_up) = self.settings.catch_up else { return self.next_of(|_, _| true) };
        let Both { backlog, live } = self.next_of_both(&busy.beside);
        // What fails is probed with what is oldest: an outage opens no batches at two ends.
        if self.pace.failing() && backlog.is_some() {
            return backlog;
        }
        let wants = Both { backlog: backlog.is_some(), live: live.is_some() };
        let beside = &busy.beside;
        let is_live = beside.shares.next(catch_up, wants, beside.in_flight(), self.pace.allowed())?;
        if is_live { live } else { backlog }
    }

    /// The next queue of which a backlog is to be sent, and the next one of which what is live is.
    fn next_of_both(&self, beside: &Beside) -> Both<Option<usize>> {
        let backlog = self.next_of(|_, turn| !turn.is_live);
        let (now, limits) = (self.now(), self.pace.batch(self.settings.limits));
        let gathers = |at: usize, turn: &Turn| {
            beside.gathers.get(&at).is_some_and(|until| *until > now) && !turn.source.fills(limits)
        };
        let live = self.next_of(|at, turn| turn.is_live && (backlog.is_none() || !gathers(at, turn)));
        Both { backlog, live }
    }

    /// The next one of these that has something.
    fn next_of(&self, these: impl Fn(usize, &Turn) -> bool) -> Option<usize> {
        let (n, now) = (self.queues.len(), self.now());
        (0..n).map(|step| (self.next + step) % n).find(|&at| {
            let turn = &self.queues[at];
            these(at, turn) && !turn.dry && turn.look_at <= now && turn.source.has_more()
        })
    }

    /// A request of this size starts, of what was made ready last: it counts against the share of its position.
    pub(super) fn count_share(&mut self, busy: &mut Busy, size: Size) {
        let Some(catch_up) = self.settings.catch_up else { return };
        let is_live = self.queues[busy.preparing_from].is_live;
        let Both { backlog, live } = self.next_of_both(&busy.beside);
        let wants = Both { backlog: backlog.is_some(), live: live.is_some() };
        let other = Shares::could_go(catch_up, !is_live, wants, busy.beside.in_flight(), self.pace.allowed());
        if is_live {
            busy.beside.gathers.insert(busy.preparing_from, self.now() + GATHERS);
        }
        busy.beside.shares.sent(catch_up, is_live, self.pace.cost(size), other && !self.pace.failing());
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
        let has_more = preparing == Some(lane.queue) || turn.source.has_more();
        // The queue does not say whether it has more of a sender that is put off: that is seen when its time has come, and
        // then maybe not before others' records went.
        apart.is_some_and(Hold::is_put_off) || ((apart.is_some() || turn.is_held()) && has_more)
    }
}
