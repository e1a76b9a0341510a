//! What an overflow policy drops: how much, and what is left to others.

use super::*;
use proptest::prelude::*;

fn expired(queue: &Queue) -> u64 {
    let balance = queue.balance();
    assert!(balance.closes(), "{balance:?}");
    balance.expired.records
}

#[test]
fn the_oldest_go_by_age_and_by_bytes_and_never_beyond_the_bound() {
    let (disk, clock) = (mem(), ManualClock::at(1_000_000));
    let queues = open_with(&disk, &clock, QueueOptions::inline());
    let queue = hook(&queues);
    for _ in 0..10 {
        append(&queues, "acme", 10);
        clock.advance(Duration::from_secs(10));
    }
    let drop = |much, below| queue.drop_oldest(much, below).expect("memory reads").records;
    assert_eq!(drop(Much::OlderThan(1_000_000), u64::MAX), 0);
    assert_eq!(drop(Much::OlderThan(1_000_001), 7), 7, "no further than what others need");
    assert_eq!(drop(Much::OlderThan(1_030_000), u64::MAX), 23);
    assert_eq!(drop(Much::Bytes(101), u64::MAX), 11, "up to one record more");
    assert_eq!(drop(Much::Bytes(0), u64::MAX), 0);
    assert_eq!((expired(&queue), queue.lag().records, queue.cursor().low), (41, 59, 41));
    let out = next(&queue, 1);
    assert_eq!(out.offsets, 41..42);
    assert_eq!(drop(Much::OlderThan(u64::MAX), u64::MAX), 58);
    assert_eq!((expired(&queue), queue.lag().records), (99, 1));
}

#[test]
fn what_was_dropped_is_durable_with_the_next_tick() {
    let disk = mem();
    let queues = open(&disk);
    let queue = hook(&queues);
    append(&queues, "acme", 10);
    (0..3).for_each(|_| queues.tick().expect("memory is sound"));
    assert_eq!(queue.drop_oldest(Much::Bytes(40), u64::MAX).expect("memory reads").records, 4);
    queues.tick().expect("memory is sound");
    drop((queue, queues));
    assert_eq!(expired(&hook(&open(&disk))), 4);
}

#[test]
fn bytes_count_what_waits_and_not_what_is_settled_between() {
    let queues = open(&mem());
    let queue = hook(&queues);
    append(&queues, "acme", 100);
    let batches: Vec<Batch> = (0..4).map(|_| next(&queue, 10)).collect();
    queue.settle(&batches[1], Settled::Delivered);
    for n in [0, 2, 3] {
        queue.release(&batches[n]);
    }
    // 100 bytes below what is settled, and 50 of the batch behind it: that stays whole.
    assert_eq!(queue.drop_oldest(Much::Bytes(150), u64::MAX).expect("memory reads").records, 10);
    assert_eq!((queue.cursor().low, next(&queue, 10).offsets), (20, 20..30));
}

#[test]
fn what_somebody_has_is_left_to_its_answer_and_what_was_given_back_goes() {
    let disk = mem();
    let queues = open(&disk);
    let queue = hook(&queues);
    append(&queues, "acme", 60);
    let (first, second, third) = (next(&queue, 10), next(&queue, 10), next(&queue, 10));
    plan(&queue, &first);
    plan(&queue, &third);
    queue.release(&second);
    assert_eq!(queue.drop_oldest(Much::OlderThan(u64::MAX), u64::MAX).expect("memory reads").records, 40);
    assert_eq!((expired(&queue), queue.lag().records, queue.lag().in_flight), (40, 20, 20));
    queue.settle(&third, Settled::Delivered);
    queue.release(&first);
    assert_eq!(next(&queue, 10).id, first.id, "under its own id");
    queue.release(&first);
    assert_eq!(queue.drop_oldest(Much::OlderThan(u64::MAX), u64::MAX).expect("memory reads").records, 10);
    queue.settle(&first, Settled::Delivered);
    assert_eq!((expired(&queue), queue.balance().delivered.records), (50, 10), "its late answer changes nothing");
    assert!(!queue.has_more());
    (0..2).for_each(|_| queues.tick().expect("memory is sound"));
    drop((queue, queues));

    let queue = hook(&open(&disk));
    assert_eq!((expired(&queue), queue.balance().delivered.records, queue.lag().records), (50, 10, 0));
    assert!(!queue.has_more(), "no plan brings it back");
}

