//! The balance by the hour, over crashes and whatever they leave of the store that the hours lie in.
//!
//! What is asked each time: the hours lie one behind the other; from what the balance was when they begin to be known, what is
//! in them leads to the balance of now, and to what was pending at the end of each.

use forebay::clock::{Clock, ManualClock};
use forebay::{
    Balance, Count, CursorStore, Hour, MemStore, Payload, Queue, QueueOptions, Queues, Settled, Start, StoreChoice,
};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use storage_tests::crash_points::number;
use storage_tests::fault::Performed;
use storage_tests::queues::{CUTS, DIR, books_close, tiny};
use storage_tests::rng::Rng;
use storage_tests::sim_disk::SimDisk;

const BEGAN_MS: u64 = 3_600_000;

/// What each queue's balance was when a process began, by that moment.
type Begun = BTreeMap<(u64, String), Balance>;

fn open(disk: &SimDisk, clock: &ManualClock, store: &MemStore, begun: &mut Begun) -> Queues {
    let options = QueueOptions { store: StoreChoice::Memory(store.clone()), ..QueueOptions::inline() };
    let (disk, now) = (Arc::new(disk.clone()), Arc::new(clock.clone()));
    let queues = Queues::open(disk, now, Path::new(DIR), tiny(Duration::ZERO), options).expect("it opens");
    books_close(&queues);
    for queue in queues.all() {
        begun.insert((clock.wall_ms(), queue.destination().to_owned()), queue.balance());
    }
    queues
}

/// As it is now.
fn copy(store: &MemStore) -> MemStore {
    let mut copy = MemStore::default();
    copy.store(&store.clone().load().expect("it is memory")).expect("it is memory");
    copy
}

fn sum(a: Count, b: Count) -> Count {
    Count { records: a.records + b.records, bytes: a.bytes + b.bytes }
}

/// What a balance comes to by what changed in an hour.
fn after(before: Balance, hour: &Balance) -> Balance {
    let mut now = Balance {
        accepted: sum(before.accepted, hour.accepted),
        delivered: sum(before.delivered, hour.delivered),
        dead_lettered: sum(before.dead_lettered, hour.dead_lettered),
        filtered: sum(before.filtered, hour.filtered),
        expired: sum(before.expired, hour.expired),
        purged: sum(before.purged, hour.purged),
        lost: sum(before.lost, hour.lost),
        held: sum(before.held, hour.held),
        pending: Count::default(),
    };
    let gone = [now.delivered, now.dead_lettered, now.filtered, now.expired, now.purged, now.lost, now.held];
    let gone = gone.into_iter().fold(Count::default(), sum);
    now.pending = Count { records: now.accepted.records - gone.records, bytes: now.accepted.bytes - gone.bytes };
    now
}

/// Says how many hours there are of what was before the process began.
fn check(queue: &Queue, began_ms: u64, begun: &Begun) -> usize {
    let (hourly, total) = (queue.hourly(), queue.balance());
    let place = format!("{}: {hourly:?}, {total:?}", queue.destination());
    let known = begun.get(&(hourly.known_from_ms, queue.destination().to_owned()));
    let mut so_far = known.copied().unwrap_or_default();
    assert!(known.is_some() || [BEGAN_MS, began_ms].contains(&hourly.known_from_ms), "nobody began then: {place}");
    let mut end_ms = hourly.known_from_ms;
    for Hour { from_ms, to_ms, balance } in &hourly.hours {
        assert!(end_ms <= *from_ms && from_ms <= to_ms, "{place}");
        end_ms = *to_ms;
        so_far = after(so_far, balance);
        assert_eq!(so_far.pending, balance.pending, "at the end of {from_ms}: {place}");
    }
    assert_eq!(so_far, total, "{place}");
    hourly.hours.iter().filter(|hour| hour.from_ms < began_ms).count()
}

fn step(rng: &mut Rng, queues: &Queues, clock: &ManualClock) {
    let destination = ["hook", "archive"][rng.below(2)];
    let Ok(queue) = queues.queue(destination, "acme", Start::Earliest) else { return };
    let low = (queue.cursor().low + rng.below(5) as u64).min(queue.lag().durable_tail);
    match rng.below(12) {
        0..4 => {
            let records = 1 + rng.below(20) as u32;
            let payload = Payload { bytes: vec![7; records as usize * 10], records };
            let _ = queues.log().append_wait("acme", vec![payload]);
        }
        4..8 => {
            let as_ = [Settled::Delivered, Settled::DeadLettered, Settled::Held, Settled::Filtered][rng.below(4)];
            queue.settle_range(low..low + 1 + rng.below(30) as u64, as_);
        }
        8 => drop(queue.purge(low..low + rng.below(6) as u64)),
        9 => clock.advance(Duration::from_secs(60 * (1 + rng.below(25) as u64))),
        _ => drop(queues.tick()),
    }
}

