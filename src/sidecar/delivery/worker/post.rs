//! One destination as the outside has it: to wake it, to pause it, to stop it, to watch it.
//!
//! What always holds: a worker is in one place, here at rest or in its one task; no wake-up is lost by one that is
//! just going to rest or to sleep; and one that could do nothing with what came is not woken for it, but finds it when it looks
//! next.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::task::{AbortHandle, JoinHandle};

use super::Worker;
use crate::delivery::stats::{DeliveryStats, State, Waits};

/// One destination. Keeps its worker while that rests.
pub(in crate::delivery) struct Post {
    place: Mutex<Place>,
    pub(super) wake: Notify,
    /// There may be something to send that the worker has not looked for yet.
    news: AtomicBool,
    /// The worker sleeps, and would do something with news.
    listens: AtomicBool,
    stopping: AtomicBool,
    /// An operator holds it: it rests, whatever there is to send.
    paused: AtomicBool,
    /// An operator wants a destination that is waited for to be tried now.
    probe: AtomicBool,
    /// The number of the pace's epoch, for flights that have not sent yet.
    pub(super) epoch: AtomicU64,
    pub(in crate::delivery) stats: DeliveryStats,
}

/// Where the worker is.
enum Place {
    /// Here: there is nothing to send, so there is no task.
    Resting(Worker),
    /// In its task.
    Working { task: JoinHandle<()> },
    /// It was told to stop; what is in flight may land still.
    Ended(Option<Arc<Ending>>),
}

/// A task that was told to stop. Whoever waits for it may give up: it stays for others to wait for.
pub(in crate::delivery) struct Ending {
    cut: AbortHandle,
    task: tokio::sync::Mutex<Option<JoinHandle<()>>>,
}

impl Ending {
    fn of(task: JoinHandle<()>) -> Arc<Self> {
        Arc::new(Self { cut: task.abort_handle(), task: tokio::sync::Mutex::new(Some(task)) })
    }

    /// Waits until it is really gone, with all that it has claimed. What ended it is of no interest.
    pub(in crate::delivery) async fn gone(&self) {
        let mut task = self.task.lock().await;
        if let Some(running) = task.as_mut() {
            let _ = running.await;
            *task = None;
        }
    }

    /// Does not let it come to its end. Does not wait for it to be gone.
    pub(in crate::delivery) fn cut_off(&self) {
        self.cut.abort();
    }
}

impl Post {
    pub(in crate::delivery) fn new(worker: Worker) -> Arc<Self> {
        Arc::new(Self {
            place: Mutex::new(Place::Resting(worker)),
            wake: Notify::new(),
            news: AtomicBool::new(false),
            listens: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            paused: AtomicBool::new(false),
            probe: AtomicBool::new(false),
            epoch: AtomicU64::new(0),
            stats: DeliveryStats::default(),
        })
    }

    /// There may be something to send. Does not wait for it.
    pub(in crate::delivery) fn wake(self: &Arc<Self>) {
        // Whoever told it before has woken it, or it will look by itself.
        if !self.news.swap(true, Ordering::SeqCst) {
            self.rouse();
        }
    }

    /// Sees to it that news are looked at.
    fn rouse(self: &Arc<Self>) {
        let mut place = self.place();
        match std::mem::replace(&mut *place, Place::Ended(None)) {
            Place::Resting(worker) if self.paused() || worker.common.held_back.load(Ordering::SeqCst) => {
                *place = Place::Resting(worker);
            }
            Place::Resting(worker) => {
                let runtime = worker.common.runtime.clone();
                *place = Place::Working { task: runtime.spawn(worker.run(Arc::clone(self))) };
            }
            Place::Working { task } => {
                *place = Place::Working { task };
                if self.listens.load(Ordering::SeqCst) {
                    self.wake.notify_one();
                }
            }
            Place::Ended(ending) => *place = Place::Ended(ending),
        }
    }

    /// What came while all were held back is looked at.
    pub(in crate::delivery) fn go_on(self: &Arc<Self>) {
        // Who tells it now finds it held back no more, or has told it before this is asked.
        if self.news.load(Ordering::SeqCst) || self.probe.load(Ordering::SeqCst) {
            self.rouse();
        }
    }

