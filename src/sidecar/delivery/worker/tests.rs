//! The loop on a paused clock, between a scripted queue and a scripted destination: hours pass in milliseconds, and
//! sends are counted, not timed.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use forebay::clock::{Clock, ManualClock};
use forebay::{LogId, Settled, StreamId, Waiting};
use tokio::time::{Instant, sleep};

use crate::delivery::budget::{Budget, BudgetLimits, Turns};
use crate::delivery::except::Except;
use crate::delivery::heavy::Heavy;
use crate::delivery::outcome::{Failure, Outcome, RejectedRecord};
use crate::delivery::parking::{LetterOrigin, NoParking, Parking};
use crate::delivery::patience::Patience;
use crate::delivery::sink::{
    BoxFuture, EncodeError, Encoded, Environment, Format, Job, LargeJob, Origin, Part, Sink, Told,
};
use crate::delivery::source::{BoxError, Claimed, Limits, Source, Stored, Ticket};
use crate::delivery::stats::State;
use crate::delivery::{Delivery, Settings};

mod anew;
mod beside;
mod clocks;
mod days;
mod drawer;
mod large;
mod live_first;
mod neighbours;
mod operated;
mod outcomes;
mod power_cuts;
mod rates;
mod recovery;
mod senders;
mod stopping;
mod too_long;
mod waking;
mod week;
mod weights;
mod woken;

const HOUR: Duration = Duration::from_secs(3600);
const SECOND: Duration = Duration::from_secs(1);

// --- the scripted queue ---------------------------------------------------------------------------------------------

/// A queue in memory that checks what a queue may expect of its user.
#[derive(Clone, Default)]
struct Script(Arc<ScriptInner>);

#[derive(Default)]
struct ScriptInner {
    stream: u32,
    state: Mutex<ScriptState>,
}

#[derive(Default)]
struct ScriptState {
    tail: u64,
    next: u64,
    returned: Vec<Range<u64>>,
    planned: BTreeSet<u64>,
    settled: BTreeMap<u64, Settled>,
    plans_refused: u32,
    splits_refused: u32,
    plan_delay: Duration,
    /// So many make it full; any batch is where there is none.
    full: u64,
    wake: Option<Arc<dyn Fn() + Send + Sync>>,
    /// When records were appended, from which offset on.
    appended: Vec<(u64, Instant)>,
    /// Damage that is met when the record is read, and the range that it broke.
    lost: Option<u64>,
    dissolved: Option<Range<u64>>,
    /// Whoever looks for records that are to be letters panics so often.
    letters_panic: u64,
    /// How often they were looked for.
    letters_asked: u64,
}

impl Script {
    fn with_records(n: u64) -> Self {
        let script = Self::default();
        script.append(n);
        script
    }

    fn of_stream(stream: u32, n: u64) -> Self {
        let script = Self(Arc::new(ScriptInner { stream, ..ScriptInner::default() }));
        script.append(n);
        script
    }

    fn append(&self, n: u64) {
        let wake = self.with(|state| {
            state.appended.push((state.tail, Instant::now()));
            state.tail += n;
            state.wake.clone()
        });
        wake.inspect(|wake| wake());
    }

    /// The next batch's offsets.
    fn claim(&self, limits: Limits) -> Option<Range<u64>> {
        self.with(|state| {
            state.returned.sort_by_key(|range| range.start);
            if !state.returned.is_empty() {
                return Some(state.returned.remove(0));
            }
            let end = state.tail.min(state.next + limits.records_max);
            let offsets = state.next..end;
            state.next = end;
            (!offsets.is_empty()).then_some(offsets)
        })
    }

    fn id(&self, offsets: &Range<u64>) -> Arc<str> {
        format!("batch-{}-{}-{}", self.0.stream, offsets.start, offsets.end).into()
    }

    fn origin(&self, offsets: &Range<u64>) -> Origin {
        Origin { log: LogId(1), stream: StreamId(self.0.stream), offsets: offsets.clone() }
    }

    fn ticket(&self, offsets: Range<u64>) -> Box<dyn Ticket> {
        Box::new(ScriptTicket { script: self.clone(), offsets: Some(offsets) })
    }

    fn with<T>(&self, f: impl FnOnce(&mut ScriptState) -> T) -> T {
        f(&mut self.0.state.lock().unwrap())
    }

