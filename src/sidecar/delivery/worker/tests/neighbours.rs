//! Nobody pays for a neighbour: a thousand destinations on one machine, a tenth of which hang for ever, a tenth throttle,
//! and one has half of all traffic; and ten thousand, of whom that one has a long backlog besides. The real loop and the real
//! budget on a paused clock; what CPU a batch costs is spent on a machine of two processors that serves first come, first served.

use std::collections::BTreeSet;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::drawer::Drawer;
use super::*;

/// What a batch of a webhook costs of CPU, from claim to settled, and each record in it: `end_to_end_cpu` at one record
/// and at a thousand a batch.
const BATCH_CPU: Duration = Duration::from_micros(150);
const RECORD_CPU: Duration = Duration::from_nanos(700);

const APPENDS_A_SECOND: usize = 800;
const RECORDS_AN_APPEND: u64 = 50;
const RUN: Duration = Duration::from_secs(75);

/// The sick have taken everything for so long, as many requests at once as they may have.
const WELL_FOR: Duration = Duration::from_secs(15);

/// Who is there: first those who hang when some are sick, then those who throttle, then one with half of the traffic, then
/// all others.
#[derive(Clone, Copy)]
struct Town {
    destinations: usize,
    hang: usize,
    throttle: usize,
    /// Appends that wait for the one with half of the traffic when it begins, if some are sick.
    backlog: usize,
    /// The requests that all may have in flight.
    requests_max: usize,
}

/// Those who hang could take all requests: there are a quarter of the default.
const THOUSAND: Town = Town { destinations: 1_000, hang: 100, throttle: 100, backlog: 0, requests_max: 256 };

/// With what is configured where nobody says otherwise. The backlog is more than can be sent in the whole run.
const TEN_THOUSAND: Town =
    Town { destinations: 10_000, hang: 1_000, throttle: 100, backlog: 100_000, requests_max: 1_024 };

/// The processors, as far as batches use them: each job waits for those before it.
#[derive(Clone, Default)]
struct Processors(Arc<Mutex<[Option<Instant>; 2]>>);

impl Processors {
    async fn work(&self, time: Duration) {
        let until = {
            let mut free_at = self.0.lock().unwrap();
            let now = Instant::now();
            let first = free_at.iter_mut().min_by_key(|at| at.unwrap_or(now)).unwrap();
            let until = first.map_or(now, |at| at.max(now)) + time;
            *first = Some(until);
            until
        };
        tokio::time::sleep_until(until).await;
    }
}

/// How long records took from their append to their delivery.
type Delays = Arc<Mutex<Vec<Duration>>>;

/// A queue that remembers when its records came.
#[derive(Clone)]
struct Feed(Arc<Mutex<FeedState>>, Delays);

#[derive(Default)]
struct FeedState {
    came: Vec<Instant>,
    next: usize,
    returned: BTreeSet<(usize, usize)>,
    wake: Option<Arc<dyn Fn() + Send + Sync>>,
}

impl Feed {
    fn append(&self) {
        let mut state = self.0.lock().unwrap();
        state.came.push(Instant::now());
        let wake = state.wake.clone();
        drop(state);
        wake.inspect(|wake| wake());
    }

    /// Appends that have not been delivered.
    fn pending(&self) -> usize {
        let state = self.0.lock().unwrap();
        state.came.len() - state.next + state.returned.iter().map(|(from, end)| end - from).sum::<usize>()
    }
}

impl Source for Feed {
    fn has_more(&self) -> bool {
        self.pending() > 0
    }

    fn fills(&self, _: Limits) -> bool {
        false
    }

    fn bytes_waiting(&self, limits: Limits) -> u64 {
        limits.bytes_max.min(self.pending() as u64 * RECORDS_AN_APPEND * 150)
    }

    fn in_memory(&self, _: Limits) -> bool {
        true
    }

    fn next(&self, limits: Limits) -> Result<Option<Claimed>, BoxError> {
        let mut state = self.0.lock().unwrap();
        let appends = (limits.records_max.min(limits.bytes_max / 150) / RECORDS_AN_APPEND).max(1) as usize;
        let fresh = (state.next, state.came.len().min(state.next + appends));
        let (from, end) = state.returned.pop_first().unwrap_or(fresh);
        state.next = state.next.max(end);
        let offsets = from as u64 * RECORDS_AN_APPEND..end as u64 * RECORDS_AN_APPEND;
        if offsets.is_empty() {
            return Ok(None);
        }
        let take = (offsets.end - offsets.start) as usize;
        let job = Job {
            id: "batch".into(),
            origin: Origin { log: LogId(1), stream: StreamId(1), offsets: offsets.clone() },
            environment: environment(),
            parts: vec![Part { payload: Bytes::new(), skip: 0, take, first: offsets.start }],
            except: Except::default(),
            bytes: take as u64 * 150,
        };
        Ok(Some(Claimed { job, ticket: Box::new(FeedTicket { feed: self.clone(), appends: Some((from, end)) }) }))
    }

