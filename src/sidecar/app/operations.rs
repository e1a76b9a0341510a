//! What an operator has done at run time: written down first, then done, then answered.
//!
//! Brings three together: what the configuration file says, what was decided through the API (the journal), and what
//! runs (the registry). What always holds: one operation at a time; what a caller hears of is durable; what stands in the
//! file is the file's, and is changed there; no record is given up that nobody asked to purge.

mod answer;
mod deleting;
mod floor_loss;
mod reload;
mod revisions;
mod taken_out;
#[cfg(test)]
mod tests;
mod unmet;
mod version;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use forebay::{Log, Queue, Queues};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tracing::error;

use super::registry::{EnvironmentsChange, Registry, Wanted, environment_of};
use crate::config::{
    self, Config, DeliveryConfig, Destination, Environment, FilterSpec, Finding, S3Layout, Secret, Severity,
    SinkConfig, Surroundings,
};
use crate::control::{Fingerprint, Journal, JournalError, Revision, Skipped, fingerprint, place_keys};
use crate::ingest::Wanted as WantedEnvironment;
use crate::proto::v1::control_record::Change;
use crate::proto::v1::{ControlKeys, ControlRevision};
use crate::shutdown::Shutdown;
use crate::sinks::address_guard::AddressPolicy;

pub use reload::{ReloadFailed, Reloaded, watch};
pub use unmet::NotAsDecided;
use unmet::{Unmet, When};
pub use version::ConfigFile;

/// How often it is looked whether a destination has got all that it is to get before it goes.
const DRAIN_LOOK: Duration = Duration::from_millis(500);

/// Destinations made through the API, and as many environments: their settings are kept in memory.
const MADE_MAX: usize = 10_000;

/// The longest settings that the API takes. Certificates are a few KiB.
const SETTINGS_BYTES_MAX: usize = 64 << 10;

/// See the module.
pub struct Operations {
    queues: Queues,
    registry: Arc<Registry>,
    journal: Arc<Journal>,
    /// Held for the whole of an operation.
    operating: tokio::sync::Mutex<()>,
    file: Mutex<File>,
    unmet: Unmet,
    reloads: reload::Counts,
    /// Records of the journal that could not be read at the start: what they made or changed is not known.
    unread_decisions: u64,
}

/// What is remembered of the configuration file.
struct File {
    /// Where it is, if it is one, and which version of it was read last.
    of: Option<ConfigFile>,
    /// Without environments, destinations and secrets.
    config: Config,
    environments: Vec<Environment>,
    secrets: BTreeMap<String, Secret<String>>,
}

/// What the operator asked for was not done.
#[derive(Debug, thiserror::Error)]
pub enum OperationError {
    /// It can't be written down.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The environments do not go together.
    #[error(transparent)]
    Environments(#[from] EnvironmentsChange),
}

impl Operations {
    /// Starts what the file and the journal say, save for destinations that are paused. One that can't be started is told and
    /// tried again, and its records are kept: the others, and the way in, do not wait for it. Waits for the disk.
    ///
    /// # Errors
    /// When the environments can't be as the file has them.
    pub async fn start(
        queues: Queues,
        registry: Arc<Registry>,
        journal: Journal,
        skipped: &[Skipped],
        mut config: Config,
    ) -> Result<Arc<Self>, OperationError> {
        for Skipped { offsets, why } in skipped {
            error!(
                ?offsets,
                why, "decisions of operators can't be read: what they made or changed may be missing; no record is"
            );
        }
        // Each in a piece of its own, whose room goes to what is made of it: one piece of thousands would stay, as a hole
        // below all that they became.
        let mut destinations = Vec::with_capacity(config.destinations.len());
        destinations.extend(std::mem::take(&mut config.destinations).into_iter().map(Box::new)); // collect would keep the piece
        let environments = std::mem::take(&mut config.environments);
        let secrets = std::mem::take(&mut config.secrets);
        let operations = Arc::new(Self {
            queues,
            registry,
            journal: Arc::new(journal),
            operating: tokio::sync::Mutex::default(),
            file: Mutex::new(File { of: None, config, environments: environments.clone(), secrets }),
            unmet: Unmet::default(),
            reloads: reload::Counts::default(),
            unread_decisions: skipped.iter().map(|skipped| skipped.offsets.end - skipped.offsets.start).sum(),
        });
        operations.forget_revisions_at_start().await;
        let made = operations.made_environments(&environments);
        operations.set_environments(&environments, made).await?;
        for destination in destinations {
            operations.bring(destination, AddressPolicy::Operator, When::Start).await;
        }
        operations.start_made().await;
        operations.registry.open_left_behind();
        operations.warn_of_left_behind();
        operations.warn_of_floor_loss();
        Ok(operations)
    }

