//! The queues over the log.
#![expect(dead_code, reason = "the parts come before the whole")]

mod balance;
mod codec;
mod cursor;
mod lag;
mod limits;
mod marks;
mod window;

pub use balance::{Balance, Count, Settled};
pub use cursor::{Cursor, SettledRange};
pub use lag::Lag;
