//! One life of queues on a disk that fails: at any one change that it makes, at any one look that it takes, from a change on
//! for good, and at each of them again while the queues are opened.
//!
//! What the life was promised holds whatever fails, and once the disk is well all of it goes on by itself. A case is a
//! number: repeat one with `FOREBAY_CASE=n`; another life with `FOREBAY_SEED`.

use forebay::clock::ManualClock;
use forebay::{FloorError, OpenError, OpenQueuesError, Queues};
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::time::Duration;
use storage_tests::crash_points::number;
use storage_tests::fault::{Failure, Fault, OpKind, Performed};
use storage_tests::model::queues::Model;
use storage_tests::queue_life::{self, begin, catch_up, drain, forget_what_is_durable, go_on, heal};
use storage_tests::queues::{CUTS, budget_holds, open, try_open};
use storage_tests::rng::Rng;
use storage_tests::sim_disk::{Op, SimDisk};

/// EROFS, EDQUOT, EMFILE: what a disk says that is no worse than others.
const REFUSALS: [Failure; 3] = [Failure::Os(30), Failure::Os(122), Failure::Os(24)];

/// A disk with queues on it, or what is left of them, and what must be there.
type Life<Q> = (SimDisk, ManualClock, Model, Q);

/// The life of a seed, up to its end or to its crash, on a disk that `arm` prepares. In its midst everybody catches up, so that
/// segments go.
fn live(seed: u64, arm: impl FnOnce(&SimDisk)) -> Life<Queues> {
    let mut rng = Rng::new(seed);
    let (disk, clock, mut model, queues) = begin(seed);
    arm(&disk);
    go_on(&mut rng, 45, (&disk, &clock), &queues, &mut model);
    for _ in 0..3 {
        if !disk.crashed() {
            catch_up(&queues, &mut model);
            if queues.tick().is_ok() {
                model.after_tick(&queues);
            }
            queues.log().housekeep();
        }
    }
    go_on(&mut rng, 25, (&disk, &clock), &queues, &mut model);
    (disk, clock, model, queues)
}

/// The changes that it makes of a good disk.
fn changes(seed: u64) -> Vec<Op> {
    let (disk, ..) = live(seed, SimDisk::start_trace);
    let changes = disk.take_trace();
    let mut kinds = BTreeMap::<String, u64>::new();
    changes.iter().for_each(|change| *kinds.entry(format!("{:?}", change.kind)).or_default() += 1);
    println!("seed {seed}: {} changes: {kinds:?}", changes.len());
    changes
}

/// Runs each case of each life, or the one that is asked for; says how many there were.
fn each_life(of: impl Fn(u64, &mut Cases)) {
    let first = number("FOREBAY_SEED", 1);
    let only = std::env::var("FOREBAY_CASE").ok().map(|case| case.parse().expect("a number"));
    let mut all = 0;
    for seed in first..first + number("FOREBAY_LIVES", 1) {
        let mut cases = Cases { seed, next: 0, only };
        of(seed, &mut cases);
        all += cases.next;
    }
    println!("{all} cases");
    assert!(all > 20, "only {all} cases");
}

/// Counts the cases of a life.
struct Cases {
    seed: u64,
    next: u64,
    only: Option<u64>,
}

impl Cases {
    fn run(&mut self, what: impl Debug, case: impl FnOnce(u64)) {
        self.next += 1;
        if self.only.is_none_or(|only| only == self.next) {
            println!("FOREBAY_SEED={} FOREBAY_CASE={}: {what:?}", self.seed, self.next);
            case(self.next);
        }
    }
}

/// The life ends, in one way or another, on a disk that is well; what it was promised is there, and all is delivered.
fn outlived(case: u64, (disk, clock, mut model, queues): Life<Queues>) {
    drop(queues);
    if case.is_multiple_of(2) {
        // What a failed sync lost shows until the power goes.
        disk.process_kill();
        let queues = open(&disk, &clock);
        model.check_after_crash(&queues);
    }
    disk.power_cut(CUTS[case as usize / 2 % CUTS.len()]);
    let queues = open(&disk, &clock);
    model.check_after_crash(&queues);
    budget_holds(&disk, &queues);
    drain(&queues, &mut model);
    queues.close().expect("the disk is sound");
}

/// The disk is well again, and the life ends.
fn healed(case: u64, (disk, clock, mut model, queues): Life<Queues>) {
    heal(&disk, &queues, &mut model);
    budget_holds(&disk, &queues);
    outlived(case, (disk, clock, model, queues));
}

#[test]
fn a_failure_of_any_change_of_a_life_of_queues_loses_nothing_and_passes() {
    each_life(|seed, cases| {
        let changes = changes(seed);
        // Another life may have none of some.
        let kinds = [OpKind::Create, OpKind::Write, OpKind::Sync, OpKind::SyncDir, OpKind::Rename, OpKind::Remove];
        for kind in kinds.into_iter().filter(|_| seed == 1) {
            assert!(changes.iter().any(|change| change.kind == kind), "{kind:?}");
        }
        for change in changes {
            let short = (change.kind == OpKind::Write).then_some(Failure::ShortWrite);
            let rare = REFUSALS[change.op as usize % REFUSALS.len()];
            for failure in [Failure::Eio, Failure::NoSpace, rare].into_iter().chain(short) {
                cases.run((failure, &change), |case| {
                    let life = live(seed, |disk| disk.inject(Fault::at_op(change.op, failure)));
                    assert_eq!(life.0.struck(), 1);
                    healed(case, life);
                });
            }
        }
    });
}

