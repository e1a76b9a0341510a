//! Records that are given up where they lie: what is marked, what pins, what is sent again, and that every one counts once.

use super::*;
use crate::queue::limits::MARKED_RANGES_MAX;
use proptest::prelude::*;

fn mark(queue: &Queue, bytes: u64) -> u64 {
    queue.mark_oldest(Much::Bytes(bytes)).expect("memory reads").records
}

/// In records: dead-lettered in the queue's own books, and of those waiting, delivered, purged, and letters now.
fn told(queue: &Queue) -> (u64, [u64; 4]) {
    let (balance, (_, marked)) = (queue.balance(), queue.marked());
    assert!(balance.closes() && marked.closes(), "{balance:?} {marked:?}");
    let counts = [marked.pending, marked.delivered, marked.purged, marked.dead_lettered];
    (balance.dead_lettered.records, counts.map(|count| count.records))
}

fn ticks(queues: &Queues) {
    (0..3).for_each(|_| queues.tick().expect("memory is sound"));
}

#[test]
fn only_what_nobody_ever_had_is_marked_and_the_rest_comes_as_it_was() {
    let disk = mem();
    let queues = open(&disk);
    let queue = hook(&queues);
    append(&queues, "acme", 100);
    let (first, second) = (next(&queue, 10), next(&queue, 10));
    plan(&queue, &first);
    queue.release(&first);
    assert_eq!(mark(&queue, 300), 30);
    assert_eq!((told(&queue), queue.lag().records), ((30, [30, 0, 0, 0]), 70));
    assert_eq!(queue.mark_oldest(Much::OlderThan(u64::MAX)).expect("memory reads").records, 50);
    queue.release(&second);
    ticks(&queues);
    drop((queue, queues));

    let queues = open(&disk);
    let queue = hook(&queues);
    assert_eq!((told(&queue), queue.lag().records), ((80, [80, 0, 0, 0]), 20));
    assert_eq!(queue.marked().0.iter().map(|range| range.start..range.end).collect::<Vec<_>>(), [20..50, 50..100]);
    let again = next(&queue, 3);
    assert_eq!((&again.id, &again.offsets), (&first.id, &first.offsets));
}

#[test]
fn what_is_sent_again_goes_once_under_new_ids_beside_the_live_queue() {
    let disk = mem();
    let queues = open(&disk);
    let queue = hook(&queues);
    append(&queues, "acme", 100);
    for _ in 0..2 {
        assert_eq!(mark(&queue, 200), 20);
        let batch = next(&queue, 10);
        queue.settle(&batch, Settled::Delivered);
    }
    assert_eq!(told(&queue), (40, [40, 0, 0, 0]));
    let redrive = queues.redrive("hook", "acme", 0..100).expect("memory writes").expect("marked");
    assert!(matches!(queues.redrive("hook", "acme", 0..100), Err(ReplayError::UnderWay { number: 1 })));
    assert_eq!(queues.cancel_replay("hook", "acme").expect("memory writes"), None, "there is no other place for it");
    assert_eq!((redrive.redrives(), redrive.lag().records), (Some(0..50), 40));
    assert_eq!(queue.let_marked_go(0..100, Settled::Purged).records, 0, "not while it is sent again");
    assert_eq!(mark(&queue, 100), 10, "others are marked meanwhile");
    let parts = [next(&redrive, 100), next(&redrive, 100)];
    assert_eq!(parts.iter().map(|part| part.offsets.clone()).collect::<Vec<_>>(), [0..20, 30..50]);
    redrive.settle_parts(&parts[0], &[(3..4, Settled::DeadLettered)], Settled::Delivered);
    ticks(&queues);
    plan(&redrive, &parts[1]);
    drop((queue, redrive, queues));

    let queues = open(&disk);
    let (queue, redrive) = (hook(&queues), queues.replays().pop().expect("it goes on"));
    let rest = next(&redrive, 100);
    assert_eq!((&rest.id, &rest.offsets), (&parts[1].id, &parts[1].offsets));
    assert_eq!(told(&queue), (50, [50, 0, 0, 0]), "as long as it is under way");
    redrive.settle(&rest, Settled::Delivered);
    ticks(&queues);
    assert!(queues.replays().is_empty());
    assert_eq!((told(&queue), queue.replayed().delivered.records), ((50, [10, 39, 0, 1]), 0));
    assert_eq!(queue.let_marked_go(0..100, Settled::Purged).records, 10);
    assert_eq!(told(&queue), (50, [0, 39, 10, 1]));
    ticks(&queues);
    drop((queue, redrive, queues));
    let queue = hook(&open(&disk));
    assert_eq!((told(&queue), queue.lag().records), ((50, [0, 39, 10, 1]), 30));
}

