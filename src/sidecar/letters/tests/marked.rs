//! Records that lie where they were given up: sent again by the loop, letters of their own when they are rejected then, and
//! let go by the policy for dead letters.

use std::ops::Range;

use forebay::{Balance, Cursor, Much};
use storage_tests::any_change::power_cut_at_any_change;
use storage_tests::sim_disk::SimDisk;

use super::crash::{NOW, Seen};
use super::*;
use crate::delivery::queued::Queued;
use crate::delivery::sheet::MARKED;

/// Records that wait where they were given up.
fn lying(desk: &Desk) -> u64 {
    desk.marked(&Filter::default()).iter().map(|range| range.count().records).sum()
}

impl House {
    /// The sheet with what was marked, and what is sent again of it.
    fn whole_sheet(&self) -> Balance {
        let mut books: Vec<(Arc<str>, Balance)> = Vec::new();
        for queue in self.queues.all().iter().filter(|queue| queue.replay().is_none() || queue.redrives().is_some()) {
            books.push((queue.stream_name(), queue.balance()));
            let (ranges, marked) = queue.marked();
            let again = queue.replay_under_way().and_then(|replay| replay.redrives()).unwrap_or_default();
            let waits = ranges.iter().filter(|range| !again.contains(&range.start)).map(forebay::MarkedRange::count);
            let pending = waits.fold(forebay::Count::default(), |sum, count| sum + count);
            books.push((MARKED.into(), Balance { pending, ..marked }));
        }
        sheet(books.iter().map(|(stream, balance)| (&**stream, *balance)), self.letters.in_doubt(HOOK))
    }
}

#[test]
fn what_is_sent_again_from_where_it_lies_may_become_a_letter_and_counts_once_all_the_while() {
    let house = House::new();
    house.append(30);
    assert_eq!(house.main.mark_oldest(Much::OlderThan(u64::MAX)).unwrap().records, 30);
    let told = |house: &House| {
        let sheet = house.whole_sheet();
        assert!(sheet.closes() && sheet.accepted.records == 30, "{sheet:?}");
        (sheet.pending.records, sheet.dead_lettered.records, sheet.delivered.records)
    };
    assert_eq!(told(&house), (0, 30, 0));
    let desk = house.desk();
    assert_eq!(desk.marked(&Filter { flag: Some("f".to_owned()), ..Filter::default() }), []);
    assert_eq!(desk.redrive_marked(&Filter::default()).unwrap(), Ranges { done: 30, waiting: 0 });
    assert_eq!((told(&house), lying(&desk)), ((30, 0, 0), 0));
    let environment = Arc::new(Environment { id: "prod".to_owned(), name: "production".to_owned() });
    let source = Queued::new(house.main.clone(), environment);
    let claimed = source.next(LIMITS).unwrap().unwrap();
    let stored = claimed.ticket.letters(&[7]).unwrap().remove(0);
    let letter = letter_of(stored, HOOK, Kind::Dead);
    assert_eq!(letter.replay, 1);
    house.park(vec![letter]);
    assert_eq!(told(&house), (30, 0, 0), "not settled yet");
    claimed.ticket.settle(&[(7..8, Settled::DeadLettered)], Settled::Delivered);
    let rest: u64 = std::iter::from_fn(|| source.next(LIMITS).unwrap())
        .map(|claimed| {
            let records = claimed.job.origin.offsets.end - claimed.job.origin.offsets.start;
            claimed.ticket.settle(&[], Settled::Delivered);
            records
        })
        .sum();
    assert!(rest < 30);
    assert_eq!(told(&house), (0, 1, 29));
    (0..3).for_each(|_| house.queues.tick().unwrap());
    assert_eq!((told(&house), house.queues.replays().len()), ((0, 1, 29), 0));
    drop((source, desk));
    let house = house.crash();
    assert_eq!((told(&house), house.dead()), ((0, 1, 29), vec![7]));
}

#[test]
fn the_policy_for_dead_letters_holds_for_what_lies_where_it_was_given_up() {
    let house = House::new();
    house.append(20);
    house.main.mark_oldest(Much::OlderThan(u64::MAX)).unwrap();
    house.clock.advance(Duration::from_secs(3_600));
    house.append(20);
    house.main.mark_oldest(Much::OlderThan(u64::MAX)).unwrap();
    house.tend();
    assert_eq!(lying(&house.desk()), 40, "nothing goes unless somebody said so");
    house.desk().set_policy(Policy { age_max: Some(Duration::from_secs(1_800)), bytes_max: None });
    house.tend();
    assert_eq!((lying(&house.desk()), house.main.marked().1.expired.records), (20, 20));
    house.desk().set_policy(Policy { age_max: None, bytes_max: Some(1) });
    house.tend();
    assert_eq!((lying(&house.desk()), house.main.marked().1.expired.records), (0, 40));
}

impl House {
    /// Everything of the destination's own queue and of what is sent again beside it.
    fn send_own(&self, seen: &mut Seen, fate: impl Fn(u64) -> Option<Kind>) -> Result<(), BoxError> {
        let environment = Arc::new(Environment { id: "prod".to_owned(), name: "production".to_owned() });
        let source = Queued::new(self.main.clone(), environment).with_apart(self.desk());
        self.send(&source, Limits { records_max: 7, ..LIMITS }, seen, fate)
    }

