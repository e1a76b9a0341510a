//! What an operator does to a destination that lags, beside one that is well: that one's life is, to the millisecond, what it
//! is where nobody does anything. Real queues behind the loop.

use std::path::Path;

use forebay::disk::mem::MemDisk;
use forebay::{LogOptions, Payload, QueueOptions, Queues, ReplayFrom, ReplayMode, ReplayRequest, Start};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use storage_tests::crash_points::number;

use super::*;
use crate::delivery::queued::Queued;

const STREAM: &str = "acme-prod";
const LIFE: Duration = Duration::from_secs(150);
const STEP: Duration = Duration::from_millis(200);

/// What waits for the one that lags when it begins. It takes a small part of what comes in.
const BACKLOG: u32 = 5_000;

/// As many requests as two may have at once: one that somebody kept would be missed.
const REQUESTS_MAX: usize = 8;

struct Beside {
    clock: ManualClock,
    queues: Queues,
    delivery: Delivery,
    well: Arc<Receiver>,
    /// Whatever the other one is called.
    lags: Arc<Receiver>,
}

impl Beside {
    fn new(seed: u64) -> Self {
        let clock = ManualClock::at(1_700_000_000_000);
        let log = LogOptions {
            segment_bytes: 1 << 20,
            budget_bytes: 64 << 20,
            replay_window: 2 * LIFE,
            ..LogOptions::small()
        };
        let (disk, shared) = (Arc::new(MemDisk::new()), Arc::new(clock.clone()));
        let queues = Queues::open(disk, shared.clone(), Path::new("/data"), log, QueueOptions::inline()).unwrap();
        let budget = Budget::new(BudgetLimits { requests_max: REQUESTS_MAX, ..BudgetLimits::default() });
        let delivery = Delivery::beginning_with(budget, shared, Arc::new(NoParking), Some(seed));
        let well = receiver(|_| Answer::After(Duration::from_millis(40), Outcome::Delivered));
        let lags = receiver(|n| match n % 8 {
            0 => Answer::Hang,
            1 => at_once(refused()),
            2 => at_once(throttled(Some(SECOND))),
            _ => Answer::After(SECOND, Outcome::Delivered),
        });
        let beside = Self { clock, queues, delivery, well: Arc::new(well), lags: Arc::new(lags) };
        beside.append(BACKLOG);
        beside.begin("lags", &beside.lags, Start::Earliest, 10);
        beside.begin("well", &beside.well, Start::Now, 10);
        beside
    }

    fn begin(&self, id: &str, receiver: &Arc<Receiver>, from: Start, records_max: u64) {
        let settings =
            Settings { limits: Limits { records_max, ..settings().limits }, timeout: SECOND * 5, ..settings() };
        let queue = self.queues.queue(id, STREAM, from).unwrap();
        let source = Arc::new(Queued::new(queue, environment()));
        self.delivery.start(id, Arc::clone(receiver) as Arc<dyn Sink>, vec![source], settings).unwrap();
    }

    fn append(&self, records: u32) {
        let payload = Payload { bytes: vec![7; records as usize * 10], records };
        self.queues.log().append_wait(STREAM, vec![payload]).unwrap();
    }

    fn behind(&self, id: &str) -> u64 {
        self.queues.find(id, STREAM).unwrap().lag().records
    }
}

/// What the one that is well was sent, and when, while `operate` is done to the other one; and what came of that.
async fn beside<T>(operate: impl AsyncFnOnce(&Beside) -> T) -> (Vec<(Duration, Range<u64>)>, T) {
    let seed = number("FOREBAY_SEED", 20_261_128);
    let (beside, mut rng) = (Beside::new(seed), SmallRng::seed_from_u64(seed));
    let began = Instant::now();
    let comes_in = async {
        for step in 1..=LIFE.as_millis() / STEP.as_millis() {
            beside.append(rng.random_range(1..40));
            sleep(STEP).await;
            beside.clock.advance(STEP);
            if step % 5 == 0 {
                beside.queues.tick().unwrap();
            }
        }
    };
    let operates = async {
        let operated = operate(&beside).await;
        assert!(began.elapsed() < LIFE, "FOREBAY_SEED={seed}: {:?}", began.elapsed());
        operated
    };
    let ((), operated) = tokio::join!(comes_in, operates);
    sleep(SECOND).await;
    assert_eq!(beside.behind("well"), 0, "FOREBAY_SEED={seed}");
    let sent = beside.well.sent().into_iter().map(|sent| (sent.at, sent.offsets)).collect();
    beside.delivery.shutdown(SECOND).await;
    (sent, operated)
}

#[tokio::test(start_paused = true)]
async fn one_that_is_taken_out_put_back_and_renamed_while_it_lags_takes_no_moment_from_another() {
    let (alone, ()) = beside(async |_| ()).await;
    let (meanwhile, (cut_off, begun_anew)) = beside(async |beside| {
        let (mut cut_off, mut name) = (0, "lags".to_owned());
        for n in 0..24 {
            sleep(SECOND * 4).await;
            assert!(beside.behind(&name) > 1_000, "it lags");
            let stopped = beside.delivery.stop(&name, SECOND / 2).await.unwrap();
            cut_off += u32::from(stopped.cut_off);
            sleep(SECOND).await;
            // By another name it begins with the oldest record, and what it was called before is gone.
            if n % 3 == 2 {
                beside.queues.delete(&name, None).unwrap();
                name = format!("lags-{n}");
            }
            beside.begin(&name, &beside.lags, Start::Earliest, 10 + n % 5);
        }
        (cut_off, beside.lags.sent().iter().filter(|sent| sent.offsets.start == 0).count())
    })
    .await;
    assert!(cut_off > 5 && begun_anew > 8, "{cut_off} were cut off, and {begun_anew} began with the first record");
    assert!(alone.len() > 750, "{}", alone.len());
    assert_eq!(meanwhile, alone);
}

#[tokio::test(start_paused = true)]
async fn an_operators_calls_in_the_midst_of_delivery_take_no_moment_from_another_destination() {
    let (alone, ()) = beside(async |_| ()).await;
    let (meanwhile, (replayed, purged)) = beside(async |beside| {
        let queue = beside.queues.find("lags", STREAM).unwrap();
        let (mut replayed, mut purged) = (0, 0);
        for n in 0..4 {
            sleep(SECOND * 8).await;
            assert!(beside.delivery.pause("lags"));
            sleep(SECOND).await;
            assert!(beside.delivery.resume("lags") && beside.delivery.probe("lags"));
            let mode = if n % 2 == 0 { ReplayMode::Fill } else { ReplayMode::Again };
            let request = ReplayRequest { from: ReplayFrom::Earliest, to: None, mode };
            let replay = beside.queues.replay("lags", STREAM, request).unwrap();
            while replay.balance().delivered.records == 0 {
                sleep(SECOND).await;
            }
            // In its midst: some of it is on its way.
            replayed += replay.balance().delivered.records;
            let pending = replay.balance().pending.records;
            let ended = beside.queues.cancel_replay("lags", STREAM).unwrap();
            assert!(ended.is_some() && pending > 0, "replay {n}: {pending} to go");
            let low = queue.cursor().low;
            queue.purge(low..low + 25).unwrap();
            purged = queue.balance().purged.records;
        }
        beside.delivery.stop("lags", SECOND / 2).await.unwrap();
        beside.queues.delete("lags", None).unwrap();
        (replayed, purged)
    })
    .await;
    assert!(replayed >= 40 && purged > 50, "{replayed} came again, and {purged} were purged");
    assert_eq!(meanwhile, alone);
}
