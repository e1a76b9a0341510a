//! Amplitude tells a repeat from a new event for seven days. An outage that is longer, and begins with an answer that is lost,
//! ends with a repeat that it counts: of what was in flight and of nothing else, under the ids that it had.

use forebay::clock::ManualClock;
use tokio::time::{Instant, sleep, sleep_until};

use super::*;
use crate::config::AmplitudeConfig;
use crate::delivery::outcome::{Failure, Outcome};
use crate::delivery::sink::{BoxFuture, EncodeError, Encoded, Format, Job};
use crate::delivery::stats::State;
use crate::sinks::amplitude::Amplitude;

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// For so long an event that comes again is not counted again.
const REMEMBERS: Duration = Duration::from_secs(7 * 24 * 3600);

/// What Amplitude is for this: it takes the first request and its answer is lost; then it takes nothing; then it takes all.
struct Far {
    /// Makes the events.
    events: Amplitude,
    over: Instant,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Default)]
struct Seen {
    requests: usize,
    /// Of each event, when it was first taken, and how often it is counted.
    counted: BTreeMap<String, (Instant, u32)>,
}

impl Seen {
    fn take(&mut self, encoded: &Encoded) {
        let (text, now) = (String::from_utf8_lossy(&encoded.body), Instant::now());
        let ids = text.split(r#""insert_id":""#).skip(1).map(|rest| rest.split('"').next().unwrap());
        for id in ids {
            let (first, count) = self.counted.entry(id.to_owned()).or_insert((now, 0));
            if *count == 0 || now - *first > REMEMBERS {
                *count += 1;
            }
        }
    }
}

impl Sink for Far {
    fn format(&self) -> Format {
        self.events.format()
    }

    fn encode(&self, job: &Job) -> Result<Encoded, EncodeError> {
        self.events.encode(job)
    }

    fn send<'a>(&'a self, encoded: &'a Encoded, _: &'a str, deadline: Instant) -> BoxFuture<'a, Outcome> {
        Box::pin(async move {
            let lost = {
                let mut seen = self.seen.lock().unwrap();
                let lost = seen.requests == 0;
                seen.requests += 1;
                if lost || Instant::now() >= self.over {
                    seen.take(encoded);
                }
                lost
            };
            if lost {
                sleep_until(deadline).await;
                return Outcome::Retry { why: Failure::Timeout };
            }
            if Instant::now() < self.over {
                // Asked once an hour it makes few requests of a week.
                let words = "come again in an hour".to_owned();
                let why = Failure::Status { status: 503, words, excerpt: String::new() };
                return Outcome::Throttled { retry_after: Some(HOUR), why };
            }
            Outcome::Delivered
        })
    }

    fn needs_plan(&self) -> bool {
        self.events.needs_plan()
    }
}

#[tokio::test(start_paused = true)]
async fn an_outage_longer_than_amplitude_remembers_repeats_what_was_in_flight_and_nothing_else() {
    for (days, counted) in [(6, 1), (8, 2)] {
        let (disk, clock) = (MemDisk::new(), ManualClock::at(1_795_450_895_000));
        let (over, seen) = (Instant::now() + DAY * days, Arc::<Mutex<Seen>>::default());
        let start = || {
            let theirs: Arc<dyn Clock> = Arc::new(clock.clone());
            let stage = on_stage(&disk, sample::queues_by(&disk, &theirs), Arc::clone(&theirs));
            let events = Amplitude::new(&AmplitudeConfig::new("hush"), 4, Arc::default(), theirs);
            stage.start("d", Arc::new(Far { events, over, seen: Arc::clone(&seen) }));
            stage
        };
        let mut stage = start();
        (0..10).for_each(|n| stage.append(n * 10));
        for hour in 0..days * 24 - 1 {
            sleep(HOUR).await;
            clock.advance(HOUR);
            if hour == 72 {
                // A new start forgets what it tried, and what it calls its batches; the events keep their names.
                stage.delivery.shutdown(Duration::ZERO).await;
                stage.queues.close().unwrap();
                drop(stage);
                // What was cut off lets go of the log.
                sleep(Duration::from_secs(1)).await;
                stage = start();
            }
        }
        let in_flight: BTreeSet<String> = seen.lock().unwrap().counted.keys().cloned().collect();
        assert!((10..=25).contains(&in_flight.len()), "one request was taken: {in_flight:?}");
        // What an operator sees of it.
        let (lag, told) = (stage.queues.all()[0].lag(), stage.delivery.stats_of("d").unwrap());
        assert_eq!((lag.records, lag.oldest_age_ms.map(|age| age / 3_600_000)), (100, Some(u64::from(days) * 24 - 1)));
        assert!(matches!(told.state, State::Backoff { .. }), "{told:?}");
        assert!(told.last_error.unwrap().contains("come again in an hour"));
        sleep(HOUR * 3).await;
        assert_eq!(stage.queues.all()[0].balance().delivered.records, 100);
        let all = std::mem::take(&mut seen.lock().unwrap().counted);
        assert_eq!(all.len(), 100, "each record has one name");
        for (id, (_, count)) in all {
            let expected = if in_flight.contains(&id) { counted } else { 1 };
            assert_eq!(count, expected, "{days} days, {id}");
        }
        stage.delivery.shutdown(Duration::ZERO).await;
    }
}
