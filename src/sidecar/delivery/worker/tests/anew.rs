//! A destination whose loop panics.

use super::super::anew::ANEW_AFTER;
use super::*;
use crate::delivery::stats::CLASSES;

pub(super) fn panics(snapshot: &crate::delivery::stats::Snapshot) -> u64 {
    snapshot.failures[CLASSES.iter().position(|class| *class == "panic").unwrap()]
}

/// Its task was gone, nothing said so, and nothing but a new start of the process sent a record of it again.
#[tokio::test(start_paused = true)]
async fn a_destination_whose_loop_panics_is_begun_anew_and_loses_nothing() {
    let queue = Script::with_records(40);
    let delivery = delivery();
    let sink = Receiver { loop_panics: AtomicU64::new(2), ..receiver(|_| at_once(Outcome::Delivered)) };
    let receiver = start(&delivery, "d", sink, &queue);
    sleep(SECOND).await;
    let snapshot = delivery.stats_of("d").unwrap();
    assert_eq!((panics(&snapshot), queue.settled()), (1, 0));
    assert!(matches!(snapshot.state, State::Backoff { until_ms } if until_ms > 1_000_000), "{:?}", snapshot.state);
    let said = snapshot.last_error.unwrap();
    assert!(said.contains("panicked") && said.contains("told to panic in the loop"), "{said}");
    sleep(ANEW_AFTER * 3).await;
    let snapshot = delivery.stats_of("d").unwrap();
    assert_eq!((panics(&snapshot), queue.settled(), snapshot.state), (2, 40, State::Idle));
    let mut by_id = BTreeMap::new();
    for sent in receiver.sent() {
        let before = by_id.insert(sent.id.clone(), sent.offsets.clone());
        assert!(before.is_none_or(|before| before == sent.offsets), "one id, one batch");
    }
    queue.append(10);
    sleep(SECOND).await;
    assert_eq!(queue.settled(), 50, "it is woken as before");
}

#[tokio::test(start_paused = true)]
async fn one_that_panics_for_ever_is_tried_once_a_minute_beside_the_others_and_can_be_stopped() {
    let (bad, good) = (Script::with_records(10), Script::with_records(0));
    let delivery = delivery();
    let sink = Receiver { loop_panics: AtomicU64::new(u64::MAX), ..receiver(|_| at_once(Outcome::Delivered)) };
    let bad_receiver = start(&delivery, "bad", sink, &bad);
    start(&delivery, "good", receiver(|_| at_once(Outcome::Delivered)), &good);
    for _ in 0..60 {
        good.append(10);
        sleep(ANEW_AFTER).await;
        bad.append(1);
    }
    assert_eq!((good.settled(), bad.settled()), (600, 0));
    let asked = bad_receiver.sent().len();
    assert!((55..=62).contains(&asked), "{asked} requests in an hour");
    assert!(delivery.probe("bad"));
    sleep(SECOND).await;
    assert_eq!(bad_receiver.sent().len(), asked + 1, "an operator need not wait");
    assert!(delivery.pause("bad"));
    sleep(SECOND).await;
    assert_eq!(delivery.stats_of("bad").unwrap().state, State::Paused);
    assert!(delivery.resume("bad"));
    sleep(SECOND).await;
    let began = Instant::now();
    assert_eq!(delivery.stop("bad", HOUR).await.map(|stopped| stopped.cut_off), Some(false));
    assert!(began.elapsed() < SECOND, "it waits for nobody");
    assert_eq!(bad.claim(Limits { records_max: 100, bytes_max: 100 }), Some(0..10), "and has handed back what it had");
}
