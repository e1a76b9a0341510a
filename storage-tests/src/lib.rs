//! Crashes, faults and models against the real log.

pub mod conformance;
