//! Letters of an upstream's posts, which lie in a log of their own: a crash at every change of either log.

use std::collections::BTreeSet;
use std::sync::OnceLock;

use storage_tests::any_change::power_cut_at_any_change;
use storage_tests::sim_disk::SimDisk;

use super::*;
use crate::delivery::queued::Queued;

const SPLIT: &str = "split";
const STREAM: &str = "posts/prod/0";
const OTHER: &str = "posts/prod/1";

/// A sidecar with an upstream.
struct WithPosts {
    clock: ManualClock,
    main: Queues,
    posts: Queues,
    queue: Queue,
    letters: Arc<Letters>,
}

/// What the world outside has seen.
#[derive(Debug, Default)]
struct Seen {
    appended: u64,
    delivered: BTreeSet<u64>,
}

impl WithPosts {
    fn on(disk: &SimDisk) -> Result<Self, BoxError> {
        let clock = ManualClock::at(1_000_000);
        let open = |dir: &str| {
            let (disk, clock) = (Arc::new(disk.clone()), Arc::new(clock.clone()));
            Queues::open(disk, clock, Path::new(dir), LogOptions::small(), QueueOptions::inline())
        };
        let main = open("/data")?;
        let letters = Letters::open(main.clone(), Arc::new(clock.clone()));
        let opened: Arc<OnceLock<Queues>> = Arc::default();
        let theirs = Arc::clone(&opened);
        letters.look_for_posts(Box::new(move |id| theirs.get().filter(|_| id == SPLIT).cloned()));
        let posts = open("/posts")?;
        let posts = opened.get_or_init(|| posts).clone();
        // A crash before the first tick leaves posts without their queue, which is made again.
        let queue = posts.queue(SPLIT, STREAM, Start::Earliest)?;
        letters.take_up_posts(SPLIT, &posts)?;
        Ok(Self { clock, main, posts, queue, letters })
    }

    fn append(&self, posts: u64, seen: &mut Seen) -> Result<(), BoxError> {
        for _ in 0..posts {
            // No stored batch: it is kept as the whole post.
            self.posts.log().append_wait(STREAM, vec![Payload { bytes: vec![0xff; 30], records: 1 }])?;
            seen.appended += 1;
        }
        Ok(())
    }

    fn desk(&self) -> Arc<Desk> {
        self.letters.desk(SPLIT)
    }

    fn source(&self) -> Queued {
        let environment = Arc::new(Environment { id: "prod".to_owned(), name: "production".to_owned() });
        Queued::new(self.queue.clone(), environment)
    }

    /// The queue of a key, with so many more posts.
    fn source_of_new(&self, stream: &str, posts: u64) -> Queued {
        let post = Payload { bytes: vec![0xff; 30], records: 1 };
        self.posts.log().append_wait(stream, vec![post; posts as usize]).unwrap();
        let queue = self.posts.queue(SPLIT, stream, Start::Earliest).unwrap();
        let environment = Arc::new(Environment { id: "prod".to_owned(), name: "production".to_owned() });
        Queued::new(queue, environment)
    }

    /// Has all that `source` has lie on the held shelf, and be due.
    fn hold(&self, source: &dyn Source) {
        while let Some(claimed) = source.next(Limits { records_max: 10_000, ..LIMITS }).unwrap() {
            let offsets: Vec<u64> = claimed.job.origin.offsets.clone().collect();
            let stored = claimed.ticket.letters(&offsets).unwrap();
            let held = Kind::Held { not_before_ms: 0 };
            parked(&self.letters, stored.into_iter().map(|stored| letter_of(stored, SPLIT, held)).collect()).unwrap();
            claimed.ticket.settle(&[], Settled::Held);
        }
    }

    fn park(&self, claimed: &Claimed, kind: Kind) -> Result<(), BoxError> {
        let stored = claimed.ticket.letters(&[claimed.job.origin.offsets.start])?;
        parked(&self.letters, stored.into_iter().map(|stored| letter_of(stored, SPLIT, kind)).collect())
    }

