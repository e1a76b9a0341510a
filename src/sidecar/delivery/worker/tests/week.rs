//! A week in which one destination is dead, beside seven that are well and want the whole budget for a while each day: they
//! get what they get in the same week without it, all together and who gets least, and what waited for it arrives when it is
//! there again. Of the seven, which are equals, none has much less than another. Counted, not timed.

use super::drawer::Drawer;
use super::*;

const WELL: usize = 7;
const DAYS: u32 = 7;
const DAY: Duration = Duration::from_secs(24 * 3600);
/// Half of what the seven may have at once.
const REQUESTS_MAX: usize = 14;
/// Each day begins with more records than the budget can carry in this time, from when on requests are answered at once.
const RUSH: Duration = Duration::from_secs(100);
const RUSH_ENDS: Duration = Duration::from_secs(15 * 60);
const RUSH_RECORDS: u64 = 800;
/// After that some come in every so often.
const CALM: Duration = HOUR;

/// What the seven got.
#[derive(Debug, PartialEq, Eq)]
struct Week {
    /// Of each: records that it had taken by the end of each day's rush.
    rushes: Vec<u64>,
    /// How long a record waited, at the latest, that did not come in a rush.
    longest: Duration,
    /// What the dead one was asked while it was dead.
    probes: usize,
}

/// How far the day is.
fn time_of_day(at: Duration) -> Duration {
    Duration::from_millis((at.as_millis() % DAY.as_millis()) as u64)
}

fn well() -> Receiver {
    let began = Instant::now();
    receiver(move |_| {
        let rush = time_of_day(began.elapsed()) < RUSH_ENDS;
        Answer::After(if rush { SECOND * 5 } else { Duration::from_millis(100) }, Outcome::Delivered)
    })
}

/// It hangs for a day, nobody listens for one, it asks to wait for an hour for one, and so on; after a week it is there again.
fn dead() -> Receiver {
    let began = Instant::now();
    receiver(move |_| match began.elapsed().as_secs() / DAY.as_secs() {
        day if day >= u64::from(DAYS) => at_once(Outcome::Delivered),
        day if day % 3 == 0 => Answer::Hang,
        day if day % 3 == 1 => at_once(Outcome::Retry { why: Failure::Connect("refused".to_owned()) }),
        _ => at_once(throttled(Some(HOUR))),
    })
}

/// How long the record waited that waited longest, of those that came in a calm time.
fn longest_wait(queue: &Script, receiver: &Receiver) -> Duration {
    let came = queue.with(|state| state.appended.clone());
    let wait = |(offset, at): (u64, Duration)| {
        let (_, appended) = came[came.partition_point(|(first, _)| *first <= offset) - 1];
        let appended = appended - receiver.began;
        (time_of_day(appended) >= RUSH_ENDS).then(|| at - appended)
    };
    let sent =
        receiver.sent().into_iter().flat_map(|sent| sent.records.into_iter().map(move |offset| (offset, sent.at)));
    sent.filter_map(wait).max().unwrap()
}

async fn week(with_a_dead_one: bool) -> Week {
    let budget = Budget::new(BudgetLimits { requests_max: REQUESTS_MAX, ..BudgetLimits::default() });
    let clock = Arc::new(ManualClock::at(1_000_000));
    let delivery = Delivery::beginning_with(budget, clock, Arc::new(Drawer::default()), Some(1));
    let place = |nth: usize| {
        let queue = Script::of_stream(nth as u32, 0);
        let receiver = start(&delivery, &nth.to_string(), if nth < WELL { well() } else { dead() }, &queue);
        (queue, receiver)
    };
    let places: Vec<_> = (0..WELL + usize::from(with_a_dead_one)).map(place).collect();
    let (began, mut rushes) = (Instant::now(), vec![0; WELL]);
    for day in 0..DAYS {
        let before: Vec<u64> = places.iter().map(|(queue, _)| queue.settled()).collect();
        places.iter().for_each(|(queue, _)| queue.append(RUSH_RECORDS));
        sleep(RUSH).await;
        for (nth, taken) in rushes.iter_mut().enumerate() {
            let now = places[nth].0.settled() - before[nth];
            assert!(now < RUSH_RECORDS, "{now}: it wants more than there is");
            *taken += now;
        }
        while began.elapsed() + CALM < DAY * (day + 1) {
            sleep(CALM).await;
            places.iter().for_each(|(queue, _)| queue.append(3));
        }
        tokio::time::sleep_until(began + DAY * (day + 1)).await;
    }
    let probes = places.get(WELL).map_or(0, |(queue, dead)| {
        assert_eq!(queue.settled(), 0, "it took nothing, and nothing was given up");
        dead.sent().len()
    });
    sleep(HOUR).await;
    for (nth, (queue, receiver)) in places.iter().enumerate() {
        let (tail, sent) =
            (queue.with(|state| state.tail), receiver.sent().split_off(if nth < WELL { 0 } else { probes }));
        assert_eq!(queue.settled(), tail, "{nth}");
        let ids: BTreeSet<_> = sent.iter().map(|sent| &sent.id).collect();
        let records: u64 = sent.iter().map(|sent| sent.records.len() as u64).sum();
        assert_eq!((ids.len(), records), (sent.len(), tail), "{nth}: each batch once");
    }
    delivery.shutdown(SECOND).await;
    let longest = places[..WELL].iter().map(|(queue, receiver)| longest_wait(queue, receiver)).max().unwrap();
    Week { rushes, longest, probes }
}

#[tokio::test(start_paused = true)]
async fn a_destination_that_is_dead_for_a_week_costs_the_others_less_than_one_request_in_twenty() {
    let (without, with) = (week(false).await, week(true).await);
    println!("without: {without:?}\nwith: {with:?}");
    assert_eq!(with.longest, without.longest, "in calm times nobody waits for it");
    for Week { rushes, .. } in [&without, &with] {
        let (sum, least) = (rushes.iter().sum::<u64>(), *rushes.iter().min().unwrap());
        assert!(least * WELL as u64 * 100 >= sum * 97, "{rushes:?}: of equals each has nearly the mean");
    }
    let got = |week: &Week| [week.rushes.iter().sum::<u64>(), *week.rushes.iter().min().unwrap()];
    for (with, without) in got(&with).into_iter().zip(got(&without)) {
        assert!(with * 100 >= without * 95, "{with} of {without}");
    }
    assert!(with.probes > 1_000, "{} probes: it was asked all the time", with.probes);
}