    fn settled(&self) -> u64 {
        self.with(|state| state.settled.len() as u64)
    }
}

impl Source for Script {
    fn has_more(&self) -> bool {
        self.with(|state| !state.returned.is_empty() || state.next < state.tail)
    }

    fn fills(&self, _: Limits) -> bool {
        self.with(|state| !state.returned.is_empty() || state.tail - state.next >= state.full)
    }

    fn in_memory(&self, _: Limits) -> bool {
        true
    }

    fn next(&self, limits: Limits) -> Result<Option<Claimed>, BoxError> {
        Ok(self.claim(limits).map(|offsets| Claimed {
            job: Job {
                id: self.id(&offsets),
                origin: self.origin(&offsets),
                environment: environment(),
                parts: vec![Part {
                    payload: Bytes::new(),
                    skip: 0,
                    take: (offsets.end - offsets.start) as usize,
                    first: offsets.start,
                }],
                except: Except::default(),
                bytes: 1000,
            },
            ticket: self.ticket(offsets),
        }))
    }

    fn next_large(&self, limits: Limits, _: Option<u64>, _: &Heavy) -> Result<Option<Claimed<LargeJob>>, BoxError> {
        Ok(self.claim(limits).map(|offsets| Claimed {
            job: LargeJob {
                id: self.id(&offsets),
                origin: self.origin(&offsets),
                environment: environment(),
                except: Except::default(),
                received_ms: 0,
                bytes: 1000,
                settings_revision: None,
                replay: None,
                records: Arc::new(large::Parts { queue: self.clone(), offsets: offsets.clone() }),
                turns: Turns::default(),
                patience: Patience::default(),
            },
            ticket: self.ticket(offsets),
        }))
    }

    fn waiting(&self) -> Result<Waiting, BoxError> {
        Ok(self.with(|state| {
            let born = state.appended.first().map(|(_, at)| *at);
            let oldest = state.appended.iter().rev().find(|(from, _)| *from <= state.next).map(|(_, at)| *at);
            let fresh = state.next < state.tail;
            let oldest_ms = oldest.zip(born).map(|(at, born)| at.duration_since(born).as_millis() as u64);
            Waiting {
                comes_again: !state.returned.is_empty(),
                records: state.tail - state.next,
                bytes: 0,
                oldest_ingest_ms: oldest_ms.filter(|_| fresh),
                bounded: false,
            }
        }))
    }

    fn on_more(&self, wake: Arc<dyn Fn() + Send + Sync>) {
        self.with(|state| state.wake = Some(wake));
    }
}

fn environment() -> Arc<Environment> {
    Arc::new(Environment { id: "env".to_owned(), name: "production".to_owned() })
}

struct ScriptTicket {
    script: Script,
    offsets: Option<Range<u64>>,
}

impl Ticket for ScriptTicket {
    fn is_planned(&self) -> bool {
        let start = self.offsets.as_ref().map(|offsets| offsets.start);
        self.script.with(|state| start.is_some_and(|start| state.planned.contains(&start)))
    }

    fn plan(&self, done: Box<dyn FnOnce(Result<(), BoxError>) + Send>) {
        let start = self.offsets.as_ref().unwrap().start;
        let script = self.script.clone();
        let delay = script.with(|state| state.plan_delay);
        tokio::spawn(async move {
            sleep(delay).await;
            let refused = script.with(|state| {
                let refused = state.plans_refused > 0;
                state.plans_refused = state.plans_refused.saturating_sub(1);
                if !refused {
                    state.planned.insert(start);
                }
                refused
            });
            done(if refused { Err("the log is read-only".into()) } else { Ok(()) });
        });
    }

    fn settle(mut self: Box<Self>, parts: &[(Range<u64>, Settled)], rest: Settled) {
        let offsets = self.offsets.take().unwrap();
        self.script.with(|state| {
            for offset in offsets {
                let part = parts.iter().find(|(part, _)| part.contains(&offset));
                let before = state.settled.insert(offset, part.map_or(rest, |(_, as_)| *as_));
                assert_eq!(before, None, "{offset} settled twice");
            }
        });
    }

