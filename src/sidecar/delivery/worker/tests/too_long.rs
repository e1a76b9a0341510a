//! Batches that come to far more than they are as stored are split before they are encoded.

use super::*;

const MIB: u64 = 1 << 20;

/// The longest that a batch of these tests may be encoded to: 1 MiB as stored, by four, twice over.
const LONGEST: u64 = 8 * MIB;

#[tokio::test(start_paused = true)]
async fn a_batch_that_comes_to_more_than_it_may_is_sent_in_pieces_that_do_not() {
    // What takes 9 MiB alone is sent alone, and by itself.
    for record_bytes in [MIB / 2, 2 * MIB, 9 * MIB] {
        let queue = Script::with_records(35);
        let delivery = delivery();
        let sink = Receiver { record_bytes, ..receiver(|_| at_once(Outcome::Delivered)) };
        let receiver = start(&delivery, "d", sink, &queue);
        sleep(HOUR).await;
        assert_eq!(queue.settled(), 35);
        let sent = receiver.sent();
        let most = sent.iter().map(|sent| sent.records.len() as u64).max().unwrap();
        assert!(most == 1 || most * record_bytes <= LONGEST, "{most} records of {record_bytes} bytes");
        assert!(record_bytes > MIB || sent.len() == 4, "{} requests: nothing is split that need not be", sent.len());
        let mut records: Vec<u64> = sent.iter().flat_map(|sent| sent.records.clone()).collect();
        records.sort_unstable();
        assert_eq!(records, (0..35).collect::<Vec<_>>(), "each once");
        let snapshot = delivery.stats_of("d").unwrap();
        assert_eq!((snapshot.state, snapshot.failures.iter().sum::<u64>()), (State::Idle, 0), "it did nothing wrong");
        delivery.shutdown(SECOND).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_sent_is_charged_for_what_it_comes_to() {
    let queue = Script::with_records(10);
    let clock = Arc::new(ManualClock::at(1_000_000));
    let budget = Budget::new(BudgetLimits { bytes_max: 16 * MIB, ..BudgetLimits::default() });
    let delivery = delivering(budget.clone(), clock, Arc::new(NoParking));
    let held = Arc::new(AtomicU64::new(0));
    let (seen, of) = (Arc::clone(&held), budget.clone());
    let sink = Receiver {
        record_bytes: MIB / 2,
        encoding: Some(Box::new(move || seen.store(16 * MIB - of.free_bytes(), Ordering::SeqCst))),
        ..receiver(|_| at_once(Outcome::Delivered))
    };
    start(&delivery, "d", sink, &queue);
    sleep(SECOND).await;
    assert_eq!(queue.settled(), 10);
    let held = held.load(Ordering::SeqCst);
    assert!((5 * MIB..6 * MIB).contains(&held), "{held} bytes are charged while 5 MiB are made");
}

/// Its halves would come under other ids, to one who may have the whole.
#[tokio::test(start_paused = true)]
async fn a_batch_that_may_have_been_sent_stays_whole_as_long_as_there_is_memory_for_it() {
    for (record_bytes, whole) in [(MIB / 2, true), (9 * MIB, false)] {
        let queue = Script::with_records(20);
        // As sent under settings that allowed more.
        queue.with(|state| {
            state.planned.insert(0);
            state.returned.push(0..20);
            state.next = 20;
        });
        let delivery = delivery();
        let sink = Receiver { record_bytes, ..receiver(|_| at_once(Outcome::Delivered)) };
        let receiver = start(&delivery, "d", sink, &queue);
        sleep(HOUR).await;
        let sent = receiver.sent();
        assert_eq!((queue.settled(), sent.len() == 1, &*sent[0].id == "batch-0-0-20"), (20, whole, whole));
        delivery.shutdown(SECOND).await;
    }
}
