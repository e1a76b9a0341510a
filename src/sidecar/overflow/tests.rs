use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use forebay::clock::{Clock, ManualClock};
use forebay::disk::mem::MemDisk;
use forebay::{LogOptions, Payload, QueueOptions, Settled, Start};

use super::*;

const HOUR: Duration = Duration::from_secs(3_600);

struct House {
    queues: Queues,
    clock: ManualClock,
    overflow: Overflow,
    in_two_places: Arc<AtomicBool>,
}

impl House {
    fn new(log: LogOptions) -> Self {
        let (disk, clock) = (Arc::new(MemDisk::new()), ManualClock::at(1_000_000_000));
        let queues =
            Queues::open(disk, Arc::new(clock.clone()), Path::new("/data"), log, QueueOptions::inline()).unwrap();
        let in_two_places = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&in_two_places);
        let overflow =
            Overflow::new(queues.clone(), Arc::default(), move |id| id == "hook" && told.load(Ordering::Relaxed));
        Self { overflow, queues, clock, in_two_places }
    }

    fn queue(&self, destination: &str, stream: &str) -> Queue {
        self.queues.queue(destination, stream, Start::Earliest).unwrap()
    }

    fn append(&self, stream: &str, records: u32) {
        let payload = Payload { bytes: vec![7; records as usize * 100], records };
        self.queues.log().append_wait(stream, vec![payload]).unwrap();
    }

    fn tend(&self) {
        self.overflow.tend(Now::of(&self.clock));
    }

    fn set(&self, destination: &str, policy: Policy, streams: &[&str]) -> Vec<Queue> {
        let queues: Vec<Queue> = streams.iter().map(|stream| self.queue(destination, stream)).collect();
        self.overflow.set(&destination.into(), Some(policy), queues.clone());
        queues
    }

    fn tick(&self) {
        for _ in 0..3 {
            self.queues.tick().unwrap();
            self.queues.log().housekeep();
        }
    }
}

fn expired(queue: &Queue) -> u64 {
    let balance = queue.balance();
    assert!(balance.closes());
    balance.expired.records
}

fn of_age(hours: u32) -> Policy {
    Policy { what: What::Drop, age_max: Some(HOUR * hours), bytes_max: None }
}

fn of_bytes(bytes_max: u64) -> Policy {
    Policy { what: What::Drop, age_max: None, bytes_max: Some(bytes_max) }
}

#[test]
fn without_a_policy_nothing_is_ever_given_up() {
    let house = House::new(LogOptions::small());
    let queue = house.queue("hook", "prod");
    house.append("prod", 100);
    house.clock.advance(HOUR * 10_000);
    house.tend();
    assert_eq!((expired(&queue), house.overflow.ahead("hook", "prod")), (0, None));
    assert!(house.overflow.is_idle());
}

#[test]
fn what_is_too_old_goes_in_steps_and_is_foreseen() {
    let house = House::new(LogOptions::small());
    let queues = house.set("hook", of_age(16), &["prod"]);
    house.tend();
    assert_eq!(house.overflow.ahead("hook", "prod"), Some(Ahead::default()), "nothing waits");
    for _ in 0..20 {
        house.append("prod", 10);
        house.clock.advance(HOUR);
        house.tend();
    }
    // Received at hour 0, 1, …; at hour 17 the first is an hour, a sixteenth, too old.
    assert_eq!(expired(&queues[0]), 40, "those of the first four hours");
    let ahead = house.overflow.ahead("hook", "prod").unwrap();
    assert_eq!(ahead, Ahead { too_old_at_ms: Some(1_000_000_000 + (4 + 17) * 3_600_000), bytes_left: None });
    house.overflow.forget("hook");
    house.clock.advance(HOUR * 100);
    house.tend();
    assert_eq!(expired(&queues[0]), 40, "who is forgotten keeps all");
}

#[test]
fn a_jump_of_the_wall_clock_makes_nothing_old() {
    let house = House::new(LogOptions::small());
    let queues = house.set("hook", of_age(16), &["prod"]);
    house.append("prod", 10);
    house.tend();
    house.clock.advance(HOUR * 2);
    house.tend();
    // The wall clock jumps by a month, the monotonic one goes on.
    let monotonic = house.clock.monotonic();
    house.clock.advance(HOUR * 24 * 30);
    let after = |seconds: u64| Now {
        wall_ms: house.clock.wall_ms() + seconds * 1_000,
        monotonic: monotonic + Duration::from_secs(seconds),
    };
    house.overflow.tend(after(1));
    house.overflow.tend(after(3_000));
    assert_eq!(expired(&queues[0]), 0);
    let ahead = house.overflow.ahead("hook", "prod").unwrap();
    assert_eq!(ahead.too_old_at_ms, Some(after(3_601).wall_ms), "not before an hour is over");
    house.overflow.tend(after(3_601));
    assert_eq!(expired(&queues[0]), 10);
}

