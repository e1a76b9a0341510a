//! The log on a disk that fails: at every change of a script, and in the ways that have a story.

use forebay::disk::Disk;
use forebay::{AppendError, GiveUpError, Item, LogOptions, LogState, OpenError, give_up};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use storage_tests::crash_points::number;
use storage_tests::fault::{Failure, Fault, OpKind, Performed};
use storage_tests::rng::Rng;
use storage_tests::sim_disk::PowerCut;
use storage_tests::workload::{DIR, End, Session, Step, script, tiny};

const ENDS: [End; 4] =
    [End::Kill, End::Cut(PowerCut::NothingUnsynced), End::Cut(PowerCut::Everything), End::Cut(PowerCut::RandomSubset)];

fn session(seed: u64) -> Session {
    let mut session = Session::new(seed, tiny());
    assert_eq!(session.open(), Ok(true));
    session
}

fn acked(session: &mut Session, stream: &str, parts: &[(usize, u32)]) {
    session.append(stream, parts).expect("right offsets").expect("taken");
}

fn refused(session: &mut Session, stream: &str, parts: &[(usize, u32)]) -> AppendError {
    session.append(stream, parts).expect("right offsets").expect_err("the disk is broken")
}

/// Plays the script on a disk with these faults, heals it, ends the life, and checks; then a second life on the good disk.
fn through(seed: u64, faults: &[Fault], end: End) -> Result<(), String> {
    let mut session = Session::new(seed, tiny());
    session.ends.clear();
    session.open()?;
    for fault in faults {
        session.act(&Step::Inject(fault.clone()))?;
    }
    for step in script() {
        session.act(&step)?;
    }
    session.disk.clear_faults();
    session.act(&Step::Heal)?;
    session.log().housekeep();
    session.log().housekeep();
    if session.log().state() != LogState::Serving {
        return Err(format!("the disk is good again and the log says {:?}", session.log().state()));
    }
    session.act(&Step::Read)?;
    let mut other = session.fork(seed);
    other.end(end);
    other.open().map_err(|e| format!("right after it was healed: {e}"))?;
    session.goes_on()?;
    session.act(&Step::Append("a", vec![(5000, 5)]))?;
    session.end(end);
    session.open().map_err(|e| format!("after a second life: {e}"))?;
    session.goes_on()
}

fn reported(case: &str, run: impl FnOnce() -> Result<(), String>) {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(Ok(())) => {}
        Ok(Err(why)) => panic!("{case}: {why}"),
        Err(_) => panic!("{case}: a panic, see above"),
    }
}

fn changes() -> u64 {
    let mut session = session(1);
    for step in script() {
        session.act(&step).expect("a good disk");
    }
    session.disk.ops()
}

#[test]
fn a_failure_of_any_change_loses_nothing_and_passes_when_the_disk_is_good_again() {
    let mut cases = 0;
    for op in 0..changes() {
        for (i, failure) in [Failure::Eio, Failure::NoSpace, Failure::ShortWrite].into_iter().enumerate() {
            let end = ENDS[(op as usize + i) % ENDS.len()];
            reported(&format!("{failure:?} at change {op}, {end:?}"), || {
                through(op * 4 + i as u64, &[Fault::at_op(op, failure)], end)
            });
            cases += 1;
        }
    }
    println!("{cases} cases");
}

#[test]
fn a_disk_that_is_bad_for_a_while_loses_nothing_and_the_log_comes_back() {
    let (seed, cases) = (number("FOREBAY_SEED", 1), 100 * number("FOREBAY_CUTS", 2));
    let changes = changes() as usize;
    let kinds = [OpKind::Write, OpKind::Sync, OpKind::SyncDir, OpKind::Create, OpKind::Rename, OpKind::Remove];
    for case in 0..cases {
        let seed = seed.wrapping_mul(1000) + case;
        let mut rng = Rng::new(seed);
        let failure = [Failure::Eio, Failure::NoSpace, Failure::ShortWrite, Failure::Os(30)][rng.below(4)];
        let from = rng.below(changes) as u64;
        let fault = match rng.below(3) {
            0 => Fault::in_ops(from..from + 1 + rng.below(40) as u64, failure),
            1 => {
                let nth = rng.below(40) as u64;
                Fault::nths(kinds[rng.below(kinds.len())], nth..nth + 1 + rng.below(20) as u64, failure)
            }
            _ => {
                let part = [".seg", ".sys", ".idx", "streams", "spare"][rng.below(5)];
                let nth = rng.below(20) as u64;
                Fault::nths(kinds[rng.below(kinds.len())], nth..nth + 1 + rng.below(6) as u64, failure).on(part)
            }
        };
        let end = ENDS[rng.below(ENDS.len())];
        reported(&format!("FOREBAY_SEED case {seed}: {fault:?}, {end:?}"), || through(seed, &[fault], end));
    }
}

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
        session.act(&Step::Inject(Fault::nths(OpKind::Sync, 0..2, Failure::Eio).on(".seg"))).expect("armed");
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

#[test]
fn any_part_of_a_failed_syncs_bytes_may_survive_the_next_power_cut() {
    // Two groups of two appends' worth: the failed sync's sectors are decided by the seed, and every single sector of
    // what is unsynced at the cut is tried alone and alone missing.
    let mut cases = 0;
    for seed in 0..6 {
        for fails in 1..4 {
            let mut session = session(seed);
            acked(&mut session, "a", &[(700, 3)]);
            session.act(&Step::Inject(Fault::nths(OpKind::Sync, 0..fails, Failure::Eio).on(".seg"))).expect("armed");
            let answer = session.append("a", &[(900, 2), (900, 2)]).expect("right offsets");
            assert_eq!(answer.is_ok(), fails == 1, "a fresh segment takes it");
            session.act(&Step::Heal).expect("healed");
            let torn = session.fork(seed);
            for life in 0..2 {
                if life == 1 {
                    session.log().housekeep();
                    session.log().housekeep();
                    session.disk.crash_at(session.disk.ops() + 1, Performed::Nothing);
                    let _ = session.append("a", &[(800, 1), (800, 1)]).expect("right offsets");
                }
                let before = if life == 0 { torn.fork(seed) } else { session.fork(seed) };
                let dirty = before.disk.dirty_sectors();
                let each = (0..dirty).flat_map(|n| [PowerCut::OnlySector(n), PowerCut::AllButSector(n)]);
                for cut in
                    each.chain([PowerCut::NothingUnsynced, PowerCut::Everything]).chain([PowerCut::RandomSubset; 8])
                {
                    cases += 1;
                    let mut fork = before.fork(cases);
                    fork.end(End::Cut(cut));
                    assert_eq!(fork.open(), Ok(true), "seed {seed}, {fails} fail, life {life}, {cut:?}");
                    fork.goes_on().expect("as promised");
                }
            }
        }
    }
    println!("{cases} cases");
}

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

/// Before: what stayed of a void segment that could not be removed was void only as long as its successor was kept.
#[test]
fn a_void_segment_that_could_not_be_removed_outlives_no_header_that_says_so() {
    for seed in 0..8 {
        let mut session = session(seed);
        acked(&mut session, "a", &[(100, 5)]);
        session.act(&Step::Inject(Fault::nths(OpKind::Sync, 0..2, Failure::Eio).on(".seg"))).expect("armed");
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