    /// Sends what `source` has, one post at a time; those that `fate` names become letters.
    fn send(&self, source: &dyn Source, seen: &mut Seen, fate: impl Fn(u64) -> Option<Kind>) -> Result<(), BoxError> {
        while let Some(claimed) = source.next(Limits { records_max: 1, ..LIMITS })? {
            let offset = claimed.job.origin.offsets.start;
            let as_ = match fate(offset) {
                Some(kind) => {
                    self.park(&claimed, kind)?;
                    if kind == Kind::Dead { Settled::DeadLettered } else { Settled::Held }
                }
                None => {
                    seen.delivered.insert(offset);
                    Settled::Delivered
                }
            };
            claimed.ticket.settle(&[], as_);
        }
        Ok(())
    }

    fn send_held(&self, seen: &mut Seen, fate: impl Fn(u64) -> Option<Kind>) -> Result<(), BoxError> {
        self.clock.advance(Duration::from_secs(1));
        self.send(&HeldSource::new(self.desk(), true), seen, fate)
    }

    fn tick(&self) -> Result<(), BoxError> {
        self.posts.tick()?;
        Ok(self.main.tick()?)
    }

    /// Where every post is.
    fn check(&self, seen: &Seen) {
        let cursor = self.queue.cursor();
        let log = self.posts.log();
        let tail = log.stream(STREAM).map_or(0, |stream| log.durable(stream).offset);
        assert!(tail >= seen.appended, "acknowledged posts are gone");
        let own: Vec<u64> = (0..tail).filter(|offset| !cursor.is_settled(*offset)).collect();
        let (dead, held) = (letters_on(&self.desk(), Shelf::Dead), letters_on(&self.desk(), Shelf::Held));
        let mut places: Vec<u64> = own.iter().chain(&dead).chain(&held).copied().collect();
        places.sort_unstable();
        assert!(places.windows(2).all(|two| two[0] != two[1]), "twice: own {own:?}, dead {dead:?}, held {held:?}");
        let gone: Vec<u64> = (0..tail).filter(|offset| places.binary_search(offset).is_err()).collect();
        assert!(gone.iter().all(|offset| seen.delivered.contains(offset)), "lost: {gone:?} of {seen:?}");
    }
}

const NOW: Kind = Kind::Held { not_before_ms: 0 };

/// Of the posts some are poison, one waits at first, and is dead after all.
fn fate(offset: u64) -> Option<Kind> {
    match offset {
        1 | 3 => Some(Kind::Dead),
        4 => Some(NOW),
        _ => None,
    }
}

fn life(house: &WithPosts, seen: &mut Seen) -> Result<(), BoxError> {
    house.append(6, seen)?;
    house.send(&house.source(), seen, fate)?;
    house.tick()?;
    house.send_held(seen, |_| Some(Kind::Dead))?;
    house.append(2, seen)?;
    house.desk().redrive(&Filter::default(), 0)?;
    house.send(&house.source(), seen, fate)?;
    house.send_held(seen, |offset| (offset == 3).then_some(Kind::Dead))?;
    house.tick()?;
    house.tick()
}

/// Before, a crash between the letter and the settling of its post brought the post again, and it was kept a second time.
#[test]
fn a_crash_at_any_change_leaves_every_post_in_one_place() {
    let start = SimDisk::new(7);
    drop(WithPosts::on(&start).unwrap());
    let snapshot = start.snapshot();
    let run = |disk: &SimDisk, seen: &mut Seen| WithPosts::on(disk).and_then(|house| life(&house, seen));
    let changes = power_cut_at_any_change(&snapshot, run, |disk, mut seen, _| {
        let house = WithPosts::on(disk).unwrap();
        house.check(&seen);
        // What comes again is judged as before, and kept once.
        house.send(&house.source(), &mut seen, fate).unwrap();
        house.check(&seen);
        house.desk().redrive(&Filter::default(), 0).unwrap();
        house.send_held(&mut seen, |_| None).unwrap();
        house.check(&seen);
        assert_eq!(letters_on(&house.desk(), Shelf::Dead), [0; 0]);
    });
    assert!(changes > 33, "{changes}: a life in which much is written");
}

