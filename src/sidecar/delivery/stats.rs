//! What one destination has done and does now: counters for /metrics, and the last words for people.
//!
//! Counters only grow, and count since the process began; what must outlive it is the queue's balance. Reading them
//! waits for nobody, so that a status page never slows delivery.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use super::outcome::{Failure, Outcome};
use super::rate::learned::Speed;
use super::rate::{By, RateLimits};

/// The last error's text is cut to about this many bytes.
const ERROR_TEXT_MAX: usize = 300;

/// Failures are counted under these names; `class` sorts them.
pub const CLASSES: [&str; 11] =
    ["3xx", "4xx", "429", "5xx", "503", "other_status", "timeout", "connection", "disk", "local", "panic"];

/// Answers that are about records or about the destination itself are counted under these names, beside their class.
pub const ANSWERS: [&str; 4] = ["too_large", "rejected", "partial", "refused"];

/// The counters of one destination.
#[derive(Debug, Default)]
pub struct DeliveryStats {
    requests: AtomicU64,
    sent_bytes: AtomicU64,
    delivered_batches: AtomicU64,
    delivered_records: AtomicU64,
    in_flight: AtomicU64,
    last_success_ms: AtomicU64,
    state_until_ms: AtomicU64,
    state: AtomicU8,
    waits: AtomicU8,
    /// Made when something first goes wrong: thousands of destinations are idle, and had none.
    troubles: OnceLock<Box<Troubles>>,
}

/// What went wrong so far.
#[derive(Debug, Default)]
struct Troubles {
    throttled: AtomicU64,
    answers: [AtomicU64; ANSWERS.len()],
    dead_lettered_records: AtomicU64,
    held_records: AtomicU64,
    undecided_records: AtomicU64,
    failures: [AtomicU64; CLASSES.len()],
    failures_in_a_row: AtomicU64,
    asked_to_wait: AtomicBool,
    /// Set before anything is sent.
    allowed: OnceLock<RateLimits>,
    learned: Mutex<Option<Learned>>,
    last_error: Mutex<Option<LastError>>,
    held: Mutex<Vec<Held>>,
}

/// A queue that waits by itself while the destination takes what others send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// The stream that it reads.
    pub stream: String,
    /// What was answered to it.
    pub why: String,
    /// When that was, in milliseconds since 1970.
    pub since_ms: u64,
    /// When it is tried again, in milliseconds since 1970.
    pub until_ms: u64,
    /// It is refused; not a batch of it that fails.
    pub refused: bool,
}

#[derive(Debug)]
struct LastError {
    text: String,
    /// In milliseconds since 1970.
    at_ms: u64,
}

/// What was learned of the rate that a destination takes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Learned {
    /// What it may be sent now.
    pub now: Speed,
    /// What it is known to take; `None` while that is found out.
    pub known: Option<Speed>,
}

/// What the next request waits for, where nothing failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waits {
    /// Nothing, or as the state says.
    Nothing,
    /// As many requests are in flight as may be.
    Answers,
    /// The rate.
    Rate(By),
    /// Its part of what destinations share, or the disk.
    Share,
}

/// What a destination is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Nothing to send.
    Idle,
    /// Requests are in flight or being made ready.
    Sending,
    /// There is something to send, but not before this moment (milliseconds since 1970; 0: it is being tried now, and
    /// failed when it was tried last).
    Backoff {
        /// The moment.
        until_ms: u64,
    },
    /// The destination refuses whatever is sent: it is probed, the next time at this moment (milliseconds since 1970; 0 if
    /// there is nothing to probe it with).
    Refused {
        /// The moment.
        until_ms: u64,
    },
    /// No more batches are started.
    Stopped,
    /// An operator holds it: no more batches are started until the operator says so.
    Paused,
}

/// The counters at one moment. Each is exact; they are not read all at the same instant.
#[derive(Debug, Clone, PartialEq)]
pub struct Snapshot {
    /// What the destination is doing.
    pub state: State,
    /// What the next request waits for.
    pub waits: Waits,
    /// What its operator allows a second.
    pub allowed: RateLimits,
    /// What was learned of its rate, if anything was.
    pub learned: Option<Learned>,
    /// The last attempt ended with a request to wait: a destination that backs off is throttled, not broken.
    pub asked_to_wait: bool,
    /// Requests begun, repeats included.
    pub requests: u64,
    /// Bytes of their bodies, as sent.
    pub sent_bytes: u64,
    /// Batches that the destination has taken.
    pub delivered_batches: u64,
    /// Records in them.
    pub delivered_records: u64,
    /// Attempts that ended with a request to wait. They count as failures, too.
    pub throttled: u64,
    /// Answers about records or about the destination itself, in the order of [`ANSWERS`]. They count as failures, too.
    pub answers: [u64; ANSWERS.len()],
    /// Records that became dead letters.
    pub dead_lettered_records: u64,
    /// Records that wait apart from the queue for a time of their own.
    pub held_records: u64,
    /// Records that were rejected and are not yet decided on: they wait in the queue, and others pass them.
    pub undecided_records: u64,
    /// Attempts that did not deliver, in the order of [`CLASSES`].
    pub failures: [u64; CLASSES.len()],
    /// Failures since the last success.
    pub failures_in_a_row: u64,
    /// Requests in flight.
    pub in_flight: u64,
    /// When a batch was last delivered, in milliseconds since 1970; `None` if never.
    pub last_success_ms: Option<u64>,
    /// What went wrong last, even if all is well since.
    pub last_error: Option<String>,
    /// When that was, in milliseconds since 1970.
    pub last_error_ms: Option<u64>,
    /// The queues that wait by themselves.
    pub held: Vec<Held>,
}

