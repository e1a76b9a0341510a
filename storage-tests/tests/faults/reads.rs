//! A disk that does not read: an error that skips nothing, until an operator gives a place up.

use std::path::Path;

use forebay::disk::Disk;
use forebay::{GiveUpError, Item, OpenError, give_up};
use storage_tests::fault::{Failure, Fault, OpKind};
use storage_tests::scripts::script;
use storage_tests::workload::{DIR, End, Session};

use super::{ENDS, acked, session};

#[test]
fn a_failed_read_is_an_error_that_skips_nothing() {
    let mut session = session(5);
    for _ in 0..4 {
        acked(&mut session, "a", &[(1500, 2)]);
    }
    session.log().housekeep();
    let log = session.log();
    let mut reader = log.reader(log.stream("a").expect("known"), 0);
    session.disk.inject(Fault::every(OpKind::Read, Failure::Eio));
    for _ in 0..3 {
        assert!(reader.next().is_err());
        assert_eq!(reader.position(), 0);
    }
    session.disk.clear_faults();
    assert!(matches!(reader.next(), Ok(Some(Item::Frame(frame))) if frame.offsets() == (0..2)));
    session.model.check_live(log).expect("all is there");
}

/// As somebody leaves it who moves files under a log that is open. They may be brought back: it is no word of loss.
#[test]
fn a_segment_whose_file_is_gone_under_an_open_log_is_an_error_that_skips_nothing() {
    let mut session = session(5);
    for _ in 0..4 {
        acked(&mut session, "a", &[(1500, 2)]);
    }
    session.log().housekeep();
    session.end(End::Kill);
    session.try_open().expect("sealed segments are not read: of none a handle is kept");
    let first = Path::new("/log/0000000000000000.seg");
    let bytes = session.disk.read_live(first).expect("it is there");
    session.disk.erase(first);
    let log = session.log();
    let mut reader = log.reader(log.stream("a").expect("known"), 0);
    for _ in 0..3 {
        assert!(reader.next().is_err());
        assert_eq!((reader.position(), log.damages()), (0, vec![]));
    }
    session.disk.overwrite(first, &bytes);
    assert!(matches!(reader.next(), Ok(Some(Item::Frame(frame))) if frame.offsets() == (0..2)));
    session.model.check_live(log).expect("all is there");
}

#[test]
fn an_unreadable_disk_is_told_at_open_and_harms_nothing() {
    let mut session = session(6);
    for step in script() {
        session.act(&step).expect("a good disk");
    }
    for nth in 0..60 {
        let mut fork = session.fork(nth);
        fork.end(ENDS[nth as usize % 4]);
        fork.disk.inject(Fault::nth(
            [OpKind::Read, OpKind::Open, OpKind::List][nth as usize % 3],
            nth / 3,
            Failure::Eio,
        ));
        let _ = fork.try_open().map(|_| ());
        fork.end(ENDS[nth as usize / 4 % 4]);
        fork.disk.clear_faults();
        assert_eq!(fork.open(), Ok(true), "{nth}");
    }
}

/// An index says nothing that its segment does not: one that can't be read costs a scan, not the start and no record.
#[test]
fn a_log_opens_over_indexes_that_cannot_be_read_and_reads_the_segments_instead() {
    for seed in 0..12 {
        let mut session = session(seed);
        for step in script() {
            session.act(&step).expect("a good disk");
        }
        session.end(ENDS[seed as usize % 4]);
        let only = [".idx", "1.idx", "0.idx"][seed as usize % 3];
        session.disk.inject(Fault::every([OpKind::Read, OpKind::Open][seed as usize / 3 % 2], Failure::Eio).on(only));
        assert_eq!(session.open(), Ok(true), "seed {seed}: as promised, without the indexes");
        assert_eq!(session.log().damages(), [], "nothing is lost, so nothing is damage");
        session.disk.clear_faults();
        session.goes_on().expect("as promised");
        session.end(ENDS[seed as usize / 4 % 4]);
        assert_eq!(session.open(), Ok(true), "seed {seed}: and again, with them");
        session.goes_on().expect("as promised");
    }
}

#[test]
fn an_index_that_cannot_be_read_while_the_log_runs_is_made_again_from_its_segment() {
    let mut session = session(5);
    for _ in 0..4 {
        acked(&mut session, "a", &[(1500, 2)]);
    }
    session.log().housekeep();
    session.end(End::Kill);
    // Nothing is read and no housekeeping done before the fault: either would have looked into the index already.
    session.try_open().expect("a good disk");
    let log = session.log();
    session.disk.inject(Fault::every(OpKind::Read, Failure::Eio).on(".idx"));
    let mut reader = log.reader(log.stream("a").expect("known"), 0);
    assert!(matches!(reader.next(), Ok(Some(Item::Frame(frame))) if frame.offsets() == (0..2)));
    session.model.check_live(session.log()).expect("all is there");
    assert_eq!(session.log().damages(), []);
}

/// A log of three segments in a good disk's order, closed; the first holds the records 0..4 of "a".
fn closed(seed: u64) -> Session {
    let mut session = session(seed);
    for _ in 0..6 {
        acked(&mut session, "a", &[(1500, 2)]);
    }
    session.log().housekeep();
    session.log().close().expect("a good disk");
    session.end(End::Kill);
    session
}

