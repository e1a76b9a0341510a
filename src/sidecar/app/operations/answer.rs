//! What the API asks for, done one at a time.

use std::collections::BTreeSet;

use forebay::{Count, Queue};

use super::deleting::{all_revisions_gone, pending_in};
use super::{MADE_MAX, Operations, SETTINGS_BYTES_MAX, mistakes, told};
use crate::api::destinations::{Answer, Delete, Operations as Asked, Put, Refused};
use crate::app::registry::{Shown, environment_of};
use crate::causes;
use crate::config::{self, Severity};
use crate::control::JournalError;
use crate::proto::v1::control_record::Change;
use crate::proto::v1::{
    AcceptFloorLossRequest, AcceptFloorLossResponse, ControlDestination, ControlDrain, ControlDrainEnd,
    ControlEnvironment, ControlForget, ControlPause, DeleteDestinationResponse, Destination, Environment,
    LeftEnvironment, Origin,
};
use crate::sinks::address_guard::AddressPolicy;

impl Asked for Operations {
    fn put_destination(&self, settings: String, put: Put) -> Answer<'_, (Destination, Vec<String>)> {
        Box::pin(self.put(settings, put))
    }

    fn destination(&self, id: String) -> Answer<'_, Destination> {
        Box::pin(async move {
            let mut destination = self.show(&id)?;
            let settings = self.journal.state().destinations.get(&id).cloned();
            if let Some(settings) = settings {
                let ids = self.environment_ids();
                destination.settings = config::check_destination(settings.reveal(), &self.around(&ids).borrow()).shown;
            } else if destination.origin() == Origin::File {
                destination.settings = self.settings_in_file(&id).await;
            }
            Ok(destination)
        })
    }

    fn destinations(&self, after: String, most: usize) -> Answer<'_, Vec<Destination>> {
        Box::pin(async move {
            let mut ids: Vec<String> =
                self.registry.all_after(&after, most).into_iter().map(|shown| shown.id.to_string()).collect();
            ids.extend(self.registry.left_behind().iter().map(|queue| queue.destination().to_owned()));
            ids.extend(self.letters_left_behind());
            ids.extend(self.unmet.ids());
            ids.extend(self.journal.state().destinations.keys().cloned());
            ids.retain(|id| *id > after);
            ids.sort_unstable();
            ids.dedup();
            ids.truncate(most);
            // One that goes in this moment is left out.
            Ok(ids.iter().filter_map(|id| self.show(id).ok()).collect())
        })
    }

    fn delete_destination(&self, id: String, how: Delete) -> Answer<'_, DeleteDestinationResponse> {
        Box::pin(self.delete(id, how))
    }

    fn delete_left(&self, id: String, environment: String, purge: bool) -> Answer<'_, DeleteDestinationResponse> {
        Box::pin(self.delete_left(id, environment, purge))
    }

    fn pause_destination(&self, id: String, paused: bool) -> Answer<'_, Destination> {
        Box::pin(async move {
            let _operating = self.operating.lock().await;
            if !self.registry.runs(&id) {
                self.show(&id)?;
                let why = format!("nothing delivers to {id:?}: there is nothing to pause; put it back, or delete it");
                return Err(Refused::Precondition(why));
            }
            self.decide(vec![Change::Pause(ControlPause { destination: id.clone(), paused })]).await?;
            self.registry.pause(&id, paused).await;
            tracing::info!(destination = id, paused, "an operator paused a destination, or had it go on");
            self.show(&id)
        })
    }

    fn probe_destination(&self, id: String) -> Answer<'_, Destination> {
        Box::pin(async move {
            let _operating = self.operating.lock().await;
            let destination = self.show(&id)?;
            if destination.paused {
                // Kept until then it would come as a surprise.
                return Err(Refused::Precondition(format!("{id:?} is paused: resume it")));
            }
            if !self.registry.probe(&id) {
                let why = format!("nothing delivers to {id:?}: there is nothing to try; put it back, or delete it");
                return Err(Refused::Precondition(why));
            }
            tracing::info!(destination = id, "an operator has a destination tried now");
            Ok(destination)
        })
    }

    fn create_environment(&self, settings: String) -> Answer<'_, (Environment, Vec<String>)> {
        Box::pin(self.make_environment(settings))
    }

    fn environments(&self) -> Answer<'_, Vec<Environment>> {
        Box::pin(async move {
            let of_file = self.file().environments.clone();
            let made = self.made_environments(&of_file);
            let of_file = of_file.iter().map(|environment| shown(environment, Origin::File));
            let mut all: Vec<_> = of_file.chain(made.iter().map(|made| shown(made, Origin::Api))).collect();
            all.sort_by(|a, b| a.id.cmp(&b.id));
            Ok(all)
        })
    }

    fn delete_environment(&self, id: String) -> Answer<'_, ()> {
        Box::pin(async move {
            let _operating = self.operating.lock().await;
            if !self.journal.state().environments.contains_key(&id) {
                let of_file = self.file().environments.iter().any(|environment| environment.id == id);
                return Err(if of_file {
                    Refused::Precondition(format!("environment {id:?} is the configuration file's: take it out there"))
                } else {
                    Refused::NotFound(format!("there is no environment {id:?}"))
                });
            }
            let subscribers = self.registry.subscribers(&id);
            if subscribers > 0 {
                let why =
                    format!("{subscribers} destinations take from environment {id:?}: delete or change them first");
                return Err(Refused::Precondition(why));
            }
            if self.unmet.subscribes(&id) {
                let why = format!("a destination that does not run as was decided is to take from environment {id:?}");
                return Err(Refused::Precondition(why));
            }
            self.decide(vec![Change::EnvironmentDeleted(ControlForget { id: id.clone() })]).await?;
            self.refresh_environments().await?;
            tracing::info!(environment = id, "an operator deleted an environment");
            Ok(())
        })
    }

    fn floor_loss(&self, request: AcceptFloorLossRequest) -> Answer<'_, AcceptFloorLossResponse> {
        Box::pin(self.accept_floor_loss(request))
    }
}

