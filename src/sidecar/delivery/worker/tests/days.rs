//! Days of destinations whose receivers do whatever receivers do: the loop, the pace and the shared budget as they are, on
//! a paused clock, with chance from a seed. When all is well again, each record has ended where it should, and what came is
//! as the model of deliveries says.
//!
//! `FOREBAY_DESTINATION_HOURS=10000 cargo test -p forebay-sidecar --lib days -- --nocapture`; `FOREBAY_CASE` plays one.

use std::hash::{DefaultHasher, Hash, Hasher};

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use storage_tests::crash_points::number;
use storage_tests::crew::{self, Until};
use storage_tests::model::deliveries::{Deliveries, Fate, Heard};

use super::drawer::Drawer;
use super::*;
use crate::delivery::outcome::{HeldRecord, Partial};
use crate::delivery::parking::Kind;

const DAY_HOURS: u64 = 24;
const DESTINATIONS: u32 = 8;
/// The last of them is always well.
const WELL: u32 = DESTINATIONS - 1;
/// As many requests as six may have at once.
const REQUESTS_MAX: usize = 6;

/// What a receiver does for a while.
#[derive(Debug, Clone, Copy)]
enum Weather {
    Well,
    /// Takes all, a second before nobody would wait for it any more.
    Late,
    Throttles(Option<Duration>),
    Hangs,
    Fails,
    /// Its name is found every other time.
    NoName,
    /// Takes what comes; every other answer is lost, at once or by silence.
    LosesAnswers,
    /// Wrong credentials.
    Refuses,
    /// Takes so many records a second, of which a minute's worth may come at once.
    Limits(f64),
    /// Takes so many records in a request.
    Small(usize),
    /// Names some that it does not take yet. The others it took, or they are to be sent again.
    PutsOff,
}

impl Weather {
    fn of(rng: &mut SmallRng) -> Self {
        match rng.random_range(0..16) {
            0..3 => Self::Well,
            3 => Self::Late,
            4 => Self::Throttles(None),
            5 => Self::Throttles(Some(Duration::from_secs(rng.random_range(1..900)))),
            6 => Self::Hangs,
            7 => Self::Fails,
            8 => Self::NoName,
            9 => Self::LosesAnswers,
            10 => Self::Refuses,
            11 | 12 => Self::Limits(rng.random_range(0.05..3.0)),
            13 | 14 => Self::PutsOff,
            _ => Self::Small(rng.random_range(1..9)),
        }
    }
}

/// Until when which weather lasts; behind the last of them all is well.
fn day(destination: u32, rng: &mut SmallRng) -> Vec<(Duration, Weather)> {
    let whole = HOUR * DAY_HOURS as u32;
    match destination {
        WELL => Vec::new(),
        // A whole day of nothing but 429.
        0 => vec![(whole, Weather::Throttles(rng.random_bool(0.5).then_some(Duration::from_secs(120))))],
        _ => {
            let (mut day, mut at) = (Vec::new(), Duration::ZERO);
            while at < whole {
                at = (at + Duration::from_secs(rng.random_range(300..6 * 3600))).min(whole);
                day.push((at, Weather::of(rng)));
            }
            day
        }
    }
}

/// A receiver, and what it saw.
struct Station {
    nth: u32,
    began: Instant,
    day: Vec<(Duration, Weather)>,
    /// Every 250th record is bad, which is rare enough to be the records' fault, and it says so by name.
    names: bool,
    seen: Mutex<Seen>,
    trace: Arc<Mutex<Trace>>,
}

struct Seen {
    rng: SmallRng,
    deliveries: Deliveries<u64>,
    /// What it did not take yet.
    put_off: BTreeSet<u64>,
    room: f64,
    at: Duration,
}

/// All that went out, in order.
#[derive(Default)]
struct Trace {
    hash: DefaultHasher,
    requests: u64,
}

impl Station {
    fn weather(&self, at: Duration) -> Weather {
        self.day.iter().find(|(until, _)| at < *until).map_or(Weather::Well, |(_, weather)| *weather)
    }

    fn bad_of(&self, offsets: impl Iterator<Item = u64>) -> Vec<u64> {
        offsets.filter(|at| self.names && at % 250 == 7).collect()
    }

    fn answer(&self, id: &str, encoded: &Encoded) -> Answer {
        let (at, mut seen) = (self.began.elapsed(), self.seen.lock().unwrap());
        let (batch, left): (Vec<_>, Vec<_>) = (encoded.origin.offsets.clone().collect(), encoded.offsets().collect());
        let (answer, heard) = self.meet(&left, at, &mut seen);
        seen.deliveries.comes(0, id, &batch, &left, &heard);
        answer
    }