    fn split(mut self: Box<Self>, at: u64, done: Box<dyn FnOnce(Result<(), BoxError>) + Send>) {
        let refuses = self.script.with(|state| {
            let left = state.splits_refused.checked_sub(1);
            left.inspect(|left| state.splits_refused = *left).is_some()
        });
        if refuses {
            return done(Err("the log is read-only".into()));
        }
        let offsets = self.offsets.take().unwrap();
        assert!(offsets.start < at && at < offsets.end, "{offsets:?} split at {at}");
        let wake = self.script.with(|state| {
            if state.planned.contains(&offsets.start) {
                state.planned.insert(at);
            }
            state.returned.extend([offsets.start..at, at..offsets.end]);
            state.wake.clone()
        });
        wake.inspect(|wake| wake());
        done(Ok(()));
    }

    fn letters(&self, offsets: &[u64]) -> Result<Vec<Stored>, BoxError> {
        let panics = self.script.with(|state| {
            state.letters_asked += 1;
            let left = state.letters_panic.checked_sub(1);
            left.inspect(|left| state.letters_panic = *left).is_some()
        });
        assert!(!panics, "told to panic over letters");
        let stream = StreamId(self.script.0.stream);
        let stored = |&offset| Stored {
            offset,
            origin: LetterOrigin { log: LogId(1), stream, offset },
            replay: 0,
            environment: environment(),
            payload: Bytes::new(),
            index: 0,
        };
        Ok(offsets.iter().map(stored).collect())
    }
}

impl Drop for ScriptTicket {
    fn drop(&mut self) {
        let Some(offsets) = self.offsets.take() else { return };
        let wake = self.script.with(|state| {
            if state.dissolved.take_if(|gone| *gone == offsets).is_none() {
                state.returned.push(offsets);
            }
            state.wake.clone()
        });
        wake.inspect(|wake| wake());
    }
}

// --- the scripted destination ---------------------------------------------------------------------------------------

/// What the n-th request meets: an answer after a while, or none until the deadline.
enum Answer {
    After(Duration, Outcome),
    Hang,
}

impl Answer {
    /// What the sender makes of it, when it has come or will not come any more.
    async fn come(self, deadline: Instant) -> Outcome {
        match self {
            Self::After(wait, outcome) => {
                sleep(wait).await;
                outcome
            }
            Self::Hang => {
                tokio::time::sleep_until(deadline).await;
                Outcome::Retry { why: Failure::Timeout }
            }
        }
    }
}

fn at_once(outcome: Outcome) -> Answer {
    Answer::After(Duration::ZERO, outcome)
}

#[derive(Clone, Debug, PartialEq)]
struct Sent {
    at: Duration,
    id: String,
    /// Of the batch.
    offsets: Range<u64>,
    /// The records in the request.
    records: Vec<u64>,
}

/// What the n-th request meets, which carries these records.
type Temper = Box<dyn Fn(usize, &[u64]) -> Answer + Send + Sync>;

struct Receiver {
    answer: Temper,
    began: Instant,
    sends: AtomicUsize,
    log: Mutex<Vec<Sent>>,
    in_flight: AtomicU64,
    in_flight_max: AtomicU64,
    /// Encoders fail or panic for this many jobs.
    encode_errors: AtomicU64,
    encode_panics: AtomicU64,
    /// This record is left out, as one that is never taken.
    left_out: Option<u64>,
    /// This record can't be encoded.
    unencodable: Option<u64>,
    plans_of: Option<Script>,
    /// What it says that it still takes.
    told: Mutex<Option<Told>>,
    /// What a record comes to when it is encoded.
    record_bytes: u64,
    /// Called as a batch is encoded.
    encoding: Option<Box<dyn Fn() + Send + Sync>>,
    /// The loop panics so often, as it asks what is still taken.
    loop_panics: AtomicU64,
}

fn receiver(answer: impl Fn(usize) -> Answer + Send + Sync + 'static) -> Receiver {
    reading(move |n, _| answer(n))
}

/// One that looks at the records.
fn reading(answer: impl Fn(usize, &[u64]) -> Answer + Send + Sync + 'static) -> Receiver {
    Receiver {
        answer: Box::new(answer),
        began: Instant::now(),
        sends: AtomicUsize::new(0),
        log: Mutex::default(),
        in_flight: AtomicU64::new(0),
        in_flight_max: AtomicU64::new(0),
        encode_errors: AtomicU64::new(0),
        encode_panics: AtomicU64::new(0),
        left_out: None,
        unencodable: None,
        plans_of: None,
        told: Mutex::default(),
        record_bytes: 0,
        encoding: None,
        loop_panics: AtomicU64::new(0),
    }
}

