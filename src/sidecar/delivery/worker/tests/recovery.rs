//! What a recovery costs, with the loop and the pace as they are: after an outage a destination takes so many records a
//! second, which nobody was told, and which change. Its backlog is to drain at 0.95 of what is possible, and of its
//! requests no more than two in a hundred are to be refused.
//!
//! Time is simulated and chance begins with the seed, so that a run is the same each time. Seeds are printed:
//! `cargo test -p forebay-sidecar --lib recovery -- --nocapture`.

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::*;

mod together;

const OUTAGE: Duration = Duration::from_secs(600);

/// Records that arrive a second, always.
const ARRIVAL: f64 = 60.0;

/// What a destination takes a second, so long after its outage.
type Takes = fn(f64) -> f64;

fn steps(at: f64) -> f64 {
    match (at / 150.0) as u64 % 4 {
        0 => 200.0,
        1 => 400.0,
        2 => 150.0,
        _ => 300.0,
    }
}

fn ramp(at: f64) -> f64 {
    (120.0 + at * 0.5).min(420.0)
}

fn sawtooth(at: f64) -> f64 {
    160.0 + at % 120.0
}

fn even(_: f64) -> f64 {
    250.0
}

/// Seconds' worth that destinations allow at once: seldom less than one.
const BURSTS: [f64; 4] = [0.25, 0.5, 1.0, 2.0];

/// How a destination counts.
#[derive(Debug, Clone, Copy)]
struct Counts {
    /// Of what it would take it takes so much.
    share: f64,
    /// So many seconds' worth may come at once.
    burst: f64,
    /// What it says with a refusal.
    retry_after: Option<Duration>,
    /// What it answers during its outage.
    down: fn() -> Outcome,
}

/// A destination that is down, and then takes what it takes.
struct Station {
    takes: Takes,
    counts: Counts,
    began: Instant,
    state: Mutex<Stage>,
}

struct Stage {
    rng: SmallRng,
    room: f64,
    at: f64,
    first: Option<Instant>,
    taken: u64,
    refused: u64,
    requests: u64,
}

impl Station {
    fn new(takes: Takes, counts: Counts, rng: SmallRng) -> Arc<Self> {
        let stage = Stage { rng, room: 0.0, at: 0.0, first: None, taken: 0, refused: 0, requests: 0 };
        Arc::new(Self { takes, counts, began: Instant::now(), state: Mutex::new(stage) })
    }

    /// What it takes a second, so long after its outage.
    fn takes(&self, at: f64) -> f64 {
        (self.takes)(at) * self.counts.share
    }

    /// What it lets through between two moments after its outage.
    fn possible(&self, from: f64, to: f64) -> f64 {
        let mean = (0..10_000).map(|n| self.takes(from + (to - from) * (f64::from(n) + 0.5) / 10_000.0)).sum::<f64>();
        mean / 10_000.0 * (to - from)
    }

    fn answer(&self, records: u64) -> (Duration, Outcome) {
        let mut stage = self.state.lock().unwrap();
        let took = Duration::from_micros(stage.rng.random_range(30_000..70_000));
        let Some(at) = self.began.elapsed().checked_sub(OUTAGE) else { return (took, (self.counts.down)()) };
        let at = at.as_secs_f64();
        let takes = self.takes(at);
        let most = (takes * self.counts.burst).max(10.0);
        stage.room = (stage.room + (at - stage.at) * takes).min(most);
        stage.at = at;
        stage.first.get_or_insert_with(Instant::now);
        stage.requests += 1;
        if stage.room < records as f64 {
            stage.refused += 1;
            return (took, throttled(self.counts.retry_after));
        }
        stage.room -= records as f64;
        stage.taken += records;
        (took, Outcome::Delivered)
    }
}

impl Sink for Station {
    fn format(&self) -> Format {
        Format { name: "station", settings: None, gzip: None }
    }

