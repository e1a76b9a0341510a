//! Whose turn it is, of a queue and the replay of it. Pure.
//!
//! What always holds: while both have something each has its turns, and one that can't be read costs the other a wait now
//! and then, not its place.

/// After so many failures in a row it is tried no less often: once in a thousand batches of the other.
const RESTS_DOUBLE: u32 = 10;

/// Whose turn it is.
#[derive(Debug, Default)]
pub(super) struct Turns {
    replays: bool,
    /// Of the queue and of its replay: how often it could not be read since it last was.
    failures: [u32; 2],
    /// So many batches more go before the other one has its turn again.
    rests: u32,
}

impl Turns {
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

    /// Nothing could be read of the queue, or of its replay: the other one goes on, ever longer.
    pub(super) fn failed(&mut self, replays: bool) {
        let failures = &mut self.failures[usize::from(replays)];
        *failures = (*failures + 1).min(RESTS_DOUBLE);
        (self.replays, self.rests) = (!replays, 1 << *failures);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_take_turns_and_who_fails_is_tried_less_and_less_often_until_it_does_not() {
        for bad in [false, true] {
            let (mut turns, mut tries) = (Turns::default(), Vec::new());
            turns.had(bad); // either way the other one comes first
            for n in 0..1_500 {
                match turns.is_replays() == bad {
                    true => {
                        tries.push(n);
                        turns.failed(bad);
                    }
                    false => turns.had(!bad),
                }
            }
            // Between two tries the other one had 3, 5, 9, .. batches.
            assert_eq!(tries, [1, 5, 11, 21, 39, 73, 139, 269, 527, 1041]);
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
}
