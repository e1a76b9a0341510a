//! Batches that fill, and batches that are read as they are sent.

use super::clocks::Jumpy;
use super::drawer::Drawer;
use super::*;
use crate::delivery::sink::{LargeSink, Reread};

/// With the wall clock that tokio's paused one would be.
fn following(limits: BudgetLimits) -> (Delivery, Budget) {
    let budget = Budget::new(limits);
    let drawer: Arc<Drawer> = Arc::default();
    (delivering(budget.clone(), Jumpy::at(0), drawer), budget)
}

fn filling(wait: Duration) -> Settings {
    Settings { batch_wait_max: wait, ..settings() }
}

#[tokio::test(start_paused = true)]
async fn a_batch_goes_when_it_is_full_or_its_oldest_record_has_waited() {
    let (delivery, _) = following(BudgetLimits::default());
    let queue = Script::default();
    let receiver = Arc::new(receiver(|_| at_once(Outcome::Delivered)));
    delivery.start("d", Arc::clone(&receiver) as _, vec![Arc::new(queue.clone())], filling(SECOND * 60)).unwrap();
    for _ in 0..4 {
        queue.append(1);
        sleep(SECOND * 10).await;
    }
    assert_eq!(receiver.sent().len(), 0, "four records in forty seconds");
    sleep(SECOND * 21).await;
    let sent = receiver.sent();
    assert_eq!((sent.len(), sent[0].offsets.clone()), (1, 0..4), "the oldest has waited for a minute");
    assert!(sent[0].at >= SECOND * 60 && sent[0].at <= SECOND * 61, "{:?}", sent[0].at);
    queue.append(25);
    sleep(SECOND * 2).await;
    assert_eq!((receiver.sent().len(), queue.settled()), (3, 24), "two full ones go at once");
    sleep(SECOND * 60).await;
    assert_eq!(queue.settled(), 29);
    assert_eq!(delivery.stats_of("d").unwrap().state, State::Idle);
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_fills_still_obeys_a_throttle_and_what_comes_again_does_not_wait_to_fill() {
    let (delivery, _) = following(BudgetLimits::default());
    let queue = Script::with_records(3);
    let answer = |n| at_once(if n == 0 { throttled(Some(SECOND * 30)) } else { Outcome::Delivered });
    let receiver = Arc::new(receiver(answer));
    delivery.start("d", Arc::clone(&receiver) as _, vec![Arc::new(queue.clone())], filling(SECOND * 60)).unwrap();
    sleep(SECOND * 62).await;
    assert_eq!(receiver.sent().len(), 1);
    queue.append(1);
    sleep(SECOND * 32).await;
    let sent = receiver.sent();
    assert_eq!((sent.len(), &sent[0].id, queue.settled()), (2, &sent[1].id, 3));
    sleep(SECOND * 60).await;
    assert_eq!(queue.settled(), 4);
}

/// Takes a batch part by part, a second each, and holds so much memory for it.
struct Large {
    memory_bytes: fn(u64) -> u64,
    /// It takes connections and never answers.
    hangs: bool,
    /// What each part takes.
    part_takes: Duration,
    answer: Box<dyn Fn(usize) -> Outcome + Send + Sync>,
    /// The disk does not read the batches of this stream that begin here; how often it was asked to.
    unreadable: Mutex<Option<(u32, Range<u64>)>>,
    unread: AtomicUsize,
    puts: Mutex<Vec<(String, u64)>>,
    queue: Script,
}

const MEMORY_BYTES: u64 = 8 << 20;

impl Sink for Large {
    fn format(&self) -> Format {
        Format { name: "large", settings: None, gzip: None }
    }

    fn encode(&self, _: &Job) -> Result<Encoded, EncodeError> {
        unreachable!("a large sink is given ranges")
    }

    fn send<'a>(&'a self, _: &'a Encoded, _: &'a str, _: Instant) -> BoxFuture<'a, Outcome> {
        unreachable!("a large sink is given ranges")
    }

    fn needs_plan(&self) -> bool {
        true
    }

    fn large(&self) -> Option<&dyn LargeSink> {
        Some(self)
    }
}

impl LargeSink for Large {
    fn memory_bytes(&self, job_bytes: u64) -> u64 {
        (self.memory_bytes)(job_bytes)
    }

