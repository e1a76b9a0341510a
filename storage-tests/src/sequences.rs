//! Lives of queues that bytes choose, step by step, for a fuzzer: what happens, which of the disk's calls fail, where it
//! crashes and what the power leaves of it.

use crate::power_cuts::{any_cut, performed};
use crate::queue_life::{begin, drain, inject, step};
use crate::queues::open;
use crate::rng::Rng;
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
            // One of the next changes is the last.
            0 => disk.crash_at(disk.ops() + rng.below(32) as u64, performed(&mut rng)),
            1 => inject(&mut rng, &disk),
            2 => disk.clear_faults(),
            3 => clock.advance(Duration::from_millis(50 + 1_000 * rng.below(256) as u64)),
            _ => step(&mut rng, &queues, &mut model),
        }
        if disk.crashed() {
            drop(queues);
            disk.clear_faults();
            disk.power_cut(any_cut(&mut rng, &disk));
            queues = open(&disk, &clock);
            model.check_after_crash(&queues);
        }
    }
    drop(queues);
    disk.clear_faults();
    disk.power_cut(any_cut(&mut rng, &disk));
    let queues = open(&disk, &clock);
    model.check_after_crash(&queues);
    drain(&queues, &mut model);
    queues.close().expect("the disk is sound");
}
