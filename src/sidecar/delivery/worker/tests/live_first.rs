//! Real queues behind the loop, of a destination that catches up with two positions: after hours of outage what comes in is
//! delivered within seconds, and the backlog drains beside it at no more than the destination takes.

use std::num::NonZeroU32;
use std::path::Path;

use forebay::disk::mem::MemDisk;
use forebay::{LogOptions, Payload, Queue, QueueOptions, Queues, Start};

use super::*;
use crate::delivery::KnownRate;
use crate::delivery::catch_up::CatchUp;
use crate::delivery::queued::Queued;
use crate::delivery::rate::RateLimits;

/// A destination that is down or takes so many records a second, a second's worth of them at once. Says when it took each.
struct Station {
    began: Instant,
    /// How long an answer takes.
    takes: Duration,
    state: Mutex<Stage>,
}

#[derive(Default)]
struct Stage {
    takes: Option<f64>,
    room: f64,
    at: Duration,
    taken: BTreeMap<u64, Duration>,
    asked_for: BTreeSet<String>,
    requests: u64,
    refused: u64,
}

impl Station {
    fn answer(&self, encoded: &Encoded, id: &str) -> Outcome {
        let now = self.began.elapsed();
        let mut stage = self.state.lock().unwrap();
        stage.asked_for.insert(id.to_owned());
        let Some(takes) = stage.takes else { return refused() };
        stage.room = (stage.room + (now - stage.at).as_secs_f64() * takes).min(takes);
        (stage.at, stage.requests) = (now, stage.requests + 1);
        if stage.room < encoded.records() as f64 {
            stage.refused += 1;
            return throttled(None);
        }
        stage.room -= encoded.records() as f64;
        for offset in encoded.offsets() {
            assert_eq!(stage.taken.insert(offset, now), None, "{offset} came twice");
        }
        Outcome::Delivered
    }
}

impl Sink for Station {
    fn format(&self) -> Format {
        Format { name: "station", settings: None, gzip: None }
    }

    fn encode(&self, job: &Job) -> Result<Encoded, EncodeError> {
        Ok(Encoded::whole(job, Bytes::from_static(b"x")))
    }

    fn send<'a>(&'a self, encoded: &'a Encoded, id: &'a str, _: Instant) -> BoxFuture<'a, Outcome> {
        Box::pin(async move {
            sleep(self.takes).await;
            self.answer(encoded, id)
        })
    }

    fn needs_plan(&self) -> bool {
        true
    }
}

/// A destination with a queue in memory, on two clocks that go alike.
struct Stand {
    clock: ManualClock,
    queues: Queues,
    queue: Queue,
    station: Arc<Station>,
    delivery: Delivery,
    step: Duration,
    rate: RateLimits,
    /// When each record came in.
    came: Vec<Duration>,
}

impl Stand {
    /// Its backlog has so much of what the destination takes; `None`: the oldest goes first.
    fn new(backlog_percent: Option<u8>) -> Self {
        Self::with(backlog_percent, Duration::from_millis(500), RateLimits::default())
    }

    fn with(backlog_percent: Option<u8>, step: Duration, rate: RateLimits) -> Self {
        let clock = ManualClock::at(1_700_000_000_000);
        let log = LogOptions { segment_bytes: 1 << 20, budget_bytes: 64 << 20, ..LogOptions::small() };
        let (disk, shared) = (Arc::new(MemDisk::new()), Arc::new(clock.clone()));
        let queues = Queues::open(disk, shared.clone(), Path::new("/data"), log, QueueOptions::inline()).unwrap();
        let queue = queues.queue("d", "acme-prod", Start::Earliest).unwrap();
        let delivery =
            Delivery::beginning_with(Budget::new(BudgetLimits::default()), shared, Arc::new(NoParking), Some(1));
        let takes = Duration::from_millis(50);
        let station = Arc::new(Station { began: Instant::now(), takes, state: Mutex::default() });
        let stand = Self { clock, queues, queue, station, delivery, step, rate, came: Vec::new() };
        stand.start(backlog_percent);
        stand
    }

    /// One that answers after so long, and takes one request at a time.
    async fn slow(takes: Duration) -> Self {
        let mut stand = Self::new(Some(20));
        stand.delivery.stop("d", SECOND).await;
        stand.station = Arc::new(Station { began: Instant::now(), takes, state: Mutex::default() });
        stand.start(Some(20));
        stand
    }

    fn start(&self, backlog_percent: Option<u8>) {
        let catch_up = backlog_percent.map(|backlog_percent| CatchUp { backlog_percent });
        let queued = Queued::new(self.queue.clone(), environment());
        let queued = if catch_up.is_some() { queued.live_first(Duration::ZERO) } else { queued };
        let sink = Arc::clone(&self.station) as Arc<dyn Sink>;
        let rate = Some(Box::new(KnownRate { limits: self.rate, learned: None }));
        let settings = match self.station.takes > SECOND {
            true => Settings { concurrency_max: 1, timeout: self.station.takes * 2, ..settings() },
            false => settings(),
        };
        let settings = Settings { catch_up, rate, ..settings };
        self.delivery.start("d", sink, vec![Arc::new(queued)], settings).unwrap();
    }

