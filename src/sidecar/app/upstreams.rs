//! The upstreams' own logs: where posts lie as they came until they are relayed, one directory for each upstream.
//!
//! What always holds: a key's queue is there before the first of its posts is kept, so that none is let go unread; and
//! the log's budget is the upstream's `max_bytes`, so that posts never take room from impressions. See
//! docs/decisions/0060-posts-in-a-log-of-their-own.md.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use forebay::clock::Clock;
use forebay::disk::Disk;
use forebay::{
    CloseQueuesError, LogOptions, OpenQueuesError, Queue, QueueError, QueueOptions, Queues, Start, StoreChoice,
};

use crate::config::{Destination, IngestConfig, UpstreamConfig};
use crate::delivery::queued::Queued;
use crate::delivery::sink::Environment;
use crate::delivery::source::Source;
use crate::ingest::{Environments, Relay, Wanted as WantedEnvironment};
use crate::post;
use crate::sinks::upstream::{Gates, InOrder, SdkKeys};

/// Where the upstreams' logs lie, below the data directory.
const DIRECTORY: &str = "upstream";

/// Segments are an eighth of the share: so much of it may be settled and not free yet.
const SEGMENTS_OF_SHARE: u64 = 8;

/// Posts just kept, in memory: an upstream that keeps up reads no disk.
const TAIL_CACHE_BYTES: usize = 8 << 20;

/// All upstreams.
pub(super) struct Upstreams {
    directory: PathBuf,
    disk: Arc<dyn Disk>,
    clock: Arc<dyn Clock>,
    ingest: IngestConfig,
    keys: Arc<SdkKeys>,
    open: Mutex<BTreeMap<String, Arc<Opened>>>,
}

/// One upstream's log.
pub(super) struct Opened {
    queues: Queues,
    relay: Arc<Relay>,
    gates: Arc<Gates>,
    /// Those whose posts it keeps.
    environments: Mutex<Vec<String>>,
}

impl Upstreams {
    pub(super) fn new(data_dir: &Path, disk: Arc<dyn Disk>, clock: Arc<dyn Clock>, ingest: &IngestConfig) -> Self {
        let directory = data_dir.join(DIRECTORY);
        Self { directory, disk, clock, ingest: ingest.clone(), keys: Arc::default(), open: Mutex::default() }
    }

    /// From now on posts are sent with these keys. Call it before any of them is let in: the queues of new ones are made
    /// here, so that their posts wait for the sources that [`Opened::sources`] makes of them.
    ///
    /// # Errors
    /// When a queue can't be made.
    pub(super) fn set_keys(&self, environments: &[WantedEnvironment<String>]) -> Result<(), QueueError> {
        self.keys.replace(environments.iter().map(|(id, keys)| (id.as_str(), &keys[..])));
        let open: Vec<_> = self.lock().iter().map(|(id, opened)| (id.clone(), Arc::clone(opened))).collect();
        for (id, opened) in open {
            let environments = opened.environments.lock().unwrap_or_else(PoisonError::into_inner).clone();
            for environment in environments {
                for place in self.keys.places(&environment) {
                    opened.queue(&id, &post::stream(&environment, place))?;
                }
            }
        }
        Ok(())
    }

    /// The SDK keys that posts are sent with.
    pub(super) fn keys(&self) -> &Arc<SdkKeys> {
        &self.keys
    }

    /// The log of an upstream, opened the first time. Blocks: recovery reads.
    pub(super) fn open(&self, id: &str, config: &UpstreamConfig) -> Result<Arc<Opened>, OpenQueuesError> {
        let mut open = self.lock();
        if let Some(opened) = open.get(id) {
            return Ok(Arc::clone(opened));
        }
        let options = QueueOptions { store: StoreChoice::None, ..QueueOptions::default() };
        let (disk, clock) = (Arc::clone(&self.disk), Arc::clone(&self.clock));
        let queues = Queues::open(disk, clock, &self.directory.join(id), self.log_options(config), options)?;
        let relay = Relay::new(id.into(), queues.log().clone(), Arc::clone(&self.clock));
        let (relay, gates) = (Arc::new(relay), Arc::new(Gates::new(id.into())));
        let opened = Arc::new(Opened { queues, relay, gates, environments: Mutex::default() });
        open.insert(id.to_owned(), Arc::clone(&opened));
        Ok(opened)
    }

