//! A destination whose streams are of different senders: the trouble of one is no other's.

mod mixed;

use super::drawer::Drawer;
use super::*;
use crate::delivery::worker::anew::ANEW_AFTER;
use crate::delivery::worker::holds::{FAILS_ALONE, WAIT_MAX, WAIT_MIN};
use crate::sinks::upstream::InOrder;

/// What becomes of a record of a stream, at its offset.
type Makes = Box<dyn Fn(u32, u64) -> Outcome + Send + Sync>;

/// A request takes so long.
const ANSWER: Duration = SECOND;

/// Remembers what came.
struct Shared {
    makes: Makes,
    began: Instant,
    came: Mutex<Vec<(Duration, u32, u64)>>,
    /// As [`Receiver::loop_panics`].
    loop_panics: AtomicU64,
}

impl Sink for Shared {
    fn format(&self) -> Format {
        Format { name: "shared", settings: None, gzip: None }
    }

    fn encode(&self, job: &Job) -> Result<Encoded, EncodeError> {
        Ok(Encoded::whole(job, Bytes::from_static(b"x")))
    }

    fn send<'a>(&'a self, encoded: &'a Encoded, _: &'a str, _: Instant) -> BoxFuture<'a, Outcome> {
        Box::pin(async move {
            let (stream, at) = (encoded.origin.stream.0, encoded.origin.offsets.start);
            self.came.lock().unwrap().push((self.began.elapsed(), stream, at));
            sleep(ANSWER).await;
            (self.makes)(stream, at)
        })
    }

    fn allowance(&self) -> Option<Told> {
        assert!(!take_one(&self.loop_panics), "told to panic in the loop");
        None
    }

    fn needs_plan(&self) -> bool {
        false
    }

    fn senders_apart(&self) -> bool {
        true
    }
}

/// The senders of a destination, and what it makes of them.
struct Senders {
    delivery: Arc<Delivery>,
    sink: Arc<Shared>,
    queues: Vec<Script>,
    drawer: Arc<Drawer>,
}

const D: &str = "d";

impl Senders {
    /// As many as there are numbers of records.
    fn new(records: &[u64], makes: impl Fn(u32, u64) -> Outcome + Send + Sync + 'static) -> Self {
        Self::beside(Drawer::default(), records, makes)
    }

    fn beside(drawer: Drawer, records: &[u64], makes: impl Fn(u32, u64) -> Outcome + Send + Sync + 'static) -> Self {
        let queues: Vec<Script> = (0..).zip(records).map(|(stream, n)| Script::of_stream(stream, *n)).collect();
        let source = |queue: &Script| Arc::new(InOrder::new(Arc::new(queue.clone()))) as Arc<dyn Source>;
        let sources = queues.iter().map(source).collect();
        Self::of(drawer, queues, sources, makes)
    }

    fn of(
        drawer: Drawer,
        queues: Vec<Script>,
        sources: Vec<Arc<dyn Source>>,
        makes: impl Fn(u32, u64) -> Outcome + Send + Sync + 'static,
    ) -> Self {
        let drawer = Arc::new(drawer);
        let (budget, clock) = (Budget::new(BudgetLimits::default()), Arc::new(ManualClock::at(1_000_000)));
        let delivery = delivering(budget, clock, Arc::clone(&drawer) as Arc<dyn Parking>);
        let sink = Arc::new(Shared {
            makes: Box::new(makes),
            began: Instant::now(),
            came: Mutex::default(),
            loop_panics: AtomicU64::new(0),
        });
        let limits = Limits { records_max: 1, bytes_max: 1000 };
        let settings = Settings { limits, ..Settings::default() };
        delivery.start(D, Arc::clone(&sink) as _, sources, settings).unwrap();
        Self { delivery: Arc::new(delivery), sink, queues, drawer }
    }

    /// The offsets that came of a stream, in this order.
    fn came(&self, of: u32) -> Vec<u64> {
        self.sink.came.lock().unwrap().iter().filter(|(_, stream, _)| *stream == of).map(|(.., at)| *at).collect()
    }

    /// How long requests of the stream came after each other.
    fn gaps(&self, of: u32) -> Vec<Duration> {
        let came = self.sink.came.lock().unwrap();
        let times: Vec<Duration> = came.iter().filter(|(_, stream, _)| *stream == of).map(|(at, ..)| *at).collect();
        times.windows(2).map(|two| two[1] - two[0]).collect()
    }

    /// How often the stream had to wait, instead of sending as soon as there was an answer: at the beginning there is one
    /// request at a time for all.
    fn waited(&self, of: u32) -> usize {
        self.gaps(of).into_iter().filter(|gap| *gap > ANSWER + ANSWER / 2).count()
    }

    fn left(&self, of: usize) -> u64 {
        self.queues[of].with(|state| state.tail) - self.queues[of].settled()
    }

    fn held(&self) -> Vec<crate::delivery::stats::Held> {
        self.delivery.stats_of(D).unwrap().held
    }
}

fn status(status: u16) -> Failure {
    Failure::status(status)
}

