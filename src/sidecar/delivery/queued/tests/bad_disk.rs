//! Batches that are under way while their disk goes bad: what was heard of them counts, and none stands still for ever.

use std::path::PathBuf;

use storage_tests::fault::{Failure, Fault, OpKind};
use storage_tests::queues::out_of_memory;
use storage_tests::sim_disk::SimDisk;

use super::*;
use crate::delivery::outcome::{self, Partial, RejectedRecord};
use crate::delivery::parking::{Letter, Parking};

/// Five bulks of four records, each a frame.
struct Shop {
    disk: SimDisk,
    clock: Arc<ManualClock>,
    queues: Queues,
    queue: Queue,
}

impl Shop {
    fn new() -> Self {
        let shop = Self::on(SimDisk::new(1), Arc::new(ManualClock::at(1_700_000_000_000)));
        (0..5).for_each(|_| append(&shop.queues, BULK));
        shop
    }

    fn on(disk: SimDisk, clock: Arc<ManualClock>) -> Self {
        let shared: Arc<dyn forebay::disk::Disk> = Arc::new(disk.clone());
        let (log, options) = (LogOptions::small(), QueueOptions::inline());
        let queues = Queues::open(shared, clock.clone(), Path::new("/data"), log, options).unwrap();
        let queue = queues.queue("d", "acme-prod", Start::Earliest).unwrap();
        Self { disk, clock, queues, queue }
    }

    /// After another start: nothing is in memory, and each file is open by the name that it has.
    fn again(self) -> Self {
        let Self { disk, clock, queues, queue } = self;
        queues.close().unwrap();
        drop((queues, queue));
        Self::on(disk, clock)
    }

    fn source(&self) -> Queued {
        Queued::new(self.queue.clone(), environment())
    }

    /// Where the nth frame of a bulk lies.
    fn frame(&self, nth: usize) -> (PathBuf, usize) {
        let payload = &job_of(BULK).parts[0].payload;
        let is_here = |bytes: &Vec<u8>, at: usize| bytes[at..].starts_with(payload);
        let places = self.disk.paths().into_iter().flat_map(|path| {
            let bytes = self.disk.read_live(&path).unwrap();
            let here: Vec<usize> = (0..bytes.len()).filter(|at| is_here(&bytes, *at)).collect();
            here.into_iter().map(move |at| (path.clone(), at))
        });
        places.collect::<Vec<_>>().swap_remove(nth)
    }

    /// Of the frames of a bulk the nth rots, and none is in memory any more.
    fn rot(&self, nth: usize) {
        out_of_memory(self.queues.log());
        let (path, at) = self.frame(nth);
        self.disk.flip_bit(&path, 8 * at as u64 + 3);
    }

    fn deliver(&self, sink: &Arc<Rejects>, parking: &Arc<Letters>, ordered: bool) -> Delivery {
        let delivery = Delivery::new(Budget::new(BudgetLimits::default()), self.clock.clone(), parking.clone());
        let settings = Settings { ordered, ..Settings::default() };
        delivery.start("d", sink.clone(), vec![Arc::new(self.source())], settings).unwrap();
        delivery
    }
}

/// Rejects the record at 17 by name and takes the others; a frame rots as it answers for the first of them.
struct Rejects {
    rots: Box<dyn Fn() + Send + Sync>,
    sent: Mutex<Vec<Vec<u64>>>,
}

impl Sink for Rejects {
    fn format(&self) -> Format {
        Format { name: "rejects", settings: None, gzip: None }
    }

    fn encode(&self, job: &Job) -> Result<Encoded, EncodeError> {
        Ok(Encoded::whole(job, Bytes::from_static(b"x")))
    }

    fn send<'a>(&'a self, encoded: &'a Encoded, _: &'a str, _: Instant) -> BoxFuture<'a, Outcome> {
        let records: Vec<u64> = encoded.offsets().collect();
        let outcome = match records.contains(&17) {
            true => {
                let rejected = vec![RejectedRecord { offset: 17, reason: "bad".to_owned() }];
                let why = outcome::Failure::status(400);
                Outcome::Partial(Partial { rejected, held: Vec::new(), why })
            }
            false => {
                if records[0] == 0 {
                    (self.rots)();
                }
                Outcome::Delivered
            }
        };
        self.sent.lock().unwrap().push(records);
        Box::pin(async { outcome })
    }

    fn needs_plan(&self) -> bool {
        true
    }
}

/// Where letters lie, by offset.
#[derive(Default)]
struct Letters(Mutex<Vec<u64>>);

impl Parking for Letters {
    fn park(&self, letters: Vec<Letter>, done: Box<dyn FnOnce(Result<(), BoxError>) + Send>) {
        self.0.lock().unwrap().extend(letters.iter().map(|letter| letter.origin.offset));
        done(Ok(()));
    }
}

