//! Letters over a real log in memory: taken in, sent again, moved, let go, and found again after a crash.

use std::path::Path;

use bytes::Bytes;
use forebay::clock::ManualClock;
use forebay::disk::Disk;
use forebay::disk::mem::MemDisk;
use forebay::{
    Batch, BatchLimits, LogOptions, Payload, Queue, QueueOptions, ReplayFrom, ReplayMode, ReplayRequest, Start,
};

mod between;
mod crash;
mod late;
mod let_go;
mod marked;
mod policy;
mod posts;
mod unread;

use super::*;
use crate::delivery::parking::{Kind, LetterOrigin};
use crate::delivery::sheet::sheet;
use crate::delivery::sink::Environment;
use crate::delivery::source::{Claimed, Limits, Source, Stored};
use crate::sinks::sample;

const HOOK: &str = "hook";
const LIMITS: Limits = Limits { records_max: 1000, bytes_max: 1 << 20 };

/// A sidecar's log, queue and letters. Its disk outlives it.
struct House {
    disk: Arc<dyn Disk>,
    clock: ManualClock,
    queues: Queues,
    main: Queue,
    letters: Arc<Letters>,
}

impl House {
    fn new() -> Self {
        Self::on(Arc::new(MemDisk::new()), ManualClock::at(1_000_000)).unwrap()
    }

    fn on(disk: Arc<dyn Disk>, clock: ManualClock) -> Result<Self, BoxError> {
        let dyn_clock: Arc<dyn Clock> = Arc::new(clock.clone());
        let queues = Queues::open(
            Arc::clone(&disk),
            Arc::clone(&dyn_clock),
            Path::new("/data"),
            LogOptions::small(),
            QueueOptions::inline(),
        )?;
        let main = queues.queue(HOOK, "prod", Start::Earliest)?;
        let letters = Letters::open(queues.clone(), dyn_clock);
        Ok(Self { disk, clock, queues, main, letters })
    }

    /// As after a crash: what no tick has written down is forgotten.
    fn crash(self) -> Self {
        let Self { disk, clock, queues, main, letters } = self;
        drop((queues, main, letters));
        Self::on(disk, clock).unwrap()
    }

    fn tend(&self) {
        self.letters.tend(Now::of(&self.clock));
    }

    fn append(&self, records: u64) {
        self.try_append(records).unwrap();
    }

    fn try_append(&self, records: u64) -> Result<(), BoxError> {
        for part in sample::job(0..records).parts {
            let payload = Payload { bytes: part.payload.to_vec(), records: 10 };
            self.queues.log().append_wait("prod", vec![payload])?;
        }
        Ok(())
    }

    fn batch(&self, records_max: u64) -> Batch {
        self.main.next_batch(BatchLimits { records_max, bytes_max: u64::MAX }).unwrap().unwrap()
    }

    fn letter(&self, batch: &Batch, offset: u64, kind: Kind, reason: &str) -> Letter {
        let slice = batch.slices.iter().find(|slice| slice.offsets.contains(&offset)).unwrap();
        Letter {
            kind,
            destination: HOOK.into(),
            origin: LetterOrigin { log: self.queues.log().log_id(), stream: slice.frame.stream, offset },
            replay: 0,
            environment: Arc::new(Environment { id: "prod".to_owned(), name: "production".to_owned() }),
            payload: Bytes::copy_from_slice(slice.frame.payload()),
            index: (offset - slice.frame.first) as usize,
            reason: reason.to_owned(),
            excerpt: "excerpt".to_owned(),
            at_ms: self.clock.wall_ms(),
            attempts: 1,
        }
    }

    fn park(&self, letters: Vec<Letter>) {
        self.try_park(letters).unwrap();
    }

    fn try_park(&self, letters: Vec<Letter>) -> Result<(), BoxError> {
        parked(&self.letters, letters)
    }

