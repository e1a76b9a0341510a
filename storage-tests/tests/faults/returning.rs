//! Names that come back: a segment whose removal was lost, since a sync of the directory failed, is found again after a power cut,
//! when nothing says any more what it was.

use storage_tests::fault::{Failure, Fault, OpKind};
use storage_tests::sim_disk::PowerCut;
use storage_tests::workload::{End, Step};

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
