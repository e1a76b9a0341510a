//! The seam between the loop of a destination and its queues: where batches are claimed, planned, split, settled,
//! handed back.
//!
//! Two things implement it: the real queue ([`super::queued`]) and the script of the worker's tests. What always
//! holds: a claimed batch is either settled or, when its [`Ticket`] is dropped, handed back with the same id and the
//! same boundaries. No panic, timeout or cancelled task can lose a claim.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use forebay::{LogId, Settled, StreamId, Waiting};

use super::heavy::Heavy;
use super::parking::LetterOrigin;
use super::sink::{Environment, Job, LargeJob};

/// One destination's queue of one stream.
pub trait Source: Send + Sync {
    /// Whether a batch could be claimed now. Cheap; does not touch the disk.
    fn has_more(&self) -> bool;

    /// Whether the next batch would not grow by waiting: as many records or bytes as fit are there, or it was handed out before.
    /// Cheap; does not touch the disk. A source that cannot tell says yes.
    fn fills(&self, _limits: Limits) -> bool {
        true
    }

    /// At most so many bytes would be in the next batch, by a cheap guess that does not touch the disk: more may have come
    /// when it is claimed. A source that cannot tell says that it is full.
    fn bytes_waiting(&self, limits: Limits) -> u64 {
        limits.bytes_max
    }

    /// Whether the next claim within these limits is served from memory, all of it. Otherwise it reads the disk and must not run
    /// on an async worker.
    fn in_memory(&self, limits: Limits) -> bool;

    /// Claims the next batch: those handed back first, as they were. `None` when there is nothing to send now.
    ///
    /// # Errors
    /// When the records cannot be read. They stay queued.
    fn next(&self, limits: Limits) -> Result<Option<Claimed>, BoxError>;

    /// Like [`next`](Self::next), for a batch that is read as it is sent. It never spans two moments that lie in
    /// different spans of `partition_ms` milliseconds. Whoever claims this way claims everything this way. May read the
    /// disk, all of the batch: `heavy` is a turn at heavy work, which is passed on while that lasts.
    ///
    /// # Errors
    /// When the log cannot be read. The records stay queued.
    fn next_large(
        &self,
        limits: Limits,
        partition_ms: Option<u64>,
        heavy: &Heavy,
    ) -> Result<Option<Claimed<LargeJob>>, BoxError>;

    /// The same queue's second read position, if it has one: what this one leaves out of what it has while it is behind. A batch
    /// that comes from there is this one's like any other.
    fn live(&self) -> Option<Arc<dyn Source>> {
        None
    }

    /// Whether it is the first of two read positions now, and hands out a backlog alone. Cheap; does not touch the disk.
    fn is_parted(&self) -> bool {
        false
    }

    /// Whether what it hands out now is no backlog, where one would have a second read position: it is that, or the first
    /// of a queue that is not behind. Cheap; does not touch the disk.
    fn is_fresh(&self) -> bool {
        false
    }

    /// What the next claim would find. May read the disk: not for async workers.
    ///
    /// # Errors
    /// When the log cannot be read.
    fn waiting(&self) -> Result<Waiting, BoxError>;

    /// What [waits](Self::waiting) only fills: passes its turn on to what of this queue need not, and says whether there is any.
    fn passes_on(&self) -> bool {
        false
    }

    /// Names whom to wake when records arrive or a batch is handed back. Called from any thread; must not block.
    fn on_more(&self, wake: Arc<dyn Fn() + Send + Sync>);

    /// The name of the stream that its queue reads, for people; empty where nobody is shown it.
    fn stream(&self) -> String {
        String::new()
    }

    /// Whose the records of this stream are that come from here, for people: what to look at when they are not taken.
    fn sender(&self, _log: LogId, _stream: StreamId) -> String {
        self.stream()
    }

    /// Has the records of one of several senders, each with a stream, wait while the others' go on: what is claimed from now on
    /// has none of them. Not before `until_ms` (milliseconds since 1970) is it looked for them, and not before this is called
    /// with `None`. Says `false`, and does nothing, where all that comes from here is one sender's.
    fn put_off(&self, _log: LogId, _stream: StreamId, _until_ms: Option<u64>) -> bool {
        false
    }
}

/// The size of a batch. One record is always taken, however large.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Records in a batch, at most.
    pub records_max: u64,
    /// Stored bytes in a batch, at most.
    pub bytes_max: u64,
}

/// A batch that is ours to send.
pub struct Claimed<J = Job> {
    /// Its records.
    pub job: J,
    /// Our right to it.
    pub ticket: Box<dyn Ticket>,
}

/// The right to settle one batch. Dropped without [`settle`](Self::settle) or [`split`](Self::split) it hands the
/// batch back. Offsets are those of the job's origin.
pub trait Ticket: Send + Sync {
    /// Makes the batch's boundaries durable. `done` runs when they are, on any thread, and must not block.
    fn plan(&self, done: Box<dyn FnOnce(Result<(), BoxError>) + Send>);

    /// Whether it may have been sent as it stands, before it was given back or before a crash: others know it by its boundaries.
    fn is_planned(&self) -> bool {
        false
    }

    /// Where it is to be split before anything of it is sent: that was tried, and may be durable though nobody was told so.
    fn to_be_split(&self) -> Option<u64> {
        None
    }

    /// Settles all of the batch in one step: `parts` each in its own way, `rest` what they leave out. It is never
    /// claimed again.
    fn settle(self: Box<Self>, parts: &[(Range<u64>, Settled)], rest: Settled);

    /// The batch was rejected, and it is not known yet whether it is to blame: it lies aside, still claimed, and what comes
    /// behind it may go.
    fn set_aside(&self) {}

    /// Splits the batch at the offset `at`, which lies behind its first record and not behind its last. `done` runs on
    /// any thread, and must not block: when the halves are as durable as the batch was, and handed back; or when that
    /// failed, and the batch is. From then on it is never claimed whole again where it was split.
    fn split(self: Box<Self>, at: u64, done: Box<dyn FnOnce(Result<(), BoxError>) + Send>);

    /// Where the batch's records at `offsets`, ascending, are stored; those that damage took are left out. Reads the disk: not
    /// for async workers.
    ///
    /// # Errors
    /// When the log cannot be read.
    fn letters(&self, offsets: &[u64]) -> Result<Vec<Stored>, BoxError>;
}

/// A record of a batch, as it is stored.
#[derive(Debug, Clone)]
pub struct Stored {
    /// Its offset in the batch.
    pub offset: u64,
    /// Where it comes from.
    pub origin: LetterOrigin,
    /// The number of the replay that it was claimed from; 0: from none.
    pub replay: u32,
    /// The environment that it belongs to.
    pub environment: Arc<Environment>,
    /// The stored batch that it lies in, as a whole.
    pub payload: Bytes,
    /// How many records come before it there.
    pub index: usize,
}

/// An error of which the loop only needs the text.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
