//! The durable log: bytes in, offsets out. It knows no destination.
//!
//! Many streams share one sequence of segment files. Appends of all streams wait in one queue; one writer takes all that
//! wait, writes them, syncs once, and then answers. Readers see what is durable and nothing else. How it is kept on
//! disk is in docs/format.md, what is promised and why it holds in docs/durability.md.

mod catalog;
mod compact;
mod compaction;
mod damage;
mod dir_sync;
mod file_name;
mod files;
mod frame;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod give_up;
mod index;
mod inspect;
mod keeper;
mod limits;
mod listing;
mod open;
mod options;
mod pending;
mod places;
mod read_cache;
mod read_trouble;
mod reader;
mod recovery;
mod room;
mod segment;
mod shared;
mod shares;
mod short_disk;
mod stats;
mod strays;
mod stream_table;
mod tail_cache;
mod threads;
mod waiting;
mod writer;

pub use damage::Damage;
pub use give_up::{GiveUpError, Unreadable, give_up};
pub use inspect::{Flaw, Inspected, SeenFrame, SeenStream, SegmentReport, inspect};
pub use options::{AppendError, Appended, Done, LogOptions, OnFull, OpenError, Payload, SyncedMark};
pub use reader::{Frame, Item, Outline, ReadError, Reader, Skimmed};
pub use segment::Class;
pub(crate) use shared::check_name;
pub use stats::{LogState, LogStats, StreamStats, Tail};
pub(crate) use threads::or_abort;

use crate::clock::Clock;
use crate::disk::{Disk, dir_lock};
use crate::offset::{LogId, StreamId};
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::sync::{Arc, Condvar, Mutex, PoisonError, RwLock};
use damage::Damages;
use files::Files;
use keeper::Keeper;
use limits::READ_CACHE_BYTES;
use pending::Pending;
use places::Places;
use read_cache::{IndexCache, ReadCache};
use read_trouble::ReadTrouble;
use shared::{NO_SHARE, Shared};
use stats::Counters;
use std::io;
use std::path::Path;
use threads::Threads;
use writer::Writer;

/// The stream of batch plans. It lies with the records that the plans are about, not with our other streams.
pub const PLANS_STREAM: &str = "!plans";

/// A durable log. Cheap to clone; all clones are one log. See the crate's documentation for an example.
#[derive(Clone)]
pub struct Log {
    shared: Arc<Shared>,
    threads: Arc<Mutex<Threads>>,
}

type AppendResult = Result<Appended, AppendError>;

