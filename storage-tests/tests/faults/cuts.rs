//! Cuts that a start made and could not sync: the next one finds the file as short as it was to be, and a power cut would bring back
//! what was cut.

use std::path::Path;

use storage_tests::fault::{Failure, Fault, OpKind, Performed};
use storage_tests::sim_disk::{PowerCut, Rest};
use storage_tests::workload::{End, Step};

use super::{acked, let_its_successor_go, refused, session};

const FIRST: &str = "0000000000000000.seg";

/// Before: the second start took the cut that the first one could not sync for made, and let the segment that names the end go. After
/// a power cut the file was as long as before, and once its index was damaged, too, what had been refused was there.
#[test]
fn a_failed_segment_whose_cut_was_not_synced_is_cut_again() {
    for seed in 0..16 {
        let mut session = session(seed);
        acked(&mut session, "quiet", &[(3_000, 1)]);
        session.act(&Step::Inject(Fault::every(OpKind::Sync, Failure::Eio).on(FIRST))).expect("armed");
        session
            .act(&Step::Inject(Fault::nth(OpKind::Sync, 0, Failure::Eio).on("0000000000000001.seg")))
            .expect("armed");
        refused(&mut session, "a", &[(700, 20)]);
        session.log().housekeep();
        acked(&mut session, "a", &[(500, 2)]);
        session.end(End::Kill);
        let _ = session.open();
        let_its_successor_go(&mut session);
        session.end(End::Cut(PowerCut::NothingUnsynced));
        session.disk.overwrite("/log/0000000000000000.idx".as_ref(), b"damaged");
        session.act(&Step::Heal).unwrap_or_else(|told| panic!("seed {seed}: {told}"));
    }
}

/// Before: what was torn in a crash came back after a power cut, though a start had cut it, and the table said meanwhile that all of the
/// segment was synced: half an append was kept, and the other half told as damage.
#[test]
fn a_torn_append_whose_cut_was_not_synced_does_not_come_back_by_halves() {
    for seed in 0..16 {
        let mut session = session(seed);
        acked(&mut session, "a", &[(300, 1)]);
        let op = session.disk.ops();
        session.disk.crash_at(op, Performed::All);
        let _ = session.append("a", &[(200, 1), (200, 1)]).expect("right offsets");
        session.end(End::Cut(PowerCut::InWrite { op, from: 100, to: 4_000, rest: Rest::All }));
        session.act(&Step::Inject(Fault::nth(OpKind::Sync, 0, Failure::Eio).on(FIRST))).expect("armed");
        assert_eq!(session.open(), Ok(false), "seed {seed}");
        session.disk.process_kill();
        session.disk.clear_faults();
        assert_eq!(session.open(), Ok(true), "seed {seed}");
        session.end(End::Cut(PowerCut::NothingUnsynced));
        assert_eq!(session.open(), Ok(true), "seed {seed}");
    }
}

/// Its name may come back with a power cut, and what names its end have gone by then: it is cut before it goes, for good, also where that
/// could not be done when it was sealed.
#[test]
fn a_failed_segment_that_could_not_be_cut_is_cut_before_it_goes_and_becomes_no_spare() {
    let mut session = session(1);
    acked(&mut session, "a", &[(300, 1)]);
    let end = session.log().synced()[0].position;
    session.act(&Step::Inject(Fault::nth(OpKind::Sync, 0, Failure::Eio).on(FIRST))).expect("armed");
    session.act(&Step::Inject(Fault::every(OpKind::SetLen, Failure::Eio).on(FIRST))).expect("armed");
    acked(&mut session, "a", &[(700, 20)]); // in the next one
    session.log().housekeep();
    session.trim("a", 0);
    session.disk.clear_faults();
    let (first, len) = (Path::new("/log").join(FIRST), |bytes: Option<Vec<u8>>| bytes.map(|bytes| bytes.len() as u32));
    assert!(len(session.disk.read_live(&first)).is_some_and(|len| len > end), "it was not cut");
    // Nor now. And its name does not go: as a spare it would get another one.
    session.act(&Step::Inject(Fault::nth(OpKind::SetLen, 0, Failure::Eio).on(FIRST))).expect("armed");
    session.act(&Step::Inject(Fault::every(OpKind::Remove, Failure::Eio).on(FIRST))).expect("armed");
    session.log().housekeep();
    assert_eq!(len(session.disk.read_durable(&first)), Some(end));
    session.disk.clear_faults();
    session.log().housekeep();
    assert_eq!(session.disk.read_live(&first), None);
    session.goes_on().expect("as promised");
}
