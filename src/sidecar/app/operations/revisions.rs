//! Revisions of settings that no batch is of any more.
//!
//! What always holds: a revision stays as long as any plan names it that the log still has, whether its batch is open or may
//! be sent again by a replay; the newest ones stay whatever plans say. Letters name none: they go out under the settings of
//! now. What is forgotten is forgotten at one stroke, with one record; a crash before that has forgotten nothing.

use tracing::{debug, info, warn};

use super::Operations;
use crate::causes;
use crate::control::REVISIONS_KEPT;

/// A destination that runs may have so many revisions before it is looked which of them are needed.
const LOOK_BEYOND: usize = 16;

impl Operations {
    /// Before anything runs.
    pub(super) async fn forget_revisions_at_start(&self) {
        self.forget_revisions(REVISIONS_KEPT).await;
    }

    /// After settings have changed.
    pub(super) async fn forget_revisions_now_and_then(&self) {
        self.forget_revisions(LOOK_BEYOND).await;
    }

    /// Where a destination has more than so many: reads all plans. What fails is for another time.
    async fn forget_revisions(&self, beyond: usize) {
        if !self.journal.state().has_revisions_beyond(beyond) {
            return;
        }
        let queues = self.queues.clone();
        let planned = tokio::task::spawn_blocking(move || queues.revisions_planned()).await;
        let planned = match planned.expect("reading plans does not panic") {
            Ok(Some(planned)) => planned,
            Ok(None) => return debug!("some plans can't be read: no revision of settings is forgotten"),
            Err(why) => return warn!(why = causes::line(&why), "no revision of settings is forgotten"),
        };
        let gone = self.journal.state().revisions_gone(&planned);
        let destinations = gone.len();
        if destinations == 0 {
            return;
        }
        match self.decide(gone).await {
            Ok(()) => info!(destinations, "revisions of settings were forgotten that no batch is of any more"),
            Err(why) => warn!(why = causes::line(&why), "no revision of settings is forgotten"),
        }
    }
}