/// The upstream gets other settings while a letter of its is being kept.
#[test]
fn a_post_whose_letter_a_cut_off_loop_left_is_not_sent_by_the_next_one() {
    let house = WithPosts::on(&SimDisk::new(1)).unwrap();
    let mut seen = Seen::default();
    house.append(2, &mut seen).unwrap();
    let source = house.source();
    let claimed = source.next(Limits { records_max: 1, ..LIMITS }).unwrap().unwrap();
    house.park(&claimed, Kind::Dead).unwrap();
    drop((claimed, source)); // cut off before it could settle
    // However long that took.
    house.letters.tend(Now::of(&house.clock));
    house.letters.catch_up(SPLIT);
    house.send(&house.source(), &mut seen, |_| None).unwrap();
    assert_eq!(
        (seen.delivered.iter().copied().collect::<Vec<_>>(), letters_on(&house.desk(), Shelf::Dead)),
        (vec![1], vec![0])
    );
    house.check(&seen);
}

/// Before, letters of one key that was refused held up those of all keys: they come from one queue.
#[test]
fn letters_of_a_key_that_is_put_off_wait_while_others_letters_go_on() {
    let house = WithPosts::on(&SimDisk::new(3)).unwrap();
    let mut seen = Seen::default();
    house.append(3, &mut seen).unwrap();
    let other = house.source_of_new(OTHER, 1);
    house.send(&house.source(), &mut seen, |_| Some(Kind::Dead)).unwrap();
    house.send(&other, &mut seen, |_| Some(Kind::Dead)).unwrap();
    house.desk().redrive(&Filter::default(), 0).unwrap();
    house.clock.advance(Duration::from_secs(1));

    let source = HeldSource::new(house.desk(), true);
    let next = || source.next(Limits { records_max: 1, ..LIMITS }).unwrap();
    let first = next().unwrap();
    let (id, origin) = (Arc::clone(&first.job.id), first.job.origin.clone());
    assert_eq!(source.sender(origin.log, origin.stream), format!("letters of {STREAM}"));
    let until_ms = house.clock.wall_ms() + 5_000;
    assert!(source.put_off(origin.log, origin.stream, Some(until_ms)));
    drop(first);
    let of_other = next().expect("the other key's letter goes on");
    assert_ne!(of_other.job.origin.stream, origin.stream);
    of_other.ticket.settle(&[], Settled::Delivered);
    assert!(next().is_none() && !source.has_more(), "all that is left is put off");
    house.clock.advance(Duration::from_secs(4));
    assert!(next().is_none() && !source.has_more(), "nothing is read for it meanwhile");
    house.clock.advance(Duration::from_secs(60));
    assert!(next().is_none(), "whoever put it off says when it is over");

    source.put_off(origin.log, origin.stream, None);
    let again = next().unwrap();
    assert_eq!((&again.job.id, &again.job.origin), (&id, &origin), "as it was");
    again.ticket.settle(&[], Settled::Delivered);
    let mut rest: Vec<u64> = std::iter::from_fn(|| {
        let claimed = next()?;
        let offset = claimed.job.origin.offsets.start;
        claimed.ticket.settle(&[], Settled::Delivered);
        Some(offset)
    })
    .collect();
    rest.push(origin.offsets.start);
    rest.sort_unstable();
    assert_eq!(rest, [0, 1, 2]);
}

