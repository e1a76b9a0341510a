//! Destinations that are stopped or paused: what is in flight lands or goes back, and nothing is started.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_shutdown_starts_nothing_and_lets_what_flies_land() {
    let (delivery, queue) = (delivery(), Script::with_records(1000));
    let receiver = start(&delivery, "d", receiver(|_| Answer::After(SECOND * 5, Outcome::Delivered)), &queue);
    sleep(SECOND).await;
    let cut_off = delivery.shutdown(Duration::from_secs(20)).await;
    assert!(cut_off.is_empty());
    assert_eq!((receiver.sent().len(), queue.settled()), (1, 10));
}

#[tokio::test(start_paused = true)]
async fn what_does_not_land_within_the_grace_goes_back_unsettled() {
    let (delivery, queue) = (delivery(), Script::with_records(10));
    let healthy_queue = Script::with_records(10);
    start(&delivery, "hung", receiver(|_| Answer::Hang), &queue);
    start(&delivery, "healthy", receiver(|_| at_once(Outcome::Delivered)), &healthy_queue);
    sleep(SECOND).await;
    let began = Instant::now();
    let cut_off = delivery.shutdown(Duration::from_secs(2)).await;
    assert_eq!(cut_off.iter().map(|id| &**id).collect::<Vec<_>>(), ["hung"]);
    assert_eq!((Instant::now() - began).as_secs(), 2);
    sleep(SECOND).await;
    assert_eq!(queue.with(|state| state.returned.clone()), vec![0..10]);
    assert_eq!(healthy_queue.settled(), 10);
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_does_not_wait_for_a_backoff() {
    let (delivery, queue) = (delivery(), Script::with_records(10));
    start(&delivery, "d", receiver(|_| at_once(throttled(Some(HOUR)))), &queue);
    sleep(SECOND).await;
    let began = Instant::now();
    assert!(delivery.shutdown(Duration::from_secs(20)).await.is_empty());
    assert!(Instant::now() - began < SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_paused_destination_finishes_what_is_in_flight_and_starts_nothing() {
    let (delivery, queue) = (delivery(), Script::with_records(100));
    let receiver = start(&delivery, "d", receiver(|_| Answer::After(SECOND, Outcome::Delivered)), &queue);
    sleep(SECOND / 2).await;
    let in_flight = receiver.sent().len();
    assert!(in_flight > 0 && delivery.pause("d"));
    sleep(HOUR).await;
    queue.append(10);
    sleep(HOUR).await;
    assert_eq!((receiver.sent().len(), queue.settled()), (in_flight, in_flight as u64 * 10));
    assert_eq!(delivery.stats_of("d").unwrap().state, State::Paused);
    assert_eq!(tokio::runtime::Handle::current().metrics().num_alive_tasks(), 0, "it rests");
    assert!(delivery.resume("d"));
    sleep(HOUR).await;
    assert_eq!((queue.settled(), delivery.stats_of("d").unwrap().state), (110, State::Idle));
    assert!(!delivery.pause("nobody") && !delivery.resume("nobody"));
}

#[tokio::test(start_paused = true)]
async fn one_that_begins_paused_or_is_paused_while_it_backs_off_sends_nothing() {
    let (delivery, queue) = (delivery(), Script::with_records(10));
    let first = Arc::new(receiver(|_| at_once(refused())));
    delivery.start_paused("d", Arc::clone(&first) as Arc<dyn Sink>, vec![Arc::new(queue.clone())], settings()).unwrap();
    queue.append(10);
    sleep(HOUR).await;
    assert_eq!((first.sent().len(), delivery.stats_of("d").unwrap().state), (0, State::Paused));
    delivery.resume("d");
    sleep(HOUR).await;
    delivery.pause("d");
    sleep(SECOND).await;
    let sent = first.sent().len();
    sleep(HOUR * 24).await;
    assert_eq!((first.sent().len(), delivery.stats_of("d").unwrap().state), (sent, State::Paused));
    assert!(sent > 0 && delivery.shutdown(SECOND).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_stopped_destination_hands_everything_back_and_another_takes_its_place() {
    let (delivery, queue) = (delivery(), Script::with_records(100));
    let hanging = start(&delivery, "d", receiver(|_| Answer::Hang), &queue);
    let (other, other_queue) = (receiver(|_| at_once(Outcome::Delivered)), Script::with_records(10));
    start(&delivery, "other", other, &other_queue);
    sleep(SECOND).await;
    let ids = |receiver: &Receiver| receiver.sent().into_iter().map(|sent| sent.id).collect::<BTreeSet<_>>();
    let cut_off = ids(&hanging);
    assert_eq!(delivery.stop("d", SECOND).await, Some(crate::delivery::Stopped { cut_off: true }));
    assert_eq!((delivery.stop("d", SECOND).await, delivery.stats_of("d")), (None, None));
    let next = start(&delivery, "d", receiver(|_| at_once(Outcome::Delivered)), &queue);
    sleep(HOUR).await;
    assert_eq!((queue.settled(), other_queue.settled()), (100, 10));
    assert!(ids(&next).is_superset(&cut_off), "what was cut off comes again under its own id");
    assert_eq!(next.sent().len(), 10, "each batch once");
    assert_eq!(delivery.stop("other", SECOND).await, Some(crate::delivery::Stopped { cut_off: false }));
}

/// Somebody replaces a destination while the process stops. Before, its new loop went on while the log was being closed.
#[tokio::test(start_paused = true)]
async fn what_is_started_after_a_shutdown_sends_nothing() {
    let (delivery, queue) = (delivery(), Script::with_records(10));
    assert!(delivery.shutdown(SECOND).await.is_empty());
    let receiver = start(&delivery, "d", receiver(|_| at_once(Outcome::Delivered)), &queue);
    queue.append(10);
    delivery.resume("d");
    delivery.probe("d");
    sleep(HOUR).await;
    assert_eq!((receiver.sent().len(), queue.settled()), (0, 0));
    assert_eq!(delivery.stats_of("d").unwrap().state, State::Stopped);
    assert_eq!(tokio::runtime::Handle::current().metrics().num_alive_tasks(), 0);
}

/// Whoever stopped it was gone before its grace was over. Before, the next one found nothing to wait for: a loop that was
/// started then sent beside what was in flight still, and a shutdown closed the log under it.
#[tokio::test(start_paused = true)]
async fn a_stop_that_nobody_waits_for_any_more_is_the_next_ones_to_wait_for() {
    for shut_down in [false, true] {
        let (delivery, queue) = (delivery(), Script::with_records(10));
        start(&delivery, "d", receiver(|_| Answer::Hang), &queue);
        sleep(SECOND).await;
        assert!(delivery.runs("d"));
        assert!(tokio::time::timeout(SECOND, delivery.stop("d", HOUR)).await.is_err());
        assert!(!delivery.runs("d"));
        assert_eq!(queue.with(|state| state.returned.len()), 0, "it is in flight");
        if shut_down {
            assert_eq!(delivery.shutdown(SECOND).await.len(), 1);
            continue;
        }
        assert_eq!(delivery.stop("d", SECOND).await, Some(crate::delivery::Stopped { cut_off: true }));
        assert_eq!(queue.with(|state| state.returned.clone()), vec![0..10]);
    }
}