    fn put<'a>(&'a self, job: &'a LargeJob, timeout: Duration) -> BoxFuture<'a, Outcome> {
        Box::pin(async move {
            if self.hangs {
                sleep(timeout).await;
                return Outcome::Retry { why: Failure::Timeout };
            }
            assert!(self.queue.with(|state| state.planned.contains(&job.origin.offsets.start)), "sent unplanned");
            let unreadable = self.unreadable.lock().unwrap().clone();
            if unreadable
                .is_some_and(|(stream, at)| job.origin.stream.0 == stream && at.contains(&job.origin.offsets.start))
            {
                sleep(self.part_takes).await;
                self.unread.fetch_add(1, Ordering::SeqCst);
                return Outcome::Retry { why: Failure::Unread("the disk does not read".to_owned()) };
            }
            let mut records = 0;
            for part in job.records.parts() {
                let turn = job.turns.turn().await;
                assert!(turn.is_some(), "it shares heavy work");
                drop(turn);
                let part = match part {
                    Ok(part) => part,
                    Err(why) => return Outcome::Retry { why: Failure::Unread(why.to_string()) },
                };
                records += part.take as u64;
                tokio::select! {
                    () = sleep(self.part_takes) => {}
                    () = job.patience.out() => return Outcome::Retry { why: Failure::Local("it gives way".to_owned()) },
                }
            }
            let mut puts = self.puts.lock().unwrap();
            puts.push((job.id.to_string(), records));
            (self.answer)(puts.len() - 1)
        })
    }
}

fn plain(queue: &Script, answer: impl Fn(usize) -> Outcome + Send + Sync + 'static) -> Large {
    let (answer, puts, queue) = (Box::new(answer), Mutex::default(), queue.clone());
    let (unreadable, unread) = (Mutex::default(), AtomicUsize::default());
    Large { memory_bytes: |_| MEMORY_BYTES, hangs: false, part_takes: SECOND, answer, unreadable, unread, puts, queue }
}

fn large(queue: &Script, answer: impl Fn(usize) -> Outcome + Send + Sync + 'static) -> Arc<Large> {
    Arc::new(plain(queue, answer))
}

fn with_memory(
    queue: &Script,
    memory_bytes: fn(u64) -> u64,
    answer: impl Fn(usize) -> Outcome + Send + Sync + 'static,
) -> Arc<Large> {
    Arc::new(Large { memory_bytes, ..plain(queue, answer) })
}

fn hung(queue: &Script) -> Arc<Large> {
    Arc::new(Large { hangs: true, ..plain(queue, |_| unreachable!("it never answers")) })
}

/// Takes each part just before its timeout.
fn dripping(queue: &Script) -> Arc<Large> {
    Arc::new(Large { part_takes: SECOND * 29, ..plain(queue, |_| Outcome::Delivered) })
}

#[tokio::test(start_paused = true)]
async fn a_large_batch_is_planned_put_part_by_part_and_comes_again_as_it_was() {
    let (delivery, budget) = following(BudgetLimits::default());
    let free = (budget.free_requests(), budget.free_bytes());
    let queue = Script::with_records(25);
    let answer = |n| if n == 0 { refused() } else { Outcome::Delivered };
    let sink = large(&queue, answer);
    delivery.start("d", Arc::clone(&sink) as _, vec![Arc::new(queue.clone())], filling(SECOND)).unwrap();
    sleep(Duration::from_millis(1500)).await;
    assert_eq!(budget.free_bytes(), free.1 - MEMORY_BYTES, "what the sink takes, not what the batch is");
    sleep(HOUR).await;
    assert_eq!(queue.settled(), 25);
    let puts = sink.puts.lock().unwrap().clone();
    let named: Vec<_> = puts.iter().map(|(id, records)| (id.as_str(), *records)).collect();
    assert_eq!(named[..2], [("batch-0-0-10", 10), ("batch-0-0-10", 10)]);
    assert_eq!(named.len(), 4);
    assert_eq!((budget.free_requests(), budget.free_bytes()), free);
}

/// What is read as it is sent turns out only then to be unreadable.
#[tokio::test(start_paused = true)]
async fn a_large_batch_that_cannot_be_read_waits_ever_longer_and_holds_up_no_other_queue() {
    let (delivery, _) = following(BudgetLimits::default());
    let (bad, good) = (Script::of_stream(0, 20), Script::of_stream(2, 0));
    let sink = Arc::new(Large { part_takes: Duration::ZERO, ..plain(&good, |_| Outcome::Delivered) });
    *sink.unreadable.lock().unwrap() = Some((0, 0..20));
    let sources: Vec<Arc<dyn Source>> = vec![Arc::new(bad.clone()), Arc::new(good.clone())];
    delivery.start("d", Arc::clone(&sink) as _, sources, settings()).unwrap();
    for n in 1..=20 {
        good.append(10);
        sleep(SECOND * 3).await;
        assert_eq!(good.settled(), n * 10);
    }
    let tries = sink.unread.load(Ordering::SeqCst);
    assert!((3..40).contains(&tries), "it is tried again, ever more rarely: {tries}");
    *sink.unreadable.lock().unwrap() = None;
    sleep(SECOND * 90).await;
    assert_eq!(bad.settled(), 20);
}

