//! What runs: every environment and every destination. Each can be added, changed and taken out at run time, while
//! the way in and all others go on.
//!
//! Knows nothing of why: what is written down, and where, is the affair of whoever calls. What always holds: changes
//! come one at a time; a destination that is replaced or stopped hands back every claim before another of its id is
//! started, so that its cursor and its batches go on where they were; what is equal is left running untouched. What
//! is kept of a destination here is a few dozen bytes, since there may be thousands, all idle.

mod addresses;
mod errors;
mod left_behind;
mod table;

use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use forebay::{Queue, Queues};
use tracing::warn;

use super::sinks::SinkFactory;
use super::upstreams::Upstreams;
use super::{destinations, learned};
use crate::config::{self, DeadLettersConfig, Destination, FilterSpec, S3Layout, SinkConfig};
use crate::delivery::sheet::InDoubt;
use crate::delivery::sink::{Environment as Label, Sink};
use crate::delivery::source::Source;
use crate::delivery::{Delivery, Settings};
use crate::ingest::{Ingest, Wanted as WantedEnvironment};
use crate::letters::{HeldSource, Letters, Policy};
use crate::overflow::{self, Overflow};
use crate::sinks::address_guard::AddressPolicy;
pub use addresses::misplaced;
pub use errors::{EnvironmentsChange, OpenError, PutError};
pub use left_behind::environment_of;
use table::{Places, Running, Table};

/// Letters of an upstream's posts take so small a part of its share of the disk, and that of the log that all share.
const LETTERS_OF_SHARE: u64 = 8;

/// All that runs. Shared by those who change it.
pub struct Registry {
    queues: Queues,
    upstreams: Arc<Upstreams>,
    delivery: Arc<Delivery>,
    ingest: Arc<Ingest>,
    letters: Arc<Letters>,
    overflow: Arc<Overflow>,
    factory: SinkFactory,
    /// What a destination that is stopped or replaced has for what is in flight.
    grace: Duration,
    /// Tells whether settings have changed, for as long as this process lives.
    hasher: RandomState,
    /// Held for the whole of a change.
    changing: tokio::sync::Mutex<()>,
    table: Mutex<Table>,
}

/// A destination that is to run.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// Its settings.
    pub destination: Destination,
    /// Who chose its address.
    pub policy: AddressPolicy,
    /// The revision of its settings, and what it gets under each one that is known.
    pub revision: u32,
    /// See `revision`. None: what its settings say.
    pub filters: Vec<(u32, FilterSpec)>,
    /// The same of how its objects are named and what is in them.
    pub layouts: Vec<(u32, S3Layout)>,
}

impl Hash for Wanted {
    /// Without what is known of older revisions: some of that is forgotten, and what runs has what it needs of it.
    fn hash<H: Hasher>(&self, state: &mut H) {
        (&self.destination, self.policy, self.revision).hash(state);
    }
}

impl Wanted {
    /// One of the configuration file, whose settings never changed.
    #[must_use]
    pub fn of_file(destination: Destination) -> Self {
        Self { destination, policy: AddressPolicy::Operator, revision: 0, filters: Vec::new(), layouts: Vec::new() }
    }
}

/// A destination that runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// Its id.
    pub id: Arc<str>,
    /// Who chose its address: that of the file, or somebody through the API.
    pub policy: AddressPolicy,
    /// The word for its type.
    pub type_name: &'static str,
    /// Whose records it gets.
    pub environments: Vec<Arc<str>>,
}

/// What a [`Registry::put`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// None of its id ran.
    Started,
    /// One with other settings ran.
    Replaced,
    /// It ran already, with the same settings.
    Untouched,
}

/// A destination, ready to be started.
struct Ready {
    name: Arc<str>,
    sink: Arc<dyn Sink>,
    sources: Vec<Arc<dyn Source>>,
    /// What the sources take from, and the revision of the settings that fresh batches are made under.
    queues: Vec<Queue>,
    revision: u32,
    settings: Settings,
    overflow: Option<overflow::Policy>,
    running: Running,
}

