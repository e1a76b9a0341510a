//! Real queues behind the loop: what a filter leaves out reaches no request, and the books know it.

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use forebay::clock::ManualClock;
use forebay::disk::mem::MemDisk;
use forebay::{LogOptions, Payload, QueueOptions, Queues, ReplayFrom, ReplayMode, ReplayRequest, Settled, Start};
use tokio::time::{Duration, Instant, timeout};

use super::*;
use crate::config::FilterSpec;
use crate::delivery::budget::{Budget, BudgetLimits};
use crate::delivery::outcome::Outcome;
use crate::delivery::parking::NoParking;
use crate::delivery::sink::{BoxFuture, EncodeError, Encoded, Format, Sink};
use crate::delivery::{Delivery, Settings};
use crate::sinks::sample::{job, job_of};

mod bad_disk;

fn queues() -> Queues {
    queues_at(&ManualClock::at(1_700_000_000_000))
}

fn queues_at(clock: &ManualClock) -> Queues {
    let clock = Arc::new(clock.clone());
    Queues::open(Arc::new(MemDisk::new()), clock, Path::new("/data"), LogOptions::small(), QueueOptions::inline())
        .unwrap()
}

fn filter(flags: &[&str]) -> FilterSpec {
    FilterSpec { flags: flags.iter().map(|text| text.parse().unwrap()).collect(), ..FilterSpec::default() }
}

fn environment() -> Arc<Environment> {
    Arc::clone(&job(0..0).environment)
}

/// Stores a bulk of SDKs' as one append.
fn append(queues: &Queues, bulk: &str) {
    let job = job_of(bulk);
    let payloads = job.parts.iter().map(|part| Payload { bytes: part.payload.to_vec(), records: part.take as u32 });
    queues.log().append_wait("acme-prod", payloads.collect()).unwrap();
}

/// Settles all that waits.
fn deliver_all(source: &Queued) {
    while let Some(Claimed { ticket, .. }) = source.next(LIMITS).unwrap() {
        ticket.settle(&[], Settled::Delivered);
    }
}

/// Begins to send all that was delivered once more.
fn replay_all(queues: &Queues) -> Queue {
    let request = ReplayRequest { from: ReplayFrom::Earliest, to: None, mode: ReplayMode::Again };
    queues.replay("d", "acme-prod", request).unwrap()
}

fn next_large(source: &dyn Source, limits: Limits) -> Option<Claimed<LargeJob>> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let _inside = runtime.enter();
    source.next_large(limits, Some(3_600_000), &Heavy::new(Turns::default())).unwrap()
}