/// A batch of which a frame rots between its answer and its letter. It was tried for ever: each look read all of it, from its
/// start, and in order nothing went behind it.
#[tokio::test(start_paused = true)]
async fn a_batch_that_damage_hits_while_its_letter_is_kept_settles_by_its_answer() {
    for (nth, letters, lost) in [(2, vec![17], 0), (4, vec![], 1)] {
        let shop = Arc::new(Shop::new());
        let rots = Box::new({
            let shop = Arc::clone(&shop);
            move || shop.rot(nth)
        });
        let (sink, parking) = (Arc::new(Rejects { rots, sent: Mutex::default() }), Arc::new(Letters::default()));
        let delivery = shop.deliver(&sink, &parking, true);
        tokio::time::sleep(Duration::from_secs(60)).await;
        append(&shop.queues, NONE_WANTED);
        tokio::time::sleep(Duration::from_secs(60)).await;
        let (books, sent) = (shop.queue.balance(), sink.sent.lock().unwrap().clone());
        let rest = (0..20).filter(|offset| *offset != 17).collect::<Vec<_>>();
        assert_eq!(sent, [(0..20).collect(), rest, vec![20, 21, 22]], "frame {nth}");
        assert_eq!(*parking.0.lock().unwrap(), letters, "frame {nth}");
        let dead = letters.len() as u64;
        assert_eq!((books.delivered.records, books.dead_lettered.records, books.lost.records), (22, dead, lost));
        assert!(books.closes() && books.pending.records == 0, "{books:?}");
        assert!(delivery.shutdown(Duration::from_secs(1)).await.is_empty());
    }
}

/// A batch whose split failed and may be durable all the same. Only the loop that had asked for it knew where, and the next one
/// asked for its plan for ever.
#[tokio::test(start_paused = true)]
async fn a_batch_whose_split_failed_goes_on_in_halves_with_another_loop() {
    let shop = Shop::new();
    let source = shop.source();
    let Claimed { ticket, .. } = source.next(Limits { records_max: 4, ..LIMITS }).unwrap().unwrap();
    ticket.plan(Box::new(|planned| planned.unwrap()));
    shop.disk.inject(Fault::every(OpKind::Sync, Failure::Eio));
    ticket.split(2, Box::new(|halved| assert!(halved.is_err())));
    drop(source);
    shop.disk.clear_faults();
    shop.queues.log().housekeep();
    let (sink, parking) = (Arc::new(Rejects { rots: Box::new(|| ()), sent: Mutex::default() }), Arc::default());
    let delivery = shop.deliver(&sink, &parking, false);
    tokio::time::sleep(Duration::from_secs(60)).await;
    let sent = sink.sent.lock().unwrap().clone();
    assert_eq!((&sent[0], &sent[1]), (&vec![0, 1], &vec![2, 3]));
    assert_eq!(shop.queue.lag().records, 0);
    assert!(delivery.shutdown(Duration::from_secs(1)).await.is_empty());
}

/// Before, the one that could not be read had its turn each time, and the other one none.
#[test]
fn a_replay_that_cant_be_read_costs_its_queue_a_try_now_and_then_and_the_other_way_round() {
    for replay_is_bad in [true, false] {
        let shop = Shop::new();
        deliver_all(&shop.source());
        // They lie in segments of their own.
        out_of_memory(shop.queues.log());
        replay_all(&shop.queues);
        (0..40).for_each(|_| append(&shop.queues, BULK));
        let shop = shop.again();
        let source = shop.source();
        let (path, _) = shop.frame(if replay_is_bad { 0 } else { 5 });
        shop.disk.inject(Fault::every(OpKind::Read, Failure::Eio).on(path.to_str().unwrap()));
        let (mut failures, mut had) = (0, 0);
        for _ in 0..60 {
            match source.next(Limits { records_max: 4, ..LIMITS }) {
                Err(_) => failures += 1,
                Ok(Some(Claimed { job, ticket })) => {
                    assert_eq!(job.origin.offsets.start >= 20, replay_is_bad, "{:?}", job.origin);
                    ticket.settle(&[], Settled::Delivered);
                    had += 1;
                }
                Ok(None) => break,
            }
            if !source.queue.has_more() || !source.replay().is_some_and(|replay| replay.has_more()) {
                break;
            }
        }
        assert!(
            had >= 5 && failures <= 1 + had / 4,
            "{had} had, {failures} failed, the replay is bad: {replay_is_bad}"
        );
    }
}

/// What fills is sent when its time has come, though its turn was passed on to a replay of which nothing was left.
#[tokio::test(start_paused = true)]
async fn a_queue_that_fills_beside_a_replay_that_is_lost_goes_in_its_time() {
    let shop = Shop::new();
    deliver_all(&shop.source());
    let replay = replay_all(&shop.queues);
    out_of_memory(shop.queues.log());
    for _ in 0..5 {
        let (path, at) = shop.frame(0); // what is rotten is found no more
        shop.disk.flip_bit(&path, 8 * at as u64 + 3);
    }
    append(&shop.queues, NONE_WANTED);
    let sink = Arc::new(Rejects { rots: Box::new(|| ()), sent: Mutex::default() });
    let parking: Arc<Letters> = Arc::default();
    let delivery = Delivery::new(Budget::new(BudgetLimits::default()), shop.clock.clone(), parking);
    let settings = Settings { batch_wait_max: Duration::from_secs(300), ..Settings::default() };
    delivery.start("d", sink.clone(), vec![Arc::new(shop.source())], settings).unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
    // The first frame was read when the replay began; the others are lost.
    assert_eq!((&sink.sent.lock().unwrap()[..], replay.pending().records), (&[vec![0, 1, 2, 3]][..], 0));
    shop.clock.advance(Duration::from_secs(300));
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(sink.sent.lock().unwrap()[1..], [[20, 21, 22]]);
}