#[test]
fn what_is_too_much_goes_from_the_largest_queue() {
    let house = House::new(LogOptions::small());
    let queues = house.set("hook", of_bytes(16_000), &["prod", "stage"]);
    house.append("prod", 100);
    house.append("stage", 50);
    house.tend();
    assert_eq!((expired(&queues[0]), expired(&queues[1])), (0, 0));
    assert_eq!(house.overflow.ahead("hook", "stage").unwrap().bytes_left, Some(1_000));
    house.append("prod", 20);
    house.tend();
    assert_eq!((expired(&queues[0]), expired(&queues[1])), (20, 0), "down to fifteen sixteenths");
    assert_eq!(house.overflow.ahead("hook", "prod").unwrap().bytes_left, Some(1_000));
    house.tend();
    assert_eq!(expired(&queues[0]), 20, "once");
}

#[test]
fn what_is_marked_is_dead_and_lies_where_it_lay_and_what_was_sent_once_stays() {
    let house = House::new(LogOptions::small());
    let queues = house.set("hook", Policy { what: What::Mark, ..of_age(16) }, &["prod"]);
    house.append("prod", 10);
    let limits = forebay::BatchLimits { records_max: 4, bytes_max: u64::MAX };
    let sent = queues[0].next_batch(limits).unwrap().unwrap();
    queues[0].release(&sent);
    house.tend();
    for _ in 0..20 {
        house.clock.advance(HOUR);
        house.append("prod", 10);
        house.tend();
    }
    // Of the first ten six were never sent, and then those of three hours more.
    let (balance, (_, marked)) = (queues[0].balance(), queues[0].marked());
    assert_eq!((balance.dead_lettered.records, marked.pending.records, balance.expired.records), (36, 36, 0));
    let ahead = house.overflow.ahead("hook", "prod").unwrap();
    assert_eq!(ahead.too_old_at_ms, Some(1_000_000_000 + (4 + 17) * 3_600_000), "of what may be marked");
    assert_eq!(queues[0].next_batch(limits).unwrap().unwrap().id, sent.id);
}

#[test]
fn nothing_goes_of_a_destination_while_a_record_of_its_is_a_letter_and_pending_too() {
    let house = House::new(LogOptions::small());
    let marked = Policy { what: What::Mark, ..of_bytes(5_000) };
    let hook = house.set("hook", marked, &["prod"]).remove(0);
    let other = house.set("other", of_bytes(5_000), &["prod"]).remove(0);
    house.append("prod", 100);
    house.in_two_places.store(true, Ordering::Relaxed);
    house.tend();
    assert_eq!((hook.balance().dead_lettered.records, expired(&other)), (0, 54));
    assert_eq!(house.overflow.ahead("hook", "prod").unwrap().bytes_left, Some(0), "it is told all the same");
    house.in_two_places.store(false, Ordering::Relaxed);
    house.tend();
    assert_eq!(hook.balance().dead_lettered.records, 54);
}

#[test]
fn another_policy_holds_from_the_next_look_on() {
    let house = House::new(LogOptions::small());
    let queues = house.set("hook", of_bytes(1 << 20), &["prod"]);
    house.append("prod", 100);
    house.tend();
    assert_eq!(expired(&queues[0]), 0);
    house.set("hook", of_bytes(1_600), &["prod"]);
    house.tend();
    assert_eq!(expired(&queues[0]), 85);
}

/// One environment's only destination is down with a policy, another's without one: when the disk is short the first gives
/// up instead of being refused, and the other is refused.
#[test]
fn on_a_short_disk_who_may_give_up_gives_up_before_anybody_is_refused() {
    let small = LogOptions::small();
    let log = LogOptions { budget_bytes: 64 * u64::from(small.segment_bytes), ..small };
    let house = House::new(log);
    let dropping = house.set("dropping", of_bytes(1 << 40), &["one"]).remove(0);
    let keeping = house.queue("keeping", "two");
    let mut refused = [0, 0];
    for _ in 0..6_000 {
        for (at, stream) in ["one", "two"].into_iter().enumerate() {
            let payload = Payload { bytes: vec![7; 1_000], records: 10 };
            refused[at] += u64::from(house.queues.log().append_wait(stream, vec![payload]).is_err());
        }
        house.clock.advance(Duration::from_secs(1)); // compaction has a pace
        house.tend();
        house.queues.tick().unwrap();
        house.queues.log().housekeep();
    }
    // What is given up makes room a few ticks later.
    assert!(refused[0] * 10 < refused[1] && refused[1] > 1_000 && expired(&dropping) > 10_000, "{refused:?}");
    assert_eq!(expired(&keeping), 0);
}