    fn next_large(&self, _: Limits, _: Option<u64>, _: &Heavy) -> Result<Option<Claimed<LargeJob>>, BoxError> {
        unreachable!("these are webhooks")
    }

    fn waiting(&self) -> Result<Waiting, BoxError> {
        unreachable!("nothing waits for a batch to fill")
    }

    fn on_more(&self, wake: Arc<dyn Fn() + Send + Sync>) {
        self.0.lock().unwrap().wake = Some(wake);
    }
}

struct FeedTicket {
    feed: Feed,
    appends: Option<(usize, usize)>,
}

impl Ticket for FeedTicket {
    fn plan(&self, done: Box<dyn FnOnce(Result<(), BoxError>) + Send>) {
        done(Ok(()));
    }

    fn settle(mut self: Box<Self>, _: &[(Range<u64>, Settled)], _: Settled) {
        let (from, end) = self.appends.take().expect("settled once");
        let now = Instant::now();
        let delays = self.feed.0.lock().unwrap().came[from..end].iter().map(|came| now - *came).collect::<Vec<_>>();
        self.feed.1.lock().unwrap().extend(delays);
    }

    fn split(self: Box<Self>, _: u64, _: Box<dyn FnOnce(Result<(), BoxError>) + Send>) {
        unreachable!("nothing is too large here")
    }

    fn letters(&self, _: &[u64]) -> Result<Vec<Stored>, BoxError> {
        unreachable!("nothing is rejected here")
    }
}

impl Drop for FeedTicket {
    fn drop(&mut self) {
        let Some(appends) = self.appends.take() else { return };
        let mut state = self.feed.0.lock().unwrap();
        state.returned.insert(appends);
        let wake = state.wake.clone();
        drop(state);
        wake.inspect(|wake| wake());
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Health {
    Well,
    Hangs,
    Throttles,
}

/// A webhook whose receiver is so and so.
struct Hook {
    health: Health,
    since: Instant,
    processors: Processors,
    chance: Mutex<SmallRng>,
}

impl Sink for Hook {
    fn format(&self) -> Format {
        Format { name: "hook", settings: None, gzip: None }
    }

    fn encode(&self, job: &Job) -> Result<Encoded, EncodeError> {
        Ok(Encoded::whole(job, Bytes::from_static(&[b' '; 1000])))
    }

    fn send<'a>(&'a self, encoded: &'a Encoded, _: &'a str, deadline: Instant) -> BoxFuture<'a, Outcome> {
        Box::pin(async move {
            let records = u32::try_from(encoded.records()).unwrap();
            self.processors.work(BATCH_CPU + RECORD_CPU * records).await;
            let answers_after = Duration::from_millis(self.chance.lock().unwrap().random_range(20..80));
            match self.health {
                _ if Instant::now() < self.since => sleep(answers_after).await,
                Health::Well => sleep(answers_after).await,
                Health::Throttles => {
                    sleep(answers_after).await;
                    return throttled(None);
                }
                Health::Hangs => {
                    tokio::time::sleep_until(deadline).await;
                    return Outcome::Retry { why: Failure::Timeout };
                }
            }
            Outcome::Delivered
        })
    }

    fn needs_plan(&self) -> bool {
        false
    }
}

/// What the healthy saw.
#[derive(Debug)]
#[expect(dead_code, reason = "printed")]
struct Seen {
    half: Duration,
    p99: Duration,
    max: Duration,
    delivered: usize,
    late: usize,
}

