//! The threads of the process: the way in has its own, deliveries have theirs.
//!
//! A batch is read, encoded and handed to its connection in one go, which takes a thread for a good part of a
//! millisecond, and where many destinations have something to send, all threads there are. A post that arrives then
//! would wait for one of them. So the operating system shares the cores between the two, and deliveries are never on
//! more than half of them unless the operator says so.

use std::io;
use std::num::NonZero;
use std::thread::available_parallelism;
use std::time::Duration;

use tokio::runtime::{Builder, Handle, Runtime};

/// What a runtime may take to end once everything on it was told to.
const END: Duration = Duration::from_secs(1);

/// Both.
pub(super) struct Runtimes {
    /// The way in, and what shows how it goes.
    front: Runtime,
    deliveries: Runtime,
}

impl Runtimes {
    /// Starts the threads: as many for deliveries as `[delivery] threads` says, of which 0 is half the cores.
    ///
    /// # Errors
    /// When the operating system gives no threads.
    pub(super) fn start(delivery_threads: u32) -> io::Result<Self> {
        let front = Builder::new_multi_thread().enable_all().thread_name("forebay-front").build()?;
        let threads = threads(delivery_threads, cores());
        let deliveries =
            Builder::new_multi_thread().enable_all().worker_threads(threads).thread_name("forebay-send").build()?;
        Ok(Self { front, deliveries })
    }

    /// Runs to its end on the calling thread what starts and stops everything else.
    pub(super) fn block_on<T>(&self, whole: impl Future<Output = T>) -> T {
        self.front.block_on(whole)
    }

    /// Where deliveries run.
    pub(super) fn deliveries(&self) -> Handle {
        self.deliveries.handle().clone()
    }

    /// Ends the threads. Requests that were cut off must not hold the process: whatever they were, they will be repeated.
    pub(super) fn end(self) {
        self.deliveries.shutdown_timeout(END);
        self.front.shutdown_timeout(END);
    }
}

/// Threads of both that always run.
pub(super) fn workers(delivery_threads: u32) -> usize {
    cores() + threads(delivery_threads, cores())
}

fn cores() -> usize {
    available_parallelism().map_or(1, NonZero::get)
}

fn threads(asked: u32, cores: usize) -> usize {
    match asked {
        0 => (cores / 2).max(1),
        asked => asked as usize,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deliveries_get_half_the_cores_or_what_was_asked_for() {
        assert_eq!([1, 2, 3, 8].map(|cores| threads(0, cores)), [1, 1, 1, 4]);
        assert_eq!(threads(5, 2), 5);
    }

    #[test]
    fn deliveries_run_on_threads_of_their_own() {
        let runtimes = Runtimes::start(1).expect("threads");
        let name = || std::thread::current().name().map(str::to_owned);
        let [front, send] = runtimes.block_on(async {
            let front = tokio::spawn(async move { name() }).await.expect("runs");
            let send = runtimes.deliveries().spawn(async move { name() }).await.expect("runs");
            [front, send]
        });
        assert_eq!([front.as_deref(), send.as_deref()], [Some("forebay-front"), Some("forebay-send")]);
        runtimes.end();
    }
}