    /// Whether nothing takes from this queue, nor is to, whose destination may run: its environment was taken out.
    #[must_use]
    pub fn left_behind(&self, queue: &Queue) -> bool {
        self.registry.is_left(queue) && !self.unmet.takes(queue.destination(), environment_of(queue.stream()))
    }

    /// Whether a destination drops nothing that it has, so that a replay has it twice: one that runs and is a file. Readers of
    /// its lines may tell them apart by id; nobody else does.
    #[must_use]
    pub fn keeps_repeats(&self, id: &str) -> bool {
        self.registry.shown(id).is_some_and(|shown| shown.type_name == SinkConfig::FILE)
    }

    /// Says which file the configuration was read from, as it was before: what it says of a destination is shown from there,
    /// and what is changed from then on is a change.
    pub fn comes_from(&self, file: ConfigFile) {
        self.file().of = Some(file);
    }

    /// Waits until nothing is being changed, and lets nothing be changed for as long as the guard lives: the process stops,
    /// and a change that comes in between would open what is about to be closed.
    pub async fn hold(&self) -> impl Sized + '_ {
        self.operating.lock().await
    }

    /// Lets destinations go that have got all they were to get, and tries those again that do not run as was decided, until
    /// the sidecar stops.
    pub async fn look_after(self: Arc<Self>, shutdown: Shutdown) {
        let mut ticks = interval(DRAIN_LOOK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {
                    self.end_drained().await;
                    self.try_again(Instant::now()).await;
                }
                () = shutdown.requested() => return,
            }
        }
    }

    /// Says which queues nothing takes from, of destinations that are gone and of those that run.
    fn warn_of_left_behind(&self) {
        let mut left = self.registry.left_behind();
        left.retain(|queue| self.left_behind(queue));
        let (of_running, orphans): (Vec<Queue>, Vec<Queue>) =
            left.into_iter().partition(|queue| self.registry.runs(queue.destination()));
        self.registry.warn_of_orphans(&orphans);
        let of: BTreeSet<&str> = of_running.iter().map(Queue::destination).collect();
        of.into_iter().for_each(|id| drop(self.warn_of_left_environments(id)));
    }

    async fn start_made(&self) {
        let made: Vec<(String, Secret<String>)> =
            self.journal.state().destinations.iter().map(|(id, text)| (id.clone(), text.clone())).collect();
        for (id, settings) in made {
            if self.registry.runs(&id) || self.unmet.contains(&id) {
                error!(
                    destination = id,
                    "this destination stands in the configuration file and was made through the API, too: the \
                    file's runs"
                );
                continue;
            }
            match self.read_destination(settings.reveal()) {
                (Some(wanted), _) => drop(self.bring(Box::new(wanted), AddressPolicy::Customer, When::Start).await),
                (None, findings) => self.is_unreadable(&id, &settings, mistakes(&findings)),
            }
        }
    }

    /// The environments that were made through the API and do not clash with those of the file.
    fn made_environments(&self, of_file: &[Environment]) -> Vec<Environment> {
        let taken: BTreeSet<&str> = of_file.iter().map(|environment| environment.id.as_str()).collect();
        let around = self.around(&[]);
        let state = self.journal.state();
        let mut made = Vec::with_capacity(state.environments.len());
        for (id, settings) in &state.environments {
            let checked = config::check_environment(settings.reveal(), &around.borrow());
            match checked.value {
                Some(environment) if !taken.contains(environment.id.as_str()) => made.push(environment),
                Some(_) => {
                    error!(environment = id, "the configuration file has an environment of this id: that one counts")
                }
                None => error!(environment = id, why = mistakes(&checked.findings), "this environment can't be used"),
            }
        }
        made
    }

    /// Makes these the environments, with every key in its place.
    async fn set_environments(&self, of_file: &[Environment], made: Vec<Environment>) -> Result<(), OperationError> {
        let all: Vec<Environment> = of_file.iter().cloned().chain(made).collect();
        let (keyed, changes) = self.keyed(&all);
        self.decide(changes).await?;
        Ok(self.registry.set_environments(&all, keyed).await?)
    }

    /// The environments with the places of their keys, and what must be written down so that these stay theirs.
    fn keyed(&self, environments: &[Environment]) -> (Vec<WantedEnvironment<String>>, Vec<Change>) {
        let log = self.log().log_id();
        let file = self.file();
        let state = self.journal.state();
        let revealed = |environment: &Environment| -> Vec<String> {
            environment.sdk_keys.iter().map(|key| key.reveal().clone()).collect()
        };
        let prints =
            |id: &str, keys: &[String]| -> Vec<_> { keys.iter().map(|key| fingerprint(log, id, key)).collect() };
        let keys_change = |id: &str, prints: &[Fingerprint]| {
            let fingerprints = prints.iter().map(|print| print.to_vec()).collect();
            Change::Keys(ControlKeys { environment: id.to_owned(), fingerprints })
        };
        let mut changes = Vec::new();
        let mut keyed = Vec::with_capacity(environments.len());
        let of_file: HashMap<&str, &Environment> =
            file.environments.iter().map(|environment| (environment.id.as_str(), environment)).collect();
        for environment in environments {
            let (id, keys) = (environment.id.as_str(), revealed(environment));
            let before = of_file.get(id).copied().map(revealed).unwrap_or_default();
            let made_here = state.environments.contains_key(id);
            let places = if state.keys.contains_key(id) || made_here || !keys.starts_with(&before) {
                let known = state.keys.get(id).cloned().unwrap_or_else(|| prints(id, &before));
                let (places, prints) = place_keys(known, &prints(id, &keys));
                if state.keys.get(id) != Some(&prints) {
                    changes.push(keys_change(id, &prints));
                }
                places
            } else {
                // As long as keys come at the end only, the list says it all.
                (0..).take(keys.len()).collect()
            };
            keyed.push((id.to_owned(), places.into_iter().zip(keys).collect()));
        }
        let stays: BTreeSet<&str> = environments.iter().map(|environment| environment.id.as_str()).collect();
        for gone in file.environments.iter().filter(|before| !stays.contains(before.id.as_str())) {
            // Should it come back with other keys.
            if !state.keys.contains_key(&gone.id) {
                changes.push(keys_change(&gone.id, &prints(&gone.id, &revealed(gone))));
            }
        }
        (keyed, changes)
    }

    /// A destination as it is to run: under the revision of what it gets, which is written down where it is new.
    async fn wanted(&self, destination: Destination, policy: AddressPolicy) -> Result<Wanted, JournalError> {
        let (revision, change) = self.revision(&destination);
        self.decide(change.into_iter().collect()).await?;
        Ok(self.under(destination, policy, revision))
    }

    fn revision(&self, destination: &Destination) -> (u32, Option<Change>) {
        let objects = match &destination.sink {
            SinkConfig::S3(s3) => serde_json::to_string(&s3.layout()).expect("names and words are text"),
            _ => String::new(),
        };
        let is_plain = destination.filter.is_empty() && objects.is_empty();
        let filter = serde_json::to_string(&destination.filter).expect("patterns are text");
        let settings = Revision { filter, objects };
        let (revision, new) = self.journal.state().revision_of(&destination.id, &settings, is_plain);
        let Revision { filter, objects } = settings;
        let destination = destination.id.clone();
        let change = || Change::Revision(ControlRevision { destination, revision, filter, objects });
        (revision, new.then(change))
    }

    fn under(&self, destination: Destination, policy: AddressPolicy, revision: u32) -> Wanted {
        let state = self.journal.state();
        let known = state.revisions.get(&destination.id).into_iter().flatten();
        let (mut filters, mut layouts) = (Vec::new(), Vec::new());
        for (revision, Revision { filter, objects }) in known {
            // One that cannot be read lets everything pass: too much is sent rather than too little.
            filters.push((*revision, serde_json::from_str::<FilterSpec>(filter).unwrap_or_default()));
            layouts.extend(serde_json::from_str::<S3Layout>(objects).ok().map(|layout| (*revision, layout)));
        }
        Wanted { destination, policy, revision, filters, layouts }
    }

    /// Settings that came through the API, judged against what is there now.
    fn read_destination(&self, settings: &str) -> (Option<Destination>, Vec<Finding>) {
        let ids = self.environment_ids();
        let checked = config::check_destination(settings, &self.around(&ids).borrow());
        (checked.value, checked.findings)
    }

    /// An environment's posts go to one upstream. Says which one keeps those of this one already.
    fn relayed_already(&self, destination: &Destination) -> Option<String> {
        let SinkConfig::Upstream(_) = destination.sink else { return None };
        let keeper = |environment: &String| {
            let running = self.registry.upstream_of(environment, &destination.id).map(|id| id.to_string());
            let keeper = running.or_else(|| self.unmet.upstream_of(environment, &destination.id))?;
            Some(format!(
                "the posts of environment {environment:?} go to upstream {keeper:?} already: an environment has one upstream"
            ))
        };
        destination.environments.iter().find_map(keeper)
    }

    fn environment_ids(&self) -> Vec<String> {
        let file = self.file();
        let state = self.journal.state();
        let of_file = file.environments.iter().map(|environment| environment.id.clone());
        of_file.chain(state.environments.keys().cloned()).collect()
    }

    fn around(&self, environments: &[String]) -> Around {
        let file = self.file();
        Around {
            environments: environments.to_vec(),
            delivery: file.config.delivery.clone(),
            secrets: file.secrets.clone(),
        }
    }

    fn paused(&self, id: &str) -> bool {
        self.journal.state().paused.contains(id)
    }

    fn log(&self) -> &Log {
        self.queues.log()
    }

    async fn decide(&self, changes: Vec<Change>) -> Result<(), JournalError> {
        if changes.is_empty() {
            return Ok(());
        }
        let journal = Arc::clone(&self.journal);
        let decided = tokio::task::spawn_blocking(move || journal.decide(changes)).await;
        decided.expect("writing a decision down does not panic")
    }

    fn file(&self) -> MutexGuard<'_, File> {
        // Replaced as a whole.
        self.file.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The environments whose posts a destination is to relay.
fn posts_wanted(destination: &Destination) -> &[String] {
    match destination.sink {
        SinkConfig::Upstream(_) => &destination.environments,
        _ => &[],
    }
}

/// What settings of the API are judged against.
struct Around {
    environments: Vec<String>,
    delivery: DeliveryConfig,
    secrets: BTreeMap<String, Secret<String>>,
}

impl Around {
    fn borrow(&self) -> Surroundings<'_> {
        Surroundings { environments: &self.environments, delivery: &self.delivery, secrets: &self.secrets }
    }
}

/// The errors among findings, in one line.
fn mistakes(findings: &[Finding]) -> String {
    told(findings, Severity::Error).join("; ")
}

/// Each finding of a severity in words.
fn told(findings: &[Finding], severity: Severity) -> Vec<String> {
    let tell = |finding: &Finding| {
        let line = finding.line.map(|line| format!("line {line}: ")).unwrap_or_default();
        let path = if finding.path.is_empty() { String::new() } else { format!("{}: ", finding.path) };
        format!("{line}{path}{} ({})", finding.message, finding.remedy)
    };
    findings.iter().filter(|finding| finding.severity == severity).map(tell).collect()
}
