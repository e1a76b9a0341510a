//! A failure of any change of a script, for a moment or a while, and any part of what a failed sync left.

use std::panic::{AssertUnwindSafe, catch_unwind};

use forebay::{LogOptions, LogState};
use storage_tests::crash_points::number;
use storage_tests::fault::{Failure, Fault, OpKind, Performed};
use storage_tests::rng::Rng;
use storage_tests::scripts::{large_script, script};
use storage_tests::sim_disk::PowerCut;
use storage_tests::workload::{End, Session, Step, tiny, tiny_steps};

use super::{ENDS, acked, session};

/// What is played, and in which geometry.
type Play = (fn() -> Vec<Step>, fn() -> LogOptions);

const USUAL: Play = (script, tiny);
const LARGE: Play = (large_script, tiny_steps);

/// Plays the script on a disk with these faults, heals it, ends the life, and checks; then a second life on the good disk.
fn through((script, options): Play, seed: u64, faults: &[Fault], end: End) -> Result<(), String> {
    let mut session = Session::new(seed, options());
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
    session.check_budget()?;
    let mut other = session.fork(seed);
    other.end(end);
    other.open().and_then(|_| other.check_budget()).map_err(|e| format!("right after it was healed: {e}"))?;
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

fn changes((script, options): Play) -> u64 {
    let mut session = Session::new(1, options());
    assert_eq!(session.open(), Ok(true));
    for step in script() {
        session.act(&step).expect("a good disk");
    }
    session.disk.ops()
}

#[test]
fn a_failure_of_any_change_loses_nothing_and_passes_when_the_disk_is_good_again() {
    fail_at_any_change(USUAL);
}

#[test]
fn a_failure_of_any_change_beside_large_appends_loses_nothing_and_passes() {
    fail_at_any_change(LARGE);
}

fn fail_at_any_change(play: Play) {
    let mut cases = 0;
    for op in 0..changes(play) {
        for (i, failure) in [Failure::Eio, Failure::NoSpace, Failure::ShortWrite].into_iter().enumerate() {
            let end = ENDS[(op as usize + i) % ENDS.len()];
            reported(&format!("{failure:?} at change {op}, {end:?}"), || {
                through(play, op * 4 + i as u64, &[Fault::at_op(op, failure)], end)
            });
            cases += 1;
        }
    }
    println!("{cases} cases");
}

#[test]
fn a_disk_that_is_bad_for_a_while_loses_nothing_and_the_log_comes_back() {
    be_bad_for_a_while(USUAL);
}

#[test]
fn a_disk_that_is_bad_while_large_appends_are_written_loses_nothing_and_the_log_comes_back() {
    be_bad_for_a_while(LARGE);
}

fn be_bad_for_a_while(play: Play) {
    let (seed, cases) = (number("FOREBAY_SEED", 1), 100 * number("FOREBAY_CUTS", 2));
    let changes = changes(play);
    (0..cases).for_each(|case| a_bad_while(play, changes, seed.wrapping_mul(1000) + case));
}

fn a_bad_while(play: Play, changes: u64, seed: u64) {
    let kinds = [OpKind::Write, OpKind::Sync, OpKind::SyncDir, OpKind::Create, OpKind::Rename, OpKind::Remove];
    let mut rng = Rng::new(seed);
    let failure = [Failure::Eio, Failure::NoSpace, Failure::ShortWrite, Failure::Os(30)][rng.below(4)];
    let from = rng.below(changes as usize) as u64;
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
    reported(&format!("FOREBAY_SEED case {seed}: {fault:?}, {end:?}"), || through(play, seed, &[fault], end));
}

/// Before: a compact segment whose name was not durable, since the sync of the directory had failed, and could not be taken back
/// either, was believed at the next start: what it replaced went, and the next power cut took its name.
#[test]
fn a_compact_segment_found_beside_what_it_replaces_has_a_sure_name_before_that_goes() {
    for play in [USUAL, LARGE] {
        a_bad_while(play, changes(play), 7667);
    }
}

/// Before: a segment that could not be made left its name behind, a start gave its number to a compact one, and the power cut that
/// brought the name back had the compact one's records lost.
#[test]
fn a_name_that_comes_back_beside_a_compact_segment_of_its_number_takes_nothing_from_it() {
    for (play, seed, syncs, failure, end) in [
        (LARGE, 7131, 9..26, Failure::Eio, End::Cut(PowerCut::RandomSubset)),
        (USUAL, 7235, 15..26, Failure::ShortWrite, End::Cut(PowerCut::NothingUnsynced)),
    ] {
        let fault = Fault::nths(OpKind::SyncDir, syncs, failure);
        reported(&format!("{seed}"), || through(play, seed, &[fault], end));
    }
}

/// Before: each file that a disk which takes no changes refused to make counted as one that it does not let go, one more each
/// round, until what is kept for replay went for it.
#[test]
fn what_could_not_be_made_on_a_disk_that_takes_no_changes_takes_no_room() {
    let mut session = session(1);
    acked(&mut session, "a", &[(700, 3)]);
    let used = session.log().stats().bytes_used;
    for kind in [OpKind::Create, OpKind::Write, OpKind::Sync, OpKind::Rename, OpKind::Remove] {
        session.act(&Step::Inject(Fault::nths(kind, 0..100_000, Failure::Os(30)))).expect("armed");
    }
    for _ in 0..50 {
        let _ = session.append("a", &[(900, 2)]).expect("right offsets");
        session.log().housekeep();
    }
    assert!(session.log().stats().bytes_used <= used, "{} of {used}", session.log().stats().bytes_used);
    session.act(&Step::Heal).expect("healed");
    session.goes_on().expect("as promised");
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
