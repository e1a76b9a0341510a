//! Keeps a cursor store at arm's length: on a thread of its own, behind deadlines, so that a store that hangs, fails or
//! panics costs hints and nothing else.
//!
//! Offers never block and never pile up: of a value that is offered again before the store took it, the latest wins. Between
//! two batches it is left alone for a while, since each costs syncs that the log's commits wait behind.
//! A store that failed, or that took longer than the deadline over one batch, is not used again in this process; its
//! thread may hang for ever, and holds nothing that anybody waits for.

use super::cursor_store::{CursorStore, KeyValue, OpenStore, StoreError};
use crate::clock::Clock;
use crate::failpoints::{self, Point};
use crate::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use crate::sync::thread::JoinHandle;
use crate::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

/// The hints' way to the store and back.
pub(crate) struct StoreKeeper {
    shared: Arc<Shared>,
    clock: Arc<dyn Clock>,
    deadline: Duration,
    /// The store itself where everything runs on the caller's thread.
    inline: Option<Mutex<Box<dyn CursorStore>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    waiting: BTreeMap<Vec<u8>, Vec<u8>>,
    /// When the store took the batch that it is at.
    busy_since: Option<Duration>,
    /// Why the store is not used any more.
    given_up: Option<Arc<str>>,
    closing: bool,
    /// The thread is done with the store. Not so of one that was given up because it hangs.
    ended: bool,
    batches: u64,
}

/// How a store failed to open.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenFailure {
    #[error(transparent)]
    Refused(#[from] StoreError),
    #[error("the cursor store panicked")]
    Panicked,
    #[error("the cursor store did not open within {0:?}")]
    Hung(Duration),
    #[error("no thread for the cursor store: {0}")]
    NoThread(std::io::Error),
}

impl StoreKeeper {
    /// Opens the store on a thread of its own and reads what it has, within `deadline`; the same deadline holds for
    /// each batch later. Between two batches `pause` goes by; without one everything runs on the caller's thread, without a deadline.
    ///
    /// # Errors
    /// When it did not open. If it hung its thread is left behind and may still touch its files.
    pub(crate) fn open(
        open: OpenStore,
        clock: Arc<dyn Clock>,
        deadline: Duration,
        pause: Option<Duration>,
    ) -> Result<(Self, Vec<KeyValue>), OpenFailure> {
        let shared = Arc::new(Shared::default());
        let Some(pause) = pause else {
            let (store, found) = open_caught(&open)?;
            let inline = Some(Mutex::new(store));
            return Ok((Self { shared, clock, deadline, inline, thread: Mutex::new(None) }, found));
        };
        let (opened, answer) = sync_channel(1);
        let (theirs, their_clock) = (Arc::clone(&shared), Arc::clone(&clock));
        let thread = crate::sync::thread::Builder::new()
            .name("forebay-hints".into())
            .spawn(move || run(&open, &opened, &theirs, &*their_clock, pause))
            .map_err(OpenFailure::NoThread)?;
        match answer.recv_timeout(deadline) {
            Ok(Ok(found)) => {
                Ok((Self { shared, clock, deadline, inline: None, thread: Mutex::new(Some(thread)) }, found))
            }
            Ok(Err(failure)) => Err(failure),
            Err(RecvTimeoutError::Disconnected) => Err(OpenFailure::Panicked),
            Err(RecvTimeoutError::Timeout) => {
                shared.lock().closing = true; // should it ever open
                Err(OpenFailure::Hung(deadline))
            }
        }
    }

    /// Hands over values for the next batch. Does not block and does not fail.
    pub(crate) fn offer(&self, values: impl IntoIterator<Item = KeyValue>) {
        let now = self.clock.monotonic();
        let mut state = self.shared.lock();
        if state.busy_since.is_some_and(|since| now.saturating_sub(since) > self.deadline) {
            state.give_up(format!("the cursor store took more than {:?} over one batch", self.deadline));
        }
        if state.given_up.is_some() {
            return;
        }
        state.waiting.extend(values);
        if let Some(store) = &self.inline {
            let values: Vec<_> = std::mem::take(&mut state.waiting).into_iter().collect();
            let mut store = store.lock().unwrap_or_else(PoisonError::into_inner);
            match store_caught(&mut **store, &values) {
                Ok(()) => state.batches += u64::from(!values.is_empty()),
                Err(error) => state.give_up(error.to_string()),
            }
        } else {
            self.shared.changed.notify_all();
        }
    }

