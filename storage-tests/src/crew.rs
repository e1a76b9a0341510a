//! Many cases on all cores, or in turn, up to a count or a time.
//!
//! A case follows from its number alone, so that it can be repeated by itself, on one thread.

use crate::crash_points::number;
use forebay::clock::{Clock, SystemClock};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

/// How far to go.
#[derive(Debug, Clone, Copy)]
pub struct Until {
    /// No further case is begun once the cases have counted so much.
    pub count: u64,
    /// Nor after this time, once they have counted as much as `floor`. Zero is no limit.
    pub time: Duration,
    /// A machine that is slow takes longer for so much; what hangs is for whoever waits for it to end.
    pub floor: u64,
}

/// How far it went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Done {
    /// What the cases counted.
    pub count: u64,
    /// How long it took.
    pub time: Duration,
}

impl Until {
    /// All of so many cases, however long they take, unless `FOREBAY_SECONDS` says otherwise; then `FOREBAY_FLOOR` of them.
    #[must_use]
    pub fn all(count: u64) -> Self {
        let time = Duration::from_secs(number("FOREBAY_SECONDS", 0));
        Self { count, time, floor: number("FOREBAY_FLOOR", 0).min(count) }
    }

    fn is_reached(self, count: u64, time: Duration) -> bool {
        count >= self.count || (count >= self.floor && !self.time.is_zero() && time >= self.time)
    }
}

impl std::fmt::Display for Done {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ms = self.time.as_millis().max(1) as u64;
        write!(f, "{} in {}.{} s, {} a second", self.count, ms / 1000, ms / 100 % 10, self.count * 1000 / ms)
    }
}

/// Calls `case` with `first`, `first + 1`, and so on; each returns how much it counts for.
///
/// # Panics
/// When a case does, with the number of the lowest one that did, and `repeat`'s words about it.
pub fn each(first: u64, until: Until, case: impl Fn(u64) -> u64 + Sync, repeat: impl Fn(u64) -> String) -> Done {
    let clock = SystemClock::new();
    let (next, count, failed) = (AtomicU64::new(first), AtomicU64::new(0), AtomicU64::new(u64::MAX));
    let over = || {
        let reached = until.is_reached(count.load(Ordering::Relaxed), clock.monotonic());
        reached || failed.load(Ordering::Relaxed) != u64::MAX
    };
    let work = || {
        // One case at least, however late it is.
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            match catch_unwind(AssertUnwindSafe(|| case(number))) {
                Ok(counted) => drop(count.fetch_add(counted, Ordering::Relaxed)),
                Err(_) => drop(failed.fetch_min(number, Ordering::Relaxed)),
            }
            if over() {
                return;
            }
        }
    };
    // A single case is one thread's, so that what it prints is its own.
    let threads = thread::available_parallelism().map_or(1, usize::from).min(until.count as usize);
    thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
    let failed = failed.into_inner();
    assert!(failed == u64::MAX, "case {failed} failed, see above; repeat it with: {}", repeat(failed));
    Done { count: count.into_inner(), time: clock.monotonic() }
}

/// Calls `case` with `0`, `1`, and so on, on this thread: for cases of which each goes on from the one before.
///
/// # Panics
/// When a case does.
pub fn in_turn(until: Until, mut case: impl FnMut(u64)) -> Done {
    let clock = SystemClock::new();
    let mut count = 0;
    while !until.is_reached(count, clock.monotonic()) {
        case(count);
        count += 1;
    }
    Done { count, time: clock.monotonic() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[test]
    fn every_case_comes_once_until_they_count_enough_and_the_lowest_failure_is_told() {
        let seen = Mutex::new(Vec::new());
        let case = |number| {
            seen.lock().expect("no case panics").push(number);
            2
        };
        let until = Until { count: 20, time: Duration::ZERO, floor: 20 };
        let done = each(5, until, case, |_| String::new());
        let mut seen = seen.into_inner().expect("no case panics");
        seen.sort_unstable();
        assert_eq!(done.count, seen.len() as u64 * 2);
        assert!(done.count >= 20 && seen == (5..5 + done.count / 2).collect::<Vec<_>>(), "{seen:?}");

        let broken = |number: u64| -> u64 { if number == 3 { panic!("on purpose") } else { 1 } };
        let failure =
            catch_unwind(|| each(0, Until { count: 50, time: Duration::ZERO, floor: 0 }, broken, |n| format!("N={n}")));
        let told = failure.expect_err("case 3 fails");
        assert_eq!(told.downcast_ref::<String>().expect("words"), "case 3 failed, see above; repeat it with: N=3");

        let mut seen = Vec::new();
        assert_eq!(in_turn(Until { count: 3, time: Duration::ZERO, floor: 3 }, |number| seen.push(number)).count, 3);
        assert_eq!(seen, [0, 1, 2]);
        let endless = Until { count: u64::MAX, time: Duration::from_millis(1), floor: 0 };
        assert!(each(0, endless, |_| 1, |_| String::new()).count > 0);
        assert!(in_turn(endless, |_| ()).time >= endless.time);
        let slow = Until { floor: 3, time: Duration::from_nanos(1), ..endless };
        assert_eq!(in_turn(slow, |_| ()).count, 3);
        assert!(each(0, slow, |_| 1, |_| String::new()).count >= 3);
    }
}
