//! A named test for each way that was found in which a failed file, name or table could have cost a record.

use forebay::{AppendError, LogState};
use storage_tests::fault::{Failure, Fault, OpKind, Performed};
use storage_tests::sim_disk::PowerCut;
use storage_tests::workload::{End, Session, Step};

use super::{ENDS, acked, let_its_successor_go, refused, session};

/// Before: the stale number of a stream from a failed commit was given to another stream of the other class.
#[test]
fn a_streams_number_from_a_failed_commit_is_given_to_no_other_stream() {
    for seed in 0..10 {
        let mut session = session(seed);
        acked(&mut session, "a", &[(100, 1)]);
        acked(&mut session, "!dead/x", &[(100, 1)]);
        session.act(&Step::Inject(Fault::nth(OpKind::Sync, 0, Failure::NoSpace).on(".seg"))).expect("armed");
        session.act(&Step::Inject(Fault::every(OpKind::Rename, Failure::NoSpace))).expect("armed");
        session.act(&Step::Inject(Fault::every(OpKind::Create, Failure::NoSpace))).expect("armed");
        assert!(matches!(refused(&mut session, "new", &[(100, 1)]), AppendError::Full { .. }));
        acked(&mut session, "!dead/y", &[(100, 3)]);
        session.end(ENDS[seed as usize % 4]);
        session.disk.clear_faults();
        assert_eq!(session.open(), Ok(true), "seed {seed}");
        session.act(&Step::Heal).expect("healed");
        session.goes_on().expect("as promised");
    }
}

/// Before: what a failed sync left in the kernel's cache passed for durable after the process had been killed.
#[test]
fn what_a_failed_sync_left_in_the_cache_is_written_anew_before_it_is_served() {
    for seed in 0..20 {
        let mut session = session(seed);
        acked(&mut session, "a", &[(100, 1)]);
        session.act(&Step::Inject(Fault::every(OpKind::Sync, Failure::Eio))).expect("armed");
        session.act(&Step::Inject(Fault::every(OpKind::Create, Failure::Eio).on(".idx"))).expect("armed");
        assert!(matches!(refused(&mut session, "a", &[(1500, 2), (1500, 2)]), AppendError::ReadOnly { .. }));
        session.end(End::Kill);
        session.disk.clear_faults();
        assert_eq!(session.open(), Ok(true), "seed {seed}");
        assert_eq!(session.model.next("a"), 5, "the cache shows it");
        session.end(End::Cut(PowerCut::NothingUnsynced));
        assert_eq!(session.open(), Ok(true), "seed {seed}: what was served is gone");
    }
}

/// Before: a void segment that could not be removed came back when no segment before it was named by a header.
#[test]
fn a_void_first_segment_that_could_not_be_removed_stays_void() {
    for seed in 0..10 {
        let mut session = session(seed);
        // The frames, the emptying of the void segment, and the frames again.
        session.act(&Step::Inject(Fault::nths(OpKind::Sync, 0..3, Failure::Eio).on(".seg"))).expect("armed");
        session.act(&Step::Inject(Fault::every(OpKind::Remove, Failure::Eio))).expect("armed");
        refused(&mut session, "a", &[(100, 5)]);
        session.act(&Step::Heal).expect("healed");
        session.log().housekeep();
        acked(&mut session, "a", &[(60, 2)]);
        session.end(ENDS[seed as usize % 4]);
        assert_eq!(session.open(), Ok(true), "seed {seed}");
    }
}

/// Before: a segment's name that could be neither made durable nor removed kept the log read-only for ever.
#[test]
fn a_name_that_a_failure_left_behind_is_in_nobodys_way() {
    let mut session = session(1);
    session.act(&Step::Inject(Fault::every(OpKind::Create, Failure::Eio).on("spare"))).expect("armed");
    acked(&mut session, "a", &[(3000, 1)]);
    session.act(&Step::Inject(Fault::every(OpKind::SyncDir, Failure::Eio))).expect("armed");
    session.act(&Step::Inject(Fault::every(OpKind::Remove, Failure::Eio))).expect("armed");
    acked(&mut session, "a", &[(600, 1)]);
    refused(&mut session, "a", &[(3000, 1)]);
    session.act(&Step::Heal).expect("healed");
    session.act(&Step::Inject(Fault::every(OpKind::Create, Failure::Eio).on("spare"))).expect("armed");
    session.log().housekeep();
    assert_eq!(session.log().state(), LogState::Serving);
    acked(&mut session, "a", &[(3000, 1)]);
}

