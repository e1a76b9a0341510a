//! Whose turn it is, of a queue and the replay of it. Pure.
//!
//! What always holds: while both have something each has its turns, and one that can't be read costs the other a wait now
//! and then, not its place.

/// After so many failures in a row it is tried no less often: beside sixteen batches of the other one, which may take minutes
/// each.
const DOUBLINGS_MAX: u32 = 4;

/// Whose turn it is.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct InTurn {
    replays: bool,
    /// Of the queue and of its replay: how often it could not be read since it last was.
    failures: [u32; 2],
    /// So many batches more go before the other one has its turn again.
    rests: u32,
}

impl InTurn {
    /// Whether it is the replay's.
    pub(super) fn is_replays(&self) -> bool {
        self.replays
    }

    /// A batch was had of the queue, or of its replay.
    pub(super) fn had(&mut self, replays: bool) {
        self.failures[usize::from(replays)] = 0;
        if self.rests > 0 && self.replays == replays {
            self.rests -= 1;
        } else {
            (self.replays, self.rests) = (!replays, 0);
        }
    }

    /// The queue's own batch only fills. Says whether its replay goes meanwhile.
    pub(super) fn passes_to_replay(&mut self) -> bool {
        self.replays = self.rests == 0;
        self.rests = self.rests.saturating_sub(1);
        self.replays
    }

    /// Nothing could be read of the queue, or of its replay: the other one goes on, ever longer.
    pub(super) fn failed(&mut self, replays: bool) {
        let failures = &mut self.failures[usize::from(replays)];
        *failures = (*failures + 1).min(DOUBLINGS_MAX);
        (self.replays, self.rests) = (!replays, 1 << *failures);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_take_turns_and_who_fails_is_tried_less_and_less_often_until_it_does_not() {
        for bad in [false, true] {
            let (mut turns, mut tries) = (InTurn::default(), Vec::new());
            turns.had(bad); // either way the other one comes first
            for n in 0..100 {
                match turns.is_replays() == bad {
                    true => {
                        tries.push(n);
                        turns.failed(bad);
                    }
                    false => turns.had(!bad),
                }
            }
            // Between two tries the other one had 3, 5, 9, 17 batches, and no more.
            assert_eq!(tries, [1, 5, 11, 21, 39, 57, 75, 93]);
            while turns.is_replays() != bad {
                turns.had(!bad);
            }
            turns.had(bad);
            let after: Vec<bool> = (0..6)
                .map(|_| {
                    let is_replays = turns.is_replays();
                    turns.had(is_replays);
                    is_replays
                })
                .collect();
            assert_eq!(after, [!bad, bad, !bad, bad, !bad, bad]);
        }
    }
    #[test]
    fn where_both_fail_each_is_tried_after_the_other() {
        let mut turns = InTurn::default();
        for n in 0..20 {
            assert_eq!(turns.is_replays(), n % 2 == 1);
            turns.failed(turns.is_replays());
        }
    }
    #[test]
    fn while_a_batch_of_the_queue_fills_its_replay_goes_unless_it_rests() {
        let mut turns = InTurn::default();
        assert!(turns.passes_to_replay() && turns.is_replays());
        turns.had(true);
        assert!(!turns.is_replays() && turns.passes_to_replay());
        turns.failed(true);
        let passes: Vec<bool> = (0..4).map(|_| turns.passes_to_replay()).collect();
        assert_eq!(passes, [false, false, true, true]);
    }
}
