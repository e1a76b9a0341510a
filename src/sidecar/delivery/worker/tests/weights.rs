//! Who gets how much where there is not enough for all, and what a weight that an operator changes makes of it.

use super::*;

const A_WHILE: Duration = Duration::from_secs(120);
const DESTINATIONS: [&str; 3] = ["first", "second", "third"];

/// Always more to send than it may, of receivers that take about a second for each request.
fn begin(delivery: &Delivery, id: &str, queue: &Script, weight: u32) {
    let settings = Settings { weight, concurrency_max: 32, ..settings() };
    let slow = |n: usize| Answer::After(Duration::from_millis(700 + (n as u64 * 137) % 600), Outcome::Delivered);
    let slow = Arc::new(receiver(slow));
    delivery.start(id, slow, vec![Arc::new(queue.clone())], settings).unwrap();
}

#[tokio::test(start_paused = true)]
async fn another_weight_counts_from_then_on_and_nothing_is_lost_or_doubled_by_it() {
    const RECORDS: u64 = 60_000;
    let delivery = delivery_with(BudgetLimits { requests_max: 16, ..BudgetLimits::default() });
    let queues = DESTINATIONS.map(|_| Script::with_records(RECORDS));
    for (id, queue) in DESTINATIONS.iter().zip(&queues) {
        begin(&delivery, id, queue, 1);
    }
    let parts = async || {
        let before = queues.each_ref().map(Script::settled);
        sleep(A_WHILE).await;
        let after = queues.each_ref().map(Script::settled);
        let got: Vec<f64> = after.iter().zip(before).map(|(after, before)| (after - before) as f64).collect();
        let all: f64 = got.iter().sum();
        got.into_iter().map(|got| got / all).collect::<Vec<f64>>()
    };
    parts().await;
    let alike = parts().await;
    assert!(alike.iter().all(|part| (0.30..0.37).contains(part)), "a third each: {alike:?}");

    // As where the configuration is read anew: it ends in good order, and another takes its place.
    let stopped = delivery.stop("first", A_WHILE).await.unwrap();
    assert!(!stopped.cut_off);
    begin(&delivery, "first", &queues[0], 4);
    parts().await;
    let weighed = parts().await;
    assert!((0.60..0.70).contains(&weighed[0]), "four of six: {weighed:?}");
    assert!(weighed[1..].iter().all(|part| (0.14..0.20).contains(part)), "one of six each: {weighed:?}");

    sleep(5 * HOUR).await;
    assert!(queues.iter().all(|queue| queue.settled() == RECORDS));
}
