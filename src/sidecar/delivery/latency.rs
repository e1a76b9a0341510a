//! Whether a destination answers slower than it usually does, for requests of the same size. Pure; knows no clock.
//!
//! What is usual is learned for each size by itself, since a full batch takes longer than a single record and that is no
//! sign of trouble. Slowness that we cause ourselves must not become usual: upwards it follows only what a request takes
//! that is alone, or hardly at all.

use std::time::Duration;

/// Sizes are told apart by their power of two; all above share the last class.
const CLASSES: usize = 20;

/// How much one answer counts in what is recent.
const RECENT: f32 = 1.0 / 16.0;

/// How fast the usual time follows a longer one: of requests that were alone, and of others. A shorter one it takes at
/// once: no accident is as short.
const UPWARD_ALONE: f32 = 1.0 / 16.0;
const UPWARD: f32 = 1.0 / 4096.0;

/// What one destination takes. Logarithms of milliseconds, since times spread by factors.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Latency {
    /// By size; none yet is not a number.
    usual: [f32; CLASSES],
    /// The same, averaged over the last answers.
    recent: [f32; CLASSES],
}

impl Default for Latency {
    fn default() -> Self {
        Self { usual: [f32::NAN; CLASSES], recent: [f32::NAN; CLASSES] }
    }
}

impl Latency {
    /// Takes in how long a request of so many records took, and whether it was alone. Says by which factor requests of that
    /// size have taken longer than usual of late, as a logarithm: 0 is as usual.
    pub fn sample(&mut self, records: u64, took: Duration, alone: bool) -> f32 {
        let class = (records.max(1).ilog2() as usize).min(CLASSES - 1);
        let (usual, recent) = (&mut self.usual[class], &mut self.recent[class]);
        // Below a millisecond the scheduler is what is measured.
        let time = (took.as_secs_f32() * 1_000.0).max(1.0).ln();
        if recent.is_nan() {
            (*usual, *recent) = (time, time);
        }
        *recent += (time - *recent) * RECENT;
        let slowness = *recent - *usual;
        *usual += match (slowness < 0.0, alone) {
            (true, _) => slowness,
            (false, true) => slowness * UPWARD_ALONE,
            (false, false) => slowness * UPWARD,
        };
        *recent - *usual
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn sizes_have_usual_times_of_their_own() {
        let mut latency = Latency::default();
        assert_eq!(latency.sample(1, ms(10), false), 0.0);
        assert_eq!(latency.sample(1000, ms(200), false), 0.0, "a larger request may take longer");
        for _ in 0..100 {
            latency.sample(1, ms(40), false);
        }
        assert!((latency.sample(1, ms(40), false) - 4f32.ln()).abs() < 0.1, "four times as long");
        assert!(latency.sample(900, ms(200), false).abs() < 1e-5);
    }

    #[test]
    fn what_is_slow_for_a_request_alone_becomes_usual_and_what_is_slow_for_many_does_not() {
        let requests = |from, to, alone| {
            let mut latency = Latency::default();
            latency.sample(1, ms(from), alone);
            (0..500).filter(|_| latency.sample(1, ms(to), alone).abs() > 0.2).count()
        };
        assert!((1..200).contains(&requests(10, 100, true)));
        assert_eq!(requests(100, 10, false), 0, "what is shorter is usual at once");
        assert!(requests(10, 100, false) > 490);
    }

    proptest! {
        #[test]
        fn any_time_gives_a_number(samples in proptest::collection::vec(any::<(u64, u64, bool)>(), 1..50)) {
            let mut latency = Latency::default();
            for (records, ms, alone) in samples {
                prop_assert!(latency.sample(records, Duration::from_millis(ms), alone).is_finite());
            }
        }
    }
}