/// Before, three posts that Split rejects, of anybody who has one browser's key, refused everybody's: for a minute, then for
/// ten, again and again.
#[tokio::test(start_paused = true)]
async fn whoever_is_rejected_for_an_hour_waits_alone_and_nothing_of_it_goes() {
    const POSTS: u64 = 3_600;
    let senders = Senders::new(&[200, POSTS], |stream, _| match stream {
        0 => Outcome::Rejected { why: status(400) },
        _ => Outcome::Delivered,
    });
    sleep(HOUR + 10 * ANSWER).await;
    assert_eq!((senders.left(1), senders.came(1).len() as u64), (0, POSTS), "one a second, for an hour");
    assert!(senders.waited(1) <= 4, "{}", senders.waited(1));
    assert_eq!((senders.left(0), senders.drawer.of(true).len()), (200, 0), "nothing proves that it is at fault");
    let tries = senders.came(0).len();
    assert!((10..120).contains(&tries), "tried now and then: {tries}");
    let snapshot = senders.delivery.stats_of(D).unwrap();
    let [held] = &snapshot.held[..] else { panic!("{:?}", snapshot.held) };
    assert_eq!((held.why.as_str(), held.refused), ("answered 400", true));
    assert!(!matches!(snapshot.state, State::Refused { .. }), "{:?}", snapshot.state);
}

#[tokio::test(start_paused = true)]
async fn a_few_bad_ones_among_a_senders_good_ones_are_letters_and_too_many_are_not() {
    // Of the first one in two hundred is bad, of the second one in twenty.
    let bad = |stream, at| if stream == 0 { at % 200 == 50 } else { at % 20 == 5 };
    let senders = Senders::new(&[1_000, 1_000], move |stream, at| match bad(stream, at) {
        true => Outcome::Rejected { why: status(422) },
        false => Outcome::Delivered,
    });
    sleep(HOUR / 2).await;
    let dead = |of: usize| {
        let settled = senders.queues[of].with(|state| state.settled.clone());
        settled.into_iter().filter(|(_, how)| *how == Settled::DeadLettered).map(|(at, _)| at).collect::<Vec<_>>()
    };
    assert_eq!((senders.left(0), dead(0)), (0, vec![50, 250, 450, 650, 850]));
    assert_eq!(senders.held().len(), 1, "{:?}", senders.held());
    let taken = 1_000 - senders.left(1);
    assert!(dead(1).len() as u64 <= 3.max(taken / 100), "{:?} of {taken}", dead(1));
    assert!(dead(1).iter().all(|at| bad(1, *at)));
}

/// Letters of posts lie where impressions do, and anybody who has a key can post what becomes one.
#[tokio::test(start_paused = true)]
async fn where_letters_have_no_room_a_bad_record_holds_its_sender_and_stays() {
    let drawer = Drawer { full_at: Some(1), ..Drawer::default() };
    let senders = Senders::beside(drawer, &[600, 600], |stream, at| match (stream, at % 200) {
        (0, 50) => Outcome::Rejected { why: status(422) },
        _ => Outcome::Delivered,
    });
    sleep(HOUR / 2).await;
    assert_eq!((senders.drawer.of(true), senders.left(1)), (vec![50], 0));
    let [held] = &senders.held()[..] else { panic!("{:?}", senders.held()) };
    assert!(held.why.contains("have all the room") && held.why.contains("answered 422"), "{}", held.why);
    let settled = senders.queues[0].with(|state| state.settled.clone());
    assert!(!settled.contains_key(&250) && settled.contains_key(&249), "it is there still");
}

/// Before, what was being kept when it panicked counted for ever: each panic took as much from the room that letters have.
#[tokio::test(start_paused = true)]
async fn what_a_chore_was_keeping_when_it_panicked_is_not_counted_any_more() {
    let drawer = Drawer { panics: AtomicU64::new(3), ..Drawer::default() };
    let senders = Senders::beside(drawer, &[600], |_, at| match at % 200 {
        50 => Outcome::Rejected { why: status(422) },
        _ => Outcome::Delivered,
    });
    sleep(HOUR / 2).await;
    assert_eq!((senders.drawer.of(true), senders.left(0)), (vec![50, 250, 450], 0));
    assert_eq!(senders.drawer.panics.load(Ordering::SeqCst), 0);
    assert_eq!(senders.drawer.asked.load(Ordering::SeqCst), 1_000, "for the last one alone, which is of so many bytes");
}

/// Before, holds were shown that the next loop knew nothing of, until there was another one.
#[tokio::test(start_paused = true)]
async fn holds_are_forgotten_with_the_loop_that_panicked_and_found_out_anew() {
    let senders = Senders::new(&[20, 0], |stream, _| match stream {
        0 => Outcome::QueueRefused { why: status(401) },
        _ => Outcome::Delivered,
    });
    sleep(10 * ANSWER).await;
    assert_eq!(senders.held().len(), 1);
    senders.sink.loop_panics.store(1, Ordering::SeqCst);
    senders.queues[1].append(1);
    sleep(10 * ANSWER).await;
    assert_eq!(senders.sink.loop_panics.load(Ordering::SeqCst), 0, "it panicked");
    assert_eq!(senders.held(), Vec::new());
    let came = senders.came(0).len();
    sleep(ANEW_AFTER + 10 * ANSWER).await;
    assert_eq!((senders.left(0), senders.left(1)), (20, 0));
    assert_eq!(senders.held().len(), 1);
    assert!(senders.came(0).len() > came, "it was asked again");
}

