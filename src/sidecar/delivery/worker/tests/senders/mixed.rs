//! Senders that share a queue: as letters of several keys do.

use super::*;
use crate::logged::Lines;

/// One queue with records of several senders, as letters come from.
struct Mixed {
    of: Vec<Script>,
    off: Mutex<BTreeSet<u32>>,
    turn: AtomicU64,
    /// Called when somebody waits no more.
    lifted: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl Mixed {
    fn on(&self) -> impl Iterator<Item = &Script> {
        let off = self.off.lock().unwrap().clone();
        (0..).zip(&self.of).filter(move |(stream, _)| !off.contains(stream)).map(|(_, script)| script)
    }
}

impl Source for Mixed {
    fn has_more(&self) -> bool {
        self.on().any(Script::has_more)
    }

    fn in_memory(&self, _: Limits) -> bool {
        true
    }

    fn next(&self, limits: Limits) -> Result<Option<Claimed>, BoxError> {
        let with_more: Vec<&Script> = self.on().filter(|script| script.has_more()).collect();
        let turn = self.turn.fetch_add(1, Ordering::SeqCst) as usize;
        with_more.get(turn % with_more.len().max(1)).map_or(Ok(None), |script| script.next(limits))
    }

    fn next_large(&self, _: Limits, _: Option<u64>, _: &Heavy) -> Result<Option<Claimed<LargeJob>>, BoxError> {
        Ok(None)
    }

    fn waiting(&self) -> Result<Waiting, BoxError> {
        Ok(Waiting::default())
    }

    fn on_more(&self, wake: Arc<dyn Fn() + Send + Sync>) {
        self.of.iter().for_each(|script| script.on_more(Arc::clone(&wake)));
    }

    fn stream(&self) -> String {
        "!held/d".to_owned()
    }

    fn sender(&self, _: LogId, stream: StreamId) -> String {
        format!("letters of sender {}", stream.0)
    }

