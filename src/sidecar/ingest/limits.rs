//! Every bound of the way in, each with its reason. What a configuration may set is a field of [`Limits`]; the rest
//! are constants.

use std::time::Duration;

/// The most a request's line and headers may take. SDKs send less than 1 KiB; browsers add cookies of the host.
pub(crate) const HEAD_BYTES_MAX: usize = 32 * 1024;

/// What hyper may buffer of one connection's bytes. Bounds a read, and with [`Limits::connections_max`] all buffers.
pub(crate) const READ_BUFFER_BYTES_MAX: usize = 64 * 1024;

/// The most a beacon may weigh. Browsers stop at 64 KiB for all beacons in flight; its sender is known only when the
/// body has been read, so a stranger must not make us hold more.
pub(crate) const BEACON_BYTES_MAX: u64 = 1024 * 1024;

/// What is read and thrown away of a body that is refused, or behind a head that is, so that the sender gets to see the
/// answer: closing a socket with unread bytes resets it, and Java's one retry on 503 becomes a loss.
pub(crate) const DISCARD_BYTES_MAX: u64 = 128 * 1024 * 1024;

/// How long that may take.
pub(crate) const DISCARD_TIME_MAX: Duration = Duration::from_secs(10);

/// Bodies above this are parsed on a thread of their own: it takes above 0.1 ms, and other connections wait meanwhile.
pub(crate) const INLINE_BYTES_MAX: usize = 256 * 1024;

/// A body of unknown length reserves memory in steps of at least this: small enough not to waste, large enough that
/// a body of 64 MiB asks a dozen times, for the steps double.
pub(crate) const STEP_BYTES_MIN: u64 = 64 * 1024;

/// How often a connection's patience is looked at. Every time limit of a connection is a multiple of it.
pub(crate) const PATIENCE_TICK: Duration = Duration::from_secs(5);

/// A refused sender comes back after this. Java sleeps it to the second, and keeps nothing beyond one retry.
pub(crate) const RETRY_AFTER_SECONDS: u64 = 1;

/// The same when the log cannot take anything for a while (a full or failed disk).
pub(crate) const RETRY_AFTER_DISK_SECONDS: u64 = 5;

/// What is wrong with one SDK key's posts is logged once in this time, for each cause.
pub(crate) const COMPLAINT_INTERVAL: Duration = Duration::from_secs(60);

/// An upstream's share of the disk is said to run short when so much of it is in use.
pub(crate) const RELAY_WARN_PERCENT: u64 = 80;

/// Environments that one process may see come and go. Twice what a configuration may name; each keeps a place, its
/// counters among it, until the process ends: about 300 bytes.
pub(crate) const ENVIRONMENTS_MAX: usize = 20_000;

/// What a configuration may set.
#[derive(Debug, Clone)]
pub struct Limits {
    /// The largest body, decoded. An SDK posts its whole queue at once and never splits: 70,000 impressions weigh 6 MB.
    pub body_bytes_max: u64,
    /// Memory for all bodies together, with their stored form until it is on disk.
    pub memory_bytes_max: u64,
    /// What may be on its way to the disk at once: no more than the log queues.
    pub queue_bytes_max: u64,
    /// How long a request waits for memory before it is refused. Above Python's own 1.5 s, because Go and Ruby lose
    /// what is refused.
    pub memory_wait_max: Duration,
    /// A body must be complete within this time of its head.
    pub body_time_max: Duration,
    /// A request's head must be complete within this time of its first byte. Rounded up to 5 s.
    pub head_time_max: Duration,
    /// A connection that asks for nothing is closed after this time. Rounded up to 5 s.
    pub idle_time_max: Duration,
    /// Connections at once; more wait in the kernel's queue, and idle ones are closed sooner.
    pub connections_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes_max: 64 * 1024 * 1024,
            memory_bytes_max: 256 * 1024 * 1024,
            queue_bytes_max: 64 * 1024 * 1024,
            memory_wait_max: Duration::from_secs(5),
            body_time_max: Duration::from_secs(60),
            head_time_max: Duration::from_secs(10),
            idle_time_max: Duration::from_secs(90),
            connections_max: 1024,
        }
    }
}