/// One run; some are sick in it, or nobody is.
async fn run(town: Town, seed: u64, sick: bool) -> Seen {
    let budget = Budget::new(BudgetLimits { requests_max: town.requests_max, ..BudgetLimits::default() });
    let huge = town.hang + town.throttle;
    let (clock, parking) = (Arc::new(ManualClock::at(0)), Arc::new(NoParking));
    let delivery = Delivery::beginning_with(budget, clock, parking, Some(seed));
    let (processors, healthy, others) = (Processors::default(), Delays::default(), Delays::default());
    let mut chance = SmallRng::seed_from_u64(seed);
    let (mut feeds, began) = (Vec::new(), Instant::now());
    for n in 0..town.destinations {
        let health = match n {
            _ if !sick || n >= huge => Health::Well,
            _ if n < town.hang => Health::Hangs,
            _ => Health::Throttles,
        };
        let seen = if n > huge { &healthy } else { &others };
        let feed = Feed(Arc::default(), Arc::clone(seen));
        let chance = Mutex::new(SmallRng::seed_from_u64(seed ^ n as u64));
        let since = began + WELL_FOR;
        let hook = Arc::new(Hook { health, since, processors: processors.clone(), chance });
        let settings = Settings::default();
        delivery.start(n.to_string(), hook, vec![Arc::new(feed.clone())], settings).unwrap();
        feeds.push(feed);
    }
    (0..if sick { town.backlog } else { 0 }).for_each(|_| feeds[huge].append());
    let mut appends = 0;
    while began.elapsed() < RUN {
        sleep(Duration::from_millis(2)).await;
        let due = (began.elapsed().as_millis() as usize) * APPENDS_A_SECOND / 1000;
        for _ in appends..due {
            let one = if sick && chance.random_bool(0.5) { huge } else { chance.random_range(0..town.destinations) };
            feeds[one].append();
        }
        appends = due;
    }
    sleep(Duration::from_secs(1)).await;
    let late = feeds[huge + 1..].iter().map(Feed::pending).sum();
    let mut delays = std::mem::take(&mut *healthy.lock().unwrap());
    delays.sort_unstable();
    let at = |permille: usize| delays[(delays.len() - 1) * permille / 1000];
    Seen { half: at(500), p99: at(990), max: at(1000), delivered: delays.len(), late }
}

#[tokio::test(start_paused = true)]
async fn the_healthy_do_not_notice_who_hangs_throttles_or_has_half_of_the_traffic() {
    nobody_pays(THOUSAND).await;
}

#[tokio::test(start_paused = true)]
async fn nor_do_they_among_ten_thousand_of_whom_one_is_far_behind() {
    nobody_pays(TEN_THOUSAND).await;
}

/// The healthy have as much to say of the sick as of the well: nothing.
async fn nobody_pays(town: Town) {
    let seed = std::env::var("FOREBAY_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(20_261_126);
    let (alone, beside) = (run(town, seed, false).await, run(town, seed, true).await);
    println!("FOREBAY_SEED={seed}: alone {alone:?}, beside the sick {beside:?}");
    assert!(alone.delivered > 40_000 && beside.delivered > 20_000, "{alone:?} {beside:?}");
    assert_eq!((alone.late, beside.late), (0, 0), "a second after the last append nothing waits");
    let ratio = beside.p99.as_secs_f64() / alone.p99.as_secs_f64();
    assert!(
        ratio <= 1.2,
        "FOREBAY_SEED={seed}: p99 {:?} beside the sick, {:?} without: {ratio:.2}",
        beside.p99,
        alone.p99
    );
}

/// One record that is alone, and then one after the other that is searched for by halves. All may have 32 requests at once.
#[tokio::test(start_paused = true)]
async fn who_is_searched_for_poison_takes_no_moment_from_another() {
    let (drawer, clock) = (Arc::new(Drawer::default()), Arc::new(ManualClock::at(0)));
    let budget = Budget::new(BudgetLimits { requests_max: 32, ..BudgetLimits::default() });
    let delivery = delivering(budget, clock, Arc::clone(&drawer) as _);
    let (searched, well) = (Script::with_records(1), Script::of_stream(1, 0));
    let poison = |at: &u64| at.is_multiple_of(250);
    let answer = move |_: usize, records: &[u64]| {
        let outcome = match records.iter().any(poison) {
            true => Outcome::Rejected { why: Failure::status(400) },
            false => Outcome::Delivered,
        };
        Answer::After(SECOND * 20, outcome)
    };
    start(&delivery, "searched", reading(answer), &searched);
    start(&delivery, "well", receiver(|_| at_once(Outcome::Delivered)), &well);
    for n in 1..=5_400_u64 {
        searched.append(u64::from(n > 1_800 && n.is_multiple_of(2)));
        well.append(1);
        sleep(SECOND).await;
        assert_eq!(well.settled(), n, "within a second, always");
    }
    sleep(HOUR * 12).await;
    assert_eq!(searched.settled(), 1 + 1_800);
    assert_eq!(drawer.of(true), (0..=1_800).step_by(250).collect::<Vec<u64>>());
}
