//! The queues over the log.
#![expect(dead_code, reason = "the parts come before the whole")]

mod balance;
mod codec;
mod cursor;
mod cursor_store;
mod floor_file;
mod hint;
mod lag;
mod limits;
mod marks;
mod mem_store;
mod plan;
mod planner;
mod sled_store;
mod store_keeper;
mod window;

pub use balance::{Balance, Count, Settled};
pub use cursor::{Cursor, SettledRange};
pub use cursor_store::{CursorStore, KeyValue, OpenStore, StoreChoice, StoreError};
pub use floor_file::{FloorDamage, FloorError};
pub use lag::Lag;
pub use mem_store::MemStore;
pub use planner::PlanError;