    /// So many steps, in each of which so many records come in.
    async fn steps(&mut self, steps: u32, records: u32) {
        for _ in 0..steps {
            if records > 0 {
                let payload = Payload { bytes: vec![7; records as usize * 10], records };
                self.queues.log().append_wait("acme-prod", vec![payload]).unwrap();
                let now = self.station.began.elapsed();
                self.came.extend((0..records).map(|_| now));
            }
            sleep(self.step).await;
            self.clock.advance(self.step);
            self.queues.tick().unwrap();
        }
    }

    fn takes(&self, records_a_second: Option<f64>) {
        self.station.state.lock().unwrap().takes = records_a_second;
    }

    /// How late the latest of these records was taken; of those that were not, they are not.
    fn latest(&self, offsets: Range<u64>) -> Option<Duration> {
        let stage = self.station.state.lock().unwrap();
        let late = |offset: u64| Some(*stage.taken.get(&offset)? - self.came[offset as usize]);
        offsets.map(late).collect::<Option<Vec<_>>>()?.into_iter().max()
    }
}

/// What a recovery came to.
struct Recovered {
    stand: Stand,
    /// How late the latest record was that came in once it went again, save for the first eighty seconds.
    latest: Option<Duration>,
    /// Of what the destination takes, so much was taken.
    taken: f64,
    /// Of the requests so many were refused.
    refused: f64,
    /// Batches that it was asked to take while it was down.
    probed_with: usize,
}

/// A quarter of an hour of outage and more, of a destination that takes `takes` records a second, a fifth of which come in.
async fn recover(backlog_percent: Option<u8>, takes: f64) -> Recovered {
    let arrive = (takes / 10.0) as u32;
    let mut stand = Stand::new(backlog_percent);
    stand.takes(Some(takes));
    stand.steps(20, arrive).await;
    assert!(stand.latest(0..150).unwrap() < 2 * SECOND, "it keeps up");
    stand.takes(None);
    let before = stand.station.state.lock().unwrap().asked_for.len();
    stand.steps(2_000, arrive).await;
    let probed_with = stand.station.state.lock().unwrap().asked_for.len() - before;
    stand.takes(Some(takes));
    let began = stand.station.began.elapsed();
    stand.steps(160, arrive).await; // it is found, and its rate is
    let from = stand.came.len() as u64;
    stand.steps(200, arrive).await;
    let until = stand.came.len() as u64;
    stand.steps(10, arrive).await;
    let latest = stand.latest(from..until);
    let lag = stand.queue.lag();
    assert!(lag.oldest_age_ms.unwrap() > 60_000, "there is a backlog: {lag:?}");
    assert!(backlog_percent.is_none() || lag.live_age_ms.unwrap() < 5_000, "{lag:?}");
    let mut steps = 0;
    while stand.queue.lag().records > u64::from(arrive) * 5 {
        stand.steps(10, arrive).await;
        steps += 10;
        assert!(steps < 3_000, "it never drains: {:?}", stand.queue.lag());
    }
    let took = (stand.station.began.elapsed() - began).as_secs_f64();
    stand.steps(10, 0).await;
    let (taken, refused) = {
        let stage = stand.station.state.lock().unwrap();
        let taken = stage.taken.values().filter(|at| **at >= began).count() as f64;
        (taken / (took * takes), stage.refused as f64 / stage.requests as f64)
    };
    println!("{backlog_percent:?} of {takes} a second: {taken:.3} taken, {refused:.4} refused, late by {latest:?}");
    Recovered { stand, latest, taken, refused, probed_with }
}

#[tokio::test(start_paused = true)]
async fn after_an_outage_what_comes_in_is_late_by_seconds_while_the_backlog_drains_at_what_is_taken() {
    let one = recover(None, 200.0).await;
    let two = recover(Some(20), 200.0).await;
    assert!(one.latest.is_none_or(|late| late > 60 * SECOND), "with one position it waits behind the backlog");
    assert!(two.latest.expect("it was taken") < 5 * SECOND, "late by {:?}, beside the backlog", two.latest);
    assert!(two.taken > 0.92 && two.taken > one.taken - 0.02, "{} and {} of what is possible", one.taken, two.taken);
    assert!(two.refused <= one.refused + 0.002, "{} of its requests were refused, and {}", two.refused, one.refused);
    assert!(two.probed_with <= one.probed_with.max(2), "an outage opens no batches at two ends: {}", two.probed_with);
    let stand = two.stand;
    assert_eq!(stand.station.state.lock().unwrap().taken.len(), stand.came.len(), "each once");
    let balance = stand.queue.balance();
    assert!(balance.closes() && balance.delivered.records == stand.came.len() as u64, "{balance:?}");
    assert_eq!((stand.queue.cursor().settled.len(), stand.queue.live().has_more()), (0, false), "one position again");
}

