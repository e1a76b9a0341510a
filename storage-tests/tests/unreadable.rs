//! Small files that the disk refuses, to be read or to be written: whatever else is missing, they are no reason not to start, and
//! one of them keeps nothing else from being sealed and from going.

use forebay::clock::ManualClock;
use forebay::{Item, Log, OpenError, Payload};
use std::path::Path;
use std::sync::Arc;
use storage_tests::fault::{Failure, Fault, OpKind, Performed};
use storage_tests::queues::CUTS;
use storage_tests::sim_disk::SimDisk;
use storage_tests::workload::{End, Session, Step, tiny};

/// A log with a sealed segment and one that was being written to; its process was killed.
fn two_segments() -> Session {
    let mut session = Session::new(1, tiny());
    assert_eq!(session.open(), Ok(true));
    for len in [1_500, 1_500, 3_000] {
        session.act(&Step::Append("a", vec![(len, 5)])).expect("a good disk");
    }
    session.act(&Step::Housekeep).expect("a good disk");
    session.end(End::Kill);
    session
}

/// Before: from the first segment on that was not sealed the headers of all were read, of whichever class. One that the disk refused
/// stopped each start, though the segment was sealed and so was the one before it.
#[test]
fn an_unreadable_header_that_says_nothing_of_an_unsealed_segment_stops_no_start() {
    let mut session = Session::new(1, tiny());
    assert_eq!(session.open(), Ok(true));
    session.act(&Step::Append("!dead/x", vec![(10, 1)])).expect("a good disk");
    (0..4).for_each(|_| session.act(&Step::Append("a", vec![(3_700, 1)])).expect("a good disk"));
    session.act(&Step::Housekeep).expect("a good disk");
    session.end(End::Kill);
    session.disk.inject(Fault::every(OpKind::Read, Failure::Eio).on("0000000000000002.seg"));
    session.try_open().expect("it opens");
    session.end(End::Kill);
    session.disk.clear_faults();
    assert_eq!(session.open(), Ok(true));
}

/// The one behind a segment that is not sealed says where that ends. That is worth a start that waits.
#[test]
fn an_unreadable_header_that_says_where_a_segment_ends_stops_the_start() {
    let mut session = two_segments();
    session.disk.overwrite("/log/0000000000000000.idx".as_ref(), b"damaged");
    session.act(&Step::Append("a", vec![(3_700, 1)])).expect("nothing is open");
    session.disk.inject(Fault::every(OpKind::Read, Failure::Eio).on("0000000000000001.seg"));
    assert!(matches!(session.try_open().map(drop), Err(OpenError::Io { what: "read", .. })));
    session.disk.clear_faults();
    assert_eq!(session.open(), Ok(true));
}

fn refuse_indexes(disk: &SimDisk) {
    disk.inject(Fault::every(OpKind::Read, Failure::Eio).on(".idx"));
}

/// Before: an index whose segment is gone stopped the start when it could not be read.
#[test]
fn an_unreadable_index_without_its_segment_is_set_aside_and_told() {
    let mut session = two_segments();
    session.disk.erase("/log/0000000000000000.seg".as_ref());
    refuse_indexes(&session.disk);
    let log = session.try_open().expect("it opens").clone();
    assert!(log.damages().iter().any(|damage| damage.what.contains("can't be read")), "{:?}", log.damages());
    let mut reader = log.reader(log.stream("a").expect("it is known"), 0);
    assert!(matches!(reader.next(), Ok(Some(Item::Lost { offsets, .. })) if offsets == (0..10)));
    assert!(matches!(reader.next(), Ok(Some(Item::Frame(frame))) if frame.offsets() == (10..15)));
    session.disk.clear_faults();
    let kept = session.disk.paths().iter().any(|path| path.ends_with("0000000000000000.idx.bad"));
    assert!(kept, "somebody may be able to read it: {:?}", session.disk.paths());
}

/// An error that is no place's passes: what the index says of lost records is not given up for it, and nobody's log is guessed.
#[test]
fn an_index_that_cannot_be_opened_for_want_of_handles_ends_the_start_and_tells_all_when_there_are_some() {
    let first = "/log/0000000000000000";
    for tables_lost in [false, true] {
        let mut session = two_segments();
        let id = session.try_open().expect("it opens").log_id();
        session.end(End::Kill);
        if tables_lost {
            TABLES.into_iter().for_each(|table| session.disk.overwrite(table.as_ref(), b"damaged"));
        }
        session.disk.erase(format!("{first}.seg").as_ref());
        session.disk.inject(Fault::every(OpKind::Open, Failure::Os(24)).on(&format!("{first}.idx")));
        let refused = session.try_open().map(drop);
        let index = format!("{first}.idx");
        let is_told = matches!(&refused, Err(OpenError::Io { what: "read", path, .. }) if path.ends_with(&index[1..]));
        assert!(is_told, "{refused:?}");
        session.disk.clear_faults();
        let log = session.try_open().expect("it opens").clone();
        assert_eq!(log.log_id(), id);
        let mut reader = log.reader(log.stream("a").expect("it is known"), 0);
        assert!(matches!(reader.next(), Ok(Some(Item::Lost { offsets, .. })) if offsets == (0..10)));
        assert!(log.damages().iter().any(|damage| damage.what.contains("file is missing")), "{:?}", log.damages());
    }
}

