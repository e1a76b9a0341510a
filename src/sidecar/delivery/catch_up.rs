//! Which of its two read positions a destination's next request is for, where what comes in now goes beside a backlog; and when
//! there are two. Pure.
//!
//! Says nothing of how much is sent: that is the [pace](super::pace)'s, which knows one destination. What always holds: while
//! both have something to send, each gets its share of what the destination takes, to within one request of either; who has
//! nothing to send leaves all to the other, and gets nothing back for it later.

use std::time::Duration;

/// Who is so far behind has two positions. Long against what a batch takes, short against what anybody calls fresh.
const BEHIND: Duration = Duration::from_secs(60);

/// Each parting may leave a settled range, of which a queue keeps some two hundred: with so many places taken it waits twice as
/// long for the next. The first half of them reaches for a day and a half, all of them for eleven days.
const PLACES_A_DOUBLING: usize = 16;

/// Behind by more than this it is parted whatever there is room for.
const DOUBLINGS_MAX: u32 = 7;

/// So long live may be late at each of its turns before the queue is parted anew: after a pause of the destination it is, and
/// has mostly made up for it by then.
pub const MAKES_UP: Duration = Duration::from_secs(10);

/// While there is a backlog to send, what comes in gathers for so long between two requests that it does not fill: else a
/// destination that takes few requests a second would spend them on a few records each.
pub const GATHERS: Duration = Duration::from_secs(1);

/// What a request costs of a destination of whose limits nothing is known.
const UNKNOWN: Duration = Duration::from_millis(10);

/// How a destination catches up with two positions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CatchUp {
    /// The backlog's share of what the destination takes, in percent: 1 to 99.
    pub backlog_percent: u8,
}

/// How old the first record that nobody had may be, of a queue in which so many places are taken and whose batches wait for
/// `wait_max` to fill, before it is parted.
#[must_use]
pub fn behind_after(ranges: usize, wait_max: Duration) -> Duration {
    let doublings = u32::try_from(ranges / PLACES_A_DOUBLING).unwrap_or(u32::MAX).min(DOUBLINGS_MAX);
    BEHIND * (1 << doublings) + wait_max
}

/// Something of the one position and of the other.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Both<T> {
    /// What waits from before.
    pub backlog: T,
    /// What came in since.
    pub live: T,
}

impl CatchUp {
    /// How many of so many requests each may have in flight while the other wants some: one at least.
    fn slots(self, allowed: usize) -> Both<usize> {
        let most = allowed.saturating_sub(1).max(1);
        let backlog = ((allowed * usize::from(self.backlog_percent) + 50) / 100).clamp(1, most);
        Both { backlog, live: allowed.saturating_sub(backlog).max(1) }
    }

    /// Which of both may go now, of those that have something to send.
    fn may_go(self, wants: Both<bool>, in_flight: Both<usize>, allowed: usize) -> Both<bool> {
        let slots = self.slots(allowed);
        let has_slot = Both { backlog: in_flight.backlog < slots.backlog, live: in_flight.live < slots.live };
        let both = wants.backlog && wants.live;
        match both && (has_slot.backlog || has_slot.live) {
            true => has_slot,
            false => wants,
        }
    }
}

/// What either position has had of the quota, against what it was to have.
#[derive(Debug, Clone, Copy, Default)]
pub struct Shares {
    /// By how much the backlog is ahead of its share, or behind it: in percents of nanoseconds of the quota.
    ahead: i64,
}

impl Shares {
    /// Whether the next request is for what is live. `None` where neither has anything to send.
    #[must_use]
    pub fn next(&self, of: CatchUp, wants: Both<bool>, in_flight: Both<usize>, allowed: usize) -> Option<bool> {
        match of.may_go(wants, in_flight, allowed) {
            Both { backlog: true, live: true } => Some(self.ahead >= 0),
            Both { live: true, .. } => Some(true),
            Both { backlog: true, .. } => Some(false),
            _ => None,
        }
    }

    /// A request of this position starts. `cost` is what it takes of the quota, as a time: `None` where nothing is known of
    /// that. `other` says whether the other position could have had it.
    pub fn sent(&mut self, of: CatchUp, live: bool, cost: Option<Duration>, other: bool) {
        // A day at most, as no request is paid for longer: no sum of two overflows.
        let cost = cost.unwrap_or(UNKNOWN).min(Duration::from_secs(86_400));
        let cost = i64::try_from(cost.as_nanos()).expect("a day of nanoseconds");
        let percent = i64::from(of.backlog_percent.clamp(1, 99));
        let by = if live { -cost * percent } else { cost * (100 - percent) };
        let moved = self.ahead.saturating_add(by);
        self.ahead = match (other, live) {
            (true, _) => moved,
            // Alone it pays what it owes; and what it is given on top nobody owes to the other.
            (false, false) => moved.min(0).max(self.ahead),
            (false, true) => moved.max(0).min(self.ahead),
        };
    }

