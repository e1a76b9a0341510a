//! What comes between the steps of a letter's way: loops that are cut off, replays, deletions, batches that are split.

use forebay::{ReplayFrom, ReplayMode, ReplayRequest};
use storage_tests::queues::out_of_memory;
use storage_tests::sim_disk::SimDisk;

use super::*;
use crate::delivery::queued::Queued;

impl House {
    /// The destination's own queue as its loop has it, and the replay of that.
    pub(super) fn source(&self) -> Queued {
        let environment = Arc::new(Environment { id: "prod".to_owned(), name: "production".to_owned() });
        Queued::new(self.main.clone(), environment).with_apart(self.desk())
    }
}

/// The records of a batch at `offsets` as letters.
pub(super) fn letters_of(claimed: &Claimed, offsets: &[u64], kind: Kind) -> Vec<Letter> {
    let stored = claimed.ticket.letters(offsets).unwrap();
    stored.into_iter().map(|stored| letter_of(stored, HOOK, kind)).collect()
}

pub(super) fn claimed(source: &dyn Source) -> Claimed {
    source.next(LIMITS).unwrap().unwrap()
}

/// A destination gets other settings while its letters are being kept. Before, its record was delivered and lay dead, too.
#[test]
fn a_record_whose_letter_a_cut_off_loop_left_is_not_sent_by_the_next_one() {
    let house = House::new();
    house.append(20);
    let source = house.source();
    let batch = claimed(&source);
    house.park(letters_of(&batch, &[3], Kind::Dead));
    house.park(letters_of(&batch, &[5], Kind::Held { not_before_ms: 0 }));
    let id = batch.job.id.clone();
    drop(batch); // cut off before it could settle
    assert_eq!(house.sheet().pending.records, 20);
    house.letters.catch_up(HOOK);
    let balance = house.sheet();
    assert_eq!((balance.pending.records, balance.dead_lettered.records), (19, 1));
    let again = claimed(&source);
    assert_eq!((&again.job.id, again.job.origin.offsets.clone()), (&id, 0..20), "the same batch");
    let sent: Vec<u64> = (0..20).filter(|offset| ![3, 5].contains(offset)).collect();
    assert_eq!(offsets(&again), sent);
    // Whoever takes it for dead all the same, by an answer that came late, keeps nothing twice.
    house.park(letters_of(&again, &[3], Kind::Dead));
    again.ticket.settle(&[], Settled::Delivered);
    house.tend();
    assert_eq!((house.dead(), send_all(&house.held(false))), (vec![3], vec![5]));
    let balance = house.sheet();
    assert!(balance.closes());
    assert_eq!((balance.delivered.records, balance.dead_lettered.records, balance.accepted.records), (19, 1, 20));
}

/// More letters that lie scattered than a cursor has ranges for. Before, a crash between these and their batch's end had
/// those sent again that found no room, while they lay dead.
#[test]
fn letters_for_which_a_cursor_has_no_room_are_not_sent_again_either() {
    let house = House::new();
    house.append(600);
    let batch = claimed(&house.source());
    let scattered: Vec<u64> = (0..600).filter(|offset| offset % 2 == 1).collect();
    for some in scattered.chunks(100) {
        house.park(letters_of(&batch, some, Kind::Dead));
    }
    drop(batch);
    let house = house.crash();
    let settled = |house: &House| house.main.cursor().settled_records();
    assert!((100..300).contains(&settled(&house)), "{}: there was room for some of them", settled(&house));
    let mut sent = Vec::new();
    let source = house.source();
    while let Some(again) = source.next(LIMITS).unwrap() {
        sent.extend(offsets(&again));
        again.ticket.settle(&[], Settled::Delivered);
    }
    assert_eq!(sent, (0..600).filter(|offset| offset % 2 == 0).collect::<Vec<_>>());
    assert_eq!(house.dead(), scattered);
    let balance = house.sheet();
    assert!(balance.closes());
    assert_eq!((balance.delivered.records, balance.dead_lettered.records, balance.pending.records), (300, 300, 0));
}