    /// The answer that these records get, and what their sender hears of it.
    fn meet(&self, records: &[u64], at: Duration, seen: &mut Seen) -> (Answer, Heard<u64>) {
        let (took, every_other) = (Duration::from_millis(seen.rng.random_range(5..300)), seen.rng.random_bool(0.5));
        let weather = self.weather(at);
        let status = |status| Failure::status(status);
        let not_taken = match weather {
            Weather::Hangs => return (Answer::Hang, Heard::Nothing),
            Weather::Throttles(wait) => Some(throttled(wait)),
            Weather::Fails => Some(refused()),
            Weather::NoName if every_other => Some(Outcome::Retry { why: Failure::Connect("no such name".to_owned()) }),
            Weather::Refuses => Some(Outcome::Refused { why: status(401) }),
            Weather::Small(most) if records.len() > most => Some(Outcome::TooLarge { why: status(413) }),
            Weather::Limits(rate) => (!seen.has_room(records.len(), rate, at)).then(|| throttled(None)),
            _ => None,
        };
        if let Some(outcome) = not_taken {
            let too_large = matches!(outcome, Outcome::TooLarge { .. });
            return (Answer::After(took, outcome), if too_large { Heard::TooLarge } else { Heard::Nothing });
        }
        if let Weather::LosesAnswers = weather
            && every_other
        {
            let lost = Outcome::Retry { why: Failure::Broken("reset after the request".to_owned()) };
            let answer = if seen.rng.random_bool(0.5) { Answer::Hang } else { Answer::After(took, lost) };
            return (answer, Heard::Nothing);
        }
        let took = if let Weather::Late = weather { Duration::from_secs(29) } else { took };
        let bad = self.bad_of(records.iter().copied());
        let reject = |offset| RejectedRecord { offset, reason: "bad".to_owned() };
        let rejected: Vec<_> = bad.iter().copied().map(reject).collect();
        let not_yet = |offset: &u64| matches!(weather, Weather::PutsOff) && offset % 5 == 3 && !bad.contains(offset);
        let not_yet: Vec<u64> = records.iter().copied().filter(not_yet).collect();
        let wait = Duration::from_secs(seen.rng.random_range(1..900));
        let held: Vec<_> = not_yet.iter().map(|&offset| HeldRecord { offset, wait }).collect();
        if rejected.is_empty() && held.is_empty() {
            return (Answer::After(took, Outcome::Delivered), Heard::Taken);
        }
        seen.put_off.extend(&not_yet);
        let heard = Heard::NothingBut([bad, not_yet].concat());
        (Answer::After(took, Outcome::Partial(Partial { rejected, held, why: status(400) })), heard)
    }
}

impl Seen {
    /// Whether there is room for so many records now, of so many a second; if so they have taken it.
    fn has_room(&mut self, records: usize, rate: f64, at: Duration) -> bool {
        self.room = (self.room + (at - self.at).as_secs_f64() * rate).min((rate * 60.0).max(10.0));
        self.at = at;
        let has = self.room >= records as f64;
        if has {
            self.room -= records as f64;
        }
        has
    }
}

impl Sink for Station {
    fn format(&self) -> Format {
        Format { name: "station", settings: None, gzip: None }
    }

    fn encode(&self, job: &Job) -> Result<Encoded, EncodeError> {
        Ok(Encoded::whole(job, Bytes::from_static(b"x")))
    }

    fn send<'a>(&'a self, encoded: &'a Encoded, id: &'a str, deadline: Instant) -> BoxFuture<'a, Outcome> {
        Box::pin(async move {
            let outcome = self.answer(id, encoded).come(deadline).await;
            let mut trace = self.trace.lock().unwrap();
            (self.nth, self.began.elapsed(), id, encoded.offsets().collect::<Vec<_>>()).hash(&mut trace.hash);
            format!("{outcome:?}").hash(&mut trace.hash);
            trace.requests += 1;
            outcome
        })
    }

    fn needs_plan(&self) -> bool {
        true
    }
}

/// What a day came to: what went out, and when a record of the one that is well was settled, at the latest.
#[derive(Debug, PartialEq, Eq)]
struct Played {
    trace: u64,
    requests: u64,
    records: u64,
    longest: Duration,
}

