//! cli

pub mod lag;
mod units;
