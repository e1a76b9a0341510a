//! The upstreams' own logs: where posts lie as they came until they are relayed, one directory for each upstream.
//!
//! What always holds: a key's queue is there before the first of its posts is kept, so that none is let go unread; and
//! the log's budget is the upstream's `max_bytes` as it is now, so that posts never take room from impressions. See
//! docs/decisions/0060-posts-in-a-log-of-their-own.md.

mod directories;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use forebay::clock::Clock;
use forebay::disk::Disk;
use forebay::{
    CloseQueuesError, LogOptions, OpenQueuesError, Queue, QueueError, QueueOptions, Queues, Start, StoreChoice,
};
use tracing::{error, warn};

use crate::causes;
use crate::config::{Destination, IngestConfig, UpstreamConfig};
use crate::delivery::queued::Queued;
use crate::delivery::sink::Environment;
use crate::delivery::source::{BoxError, Source};
use crate::ingest::{Environments, Relay, Wanted as WantedEnvironment};
use crate::letters::Letters;
use crate::post;
use crate::sinks::upstream::{InOrder, SdkKeys};
use directories::Directories;

/// Where the upstreams' logs lie, below the data directory.
const DIRECTORY: &str = "upstream";

/// Segments are an eighth of the share: so much of it may be settled and not free yet.
const SEGMENTS_OF_SHARE: u64 = 8;

/// Posts just kept, in memory: an upstream that keeps up reads no disk.
const TAIL_CACHE_BYTES: usize = 8 << 20;

/// Read by few at a time, one after the other; there may be many such logs.
const OPEN_SEGMENTS_MAX: usize = 4;

/// All upstreams.
pub(super) struct Upstreams {
    directories: Directories,
    disk: Arc<dyn Disk>,
    clock: Arc<dyn Clock>,
    ingest: IngestConfig,
    keys: Arc<SdkKeys>,
    letters: Arc<Letters>,
    open: Arc<Mutex<Open>>,
    /// Of each that was opened or is wanted: what turns its posts away while it does not run.
    missing: Mutex<BTreeMap<String, Arc<Relay>>>,
}

type Open = BTreeMap<String, Arc<Opened>>;