fn play(seed: u64) -> Played {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async move {
        let mut rng = SmallRng::seed_from_u64(seed);
        let (trace, drawer) = (Arc::<Mutex<Trace>>::default(), Arc::new(Drawer::default()));
        let budget = Budget::new(BudgetLimits { requests_max: REQUESTS_MAX, ..BudgetLimits::default() });
        let clock = Arc::new(ManualClock::at(1_000_000));
        let delivery = Delivery::beginning_with(
            budget,
            Arc::clone(&clock) as Arc<dyn Clock>,
            Arc::clone(&drawer) as _,
            Some(seed),
        );
        let place = |nth: u32| {
            let queue = Script::of_stream(nth, 0);
            let seen = Seen {
                rng: SmallRng::seed_from_u64(rng.random()),
                deliveries: Deliveries::default(),
                put_off: BTreeSet::new(),
                room: 0.0,
                at: Duration::ZERO,
            };
            let station = Arc::new(Station {
                nth,
                began: Instant::now(),
                day: day(nth, &mut rng),
                // A bad record that is alone in its batch waits for another to be taken.
                names: nth % 3 == 1 && nth != WELL,
                seen: Mutex::new(seen),
                trace: Arc::clone(&trace),
            });
            let sink = Arc::clone(&station) as Arc<dyn Sink>;
            delivery.start(nth.to_string(), sink, vec![Arc::new(queue.clone())], settings()).unwrap();
            (queue, station)
        };
        let places: Vec<(Script, Arc<Station>)> = (0..DESTINATIONS).map(place).collect();
        let (began, mut longest) = (Instant::now(), Duration::ZERO);
        let well = &places[WELL as usize].0;
        while began.elapsed() < HOUR * DAY_HOURS as u32 {
            for (queue, _) in &places {
                if rng.random_bool(0.2) {
                    queue.append(rng.random_range(1..20));
                }
            }
            let due = well.with(|state| state.tail);
            let asked = Instant::now();
            while well.settled() < due && asked.elapsed() < Duration::from_secs(30) {
                sleep(Duration::from_millis(100)).await;
            }
            longest = longest.max(asked.elapsed());
            sleep(Duration::from_secs(rng.random_range(30..90))).await;
        }
        // All are well again.
        sleep(HOUR * 12).await;
        for (queue, station) in &places {
            check(seed, queue, station, &drawer);
        }
        delivery.shutdown(SECOND).await;
        let trace = trace.lock().unwrap();
        let records = places.iter().map(|(queue, _)| queue.settled()).sum();
        Played { trace: trace.hash.finish(), requests: trace.requests, records, longest }
    })
}

fn check(seed: u64, queue: &Script, station: &Station, drawer: &Drawer) {
    let (nth, seen) = (station.nth, station.seen.lock().unwrap());
    let settled = queue.with(|state| state.settled.clone());
    assert_eq!(settled.len() as u64, queue.with(|state| state.tail), "case {seed}, {nth}: some wait for ever");
    let bad = station.bad_of(settled.keys().copied());
    for (offset, how) in &settled {
        let expected = match bad.contains(offset) {
            true => Settled::DeadLettered,
            false if seen.put_off.contains(offset) => Settled::Held,
            false => Settled::Delivered,
        };
        assert_eq!(*how, expected, "case {seed}, {nth}: {offset}");
    }
    let appended: Vec<u64> = settled.into_keys().collect();
    seen.deliveries.hold(&format!("case {seed}, {nth}"), &[(&appended, Fate::Acknowledged)]);
    let apart: BTreeSet<u64> = bad.iter().chain(&seen.put_off).copied().collect();
    assert!(
        seen.deliveries.never_taken().into_iter().eq(&apart),
        "case {seed}, {nth}: taken is what was not set apart"
    );
    seen.deliveries.repeats_excused_by(&BTreeMap::new());
    let letters = drawer.letters.lock().unwrap();
    let ours = || letters.iter().filter(|letter| letter.origin.stream == StreamId(nth));
    let of = |dead: bool| ours().filter(move |letter| (letter.kind == Kind::Dead) == dead).map(|l| l.origin.offset);
    let (dead, held): (BTreeSet<u64>, BTreeSet<u64>) = (of(true).collect(), of(false).collect());
    assert_eq!((dead.into_iter().collect(), held), (bad, seen.put_off.clone()), "case {seed}, {nth}: letters");
}

#[test]
fn after_days_of_whatever_receivers_do_each_record_has_ended_where_it_should() {
    let hours = number("FOREBAY_DESTINATION_HOURS", 2 * DAY_HOURS * u64::from(DESTINATIONS));
    let case = |seed: u64| {
        let played = play(seed);
        println!("case {seed}: {played:?}");
        assert!(played.longest < SECOND, "case {seed}: the one that is well waited for {:?}", played.longest);
        if seed.is_multiple_of(5) {
            assert_eq!(play(seed), played, "case {seed} is not the same twice");
        }
        DAY_HOURS * u64::from(DESTINATIONS)
    };
    let repeat = |seed| {
        format!(
            "FOREBAY_CASE={seed} FOREBAY_DESTINATION_HOURS=1 cargo test -p forebay-sidecar --lib days -- --nocapture"
        )
    };
    let done = crew::each(number("FOREBAY_CASE", 0), Until::all(hours), case, repeat);
    println!("destination-hours: {done}");
}