impl Receiver {
    fn sent(&self) -> Vec<Sent> {
        self.log.lock().unwrap().clone()
    }
}

fn take_one(counter: &AtomicU64) -> bool {
    counter.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok()
}

impl Sink for Receiver {
    fn format(&self) -> Format {
        Format { name: "script", settings: None, gzip: None }
    }

    fn encode(&self, job: &Job) -> Result<Encoded, EncodeError> {
        assert!(!take_one(&self.encode_panics), "told to panic");
        self.encoding.as_ref().inspect(|encoding| encoding());
        if take_one(&self.encode_errors) {
            return Err(EncodeError { at: job.origin.clone(), why: "told to".to_owned() });
        }
        let has = |record: Option<u64>| {
            record.filter(|record| job.runs().any(|run| (run.first..run.first + run.take as u64).contains(record)))
        };
        if has(self.unencodable).is_some() {
            return Err(EncodeError { at: job.origin.clone(), why: "told to".to_owned() });
        }
        let rejected = has(self.left_out).map(|offset| RejectedRecord { offset, reason: "told to".to_owned() });
        Ok(Encoded::without(job, rejected.into_iter().collect(), Bytes::from_static(&[b'x'; 100])))
    }

    fn send<'a>(&'a self, encoded: &'a Encoded, id: &'a str, deadline: Instant) -> BoxFuture<'a, Outcome> {
        Box::pin(async move {
            if let Some(script) = &self.plans_of {
                assert!(script.with(|state| state.planned.contains(&encoded.origin.offsets.start)), "sent unplanned");
            }
            let n = self.sends.fetch_add(1, Ordering::SeqCst);
            let records: Vec<u64> = encoded.offsets().collect();
            let answer = (self.answer)(n, &records);
            self.log.lock().unwrap().push(Sent {
                at: Instant::now() - self.began,
                id: id.to_owned(),
                offsets: encoded.origin.offsets.clone(),
                records,
            });
            let now = self.in_flight.fetch_add(1, Ordering::SeqCst) + 1;
            self.in_flight_max.fetch_max(now, Ordering::SeqCst);
            let outcome = answer.come(deadline).await;
            self.in_flight.fetch_sub(1, Ordering::SeqCst);
            outcome
        })
    }

    fn encoded_bytes_max(&self, job: &Job) -> u64 {
        job.records() * self.record_bytes
    }

    fn allowance(&self) -> Option<Told> {
        assert!(!take_one(&self.loop_panics), "told to panic in the loop");
        self.told.lock().unwrap().take()
    }

    fn needs_plan(&self) -> bool {
        true
    }
}

fn throttled(retry_after: Option<Duration>) -> Outcome {
    Outcome::Throttled { retry_after, why: Failure::status(429) }
}

fn refused() -> Outcome {
    Outcome::Retry { why: Failure::status(500) }
}

// --- the stage ------------------------------------------------------------------------------------------------------

fn delivery() -> Delivery {
    delivery_with(BudgetLimits::default())
}

fn delivery_with(limits: BudgetLimits) -> Delivery {
    delivering(Budget::new(limits), Arc::new(ManualClock::at(1_000_000)), Arc::new(NoParking))
}

/// With chance that is the same each time.
fn delivering(budget: Budget, clock: Arc<dyn Clock>, parking: Arc<dyn Parking>) -> Delivery {
    Delivery::beginning_with(budget, clock, parking, Some(1))
}

/// Batches of ten records.
fn settings() -> Settings {
    Settings { limits: Limits { records_max: 10, bytes_max: 1000 }, ..Settings::default() }
}

fn start(delivery: &Delivery, id: &str, receiver: Receiver, queue: &Script) -> Arc<Receiver> {
    let receiver = Arc::new(receiver);
    delivery.start(id, Arc::clone(&receiver) as Arc<dyn Sink>, vec![Arc::new(queue.clone())], settings()).unwrap();
    receiver
}

// --- the claims -----------------------------------------------------------------------------------------------------