/// Before, any sign of life of the queue began the waits anew: a batch behind it, or records that were no batch yet.
#[tokio::test(start_paused = true)]
async fn what_lies_behind_a_large_batch_that_cannot_be_read_has_it_tried_no_oftener() {
    for (records, comes_in) in [(10, 8), (200, 0)] {
        let (delivery, _) = following(BudgetLimits::default());
        let queue = Script::of_stream(0, records);
        let sink = large(&queue, |_| Outcome::Delivered);
        *sink.unreadable.lock().unwrap() = Some((0, 0..10));
        let source: Arc<dyn Source> = Arc::new(queue.clone());
        delivery.start("d", Arc::clone(&sink) as _, vec![source], filling(SECOND * 600)).unwrap();
        for n in 0..60 {
            queue.append(u64::from(n < comes_in));
            sleep(SECOND * 5).await;
        }
        let tries = sink.unread.load(Ordering::SeqCst);
        assert!((3..40).contains(&tries), "{records}: {tries} in five minutes");
    }
}

#[tokio::test(start_paused = true)]
async fn a_large_batch_that_is_too_large_or_rejected_is_split_like_any_other() {
    let (delivery, _) = following(BudgetLimits::default());
    let queue = Script::with_records(10);
    let sink = large(&queue, |n| match n {
        0 => Outcome::TooLarge { why: Failure::Timeout },
        1 => Outcome::Rejected { why: Failure::Timeout },
        _ => Outcome::Delivered,
    });
    delivery.start("d", Arc::clone(&sink) as _, vec![Arc::new(queue.clone())], filling(SECOND)).unwrap();
    sleep(HOUR).await;
    assert_eq!(queue.settled(), 10);
    let mut records: Vec<u64> = sink.puts.lock().unwrap().iter().map(|(_, records)| *records).collect();
    assert_eq!(records[..2], [10, 5]);
    records[2..].sort_unstable();
    assert_eq!(records[2..], [2, 3, 5]);
}

#[tokio::test(start_paused = true)]
async fn large_batches_of_many_destinations_leave_half_of_the_memory_to_others() {
    let (delivery, budget) = following(BudgetLimits { bytes_max: 4 * MEMORY_BYTES, ..BudgetLimits::default() });
    let queues: Vec<_> = (0..6).map(|_| Script::with_records(100)).collect();
    for (n, queue) in queues.iter().enumerate() {
        let sink = large(queue, |_| Outcome::Delivered);
        delivery.start(n.to_string(), sink as _, vec![Arc::new(queue.clone())], filling(SECOND)).unwrap();
    }
    let live = Script::default();
    start(&delivery, "live", receiver(|_| at_once(Outcome::Delivered)), &live);
    for n in 1..=200 {
        live.append(1);
        sleep(Duration::from_millis(100)).await;
        assert_eq!(live.settled(), n, "nobody is in its way");
        assert!(budget.free_bytes() >= 2 * MEMORY_BYTES);
    }
    sleep(HOUR).await;
    assert!(queues.iter().all(|queue| queue.settled() == 100));
}

/// A queue that knows that little waits in it.
struct Little(Script);

impl Source for Little {
    fn has_more(&self) -> bool {
        self.0.has_more()
    }

    fn bytes_waiting(&self, _: Limits) -> u64 {
        1000
    }

    fn in_memory(&self, limits: Limits) -> bool {
        self.0.in_memory(limits)
    }

    fn next(&self, limits: Limits) -> Result<Option<Claimed>, BoxError> {
        self.0.next(limits)
    }

    fn next_large(
        &self,
        limits: Limits,
        partition_ms: Option<u64>,
        heavy: &Heavy,
    ) -> Result<Option<Claimed<LargeJob>>, BoxError> {
        self.0.next_large(limits, partition_ms, heavy)
    }

    fn waiting(&self) -> Result<Waiting, BoxError> {
        self.0.waiting()
    }

    fn on_more(&self, wake: Arc<dyn Fn() + Send + Sync>) {
        self.0.on_more(wake);
    }
}