#[test]
fn the_log_keeps_what_is_marked_until_somebody_decides() {
    let disk = mem();
    let queues = open(&disk);
    let queue = hook(&queues);
    append(&queues, "acme", 10);
    assert_eq!(mark(&queue, 100), 10);
    for _ in 0..40 {
        append(&queues, "acme", 90);
        let batch = next(&queue, 90);
        queue.settle(&batch, Settled::Delivered);
    }
    let kept = |queues: &Queues| {
        ticks(queues);
        queues.log().housekeep();
        queues.log().first_kept(queues.log().stream("acme").expect("it exists"))
    };
    assert_eq!(kept(&queues), 0);
    drop((queue, queues));
    let queues = open(&disk);
    let queue = hook(&queues);
    assert_eq!((kept(&queues), queue.lag().records), (0, 0));
    let redrive = queues.redrive("hook", "acme", 0..10).expect("memory writes").expect("marked");
    assert_eq!(next(&redrive, 10).slices.len(), 1, "it is all there");
    drop(redrive);
    assert_eq!(kept(&queues), 0);
    let redrive = queues.replays().pop().expect("under way");
    redrive.settle_range(0..10, Settled::Delivered);
    assert!(kept(&queues) > 0, "and now it may go");
}

/// A batch without a plan was out between two ranges, which are sent again; a crash takes the batch back. Were it marked
/// then, the redrive would be taken for what became of it.
#[test]
fn what_lies_between_records_that_are_sent_again_stays_pending_until_that_is_over() {
    let disk = mem();
    let queues = open(&disk);
    let queue = hook(&queues);
    append(&queues, "acme", 100);
    assert_eq!(mark(&queue, 200), 20);
    let out = next(&queue, 10);
    assert_eq!(mark(&queue, 200), 20);
    ticks(&queues);
    let redrive = queues.redrive("hook", "acme", 0..100).expect("memory writes").expect("marked");
    assert_eq!((redrive.redrives(), redrive.lag().records, out.offsets), (Some(0..50), 40, 20..30));
    drop((queue, redrive, queues));

    let queues = open(&disk);
    let (queue, redrive) = (hook(&queues), queues.replays().pop().expect("it goes on"));
    assert_eq!(mark(&queue, 200), 0);
    redrive.settle_range(0..50, Settled::Delivered);
    ticks(&queues);
    assert!(queues.replays().is_empty());
    assert_eq!((told(&queue), queue.lag().records), ((40, [0, 40, 0, 0]), 60));
    assert_eq!((mark(&queue, 200), queue.lag().records), (10, 50), "and now it may be");
}

#[test]
fn a_replay_leaves_out_what_was_given_up_where_it_lies() {
    let queues = open(&mem());
    let queue = hook(&queues);
    append(&queues, "acme", 60);
    let request = ReplayRequest { from: ReplayFrom::Earliest, to: None, mode: ReplayMode::Again };
    assert_eq!(mark(&queue, 200), 20);
    assert!(matches!(queues.replay("hook", "acme", request), Err(ReplayError::Nothing { from: 0, to: 20, .. })));
    let batch = next(&queue, 10);
    queue.settle(&batch, Settled::Delivered);
    assert_eq!(mark(&queue, 100), 10);
    let batch = next(&queue, 20);
    queue.settle(&batch, Settled::Delivered);
    let request = ReplayRequest { from: ReplayFrom::Offset(5), ..request };
    let replay = queues.replay("hook", "acme", request).expect("thirty records were delivered");
    let parts = [next(&replay, 100), next(&replay, 100)];
    assert_eq!(parts.iter().map(|part| part.offsets.clone()).collect::<Vec<_>>(), [20..30, 40..60]);
    parts.iter().for_each(|part| replay.settle(part, Settled::Delivered));
    ticks(&queues);
    assert_eq!((queues.replays().len(), queue.replayed().delivered.records), (0, 30));
    assert_eq!(told(&queue), (30, [30, 0, 0, 0]));
}

