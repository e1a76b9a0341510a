//! News that come while a queue is being looked at, which finds nothing: what has arrived is not left for later, whatever else
//! happens meanwhile.

use super::*;

/// Once it is armed it hands out a batch, and then finds nothing for once, while records arrive.
struct Passed {
    script: Script,
    state: Arc<AtomicUsize>,
    /// Has the loop go round once, as an answer that comes in does.
    nudge: Mutex<Option<Box<dyn Fn() + Send>>>,
}

const THROUGH: usize = 0;
const ARMED: usize = 1;
const EMPTY_NEXT: usize = 2;

impl Source for Passed {
    fn has_more(&self) -> bool {
        self.state.load(Ordering::SeqCst) == EMPTY_NEXT || self.script.has_more()
    }

    fn in_memory(&self, _: Limits) -> bool {
        false
    }

    fn next(&self, limits: Limits) -> Result<Option<Claimed>, BoxError> {
        match self.state.load(Ordering::SeqCst) {
            EMPTY_NEXT => {}
            state => {
                self.state.store(if state == ARMED { EMPTY_NEXT } else { THROUGH }, Ordering::SeqCst);
                return self.script.next(limits);
            }
        }
        self.state.store(THROUGH, Ordering::SeqCst);
        self.script.append(10);
        self.nudge.lock().unwrap().as_ref().inspect(|nudge| nudge());
        // On a thread of its own: long enough for the loop to hear of it before it hears from here.
        std::thread::sleep(Duration::from_millis(100));
        Ok(None)
    }

    fn next_large(&self, _: Limits, _: Option<u64>, _: &Heavy) -> Result<Option<Claimed<LargeJob>>, BoxError> {
        Ok(None)
    }

    fn waiting(&self) -> Result<Waiting, BoxError> {
        self.script.waiting()
    }

    fn on_more(&self, wake: Arc<dyn Fn() + Send + Sync>) {
        self.script.on_more(wake);
    }
}

#[tokio::test(start_paused = true)]
async fn what_arrives_while_nothing_is_found_does_not_wait_for_the_next_answer() {
    let (delivery, script) = (Arc::new(delivery()), Script::default());
    let (state, slow) = (Arc::new(AtomicUsize::new(THROUGH)), Arc::new(AtomicUsize::new(0)));
    let queue = Arc::new(Passed { script: script.clone(), state: Arc::clone(&state), nudge: Mutex::default() });
    let nudged = Arc::clone(&delivery);
    *queue.nudge.lock().unwrap() = Some(Box::new(move || assert!(nudged.resume("d"))));
    let theirs = Arc::clone(&slow);
    let receiver = Arc::new(receiver(move |_| {
        let hours = theirs.swap(0, Ordering::SeqCst) as u32;
        Answer::After(Duration::from_millis(100) + HOUR * hours, Outcome::Delivered)
    }));
    let settings = Settings { timeout: 2 * HOUR, ..settings() };
    delivery.start("d", Arc::clone(&receiver) as Arc<dyn Sink>, vec![queue], settings).unwrap();
    // Until two requests may be under way.
    while receiver.in_flight_max.load(Ordering::SeqCst) < 2 {
        script.append(10);
        sleep(Duration::from_millis(1)).await;
    }
    sleep(HOUR).await;
    let (before, from) = (receiver.sent().len(), Instant::now() - receiver.began);
    slow.store(1, Ordering::SeqCst);
    state.store(ARMED, Ordering::SeqCst);
    script.append(10);
    while receiver.sent().len() < before + 2 {
        sleep(SECOND).await;
    }
    let at: Vec<Duration> = receiver.sent()[before..].iter().map(|sent| sent.at - from).collect();
    assert!(at[1] < HOUR, "{at:?}");
}
