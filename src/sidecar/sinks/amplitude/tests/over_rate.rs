//! A backlog of one user above his rate, all the way: the queue, the loop, the letters, and Amplitude, which takes all.

use std::collections::BTreeMap;
use std::sync::Mutex;

use forebay::disk::mem::MemDisk;
use forebay::{Payload, Start};

use super::*;
use crate::ages::Now;
use crate::delivery::budget::{Budget, BudgetLimits};
use crate::delivery::queued::Queued;
use crate::delivery::sink::Environment;
use crate::delivery::source::{Limits, Source};
use crate::delivery::{Delivery, Settings};
use crate::letters::{HeldSource, Letters};
use crate::sinks::sample;

const RECORDS: u64 = 5_000;
const TICK: Duration = Duration::from_millis(100);

/// Takes what the rates let through.
struct TakesAll {
    amplitude: Amplitude,
    /// How often each record was taken.
    taken: Mutex<BTreeMap<u64, u32>>,
}

impl Sink for TakesAll {
    fn format(&self) -> Format {
        self.amplitude.format()
    }

    fn encode(&self, job: &Job) -> Result<Encoded, EncodeError> {
        self.amplitude.encode(job)
    }

    fn send<'a>(&'a self, encoded: &'a Encoded, _: &'a str, deadline: Instant) -> BoxFuture<'a, Outcome> {
        Box::pin(async move {
            match self.amplitude.foreseen(encoded, encoded.body.len(), deadline) {
                Asked::Not(outcome) => outcome,
                Asked::After(wait) => {
                    tokio::time::sleep(wait).await;
                    let mut taken = self.taken.lock().unwrap();
                    encoded.offsets().for_each(|offset| *taken.entry(offset).or_default() += 1);
                    Outcome::Delivered
                }
            }
        })
    }

    fn needs_plan(&self) -> bool {
        false
    }
}

/// Before, the whole backlog was due again within seconds, and was written anew as often, until it was gone.
#[tokio::test(start_paused = true)]
async fn a_backlog_of_one_user_becomes_letters_once_and_leaves_at_his_rate() {
    let clock = ManualClock::at(784_111_777_000);
    let theirs: Arc<dyn Clock> = Arc::new(clock.clone());
    let queues = sample::queues_by(&MemDisk::new(), &theirs);
    let queue = queues.queue("d", "acme-prod", Start::Earliest).unwrap();
    let impression = r#"{"k":"bot","t":"on","m":1700000000000,"c":5,"r":"all"}"#;
    let bulk = job_of(&format!(r#"[{{"f":"checkout","i":[{}]}}]"#, vec![impression; 500].join(",")));
    for _ in 0..RECORDS / 500 {
        let payload = Payload { bytes: bulk.parts[0].payload.to_vec(), records: 500 };
        queues.log().append_wait("acme-prod", vec![payload]).unwrap();
    }
    let letters = Letters::open(queues.clone(), Arc::clone(&theirs));
    let delivery =
        Delivery::new(Budget::new(BudgetLimits::default()), Arc::clone(&theirs), Arc::clone(&letters) as Arc<_>);
    let config = AmplitudeConfig { api: AmplitudeApi::HttpV2, ..AmplitudeConfig::new("hush") };
    let amplitude = Amplitude::new(&config, 4, Arc::default(), theirs);
    let sink = Arc::new(TakesAll { amplitude, taken: Mutex::default() });
    let environment = Arc::new(Environment { id: "acme-prod".to_owned(), name: "production".to_owned() });
    let desk = letters.desk("d");
    let sources: Vec<Arc<dyn Source>> =
        vec![Arc::new(Queued::new(queue.clone(), environment)), Arc::new(HeldSource::new(desk, false))];
    let settings = Settings { limits: Limits { records_max: 1_000, bytes_max: 1 << 20 }, ..Settings::default() };
    delivery.start("d", Arc::clone(&sink) as Arc<dyn Sink>, sources, settings).unwrap();
    let appended = || queues.find("d", "!held/d").map_or(0, |held| held.lag().durable_tail);
    let mut seconds = 0;
    while (sink.taken.lock().unwrap().len() as u64) < RECORDS {
        for _ in 0..10 {
            tokio::time::sleep(TICK).await;
            clock.advance(TICK);
            letters.tend(Now::of(&clock));
        }
        seconds += 1;
        assert!(appended() <= 2 * RECORDS, "{} letters after {seconds} s", appended());
    }
    assert!(sink.taken.lock().unwrap().values().all(|times| *times == 1));
    assert!(appended() >= RECORDS - 200, "{} letters", appended());
    assert!((175..220).contains(&seconds), "27 a second: {seconds} s");
    delivery.shutdown(Duration::ZERO).await;
}