    fn log_options(&self, config: &UpstreamConfig) -> LogOptions {
        let segment_bytes = (config.max_bytes / SEGMENTS_OF_SHARE).clamp(1 << 20, 16 << 20);
        LogOptions {
            segment_bytes: u32::try_from(segment_bytes).expect("it is 16 MiB at most"),
            append_bytes_max: u32::try_from(self.ingest.append_bytes_max()).unwrap_or(u32::MAX),
            // What waits is charged to the bodies' memory, which bounds it.
            queue_bytes_max: usize::try_from(self.ingest.memory_bytes_max).unwrap_or(usize::MAX),
            tail_cache_bytes: TAIL_CACHE_BYTES,
            // What Split has taken is not sent again.
            replay_window: Duration::ZERO,
            budget_bytes: config.max_bytes,
            reserve_segments: 1,
            ..LogOptions::default()
        }
    }

    /// The log of an upstream, if it is open.
    pub(super) fn opened(&self, id: &str) -> Option<Arc<Opened>> {
        self.lock().get(id).cloned()
    }

    /// Calls `each` with every queue of every upstream.
    pub(super) fn each_queue(&self, each: &mut dyn FnMut(&Queue)) {
        let open: Vec<Arc<Opened>> = self.lock().values().cloned().collect();
        open.iter().flat_map(|opened| opened.queues.all()).for_each(|queue| each(&queue));
    }

    /// Writes everything down and closes the logs.
    pub(super) fn close(&self) -> Result<(), CloseQueuesError> {
        let open = std::mem::take(&mut *self.lock());
        open.values().map(|opened| opened.queues.close()).fold(Ok(()), Result::and)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Opened>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Opened {
    /// Keeps the posts of these environments from now on, and those of no others.
    pub(super) fn keep(&self, environments: &Environments, of: &[String]) {
        for (place, environment) in environments.all().iter().enumerate() {
            if of.iter().any(|id| id == environment.id()) {
                environments.set_relay(place, Some(Arc::clone(&self.relay)));
            } else if environment.relay().is_some_and(|relay| Arc::ptr_eq(&relay, &self.relay)) {
                environments.set_relay(place, None);
            }
        }
    }

    fn queue(&self, id: &str, stream: &str) -> Result<Queue, QueueError> {
        // From its first post, whatever a new destination's `start` says: the two begin together.
        self.queues.queue(id, stream, Start::Earliest)
    }

    /// The gates of its keys.
    pub(super) fn gates(&self) -> Arc<Gates> {
        Arc::clone(&self.gates)
    }

    /// A source for each key of the upstream's environments: those that are configured, and those that still have posts
    /// though they are not. Makes queues that are not there yet.
    pub(super) fn sources(
        &self,
        destination: &Destination,
        keys: &SdkKeys,
        labels: impl Fn(&str) -> Option<Arc<Environment>>,
    ) -> Result<Vec<Arc<dyn Source>>, QueueError> {
        *self.environments.lock().unwrap_or_else(PoisonError::into_inner) = destination.environments.clone();
        let log = self.queues.log().log_id();
        let mut sources: Vec<Arc<dyn Source>> = Vec::new();
        for environment in &destination.environments {
            let known = keys.places(environment).into_iter().map(|place| post::stream(environment, place));
            let of_old = self.queues.all().into_iter().map(|queue| queue.stream().to_owned());
            let streams: BTreeSet<String> = known.chain(of_old).collect();
            for stream in streams {
                let Some((owner, place)) = post::stream_owner(&stream) else { continue };
                let Some(label) = labels(environment).filter(|_| owner == environment) else { continue };
                let queued = Arc::new(Queued::new(self.queue(&destination.id, &stream)?, log, label));
                sources.push(Arc::new(InOrder::new(queued, &self.gates, environment, place)));
            }
        }
        Ok(sources)
    }
}
