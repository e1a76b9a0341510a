//! Whether the next post of a key may go: not before the one before it is over, and not while the upstream refuses the
//! key. Each key has a gate of its own, so that no other key waits for it.
//!
//! What always holds: a key is never given up. It waits longer with each refusal, up to a bound, and a settled post
//! opens its gate at once. Of the posts that are claimed all but one have been rejected: those lie aside, until the
//! loop has found out whether they or the upstream are to blame, and it finds that out by what comes behind them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tracing::{info, warn};

/// How long a key waits behind its first refusal.
pub(super) const WAIT_MIN: Duration = Duration::from_secs(5);

/// How long a key waits at most: a key that is mended is found within this time.
pub(super) const WAIT_MAX: Duration = Duration::from_secs(300);

/// The gates of one upstream, made as keys come.
pub struct Gates {
    destination: Arc<str>,
    by_key: Mutex<HashMap<(String, u32), Arc<Gate>>>,
}

/// The gate of one key.
pub(super) struct Gate {
    destination: Arc<str>,
    environment: String,
    place: u32,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    refusals: u32,
    closed_until: Option<Instant>,
    /// Claims that were made, so that each has a number.
    claims: u64,
    /// Posts that are claimed, with their offsets as soon as these are known.
    out: BTreeMap<u64, Option<u64>>,
    /// Those of them that were rejected.
    aside: BTreeSet<u64>,
}

/// A claimed post.
#[derive(Debug, Clone, Copy)]
pub(super) struct ClaimId(u64);

impl Gates {
    /// The gates of an upstream, all open.
    #[must_use]
    pub fn new(destination: Arc<str>) -> Self {
        Self { destination, by_key: Mutex::default() }
    }

    /// The gate of the key at a place of an environment.
    pub(super) fn of(&self, environment: &str, place: u32) -> Arc<Gate> {
        let mut gates = self.by_key.lock().unwrap_or_else(PoisonError::into_inner);
        let gate = gates.entry((environment.to_owned(), place)).or_insert_with(|| {
            Arc::new(Gate {
                destination: Arc::clone(&self.destination),
                environment: environment.to_owned(),
                place,
                state: Mutex::default(),
            })
        });
        Arc::clone(gate)
    }
}

impl fmt::Debug for Gates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gates").field("destination", &self.destination).finish_non_exhaustive()
    }
}

impl Gate {
    /// Whose it is, for people.
    pub(super) fn name(&self) -> String {
        format!("sdk key {} of environment {}", self.place, self.environment)
    }

    /// Takes the turn for the next post, if it is free.
    pub(super) fn enter(&self) -> Option<ClaimId> {
        let mut state = self.state();
        if state.busy() {
            return None;
        }
        state.claims += 1;
        let claim = state.claims;
        state.out.insert(claim, None);
        Some(ClaimId(claim))
    }

    /// Whether a post is on its way.
    pub(super) fn busy(&self) -> bool {
        self.state().busy()
    }

    /// A claimed post is over: settled, or handed back.
    pub(super) fn leave(&self, ClaimId(claim): ClaimId) {
        let mut state = self.state();
        state.out.remove(&claim);
        state.aside.remove(&claim);
    }

    /// Which post was claimed.
    pub(super) fn claimed(&self, ClaimId(claim): ClaimId, offset: u64) {
        self.state().out.insert(claim, Some(offset));
    }

    /// A post was rejected: it may be poison, and the next one may go. A letter that was sent again is none of these.
    pub(super) fn rejected(&self, offset: u64) {
        let mut state = self.state();
        let claim = state.out.iter().find(|(_, at)| **at == Some(offset)).map(|(claim, _)| *claim);
        state.aside.extend(claim);
    }

    /// When it opens; `None` when it is open.
    pub(super) fn closed_until(&self, now: Instant) -> Option<Instant> {
        self.state().closed_until.filter(|until| *until > now)
    }

    /// The upstream refuses the key's next post.
    pub(super) fn hold(&self, why: &str) {
        let mut state = self.state();
        let wait = WAIT_MIN.saturating_mul(1 << state.refusals.min(16)).min(WAIT_MAX);
        state.refusals = state.refusals.saturating_add(1);
        state.closed_until = Some(Instant::now() + wait);
        if state.refusals == 1 {
            warn!(
                destination = %self.destination,
                environment = %self.environment,
                sdk_key = self.place,
                why,
                "the upstream refuses posts of this sdk key: they wait in order and are tried again, other keys go on; \
                 while they wait they take of the upstream's share of the disk"
            );
        }
    }

    /// The key's next post is settled.
    pub(super) fn open(&self) {
        let mut state = self.state();
        if state.refusals > 0 {
            info!(
                destination = %self.destination,
                environment = %self.environment,
                sdk_key = self.place,
                "posts of this sdk key go on"
            );
        }
        (state.refusals, state.closed_until) = (0, None);
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn busy(&self) -> bool {
        self.out.len() > self.aside.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_post_is_on_its_way_and_those_that_were_rejected_lie_aside() {
        let gate = Gates::new("split".into()).of("prod", 0);
        let first = gate.enter().unwrap();
        assert!(gate.busy() && gate.enter().is_none());
        gate.claimed(first, 70);
        gate.rejected(69);
        assert!(gate.enter().is_none(), "a letter of old");
        gate.rejected(70);
        let second = gate.enter().unwrap();
        gate.claimed(second, 71);
        assert!(gate.enter().is_none());
        gate.rejected(71);
        let third = gate.enter().unwrap();
        gate.leave(second);
        assert!(gate.busy(), "the third is on its way, the first aside");
        gate.leave(third);
        assert!(!gate.busy());
        gate.leave(first);
        assert!(gate.enter().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn each_refusal_waits_longer_up_to_a_bound_and_a_settled_post_opens() {
        let gates = Gates::new("split".into());
        let gate = gates.of("prod", 1);
        let mut waits = Vec::new();
        for _ in 0..20 {
            gate.hold("answered 401");
            waits.push(gate.closed_until(Instant::now()).unwrap() - Instant::now());
        }
        assert_eq!((waits[0], waits[1], waits[19]), (WAIT_MIN, 2 * WAIT_MIN, WAIT_MAX));
        assert!(waits.is_sorted());
        assert!(gates.of("prod", 0).closed_until(Instant::now()).is_none(), "another key");
        gates.of("prod", 1).open();
        assert!(gate.closed_until(Instant::now()).is_none());
        assert_eq!(gate.name(), "sdk key 1 of environment prod");
    }
}