#[tokio::test(start_paused = true)]
async fn what_waits_and_what_comes_later_is_delivered_once() {
    let (delivery, queue) = (delivery(), Script::with_records(25));
    let receiver = start(&delivery, "d", receiver(|_| at_once(Outcome::Delivered)), &queue);
    sleep(SECOND).await;
    assert_eq!(queue.settled(), 25);
    let snapshot = delivery.stats_of("d").unwrap();
    assert_eq!((snapshot.state, snapshot.in_flight), (State::Idle, 0));
    queue.append(7);
    sleep(SECOND).await;
    assert_eq!(queue.settled(), 32);
    let mut offsets: Vec<_> = receiver.sent().into_iter().map(|sent| sent.offsets).collect();
    offsets.sort_by_key(|range| range.start);
    assert_eq!(offsets, [0..10, 10..20, 20..25, 25..32]);
    let snapshot = delivery.stats_of("d").unwrap();
    assert_eq!((snapshot.requests, snapshot.delivered_records, snapshot.sent_bytes), (4, 32, 400));
    assert_eq!(snapshot.last_success_ms, Some(1_000_000));
}

/// Before: where four requests may be under way and one more post of an SDK came every millisecond, each had a request
/// and a plan of its own.
#[tokio::test(start_paused = true)]
async fn records_gather_for_a_moment_while_a_request_is_under_way_and_not_otherwise() {
    let (delivery, queue) = (delivery(), Script::default());
    queue.with(|state| state.full = 10);
    let slow = receiver(|_| Answer::After(Duration::from_millis(100), Outcome::Delivered));
    let receiver = start(&delivery, "d", slow, &queue);
    // Until two requests may be under way.
    while receiver.in_flight_max.load(Ordering::SeqCst) < 2 {
        queue.append(10);
        sleep(Duration::from_millis(1)).await;
    }
    sleep(HOUR).await;
    let (before, from) = (receiver.sent().len(), Instant::now() - receiver.began);
    for _ in 0..9 {
        queue.append(1);
        sleep(Duration::from_millis(1)).await;
    }
    let sent = receiver.sent().split_off(before);
    assert_eq!(sent.len(), 2, "{sent:?}");
    let records = |sent: &Sent| sent.offsets.end - sent.offsets.start;
    assert_eq!((records(&sent[0]), sent[0].at), (1, from), "where nothing is under way one goes at once");
    assert!(records(&sent[1]) > 3, "{sent:?}");
    sleep(HOUR).await;
    let (before, from) = (receiver.sent().len(), Instant::now() - receiver.began);
    queue.append(30);
    sleep(Duration::from_millis(1)).await;
    let sent = receiver.sent().split_off(before);
    assert!(sent.len() > 1 && sent.iter().all(|sent| sent.at == from), "what fills a request does not wait: {sent:?}");
}

#[tokio::test(start_paused = true)]
async fn a_throttle_of_an_hour_is_asked_once_an_hour() {
    let (delivery, queue) = (delivery(), Script::with_records(100));
    let answer = |n| at_once(if n < 5 { throttled(Some(HOUR)) } else { Outcome::Delivered });
    let receiver = start(&delivery, "d", receiver(answer), &queue);
    sleep(HOUR / 2).await;
    queue.append(1);
    sleep(HOUR * 4).await;
    assert_eq!(receiver.sent().len(), 5);
    assert!(matches!(delivery.stats_of("d").unwrap().state, State::Backoff { .. }));
    sleep(HOUR).await;
    let sent = receiver.sent();
    for pair in sent[..6].windows(2) {
        assert!(pair[1].at - pair[0].at >= HOUR, "{pair:?}");
        assert!(pair[1].at - pair[0].at <= HOUR + Duration::from_secs(60), "{pair:?}");
    }
    assert_eq!(queue.settled(), 101);
    assert_eq!(delivery.stats_of("d").unwrap().throttled, 5);
}

