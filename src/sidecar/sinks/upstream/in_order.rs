//! A key's queue of posts, one post at a time and not before its gate opens: what keeps them in order.
//!
//! What always holds: at most one post of the key is on its way; the next one is claimed after it was settled, or is that
//! same post again. A post that was rejected lets the next one pass, for the loop needs to see whether anything is taken
//! before it calls the post poison. Whoever waits is woken when the gate opens. Adds no order of its own: it is the queue's.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use forebay::{Settled, Waiting};
use tokio::runtime::Handle;
use tokio::time::Instant;

use super::gate::{ClaimId, Gate, Gates};
use crate::delivery::heavy::Heavy;
use crate::delivery::sink::LargeJob;
use crate::delivery::source::{BoxError, Claimed, Limits, Source, Stored, Ticket};

/// One SDK key's queue.
pub struct InOrder {
    inner: Arc<dyn Source>,
    turn: Arc<Turn>,
}

/// Whose turn it is.
struct Turn {
    inner: Arc<dyn Source>,
    gate: Arc<Gate>,
    runtime: Handle,
    /// Somebody sleeps until the gate opens.
    sleeping: AtomicBool,
    wake: Mutex<Option<Arc<dyn Fn() + Send + Sync>>>,
}

impl InOrder {
    /// The queue `inner` of the key at a place of an environment, whose gate is among `gates`.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    #[must_use]
    pub fn new(inner: Arc<dyn Source>, gates: &Gates, environment: &str, place: u32) -> Self {
        let turn = Turn {
            inner: Arc::clone(&inner),
            gate: gates.of(environment, place),
            runtime: Handle::current(),
            sleeping: AtomicBool::new(false),
            wake: Mutex::default(),
        };
        Self { inner, turn: Arc::new(turn) }
    }
}

impl Source for InOrder {
    fn has_more(&self) -> bool {
        !self.turn.gate.busy() && self.turn.gate.closed_until(Instant::now()).is_none() && self.inner.has_more()
    }

    fn in_memory(&self) -> bool {
        self.inner.in_memory()
    }

    fn next(&self, limits: Limits) -> Result<Option<Claimed>, BoxError> {
        let Some(claim) = self.turn.gate.enter() else { return Ok(None) };
        // Gives the turn back however this ends, unless a post is claimed: then the post's end does.
        let mut held = InTurn { turn: Arc::clone(&self.turn), claim, claimed: false, ticket: None };
        let Some(Claimed { job, ticket }) = self.inner.next(Limits { records_max: 1, ..limits })? else {
            return Ok(None);
        };
        (held.claimed, held.ticket) = (true, Some(ticket));
        self.turn.gate.claimed(claim, job.origin.offsets.start);
        Ok(Some(Claimed { job, ticket: Box::new(held) }))
    }

    fn next_large(&self, _: Limits, _: Option<u64>, _: &Heavy) -> Result<Option<Claimed<LargeJob>>, BoxError> {
        Err("a post is held in memory while it is sent, and never claimed as a range".into())
    }

    fn waiting(&self) -> Result<Waiting, BoxError> {
        self.inner.waiting()
    }

    fn on_more(&self, wake: Arc<dyn Fn() + Send + Sync>) {
        *self.turn.wake.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&wake));
        self.inner.on_more(wake);
        // Gates outlive their sources: what slept until this one opens was the source that this one replaces.
        self.turn.pass();
    }
}

/// A claimed post. Its end, whatever it is, gives the turn back.
struct InTurn {
    turn: Arc<Turn>,
    claim: ClaimId,
    /// There was a post to claim.
    claimed: bool,
    ticket: Option<Box<dyn Ticket>>,
}

impl InTurn {
    fn ticket(&self) -> &dyn Ticket {
        &**self.ticket.as_ref().expect("only settling and splitting take it, and those take this")
    }
}

impl Ticket for InTurn {
    fn plan(&self, done: Box<dyn FnOnce(Result<(), BoxError>) + Send>) {
        self.ticket().plan(done);
    }

    fn settle(mut self: Box<Self>, parts: &[(Range<u64>, Settled)], rest: Settled) {
        if let Some(ticket) = self.ticket.take() {
            ticket.settle(parts, rest);
            self.turn.gate.open();
        }
    }

    fn split(mut self: Box<Self>, at: u64, done: Box<dyn FnOnce(Result<(), BoxError>) + Send>) {
        match self.ticket.take() {
            // One post has no halves, so this is handed back as it was.
            Some(ticket) => ticket.split(at, done),
            None => done(Err("the post is settled".into())),
        }
    }

    fn letters(&self, offsets: &[u64]) -> Result<Vec<Stored>, BoxError> {
        self.ticket().letters(offsets)
    }
}

impl Drop for InTurn {
    fn drop(&mut self) {
        // First handed back, so that it is the next one: its return wakes, and finds the turn taken.
        drop(self.ticket.take());
        self.turn.gate.leave(self.claim);
        if self.claimed {
            self.turn.pass();
        }
    }
}

impl Turn {
    /// Wakes whoever may take the next post, when the gate lets it.
    fn pass(self: &Arc<Self>) {
        let Some(until) = self.gate.closed_until(Instant::now()) else {
            if self.inner.has_more() {
                self.wake();
            }
            return;
        };
        if self.sleeping.swap(true, Ordering::AcqRel) {
            return;
        }
        let turn = Arc::downgrade(self);
        self.runtime.spawn(async move {
            tokio::time::sleep_until(until).await;
            if let Some(turn) = turn.upgrade() {
                turn.sleeping.store(false, Ordering::Release);
                turn.pass();
            }
        });
    }

    fn wake(&self) {
        let wake = self.wake.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(wake) = wake {
            wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::super::gate::WAIT_MIN;
    use super::*;

    /// A queue with a post in it.
    struct Waits;

    impl Source for Waits {
        fn has_more(&self) -> bool {
            true
        }

        fn in_memory(&self) -> bool {
            true
        }

        fn next(&self, _: Limits) -> Result<Option<Claimed>, BoxError> {
            Ok(None)
        }

        fn next_large(&self, _: Limits, _: Option<u64>, _: &Heavy) -> Result<Option<Claimed<LargeJob>>, BoxError> {
            Ok(None)
        }

        fn waiting(&self) -> Result<Waiting, BoxError> {
            Ok(Waiting::default())
        }

        fn on_more(&self, _: Arc<dyn Fn() + Send + Sync>) {}
    }

    /// The operator puts the key right that was refused, so the upstream is replaced while the gate is closed. Before, the
    /// key's posts waited for the next post of that upstream.
    #[tokio::test(start_paused = true)]
    async fn a_source_that_is_made_while_its_gate_is_closed_wakes_when_it_opens() {
        let gates = Gates::new("split".into());
        gates.of("prod", 0).hold("answered 401");
        drop(InOrder::new(Arc::new(Waits), &gates, "prod", 0));
        let (source, woken) = (InOrder::new(Arc::new(Waits), &gates, "prod", 0), Arc::new(AtomicUsize::new(0)));
        let counted = Arc::clone(&woken);
        source.on_more(Arc::new(move || {
            counted.fetch_add(1, Ordering::SeqCst);
        }));
        assert!(!source.has_more() && woken.load(Ordering::SeqCst) == 0);
        tokio::time::sleep(WAIT_MIN * 2).await;
        assert!(source.has_more() && woken.load(Ordering::SeqCst) == 1);
    }
}
