//! Histories with crashes at any change, random and in turn, checked against the model.

use forebay::{QueueOptions, Queues};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use storage_tests::crash_points::number;
use storage_tests::fault::Performed;
use storage_tests::power_cuts::performed;
use storage_tests::queue_life::{begin, drain, inject, play, step};
use storage_tests::queues::{CUTS, DIR, budget_holds, open, tiny};
use storage_tests::rng::Rng;
use storage_tests::sim_disk::PowerCut;

/// Lives through crashes, and on a bad disk through faults; then all that was acknowledged is delivered. Returns the
/// number of crashes.
fn history(seed: u64, bad_disk: bool) -> u64 {
    let mut rng = Rng::new(seed);
    let (disk, clock, mut model, mut queues) = begin(seed);
    let mut crashes = 0;
    for _ in 0..8 {
        let performed = performed(&mut rng);
        disk.crash_at(disk.ops() + rng.below(150) as u64, performed);
        for _ in 0..400 {
            if bad_disk && rng.chance(1, 12) {
                inject(&mut rng, &disk);
            } else if bad_disk && rng.chance(1, 6) {
                disk.clear_faults();
            }
            step(&mut rng, &queues, &mut model);
            clock.advance(Duration::from_millis(50));
            if disk.crashed() {
                break;
            }
        }
        drop(queues);
        disk.clear_faults();
        disk.power_cut(CUTS[rng.below(CUTS.len())]);
        crashes += 1;
        if rng.chance(1, 3) {
            // It crashes again while it opens, or soon after.
            disk.crash_at(disk.ops() + rng.below(30) as u64, Performed::Nothing);
            let (again, clock) = (Arc::new(disk.clone()), Arc::new(clock.clone()));
            if let Ok(again) = Queues::open(again, clock, Path::new(DIR), tiny(Duration::ZERO), QueueOptions::inline())
            {
                let _ = again.tick();
            }
            disk.power_cut(PowerCut::RandomSubset);
            crashes += 1;
        }
        queues = open(&disk, &clock);
        model.check_after_crash(&queues);
        budget_holds(&disk, &queues);
    }
    drain(&queues, &mut model);
    queues.close().expect("the disk is sound");
    crashes
}

fn histories(bad_disk: bool) {
    let first = number("FOREBAY_SEED", 1);
    let crashes: u64 = (first..first + number("FOREBAY_HISTORIES", 40)).map(|seed| history(seed, bad_disk)).sum();
    println!("{crashes} crashes");
}

/// Repeat one history with `FOREBAY_SEED=n FOREBAY_HISTORIES=1`.
#[test]
fn no_crash_loses_a_record_a_cursor_or_a_plan() {
    histories(false);
}

/// The same on a disk that refuses, fills up and fails its syncs now and then.
#[test]
fn no_crash_of_a_bad_disk_does_either() {
    histories(true);
}

/// One life as a script, ended at every change that it makes in turn. Repeat one with `FOREBAY_CASE=n`.
#[test]
fn a_crash_at_any_change_of_a_life_of_queues_loses_nothing() {
    const STEPS: usize = 70;
    let seed = number("FOREBAY_SEED", 1);
    // The same steps each time, up to the change at which it crashes.
    let live = |crash: Option<(u64, Performed)>| {
        let mut from = 0;
        let (disk, clock, model, _) = play(seed, STEPS, |disk| {
            from = disk.ops();
            crash.into_iter().for_each(|(change, performed)| disk.crash_at(from + change, performed));
        });
        let changes = disk.ops() - from;
        (disk, clock, model, changes)
    };
    let (.., changes) = live(None);
    assert!(changes > 80, "{changes} changes");
    let only = std::env::var("FOREBAY_CASE").ok().map(|case| case.parse::<u64>().expect("a number"));
    for change in (0..changes).filter(|change| only.is_none_or(|only| only == *change)) {
        for (way, performed) in [Performed::Nothing, Performed::Bytes(600), Performed::All].into_iter().enumerate() {
            // Each way of ending it meets each kind of change many times over.
            let cut = CUTS[(change as usize + way) % CUTS.len()];
            println!("change {change}, {performed:?}, {cut:?}");
            let (disk, clock, mut model, _) = live(Some((change, performed)));
            assert!(disk.crashed());
            disk.power_cut(cut);
            let queues = open(&disk, &clock);
            model.check_after_crash(&queues);
            budget_holds(&disk, &queues);
            drain(&queues, &mut model);
            queues.close().expect("the disk is sound");
        }
    }
}