#[tokio::test(start_paused = true)]
async fn what_waits_has_its_share_of_a_destination_that_takes_less_than_comes_in() {
    let mut stand = Stand::new(Some(30));
    stand.steps(600, 60).await; // it is down for five minutes
    stand.takes(Some(100.0));
    stand.steps(400, 60).await; // 120 a second come in, 100 are taken
    let from = stand.station.began.elapsed();
    let back = 600 * 60;
    stand.steps(1_200, 60).await;
    let taken: Vec<u64> = {
        let stage = stand.station.state.lock().unwrap();
        stage.taken.iter().filter(|(_, at)| **at >= from).map(|(offset, _)| *offset).collect()
    };
    let old = taken.iter().filter(|offset| **offset < back).count() as f64 / taken.len() as f64;
    assert!((0.28..0.35).contains(&old), "{old} of what was taken was old");
    let lag = stand.queue.lag();
    assert!(lag.live_age_ms.unwrap() < 130_000, "what is fresh stays so: {lag:?}");
    assert!(stand.queue.cursor().settled.len() < 20, "{:?}", stand.queue.cursor().settled);
    // It takes more than comes in: all of it arrives.
    stand.takes(Some(1_000.0));
    let mut steps = 0;
    while stand.queue.lag().records > 0 {
        stand.steps(20, 0).await;
        steps += 20;
        assert!(steps < 4_000, "it never drains: {:?}", stand.queue.lag());
    }
    assert_eq!(stand.station.state.lock().unwrap().taken.len(), stand.came.len());
}

/// Of a destination that takes few requests, each is to carry what it can.
#[tokio::test(start_paused = true)]
async fn what_comes_in_gathers_while_a_backlog_drains() {
    let four = RateLimits { requests: NonZeroU32::new(4), ..RateLimits::default() };
    let mut stand = Stand::with(Some(20), Duration::from_millis(100), four);
    stand.steps(3_000, 1).await; // it is down
    stand.takes(Some(1_000.0));
    stand.steps(700, 1).await; // a probe comes after a minute at the latest
    let before = stand.queue.backlog().pending().records;
    assert!(stand.queue.lag().live_age_ms.is_some() && before > 300, "{before}");
    let from = stand.came.len() as u64;
    stand.steps(100, 1).await;
    let drained = before - stand.queue.backlog().pending().records;
    assert!(drained >= 240, "of 400 that ten seconds have room for beside a hundred that came in: {drained}");
    let until = stand.came.len() as u64 - 20;
    assert!(stand.latest(from..until).unwrap() < 2 * SECOND, "and those are not late");
}

#[tokio::test(start_paused = true)]
async fn who_changes_from_two_positions_to_one_and_back_leaves_nothing_behind() {
    let mut stand = Stand::new(Some(20));
    stand.steps(600, 10).await;
    stand.takes(Some(40.0));
    stand.steps(200, 10).await;
    assert!(stand.queue.lag().live_age_ms.is_some());
    stand.delivery.stop("d", SECOND).await;
    stand.start(None);
    stand.steps(100, 10).await;
    assert!(stand.queue.lag().live_age_ms.is_none(), "the oldest goes first");
    let last = stand.came.len() as u64 - 1;
    assert!(stand.latest(last - 100..last).is_none(), "so what came in last waits");
    stand.delivery.stop("d", SECOND).await;
    stand.start(Some(20));
    stand.takes(Some(400.0));
    stand.steps(400, 10).await;
    stand.steps(10, 0).await;
    assert_eq!(stand.station.state.lock().unwrap().taken.len(), stand.came.len(), "each once");
    assert!(stand.queue.balance().closes() && stand.queue.lag().records == 0);
}

/// Before: each time its turn came, what was live was a minute old, and became backlog: it went oldest first for ever.
#[tokio::test(start_paused = true)]
async fn what_comes_in_has_its_turns_where_each_request_takes_longer_than_it_may_be_late() {
    let mut stand = Stand::slow(70 * SECOND).await;
    stand.takes(Some(1_000.0));
    let mut steps = 0;
    while stand.queue.lag().live_age_ms.is_none() {
        stand.steps(10, 1).await;
        steps += 10;
        assert!(steps < 1_000, "it falls behind");
    }
    let parted = stand.came.len() as u64;
    stand.steps(2_400, 1).await;
    let taken = {
        let stage = stand.station.state.lock().unwrap();
        let live = stage.taken.range(parted..).map(|(offset, at)| *at - stand.came[*offset as usize]);
        live.filter(|late| *late < 240 * SECOND).count()
    };
    assert!(taken >= 80, "of some 170 that were taken {taken} were live");
    assert!(stand.queue.backlog().pending().records > 0);
}
