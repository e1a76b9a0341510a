//! The power goes under the real binary: its data and its files lie on an ext4 and an XFS of their own, which are shut down
//! under load without their journals' ends. What was acknowledged arrives, and what was durable does not come again.
//!
//! `FOREBAY_REAL_CUTS` makes so many; without it nothing is mounted.

use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use storage_tests::aloud;
use storage_tests::crash_points::number;
use storage_tests::crew::{self, Until};
use storage_tests::mounts::LoopDisk;

use super::kills::{WEBHOOK, flaky, seed};
use super::load::Load;
use super::proof::{Arrived, balance_closes};
use super::receiver::{Answer, Receiver};
use super::sidecar::Home;
use super::witness::{Delivered, Witness};

const DESTINATIONS: [&str; 2] = ["archive", "hook"];

#[test]
fn what_was_acknowledged_before_the_power_went_arrives_everywhere() {
    let asked = number("FOREBAY_REAL_CUTS", 0);
    let disks = if asked == 0 { Vec::new() } else { LoopDisk::each() };
    if disks.is_empty() {
        return aloud::not_run("power cuts under the real binary. FOREBAY_REAL_CUTS=20 makes some, as root.");
    }
    let seed = seed();
    thread::scope(|scope| {
        for (n, disk) in disks.iter().enumerate() {
            let cuts = asked.div_ceil(disks.len() as u64);
            scope.spawn(move || lives(disk, cuts, seed.wrapping_add(n as u64)));
        }
    });
}

/// So many lives on one disk, each ended by its power, and one more that delivers the rest.
fn lives(disk: &LoopDisk, cuts: u64, seed: u64) {
    let mut rng = SmallRng::seed_from_u64(seed);
    let receiver = Receiver::start();
    receiver.script(flaky(seed));
    let home = Home::on(disk.at(), disk.kind())
        .log("replay_window = \"0s\"")
        .webhook("hook", &receiver, WEBHOOK)
        .file("archive", "rotate_bytes = \"1MiB\"");
    disk.sync();
    let load = Load::start(disk.kind(), seed, 2, home.ingest());
    let mut deaths = BTreeMap::<usize, Delivered>::new();
    let done = crew::in_turn(Until::all(cuts), |_| {
        // Some lose it while they start.
        let infant = rng.random_ratio(1, 5);
        let sidecar = if infant { home.spawn() } else { home.start() };
        let (life, witness) = (sidecar.life, Witness::over(home.admin()));
        thread::sleep(Duration::from_millis(rng.random_range(0..if infant { 200 } else { 1200 })));
        sidecar.lose_power(disk);
        deaths.insert(life, witness.end());
    });
    let last = home.start();
    let before = load.acknowledged();
    assert!(super::sidecar::wait_for(|| load.acknowledged() > before));
    let posts = load.stop();
    receiver.script(|_| Answer::Ok);
    let lags = last.drain(&DESTINATIONS);

    let arrivals = receiver.arrivals();
    let (arrived, files) = (Arrived::at_webhook(&arrivals), Arrived::in_files(home.lines("archive")));
    files.holds(&posts, "archive");
    arrived.holds(&posts, "hook");
    arrived.equals(&files);
    balance_closes(&lags, &DESTINATIONS, files.len());
    let durable = |seen: &Delivered| seen.get("hook").copied().unwrap_or_default();
    let repeats = arrived.repeats_excused_by(&deaths.iter().map(|(life, seen)| (*life, durable(seen))).collect());
    eprintln!(
        "{}: {done}; {} posts, {} impressions, {} requests, {repeats} repeated after a success",
        disk.kind(),
        posts.len(),
        files.len(),
        arrivals.len()
    );
    // A test in which nothing happened would pass as well.
    assert!(posts.len() as u64 > 5 * done.count && files.len() as u64 > 50 * done.count);
}