    /// Takes so many records, of which those at `dead` become dead letters and the rest is delivered.
    fn deliver(&self, records: u64, dead: &[u64]) {
        let batch = self.batch(records);
        let letters = dead.iter().map(|&offset| self.letter(&batch, offset, Kind::Dead, "bad")).collect();
        self.park(letters);
        let parts: Vec<_> = dead.iter().map(|&offset| (offset..offset + 1, Settled::DeadLettered)).collect();
        self.main.settle_parts(&batch, &parts, Settled::Delivered);
    }

    fn desk(&self) -> Arc<Desk> {
        self.letters.desk(HOOK)
    }

    fn dead(&self) -> Vec<u64> {
        let page = self.desk().list(&Filter::default(), 0, usize::MAX).unwrap();
        page.letters.iter().map(|letter| letter.origin.offset).collect()
    }

    fn held(&self, alone: bool) -> HeldSource {
        HeldSource::new(self.desk(), alone)
    }

    fn sheet(&self) -> forebay::Balance {
        let queues: Vec<Queue> = self.queues.all().into_iter().filter(|queue| queue.replay().is_none()).collect();
        let balances: Vec<_> = queues.iter().map(|queue| (queue.stream_name(), queue.balance())).collect();
        let in_doubt = self.letters.in_doubt(HOOK);
        sheet(balances.iter().map(|(stream, balance)| (&**stream, *balance)), in_doubt)
    }
}

/// Has letters kept, and says what came of it.
fn parked(letters: &Letters, those: Vec<Letter>) -> Result<(), BoxError> {
    let (sent, heard) = std::sync::mpsc::sync_channel(1);
    letters.park(those, Box::new(move |result| sent.send(result).unwrap()));
    heard.recv().unwrap()
}

/// The letter that a record of a claimed batch becomes.
fn letter_of(stored: Stored, destination: &str, kind: Kind) -> Letter {
    Letter {
        kind,
        destination: destination.into(),
        origin: stored.origin,
        replay: stored.replay,
        environment: stored.environment,
        payload: stored.payload,
        index: stored.index,
        reason: "because".to_owned(),
        excerpt: String::new(),
        at_ms: 1,
        attempts: 1,
    }
}

/// The offsets of the records whose letters lie on a shelf.
fn letters_on(desk: &Desk, shelf: Shelf) -> Vec<u64> {
    let Some(shelves) = desk.shelves() else { return Vec::new() };
    let (mut walk, mut offsets) = (shelves.place(shelf).walk(0), Vec::new());
    while let Some(letters) = walk.next().unwrap() {
        offsets.extend(letters.into_iter().map(|(_, letter)| letter.offset));
    }
    offsets
}

fn offsets(claimed: &Claimed) -> Vec<u64> {
    claimed.job.runs().flat_map(|run| run.first..run.first + run.take as u64).collect()
}

fn next(source: &HeldSource) -> Option<Claimed> {
    source.next(LIMITS).unwrap()
}

/// Sends all that is due, and says which records that were.
fn send_all(source: &HeldSource) -> Vec<u64> {
    let mut sent = Vec::new();
    while let Some(claimed) = next(source) {
        sent.extend(offsets(&claimed));
        claimed.ticket.settle(&[], Settled::Delivered);
    }
    sent.sort_unstable();
    sent
}

fn all_redriven(desk: &Desk, filter: &Filter) -> u64 {
    let (mut from, mut done) = (Some(0), 0);
    while let Some(at) = from {
        let step = desk.redrive(filter, at).unwrap();
        (from, done) = (step.next, done + step.done);
    }
    done
}

