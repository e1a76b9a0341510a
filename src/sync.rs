//! Locks, atomics and threads of the log and its queues: the standard library's. With the feature `shuttle` they are
//! those of a checker that runs one thread at a time and chooses at each of them who goes on, so that a test sees the
//! orders that a machine would show once a year, and any of them again from its seed.
//!
//! What always holds: whatever two threads of this package share goes by here, save what is written once and only read.

#[cfg(not(feature = "shuttle"))]
pub(crate) use std::{
    sync::{Arc, Condvar, Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak, atomic, mpsc},
    thread,
};

#[cfg(feature = "shuttle")]
pub(crate) use shuttle::{
    sync::{Arc, Condvar, Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak, atomic, mpsc},
    thread,
};

pub(crate) use std::sync::{OnceLock, PoisonError};
