//! All queues of one log: opens them, gives out new ones, and keeps them.
//!
//! ```text
//! dir/LOCK     one process          dir/floor    what decides what may be deleted (floor_file.rs)
//! dir/log/     the records          dir/sled/    hints, worth a few repeats (store_keeper.rs)
//! ```
//! What a tick does, and why in that order, is in tick.rs; what is believed at open, in opening.rs.

mod arrivals;
mod deleting;
mod index;
mod keeping;
mod making;
mod moving;
mod names;
mod notes;
mod opening;
mod options;
mod redriving;
mod replaying;
mod tick;

pub use options::{CloseQueuesError, Deleted, OpenQueuesError, QueueOptions, QueuesStats, Start};

use super::floor_file::{FloorError, FloorFile, Found};
use super::hours::HOUR_MS;
use super::kept_plans::Revisions;
use super::planner::Planner;
use super::reading::offset_at_time;
use super::store_keeper::StoreKeeper;
use super::{Context, Inner, Queue, QueueError, kept_plans, lock};
use crate::clock::Clock;
use crate::disk::{Disk, dir_lock};
use crate::sync::atomic::Ordering;
use crate::sync::{Arc, Mutex, PoisonError, RwLock, Weak};
use crate::{Log, LogOptions};
use arrivals::Unrouted;
use index::Index;
use keeping::Keeping;
use making::check_names;
use notes::Notes;
use opening::{append_plans, io_error, open_store, place_orphans, plan_entry, rebuild, resume_plans};
use replaying::{RESUMED_PLANS_MAX, resume_fills};
use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::time::Duration;
use tick::Ticker;

const LOG_NAME: &str = "log";

/// A tick that were due at once again would be a loop.
const TICK_MIN: Duration = Duration::from_millis(1);

/// How long closing waits for the cursor store's last batch: a hint is worth a few seconds, and not more.
const STORE_PATIENCE: Duration = Duration::from_secs(5);

/// The queues of one log. Cheap to clone; all clones are one set.
#[derive(Clone)]
pub struct Queues {
    set: Arc<Set>,
}

struct Set {
    context: Arc<Context>,
    /// Held for the whole of a tick, and while a queue is made.
    keeping: Mutex<Keeping>,
    index: RwLock<Index>,
    keeper: StoreKeeper,
    notes: Notes,
    stats: Mutex<QueuesStats>,
    unrouted: Mutex<Unrouted>,
    /// See [`QueueOptions::plans_kept_min`].
    plans_kept_min: u64,
    ticker: Mutex<Option<Ticker>>,
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
        let held = dir_lock::take(&*disk, dir, env!("CARGO_PKG_VERSION"))?;
        let mut stats = QueuesStats::default();
        let (mut floor, found) = FloorFile::load(Arc::clone(&disk), dir)?;
        let log_options =
            LogOptions { synced: floor.synced().to_vec(), inline: log_options.inline || options.inline, ..log_options };
        let log = Log::open(Arc::clone(&disk), Arc::clone(&clock), &dir.join(LOG_NAME), log_options)?;
        let log_id = log.log_id();
        let log_is_empty = log.streams().iter().all(|stream| stream.tail.offset == 0);
        let foreign = floor.bind(log_id, &found, log_is_empty);
        stats.floor_damage = if let Found::File(damage) = found { damage } else { Vec::new() };
        stats.floor_damage.extend(foreign);
        stats.pinned = floor.is_pinned();
        for damage in &stats.floor_damage {
            tracing::error!(%damage, pinned = floor.is_pinned(), "the floor file is damaged");
        }

        let (keeper, mut hints) = open_store(&disk, &clock, dir, &options, &mut stats);
        let notes = Notes::from(&mut hints, log_id);
        let planner = Planner::new(append_plans(&log));
        let (held_bytes, touched, marking) = Default::default();
        let opened_ms = clock.wall_ms();
        let context =
            Arc::new(Context { log, log_id, clock, opened_ms, planner, held_bytes, touched, marking, _lock: held });
        let mut index = Index::default();
        let mut own = rebuild(&context, &mut floor, &mut hints, &mut index, &mut stats)?;
        let fills: Vec<Arc<Inner>> = index.by_name.values().filter(|inner| inner.replay.is_some()).cloned().collect();
        resume_fills(&context.log, fills.iter(), RESUMED_PLANS_MAX).map_err(OpenQueuesError::Read)?;
        let orphans = (resume_plans(&context, &mut own, &index, &mut stats)?, own.incarnation_was);
        let orphans = place_orphans(&context, &mut floor, &mut index, orphans, &mut stats)?;
        let mut keeping = Keeping {
            // It stays pinned until the operator has looked, over however many starts.
            floor_was_damaged: !stats.floor_damage.is_empty() || floor.is_pinned(),
            floor,
            plans: own.entry,
            plan_mark: own.plan_mark,
            plans_moved: 0,
            plans_moving: Weak::new(),
            incarnation: own.incarnation,
            fills_low: 0,
            plan_lows: BTreeMap::new(),
            hour: opened_ms / HOUR_MS,
            hours_wanted: false,
            unsaved: Vec::new(),
            unconfirmed: HashMap::new(),
            in_one_slot: HashMap::new(),
            confirmed: HashMap::new(),
            orphans,
            trim_all: true,
        };
        keeping.floor.set(keeping.plans, plan_entry(keeping.plan_mark, keeping.incarnation));
        // What is known of queues that the floor does not know is of a life that is over.
        keeper.offer(hints.into_keys().map(|key| (key, Vec::new())));
        // A floor from the first moment on: records without one would look like a floor that was lost.
        let is_unsaved = |inner: &&Arc<Inner>| !inner.saved.load(Ordering::Acquire);
        keeping.unsaved = index.by_name.values().filter(is_unsaved).cloned().collect();
        match keeping.floor.commit() {
            Ok(done) => {
                stats.count_commit(done.syncs);
                keeping.told_saved();
            }
            Err(error) if index.by_name.is_empty() && log_is_empty => return Err(error.into()),
            Err(error) => stats.count_error(&error),
        }

