//! What was learned of destinations' rates, kept over restarts as notes beside the queues: see
//! docs/decisions/0021-learned-rates.md.

use std::sync::Arc;
use std::time::Duration;

use forebay::Queues;
use tokio::time::{MissedTickBehavior, interval};

use crate::delivery::Delivery;
use crate::delivery::rate::learned::Speed;
use crate::shutdown::Shutdown;

/// Between two looks at what was learned: a crash takes back no more.
const KEEP_EVERY: Duration = Duration::from_secs(10);

/// What has moved by less than this part is not worth a write.
const MOVED: f64 = 0.05;

const VERSION: u8 = 1;

/// What is known of a destination: by its loop, if it runs, and else from before.
pub(super) fn of(queues: &Queues, delivery: &Delivery, destination: &str) -> Option<Speed> {
    let runs = delivery.stats_of(destination).and_then(|stats| stats.learned?.known);
    runs.or_else(|| decode(&queues.remembered(destination)?))
}

/// Keeps what is known of all that run.
pub(super) fn keep(queues: &Queues, delivery: &Delivery) {
    for (destination, speed) in delivery.learned() {
        let before = queues.remembered(&destination).and_then(|note| decode(&note));
        if before.is_none_or(|before| moved(before.requests, speed.requests) || moved(before.records, speed.records)) {
            queues.remember(&destination, &encode(speed));
        }
    }
}

/// Does so now and then, until the sidecar stops.
pub(super) async fn keep_on(queues: Queues, delivery: Arc<Delivery>, shutdown: Shutdown) {
    let mut ticks = interval(KEEP_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => keep(&queues, &delivery),
            () = shutdown.requested() => return,
        }
    }
}

fn moved(before: f64, now: f64) -> bool {
    (now - before).abs() > before * MOVED
}

/// Version (u8), requests and records a second (f64 each, little-endian).
fn encode(speed: Speed) -> Vec<u8> {
    let numbers = [speed.requests, speed.records].map(f64::to_le_bytes);
    [&[VERSION][..], numbers.as_flattened()].concat()
}

fn decode(note: &[u8]) -> Option<Speed> {
    let (version, numbers) = note.split_first()?;
    let (requests, rest) = numbers.split_first_chunk::<8>()?;
    let (records, rest) = rest.split_first_chunk::<8>()?;
    let speed = Speed { requests: f64::from_le_bytes(*requests), records: f64::from_le_bytes(*records) };
    (*version == VERSION && rest.is_empty() && speed.is_sound()).then_some(speed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::Settings;
    use crate::delivery::budget::{Budget, BudgetLimits};
    use crate::delivery::outcome::{Failure, Outcome};
    use crate::delivery::parking::NoParking;
    use crate::delivery::queued::Queued;
    use crate::delivery::sink::{BoxFuture, EncodeError, Encoded, Environment, Format, Job, Sink};
    use crate::delivery::source::Limits;
    use bytes::Bytes;
    use forebay::clock::SystemClock;
    use forebay::disk::mem::MemDisk;
    use forebay::{LogOptions, MemStore, Payload, QueueOptions, Start, StoreChoice};
    use std::path::Path;
    use std::sync::atomic::{AtomicU64, Ordering};
    use tokio::time::Instant;

    /// Takes what it is sent, and asks to wait at every fortieth request.
    #[derive(Default)]
    struct Shy(AtomicU64);

    impl Sink for Shy {
        fn format(&self) -> Format {
            Format { name: "shy", settings: None, gzip: None }
        }

        fn encode(&self, job: &Job) -> Result<Encoded, EncodeError> {
            Ok(Encoded::whole(job, Bytes::from_static(b"x")))
        }

        fn send<'a>(&'a self, _: &'a Encoded, _: &'a str, _: Instant) -> BoxFuture<'a, Outcome> {
            Box::pin(async {
                tokio::time::sleep(Duration::from_millis(10)).await;
                match self.0.fetch_add(1, Ordering::SeqCst) % 40 {
                    39 => {
                        let why = Failure::status(429);
                        Outcome::Throttled { retry_after: None, why }
                    }
                    _ => Outcome::Delivered,
                }
            })
        }

        fn needs_plan(&self) -> bool {
            false
        }
    }

    fn open(disk: &Arc<MemDisk>, store: &MemStore) -> (Queues, Delivery) {
        let options = QueueOptions { store: StoreChoice::Memory(store.clone()), ..QueueOptions::inline() };
        let (disk, clock) = (Arc::clone(disk) as Arc<dyn forebay::disk::Disk>, Arc::new(SystemClock::new()));
        let queues = Queues::open(disk, clock.clone(), Path::new("/data"), LogOptions::small(), options).unwrap();
        (queues, Delivery::new(Budget::new(BudgetLimits::default()), clock, Arc::new(NoParking)))
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_learned_is_known_to_the_next_process() {
        let (disk, store) = (Arc::new(MemDisk::new()), MemStore::default());
        let (queues, delivery) = open(&disk, &store);
        let queue = queues.queue("hook", "prod", Start::Earliest).unwrap();
        for _ in 0..100 {
            queues.log().append_wait("prod", vec![Payload { bytes: vec![0; 100], records: 10 }]).unwrap();
        }
        let environment = Arc::new(Environment { id: "prod".to_owned(), name: "prod".to_owned() });
        let source = Arc::new(Queued::new(queue.clone(), environment));
        let settings = Settings { limits: Limits { records_max: 10, bytes_max: 1000 }, ..Settings::default() };
        assert_eq!(of(&queues, &delivery, "hook"), None);
        delivery.start("hook", Arc::new(Shy::default()), vec![source], settings).unwrap();
        while queue.lag().records > 0 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        delivery.shutdown(Duration::from_secs(1)).await;
        let learned = of(&queues, &delivery, "hook").expect("it was asked to wait");
        keep(&queues, &delivery);
        queues.close().unwrap();
        drop((queues, delivery, queue));
        let (queues, delivery) = open(&disk, &store);
        assert_eq!(of(&queues, &delivery, "hook"), Some(learned));
        assert_eq!(of(&queues, &delivery, "other"), None);
    }

    #[test]
    fn a_note_reads_back_as_it_was_written_and_nothing_else_is_one() {
        let speed = Speed { requests: 12.5, records: 12_500.0 };
        let note = encode(speed);
        assert_eq!(decode(&note), Some(speed));
        for at in 0..note.len() {
            assert_eq!(decode(&note[..at]), None);
        }
        assert_eq!(decode(&[&note[..], &[0]].concat()), None);
        assert_eq!(decode(&[&[2], &note[1..]].concat()), None, "of another version");
        assert_eq!(decode(&encode(Speed { requests: f64::NAN, records: 1.0 })), None);
    }

    #[test]
    fn small_moves_are_not_written() {
        assert!(!moved(100.0, 104.0) && !moved(100.0, 96.0) && moved(100.0, 106.0) && moved(100.0, 90.0));
    }
}
