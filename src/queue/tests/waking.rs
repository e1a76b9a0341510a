use super::*;

#[test]
fn an_append_wakes_the_queues_of_its_stream_and_no_other() {
    let disk = mem();
    let queues = open(&disk);
    let woken: Vec<Arc<AtomicUsize>> = (0..2_000).map(|_| Arc::default()).collect();
    let made: Vec<Queue> = (0..2_000)
        .map(|n| {
            queues.queue(&format!("hook-{n}"), &format!("customer-{}", n % 1_000), Start::Now).expect("it is made")
        })
        .collect();
    for (queue, woken) in made.iter().zip(&woken) {
        let woken = Arc::clone(woken);
        queue.on_more(Arc::new(move || {
            woken.fetch_add(1, Ordering::SeqCst);
        }));
    }
    append(&queues, "customer-7", 1);
    append(&queues, "customer-7", 1);
    append(&queues, "nobodys", 1);
    for (n, woken) in woken.iter().enumerate() {
        assert_eq!(woken.load(Ordering::SeqCst), if n % 1_000 == 7 { 2 } else { 0 }, "hook-{n}");
    }
}

#[test]
fn a_waker_that_panics_keeps_nobody_from_being_woken() {
    let disk = mem();
    let queues = open(&disk);
    let (queue, neighbour) = (hook(&queues), queues.queue("neighbour", "acme", Start::Now).expect("it is made"));
    queue.on_more(Arc::new(|| panic!("a bug of its owner")));
    let woken = Arc::new(AtomicUsize::new(0));
    let theirs = Arc::clone(&woken);
    neighbour.on_more(Arc::new(move || {
        theirs.fetch_add(1, Ordering::SeqCst);
    }));
    append(&queues, "acme", 1);
    append(&queues, "acme", 1);
    assert_eq!(woken.load(Ordering::SeqCst), 2);
    assert_eq!(next(&queue, 10).offsets, 0..2);
}

#[test]
fn a_queue_may_be_made_before_its_stream_and_is_woken_by_the_first_record() {
    let disk = mem();
    let queues = open(&disk);
    let queue = hook(&queues);
    let woken = Arc::new(AtomicUsize::new(0));
    let theirs = Arc::clone(&woken);
    queue.on_more(Arc::new(move || {
        theirs.fetch_add(1, Ordering::SeqCst);
    }));
    assert!(!queue.has_more() && queue.ready_in_memory(1));
    append(&queues, "other", 1);
    assert_eq!(woken.load(Ordering::SeqCst), 0);
    append(&queues, "acme", 5);
    assert_eq!(woken.load(Ordering::SeqCst), 1);
    let batch = next(&queue, 9);
    assert_eq!(batch.offsets, 0..5);
    queue.release(&batch);
    assert_eq!(woken.load(Ordering::SeqCst), 2);
    queue.release(&batch);
    assert_eq!(woken.load(Ordering::SeqCst), 2, "given back once");
}

#[test]
fn a_queue_that_is_deleted_is_woken_no_more_and_its_neighbour_is() {
    let queues = open(&mem());
    let woken: [Arc<AtomicUsize>; 2] = Default::default();
    for (destination, woken) in ["hook", "other"].into_iter().zip(&woken) {
        let woken = Arc::clone(woken);
        let queue = queues.queue(destination, "acme", Start::Now).expect("it is made");
        queue.on_more(Arc::new(move || _ = woken.fetch_add(1, Ordering::SeqCst)));
    }
    append(&queues, "acme", 1);
    queues.delete("hook", None).expect("memory writes");
    append(&queues, "acme", 1);
    let late = queues.queue("late", "acme", Start::Now).expect("it is made"); // its number is looked up anew
    append(&queues, "acme", 1);
    assert_eq!((woken.map(|woken| woken.load(Ordering::SeqCst)), late.lag().records), ([1, 3], 1));
}

#[test]
fn a_place_that_becomes_free_wakes_whoever_found_none() {
    let queues = open(&mem());
    let queue = hook(&queues);
    append(&queues, "acme", 1_000);
    let mut out: Vec<Batch> = Vec::new();
    while queue.has_more() {
        out.push(next(&queue, 2));
    }
    assert_eq!(out.len(), crate::queue::limits::PLACES, "the last places are kept");
    let woken = Arc::new(AtomicUsize::new(0));
    let theirs = Arc::clone(&woken);
    queue.on_more(Arc::new(move || {
        theirs.fetch_add(1, Ordering::SeqCst);
    }));
    queue.settle(&out[0], Settled::Delivered);
    assert!(woken.load(Ordering::SeqCst) == 1 && queue.has_more());
    queue.settle(&out[1], Settled::Delivered);
    assert_eq!(woken.load(Ordering::SeqCst), 1, "there was a place before the second");
}

/// Does something once while it is given cursors: a tick is in its midst then.
struct Acting(Arc<Mutex<Option<Act>>>);

type Act = Box<dyn FnOnce() + Send>;

impl CursorStore for Acting {
    fn load(&mut self) -> Result<Vec<KeyValue>, StoreError> {
        Ok(Vec::new())
    }

    fn store(&mut self, _: &[KeyValue]) -> Result<(), StoreError> {
        let act = lock(&self.0).take();
        act.into_iter().for_each(|act| act());
        Ok(())
    }
}

/// The commit that makes its number durable meets a replay that was cancelled and moved meanwhile, and ends it.
#[test]
fn a_replay_that_is_cancelled_while_it_goes_on_ends_once() {
    let acts = Arc::new(Mutex::new(None));
    let theirs = Arc::clone(&acts);
    let store = StoreChoice::Other(Arc::new(move || Ok(Box::new(Acting(Arc::clone(&theirs))))));
    let options = QueueOptions { store, ..QueueOptions::inline() };
    let queues = open_with(&mem(), &ManualClock::at(1_000_000), options);
    let queue = hook(&queues);
    append(&queues, "acme", 10);
    queue.settle(&next(&queue, 10), Settled::Delivered);
    let request = ReplayRequest { from: ReplayFrom::Earliest, to: None, mode: ReplayMode::Fill };
    let replay = queues.replay("hook", "acme", request).expect("ten are settled");
    let woken = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&woken);
    replay.on_more(Arc::new(move || _ = count.fetch_add(1, Ordering::SeqCst)));
    replay.settle_range(0..4, Settled::Delivered);
    let goes_on = replay.clone();
    *lock(&acts) = Some(Box::new(move || _ = goes_on.settle_range(4..6, Settled::Delivered)));
    let balance = queues.cancel_replay("hook", "acme").expect("memory writes").expect("it was under way");
    assert!(lock(&acts).is_none(), "it went on in the midst of it");
    assert_eq!((balance.delivered.records, queue.replayed().delivered.records), (6, 6));
    assert_eq!((queue.replayed().replays, queues.replays().len(), woken.load(Ordering::SeqCst)), (1, 0, 1));
}