#[tokio::test(start_paused = true)]
async fn whoever_is_refused_waits_longer_each_time_up_to_a_bound_and_goes_on_in_order() {
    let mended = Arc::new(AtomicU64::new(0));
    let is_mended = Arc::clone(&mended);
    let senders = Senders::new(&[20, 20], move |stream, _| match stream {
        0 if is_mended.load(Ordering::SeqCst) == 0 => Outcome::QueueRefused { why: status(401) },
        _ => Outcome::Delivered,
    });
    sleep(HOUR).await;
    assert_eq!((senders.left(0), senders.left(1)), (20, 0));
    let waits: Vec<Duration> = senders.gaps(0).into_iter().map(|gap| gap - ANSWER).collect();
    // A request of the other's may be under way.
    let near = |wait: Duration, want: Duration| wait >= want && wait <= want + 2 * ANSWER;
    assert!(near(waits[0], WAIT_MIN) && near(waits[1], 2 * WAIT_MIN), "{waits:?}");
    assert!(near(waits[waits.len() - 1], WAIT_MAX) && waits.len() >= 10, "{waits:?}");
    let snapshot = senders.delivery.stats_of(D).unwrap();
    assert_eq!((snapshot.state, snapshot.held.len()), (State::Idle, 1), "what else there is has nothing");
    // An operator who mended the key does not wait for it.
    mended.store(1, Ordering::SeqCst);
    assert!(senders.delivery.probe(D));
    sleep(30 * ANSWER).await;
    assert_eq!((senders.left(0), senders.held()), (0, Vec::new()));
    assert!(senders.came(0).ends_with(&(0..20).collect::<Vec<_>>()));
}

/// Whatever it fails with: an error of the receiver's, or a word about the address that is true of this batch alone.
#[tokio::test(start_paused = true)]
async fn a_batch_that_fails_for_ever_comes_to_hold_up_its_own_queue_alone() {
    let refused = || Outcome::Refused { why: status(404) };
    let failed = || Outcome::Retry { why: status(500) };
    for (makes, class) in [(failed as fn() -> Outcome, 3), (refused, 1)] {
        let senders = Senders::new(&[10, 0], move |stream, at| match (stream, at) {
            (0, 3) => makes(),
            _ => Outcome::Delivered,
        });
        for _ in 0..1_800 {
            senders.queues[1].append(1);
            sleep(2 * ANSWER).await;
        }
        assert!(senders.left(0) == 7 && senders.left(1) <= 1, "{} {}", senders.left(0), senders.left(1));
        let [held] = &senders.held()[..] else { panic!("{:?}", senders.held()) };
        assert_eq!((&held.why, held.refused), (&makes().failure().unwrap().to_string(), false));
        let snapshot = senders.delivery.stats_of(D).unwrap();
        assert!(!matches!(snapshot.state, State::Refused { .. }), "{:?}", snapshot.state);
        // Then it failed for itself, a few times.
        let late = senders.gaps(1).into_iter().filter(|gap| *gap > 4 * ANSWER).count();
        assert!(late <= FAILS_ALONE as usize, "{late}");
        assert!((10..60).contains(&snapshot.failures[class]), "{}", snapshot.failures[class]);
    }
}

/// A destination that is down is nobody's fault: whoever waited longest for it waits no longer than the others.
#[tokio::test(start_paused = true)]
async fn while_all_fail_none_is_held_apart() {
    let up = Arc::new(AtomicU64::new(0));
    let is_up = Arc::clone(&up);
    let senders = Senders::new(&[5, 5, 5], move |_, _| match is_up.load(Ordering::SeqCst) {
        0 => Outcome::Retry { why: status(502) },
        _ => Outcome::Delivered,
    });
    sleep(HOUR).await;
    assert_eq!((senders.held(), senders.delivery.stats_of(D).unwrap().failures[3] > 20), (Vec::new(), true));
    up.store(1, Ordering::SeqCst);
    sleep(Duration::from_secs(120)).await;
    assert_eq!([0, 1, 2].map(|of| senders.left(of)), [0; 3]);
}

/// Before, more than 32 bad posts at the head of a key's queue were tried one after the other for ever, and never what lay
/// behind them.
#[tokio::test(start_paused = true)]
async fn what_lies_behind_many_bad_ones_is_come_to_at_the_speed_of_probes() {
    let senders = Senders::new(&[60], |_, at| match at {
        ..40 => Outcome::Rejected { why: status(400) },
        _ => Outcome::Delivered,
    });
    sleep(6 * HOUR).await;
    assert!(senders.came(0).contains(&40), "{:?}", senders.came(0));
    assert!(senders.left(0) < 60, "what it took is settled");
    assert!(senders.drawer.of(true).len() <= 3, "{:?}", senders.drawer.of(true));
}