    /// Whether a position could have the next request, were it not for the other.
    #[must_use]
    pub fn could_go(of: CatchUp, live: bool, wants: Both<bool>, in_flight: Both<usize>, allowed: usize) -> bool {
        let may_go = of.may_go(Both { backlog: true, live: true }, in_flight, allowed);
        if live { wants.live && may_go.live } else { wants.backlog && may_go.backlog }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const OF: CatchUp = CatchUp { backlog_percent: 20 };
    const ALL: Both<bool> = Both { backlog: true, live: true };

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn who_is_a_minute_behind_is_parted_and_later_the_more_places_are_taken() {
        let minutes = |ranges| behind_after(ranges, Duration::ZERO).as_secs() / 60;
        assert_eq!([0, 15, 16, 32, 111, 112, 223].map(minutes), [1, 1, 2, 4, 64, 128, 128]);
        assert_eq!(
            behind_after(0, Duration::from_secs(300)),
            Duration::from_secs(360),
            "what waits on purpose is not behind"
        );
    }

    #[test]
    fn of_requests_in_flight_each_has_its_share_and_one_at_least() {
        let slots = |percent, allowed| {
            let Both { backlog, live } = CatchUp { backlog_percent: percent }.slots(allowed);
            (backlog, live)
        };
        assert_eq!([slots(20, 1), slots(20, 2), slots(20, 4), slots(20, 10)], [(1, 1), (1, 1), (1, 3), (2, 8)]);
        assert_eq!([slots(99, 1), slots(99, 4), slots(1, 4)], [(1, 1), (3, 1), (1, 3)]);
        let next = |wants, backlog, live| Shares::default().next(OF, wants, Both { backlog, live }, 4);
        assert_eq!([next(ALL, 1, 0), next(ALL, 0, 3), next(ALL, 1, 2)], [Some(true), Some(false), Some(true)]);
        let alone = Both { backlog: true, live: false };
        assert_eq!(next(alone, 3, 0), Some(false), "what the other does not use");
        assert_eq!(next(ALL, 3, 0), Some(true));
        assert_eq!(next(Both::default(), 0, 0), None);
    }

    #[test]
    fn who_had_nothing_to_send_gets_nothing_back_for_it() {
        let mut shares = Shares::default();
        (0..1_000).for_each(|_| shares.sent(OF, false, Some(ms(100)), false));
        assert_eq!(shares.next(OF, ALL, Both::default(), 4), Some(true));
        shares.sent(OF, true, Some(ms(100)), true);
        assert_eq!(shares.next(OF, ALL, Both::default(), 4), Some(false), "its share, and no more");
    }

    proptest! {
        /// Whatever requests cost, and whenever either has nothing to send: over any time in which both do, each has its share
        /// of what was sent, to within a request of either.
        #[test]
        fn each_has_its_share_while_both_want_it_to_within_one_request_of_either(
            percent in 1u8..100,
            requests in prop::collection::vec((1u64..2_000, 1u64..2_000, 0..10u8), 1..300),
        ) {
            let of = CatchUp { backlog_percent: percent };
            let (backlog_share, live_share) = (u128::from(percent), u128::from(100 - percent));
            let mut shares = Shares::default();
            // What each had since both began to want something.
            let (mut had, mut largest) = (Both { backlog: 0u128, live: 0u128 }, Both { backlog: 0u128, live: 0u128 });
            for (old, new, wants) in requests {
                largest = Both { backlog: largest.backlog.max(old.into()), live: largest.live.max(new.into()) };
                let wants = Both { backlog: wants != 0, live: wants != 1 };
                let live = shares.next(of, wants, Both::default(), 4).expect("one of them wants");
                let wanted = if live { wants.live } else { wants.backlog };
                prop_assert!(wanted);
                let cost = if live { new } else { old };
                shares.sent(of, live, Some(ms(cost)), wants == ALL);
                if wants != ALL {
                    had = Both::default();
                    continue;
                }
                *(if live { &mut had.live } else { &mut had.backlog }) += u128::from(cost);
                // One request of each, by which either may be ahead when it begins and when it ends.
                let apart = (had.backlog * live_share).abs_diff(had.live * backlog_share);
                let most = largest.backlog * live_share + largest.live * backlog_share;
                prop_assert!(apart <= most, "{:?}", had);
            }
        }
    }
}
