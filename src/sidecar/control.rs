//! What operators decide at run time, kept: the stream `!control` of the log and the state that its records come to.
//!
//! Knows what was decided, and nothing of what runs. What always holds: a decision is on disk before whoever made it
//! hears of it; the state is what the records come to, in their order; a record that is damaged is named and skipped,
//! and nothing that other records say is undone by that: a destination may come up with older settings or be missing
//! until it is made again, its queues and records stay.

#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
mod journal;
mod replay;
mod state;

pub use journal::{CONTROL_STREAM, Journal, JournalError};
pub use replay::Skipped;
pub use state::{Fingerprint, REVISIONS_KEPT, Revision, State, fingerprint, place_keys};