#[test]
fn a_plan_that_a_crash_left_goes_whole_or_stays_whole() {
    let disk = mem();
    let queues = open(&disk);
    let queue = hook(&queues);
    append(&queues, "acme", 60);
    let batches: Vec<Batch> = (0..3).map(|_| next(&queue, 20)).collect();
    batches.iter().for_each(|batch| plan(&queue, batch));
    queues.tick().expect("memory is sound");
    drop((queue, queues));

    let queue = hook(&open(&disk));
    assert_eq!(queue.drop_oldest(Much::Bytes(300), u64::MAX).expect("memory reads").records, 20, "not half a batch");
    let again = next(&queue, 1);
    assert_eq!((&again.id, &again.offsets), (&batches[1].id, &batches[1].offsets));
}

/// What a plain list of records knows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Record {
    Waits,
    Out(usize),
    Back(usize),
    Settled(Settled),
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Whatever is appended, claimed, given back, delivered and dropped: a record is dropped if it is old enough, nobody has
    /// it, and its batch does not reach beyond; each counts once.
    #[test]
    fn drops_are_those_of_a_plain_list(steps in prop::collection::vec((0..6u8, 1..40u64), 1..60)) {
        let (disk, clock) = (mem(), ManualClock::at(1_000_000));
        let queues = open_with(&disk, &clock, QueueOptions::inline());
        let queue = hook(&queues);
        let (mut records, mut out): (Vec<Record>, Vec<Option<Batch>>) = (Vec::new(), Vec::new());
        for (what, number) in steps {
            match what {
                0 | 1 => {
                    append(&queues, "acme", number as u32);
                    records.resize(records.len() + number as usize, Record::Waits);
                    clock.advance(Duration::from_secs(1));
                }
                2 | 3 => {
                    let Some(batch) = queue.next_batch(of_records(number)).expect("memory reads") else { continue };
                    for at in batch.offsets.clone() {
                        prop_assert!(matches!(records[at as usize], Record::Waits | Record::Back(_)));
                        records[at as usize] = Record::Out(out.len());
                    }
                    out.push(Some(batch));
                }
                4 => {
                    let at = number as usize % out.len().max(1);
                    let Some(batch) = out.get_mut(at).and_then(Option::take) else { continue };
                    let delivered = number % 3 == 0;
                    if delivered { queue.settle(&batch, Settled::Delivered) } else { queue.release(&batch) }
                    let now = if delivered { Record::Settled(Settled::Delivered) } else { Record::Back(at) };
                    for record in &mut records[batch.offsets.start as usize..batch.offsets.end as usize] {
                        prop_assert_eq!(*record, Record::Out(at));
                        *record = now;
                    }
                }
                _ => {
                    let end = (records.len() as u64).min(number * 3);
                    // All older than the record at `end`, if frames say so: by the bound instead.
                    let gone = queue.drop_oldest(Much::OlderThan(u64::MAX), end).expect("memory reads").records;
                    let beyond = records.get(end as usize).copied();
                    let before = records.clone();
                    for record in &mut records[..end as usize] {
                        let goes = match *record {
                            Record::Waits => true,
                            back @ Record::Back(_) => Some(back) != beyond,
                            _ => false,
                        };
                        if goes {
                            *record = Record::Settled(Settled::Expired);
                        }
                    }
                    let expected = before.iter().zip(&records).filter(|(before, now)| before != now).count();
                    prop_assert_eq!(gone, expected as u64);
                }
            }
            let balance = queue.balance();
            let count = |as_| records.iter().filter(|record| **record == Record::Settled(as_)).count() as u64;
            prop_assert!(balance.closes());
            prop_assert_eq!(balance.expired.records, count(Settled::Expired));
            prop_assert_eq!(balance.delivered.records, count(Settled::Delivered));
            for (offset, record) in (0..).zip(&records) {
                prop_assert_eq!(queue.cursor().is_settled(offset), matches!(record, Record::Settled(_)));
            }
        }
    }
}
