//! The queues over the log.
#![expect(dead_code, reason = "the parts come before the whole")]

mod balance;
mod codec;
mod cursor;
mod floor_file;
mod lag;
mod limits;
mod marks;
mod window;

pub use balance::{Balance, Count, Settled};
pub use cursor::{Cursor, SettledRange};
pub use floor_file::{FloorDamage, FloorError};
pub use lag::Lag;
