//! A disk that takes nothing, or nothing more: said at once, and over without a restart.

use std::path::Path;

use forebay::disk::Disk;
use forebay::{AppendError, LogOptions, LogState};
use storage_tests::fault::{Failure, Fault, OpKind, Performed};
use storage_tests::scripts::script;
use storage_tests::sim_disk::PowerCut;
use storage_tests::workload::{DIR, End, Session, Step, tiny};

use super::{ENDS, acked, refused, session};

#[test]
fn a_disk_that_never_syncs_makes_the_log_read_only_until_it_does() {
    let mut session = session(3);
    acked(&mut session, "a", &[(900, 3)]);
    session.act(&Step::Inject(Fault::every(OpKind::Sync, Failure::Eio))).expect("armed");
    assert!(matches!(refused(&mut session, "a", &[(50, 1)]), AppendError::ReadOnly { .. }));
    assert!(matches!(refused(&mut session, "!plans", &[(50, 1)]), AppendError::ReadOnly { .. }));
    session.log().housekeep();
    assert!(matches!(session.log().state(), LogState::ReadOnly { .. }), "the disk is still bad");
    session.model.check_live(session.log()).expect("reading goes on");
    session.act(&Step::Heal).expect("healed");
    session.log().housekeep();
    assert_eq!(session.log().state(), LogState::Serving);
    // From here on a power cut at any change finds no offset given twice.
    for ahead in 0..40 {
        let mut later = session.fork(ahead);
        later.end(End::Kill);
        assert_eq!(later.open(), Ok(true));
        later.disk.crash_at(later.disk.ops() + ahead, Performed::Nothing);
        for i in 0..4 {
            let _ = later.append("a", &[(1000 + i, 2)]).expect("right offsets");
        }
        later.end(End::Cut([PowerCut::NothingUnsynced, PowerCut::RandomSubset][ahead as usize % 2]));
        assert_eq!(later.open(), Ok(true), "{ahead} changes on");
    }
    acked(&mut session, "a", &[(50, 1)]);
    session.goes_on().expect("as promised");
}

#[test]
fn a_full_disk_still_takes_the_plans_that_drain_it_and_ingest_comes_back_without_restart() {
    let mut session = Session::new(4, forebay::LogOptions { reserve_segments: 2, ..tiny() });
    assert_eq!(session.open(), Ok(true));
    acked(&mut session, "a", &[(1000, 4)]);
    session.log().housekeep();
    session.act(&Step::Capacity(40 << 10)).expect("small");
    let mut taken = 0;
    while session.append("a", &[(1000, 4)]).expect("right offsets").is_ok() {
        taken += 1;
        assert!(taken < 100, "the disk is full");
    }
    assert!(matches!(session.log().state(), LogState::Full { .. }));
    assert!(matches!(refused(&mut session, "b", &[(10, 1)]), AppendError::Full { .. }));
    session.log().housekeep();
    assert!(matches!(session.log().state(), LogState::Full { .. }), "nothing was freed");
    // A batch still needs its plan: the reserve takes it.
    for _ in 0..10 {
        acked(&mut session, "!plans", &[(40, 1)]);
    }
    acked(&mut session, "!dead/x", &[(400, 1)]);
    session.trim("a", 0);
    session.log().housekeep();
    session.log().housekeep();
    assert_eq!(session.log().state(), LogState::Serving, "what was delivered has made room");
    acked(&mut session, "a", &[(1000, 4)]);
    let mut cut = session.fork(1);
    cut.end(End::Cut(PowerCut::NothingUnsynced));
    assert_eq!(cut.open(), Ok(true), "a full disk is no reason not to start");
    session.act(&Step::Heal).expect("healed");
    session.goes_on().expect("as promised");
}