impl Operations {
    async fn put(&self, settings: String, put: Put) -> Result<(Destination, Vec<String>), Refused> {
        let _operating = self.operating.lock().await;
        small_enough(&settings)?;
        let (destination, findings) = self.read_destination(&settings);
        let Some(destination) = destination else { return Err(Refused::Invalid(mistakes(&findings))) };
        let id = destination.id.clone();
        let before = self.journal.state().destinations.get(&id).cloned();
        let made = before.is_some();
        match put {
            Put::Create if made || self.registry.runs(&id) || self.unmet.contains(&id) => {
                return Err(Refused::Exists(format!("there is a destination {id:?} already")));
            }
            Put::Create if self.journal.state().destinations.len() >= MADE_MAX => {
                return Err(Refused::Precondition(format!("{MADE_MAX} destinations were made here: delete one first")));
            }
            Put::Create if self.show(&id).is_ok() => {
                let why = format!(
                    "a destination {id:?} left {} records behind: put it back into the configuration file, or delete it first",
                    self.pending(&id).records
                );
                return Err(Refused::Precondition(why));
            }
            Put::Update if !made => return Err(self.not_made_here(&id)),
            Put::Create | Put::Update => {}
        }
        if let Some(why) = self.relayed_already(&destination) {
            return Err(Refused::Precondition(why));
        }
        if let Some(why) = self.registry.refused_address(&destination) {
            return Err(Refused::Invalid(format!("nothing would ever be sent to {id:?}: {why}")));
        }
        // New settings end it.
        let drain = self.drain_of(&id);
        let (revision, change) = self.revision(&destination);
        let settings = Change::Destination(ControlDestination { id: id.clone(), settings });
        self.decide(change.into_iter().chain([settings]).collect()).await?;
        let had = self.queues.of(&id).iter().map(|queue| queue.stream().to_owned()).collect();
        let wanted = self.under(destination, AddressPolicy::Customer, revision);
        if let Err(why) = self.registry.put(wanted.clone(), self.paused(&id)).await {
            let why = causes::line(&why);
            // What runs goes on as it was, and so it is to be after the next start.
            let undone = match before {
                Some(settings) => {
                    let settings = settings.reveal().clone();
                    let before = Change::Destination(ControlDestination { id: id.clone(), settings });
                    [before].into_iter().chain(drain).collect()
                }
                None => {
                    vec![Change::DestinationDeleted(ControlForget { id: id.clone() }), all_revisions_gone(&id)]
                }
            };
            if let Err(kept) = self.decide(undone).await {
                // So it is what is decided, whatever is answered.
                self.does_not_run(Box::new(wanted.destination), AddressPolicy::Customer, why);
                return Err(kept.into());
            }
            self.unmake(&id, had).await;
            return Err(Refused::Unavailable(why));
        }
        self.unmet.forget(&id);
        self.forget_revisions_now_and_then().await;
        tracing::info!(destination = id, ?put, "an operator made or changed a destination");
        let mut warnings = told(&findings, Severity::Warning);
        warnings.extend(drain.map(|_| {
            format!(
                "{id} was to go when it had what was pending, and stays now: forebay destinations delete {id} --drain"
            )
        }));
        warnings.extend(self.warn_of_left_environments(&id));
        Ok((self.show(&id)?, warnings))
    }

