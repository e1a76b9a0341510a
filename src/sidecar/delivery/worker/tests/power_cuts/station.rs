//! The receivers of these lives: they answer by chance from a seed and keep what came. No request comes of a process whose
//! disk has crashed, for it is gone.

use std::hash::{DefaultHasher, Hash};

use storage_tests::model::deliveries::{Deliveries, Heard};
use storage_tests::rng::Rng;
use storage_tests::sim_disk::SimDisk;

use super::super::*;
use crate::delivery::outcome::Partial;

/// Bad records are so many that a young process now and then doubts the destination, and halves what it rejects some of.
const BAD_ONE_IN: u64 = 120;

/// What a receiver does in one life of its sender.
#[derive(Debug, Clone, Copy)]
pub(super) enum Weather {
    Well,
    /// Any of the others, by request.
    Mixed,
    Throttles,
    Fails,
    Hangs,
    /// Takes what comes; every other answer is lost.
    LosesAnswers,
    /// Takes so many records in a request.
    Small(usize),
}

impl Weather {
    pub(super) fn of(rng: &mut Rng) -> Self {
        match rng.below(10) {
            0..2 => Self::Well,
            2..6 => Self::Mixed,
            _ => Self::bad(rng),
        }
    }

    fn bad(rng: &mut Rng) -> Self {
        match rng.below(5) {
            0 => Self::Throttles,
            1 => Self::Fails,
            2 => Self::Hangs,
            3 => Self::LosesAnswers,
            _ => Self::Small(1 + rng.below(9)),
        }
    }
}

pub(super) struct Station {
    pub(super) disk: SimDisk,
    pub(super) seen: Mutex<Seen>,
}

#[derive(Clone)]
pub(super) struct Seen {
    pub(super) rng: Rng,
    /// The life of the sender, when it began, and what it meets.
    pub(super) life: usize,
    pub(super) began: Instant,
    pub(super) weather: Weather,
    /// It rejects some records by name.
    pub(super) names: bool,
    pub(super) deliveries: Deliveries<u64>,
    /// The records that came, by where they lie.
    pub(super) contents: BTreeMap<(StreamId, u64), u64>,
    pub(super) trace: DefaultHasher,
    pub(super) requests: u64,
}

impl Station {
    pub(super) fn new(disk: &SimDisk, names: bool, seed: u64) -> Self {
        let seen = Seen {
            rng: Rng::new(seed),
            life: 0,
            began: Instant::now(),
            weather: Weather::Well,
            names,
            deliveries: Deliveries::default(),
            contents: BTreeMap::new(),
            trace: DefaultHasher::new(),
            requests: 0,
        };
        Self { disk: disk.clone(), seen: Mutex::new(seen) }
    }

    /// What came so far. A panic, if what came could not have.
    pub(super) fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().expect("what came is as the model says: see above")
    }
}

impl Seen {
    pub(super) fn is_bad(&self, record: u64) -> bool {
        self.names && record % BAD_ONE_IN == 7
    }

    /// A request comes.
    fn comes(&mut self, id: &str, encoded: &Encoded) -> Answer {
        let records: Vec<u64> =
            encoded.body.chunks(8).map(|bytes| u64::from_le_bytes(bytes.try_into().unwrap())).collect();
        let stream = encoded.origin.stream;
        let places: Vec<u64> = encoded.offsets().collect();
        assert_eq!(places.len(), records.len());
        for (&offset, &record) in places.iter().zip(&records) {
            let before = self.contents.insert((stream, offset), record);
            assert!(before.is_none_or(|before| before == record), "{before:?} at {offset} is {record} now");
        }
        let batch: Vec<u64> = (encoded.origin.offsets.clone())
            .map(|offset| *self.contents.get(&(stream, offset)).expect("what is left out came before"))
            .collect();
        let (answer, heard) = self.meet(&places, &records);
        self.deliveries.comes(self.life, id, &batch, &records, &heard);
        (self.life, self.began.elapsed(), id, &records).hash(&mut self.trace);
        let told = match &answer {
            Answer::After(took, outcome) => format!("{took:?} {outcome:?}"),
            Answer::Hang => String::new(),
        };
        told.hash(&mut self.trace);
        self.requests += 1;
        answer
    }

    /// The answer that these records get, and what their sender hears of it.
    fn meet(&mut self, places: &[u64], records: &[u64]) -> (Answer, Heard<u64>) {
        let took = Duration::from_millis(1 + self.rng.below(400) as u64);
        let weather = match self.weather {
            Weather::Mixed if self.rng.chance(1, 2) => Weather::Well,
            Weather::Mixed => Weather::bad(&mut self.rng),
            weather => weather,
        };
        let status = |status| Failure::status(status);
        let not_taken = match weather {
            Weather::Throttles => {
                let wait = self.rng.chance(1, 2).then(|| Duration::from_secs(1 + self.rng.below(20) as u64));
                throttled(wait)
            }
            Weather::Fails => refused(),
            Weather::Hangs => return (Answer::Hang, Heard::Nothing),
            Weather::Small(most) if records.len() > most => {
                return (Answer::After(took, Outcome::TooLarge { why: status(413) }), Heard::TooLarge);
            }
            Weather::LosesAnswers if self.rng.chance(1, 2) => {
                Outcome::Retry { why: Failure::Broken("reset after the request".to_owned()) }
            }
            _ => return self.take(places, records, took),
        };
        (Answer::After(took, not_taken), Heard::Nothing)
    }

    /// It takes them; where it rejects some by name it takes none, and the others have to come again.
    fn take(&mut self, places: &[u64], records: &[u64], took: Duration) -> (Answer, Heard<u64>) {
        let bad: Vec<u64> = records.iter().copied().filter(|record| self.is_bad(*record)).collect();
        if bad.is_empty() {
            return (Answer::After(took, Outcome::Delivered), Heard::Taken);
        }
        let named = places.iter().zip(records).filter(|(_, record)| bad.contains(record));
        let rejected = named.map(|(&offset, _)| RejectedRecord { offset, reason: "bad".to_owned() }).collect();
        let why = Failure::status(400);
        let partial = Partial { rejected, held: Vec::new(), why };
        (Answer::After(took, Outcome::Partial(partial)), Heard::NothingBut(bad))
    }
}

impl Sink for Station {
    fn format(&self) -> Format {
        Format { name: "station", settings: None, gzip: None }
    }

    /// Eight bytes a record, as they are stored.
    fn encode(&self, job: &Job) -> Result<Encoded, EncodeError> {
        let body: Vec<u8> =
            job.runs().flat_map(|run| &run.payload[8 * run.skip..8 * (run.skip + run.take)]).copied().collect();
        Ok(Encoded::whole(job, body.into()))
    }

    fn send<'a>(&'a self, encoded: &'a Encoded, id: &'a str, deadline: Instant) -> BoxFuture<'a, Outcome> {
        Box::pin(async move {
            if self.disk.crashed() {
                return std::future::pending().await;
            }
            let answer = self.seen().comes(id, encoded);
            answer.come(deadline).await
        })
    }

    fn needs_plan(&self) -> bool {
        true
    }
}
