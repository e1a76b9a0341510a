//! What lets dead letters go without anybody asking: only what an operator has set, and never unsaid.
//!
//! The oldest go first. What goes is counted as expired, and logged; from four fifths of a limit on the log says once an
//! hour what is coming.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use forebay::{Balance, Count, Queue, Settled};

use super::Shelf;
use super::desk::{Desk, Shelves};
use super::filter::Filter;
use super::marked::{MarkedLetters, marked};
use super::sweep::{Fate, SweepError, Swept};
use crate::ages::ms;
use crate::delivery::source::BoxError;

/// Letters let go in one round: the next comes a second later.
const ROUND_MAX: usize = 5_000;

/// How often what is coming is said.
const SAID_EVERY_MS: u64 = 3_600_000;

/// Limits for dead letters. None by default: then they stay until somebody decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Policy {
    /// Older ones go.
    pub age_max: Option<Duration>,
    /// While there are more bytes of them, as stored, the oldest go.
    pub bytes_max: Option<u64>,
}

impl Policy {
    /// Whether four fifths of a limit are reached.
    fn is_near(&self, bytes: u64, age_ms: u64) -> bool {
        self.age_max.is_some_and(|max| age_ms >= ms(max) / 5 * 4)
            || self.bytes_max.is_some_and(|max| bytes >= max / 5 * 4)
    }
}

/// When it was said last what is coming.
#[derive(Debug, Default)]
pub(super) struct Said(AtomicU64);

impl Said {
    fn due(&self, now_ms: u64) -> bool {
        let last = self.0.load(Ordering::Relaxed);
        let due = last == 0 || now_ms.saturating_sub(last) >= SAID_EVERY_MS;
        if due {
            self.0.store(now_ms, Ordering::Relaxed);
        }
        due
    }
}

impl Desk {
    /// Lets go what the policy does not keep.
    pub(super) fn obey_policy(&self, shelves: &Shelves, age_now: Option<u64>, wall_ms: u64) -> Result<(), BoxError> {
        let policy = self.policy();
        if policy == Policy::default() {
            return Ok(());
        }
        let (mut gone, mut obeyed) = (0, Ok(()));
        if let Some(age_max) = policy.age_max {
            // While ages do not count none is old; they are looked through all the same, to say what comes.
            match self.expire_older(shelves, age_now.map_or(0, |now_ms| now_ms.saturating_sub(ms(age_max)))) {
                Ok(older) => gone += older,
                Err(error) => obeyed = Err(error),
            }
        }
        while let Some(bytes_max) = policy.bytes_max
            && self.pending(shelves).bytes > bytes_max
        {
            // A frame of the oldest.
            match self.expire(&Filter::default(), 1) {
                Ok(0) => break,
                Ok(more) => gone += more,
                Err(error) => {
                    obeyed = Err(error);
                    break;
                }
            }
        }
        if gone > 0 {
            tracing::warn!(
                destination = self.destination(),
                letters = gone,
                "dead letters were let go, as dead_letters of the configuration says: they are counted as expired"
            );
        }
        self.say_what_comes(shelves, policy, wall_ms);
        // Whatever went before that is said.
        Ok(obeyed?)
    }

    /// The same for what lies where it was given up: by whole ranges. Letters count here, too; their turn is after this.
    pub(super) fn obey_policy_where_it_lies(&self, age_now: Option<u64>, wall_ms: u64) {
        let policy = self.policy();
        if policy == Policy::default() {
            return;
        }
        let Some(_inside) = self.enter() else { return };
        let mut gone = 0;
        if let (Some(age_max), Some(age_now)) = (policy.age_max, age_now) {
            let until_ms = Some(age_now.saturating_sub(ms(age_max)));
            gone += self.let_marked_go(&Filter { until_ms, ..Filter::default() }, Settled::Expired);
        }
        let mut left: Vec<(Queue, MarkedLetters)> = Vec::new();
        for queue in self.markers() {
            left.extend(marked(&queue).into_iter().map(|range| (queue.clone(), range)));
        }
        left.sort_by_key(|(_, range)| range.at_ms);
        let mut lying: Count = left.iter().map(|(_, range)| range.count()).sum();
        let dead = self.dead().bytes;
        let mut left = left.into_iter().peekable();
        while policy.bytes_max.is_some_and(|bytes_max| dead.saturating_add(lying.bytes) > bytes_max)
            && let Some((queue, oldest)) = left.peek()
        {
            let went = queue.let_marked_go(oldest.offsets.clone(), Settled::Expired);
            if went.records == 0 {
                break; // somebody decided on it meanwhile
            }
            gone += went.records;
            lying = Count { records: lying.records - went.records, bytes: lying.bytes - went.bytes };
            left.next();
        }
        if gone > 0 {
            tracing::warn!(
                destination = self.destination(),
                records = gone,
                "dead letters that lay where they had been given up were let go, as dead_letters of the configuration says: \
                 they are counted as expired"
            );
        }
        let Some((_, oldest)) = left.peek() else { return };
        let age_ms = wall_ms.saturating_sub(oldest.at_ms);
        let bytes = dead.saturating_add(lying.bytes);
        if policy.is_near(bytes, age_ms) && self.said_of_marked.due(wall_ms) {
            tracing::warn!(
                destination = self.destination(),
                records = lying.records,
                bytes,
                oldest_age_s = age_ms / 1000,
                "dead letters that lie where they were given up will be let go soon, as dead_letters of the configuration says: \
                 send them again or raise the limit"
            );
        }
    }

    /// Lets the oldest that match go, of so many.
    fn expire(&self, filter: &Filter, most: usize) -> Result<u64, SweepError> {
        Ok(self.sweep(filter, 0, most, Fate::Gone(Settled::Expired))?.step.done)
    }

    /// Lets go what was taken out before, a round of it. Reads nothing unless there may be any.
    fn expire_older(&self, shelves: &Shelves, until_ms: u64) -> Result<u64, SweepError> {
        let Some(from) = shelves.oldest.look(until_ms) else { return Ok(0) };
        let filter = Filter { until_ms: Some(until_ms), ..Filter::default() };
        let swept = self.sweep(&filter, from, ROUND_MAX, Fate::Gone(Settled::Expired));
        let Swept { step, left_ms } = swept.inspect_err(|_| shelves.oldest.failed())?;
        shelves.oldest.looked(left_ms, step.next);
        Ok(step.done)
    }

    fn pending(&self, shelves: &Shelves) -> Count {
        let Balance { pending, .. } = shelves.place(Shelf::Dead).queue.balance();
        pending
    }

    fn say_what_comes(&self, shelves: &Shelves, policy: Policy, wall_ms: u64) {
        let pending = self.pending(shelves);
        if pending.records == 0 {
            return;
        }
        // Known where ages matter; else the bytes alone say whether it is near.
        let age_ms = shelves.oldest.at_ms().map_or(0, |at_ms| wall_ms.saturating_sub(at_ms));
        if policy.is_near(pending.bytes, age_ms) && shelves.said.due(wall_ms) {
            tracing::warn!(
                destination = self.destination(),
                letters = pending.records,
                bytes = pending.bytes,
                oldest_age_s = age_ms / 1000,
                "dead letters will be let go soon, as dead_letters of the configuration says: send them again or raise the limit"
            );
        }
    }
}
