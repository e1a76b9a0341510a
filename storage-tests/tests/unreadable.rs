//! Indexes that the disk refuses to read: whatever else is missing, they are no reason not to start.

use forebay::Item;
use storage_tests::fault::{Failure, Fault, OpKind};
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