impl Registry {
    /// Nothing runs yet, and the way in knows no environment.
    pub(super) fn new(
        queues: Queues,
        upstreams: Arc<Upstreams>,
        (delivery, ingest, letters): (Arc<Delivery>, Arc<Ingest>, Arc<Letters>),
        factory: SinkFactory,
        grace: Duration,
    ) -> Self {
        let (changing, table) = (tokio::sync::Mutex::default(), Mutex::default());
        let doubts = Arc::clone(&letters);
        let in_two_places = move |id: &str| doubts.in_doubt(id) != InDoubt::default();
        let overflow = Arc::new(Overflow::new(queues.clone(), letters.ages(), in_two_places));
        Self {
            queues,
            upstreams,
            delivery,
            ingest,
            letters,
            overflow,
            factory,
            grace,
            hasher: RandomState::new(),
            changing,
            table,
        }
    }

    /// What destinations may give up when they fall behind too far.
    pub(super) fn overflow(&self) -> Arc<Overflow> {
        Arc::clone(&self.overflow)
    }

    /// From now on these are the environments, with these keys. Requests under way end as they began. Destinations that
    /// run keep the names they have, and upstreams the keys; [`put`](Self::put) those whose environments have others.
    ///
    /// # Errors
    /// A key that belongs to two of them, among others. Nothing has changed then.
    pub async fn set_environments(
        &self,
        environments: &[config::Environment],
        keyed: Vec<WantedEnvironment<String>>,
    ) -> Result<(), EnvironmentsChange> {
        let _changing = self.changing.lock().await;
        let next = self.ingest.environments().changed(keyed.clone())?;
        // A queue before the first post: none is let go unread.
        self.upstreams.set_keys(&keyed)?;
        let mut table = self.table();
        table.subscribers.resize(next.all().len(), 0);
        for (place, environment) in next.all().iter().enumerate() {
            environment.set_routed(table.subscribers[place] > 0);
        }
        let label = |environment: &config::Environment| {
            let known = table.labels.get(environment.id.as_str());
            let same = known.filter(|label| label.name == environment.name);
            let label = Label { id: environment.id.clone(), name: environment.name.clone() };
            (environment.id.as_str().into(), same.map_or_else(|| Arc::new(label), Arc::clone))
        };
        table.labels = environments.iter().map(label).collect();
        drop(table);
        self.ingest.set_environments(next);
        Ok(())
    }

    /// Starts a destination where none of its id runs. Waits for the disk where it has no queue yet: for a start of the
    /// whole, not for later.
    ///
    /// # Errors
    /// When it has no queue and none can be made, or its letters can't be read.
    pub fn start(&self, wanted: &Wanted, paused: bool) -> Result<(), PutError> {
        let ready = self.ready(wanted)?;
        self.begin(ready, paused);
        Ok(())
    }

    /// Starts a destination, or has it go on with these settings. One that is replaced finishes what is in flight,
    /// within the grace; what it has not delivered then goes out under the new settings, in the same batches.
    ///
    /// # Errors
    /// When a queue can't be made, or letters can't be read. What ran goes on then.
    pub async fn put(self: &Arc<Self>, wanted: Wanted, paused: bool) -> Result<Put, PutError> {
        let _changing = self.changing.lock().await;
        let id = wanted.destination.id.clone();
        let fingerprint = self.fingerprint(&wanted);
        let before = self.table().destinations.get(id.as_str()).map(|running| running.fingerprint);
        // One that was stopped half way to another runs no more, whatever the table says.
        if before == Some(fingerprint) && self.delivery.runs(&id) {
            return Ok(Put::Untouched);
        }
        let registry = Arc::clone(self);
        let ready = tokio::task::spawn_blocking(move || registry.ready(&wanted));
        let ready = ready.await.expect("making a destination ready does not panic")?;
        if before.is_some() {
            self.end(&id).await;
        }
        let (letters, of) = (Arc::clone(&self.letters), id);
        let caught_up = tokio::task::spawn_blocking(move || letters.catch_up(&of)).await;
        caught_up.expect("settling what was parked does not panic");
        self.begin(ready, paused);
        Ok(if before.is_some() { Put::Replaced } else { Put::Started })
    }

    /// Stops a destination. Its queues stay, and what they hold. Says whether it ran.
    pub async fn remove(&self, id: &str) -> bool {
        let _changing = self.changing.lock().await;
        self.upstreams.keep(id, &self.ingest.environments(), &[]);
        self.end(id).await
    }

