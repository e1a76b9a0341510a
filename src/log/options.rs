//! What can be set when a log is opened, and the errors of a log's operations.

use super::limits::{SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN};
use crate::disk::dir_lock::Refused;
use crate::offset::{Sequence, StreamId};
use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// How a log behaves. [`Default`] is what the sidecar uses; tests make the geometry small.
#[derive(Debug, Clone)]
pub struct LogOptions {
    /// Size of a segment file in bytes, 4 KiB to 1 GiB. A single append larger than this gets a segment of its own size.
    pub segment_bytes: u32,
    /// Most payload bytes of one append, all its parts together. The headers of its parts may come to as much again.
    pub append_bytes_max: u32,
    /// An append of more bytes than this, its frames' headers among them, is written in steps, into a segment file of its own that becomes the next one,
    /// while other streams' appends go on: they wait for a step of an eighth of it at most.
    pub large_append_bytes: u32,
    /// Most bytes that wait to be written, their frames' headers among them; beyond it an append waits or is refused, as it asks.
    pub queue_bytes_max: usize,
    /// Most bytes of just appended frames kept in memory for readers.
    pub tail_cache_bytes: usize,
    /// Most bytes of sealed segments' indexes kept in memory for readers; the last one that was read is, however large.
    pub index_cache_bytes: usize,
    /// Most segments kept open for readers, beside those that are written to.
    pub open_segments_max: usize,
    /// How long records that nobody needs any more are kept for replay.
    pub replay_window: Duration,
    /// Most bytes of all segments together, until [`Log::set_budget_bytes`](super::Log::set_budget_bytes) says otherwise.
    pub budget_bytes: u64,
    /// Segments preallocated for our own needs when the budget is used up (see docs/durability.md).
    pub reserve_segments: usize,
    /// Write zeros over room taken ahead, so that later appends overwrite blocks that the file system already knows:
    /// half the latency of a lone append on ext4, for a second write of every byte until segments are recycled.
    pub prewrite: bool,
    /// Work on the caller's thread: an append is durable or refused when the call returns, and no thread is started. What a
    /// callback appends is so when the append returns that called it. For simulations and for programs with one thread.
    pub inline: bool,
    /// Up to where segments are known to have been synced, from whoever kept [`Log::synced`](super::Log::synced).
    pub synced: Vec<SyncedMark>,
}

/// All bytes of a segment below a position were synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SyncedMark {
    /// The segment.
    pub sequence: Sequence,
    /// The position.
    pub position: u32,
}

/// Records to append: one frame, which readers get as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payload {
    /// The bytes; opaque to the log.
    pub bytes: Vec<u8>,
    /// How many records they hold; at least one.
    pub records: u32,
}

/// What to do when the append queue is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnFull {
    /// Block the caller until there is room.
    Wait,
    /// Return [`AppendError::Busy`].
    Refuse,
}

/// Where an append went. It is durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Appended {
    /// The stream's number.
    pub stream: StreamId,
    /// The offsets of its records.
    pub offsets: Range<u64>,
}

/// Called once, on the writer's thread, when an append is durable or has failed. Must not block; a panic in it is
/// caught and logged.
pub type Done = Box<dyn FnOnce(Result<Appended, AppendError>) + Send>;

/// Why an append was not taken. Nothing of it will be delivered, save that after a crash an append whose write failed
/// (`ReadOnly`, or `Full` where the disk itself is) may turn out to have reached the disk, whole.
#[derive(Debug, Clone, thiserror::Error)]
pub enum AppendError {
    /// The queue is full: the disk is slower than what comes in. Try again soon.
    #[error("the append queue is full: {queued} of {limit} bytes wait; try again soon")]
    Busy {
        /// Bytes that wait.
        queued: usize,
        /// Most that may wait.
        limit: usize,
    },
    /// The disk budget is used up. Try again when destinations have caught up or the budget is raised.
    #[error("the log's disk budget is used up: {used} of {limit} bytes; let destinations catch up or raise the budget")]
    Full {
        /// Bytes in use.
        used: u64,
        /// The budget, or less where the disk itself is full.
        limit: u64,
    },
    /// The disk is short, and this stream holds more of it than its fair share. Others go on. Try again when its destinations have
    /// caught up a little.
    #[error(
        "the disk is short, and this stream holds {held} bytes of it, more than its share of {share}; try again when its destinations have caught up"
    )]
    OverShare {
        /// Its backlog in bytes, and its part of what is kept because of it.
        held: u64,
        /// The most that it may hold now.
        share: u64,
    },
    /// The disk refuses writes. The log comes back by itself when the disk does.
    #[error("the log is read-only because its disk failed: {why}; it comes back by itself when the disk does")]
    ReadOnly {
        /// What the disk said.
        why: Arc<str>,
    },
    /// Larger than [`LogOptions::append_bytes_max`].
    #[error("an append of {bytes} bytes is over the limit of {limit}; split it")]
    TooLarge {
        /// Its payload bytes.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// An append without parts, or a part without records.
    #[error("an append needs at least one part, and every part at least one record")]
    Empty,
    /// A stream's name is empty, too long, or has control characters.
    #[error("the stream name {name:?} can't be used: 1 to {max} bytes without control characters", max = super::limits::STREAM_NAME_BYTES_MAX)]
    BadName {
        /// The name, as given.
        name: String,
    },
    /// The log has as many streams as it can hold.
    #[error("the log already has its {limit} streams")]
    TooManyStreams {
        /// Most streams of a log.
        limit: usize,
    },
    /// [`Log::close`](super::Log::close) was called.
    #[error("the log is closed")]
    Closed,
}