/// Before: a quota was taken for a broken disk, and nobody touched the reserve.
#[test]
fn a_quota_is_a_full_disk() {
    let mut session = Session::new(4, forebay::LogOptions { reserve_segments: 2, ..tiny() });
    assert_eq!(session.open(), Ok(true));
    acked(&mut session, "a", &[(1000, 4)]);
    session.log().housekeep();
    for kind in [OpKind::Create, OpKind::Allocate] {
        session.act(&Step::Inject(Fault::every(kind, Failure::Os(122)))).expect("armed");
    }
    let mut taken = 0;
    while session.append("a", &[(1000, 4)]).expect("right offsets").is_ok() {
        taken += 1;
        assert!(taken < 100, "the quota is used up");
    }
    assert!(matches!(session.log().state(), LogState::Full { .. }), "{:?}", session.log().state());
    for _ in 0..10 {
        acked(&mut session, "!plans", &[(40, 1)]);
    }
    session.trim("a", 0);
    session.log().housekeep();
    session.act(&Step::Heal).expect("healed");
    session.log().housekeep();
    acked(&mut session, "a", &[(1000, 4)]);
    session.goes_on().expect("as promised");
}

#[test]
fn a_full_disk_is_no_reason_not_to_start() {
    for seed in 0..8 {
        let mut session = session(seed);
        for step in script().iter().take(16 + seed as usize * 2) {
            session.act(step).expect("a good disk");
        }
        session.disk.set_capacity(0);
        session.end(ENDS[seed as usize % 4]);
        assert_eq!(session.open(), Ok(true), "seed {seed}");
        session.end(End::Cut(PowerCut::NothingUnsynced));
        assert_eq!(session.open(), Ok(true), "seed {seed}");
        session.disk.set_capacity(1 << 40);
        session.log().housekeep();
        session.goes_on().expect("as promised");
    }
}

/// Before: the log said "serving" until the first append was refused.
#[test]
fn a_log_that_opens_on_a_full_or_broken_disk_says_so_before_the_first_append() {
    for seed in 0..4 {
        let mut session = session(seed);
        acked(&mut session, "a", &[(1000, 4)]);
        session.end(ENDS[seed as usize]);
        session.disk.set_capacity(0);
        drop_spares(&session);
        assert_eq!(session.open(), Ok(true));
        assert!(matches!(session.log().state(), LogState::Full { .. }), "{:?}", session.log().state());
        refused(&mut session, "a", &[(10, 1)]);
        session.disk.clear_faults();
        session.disk.set_capacity(1 << 40);
        session.log().housekeep();
        assert_eq!(session.log().state(), LogState::Serving);
        session.end(End::Kill);

        drop_spares(&session);
        session.disk.inject(Fault::every(OpKind::Create, Failure::Eio).on("spare"));
        session.try_open().expect("it can be read");
        assert!(matches!(session.log().state(), LogState::ReadOnly { .. }), "{:?}", session.log().state());
        session.disk.clear_faults();
        session.log().housekeep();
        assert_eq!(session.log().state(), LogState::Serving);
        session.goes_on().expect("as promised");
    }
}

/// Takes away the room that was taken ahead, as a neighbour who fills the disk would have.
fn drop_spares(session: &Session) {
    let dir = Path::new(DIR);
    for name in session.disk.list(dir).expect("listed").iter().filter(|name| name.starts_with("spare")) {
        session.disk.remove(&dir.join(name)).expect("removed");
    }
    session.disk.sync_dir(dir).expect("synced");
}

/// A full log says so when it is opened, and takes appends again as soon as what fills it is trimmed.
#[test]
fn a_log_at_its_budget_says_so_at_open_and_serves_again_after_a_trim() {
    // Too small to be shared: then the last room is anybody's.
    let mut session = Session::new(3, LogOptions { budget_bytes: 64 << 10, ..tiny() });
    assert_eq!(session.open(), Ok(true));
    while session.append("a", &[(1500, 2)]).expect("right offsets").is_ok() {}
    session.end(End::Kill);
    assert_eq!(session.open(), Ok(true));
    assert!(matches!(session.log().state(), LogState::Full { .. }), "{:?}", session.log().state());
    session.trim("a", 0);
    session.log().housekeep();
    assert_eq!(session.log().state(), LogState::Serving);
    acked(&mut session, "a", &[(1500, 2)]);
    session.goes_on().expect("as promised");
}