    fn encode(&self, job: &Job) -> Result<Encoded, EncodeError> {
        Ok(Encoded::whole(job, Bytes::from_static(b"x")))
    }

    fn send<'a>(&'a self, encoded: &'a Encoded, _: &'a str, _: Instant) -> BoxFuture<'a, Outcome> {
        Box::pin(async move {
            let (took, outcome) = self.answer(encoded.records());
            sleep(took).await;
            outcome
        })
    }

    fn needs_plan(&self) -> bool {
        false
    }
}

/// What came of a recovery.
#[derive(Debug)]
struct Recovery {
    /// Of what was possible, beside what arrived meanwhile, so much was drained.
    drained: f64,
    /// Of the requests so many were refused.
    refused: f64,
    requests: u64,
    seconds: u64,
}

fn recover(takes: Takes, counts: Counts, seed: u64) -> Recovery {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async move {
        let clock = Arc::new(ManualClock::at(1_000_000));
        let budget = Budget::new(BudgetLimits::default());
        let delivery = Delivery::beginning_with(budget, clock, Arc::new(NoParking), Some(seed));
        // As if it had been down for longer.
        let queue = Script::with_records(40_000);
        let station = Station::new(takes, counts, SmallRng::seed_from_u64(seed));
        let sink = Arc::clone(&station) as Arc<dyn Sink>;
        delivery.start("d", sink, vec![Arc::new(queue.clone())], settings()).unwrap();
        loop {
            sleep(Duration::from_millis(500)).await;
            queue.append((ARRIVAL / 2.0) as u64);
            let left = queue.with(|state| state.tail) - queue.settled();
            if left as f64 <= ARRIVAL {
                break;
            }
            assert!(station.began.elapsed() < HOUR, "it never drains: {left} are left");
        }
        let stage = station.state.lock().unwrap();
        let from = (stage.first.unwrap() - station.began - OUTAGE).as_secs_f64();
        let to = (station.began.elapsed() - OUTAGE).as_secs_f64();
        let (possible, arrived) = (station.possible(from, to), ARRIVAL * (to - from));
        Recovery {
            drained: (stage.taken as f64 - arrived) / (possible - arrived),
            refused: stage.refused as f64 / stage.requests as f64,
            requests: stage.requests,
            seconds: (to - from) as u64,
        }
    })
}

/// Of several destinations, which count in different ways and are down in different ways.
#[track_caller]
fn recovers(name: &str, takes: Takes, bursts: &[f64], retry_after: Option<Duration>) {
    let downs: [fn() -> Outcome; 2] = [refused, || throttled(None)];
    for (seed, burst) in (1..).zip(bursts.iter().copied()) {
        let counts = Counts { share: 1.0, burst, retry_after, down: downs[seed as usize % 2] };
        let recovery = recover(takes, counts, seed);
        println!("{name}, seed {seed}, burst {burst} s: {recovery:.3?}");
        assert!(
            recovery.requests > 5_000 && recovery.seconds > 300,
            "{name}, seed {seed}: it was too short: {recovery:?}"
        );
        assert!(recovery.drained >= 0.95, "{name}, seed {seed}: {recovery:?}");
        assert!(recovery.refused <= 0.02, "{name}, seed {seed}: {recovery:?}");
    }
}

#[test]
fn a_recovery_keeps_to_a_limit_that_steps() {
    recovers("steps", steps, &BURSTS, None);
}

#[test]
fn a_recovery_keeps_to_a_limit_that_rises() {
    recovers("ramp", ramp, &BURSTS, None);
}

#[test]
fn a_recovery_keeps_to_a_limit_that_rises_and_falls() {
    recovers("sawtooth", sawtooth, &BURSTS, None);
}

#[test]
fn a_recovery_keeps_to_a_limit_whose_refusals_cost_a_second_each() {
    recovers("even, with Retry-After", even, &[1.0, 2.0], Some(SECOND));
}
