//! Objects in a bucket: JSON lines or Parquet, each batch one object, exactly once.
//!
//! A batch's plan is durable before its first byte leaves, its object's name is made of the plan, its bytes are the same
//! at every attempt, and the store is asked to take it only if nothing of that name is there. So an answer that was lost
//! costs a second attempt that finds the object, never a second object. See docs/delivery.md.
//!
//! The way of a batch: `digest` reads it once, `encode` makes it into `parts` on a thread of its own, and
//! `upload` takes those to the `store`. Nothing larger than some parts is ever in memory.

mod answer;
mod client;
mod digest;
mod elsewhere;
mod encode;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
mod key;
mod leftovers;
mod lines;
mod parquet;
mod parts;
mod store;
mod upload;

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex as Plain, Weak};
use std::time::Duration;

use aws_sdk_s3::Client;
use bytes::Bytes;
use forebay::clock::Clock;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, timeout};

use super::address_guard::{AddressGuard, AddressPolicy};
use super::http::Tls;
use crate::config::{LinesCompression, ParquetCompression, S3Config, S3Format, S3Layout, S3Location};
use crate::delivery::outcome::{Failure, Outcome};
use crate::delivery::sink::{BoxFuture, EncodeError, Encoded, Format, Job, LargeJob, LargeSink, Sink};
use answer::Trouble;
use elsewhere::Unreached;
use parts::{PART_BYTES, PARTS_HELD};
use store::Store;
use upload::{Live, upload};

/// A client that nobody used for so long is dropped, with its connections and credentials: most destinations of a large
/// sidecar are idle.
const IDLE: Duration = Duration::from_secs(600);

/// Looking for what earlier runs left behind takes no longer than this, all in all: a store may list slowly, or for ever.
/// What is not found then is left to the bucket's own rule.
const SWEEP_MAX: Duration = Duration::from_secs(60);

/// An object is of one hour, so that its partition is that of all its records.
const PARTITION_MS: u64 = 3_600_000;

/// What packing lines takes besides parts: a frame and its lines, and the packer's own window.
const LINES_BYTES: u64 = 4 << 20;

// What is charged for an object is what it may hold.
const _: () = {
    let parts = PART_BYTES as u64 * PARTS_HELD as u64;
    assert!(S3Format::JsonLines(LinesCompression::Zstd).memory_bytes(u64::MAX) == parts + LINES_BYTES);
    assert!(S3Format::Parquet(ParquetCompression::Zstd).memory_bytes(u64::MAX) == parts + parquet::MEMORY_BYTES);
};

/// One destination's bucket.
pub struct S3Sink {
    inner: Arc<Inner>,
}

struct Inner {
    destination: String,
    config: Arc<S3Config>,
    /// How objects are made now.
    layout: S3Layout,
    /// How they are made under each revision of the settings that is known.
    layouts: BTreeMap<u32, S3Layout>,
    policy: AddressPolicy,
    guard: AddressGuard,
    connections_max: u32,
    tls: Arc<Tls>,
    clock: Arc<dyn Clock>,
    live: Live,
    /// Each made when it is first used: that of now, and those that batches of earlier settings were planned for.
    places: Mutex<BTreeMap<Option<S3Location>, Place>>,
    /// Places of earlier settings that can't be connected to, and for how long that is borne.
    unreached: Plain<BTreeMap<Option<S3Location>, Unreached>>,
    patience: Duration,
    /// How often it was used.
    uses: AtomicU64,
    /// Whether somebody watches for it to become idle.
    watched: AtomicBool,
}

/// The way to the bucket.
struct Place {
    store: Arc<Store>,
    /// Beginnings of names under which nothing of an earlier run is left unfinished.
    swept: BTreeSet<String>,
}

