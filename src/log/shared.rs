//! What the log's parts share: the queue of appends, the catalog and its locks, the state, the damage that was met.
//!
//! Lock order: writer, keeper, claimed room, catalog; nothing holds the catalog while it calls out.

use super::catalog::{Catalog, Stream};
use super::damage::{Damage, Damages};
use super::file_name::SegmentFile;
use super::files::Files;
use super::index::{self, SegmentIndex};
use super::keeper::Keeper;
use super::limits::STREAM_NAME_BYTES_MAX;
use super::options::{AppendError, LogOptions, OnFull, Payload, SyncedMark};
use super::pending::{Pending, is_ours};
use super::places::Places;
use super::read_cache::{IndexCache, ReadCache};
use super::read_trouble::ReadTrouble;
use super::segment::Class;
use super::stats::{Counters, LogState};
use super::waiting::{Taken, Waiting};
use super::writer::Writer;
use super::{PLANS_STREAM, file_name, frame, limits, recovery};
use crate::clock::Clock;
use crate::disk::{Lock, is_full};
use crate::offset::{LogId, Sequence, StreamId};
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::sync::thread::{self, ThreadId};
use crate::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::io;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

/// What all parts of the log share.
pub(crate) struct Shared {
    pub(super) clock: Arc<dyn Clock>,
    pub(super) options: LogOptions,
    pub(super) log_id: LogId,
    pub(super) files: Files,
    pub(super) catalog: RwLock<Catalog>,
    pub(super) writer: Mutex<Writer>,
    pub(super) waiting: Mutex<Waiting>,
    /// The thread that commits.
    pub(super) committing: Mutex<Option<ThreadId>>,
    /// Something waits, or the log is closing.
    pub(super) arrived: Condvar,
    /// The queue has room again.
    pub(super) roomy: Condvar,
    pub(super) keeper: Mutex<Keeper>,
    pub(super) keeper_wanted: Mutex<bool>,
    pub(super) keeper_wake: Condvar,
    pub(super) watchers: RwLock<Vec<Watcher>>,
    pub(super) state: RwLock<LogState>,
    pub(super) synced: Mutex<[Option<SyncedMark>; 2]>,
    pub(super) next_sequence: AtomicU64,
    pub(super) closing: AtomicBool,
    pub(super) indexes: IndexCache,
    pub(super) places: Places,
    pub(super) read_cache: ReadCache,
    pub(super) damages: Mutex<Damages>,
    pub(super) read_trouble: ReadTrouble,
    pub(super) counters: Counters,
    /// Most bytes of all files together; see room.rs.
    pub(super) budget: AtomicU64,
    /// Bytes of files that are neither segment nor spare right now; see room.rs.
    pub(super) claimed: Mutex<u64>,
    /// How much a stream may hold before it is refused, or [`NO_SHARE`]; see short_disk.rs.
    pub(super) share: AtomicU64,
    /// Somebody has said what is needed since the log was opened.
    pub(super) told: AtomicBool,
    /// When it was opened, by the monotonic clock.
    pub(super) opened: Duration,
    pub(super) _lock: Box<dyn Lock>,
}

/// Nobody is refused for what it holds.
pub(super) const NO_SHARE: u64 = u64::MAX;

pub(super) type Watcher = Arc<dyn Fn(StreamId, u64) + Send + Sync>;

// === impl Shared ===

