//! Clocks that jump, a thread that stands still, and a process that does: what waits, waits as long as it was told by the clock that only goes on,
//! and nothing waits for a moment that does not come.

use std::sync::atomic::AtomicBool;
use std::sync::mpsc;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use storage_tests::crash_points::number;
use tokio::time::{advance, timeout_at};

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
        delivering(Budget::new(BudgetLimits::default()), Arc::clone(&clock) as Arc<dyn Clock>, Arc::new(NoParking));
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

/// Where deliveries have another thread, whatever comes for the others wakes it.
#[test]
fn while_a_call_blocks_one_thread_of_two_another_destination_gets_all_that_comes() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let _inside = runtime.enter();
    let (delivery, queues) = (delivery(), [Script::with_records(10), Script::of_stream(1, 0)]);
    let (end, ends) = mpsc::sync_channel::<()>(0);
    let (blocks, ends) = (Arc::new(AtomicBool::new(false)), Mutex::new(ends));
    let blocked = Arc::clone(&blocks);
    let blocking = receiver(move |_| {
        blocked.store(true, Ordering::SeqCst);
        // Until its other end is dropped.
        let _ = ends.lock().unwrap().recv();
        at_once(Outcome::Delivered)
    });
    // Not by a timer: the thread that is blocked may be the one that would have had it fire.
    let until = |done: &dyn Fn() -> bool| {
        let waited = (0..60_000).any(|_| {
            std::thread::sleep(Duration::from_millis(1));
            done()
        });
        assert!(waited);
    };
    let well = start(&delivery, "well", receiver(|_| at_once(Outcome::Delivered)), &queues[1]);
    start(&delivery, "blocks", blocking, &queues[0]);
    until(&|| blocks.load(Ordering::SeqCst));
    for n in 1..=200 {
        queues[1].append(1);
        until(&|| queues[1].settled() == n);
    }
    assert_eq!((well.sent().len(), queues[0].settled()), (200, 0), "and the call lasted all the while");
    drop(end);
    until(&|| queues[0].settled() == 10);
}

/// A receiver that knows which records are on their way to it, and what became of each request, in order. Whoever has waited
/// beyond the deadline hears what came by then, as on a socket.
struct Owned {
    inner: Receiver,
    under_way: Mutex<BTreeSet<u64>>,
    ended: Mutex<Vec<(String, Outcome)>>,
    twice: AtomicBool,
}

impl Sink for Owned {
    fn format(&self) -> Format {
        self.inner.format()
    }

    fn encode(&self, job: &Job) -> Result<Encoded, EncodeError> {
        self.inner.encode(job)
    }

    fn send<'a>(&'a self, encoded: &'a Encoded, id: &'a str, deadline: Instant) -> BoxFuture<'a, Outcome> {
        Box::pin(async move {
            let new = |offset| self.under_way.lock().unwrap().insert(offset);
            if encoded.offsets().filter(|offset| !new(*offset)).count() > 0 {
                self.twice.store(true, Ordering::SeqCst);
            }
            let answered = timeout_at(deadline, self.inner.send(encoded, id, deadline)).await;
            let outcome = answered.unwrap_or(Outcome::Retry { why: Failure::Timeout });
            self.under_way.lock().unwrap().retain(|offset| !encoded.offsets().any(|sent| sent == *offset));
            self.ended.lock().unwrap().push((id.to_owned(), outcome.clone()));
            outcome
        })
    }

    fn needs_plan(&self) -> bool {
        true
    }
}