#[test]
fn a_dead_letter_is_shown_redriven_under_its_id_and_delivered() {
    let house = House::new();
    house.append(20);
    house.deliver(20, &[3, 7]);
    let page = house.desk().list(&Filter::default(), 0, 10).unwrap();
    assert_eq!(page.next, None);
    let [three, seven] = &page.letters[..] else { panic!("{page:?}") };
    assert_eq!((three.origin.offset, seven.origin.offset), (3, 7));
    assert_eq!((three.reason.as_str(), three.flag.as_str(), three.environment.as_str()), ("bad", "checkout", "prod"));
    let only = Filter { ids: vec![seven.id.clone()], ..Filter::default() };
    assert_eq!(house.desk().redrive(&only, 0).unwrap(), Step { done: 1, next: None });
    assert_eq!(house.dead(), [3]);
    let balance = house.sheet();
    assert_eq!((balance.pending.records, balance.dead_lettered.records), (1, 1));

    let source = house.held(true);
    assert!(source.has_more());
    let claimed = next(&source).unwrap();
    assert_eq!(offsets(&claimed), [7]);
    assert_eq!(*claimed.job.id, *house.main.batch_id(7..8).unwrap());
    assert_eq!(claimed.job.environment.name, "production");
    drop(claimed); // it failed
    let again = next(&source).unwrap();
    assert_eq!((offsets(&again), &*again.job.id), (vec![7], &*house.main.batch_id(7..8).unwrap()));
    assert!(next(&source).is_none(), "it is in flight once");
    again.ticket.settle(&[], Settled::Delivered);
    assert!(!source.has_more() && next(&source).is_none());
    let balance = house.sheet();
    assert!(balance.closes());
    assert_eq!((balance.accepted.records, balance.delivered.records), (20, 19));
    assert_eq!((balance.pending.records, balance.dead_lettered.records), (0, 1));
}

#[test]
fn a_held_letter_leaves_when_its_time_has_come_and_holds_nobody_up() {
    let house = House::new();
    house.append(20);
    let batch = house.batch(20);
    let now = house.clock.wall_ms();
    let wait = |offset, ms| house.letter(&batch, offset, Kind::Held { not_before_ms: now + ms }, "quota");
    house.park(vec![wait(0, 60_000), wait(1, 30_000), wait(5, 30_000), wait(6, 60_000)]);
    house.main.settle_parts(&batch, &[(0..2, Settled::Held), (5..7, Settled::Held)], Settled::Delivered);
    let source = house.held(false);
    assert!(!source.has_more() && next(&source).is_none());
    house.clock.advance(Duration::from_secs(30));
    let claimed = next(&source).unwrap();
    assert_eq!(offsets(&claimed), [1, 5]);
    assert_eq!(claimed.job.origin.offsets, 1..6);
    claimed.ticket.settle(&[], Settled::Delivered);
    assert!(!source.has_more());
    house.clock.advance(Duration::from_secs(30));
    assert_eq!(send_all(&source), [0, 6]);
    assert_eq!((house.sheet().delivered.records, house.sheet().pending.records), (20, 0));
}

/// A machine that came up a month ahead, or in 1970, and was set right: nobody asked for a wait of a month.
#[test]
fn a_hold_of_a_clock_that_was_ahead_ends_when_the_clock_is_right_and_one_of_a_clock_behind_has_ended() {
    const MONTH: u64 = 30 * 24 * 3_600_000;
    let house = House::new();
    house.append(20);
    let batch = house.batch(20);
    let now = house.clock.wall_ms();
    let until = |offset, ms| house.letter(&batch, offset, Kind::Held { not_before_ms: ms }, "quota");
    house.park(vec![until(0, now + MONTH + 30_000), until(1, 30_000), until(2, now + 30_000), until(3, u64::MAX)]);
    house.main.settle_parts(&batch, &[(0..4, Settled::Held)], Settled::Delivered);
    assert_eq!(send_all(&house.held(false)), [0, 1, 3]);
    house.clock.advance(Duration::from_secs(30));
    assert_eq!(send_all(&house.held(false)), [2]);
    assert_eq!((house.sheet().delivered.records, house.sheet().pending.records), (20, 0));
}

#[test]
fn a_letter_whose_record_is_not_settled_yet_is_touched_by_nobody() {
    let house = House::new();
    house.append(10);
    let batch = house.batch(10);
    house.park(vec![
        house.letter(&batch, 2, Kind::Held { not_before_ms: 0 }, "quota"),
        house.letter(&batch, 3, Kind::Dead, "bad"),
    ]);
    assert!(next(&house.held(false)).is_none());
    assert_eq!(all_redriven(&house.desk(), &Filter::default()), 0);
    assert_eq!((house.sheet().pending.records, house.sheet().dead_lettered.records), (10, 0));
    house.main.settle_parts(&batch, &[(2..3, Settled::Held), (3..4, Settled::DeadLettered)], Settled::Delivered);
    house.clock.advance(Duration::from_secs(1));
    assert_eq!(send_all(&house.held(false)), [2]);
    assert_eq!(all_redriven(&house.desk(), &Filter::default()), 1);
}

