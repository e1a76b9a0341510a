//! What a recovery costs where fifty destinations come back in one moment: what they share is not overrun, one that always was
//! well notices nothing, and each of them drains at its own limit, which nobody was told.
//!
//! `cargo test -p forebay-sidecar --lib together -- --nocapture`; `FOREBAY_SEED` plays another time.

use storage_tests::crash_points::number;

use super::*;

const DESTINATIONS: u32 = 50;

/// Of requests and of memory there is about what all of them use when each takes what it can: they meet there.
const LIMITS: BudgetLimits = BudgetLimits { requests_max: 40, bytes_max: 44_000, bulk_percent: 50, heavy_max: 2 };

/// Bytes of a request's body.
const BODY: usize = 1000;

/// A backlog is what its destination takes in so many seconds: less than it takes those of `recovery.rs`, since there are so many.
const BACKLOG: f64 = 35.0;

/// How one is down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Down {
    Never,
    Answers,
    /// It takes what comes, and says nothing.
    Hangs,
}

/// What all of them hold at once, as it is, not as it is charged: requests, and bytes of bodies; and the most that there was.
struct Held {
    budget: Budget,
    requests: AtomicU64,
    requests_max: AtomicU64,
    bytes: AtomicU64,
    bytes_max: AtomicU64,
    /// What was left of the memory as it is charged, at the least.
    bytes_free_min: AtomicU64,
}

impl Held {
    fn of(budget: &Budget) -> Arc<Self> {
        let none = AtomicU64::default;
        let bytes_free_min = AtomicU64::new(u64::MAX);
        let (requests, requests_max, bytes, bytes_max) = (none(), none(), none(), none());
        Arc::new(Self { budget: budget.clone(), requests, requests_max, bytes, bytes_max, bytes_free_min })
    }

    fn take(now: &AtomicU64, most: &AtomicU64, n: u64) {
        most.fetch_max(now.fetch_add(n, Ordering::SeqCst) + n, Ordering::SeqCst);
    }
}

/// A body that is counted for as long as anybody has it.
struct Body(Arc<Held>);

impl AsRef<[u8]> for Body {
    fn as_ref(&self) -> &[u8] {
        &[b'x'; BODY]
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        self.0.bytes.fetch_sub(BODY as u64, Ordering::SeqCst);
    }
}

/// A station, with what it shares and what it saw.
struct Watched {
    station: Arc<Station>,
    down: Down,
    queue: Script,
    held: Arc<Held>,
    batches: Mutex<BTreeMap<String, Range<u64>>>,
    /// What it has, and how long that was on its way.
    taken: Mutex<BTreeMap<u64, Duration>>,
}

impl Watched {
    fn take(&self, records: &Encoded) {
        let mut taken = self.taken.lock().unwrap();
        self.queue.with(|state| {
            for offset in records.offsets() {
                let after = state.appended.partition_point(|(from, _)| *from <= offset);
                taken.insert(offset, state.appended[after - 1].1.elapsed());
            }
        });
    }
}

impl Sink for Watched {
    fn format(&self) -> Format {
        self.station.format()
    }

    fn encode(&self, job: &Job) -> Result<Encoded, EncodeError> {
        self.held.bytes_free_min.fetch_min(self.held.budget.free_bytes(), Ordering::SeqCst);
        Held::take(&self.held.bytes, &self.held.bytes_max, BODY as u64);
        Ok(Encoded::whole(job, Bytes::from_owner(Body(Arc::clone(&self.held)))))
    }

    fn send<'a>(&'a self, encoded: &'a Encoded, id: &'a str, deadline: Instant) -> BoxFuture<'a, Outcome> {
        Box::pin(async move {
            let offsets = encoded.origin.offsets.clone();
            let before = self.batches.lock().unwrap().insert(id.to_owned(), offsets.clone());
            assert!(before.is_none_or(|before| before == offsets), "{id} is one batch");
            Held::take(&self.held.requests, &self.held.requests_max, 1);
            let outcome = if self.down == Down::Hangs && self.station.began.elapsed() < OUTAGE {
                self.take(encoded);
                Answer::Hang.come(deadline).await
            } else {
                self.station.send(encoded, id, deadline).await
            };
            if outcome == Outcome::Delivered {
                self.take(encoded);
            }
            self.held.requests.fetch_sub(1, Ordering::SeqCst);
            outcome
        })
    }

    fn needs_plan(&self) -> bool {
        true
    }
}

/// How each that recovered fared, in order; how long each record of the one that is well took; the most that was held.
struct Seen {
    recoveries: Vec<Recovery>,
    well: Vec<Duration>,
    requests_max: u64,
    bytes_max: u64,
    bytes_free_min: u64,
}

