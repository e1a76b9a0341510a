//! The power cut under a real kernel: the disk goes from under a process that appends, plans, settles and ticks, on ext4
//! and on XFS. What it told us is there when the disk is mounted again.
//!
//! `FOREBAY_REAL_CUTS=20` makes so many, over the file systems that can be made here; without it nothing is mounted. It
//! says aloud what it does not run. A cut is a moment of a real machine: no seed repeats it.

use std::path::Path;
use std::thread;
use std::time::Duration;
use storage_tests::aloud;
use storage_tests::crash_points::number;
use storage_tests::crew::{self, Until};
use storage_tests::mounts::LoopDisk;
use storage_tests::promises::{self, Promised, Promiser};
use storage_tests::rng::Rng;

const TEST: &str = "a_power_cut_under_a_real_kernel_takes_nothing_that_was_promised";

/// One life and its end.
fn life(disk: &LoopDisk, promised: &mut Promised, rng: &mut Rng) {
    let dir = disk.at().join("data");
    let promiser = Promiser::start(TEST, &dir, &[]);
    // One in five while it starts, the others in the midst of things.
    if !rng.chance(1, 5) {
        promiser.hear(20 + rng.below(200));
    }
    thread::sleep(Duration::from_millis(rng.below(100) as u64));
    disk.cut_under(promiser.process());
    promised.hear(&promiser.kill());
    disk.power_up();
    promised.check(&dir);
}

#[test]
fn a_power_cut_under_a_real_kernel_takes_nothing_that_was_promised() {
    if let Some(dir) = std::env::var_os(promises::DIR) {
        return promises::make(Path::new(&dir));
    }
    let asked = number("FOREBAY_REAL_CUTS", 0);
    let disks = if asked == 0 { Vec::new() } else { LoopDisk::each() };
    if disks.is_empty() {
        return aloud::not_run("power cuts under a real kernel. FOREBAY_REAL_CUTS=20 makes some, as root.");
    }
    // Side by side: a cut is mostly waiting.
    thread::scope(|scope| {
        for (n, disk) in disks.iter().enumerate() {
            let cuts = asked.div_ceil(disks.len() as u64);
            scope.spawn(move || {
                let (mut promised, mut rng) = (Promised::default(), Rng::new(number("FOREBAY_SEED", 1) + n as u64));
                let done = crew::in_turn(Until::all(cuts), |_| life(disk, &mut promised, &mut rng));
                let (appends, plans) = (promised.appends(), promised.plans());
                println!("{}: power cuts: {done}; {appends} appends and {plans} plans were promised", disk.kind());
                assert!(appends as u64 > done.count && plans as u64 > done.count, "it did something between its cuts");
            });
        }
    });
}
