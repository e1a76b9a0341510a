//! Clocks that jump, and a thread that stands still: what waits, waits as long as it was told by the clock that only goes on,
//! and nothing waits for a moment that does not come.

use std::sync::atomic::AtomicBool;

use forebay::clock::Clock;

use super::*;

/// Goes on with tokio's; its wall clock is set as somebody likes.
#[derive(Debug)]
pub(super) struct Jumpy {
    began: Instant,
    /// What the wall clock said at the last jump, and when that was.
    set: Mutex<(u64, Instant)>,
}

impl Jumpy {
    pub(super) fn at(wall_ms: u64) -> Arc<Self> {
        let now = Instant::now();
        Arc::new(Self { began: now, set: Mutex::new((wall_ms, now)) })
    }

    fn jump(&self, wall_ms: u64) {
        *self.set.lock().unwrap() = (wall_ms, Instant::now());
    }
}

impl Clock for Jumpy {
    fn monotonic(&self) -> Duration {
        self.began.elapsed()
    }

    fn wall_ms(&self) -> u64 {
        let (wall_ms, since) = *self.set.lock().unwrap();
        wall_ms + since.elapsed().as_millis() as u64
    }
}

const NOW_MS: u64 = 1_795_000_000_000;
const IN_2040_MS: u64 = 2_208_988_800_000;

#[tokio::test(start_paused = true)]
async fn a_wall_clock_that_jumps_hurries_nobody_and_holds_nobody_up() {
    const WAIT: Duration = Duration::from_secs(600);
    let clock = Jumpy::at(NOW_MS);
    let delivery =
        Delivery::new(Budget::new(BudgetLimits::default()), Arc::clone(&clock) as Arc<dyn Clock>, Arc::new(NoParking));
    let queue = Script::with_records(300);
    // Before each of the first answers the clock has been set anew: to 1970, beyond 2038, back.
    let answer = |n| match n {
        0..6 if n % 2 == 0 => at_once(throttled(Some(WAIT))),
        0..6 => at_once(refused()),
        _ => at_once(Outcome::Delivered),
    };
    let receiver = start(&delivery, "d", receiver(answer), &queue);
    for wall_ms in [0, IN_2040_MS, NOW_MS, u64::MAX / 2, 1, NOW_MS - 1] {
        sleep(WAIT / 2).await;
        clock.jump(wall_ms);
        queue.append(10);
    }
    sleep(HOUR).await;
    assert_eq!(queue.settled(), 360);
    assert_eq!(delivery.stats_of("d").unwrap().state, State::Idle);
    let sent = receiver.sent();
    for throttled in [0, 2, 4] {
        assert!(sent[throttled + 1].at - sent[throttled].at >= WAIT, "{throttled}: {:?}", &sent[..7]);
    }
    let ids: BTreeSet<_> = sent[..7].iter().map(|sent| sent.id.clone()).collect();
    assert_eq!(ids.len(), 1, "the same batch each time: {ids:?}");
}

/// A call that blocks where none may: it delays whoever shares its thread, and is over when it is over.
#[tokio::test(start_paused = true)]
async fn a_call_that_blocks_the_thread_is_over_when_it_is_over() {
    let (delivery, blocked) = (delivery(), Arc::new(AtomicBool::new(false)));
    let queues = [Script::with_records(200), Script::of_stream(1, 200)];
    let was_blocked = Arc::clone(&blocked);
    let blocking = receiver(move |n| {
        if n % 5 == 0 {
            std::thread::sleep(Duration::from_millis(10));
            was_blocked.store(true, Ordering::SeqCst);
        }
        at_once(Outcome::Delivered)
    });
    start(&delivery, "blocks", blocking, &queues[0]);
    start(&delivery, "shares its thread", receiver(|_| at_once(Outcome::Delivered)), &queues[1]);
    sleep(HOUR).await;
    assert!(blocked.load(Ordering::SeqCst));
    assert_eq!(queues.map(|queue| queue.settled()), [200, 200]);
}
