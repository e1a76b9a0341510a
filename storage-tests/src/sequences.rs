//! Lives of queues that bytes choose, step by step, for a fuzzer: what happens, which of the disk's calls fail, where it
//! crashes and what the power leaves of it.

use crate::fault::{Failure, Fault, OpKind, Performed};
use crate::queue_life::{begin, drain, step};
use crate::queues::{CUTS, open};
use crate::rng::Rng;
use crate::sim_disk::{PowerCut, SimDisk};
use std::time::Duration;

/// Drawn bytes that make up a life, at most: longer ones find nothing that these do not, and take their time.
const BYTES_MAX: usize = 1024;

/// Lives the life that `data` chooses, to its last byte; then all that was acknowledged is delivered.
///
/// # Panics
/// When log or queues break a promise.
pub fn sequence(data: &[u8]) {
    let mut rng = Rng::of_bytes(&data[..data.len().min(BYTES_MAX)]);
    let (disk, clock, mut model, mut queues) = begin(1);
    while !rng.spent() {
        match rng.below(16) {
            0 => crash(&mut rng, &disk),
            1 => inject(&mut rng, &disk),
            2 => disk.clear_faults(),
            3 => clock.advance(Duration::from_millis(50 + 1_000 * rng.below(256) as u64)),
            _ => step(&mut rng, &queues, &mut model),
        }
        if disk.crashed() {
            drop(queues);
            disk.clear_faults();
            cut(&mut rng, &disk);
            queues = open(&disk, &clock);
            model.check_after_crash(&queues);
        }
    }
    drop(queues);
    disk.clear_faults();
    cut(&mut rng, &disk);
    let queues = open(&disk, &clock);
    model.check_after_crash(&queues);
    drain(&queues, &mut model);
    queues.close().expect("the disk is sound");
}

/// One of the next changes is the last.
fn crash(rng: &mut Rng, disk: &SimDisk) {
    let performed = [Performed::Nothing, Performed::All, Performed::Bytes(32 * rng.below(256))][rng.below(3)];
    disk.crash_at(disk.ops() + rng.below(32) as u64, performed);
}

/// Some of the next calls of a kind fail, on the floor or anywhere.
fn inject(rng: &mut Rng, disk: &SimDisk) {
    use OpKind::{Allocate, Create, Rename, Sync, SyncDir, Write};
    let kind = [Sync, Write, Create, Rename, Allocate, SyncDir][rng.below(6)];
    let failure = [Failure::Eio, Failure::NoSpace, Failure::ShortWrite][rng.below(3)];
    let from = rng.below(4) as u64;
    let fault = Fault::nths(kind, from..from + 1 + rng.below(3) as u64, failure);
    disk.inject(if rng.chance(1, 2) { fault.on("floor") } else { fault });
}

/// The power goes and comes back.
fn cut(rng: &mut Rng, disk: &SimDisk) {
    let sector = rng.below(disk.dirty_sectors().max(1));
    disk.power_cut(match rng.below(6) {
        0 => PowerCut::OnlySector(sector),
        1 => PowerCut::AllButSector(sector),
        n => CUTS[n - 2],
    });
}