/// Each asked for what the largest object takes before it was known how much there was: so one object was on its way at
/// a time, over all destinations, however small.
#[tokio::test(start_paused = true)]
async fn small_objects_are_on_their_way_side_by_side() {
    // Of a large one half of the memory holds one.
    let (delivery, budget) = following(BudgetLimits { bytes_max: 2 * MEMORY_BYTES, ..BudgetLimits::default() });
    let queues: Vec<_> = (0..4).map(|_| Script::with_records(10)).collect();
    for (n, queue) in queues.iter().enumerate() {
        let memory_bytes = |job_bytes: u64| (12 * job_bytes).min(MEMORY_BYTES);
        let (sink, source) = (with_memory(queue, memory_bytes, |_| Outcome::Delivered), Little(queue.clone()));
        let limits = Limits { records_max: 10, bytes_max: 128 << 20 };
        delivery.start(n.to_string(), sink, vec![Arc::new(source)], Settings { limits, ..filling(SECOND) }).unwrap();
    }
    // Ten seconds each.
    sleep(SECOND * 12).await;
    assert_eq!(queues.iter().map(Script::settled).collect::<Vec<_>>(), [10; 4]);
    assert_eq!(budget.free_bytes(), 2 * MEMORY_BYTES);
}

#[tokio::test(start_paused = true)]
async fn one_that_is_larger_than_was_thought_waits_for_the_memory_that_it_takes() {
    let (delivery, budget) = following(BudgetLimits { bytes_max: 4 * MEMORY_BYTES, ..BudgetLimits::default() });
    let queue = Script::with_records(10);
    // The script's batches have 1,000 bytes: as if more had come since it was asked how much waits.
    let sink =
        with_memory(&queue, |job_bytes| if job_bytes == 1000 { MEMORY_BYTES } else { 1 }, |_| Outcome::Delivered);
    let limits = Limits { records_max: 10, bytes_max: 128 << 20 };
    let settings = Settings { limits, ..filling(SECOND) };
    delivery.start("d", sink, vec![Arc::new(Little(queue.clone()))], settings).unwrap();
    sleep(SECOND * 3).await;
    assert_eq!(budget.free_bytes(), 3 * MEMORY_BYTES);
    sleep(HOUR).await;
    assert_eq!((queue.settled(), budget.free_bytes()), (10, 4 * MEMORY_BYTES));
}

/// Bulk work has room for one large object, as by default. One of a bucket that hangs took it for as long as its
/// timeout, again and again, so that an object of any other waited for one or two timeouts.
#[tokio::test(start_paused = true)]
async fn buckets_that_hang_make_no_object_of_another_one_late() {
    let (delivery, budget) = following(BudgetLimits { bytes_max: 2 * MEMORY_BYTES, ..BudgetLimits::default() });
    for n in 0..3 {
        let queue = Script::with_records(100);
        let sink = hung(&queue);
        delivery.start(format!("hung-{n}"), sink, vec![Arc::new(queue)], filling(SECOND)).unwrap();
    }
    let queues: Vec<_> = (0..2).map(|_| Script::default()).collect();
    for (n, queue) in queues.iter().enumerate() {
        let sink = large(queue, |_| Outcome::Delivered);
        delivery.start(n.to_string(), sink, vec![Arc::new(queue.clone())], filling(SECOND)).unwrap();
    }
    // Each has hung once, and is known to.
    sleep(SECOND * 300).await;
    let mut probed = 0;
    for n in 1..=200 {
        queues.iter().for_each(|queue| queue.append(1));
        sleep(SECOND * 5).await;
        assert_eq!(queues.iter().map(Script::settled).collect::<Vec<_>>(), [n; 2], "nobody is in their way");
        probed += u32::from(budget.free_bytes() < 2 * MEMORY_BYTES);
    }
    assert!(probed > 100, "those that hang are tried all the while: {probed}");
}

/// Before: a bucket that answers each part just before its timeout held bulk's part for as long as its object took, however
/// many parts that has, and was charged next to nothing for it.
#[tokio::test(start_paused = true)]
async fn buckets_that_drip_make_no_object_of_another_one_late_and_get_their_own() {
    let (delivery, budget) = following(BudgetLimits { bytes_max: 2 * MEMORY_BYTES, ..BudgetLimits::default() });
    let slow: Vec<_> = (0..3).map(|_| Script::with_records(100)).collect();
    for (n, queue) in slow.iter().enumerate() {
        let sink = dripping(queue);
        delivery.start(format!("slow-{n}"), sink, vec![Arc::new(queue.clone())], filling(SECOND)).unwrap();
    }
    let queues: Vec<_> = (0..2).map(|_| Script::default()).collect();
    for (n, queue) in queues.iter().enumerate() {
        let sink = large(queue, |_| Outcome::Delivered);
        delivery.start(n.to_string(), sink, vec![Arc::new(queue.clone())], filling(SECOND)).unwrap();
    }
    // Who waits behind them all is well: it was taken for one that drips, as it had itself waited for more than a minute.
    queues.iter().for_each(|queue| queue.append(1));
    // Ten parts an object: each has had its minute of the others' patience, and is known to take long.
    sleep(SECOND * 300).await;
    assert_eq!(slow.iter().map(Script::settled).max(), Some(0), "none was over in that time");
    for n in 2..=400 {
        queues.iter().for_each(|queue| queue.append(1));
        sleep(SECOND * 5).await;
        assert_eq!(queues.iter().map(Script::settled).collect::<Vec<_>>(), [n; 2], "nobody is in their way");
        assert!(budget.free_bytes() >= MEMORY_BYTES, "one half is for them all");
    }
    assert!(slow.iter().all(|queue| queue.settled() >= 10), "those that drip get their own, in turns");
    sleep(HOUR * 3).await;
    assert_eq!(slow.iter().map(Script::settled).collect::<Vec<_>>(), [100; 3]);
    assert_eq!(budget.free_bytes(), 2 * MEMORY_BYTES);
}

