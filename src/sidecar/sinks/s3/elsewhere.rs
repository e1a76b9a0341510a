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
            Err(why) => Outcome::Retry { why },
        };
        let unreached = matches!(outcome, Outcome::Retry { why: Failure::Connect(_) });
        let mut since = self.unreached_since.lock().unwrap_or_else(PoisonError::into_inner);
        let gone = match (&outcome, unreached) {
            (Outcome::Refused { .. }, _) => true,
            (_, true) => since.get_or_insert_with(Instant::now).elapsed() >= self.patience,
            (_, false) => {
                *since = None;
                false
            }
        };
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