    /// Why the store is not used any more, if so.
    pub(crate) fn given_up(&self) -> Option<Arc<str>> {
        self.shared.lock().given_up.clone()
    }

    /// Batches stored.
    pub(crate) fn batches(&self) -> u64 {
        self.shared.lock().batches
    }

    /// Lets the store take what waits, for at most `patience`, and closes it.
    pub(crate) fn close(&self, patience: Duration) {
        self.shared.lock().closing = true;
        self.shared.changed.notify_all();
        let Some(thread) = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take() else { return };
        let working = |state: &mut State| !state.ended;
        let state = self.shared.changed.wait_timeout_while(self.shared.lock(), patience, working);
        if state.unwrap_or_else(PoisonError::into_inner).1.timed_out() {
            return; // it hangs: leave it behind
        }
        let _ = thread.join();
    }
}

impl Drop for StoreKeeper {
    fn drop(&mut self) {
        // Without a close nobody waits for the store, but its thread must end and let go of its files.
        self.shared.lock().closing = true;
        self.shared.changed.notify_all();
    }
}

/// The store's thread: opens it, answers with what it has, then stores one batch after the other.
fn run(
    open: &OpenStore,
    opened: &SyncSender<Result<Vec<KeyValue>, OpenFailure>>,
    shared: &Shared,
    clock: &dyn Clock,
    pause: Duration,
) {
    let (mut store, found) = match open_caught(open) {
        Ok(opened) => opened,
        Err(failure) => {
            let _ = opened.send(Err(failure));
            return;
        }
    };
    if opened.send(Ok(found)).is_err() {
        return; // nobody waits any more: it took too long
    }
    let why = loop {
        let Some(values) = shared.next_batch(clock) else { break "closed".to_owned() };
        let stored = store_caught(&mut *store, &values);
        let mut state = shared.lock();
        state.busy_since = None;
        match stored {
            Ok(()) => state.batches += 1,
            Err(error) => break error.to_string(),
        }
        let goes_on = |state: &mut State| !state.closing && state.given_up.is_none();
        drop(shared.changed.wait_timeout_while(state, pause, goes_on));
    };
    // Dropping a store may panic as well as using it.
    let _ = catch_unwind(AssertUnwindSafe(|| drop(store)));
    let mut state = shared.lock();
    state.give_up(why);
    state.ended = true;
    shared.changed.notify_all();
}

fn open_caught(open: &OpenStore) -> Result<(Box<dyn CursorStore>, Vec<KeyValue>), OpenFailure> {
    let opened = catch_unwind(AssertUnwindSafe(|| {
        let mut store = open()?;
        let found = store.load()?;
        Ok((store, found))
    }));
    opened.unwrap_or(Err(OpenFailure::Panicked))
}

fn store_caught(store: &mut dyn CursorStore, values: &[KeyValue]) -> Result<(), StoreError> {
    if values.is_empty() {
        return Ok(());
    }
    let store = AssertUnwindSafe(|| store.store(values));
    let stored = failpoints::around(Point::SledStore, || catch_unwind(store));
    stored.unwrap_or_else(|_| Err(StoreError("it panicked".into())))
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Blocks until there is something to store. `None` when there will not be.
    fn next_batch(&self, clock: &dyn Clock) -> Option<Vec<KeyValue>> {
        let idle = |state: &mut State| state.waiting.is_empty() && !state.closing && state.given_up.is_none();
        let mut state = self.changed.wait_while(self.lock(), idle).unwrap_or_else(PoisonError::into_inner);
        if state.waiting.is_empty() {
            return None; // so it is of one that was given up
        }
        state.busy_since = Some(clock.monotonic());
        Some(std::mem::take(&mut state.waiting).into_iter().collect())
    }
}