/// Before, what was handed back of a key that waits counted for what may be in flight: with as much of it as that, no letter
/// of anybody was read any more.
#[test]
fn however_many_letters_of_a_key_are_put_off_others_are_read() {
    const MANY: u64 = 1024;
    let house = WithPosts::on(&SimDisk::new(3)).unwrap();
    house.hold(&house.source_of_new(STREAM, MANY));
    house.hold(&house.source_of_new(OTHER, 2));

    let source = HeldSource::new(house.desk(), true);
    let next = || source.next(Limits { records_max: 1, ..LIMITS }).unwrap();
    let claimed: Vec<Claimed> = (0..MANY).map(|_| next().unwrap()).collect();
    let of = claimed[0].job.origin.clone();
    assert!(claimed.iter().all(|claimed| claimed.job.origin.stream == of.stream));
    assert!(next().is_none() && !source.has_more(), "so many may be in flight");
    assert!(source.put_off(of.log, of.stream, Some(house.clock.wall_ms() + 5_000)));
    drop(claimed);
    for _ in 0..2 {
        let of_other = next().expect("the other key's letter goes on");
        assert_ne!(of_other.job.origin.stream, of.stream);
        of_other.ticket.settle(&[], Settled::Delivered);
    }
    assert!(next().is_none() && !source.has_more());
    source.put_off(of.log, of.stream, None);
    assert_eq!(next().map(|claimed| claimed.job.origin), Some(of));
}

/// Before, each try of a key had the whole shelf read again, for each key that waits.
#[test]
fn when_the_time_of_a_key_has_come_only_its_letters_are_looked_for() {
    let house = WithPosts::on(&SimDisk::new(3)).unwrap();
    house.hold(&house.source_of_new(STREAM, 300));
    house.hold(&house.source_of_new(OTHER, 300));
    let source = HeldSource::new(house.desk(), true);
    let next = || source.next(Limits { records_max: 1, ..LIMITS }).unwrap();
    let until_ms = Some(house.clock.wall_ms() + 60_000);
    let origin = next().unwrap().job.origin;
    let log = origin.log;
    let streams = [STREAM, OTHER].map(|stream| house.posts.log().stream(stream).unwrap());
    for stream in streams {
        assert!(source.put_off(log, stream, until_ms));
    }
    assert!(next().is_none() && !source.has_more());
    source.put_off(log, streams[0], None);
    let claimed: Vec<Claimed> = (0..300).map(|_| next().unwrap()).collect();
    assert!(claimed.iter().all(|claimed| claimed.job.origin.stream == streams[0]));
    assert!(!source.has_more(), "the other's are not read meanwhile");
    // It is put off again while one is tried; then all that was passed over comes.
    source.put_off(log, streams[0], until_ms);
    drop(claimed);
    assert!(next().is_none() && !source.has_more());
    streams.into_iter().for_each(|stream| _ = source.put_off(log, stream, None));
    let mut left = 0;
    while let Some(claimed) = next() {
        claimed.ticket.settle(&[], Settled::Delivered);
        left += 1;
    }
    assert_eq!(left, 600);
}

/// Before, the letter was looked for where it had lain before it moved, was not found there, and was kept again.
#[test]
fn a_post_whose_letter_moved_is_known_after_a_crash_though_its_former_place_found_no_room() {
    let disk = SimDisk::new(3);
    let house = WithPosts::on(&disk).unwrap();
    house.posts.log().append_wait(STREAM, vec![Payload { bytes: vec![0xff; 30], records: 1 }; 600]).unwrap();
    let letters = |claimed: &Claimed, offsets: &[u64], kind| -> Vec<Letter> {
        let stored = claimed.ticket.letters(offsets).unwrap();
        stored.into_iter().map(|stored| letter_of(stored, SPLIT, kind)).collect()
    };
    let claimed = house.source().next(LIMITS).unwrap().unwrap();
    let all: Vec<u64> = claimed.job.origin.offsets.clone().collect();
    assert_eq!(all.len(), 600);
    parked(&house.letters, letters(&claimed, &all, NOW)).unwrap();
    let even: Vec<u64> = all.into_iter().step_by(2).collect();
    let dead = letters(&claimed, &even, Kind::Dead);
    parked(&house.letters, dead.clone()).unwrap();
    drop((claimed, house));
    disk.process_kill();
    let house = WithPosts::on(&disk).unwrap();
    let sorted = || {
        let mut dead = letters_on(&house.desk(), Shelf::Dead);
        dead.sort_unstable();
        dead
    };
    assert_eq!(sorted(), even);
    // By an answer that came late.
    parked(&house.letters, dead).unwrap();
    assert_eq!(sorted(), even);
}