#[test]
fn the_queues_that_have_marks_are_known_by_name_across_a_restart() {
    let disk = mem();
    let queues = open(&disk);
    let names =
        |queues: &Queues| queues.marking().iter().map(|queue| queue.destination().to_owned()).collect::<Vec<_>>();
    let (hook, other) = (hook(&queues), queues.queue("other", "acme", Start::Earliest).expect("it is made"));
    append(&queues, "acme", 10);
    assert_eq!(names(&queues), [""; 0]);
    mark(&other, 50);
    mark(&hook, 50);
    assert_eq!(hook.let_marked_go(0..10, Settled::Purged).records, 5);
    assert_eq!(names(&queues), ["other"]);
    let of = |destination: &str| queues.marking_of(destination).len();
    assert_eq!([of("hook"), of("nobody"), of("other"), of("zz")], [0, 0, 1, 0]);
    ticks(&queues);
    drop((hook, other, queues));
    let queues = open(&disk);
    assert_eq!(names(&queues), ["other"]);
    queues.delete("other", Some("acme")).expect("memory writes");
    assert_eq!(names(&queues), [""; 0]);
}

#[test]
fn nothing_is_marked_where_no_record_is_as_old_or_no_bytes_are_asked_for() {
    let queues = open(&mem());
    let queue = hook(&queues);
    append(&queues, "acme", 10);
    for much in [Much::Bytes(0), Much::OlderThan(1_000_000)] {
        assert_eq!(queue.mark_oldest(much).expect("memory reads"), Count::default());
    }
    assert!(queue.marked().0.is_empty() && queues.marking().is_empty());
    assert_eq!(queue.lag().records, 10);
    assert_eq!(queue.mark_oldest(Much::OlderThan(1_000_001)).expect("memory reads").records, 10);
}