#[test]
fn a_failure_of_any_look_of_a_life_of_queues_loses_nothing_and_passes() {
    each_life(|seed, cases| {
        for kind in [OpKind::Open, OpKind::Read] {
            for nth in 0.. {
                let fault = Fault::nths(kind, nth..nth + 1 + nth % 3, Failure::Eio);
                let life = live(seed, |disk| disk.inject(fault.clone()));
                if life.0.struck() == 0 {
                    break;
                }
                cases.run(fault, |case| healed(case, life));
            }
        }
    });
}

#[test]
fn a_second_set_on_a_directory_changes_no_byte_of_it() {
    for seed in 0..10 {
        let (disk, clock, mut model, queues) = queue_life::play(seed, 70, |_| ());
        let bytes = || disk.paths().into_iter().map(|path| (disk.read_live(&path), path)).collect::<Vec<_>>();
        let before = bytes();
        assert!(matches!(try_open(&disk, &clock, Duration::ZERO), Err(OpenQueuesError::Locked { .. })));
        assert!(bytes() == before, "seed {seed}");
        drain(&queues, &mut model);
    }
}

/// Whether they open is the disk's word; that they don't is said as such.
fn open_on_a_bad_disk(disk: &SimDisk, clock: &ManualClock) -> Option<Queues> {
    use OpenQueuesError::{Floor, Io, Log, Read};
    match try_open(disk, clock, Duration::ZERO) {
        Ok(queues) => Some(queues),
        Err(Log(OpenError::Io { .. }) | Floor(FloorError::Io { .. }) | Io { .. } | Read(_)) => None,
        Err(error) => panic!("that is no disk's error: {error}"),
    }
}

#[test]
fn a_disk_that_takes_no_change_from_any_moment_on_loses_nothing_across_a_start_and_passes() {
    each_life(|seed, cases| {
        for change in changes(seed) {
            let failures = [Failure::Eio, Failure::NoSpace].into_iter().chain(REFUSALS);
            let failure = failures.cycle().nth(change.op as usize % 5).expect("it goes round");
            cases.run((failure, &change), |case| {
                let for_good = Fault::in_ops(change.op..u64::MAX, failure);
                let (disk, clock, mut model, queues) = live(seed, |disk| disk.inject(for_good));
                drop(queues);
                disk.power_cut(CUTS[case as usize % CUTS.len()]);
                if let Some(queues) = open_on_a_bad_disk(&disk, &clock) {
                    model.check_after_crash(&queues);
                    go_on(&mut Rng::new(case), 10, (&disk, &clock), &queues, &mut model);
                    if case.is_multiple_of(3) {
                        return healed(case, (disk, clock, model, queues));
                    }
                }
                disk.clear_faults();
                disk.power_cut(CUTS[case as usize / 4 % CUTS.len()]);
                let queues = open(&disk, &clock);
                model.check_after_crash(&queues);
                go_on(&mut Rng::new(case), 10, (&disk, &clock), &queues, &mut model);
                outlived(case, (disk, clock, model, queues));
            });
        }
    });
}

/// The life ended at some changes or others, each with what a power cut left.
fn ends(seed: u64) -> Vec<Life<()>> {
    let changes = changes(seed);
    let some = changes.iter().step_by(changes.len() / 8).enumerate();
    some.map(|(nth, change)| {
        let (disk, clock, model, _) = live(seed, |disk| disk.crash_at(change.op, Performed::All));
        disk.power_cut(CUTS[nth % CUTS.len()]);
        (disk, clock, model, ())
    })
    .collect()
}

/// The queues are opened on a disk with this fault, and go on when it is well; or they are opened once more then. Whether the
/// fault was met.
fn started_with(case: u64, (ended, clock, model, ()): &Life<()>, fault: &Fault) -> bool {
    let (disk, mut model) = (SimDisk::from_snapshot(&ended.snapshot()), model.clone());
    disk.reseed(case);
    disk.inject(fault.clone());
    let opened = open_on_a_bad_disk(&disk, clock);
    let struck = disk.struck() > 0;
    disk.clear_faults();
    if opened.is_none() {
        disk.power_cut(CUTS[case as usize % CUTS.len()]);
    } else if struck {
        forget_what_is_durable(&mut model);
    }
    let queues = opened.unwrap_or_else(|| open(&disk, clock));
    model.check_after_crash(&queues);
    go_on(&mut Rng::new(case), 10, (&disk, clock), &queues, &mut model);
    healed(case, (disk, clock.clone(), model, queues));
    struck
}

#[test]
fn a_failure_of_anything_while_queues_are_opened_loses_nothing_and_passes() {
    use OpKind::{Allocate, Create, List, Open, Read, Remove, Rename, SetLen, Sync, SyncDir, Write};
    each_life(|seed, cases| {
        for ended in ends(seed) {
            for kind in [Open, Read, List, Create, Write, Sync, Allocate, SetLen, Rename, Remove, SyncDir] {
                for nth in 0.. {
                    let failure = [Failure::Eio, Failure::NoSpace, Failure::Os(24)][nth as usize % 3];
                    let fault = Fault::nths(kind, nth..nth + 1 + nth % 3, failure);
                    let mut struck = cases.only.is_some() && nth < 100;
                    cases.run(&fault, |case| struck = started_with(case, &ended, &fault));
                    if !struck {
                        break;
                    }
                }
            }
        }
    });
}