/// Returns how many hours were told of what was before a crash.
fn history(seed: u64) -> usize {
    let mut rng = Rng::new(seed);
    let (disk, clock) = (SimDisk::new(seed), ManualClock::at(BEGAN_MS));
    let (mut store, mut begun, mut kept) = (MemStore::default(), Begun::new(), 0);
    let mut queues = open(&disk, &clock, &store, &mut begun);
    for destination in ["hook", "archive"] {
        queues.queue(destination, "acme", Start::Earliest).expect("it is made");
    }
    queues.tick().expect("the disk is sound");
    let mut began_ms = BEGAN_MS;
    for _ in 0..5 {
        disk.crash_at(disk.ops() + 20 + rng.below(100) as u64, Performed::Nothing);
        let mut older = copy(&store);
        for _ in 0..80 {
            step(&mut rng, &queues, &clock);
            if disk.crashed() {
                break;
            }
            queues.all().iter().for_each(|queue| _ = check(queue, began_ms, &begun));
            if rng.chance(1, 20) {
                older = copy(&store);
            }
        }
        drop(queues);
        disk.clear_faults();
        disk.power_cut(CUTS[rng.below(CUTS.len())]);
        // All of it, some of it, none.
        store = match rng.below(5) {
            0 => MemStore::default(),
            1 => older,
            _ => store,
        };
        clock.advance(Duration::from_secs(60 * rng.below(100) as u64 + 1));
        began_ms = clock.wall_ms();
        queues = open(&disk, &clock, &store, &mut begun);
        kept += queues.all().iter().map(|queue| check(queue, began_ms, &begun)).sum::<usize>();
    }
    kept
}

/// Repeat one history with `FOREBAY_SEED=n FOREBAY_HISTORIES=1`.
#[test]
fn the_balance_closes_by_the_hour_after_every_crash() {
    let first = number("FOREBAY_SEED", 1);
    let histories = number("FOREBAY_HISTORIES", 60);
    let kept: usize = (first..first + histories).map(history).sum();
    println!("{kept} hours were told of what was before a crash");
    assert!(kept > 100 || histories < 60, "{kept}");
}

/// Before: the store heard of hours when one ended. Who was restarted within the first one knew nothing of it any more, and the
/// records of that time were in no hour.
#[test]
fn the_first_hour_is_known_over_restarts() {
    for cleanly in [false, true] {
        let (disk, clock, store) = (SimDisk::new(1), ManualClock::at(BEGAN_MS + 1), MemStore::default());
        let mut begun = Begun::new();
        for minutes in [0, 5, 5] {
            clock.advance(Duration::from_secs(60 * minutes));
            let queues = open(&disk, &clock, &store, &mut begun);
            let queue = queues.queue("hook", "acme", Start::Earliest).expect("it is made");
            queues.tick().expect("the disk is sound"); // so that it was touched by nothing but what comes
            queues.log().append_wait("acme", vec![Payload { bytes: vec![7; 100], records: 10 }]).expect("it is taken");
            if cleanly {
                queues.close().expect("the disk is sound"); // nothing was ever settled
            } else {
                queue.settle_range(queue.cursor().low..queue.cursor().low + 4, Settled::Delivered);
                queues.tick().expect("the disk is sound");
            }
            drop((queue, queues));
            disk.process_kill();
        }
        let queues = open(&disk, &clock, &store, &mut begun);
        let queue = queues.find("hook", "acme").expect("it was made");
        let hourly = queue.hourly();
        assert_eq!((hourly.known_from_ms, hourly.hours.len()), (BEGAN_MS + 1, 1), "{cleanly}: {hourly:?}");
        assert_eq!(hourly.hours[0].balance, queue.balance());
    }
}

#[test]
fn what_the_store_forgot_is_known_from_the_next_start_on_and_over_further_ones() {
    let (disk, clock, mut begun) = (SimDisk::new(1), ManualClock::at(BEGAN_MS + 1), Begun::new());
    let (mut store, mut started) = (MemStore::default(), 0);
    for forgets in [false, true, false] {
        if forgets {
            (store, started) = (MemStore::default(), clock.wall_ms());
        }
        let queues = open(&disk, &clock, &store, &mut begun);
        let queue = queues.queue("hook", "acme", Start::Earliest).expect("it is made");
        assert!(queue.hourly().known_from_ms >= started);
        queues.log().append_wait("acme", vec![Payload { bytes: vec![7; 100], records: 10 }]).expect("it is taken");
        queue.settle_range(queue.cursor().low..queue.cursor().low + 4, Settled::Delivered);
        queues.tick().expect("the disk is sound");
        drop((queue, queues));
        disk.process_kill();
        clock.advance(Duration::from_secs(300));
    }
    let queues = open(&disk, &clock, &store, &mut begun);
    let hourly = queues.find("hook", "acme").expect("it was made").hourly();
    assert_eq!((hourly.known_from_ms, hourly.hours.len()), (started, 1), "{hourly:?}");
    assert_eq!((hourly.hours[0].balance.accepted.records, hourly.hours[0].balance.delivered.records), (20, 8));
}
