//! The largest body that a receiver is known to take, learned from its refusals: what is larger need not be sent.
//!
//! What always holds: a single record is always sent, for only the receiver itself may reject it; and a cap that no
//! longer holds is found out, since it grows with what is taken.

use std::sync::atomic::{AtomicU32, Ordering};

use crate::delivery::outcome::{Failure, Outcome};

/// With each request that is taken and more than half as large as the cap, it grows by this part of itself: a receiver
/// whose limit stays as it is refuses one request in seventy.
const GROWTH: u32 = 256;

/// What one destination was found to take, in bytes of a body; 0 while nothing was refused. Lost at a restart.
#[derive(Debug, Default)]
pub(super) struct SizeCap(AtomicU32);

impl SizeCap {
    /// The outcome for a body that need not be sent: it would be refused.
    pub(super) fn refuses(&self, records: u64, bytes: usize) -> Option<Outcome> {
        let cap = self.0.load(Ordering::Relaxed);
        let refuses = cap > 0 && records > 1 && small(bytes) > cap;
        refuses.then(|| {
            let why = format!("{bytes} bytes are more than the destination was found to take, about {cap}");
            Outcome::TooLarge { why: Failure::Local(why) }
        })
    }

    /// Takes in what came of a body of so many bytes.
    pub(super) fn heard(&self, outcome: &Outcome, bytes: usize) {
        let bytes = small(bytes);
        let learn = |cap: u32| match outcome {
            // The halves are still tried: they may differ in size.
            Outcome::TooLarge { .. } => {
                let taken = (bytes - bytes / 4).max(1);
                Some(if cap == 0 { taken } else { cap.min(taken) })
            }
            Outcome::Delivered if cap > 0 && bytes > cap => Some(bytes),
            Outcome::Delivered if cap > 0 && bytes > cap / 2 => Some(cap.saturating_add(cap / GROWTH + 1)),
            _ => None,
        };
        // Of two at once one may be forgotten, which the next answer mends.
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, learn);
    }
}

fn small(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal() -> Outcome {
        Outcome::TooLarge { why: Failure::status(413) }
    }

    /// Sends bodies of `bytes` to a receiver that takes `limit`, each in halves until it is taken. Says how many requests
    /// that took, and how many of them were refused.
    fn play(cap: &SizeCap, limit: usize, bytes: usize, times: usize) -> (usize, usize) {
        let (mut asked, mut refused) = (0, 0);
        let mut waiting = vec![bytes; times];
        while let Some(bytes) = waiting.pop() {
            let outcome = cap.refuses(2, bytes).unwrap_or_else(|| {
                asked += 1;
                refused += usize::from(bytes > limit);
                let outcome = if bytes > limit { refusal() } else { Outcome::Delivered };
                cap.heard(&outcome, bytes);
                outcome
            });
            if outcome != Outcome::Delivered {
                waiting.extend([bytes / 2, bytes - bytes / 2]);
            }
        }
        (asked, refused)
    }

    #[test]
    fn what_was_refused_is_not_sent_in_that_size_again_but_single_records_are() {
        let cap = SizeCap::default();
        assert_eq!(cap.refuses(2, 1 << 30), None);
        assert_eq!(play(&cap, 600, 1000, 1), (3, 1));
        assert_eq!(play(&cap, 600, 1000, 1), (2, 0), "known to fail");
        assert!(matches!(cap.refuses(2, 1000), Some(Outcome::TooLarge { why: Failure::Local(_) })));
        assert_eq!(cap.refuses(1, 1000), None, "only the receiver rejects a record");
    }

    #[test]
    fn a_limit_that_stays_costs_little_and_one_that_was_lifted_is_found_out() {
        let cap = SizeCap::default();
        cap.heard(&refusal(), 1_000_000);
        let (asked, refused) = play(&cap, 700_000, 1_000_000, 1000);
        assert!(asked >= 2000 && refused <= 40, "{refused} of {asked}");
        // Lifted, after a spell in which everything was refused.
        for bytes in [500, 100, 10, 1] {
            cap.heard(&refusal(), bytes);
        }
        assert!(cap.refuses(2, 5_000).is_some());
        cap.heard(&Outcome::Delivered, 600);
        let mut requests = 0;
        while cap.refuses(2, 1_000_000).is_some() {
            let cap_now = cap.0.load(Ordering::Relaxed);
            cap.heard(&Outcome::Delivered, cap_now as usize);
            requests += 1;
        }
        assert!(requests < 2_500, "{requests}");
    }

    #[test]
    fn nothing_else_moves_it() {
        let cap = SizeCap::default();
        cap.heard(&Outcome::Delivered, 100);
        cap.heard(&Outcome::Retry { why: Failure::Timeout }, 100);
        assert_eq!(cap.refuses(2, 1 << 20), None);
    }
}