#[test]
fn with_no_place_left_nothing_is_marked_and_nothing_is_lost() {
    let queues = open(&mem());
    let queue = hook(&queues);
    append(&queues, "acme", 300);
    for _ in 0..MARKED_RANGES_MAX {
        assert_eq!(mark(&queue, 10), 1);
        let batch = next(&queue, 1);
        queue.settle(&batch, Settled::Delivered);
    }
    assert_eq!(mark(&queue, 10), 0);
    assert_eq!((told(&queue).0, queue.lag().records), (64, 300 - 128));
    assert_eq!(queue.let_marked_go(0..1, Settled::Purged).records, 1);
    assert_eq!(mark(&queue, 10), 1);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// Whatever is marked, claimed, given back, delivered, sent again and let go, over however many restarts: a record is
    /// delivered once, by the live queue or by a redrive, or let go; and it counts once.
    #[test]
    fn every_record_goes_one_way(steps in prop::collection::vec((0..9u8, 1..30u64), 1..70)) {
        let disk = mem();
        let mut queues = open(&disk);
        let mut queue = hook(&queues);
        let (mut appended, mut delivered, mut purged) = (0u64, std::collections::BTreeSet::new(), 0u64);
        let mut out: Vec<(bool, Batch)> = Vec::new();
        for (what, number) in steps {
            match what {
                0 | 1 => {
                    append(&queues, "acme", number as u32);
                    appended += number;
                }
                2 => _ = mark(&queue, number * 10),
                3 | 4 => {
                    let redrive = queue.replay_under_way().filter(|_| what == 4);
                    let from = redrive.clone().unwrap_or_else(|| queue.clone());
                    out.extend(from.next_batch(of_records(number)).expect("memory reads").map(|b| (redrive.is_some(), b)));
                }
                5 => {
                    let Some((again, batch)) = (!out.is_empty()).then(|| out.swap_remove(number as usize % out.len())) else {
                        continue;
                    };
                    let from = if again { queue.replay_under_way() } else { Some(queue.clone()) };
                    let from = from.expect("it is not over while something is out");
                    if number % 4 == 0 {
                        from.release(&batch);
                        continue;
                    }
                    from.settle(&batch, Settled::Delivered);
                    for offset in batch.offsets {
                        prop_assert!(delivered.insert(offset), "{} was delivered before", offset);
                    }
                }
                6 => drop(queues.redrive("hook", "acme", number..appended)),
                7 => purged += queue.let_marked_go(number * 3..number * 6, Settled::Purged).records,
                _ => {
                    ticks(&queues);
                    if number % 3 == 0 {
                        for (again, batch) in out.drain(..) {
                            let from = if again { queue.replay_under_way() } else { Some(queue.clone()) };
                            from.expect("it is not over").release(&batch);
                        }
                        drop((queue, queues));
                        queues = open(&disk);
                        queue = hook(&queues);
                    }
                }
            }
            let (dead, [waiting, again, let_go, letters]) = told(&queue);
            prop_assert_eq!(dead, waiting + again + let_go + letters);
            prop_assert_eq!((let_go, letters), (purged, 0));
        }
        out.clear();
        // In the end all that was not let go is delivered.
        ticks(&queues);
        drop((queue, queues));
        let queues = open(&disk);
        let queue = hook(&queues);
        for _ in 0..100 {
            let redrive = queue.replay_under_way();
            for from in [Some(queue.clone()), redrive].into_iter().flatten() {
                while let Some(batch) = from.next_batch(ANY).expect("memory reads") {
                    from.settle(&batch, Settled::Delivered);
                    for offset in batch.offsets {
                        prop_assert!(delivered.insert(offset), "{} was delivered before", offset);
                    }
                }
            }
            ticks(&queues);
            if queue.replay_under_way().is_none() && queues.redrive("hook", "acme", 0..appended).expect("memory").is_none() {
                break;
            }
        }
        prop_assert_eq!(delivered.len() as u64 + purged, appended);
        let (dead, [waiting, again, ..]) = told(&queue);
        prop_assert_eq!((waiting, queue.balance().delivered.records + again + purged), (0, appended), "{}", dead);
    }
}

/// Before: `log verify` took damage to it for damage that no destination minds.
#[test]
fn what_was_given_up_where_it_lies_is_not_told_as_done_with() {
    let disk = mem();
    let queues = open(&disk);
    let queue = hook(&queues);
    append(&queues, "acme", 100);
    queue.settle_range(0..10, Settled::Delivered);
    assert_eq!(mark(&queue, 200), 20);
    queue.settle_range(30..40, Settled::Delivered);
    ticks(&queues);
    let low = || inspect_floor(Arc::clone(&disk), "data".as_ref(), None).expect("memory reads").lows["acme"];
    assert_eq!((queue.cursor().low, low()), (40, 10));
    let seen = inspect_floor(Arc::clone(&disk), "data".as_ref(), None).expect("memory reads");
    assert_eq!((seen.queues, seen.damage.len(), seen.pinned), (1, 0, false));
    queue.let_marked_go(0..100, Settled::Purged);
    ticks(&queues);
    assert_eq!(low(), 40);
}

#[test]
fn what_is_let_go_counts_as_what_it_is_let_go_for() {
    use Settled::{DeadLettered, Delivered, Expired, Filtered, Held, Lost, Purged};
    for (nth, as_) in [Delivered, Filtered, Expired, Lost, Purged, DeadLettered].into_iter().chain([Held]).enumerate() {
        let queues = open(&mem());
        let queue = hook(&queues);
        append(&queues, "acme", 10);
        assert_eq!((mark(&queue, 50), queue.let_marked_go(0..10, as_).records), (5, 5));
        let books = queue.marked().1;
        let kinds = [books.delivered, books.filtered, books.expired, books.lost, books.purged, books.dead_lettered];
        let counts = kinds.map(|count| count.records);
        let expected = std::array::from_fn(|kind| if kind == nth.min(5) { 5 } else { 0 });
        assert_eq!((counts, books.pending.records), (expected, 0), "{as_:?}");
    }
}