/// The process is stopped for ten minutes and goes on, again and again, with requests in every state: what was answered
/// meanwhile counts, what was not is sent again under its id, and nothing is anybody's twice.
#[tokio::test(start_paused = true)]
async fn a_loop_that_nobody_ran_for_ten_minutes_goes_on_with_what_came_meanwhile() {
    const STOPS: u32 = 100;
    let seed = number("FOREBAY_SEED", 20_261_128);
    println!("FOREBAY_SEED={seed}");
    let mut rng = SmallRng::seed_from_u64(seed);
    let (delivery, queue) = (delivery(), Script::default());
    queue.with(|state| state.plan_delay = Duration::from_millis(3));
    let answer = move |n: usize| {
        let mut rng = SmallRng::seed_from_u64(seed << 32 | n as u64);
        let soon = Duration::from_millis(rng.random_range(1..2_000));
        match rng.random_range(0..400) {
            0..20 => Answer::Hang,
            20..40 => Answer::After(soon, refused()),
            // Seldom: who refuses by chance is sent to ever slower.
            40 => Answer::After(soon, throttled(Some(SECOND * 20))),
            // After nobody would have waited for it, if anybody had run.
            41..60 => Answer::After(SECOND * 45, Outcome::Delivered),
            _ => Answer::After(soon, Outcome::Delivered),
        }
    };
    let owned = Owned {
        inner: Receiver { plans_of: Some(queue.clone()), ..receiver(answer) },
        under_way: Mutex::default(),
        ended: Mutex::default(),
        twice: AtomicBool::new(false),
    };
    let owned = Arc::new(owned);
    delivery.start("d", Arc::clone(&owned) as Arc<dyn Sink>, vec![Arc::new(queue.clone())], settings()).unwrap();
    let mut met = 0;
    for stop in 0..STOPS {
        queue.append(rng.random_range(50..300));
        sleep(Duration::from_millis(rng.random_range(0..3_000))).await;
        let (under_way, ended) = (owned.under_way.lock().unwrap().clone(), owned.ended.lock().unwrap().len());
        met += usize::from(!under_way.is_empty());
        advance(Duration::from_secs(600)).await;
        sleep(Duration::from_millis(1)).await;
        // Each of those has come to its end, and what was taken is settled.
        let ended = owned.ended.lock().unwrap()[ended..].to_vec();
        let of = |id: &str| owned.inner.sent().into_iter().rfind(|sent| sent.id == id).unwrap().records;
        let heard: BTreeSet<u64> = ended.iter().flat_map(|(id, _)| of(id)).collect();
        assert!(under_way.is_subset(&heard), "stop {stop}: {under_way:?} of {heard:?}");
        for (id, _) in ended.iter().filter(|(_, outcome)| *outcome == Outcome::Delivered) {
            assert!(queue.with(|state| of(id).iter().all(|record| state.settled.contains_key(record))), "stop {stop}");
        }
    }
    assert!(met * 2 > STOPS as usize, "{met} of {STOPS} stops met requests");
    sleep(HOUR * 24).await;
    let told = delivery.stats_of("d").unwrap();
    assert_eq!((queue.settled(), told.state), (queue.with(|state| state.tail), State::Idle));
    // What is settled twice panics.
    assert_eq!(super::anew::panics(&told), 0, "{told:?}");
    assert!(!owned.twice.load(Ordering::SeqCst), "a record was on its way twice at once");
    let (mut batches, mut ends) = (BTreeMap::new(), BTreeMap::<String, Vec<bool>>::new());
    for sent in owned.inner.sent() {
        let before = batches.insert(sent.id, sent.offsets.clone());
        assert!(before.is_none_or(|before| before == sent.offsets), "one id, one batch");
    }
    for (id, outcome) in owned.ended.lock().unwrap().drain(..) {
        ends.entry(id).or_default().push(outcome == Outcome::Delivered);
    }
    let mut repeated = 0;
    for (id, taken) in ends {
        let (last, before) = taken.split_last().unwrap();
        assert!(*last && !before.contains(&true), "{id} is sent until it is taken, and not after: {taken:?}");
        repeated += before.len();
    }
    let records: u64 = batches.values().map(|offsets| offsets.end - offsets.start).sum();
    assert_eq!(records, queue.settled(), "no record is in two batches");
    assert!(repeated > 20, "{repeated} were repeated");
}
