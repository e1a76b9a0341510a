//! What must hold, kept on paper: the model that lives, crashes and recoveries are compared with.
//!
//! It knows no files and no threads. Its parts go by what those outside were told: what was acknowledged must be there,
//! what was not may be, whole, and what is decided after a crash stays decided.

pub mod deliveries;
pub mod log;
pub mod queues;
