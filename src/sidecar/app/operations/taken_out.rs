//! Environments that a destination takes from no more, though it has a queue of theirs.
//!
//! What always holds: such a queue is kept with all that it holds, and with what comes, until somebody decides; it is told
//! wherever the destination is changed or shown, and it goes only where its environment is named.

use std::collections::BTreeMap;
use std::sync::Arc;

use forebay::Queue;
use tracing::warn;

use super::Operations;
use crate::api::destinations::Refused;
use crate::app::registry::environment_of;
use crate::causes;
use crate::letters;
use crate::proto::v1::{DeleteDestinationResponse, LeftEnvironment};

impl Operations {
    /// What lies in queues of this destination that nothing delivers, by environment: all that it has, if it does not run.
    pub(super) fn left_environments(&self, id: &str) -> Vec<LeftEnvironment> {
        self.left_in(&self.queues_of(id))
    }

    /// The same of these queues, which are all of one destination.
    pub(super) fn left_in(&self, queues: &[Queue]) -> Vec<LeftEnvironment> {
        let mut left: BTreeMap<String, LeftEnvironment> = BTreeMap::new();
        for queue in queues.iter().filter(|queue| self.registry.is_left(queue)) {
            let environment = environment_of(queue.stream()).to_owned();
            let of = left
                .entry(environment.clone())
                .or_insert(LeftEnvironment { environment, ..LeftEnvironment::default() });
            let replayed = queue.replay_under_way().map_or(0, |replay| replay.lag().records);
            of.records_pending += queue.lag().records + replayed;
            of.dead_letters += letters::waiting(queue).0.records;
        }
        left.into_values().collect()
    }

    /// Tells the log of each, where the destination runs. For people, too: one line each.
    pub(super) fn warn_of_left_environments(&self, id: &str) -> Vec<String> {
        if !self.registry.runs(id) {
            return Vec::new();
        }
        let warning = |left: LeftEnvironment| {
            let LeftEnvironment { environment, records_pending, .. } = left;
            warn!(
                destination = id,
                environment,
                records = records_pending,
                "this destination takes from this environment no more: its queue is kept, new records are added, nothing delivers \
                 them, and they fill the disk; put the environment back, or delete its queue: forebay destinations delete \
                 --environment"
            );
            format!(
                "{id} takes from environment {environment} no more: {records_pending} records wait in its queue, new ones are added, \
                 nothing delivers them, and they fill the disk (put it back, or forebay destinations delete {id} --environment \
                 {environment})"
            )
        };
        self.left_environments(id).into_iter().map(warning).collect()
    }

    /// Deletes the queue of an environment that nothing takes from any more.
    pub(super) async fn delete_left(
        &self,
        id: String,
        environment: String,
        purge: bool,
    ) -> Result<DeleteDestinationResponse, Refused> {
        let _operating = self.operating.lock().await;
        let destination = self.show(&id)?;
        let Some(left) = destination.left.into_iter().find(|left| left.environment == environment) else {
            return Err(if destination.environments.contains(&environment) {
                let why = format!("{id:?} takes from environment {environment:?}: take that out of its settings first");
                Refused::Precondition(why)
            } else {
                Refused::NotFound(format!("destination {id:?} has no queue of environment {environment:?}"))
            });
        };
        let LeftEnvironment { records_pending, dead_letters, .. } = left;
        if !purge && records_pending + dead_letters > 0 {
            return Err(Refused::Precondition(format!(
                "{records_pending} records of environment {environment:?} wait for {id:?}, and {dead_letters} lie there as dead letters: \
                 put the environment back to deliver them, or give them up with --purge"
            )));
        }
        let (registry, of, from) = (Arc::clone(&self.registry), id.clone(), environment.clone());
        let deleted = tokio::task::spawn_blocking(move || registry.delete_left(&of, &from)).await;
        deleted
            .expect("deleting queues does not panic")
            .map_err(|why| Refused::Unavailable(format!("its queue can't be deleted yet: {}", causes::line(&why))))?;
        warn!(
            destination = id,
            environment,
            records_pending,
            dead_letters,
            "an operator deleted the queue of an environment that was taken out"
        );
        Ok(DeleteDestinationResponse { records_pending, deleted: true })
    }
}
