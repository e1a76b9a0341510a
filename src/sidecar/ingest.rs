//! The way in: what SDKs post over HTTP becomes records of an environment's stream, and is answered when it is durable.
//!
//! Knows no destination. Refuses only what it cannot read or cannot hold, because whatever is refused may be lost: most
//! SDKs drop a batch at its first or second refusal.
//!
//! A request's way, in the order of the files: `http` accepts, `routes` says what it is, `sender` and `environments`
//! whose it is, `admission` when there is room, `body` and `gunzip` receive it, `store` parses and appends, `answer`.

mod admission;
mod answer;
mod body;
mod complaints;
mod environments;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod gunzip;
mod http;
mod limits;
mod patience;
mod rejects;
mod relay;
mod request;
mod routes;
mod sender;
mod stats;
mod store;
#[cfg(test)]
mod tests;

use std::sync::{Arc, PoisonError, RwLock};
use std::thread::available_parallelism;

use forebay::Log;
use forebay::clock::Clock;

pub use environments::{Environment, Environments, EnvironmentsError, KeyOwner, Wanted};
pub use http::{Ended, serve};
pub use limits::Limits;
pub use rejects::{StoredReject, decode as decode_rejects};
pub use relay::{Relay, RelaySnapshot};
pub use stats::{EnvironmentSnapshot, IngestStats, Refusal, Snapshot};

use admission::Pool;
use complaints::Complaints;
use store::Store;

/// All that the requests share.
pub struct Ingest {
    clock: Arc<dyn Clock>,
    /// Replaced as a whole; a request takes one version and keeps to it.
    environments: RwLock<Arc<Environments>>,
    limits: Limits,
    /// Bytes of bodies, and of their stored form until it is on disk.
    memory: Pool,
    /// Threads that parse large bodies: no more than there are processors.
    parsers: Pool,
    /// Bytes that are on their way to the disk.
    queued: Pool,
    stats: Arc<IngestStats>,
    complaints: Complaints,
    store: Store,
}

impl Ingest {
    /// The way into `log` for these environments. Does nothing until [`serve`] is given it.
    #[must_use]
    pub fn new(log: Log, clock: Arc<dyn Clock>, environments: Environments, limits: Limits) -> Self {
        let stats = Arc::new(IngestStats::new(&environments));
        let processors = available_parallelism().map_or(1, usize::from) as u64;
        Self {
            clock,
            memory: Pool::new(limits.memory_bytes_max),
            parsers: Pool::new(processors),
            queued: Pool::new(limits.queue_bytes_max),
            complaints: Complaints::new(&environments),
            store: Store::new(log, Arc::clone(&stats)),
            environments: RwLock::new(Arc::new(environments)),
            limits,
            stats,
        }
    }

    /// The counters.
    #[must_use]
    pub fn stats(&self) -> &Arc<IngestStats> {
        &self.stats
    }

    /// The environments as they are now. A request keeps to the version that it began with.
    #[must_use]
    pub fn environments(&self) -> Arc<Environments> {
        Arc::clone(&self.environments.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts others in their place, made by [`Environments::changed`] from those that are there. Requests under way end
    /// as they began. Not to be called by two at a time.
    pub fn set_environments(&self, environments: Environments) {
        // Room first: from the moment they can be seen they are counted.
        self.stats.make_room(&environments);
        self.complaints.make_room(&environments);
        *self.environments.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(environments);
    }

    /// Bytes that bodies hold now.
    #[must_use]
    pub fn memory_used_bytes(&self) -> u64 {
        self.memory.used()
    }

    /// Where posts are kept as they came, or would be if the upstream ran: each upstream once.
    #[must_use]
    pub fn relays(&self) -> Vec<RelaySnapshot> {
        let environments = self.environments();
        let mut relays: Vec<Arc<Relay>> =
            environments.all().iter().filter_map(|environment| environment.relay()).collect();
        // Of one upstream some environments may be there and others not: the share is known where it is.
        relays.sort_by_key(|relay| (Arc::clone(relay.destination()), !relay.is_there()));
        relays.dedup_by(|a, b| a.destination() == b.destination());
        relays.iter().map(|relay| relay.snapshot()).collect()
    }

    /// Requests that wait for memory now.
    #[must_use]
    pub fn memory_waiting(&self) -> usize {
        self.memory.waiting()
    }
}

/// The account of senders that are not known yet.
const STRANGERS: usize = 0;

/// The account of the environment at this place.
fn account(environment: usize) -> usize {
    environment + 1
}