    /// What decides that a destination goes when it has got what is pending, if that was decided.
    fn drain_of(&self, id: &str) -> Option<Change> {
        let ends = self.journal.state().draining.get(id)?.clone();
        let ends = ends.into_iter().map(|(stream, offset)| ControlDrainEnd { stream, offset }).collect();
        Some(Change::Drain(ControlDrain { destination: id.to_owned(), ends }))
    }

    /// What the file says of a destination now, without secrets; and whether that is what runs.
    async fn settings_in_file(&self, id: &str) -> String {
        let Some(path) = self.file().of.as_ref().map(|of| of.path.clone()) else { return String::new() };
        let of = id.to_owned();
        let read = tokio::task::spawn_blocking(move || config::destination_in(&path, &of)).await;
        let Some(checked) = read.expect("reading a configuration does not panic") else { return String::new() };
        if checked.value.is_none() {
            return "# The file is not valid now, and nothing of it is shown: `forebay check` says why.\n".to_owned();
        }
        let runs = checked.value.is_some_and(|destination| {
            let (revision, new) = self.revision(&destination);
            new.is_none() && self.registry.runs_as(&self.under(destination, AddressPolicy::Operator, revision))
        });
        let note = if runs { "" } else { "# The file says so now. It has not been taken: this is not what runs.\n" };
        format!("{note}{}", checked.shown)
    }

    async fn delete(&self, id: String, how: Delete) -> Result<DeleteDestinationResponse, Refused> {
        let _operating = self.operating.lock().await;
        let destination = self.show(&id)?;
        if destination.origin() == Origin::File {
            let why =
                format!("destination {id:?} is the configuration file's: take it out there, then delete what it left");
            return Err(Refused::Precondition(why));
        }
        let (records_pending, dead) = (self.pending(&id).records, self.dead_letters(&id));
        if how != Delete::Purge && dead > 0 {
            let why = format!(
                "destination {id:?} has {dead} dead letters: send them again or purge them first, or give them up with --purge"
            );
            return Err(Refused::Precondition(why));
        }
        if how == Delete::Drain && records_pending > 0 {
            if !self.registry.runs(&id) || destination.paused {
                let why =
                    format!("nothing delivers to {id:?} now, so it can't be drained: put it back, or let it go on");
                return Err(Refused::Precondition(why));
            }
            if let Some(left) = destination.left.iter().find(|left| left.records_pending > 0) {
                let LeftEnvironment { environment, records_pending, .. } = left;
                return Err(Refused::Precondition(format!(
                    "{records_pending} records of environment {environment:?}, which {id:?} takes from no more, can't be drained: put \
                     the environment back, or delete its queue first (--environment {environment})"
                )));
            }
            let queues = self.queues_of(&id);
            let ours = queues.iter().filter(|queue| !queue.stream().starts_with('!'));
            let end = |queue: &forebay::Queue| ControlDrainEnd {
                stream: queue.stream().to_owned(),
                offset: queue.lag().durable_tail,
            };
            let drain = ControlDrain { destination: id, ends: ours.map(end).collect() };
            self.decide(vec![Change::Drain(drain)]).await?;
            return Ok(DeleteDestinationResponse { records_pending, deleted: false });
        }
        if how == Delete::Empty && records_pending > 0 {
            let way = match self.registry.runs(&id) {
                true if destination.paused => "resume it and --drain delivers them first",
                true => "--drain delivers them first",
                false => "nothing delivers them: put it back and they go on",
            };
            let why = format!("destination {id:?} has {records_pending} records pending: {way}, --purge gives them up");
            return Err(Refused::Precondition(why));
        }
        self.forget(&id).await?;
        tracing::warn!(destination = id, records_pending, "an operator deleted a destination");
        Ok(DeleteDestinationResponse { records_pending, deleted: true })
    }