/// Why a log could not be opened. Damage to bytes is never a reason: it is reported in [`LogStats`](super::LogStats).
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has the directory.
    #[error("{}: another process has this log open ({holder}); stop it first, or use another directory", dir.display())]
    Locked {
        /// The directory.
        dir: PathBuf,
        /// What the holder wrote about itself.
        holder: String,
    },
    /// A file was written by a later version of Forebay.
    #[error("{}: written by a later version of forebay (format {version}, which this one does not know); use that version", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        version: u32,
    },
    /// The disk refused an operation.
    #[error("{}: can't {what}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// What the disk said.
        source: io::Error,
    },
    /// An option is out of its bounds.
    #[error("log option {name}: {why}")]
    Option {
        /// Which one.
        name: &'static str,
        /// What is wrong with it.
        why: String,
    },
}

impl Default for LogOptions {
    fn default() -> Self {
        Self {
            segment_bytes: 64 << 20,
            append_bytes_max: 96 << 20,
            large_append_bytes: 8 << 20,
            queue_bytes_max: 64 << 20,
            tail_cache_bytes: 32 << 20,
            index_cache_bytes: 16 << 20,
            open_segments_max: 128,
            replay_window: Duration::from_secs(24 * 3600),
            budget_bytes: 64 << 30,
            reserve_segments: 2,
            prewrite: true,
            inline: false,
            synced: Vec::new(),
        }
    }
}

impl LogOptions {
    /// The most that [`LogOptions::append_bytes_max`] may be: an append lies in one segment, with its headers.
    pub const APPEND_BYTES_MAX: u32 = SEGMENT_BYTES_MAX / 2;

    /// Small files and no threads: what simulations and doc examples use.
    #[must_use]
    pub fn small() -> Self {
        Self {
            segment_bytes: 64 << 10,
            append_bytes_max: 1 << 20,
            large_append_bytes: 1 << 20,
            queue_bytes_max: 1 << 20,
            tail_cache_bytes: 64 << 10,
            index_cache_bytes: 64 << 10,
            open_segments_max: 16,
            replay_window: Duration::ZERO,
            budget_bytes: 16 << 20,
            reserve_segments: 1,
            prewrite: false,
            inline: true,
            synced: Vec::new(),
        }
    }

    /// Whether a segment whose newest frame is of then is past the replay window.
    pub(crate) fn is_expired(&self, newest_ms: u64, now_ms: u64) -> bool {
        let window_ms = u64::try_from(self.replay_window.as_millis()).unwrap_or(u64::MAX);
        newest_ms.saturating_add(window_ms) <= now_ms
    }

    /// The least budget that can be worked in: the reserve, a segment of each class that is written to, and the next one.
    pub(crate) fn budget_bytes_min(&self) -> u64 {
        self.segments_min() * u64::from(self.segment_bytes)
    }

    fn segments_min(&self) -> u64 {
        self.reserve_segments as u64 + 3
    }

    pub(crate) fn check(&self) -> Result<(), OpenError> {
        let wrong = |name, why: String| Err(OpenError::Option { name, why });
        if !(SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX).contains(&self.segment_bytes) {
            return wrong("segment_bytes", format!("{SEGMENT_BYTES_MIN} to {SEGMENT_BYTES_MAX} bytes"));
        }
        if self.append_bytes_max == 0 || self.append_bytes_max > Self::APPEND_BYTES_MAX {
            return wrong("append_bytes_max", format!("1 to {} bytes", Self::APPEND_BYTES_MAX));
        }
        if self.large_append_bytes == 0 {
            return wrong("large_append_bytes", "at least 1 byte".into());
        }
        if self.budget_bytes < self.budget_bytes_min() {
            let why = format!("at least {} segments of {} bytes", self.segments_min(), self.segment_bytes);
            return wrong("budget_bytes", why);
        }
        Ok(())
    }
}

impl OpenError {
    pub(crate) fn of_lock(refused: Refused) -> Self {
        match refused {
            Refused::Held { dir, holder } => Self::Locked { dir, holder },
            Refused::Disk { path, source } => Self::Io { what: "lock", path, source },
        }
    }

    pub(crate) fn io(what: &'static str, path: &std::path::Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { what, path, source }
    }
}
