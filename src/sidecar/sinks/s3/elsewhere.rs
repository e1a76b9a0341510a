//! Batches that were planned for another place: the bucket was changed while nobody knew whether their object is there.
//!
//! What always holds: such a batch is finished where it was planned, so that there is one object of it, and with the
//! credentials of now. Only if that place says no, or was not reached for a long time, it goes where all others go: the old
//! place was wrong then, and nobody would ever be told yes. The log says so.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::Inner;
use super::upload::upload;
use crate::config::S3Config;
use crate::delivery::outcome::{Failure, Outcome};
use crate::delivery::sink::LargeJob;

/// A place of earlier settings that can't be connected to for so long is given up: nothing was sent there meanwhile, and
/// whoever mistyped an address must not wait for it for ever.
pub(super) const PATIENCE: Duration = Duration::from_secs(10 * 60);

/// So much of the time between two failures counts: a place that nobody tried may have been there all the while.
const BETWEEN_MAX: Duration = Duration::from_secs(2 * 60);

/// How long a place was tried in vain.
#[derive(Debug, Clone, Copy)]
pub(super) struct Unreached {
    borne: Duration,
    last: Instant,
}

impl Unreached {
    /// The first failure, at `now`.
    fn new(now: Instant) -> Self {
        Self { borne: Duration::ZERO, last: now }
    }

    /// Another failure. Says how long this goes on.
    fn again(&mut self, now: Instant) -> Duration {
        self.borne += now.saturating_duration_since(self.last).min(BETWEEN_MAX);
        self.last = now;
        self.borne
    }
}

impl Inner {
    /// The settings for where the job's object was planned, if that is another place than that of now.
    fn planned_elsewhere(&self, job: &LargeJob) -> Option<Arc<S3Config>> {
        let location = self.layout(job).location.as_ref()?;
        let now = self.config.location();
        if now.as_ref() == Some(location) {
            return None;
        }
        Some(Arc::new(self.config.at(location)?))
    }

    /// Finishes a batch where it was planned. `None` if it is to go where all go: it was planned for that, or its own place
    /// is no more.
    pub(super) async fn finish_elsewhere(&self, job: &LargeJob, limit: Duration) -> Option<Outcome> {
        let config = self.planned_elsewhere(job)?;
        let outcome = match self.store(&config, job, limit).await {
            Ok(store) => upload(&store, &self.live, self.layout(job), job, limit).await,
            Err(trouble) => trouble.outcome,
        };
        let unreached = matches!(outcome, Outcome::Retry { why: Failure::Connect(_) });
        let (place, now) = (config.location(), Instant::now());
        let mut unreached_places = self.unreached.lock().unwrap_or_else(PoisonError::into_inner);
        let gone = match (&outcome, unreached) {
            (Outcome::Refused { .. }, _) => true,
            (_, true) => unreached_places.entry(place).or_insert(Unreached::new(now)).again(now) >= self.patience,
            (_, false) => {
                unreached_places.remove(&place);
                false
            }
        };
        drop(unreached_places);
        if !gone {
            return Some(outcome);
        }
        tracing::warn!(
            destination = self.destination,
            batch = &*job.id,
            planned_for = config.bucket,
            now = self.config.bucket,
            ?outcome,
            "an object was planned for the bucket of earlier settings, which does not take it: it goes to that of now; should an \
             earlier attempt have been taken there, it is there as well"
        );
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Before, a failure of long ago made the next one the last.
    #[test]
    fn patience_is_with_tries_and_not_with_the_time_in_which_nobody_tried() {
        let mut now = Instant::now();
        let mut unreached = Unreached::new(now);
        assert_eq!(unreached.again(now), Duration::ZERO);
        now += Duration::from_secs(7 * 24 * 3600);
        assert!(unreached.again(now) < PATIENCE);
        let tries = (1..).find(|_| {
            now += Duration::from_secs(40);
            unreached.again(now) >= PATIENCE
        });
        assert_eq!(tries, Some(12), "two minutes for the week, and eight of tries");
    }
}
