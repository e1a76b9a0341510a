//! All queues of one log: opens them, gives out new ones, and keeps them.
//!
//! ```text
//! dir/LOCK     one process          dir/floor    what decides what may be deleted (floor_file.rs)
//! dir/log/     the records          dir/sled/    hints, worth a few repeats (store_keeper.rs)
//! ```
//! The order of a tick is what makes it safe: cursors are taken, the floor is synced, and only then does the log hear
//! what may go, and the cursor store what it may remember. A floor that cannot be written withholds all trimming.
//! Plans are let go one tick after the cursors that settled them: the floor's pages may land in any order, and a plan
//! must not be gone while the cursor is still below it.

use super::balance::Books;
use super::cursor::Cursor;
use super::cursor_store::StoreChoice;
use super::floor_file::{EntryId, FloorDamage, FloorEntry, FloorError, FloorFile, Found};
use super::hint::{self, Hint};
use super::limits::{DESTINATION_BYTES_MAX, FLOOR_PAGES_MAX, ORPHANED_PLANS_MAX, STREAM_BYTES_MAX};
use super::plan::{self, PlanRecord};
use super::planner::Planner;
use super::reading::total_at;
use super::store_keeper::{OpenFailure, StoreKeeper};
use super::window::{Plan, Window};
use super::{Context, Inner, Queue, QueueError, Settled, lock, recover};
use crate::clock::Clock;
use crate::disk::Disk;
use crate::{CloseError, Item, Log, LogOptions, OnFull, OpenError, PLANS_STREAM, ReadError, StreamId, Tail};
use std::collections::{BTreeMap, HashMap};
use std::io::{self, ErrorKind, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

const LOCK_NAME: &str = "LOCK";
const LOG_NAME: &str = "log";
const STORE_NAME: &str = "sled";
/// Names the directory of the last store that was set aside, so that only one is kept.
const SET_ASIDE_NAME: &str = "sled.bad";

/// Streams that belong to nobody's queue but are for looking at: trimmed like an unrouted environment's, by age alone.
/// Every other `!` stream without a queue is kept until its owner trims it.
const REJECTS_PREFIX: &str = "!rejects/";

/// The queues of one log. Cheap to clone; all clones are one set.
#[derive(Clone)]
pub struct Queues {
    set: Arc<Set>,
}

/// How a set of queues behaves.
#[derive(Debug, Clone)]
pub struct QueueOptions {
    /// Where hints about cursors are kept.
    pub store: StoreChoice,
    /// How long the store may take to open, and over one batch.
    pub store_deadline: Duration,
    /// How often cursors are made durable: what a crash repeats beyond the requests in flight.
    pub tick: Duration,
    /// Start no threads: ticks are the caller's to make, and the store works on the caller's thread. The log has an
    /// option of its own for its threads, which is set along with this.
    pub inline: bool,
}

/// Where a queue begins that was never seen before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// At the durable tail.
    Now,
    /// At the oldest record that is kept.
    Earliest,
    /// At this offset, or the nearest that is kept or next.
    At(u64),
}

/// The queues in numbers, since they were opened.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct QueuesStats {
    /// Queues there are.
    pub queues: usize,
    /// Ticks that wrote the floor.
    pub floor_commits: u64,
    /// Syncs of the floor.
    pub floor_syncs: u64,
    /// Ticks that could not write the floor. Nothing is deleted from the log after one, until one succeeds.
    pub floor_errors: u64,
    /// What the last of them said.
    pub floor_error: Option<String>,
    /// Damage found when the floor was read.
    pub floor_damage: Vec<FloorDamage>,
    /// Cursors were lost that nobody can name: nothing is deleted before [`Queues::accept_floor_loss`].
    pub pinned: bool,
    /// Cursors that were ahead of the log when they were read: the log has lost records.
    pub cursors_ahead: u64,
    /// Cursors that were below the oldest record kept: the records between are counted as lost.
    pub cursors_below: u64,
    /// Streams that have another number than the floor remembers: their batches go on under new ids.
    pub streams_renumbered: u64,
    /// Cursor hints that were believed.
    pub hints_taken: u64,
    /// Cursor hints that were not: damaged, or not of this log, destination and time.
    pub hints_refused: u64,
    /// Plans that were open when the last process ended, and come first now.
    pub plans_resumed: u64,
    /// Plans that could not be read.
    pub plans_lost: u64,
    /// Plans that cut across another one and were dropped.
    pub plans_crossing: u64,
    /// Times that the cursor store was set aside when it was opened.
    pub store_resets: u64,
    /// Why the cursor store is not used any more.
    pub store_given_up: Option<String>,
    /// Batches that the cursor store took.
    pub store_batches: u64,
}

