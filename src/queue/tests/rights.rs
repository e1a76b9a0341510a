//! Who may decide on a batch: its own queue, once, and nobody who has let go of it.

use super::*;
use crate::queue::SplitError;
use std::panic::{AssertUnwindSafe, catch_unwind};

#[test]
fn a_batch_that_is_dropped_comes_again_as_it_was_however_often() {
    let queues = open(&mem());
    let queue = hook(&queues);
    append(&queues, "acme", 10);
    let id = next(&queue, 4).id;
    let woken = Arc::new(AtomicUsize::new(0));
    let theirs = Arc::clone(&woken);
    queue.on_more(Arc::new(move || {
        theirs.fetch_add(1, Ordering::SeqCst);
    }));
    for n in 1..=1_000 {
        let batch = next(&queue, 10);
        let copy = batch.clone();
        drop(batch);
        assert!(queue.next_batch(of_records(1)).expect("memory reads").is_some_and(|other| other.offsets == (4..5)));
        assert_eq!((copy.offsets.clone(), &copy.id), (0..4, &id), "time {n}");
    }
    assert_eq!(woken.load(Ordering::SeqCst), 2_000, "whoever waits for something to send hears of it");
    assert_eq!((queue.lag().records, queue.cursor().low), (10, 0));
}

#[test]
fn a_batch_that_was_settled_or_given_back_is_nothing_to_who_drops_it_later() {
    let queues = open(&mem());
    let queue = hook(&queues);
    append(&queues, "acme", 10);
    let first = next(&queue, 4);
    queue.release(&first);
    let again = next(&queue, 4);
    assert_eq!(again.offsets, first.offsets);
    queue.release(&first); // not his any more
    drop(first);
    assert_eq!(next(&queue, 4).offsets, 4..8, "the first four are out");
    queue.settle(&again, Settled::Delivered);
    drop(again);
    assert_eq!(next(&queue, 2).offsets, 4..8);
}

#[test]
fn a_batch_is_settled_by_its_own_queue_only() {
    let queues = open(&mem());
    let queue = hook(&queues);
    let other = queues.queue("other", "acme", Start::Earliest).expect("it is made");
    append(&queues, "acme", 10);
    let (batch, theirs) = (next(&queue, 10), next(&other, 10));
    let refused = |what: &dyn Fn(&Queue)| {
        let panic = catch_unwind(AssertUnwindSafe(|| what(&other))).expect_err("it is another queue's");
        let said = panic.downcast_ref::<String>().expect("it says why").clone();
        assert!(said.contains(&batch.id) && said.contains("other"), "{said}");
    };
    refused(&|other| other.settle(&batch, Settled::Delivered));
    refused(&|other| assert_eq!(other.settle_parts(&batch, &[], Settled::Delivered), 0));
    refused(&|other| other.release(&batch));
    refused(&|other| other.plan(&batch, Box::new(|_| {})));
    refused(&|other| other.split(&batch, 5, Box::new(|_| {})));
    refused(&|other| drop(other.shorten(&batch, 5)));
    refused(&|other| drop(other.read(&batch)));
    assert_eq!((other.lag().records, queue.lag().records), (10, 10));
    other.settle(&theirs, Settled::Delivered);
    assert_eq!((other.lag().records, queue.lag().records), (0, 10));

    let changed = Batch { offsets: 0..9, ..batch.clone() };
    assert!(catch_unwind(AssertUnwindSafe(|| queue.settle(&changed, Settled::Delivered))).is_err());
    assert_eq!(queue.lag().records, 10);
    queue.live().settle(&batch, Settled::Delivered);
    assert_eq!(queue.lag().records, 0, "all handles are one queue");
}

#[test]
fn halves_take_the_place_of_the_whole_and_who_drops_that_gives_nothing_back() {
    let queues = open(&mem());
    let queue = hook(&queues);
    for planned in [false, true] {
        append(&queues, "acme", 10);
        let whole = next(&queue, 10);
        let first = whole.offsets.start;
        if planned {
            plan(&queue, &whole);
        }
        let out = Arc::new(Mutex::new(None));
        let theirs = Arc::clone(&out);
        queue.split(&whole, first + 4, Box::new(move |halves| *theirs.lock().expect("no panic") = halves.ok()));
        drop(whole);
        let [left, right] = out.lock().expect("no panic").take().expect("the log is sound");
        assert!(!queue.has_more(), "both are out");
        drop(right);
        assert_eq!(next(&queue, 1).offsets, first + 4..first + 10, "a half goes back by itself, and alone");
        queue.settle(&left, Settled::Delivered);
        queue.settle(&next(&queue, 1), Settled::Delivered);
    }
    assert_eq!(queue.lag().records, 0);
}