/// What a reader of "a" meets, from the start to the durable tail.
fn met(session: &Session) -> Vec<(std::ops::Range<u64>, bool)> {
    let log = session.log();
    let mut reader = log.reader(log.stream("a").expect("known"), 0);
    let mut met = Vec::new();
    while let Some(item) = reader.next().expect("can be read") {
        met.push(match item {
            Item::Frame(frame) => (frame.offsets(), true),
            Item::Lost { offsets, .. } => (offsets, false),
        });
    }
    met
}

/// Before: a directory that was moved away for a moment made "lost", for good, of all that was waiting in it.
#[test]
fn a_directory_that_is_not_there_for_a_moment_is_an_error_that_skips_nothing() {
    let mut session = closed(10);
    session.try_open().expect("a good disk");
    let log = session.log();
    session.disk.inject(Fault::every(OpKind::Open, Failure::Os(2)).on("/log/0"));
    let mut reader = log.reader(log.stream("a").expect("known"), 0);
    for _ in 0..3 {
        reader.next().expect_err("nobody took it away");
        assert_eq!(reader.position(), 0);
    }
    session.disk.clear_faults();
    assert!(met(&session).iter().all(|(_, whole)| *whole), "it is back: all is there");
    assert_eq!(session.log().damages(), []);
}

#[test]
fn what_cannot_be_read_is_lost_when_the_operator_says_so_and_only_then() {
    let mut session = closed(8);
    let dir = Path::new(DIR);
    let first = session.disk.list(dir).expect("a good disk").into_iter().filter(|name| name.ends_with(".seg")).min();
    let first = first.expect("there are segments");
    session.disk.inject(Fault::every(OpKind::Read, Failure::Eio).on(&first));
    let mut pauses = 0;
    let places = give_up(&session.disk, dir, false, &mut || pauses += 1).expect("only looks");
    assert_eq!(places.len(), 1, "{places:?}");
    assert!(pauses >= 4, "a place is tried several times: {pauses}");

    // It stalls, for ever if it must: nothing is skipped, and it is told.
    session.try_open().expect("sealed segments are not read");
    let log = session.log();
    let mut reader = log.reader(log.stream("a").expect("known"), 0);
    for refused in 1..=100 {
        let error = reader.next().expect_err("can't be read");
        assert!(error.to_string().contains("(segment 0, position "), "{error}");
        assert_eq!((reader.position(), log.stats().reads_refused), (0, refused));
    }
    assert_eq!(log.stats().damages, 0);
    let locked = give_up(&session.disk, dir, true, &mut || {}).expect_err("the log is open");
    assert!(matches!(locked, GiveUpError::Disk(OpenError::Locked { .. })), "{locked}");
    session.disk.clear_faults();
    assert!(met(&session).iter().all(|(_, whole)| *whole), "the disk came back: all is there");
    session.end(End::Kill);

    // As long as the tries go on, and good again once it was written to.
    let blocks = places[0].positions.end.div_ceil(4096);
    session.disk.inject(Fault::nths(OpKind::Read, 0..5 * blocks, Failure::Eio).on(&first));
    assert_eq!(give_up(&session.disk, dir, true, &mut || {}).expect("given up"), places);
    session.try_open().expect("damage is no reason not to start");
    let all = (0..6).map(|n| (n * 2..n * 2 + 2, n >= 2)).collect::<Vec<_>>();
    assert_eq!(met(&session), all, "what lay there is lost, and everything else is served");
    assert!(session.log().stats().damages > 0, "named and counted");
}

/// Each place is tried as often as the first; only the time between the tries comes to an end.
#[test]
fn however_many_places_are_bad_the_pauses_between_the_tries_are_sixty_at_most() {
    let mut session = session(8);
    for _ in 0..40 {
        acked(&mut session, "a", &[(1500, 2)]);
    }
    session.log().close().expect("a good disk");
    session.end(End::Kill);
    session.disk.inject(Fault::every(OpKind::Read, Failure::Eio).on(".seg"));
    let (mut pauses, before) = (0, session.disk.struck());
    let places = give_up(&session.disk, Path::new(DIR), false, &mut || pauses += 1).expect("only looks");
    assert!(places.len() >= 20, "{}", places.len());
    assert_eq!((pauses, session.disk.struck() - before), (60, 5 * places.len() as u64));
}

#[test]
fn a_disk_that_reads_nothing_is_no_place_to_be_given_up() {
    let session = closed(9);
    session.disk.inject(Fault::every(OpKind::Read, Failure::Eio).on(".s"));
    let whole = give_up(&session.disk, Path::new(DIR), true, &mut || {}).expect_err("it is the disk");
    assert!(matches!(whole, GiveUpError::WholeDisk { .. }), "{whole}");
    session.disk.clear_faults();
    session.disk.inject(Fault::every(OpKind::Read, Failure::Os(24)).on(".s"));
    assert!(give_up(&session.disk, Path::new(DIR), true, &mut || {}).is_err(), "want of handles is nobody's place");
    session.disk.clear_faults();
    let mut session = session;
    assert_eq!(session.open(), Ok(true), "nothing was changed");
}

/// Rights and handles are not the disk's word about a place: there nothing is to be made of what can't be read.
#[test]
fn an_index_that_may_not_be_opened_stops_the_start() {
    let mut session = session(7);
    for step in script() {
        session.act(&step).expect("a good disk");
    }
    session.end(End::Kill);
    session.disk.inject(Fault::every(OpKind::Open, Failure::Os(24)).on(".idx"));
    assert!(session.try_open().is_err());
    session.disk.clear_faults();
    assert_eq!(session.open(), Ok(true));
}