/// Throttled, with a wait of nothing too, or out of service, for a day and for a week.
#[tokio::test(start_paused = true)]
async fn an_outage_of_a_day_costs_probes_and_loses_nothing() {
    let asked_for_none = throttled(Some(Duration::ZERO));
    for (days, down) in
        [(1, throttled(None)), (7, throttled(None)), (1, asked_for_none), (1, refused()), (7, refused())]
    {
        let (delivery, queue, began) = (delivery(), Script::with_records(100), Instant::now());
        let over = move || began.elapsed() > HOUR * 24 * days;
        let answer = move |n| match over() {
            true => at_once(Outcome::Delivered),
            // Who asks without end within a moment lets no time go by.
            false if n > 6_000 * days as usize => Answer::Hang,
            false => at_once(down.clone()),
        };
        let receiver = start(&delivery, "d", receiver(answer), &queue);
        sleep(HOUR * 24 * days).await;
        let sent = receiver.sent();
        let probes = sent.len() as u32 / days;
        assert!((1440..5000).contains(&probes), "{probes} a day: a draw from a minute, about two a minute");
        assert_eq!(receiver.in_flight_max.load(Ordering::SeqCst), 1, "one probe at a time");
        assert_eq!(queue.settled(), 0);
        let ids: BTreeSet<_> = sent.into_iter().map(|sent| sent.id).collect();
        assert_eq!(ids.len(), 1, "the same batch every time");
        sleep(HOUR).await;
        assert_eq!(queue.with(|state| state.settled.values().filter(|how| **how == Settled::Delivered).count()), 100);
        let taken: BTreeSet<_> =
            receiver.sent().into_iter().filter(|sent| sent.at > HOUR * 24 * days).map(|sent| sent.id).collect();
        assert!(taken.len() == 10 && taken.is_superset(&ids), "each batch under its own id, the one of the probes too");
        delivery.shutdown(SECOND).await;
    }
}

#[tokio::test(start_paused = true)]
async fn each_retry_carries_the_same_records_under_the_same_id() {
    let (delivery, queue) = (delivery(), Script::with_records(7));
    // Every request fails twice; meanwhile records arrive that would make the batch larger.
    let receiver =
        start(&delivery, "d", receiver(|n| at_once(if n % 3 < 2 { refused() } else { Outcome::Delivered })), &queue);
    for _ in 0..50 {
        sleep(Duration::from_millis(20)).await;
        queue.append(1);
    }
    sleep(HOUR).await;
    assert_eq!(queue.settled(), 57);
    let sent = receiver.sent();
    let names: BTreeSet<_> = sent.iter().map(|sent| sent.id.clone()).collect();
    let whole: BTreeSet<_> = sent.iter().map(|sent| (sent.id.clone(), sent.offsets.start, sent.offsets.end)).collect();
    assert_eq!(names.len(), whole.len(), "one id, one range");
    assert!(sent.len() > names.len(), "some were repeated");
    let records: u64 = whole.iter().map(|(_, start, end)| end - start).sum();
    assert_eq!(records, 57, "ranges do not overlap");
}

#[tokio::test(start_paused = true)]
async fn a_hung_destination_delays_no_other() {
    let delivery = delivery();
    let (hung_queue, queue) = (Script::with_records(1000), Script::with_records(0));
    let hung = start(&delivery, "hung", receiver(|_| Answer::Hang), &hung_queue);
    let healthy = start(&delivery, "healthy", receiver(|_| at_once(Outcome::Delivered)), &queue);
    for n in 1..=100 {
        queue.append(1);
        sleep(Duration::from_millis(10)).await;
        assert_eq!(queue.settled(), n, "within 10 ms, always");
    }
    assert_eq!(healthy.sent().len(), 100);
    sleep(HOUR).await;
    assert_eq!(hung_queue.settled(), 0);
    assert_eq!(hung.in_flight_max.load(Ordering::SeqCst), 1);
    assert!(delivery.stats_of("hung").unwrap().failures.iter().sum::<u64>() > 50);
}

#[tokio::test(start_paused = true)]
async fn the_shared_budget_bounds_requests_over_all_destinations() {
    let delivery = delivery_with(BudgetLimits { requests_max: 3, ..BudgetLimits::default() });
    let queues: Vec<_> = (0..10).map(|_| Script::with_records(200)).collect();
    let together = Arc::new((AtomicU64::new(0), AtomicU64::new(0)));
    for (n, queue) in queues.iter().enumerate() {
        let slow = receiver(|_| Answer::After(SECOND, Outcome::Delivered));
        let sink = Arc::new(Together { inner: slow, together: Arc::clone(&together) });
        delivery.start(n.to_string(), sink, vec![Arc::new(queue.clone())], settings()).unwrap();
    }
    sleep(Duration::from_secs(30)).await;
    // First come, first served: after 90 requests by ten destinations nobody is far behind.
    for queue in &queues {
        assert!((60..=120).contains(&queue.settled()), "{}", queue.settled());
    }
    sleep(HOUR).await;
    assert!(queues.iter().all(|queue| queue.settled() == 200));
    assert_eq!(together.1.load(Ordering::SeqCst), 3, "as many as allowed, never more");
}