/// Why closing met an error. What was acknowledged is safe all the same; the next open recovers the rest.
#[derive(Debug, thiserror::Error)]
#[error("the log could not be sealed; nothing acknowledged is lost, the next open recovers")]
pub struct CloseError(#[from] io::Error);

// === impl Log ===

impl Log {
    /// Opens the log in `dir`, making it where there is none, and recovers what a crash left.
    ///
    /// # Errors
    /// When another process has it, when a later version wrote it, when the disk refuses to read or write. Damage to
    /// bytes is no error: see [`Log::damages`].
    pub fn open(
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
        dir: &Path,
        options: LogOptions,
    ) -> Result<Self, OpenError> {
        options.check()?;
        disk.create_dir(dir).map_err(OpenError::io("make the directory", dir))?;
        let lock = dir_lock::take(&*disk, dir, env!("CARGO_PKG_VERSION")).map_err(OpenError::of_lock)?;
        let files = Files::new(disk, dir.to_owned(), &options);
        let opened = open::open(&files, &options, clock.wall_ms())?;
        let mut damages = Damages::default();
        opened.damages.into_iter().for_each(|damage| damages.note(damage));
        let (inline, stale, budget) = (options.inline, opened.table_stale, AtomicU64::new(options.budget_bytes));
        let indexes = IndexCache::new(options.index_cache_bytes);
        let shared = Arc::new(Shared {
            opened: clock.monotonic(),
            clock,
            options,
            log_id: opened.log_id,
            files,
            catalog: RwLock::new(opened.catalog),
            writer: Mutex::new(Writer::new(opened.last, opened.newest_ms)),
            waiting: Mutex::default(),
            committing: Mutex::default(),
            arrived: Condvar::new(),
            roomy: Condvar::new(),
            keeper: Mutex::new(Keeper::new(opened.table_generation, stale, opened.left_bytes)),
            keeper_wanted: Mutex::new(true),
            keeper_wake: Condvar::new(),
            watchers: RwLock::default(),
            state: RwLock::new(LogState::Serving),
            synced: Mutex::default(),
            next_sequence: AtomicU64::new(opened.next_sequence.0),
            closing: AtomicBool::new(false),
            indexes,
            places: Places::default(),
            read_cache: ReadCache::new(READ_CACHE_BYTES),
            damages: Mutex::new(damages),
            read_trouble: ReadTrouble::default(),
            counters: Counters::default(),
            budget,
            claimed: Mutex::new(opened.left_bytes),
            share: AtomicU64::new(NO_SHARE),
            told: AtomicBool::new(false),
            _lock: lock,
        });
        shared.counters.housekeeping_errors.add(opened.tables_refused);
        shared.learn_state();
        let started = if inline { Ok(Threads::none(&shared)) } else { Threads::start(&shared) };
        let threads = started.map_err(OpenError::io("start the log's threads", dir))?;
        Ok(Self { shared, threads: Arc::new(Mutex::new(threads)) })
    }

    /// 128 bits that no other log has.
    #[must_use]
    pub fn log_id(&self) -> LogId {
        self.shared.log_id
    }

    /// The stream of this name, if it ever was.
    #[must_use]
    pub fn stream(&self, name: &str) -> Option<StreamId> {
        self.shared.catalog_read().id(name)
    }

    /// A stream's name.
    #[must_use]
    pub fn stream_name(&self, stream: StreamId) -> Option<Arc<str>> {
        self.shared.catalog_read().stream(stream).map(|stream| Arc::clone(&stream.row.name))
    }

    /// All streams, in the order of their numbers. Not numbers that were given to a stream whose first append failed.
    #[must_use]
    pub fn streams(&self) -> Vec<StreamStats> {
        let catalog = self.shared.catalog_read();
        let stats = |(i, stream): (usize, &catalog::Stream)| StreamStats {
            id: StreamId(i as u32),
            name: Arc::clone(&stream.row.name),
            tail: Tail { offset: stream.row.next, bytes: stream.row.bytes },
            first_kept: stream.row.first_kept,
            backlog_bytes: stream.backlog(),
            held_bytes: stream.held(),
        };
        let real = |(_, stream): &(usize, &catalog::Stream)| {
            stream.row.next > 0 || !stream.row.name.starts_with(open::NAMELESS)
        };
        catalog.streams.iter().enumerate().filter(real).map(stats).collect()
    }

    /// Appends one part. The same as [`Log::append_group`] with one part and [`OnFull::Refuse`].
    ///
    /// # Errors
    /// See [`Log::append_group`].
    pub fn append(&self, stream: &str, bytes: Vec<u8>, records: u32, done: Done) -> Result<(), AppendError> {
        self.append_group(stream, vec![Payload { bytes, records }], OnFull::Refuse, done)
    }

    /// Appends records to a stream, which is made by its first append. The parts become one frame each; after a crash
    /// all of them are there or none. `done` is called when they are durable or have failed, on the writer's thread.
    ///
    /// A name that begins with `!` is for what a program keeps about its records: such streams lie in segments of their own,
    /// and may use the reserve that drains a full disk. [`PLANS_STREAM`] is the queues' alone: what else is appended to it counts as
    /// a damaged plan.
    ///
    /// # Errors
    /// When the append was not even queued; `done` is not called then.
    pub fn append_group(
        &self,
        stream: &str,
        parts: Vec<Payload>,
        on_full: OnFull,
        done: Done,
    ) -> Result<(), AppendError> {
        self.shared.check_append(stream, &parts)?;
        self.shared.enqueue(Pending::new(stream, parts, done), on_full)?;
        if self.shared.options.inline {
            self.shared.commit_inline();
        }
        Ok(())
    }

    /// Appends and blocks until the records are durable.
    ///
    /// # Errors
    /// When they are not.
    pub fn append_wait(&self, stream: &str, parts: Vec<Payload>) -> Result<Appended, AppendError> {
        let answer: Arc<(Mutex<Option<AppendResult>>, Condvar)> = Arc::default();
        let theirs = Arc::clone(&answer);
        let done = Box::new(move |result| {
            *theirs.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
            theirs.1.notify_one();
        });
        self.append_group(stream, parts, OnFull::Wait, done)?;
        let mut slot = answer.0.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(result) = slot.take() {
                return result;
            }
            slot = answer.1.wait(slot).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Where a stream's durable records end. Zero for a stream that never was.
    #[must_use]
    pub fn durable(&self, stream: StreamId) -> Tail {
        let catalog = self.shared.catalog_read();
        catalog
            .stream(stream)
            .map_or(Tail::default(), |stream| Tail { offset: stream.row.next, bytes: stream.row.bytes })
    }

    /// Nothing below this offset is kept.
    #[must_use]
    pub fn first_kept(&self, stream: StreamId) -> u64 {
        self.shared.catalog_read().stream(stream).map_or(0, |stream| stream.row.first_kept)
    }

    /// A reader that stands at `from`.
    #[must_use]
    pub fn reader(&self, stream: StreamId, from: u64) -> Reader {
        Reader::new(Arc::clone(&self.shared), stream, from)
    }

    /// The stream's running total of payload bytes before `offset`; see [`Frame::bytes_at`]. Where the frame is lost it
    /// is that of the next one that is not.
    ///
    /// # Errors
    /// When the disk can't be read.
    pub fn bytes_at(&self, stream: StreamId, offset: u64) -> Result<u64, ReadError> {
        let mut reader = self.reader(stream, offset);
        loop {
            match reader.next()? {
                Some(Item::Frame(frame)) => return Ok(frame.bytes_at(offset)),
                Some(Item::Lost { .. }) => {}
                None => return Ok(self.durable(stream).bytes),
            }
        }
    }

    /// Says that nobody needs the records of `stream` below `before`, and that this is durably known to whoever says so.
    /// Segments go when it holds for all their streams and the replay window is over; from memory the records go now.
    /// Never takes anything back; see [`keep`](Self::keep).
    pub fn trim(&self, stream: StreamId, before: u64) {
        let ours = self.shared.trim(stream, |known| known.trim(before));
        if !ours {
            self.told_all();
        }
    }

    /// The same, by whoever knows the stream's running total of payload bytes there.
    pub(crate) fn trim_at(&self, stream: StreamId, before: u64, bytes: u64) {
        let _ours = self.shared.trim(stream, |known| known.trim_at(before, bytes));
    }

    /// All that nobody needs was told: who holds more than its share is known from now on.
    pub(crate) fn told_all(&self) {
        self.shared.told.store(true, Ordering::Release);
    }

    /// Takes a [`trim`](Self::trim) back, as far as that is still possible: from now on nothing of `stream` from `from` on
    /// goes before it is trimmed again. Returns what is kept from: `from`, or more where something behind it is gone.
    pub fn keep(&self, stream: StreamId, from: u64) -> u64 {
        let mut catalog = self.shared.catalog_write();
        let Some(stream) = catalog.stream_mut(stream) else { return from };
        let from = from.max(stream.row.first_kept);
        stream.keep(from);
        from
    }

    /// Sees to it that the next record of a stream gets at least this offset: some cursor or plan has seen the ones
    /// below, so they were given out before and their frames are lost. Makes the stream where it is unknown. Waits
    /// for the commit that is on its way, so not from a callback. A name that [`append`](Self::append) refuses is left alone:
    /// nothing can have been given out under it.
    pub fn raise_next(&self, stream: &str, offset: u64) {
        if check_name(stream).is_err() {
            return;
        }
        // Offsets and numbers that the writer has given out are in the catalog only when they are durable.
        let _no_commit = self.shared.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let mut catalog = self.shared.catalog_write();
        if catalog.id(stream).is_none() && offset == 0 {
            return;
        }
        let id = catalog.id(stream).unwrap_or_else(|| catalog.add_stream(stream.into()));
        let known = catalog.stream_mut(id).expect("found or made");
        if known.row.next < offset {
            tracing::error!(
                stream,
                from = known.row.next,
                to = offset,
                "records that were given out are gone: counted as lost"
            );
            known.row.next = offset;
            drop(catalog);
            self.shared.keeper.lock().unwrap_or_else(PoisonError::into_inner).table_stale = true;
        }
    }

    /// Gives a stream whose name is lost, since the one frame that said it is damaged, the name that somebody else knows. Says
    /// whether it was that: a stream that has a name keeps it, and no two have the same.
    pub(crate) fn restore_name(&self, stream: StreamId, name: &str) -> bool {
        let _no_commit = self.shared.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let restored = self.shared.catalog_write().restore_name(stream, name);
        if restored {
            tracing::error!(number = stream.0, stream = name, "the name of a stream was lost: it has it again");
            self.shared.keeper.lock().unwrap_or_else(PoisonError::into_inner).table_stale = true;
        }
        restored
    }

    /// Up to where the segments that are written to are synced: worth keeping for [`LogOptions::synced`].
    #[must_use]
    pub fn synced(&self) -> Vec<SyncedMark> {
        self.shared.synced.lock().unwrap_or_else(PoisonError::into_inner).iter().flatten().copied().collect()
    }

    /// Calls `watcher` with a stream and its durable tail after each commit, once per stream touched (more often where
    /// streams alternate), on the writer's thread. Must not block; a panic in it is
    /// caught and logged.
    pub fn watch(&self, watcher: Arc<dyn Fn(StreamId, u64) + Send + Sync>) {
        self.shared.watchers.write().unwrap_or_else(PoisonError::into_inner).push(watcher);
    }

    /// Why an append to this stream would be refused now, whatever its size: the log is full or read-only, or the disk is
    /// short and the stream's backlog above its share of it.
    #[must_use]
    pub fn refuses(&self, stream: &str) -> Option<AppendError> {
        self.shared.refuses(stream)
    }

    /// Whether appends are taken.
    #[must_use]
    pub fn state(&self) -> LogState {
        self.shared.state()
    }

    /// Another [budget](LogOptions::budget_bytes), from now on. Returns what it is: no less than the reserve and two segments take.
    /// Raised, appends that were refused are taken as soon as housekeeping has made room. Lowered, nothing that somebody
    /// needs goes: appends are refused once the segment that is written to is full, until enough of the others have gone.
    /// Not kept: the next [`Log::open`] has its own.
    pub fn set_budget_bytes(&self, bytes: u64) -> u64 {
        let held = self.shared.set_budget(bytes);
        if self.shared.options.inline {
            self.shared.housekeep_if_wanted();
        }
        held
    }

    /// The log in numbers.
    #[must_use]
    pub fn stats(&self) -> LogStats {
        let (queued_bytes, bytes_used) = (self.shared.waiting().bytes, self.shared.bytes_used());
        let (sealed, needed_bytes) = self.shared.sealed_and_needed();
        let (options, budget) = (&self.shared.options, self.shared.budget());
        let catalog = self.shared.catalog_read();
        let counters = &self.shared.counters;
        LogStats {
            state: self.shared.state(),
            streams: catalog.streams.len(),
            segments: catalog.segments.len(),
            bytes_used,
            bytes_limit: budget,
            share_bytes: self.shared.share(),
            short_at_bytes: self.shared.short_at(budget).unwrap_or(budget),
            // The reserve, one more, and the two that are written to.
            ahead_bytes: (options.reserve_segments as u64 + 3) * u64::from(options.segment_bytes),
            needed_bytes,
            pinned_bytes: sealed.saturating_sub(needed_bytes),
            tail_cache_bytes: catalog.tail.bytes(),
            queued_bytes,
            appends: counters.appends.get(),
            commits: counters.commits.get(),
            segments_reclaimed: counters.segments_reclaimed.get(),
            segments_compacted: counters.segments_compacted.get(),
            compacted_bytes: counters.compacted_bytes.get(),
            housekeeping_errors: counters.housekeeping_errors.get(),
            reads_refused: self.shared.read_trouble.count(),
            damages: self.shared.damages.lock().unwrap_or_else(PoisonError::into_inner).count(),
        }
    }

    /// Damaged places met so far, the first thousand by name.
    #[must_use]
    pub fn damages(&self) -> Vec<Damage> {
        self.shared.damages.lock().unwrap_or_else(PoisonError::into_inner).all()
    }

    /// One round of housekeeping: seals, reclaims, takes room ahead, comes back from a failure. The log's own thread does
    /// it when needed; with [`LogOptions::inline`] it is the caller's to call now and then.
    pub fn housekeep(&self) {
        self.shared.housekeep();
    }

    /// Takes no more appends, commits those that wait, seals the segments. Readers go on.
    ///
    /// # Errors
    /// When the disk refuses. Nothing that was acknowledged is lost by that.
    pub fn close(&self) -> Result<(), CloseError> {
        self.shared.stop();
        self.threads.lock().unwrap_or_else(PoisonError::into_inner).join();
        self.shared.commit_waiting();
        let mut writer = self.shared.writer.lock().unwrap_or_else(PoisonError::into_inner);
        // Before it: housekeeping that somebody else asked for must not give away a segment that is full and still to be cut.
        let mut keeper = self.shared.keeper.lock().unwrap_or_else(PoisonError::into_inner);
        writer.finish(&self.shared)?;
        drop(writer);
        let sealed = self.shared.seal(&mut keeper);
        let table = if keeper.table_stale { self.shared.write_table(&mut keeper) } else { Ok(()) };
        Ok(sealed.and(table)?)
    }
}

#[cfg(test)]
mod tests;