#[test]
fn letters_that_are_parked_twice_are_kept_once() {
    let house = House::new();
    house.append(10);
    let batch = house.batch(10);
    let letter = house.letter(&batch, 4, Kind::Dead, "bad");
    house.park(vec![letter.clone()]);
    house.main.release(&batch);
    house.park(vec![letter.clone()]);
    assert_eq!(house.dead(), [4]);
    // The tick comes, then the crash: the batch is not settled, its letter is durable.
    house.queues.tick().unwrap();
    let house = house.crash();
    assert_eq!(house.dead(), [4]);
    let balance = house.sheet();
    assert!(balance.closes());
    assert_eq!((balance.pending.records, balance.dead_lettered.records), (9, 1), "settled where it came from");
    house.park(vec![letter]);
    assert_eq!(house.dead(), [4], "its batch comes again whole, and with it the letter");
}

#[test]
fn a_record_that_is_held_after_it_was_dead_lies_in_one_place() {
    let house = House::new();
    house.append(10);
    let batch = house.batch(10);
    house.park(vec![house.letter(&batch, 4, Kind::Dead, "bad")]);
    house.park(vec![house.letter(&batch, 4, Kind::Held { not_before_ms: 0 }, "quota")]);
    assert_eq!(house.dead(), [0; 0]);
    house.main.settle_parts(&batch, &[(4..5, Settled::Held)], Settled::Delivered);
    house.clock.advance(Duration::from_secs(1));
    let source = house.held(true);
    let claimed = next(&source).unwrap();
    // And from there it is held again, then dead again.
    let [stored] = &claimed.ticket.letters(&[4]).unwrap()[..] else { panic!("one letter") };
    assert_eq!(stored.origin.offset, 4);
    let again = |kind| Letter { origin: stored.origin, ..house.letter(&batch, 4, kind, "later") };
    let tomorrow = Kind::Held { not_before_ms: house.clock.wall_ms() + 86_400_000 };
    house.park(vec![again(tomorrow)]);
    // Others of its batch could not be kept, and all are tried again.
    assert_eq!(claimed.ticket.letters(&[4]).unwrap()[0].origin, stored.origin);
    house.park(vec![again(tomorrow)]);
    claimed.ticket.settle(&[(4..5, Settled::Held)], Settled::Delivered);
    assert!(next(&source).is_none());
    let balance = house.sheet();
    assert_eq!((balance.pending.records, balance.delivered.records, balance.dead_lettered.records), (1, 9, 0));
    assert_eq!(balance.accepted.records, 10);
}

/// Before: what a replay had made letters of was no more in the destination's sheet as soon as the replay was over.
#[test]
fn a_letter_that_a_replay_left_is_in_the_sheet_before_and_after_the_replays_end() {
    let house = House::new();
    house.append(10);
    house.deliver(10, &[]);
    house.queues.tick().unwrap();
    let request = ReplayRequest { from: ReplayFrom::Earliest, to: None, mode: ReplayMode::Again };
    let replay = house.queues.replay(HOOK, "prod", request).unwrap();
    let batch = replay.next_batch(BatchLimits { records_max: 10, bytes_max: u64::MAX }).unwrap().unwrap();
    house.park(vec![Letter { replay: 1, ..house.letter(&batch, 3, Kind::Dead, "bad") }]);
    replay.settle_parts(&batch, &[(3..4, Settled::DeadLettered)], Settled::Delivered);
    let told = || {
        let sheet = house.sheet();
        assert!(sheet.closes());
        (sheet.accepted.records, sheet.delivered.records, sheet.dead_lettered.records)
    };
    assert_eq!(told(), (11, 10, 1));
    house.queues.tick().unwrap();
    assert!(house.queues.replays().is_empty(), "it is over");
    assert_eq!(told(), (11, 10, 1));
    assert_eq!(all_redriven(&house.desk(), &Filter::default()), 1);
    assert_eq!(send_all(&house.held(false)), [3]);
    assert_eq!(told(), (11, 11, 0));
}