/// Before: a spare that could not be renamed was forgotten, the reserve with it; and a log that came back on the reserve
/// said that it served, and refused all but our own streams.
#[test]
fn a_log_that_comes_back_on_its_reserve_says_that_it_is_full() {
    let mut session = session(1);
    session.log().housekeep();
    session.act(&Step::Capacity(4 << 10)).expect("full");
    acked(&mut session, "a", &[(3700, 1)]);
    session.act(&Step::Inject(Fault::nth(OpKind::Rename, 0, Failure::Eio))).expect("armed");
    refused(&mut session, "!plans", &[(400, 1)]);
    session.log().housekeep();
    assert!(matches!(session.log().state(), LogState::Full { .. }), "{:?}", session.log().state());
    acked(&mut session, "!plans", &[(400, 1)]);
}

/// Before: a disk without one free block kept everything: the full segment could not be sealed for want of room for its index,
/// nor could others go where the stream table had grown beyond its blocks.
#[test]
fn what_is_delivered_goes_from_a_disk_without_a_free_byte() {
    for new_streams in [0, 3] {
        let mut session = Session::new(4, LogOptions { reserve_segments: 2, ..tiny() });
        assert_eq!(session.open(), Ok(true));
        acked(&mut session, "a", &[(1000, 4)]);
        session.log().housekeep();
        let space = session.disk.space(Path::new(DIR)).expect("measured");
        session.disk.set_capacity(space.total - space.free);
        let mut taken = 0;
        while session.append("a", &[(1000, 4)]).expect("right offsets").is_ok() {
            taken += 1;
            assert!(taken < 100, "the disk is full");
        }
        for n in 0..new_streams {
            acked(&mut session, &format!("!dead/{n}"), &[(10, 1)]);
        }
        session.trim("a", 0);
        (0..new_streams).for_each(|n| session.trim(&format!("!dead/{n}"), 0));
        (0..3).for_each(|_| session.log().housekeep());
        assert_eq!(session.log().state(), LogState::Serving, "{new_streams} new streams");
        acked(&mut session, "a", &[(1000, 4)]);
        session.act(&Step::Heal).expect("healed");
        session.goes_on().expect("as promised");
    }
}

/// The budget has room for what is taken ahead, and the disk has none: what is only kept for replay gives its files for it.
#[test]
fn what_is_taken_ahead_is_made_of_what_is_only_kept_for_replay_where_the_disk_has_no_room() {
    let replay_window = std::time::Duration::from_secs(3_600);
    let mut session = Session::new(4, LogOptions { reserve_segments: 2, replay_window, ..tiny() });
    assert_eq!(session.open(), Ok(true));
    for _ in 0..4 {
        acked(&mut session, "a", &[(3_700, 4)]);
        session.trim("a", 0);
        session.log().housekeep();
    }
    let spares = |session: &Session| {
        let names = session.disk.list(Path::new(DIR)).expect("listed");
        names.iter().filter(|name| name.starts_with("spare")).count()
    };
    assert_eq!((session.log().stats().segments, spares(&session)), (4, 3));
    let space = session.disk.space(Path::new(DIR)).expect("measured");
    session.act(&Step::Capacity(space.total - space.free)).expect("not a block is free");
    acked(&mut session, "a", &[(3_700, 4)]); // takes one of those
    session.log().housekeep();
    let stats = session.log().stats();
    assert!(stats.segments_reclaimed > 0, "{stats:?}");
    assert!(spares(&session) >= 3, "the reserve, and one more");
    assert_eq!((stats.state, stats.housekeeping_errors), (LogState::Serving, 0));
    session.check_budget().expect("what is there counts");
    session.act(&Step::Heal).expect("healed");
    session.goes_on().expect("as promised");
}