impl S3Sink {
    /// The bucket of the destination of this id, with at most `connections_max` idle connections kept. Connects when it
    /// first sends.
    #[must_use]
    pub fn new(
        destination: &str,
        config: &S3Config,
        policy: AddressPolicy,
        connections_max: u32,
        tls: Arc<Tls>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let inner = Inner {
            destination: destination.to_owned(),
            config: Arc::new(config.clone()),
            layout: config.layout(),
            layouts: BTreeMap::new(),
            policy,
            guard: AddressGuard::new(policy, &config.allow_addresses),
            connections_max,
            tls,
            clock,
            live: Live::default(),
            places: Mutex::default(),
            unreached: Plain::default(),
            patience: elsewhere::PATIENCE,
            uses: AtomicU64::new(0),
            watched: AtomicBool::new(false),
        };
        Self { inner: Arc::new(inner) }
    }

    /// The same, which finishes batches of these revisions of its settings as they began: in the same place, under the same
    /// name, with the same bytes.
    ///
    /// # Panics
    /// When it is in use already.
    #[must_use]
    pub fn with_layouts(mut self, layouts: &[(u32, S3Layout)]) -> Self {
        let inner = Arc::get_mut(&mut self.inner).expect("nobody else has it before it is used");
        inner.layouts = layouts.iter().cloned().collect();
        self
    }

    /// The same, as far as its addresses lie where `guard` lets it.
    ///
    /// # Panics
    /// When it is in use already.
    #[must_use]
    pub fn behind(mut self, guard: AddressGuard) -> Self {
        Arc::get_mut(&mut self.inner).expect("nobody else has it before it is used").guard = guard;
        self
    }

    /// Makes the job's object and hands its parts to `take`, without a store.
    ///
    /// # Errors
    /// When the job can't be read or encoded; what was taken is of no use then.
    pub async fn make(&self, job: &LargeJob, take: impl FnMut(Bytes)) -> Result<(), Failure> {
        upload::make(self.inner.layout(job).format, job).into_parts(take).await
    }

    /// The SDK's client as this sink uses it: for whoever wants to see what it wrote.
    ///
    /// # Errors
    /// As sending has them: no trusted certificates.
    pub async fn client(&self) -> Result<Client, Failure> {
        self.inner.client(&self.inner.config).await
    }
}

impl Inner {
    /// How the object of a job is made: as when it was planned.
    fn layout(&self, job: &LargeJob) -> &S3Layout {
        job.settings_revision.and_then(|revision| self.layouts.get(&revision)).unwrap_or(&self.layout)
    }

    async fn client(&self, config: &S3Config) -> Result<Client, Failure> {
        client::client(&self.destination, config, self.guard.clone(), &self.tls, self.connections_max).await
    }

    /// The way to the bucket. What an earlier run left behind under such names is given up first, as far as that is soon
    /// done, and until the others' patience with the job runs out.
    async fn store(&self, config: &Arc<S3Config>, job: &LargeJob, limit: Duration) -> Result<Arc<Store>, Trouble> {
        upload::with_patience(&job.patience, async {
            self.swept_store(config, job, limit).await.map_err(Trouble::retry)
        })
        .await
    }

    async fn swept_store(
        &self,
        config: &Arc<S3Config>,
        job: &LargeJob,
        limit: Duration,
    ) -> Result<Arc<Store>, Failure> {
        let mut places = self.places.lock().await;
        let Place { store, swept } = match places.entry(config.location()) {
            Entry::Occupied(there) => there.into_mut(),
            Entry::Vacant(free) => {
                let client = self.client(config).await?;
                let store = Store { client, config: Arc::clone(config), clock: Arc::clone(&self.clock) };
                free.insert(Place { store: Arc::new(store), swept: BTreeSet::new() })
            }
        };
        let beginning = key::beginning(self.layout(job), job);
        if !swept.contains(&beginning) {
            // Before it is done: whoever is cut off over it does not begin with it again, and again, and sends nothing.
            swept.insert(beginning.clone());
            let sweep = leftovers::sweep(store, &self.live, &beginning, &job.id, limit);
            if timeout(limit.min(SWEEP_MAX), sweep).await.is_err() {
                let destination = &*self.destination;
                tracing::debug!(destination, "the store takes too long to list unfinished uploads: some may be left");
            }
        }
        Ok(Arc::clone(store))
    }