    /// Each record is in its queue, marked, sent again, a letter, or was let go of; and the sheet says the same.
    fn check_where_it_lies(&self, seen: &Seen) {
        let unsettled = |cursor: &Cursor, offsets: Range<u64>| -> Vec<u64> {
            offsets.filter(|offset| !cursor.is_settled(*offset)).collect()
        };
        let log = self.queues.log();
        let tail = log.stream("prod").map_or(0, |stream| log.durable(stream).offset);
        assert!(tail >= seen.appended, "acknowledged records are gone");
        let own = unsettled(&self.main.cursor(), 0..tail);
        let redrive = self.main.replay_under_way();
        let span = redrive.as_ref().and_then(Queue::redrives).unwrap_or_default();
        let again = redrive.map_or_else(Vec::new, |redrive| unsettled(&redrive.cursor(), span.clone()));
        let ranges = self.main.marked().0.into_iter().filter(|range| !span.contains(&range.start));
        let marked: Vec<u64> = ranges.flat_map(|range| range.start..range.end).collect();
        let (dead, held) = (letters_on(&self.desk(), Shelf::Dead), letters_on(&self.desk(), Shelf::Held));
        let mut places = [own.clone(), again.clone(), marked.clone(), dead.clone(), held.clone()].concat();
        places.sort_unstable();
        let where_ = format!("own {own:?}, again {again:?}, marked {marked:?}, dead {dead:?}, held {held:?}, {seen:?}");
        assert!(places.windows(2).all(|two| two[0] != two[1]), "twice: {where_}");
        let gone: Vec<u64> = (0..tail).filter(|offset| places.binary_search(offset).is_err()).collect();
        let known = |offset: &u64| seen.delivered.contains(offset) || seen.purged.contains(offset);
        assert!(gone.iter().all(known), "lost {gone:?}: {where_}");
        let sheet = self.whole_sheet();
        assert!(sheet.closes() && sheet.accepted.records == tail, "{sheet:?}: {where_}");
        let told = [sheet.pending, sheet.dead_lettered, sheet.delivered, sheet.purged].map(|count| count.records);
        let pending = own.len() + again.len() + held.len();
        assert_eq!(
            [told[0], told[1], told[2] + told[3]],
            [pending, marked.len() + dead.len(), gone.len()].map(|n| n as u64)
        );
    }
}

/// What is given up where it lies, sent again, made letters of, and let go. Ends at the first thing that the disk refuses.
fn life(house: &House, seen: &mut Seen) -> Result<(), BoxError> {
    let mark = || house.main.mark_oldest(Much::OlderThan(u64::MAX));
    house.try_append(20)?;
    seen.appended = 20;
    mark()?;
    house.try_append(10)?;
    seen.appended = 30;
    house.send_own(seen, |_| None)?;
    house.try_append(20)?;
    seen.appended = 50;
    mark()?;
    house.queues.tick()?;
    house.desk().redrive_marked(&Filter::default())?;
    house.send_own(seen, |offset| match offset {
        7 => Some(Kind::Dead),
        31 => Some(NOW),
        _ => None,
    })?;
    house.queues.tick()?;
    house.send_held(seen, |_| None)?;
    house.queues.tick()?;
    house.queues.tick()?;
    house.try_append(10)?;
    seen.appended = 60;
    mark()?;
    house.queues.tick()?;
    seen.purged.extend(50..60);
    house.desk().let_marked_go(&Filter::default(), Settled::Purged);
    house.queues.tick()?;
    Ok(())
}

#[test]
fn a_crash_at_any_change_leaves_what_lies_where_it_was_given_up_in_one_place() {
    let start = SimDisk::new(7);
    drop(House::on(Arc::new(start.clone()), ManualClock::at(1_000_000)).unwrap());
    let open = |disk: &SimDisk| House::on(Arc::new(disk.clone()), ManualClock::at(2_000_000));
    let run = |disk: &SimDisk, seen: &mut Seen| open(disk).and_then(|house| life(&house, seen));
    let changes = power_cut_at_any_change(&start.snapshot(), run, |disk, mut seen, _| {
        let house = open(disk).unwrap();
        house.check_where_it_lies(&seen);
        // And it goes on from there, until all that is left is delivered.
        for _ in 0..3 {
            house.send_own(&mut seen, |_| None).unwrap();
            house.check_where_it_lies(&seen);
            (0..3).for_each(|_| house.queues.tick().unwrap());
            house.check_where_it_lies(&seen);
            house.desk().redrive_marked(&Filter::default()).unwrap();
        }
        house.redrive_some(|_| true).unwrap();
        house.send_held(&mut seen, |_| None).unwrap();
        house.check_where_it_lies(&seen);
        let sheet = house.whole_sheet();
        assert_eq!((sheet.pending.records, sheet.dead_lettered.records), (0, 0), "{sheet:?}");
    });
    assert!(changes > 40, "{changes}: a life in which much is written");
}
