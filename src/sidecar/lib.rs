//! The Forebay sidecar: impressions in over HTTP, out to every destination at its own pace.

pub mod ages;
pub mod api;
pub mod app;
mod causes;
pub mod cli;
pub mod config;
mod console;
pub mod control;
pub mod delivery;
pub mod demo;
mod fair_share;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
pub mod impression;
pub mod ingest;
pub mod letters;
#[cfg(test)]
mod logged;
pub mod overflow;
pub mod post;
pub mod proto;
pub mod ready;
pub mod shutdown;
pub mod sinks;
pub mod telemetry;
