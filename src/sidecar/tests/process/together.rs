//! Disk and network that fail together: calls of the real binary fail while nobody takes what it sends, and it is killed in the
//! midst of both. What was acknowledged arrives, in order where that is asked for, what comes again is what nobody had taken,
//! and the budget of the disk holds. And where each fails for one destination, a third notices nothing.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use storage_tests::aloud;
use storage_tests::mounts::SmallDisk;

use super::load::Load;
use super::proof::{Arrived, balance_closes, in_order};
use super::receiver::{Answer, Receiver};
use super::sidecar::{Home, wait_for};
use super::strace::{Strace, can_trace};
use super::syscalls::{FELT, judge, lines, takes_more};
use super::witness::{Delivered, Witness};

/// How the disk fails, and whether the sidecar is killed in the midst of it.
const FAULTS: [(&str, &str, bool); 3] = [
    ("fdatasync", "error=EIO:when=1+", false),
    ("pwritev", "error=ENOSPC:when=2+3", true),
    ("pwritev", "error=EIO:when=1+", true),
];

/// How receivers fail meanwhile, in turn: some say so, and some hang up.
const ANSWERS: [Answer; 3] = [Answer::Status(503), Answer::Drop, Answer::Status(500)];

/// What the log may take of the disk, whose every failure costs it a file, and in KiB.
const BUDGET: (&str, u64) = ("16MiB", 16 << 10);

/// What its segments and spares take of the disk: what counts against the budget.
pub(super) fn kib_taken(log: &Path) -> u64 {
    let mut kib = 0;
    for entry in fs::read_dir(log).expect("it is there") {
        let entry = entry.expect("nobody is there to take it away");
        let name = entry.file_name().into_string().expect("it is ours");
        if name.ends_with(".seg") || name.starts_with("spare-") {
            kib += entry.metadata().expect("it is there").blocks() / 2;
        }
    }
    kib
}

#[test]
fn disk_and_network_that_fail_together_lose_nothing_across_kills() {
    if !can_trace() {
        return;
    }
    let receivers = [Receiver::start(), Receiver::start()];
    let counts = || receivers.each_ref().map(Receiver::count);
    let home = Home::new("together")
        .log("replay_window = \"0s\"")
        .budget(BUDGET.0)
        .webhook("hook", &receivers[0], "batch_records_max = 100")
        .webhook("ordered", &receivers[1], "batch_records_max = 100\nordered = true")
        .file("archive", "");
    let mut sidecar = home.start();
    let mut witness = Witness::over(home.admin());
    let load = Load::start("together", 14, 2, home.ingest());
    let mut deaths = BTreeMap::<usize, Delivered>::new();
    let (mut failed, mut most) = (0, 0);
    for (calls, how, kill) in FAULTS {
        let goes_on = |when: &str, since: [usize; 2], more: usize, said: &dyn Fn() -> String| {
            let more = || counts().iter().zip(since).all(|(now, since)| *now >= since + more);
            assert!(wait_for(more), "{when} {calls} {how}: nothing is sent; it said:\n{}", said());
        };
        takes_more(&load, &sidecar, &format!("before {calls} {how}"));
        goes_on("before", counts(), 3, &|| sidecar.said());
        // First the network, so that there is something to send again when nothing more can be planned.
        receivers.iter().for_each(|receiver| receiver.script(|n| ANSWERS[n % ANSWERS.len()]));
        let since = counts();
        goes_on("beside", since, 1, &|| sidecar.said());
        let strace = Strace::over(&sidecar, &home, &[(calls, how)]);
        assert!(wait_for(|| strace.felt(calls) >= FELT), "{calls} {how}: it said:\n{}", sidecar.said());
        // Whatever came since the disk began to fail was sent, or sent again, and failed as well.
        goes_on("under", counts(), 1, &|| sidecar.said());
        if kill {
            let life = sidecar.life;
            sidecar.kill();
            deaths.insert(life, witness.end());
            strace.end();
            let kib = kib_taken(&home.path("data/log"));
            assert!(kib <= BUDGET.1, "{kib} KiB on the disk");
            most = most.max(kib);
            sidecar = home.start();
            witness = Witness::over(home.admin());
        } else {
            strace.end();
        }
        // The disk is well before the network is.
        takes_more(&load, &sidecar, &format!("after {calls} {how}"));
        failed += counts().iter().zip(since).map(|(now, since)| now - since).sum::<usize>();
        receivers.iter().for_each(|receiver| receiver.script(|_| Answer::Ok));
        goes_on("after", counts(), 3, &|| sidecar.said());
    }
    let mut posts = load.stop();
    let refused = judge(&mut posts, true);
    let destinations = ["archive", "hook", "ordered"];
    let lags = sidecar.drain(&destinations);
    witness.end();
    let lines = lines(&home);
    in_order(&receivers[1].arrivals(), &lines);
    let files = Arrived::in_files(lines);
    files.holds(&posts, "archive");
    let mut again = 0;
    for (id, receiver) in [("hook", &receivers[0]), ("ordered", &receivers[1])] {
        let arrived = Arrived::at_webhook(&receiver.arrivals());
        arrived.holds(&posts, id);
        arrived.equals(&files);
        let durable = |seen: &Delivered| seen.get(id).copied().unwrap_or_default();
        again += arrived.repeats_excused_by(&deaths.iter().map(|(life, seen)| (*life, durable(seen))).collect());
    }
    balance_closes(&lags, &destinations, files.len());
    eprintln!(
        "{} posts, {refused} refused, {failed} requests failed, {again} came again after a success; {most} KiB of {}",
        posts.len(),
        BUDGET.1
    );
}

/// Each waits for its own, and the third notices nothing.
#[test]
fn a_destination_on_a_full_disk_and_one_that_is_down_wait_beside_one_that_is_well() {
    let (down, well) = (Receiver::start(), Receiver::start());
    let more = "batch_records_max = 100";
    let home = Home::new("beside").webhook("down", &down, more).webhook("well", &well, more).file("archive", more);
    let disk = match SmallDisk::mount(&home.path("archive"), 64 << 10) {
        Ok(disk) => disk,
        Err(why) => return aloud::not_run(format_args!("a file destination on a full disk: {why}")),
    };
    let sidecar = home.start();
    down.down();
    let load = Load::start("beside", 12, 2, home.ingest());
    let behind = |id: &str| sidecar.lags().iter().find(|lag| lag.destination == id).map_or(0, |lag| lag.records_behind);
    assert!(wait_for(|| behind("archive") > 1_000 && behind("down") > 1_000), "it said:\n{}", sidecar.said());
    let (taken, delivered) = (load.acknowledged(), well.count());
    assert!(
        wait_for(|| load.acknowledged() > taken + 50 && well.count() > delivered + 20),
        "the third notices nothing"
    );
    assert!(behind("archive") > 1_000, "its disk is full");
    disk.resize(256 << 20);
    down.up();
    let posts = load.stop();
    let destinations = ["archive", "down", "well"];
    let lags = sidecar.drain(&destinations);
    let files = Arrived::in_files(home.lines("archive"));
    files.holds(&posts, "archive");
    for (id, receiver) in [("down", &down), ("well", &well)] {
        let arrived = Arrived::at_webhook(&receiver.arrivals());
        arrived.holds(&posts, id);
        arrived.equals(&files);
    }
    balance_closes(&lags, &destinations, files.len());
    drop(sidecar);
    drop(disk);
}
