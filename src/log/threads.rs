//! The two threads of a log: one that writes, one that keeps house. With [`LogOptions::inline`](super::LogOptions::inline)
//! there is none.

use super::shared::Shared;
use crate::sync::atomic::Ordering;
use crate::sync::thread::JoinHandle;
use crate::sync::{Arc, PoisonError};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

/// How often housekeeping looks by itself.
const KEEPER_PERIOD: Duration = Duration::from_secs(1);

#[derive(Default)]
pub(super) struct Threads {
    writer: Option<JoinHandle<()>>,
    keeper: Option<JoinHandle<()>>,
}

// === impl Threads ===

impl Threads {
    pub(super) fn start(shared: &Arc<Shared>) -> Self {
        let writer = Arc::clone(shared);
        let keeper = Arc::clone(shared);
        let spawn = |name: &str, body: Box<dyn FnOnce() + Send>| {
            crate::sync::thread::Builder::new().name(name.into()).spawn(body).expect("the system can start a thread")
        };
        Self {
            writer: Some(spawn("forebay-writer", Box::new(move || run_writer(&writer)))),
            keeper: Some(spawn("forebay-keeper", Box::new(move || run_keeper(&keeper)))),
        }
    }

    /// Waits until both have ended.
    pub(super) fn join(&mut self) {
        for thread in [self.writer.take(), self.keeper.take()].into_iter().flatten() {
            // A writer that panicked has aborted the process; a keeper that did has logged it.
            let _ = thread.join();
        }
    }
}

fn run_writer(shared: &Shared) {
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        while shared.wait_for_appends() {
            shared.commit_waiting();
        }
        shared.commit_waiting();
    }));
    if panicked.is_err() {
        // Its state may be anything: what is on disk is the truth, and recovery finds it.
        std::process::abort();
    }
}

fn run_keeper(shared: &Shared) {
    while !shared.closing.load(Ordering::SeqCst) {
        shared.housekeep();
        let wanted = shared.keeper_wanted.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = shared.keeper_wake.wait_timeout_while(wanted, KEEPER_PERIOD, |wanted| !*wanted);
        *waited.unwrap_or_else(PoisonError::into_inner).0 = false;
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        // The last clone is gone without a close: the threads hold the rest and end by themselves (see run_writer).
        drop(self.writer.take());
        drop(self.keeper.take());
    }
}
