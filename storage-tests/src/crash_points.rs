//! A crash at every change of a scripted workload in turn, in every way, and again during the recovery from it.
//!
//! Each case follows from a few numbers, so that one environment variable repeats one case. The count of cases grows
//! with `FOREBAY_CUTS` (see docs/testing.md).

use crate::fault::{OpKind, Performed};
use crate::rng::Rng;
use crate::sim_disk::{Op, PowerCut};
use crate::workload::{End, Session, Step};
use forebay::LogOptions;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Which cases to run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// What is done.
    pub steps: Vec<Step>,
    /// How the log is opened.
    pub options: LogOptions,
    /// The seed of all chances.
    pub seed: u64,
    /// Power cuts by chance after each crash, besides the certain ones.
    pub cuts: u64,
    /// Of so many first recoveries one is crashed in turn.
    pub nested_every: u64,
}

/// How many cases there were.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Count {
    /// Changes in the workload.
    pub changes: u64,
    /// Crashes, each at another change or with another part of it done.
    pub crashes: u64,
    /// Recoveries checked.
    pub recoveries: u64,
    /// Of these, recoveries after a crash in a recovery.
    pub nested: u64,
}

/// Runs all cases of a plan.
///
/// # Panics
/// At the first case in which the log breaks a promise; the message says how to repeat it.
#[must_use]
pub fn run(plan: &Plan, name: &str) -> Count {
    let only = std::env::var("FOREBAY_CASE").ok().and_then(|case| case.parse().ok());
    let changes = changes(plan);
    let mut count = Count { changes: changes.len() as u64, ..Count::default() };
    for change in &changes {
        for (nth, performed) in ways(change).into_iter().enumerate() {
            let case = change.op * 8 + nth as u64;
            if only.is_some_and(|only: u64| only != case) {
                continue;
            }
            let result = catch_unwind(AssertUnwindSafe(|| crash(plan, change.op, performed, case, &mut count)));
            let why = match result {
                Ok(Ok(())) => continue,
                Ok(Err(why)) => why,
                Err(_) => "a panic, see above".to_owned(),
            };
            panic!(
                "crash in {:?} of {} (change {}, {performed:?}): {why}\nrepeat with: FOREBAY_CASE={case} \
                 FOREBAY_SEED={} FOREBAY_CUTS={} cargo test -p storage-tests --test {name}",
                change.kind,
                change.path.display(),
                change.op,
                plan.seed,
                plan.cuts
            );
        }
    }
    count
}

/// The number in an environment variable, or the default.
#[must_use]
pub fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

fn changes(plan: &Plan) -> Vec<Op> {
    let mut session = Session::new(plan.seed, plan.options.clone());
    session.disk.start_trace();
    play(plan, &mut session).expect("the workload holds where nothing crashes");
    session.disk.take_trace()
}

/// The workload up to its end or to the crash point.
fn play(plan: &Plan, session: &mut Session) -> Result<(), String> {
    session.ends.clear();
    session.open()?;
    for step in &plan.steps {
        if session.disk.crashed() {
            return Ok(());
        }
        session.act(step)?;
    }
    Ok(())
}

fn ways(change: &Op) -> Vec<Performed> {
    let mut ways = vec![Performed::Nothing, Performed::All];
    if change.kind == OpKind::Write {
        ways.extend([1, change.bytes / 2, change.bytes.saturating_sub(1)].map(Performed::Bytes));
        ways.dedup();
    }
    ways
}

fn ends(plan: &Plan) -> Vec<End> {
    let certain = [PowerCut::NothingUnsynced, PowerCut::Everything, PowerCut::Prefix];
    let chance = (0..plan.cuts).map(|_| PowerCut::RandomSubset);
    std::iter::once(End::Kill).chain(certain.into_iter().chain(chance).map(End::Cut)).collect()
}

fn crash(plan: &Plan, op: u64, performed: Performed, case: u64, count: &mut Count) -> Result<(), String> {
    let mut session = Session::new(plan.seed, plan.options.clone());
    session.disk.crash_at(op, performed);
    play(plan, &mut session)?;
    count.crashes += 1;
    let mut ends = ends(plan);
    // One sector decides: the first, the last or one between, alone or alone missing.
    let dirty = session.disk.dirty_sectors();
    if dirty > 1 {
        let nth = Rng::new(case).below(dirty);
        ends.extend([PowerCut::OnlySector(nth), PowerCut::AllButSector(nth)].map(End::Cut));
    }
    for (i, end) in ends.into_iter().enumerate() {
        let seed = plan.seed ^ (case << 16 | i as u64);
        let mut fork = session.fork(seed);
        fork.end(end);
        let at = |e| format!("{end:?}, way {i}: {e}");
        let nested = seed_says(seed, plan.nested_every).then(|| fork.fork(seed));
        fork.open().map_err(at)?;
        count.recoveries += 1;
        if i % 2 == 0 { fork.goes_on() } else { fork.check_budget() }.map_err(at)?;
        if let Some(nested) = nested {
            crash_in_recovery(&nested, seed, 0, count).map_err(at)?;
        }
    }
    Ok(())
}

fn seed_says(seed: u64, every: u64) -> bool {
    Rng::new(seed).bits().is_multiple_of(every.max(1))
}

/// Crashes the recovery at each of its changes, by chance done or not, and some of the recoveries from that again.
fn crash_in_recovery(before: &Session, seed: u64, depth: u32, count: &mut Count) -> Result<(), String> {
    let mut rng = Rng::new(seed ^ 0x5eed);
    let mut counting = before.fork(seed);
    let from = counting.disk.ops();
    counting.try_open().map_err(|e| e.to_string())?;
    counting.log().housekeep();
    let to = counting.disk.ops();
    for op in from..to {
        if depth > 0 && !rng.chance(1, 4) {
            continue;
        }
        let performed = [Performed::Nothing, Performed::All, Performed::Bytes(rng.below(600))][rng.below(3)];
        let cut = [PowerCut::NothingUnsynced, PowerCut::Everything, PowerCut::Prefix, PowerCut::RandomSubset];
        let end = if rng.chance(1, 5) { End::Kill } else { End::Cut(cut[rng.below(4)]) };
        let at = |e| format!("then in recovery at change {op}, {performed:?}, {end:?}: {e}");
        let mut fork = before.fork(rng.bits());
        fork.disk.crash_at(op, performed);
        if fork.open().map_err(at)? {
            fork.log().housekeep();
        }
        fork.end(end);
        if depth < 2 && rng.chance(1, 12) {
            crash_in_recovery(&fork, rng.bits(), depth + 1, count).map_err(at)?;
        }
        fork.open().map_err(at)?;
        count.recoveries += 1;
        count.nested += 1;
        if rng.chance(1, 3) { fork.goes_on() } else { fork.check_budget() }.map_err(at)?;
    }
    Ok(())
}
