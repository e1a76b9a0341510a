//! What the fuzzers call, and the replay of their corpora. No part of the API.

pub use crate::config::fuzzing::configuration;
pub use crate::control::fuzzing::control;
pub use crate::delivery::fuzzing::rate_headers;
pub use crate::impression::fuzzing::{ingest, stored};
pub use crate::ingest::fuzzing::gunzip;
pub use crate::letters::fuzzing::letters;
pub use crate::post::fuzzing::posts;
pub use crate::sinks::fuzzing::{answers, store_answers};

#[cfg(test)]
mod tests;