    fn put_off(&self, _: LogId, stream: StreamId, until_ms: Option<u64>) -> bool {
        let mut off = self.off.lock().unwrap();
        match until_ms {
            Some(_) => off.insert(stream.0),
            None => off.remove(&stream.0),
        };
        let lifted = if until_ms.is_none() { self.lifted.lock().unwrap().take() } else { None };
        drop(off);
        if let Some(lifted) = lifted {
            lifted();
        }
        true
    }
}

impl Senders {
    /// All of them have one queue.
    fn mixed(records: &[u64], makes: impl Fn(u32, u64) -> Outcome + Send + Sync + 'static) -> (Self, Arc<Mixed>) {
        let of = (0..).zip(records).map(|(stream, n)| Script::of_stream(stream, *n)).collect();
        let mixed = Arc::new(Mixed { of, off: Mutex::default(), turn: AtomicU64::new(0), lifted: Mutex::default() });
        let senders = Self::of(Drawer::default(), mixed.of.clone(), vec![Arc::clone(&mixed) as _], makes);
        (senders, mixed)
    }
}

/// Before, letters of a key that was refused held up those of all others for as long as that was so.
#[tokio::test(start_paused = true)]
async fn a_sender_that_is_refused_holds_up_nobody_with_whom_it_shares_a_queue() {
    let answers: [fn() -> Outcome; 3] = [
        || Outcome::QueueRefused { why: status(401) },
        || Outcome::Rejected { why: status(400) },
        || Outcome::Retry { why: status(500) },
    ];
    for makes in answers {
        let (lines, _guard) = Lines::collect();
        let mended = Arc::new(AtomicU64::new(0));
        let is_mended = Arc::clone(&mended);
        let (senders, mixed) = Senders::mixed(&[10, 600], move |stream, _| match stream {
            0 if is_mended.load(Ordering::SeqCst) == 0 => makes(),
            _ => Outcome::Delivered,
        });
        sleep(HOUR).await;
        assert_eq!((senders.left(1), senders.left(0) > 0), (0, true), "{:?}", senders.held());
        let [held] = &senders.held()[..] else { panic!("{:?}", senders.held()) };
        assert_eq!(held.stream, "!held/d");
        let said = lines.with("does not take what comes from this queue");
        assert!(said.len() == 1 && said[0].contains("letters of sender 0"), "whom to see to: {said:?}");
        let tries = senders.came(0).len();
        sleep(HOUR).await;
        let more = senders.came(0).len() - tries;
        assert!((5..60).contains(&more), "tried now and then, all the time: {more}");
        mended.store(1, Ordering::SeqCst);
        assert!(senders.delivery.probe(D));
        sleep(60 * ANSWER).await;
        assert_eq!((senders.left(0), senders.held()), (0, Vec::new()));
        assert!(mixed.off.lock().unwrap().is_empty());
    }
}

/// Before, each retest put back all that lay aside of a sender that was put off. They come first: with more than about seven
/// of them it went round for ever, and what lay behind was never tried.
#[tokio::test(start_paused = true)]
async fn what_lies_behind_a_senders_many_bad_ones_is_come_to_where_others_share_its_queue() {
    let (senders, _) = Senders::mixed(&[40, 600], |stream, at| match (stream, at) {
        (0, ..20) => Outcome::Rejected { why: status(400) },
        _ => Outcome::Delivered,
    });
    sleep(3 * HOUR).await;
    assert!(senders.came(0).contains(&20), "{:?}", senders.came(0));
    assert!(senders.left(0) < 40 && senders.left(1) == 0, "what it took is settled");
    assert!(senders.drawer.of(true).len() <= 3, "{:?}", senders.drawer.of(true));
}

/// Nothing else of it is there to try: those that lie aside are tried again themselves, however often.
#[tokio::test(start_paused = true)]
async fn a_sender_of_a_shared_queue_of_which_all_lies_aside_is_tried_again() {
    let mended = Arc::new(AtomicU64::new(0));
    let is_mended = Arc::clone(&mended);
    let (senders, _) = Senders::mixed(&[6, 0], move |_, _| match is_mended.load(Ordering::SeqCst) {
        0 => Outcome::Rejected { why: status(400) },
        _ => Outcome::Delivered,
    });
    sleep(2 * HOUR).await;
    let tries = senders.came(0).len();
    sleep(2 * HOUR).await;
    assert!(senders.came(0).len() > tries + 5, "{:?}", senders.came(0));
    mended.store(1, Ordering::SeqCst);
    sleep(HOUR).await;
    assert_eq!((senders.left(0), senders.drawer.of(true).len()), (0, 0));
}

/// What lies aside is claimed, and a queue of letters reads none for anybody while too much of it is.
#[tokio::test(start_paused = true)]
async fn so_many_lie_aside_of_a_shared_queue_that_others_are_read() {
    let (senders, _) = Senders::mixed(&[700, 10], |stream, _| match stream {
        0 => Outcome::Rejected { why: status(400) },
        _ => Outcome::Delivered,
    });
    let mut most = 0;
    for _ in 0..650 {
        sleep(WAIT_MAX).await;
        most = most.max(senders.delivery.stats_of(D).unwrap().undecided_records);
    }
    assert!((500..=512).contains(&most), "{most}");
}

/// Before, one that was resumed in the moment in which it went to rest, paused, rested on until something came.
#[tokio::test(start_paused = true)]
async fn who_is_resumed_as_it_goes_to_rest_goes_on() {
    let (senders, mixed) = Senders::mixed(&[10, 600], |stream, _| match stream {
        0 => Outcome::QueueRefused { why: status(401) },
        _ => Outcome::Delivered,
    });
    sleep(ANSWER * 3).await;
    assert!(senders.left(1) > 0 && !senders.held().is_empty());
    let delivery = Arc::clone(&senders.delivery);
    *mixed.lifted.lock().unwrap() = Some(Box::new(move || assert!(delivery.resume(D))));
    assert!(senders.delivery.pause(D));
    sleep(HOUR).await;
    assert_eq!(senders.left(1), 0);
}
