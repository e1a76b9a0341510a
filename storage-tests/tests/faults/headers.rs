//! Segments whose first sync a power cut forestalled: their frames came, and the header did not.

use storage_tests::fault::{OpKind, Performed};
use storage_tests::sim_disk::{Op, PowerCut, Rest};
use storage_tests::workload::{DIR, End, Session};

use std::ops::ControlFlow;
use std::path::Path;

use super::{acked, session};

fn is_sound(session: &Session, what: &str) {
    let seen =
        forebay::inspect(&session.disk, Path::new(DIR), |_| ControlFlow::Continue(())).expect("it can be looked at");
    assert!(seen.flaws.iter().all(|flaw| flaw.mended), "{what}: {:?}", seen.flaws);
}

/// Before: such a segment was kept, and what stood in the header's place was written anew with it. It passed for damaged as long as it
/// was there, and once its index was, too, a start told a loss where there was none.
#[test]
fn a_segment_that_is_kept_without_its_header_gets_one() {
    for before in [0, 1] {
        let fresh = || {
            let mut session = session(1);
            // So much that the next record has a segment of its own.
            (0..before).for_each(|_| acked(&mut session, "b", &[(3_700, 1)]));
            session
        };
        let mut traced = fresh();
        traced.disk.start_trace();
        acked(&mut traced, "a", &[(300, 1)]);
        let trace = traced.disk.take_trace();
        let of = |kind: OpKind, bytes: usize| {
            let fits =
                |op: &&Op| op.kind == kind && op.bytes == bytes && op.path.extension().is_some_and(|end| end == "seg");
            trace.iter().find(fits).unwrap_or_else(|| panic!("{kind:?}: {trace:?}")).op
        };
        let (header, sync) = (of(OpKind::Write, 128), of(OpKind::Sync, 0));

        let mut session = fresh();
        session.disk.crash_at(sync, Performed::Nothing);
        let _ = session.append("a", &[(300, 1)]).expect("right offsets");
        session.end(End::Cut(PowerCut::InWrite { op: header, from: 0, to: 0, rest: Rest::All }));
        assert_eq!(session.open(), Ok(true));
        session.log().housekeep();
        assert_eq!(session.log().stats().segments, before + 1, "it is kept");
        is_sound(&session, "after the start");
        (0..2).for_each(|_| acked(&mut session, "a", &[(3_700, 1)]));
        session.end(End::Kill);
        session.disk.overwrite(format!("/log/{before:016x}.idx").as_ref(), b"damaged");
        assert_eq!(session.open(), Ok(true), "no damage is told");
    }
}