/// Stores 1,000 records at a time, of which a filter for the treatment `on` leaves out every second.
fn append_thousands(queues: &Queues, thousands: usize) {
    let treatment = |n| if n % 2 == 0 { "on" } else { "off" };
    let impressions: Vec<String> = (0..1000).map(|n| format!(r#"{{"k":"{n}","t":"{}"}}"#, treatment(n))).collect();
    let bulk = format!(r#"[{{"f":"a","i":[{}]}}]"#, impressions.join(","));
    (0..thousands).for_each(|_| append(queues, &bulk));
}

fn only_on() -> FilterSpec {
    FilterSpec { treatments: vec!["on".parse().unwrap()], ..FilterSpec::default() }
}

const BULK: &str = r#"[{"f":"a","i":[{"k":"0"},{"k":"1"}]},{"f":"b","i":[{"k":"2"}]},{"f":"a","i":[{"k":"3"}]}]"#;
const NONE_WANTED: &str = r#"[{"f":"b","i":[{"k":"0"},{"k":"1"},{"k":"2"}]}]"#;

const LIMITS: Limits = Limits { records_max: 1000, bytes_max: 1 << 20 };

#[test]
fn what_is_filtered_settles_with_its_batch_and_is_counted_apart() {
    let queues = queues();
    let queue = queues.queue("d", "acme-prod", Start::Earliest).unwrap();
    let source = Queued::new(queue.clone(), environment());
    let source = source.with_filters(Filters::of(&filter(&["a"])));
    append(&queues, BULK);
    assert!(!source.in_memory(LIMITS), "filtering is not for an async worker");
    let Claimed { job, ticket } = source.next(LIMITS).unwrap().unwrap();
    assert_eq!((job.except.clone(), job.is_empty()), ([2].into(), false));
    assert_eq!(queue.balance().pending.records, 4, "nothing is settled before the rest of the batch is");
    drop(ticket);
    let Claimed { job, ticket } = source.next(LIMITS).unwrap().unwrap();
    assert_eq!(job.except, [2].into(), "the same again");
    ticket.settle(&[], Settled::Delivered);
    let balance = queue.balance();
    assert_eq!((balance.delivered.records, balance.filtered.records, balance.pending.records), (3, 1, 0));
    assert!(balance.closes());
}

#[test]
fn a_batch_of_an_older_revision_keeps_its_filter() {
    let queues = queues();
    let queue = queues.queue("d", "acme-prod", Start::Earliest).unwrap();
    let filters = Filters::of(&filter(&["a"]));
    let source = Queued::new(queue.clone(), environment()).with_filters(filters.clone());
    append(&queues, BULK);
    let Claimed { ticket, .. } = source.next(LIMITS).unwrap().unwrap();
    let planned = Arc::new(Mutex::new(false));
    let done = Arc::clone(&planned);
    ticket.plan(Box::new(move |result| *done.lock().unwrap() = result.is_ok()));
    assert!(*planned.lock().unwrap());
    // The filter changes while the batch waits.
    filters.set(1, &filter(&["b"]));
    queue.set_settings_revision(1);
    drop(ticket);
    append(&queues, BULK);
    let again = source.next(LIMITS).unwrap().unwrap();
    let fresh = source.next(LIMITS).unwrap().unwrap();
    assert_eq!((again.job.except, again.job.origin.offsets), ([2].into(), 0..4));
    assert_eq!((fresh.job.except, fresh.job.origin.offsets), ([4, 5, 7].into(), 4..8));
}

/// Counts what is asked of it.
#[derive(Default)]
struct Counting {
    sent: Mutex<Vec<u64>>,
    plans: AtomicU32,
}

impl Sink for Counting {
    fn format(&self) -> Format {
        Format { name: "counting", settings: None, gzip: None }
    }

    fn encode(&self, job: &Job) -> Result<Encoded, EncodeError> {
        Ok(Encoded::whole(job, Bytes::from_static(b"x")))
    }

    fn send<'a>(&'a self, encoded: &'a Encoded, _: &'a str, _: Instant) -> BoxFuture<'a, Outcome> {
        self.sent.lock().unwrap().push(encoded.records());
        Box::pin(async { Outcome::Delivered })
    }

    fn needs_plan(&self) -> bool {
        self.plans.fetch_add(1, Ordering::SeqCst);
        true
    }
}

#[tokio::test]
async fn a_batch_of_which_nothing_is_left_settles_without_a_request_or_a_plan() {
    let queues = queues();
    let queue = queues.queue("d", "acme-prod", Start::Earliest).unwrap();
    let source = Queued::new(queue.clone(), environment());
    let source = Arc::new(source.with_filters(Filters::of(&filter(&["a"]))));
    append(&queues, NONE_WANTED);
    let delivery = Delivery::new(
        Budget::new(BudgetLimits::default()),
        Arc::new(ManualClock::at(1_700_000_000_000)),
        Arc::new(NoParking),
    );
    let sink = Arc::new(Counting::default());
    delivery.start("d", Arc::clone(&sink) as _, vec![source], Settings::default()).unwrap();
    let settled = async |records| {
        while queue.balance().pending.records > 0 || queue.balance().accepted.records < records {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(Duration::from_secs(60), settled(3)).await.unwrap();
    assert_eq!((queue.balance().filtered.records, sink.sent.lock().unwrap().len()), (3, 0));
    assert_eq!(sink.plans.load(Ordering::SeqCst), 0);
    append(&queues, BULK);
    timeout(Duration::from_secs(60), settled(7)).await.unwrap();
    assert_eq!((queue.balance().filtered.records, &sink.sent.lock().unwrap()[..]), (4, &[3][..]));
    assert!(queue.balance().closes());
}

#[test]
fn a_split_batch_comes_back_in_halves_and_its_records_are_found_where_they_lie() {
    let queues = queues();
    let queue = queues.queue("d", "acme-prod", Start::Earliest).unwrap();
    let source = Queued::new(queue.clone(), environment());
    append(&queues, BULK);
    append(&queues, NONE_WANTED);
    let Claimed { job, ticket } = source.next(LIMITS).unwrap().unwrap();
    assert_eq!(job.origin.offsets, 0..7);
    let stored = ticket.letters(&[1, 3, 4, 6]).unwrap();
    let found: Vec<_> = stored.iter().map(|stored| (stored.offset, stored.origin.offset, stored.index)).collect();
    assert_eq!(found, [(1, 1, 1), (3, 3, 3), (4, 4, 0), (6, 6, 2)]);
    assert_eq!((&stored[1].payload, &stored[2].payload), (&job.parts[0].payload, &job.parts[1].payload));
    let (told, heard) = std::sync::mpsc::sync_channel(2);
    ticket.plan(Box::new({
        let told = told.clone();
        move |result| told.send(result.is_ok()).unwrap()
    }));
    ticket.split(3, Box::new(move |result| told.send(result.is_ok()).unwrap()));
    assert!(heard.recv().unwrap() && heard.recv().unwrap());
    let halves: Vec<_> = (0..2).map(|_| source.next(LIMITS).unwrap().unwrap()).collect();
    assert_eq!(halves.iter().map(|half| half.job.origin.offsets.clone()).collect::<Vec<_>>(), [0..3, 3..7]);
    assert_eq!(halves[1].ticket.letters(&[5]).unwrap()[0].index, 1);
    for half in halves {
        let first = half.job.origin.offsets.start;
        half.ticket.settle(&[(first..first + 1, Settled::DeadLettered)], Settled::Delivered);
    }
    assert_eq!((queue.balance().dead_lettered.records, queue.balance().delivered.records), (2, 5));
    assert!(queue.balance().closes());
}

#[test]
fn a_large_batch_is_filtered_when_it_is_claimed_and_read_as_it_is_sent() {
    let queues = queues();
    let queue = queues.queue("d", "acme-prod", Start::Earliest).unwrap();
    let source = Queued::new(queue.clone(), environment());
    let source = source.with_filters(Filters::of(&filter(&["a"])));
    append(&queues, BULK);
    append(&queues, NONE_WANTED);
    assert_eq!(source.waiting().unwrap().records, 7);
    let Claimed { job, ticket } = next_large(&source, LIMITS).unwrap();
    assert_eq!((job.origin.offsets.clone(), job.except.clone()), (0..7, [2, 4, 5, 6].into()));
    assert_eq!(job.received_ms, 1_700_000_000_000);
    for _ in 0..2 {
        let takes: Vec<_> = job.records.parts().map(|part| part.unwrap().take).collect();
        assert_eq!(takes, [4, 3], "as often as it is asked for");
    }
    ticket.settle(&[], Settled::Delivered);
    assert_eq!((queue.balance().filtered.records, queue.balance().delivered.records), (4, 3));
}

const LARGE: Limits = Limits { records_max: 1_000_000, bytes_max: 128 << 20 };

/// Before: eight bytes for each record that was left out, in a list for a batch of any size, and again for a moment.
#[test]
fn what_a_filter_leaves_out_of_a_large_batch_takes_memory_by_its_ranges_and_these_have_a_limit() {
    let queues = queues();
    let queue = queues.queue("d", "acme-prod", Start::Earliest).unwrap();
    let source = Queued::new(queue.clone(), environment());
    let source = source.with_filters(Filters::of(&only_on()));
    append_thousands(&queues, 24);
    let ranges_max = LEFT_OUT_RANGES_MAX as u64;
    let shape = |job: &LargeJob| (job.origin.offsets.clone(), job.except.ranges().len() as u64, job.records_sent());
    let first = next_large(&source, LARGE).unwrap();
    assert_eq!(shape(&first.job), (0..2 * ranges_max + 1, ranges_max, ranges_max + 1));
    let id = first.job.id;
    drop(first.ticket);
    // Given back, planned, or settled: it is what it was.
    let again = next_large(&source, LARGE).unwrap();
    again.ticket.plan(Box::new(|planned| planned.unwrap()));
    drop(again.ticket);
    let again = next_large(&source, LARGE).unwrap();
    assert_eq!((again.job.id, again.job.except.records()), (id, ranges_max));
    let rest = next_large(&source, LARGE).unwrap();
    assert_eq!(shape(&rest.job), (2 * ranges_max + 1..24_000, 2_000, 1_999));
    [again.ticket, rest.ticket].into_iter().for_each(|ticket| ticket.settle(&[], Settled::Delivered));
    let balance = queue.balance();
    assert_eq!((balance.delivered.records, balance.filtered.records, balance.pending.records), (12_000, 12_000, 0));
    assert!(balance.closes());

    append(&queues, NONE_WANTED);
    (0..30).for_each(|_| append(&queues, NONE_WANTED));
    let none = next_large(&source.with_filters(Filters::of(&filter(&["a"]))), LARGE).unwrap();
    assert_eq!((none.job.except.ranges().len(), none.job.except.records()), (1, 93), "one range over all frames");
}

/// A part of it may have been sent: it would be sent twice, under another id.
#[test]
fn a_large_batch_that_is_planned_stays_whole_however_much_of_it_is_left_out() {
    let queues = queues();
    let queue = queues.queue("d", "acme-prod", Start::Earliest).unwrap();
    let source = Queued::new(queue.clone(), environment());
    append_thousands(&queues, 24);
    let whole = next_large(&source, LARGE).unwrap();
    whole.ticket.plan(Box::new(|planned| planned.unwrap()));
    drop(whole.ticket);
    let source = source.with_filters(Filters::of(&only_on()));
    let again = next_large(&source, LARGE).unwrap();
    assert_eq!((&again.job.id, again.job.origin.offsets.clone()), (&whole.job.id, 0..24_000));
    assert_eq!(again.job.except.ranges().len(), 12_000);
    again.ticket.settle(&[], Settled::Delivered);
    assert_eq!(queue.balance().filtered.records, 12_000);
}

/// Before: whoever filtered a large batch held its turn until all of it was read, up to gigabytes, and was charged nothing.
#[tokio::test]
async fn others_have_their_turns_between_the_frames_of_a_large_batch_that_is_filtered() {
    const FRAMES: usize = 12;
    let queues = queues();
    let queue = queues.queue("d", "acme-prod", Start::Earliest).unwrap();
    let source = Queued::new(queue, environment()).with_filters(Filters::of(&only_on()));
    append_thousands(&queues, FRAMES);
    let budget = Budget::new(BudgetLimits { heavy_max: 1, ..BudgetLimits::default() });
    let (ours, theirs) = (budget.sharer(1), budget.sharer(1));
    let heavy = Heavy::holding(budget.heavy(ours, 0).await, budget.turns(ours));
    let is_over = Arc::new(AtomicBool::new(false));
    let over = Arc::clone(&is_over);
    // All that is filtered is less than one of theirs: whoever waits for a frame is before them.
    let mut next = Box::pin(budget.heavy(theirs, 1 << 30));
    assert!(timeout(Duration::ZERO, next.as_mut()).await.is_err(), "there is one turn, and it is taken");
    let claiming = tokio::task::spawn_blocking(move || {
        let claimed = source.next_large(LARGE, None, &heavy).unwrap().unwrap();
        over.store(true, Ordering::SeqCst);
        drop(heavy);
        claimed.job.except.records()
    });
    for frame in 1..=FRAMES {
        let turn = timeout(Duration::from_secs(60), next).await.expect("a turn is passed on");
        assert!(!is_over.load(Ordering::SeqCst), "before frame {frame}");
        next = Box::pin(budget.heavy(theirs, 1 << 30));
        assert!(timeout(Duration::ZERO, next.as_mut()).await.is_err());
        drop(turn);
    }
    drop(next);
    assert_eq!(timeout(Duration::from_secs(60), claiming).await.unwrap().unwrap(), FRAMES as u64 * 500);
}

/// Nothing but their bytes is the same: the replay is sent by the loop that its destination has, in turns with what is new.
#[test]
fn a_replay_takes_turns_with_live_delivery_and_is_woken_for_by_the_same_loop() {
    let queues = queues();
    let queue = queues.queue("d", "acme-prod", Start::Earliest).unwrap();
    let source = Queued::new(queue.clone(), environment());
    let woken = Arc::new(AtomicU32::new(0));
    let theirs = Arc::clone(&woken);
    source.on_more(Arc::new(move || {
        theirs.fetch_add(1, Ordering::SeqCst);
    }));
    (0..2).for_each(|_| append(&queues, BULK));
    let mut sent = Vec::new();
    let limits = Limits { records_max: 4, ..LIMITS };
    while let Some(Claimed { job, ticket }) = source.next(limits).unwrap() {
        ticket.plan(Box::new(|planned| planned.unwrap()));
        ticket.settle(&[], Settled::Delivered);
        sent.push(job.id);
    }
    assert!(sent.len() == 2 && !source.has_more());

    let before = woken.load(Ordering::SeqCst);
    let request = ReplayRequest { from: ReplayFrom::Earliest, to: None, mode: ReplayMode::Fill };
    let replay = queues.replay("d", "acme-prod", request).unwrap();
    assert!(woken.load(Ordering::SeqCst) > before, "there is more to send");
    (0..2).for_each(|_| append(&queues, BULK));
    assert!(source.has_more());
    let mut order = Vec::new();
    while let Some(Claimed { job, ticket }) = source.next(limits).unwrap() {
        if order.is_empty() {
            drop(ticket); // handed back, to the queue that it is from
            let Claimed { job: again, ticket } = source.next(limits).unwrap().unwrap();
            order.push(again.id);
            ticket.settle(&[], Settled::Delivered);
            continue;
        }
        order.push(job.id);
        ticket.settle(&[], Settled::Delivered);
    }
    let again: Vec<bool> = order.iter().map(|id| sent.contains(id)).collect();
    assert_eq!(order.len(), 4, "{order:?}");
    assert_eq!(again.iter().filter(|again| **again).count(), 2, "under their old ids: {order:?}");
    assert!(again[..3].contains(&true) && again[..3].contains(&false), "in turns: {again:?}");
    assert_eq!((replay.balance().delivered.records, queue.balance().delivered.records), (8, 16));
}

#[test]
fn what_comes_in_now_goes_beside_what_waits_and_a_replay_goes_with_that() {
    let clock = ManualClock::at(1_700_000_000_000);
    let queues = queues_at(&clock);
    let queue = queues.queue("d", "acme-prod", Start::Earliest).unwrap();
    let source = Queued::new(queue.clone(), environment()).live_first(Duration::from_secs(5));
    let live = source.live().expect("it has two positions");
    let offsets = |source: &dyn Source| {
        source.next(LIMITS).unwrap().map(|claimed| {
            let offsets = claimed.job.origin.offsets.clone();
            claimed.ticket.settle(&[], Settled::Delivered);
            offsets
        })
    };
    append(&queues, BULK);
    assert_eq!(offsets(&source), Some(0..4));
    replay_all(&queues);
    append(&queues, BULK);
    clock.advance(Duration::from_secs(64));
    assert!(source.waiting().is_ok() && queue.lag().live_age_ms.is_none(), "what waits on purpose is not behind");
    clock.advance(Duration::from_secs(1));
    assert!(source.waiting().is_ok() && queue.lag().live_age_ms.is_some());
    append(&queues, BULK);
    assert_eq!((offsets(&*live), offsets(&*live), live.has_more()), (Some(8..12), None, false));
    let mut rest = [offsets(&source).unwrap(), offsets(&source).unwrap()];
    rest.sort_by_key(|offsets| offsets.start);
    assert_eq!((rest, offsets(&source)), ([0..4, 4..8], None));
    assert_eq!((queue.lag().records, queue.balance().delivered.records), (0, 12));
}

/// Before: each batch of what came in now was counted as one of the backlog, so that the next turn was the replay's again.
#[test]
fn what_comes_in_now_is_no_turn_of_the_backlogs_beside_a_replay() {
    let clock = ManualClock::at(1_700_000_000_000);
    let queues = queues_at(&clock);
    let queue = queues.queue("d", "acme-prod", Start::Earliest).unwrap();
    let source = Queued::new(queue.clone(), environment()).live_first(Duration::ZERO);
    let live = source.live().expect("it has two positions");
    let next = |source: &dyn Source| {
        let claimed = source.next(Limits { records_max: 2, ..LIMITS }).unwrap().expect("more waits");
        let first = claimed.job.origin.offsets.start;
        claimed.ticket.settle(&[], Settled::Delivered);
        first
    };
    append(&queues, BULK);
    assert_eq!((next(&source), next(&source)), (0, 2));
    replay_all(&queues);
    append(&queues, BULK);
    append(&queues, BULK);
    clock.advance(Duration::from_secs(60));
    source.waiting().unwrap(); // it is behind, and parted
    append(&queues, BULK);
    append(&queues, BULK);
    let mut old: Vec<u64> = (0..4).map(|_| (next(&source), next(&*live)).0).collect();
    let replayed = old.iter().map(|first| *first < 4).collect::<Vec<_>>();
    assert!(replayed.windows(2).all(|pair| pair[0] != pair[1]), "in turns: {old:?}");
    old.sort_unstable();
    assert_eq!(old, [0, 2, 4, 6]);
}

#[test]
fn an_object_of_what_comes_in_now_holds_nothing_of_what_waits() {
    let clock = ManualClock::at(1_700_000_000_000);
    let queues = queues_at(&clock);
    let queue = queues.queue("d", "acme-prod", Start::Earliest).unwrap();
    let source = Queued::new(queue.clone(), environment()).live_first(Duration::ZERO);
    let live = source.live().expect("it has two positions");
    append(&queues, BULK);
    clock.advance(Duration::from_secs(60));
    let old = next_large(&source, Limits { records_max: 2, ..LIMITS }).unwrap();
    append(&queues, BULK);
    let (new, rest) = (next_large(&*live, LIMITS).unwrap(), next_large(&source, LIMITS).unwrap());
    let objects = [old, rest, new].map(|claimed| claimed.job.origin.offsets);
    assert_eq!(objects, [0..2, 2..4, 4..8]);
}

/// Claims, delivers, and says what.
fn deliver(source: &dyn Source, records_max: u64) -> Option<Range<u64>> {
    let claimed = source.next(Limits { records_max, ..LIMITS }).unwrap()?;
    let offsets = claimed.job.origin.offsets.clone();
    claimed.ticket.settle(&[], Settled::Delivered);
    Some(offsets)
}

/// Before: what had come in was called late as soon as its turn had come, and became backlog unsent. A destination whose requests
/// take a minute got nothing live, ever.
#[test]
fn what_waited_for_its_turn_goes_however_long_that_was_and_what_it_leaves_late_is_backlog() {
    let clock = ManualClock::at(1_700_000_000_000);
    let queues = queues_at(&clock);
    let queue = queues.queue("d", "acme-prod", Start::Earliest).unwrap();
    let source = Queued::new(queue.clone(), environment()).live_first(Duration::ZERO);
    let live = source.live().expect("it has two positions");
    append(&queues, BULK);
    clock.advance(Duration::from_secs(60));
    assert_eq!(deliver(&source, 1), Some(0..1));
    assert!(source.is_parted() && !source.is_fresh() && live.is_fresh());
    append(&queues, BULK);
    clock.advance(Duration::from_secs(70));
    assert_eq!(deliver(&source, 1), Some(1..2), "the backlog's turn changes nothing for what is live");
    assert_eq!(deliver(&*live, 4), Some(4..8));
    (0..3).for_each(|_| append(&queues, BULK));
    clock.advance(Duration::from_secs(70));
    assert_eq!(deliver(&*live, 4), Some(8..12));
    clock.advance(Duration::from_secs(10));
    assert_eq!(
        (deliver(&*live, 4), live.has_more()),
        (Some(12..16), false),
        "what it left is late still, and backlog now"
    );
    append(&queues, BULK);
    assert_eq!(deliver(&*live, 4), Some(20..24));
    let rest: Vec<_> = std::iter::from_fn(|| deliver(&source, 4)).collect();
    assert_eq!(rest, [2..4, 16..20]);
    assert!(!source.is_parted() && source.is_fresh() && queue.lag().records == 0);
}

/// A quota that is used up asks to wait for a minute, say: what comes in meanwhile is no backlog.
#[test]
fn what_a_pause_made_late_goes_where_live_makes_up_for_it() {
    let clock = ManualClock::at(1_700_000_000_000);
    let queues = queues_at(&clock);
    let queue = queues.queue("d", "acme-prod", Start::Earliest).unwrap();
    let source = Queued::new(queue.clone(), environment()).live_first(Duration::ZERO);
    let live = source.live().expect("it has two positions");
    append(&queues, BULK);
    clock.advance(Duration::from_secs(60));
    assert_eq!(deliver(&source, 1), Some(0..1));
    for pause in 0..10 {
        (0..3).for_each(|_| append(&queues, BULK));
        clock.advance(Duration::from_secs(600));
        for n in 0..3 {
            let first = 4 + pause * 12 + n * 4;
            assert_eq!(deliver(&*live, 4), Some(first..first + 4));
            clock.advance(Duration::from_secs(4));
        }
    }
    assert_eq!((queue.cursor().settled.len(), queue.backlog().pending().records), (1, 3));
}

/// With many places taken live may be late by some minutes: after a restart as well. Before, all of that was backlog.
#[test]
fn after_a_restart_live_goes_on_as_late_as_it_may_be() {
    let clock = ManualClock::at(1_700_000_000_000);
    let queues = queues_at(&clock);
    let queue = queues.queue("d", "acme-prod", Start::Earliest).unwrap();
    let source = Queued::new(queue.clone(), environment()).live_first(Duration::ZERO);
    (0..10).for_each(|_| append(&queues, BULK));
    (0..20).for_each(|n| assert!(queue.settle_range(2 * n + 1..2 * n + 2, Settled::Delivered) == 1));
    clock.advance(Duration::from_secs(40));
    append(&queues, BULK);
    clock.advance(Duration::from_secs(90));
    assert!(source.waiting().is_ok() && source.is_parted());
    assert_eq!(deliver(&*source.live().unwrap(), 10), Some(40..44));
}

#[test]
fn a_batch_that_is_full_by_its_bytes_does_not_wait_for_records() {
    let queues = queues();
    let queue = queues.queue("d", "acme-prod", Start::Earliest).unwrap();
    let source = Queued::new(queue.clone(), environment());
    append(&queues, BULK);
    let bytes_max = queue.pending().bytes;
    let limits = Limits { records_max: 1_000_000, bytes_max };
    assert!(source.fills(limits) && !source.fills(Limits { bytes_max: bytes_max + 1, ..limits }));
}

/// Before, a replay had a batch each time that one of its queue was full or its time had come: at S3 one in five minutes.
#[tokio::test(start_paused = true)]
async fn a_replay_goes_on_while_a_batch_of_its_queue_fills() {
    let clock = ManualClock::at(1_700_000_000_000);
    let queues = queues_at(&clock);
    let queue = queues.queue("d", "acme-prod", Start::Earliest).unwrap();
    (0..10).for_each(|_| append(&queues, BULK));
    let source = Queued::new(queue.clone(), environment());
    deliver_all(&source);
    replay_all(&queues);
    append(&queues, BULK);
    let shared = Arc::new(clock.clone());
    let delivery = Delivery::new(Budget::new(BudgetLimits::default()), shared, Arc::new(NoParking));
    let (sink, limits) = (Arc::new(Counting::default()), Limits { records_max: 10, ..LIMITS });
    let settings = Settings { limits, batch_wait_max: Duration::from_secs(300), ..Settings::default() };
    delivery.start("d", Arc::clone(&sink) as _, vec![Arc::new(source)], settings).unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!((&sink.sent.lock().unwrap()[..], queue.lag().records), (&[10, 10, 10, 10][..], 4));
    clock.advance(Duration::from_secs(300));
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!((sink.sent.lock().unwrap().len(), queue.lag().records), (5, 0));
}