/// A queue of ten records, of which a batch is out whose split at 4 is on its way until the last is called.
fn being_split() -> (Queues, Queue, Batch, impl FnOnce() -> [Batch; 2]) {
    use std::sync::mpsc::sync_channel;
    let options = QueueOptions { store: StoreChoice::None, ..QueueOptions::default() };
    let log = LogOptions { inline: false, ..LogOptions::small() };
    let clock = Arc::new(crate::clock::SystemClock::new());
    let queues = Queues::open(mem(), clock, Path::new("data"), log, options).expect("it opens");
    let queue = hook(&queues);
    append(&queues, "acme", 10);
    let whole = next(&queue, 10);
    let (done, is_done) = sync_channel(1);
    queue.plan(&whole, Box::new(move |planned| done.send(planned.is_ok()).expect("somebody waits")));
    assert!(is_done.recv().expect("the writer answers"));

    // The writer is kept busy.
    let (let_go, gate) = sync_channel::<()>(0);
    let (at_it, is_at_it) = sync_channel(1);
    let stop = move |_: Result<crate::Appended, crate::AppendError>| {
        at_it.send(()).expect("somebody waits");
        assert!(gate.recv().is_err(), "let go by a drop");
    };
    queues.log().append("other", vec![1], 1, Box::new(stop)).expect("it is taken");
    is_at_it.recv().expect("the writer comes by");
    let (done, halved) = sync_channel(1);
    queue.split(&whole, 4, Box::new(move |halves| done.send(halves).expect("somebody waits")));
    let halves = move || {
        drop(let_go);
        halved.recv().expect("the writer answers").expect("memory is sound")
    };
    (queues, queue, whole, halves)
}

#[test]
fn a_batch_that_is_dropped_while_it_is_split_is_not_handed_out_beside_its_halves() {
    let (queues, queue, whole, halves) = being_split();
    drop(whole);
    let halves = halves();
    assert!(!queue.has_more(), "both are out");
    drop(halves);
    assert_eq!([next(&queue, 1), next(&queue, 1)].map(|batch| batch.offsets), [0..4, 4..10]);
    queues.close().expect("memory closes");
}

#[test]
fn of_a_batch_that_is_given_back_while_it_is_split_the_halves_are_for_whoever_claims_them() {
    let (queues, queue, whole, halves) = being_split();
    queue.release(&whole);
    assert!(!queue.has_more(), "not before it is known what becomes of it");
    let told = halves();
    let claimed = next(&queue, 1);
    assert_eq!(claimed.offsets, 0..4);
    drop(told);
    queue.settle(&next(&queue, 1), Settled::Delivered);
    assert!(!queue.has_more(), "whoever split it has no right to give the first half back");
    queue.settle(&claimed, Settled::Delivered);
    assert_eq!((queue.lag().records, queue.balance().delivered.records), (0, 10));
    queues.close().expect("memory closes");
}

#[test]
fn a_batch_whose_split_failed_goes_back_when_nobody_has_it() {
    let queues = open(&mem());
    let queue = hook(&queues);
    append(&queues, "acme", 10);
    let whole = next(&queue, 10);
    for at in [0, 10] {
        let told = Arc::<AtomicUsize>::default();
        let theirs = Arc::clone(&told);
        let split = move |halves| {
            assert!(matches!(halves, Err(SplitError::NoBoundary { first: 0, end: 10, .. })));
            theirs.fetch_add(1, Ordering::SeqCst);
        };
        queue.split(&whole, at, Box::new(split));
        assert_eq!(told.load(Ordering::SeqCst), 1, "at {at}");
    }
    assert!(!queue.has_more(), "somebody has it still");
    drop(whole);
    assert_eq!(next(&queue, 1).offsets, 0..10);
}

#[test]
fn what_is_no_batch_has_no_id() {
    let queues = open(&mem());
    let queue = hook(&queues);
    assert_eq!(queue.batch_id(0..1), None, "there is no stream yet");
    append(&queues, "acme", 10);
    assert!(queue.batch_id(0..1).is_some());
    let backwards = std::ops::Range { start: 9, end: 3 };
    assert_eq!([3..3, backwards, 0..u64::MAX].map(|offsets| queue.batch_id(offsets)), [None, None, None]);
}

#[test]
fn a_batch_that_outlives_its_queues_keeps_nothing_locked() {
    let disk = mem();
    let queues = open(&disk);
    append(&queues, "acme", 10);
    let batch = next(&hook(&queues), 10);
    drop(queues);
    let queues = open(&disk);
    drop(batch);
    assert_eq!(next(&hook(&queues), 10).offsets, 0..10);
}
