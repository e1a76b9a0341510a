//! Who is woken by what comes, and who is not. Counted: how often a source is asked whether it has more.

use super::*;

/// A queue that counts how often it is looked at.
#[derive(Clone, Default)]
struct Watched {
    script: Script,
    looks: Arc<AtomicUsize>,
}

impl Watched {
    fn looks(&self) -> usize {
        self.looks.swap(0, Ordering::SeqCst)
    }
}

impl Source for Watched {
    fn has_more(&self) -> bool {
        self.looks.fetch_add(1, Ordering::SeqCst);
        self.script.has_more()
    }

    fn fills(&self, limits: Limits) -> bool {
        self.script.fills(limits)
    }

    fn in_memory(&self, _: Limits) -> bool {
        true
    }

    fn next(&self, limits: Limits) -> Result<Option<Claimed>, BoxError> {
        self.script.next(limits)
    }

    fn next_large(
        &self,
        limits: Limits,
        partition_ms: Option<u64>,
        heavy: &Heavy,
    ) -> Result<Option<Claimed<LargeJob>>, BoxError> {
        self.script.next_large(limits, partition_ms, heavy)
    }

    fn waiting(&self) -> Result<Waiting, BoxError> {
        self.script.waiting()
    }

    fn on_more(&self, wake: Arc<dyn Fn() + Send + Sync>) {
        self.script.on_more(wake);
    }
}

fn watched(delivery: &Delivery, id: usize, receiver: Receiver) -> Watched {
    let watched = Watched::default();
    let source = Arc::new(watched.clone());
    delivery.start(id.to_string(), Arc::new(receiver), vec![source], settings()).unwrap();
    watched
}

/// A clock that counts how often it is asked: a worker that is awake says what it does, and since when.
#[derive(Default)]
struct Asked(AtomicUsize);

impl Clock for Asked {
    fn monotonic(&self) -> Duration {
        Duration::ZERO
    }

    fn wall_ms(&self) -> u64 {
        self.0.fetch_add(1, Ordering::SeqCst);
        0
    }
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_its_answers_is_not_woken_by_what_comes() {
    let clock = Arc::new(Asked::default());
    let budget = Budget::new(BudgetLimits::default());
    let delivery = delivering(budget, Arc::clone(&clock) as Arc<dyn Clock>, Arc::new(NoParking));
    let queue = watched(&delivery, 0, receiver(|_| Answer::After(HOUR, Outcome::Delivered)));
    queue.script.append(10);
    sleep(SECOND).await;
    clock.0.store(0, Ordering::SeqCst);
    for _ in 0..1000 {
        queue.script.append(1);
        tokio::task::yield_now().await;
    }
    sleep(SECOND).await;
    let awake = clock.0.load(Ordering::SeqCst);
    assert!(awake < 10, "awake {awake} times for a thousand appends that it could do nothing with");
    sleep(HOUR * 400).await;
    assert_eq!(queue.script.settled(), 1010, "found when the answers came");
}

#[tokio::test(start_paused = true)]
async fn who_backs_off_is_not_woken_by_what_comes() {
    let delivery = delivery();
    let answer = |n: usize| at_once(if n == 0 { throttled(Some(HOUR)) } else { Outcome::Delivered });
    let queue = watched(&delivery, 0, receiver(answer));
    queue.script.append(10);
    sleep(SECOND).await;
    queue.looks();
    for _ in 0..1000 {
        queue.script.append(1);
        tokio::task::yield_now().await;
    }
    sleep(SECOND).await;
    let looks = queue.looks();
    assert!(looks < 10, "{looks} looks for a thousand appends that it could do nothing with");
    sleep(HOUR * 2).await;
    assert_eq!(queue.script.settled(), 1010);
}

#[tokio::test(start_paused = true)]
async fn of_ten_thousand_at_rest_only_the_one_that_has_something_is_woken() {
    let delivery = delivery();
    let queues: Vec<Watched> =
        (0..10_000).map(|id| watched(&delivery, id, receiver(|_| at_once(Outcome::Delivered)))).collect();
    sleep(SECOND).await;
    queues.iter().for_each(|queue| assert!(queue.looks() > 0, "asked at the start"));
    sleep(HOUR).await;
    queues[77].script.append(1);
    sleep(SECOND).await;
    assert_eq!(queues[77].script.settled(), 1);
    let woken: Vec<usize> = (0..10_000).filter(|id| queues[*id].looks() > 0).collect();
    assert_eq!(woken, [77]);
}

/// News that come at any moment are never lost: while a batch is made ready, while its answer is on its way, when it has
/// come, when the worker goes to rest.
#[tokio::test(start_paused = true)]
async fn whenever_records_come_they_are_sent() {
    let delivery = delivery();
    let queue =
        watched(&delivery, 0, receiver(|n| Answer::After(Duration::from_millis(n as u64 % 5), Outcome::Delivered)));
    queue.script.with(|state| state.plan_delay = Duration::from_millis(1));
    for n in 0..2000u64 {
        queue.script.append(1);
        sleep(Duration::from_micros(n * 7 % 12_000)).await;
    }
    sleep(SECOND).await;
    assert_eq!(queue.script.settled(), 2000);
}

/// Before: who was started read its backlog on the cores that thousands of others were still to be started on.
#[tokio::test(start_paused = true)]
async fn nobody_begins_before_all_are_started_and_then_everybody_does_with_what_came() {
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let delivery = delivery();
    delivery.hold_back();
    let taking = || receiver(|_| at_once(Outcome::Delivered));
    let (behind, paused, later) = (Script::with_records(7), Script::with_records(7), Script::with_records(0));
    start(&delivery, "behind", taking(), &behind);
    start(&delivery, "paused", taking(), &paused);
    start(&delivery, "later", taking(), &later);
    assert!(delivery.pause("paused"));
    later.append(3);
    assert!(delivery.probe("behind"), "an operator changes nothing about it");
    sleep(HOUR).await;
    assert_eq!((tasks(), behind.settled(), later.settled()), (0, 0, 0), "nothing is read, nothing is sent");
    delivery.go_on();
    sleep(SECOND).await;
    assert_eq!((behind.settled(), paused.settled(), later.settled()), (7, 0, 3));
    assert!(delivery.resume("paused"));
    sleep(SECOND).await;
    assert_eq!((paused.settled(), tasks()), (7, 0));
    // From now on everything is as ever.
    let last = Script::with_records(2);
    start(&delivery, "last", taking(), &last);
    sleep(SECOND).await;
    assert_eq!(last.settled(), 2);
}

/// Before, one that hangs was delivering, without a word about the timeouts, whenever somebody looked.
#[tokio::test(start_paused = true)]
async fn a_try_after_a_failure_is_not_called_a_delivery() {
    let (delivery, queue) = (delivery(), Script::with_records(10));
    let hung = receiver(|n| if n < 2 { Answer::Hang } else { at_once(Outcome::Delivered) });
    let _receiver = start(&delivery, "d", hung, &queue);
    let state = || delivery.stats_of("d").unwrap().state;
    sleep(SECOND).await;
    assert_eq!(state(), State::Sending, "nothing has failed");
    sleep(30 * SECOND).await;
    let snapshot = delivery.stats_of("d").unwrap();
    assert_eq!((snapshot.state, snapshot.in_flight), (State::Backoff { until_ms: 0 }, 1), "it is being tried");
    sleep(60 * SECOND).await;
    assert_eq!((state(), queue.settled()), (State::Idle, 10));
}
