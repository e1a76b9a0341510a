//! Names that come back: a segment whose removal was lost, since a sync of the directory failed, is found again after a power cut,
//! when nothing says any more what it was.

use std::time::Duration;
use storage_tests::fault::{Failure, Fault, OpKind};
use storage_tests::sim_disk::PowerCut;
use storage_tests::workload::{End, Session, Step};

use super::{acked, refused, session};

/// Before: only the name of a void segment was taken away. The sync behind that failed, the header that passed it over went with
/// its segment, and after a power cut the record that had been refused stood in the place of an acknowledged one.
#[test]
fn a_void_segment_whose_removal_was_lost_has_nothing_left_to_come_back_with() {
    for seed in 0..40 {
        let mut session = session(seed);
        acked(&mut session, "a", &[(3_700, 1)]);
        session.act(&Step::Inject(Fault::nth(OpKind::Sync, 0, Failure::Eio).on(".seg"))).expect("armed");
        session.act(&Step::Inject(Fault::nth(OpKind::SyncDir, 1, Failure::Eio))).expect("armed");
        refused(&mut session, "a", &[(700, 1)]);
        session.act(&Step::Heal).expect("healed");
        session.log().housekeep();
        (0..3).for_each(|_| acked(&mut session, "b", &[(3_700, 1)]));
        session.trim("b", 0);
        (0..3).for_each(|_| session.log().housekeep());
        acked(&mut session, "a", &[(500, 1)]);
        session.end(End::Cut(PowerCut::NothingUnsynced));
        assert_eq!(session.open(), Ok(true), "seed {seed}");
    }
}

/// Before: after a restart its number was given to a segment of the other class. When the name came back the two claimed one
/// number, and the acknowledged one was set aside.
#[test]
fn a_void_segment_whose_removal_was_lost_claims_nobodys_number() {
    for seed in 0..40 {
        let mut session = session(seed);
        acked(&mut session, "a", &[(3_700, 1)]);
        session.act(&Step::Inject(Fault::nth(OpKind::Sync, 0, Failure::Eio).on(".seg"))).expect("armed");
        session.act(&Step::Inject(Fault::nths(OpKind::SyncDir, 1..1_000, Failure::Eio))).expect("armed");
        refused(&mut session, "a", &[(700, 1)]);
        session.end(End::Kill);
        session.act(&Step::Heal).expect("healed");
        (0..2).for_each(|_| acked(&mut session, "!dead/x", &[(300, 1)]));
        session.end(End::Cut(PowerCut::NothingUnsynced));
        assert_eq!(session.open(), Ok(true), "seed {seed}: {:?}", session.disk.paths());
    }
}

/// Before: a failed segment that was compacted kept nothing from going any more, though it could not be cut. The header that hid its
/// late bytes went, and the next start took them for what was acknowledged.
#[test]
fn a_failed_segment_that_cannot_be_cut_is_not_compacted_and_keeps_the_one_that_names_its_end() {
    let mut session = session(1);
    acked(&mut session, "quiet", &[(100, 1)]);
    session.act(&Step::Inject(Fault::nths(OpKind::Sync, 0..2, Failure::Eio).on(".seg"))).expect("armed");
    refused(&mut session, "a", &[(700, 20)]);
    session.act(&Step::Inject(Fault::every(OpKind::SetLen, Failure::Eio).on("0000000000000000.seg"))).expect("armed");
    session.log().housekeep();
    acked(&mut session, "a", &[(500, 2)]);
    acked(&mut session, "b", &[(3_000, 1)]);
    // So much that it is not compacted.
    acked(&mut session, "a", &[(3_400, 1)]);
    (0..4).for_each(|_| acked(&mut session, "b", &[(3_700, 1)]));
    session.trim("b", 0);
    let rounds = |session: &mut Session| {
        for _ in 0..4 {
            session.act(&Step::Housekeep).expect("it keeps house");
            session.act(&Step::Advance(Duration::from_secs(1))).expect("it goes by");
        }
    };
    rounds(&mut session);
    session.trim("quiet", 0);
    session.trim("a", 1);
    rounds(&mut session);
    session.end(End::Kill);
    session.act(&Step::Heal).expect("what was refused is not there");
}

/// What failed is cut as soon as its index says where it ends, and from then on it is a segment like others.
#[test]
fn a_failed_segment_is_cut_when_it_is_sealed_and_keeps_nobody() {
    let path = "/log/0000000000000000.seg".as_ref();
    for end in super::ENDS {
        let mut session = session(1);
        acked(&mut session, "quiet", &[(3_300, 1)]);
        session.act(&Step::Inject(Fault::nth(OpKind::Sync, 0, Failure::Eio).on(".seg"))).expect("armed");
        acked(&mut session, "a", &[(300, 2)]);
        session
            .act(&Step::Inject(Fault::nth(OpKind::Sync, 0, Failure::Eio).on("0000000000000000.seg")))
            .expect("armed");
        let len = |session: &Session| session.disk.read_live(path).map_or(0, |bytes| bytes.len());
        session.act(&Step::Housekeep).expect("the cut fails");
        (0..3).for_each(|_| acked(&mut session, "b", &[(3_700, 1)]));
        ["a", "b"].iter().for_each(|stream| session.trim(stream, 0));
        session.act(&Step::Heal).expect("healed");
        assert!(len(&session) < 4 << 10, "{end:?}");
        session.act(&Step::Housekeep).expect("it keeps house");
        let successor = session.disk.read_live("/log/0000000000000001.seg".as_ref());
        assert!(successor.is_none(), "{end:?}: it names no end that is not known without it");
        session.end(end);
        session.act(&Step::Heal).unwrap_or_else(|told| panic!("{end:?}: {told}"));
    }
}