/// Before: where the first table of a fresh log was torn, the next one was written over the only good copy.
#[test]
fn the_logs_id_outlives_every_tear_of_its_tables() {
    for bytes in [0, 10, 70] {
        let mut session = session(1);
        session.end(End::Kill);
        session.disk.overwrite("/log/streams.0".as_ref(), b"torn");
        assert_eq!(session.open(), Ok(true));
        let id = session.log().log_id();
        // Both are sound again: the other one may be torn next.
        session.end(End::Kill);
        session.disk.overwrite("/log/streams.1".as_ref(), b"torn");
        assert_eq!(session.open(), Ok(true));
        assert_eq!(session.log().log_id(), id);
        session.log().raise_next("new", 3);
        session.disk.crash_at(session.disk.ops() + 1, Performed::Bytes(bytes)); // the first finds that the file is there
        session.log().housekeep();
        session.end(End::Cut(PowerCut::Everything));
        session.model.raise("new", 0);
        session.try_open().expect("opens");
        assert_eq!(session.log().log_id(), id, "after {bytes} bytes");
    }
}

/// Before: a name from a commit that was torn behind it was taken for durable, and the records that followed were not
/// found under it.
#[test]
fn a_stream_whose_first_append_was_torn_behind_its_name_keeps_the_name() {
    for ahead in 0..12 {
        let mut session = session(ahead);
        session.ends.clear();
        acked(&mut session, "a", &[(100, 1)]);
        session.disk.crash_at(session.disk.ops(), Performed::Bytes(64));
        refused(&mut session, "new", &[(100, 1)]);
        session.end(End::Cut(PowerCut::Everything));
        assert_eq!(session.open(), Ok(true));
        assert!(session.log().stream("new").is_some(), "its name landed");
        session.disk.crash_at(session.disk.ops() + ahead, Performed::Nothing);
        let _ = session.append("new", &[(100, 1)]).expect("right offsets");
        session.end(End::Cut(PowerCut::NothingUnsynced));
        assert_eq!(session.open(), Ok(true), "{ahead} changes on");
    }
}

/// Before: what stayed of a void segment that could not be removed was void only as long as its successor was kept.
#[test]
fn a_void_segment_that_could_not_be_removed_outlives_no_header_that_says_so() {
    for seed in 0..8 {
        let mut session = session(seed);
        acked(&mut session, "a", &[(100, 5)]);
        // The frames, the emptying of the void segment, and the frames again.
        session.act(&Step::Inject(Fault::nths(OpKind::Sync, 0..3, Failure::Eio).on(".seg"))).expect("armed");
        session.act(&Step::Inject(Fault::every(OpKind::Remove, Failure::Eio))).expect("armed");
        refused(&mut session, "!plans", &[(3700, 1)]);
        session.act(&Step::Heal).expect("healed");
        acked(&mut session, "a", &[(3700, 1)]);
        acked(&mut session, "!plans", &[(3600, 1)]);
        session.trim("a", 0);
        (0..3).for_each(|_| session.log().housekeep());
        session.end(ENDS[seed as usize % 4]);
        assert_eq!(session.open(), Ok(true), "seed {seed}");
    }
}