/// What comes in is delivered at once beside a backlog, and stays on the disk because of that. The disk is short of it, and the
/// environment was refused: what waited was less than its share.
#[test]
fn on_a_short_disk_a_backlog_goes_that_keeps_what_was_delivered_behind_it() {
    let small = LogOptions::small();
    let budget_bytes = 64 * u64::from(small.segment_bytes);
    let house = House::new(LogOptions { budget_bytes, ..small });
    let queue = house.set("hook", of_bytes(1 << 40), &["one"]).remove(0);
    let waits = budget_bytes / 5 / 1_000;
    let (mut refused, mut appends) = (0, 0);
    while appends < waits * 15 {
        if appends == waits {
            queue.part(0);
        }
        appends += 1;
        let payload = Payload { bytes: vec![7; 1_000], records: 10 };
        refused += u64::from(house.queues.log().append_wait("one", vec![payload]).is_err());
        // What is no backlog is delivered at once.
        let limits = forebay::BatchLimits { records_max: 1_000, bytes_max: u64::MAX };
        let fresh = if appends <= waits || queue.is_parted() { queue.live() } else { queue.backlog() };
        while let Some(batch) = fresh.next_batch(limits).unwrap() {
            queue.settle(&batch, Settled::Delivered);
        }
        house.clock.advance(Duration::from_secs(1));
        house.tend();
        house.queues.tick().unwrap();
        house.queues.log().housekeep();
    }
    // A few are refused until what went has made room.
    assert!(refused * 20 < appends, "{refused} of {appends} were refused");
    assert_eq!(expired(&queue), waits * 10, "all of the backlog, and nothing that came since");
    assert_eq!(queue.lag().records, 0);
}

/// It keeps what is behind it on the disk until it has its answer.
#[test]
fn while_somebody_has_the_oldest_batch_no_more_goes_for_room_than_without_it() {
    let small = LogOptions::small();
    let house = House::new(LogOptions { budget_bytes: 64 * u64::from(small.segment_bytes), ..small });
    let queue = house.set("hook", of_bytes(1 << 40), &["one"]).remove(0);
    house.append("one", 10);
    let out = queue.next_batch(forebay::BatchLimits { records_max: 10, bytes_max: u64::MAX }).unwrap().unwrap();
    // Its share gets less with the last segments that are made.
    for _ in 0..20 {
        house.tick();
        while house.queues.log().append_wait("one", vec![Payload { bytes: vec![7; 1_000], records: 10 }]).is_ok() {}
    }
    let waited = queue.lag().records;
    house.tend();
    let gone = expired(&queue);
    assert!(gone > 0 && gone * 2 < waited, "{gone} of {waited}");
    for _ in 0..20 {
        house.tick();
        house.tend();
    }
    assert_eq!(expired(&queue), gone);
    queue.settle(&out, Settled::Delivered);
    house.tick();
    assert!(house.queues.log().append_wait("one", vec![Payload { bytes: vec![7; 1_000], records: 10 }]).is_ok());
}

#[test]
fn what_another_destination_still_needs_is_not_given_up_for_room() {
    let small = LogOptions::small();
    let log = LogOptions { budget_bytes: 64 * u64::from(small.segment_bytes), ..small };
    let house = House::new(log);
    let dropping = house.set("dropping", of_bytes(1 << 40), &["one"]).remove(0);
    let keeping = house.queue("keeping", "one");
    let payload = || Payload { bytes: vec![7; 1_000], records: 10 };
    house.tick(); // before that nobody has a share
    while house.queues.log().append_wait("one", vec![payload()]).is_ok() {
        house.tend();
    }
    assert_eq!(expired(&dropping), 0, "it would make no room");
    keeping.settle_range(0..5_000, Settled::Delivered);
    house.tend();
    house.tick();
    assert!(expired(&dropping) > 0 && expired(&dropping) <= 5_000);
    assert!(house.queues.log().append_wait("one", vec![payload()]).is_ok(), "and now it does");
}