/// Counts requests in flight over several receivers.
struct Together {
    inner: Receiver,
    together: Arc<(AtomicU64, AtomicU64)>,
}

impl Sink for Together {
    fn format(&self) -> Format {
        self.inner.format()
    }

    fn encode(&self, job: &Job) -> Result<Encoded, EncodeError> {
        self.inner.encode(job)
    }

    fn send<'a>(&'a self, encoded: &'a Encoded, id: &'a str, deadline: Instant) -> BoxFuture<'a, Outcome> {
        Box::pin(async move {
            let now = self.together.0.fetch_add(1, Ordering::SeqCst) + 1;
            self.together.1.fetch_max(now, Ordering::SeqCst);
            let outcome = self.inner.send(encoded, id, deadline).await;
            self.together.0.fetch_sub(1, Ordering::SeqCst);
            outcome
        })
    }

    fn needs_plan(&self) -> bool {
        true
    }
}

#[tokio::test(start_paused = true)]
async fn who_waits_out_a_failure_holds_nothing_of_the_budget() {
    let budget = Budget::new(BudgetLimits::default());
    let free = (budget.free_requests(), budget.free_bytes());
    let delivery = delivering(budget.clone(), Arc::new(ManualClock::at(0)), Arc::new(NoParking));
    let queue = Script::with_records(100);
    start(&delivery, "d", receiver(|_| at_once(throttled(Some(HOUR)))), &queue);
    sleep(SECOND).await;
    assert_eq!((budget.free_requests(), budget.free_bytes()), free);
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_waited_for_the_budget_is_not_sent_into_a_throttle() {
    let delivery = delivery_with(BudgetLimits { requests_max: 2, ..BudgetLimits::default() });
    let (slow_queue, queue) = (Script::with_records(10), Script::with_records(100));
    start(&delivery, "slow", receiver(|_| Answer::After(SECOND * 10, Outcome::Delivered)), &slow_queue);
    // The first success allows two at once; the second request is throttled while the third waits for a free slot.
    let answer = |n| match n {
        1 => Answer::After(SECOND * 5, throttled(Some(HOUR))),
        _ => at_once(Outcome::Delivered),
    };
    let receiver = start(&delivery, "d", receiver(answer), &queue);
    sleep(HOUR - SECOND).await;
    assert_eq!((slow_queue.settled(), receiver.sent().len()), (10, 2));
    sleep(HOUR).await;
    assert_eq!(queue.settled(), 100);
}

/// Beside a real disk, requests that waited for their plans when a 429 came went out up to 20 ms after it.
#[tokio::test(start_paused = true)]
async fn a_batch_that_waited_for_its_plan_is_not_sent_into_a_throttle() {
    let (delivery, queue) = (delivery(), Script::with_records(1000));
    queue.with(|state| state.plan_delay = Duration::from_millis(10));
    // Answers take different times, so that requests are in all stages when the throttle comes.
    let answer = |n: usize| {
        let outcome = if n == 20 { throttled(Some(HOUR)) } else { Outcome::Delivered };
        Answer::After(Duration::from_millis(n as u64 % 7), outcome)
    };
    let receiver = start(&delivery, "d", receiver(answer), &queue);
    sleep(HOUR / 2).await;
    let sent = receiver.sent();
    let heard = sent[20].at + Duration::from_millis(20 % 7);
    assert_eq!(sent.iter().filter(|sent| sent.at > heard).count(), 0);
    sleep(HOUR).await;
    assert_eq!(queue.settled(), 1000, "what was held back went out later");
}

#[tokio::test(start_paused = true)]
async fn after_an_outage_concurrency_climbs_from_one() {
    let (delivery, queue) = (delivery(), Script::with_records(2000));
    let answer = |n| {
        if n < 3 { at_once(refused()) } else { Answer::After(SECOND, Outcome::Delivered) }
    };
    let receiver = start(&delivery, "d", receiver(answer), &queue);
    sleep(HOUR).await;
    assert_eq!(queue.settled(), 2000);
    assert_eq!(receiver.in_flight_max.load(Ordering::SeqCst), 4);
    let sent = receiver.sent();
    assert!(sent[4].at - sent[3].at >= SECOND, "the probe was alone");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_sent_before_its_plan_is_durable() {
    let (delivery, queue) = (delivery(), Script::with_records(30));
    queue.with(|state| state.plan_delay = Duration::from_secs(5));
    let receiver = Receiver { plans_of: Some(queue.clone()), ..receiver(|_| at_once(Outcome::Delivered)) };
    let receiver = start(&delivery, "d", receiver, &queue);
    sleep(Duration::from_secs(4)).await;
    assert_eq!(receiver.sent().len(), 0);
    sleep(HOUR).await;
    assert_eq!(queue.settled(), 30);
}

#[tokio::test(start_paused = true)]
async fn a_plan_that_cannot_be_stored_sends_nothing_and_is_tried_again() {
    let (delivery, queue) = (delivery(), Script::with_records(5));
    queue.with(|state| state.plans_refused = 3);
    let receiver = start(&delivery, "d", receiver(|_| at_once(Outcome::Delivered)), &queue);
    sleep(HOUR).await;
    assert_eq!((receiver.sent().len(), queue.settled()), (1, 5));
    let snapshot = delivery.stats_of("d").unwrap();
    assert_eq!(snapshot.failures.iter().sum::<u64>(), 3);
    assert!(snapshot.last_error.unwrap().contains("read-only"));
}

#[tokio::test(start_paused = true)]
async fn an_encoder_that_fails_or_panics_loses_no_batch() {
    let (delivery, queue) = (delivery(), Script::with_records(25));
    let receiver = receiver(|_| at_once(Outcome::Delivered));
    receiver.encode_errors.store(2, Ordering::SeqCst);
    receiver.encode_panics.store(2, Ordering::SeqCst);
    let receiver = start(&delivery, "d", receiver, &queue);
    sleep(HOUR).await;
    assert_eq!(queue.settled(), 25);
    assert!(queue.with(|state| state.settled.values().all(|as_| *as_ == Settled::Delivered)));
    assert!((3..=6).contains(&receiver.sent().len()), "what could not be encoded was split");
}

#[tokio::test(start_paused = true)]
async fn a_destinations_environments_take_turns() {
    let delivery = delivery();
    let queues = [Script::of_stream(0, 1000), Script::of_stream(1, 50), Script::of_stream(2, 50)];
    let receiver = Arc::new(receiver(|_| Answer::After(SECOND, Outcome::Delivered)));
    let sources = queues.iter().map(|queue| Arc::new(queue.clone()) as Arc<dyn Source>).collect();
    let one_at_a_time = Settings { concurrency_max: 1, ..settings() };
    delivery.start("d", Arc::clone(&receiver) as Arc<dyn Sink>, sources, one_at_a_time).unwrap();
    sleep(Duration::from_millis(15_500)).await;
    assert_eq!(queues.each_ref().map(Script::settled), [50, 50, 50], "the large one does not go first");
    sleep(HOUR).await;
    assert_eq!(queues[0].settled(), 1000);
}

#[tokio::test(start_paused = true)]
async fn an_id_runs_once() {
    let (delivery, queue) = (delivery(), Script::with_records(0));
    start(&delivery, "d", receiver(|_| Answer::Hang), &queue);
    let again = delivery.start("d", Arc::new(receiver(|_| Answer::Hang)), Vec::new(), settings());
    assert!(again.is_err());
}

#[tokio::test(start_paused = true)]
async fn an_idle_destination_has_no_task_before_its_first_record_and_after_its_last() {
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let (delivery, queue) = (delivery(), Script::with_records(0));
    start(&delivery, "d", receiver(|_| at_once(Outcome::Delivered)), &queue);
    assert_eq!(tasks(), 0);
    queue.append(1);
    assert_eq!(tasks(), 1);
    sleep(SECOND).await;
    assert_eq!((queue.settled(), tasks()), (1, 0));
}

#[test]
fn an_idle_destination_is_a_small_value() {
    assert!(size_of::<super::Post>() <= 344, "{} bytes", size_of::<super::Post>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_wake_is_lost_by_who_is_going_to_rest() {
    let (delivery, queue) = (delivery(), Script::with_records(0));
    start(&delivery, "d", receiver(|_| at_once(Outcome::Delivered)), &queue);
    // One record at a time, each as soon as the one before it is settled: just when the worker goes to rest.
    let one_by_one = async {
        for n in 1..=2_000 {
            queue.append(1);
            while queue.settled() < n {
                tokio::task::yield_now().await;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(300), one_by_one).await.expect("each record is seen");
    assert!(delivery.shutdown(Duration::from_secs(20)).await.is_empty());
}