impl State {
    fn give_up(&mut self, why: String) {
        if self.given_up.is_none() {
            if !self.closing {
                tracing::warn!(why, "going on without the cursor store");
            }
            self.given_up = Some(why.into());
        }
        self.waiting.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{ManualClock, SystemClock};
    use crate::queue::cursor_store::StoreChoice;
    use crate::queue::mem_store::MemStore;
    use std::path::Path;

    const SOON: Duration = Duration::from_millis(50);
    const PATIENCE: Duration = Duration::from_secs(30);

    /// Does what it is told at each batch.
    struct Unruly {
        inner: MemStore,
        act: Arc<dyn Fn() + Send + Sync>,
        refuses: bool,
    }

    impl CursorStore for Unruly {
        fn load(&mut self) -> Result<Vec<KeyValue>, StoreError> {
            self.inner.load()
        }

        fn store(&mut self, values: &[KeyValue]) -> Result<(), StoreError> {
            (self.act)();
            if self.refuses { Err(StoreError("no".into())) } else { self.inner.store(values) }
        }
    }

    fn unruly(inner: &MemStore, refuses: bool, act: impl Fn() + Send + Sync + 'static) -> OpenStore {
        let (inner, act): (_, Arc<dyn Fn() + Send + Sync>) = (inner.clone(), Arc::new(act));
        Arc::new(move || Ok(Box::new(Unruly { inner: inner.clone(), act: Arc::clone(&act), refuses })))
    }

    fn open(open: OpenStore) -> Result<(StoreKeeper, Vec<KeyValue>), OpenFailure> {
        StoreKeeper::open(open, Arc::new(SystemClock::new()), PATIENCE, Some(Duration::ZERO))
    }

    fn value(n: u8) -> KeyValue {
        (vec![n % 3], vec![n])
    }

    #[test]
    fn what_is_offered_is_there_after_a_close_and_the_latest_value_wins() {
        let store = MemStore::default();
        let (keeper, found) = open(StoreChoice::Memory(store.clone()).opener(Path::new(""))).expect("it opens");
        assert_eq!(found, []);
        (0..60).for_each(|n| keeper.offer([value(n)]));
        keeper.close(PATIENCE);
        let (_, found) = open(StoreChoice::Memory(store).opener(Path::new(""))).expect("it opens");
        assert_eq!(found, [value(57), value(58), value(59)]);
    }

    #[test]
    fn offers_made_while_the_store_is_busy_are_one_batch() {
        let (enter, entered) = sync_channel(1);
        let (leave, left) = sync_channel::<()>(1);
        let left = Mutex::new(left);
        let store = unruly(&MemStore::default(), false, move || {
            let _ = enter.send(());
            let _ = left.lock().expect("one thread").recv();
        });
        let (keeper, _) = open(store).expect("it opens");
        keeper.offer([value(0)]);
        entered.recv().expect("the store has the first batch");
        for n in 0..10_000u16 {
            keeper.offer([value(n as u8)]);
        }
        drop(leave); // lets it go on for good
        keeper.close(PATIENCE);
        assert_eq!(keeper.batches(), 2);
    }

    /// Before: a batch with each tick, and its syncs in the way of the log's.
    #[test]
    fn what_is_offered_in_a_pause_is_one_batch_and_a_close_waits_for_no_pause() {
        let store = MemStore::default();
        let long = Some(Duration::from_secs(3_600));
        let opener = StoreChoice::Memory(store.clone()).opener(Path::new(""));
        let (keeper, _) = StoreKeeper::open(opener, Arc::new(SystemClock::new()), PATIENCE, long).expect("it opens");
        keeper.offer([value(0)]);
        let clock = SystemClock::new();
        while keeper.batches() == 0 {
            assert!(clock.monotonic() < PATIENCE, "it takes the first one at once");
            std::thread::yield_now();
        }
        (1..=10).for_each(|n| keeper.offer([value(n)]));
        assert_eq!(keeper.batches(), 1);
        keeper.close(PATIENCE);
        assert_eq!(keeper.batches(), 2);
        assert_eq!(store.clone().load().expect("it loads"), [value(9), value(10), value(8)]);
    }

    #[test]
    fn a_keeper_that_is_dropped_lets_go_of_its_store() {
        let store = MemStore::default();
        let (dropped, is_dropped) = sync_channel::<()>(1);
        let dropped = Arc::new(Mutex::new(Some(dropped)));
        let open_it: OpenStore = Arc::new(move || {
            let goes_with_it = dropped.lock().expect("one thread").take();
            let act = Arc::new(move || assert!(goes_with_it.is_some()));
            Ok(Box::new(Unruly { inner: store.clone(), act, refuses: false }))
        });
        drop(open(open_it).expect("it opens"));
        assert!(is_dropped.recv_timeout(PATIENCE) == Err(std::sync::mpsc::RecvTimeoutError::Disconnected));
    }

    #[test]
    fn a_store_that_hangs_at_open_is_left_behind() {
        let hangs: OpenStore = Arc::new(|| {
            loop {
                std::thread::park()
            }
        });
        let opened = StoreKeeper::open(hangs, Arc::new(SystemClock::new()), SOON, Some(Duration::ZERO));
        assert!(matches!(opened, Err(OpenFailure::Hung(SOON))));
    }

    /// By then there may be another one on its files.
    #[test]
    fn a_store_that_opens_when_nobody_waits_any_more_is_let_go_of_unused() {
        let (let_go, gate) = sync_channel::<()>(0);
        let (dropped, is_dropped) = sync_channel::<()>(1);
        let parts = Mutex::new(Some((gate, dropped)));
        let slow: OpenStore = Arc::new(move || {
            let (gate, goes_with_it) = parts.lock().expect("one thread").take().expect("it is opened once");
            assert!(gate.recv().is_err(), "let go by a drop");
            let act = Arc::new(move || _ = goes_with_it.send(()));
            Ok(Box::new(Unruly { inner: MemStore::default(), act, refuses: false }))
        });
        let opened = StoreKeeper::open(slow, Arc::new(SystemClock::new()), SOON, Some(Duration::ZERO));
        assert!(matches!(opened, Err(OpenFailure::Hung(SOON))));
        drop(let_go);
        assert!(is_dropped.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Disconnected), "and stores nothing");
    }

