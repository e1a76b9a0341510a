//! Cursors that a damaged floor has lost, and that nobody can name: the log keeps everything until an operator takes the loss.
//!
//! What always holds: it is taken only while every destination runs that the file and the journal have. One whose queues are
//! not there yet would find nothing of what it had not got.

use std::collections::BTreeSet;

use forebay::Queues;
use tracing::{error, warn};

use super::Operations;
use crate::api::destinations::Refused;
use crate::causes;
use crate::proto::v1::{AcceptFloorLossRequest, AcceptFloorLossResponse, FloorLoss};

/// So many streams and destinations are named, where there may be thousands.
pub(super) const NAMED_MAX: usize = 100;

impl Operations {
    /// See [`floor_loss`](crate::api::destinations::Operations::floor_loss).
    pub(super) async fn accept_floor_loss(
        &self,
        AcceptFloorLossRequest { accepted, unread_decisions_accepted }: AcceptFloorLossRequest,
    ) -> Result<AcceptFloorLossResponse, Refused> {
        let _operating = self.operating.lock().await;
        let pinned = self.registry.pinned();
        if pinned.is_empty() {
            return Err(Refused::Precondition("no cursors were lost: nothing is kept for want of them".to_owned()));
        }
        if self.has_unread_change().await {
            return Err(Refused::Precondition(
                "the configuration file is not as it was when it was read last, so destinations of it may be missing: it is read \
                 again a few seconds after a change, and at SIGHUP; ask again then"
                    .to_owned(),
            ));
        }
        if let Some(why) = self.not_all_run() {
            return Err(Refused::Precondition(why));
        }
        let losses = pinned.iter().map(|(upstream, queues)| loss(upstream, queues)).collect();
        let unread_decisions = self.unread_decisions;
        let answer = AcceptFloorLossResponse { losses, unread_decisions };
        if !accepted {
            return Ok(answer);
        }
        if unread_decisions > 0 && !unread_decisions_accepted {
            return Err(Refused::Precondition(format!(
                "{unread_decisions} records of what operators decided at run time could not be read at the start: a destination that \
                 one of them made is missing, and what it had pending would go; make it again under its id first, or accept that, \
                 too: --unread-decisions"
            )));
        }
        for (upstream, queues) in pinned {
            let done = tokio::task::spawn_blocking(move || queues.accept_floor_loss()).await;
            done.expect("writing a floor does not panic").map_err(|why| Refused::Unavailable(causes::line(&why)))?;
            warn!(
                upstream,
                "an operator accepted the loss of cursors: what no queue needs is deleted from the log again"
            );
        }
        Ok(answer)
    }

    /// Says which logs keep everything, and how that ends.
    pub(super) fn warn_of_floor_loss(&self) {
        for (upstream, _) in self.registry.pinned() {
            error!(
                upstream,
                "a damaged floor has lost cursors that nobody can name: nothing is deleted from the log, and it fills the disk; when \
                 every destination is there again: forebay destinations accept-floor-loss"
            );
        }
    }

    /// Why a destination may have records that would go, if one may.
    fn not_all_run(&self) -> Option<String> {
        if self.was_not_taken() {
            return Some(
                "the configuration file was not taken when it was read last: mend it first, since destinations of it may be missing"
                    .to_owned(),
            );
        }
        // One that goes on with older settings may lack a queue of an environment.
        let mut missing: BTreeSet<String> = self.unmet.ids().into_iter().collect();
        let state = self.journal.state();
        missing.extend(state.destinations.keys().filter(|id| !self.registry.runs(id)).cloned());
        let missing: Vec<String> = missing.into_iter().collect();
        if missing.is_empty() {
            return None;
        }
        let (number, named) = (missing.len(), missing[..missing.len().min(NAMED_MAX)].join(", "));
        Some(format!(
            "{number} destinations do not run as was decided, and what they have not got would go: mend or delete them first: {named}"
        ))
    }
}

fn loss(upstream: &str, queues: &Queues) -> FloorLoss {
    let log = queues.log();
    let all = queues.all();
    let taken: BTreeSet<&str> = all.iter().map(forebay::Queue::stream).collect();
    // Our own streams are kept by whoever writes them, save for rejects, which go by their age.
    let goes = |name: &str| !name.starts_with('!') && !taken.contains(name);
    let mut streams_let_go: Vec<String> = log
        .streams()
        .into_iter()
        .filter(|stream| goes(&stream.name) && log.first_kept(stream.id) < stream.tail.offset)
        .map(|stream| stream.name.to_string())
        .collect();
    streams_let_go.sort_unstable();
    let streams_let_go_total = streams_let_go.len() as u64;
    streams_let_go.truncate(NAMED_MAX);
    let bytes_used = log.stats().bytes_used;
    FloorLoss { upstream: upstream.to_owned(), bytes_used, streams_let_go, streams_let_go_total }
}
