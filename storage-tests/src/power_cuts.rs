//! Lives of queues that end by power cuts, as many as are asked for: log, floor, cursors, plans and what destinations
//! were told, together.
//!
//! A life is a seed. Each of its crashes comes in the midst of a change, and is ended in several ways, each on a disk of
//! its own: one goes on, the others are looked at. In one of ten the recovery is crashed too, and the recovery from that,
//! and once more. Meanwhile the wall clock is set to other times.

use crate::fault::Performed;
use crate::model::queues::Model;
use crate::queue_life::{begin, drain, step};
use crate::queues::{CUTS, DIR, budget_holds, open, tiny};
use crate::rng::Rng;
use crate::sim_disk::{PowerCut, SimDisk};
use forebay::clock::ManualClock;
use forebay::{QueueOptions, Queues};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Crashes of one life: so many that what is settled goes, and segments with it.
const CRASHES: usize = 8;

/// Ways in which each ends besides the one that goes on.
const BRANCHES: usize = 7;

/// How deep recoveries are crashed.
pub const DEPTH: usize = 3;

/// How many cuts there were.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cuts {
    /// All of them.
    pub all: u64,
    /// Of these, in a recovery, in the recovery from that, and so on.
    pub nested: [u64; DEPTH],
    /// Acknowledged records that were asked for, after each of the ends that recovered.
    pub asked_for: u64,
    /// A digest of the bytes that a life left: the same seed is the same life.
    pub left: u64,
}

/// Lives through the life of a seed.
///
/// # Panics
/// When a queue breaks a promise.
#[must_use]
pub fn live(seed: u64) -> Cuts {
    let mut rng = Rng::new(seed);
    let (disk, clock, mut model, mut queues) = begin(seed);
    let mut cuts = Cuts::default();
    let mut jumps = Rng::new(!seed);
    for _ in 0..CRASHES {
        disk.crash_at(disk.ops() + rng.below(150) as u64, performed(&mut rng));
        while !disk.crashed() {
            step(&mut rng, &queues, &mut model);
            clock.advance(Duration::from_millis(50));
            jump(&mut jumps, &clock);
        }
        drop(queues);
        for _ in 0..BRANCHES {
            branch(&disk, &clock, model.clone(), &mut rng, &mut cuts);
        }
        queues = recover(&disk, &clock, &mut rng, &mut cuts);
        cuts.asked_for += model.check_after_crash(&queues);
    }
    drain(&queues, &mut model);
    queues.close().expect("the disk is sound");
    let bytes = disk.paths().into_iter().filter_map(|path| disk.read_live(&path)).flatten();
    cuts.left = bytes.fold(0, |digest: u64, byte| digest.wrapping_mul(31).wrapping_add(u64::from(byte)));
    cuts
}

/// Now and then somebody sets the wall clock: right, an hour off either way, ten years ahead, to 1970, far beyond 2038.
fn jump(jumps: &mut Rng, clock: &ManualClock) {
    const HOUR_MS: u64 = 3_600_000;
    const NOW_MS: u64 = 1_800_000_000_000;
    const TO: [u64; 6] = [NOW_MS, NOW_MS - HOUR_MS, NOW_MS + HOUR_MS, NOW_MS + 87_600 * HOUR_MS, 0, 1 << 42];
    if jumps.chance(1, 20) {
        clock.set_wall_ms(TO[jumps.below(TO.len())]);
    }
}

/// One more way in which this crash may end. Some go on to the last record.
fn branch(crashed: &SimDisk, clock: &ManualClock, mut model: Model, rng: &mut Rng, cuts: &mut Cuts) {
    let disk = SimDisk::from_snapshot(&crashed.snapshot());
    disk.reseed(rng.bits());
    let queues = recover(&disk, clock, rng, cuts);
    cuts.asked_for += model.check_after_crash(&queues);
    budget_holds(&disk, &queues);
    if rng.chance(1, 8) {
        drain(&queues, &mut model);
    }
}

/// The power goes and comes back, now and then once more while the queues open.
fn recover(disk: &SimDisk, clock: &ManualClock, rng: &mut Rng, cuts: &mut Cuts) -> Queues {
    cut(disk, rng, cuts);
    if rng.chance(1, 10) {
        for depth in 0..DEPTH {
            disk.crash_at(disk.ops() + rng.below(20) as u64, performed(rng));
            let (again, clock) = (Arc::new(disk.clone()), Arc::new(clock.clone()));
            match Queues::open(again, clock, Path::new(DIR), tiny(Duration::ZERO), QueueOptions::inline()) {
                Ok(queues) => {
                    // The crash may still be ahead.
                    let _ = queues.tick();
                    queues.log().housekeep();
                }
                Err(error) => assert!(disk.crashed(), "it does not open: {error}"),
            }
            let is_in_the_recovery = disk.crashed();
            cut(disk, rng, cuts);
            if !is_in_the_recovery {
                break;
            }
            cuts.nested[depth] += 1;
        }
    }
    open(disk, clock)
}

fn cut(disk: &SimDisk, rng: &mut Rng, cuts: &mut Cuts) {
    disk.power_cut(any_cut(rng, disk));
    cuts.all += 1;
}

/// A way for the power to go.
#[must_use]
pub fn any_cut(rng: &mut Rng, disk: &SimDisk) -> PowerCut {
    let sector = rng.below(disk.dirty_sectors().max(1));
    match rng.below(8) {
        0 => PowerCut::OnlySector(sector),
        1 => PowerCut::AllButSector(sector),
        n => CUTS[n % CUTS.len()],
    }
}

/// How much is done of the change at which a process ends.
#[must_use]
pub fn performed(rng: &mut Rng) -> Performed {
    [Performed::Nothing, Performed::All, Performed::Bytes(rng.below(9_000))][rng.below(3)]
}