/// Each limit was held against what waited before anything went, so that both together took the sum: here all of it.
#[test]
fn with_two_limits_goes_what_is_beyond_one_of_them_and_not_the_sum() {
    let house = House::new(LogOptions::small());
    // Ages count an hour after they are first asked for.
    house.set("other", of_age(1_000), &["prod", "stage"]);
    house.tend();
    let both = Policy { age_max: Some(HOUR * 16), ..of_bytes(16_000) };
    let queues = house.set("hook", both, &["prod", "stage"]);
    house.append("prod", 100);
    house.clock.advance(HOUR * 20);
    house.append("prod", 60);
    house.append("stage", 60);
    house.tend();
    // 22,000 bytes waited, of which 10,000 were too old: what is left is within both limits.
    assert_eq!((expired(&queues[0]), expired(&queues[1])), (100, 0));
    house.append("stage", 60);
    house.tend();
    assert_eq!((expired(&queues[0]), expired(&queues[1])), (100, 30), "18,000 bytes, none of them too old");
}

/// The share of a short disk was held against what waited before anything went for its bytes.
#[test]
fn what_went_for_its_bytes_is_not_asked_for_once_more_for_the_room_of_a_short_disk() {
    let small = LogOptions::small();
    let log = LogOptions { budget_bytes: 64 * u64::from(small.segment_bytes), ..small };
    let house = House::new(log);
    let queue = house.queue("dropping", "one");
    house.tick(); // before that nobody has a share
    while house.queues.log().append_wait("one", vec![Payload { bytes: vec![7; 1_000], records: 10 }]).is_ok() {}
    let waits = queue.lag().bytes;
    house.set("dropping", of_bytes(waits / 4), &["one"]);
    house.tend();
    let left = queue.lag().bytes;
    assert!(left <= waits / 4 && left >= waits / 5, "{left} of {waits}: what the policy leaves is far below the share");
}

/// It was asked for once at the start of a round, which may take long on a slow disk.
#[test]
fn a_policy_that_is_taken_back_while_others_are_looked_at_is_not_obeyed_once_more() {
    let house = House::new(LogOptions::small());
    let queues = house.queues.clone();
    let overflow = Arc::new_cyclic(|overflow: &std::sync::Weak<Overflow>| {
        let overflow = overflow.clone();
        Overflow::new(queues.clone(), Arc::default(), move |id| {
            if id == "a" {
                let overflow = overflow.upgrade().unwrap();
                overflow.set(&"b".into(), None, Vec::new());
                overflow.forget("c");
            }
            false
        })
    });
    house.append("prod", 100);
    let [a, b, c] = ["a", "b", "c"].map(|id| {
        let queue = house.queue(id, "prod");
        overflow.set(&id.into(), Some(of_bytes(1_600)), vec![queue.clone()]);
        queue
    });
    overflow.tend(Now::of(&house.clock));
    assert_eq!((expired(&a), expired(&b), expired(&c)), (85, 0, 0));
}

#[test]
fn who_takes_a_policy_back_waits_for_what_is_being_given_up_by_it() {
    let house = House::new(LogOptions::small());
    let queue = house.queue("a", "prod");
    let (taken_back, seen) = std::sync::mpsc::sync_channel(1);
    let (taken_back, seen_by) = (Mutex::new(taken_back), queue.clone());
    let overflow = Arc::new_cyclic(|overflow: &std::sync::Weak<Overflow>| {
        let overflow = overflow.clone();
        Overflow::new(house.queues.clone(), Arc::default(), move |_| {
            let (overflow, queue, tell) = (overflow.upgrade().unwrap(), seen_by.clone(), lock(&taken_back).clone());
            let (begun, begins) = std::sync::mpsc::sync_channel(1);
            std::thread::spawn(move || {
                begun.send(()).unwrap();
                overflow.forget("a");
                tell.send(expired(&queue)).unwrap();
            });
            begins.recv().unwrap();
            // Enough for who does not wait.
            std::thread::sleep(Duration::from_millis(50));
            false
        })
    });
    overflow.set(&"a".into(), Some(of_bytes(1_600)), vec![queue.clone()]);
    house.append("prod", 100);
    overflow.tend(Now::of(&house.clock));
    assert_eq!(seen.recv().unwrap(), 85, "nothing goes once it is told that the policy holds no more");
    assert_eq!(expired(&queue), 85);
}
