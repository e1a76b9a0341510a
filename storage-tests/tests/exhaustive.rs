//! One life of sixty operations, ended by a power cut in every way there is: at every change that it makes of the disk,
//! in every byte of every write, with each of the landings below.
//!
//! The operations are appends, plans, splits, settles, purges, ticks of the floor and rounds of housekeeping, from a fixed
//! seed; another `FOREBAY_SEED` is another life, and `FOREBAY_LIVES=n` are as many, of the seeds from there on. A byte of a write
//! that is what was there before makes no difference, and is no case. `FOREBAY_STRIDE=n` takes every nth case only.

use forebay::clock::ManualClock;
use std::collections::BTreeMap;
use std::sync::Mutex;
use storage_tests::crash_points::number;
use storage_tests::crew::{self, Until};
use storage_tests::fault::Performed;
use storage_tests::model::queues::Model;
use storage_tests::queue_life::{self, drain};
use storage_tests::queues::{budget_holds, open};
use storage_tests::sim_disk::{Op, PowerCut, Rest, SimDisk};

const OPERATIONS: usize = 60;

/// The life up to its end, or to a change of the disk that is done and not answered.
fn play(seed: u64, crash: Option<u64>) -> (SimDisk, ManualClock, Model, Vec<Op>) {
    let (disk, clock, model, queues) = queue_life::play(seed, OPERATIONS, |disk| {
        disk.start_trace();
        crash.into_iter().for_each(|op| disk.crash_at(op, Performed::All));
    });
    drop(queues);
    let trace = disk.take_trace();
    (disk, clock, model, trace)
}

/// All that a power cut in the midst of the last change may leave. A write's bytes land from its first or from its last
/// on, behind all that came before it, or before it; with the names that were not synced and without. Of all sectors each
/// lands alone, and each alone does not.
fn landings(disk: &SimDisk, last: &Op) -> Vec<PowerCut> {
    let op = last.op;
    let mut all = vec![PowerCut::NothingUnsynced, PowerCut::Everything, PowerCut::PrefixOf { op, bytes: 0 }];
    for to in disk.tears(op) {
        for rest in [Rest::All, Rest::Bytes, Rest::Nothing] {
            all.push(PowerCut::InWrite { op, from: 0, to, rest });
        }
        all.push(PowerCut::InWrite { op, from: to, to: usize::MAX, rest: Rest::All });
    }
    for nth in 0..disk.dirty_sectors() {
        all.extend([PowerCut::OnlySector(nth), PowerCut::AllButSector(nth)]);
    }
    all
}

#[test]
fn a_power_cut_in_any_byte_of_any_change_takes_nothing_that_was_promised() {
    let first = number("FOREBAY_SEED", 11);
    let lives = number("FOREBAY_LIVES", 1);
    let (mut kinds, mut states, mut in_part) = (BTreeMap::new(), 0, false);
    for seed in first..first + lives {
        let (of_it, whole) = cut_everywhere(seed, &mut kinds);
        states += of_it;
        in_part |= !whole;
    }
    let changes: u64 = kinds.values().sum();
    println!("{states} states of {lives} lives; {changes} changes: {kinds:?}");
    // Of many lives some are quieter than the one that is always lived.
    let least = if lives == 1 { 100 } else { 60 * lives };
    assert!(changes > least && kinds.len() >= 6, "all that a log and a floor do: {kinds:?}");
    assert!(in_part || states > kinds["Write"] * 200 / number("FOREBAY_STRIDE", 1), "{states}");
}

/// How many states one life gives, and whether all of it was cut. Counts its changes of the disk by their kinds.
fn cut_everywhere(seed: u64, kinds: &mut BTreeMap<String, u64>) -> (u64, bool) {
    let stride = number("FOREBAY_STRIDE", 1) as usize;
    let only = std::env::var("FOREBAY_CASE").ok().map(|case| case.parse::<u64>().expect("a number"));
    let (.., trace) = play(seed, None);
    trace.iter().for_each(|op| *kinds.entry(format!("{:?}", op.kind)).or_default() += 1);
    let cases = Mutex::new(0);
    let change = |nth: u64| {
        let Some(last) = trace.get(nth as usize) else { return 1 };
        if only.is_some_and(|only| only != nth) {
            return 1;
        }
        let (crashed, clock, model, _) = play(seed, Some(last.op));
        assert!(crashed.crashed());
        let landings = landings(&crashed, last);
        // Else every stride would begin with the same landings.
        for cut in landings.iter().skip(nth as usize % stride).step_by(stride) {
            let disk = SimDisk::from_snapshot(&crashed.snapshot());
            disk.power_cut(*cut);
            let told = Told(last, *cut);
            let mut model = model.clone();
            let queues = open(&disk, &clock);
            model.check_after_crash(&queues);
            budget_holds(&disk, &queues);
            drain(&queues, &mut model);
            std::mem::forget(told);
            *cases.lock().expect("nothing panics in here") += 1;
        }
        1
    };
    let repeat = |nth| {
        format!(
            "FOREBAY_SEED={seed} FOREBAY_CASE={nth} FOREBAY_STRIDE={stride} cargo test -p storage-tests --test exhaustive"
        )
    };
    let done = crew::each(0, Until::all(trace.len() as u64), change, repeat);
    let cases = cases.into_inner().expect("nothing panicked");
    println!("seed {seed}: {cases} states after {done} of {} changes; every {stride}. was looked at", trace.len());
    (cases, only.is_none() && done.count >= trace.len() as u64)
}

/// Says which case it was, when it is dropped by a panic.
struct Told<'a>(&'a Op, PowerCut);

impl Drop for Told<'_> {
    fn drop(&mut self) {
        eprintln!("change {} ({:?} of {}), {:?}", self.0.op, self.0.kind, self.0.path.display(), self.1);
    }
}
