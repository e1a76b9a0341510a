//! Whether the process may start the threads without which nothing runs. Asked before anything is begun: what starts them
//! later panics where it can't, in the middle of a start or of a delivery.

use std::io;
use std::sync::{Arc, PoisonError, RwLock};
use std::thread::{Builder, JoinHandle};

/// For the log and its queues, the cursor store, the lines of the process's own log, the watchdog, and a few calls that block.
const BESIDES: usize = 17;

/// Less than that and it would stop, or panic, at some later moment.
#[derive(Debug, thiserror::Error)]
#[error(
    "this process may start {started} threads and needs {needed}: raise its limit (`ulimit -u`, `TasksMax` of its unit, \
     `pids.max` of its container)"
)]
pub struct TooFewThreads {
    started: usize,
    needed: usize,
    #[source]
    why: io::Error,
}

/// Starts as many threads as are needed beside `workers`, all at a time, and ends them.
///
/// # Errors
/// When the system starts less.
pub(super) fn may_start(workers: usize) -> Result<(), TooFewThreads> {
    try_out(workers + BESIDES, |wait| Builder::new().name("forebay-trial".to_owned()).spawn(wait))
}

fn try_out(
    needed: usize,
    spawn: impl Fn(Box<dyn FnOnce() + Send>) -> io::Result<JoinHandle<()>>,
) -> Result<(), TooFewThreads> {
    let gate = Arc::new(RwLock::new(()));
    let closed = gate.write().unwrap_or_else(PoisonError::into_inner);
    let (mut threads, mut failure) = (Vec::with_capacity(needed), None);
    while threads.len() < needed && failure.is_none() {
        let gate = Arc::clone(&gate);
        match spawn(Box::new(move || drop(gate.read()))) {
            Ok(thread) => threads.push(thread),
            Err(why) => failure = Some(why),
        }
    }
    drop(closed);
    let started = threads.len();
    threads.into_iter().for_each(|thread| drop(thread.join()));
    failure.map_or(Ok(()), |why| Err(TooFewThreads { started, needed, why }))
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn who_may_start_too_few_threads_is_told_how_many_are_needed_and_what_to_raise() {
        may_start(2).expect("any machine gives so many");
        let left = Cell::new(5);
        let spawn = |wait: Box<dyn FnOnce() + Send>| {
            left.set(left.get() - 1);
            if left.get() < 0 { Err(io::ErrorKind::WouldBlock.into()) } else { Builder::new().spawn(wait) }
        };
        let told = try_out(7, spawn).unwrap_err();
        assert_eq!((told.started, told.needed), (5, 7));
        let told = told.to_string();
        assert!(told.contains("5 threads and needs 7") && told.contains("ulimit -u"), "{told}");
    }
}