impl Shared {
    pub(super) fn catalog_read(&self) -> RwLockReadGuard<'_, Catalog> {
        self.catalog.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn catalog_write(&self) -> RwLockWriteGuard<'_, Catalog> {
        self.catalog.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn state(&self) -> LogState {
        self.state.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_state(&self, state: LogState) {
        *self.state.write().unwrap_or_else(PoisonError::into_inner) = state;
    }

    pub(super) fn check_append(&self, stream: &str, parts: &[Payload]) -> Result<(), AppendError> {
        check_name(stream)?;
        if parts.is_empty() || parts.iter().any(|part| part.records == 0) {
            return Err(AppendError::Empty);
        }
        let bytes: usize = parts.iter().map(|part| part.bytes.len()).sum();
        let limit = self.options.append_bytes_max as usize;
        if bytes > limit {
            return Err(AppendError::TooLarge { bytes, limit });
        }
        // Each part has a header, empty ones too.
        let headers = (parts.len() - 1) * limits::FRAME_HEADER_BYTES as usize;
        if headers > limit {
            return Err(AppendError::TooLarge { bytes: headers, limit });
        }
        self.refuses(stream).map_or(Ok(()), Err)
    }

    /// Why nothing is taken for this stream now, if so.
    pub(super) fn refuses(&self, stream: &str) -> Option<AppendError> {
        let ours = is_ours(stream);
        match self.state() {
            LogState::ReadOnly { why, .. } => Some(AppendError::ReadOnly { why }),
            _ if ours => None,
            LogState::Full { used, limit } => Some(AppendError::Full { used, limit }),
            LogState::Serving => {
                let share = self.share()?;
                let catalog = self.catalog_read();
                let held = catalog.id(stream).and_then(|id| catalog.stream(id)).map_or(0, Stream::held);
                (held > share).then_some(AppendError::OverShare { held, share })
            }
        }
    }

    /// How much a stream may hold before it is refused, while the disk is short.
    pub(super) fn share(&self) -> Option<u64> {
        Some(self.share.load(Ordering::Relaxed)).filter(|share| *share != NO_SHARE)
    }

    /// Lets go what `trim` says of a stream. Whether it is one of ours.
    pub(super) fn trim(&self, stream: StreamId, trim: impl FnOnce(&mut Stream)) -> bool {
        let mut catalog = self.catalog_write();
        let Some(known) = catalog.stream_mut(stream) else { return true };
        trim(known);
        let (settled, ours) = (known.trimmed, is_ours(&known.row.name));
        // Given back behind the lock: readers and the writer wait for it.
        let going = catalog.tail.settle(stream, settled);
        drop(catalog);
        drop(going);
        if matches!(self.state(), LogState::Full { .. }) || self.share().is_some() {
            self.request_housekeeping(); // it may be what there was no room for
        }
        ours
    }

    pub(super) fn enqueue(&self, append: Pending, on_full: OnFull) -> Result<(), AppendError> {
        let bytes = append.queued_bytes();
        let limit = self.options.queue_bytes_max;
        let mut waiting = self.waiting();
        // One append alone is always taken, however large. So are plans: there is one append of them at a time, and what
        // comes in too fast must not keep what waits from leaving.
        let bounded = &*append.stream != PLANS_STREAM;
        while bounded && !waiting.closed && waiting.bytes > 0 && waiting.bytes + bytes > limit {
            match on_full {
                OnFull::Refuse => return Err(AppendError::Busy { queued: waiting.bytes, limit }),
                OnFull::Wait => {
                    waiting.blocked += 1;
                    waiting = self.roomy.wait(waiting).unwrap_or_else(PoisonError::into_inner);
                    waiting.blocked -= 1;
                }
            }
        }
        if waiting.closed {
            return Err(AppendError::Closed);
        }
        waiting.push(append);
        let wake = std::mem::take(&mut waiting.writer_sleeps);
        drop(waiting);
        if wake {
            self.arrived.notify_one();
        }
        Ok(())
    }

    /// Blocks until something waits; `false` when the log is closing.
    pub(super) fn wait_for_appends(&self) -> bool {
        let mut waiting = self.waiting();
        while waiting.is_empty() && !waiting.closed {
            waiting.writer_sleeps = true;
            waiting = self.arrived.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
        waiting.writer_sleeps = false;
        !waiting.closed
    }

    /// Commits what waits now, in as few commits as the limits allow; a large append in steps, between these.
    pub(super) fn commit_waiting(&self) {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        self.set_committing(Some(thread::current().id()));
        loop {
            let under_way = writer.under_way();
            let taken = self.take_waiting(under_way.as_deref());
            if taken.is_empty() && under_way.is_none() {
                break;
            }
            self.counters.appends.add(taken.len() as u64);
            self.counters.commits.add(u64::from(!taken.appends.is_empty()) + u64::from(taken.large.is_some()));
            let a_large_one = under_way.is_some() || taken.large.is_some();
            writer.commit(self, taken.appends);
            if let Some(large) = taken.large {
                writer.begin(self, large);
            }
            writer.step(self);
            if a_large_one && writer.under_way().is_none() {
                self.waiting().large_one_ended();
            }
        }
        self.set_committing(None);
    }

    /// The same, save on a thread that is at it already, in a callback: what it appends goes with what is committed there.
    pub(super) fn commit_inline(&self) {
        let committing = *self.committing.lock().unwrap_or_else(PoisonError::into_inner);
        if committing != Some(thread::current().id()) {
            self.commit_waiting();
            self.housekeep_if_wanted();
        }
    }

    fn set_committing(&self, thread: Option<ThreadId>) {
        *self.committing.lock().unwrap_or_else(PoisonError::into_inner) = thread;
    }

    fn take_waiting(&self, under_way: Option<&str>) -> Taken {
        let mut waiting = self.waiting();
        let taken = waiting.take(under_way, self.options.large_append_bytes as usize);
        let blocked = waiting.blocked > 0;
        drop(waiting);
        if blocked {
            self.roomy.notify_all();
        }
        taken
    }

    pub(super) fn wake(&self, tails: &[(StreamId, u64)]) {
        for watcher in self.watchers.read().unwrap_or_else(PoisonError::into_inner).iter() {
            for (stream, tail) in tails {
                // Its owner's bug, as with completion callbacks: the other watchers and the writer go on.
                if catch_unwind(AssertUnwindSafe(|| watcher(*stream, *tail))).is_err() {
                    tracing::error!("a watcher panicked");
                }
            }
        }
    }

    pub(super) fn stop(&self) {
        self.waiting().closed = true;
        self.closing.store(true, Ordering::SeqCst);
        self.arrived.notify_all();
        self.roomy.notify_all();
        self.request_housekeeping();
    }

    pub(super) fn request_housekeeping(&self) {
        *self.keeper_wanted.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.keeper_wake.notify_one();
    }

    pub(super) fn housekeep_if_wanted(&self) {
        if std::mem::take(&mut *self.keeper_wanted.lock().unwrap_or_else(PoisonError::into_inner)) {
            self.housekeep();
        }
    }

    pub(super) fn set_synced(&self, class: Class, sequence: Sequence, position: u32) {
        let lane = usize::from(class == Class::System);
        self.synced.lock().unwrap_or_else(PoisonError::into_inner)[lane] = Some(SyncedMark { sequence, position });
    }

    pub(super) fn next_sequence(&self) -> Sequence {
        Sequence(self.next_sequence.load(Ordering::SeqCst))
    }

    /// A number for a new file. Spent, whatever comes of it.
    pub(super) fn take_sequence(&self) -> Sequence {
        Sequence(self.next_sequence.fetch_add(1, Ordering::SeqCst))
    }

    pub(super) fn full(&self) -> AppendError {
        AppendError::Full { used: self.bytes_used(), limit: self.budget() }
    }

    /// What a failed write means for appends, now and until housekeeping finds that it is over.
    pub(super) fn disk_error(&self, e: &io::Error) -> AppendError {
        if is_full(e) {
            let (used, limit) = (self.bytes_used(), self.budget());
            tracing::warn!(used, limit, "no room for another segment: only what drains the disk is taken");
            self.set_state(LogState::Full { used, limit });
            return AppendError::Full { used, limit };
        }
        let why: Arc<str> = e.to_string().into();
        tracing::error!(error = %e, "the disk refuses writes: read-only until it takes them again");
        self.set_state(LogState::ReadOnly { why: Arc::clone(&why), since_ms: self.clock.wall_ms() });
        AppendError::ReadOnly { why }
    }

    /// A sealed segment's index file, if it is good.
    pub(super) fn read_index(&self, sequence: Sequence) -> io::Result<Option<SegmentIndex>> {
        let path = self.files.path(file_name::FileName::Index(sequence));
        match self.files.disk().open(&path) {
            Ok(file) => match crate::disk::read_all(&*file) {
                // It is made again from the segment; where that can't be read either, whoever asks must wait.
                Err(e) if crate::disk::is_media_error(&e) => Ok(None),
                read => Ok(SegmentIndex::decode(&read?)),
            },
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Whether this file is still the one at its place: it may be reclaimed, or replaced by a compact one.
    pub(super) fn is_in_place(&self, file: SegmentFile) -> bool {
        self.catalog_read().segments.get(&file.place()).is_some_and(|segment| segment.file == file)
    }

    /// A sealed segment's index, from its frames: all below `end` were synced.
    pub(super) fn rebuild_index(&self, segment: SegmentFile, end: u32) -> io::Result<Option<SegmentIndex>> {
        let (sequence, class) = (segment.sequence, segment.class);
        let Some(file) = self.files.segment(segment)? else {
            // We did not take it away: it may come back, as a directory does that is moved, and a wrong "lost" is for good.
            return if self.is_in_place(segment) { Err(io::ErrorKind::NotFound.into()) } else { Ok(None) };
        };
        tracing::warn!(%sequence, "a segment's index is damaged, unreadable or missing: made again from its frames");
        let mut bytes = crate::disk::read_all(&*file)?;
        if !self.is_in_place(segment) {
            return Ok(None); // reclaimed meanwhile: what was read may be another segment's
        }
        bytes.truncate(end as usize);
        let scan = recovery::scan(&frame::Identity::new(self.log_id, sequence), &bytes, end);
        for hole in &scan.holes {
            let header = hole.named.filter(|header| header.kind == frame::Kind::Records);
            self.note_damage(sequence, hole.positions.start, header.map(|header| (header.stream, header.offsets())));
        }
        let mut active = index::ActiveIndex::default();
        for found in scan.frames.iter().filter(|found| found.header.kind == frame::Kind::Records) {
            active.add(found.position, &found.header);
        }
        let catalog = self.catalog_read();
        let nameless: Arc<str> = "".into();
        let name_of =
            |stream| catalog.stream(stream).map_or_else(|| Arc::clone(&nameless), |known| Arc::clone(&known.row.name));
        Ok(Some(active.seal(self.log_id, (sequence, class), end, false, name_of)))
    }

    pub(super) fn note_damage(&self, segment: Sequence, position: u32, records: Option<(StreamId, Range<u64>)>) {
        let (stream, offsets) = records.unzip();
        let stream =
            stream.and_then(|stream| self.catalog_read().stream(stream).map(|stream| stream.row.name.to_string()));
        let positions = position..position + limits::FRAME_HEADER_BYTES;
        let damage = Damage { segment, positions, stream, offsets, what: "a frame's checksum is wrong" };
        self.damages.lock().unwrap_or_else(PoisonError::into_inner).note(damage);
    }
}

/// Whether a stream may have this name.
pub(crate) fn check_name(stream: &str) -> Result<(), AppendError> {
    if stream.is_empty() || stream.len() > STREAM_NAME_BYTES_MAX || stream.chars().any(char::is_control) {
        return Err(AppendError::BadName { name: stream.chars().take(STREAM_NAME_BYTES_MAX).collect() });
    }
    Ok(())
}