/// Before: a second file of that name took the place of the one that was set aside first.
#[test]
fn what_is_set_aside_stays_when_another_one_is() {
    let mut session = two_segments();
    session.disk.erase("/log/0000000000000000.seg".as_ref());
    for aside in ["/log/0000000000000000.idx.bad", "/log/0000000000000000.idx.bad-2"] {
        let name = Path::new("/log/0000000000000000.idx");
        session.disk.overwrite(name, aside.as_bytes());
        refuse_indexes(&session.disk);
        session.try_open().expect("it opens");
        session.end(End::Kill);
        session.disk.clear_faults();
        assert_eq!(session.disk.read_live(Path::new(aside)).as_deref(), Some(aside.as_bytes()));
    }
    let first = Path::new("/log/0000000000000000.idx.bad");
    assert!(session.disk.read_live(first).is_some_and(|bytes| bytes.ends_with(b".bad")), "the first one");
}

/// Before: the opening looked for a name that is not there by opening one after the other, and where none of them could be opened
/// for another reason it never ended.
#[test]
fn a_name_for_what_is_set_aside_is_found_without_opening_any() {
    let mut session = two_segments();
    session.disk.erase("/log/0000000000000000.seg".as_ref());
    session.disk.overwrite("/log/0000000000000000.idx.bad".as_ref(), b"there already");
    refuse_indexes(&session.disk);
    session.disk.inject(Fault::every(OpKind::Open, Failure::Eio).on(".bad"));
    session.try_open().expect("it opens");
    session.disk.clear_faults();
    assert!(session.disk.read_live("/log/0000000000000000.idx.bad-2".as_ref()).is_some());
}

/// Before: with both stream tables damaged an index that could not be read stopped the start.
#[test]
fn with_both_tables_damaged_an_unreadable_index_has_no_vote_and_stops_nothing() {
    let mut session = two_segments();
    for table in ["/log/streams.0", "/log/streams.1"] {
        session.disk.overwrite(table.as_ref(), b"damaged");
    }
    refuse_indexes(&session.disk);
    assert_eq!(session.open(), Ok(true), "all of it is there");
    session.disk.clear_faults();
    session.goes_on().expect("as promised");
}

/// It has no vote either. Its index says all that a start needs of it.
#[test]
fn with_both_tables_damaged_an_unreadable_compact_segment_has_no_vote_and_stops_nothing() {
    let mut session = Session::new(1, tiny());
    assert_eq!(session.open(), Ok(true));
    for _ in 0..10 {
        session.act(&Step::Append("slow", vec![(200, 2)])).expect("a good disk");
        session.act(&Step::Append("fast", vec![(3_000, 1)])).expect("a good disk");
    }
    session.trim("fast", 0);
    (0..3).for_each(|_| session.log().housekeep());
    let id = session.log().log_id();
    assert!(session.log().stats().segments_compacted > 0);
    session.end(End::Kill);
    for table in TABLES {
        session.disk.overwrite(table.as_ref(), b"damaged");
    }
    let paths = session.disk.paths();
    let compact = paths.iter().find(|path| path.to_string_lossy().contains("-0")).expect("one is compact");
    session.disk.inject(Fault::every(OpKind::Read, Failure::Eio).on(&compact.to_string_lossy()));
    session.try_open().expect("it opens");
    assert_eq!((session.log().log_id(), session.log().damages()), (id, vec![]));
    session.disk.clear_faults();
    // The name of "fast" stood in the tables alone.
    let slow = storage_tests::reading::read(session.log(), "slow").expect("it reads");
    assert_eq!(slow.iter().filter(|seen| seen.frame.is_some()).count(), 10);
}

const TABLES: [&str; 2] = ["/log/streams.0", "/log/streams.1"];

