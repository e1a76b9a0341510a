//! The way out: one loop per destination, each at the pace that its destination takes.
//!
//! Knows batches, outcomes and time, but no vendor's protocol: those are sinks. What always holds: a destination's
//! troubles stay its own (it shares nothing with others but a budget of which it can hold only its share), and
//! nothing is given up, whatever is answered for however long. See docs/delivery.md.

pub mod backoff;
pub mod bucket;
pub mod budget;
pub mod catch_up;
pub mod concurrency;
pub mod except;
pub mod filter;
pub mod heavy;
pub mod latency;
pub mod outcome;
pub mod pace;
pub mod parking;
pub mod patience;
pub mod queued;
pub mod rate;
pub mod rate_hints;
pub mod record_id;
pub mod retry_after;
pub mod sheet;
pub mod sink;
pub mod source;
pub mod stats;
pub mod unsettled;

mod apart;
mod attempt;
mod claiming;
mod filling;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
mod keeping;
mod load;
mod notes;
mod poison;
mod sharing;
mod worker;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use forebay::clock::Clock;
use forebay::mutants::{self, Mutant};
use rand::SeedableRng;
use rand::rngs::SmallRng;
use tokio::runtime::Handle;
use tokio::task::JoinError;
use tokio::time::Instant;

use budget::Budget;
use catch_up::CatchUp;
use pace::Pace;
use parking::Parking;
use rate::RateLimits;
use rate::learned::Speed;
use sharing::Sharing;
use sink::Sink;
use source::{Limits, Source};
use stats::Snapshot;
use worker::{Memory, Post, Turn, Worker};

/// What all destinations share.
struct Common {
    budget: Budget,
    sharing: Sharing,
    parking: Arc<dyn Parking>,
    clock: Arc<dyn Clock>,
    runtime: Handle,
    /// Nobody begins to send: the process is still starting.
    held_back: AtomicBool,
    /// The moment from which every pace counts.
    began: Instant,
    /// What chance begins with, where it is to be the same each time.
    seed: Option<u64>,
}

impl Common {
    fn rng(&self) -> SmallRng {
        self.seed.map_or_else(rand::make_rng, SmallRng::seed_from_u64)
    }

    /// Runs what takes long, or may wait for the disk, on a thread for that; here, where chance is to be the same each time:
    /// which of two threads comes first is chance, too.
    async fn on_a_thread<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, JoinError> {
        match self.seed {
            Some(_) => Ok(work()),
            None => tokio::task::spawn_blocking(work).await,
        }
    }
}

/// How a destination is sent to.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Requests in flight, at most.
    pub concurrency_max: u32,
    /// One request in flight, and none beside the pieces of one that was split: a destination gets the records of each
    /// stream in their order, save for those that have to wait or were rejected.
    pub ordered: bool,
    /// From the first byte of a request to the last byte of its answer.
    pub timeout: Duration,
    /// The size of a batch.
    pub limits: Limits,
    /// A batch that is not full is sent when its oldest record has waited so long; at once, if zero.
    pub batch_wait_max: Duration,
    /// Where there is not enough for all, one of twice the weight gets twice as much. At least 1.
    pub weight: u32,
    /// What comes in now goes beside a backlog; where there is none, behind it.
    pub catch_up: Option<CatchUp>,
    /// What is known of its rate; nothing of most.
    pub rate: Option<Box<KnownRate>>,
}

/// What is known of a destination's rate before it is sent to.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct KnownRate {
    /// What its operator allows.
    pub limits: RateLimits,
    /// What was learned of it before.
    pub learned: Option<Speed>,
}

impl Default for Settings {
    /// Four requests of 1,000 records or 1 MiB, 30 seconds each, of weight 1.
    fn default() -> Self {
        Self {
            concurrency_max: 4,
            ordered: false,
            timeout: Duration::from_secs(30),
            limits: Limits { records_max: 1000, bytes_max: 1 << 20 },
            batch_wait_max: Duration::ZERO,
            rate: None,
            catch_up: None,
            weight: 1,
        }
    }
}

/// All destinations' loops.
pub struct Delivery {
    common: Arc<Common>,
    posts: Mutex<BTreeMap<Arc<str>, Arc<Post>>>,
    /// What was counted of destinations that were stopped: should they go on, with other settings, it is counted on from.
    stopped: Mutex<BTreeMap<Arc<str>, Snapshot>>,
    /// All were stopped, for good. Changes while the posts are locked.
    ended: AtomicBool,
}

/// How a destination stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stopped {
    /// Requests were cut off: they are sent again under the same ids.
    pub cut_off: bool,
}