    async fn make_environment(&self, settings: String) -> Result<(Environment, Vec<String>), Refused> {
        let _operating = self.operating.lock().await;
        small_enough(&settings)?;
        let checked = config::check_environment(&settings, &self.around(&[]).borrow());
        let Some(environment) = checked.value else { return Err(Refused::Invalid(mistakes(&checked.findings))) };
        let id = environment.id.clone();
        if self.environment_ids().contains(&id) {
            return Err(Refused::Exists(format!("there is an environment {id:?} already")));
        }
        if self.journal.state().environments.len() >= MADE_MAX {
            return Err(Refused::Precondition(format!("{MADE_MAX} environments were made here: delete one first")));
        }
        if let Some(owner) = environment.sdk_keys.iter().find_map(|key| self.registry.owner_of(key.reveal())) {
            return Err(Refused::Invalid(format!("one of the sdk_keys belongs to environment {owner:?} already")));
        }
        let made = Change::Environment(ControlEnvironment { id: id.clone(), settings });
        self.decide(vec![made]).await?;
        if let Err(why) = self.refresh_environments().await {
            self.decide(vec![Change::EnvironmentDeleted(ControlForget { id })]).await?;
            return Err(why);
        }
        tracing::info!(environment = environment.id, "an operator made an environment");
        Ok((shown(&environment, Origin::Api), told(&checked.findings, Severity::Warning)))
    }

    async fn refresh_environments(&self) -> Result<(), Refused> {
        let of_file = self.file().environments.clone();
        let made = self.made_environments(&of_file);
        self.set_environments(&of_file, made).await.map_err(|why| Refused::Unavailable(causes::line(&why)))
    }

    fn not_made_here(&self, id: &str) -> Refused {
        if self.registry.runs(id) || self.unmet.contains(id) {
            return Refused::Precondition(format!("destination {id:?} is the configuration file's: change it there"));
        }
        Refused::NotFound(format!("there is no destination {id:?}"))
    }

    pub(super) fn show(&self, id: &str) -> Result<Destination, Refused> {
        let queues = self.queues_of(id);
        let Count { records, bytes } = pending_in(&queues);
        let left = self.left_in(&queues);
        let state = self.journal.state();
        let made = state.destinations.contains_key(id);
        let base = Destination {
            id: id.to_owned(),
            paused: state.paused.contains(id),
            draining: state.draining.contains_key(id),
            records_pending: records,
            bytes_pending: bytes,
            left,
            ..Destination::default()
        };
        drop(state);
        if let Some(Shown { policy, type_name, environments, .. }) = self.registry.shown(id) {
            let origin = if policy == AddressPolicy::Customer { Origin::Api } else { Origin::File };
            let environments = environments.iter().map(|id| id.to_string()).collect();
            return Ok(Destination { origin: origin.into(), r#type: type_name.to_owned(), environments, ..base });
        }
        if let Some((policy, Some(wanted))) = self.unmet.wanted(id) {
            let origin = if policy == AddressPolicy::Customer { Origin::Api } else { Origin::File };
            let mut base = base;
            base.left.retain(|left| !wanted.environments.contains(&left.environment));
            let r#type = wanted.sink.type_name().to_owned();
            return Ok(Destination { origin: origin.into(), r#type, environments: wanted.environments, ..base });
        }
        // Queues of letters outlive their destination, empty.
        let ours = |queue: &&Queue| !queue.stream().starts_with('!') || queue.lag().records > 0;
        let ours: Vec<&Queue> = queues.iter().filter(ours).collect();
        if ours.is_empty() && !made {
            return Err(Refused::NotFound(format!("there is no destination {id:?}")));
        }
        let streams = ours.iter().map(|queue| queue.stream()).filter(|stream| !stream.starts_with('!'));
        let streams: BTreeSet<String> = streams.map(|stream| environment_of(stream).to_owned()).collect();
        let origin = if made { Origin::Api } else { Origin::LeftBehind };
        Ok(Destination { origin: origin.into(), environments: streams.into_iter().collect(), ..base })
    }
}

fn small_enough(settings: &str) -> Result<(), Refused> {
    if settings.len() > SETTINGS_BYTES_MAX {
        let bytes = settings.len();
        return Err(Refused::Invalid(format!(
            "the settings have {bytes} bytes: at most {SETTINGS_BYTES_MAX} are taken"
        )));
    }
    Ok(())
}

fn shown(environment: &config::Environment, origin: Origin) -> Environment {
    Environment {
        id: environment.id.clone(),
        origin: origin.into(),
        name: environment.name.clone(),
        sdk_keys: u32::try_from(environment.sdk_keys.len()).unwrap_or(u32::MAX),
    }
}

impl From<JournalError> for Refused {
    fn from(why: JournalError) -> Self {
        Self::Unavailable(causes::line(&why))
    }
}
