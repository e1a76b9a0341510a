//! Time, brought in from outside.
//!
//! The only file that may ask the operating system what time it is (a lint holds the others to that). Logic
//! takes `now` as an argument; whoever owns a loop owns a [`Clock`]. Wall time is for people and for age; order
//! never depends on it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Where the time comes from.
pub trait Clock: Send + Sync {
    /// Time since some fixed moment of this process. Never goes back; stands still for nobody.
    fn monotonic(&self) -> Duration;

    /// Milliseconds since 1970-01-01 UTC. May jump either way: for ages and for people, never for order.
    fn wall_ms(&self) -> u64;
}

/// The operating system's clocks.
#[derive(Debug, Clone)]
pub struct SystemClock {
    start: Instant,
}

impl SystemClock {
    /// A clock whose monotonic time starts at zero now.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the clock")]
    pub fn new() -> Self {
        Self { start: Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the clock")]
    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }

    #[expect(clippy::disallowed_methods, reason = "the one place that reads the clock")]
    fn wall_ms(&self) -> u64 {
        // A machine set before 1970 reads as 0: ages are then too large, and nothing else follows.
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }
}

/// A clock that moves only when told to. Both times move together, unless the wall's is [set](Self::set_wall_ms).
#[derive(Debug, Clone, Default)]
pub struct ManualClock {
    now_ms: Arc<AtomicU64>,
    /// The wall's time goes wrong by so much, in milliseconds; wraps.
    wall_off_ms: Arc<AtomicU64>,
}

impl ManualClock {
    /// A clock that stands at `now_ms` after 1970.
    #[must_use]
    pub fn at(now_ms: u64) -> Self {
        Self { now_ms: Arc::new(AtomicU64::new(now_ms)), wall_off_ms: Arc::default() }
    }

    /// Sets the wall's time, as somebody may set a machine's clock. The monotonic time goes on as it was.
    pub fn set_wall_ms(&self, wall_ms: u64) {
        self.wall_off_ms.store(wall_ms.wrapping_sub(self.now_ms.load(Ordering::SeqCst)), Ordering::SeqCst);
    }

    /// Moves on by `by`, rounded down to milliseconds.
    pub fn advance(&self, by: Duration) {
        let by_ms = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
        self.now_ms.fetch_add(by_ms, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.now_ms.load(Ordering::SeqCst))
    }

    fn wall_ms(&self) -> u64 {
        self.now_ms.load(Ordering::SeqCst).wrapping_add(self.wall_off_ms.load(Ordering::SeqCst))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manual_clock_moves_only_when_told() {
        let clock = ManualClock::at(5);
        let twin = clock.clone();
        assert_eq!(clock.wall_ms(), 5);
        clock.advance(Duration::from_millis(7));
        assert_eq!(twin.wall_ms(), 12, "clones share the time");
        assert_eq!(twin.monotonic(), Duration::from_millis(12));
        clock.set_wall_ms(3);
        clock.advance(Duration::from_millis(1));
        assert_eq!((twin.wall_ms(), twin.monotonic()), (4, Duration::from_millis(13)));
    }

    #[test]
    fn the_system_clock_goes_forward_from_zero() {
        let clock = SystemClock::new();
        let first = clock.monotonic();
        std::thread::sleep(Duration::from_millis(1));
        assert!(clock.monotonic() > first);
        assert!(clock.wall_ms() > 1_600_000_000_000, "after 2020");
    }
}