/// Before: an unreadable copy stopped the start, though the other one had all that it said.
#[test]
fn a_copy_of_the_stream_table_that_cannot_be_read_is_written_anew_from_the_other() {
    for table in TABLES {
        // With the file, and with one whose place takes no writes either: then a new file takes its place.
        for kinds in [&[OpKind::Read][..], &[OpKind::Read, OpKind::Write]] {
            let mut session = two_segments();
            kinds.iter().for_each(|kind| session.disk.inject(Fault::every(*kind, Failure::Eio).on(table)));
            assert_eq!(session.open(), Ok(true), "{table}: all of it is there");
            assert!(session.log().stats().housekeeping_errors > 0, "and it is told");
            session.disk.clear_faults();
            let other = TABLES.into_iter().find(|other| *other != table).expect("there are two");
            session.end(End::Kill);
            session.disk.overwrite(other.as_ref(), b"damaged");
            assert_eq!(session.open(), Ok(true), "{table} says it all again");
            assert_eq!(session.log().damages(), []);
            session.goes_on().expect("as promised");
        }
    }
}

/// The next one to be written is the damaged one, so the good one is not the last of its kind for long.
#[test]
fn a_damaged_copy_of_the_stream_table_that_takes_no_writes_stays_for_now_beside_a_good_one() {
    for table in TABLES {
        let mut session = two_segments();
        session.disk.overwrite(table.as_ref(), b"damaged");
        for name in [table, ".new"] {
            session.disk.inject(Fault::every(OpKind::Write, Failure::Eio).on(name));
        }
        assert_eq!(session.open(), Ok(true), "{table}: all of it is there");
        session.disk.clear_faults();
        session.act(&Step::Append("late", vec![(100, 1)])).expect("the log is sound");
        session.log().housekeep();
        let other = TABLES.into_iter().find(|other| *other != table).expect("there are two");
        session.end(End::Kill);
        assert_eq!(session.open(), Ok(true));
        session.end(End::Kill);
        session.disk.overwrite(other.as_ref(), b"damaged");
        assert_eq!(session.open(), Ok(true), "{table} is sound again, and says it all");
        assert_eq!(session.log().damages(), []);
        session.goes_on().expect("as promised");
    }
}

/// What the tables say of streams that have no frame left stands nowhere else. An error may pass; what is made up stays.
#[test]
fn with_no_copy_of_the_stream_table_that_can_be_read_the_start_waits_for_a_disk_that_reads() {
    let mut session = two_segments();
    session.disk.inject(Fault::every(OpKind::Read, Failure::Eio).on("streams."));
    assert!(session.try_open().is_err());
    session.disk.clear_faults();
    assert_eq!(session.open(), Ok(true));
    session.goes_on().expect("as promised");
}

/// A look goes back in steps and may pass what it looks for: what it meets there is not in its way.
#[test]
fn an_index_that_cannot_be_read_keeps_nobody_from_a_record_behind_it() {
    const SEGMENTS: u64 = 16;
    let disk = SimDisk::new(1);
    let open = || {
        let (disk, clock) = (Arc::new(disk.clone()), Arc::new(ManualClock::at(1_000_000)));
        Log::open(disk, clock, Path::new("/log"), tiny()).expect("it opens")
    };
    let log = open();
    for _ in 0..SEGMENTS {
        log.append_wait("a", vec![Payload { bytes: vec![1; 3_000], records: 5 }]).expect("a good disk");
    }
    log.close().expect("a good disk");
    drop(log);
    for bad in 0..SEGMENTS - 1 {
        for behind in bad + 1..SEGMENTS {
            let log = open(); // nobody was anywhere yet
            disk.inject(Fault::every(OpKind::Open, Failure::Eio).on(&format!("{bad:016x}.idx")));
            let met = log.reader(log.stream("a").expect("known"), behind * 5 + 2).next();
            assert!(matches!(&met, Ok(Some(Item::Frame(frame))) if frame.first == behind * 5), "{bad}: {met:?}");
            disk.clear_faults();
        }
    }
}

/// Segments 0 to 4, of which the last one is written to; writes to these files fail.
fn five_segments(bad: &[&str]) -> Session {
    let mut session = Session::new(1, tiny());
    assert_eq!(session.open(), Ok(true));
    bad.iter().for_each(|name| session.disk.inject(Fault::every(OpKind::Write, Failure::Eio).on(name)));
    for _ in 0..5 {
        session.act(&Step::Append("a", vec![(3_000, 5)])).expect("a good disk");
    }
    session
}

fn is_there(disk: &SimDisk, name: &str) -> bool {
    disk.paths().iter().any(|path| path.ends_with(name))
}