/// Before, the crash left a letter whose record the replay had not settled; it was kept a second time.
#[test]
fn a_record_that_a_replay_sends_becomes_one_letter_whatever_a_crash_comes_between() {
    let house = House::new();
    house.append(10);
    house.deliver(10, &[]);
    house.queues.tick().unwrap();
    let request = ReplayRequest { from: ReplayFrom::Earliest, to: None, mode: ReplayMode::Again };
    house.queues.replay(HOOK, "prod", request).unwrap();
    let (source, replay) = (house.source(), |house: &House| house.main.replay_under_way().unwrap());
    let batch = claimed(&source);
    let letters = letters_of(&batch, &[4, 6], Kind::Dead);
    assert_eq!(letters[0].replay, 1);
    house.park(letters.clone());
    // Nobody touches it before its record is settled there: it may come again from there.
    assert_eq!(all_redriven(&house.desk(), &Filter::default()), 0);
    house.queues.tick().unwrap();
    drop((batch, source));
    let house = house.crash();
    assert_eq!(house.dead(), [4, 6]);
    let cursor = replay(&house).cursor();
    assert!(cursor.is_settled(4) && cursor.is_settled(6) && !cursor.is_settled(5), "settled where it was taken out");
    let source = house.source();
    let mut sent = Vec::new();
    while let Some(again) = source.next(LIMITS).unwrap() {
        sent.extend(offsets(&again));
        house.park(letters.clone());
        again.ticket.settle(&[], Settled::Delivered);
    }
    assert_eq!((sent, house.dead()), (vec![0, 1, 2, 3, 5, 7, 8, 9], vec![4, 6]), "kept once");
    house.queues.tick().unwrap();
    assert!(house.queues.replays().is_empty());
    assert_eq!(all_redriven(&house.desk(), &Filter::default()), 2, "the replay is over, and they are anybody's");
    assert_eq!(send_all(&house.held(true)), [4, 6]);
}

/// Before, an operator who sent dead letters again while their destination was deleted left held ones, which the next
/// destination of that id would have got.
#[test]
fn the_letters_of_a_destination_that_goes_are_touched_by_nobody() {
    let house = House::new();
    house.append(10);
    let batch = claimed(&house.source());
    let late = letters_of(&batch, &[7], Kind::Dead);
    house.park(letters_of(&batch, &[3], Kind::Dead));
    batch.ticket.settle(&[(3..4, Settled::DeadLettered)], Settled::Delivered);
    house.letters.close(HOOK);
    let desk = house.desk();
    assert_eq!(desk.redrive(&Filter::default(), 0).unwrap(), Step::default());
    assert_eq!(desk.purge(&Filter::default(), 0).unwrap(), Step::default());
    assert!(house.try_park(late).is_err());
    assert!(house.queues.find(HOOK, "!held/hook").unwrap().lag().durable_tail == 0, "nothing was appended");
    // It did not go after all. Before, its letters were shown to nobody until a restart.
    house.letters.forget(HOOK);
    assert!(house.letters.desks().is_empty());
    house.letters.read(HOOK).unwrap();
    assert_eq!((house.letters.desks().len(), house.dead()), (1, vec![3]));
    assert_eq!(all_redriven(&house.desk(), &Filter::default()), 1);
}

#[test]
fn what_is_gone_is_not_kept_again_though_there_was_no_room_to_settle_it() {
    let house = House::new();
    house.append(10);
    let batch = claimed(&house.source());
    house.park(letters_of(&batch, &[3, 4], Kind::Held { not_before_ms: 0 }));
    batch.ticket.settle(&[(3..5, Settled::Held)], Settled::Delivered);
    house.clock.advance(Duration::from_secs(1));
    let source = house.held(false);
    let flight = claimed(&source);
    assert_eq!(offsets(&flight), [3, 4]);
    let shelves = house.desk();
    let shelves = shelves.shelves().unwrap();
    // As when 256 ranges lie above the low mark.
    shelves.state().flights.late(Shelf::Held, 0..1, Settled::DeadLettered);
    house.park(letters_of(&flight, &[3], Kind::Dead));
    assert_eq!(house.dead(), [0; 0], "it was moved before, by whoever found no room");
    drop(flight);
    assert_eq!(offsets(&claimed(&source)), [4], "nor is it sent again");
}

