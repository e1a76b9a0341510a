//! The threads that files are written on. A write blocks one for as long as its disk takes: on a mount that hangs, for ever,
//! and nothing calls such a thread back.
//!
//! What always holds: [`WRITING`] and [`HANGING`] at most are blocked so, however many files hang, and the threads that read
//! and encode for everybody are never among them. A write that outlives the deadline of its request counts among those that
//! hang, and leaves its place to the next one, as far as there is room among these.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinError;
use tokio::time::{Instant, timeout_at};

/// Threads that write at once. A runtime has 512 for what blocks, and names that are looked up have 128 of these.
const WRITING: usize = 64;

/// Threads whose writes were not done by their deadline.
const HANGING: usize = 128;

/// The threads of all who write with these.
pub(super) struct Threads {
    writing: Arc<Semaphore>,
    hanging: Arc<Semaphore>,
}

impl Default for Threads {
    fn default() -> Self {
        Self { writing: Arc::new(Semaphore::new(WRITING)), hanging: Arc::new(Semaphore::new(HANGING)) }
    }
}

impl Threads {
    /// Does `write` on a thread of its own, to its end. `None`: there was none until the deadline, and nothing was done.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        deadline: Instant,
        write: impl FnOnce() -> T + Send + 'static,
    ) -> Option<Result<T, JoinError>> {
        let thread = timeout_at(deadline, Arc::clone(&self.writing).acquire_owned()).await.ok()?;
        let place = Arc::new(Mutex::new(Some(thread.expect("it is never closed"))));
        let theirs = Arc::clone(&place);
        let mut writing = tokio::task::spawn_blocking(move || {
            let written = write();
            give_back(&theirs);
            written
        });
        let outlived = Outlived { place, hanging: Arc::clone(&self.hanging) };
        if let Ok(written) = timeout_at(deadline, &mut writing).await {
            return Some(written);
        }
        drop(outlived);
        Some(writing.await)
    }
}

/// When this is dropped nobody counts on the write any more, by its deadline or since who waited for it was cut off: if it
/// is not done it counts among those that hang.
struct Outlived {
    place: Arc<Mutex<Option<OwnedSemaphorePermit>>>,
    hanging: Arc<Semaphore>,
}

impl Drop for Outlived {
    fn drop(&mut self) {
        let mut place = self.place.lock().unwrap_or_else(PoisonError::into_inner);
        if place.is_some()
            && let Ok(hanging) = Arc::clone(&self.hanging).try_acquire_owned()
        {
            *place = Some(hanging);
        }
    }
}

/// The thread is free.
fn give_back(place: &Mutex<Option<OwnedSemaphorePermit>>) {
    drop(place.lock().unwrap_or_else(PoisonError::into_inner).take());
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    /// A mount that hangs took every thread that there is for what blocks: nothing was read or encoded for anybody.
    #[test]
    fn however_many_writes_hang_there_are_threads_for_others_and_for_those_that_do_not() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(512).build();
        let runtime = runtime.unwrap();
        let threads = Arc::new(Threads::default());
        let (hang, hangs) = mpsc::sync_channel::<()>(1);
        let hangs = Arc::new(Mutex::new(hangs));
        let one = |millis: u64| {
            let (threads, hangs) = (Arc::clone(&threads), Arc::clone(&hangs));
            async move {
                let deadline = Instant::now() + Duration::from_millis(millis);
                threads.run(deadline, move || hangs.lock().unwrap().recv().is_ok()).await.is_some()
            }
        };
        runtime.block_on(async {
            let first: Vec<_> = (0..WRITING).map(|_| tokio::spawn(one(20))).collect();
            // When the first are known to hang, one that does not finds a thread.
            let written = threads.run(Instant::now() + Duration::from_secs(60), || 7).await;
            assert_eq!(written.unwrap().unwrap(), 7);
            let more: Vec<_> = (0..600).map(|_| tokio::spawn(one(20))).collect();
            let mut in_vain = 0;
            for write in more {
                // Those that began hang to the end.
                if let Ok(begun) = tokio::time::timeout(Duration::from_millis(100), write).await {
                    in_vain += usize::from(!begun.unwrap());
                }
            }
            assert_eq!(in_vain, WRITING + 600 - WRITING - HANGING, "of the others nothing was begun");
            assert_eq!(tokio::task::spawn_blocking(|| 8).await.unwrap(), 8);
            drop(hang);
            for write in first {
                assert!(write.await.unwrap());
            }
        });
        let written = runtime.block_on(threads.run(Instant::now() + Duration::from_secs(60), || 9));
        assert_eq!(written.unwrap().unwrap(), 9, "a disk that goes on gives them back");
    }

    #[test]
    fn a_write_whose_sender_is_cut_off_leaves_its_place_too() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let threads = Arc::new(Threads::default());
        let (hang, hangs) = mpsc::sync_channel::<()>(1);
        let hangs = Arc::new(Mutex::new(hangs));
        let deadline = Instant::now() + Duration::from_secs(600);
        runtime.block_on(async {
            let begun: Vec<_> = (0..WRITING)
                .map(|_| {
                    let (threads, hangs) = (Arc::clone(&threads), Arc::clone(&hangs));
                    tokio::spawn(
                        async move { threads.run(deadline, move || hangs.lock().unwrap().recv().is_ok()).await },
                    )
                })
                .collect();
            while threads.writing.available_permits() > 0 {
                tokio::task::yield_now().await;
            }
            begun.iter().for_each(tokio::task::JoinHandle::abort);
            for cut_off in begun {
                assert!(cut_off.await.is_err());
            }
            assert_eq!(
                (threads.writing.available_permits(), threads.hanging.available_permits()),
                (WRITING, HANGING - WRITING)
            );
            drop(hang);
        });
    }
}