impl DeliveryStats {
    /// The counters now.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let last_success_ms = get(&self.last_success_ms);
        let none = Troubles::default();
        let troubles = self.troubles.get().map_or(&none, |troubles| troubles);
        let last_error = troubles.last_error.lock().unwrap_or_else(PoisonError::into_inner);
        let (last_error, last_error_ms) = last_error.as_ref().map(|error| (error.text.clone(), error.at_ms)).unzip();
        Snapshot {
            state: self.state(),
            waits: self.waits(),
            allowed: troubles.allowed.get().copied().unwrap_or_default(),
            learned: self.learned(),
            asked_to_wait: troubles.asked_to_wait.load(Ordering::Relaxed),
            requests: get(&self.requests),
            sent_bytes: get(&self.sent_bytes),
            delivered_batches: get(&self.delivered_batches),
            delivered_records: get(&self.delivered_records),
            throttled: get(&troubles.throttled),
            answers: std::array::from_fn(|answer| get(&troubles.answers[answer])),
            dead_lettered_records: get(&troubles.dead_lettered_records),
            held_records: get(&troubles.held_records),
            undecided_records: get(&troubles.undecided_records),
            failures: std::array::from_fn(|class| get(&troubles.failures[class])),
            failures_in_a_row: get(&troubles.failures_in_a_row),
            in_flight: get(&self.in_flight),
            last_success_ms: (last_success_ms > 0).then_some(last_success_ms),
            last_error,
            last_error_ms,
            held: troubles.held.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }

    /// What was learned of its rate, if anything was.
    pub(super) fn learned(&self) -> Option<Learned> {
        *self.troubles.get()?.learned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts on from what was counted before, by a loop with other settings. What it was doing ended with it.
    pub(super) fn go_on_from(&self, before: Snapshot) {
        add(&self.requests, before.requests);
        add(&self.sent_bytes, before.sent_bytes);
        add(&self.delivered_batches, before.delivered_batches);
        add(&self.delivered_records, before.delivered_records);
        self.last_success_ms.store(before.last_success_ms.unwrap_or(0), Ordering::Relaxed);
        let Some((text, at_ms)) = before.last_error.zip(before.last_error_ms) else {
            // Nothing is counted there without an error, but for letters.
            if before.dead_lettered_records + before.held_records > 0 {
                self.kept(before.dead_lettered_records, before.held_records);
            }
            return;
        };
        self.kept(before.dead_lettered_records, before.held_records);
        let troubles = self.troubles();
        add(&troubles.throttled, before.throttled);
        troubles.answers.iter().zip(before.answers).for_each(|(counter, n)| add(counter, n));
        troubles.failures.iter().zip(before.failures).for_each(|(counter, n)| add(counter, n));
        *troubles.last_error.lock().unwrap_or_else(PoisonError::into_inner) = Some(LastError { text, at_ms });
    }

    pub(super) fn sending(&self, bytes: u64) {
        add(&self.requests, 1);
        add(&self.sent_bytes, bytes);
    }

    pub(super) fn delivered(&self, records: u64, now_ms: u64) {
        add(&self.delivered_batches, 1);
        add(&self.delivered_records, records);
        if let Some(troubles) = self.troubles.get() {
            troubles.failures_in_a_row.store(0, Ordering::Relaxed);
            troubles.asked_to_wait.store(false, Ordering::Relaxed);
        }
        self.last_success_ms.store(now_ms, Ordering::Relaxed);
    }

    /// Counts a failure; returns how many there were in a row.
    pub(super) fn failed(&self, outcome: &Outcome, now_ms: u64) -> u64 {
        let troubles = self.troubles();
        let Some(why) = outcome.failure() else { return get(&troubles.failures_in_a_row) };
        let throttled = matches!(outcome, Outcome::Throttled { .. });
        add(&troubles.throttled, u64::from(throttled));
        troubles.asked_to_wait.store(throttled, Ordering::Relaxed);
        if let Some(answer) = answer(outcome) {
            add(&troubles.answers[answer], 1);
        }
        add(&troubles.failures[class(why)], 1);
        let error = LastError { text: cut(why.to_string()), at_ms: now_ms };
        *troubles.last_error.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
        troubles.failures_in_a_row.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Letters of a batch are durable.
    pub(super) fn kept(&self, dead: u64, held: u64) {
        let troubles = self.troubles();
        add(&troubles.dead_lettered_records, dead);
        add(&troubles.held_records, held);
    }

    pub(super) fn set_undecided(&self, records: usize) {
        match self.troubles.get() {
            None if records == 0 => {}
            _ => self.troubles().undecided_records.store(records as u64, Ordering::Relaxed),
        }
    }

    pub(super) fn set_held(&self, held: Vec<Held>) {
        if held.is_empty() && self.troubles.get().is_none() {
            return;
        }
        let held = held.into_iter().map(|of| Held { why: cut(of.why), ..of }).collect();
        *self.troubles().held.lock().unwrap_or_else(PoisonError::into_inner) = held;
    }

    /// The destination said that nothing is left.
    pub(super) fn asked_to_wait(&self) {
        self.troubles().asked_to_wait.store(true, Ordering::Relaxed);
    }

    /// To be told once.
    pub(super) fn set_allowed(&self, limits: RateLimits) {
        if !limits.is_empty() {
            let _ = self.troubles().allowed.set(limits);
        }
    }

    pub(super) fn set_rate(&self, now: Option<Speed>, known: Option<Speed>) {
        let learned = now.map(|now| Learned { now, known });
        if learned.is_some() || self.troubles.get().is_some() {
            *self.troubles().learned.lock().unwrap_or_else(PoisonError::into_inner) = learned;
        }
    }

    pub(super) fn set_waits(&self, waits: Waits) {
        let code = match waits {
            Waits::Nothing => 0,
            Waits::Answers => 1,
            Waits::Share => 2,
            Waits::Rate(By::Operator) => 3,
            Waits::Rate(By::Learned) => 4,
            Waits::Rate(By::Told) => 5,
        };
        self.waits.store(code, Ordering::Relaxed);
    }

    fn waits(&self) -> Waits {
        match self.waits.load(Ordering::Relaxed) {
            1 => Waits::Answers,
            2 => Waits::Share,
            3 => Waits::Rate(By::Operator),
            4 => Waits::Rate(By::Learned),
            5 => Waits::Rate(By::Told),
            _ => Waits::Nothing,
        }
    }

    pub(super) fn set_in_flight(&self, n: usize) {
        self.in_flight.store(n as u64, Ordering::Relaxed);
    }

    pub(super) fn set_state(&self, state: State) {
        let (code, until_ms) = match state {
            State::Idle => (0, 0),
            State::Sending => (1, 0),
            State::Backoff { until_ms } => (2, until_ms),
            State::Stopped => (3, 0),
            State::Paused => (4, 0),
            State::Refused { until_ms } => (5, until_ms),
        };
        self.state_until_ms.store(until_ms, Ordering::Relaxed);
        self.state.store(code, Ordering::Release);
    }

    fn troubles(&self) -> &Troubles {
        self.troubles.get_or_init(Box::default)
    }

    fn state(&self) -> State {
        match self.state.load(Ordering::Acquire) {
            0 => State::Idle,
            1 => State::Sending,
            2 => State::Backoff { until_ms: get(&self.state_until_ms) },
            4 => State::Paused,
            5 => State::Refused { until_ms: get(&self.state_until_ms) },
            _ => State::Stopped,
        }
    }
}

/// The wall-clock moment that lies `wait` ahead.
pub(super) fn moment_ms(now_ms: u64, wait: Duration) -> u64 {
    now_ms.saturating_add(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX))
}

/// The place of an answer in [`ANSWERS`].
fn answer(outcome: &Outcome) -> Option<usize> {
    match outcome {
        Outcome::TooLarge { .. } => Some(0),
        Outcome::Rejected { .. } => Some(1),
        Outcome::Partial(_) => Some(2),
        Outcome::Refused { .. } | Outcome::QueueRefused { .. } => Some(3),
        Outcome::Delivered | Outcome::Throttled { .. } | Outcome::Retry { .. } => None,
    }
}

/// The place of a failure in [`CLASSES`].
fn class(why: &Failure) -> usize {
    match why {
        Failure::Status { status: 429, .. } => 2,
        Failure::Status { status: 503, .. } => 4,
        Failure::Status { status: 300..400, .. } => 0,
        Failure::Status { status: 400..500, .. } => 1,
        Failure::Status { status: 500..600, .. } => 3,
        Failure::Status { .. } => 5,
        Failure::Timeout => 6,
        Failure::Connect(_) | Failure::Broken(_) => 7,
        Failure::Disk(_) => 8,
        Failure::Local(_) | Failure::Unread(_) => 9,
        Failure::Panic(_) => 10,
    }
}

fn cut(mut text: String) -> String {
    if text.len() > ERROR_TEXT_MAX {
        text.truncate(text.floor_char_boundary(ERROR_TEXT_MAX));
        text.push('…');
    }
    text
}

fn get(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

fn add(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}

#[cfg(test)]
mod tests;
