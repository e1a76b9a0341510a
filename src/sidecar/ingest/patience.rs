//! How long a connection may stay in what it is doing: waiting for a request, sending one's head, or having it served.
//!
//! No clock is read and no timer set for a request. The connection notes its phase in a [`Pulse`]; a ticker looks at
//! it now and then, and closes what has stood still in one phase for too many ticks. So a limit is kept to within a tick.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::limits::{Limits, PATIENCE_TICK};

/// What a connection is doing, with a count that tells one request from the next.
#[derive(Debug, Default)]
pub(crate) struct Pulse(AtomicU64);

/// What a connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Nothing was asked, or an answer is on its way out.
    Idle,
    /// The first bytes of a request are there.
    Head,
    /// A request is being served: the body has its own limit.
    Busy,
}

/// The ticker's memory of one connection.
#[derive(Debug)]
pub(crate) struct Patience {
    head_ticks: u32,
    idle_ticks: u32,
    seen: u64,
    ticks: u32,
}

impl Pulse {
    /// Bytes came.
    pub(crate) fn bytes_came(&self) {
        if self.phase() == Phase::Idle {
            self.enter(Phase::Head);
        }
    }

    /// A head is complete.
    pub(crate) fn request_began(&self) {
        self.enter(Phase::Busy);
    }

    /// Its answer is made.
    pub(crate) fn request_ended(&self) {
        self.enter(Phase::Idle);
    }

    /// Whether a request's head is begun and not complete.
    pub(crate) fn in_head(&self) -> bool {
        self.phase() == Phase::Head
    }

    fn phase(&self) -> Phase {
        phase_of(self.0.load(Relaxed))
    }

    fn enter(&self, phase: Phase) {
        // Only the connection's own task writes, so nothing is lost between the two.
        let count = self.0.load(Relaxed) >> 2;
        self.0.store((count + 1) << 2 | phase as u64, Relaxed);
    }
}

impl Patience {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self { head_ticks: ticks(limits.head_time_max), idle_ticks: ticks(limits.idle_time_max), seen: 0, ticks: 0 }
    }

    /// Whether it has ended. `crowded`: connections are short, so that an idle one goes at the first occasion.
    pub(crate) fn ends(&mut self, pulse: &Pulse, crowded: bool) -> bool {
        let now = pulse.0.load(Relaxed);
        if now != self.seen {
            (self.seen, self.ticks) = (now, 0);
            return false;
        }
        self.ticks = self.ticks.saturating_add(1);
        match phase_of(now) {
            Phase::Busy => false,
            Phase::Head => self.ticks >= self.head_ticks,
            Phase::Idle => crowded || self.ticks >= self.idle_ticks,
        }
    }
}

fn phase_of(pulse: u64) -> Phase {
    match pulse & 3 {
        0 => Phase::Idle,
        1 => Phase::Head,
        _ => Phase::Busy,
    }
}

fn ticks(limit: Duration) -> u32 {
    u32::try_from(limit.as_millis().div_ceil(PATIENCE_TICK.as_millis())).unwrap_or(u32::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patience() -> Patience {
        Patience::new(&Limits {
            head_time_max: 2 * PATIENCE_TICK,
            idle_time_max: 4 * PATIENCE_TICK,
            ..Limits::default()
        })
    }

    /// The number of ticks until it ends, at most 100.
    fn ends_after(patience: &mut Patience, pulse: &Pulse, crowded: bool) -> Option<u32> {
        (1..=100).find(|_| patience.ends(pulse, crowded))
    }

    #[test]
    fn a_silent_connection_ends_by_the_idle_limit() {
        assert_eq!(ends_after(&mut patience(), &Pulse::default(), false), Some(4));
        assert_eq!(ends_after(&mut patience(), &Pulse::default(), true), Some(1), "when connections are short");
    }

    #[test]
    fn a_head_that_drips_ends_by_its_own_limit_however_many_bytes_come() {
        let (pulse, mut patience) = (Pulse::default(), patience());
        pulse.bytes_came();
        assert!(!patience.ends(&pulse, false));
        pulse.bytes_came();
        assert!(!patience.ends(&pulse, false));
        pulse.bytes_came();
        assert!(patience.ends(&pulse, true));
    }

    #[test]
    fn a_request_in_service_is_left_alone() {
        let (pulse, mut patience) = (Pulse::default(), patience());
        pulse.bytes_came();
        pulse.request_began();
        pulse.bytes_came();
        assert_eq!(ends_after(&mut patience, &pulse, true), None);
        pulse.request_ended();
        assert_eq!(ends_after(&mut patience, &pulse, false), Some(5), "one to see it, four to lose patience");
    }

    #[test]
    fn a_busy_keep_alive_connection_never_ends() {
        let (pulse, mut patience) = (Pulse::default(), patience());
        for _ in 0..100 {
            pulse.bytes_came();
            pulse.request_began();
            pulse.request_ended();
            assert!(!patience.ends(&pulse, true));
        }
    }
}