#[test]
fn what_lies_behind_a_failed_files_end_never_competes_with_what_was_written_again() {
    for seed in 0..20 {
        let mut session = session(seed);
        acked(&mut session, "a", &[(100, 1)]);
        // No index is ever written: the next segment's header alone says where the failed one ends.
        session.act(&Step::Inject(Fault::every(OpKind::Create, Failure::Eio).on(".idx"))).expect("armed");
        session.act(&Step::Inject(Fault::nths(OpKind::Sync, 0..2, Failure::Eio).on(".seg"))).expect("armed");
        // Nor can the one between be removed, in which nothing was ever acknowledged.
        session.act(&Step::Inject(Fault::every(OpKind::Remove, Failure::Eio))).expect("armed");
        refused(&mut session, "a", &[(700, 2), (700, 2)]);
        session.log().housekeep();
        assert_eq!(session.log().state(), LogState::Serving);
        acked(&mut session, "a", &[(500, 3)]);
        session.end(ENDS[seed as usize % 4]);
        session.disk.clear_faults();
        assert_eq!(session.open(), Ok(true), "seed {seed}");
        session.act(&Step::Heal).expect("healed");
        session.goes_on().expect("as promised");
    }
}

/// Before: a segment whose index was torn counted as sealed when headers were read, and what its successor's header says
/// of its end was not heard: a refused append came back at offsets given to another.
#[test]
fn what_a_failed_file_let_out_late_stays_hidden_when_its_index_is_damaged_after_its_successor_went() {
    for reopened in [false, true] {
        let mut session = session(1);
        acked(&mut session, "quiet", &[(100, 1)]);
        session.act(&Step::Inject(Fault::nths(OpKind::Sync, 0..2, Failure::Eio).on(".seg"))).expect("armed");
        refused(&mut session, "a", &[(700, 20)]);
        session.log().housekeep();
        acked(&mut session, "a", &[(500, 2)]);
        session.disk.clear_faults();
        if reopened {
            session.end(End::Kill);
            assert_eq!(session.open(), Ok(true));
        }
        (0..4).for_each(|_| acked(&mut session, "b", &[(3000, 1)]));
        session.trim("a", 0);
        session.trim("b", 1);
        (0..3).for_each(|_| session.log().housekeep());
        session.end(End::Kill);
        session.disk.overwrite("/log/0000000000000000.idx".as_ref(), b"damaged");
        session.act(&Step::Heal).expect("all that was promised is there, and nothing else");
        acked(&mut session, "a", &[(10, 1)]);
    }
}

/// Before: where its header could not be read for a moment when the log was opened it was not cut, and that it had failed was forgotten.
/// Its successor went before it, and a damaged index let out what the failed file held behind its end.
#[test]
fn a_failed_segment_that_a_start_could_not_cut_keeps_the_one_that_names_its_end() {
    for nth in 0..4 {
        let mut session = session(1);
        // So much that it is not compacted.
        acked(&mut session, "quiet", &[(3_000, 1)]);
        session.act(&Step::Inject(Fault::nths(OpKind::Sync, 0..2, Failure::Eio).on(".seg"))).expect("armed");
        refused(&mut session, "a", &[(700, 20)]);
        session.log().housekeep();
        acked(&mut session, "a", &[(500, 2)]);
        session.disk.clear_faults();
        session.end(End::Kill);
        session.disk.inject(Fault::nth(OpKind::Read, nth, Failure::Eio).on("0000000000000000.seg"));
        let _ = session.open();
        let_its_successor_go(&mut session);
        session.end(End::Kill);
        session.disk.overwrite("/log/0000000000000000.idx".as_ref(), b"damaged");
        session.act(&Step::Heal).unwrap_or_else(|told| panic!("read {nth}: {told}"));
    }
}

