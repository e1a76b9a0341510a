//! Work of API calls that waits for the disk or goes through all queues: on threads where waiting is allowed, so much of
//! it at a time.
//!
//! What always holds: what was begun has its turn until it ends, also where whoever asked has gone. Else one who asks again
//! and again would have all of these threads, which reads for deliveries need as well.

use std::sync::Arc;

use tokio::sync::Semaphore;
use tonic::Status;

/// Turns at such work.
#[derive(Debug, Clone)]
pub(super) struct Turns(Arc<Semaphore>);

impl Turns {
    /// So many at a time.
    pub(super) fn of(most: usize) -> Self {
        Self(Arc::new(Semaphore::new(most)))
    }

    /// Waits for a turn, and does it.
    pub(super) async fn take<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Status> {
        let turn = Arc::clone(&self.0).acquire_owned().await.expect("the semaphore is never closed");
        let worked = tokio::task::spawn_blocking(move || {
            let done = work();
            drop(turn);
            done
        });
        worked.await.map_err(|_| Status::internal("the call met a bug: see the log for its trace"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Condvar, Mutex, mpsc};

    /// Before: each call had a thread at once, and one whose caller had gone gave its turn to the next.
    #[tokio::test]
    async fn callers_that_go_leave_their_work_its_turn_and_no_more_is_done_at_a_time() {
        let turns = Turns::of(2);
        let at_work = Arc::new(AtomicUsize::new(0));
        let may_end = Arc::new((Mutex::new(false), Condvar::new()));
        let (began, begun) = mpsc::sync_channel(16);
        let call = || {
            let (turns, at_work, may_end, began) =
                (turns.clone(), Arc::clone(&at_work), Arc::clone(&may_end), began.clone());
            tokio::spawn(async move {
                let work = move || {
                    let now = at_work.fetch_add(1, Ordering::SeqCst) + 1;
                    began.send(now).unwrap();
                    let (may_end, told) = &*may_end;
                    drop(told.wait_while(may_end.lock().unwrap(), |may_end| !*may_end).unwrap());
                    at_work.fetch_sub(1, Ordering::SeqCst);
                };
                turns.take(work).await
            })
        };
        let gone: Vec<_> = (0..2).map(|_| call()).collect();
        let first = tokio::task::spawn_blocking(move || {
            let first = [begun.recv().unwrap(), begun.recv().unwrap()];
            (first, begun)
        });
        let (first, begun) = first.await.unwrap();
        assert_eq!(first.iter().max(), Some(&2));
        for call in gone {
            call.abort();
            assert!(call.await.unwrap_err().is_cancelled());
        }
        let others: Vec<_> = (0..8).map(|_| call()).collect();
        tokio::task::yield_now().await;
        assert_eq!((turns.0.available_permits(), at_work.load(Ordering::SeqCst)), (0, 2), "theirs goes on");
        *may_end.0.lock().unwrap() = true;
        may_end.1.notify_all();
        for call in others {
            call.await.unwrap().unwrap();
        }
        assert!(begun.try_iter().all(|at_once| at_once <= 2));
    }
}