/// Why a set of queues cannot be opened. Damage to bytes is no reason; see [`QueuesStats`].
#[derive(Debug, thiserror::Error)]
pub enum OpenQueuesError {
    /// Another process has the directory.
    #[error("{}: another process has this directory open ({holder}); stop it first, or use another directory", dir.display())]
    Locked {
        /// The directory.
        dir: PathBuf,
        /// What the holder wrote about itself.
        holder: String,
    },
    /// The disk refused.
    #[error("{}: can't {what}: {source}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// What the disk said.
        source: io::Error,
    },
    /// The floor cannot be used.
    #[error(transparent)]
    Floor(#[from] FloorError),
    /// The log cannot be opened.
    #[error(transparent)]
    Log(#[from] OpenError),
    /// The log cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A thread could not be started.
    #[error("can't start the thread of the ticks: {0}")]
    NoThread(#[source] io::Error),
}

/// Why closing met an error. Nothing acknowledged is lost by it; what was settled last may be sent again.
#[derive(Debug, thiserror::Error)]
pub enum CloseQueuesError {
    /// The last cursors could not be written.
    #[error(transparent)]
    Floor(#[from] FloorError),
    /// The log could not be sealed.
    #[error(transparent)]
    Log(#[from] CloseError),
}

struct Set {
    context: Arc<Context>,
    /// Held for the whole of a tick, and while a queue is made.
    keeping: Mutex<Keeping>,
    index: RwLock<Index>,
    keeper: StoreKeeper,
    stats: Mutex<QueuesStats>,
    /// Records came to a stream that nobody may be subscribed to.
    unrouted: AtomicBool,
    ticker: Mutex<Option<Ticker>>,
}

/// What a tick keeps.
struct Keeping {
    floor: FloorFile,
    /// The entry that holds the plan mark: the oldest plan still needed.
    plans: EntryId,
    /// Where the plan mark goes in the next tick, once the cursors that allow it are durable.
    plan_mark: u64,
    /// Low marks that a floor which could not be written has not made durable yet.
    unconfirmed: Vec<(Arc<Inner>, u64)>,
    /// Plans of queues that the floor does not know, for when they are made again.
    orphans: Vec<(u64, PlanRecord)>,
    /// The log has not heard of every queue's low mark: it forgets them when it is closed, and hears nothing while the
    /// floor is pinned.
    trim_all: bool,
}

/// The queues by what they are asked by.
#[derive(Default)]
struct Index {
    by_name: BTreeMap<(Arc<str>, Arc<str>), Arc<Inner>>,
    by_stream: HashMap<Arc<str>, Vec<Arc<Inner>>>,
    by_id: HashMap<StreamId, Vec<Arc<Inner>>>,
}

struct Ticker {
    stop: SyncSender<()>,
    thread: JoinHandle<()>,
}

impl Default for QueueOptions {
    fn default() -> Self {
        Self {
            store: StoreChoice::default(),
            store_deadline: Duration::from_secs(5),
            tick: Duration::from_millis(100),
            inline: false,
        }
    }
}

impl QueueOptions {
    /// No threads and no store: for simulations and for programs with one thread.
    #[must_use]
    pub fn inline() -> Self {
        Self { store: StoreChoice::None, inline: true, ..Self::default() }
    }
}

impl Queues {
    /// Opens the log and the queues in `dir`, making them where there are none. Batches that were planned and not
    /// settled come first from their queues.
    ///
    /// # Errors
    /// When another process has the directory, a newer program wrote it, or the disk refuses. Damage to bytes is no
    /// error: it is counted in [`stats`](Self::stats), and logged.
    pub fn open(
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
        dir: &Path,
        log_options: LogOptions,
        options: QueueOptions,
    ) -> Result<Self, OpenQueuesError> {
        disk.create_dir(dir).map_err(|source| io_error("make the directory", dir, source))?;
        let held = take_lock(&*disk, dir)?;
        let mut stats = QueuesStats::default();
        let (mut floor, found) = FloorFile::load(Arc::clone(&disk), dir)?;
        let log_options =
            LogOptions { synced: floor.synced().to_vec(), inline: log_options.inline || options.inline, ..log_options };
        let inline_log = log_options.inline;
        let log = Log::open(Arc::clone(&disk), Arc::clone(&clock), &dir.join(LOG_NAME), log_options)?;
        let log_id = log.log_id();
        let log_is_empty = log.streams().iter().all(|stream| stream.tail.offset == 0);
        let foreign = floor.bind(log_id, &found, log_is_empty);
        stats.floor_damage = if let Found::File(damage) = found { damage } else { Vec::new() };
        stats.floor_damage.extend(foreign);
        for damage in &stats.floor_damage {
            tracing::error!(%damage, pinned = floor.is_pinned(), "the floor file is damaged");
        }

        let (keeper, hints) = open_store(&disk, &clock, dir, &options, &mut stats);
        let planner = Planner::new(append_plans(&log), inline_log);
        let held_bytes = Arc::default();
        let context = Arc::new(Context { log, log_id, clock, planner, held_bytes, _lock: held });
        let mut index = Index::default();
        let plans = rebuild(&context, &mut floor, hints, &mut index, &mut stats)?;
        let (plan_mark, orphans) = resume_plans(&context, plans.1, &index, floor.is_pinned(), &mut stats)?;
        let mut keeping =
            Keeping { floor, plans: plans.0, plan_mark, unconfirmed: Vec::new(), orphans, trim_all: true };
        // A floor from the first moment on: records without one would look like a floor that was lost.
        match keeping.floor.commit() {
            Ok(done) => stats.count_commit(done.syncs),
            Err(error) if index.by_name.is_empty() && log_is_empty => return Err(error.into()),
            Err(error) => stats.count_error(&error),
        }

        let set = Arc::new(Set {
            context,
            keeping: Mutex::new(keeping),
            index: RwLock::new(index),
            keeper,
            stats: Mutex::new(stats),
            unrouted: AtomicBool::new(true),
            ticker: Mutex::new(None),
        });
        set.watch();
        if !options.inline {
            *lock(&set.ticker) = Some(Ticker::start(&set, options.tick).map_err(OpenQueuesError::NoThread)?);
        }
        Ok(Self { set })
    }

    /// The log under the queues.
    #[must_use]
    pub fn log(&self) -> &Log {
        &self.set.context.log
    }

    /// The queue of a destination for a stream, made where there is none. The stream need not exist yet. `start` is for
    /// a queue that was never seen; after damage to the floor, when that cannot be known, it is the oldest record kept.
    ///
    /// A queue made with [`Start::Earliest`] is durable after the next tick, others when this returns.
    ///
    /// # Errors
    /// When a name cannot be used, there are too many queues, or the disk refuses.
    pub fn queue(&self, destination: &str, stream: &str, start: Start) -> Result<Queue, QueueError> {
        check_names(destination, stream)?;
        if let Some(inner) = self.set.find(destination, stream) {
            return Ok(Queue { inner });
        }
        let mut keeping = lock(&self.set.keeping);
        if let Some(inner) = self.set.find(destination, stream) {
            return Ok(Queue { inner });
        }
        let inner = self.set.make(&mut keeping, destination, stream, start)?;
        if start != Start::Earliest {
            self.set.commit(&mut keeping).map_err(QueueError::NotDurable)?;
        }
        Ok(Queue { inner })
    }

    /// All queues, by destination and stream.
    #[must_use]
    pub fn all(&self) -> Vec<Queue> {
        self.set.index_read().by_name.values().map(|inner| Queue { inner: Arc::clone(inner) }).collect()
    }

    /// Whether the destination has a queue. One that left the configuration still has its queues, and they keep their
    /// records.
    #[must_use]
    pub fn destination_known(&self, destination: &str) -> bool {
        self.set.index_read().by_name.keys().any(|(known, _)| &**known == destination)
    }

    /// Makes what was settled durable, lets the log go what nobody needs, and hands hints to the cursor store. One sync
    /// for all queues, none when nothing moved. The tick thread calls it; with [`QueueOptions::inline`] the caller does.
    ///
    /// # Errors
    /// When the floor cannot be written. It is counted, nothing is deleted, and the next tick tries again.
    pub fn tick(&self) -> Result<(), FloorError> {
        self.set.tick()
    }

    /// The queues in numbers.
    #[must_use]
    pub fn stats(&self) -> QueuesStats {
        let mut stats = lock(&self.set.stats).clone();
        stats.queues = self.set.index_read().by_name.len();
        stats.pinned = lock(&self.set.keeping).floor.is_pinned();
        stats.store_given_up = stats.store_given_up.or_else(|| self.set.keeper.given_up().map(|why| why.to_string()));
        stats.store_batches = self.set.keeper.batches();
        stats
    }

    /// After damage to the floor cursors may be missing that nobody can name, and nothing is deleted from the log. The
    /// operator who knows that every destination has its queue again ends that here.
    ///
    /// # Errors
    /// When the floor cannot be written.
    pub fn accept_floor_loss(&self) -> Result<(), FloorError> {
        {
            let mut keeping = lock(&self.set.keeping);
            keeping.floor.unpin();
            keeping.trim_all = true;
        }
        self.set.tick()
    }

    /// A last tick, then closes the cursor store and the log. Queues can still be read, and settled to no effect.
    ///
    /// # Errors
    /// When the floor or the log could not be written; both are tried.
    pub fn close(&self) -> Result<(), CloseQueuesError> {
        let ticker = lock(&self.set.ticker).take();
        if let Some(Ticker { stop, thread }) = ticker {
            drop(stop);
            let _ = thread.join(); // it has no result, and a panic in it was logged
        }
        // Twice: the plans that the first one settles are let go by the second.
        let kept = self.set.tick().and_then(|()| self.set.tick());
        self.set.keeper.close(self.set.keeper_patience());
        self.set.context.log.close()?;
        Ok(kept?)
    }
}

#[cfg(test)]
impl Queues {
    /// The plan mark that the next tick writes.
    pub(super) fn next_plan_mark(&self) -> u64 {
        lock(&self.set.keeping).plan_mark
    }
}

impl Set {
    fn index_read(&self) -> std::sync::RwLockReadGuard<'_, Index> {
        self.index.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, destination: &str, stream: &str) -> Option<Arc<Inner>> {
        let index = self.index_read();
        index.by_name.get(&(Arc::from(destination), Arc::from(stream))).cloned()
    }

    fn keeper_patience(&self) -> Duration {
        Duration::from_secs(5)
    }

    /// A queue that was never seen.
    fn make(
        &self,
        keeping: &mut Keeping,
        destination: &str,
        stream: &str,
        start: Start,
    ) -> Result<Arc<Inner>, QueueError> {
        let log = &self.context.log;
        let stream_id = log.stream(stream);
        let (tail, first_kept) =
            stream_id.map_or((Tail::default(), 0), |stream| (log.durable(stream), log.first_kept(stream)));
        let offset = match start {
            _ if keeping.floor.is_pinned() => first_kept,
            Start::Now => tail.offset,
            Start::Earliest => first_kept,
            Start::At(offset) => offset.clamp(first_kept, tail.offset),
        };
        let bytes = match stream_id {
            Some(stream) if offset < tail.offset => total_at(log, stream, offset)?,
            _ => tail.bytes,
        };
        let mut index = self.index.write().unwrap_or_else(PoisonError::into_inner);
        let entry = FloorEntry {
            destination: index.name(destination, |(destination, _)| destination),
            stream: index.name(stream, |(_, stream)| stream),
            stream_id,
            incarnation: 0,
            epoch: 0,
            books: Books::from(offset, bytes),
            cursor: Cursor::at(offset, bytes),
        };
        let too_many = QueueError::TooMany { limit: FLOOR_PAGES_MAX - 2 };
        let id = keeping.floor.add(entry.clone()).ok_or(too_many)?;
        let inner = Arc::new(Inner::new(&self.context, id, entry));
        keeping.orphans.retain(|(offset, plan)| {
            let ours = *plan.destination == *destination && Some(plan.stream_id) == stream_id;
            if ours && plan.offsets.end <= tail.offset {
                inner.window().adopt(plan.offsets.clone(), Plan { offset: *offset, revision: plan.revision });
                inner.dirty.store(true, Ordering::Release);
            }
            !ours
        });
        index.add(Arc::clone(&inner));
        Ok(inner)
    }

    fn tick(&self) -> Result<(), FloorError> {
        let mut keeping = lock(&self.keeping);
        self.commit(&mut keeping)
    }

    /// A tick, by whoever holds what it keeps.
    fn commit(&self, keeping: &mut Keeping) -> Result<(), FloorError> {
        let log = &self.context.log;
        // In this order: a plan that is durable now is below the tail; one that its queue does not know yet is not
        // below what is on its way; every other one its queue knows.
        let plans_tail = log.stream(PLANS_STREAM).map_or(0, |plans| log.durable(plans).offset);
        let on_its_way = self.context.planner.on_its_way().unwrap_or(u64::MAX);
        let queues: Vec<Arc<Inner>> = self.index_read().by_name.values().cloned().collect();
        let mut hints = Vec::new();
        for inner in queues.iter().filter(|inner| inner.dirty.swap(false, Ordering::AcqRel)) {
            let entry = inner.snapshot();
            keeping.unconfirmed.push((Arc::clone(inner), entry.cursor.low));
            hints.push((hint::key(&entry.destination, &entry.stream), Hint::of(self.context.log_id, &entry).encode()));
            keeping.floor.set(inner.entry, entry);
        }
        let plan_low = queues.iter().map(|inner| inner.plan_low.load(Ordering::Acquire)).min().unwrap_or(u64::MAX);
        let orphaned = keeping.orphans.first().map_or(u64::MAX, |(offset, _)| *offset);
        let next_plan_mark = plans_tail.min(on_its_way).min(plan_low).min(orphaned);

        keeping.floor.add_synced(log.synced());
        keeping.floor.set(keeping.plans, plan_entry(keeping.plan_mark));
        let committed = keeping.floor.commit();
        // With or without a floor: the hints are worth more than ever where it fails.
        self.keeper.offer(hints);
        let mut stats = lock(&self.stats);
        match committed {
            Ok(done) => stats.count_commit(done.syncs),
            Err(error) => {
                stats.count_error(&error);
                return Err(error);
            }
        }
        drop(stats);
        let durable_plan_mark = keeping.plan_mark;
        keeping.plan_mark = next_plan_mark.max(durable_plan_mark);
        self.trim(keeping, durable_plan_mark);
        Ok(())
    }

    /// Tells the log what nobody needs, after the floor that says so is on disk.
    fn trim(&self, keeping: &mut Keeping, plan_mark: u64) {
        let confirmed = std::mem::take(&mut keeping.unconfirmed);
        for (inner, low) in &confirmed {
            inner.durable_low.fetch_max(*low, Ordering::AcqRel);
        }
        if keeping.floor.is_pinned() {
            return;
        }
        let log = &self.context.log;
        let index = self.index_read();
        let moved = |inner: &Inner| {
            let subscribers = index.by_stream.get(&inner.stream).into_iter().flatten();
            let low = subscribers.map(|inner| inner.durable_low.load(Ordering::Acquire)).min();
            if let (Some(stream), Some(low)) = (inner.stream_id(), low) {
                log.trim(stream, low);
            }
        };
        if std::mem::take(&mut keeping.trim_all) {
            index.by_stream.values().filter_map(|queues| queues.first()).for_each(|inner| moved(inner));
        } else {
            confirmed.iter().for_each(|(inner, _)| moved(inner));
        }
        if let Some(plans) = log.stream(PLANS_STREAM) {
            log.trim(plans, plan_mark);
        }
        if self.unrouted.swap(false, Ordering::AcqRel) {
            for stream in log.streams() {
                let by_age = !stream.name.starts_with('!') || stream.name.starts_with(REJECTS_PREFIX);
                if by_age && !index.by_stream.contains_key(&stream.name) {
                    log.trim(stream.id, stream.tail.offset);
                }
            }
        }
    }

    /// Has the log wake the queues of a stream when records arrive.
    fn watch(self: &Arc<Self>) {
        let set: Weak<Self> = Arc::downgrade(self);
        self.context.log.watch(Arc::new(move |stream, _| {
            if let Some(set) = set.upgrade() {
                set.arrived(stream);
            }
        }));
    }

    fn arrived(&self, stream: StreamId) {
        let known = self.index_read().by_id.get(&stream).cloned();
        let queues = known.unwrap_or_else(|| {
            // The stream is new, or was when the last records came: from now on its queues are known by its number.
            let Some(name) = self.context.log.stream_name(stream) else { return Vec::new() };
            let mut index = self.index.write().unwrap_or_else(PoisonError::into_inner);
            let queues = index.by_stream.get(&name).cloned().unwrap_or_default();
            index.by_id.insert(stream, queues.clone());
            queues
        });
        if queues.is_empty() {
            self.unrouted.store(true, Ordering::Release);
        }
        queues.iter().for_each(|inner| inner.wake());
    }
}

impl Inner {
    fn new(context: &Arc<Context>, id: EntryId, entry: FloorEntry) -> Self {
        let low = entry.cursor.low;
        Self {
            context: Arc::clone(context),
            destination: entry.destination,
            stream: entry.stream,
            stream_id: entry.stream_id.map_or_else(OnceLock::new, OnceLock::from),
            incarnation: entry.incarnation,
            epoch: entry.epoch,
            entry: id,
            window: Mutex::new(Window::new(entry.cursor, entry.books)),
            reading: Mutex::default(),
            oldest: Mutex::default(),
            more: Mutex::default(),
            revision: AtomicU32::new(0),
            dirty: AtomicBool::new(false),
            durable_low: AtomicU64::new(low),
            plan_low: AtomicU64::new(u64::MAX),
        }
    }

    /// The queue as the floor keeps it; notes the oldest plan along with it.
    fn snapshot(&self) -> FloorEntry {
        let stream_id = self.stream_id.get().copied();
        let window = self.window();
        self.plan_low.store(window.oldest_plan().unwrap_or(u64::MAX), Ordering::Release);
        FloorEntry {
            destination: Arc::clone(&self.destination),
            stream: Arc::clone(&self.stream),
            stream_id,
            incarnation: self.incarnation,
            epoch: self.epoch,
            books: window.books().clone(),
            cursor: window.cursor().clone(),
        }
    }
}

impl Index {
    fn add(&mut self, inner: Arc<Inner>) {
        let key = (Arc::clone(&inner.destination), Arc::clone(&inner.stream));
        self.by_stream.entry(Arc::clone(&inner.stream)).or_default().push(Arc::clone(&inner));
        // Under its number it is entered when records next come: there may be an entry without this queue by now.
        if let Some(id) = inner.context.log.stream(&inner.stream) {
            self.by_id.remove(&id);
        }
        self.by_name.insert(key, inner);
    }

    /// The name as other queues have it, so that a thousand destinations of an environment share its letters.
    fn name(&self, name: &str, of: impl Fn(&(Arc<str>, Arc<str>)) -> &Arc<str>) -> Arc<str> {
        let stream = self.by_stream.get_key_value(name).map(|(name, _)| Arc::clone(name));
        let from = (Arc::from(name), Arc::from(""));
        let neighbour = || self.by_name.range(from.clone()..).next().map(|(key, _)| Arc::clone(of(key)));
        stream.or_else(neighbour).filter(|found| **found == *name).unwrap_or_else(|| Arc::from(name))
    }
}

impl Ticker {
    fn start(set: &Arc<Set>, period: Duration) -> io::Result<Self> {
        let (stop, stopped) = sync_channel::<()>(1);
        let set = Arc::downgrade(set);
        let thread = std::thread::Builder::new().name("forebay-tick".into()).spawn(move || {
            while stopped.recv_timeout(period) == Err(RecvTimeoutError::Timeout) {
                let Some(set) = set.upgrade() else { return };
                if let Err(error) = set.tick() {
                    tracing::error!(%error, "the cursors are not durable: nothing is deleted, and a crash would repeat");
                }
            }
        })?;
        Ok(Self { stop, thread })
    }
}

impl QueuesStats {
    fn count_commit(&mut self, syncs: usize) {
        self.floor_commits += u64::from(syncs > 0);
        self.floor_syncs += syncs as u64;
    }

    fn count_error(&mut self, error: &FloorError) {
        self.floor_errors += 1;
        self.floor_error = Some(error.to_string());
    }
}

// === opening ===

fn take_lock(disk: &dyn Disk, dir: &Path) -> Result<Box<dyn crate::disk::Lock>, OpenQueuesError> {
    let holder = format!("process {}, forebay {}", std::process::id(), env!("CARGO_PKG_VERSION"));
    let path = dir.join(LOCK_NAME);
    disk.lock(&path, &holder).map_err(|error| match error.kind() {
        ErrorKind::WouldBlock => OpenQueuesError::Locked { dir: dir.to_owned(), holder: error.to_string() },
        _ => io_error("lock", &path, error),
    })
}

fn io_error(what: &'static str, path: &Path, source: io::Error) -> OpenQueuesError {
    OpenQueuesError::Io { what, path: path.to_owned(), source }
}

type Hints = HashMap<Vec<u8>, Vec<u8>>;

/// Opens the cursor store. One that fails is set aside for an empty one; if that fails too, or it hangs, there is none.
fn open_store(
    disk: &Arc<dyn Disk>,
    clock: &Arc<dyn Clock>,
    dir: &Path,
    options: &QueueOptions,
    stats: &mut QueuesStats,
) -> (StoreKeeper, Hints) {
    let open = |choice: &StoreChoice| {
        let opener = choice.opener(&dir.join(STORE_NAME));
        StoreKeeper::open(opener, Arc::clone(clock), options.store_deadline, options.inline)
    };
    let mut opened = open(&options.store);
    if let Err(failure) = &opened {
        stats.store_resets += 1;
        tracing::warn!(%failure, "the cursor store is set aside: cursors go on from the floor");
        set_aside(&**disk, dir, clock.wall_ms());
        // One that hung may still touch its files, under whatever name: no second one beside it.
        if !matches!(failure, OpenFailure::Hung(_)) {
            opened = open(&options.store);
        }
    }
    match opened {
        Ok((keeper, hints)) => (keeper, hints.into_iter().collect()),
        Err(failure) => {
            stats.store_given_up = Some(failure.to_string());
            let (keeper, _) =
                StoreKeeper::open(StoreChoice::None.opener(dir), Arc::clone(clock), options.store_deadline, true)
                    .expect("the store that keeps nothing opens");
            (keeper, Hints::new())
        }
    }
}

/// Gives the store's directory another name, and removes the one that was set aside before. Best effort.
fn set_aside(disk: &dyn Disk, dir: &Path, now_ms: u64) {
    let note = dir.join(SET_ASIDE_NAME);
    let act = || -> io::Result<()> {
        let name = format!("{STORE_NAME}.bad-{now_ms}");
        let before = disk.open(&note).and_then(|file| crate::disk::read_all(&*file));
        match disk.rename_dir(&dir.join(STORE_NAME), &dir.join(&name)) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            renamed => renamed?,
        }
        let before = before.ok().and_then(|before| String::from_utf8(before).ok());
        // Only ever a name of our own making, whatever stands in the note.
        let digits = before.as_deref().and_then(|before| before.strip_prefix("sled.bad-"));
        if let Some(digits) = digits.filter(|digits| !digits.is_empty() && digits.bytes().all(|c| c.is_ascii_digit())) {
            disk.remove_dir(&dir.join(format!("{STORE_NAME}.bad-{digits}")))?;
        }
        let _ = disk.remove(&note);
        disk.create(&note)?.write_all_at(&[IoSlice::new(name.as_bytes())], 0)
    };
    if let Err(error) = act() {
        tracing::warn!(%error, "the cursor store could not be set aside");
    }
}

fn append_plans(log: &Log) -> super::planner::AppendPlans {
    let log = log.clone();
    Box::new(move |frames, done| log.append_group(PLANS_STREAM, frames, OnFull::Refuse, done))
}

/// The pseudo entry that holds the plan mark. No destination can have its name.
fn plan_entry(mark: u64) -> FloorEntry {
    let name: Arc<str> = Arc::from(PLANS_STREAM);
    FloorEntry {
        destination: Arc::clone(&name),
        stream: name,
        stream_id: None,
        incarnation: 0,
        epoch: 0,
        books: Books::from(mark, 0),
        cursor: Cursor::at(mark, 0),
    }
}

/// Makes the queues that the floor knows. Returns the entry of the plan mark, and the mark.
fn rebuild(
    context: &Arc<Context>,
    floor: &mut FloorFile,
    mut hints: Hints,
    index: &mut Index,
    stats: &mut QueuesStats,
) -> Result<(EntryId, u64), OpenQueuesError> {
    let log = &context.log;
    let mut plans = None;
    let mut entries: Vec<(EntryId, FloorEntry)> = floor.entries().map(|(id, entry)| (id, entry.clone())).collect();
    // Should the log have lost its streams, they are made again in the order of their numbers.
    entries.sort_by_key(|(_, entry)| entry.stream_id.map_or(u32::MAX, |id| id.0));
    // As the log says it, before any cursor says otherwise.
    let tails: HashMap<Arc<str>, Tail> = log.streams().into_iter().map(|stream| (stream.name, stream.tail)).collect();
    for (id, mut entry) in entries {
        if &*entry.destination == PLANS_STREAM {
            log.raise_next(PLANS_STREAM, entry.cursor.low);
            plans = Some((id, entry.cursor.low));
            continue;
        }
        let tail = tails.get(&entry.stream).copied().unwrap_or_default();
        let hint = hints.remove(&hint::key(&entry.destination, &entry.stream));
        let offered = hint.is_some();
        let hint = hint.and_then(|bytes| Hint::decode(&bytes).ok());
        let taken = recover::take_hint(&mut entry, hint, context.log_id, tail);
        stats.hints_taken += u64::from(taken);
        stats.hints_refused += u64::from(offered && !taken);
        let ahead = entry.cursor.end() > tail.offset;
        if ahead {
            stats.cursors_ahead += 1;
            tracing::error!(destination = %entry.destination, stream = %entry.stream, cursor = entry.cursor.end(),
                tail = tail.offset, "the log ends below a cursor: it has lost records");
            recover::fit_to_tail(&mut entry.books, &mut entry.cursor, tail);
            log.raise_next(&entry.stream, entry.cursor.end());
        }
        let now = log.stream(&entry.stream);
        let renumbered = entry.stream_id.is_some() && now.is_some() && entry.stream_id != now;
        if renumbered {
            // Batch ids hold the stream's number: under the next incarnation no old one can come again.
            stats.streams_renumbered += 1;
            entry.incarnation += 1;
            tracing::error!(stream = %entry.stream, was = ?entry.stream_id, is = ?now, "a stream has another number");
        }
        let learned = entry.stream_id.is_none() && now.is_some();
        entry.stream_id = now.or(entry.stream_id.filter(|_| !renumbered));
        if taken || ahead || renumbered || learned {
            floor.set(id, entry.clone());
        }
        (entry.destination, entry.stream) = (
            index.name(&entry.destination, |(destination, _)| destination),
            index.name(&entry.stream, |(_, stream)| stream),
        );
        let inner = Arc::new(Inner::new(context, id, entry));
        settle_gap(&inner, stats)?;
        index.add(inner);
    }
    let plans = plans.or_else(|| floor.add(plan_entry(0)).map(|id| (id, 0)));
    Ok(plans.expect("there is room: entries are fewer than the floor holds, see FloorFile::add"))
}

/// Settles what is not kept any more but was not settled: the floor is older than what was deleted, or it was damaged.
fn settle_gap(inner: &Inner, stats: &mut QueuesStats) -> Result<(), ReadError> {
    let Some(stream) = inner.stream_id() else { return Ok(()) };
    let log = &inner.context.log;
    let (low, first_kept) = (inner.window().cursor().low, log.first_kept(stream));
    if low >= first_kept {
        return Ok(());
    }
    let bytes = log.bytes_at(stream, first_kept)?;
    let lost = inner.window().settle(low..first_kept, Settled::Lost, |_| Some(bytes));
    inner.dirty.store(true, Ordering::Release);
    stats.cursors_below += 1;
    tracing::error!(destination = %inner.destination, stream = %inner.stream, cursor = low, first_kept,
        records = lost.records, "records below the oldest one kept were not settled: counted as lost");
    Ok(())
}

type Orphans = Vec<(u64, PlanRecord)>;

/// Reads the plans that were open, and hands them to their queues. Returns the oldest that is still needed, and those
/// of queues that nobody knows (kept when the floor was damaged, since these queues will be made again).
fn resume_plans(
    context: &Context,
    mark: u64,
    index: &Index,
    keep_orphans: bool,
    stats: &mut QueuesStats,
) -> Result<(u64, Orphans), OpenQueuesError> {
    let log = &context.log;
    let Some(stream) = log.stream(PLANS_STREAM) else { return Ok((mark, Orphans::new())) };
    let mut reader = log.reader(stream, mark.max(log.first_kept(stream)));
    let mut orphans = Orphans::new();
    let queues: HashMap<(Arc<str>, StreamId), Arc<Inner>> = (index.by_name.values())
        .filter_map(|inner| Some(((Arc::clone(&inner.destination), inner.stream_id()?), Arc::clone(inner))))
        .collect();
    let mut seen: HashMap<(Arc<str>, StreamId, u64, u64), u64> = HashMap::new();
    while let Some(item) = reader.next()? {
        let (offsets, plans) = match item {
            Item::Frame(frame) => (frame.offsets(), plan::decode(frame.payload()).unwrap_or_default()),
            Item::Lost { offsets, .. } => (offsets, Vec::new()),
        };
        if plans.len() as u64 != offsets.end - offsets.start {
            stats.plans_lost += offsets.end - offsets.start;
            tracing::error!(?offsets, "plans can't be read: their batches are sent again under other ids");
            continue;
        }
        for (offset, plan) in offsets.zip(plans).filter(|(offset, _)| *offset >= mark) {
            let key = (Arc::clone(&plan.destination), plan.stream_id);
            let same = (key.0.clone(), key.1, plan.offsets.start, plan.offsets.end);
            let again = seen.insert(same, offset).is_some();
            if let Some(name) = log.stream_name(plan.stream_id) {
                log.raise_next(&name, plan.offsets.end);
            }
            match queues.get(&key) {
                Some(inner) if inner.incarnation == plan.incarnation => {
                    let done = inner.window().cursor().unsettled(plan.offsets.clone()).is_empty();
                    let adopted = inner.window().adopt(plan.offsets, Plan { offset, revision: plan.revision });
                    stats.plans_resumed += u64::from(adopted);
                    stats.plans_crossing += u64::from(!adopted && !done && !again);
                    inner.dirty.store(true, Ordering::Release);
                }
                Some(_) => {}
                None if keep_orphans && orphans.len() < ORPHANED_PLANS_MAX => orphans.push((offset, plan)),
                None => {}
            }
        }
    }
    // The mark itself stays until the first tick has seen which plans its queues took.
    Ok((mark, orphans))
}

fn check_names(destination: &str, stream: &str) -> Result<(), QueueError> {
    let digit = |c: u8| c.is_ascii_alphanumeric() || c == b'_' || c == b'-';
    let bad = |what, name: &str, rule| Err(QueueError::BadName { what, name: name.chars().take(200).collect(), rule });
    if destination.is_empty() || destination.len() > DESTINATION_BYTES_MAX || !destination.bytes().all(digit) {
        return bad("the destination's id", destination, "1 to 40 of A-Z, a-z, 0-9, _ and -");
    }
    if stream.is_empty() || stream.len() > STREAM_BYTES_MAX || stream.bytes().any(|c| c == 0) {
        return bad("the stream's name", stream, "1 to 128 bytes, none of them zero");
    }
    Ok(())
}
