//! Crashes, faults and models against the real log.

pub mod any_change;
pub mod conformance;
pub mod corpus;
pub mod crash_points;
pub mod crew;
pub mod fault;
pub mod golden;
pub mod interrupted;
pub mod known_entropy;
pub mod matrix;
pub mod model;
pub mod mounts;
pub mod power_cuts;
pub mod promises;
pub mod queue_life;
pub mod queues;
pub mod repository;
pub mod resident;
pub mod rng;
pub mod scripts;
pub mod sequences;
pub mod sim_disk;
pub mod teeth;
pub mod workload;
#[cfg(feature = "shuttle")]
pub mod yielding;
