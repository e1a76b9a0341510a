//! The two threads of a log: one that writes, one that keeps house. With [`LogOptions::inline`](super::LogOptions::inline)
//! there is none.

use super::shared::Shared;
use crate::sync::atomic::Ordering;
use crate::sync::thread::JoinHandle;
use crate::sync::{Arc, PoisonError};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

/// How often housekeeping looks by itself.
const KEEPER_PERIOD: Duration = Duration::from_secs(1);

/// What a thread is for.
type Body = Box<dyn FnOnce() + Send>;

/// The last clone of a [`Log`](super::Log) that is dropped takes these with it, and they end what was not closed.
pub(super) struct Threads {
    shared: Arc<Shared>,
    writer: Option<JoinHandle<()>>,
    keeper: Option<JoinHandle<()>>,
}

// === impl Threads ===

impl Threads {
    /// None: whoever calls the log does their work.
    pub(super) fn none(shared: &Arc<Shared>) -> Self {
        Self { shared: Arc::clone(shared), writer: None, keeper: None }
    }

    /// # Errors
    /// When the system starts no thread. None is left then.
    pub(super) fn start(shared: &Arc<Shared>) -> io::Result<Self> {
        Self::start_by(shared, |name, body| crate::sync::thread::Builder::new().name(name.into()).spawn(body))
    }

    fn start_by(shared: &Arc<Shared>, spawn: impl Fn(&str, Body) -> io::Result<JoinHandle<()>>) -> io::Result<Self> {
        let [writer, keeper] = [Arc::clone(shared), Arc::clone(shared)];
        let mut threads = Self::none(shared);
        threads.writer = Some(spawn("forebay-writer", Box::new(move || run_writer(&writer)))?);
        match spawn("forebay-keeper", Box::new(move || run_keeper(&keeper))) {
            Ok(keeper) => threads.keeper = Some(keeper),
            Err(error) => {
                shared.stop();
                threads.join();
                return Err(error);
            }
        }
        Ok(threads)
    }

    /// Waits until both have ended.
    pub(super) fn join(&mut self) {
        for thread in [self.writer.take(), self.keeper.take()].into_iter().flatten() {
            let _ = thread.join(); // one that panicked has aborted the process
        }
    }
}

fn run_writer(shared: &Shared) {
    or_abort("writer", || {
        while shared.wait_for_appends() {
            shared.commit_waiting();
        }
        shared.commit_waiting();
    });
}

fn run_keeper(shared: &Shared) {
    or_abort("keeper", || {
        while !shared.closing.load(Ordering::SeqCst) {
            shared.housekeep();
            let wanted = shared.keeper_wanted.lock().unwrap_or_else(PoisonError::into_inner);
            let waited = shared.keeper_wake.wait_timeout_while(wanted, KEEPER_PERIOD, |wanted| !*wanted);
            *waited.unwrap_or_else(PoisonError::into_inner).0 = false;
        }
    });
}

/// Runs what a thread is for. Should it panic its state may be anything, and who goes on without it takes in until the disk
/// is full: what is on disk is the truth, and the next start finds it.
pub(crate) fn or_abort(thread: &str, body: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(body)).is_err() {
        tracing::error!(
            thread,
            "a thread that all others need has panicked: the process ends, and nothing acknowledged with it"
        );
        std::process::abort();
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        // Where nobody closed it the threads hold the rest, and end by themselves (see run_writer).
        self.shared.stop();
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Log, LogOptions};
    use super::*;
    use crate::clock::ManualClock;
    use crate::disk::mem::MemDisk;
    use std::path::Path;

    /// The writer that ran on would have the log's lock, and nobody to end it.
    #[test]
    fn where_one_thread_cannot_be_started_the_other_one_has_ended() {
        for which in ["forebay-writer", "forebay-keeper"] {
            let (disk, clock) = (Arc::new(MemDisk::new()), Arc::new(ManualClock::at(1_000_000)));
            let log = Log::open(disk, clock, Path::new("/log"), LogOptions::small()).expect("it opens");
            let before = Arc::strong_count(&log.shared);
            let started = Threads::start_by(&log.shared, |name, body| match name == which {
                true => Err(io::ErrorKind::WouldBlock.into()),
                false => crate::sync::thread::Builder::new().spawn(body),
            });
            assert_eq!(started.map(drop).expect_err("there are too many").kind(), io::ErrorKind::WouldBlock);
            assert_eq!(Arc::strong_count(&log.shared), before, "{which}: nobody has it any more");
        }
    }
}
