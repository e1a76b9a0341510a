//! Crashes, faults and models against the real log.

pub mod conformance;
pub mod fault;
pub mod rng;
pub mod sim_disk;