    /// Lets nobody touch the letters of a destination that is going, until it is [forgotten](Self::forget). Waits
    /// for whoever is at work.
    pub async fn close_letters(&self, id: &str) {
        let (letters, id) = (Arc::clone(&self.letters), id.to_owned());
        let closed = tokio::task::spawn_blocking(move || letters.close(&id)).await;
        closed.expect("waiting does not panic");
    }

    /// Forgets a destination that is gone for good: its letters, of which its queues hold none any more, its counters, and
    /// what it takes.
    pub fn forget(&self, id: &str) {
        self.letters.forget(id);
        self.delivery.forget(id);
        self.queues.remember(id, &[]);
    }

    /// An upstream does not run as was decided. The posts of these environments, where nobody keeps them, are turned away and
    /// counted until it [does](Self::put), or is [taken out](Self::remove).
    pub fn miss_posts(&self, id: &str, environments: &[String]) {
        self.upstreams.miss(id, &self.ingest.environments(), environments);
    }

    /// Whether a destination of this id runs, paused or not.
    pub fn runs(&self, id: &str) -> bool {
        self.table().destinations.contains_key(id)
    }

    /// One that runs.
    pub fn shown(&self, id: &str) -> Option<Shown> {
        let table = self.table();
        let (id, running) = table.destinations.get_key_value(id)?;
        Some(self.show(id, running))
    }

    /// All that run and come behind `after`, by id.
    pub fn all_after(&self, after: &str, most: usize) -> Vec<Shown> {
        let table = self.table();
        let range = (std::ops::Bound::Excluded(after), std::ops::Bound::Unbounded);
        table.destinations.range::<str, _>(range).take(most).map(|(id, running)| self.show(id, running)).collect()
    }

    fn show(&self, id: &Arc<str>, running: &Running) -> Shown {
        let environments = self.ingest.environments();
        let name = |place: &u32| environments.all()[*place as usize].id().into();
        Shown {
            id: Arc::clone(id),
            policy: running.policy,
            type_name: running.type_name,
            environments: running.environments.all().iter().map(name).collect(),
        }
    }

    /// How many destinations take from an environment.
    pub fn subscribers(&self, environment: &str) -> u32 {
        let place = self.ingest.environments().place_of(environment);
        place.and_then(|place| self.table().subscribers.get(place).copied()).unwrap_or(0)
    }

    /// The environment that an SDK key belongs to.
    pub fn owner_of(&self, key: &str) -> Option<String> {
        let environments = self.ingest.environments();
        let owner = environments.owner_of(key.as_bytes())?;
        Some(environments.all()[owner.environment].id().to_owned())
    }

    /// Starts no more batches of a destination, or goes on with it. What is in flight is finished. Says whether it runs.
    pub async fn pause(&self, id: &str, paused: bool) -> bool {
        let _changing = self.changing.lock().await;
        if paused { self.delivery.pause(id) } else { self.delivery.resume(id) }
    }

    /// Another part for bulk work, from now on.
    pub fn set_bulk_percent(&self, percent: u32) {
        self.delivery.set_bulk_percent(percent);
    }

    /// Tries a destination now, whatever it waits for. Says whether it runs.
    pub fn probe(&self, id: &str) -> bool {
        self.delivery.probe(id)
    }

    /// The same for two destinations that are the same, and are sent the same names.
    fn fingerprint(&self, wanted: &Wanted) -> u64 {
        let table = self.table();
        let names = wanted.destination.environments.iter().map(|id| table.labels.get(id.as_str()).map(|l| &l.name));
        let mut hasher = self.hasher.build_hasher();
        (wanted, names.collect::<Vec<_>>()).hash(&mut hasher);
        if let SinkConfig::Upstream(_) = wanted.destination.sink {
            // It has a source for each key.
            wanted.destination.environments.iter().for_each(|id| self.upstreams.keys().hash_of(id, &mut hasher));
        }
        hasher.finish()
    }