#[test]
fn scattered_letters_move_together_and_none_is_lost() {
    let house = House::new();
    house.append(1000);
    let dead: Vec<u64> = (0..1000).collect();
    for round in 0..10 {
        house.deliver(100, &dead[round * 100..(round + 1) * 100]);
    }
    // Every other one goes: five hundred settled ranges, were nothing moved.
    let page = house.desk().list(&Filter::default(), 0, usize::MAX).unwrap();
    let odd: Vec<String> = page.letters.iter().filter(|l| l.origin.offset % 2 == 1).map(|l| l.id.clone()).collect();
    let mut purged = 0;
    for ids in odd.chunks(100) {
        let step = house.desk().purge(&Filter { ids: ids.to_vec(), ..Filter::default() }, 0).unwrap();
        purged += step.done;
    }
    assert_eq!(purged, 500);
    let mut left = house.dead();
    left.sort_unstable();
    assert_eq!(left, (0..1000).step_by(2).collect::<Vec<u64>>());
    let ranges = house.queues.find(HOOK, "!dead/hook").unwrap().cursor().settled.len();
    assert!(ranges <= shelf::RANGES_MAX, "{ranges}");
    let balance = house.sheet();
    assert!(balance.closes());
    assert_eq!((balance.accepted.records, balance.dead_lettered.records, balance.purged.records), (1000, 500, 500));
    let house = {
        house.queues.tick().unwrap();
        house.crash()
    };
    assert_eq!(house.dead().len(), 500);
    assert_eq!(all_redriven(&house.desk(), &Filter::default()), 500);
    assert_eq!(send_all(&house.held(false)), left);
}

#[test]
fn a_destination_that_is_made_again_finds_no_letters_of_the_one_that_was_deleted() {
    let mut house = House::new();
    house.append(20);
    house.deliver(10, &[1, 2]);
    let batch = house.batch(10);
    house.park(vec![house.letter(&batch, 15, Kind::Held { not_before_ms: 0 }, "quota")]);
    house.main.settle_parts(&batch, &[(15..16, Settled::Held)], Settled::Delivered);
    house.queues.delete(HOOK, None).unwrap();
    house.letters.forget(HOOK);
    for restart in [false, true] {
        if restart {
            house = house.crash();
        }
        house.main = house.queues.queue(HOOK, "prod", Start::Now).unwrap();
        assert_eq!(house.dead(), [0; 0]);
        assert_eq!(send_all(&house.held(false)), [0; 0]);
        house.append(10);
        let first = house.main.cursor().low;
        house.deliver(10, &[first + 3]);
        assert_eq!(house.dead(), [first + 3]);
        house.queues.delete(HOOK, None).unwrap();
        house.letters.forget(HOOK);
    }
}

#[test]
fn letters_find_room_until_that_is_full_and_again_when_some_have_gone() {
    let house = House::new();
    let has = |bytes| house.letters.has_room(HOOK, bytes);
    house.append(20);
    house.deliver(20, &[3, 7]);
    assert!(has(u64::MAX - 1_000_000), "there is no bound");
    let held = house.desk().dead().bytes;
    house.desk().set_room(Some(held + 100));
    assert!(has(100) && !has(101));
    all_redriven(&house.desk(), &Filter::default());
    assert_eq!((house.desk().dead().records, has(101)), (0, false), "those that are sent again lie there still");
    let source = house.held(true);
    assert!(house.queues.find(HOOK, &source.stream()).is_some(), "it is shown under the name of its queue");
    assert_eq!(send_all(&source), [3, 7]);
    assert!(has(held + 101), "one finds room always");
}