    /// No batch is started until [`resume`](Self::resume); those in flight go on, and so does what they become.
    pub(in crate::delivery) fn pause(&self) {
        let place = self.place();
        self.paused.store(true, Ordering::Release);
        match &*place {
            Place::Resting(_) => self.stats.set_state(State::Paused),
            Place::Working { .. } => self.wake.notify_one(),
            Place::Ended(_) => {}
        }
    }

    /// Batches are started again.
    pub(in crate::delivery) fn resume(self: &Arc<Self>) {
        let place = self.place();
        self.paused.store(false, Ordering::Release);
        // Who is about to rest looks for news behind this, and knows of none yet that came while it was paused.
        self.news.store(true, Ordering::SeqCst);
        if matches!(&*place, Place::Resting(_)) {
            self.stats.set_state(State::Idle);
        }
        drop(place);
        // It finds out by itself whether there is anything to send.
        self.rouse();
        self.wake.notify_one();
    }

    /// Whatever it waits for, it tries once now.
    pub(in crate::delivery) fn probe(self: &Arc<Self>) {
        self.probe.store(true, Ordering::Release);
        self.rouse();
        self.wake.notify_one();
    }

    /// Whether it is to try once now; asked once.
    pub(super) fn take_probe(&self) -> bool {
        self.probe.load(Ordering::Acquire) && self.probe.swap(false, Ordering::AcqRel)
    }

    /// Whether it is to try once now; asked without taking it.
    pub(super) fn wants_probe(&self) -> bool {
        self.probe.load(Ordering::Acquire)
    }

    /// No batch is started from now on; those in flight go on. Returns what to wait for, if there is a task: the same to
    /// everybody who asks.
    pub(in crate::delivery) fn stop(&self) -> Option<Arc<Ending>> {
        self.stopping.store(true, Ordering::Release);
        let mut place = self.place();
        let ending = match std::mem::replace(&mut *place, Place::Ended(None)) {
            Place::Resting(_) => {
                self.stats.set_state(State::Stopped);
                None
            }
            Place::Working { task } => {
                self.wake.notify_one();
                Some(Ending::of(task))
            }
            Place::Ended(ending) => ending,
        };
        *place = Place::Ended(ending.clone());
        ending
    }

    /// Whether there are news since this was asked last.
    pub(super) fn take_news(&self) -> bool {
        self.news.load(Ordering::SeqCst) && self.news.swap(false, Ordering::SeqCst)
    }

    /// The worker goes to sleep, and says whether it would do something with news. `false`: there are some.
    pub(super) fn may_sleep(&self, listens: bool) -> bool {
        // In this order: who brings news says so first, and then looks whether somebody listens.
        self.listens.store(listens, Ordering::SeqCst);
        !(listens && self.news.load(Ordering::SeqCst))
    }

    /// Takes a worker that found nothing to send. Gives it back if there are news.
    pub(super) fn rest(&self, worker: Worker) -> Option<Worker> {
        self.stats.set_in_flight(0);
        self.stats.set_undecided(0);
        self.stats.set_waits(Waits::Nothing);
        let mut place = self.place();
        match &mut *place {
            // A probe that came as it went to rest would stay until something else woke it.
            Place::Working { .. } if (self.news.load(Ordering::SeqCst) || self.wants_probe()) && !self.paused() => {
                return Some(worker);
            }
            Place::Ended(_) => self.stats.set_state(State::Stopped),
            _ => {
                self.stats.set_state(match (self.paused(), worker.pace.refused()) {
                    (true, _) => State::Paused,
                    (false, true) => State::Refused { until_ms: 0 },
                    (false, false) => State::Idle,
                });
                *place = Place::Resting(worker);
            }
        }
        None
    }

    pub(in crate::delivery) fn stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    fn paused(&self) -> bool {
        self.paused.load(Ordering::Acquire)
    }

    /// No batch may be started now.
    pub(super) fn held(&self) -> bool {
        self.stopping() || self.paused()
    }

    fn place(&self) -> MutexGuard<'_, Place> {
        // Nothing that can panic runs between two changes of a place.
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