/// Before, the halves of letters that do not lie side by side came under other boundaries than the loop had noted.
#[test]
fn the_halves_of_a_held_batch_come_as_they_were_split_and_again_as_they_came() {
    let house = House::new();
    house.append(20);
    let batch = claimed(&house.source());
    house.park(letters_of(&batch, &[1, 5, 15], Kind::Held { not_before_ms: 0 }));
    let parts: Vec<_> = [1, 5, 15].map(|offset| (offset..offset + 1, Settled::Held)).into();
    batch.ticket.settle(&parts, Settled::Delivered);
    house.clock.advance(Duration::from_secs(1));
    let source = house.held(false);
    let whole = claimed(&source);
    assert_eq!(whole.job.origin.offsets, 1..16);
    whole.ticket.split(5, Box::new(|halved| halved.unwrap()));
    let [first, second] = [claimed(&source), claimed(&source)];
    let seen = |half: &Claimed| (half.job.origin.offsets.clone(), offsets(half));
    assert_eq!([seen(&first), seen(&second)], [(1..5, vec![1]), (5..16, vec![5, 15])]);
    assert!(next(&source).is_none());
    let id = second.job.id.clone();
    drop(second); // it failed
    assert!(source.has_more());
    let again = claimed(&source);
    assert_eq!((seen(&again), again.job.id.clone()), ((5..16, vec![5, 15]), id));
    first.ticket.settle(&[], Settled::Delivered);
    again.ticket.split(15, Box::new(|halved| halved.unwrap()));
    // Another loop makes its own batches.
    house.letters.catch_up(HOOK);
    assert_eq!(send_all(&house.held(true)), [5, 15]);
    assert_eq!(house.sheet().delivered.records, 20);
}

/// Before, whoever had found the desk in time worked on at it, beside the next one's: what was sent again was there twice.
#[test]
fn whoever_has_the_desk_of_a_destination_that_went_touches_no_letter_of_the_next_one() {
    let mut house = House::new();
    house.append(10);
    house.deliver(10, &[3]);
    let old = house.desk();
    house.letters.close(HOOK);
    house.queues.delete(HOOK, None).unwrap();
    house.letters.forget(HOOK);
    house.main = house.queues.queue(HOOK, "prod", Start::Now).unwrap();
    house.append(10);
    house.deliver(10, &[12, 14]);
    assert_eq!(old.redrive(&Filter::default(), 0).unwrap(), Step::default());
    assert_eq!(old.purge(&Filter::default(), 0).unwrap(), Step::default());
    assert_eq!((house.dead(), letters_on(&house.desk(), Shelf::Held)), (vec![12, 14], vec![]));
    assert_eq!(all_redriven(&house.desk(), &Filter::default()), 2);
    house.tend();
    assert_eq!((send_all(&house.held(true)), house.dead()), (vec![12, 14], vec![]));
}

/// Its letters lie in two frames, of which the first rots between the answer about one of them and the next attempt. Before, its
/// batch was kept for ever once the rest was taken: the letter had no place in it any more.
#[test]
fn a_batch_of_held_letters_that_damage_hits_behind_its_answer_settles_by_it() {
    let disk = SimDisk::new(1);
    let house = House::on(Arc::new(disk.clone()), ManualClock::at(1_000_000)).unwrap();
    house.append(10);
    let batch = house.batch(10);
    let held = |offset| house.letter(&batch, offset, Kind::Held { not_before_ms: 0 }, "over quota");
    house.park(vec![held(1), held(2)]);
    house.park(vec![held(3)]);
    house.main.settle_parts(&batch, &[(1..4, Settled::Held)], Settled::Delivered);
    house.clock.advance(Duration::from_secs(1));
    let source = house.held(false);
    let whole = claimed(&source);
    assert_eq!(offsets(&whole), [1, 2, 3]);
    drop(whole); // the answer sets 1 apart, and the rest comes again at once
    out_of_memory(house.queues.log());
    let (path, at) = disk
        .paths()
        .into_iter()
        .find_map(|path| Some((path.clone(), memchr::memmem::find(&disk.read_live(&path).unwrap(), b"over quota")?)))
        .unwrap();
    disk.flip_bit(&path, 8 * at as u64 + 3);
    let rest = claimed(&source);
    assert_eq!((offsets(&rest), rest.job.origin.offsets.clone()), (vec![3], 1..4));
    assert!(rest.ticket.letters(&[1]).unwrap().is_empty(), "there is nothing left to keep");
    rest.ticket.settle(&[(1..2, Settled::Lost)], Settled::Delivered);
    let books = house.sheet();
    assert_eq!((books.delivered.records, books.lost.records, books.pending.records), (8, 2, 0));
    assert!(books.closes() && next(&source).is_none());
}