/// A destination of this name runs already.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("destination {0} is running already: stop it first")]
pub struct AlreadyRunning(pub String);

impl Delivery {
    /// Delivery without destinations, on the current tokio runtime. What can't be delivered yet or ever is kept by
    /// `parking`.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    #[must_use]
    pub fn new(budget: Budget, clock: Arc<dyn Clock>, parking: Arc<dyn Parking>) -> Self {
        Self::beginning_with(budget, clock, parking, None)
    }

    /// The same, with chance that is the same each time.
    fn beginning_with(budget: Budget, clock: Arc<dyn Clock>, parking: Arc<dyn Parking>, seed: Option<u64>) -> Self {
        let (runtime, began) = (Handle::current(), Instant::now());
        Self {
            common: Arc::new(Common {
                budget,
                sharing: Sharing::default(),
                parking,
                clock,
                runtime,
                held_back: AtomicBool::new(false),
                began,
                seed,
            }),
            posts: Mutex::default(),
            stopped: Mutex::default(),
            ended: AtomicBool::new(false),
        }
    }

    /// Has destinations that are started wait for [`go_on`](Self::go_on): where thousands have a backlog, those that are there
    /// would read theirs on the cores that the others are started on.
    pub fn hold_back(&self) {
        self.common.held_back.store(true, Ordering::SeqCst);
    }

    /// Takes [`hold_back`](Self::hold_back) back: whoever has something to send begins.
    pub fn go_on(&self) {
        self.common.held_back.store(false, Ordering::SeqCst);
        self.lock().values().for_each(Post::go_on);
    }

    /// Starts a destination's loop. `sources` are its queues, one per environment; they take turns. While none has
    /// anything to send there is no task for it.
    ///
    /// # Errors
    /// When a destination of this id runs already.
    pub fn start(
        &self,
        id: impl Into<Arc<str>>,
        sink: Arc<dyn Sink>,
        sources: Vec<Arc<dyn Source>>,
        settings: Settings,
    ) -> Result<(), AlreadyRunning> {
        self.begin(id.into(), sink, sources, settings, false)
    }