    fn ready(&self, wanted: &Wanted) -> Result<Ready, PutError> {
        let Wanted { destination, policy, .. } = wanted;
        let labels = |id: &str| self.table().labels.get(id).cloned();
        let refuse = |source: OpenError| PutError { destination: destination.id.clone(), source };
        self.letters.read(&destination.id).map_err(|e| refuse(OpenError::Letters(e)))?;
        let (name, mut sources, queues, sink) = match &destination.sink {
            SinkConfig::Upstream(config) => {
                let keys = self.upstreams.keys();
                let opened = self.upstreams.open(&destination.id, config).map_err(|e| refuse(e.into()))?;
                let sources = opened.sources(destination, keys, labels).map_err(|e| refuse(e.into()))?;
                self.upstreams.take_up(&destination.id, &opened).map_err(|e| refuse(e.into()))?;
                // Nothing fails any more: what can't be put changes no share.
                opened.set_share(&destination.id, config.max_bytes);
                let sink = self.factory.upstream(config, destination, *policy, Arc::clone(keys));
                (destination.id.as_str().into(), sources, Vec::new(), sink)
            }
            _ => {
                let (name, sources, queues) =
                    destinations::sources(&self.queues, wanted, labels, &self.letters).map_err(|e| refuse(e.into()))?;
                (name, sources, queues, self.factory.sink(wanted))
            }
        };
        let environments = self.ingest.environments();
        let places = destination.environments.iter().filter_map(|id| environments.place_of(id));
        // Letters keep no boundaries: where repeats are told apart by batch, each goes alone under an id of its own.
        let is_upstream = matches!(destination.sink, SinkConfig::Upstream(_));
        let alone = sink.needs_plan() || sink.large().is_some() || is_upstream;
        let desk = self.letters.desk(Arc::clone(&name));
        let DeadLettersConfig { max_age: age_max, max_bytes: bytes_max } = destination.dead_letters;
        desk.set_policy(Policy { age_max, bytes_max });
        desk.set_room(match &destination.sink {
            SinkConfig::Upstream(config) => Some(config.max_bytes / LETTERS_OF_SHARE),
            _ => None,
        });
        sources.push(Arc::new(HeldSource::new(desk, alone)));
        Ok(Ready {
            name,
            sink,
            sources,
            queues,
            revision: wanted.revision,
            overflow: destinations::overflow(destination),
            settings: destinations::settings(destination, learned::of(&self.queues, &self.delivery, &destination.id)),
            running: Running {
                fingerprint: self.fingerprint(wanted),
                environments: Places::of(places),
                type_name: destination.sink.type_name(),
                policy: *policy,
                is_upstream,
            },
        })
    }

    fn begin(&self, ready: Ready, paused: bool) {
        let Ready { name, sink, sources, queues, revision, settings, overflow, running } = ready;
        // Before anything is claimed, and after the loop before has ended: it would plan batches under this revision and
        // fill them under its own. Batches that were planned keep the revision that they were planned in.
        queues.iter().for_each(|queue| queue.set_settings_revision(revision));
        // Before it can be seen to deliver: records that come now are for somebody.
        self.count(&running.environments, |subscribers| subscribers + 1);
        let environments = self.ingest.environments();
        let id = |place: &u32| environments.all()[*place as usize].id().to_owned();
        let ids = running.environments.all().iter().filter(|_| running.is_upstream).map(id);
        self.upstreams.keep(&name, &environments, &ids.collect::<Vec<_>>());
        self.table().destinations.insert(Arc::clone(&name), running);
        self.overflow.set(&name, overflow, queues);
        let started = if paused {
            self.delivery.start_paused(name, sink, sources, settings)
        } else {
            self.delivery.start(name, sink, sources, settings)
        };
        started.expect("what ran under this id was stopped, and changes come one at a time");
    }

    async fn end(&self, id: &str) -> bool {
        if let Some(stopped) = self.delivery.stop(id, self.grace).await
            && stopped.cut_off
        {
            warn!(destination = id, "requests in flight were cut off: they are repeated under the same ids");
        }
        // It may wait for the disk.
        let (overflow, of) = (Arc::clone(&self.overflow), id.to_owned());
        tokio::task::spawn_blocking(move || overflow.forget(&of)).await.expect("forgetting a policy does not panic");
        let Some(running) = self.table().destinations.remove(id) else { return false };
        self.count(&running.environments, |subscribers| subscribers - 1);
        true
    }

    fn count(&self, places: &Places, change: impl Fn(u32) -> u32) {
        let environments = self.ingest.environments();
        let mut table = self.table();
        for &place in places.all() {
            let subscribers = &mut table.subscribers[place as usize];
            *subscribers = change(*subscribers);
            environments.all()[place as usize].set_routed(*subscribers > 0);
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // Nothing that can panic runs between two changes of the table.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
