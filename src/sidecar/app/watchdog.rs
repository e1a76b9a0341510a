//! The watchdog of the threads that run tasks: asks each kind of them, once a second, whether anything new has its turn there.
//!
//! It asks with a task that does nothing, handed over from a thread of its own. As long as that has not run, the threads are
//! blocked, or have no CPU, and metrics and the log say so. And the task wakes a thread that sleeps. Of tokio's threads one
//! waits for timers and sockets on behalf of all, runs what these wake, and wakes no other for that; where it is blocked by
//! what it runs, no timer fires any more, though others sleep. The one that the task wakes takes over. See
//! docs/decisions/0150-watchdog.md.
//!
//! What always holds: it waits for no task and no thread of those that it watches, hands nothing over while its last task
//! waits, and ends when it is dropped.

use std::io;
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use forebay::clock::Clock;
use tokio::runtime::Handle;
use tracing::{info, warn};

use crate::api::readings::{Source, ThreadsReading};

/// How often it asks. No timer is later than that while one thread sleeps, and whoever waits for a destination waits as
/// long now and then; two empty tasks a second are nothing to the machine.
pub(super) const EVERY: Duration = Duration::from_secs(1);

/// What is watched, by the name of its threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Threads {
    Front,
    Send,
}

impl Threads {
    /// `forebay-` and this is what they are called.
    fn name(self) -> &'static str {
        match self {
            Self::Front => "front",
            Self::Send => "send",
        }
    }

    fn who_waits(self) -> &'static str {
        match self {
            Self::Front => "SDKs and operators wait",
            Self::Send => "deliveries wait ([delivery] threads gives them more)",
        }
    }
}

/// See the module. Ends as it is dropped.
pub(super) struct Watchdog {
    watched: Arc<[Arc<Watched>]>,
    /// Its other end hears when this is dropped.
    end: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Watchdog {
    /// # Errors
    /// When the operating system gives no thread.
    pub(super) fn start(
        clock: &Arc<dyn Clock>,
        watched: impl IntoIterator<Item = (Threads, Handle)>,
        every: Duration,
    ) -> io::Result<Self> {
        let watch = |(threads, runtime)| Arc::new(Watched::new(threads, runtime, Arc::clone(clock)));
        let watched: Arc<[_]> = watched.into_iter().map(watch).collect();
        let (end, ended) = sync_channel(0);
        let all = Arc::clone(&watched);
        let thread = Builder::new().name("forebay-watch".to_owned()).spawn(move || {
            while ended.recv_timeout(every) == Err(RecvTimeoutError::Timeout) {
                all.iter().for_each(|watched| watched.look(every));
            }
        })?;
        Ok(Self { watched, end: Some(end), thread: Some(thread) })
    }

    /// What it knows, for as long as somebody looks.
    pub(super) fn source(&self) -> Source<Vec<ThreadsReading>> {
        let watched = Arc::clone(&self.watched);
        Box::new(move || watched.iter().map(|watched| watched.reading()).collect())
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.end = None;
        // At most it hands a task over, or a line to the log: neither waits for anybody.
        self.thread.take().into_iter().for_each(|thread| drop(thread.join()));
    }
}

/// The threads of one runtime.
struct Watched {
    threads: Threads,
    runtime: Handle,
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    asked: Asked,
    /// How often it took longer than from one look to the next.
    stalls: u64,
}

/// What became of the task.
#[derive(Default, Clone, Copy)]
enum Asked {
    /// It has run, or never will: the runtime is gone.
    #[default]
    Answered,
    Waits {
        since: Duration,
    },
    /// It waits, and that was told.
    Stalled {
        since: Duration,
    },
    /// It has run after it was told that it waits, and this is not told yet.
    Over {
        lasted: Duration,
    },
}

impl Watched {
    fn new(threads: Threads, runtime: Handle, clock: Arc<dyn Clock>) -> Self {
        Self { threads, runtime, clock, state: Mutex::default() }
    }

    /// Says what is new, and asks once more if the last time was answered.
    fn look(self: &Arc<Self>, every: Duration) {
        let threads = self.threads;
        let now = self.clock.monotonic();
        let mut state = self.state();
        let before = state.asked;
        match before {
            Asked::Waits { since } if now.saturating_sub(since) >= every => {
                state.asked = Asked::Stalled { since };
                state.stalls += 1;
                drop(state);
                warn!(
                    threads = format_args!("forebay-{}", threads.name()),
                    waited = ?now.saturating_sub(since),
                    "nothing new has its turn on these threads, and {}: the machine or its container has no CPU for them, \
                     or a call blocks them all, which is a bug; their stacks, while it lasts, tell where",
                    threads.who_waits()
                );
            }
            Asked::Waits { .. } | Asked::Stalled { .. } => {}
            Asked::Answered | Asked::Over { .. } => {
                state.asked = Asked::Waits { since: now };
                // Where the runtime is gone the task is answered for at once.
                drop(state);
                let probe = Probe(Arc::clone(self));
                self.runtime.spawn(async move { drop(probe) });
                if let Asked::Over { lasted } = before {
                    info!(threads = format_args!("forebay-{}", threads.name()), ?lasted, "these threads go on");
                }
            }
        }
    }

    fn reading(&self) -> ThreadsReading {
        let State { asked, stalls } = *self.state();
        let waits = match asked {
            Asked::Waits { since } | Asked::Stalled { since } => self.clock.monotonic().saturating_sub(since),
            Asked::Answered | Asked::Over { .. } => Duration::ZERO,
        };
        ThreadsReading { threads: self.threads.name(), waits, stalls }
    }

    fn answered(&self) {
        let now = self.clock.monotonic();
        let mut state = self.state();
        state.asked = match state.asked {
            Asked::Stalled { since } => Asked::Over { lasted: now.saturating_sub(since) },
            _ => Asked::Answered,
        };
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Replaced field by field, and each is right by itself.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Answers when it goes: as its task runs, or as that is thrown away with its runtime.
struct Probe(Arc<Watched>);

impl Drop for Probe {
    fn drop(&mut self) {
        self.0.answered();
    }
}

#[cfg(test)]
mod tests;