    /// A customer's destination must not come as the machine itself: whatever the machine may write to would be theirs. Says
    /// what is missing.
    fn borrows(&self) -> Option<&'static str> {
        if self.policy == AddressPolicy::Operator {
            return None;
        }
        match (&self.config.keys, &self.config.assume_role) {
            (_, Some(role)) if role.endpoint.is_some() => {
                Some("a customer's role is asked for at no address of theirs")
            }
            (Some(_), _) => None,
            (None, Some(role)) if role.external_id.is_some() => None,
            (None, Some(_)) => Some("a customer's role needs an external_id"),
            (None, None) => Some("a customer's bucket needs keys of its own, or a role with an external_id"),
        }
    }

    /// Sees to it that the client is dropped once nobody uses it.
    fn used(self: &Arc<Self>) {
        self.uses.fetch_add(1, Ordering::SeqCst);
        if !self.watched.swap(true, Ordering::SeqCst) {
            tokio::spawn(drop_when_idle(Arc::downgrade(self)));
        }
    }
}

async fn drop_when_idle(inner: Weak<Inner>) {
    let mut seen = None;
    loop {
        let Some(inner) = inner.upgrade() else { return };
        let mut places = inner.places.lock().await;
        let uses = Some(inner.uses.load(Ordering::Relaxed));
        // Nobody begins while the places are locked; who is at work holds the store as well.
        if seen == uses && places.values().all(|place| Arc::strong_count(&place.store) == 1) {
            // Said before it is looked once more: who uses it from now on has it watched anew, and who did before is seen.
            inner.watched.store(false, Ordering::SeqCst);
            if Some(inner.uses.load(Ordering::SeqCst)) == seen {
                places.clear();
                return;
            }
            if inner.watched.swap(true, Ordering::SeqCst) {
                return; // they have
            }
        }
        seen = uses;
        drop(places);
        drop(inner);
        sleep(IDLE).await;
    }
}

impl Sink for S3Sink {
    fn format(&self) -> Format {
        Format { name: "s3", settings: None, gzip: None }
    }

    fn encode(&self, job: &Job) -> Result<Encoded, EncodeError> {
        let why = "objects are made of batches that are read as they are sent".to_owned();
        Err(EncodeError { at: job.origin.clone(), why })
    }

    fn send<'a>(&'a self, _: &'a Encoded, _id: &'a str, _: Instant) -> BoxFuture<'a, Outcome> {
        let why = Failure::Local("objects are not made of encoded batches".to_owned());
        Box::pin(async { Outcome::Retry { why } })
    }

    /// The object's name is the batch's.
    fn needs_plan(&self) -> bool {
        true
    }

    fn large(&self) -> Option<&dyn LargeSink> {
        Some(self)
    }
}

impl LargeSink for S3Sink {
    /// `timeout` is that of one request to the store, which carries a part at most. Dropped half way, it may leave an
    /// upload behind that the next run gives up.
    fn put<'a>(&'a self, job: &'a LargeJob, timeout: Duration) -> BoxFuture<'a, Outcome> {
        Box::pin(async move {
            if let Some(why) = self.inner.borrows() {
                return Outcome::Refused { why: Failure::Local(why.to_owned()) };
            }
            self.inner.used();
            if let Some(outcome) = self.inner.finish_elsewhere(job, timeout).await {
                return outcome;
            }
            match self.inner.store(&self.inner.config, job, timeout).await {
                Ok(store) => upload(&store, &self.inner.live, self.inner.layout(job), job, timeout).await,
                Err(trouble) => trouble.outcome,
            }
        })
    }

    fn memory_bytes(&self, job_bytes: u64) -> u64 {
        let Inner { layout, layouts, .. } = &*self.inner;
        // The job's revision is not known here.
        let formats = layouts.values().chain([layout]).map(|layout| layout.format);
        formats.map(|format| format.memory_bytes(job_bytes)).max().expect("there is one at least")
    }

    fn partition_ms(&self) -> Option<u64> {
        Some(PARTITION_MS)
    }
}

#[cfg(test)]
pub(crate) mod sample;
#[cfg(test)]
mod tests;