async fn play(seed: u64, sick: u32) -> Seen {
    let mut rng = SmallRng::seed_from_u64(seed);
    let (budget, clock) = (Budget::new(LIMITS), Arc::new(ManualClock::at(1_000_000)));
    let held = Held::of(&budget);
    let delivery = Delivery::beginning_with(budget.clone(), clock, Arc::new(NoParking), Some(seed));
    let place = |nth: u32, queue: Script, down: Down, takes: Takes, counts: Counts| {
        let station = Station::new(takes, counts, SmallRng::seed_from_u64(seed ^ u64::from(nth) << 32));
        let (batches, taken) = (Mutex::default(), Mutex::default());
        let watched = Arc::new(Watched { station, down, queue, held: Arc::clone(&held), batches, taken });
        let (sink, queue) = (Arc::clone(&watched) as Arc<dyn Sink>, Arc::new(watched.queue.clone()));
        delivery.start(nth.to_string(), sink, vec![queue], settings()).unwrap();
        watched
    };
    let always = Counts { share: 1e9, burst: 1.0, retry_after: None, down: || Outcome::Delivered };
    let well = place(0, Script::of_stream(0, 0), Down::Never, even, always);
    let sick: Vec<Arc<Watched>> = (1..=sick)
        .map(|nth| {
            let (share, burst) = (rng.random_range(0.2..0.8), BURSTS[nth as usize % 4].max(0.5));
            let (down, with): (Down, fn() -> Outcome) = match nth % 3 {
                0 => (Down::Answers, refused),
                1 => (Down::Answers, || throttled(None)),
                _ => (Down::Hangs, refused),
            };
            let counts = Counts { share, burst, retry_after: None, down: with };
            let takes: Takes = [even, ramp, sawtooth][rng.random_range(0..3)];
            let queue = Script::of_stream(nth, (takes(0.0) * share * BACKLOG) as u64);
            place(nth, queue, down, takes, counts)
        })
        .collect();
    // Of its own chance: what comes is the same without the others.
    let (mut rng, began) = (SmallRng::seed_from_u64(seed), Instant::now());
    let mut drained: Vec<Option<Duration>> = vec![None; sick.len()];
    while began.elapsed() < OUTAGE + SECOND * 150 {
        // Few before the end of the outage, and many beside the recoveries.
        let busy = began.elapsed() + SECOND * 30 > OUTAGE && began.elapsed() < OUTAGE + SECOND * 60;
        well.queue.append(rng.random_range(1..15));
        sleep(Duration::from_millis(if busy { rng.random_range(20..200) } else { 5_000 })).await;
        for (watched, drained) in sick.iter().zip(&mut drained) {
            let left = watched.queue.with(|state| state.tail) - watched.queue.settled();
            *drained = drained.or_else(|| (left == 0).then(|| began.elapsed()));
        }
    }
    sleep(SECOND).await;
    assert_eq!((budget.free_requests() as u64, budget.free_bytes()), (LIMITS.requests_max as u64, LIMITS.bytes_max));
    for watched in sick.iter().chain([&well]) {
        let (taken, tail) = (watched.taken.lock().unwrap(), watched.queue.with(|state| state.tail));
        assert_eq!((watched.queue.settled(), taken.len() as u64), (tail, tail), "all are settled, and all are there");
    }
    let recoveries = sick.iter().zip(drained).map(|(watched, drained)| {
        let stage = watched.station.state.lock().unwrap();
        let from = (stage.first.unwrap() - began - OUTAGE).as_secs_f64();
        let to = (drained.unwrap() - OUTAGE).as_secs_f64();
        Recovery {
            drained: stage.taken as f64 / watched.station.possible(from, to),
            refused: stage.refused as f64 / stage.requests as f64,
            requests: stage.requests,
            seconds: (to - from) as u64,
        }
    });
    Seen {
        recoveries: recoveries.collect(),
        well: well.taken.lock().unwrap().values().copied().collect(),
        requests_max: held.requests_max.load(Ordering::SeqCst),
        bytes_max: held.bytes_max.load(Ordering::SeqCst),
        bytes_free_min: held.bytes_free_min.load(Ordering::SeqCst),
    }
}

#[tokio::test(start_paused = true)]
async fn fifty_that_come_back_at_once_drain_each_at_its_limit_and_one_that_is_well_notices_nothing() {
    let seed = number("FOREBAY_SEED", 20_261_128);
    let (alone, beside) = (play(seed, 0).await, play(seed, DESTINATIONS).await);
    let (told, budget) = (format!("FOREBAY_SEED={seed}"), (LIMITS.requests_max as u64, LIMITS.bytes_max));
    let (requests, bytes) = (beside.requests_max, beside.bytes_max);
    println!(
        "{told}: at most {requests} requests and {bytes} bytes at once, {} bytes were left",
        beside.bytes_free_min
    );
    assert!(requests == budget.0 && beside.bytes_free_min < BODY as u64, "{told}: all there is was asked for");
    assert!(bytes <= budget.1, "{told}: {bytes} bytes at once");

    // The one that is well: record by record, beside what it was without them.
    let mean = |waits: &[Duration]| waits.iter().sum::<Duration>().as_secs_f64() / waits.len() as f64;
    let (without, with) = (mean(&alone.well), mean(&beside.well));
    let later = || alone.well.iter().zip(&beside.well).map(|(alone, beside)| beside.saturating_sub(*alone));
    let (late, latest) = (later().filter(|by| !by.is_zero()).count(), later().max().unwrap());
    println!("{told}: {late} of {} later, by {latest:?} at most; {without:.4} s, {with:.4} s", alone.well.len());
    assert_eq!(alone.well.len(), beside.well.len(), "{told}");
    assert!(late * 100 <= alone.well.len() && latest < SECOND / 10 && with <= without * 1.01, "{told}");

    // A recovery has some hundred requests here and thousands in `recovery.rs`: the climb and the first refusals, of which each
    // has as many here as there, weigh more. So the bounds are wider, and all together keep closer to those.
    let sum = |of: fn(&Recovery) -> f64| beside.recoveries.iter().map(of).sum::<f64>();
    let requests = sum(|one| one.requests as f64);
    let drained = sum(|one| one.drained * one.requests as f64) / requests;
    let refused = sum(|one| one.refused * one.requests as f64) / requests;
    println!("{told}: {requests} requests, {drained:.3} drained, {refused:.3} refused");
    assert!(requests > 10_000.0 && drained >= 0.9 && refused <= 0.035, "{told}");
    for one in &beside.recoveries {
        assert!(
            one.drained >= 0.7 && one.refused * one.requests as f64 <= 0.02 * one.requests as f64 + 15.0,
            "{told}: {one:?}"
        );
    }
}