/// Before: the first index that could not be written kept all later ones from being written, and with them every segment
/// from going.
#[test]
fn an_index_that_cannot_be_written_keeps_no_other_segment_from_being_sealed_and_from_going() {
    // Nor under another name: there is no index.
    let mut session = five_segments(&["0000000000000001.idx", "0000000000000001.new"]);
    session.log().housekeep();
    let written = |n: u64| is_there(&session.disk, &format!("{n:016x}.idx"));
    assert!(written(0) && written(2) && written(3), "{:?}", session.disk.paths());
    assert!(session.log().stats().housekeeping_errors > 0, "and it is told");
    session.trim("a", 0);
    (0..3).for_each(|_| session.log().housekeep());
    // The one, the one behind it, which names its end, and the one that is written to.
    assert_eq!(session.log().stats().segments, 3, "{:?}", session.disk.paths());
    session.disk.clear_faults();
    (0..3).for_each(|_| session.log().housekeep());
    assert_eq!(session.log().stats().segments, 1, "{:?}", session.disk.paths());
    session.goes_on().expect("as promised");
}

/// A place that was read and written no more: the index gets another file.
#[test]
fn an_index_that_can_neither_be_read_nor_rewritten_gets_another_file() {
    let mut session = five_segments(&[]);
    session.log().housekeep();
    session.end(End::Kill);
    let bad = "0000000000000001.idx";
    for kind in [OpKind::Read, OpKind::Write] {
        session.disk.inject(Fault::every(kind, Failure::Eio).on(bad));
    }
    assert_eq!(session.open(), Ok(true), "its segment is read instead");
    session.log().housekeep();
    session.disk.clear_faults();
    let path = Path::new("/log").join(bad);
    let durable = session.disk.read_durable(&path).expect("there");
    assert_eq!(session.disk.read_live(&path), Some(durable));
    assert!(!is_there(&session.disk, "0000000000000001.new"));
    session.end(End::Kill);
    assert_eq!(session.open(), Ok(true));
    session.goes_on().expect("as promised");
}

/// Before: with a slot of the stream table that could not be written no segment went any more.
#[test]
fn a_slot_of_the_stream_table_that_cannot_be_written_gets_another_file_and_segments_go() {
    for table in TABLES {
        let mut session = five_segments(&[]);
        session.disk.inject(Fault::every(OpKind::Write, Failure::Eio).on(table));
        session.act(&Step::Append("quiet", vec![(10, 7)])).expect("the log is sound");
        for _ in 0..4 {
            session.act(&Step::Append("a", vec![(3_000, 5)])).expect("the log is sound");
            ["a", "quiet"].iter().for_each(|stream| session.trim(stream, 0));
            session.log().housekeep();
        }
        assert!(session.log().stats().segments <= 2, "{table}: {:?}", session.disk.paths());
        session.disk.clear_faults();
        session.goes_on().expect("as promised");
    }
}

/// All that a file that takes no writes goes through until another one is in its place, cut at every change.
#[test]
fn a_crash_at_any_change_while_a_file_is_replaced_leaves_the_old_one_or_the_new_one() {
    for bad in ["0000000000000001.idx", "streams.0", "streams.1"] {
        let changes = {
            let mut session = with_a_bad_file(bad);
            let before = session.disk.ops();
            replace(&mut session);
            session.disk.ops() - before
        };
        assert!(changes > 8, "{bad}: {changes}");
        for (crash, cut) in (0..=changes).flat_map(|crash| CUTS.map(|cut| (crash, cut))) {
            for performed in [Performed::Nothing, Performed::All] {
                let mut session = with_a_bad_file(bad);
                session.disk.crash_at(session.disk.ops() + crash, performed);
                replace(&mut session);
                session.end(End::Cut(cut));
                let case = format!("{bad}, change {crash} {performed:?}, {cut:?}");
                // The place stays bad: to read an index as well.
                assert_eq!(session.open(), Ok(true), "{case}");
                session.disk.clear_faults();
                session.goes_on().unwrap_or_else(|e| panic!("{case}: {e}"));
                assert!(
                    !session.disk.paths().iter().any(|path| path.extension().is_some_and(|end| end == "new")),
                    "{case}"
                );
            }
        }
    }
}

/// What makes the file be written: a segment is full, and more of what there is may go.
fn replace(session: &mut Session) {
    session.act(&Step::Append("a", vec![(3_000, 5)])).expect("as far as the disk goes");
    session.trim("a", 5);
    session.log().housekeep();
}

/// Sealed once, trimmed in part; then one of its small files takes no writes any more, and of an index no reads.
fn with_a_bad_file(bad: &str) -> Session {
    let mut session = five_segments(&[]);
    session.act(&Step::Append("quiet", vec![(10, 7)])).expect("a good disk");
    session.log().housekeep();
    ["a", "quiet"].iter().for_each(|stream| session.trim(stream, 0));
    session.disk.inject(Fault::every(OpKind::Write, Failure::Eio).on(bad));
    if bad.ends_with("idx") {
        session.disk.inject(Fault::every(OpKind::Read, Failure::Eio).on(bad));
        session.end(End::Kill);
        assert_eq!(session.open(), Ok(true));
    }
    session
}
