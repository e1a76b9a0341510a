//! Forebay: an embedded durable log with a persistent queue per destination.

pub mod clock;
pub mod disk;
mod log;
mod offset;
mod queue;

pub use log::SyncedMark;
pub use offset::{LogId, Sequence, StreamId, base64_digits};
pub use queue::{Balance, Count, Cursor, FloorDamage, FloorError, Lag, Settled, SettledRange};