/// Before: one more than the greatest number there is was asked for, and the start panicked.
#[test]
fn a_strangers_file_with_a_number_that_no_log_reaches_is_in_nobodys_way() {
    let great = "ffffffffffffffff";
    let names = ["seg", "sys", "idx", "new"].map(|kind| format!("{great}.{kind}"));
    let compact = format!("{great}.0000000000000000-{great}.seg");
    for name in names.into_iter().chain([compact, format!("spare-{}", u64::MAX)]) {
        let path = std::path::Path::new("/log").join(&name);
        let mut session = session(1);
        acked(&mut session, "a", &[(3700, 1)]);
        session.end(End::Kill);
        session.disk.overwrite(&path, b"a stranger's");
        for _ in 0..2 {
            assert_eq!(session.open(), Ok(true), "{name}");
            (0..3).for_each(|_| acked(&mut session, "a", &[(3700, 1)]));
            session.log().housekeep();
            session.end(End::Kill);
        }
        assert_eq!(session.disk.read_live(&path).as_deref(), Some(&b"a stranger's"[..]), "{name}");
    }
    // Behind these there would be numbers, and what has them would pass for a stranger's.
    for name in ["0001000000000000.seg", "0000800000000000.idx", "spare-281474976710656"] {
        let mut session = session(1);
        session.end(End::Kill);
        session.disk.overwrite(&std::path::Path::new("/log").join(name), b"a stranger's");
        let told = session.try_open().map(drop).expect_err("it would lose what it takes").to_string();
        assert!(told.contains("go on from the files in"), "{name}: {told}");
    }
}

/// The disk works again, and what is given again goes out when the header before it is synced.
fn given_again_behind_a_durable_cut(mut session: Session, stream: &str) {
    session.disk.start_trace();
    session.act(&Step::Heal).expect("healed");
    session.log().housekeep();
    acked(&mut session, stream, &[(100, 1)]);
    assert_eq!(header_and_frames(&session), HEADER_FIRST, "{stream}");
}

/// Before: of our own streams an offset that had failed was given again in a segment whose header, which cuts the failed one off,
/// went out together with the frames. A power cut could leave the frames of both, and no cut.
#[test]
fn an_offset_that_failed_is_given_again_only_behind_a_durable_cut() {
    for stream in ["a", "!dead/x"] {
        let mut session = session(1);
        acked(&mut session, stream, &[(100, 1)]);
        session.act(&Step::Inject(Fault::every(OpKind::Sync, Failure::Eio))).expect("armed");
        refused(&mut session, stream, &[(100, 1)]);
        given_again_behind_a_durable_cut(session, stream);
    }
}

/// Before: not where the segment that failed was the first of its class.
#[test]
fn what_failed_first_of_all_is_given_again_only_behind_a_durable_header() {
    let mut session = session(1);
    session.act(&Step::Inject(Fault::every(OpKind::Sync, Failure::Eio))).expect("armed");
    refused(&mut session, "!dead/x", &[(100, 1)]);
    given_again_behind_a_durable_cut(session, "!dead/x");
}

/// Before: the header that cuts a failed segment off was synced, and then its segment was void because the frames failed as well.
/// The next one's header took that for done.
#[test]
fn a_cut_that_went_with_a_void_segment_is_made_again() {
    for stream in ["a", "!dead/x"] {
        let mut session = session(1);
        acked(&mut session, stream, &[(100, 1)]);
        // The frames, but not the header behind them; then the frames that are written again, and all that follows.
        for nths in [0..1, 2..u64::MAX] {
            session.act(&Step::Inject(Fault::nths(OpKind::Sync, nths, Failure::Eio).on("/log/0"))).expect("armed");
        }
        refused(&mut session, stream, &[(100, 1)]);
        given_again_behind_a_durable_cut(session, stream);
    }
}

const HEADER_FIRST: [OpKind; 4] = [OpKind::Write, OpKind::Sync, OpKind::Write, OpKind::Sync];

/// What was done since the trace began to the segment that took the last frame.
fn header_and_frames(session: &Session) -> Vec<OpKind> {
    let mut ops = session.disk.take_trace();
    ops.retain(|op| matches!(op.kind, OpKind::Write | OpKind::Sync));
    let segment = ops.iter().rfind(|op| op.bytes > 100).expect("the frame was written").path.clone();
    ops.retain(|op| op.path == segment);
    let mut kinds: Vec<OpKind> = ops.into_iter().map(|op| op.kind).collect();
    kinds.dedup();
    kinds
}
