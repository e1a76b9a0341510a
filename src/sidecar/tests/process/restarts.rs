//! Started and killed many times over, fast, often before it is ready, with its binary replaced meanwhile: what waited to be
//! delivered is delivered, under the ids that it had, and no start leaves a file behind for the next.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::crowd::Regular;
use super::kills::seed;
use super::proof::{Arrived, balance_closes};
use super::receiver::{Answer, Receiver};
use super::sidecar::{Home, copy_binary, wait_for};

const DESTINATIONS: [&str; 2] = ["archive", "hook"];

const STARTS: u64 = 100;

/// Files that a start may leave beside those that the first one left: the next file of the log and its index, and one of the cursor
/// store's.
const MORE_FILES: usize = 4;

/// What they may take more: those files, made ahead.
const MORE_BYTES: u64 = 4 << 20;

/// Files below a directory and their bytes.
fn found(dir: &Path) -> (usize, u64) {
    let entries = fs::read_dir(dir).expect("it is there").map(|entry| entry.expect("listed"));
    entries.fold((0, 0), |(files, bytes), entry| {
        let (more, size) = match entry.metadata().expect("nobody is at work there") {
            metadata if metadata.is_dir() => found(&entry.path()),
            metadata => (1, metadata.len()),
        };
        (files + more, bytes + size)
    })
}

/// The binary as it is installed, and two files of it that take each other's place there, as when a package is upgraded.
struct Installed {
    at: PathBuf,
    versions: [PathBuf; 2],
}

impl Installed {
    fn of(home: &Home) -> Self {
        let versions = ["one-version", "another-version"].map(|name| home.path(name));
        versions.iter().for_each(|version| copy_binary(version));
        let installed = Self { at: home.path("installed"), versions };
        installed.replace(0);
        installed
    }

    fn replace(&self, n: u64) {
        let next = self.at.with_extension("next");
        fs::hard_link(&self.versions[usize::from(n % 2 == 1)], &next).expect("it is ours");
        fs::rename(&next, &self.at).expect("it is ours");
    }
}

#[test]
fn who_is_started_and_killed_a_hundred_times_over_delivers_what_waited_and_leaves_no_file_a_start() {
    let mut rng = SmallRng::seed_from_u64(seed());
    let receiver = Receiver::start();
    // Nothing is delivered before the last start but to the archive.
    receiver.script(|_| Answer::Status(503));
    let home = Home::new("restarts").webhook("hook", &receiver, "batch_records_max = 100").file("archive", "");
    let installed = Installed::of(&home);
    let mut sidecar = home.spawn_as(Command::new(&installed.at));
    let began = Instant::now();
    sidecar.wait_until_ready();
    let ready = began.elapsed().min(Duration::from_millis(400));
    let mut regular = Regular::at(home.ingest());
    (0..10).for_each(|_| regular.posts(100));
    let mut deaths = BTreeMap::from([(sidecar.life, 0)]);
    sidecar.kill();
    let before = found(&home.path("data"));
    let mut most = before;
    for n in 1..=STARTS {
        let sidecar = home.spawn_as(Command::new(&installed.at));
        if n % 25 == 0 {
            assert!(wait_for(|| receiver.arrivals().iter().any(|arrival| arrival.life == sidecar.life)), "it sends");
        } else {
            // Mostly before it is ready.
            let longest = if n % 4 == 0 { 3 * ready } else { Duration::from_millis(80) };
            thread::sleep(rng.random_range(Duration::ZERO..longest));
        }
        installed.replace(n);
        deaths.insert(sidecar.life, 0);
        sidecar.kill();
        let (files, bytes) = found(&home.path("data"));
        most = (most.0.max(files), most.1.max(bytes));
        assert!(files <= before.0 + MORE_FILES, "{files} files, and {} after the first start", before.0);
        assert!(bytes <= before.1 + MORE_BYTES, "{bytes} bytes, and {} after the first start", before.1);
    }
    receiver.script(|_| Answer::Ok);
    let mut last = home.spawn_as(Command::new(&installed.at));
    last.wait_until_ready();
    let lags = last.drain(&DESTINATIONS);
    let (arrivals, files) = (receiver.arrivals(), Arrived::in_files(home.lines("archive")));
    let arrived = Arrived::at_webhook(&arrivals);
    arrived.holds(&regular.posted, "hook");
    files.holds(&regular.posted, "archive");
    balance_closes(&lags, &DESTINATIONS, files.len());
    let lives: BTreeSet<usize> = arrivals.iter().map(|arrival| arrival.life).collect();
    assert!(lives.len() >= 5, "only {lives:?} came so far as to send something");
    assert_eq!(arrived.repeats_excused_by(&deaths), 0, "nothing was taken before the last start");
    eprintln!(
        "{STARTS} starts and kills: {} requests of {} lives, {before:?} files and bytes, {most:?} at most",
        arrivals.len(),
        lives.len()
    );
}