        let set = Arc::new(Set {
            context,
            keeping: Mutex::new(keeping),
            index: RwLock::new(index),
            keeper,
            notes,
            stats: Mutex::new(stats),
            unrouted: Mutex::new(Unrouted::any()),
            plans_kept_min: options.plans_kept_min,
            ticker: Mutex::new(None),
        });
        set.watch();
        if !options.inline {
            *lock(&set.ticker) =
                Some(Ticker::start(&set, options.tick.max(TICK_MIN)).map_err(OpenQueuesError::NoThread)?);
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
    /// A queue made with [`Start::Earliest`] is durable after the next tick or with its first plan, others when this
    /// returns.
    ///
    /// # Errors
    /// When a name cannot be used, there are too many queues, or the disk refuses.
    pub fn queue(&self, destination: &str, stream: &str, start: Start) -> Result<Queue, QueueError> {
        check_names(destination, stream)?;
        // One that was made, and whose commit failed, is not what was promised: asked for again it is tried again.
        let is_enough = |inner: &Arc<Inner>| start == Start::Earliest || inner.saved.load(Ordering::Acquire);
        if let Some(inner) = self.set.find(destination, stream).filter(is_enough) {
            return Ok(Queue::of(inner));
        }
        let mut keeping = lock(&self.set.keeping);
        let inner = match self.set.find(destination, stream) {
            Some(inner) => inner,
            None => {
                let made = self.set.make(&mut keeping, destination, stream, start);
                made.inspect_err(|_| {
                    // What was kept for it may go again.
                    keeping.trim_all = true;
                    lock(&self.set.unrouted).any_may_be();
                })?
            }
        };
        if !is_enough(&inner) {
            self.set.commit(&mut keeping).map_err(QueueError::NotDurable)?;
        }
        Ok(Queue::of(inner))
    }

    /// The queue of a destination for a stream, if there is one. Makes none.
    #[must_use]
    pub fn find(&self, destination: &str, stream: &str) -> Option<Queue> {
        self.set.find(destination, stream).map(Queue::of)
    }

    /// All queues, by destination and stream.
    #[must_use]
    pub fn all(&self) -> Vec<Queue> {
        self.set.index_read().by_name.values().map(|inner| Queue::of(Arc::clone(inner))).collect()
    }

    /// The queues of a destination, by stream, without those of its replays. However many there are of others.
    #[must_use]
    pub fn of(&self, destination: &str) -> Vec<Queue> {
        let index = self.set.index_read();
        let ours = index.by_name.from(destination).take_while(|inner| *inner.destination == *destination);
        ours.map(|inner| Queue::of(Arc::clone(inner))).collect()
    }

    /// Whether the destination has a queue. One that left the configuration still has its queues, and they keep their
    /// records.
    #[must_use]
    pub fn destination_known(&self, destination: &str) -> bool {
        !self.of(destination).is_empty()
    }

    /// Deletes the queue of a destination for a stream, or all that it has, and lets the log go what only they needed. When
    /// it returns that is durable. Whoever still has one of these queues finds nothing in it any more; stop sending first:
    /// what is on its way is not called back.
    ///
    /// A destination of that id that is made later is another one: its queues begin where they are told to, their
    /// balances begin anew, and none of their batches ever has an id that one of these had.
    ///
    /// ```
    /// # use forebay::{BatchLimits, LogOptions, Payload, QueueOptions, Queues, Start};
    /// # use std::{path::Path, sync::Arc};
    /// # let (disk, clock) = (Arc::new(forebay::disk::mem::MemDisk::new()), Arc::new(forebay::clock::SystemClock::new()));
    /// # let queues = Queues::open(disk, clock, Path::new("/data"), LogOptions::small(), QueueOptions::inline())?;
    /// let queue = queues.queue("acme-hook", "acme-prod", Start::Earliest)?;
    /// queues.log().append_wait("acme-prod", vec![Payload { bytes: vec![0; 100], records: 10 }])?;
    /// let limits = BatchLimits { records_max: 10, bytes_max: 1 << 20 };
    /// let before = queue.next_batch(limits)?.expect("ten records wait");
    ///
    /// let deleted = queues.delete("acme-hook", None)?;
    /// assert_eq!((deleted.queues, deleted.pending.records), (1, 10));
    /// assert!(queue.next_batch(limits)?.is_none());
    ///
    /// let queue = queues.queue("acme-hook", "acme-prod", Start::Earliest)?;
    /// let after = queue.next_batch(limits)?.expect("the records are still kept");
    /// assert!(after.offsets == before.offsets && after.id != before.id);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`QueueError::NotDeleted`] when nothing is deleted, [`QueueError::NotDurable`] when a crash may still take it back:
    /// then the next tick that succeeds makes it durable.
    pub fn delete(&self, destination: &str, stream: Option<&str>) -> Result<Deleted, QueueError> {
        let mut keeping = lock(&self.set.keeping);
        self.set.delete(&mut keeping, destination, stream)
    }

    /// The revisions of settings (see [`Queue::set_settings_revision`]) that plans name which the log still has, by
    /// destination: a batch that is sent again under boundaries that it had, by its queue or by a replay, is of one of these,
    /// or of one that its destination got since it was asked. Reads all plans.
    ///
    /// `None` if any of them can't be read now: then nothing may be concluded.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn revisions_planned(&self) -> Result<Option<Revisions>, QueueError> {
        Ok(kept_plans::revisions(&self.set.context.log)?)
    }

