//! What the sidecar shows of itself: lag over gRPC, health, metrics.

pub mod forecast;
pub mod lag;
mod rates;
pub mod readings;
