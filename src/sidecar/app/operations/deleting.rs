//! How a destination goes: what it has pending is counted first, delivered or given up, and then nothing of it is left.
//!
//! What always holds: nothing is given up that nobody asked to give up; what a crash comes between stays, visible, for
//! another try.

use std::collections::BTreeSet;

use forebay::{Queue, QueueError, Queues};
use tracing::{info, warn};

use super::Operations;
use crate::api::destinations::Refused;
use crate::causes;
use crate::letters;
use crate::proto::v1::control_record::Change;
use crate::proto::v1::{ControlForget, ControlRevisionsGone};

impl Operations {
    pub(super) async fn end_drained(&self) {
        let draining: Vec<String> = self.journal.state().draining.keys().cloned().collect();
        for id in draining {
            let _operating = self.operating.lock().await;
            let Some(ends) = self.journal.state().draining.get(&id).cloned() else { continue };
            let queues = self.queues_of(&id);
            let has_all = |(stream, end): (&String, &u64)| {
                queues.iter().all(|queue| queue.stream() != stream || queue.cursor().low >= *end)
            };
            // What waits for its own time lies in a stream of ours, and is to be delivered as well. What it never took is for
            // an operator to decide on.
            let keeps = |queue: &Queue| {
                queue.replay_under_way().is_some()
                    || letters::waiting(queue).0.records > 0
                    || queue.stream().starts_with('!') && queue.lag().records > 0
            };
            if !ends.iter().all(has_all) || queues.iter().any(keeps) {
                continue;
            }
            match self.forget(&id).await {
                Ok(()) => info!(destination = id, "the destination has got what it was to get, and is gone"),
                Err(why) => warn!(destination = id, %why, "the destination is drained and can't be deleted yet"),
            }
        }
    }

    /// Deletes a destination with its queues, whatever they hold.
    pub(super) async fn forget(&self, id: &str) -> Result<(), Refused> {
        // Written down first: should the process end before its queues are gone they are left behind, for another try.
        let change = Change::DestinationDeleted(ControlForget { id: id.to_owned() });
        self.decide(vec![change]).await.map_err(|why| Refused::Unavailable(causes::line(&why)))?;
        self.unmet.forget(id);
        self.registry.remove(id).await;
        self.registry.close_letters(id).await;
        let gone = self.give_up(id).await;
        match &gone {
            Ok(()) => {
                self.registry.forget(id);
                self.forget_all_revisions(id).await;
            }
            Err(_) => self.registry.forget_in_vain(id).await,
        }
        gone
    }

    /// Behind the queues: while these are there their plans name revisions, and the destination may be put back.
    async fn forget_all_revisions(&self, id: &str) {
        if !self.journal.state().revisions.contains_key(id) {
            return;
        }
        if let Err(why) = self.decide(vec![all_revisions_gone(id)]).await {
            let why = causes::line(&why);
            warn!(destination = id, why, "the revisions of a destination that is gone stay known");
        }
    }

    /// Deletes queues of records that a change made which was not done, all but those of these streams: they would keep all that
    /// comes for nobody.
    pub(super) async fn unmake(&self, id: &str, but: BTreeSet<String>) {
        let (queues, of) = (self.queues.clone(), id.to_owned());
        let deleted = tokio::task::spawn_blocking(move || {
            let is_new = |queue: &Queue| !queue.stream().starts_with('!') && !but.contains(queue.stream());
            let new = queues.of(&of).into_iter().filter(is_new);
            new.map(|queue| queues.delete(&of, Some(queue.stream())).map(drop)).fold(Ok(()), Result::and)
        });
        if let Err(why) = deleted.await.expect("deleting queues does not panic") {
            let why = causes::line(&why);
            warn!(destination = id, why, "queues that were made for nothing can't be deleted: they are left behind");
        }
    }

    async fn give_up(&self, id: &str) -> Result<(), Refused> {
        let (queues, of) = (self.queues.clone(), id.to_owned());
        let deleted = tokio::task::spawn_blocking(move || give_up(&queues, &of)).await;
        deleted
            .expect("deleting queues does not panic")
            .map_err(|why| Refused::Unavailable(format!("its queues can't be deleted yet: {}", causes::line(&why))))?;
        let refuse = |why| Refused::Unavailable(format!("its posts can't be deleted yet: {}", causes::line(&why)));
        self.registry.delete_posts(id).await.map_err(refuse)
    }

    /// Everything that a destination has pending, what a replay has still to send among it, letters that it does not take
    /// aside.
    pub(super) fn pending(&self, id: &str) -> forebay::Count {
        pending_in(&self.queues_of(id))
    }

    /// What it does not take, which lies there until an operator decides. What he has sent again is pending.
    pub(super) fn dead_letters(&self, id: &str) -> u64 {
        let queues = self.queues_of(id);
        let copied =
            queues.iter().filter(|queue| queue.stream().starts_with("!dead/")).map(|queue| queue.lag().records);
        let where_they_lie = queues.iter().map(|queue| letters::waiting(queue).0.records);
        copied.chain(where_they_lie).sum()
    }

    /// Destinations that are gone but for letters: a crash came between, and they wait for another try.
    pub(super) fn letters_left_behind(&self) -> Vec<String> {
        let ours = |queue: &Queue| queue.stream().starts_with('!') && !queue.destination().contains('!');
        let left =
            self.queues.all().into_iter().filter(|queue| ours(queue) && !self.registry.runs(queue.destination()));
        left.filter(|queue| queue.lag().records > 0).map(|queue| queue.destination().to_owned()).collect()
    }

    /// All that it has, posts too.
    pub(super) fn queues_of(&self, id: &str) -> Vec<Queue> {
        self.registry.queues_of(id)
    }
}

/// Nothing of a destination is there that could name a revision of its settings.
pub(super) fn all_revisions_gone(id: &str) -> Change {
    Change::RevisionsGone(ControlRevisionsGone { destination: id.to_owned(), revisions: Vec::new() })
}

/// What lies in these queues to be delivered, what a replay has still to send among it, letters aside that are not taken.
pub(super) fn pending_in(queues: &[Queue]) -> forebay::Count {
    let replays: Vec<Queue> = queues.iter().filter_map(Queue::replay_under_way).collect();
    let lags = queues.iter().filter(|queue| !queue.stream().starts_with("!dead/")).chain(&replays).map(Queue::lag);
    lags.map(|lag| forebay::Count { records: lag.records, bytes: lag.bytes }).sum()
}

/// Deletes the queues of a destination that lie in the main log. Those of letters stay and are emptied: made again, they
/// would begin with the letters that lie in their streams still. They go first, and durably: one of this id that is made
/// next, and a crash, must not bring them back to it.
fn give_up(queues: &Queues, id: &str) -> Result<(), QueueError> {
    let (letters, records): (Vec<Queue>, Vec<Queue>) =
        queues.of(id).into_iter().partition(|queue| queue.stream().starts_with('!'));
    for queue in &letters {
        queue.purge(queue.cursor().low..queue.lag().durable_tail)?;
    }
    if !letters.is_empty() {
        queues.tick().map_err(QueueError::NotDurable)?;
    }
    for queue in &records {
        queues.delete(id, Some(queue.stream()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