    /// The offset of the first record of a stream that was taken in at `ms` or later (milliseconds since 1970); its
    /// durable tail where none was. Looks at a few frames' headers only, by halving: where the wall clock was set back in
    /// between, it is one of the places where records from before that moment and from after it meet.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn offset_at(&self, stream: &str, ms: u64) -> Result<u64, QueueError> {
        let log = &self.set.context.log;
        Ok(log.stream(stream).map_or(Ok(0), |stream| offset_at_time(log, stream, ms))?)
    }

    /// Makes what was settled durable, lets the log go what nobody needs, and hands hints to the cursor store. One sync
    /// for all queues, none when nothing moved. The tick thread calls it; with [`QueueOptions::inline`] the caller does.
    ///
    /// # Errors
    /// When the floor cannot be written. It is counted, nothing is deleted, and the next tick tries again.
    pub fn tick(&self) -> Result<(), FloorError> {
        self.set.tick()
    }

    /// The queues in numbers. Waits for no disk.
    #[must_use]
    pub fn stats(&self) -> QueuesStats {
        let mut stats = lock(&self.set.stats).clone();
        stats.queues = self.set.index_read().by_name.len();
        stats.store_given_up = stats.store_given_up.or_else(|| self.set.keeper.given_up().map(|why| why.to_string()));
        stats.store_batches = self.set.keeper.batches();
        stats
    }

    /// After damage to the floor cursors may be missing that nobody can name, and nothing is deleted from the log. The
    /// operator who knows that every destination has its queue again ends that here. Does nothing where none were lost.
    ///
    /// # Errors
    /// When the floor cannot be written. Then the loss is not taken, and everything is kept as before.
    pub fn accept_floor_loss(&self) -> Result<(), FloorError> {
        let mut keeping = lock(&self.set.keeping);
        if !keeping.floor.is_pinned() {
            return Ok(());
        }
        keeping.floor.unpin();
        keeping.trim_all = true;
        let committed = self.set.commit(&mut keeping);
        if lock(&self.set.stats).pinned {
            // No floor says so yet, and who was told that it failed may put a copy of the old one back.
            keeping.floor.pin_again();
            return committed;
        }
        // Whatever else failed behind that floor is the next tick's.
        self.set.move_plans(&mut keeping);
        Ok(())
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
        lock(&self.set.keeping).hours_wanted = true;
        // Twice: the plans that the first one settles are let go by the second.
        let kept = self.set.tick().and_then(|()| self.set.tick());
        self.set.keeper.close(STORE_PATIENCE);
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

    /// The destinations of the queues that the next tick looks at.
    pub(super) fn touched(&self) -> Vec<String> {
        lock(&self.set.context.touched).iter().map(|(destination, _)| destination.to_string()).collect()
    }

    /// Whether the next tick looks at every stream for what nobody takes, and else at how many.
    pub(super) fn unrouted(&self) -> (bool, usize) {
        lock(&self.set.unrouted).noted()
    }
}

impl Set {
    fn index_read(&self) -> crate::sync::RwLockReadGuard<'_, Index> {
        self.index.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, destination: &str, stream: &str) -> Option<Arc<Inner>> {
        self.index_read().by_name.get(destination, stream).cloned()
    }

    fn tick(&self) -> Result<(), FloorError> {
        let mut keeping = lock(&self.keeping);
        self.commit(&mut keeping)?;
        self.move_plans(&mut keeping);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