/// Nobody is told to be quick for whom nobody waits.
#[tokio::test(start_paused = true)]
async fn an_object_takes_as_long_as_it_takes_while_nobody_waits() {
    let (delivery, _) = following(BudgetLimits { bytes_max: 2 * MEMORY_BYTES, ..BudgetLimits::default() });
    let queue = Script::with_records(100);
    let sink = dripping(&queue);
    delivery.start("slow", Arc::clone(&sink) as _, vec![Arc::new(queue.clone())], filling(SECOND)).unwrap();
    sleep(HOUR).await;
    assert_eq!((queue.settled(), sink.puts.lock().unwrap().len()), (100, 10), "each at its first attempt");
}

/// Damage takes a part of a range while it is read: the sink says so, and what is left comes in other batches.
#[tokio::test(start_paused = true)]
async fn a_range_that_is_given_up_is_not_put_and_the_rest_comes_in_others() {
    let (delivery, _) = following(BudgetLimits::default());
    let queue = Script::with_records(10);
    queue.with(|state| state.lost = Some(4));
    let sink = large(&queue, |_| Outcome::Delivered);
    delivery.start("d", Arc::clone(&sink) as _, vec![Arc::new(queue.clone())], filling(SECOND)).unwrap();
    sleep(HOUR).await;
    let records: Vec<u64> = sink.puts.lock().unwrap().iter().map(|(_, records)| *records).collect();
    assert_eq!(records, [4, 5], "around the record that is lost");
    assert_eq!(queue.settled(), 9);
}

/// Before, what had waited by itself and went another way was waited for as long as there was anything to send.
#[tokio::test(start_paused = true)]
async fn a_range_that_went_another_way_is_not_waited_for() {
    let (delivery, _) = following(BudgetLimits::default());
    let queue = Script::with_records(10);
    let sink = large(&queue, |_| Outcome::Delivered);
    *sink.unreadable.lock().unwrap() = Some((0, 0..10));
    delivery.start("d", Arc::clone(&sink) as _, vec![Arc::new(queue.clone())], filling(SECOND * 300)).unwrap();
    sleep(SECOND * 310).await;
    assert!(sink.unread.load(Ordering::SeqCst) > 0);
    assert!(matches!(delivery.stats_of("d").unwrap().state, State::Backoff { .. }));
    // An operator purges it.
    queue.with(|state| state.returned.clear());
    queue.append(5);
    sleep(SECOND * 100).await;
    assert_eq!(delivery.stats_of("d").unwrap().state, State::Sending, "what came since fills");
    sleep(SECOND * 300).await;
    assert_eq!(queue.settled(), 5);
}

/// The parts of a scripted range: a record each.
pub(super) struct Parts {
    pub(super) queue: Script,
    pub(super) offsets: Range<u64>,
}

impl Reread for Parts {
    fn parts(&self) -> Box<dyn Iterator<Item = Result<Part, BoxError>> + Send + '_> {
        Box::new(self.offsets.clone().map(|first| {
            // As the real queue: the range dissolves, and its records are fresh again around the hole.
            let lost = self.queue.with(|state| {
                let lost = state.lost.take_if(|lost| *lost == first);
                if lost.is_some() {
                    state.dissolved = Some(self.offsets.clone());
                    state.returned.extend([self.offsets.start..first, first + 1..self.offsets.end]);
                }
                lost
            });
            match lost {
                Some(at) => Err(format!("record {at} is lost to damage").into()),
                None => Ok(Part { payload: Bytes::new(), skip: 0, take: 1, first }),
            }
        }))
    }
}