/// Why an upstream's log can't be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenUpstreamError {
    /// The log itself.
    #[error(transparent)]
    Log(#[from] OpenQueuesError),
    /// The letters of its posts: without them nobody knows which posts are letters already.
    #[error("its dead letters can't be read")]
    Letters(#[source] BoxError),
}

/// One upstream's log.
pub(super) struct Opened {
    queues: Queues,
    relay: Arc<Relay>,
    /// Those whose posts it keeps.
    environments: Mutex<Vec<String>>,
    /// What a crash left in two places is settled in the first.
    taken_up: AtomicBool,
}

impl Upstreams {
    /// None is open yet. `letters` hear of each that is opened.
    pub(super) fn new(
        data_dir: &Path,
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
        ingest: &IngestConfig,
        letters: Arc<Letters>,
    ) -> Self {
        let directories = Directories::new(data_dir.join(DIRECTORY), Arc::clone(&disk));
        let open: Arc<Mutex<Open>> = Arc::default();
        let theirs = Arc::downgrade(&open);
        letters.look_for_posts(Box::new(move |id| {
            let open = theirs.upgrade()?;
            let opened = open.lock().unwrap_or_else(PoisonError::into_inner).get(id).cloned();
            Some(opened?.queues.clone())
        }));
        let (keys, missing) = Default::default();
        Self { directories, disk, clock, ingest: ingest.clone(), keys, letters, open, missing }
    }

    /// From now on posts are sent with these keys. Call it before any of them is let in: the queues of new ones are made
    /// here, so that their posts wait for the sources that [`Opened::sources`] makes of them.
    ///
    /// # Errors
    /// When a queue can't be made. The keys are as before then.
    pub(super) fn set_keys(&self, environments: &[WantedEnvironment<String>]) -> Result<(), QueueError> {
        let open: Vec<_> = self.lock().iter().map(|(id, opened)| (id.clone(), Arc::clone(opened))).collect();
        for (id, opened) in open {
            let own = opened.environments.lock().unwrap_or_else(PoisonError::into_inner).clone();
            for (environment, keys) in environments.iter().filter(|(environment, _)| own.contains(environment)) {
                for (place, _) in keys {
                    opened.queue(&id, &post::stream(environment, *place))?;
                }
            }
        }
        self.keys.replace(environments.iter().map(|(id, keys)| (id.as_str(), &keys[..])));
        Ok(())
    }

    /// The SDK keys that posts are sent with.
    pub(super) fn keys(&self) -> &Arc<SdkKeys> {
        &self.keys
    }

    /// The log of an upstream, opened the first time with the share of the disk that is asked for; see
    /// [`Opened::set_share`]. Blocks: recovery reads.
    ///
    /// # Errors
    /// When it can't be opened. Nothing is sent from it then.
    pub(super) fn open(&self, id: &str, config: &UpstreamConfig) -> Result<Arc<Opened>, OpenUpstreamError> {
        let mut open = self.lock();
        if let Some(opened) = open.get(id) {
            return Ok(Arc::clone(opened));
        }
        let directory = self.directories.of(id);
        let refuse = |source| OpenQueuesError::Io { what: "note the directory", path: directory.clone(), source };
        self.directories.note(id).map_err(refuse)?;
        let options = QueueOptions { store: StoreChoice::None, ..QueueOptions::default() };
        let (disk, clock) = (Arc::clone(&self.disk), Arc::clone(&self.clock));
        let queues = Queues::open(disk, clock, &directory, self.log_options(config), options)?;
        let relay = Arc::new(self.missing(id).found(queues.log().clone()));
        let (environments, taken_up) = (Mutex::default(), AtomicBool::new(false));
        let opened = Arc::new(Opened { queues, relay, environments, taken_up });
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
            open_segments_max: OPEN_SEGMENTS_MAX,
            // What Split has taken is not sent again.
            replay_window: Duration::ZERO,
            budget_bytes: config.max_bytes,
            reserve_segments: 1,
            ..LogOptions::default()
        }
    }

    /// What a crash left of this upstream's posts in its log, and as a letter, is settled in the log. To be called when its
    /// queues are there and before anything is sent from them; does nothing when it was done before. Blocks.
    ///
    /// # Errors
    /// When the letters can't be read. Nothing may be sent then: a post that is a letter would come again.
    pub(super) fn take_up(&self, id: &str, opened: &Opened) -> Result<(), OpenUpstreamError> {
        if opened.taken_up.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        let taken_up = self.letters.take_up_posts(id, &opened.queues);
        taken_up.map_err(OpenUpstreamError::Letters).inspect_err(|_| opened.taken_up.store(false, Ordering::Release))
    }

    /// The log of an upstream, if it is open.
    pub(super) fn opened(&self, id: &str) -> Option<Arc<Opened>> {
        self.lock().get(id).cloned()
    }

    /// Opens the logs that no destination of now has opened: what they hold is kept, and shown, until somebody decides.
    /// Blocks: recovery reads.
    pub(super) fn open_left_behind(&self) {
        let listed = self.directories.listed().unwrap_or_else(|error| {
            error!(%error, "the logs of upstreams can't be listed: what was left behind is not shown");
            Vec::new()
        });
        for id in listed.iter().filter(|id| self.opened(id).is_none()) {
            // Without the mark: should it be put back, there are queues by then that are not there yet.
            let seen = self
                .open(id, &UpstreamConfig::default())
                .and_then(|opened| self.letters.take_up_posts(id, &opened.queues).map_err(OpenUpstreamError::Letters));
            if let Err(why) = seen {
                error!(destination = id, why = causes::line(&why), "posts that an upstream left behind can't be read");
            }
        }
    }

    /// The queues of one upstream, if its log is open.
    pub(super) fn queues_of(&self, id: &str) -> Vec<Queue> {
        self.opened(id).map_or_else(Vec::new, |opened| opened.queues.all())
    }

    /// Deletes one queue of an upstream's log with all its posts, durably. Nothing may be sent from it any more. Blocks.
    ///
    /// # Errors
    /// When the disk refuses.
    pub(super) fn delete_queue(&self, id: &str, stream: &str) -> Result<(), QueueError> {
        self.opened(id).map_or(Ok(()), |opened| opened.queues.delete(id, Some(stream)).map(drop))
    }

    /// Deletes an upstream's log with all its posts, durably. Nothing may be sent from it any more. Blocks.
    ///
    /// # Errors
    /// When the disk refuses: the log is there as a whole, or not at all, and may be deleted once more.
    pub(super) fn delete(&self, id: &str) -> io::Result<()> {
        self.all_missing().remove(id);
        let opened = self.lock().remove(id);
        if let Some(opened) = opened
            && let Err(error) = opened.queues.close()
        {
            warn!(destination = id, %error, "the log of an upstream that is deleted could not be closed well");
        }
        let removed = self.directories.remove(id);
        if removed.is_err() {
            // For whoever tries again to see it.
            let _ = self.open(id, &UpstreamConfig::default());
        }
        removed
    }

    /// Keeps the posts of these environments for a destination that runs, from now on, and those of no others. None, where it is
    /// no upstream, or not any more.
    pub(super) fn keep(&self, id: &str, environments: &Environments, of: &[String]) {
        if !self.all_missing().contains_key(id) {
            return; // it never was one, as nearly all
        }
        let opened = self.opened(id);
        for (place, environment) in environments.all().iter().enumerate() {
            let keeps = opened.as_ref().filter(|_| of.iter().any(|id| id == environment.id()));
            if let Some(opened) = keeps {
                environments.set_relay(place, Some(Arc::clone(&opened.relay)));
            } else if environment.relay().is_some_and(|relay| **relay.destination() == *id) {
                environments.set_relay(place, None);
            }
        }
        if let Some(opened) = opened.filter(|_| of.is_empty()) {
            // No queue is made for new keys of theirs, either.
            opened.environments.lock().unwrap_or_else(PoisonError::into_inner).clear();
        }
    }

    /// An upstream is wanted that does not run with these environments: their posts are turned away and counted, save those
    /// that are kept, for it as it ran before or for another one.
    pub(super) fn miss(&self, id: &str, environments: &Environments, of: &[String]) {
        if of.is_empty() && !self.all_missing().contains_key(id) {
            return; // it never was one, as nearly all
        }
        let missing = self.missing(id);
        for (place, environment) in environments.all().iter().enumerate() {
            let is_wanted = of.iter().any(|id| id == environment.id());
            match environment.relay() {
                None if is_wanted => environments.set_relay(place, Some(Arc::clone(&missing))),
                Some(relay) if !is_wanted && Arc::ptr_eq(&relay, &missing) => environments.set_relay(place, None),
                _ => {}
            }
        }
    }

    fn missing(&self, id: &str) -> Arc<Relay> {
        let relay = || Arc::new(Relay::missing(id.into(), Arc::clone(&self.clock)));
        Arc::clone(self.all_missing().entry(id.to_owned()).or_insert_with(relay))
    }

    fn all_missing(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Relay>>> {
        self.missing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The log that an upstream's posts lie in.
    #[cfg(test)]
    pub(super) fn log(&self, id: &str) -> Option<forebay::Log> {
        self.opened(id).map(|opened| opened.queues.log().clone())
    }

    /// Calls `each` with every queue of every upstream.
    pub(super) fn each_queue(&self, each: &mut dyn FnMut(&Queue)) {
        let open: Vec<Arc<Opened>> = self.lock().values().cloned().collect();
        open.iter().flat_map(|opened| opened.queues.all()).for_each(|queue| each(&queue));
    }

    /// The logs whose damaged floor has lost cursors, so that they keep everything, by upstream.
    pub(super) fn pinned(&self) -> Vec<(String, Queues)> {
        let open = self.lock();
        let pinned = open.iter().filter(|(_, opened)| opened.queues.stats().pinned);
        pinned.map(|(id, opened)| (id.clone(), opened.queues.clone())).collect()
    }

    /// Writes everything down and closes the logs.
    pub(super) fn close(&self) -> Result<(), CloseQueuesError> {
        let open = std::mem::take(&mut *self.lock());
        open.values().map(|opened| opened.queues.close()).fold(Ok(()), Result::and)
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Opened {
    /// So much of the disk from now on. A log of large segments, as one has that was opened with a large share, can't
    /// work in a small one: then it has as little as it can work in, until the next start.
    pub(super) fn set_share(&self, id: &str, max_bytes: u64) {
        let holds = self.queues.log().set_budget_bytes(max_bytes);
        if holds != max_bytes {
            warn!(
                destination = id,
                holds,
                asked = max_bytes,
                "the share of the disk of this upstream is as small as it can be before the next start"
            );
        }
    }

    fn queue(&self, id: &str, stream: &str) -> Result<Queue, QueueError> {
        // From its first post, whatever a new destination's `start` says: the two begin together.
        self.queues.queue(id, stream, Start::Earliest)
    }

    /// While cursors are lost that nobody can name: the streams that hold something. A key's that is configured no more may have had
    /// posts to be relayed, and would have no queue.
    fn streams_of_lost_cursors(&self) -> Vec<String> {
        if !self.queues.stats().pinned {
            return Vec::new();
        }
        let log = self.queues.log();
        let mut streams = log.streams();
        streams.retain(|stream| log.first_kept(stream.id) < stream.tail.offset);
        streams.into_iter().map(|stream| stream.name.to_string()).collect()
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
        let of_lost = self.streams_of_lost_cursors();
        let mut sources: Vec<Arc<dyn Source>> = Vec::new();
        for environment in &destination.environments {
            let known = keys.places(environment).into_iter().map(|place| post::stream(environment, place));
            let of_old = self.queues.all().into_iter().map(|queue| queue.stream().to_owned());
            let streams: BTreeSet<String> = known.chain(of_old).chain(of_lost.iter().cloned()).collect();
            for stream in streams {
                let Some((owner, _)) = post::stream_owner(&stream) else { continue };
                let Some(label) = labels(environment).filter(|_| owner == environment) else { continue };
                let queued = Arc::new(Queued::new(self.queue(&destination.id, &stream)?, label));
                sources.push(Arc::new(InOrder::new(queued)));
            }
        }
        Ok(sources)
    }
}
