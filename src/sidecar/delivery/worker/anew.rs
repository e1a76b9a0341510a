//! A destination whose loop panics, by a mistake of Forebay's own, is begun anew after a while.
//!
//! What always holds: nothing is settled by it; what the loop had claimed goes back to the queues before the next one claims
//! anything; it is said in the log, by the destination's last error and by its failures of class `panic`; and no other
//! destination hears of it. See docs/decisions/0149-loops-that-panic.md.

use std::any::Any;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;

use super::{Busy, Memory, Outcome, Post, Worker};
use crate::delivery::outcome::Failure;
use crate::delivery::stats::{State, moment_ms};

/// A loop that panicked is begun anew after this time: whatever did it may come first again, and each time costs a line in
/// the log.
pub(super) const ANEW_AFTER: Duration = Duration::from_secs(60);

impl Worker {
    /// Sends until there is nothing to send and nothing in flight, however often it panics over that.
    pub(super) async fn busy_to_the_end(&mut self, post: &Arc<Post>) {
        loop {
            let mut busy = self.idle(post);
            let Err(panic) = caught(self.busy(&mut busy)).await else { return };
            self.panicked(busy, &said(&*panic)).await;
            if post.stopping() {
                return;
            }
        }
    }

    /// Says it, lets go of everything, and waits.
    async fn panicked(&mut self, mut busy: Busy, said: &str) {
        let post = Arc::clone(&busy.post);
        let why = Failure::Panic(said.to_owned());
        tracing::error!(
            destination = %self.id,
            panic = said,
            anew_after_s = ANEW_AFTER.as_secs(),
            "the destination's loop panicked, which is a mistake of Forebay's: nothing is lost, its other destinations go on, \
             and it is begun anew; please report it"
        );
        post.stats.failed(&Outcome::Retry { why }, self.common.clock.wall_ms());
        post.stats.set_state(State::Backoff { until_ms: moment_ms(self.common.clock.wall_ms(), ANEW_AFTER) });
        // No flight of before sends any more, and what they had is back before the next one claims.
        self.pace = self.pace.anew();
        post.epoch.store(self.pace.epoch().number(), Ordering::Release);
        busy.preparing = None;
        busy.flights.shutdown().await;
        // Letters that are being kept are: one that lies there already while its batch comes again would be sent twice.
        while busy.chores.join_next().await.is_some() {}
        drop(busy);
        self.forget();
        post.stats.set_in_flight(0);
        post.stats.set_undecided(0);
        post.stats.set_held(Vec::new());
        self.wait(&post).await;
    }

    /// Whatever was known of batches may be half written: they are found out anew, as after a start.
    fn forget(&mut self) {
        self.memory = Memory::default();
        self.next = 0;
        for turn in self.queues.iter_mut() {
            (turn.dry, turn.look_at) = (false, Duration::ZERO);
            for (log, stream) in turn.holds.take().map(|holds| holds.into_senders()).into_iter().flatten() {
                turn.source.put_off(log, stream, None);
            }
        }
    }

    /// Until it is time, or until an operator wants to know now or stops it.
    async fn wait(&self, post: &Post) {
        let until = self.now() + ANEW_AFTER;
        while self.now() < until && !post.held() && !post.wants_probe() {
            tokio::select! {
                () = self.sleep_until(Some(until)) => {}
                () = post.wake.notified() => {}
            }
        }
    }
}

/// What comes of it, or its panic.
async fn caught<T>(future: impl Future<Output = T>) -> Result<T, Box<dyn Any + Send>> {
    let mut future = pin!(future);
    // Whoever uses what it left behind trusts none of it.
    poll_fn(|context| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context))) {
        Ok(polled) => polled.map(Ok),
        Err(panic) => Poll::Ready(Err(panic)),
    })
    .await
}

/// What a panic says.
fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "it does not say why".to_owned())
}
