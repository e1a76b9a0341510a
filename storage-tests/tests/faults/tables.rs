//! Stream tables of which one or both turn out not to be there: what a failed sync lost the kernel still shows, until the power fails,
//! and a copy may rot.

use std::path::Path;
use std::sync::{Arc, Mutex};

use forebay::clock::ManualClock;
use forebay::{Log, LogOptions};
use storage_tests::fault::{Failure, Fault, OpKind, Performed};
use storage_tests::sim_disk::{PowerCut, SimDisk};
use storage_tests::workload::{End, Session, Step, tiny};

use super::{acked, session};

/// Before: the very first start failed in its sync of the directory. The next one found both tables by their names, and no
/// later sync made those durable: a power cut took them, and streams whose records had all been delivered began anew.
#[test]
fn the_names_of_tables_that_a_failed_start_left_to_chance_are_made_again() {
    for seed in 0..16 {
        let mut session = Session::new(seed, tiny());
        session.act(&Step::Inject(Fault::nth(OpKind::SyncDir, 0, Failure::Eio))).expect("armed");
        assert_eq!(session.open(), Ok(false));
        session.act(&Step::Heal).expect("healed");
        let id = session.log().log_id();
        acked(&mut session, "quiet", &[(10, 7)]);
        (0..5).for_each(|_| acked(&mut session, "a", &[(3_000, 5)]));
        ["a", "quiet"].iter().for_each(|stream| session.trim(stream, 0));
        (0..3).for_each(|_| session.log().housekeep());
        session.end(End::Cut(PowerCut::NothingUnsynced));
        assert_eq!(session.open(), Ok(true), "seed {seed}");
        assert_eq!(session.log().log_id(), id, "seed {seed}");
    }
}

/// Before: a table whose sync had failed passed for the newest one after a kill, and the next one was written over the only copy
/// that was durable. A power cut in that write left none.
#[test]
fn a_table_that_a_failed_sync_left_in_the_cache_costs_no_durable_one() {
    for seed in 0..12 {
        let mut before = session(seed);
        acked(&mut before, "quiet", &[(10, 7)]);
        (0..4).for_each(|_| acked(&mut before, "a", &[(3_000, 5)]));
        ["a", "quiet"].iter().for_each(|stream| before.trim(stream, 0));
        (0..3).for_each(|_| before.log().housekeep());
        for part in ["streams", ".new"] {
            before.act(&Step::Inject(Fault::every(OpKind::Sync, Failure::Eio).on(part))).expect("armed");
        }
        (0..2).for_each(|_| acked(&mut before, "a", &[(3_000, 5)]));
        before.end(End::Kill);
        before.disk.clear_faults();
        for ahead in 0..20 {
            let mut session = before.fork(seed);
            session.disk.crash_at(session.disk.ops() + ahead, Performed::Bytes(30));
            let _ = session.try_open().map(|log| log.housekeep());
            session.end(End::Cut(PowerCut::Everything));
            session.act(&Step::Heal).unwrap_or_else(|told| panic!("seed {seed}, {ahead} ahead: {told}"));
        }
    }
}

/// A small log at its budget, in which the writer itself reclaims.
fn at_its_budget(disk: &SimDisk) -> Log {
    let (disk, clock) = (Arc::new(disk.clone()), Arc::new(ManualClock::at(1_000_000)));
    Log::open(disk, clock, Path::new("/log"), LogOptions { budget_bytes: 20 << 10, ..tiny() }).expect("it opens")
}

/// Before: what the writer sealed and reclaimed in one go only one copy of the table knew. Where that one rotted, a stream whose
/// records had all been delivered began anew.
#[test]
fn what_the_writer_reclaims_both_copies_of_the_table_know() {
    for ahead in 0..150 {
        let disk = SimDisk::new(1);
        let log = at_its_budget(&disk);
        log.append_wait("a", vec![forebay::Payload { bytes: vec![1; 100], records: 1 }]).expect("taken");
        let acked: Arc<Mutex<Vec<&str>>> = Arc::default();
        let (theirs, inner) = (Arc::clone(&acked), log.clone());
        disk.crash_at(disk.ops() + ahead, Performed::Nothing);
        // All of these wait for the next commit of the writer, between which nobody else keeps house.
        let next = move |_| {
            for stream in ["quiet", "b", "b", "b", "b", "b"] {
                let (acked, log) = (Arc::clone(&theirs), inner.clone());
                let delivered = move |answer: Result<forebay::Appended, _>| {
                    let Ok(appended) = answer else { return };
                    acked.lock().expect("no panic").push(stream);
                    log.trim(appended.stream, appended.offsets.end);
                    log.trim(log.stream("a").expect("known"), 2);
                };
                let _ = inner.append(stream, vec![2; 3_500], 1, Box::new(delivered));
            }
        };
        let _ = log.append("a", vec![1; 3_700], 1, Box::new(next));
        drop(log);
        let (crashed, wanted) = (disk.crashed(), u64::from(acked.lock().expect("no panic").contains(&"quiet")));
        disk.power_cut(PowerCut::NothingUnsynced);
        for rotten in ["/log/none", "/log/streams.0", "/log/streams.1"] {
            let fork = SimDisk::from_snapshot(&disk.snapshot());
            if fork.read_live(Path::new(rotten)).is_some() {
                fork.overwrite(Path::new(rotten), &[0; 64]);
            }
            let log = at_its_budget(&fork);
            let next = log.stream("quiet").map_or(0, |quiet| log.durable(quiet).offset);
            assert!(next >= wanted, "{ahead} ahead, without {rotten}");
        }
        if !crashed {
            return;
        }
    }
    panic!("it goes on for longer than that");
}