    #[test]
    fn a_store_that_refuses_or_panics_at_open_says_so() {
        assert!(matches!(open(Arc::new(|| Err(StoreError("full".into())))), Err(OpenFailure::Refused(_))));
        assert!(matches!(open(Arc::new(|| panic!("of its own accord"))), Err(OpenFailure::Panicked)));
    }

    #[test]
    fn a_store_that_refuses_or_panics_later_is_given_up_and_offers_go_nowhere() {
        for store in [
            unruly(&MemStore::default(), true, || ()),
            unruly(&MemStore::default(), false, || panic!("of its own accord")),
        ] {
            for pause in [Some(Duration::ZERO), None] {
                let opened = StoreKeeper::open(Arc::clone(&store), Arc::new(SystemClock::new()), PATIENCE, pause);
                let (keeper, _) = opened.expect("it opens");
                keeper.offer([value(1)]);
                keeper.close(PATIENCE);
                assert!(keeper.given_up().is_some_and(|why| why.contains("refused")), "{pause:?}");
                keeper.offer([value(2)]);
                assert!(keeper.shared.lock().waiting.is_empty() && keeper.batches() == 0, "{pause:?}");
            }
        }
    }

    #[test]
    fn a_store_that_hangs_over_a_batch_is_given_up_after_the_deadline_and_holds_up_nobody() {
        let (enter, entered) = sync_channel(1);
        let (let_go, gate) = sync_channel::<()>(0);
        let gate = Mutex::new(gate);
        let store = unruly(&MemStore::default(), true, move || {
            let _ = enter.send(());
            assert!(gate.lock().expect("one thread").recv().is_err(), "let go by a drop");
        });
        let clock = ManualClock::at(0);
        let (keeper, _) =
            StoreKeeper::open(store, Arc::new(clock.clone()), PATIENCE, Some(Duration::ZERO)).expect("it opens");
        keeper.offer([value(1)]);
        entered.recv().expect("the store has the batch");
        clock.advance(PATIENCE);
        [2, 3].into_iter().cycle().take(10_000).for_each(|n| keeper.offer([value(n)]));
        assert_eq!(keeper.given_up(), None, "still within its time");
        assert_eq!(keeper.shared.lock().waiting.len(), 2, "the latest of each, however often and long it is offered");
        clock.advance(SOON);
        keeper.offer([value(2)]);
        let why = keeper.given_up().expect("its time is over");
        assert!(keeper.shared.lock().waiting.is_empty(), "nothing is kept for it any more");
        keeper.close(SOON);
        // Whatever it says when it comes back after all.
        drop(let_go);
        let state = keeper.shared.lock();
        let state = keeper.shared.changed.wait_while(state, |state| !state.ended).expect("nobody panics");
        assert_eq!((state.given_up.as_ref(), state.batches), (Some(&why), 0));
    }
}