    /// The same, [paused](Self::pause) from the beginning: it is shown, and sends nothing until it is resumed.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn start_paused(
        &self,
        id: impl Into<Arc<str>>,
        sink: Arc<dyn Sink>,
        sources: Vec<Arc<dyn Source>>,
        settings: Settings,
    ) -> Result<(), AlreadyRunning> {
        self.begin(id.into(), sink, sources, settings, true)
    }

    fn begin(
        &self,
        id: Arc<str>,
        sink: Arc<dyn Sink>,
        sources: Vec<Arc<dyn Source>>,
        mut settings: Settings,
        paused: bool,
    ) -> Result<(), AlreadyRunning> {
        let mut posts = self.lock();
        if posts.contains_key(&id) {
            return Err(AlreadyRunning(id.to_string()));
        }
        let KnownRate { limits, learned } = settings.rate.take().map(|rate| *rate).unwrap_or_default();
        let in_order = settings.ordered && !mutants::on(Mutant::OrderNotKept);
        let concurrency_max = if in_order { 1 } else { settings.concurrency_max };
        let sharer = self.common.budget.sharer(settings.weight);
        let queues = Turn::all(&sources, settings.catch_up.is_some());
        // None is the first after each of many restarts.
        let next = self.common.seed.map_or_else(|| rand::random_range(0..queues.len().max(1)), |_| 0);
        let post = Post::new(Worker {
            id: Arc::clone(&id),
            common: Arc::clone(&self.common),
            sink,
            queues,
            next,
            settings,
            sharer,
            pace: Pace::with(concurrency_max, limits, learned),
            memory: Memory::default(),
        });
        post.stats.set_allowed(limits);
        if let Some(before) = lock(&self.stopped).remove(&id) {
            post.stats.go_on_from(before);
        }
        if paused {
            post.pause();
        }
        if self.ended.load(Ordering::Acquire) {
            // Whoever replaces a destination while the process stops, which has waited for all that it knew of.
            post.stop();
        }
        // Weak: the resting worker holds its queues, and they hold this. One for all of them.
        let weak = Arc::downgrade(&post);
        let wake: Arc<dyn Fn() + Send + Sync> = Arc::new(move || {
            weak.upgrade().inspect(Post::wake);
        });
        for source in &sources {
            source.on_more(Arc::clone(&wake));
        }
        // After they know whom to wake: what comes from now on wakes it by itself.
        let has_more =
            |source: &Arc<dyn Source>| source.has_more() || source.live().is_some_and(|live| live.has_more());
        if sources.iter().any(has_more) {
            post.wake();
        }
        posts.insert(id, post);
        Ok(())
    }

    /// Starts no more batches of a destination; what is in flight goes on. It keeps its sink and its settings, and is
    /// shown as paused. Says whether there is such a destination.
    pub fn pause(&self, id: &str) -> bool {
        self.lock().get(id).inspect(|post| post.pause()).is_some()
    }

    /// Takes a [`pause`](Self::pause) back. Says whether there is such a destination.
    pub fn resume(&self, id: &str) -> bool {
        self.lock().get(id).inspect(|post| post.resume()).is_some()
    }

    /// Tries a destination now, whatever it asked for and however long it has refused: for an operator who mended it. What
    /// it rejected before is not held against it. Says whether there is such a destination.
    pub fn probe(&self, id: &str) -> bool {
        self.lock().get(id).inspect(|post| post.probe()).is_some()
    }

    /// Stops one destination and forgets it: nothing new is started, what is in flight may finish until `grace` has
    /// passed, the rest is cut off. What was not settled is handed back to its queues, and comes again under the same
    /// ids; a destination of this id can be started when this returns. Who stops waiting for it has stopped it all the
    /// same, and the next who asks waits for what is left of it. `None` where none runs.
    pub async fn stop(&self, id: &str, grace: Duration) -> Option<Stopped> {
        let post = self.lock().get(id).cloned()?;
        let mut stopped = Stopped { cut_off: false };
        if let Some(ending) = post.stop()
            && tokio::time::timeout(grace, ending.gone()).await.is_err()
        {
            ending.cut_off();
            // Until it is really gone: it holds the claims.
            ending.gone().await;
            stopped.cut_off = true;
        }
        let mut posts = self.lock();
        // Who else stopped it may have started another by now.
        if posts.get(id).is_some_and(|there| Arc::ptr_eq(there, &post))
            && let Some((id, post)) = posts.remove_entry(id)
        {
            lock(&self.stopped).insert(id, post.stats.snapshot());
        }
        Some(stopped)
    }

    /// Whether a destination of this id runs, or rests until there is something to send.
    #[must_use]
    pub fn runs(&self, id: &str) -> bool {
        self.lock().get(id).is_some_and(|post| !post.stopping())
    }

    /// Forgets what was counted of a destination that was [stopped](Self::stop) for good.
    pub fn forget(&self, id: &str) {
        lock(&self.stopped).remove(id);
    }

    /// Another part of what destinations share for bulk work, from now on.
    pub fn set_bulk_percent(&self, percent: u32) {
        self.common.budget.set_bulk_percent(percent);
    }

    /// Every destination's counters, by id.
    #[must_use]
    pub fn stats(&self) -> Vec<(Arc<str>, Snapshot)> {
        self.lock().iter().map(|(id, post)| (Arc::clone(id), post.stats.snapshot())).collect()
    }

    /// What each destination is known to take, of those of which that was learned.
    #[must_use]
    pub fn learned(&self) -> Vec<(Arc<str>, Speed)> {
        let known = |(id, post): (&Arc<str>, &Arc<Post>)| Some((Arc::clone(id), post.stats.learned()?.known?));
        self.lock().iter().filter_map(known).collect()
    }

    /// One destination's counters.
    #[must_use]
    pub fn stats_of(&self, id: &str) -> Option<Snapshot> {
        self.lock().get(id).map(|post| post.stats.snapshot())
    }

    /// Stops all destinations: nothing new is started, what is in flight may finish until `grace` has passed, the
    /// rest is cut off and will be sent again under the same ids. Returns the destinations that were cut off. One that is
    /// started afterwards sends nothing.
    pub async fn shutdown(&self, grace: Duration) -> Vec<Arc<str>> {
        // They stay: what they counted is shown to the end.
        let stop = |(id, post): (&Arc<str>, &Arc<Post>)| Some((Arc::clone(id), post.stop()?));
        let tasks: Vec<_> = {
            let posts = self.lock();
            self.ended.store(true, Ordering::Release);
            posts.iter().filter_map(stop).collect()
        };
        let deadline = Instant::now() + grace;
        let mut cut_off = Vec::new();
        for (id, ending) in tasks {
            if tokio::time::timeout_at(deadline, ending.gone()).await.is_err() {
                ending.cut_off();
                cut_off.push(id);
            }
        }
        cut_off
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Arc<str>, Arc<Post>>> {
        lock(&self.posts)
    }
}

/// A panic under such a lock leaves the map whole: nothing in between.
fn lock<T>(map: &Mutex<T>) -> MutexGuard<'_, T> {
    map.lock().unwrap_or_else(PoisonError::into_inner)
}
