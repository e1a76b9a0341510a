//! Calls of the real binary that fail: `strace` lets fsync, pwritev and their kin say EIO or ENOSPC under load; and a disk in
//! memory is full. What was acknowledged arrives, whatever it was that failed, what was refused does not, and the sidecar goes
//! on by itself once calls work again.

use std::collections::HashSet;
use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use storage_tests::mounts::SmallDisk;

use super::event_service::{EventService, Service};
use super::load::{Fate, Load, Post};
use super::proof::{Arrived, balance_closes};
use super::receiver::Receiver;
use super::sidecar::{Home, Sidecar, wait_for};
use super::watchdog::Watchdog;

/// The calls by which data gets to the disk, each with what it says, and which of them do: `3+` is a thread's third and all
/// behind it. And whether posts are refused by it: no fresh file helps.
const FAULTS: [(&str, &str, bool); 8] = [
    ("fdatasync", "error=EIO:when=3", false),
    ("fdatasync", "error=EIO:when=1+", true),
    ("fsync", "error=EIO:when=1+", false),
    ("pwritev,pwritev2", "error=ENOSPC:when=2+3", false),
    ("pwritev,pwritev2", "error=EIO:when=1+", true),
    ("fallocate,ftruncate", "error=ENOSPC:when=1+", false),
    ("rename,renameat,renameat2", "error=EIO:when=1+", false),
    ("fdatasync", "delay_enter=300000:when=1+", false),
];

/// Faults of one call that a test waits for.
const FELT: usize = 3;

/// Whether this machine lets us trace a process of ours. Says so aloud where it does not.
fn can_trace() -> bool {
    let mut traced = Command::new("strace");
    traced.args(["-f", "-qq", "-o", "/dev/null", "-e", "inject=fsync:error=EIO", "true"]);
    let can = traced.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success());
    if !can {
        eprintln!("NOT RUN: calls that fail in the real binary. There is no strace that may trace a process here.");
    }
    can
}

/// A tracer at work, in a group of its own: what it makes for itself ends with it, whatever becomes of this process.
struct Strace {
    child: Child,
    told: PathBuf,
    watchdog: Watchdog,
}

impl Strace {
    /// Has these calls of the sidecar fail from now on.
    fn over(sidecar: &Sidecar<'_>, home: &Home, calls: &str, how: &str) -> Self {
        let told = home.path("strace");
        let (trace, inject) = (format!("trace={calls}"), format!("inject={calls}:{how}"));
        let mut strace = Command::new("strace");
        strace.args(["-f", "-qq", "-e", &trace, "-e", &inject, "-p", &sidecar.process().to_string(), "-o"]);
        strace.arg(&told).stdin(Stdio::null()).stderr(Stdio::null()).process_group(0);
        let child = strace.spawn().expect("it was here a moment ago");
        Self { told, watchdog: Watchdog::over_group(child.id()), child }
    }

    /// How many calls it meddled with.
    fn felt(&self) -> usize {
        let told = fs::read_to_string(&self.told).unwrap_or_default();
        told.matches("(INJECTED)").count() + told.matches("(DELAYED)").count()
    }

    /// Lets go of the process.
    fn end(self) {}
}

impl Drop for Strace {
    /// By SIGTERM, for a tracer that is killed would take its calls with it. One of its children that it had stopped gets that
    /// only when it goes on.
    fn drop(&mut self) {
        let group = self.child.id();
        let _ = Command::new("sh").args(["-c", &format!("kill -TERM -{group}; kill -CONT -{group}")]).status();
        self.child.wait().expect("it is our child");
        self.watchdog.dismiss();
    }
}

/// Waits until more posts are taken.
fn takes_more(load: &Load, sidecar: &Sidecar<'_>, when: &str) {
    let before = load.acknowledged();
    let goes_on = wait_for(|| load.acknowledged() > before + 20);
    assert!(goes_on, "{when}: nothing is taken any more; it said:\n{}", sidecar.said());
}

/// What follows from what became of the posts. After a kill in the midst of a failure a refused post may lie in the log.
fn judge(posts: &mut [Post], killed: bool) -> usize {
    let refused = posts.iter().filter(|post| matches!(post.fate, Fate::Refused(_))).count();
    for post in posts {
        let Fate::Refused(status) = post.fate else { continue };
        assert_eq!(status, 503, "try again later");
        if killed {
            post.fate = Fate::Unknown;
        }
    }
    refused
}

/// The archive's lines. What stands in a file that failed and could not be cut may, after a kill, stand in a later one again.
fn lines(home: &Home, killed: bool) -> Vec<Value> {
    let aside = home.path("aside");
    fs::create_dir(&aside).expect("the directory is ours");
    for entry in fs::read_dir(home.path("archive")).expect("it was written to") {
        let path = entry.expect("listed").path();
        if killed && path.extension().is_some_and(|end| end == "failed") {
            fs::rename(&path, aside.join(path.file_name().expect("it has one"))).expect("it is ours");
        }
    }
    let mut lines = home.lines("archive");
    let known: HashSet<String> = lines.iter().map(|line| line["id"].to_string()).collect();
    lines.extend(home.lines("aside").into_iter().filter(|line| !known.contains(&line["id"].to_string())));
    lines
}

/// One fault after the other over a sidecar under load, which is killed among them or not.
fn suffers(name: &str, killed: bool) -> usize {
    let receiver = Receiver::start();
    let home = Home::new(name)
        .log("replay_window = \"0s\"")
        .webhook("hook", &receiver, "batch_records_max = 100")
        .file("archive", "");
    let mut sidecar = home.start();
    let load = Load::start(name, 7, 2, home.ingest());
    for (calls, how, refuses) in FAULTS {
        takes_more(&load, &sidecar, &format!("before {calls} {how}"));
        let strace = Strace::over(&sidecar, &home, calls, how);
        let refused = load.refused();
        let enough = if how.ends_with("when=3") { 1 } else { FELT };
        let felt = wait_for(|| strace.felt() >= enough && (!refuses || load.refused() > refused + 3));
        assert!(felt, "{calls} {how}: felt {} times; it said:\n{}", strace.felt(), sidecar.said());
        if killed {
            // It dies among its failures, and starts on what they left.
            sidecar.kill();
            strace.end();
            sidecar = home.start();
        } else {
            strace.end();
        }
        takes_more(&load, &sidecar, &format!("after {calls} {how}"));
    }
    let mut posts = load.stop();
    let refused = judge(&mut posts, killed);
    let lags = sidecar.drain(&["archive", "hook"]);
    let (arrived, files) = (Arrived::at_webhook(&receiver.arrivals()), Arrived::in_files(lines(&home, killed)));
    arrived.holds(&posts, "hook");
    files.holds(&posts, "archive");
    arrived.equals(&files);
    balance_closes(&lags, &["archive", "hook"], files.len());
    eprintln!("{} faults of calls, killed: {killed}: {} posts, {refused} refused", FAULTS.len(), posts.len());
    refused
}

#[test]
fn calls_that_fail_in_the_real_binary_lose_nothing_and_pass() {
    if can_trace() {
        assert!(suffers("injected", false) > 0, "no fault was ever felt by who posts");
    }
}

#[test]
fn calls_that_fail_in_the_real_binary_lose_nothing_across_a_kill() {
    if can_trace() {
        suffers("injected-killed", true);
    }
}

/// Whoever needs no plan is sent what is durable at its own pace, whatever the disk says or leaves unsaid.
#[test]
fn what_is_durable_is_delivered_while_syncs_fail_or_stall() {
    if !can_trace() {
        return;
    }
    let services = [EventService::start(Service::Amplitude, 1), EventService::start(Service::Segment, 2)];
    services.iter().for_each(EventService::calm);
    let [amplitude, segment] =
        services.each_ref().map(|service| service.settings() + "batch_records_max = 50\nrate = { records = 400 }");
    let home = Home::new("durable").destination("amplitude", &amplitude).destination("segment", &segment);
    let sidecar = home.start();
    let load = Load::start("durable", 13, 2, home.ingest());
    for how in ["error=EIO:when=1+", "delay_enter=3000000:when=1+"] {
        let backlog = || sidecar.lags().iter().all(|lag| lag.records_behind > 3_000);
        assert!(wait_for(backlog), "it said:\n{}", sidecar.said());
        let strace = Strace::over(&sidecar, &home, "fdatasync", how);
        let refused = load.refused();
        let felt = || strace.felt() >= FELT && (load.refused() > refused + 5 || how.starts_with("delay"));
        assert!(wait_for(felt), "{how}: it said:\n{}", sidecar.said());
        let (taken, came) = (load.acknowledged(), services.each_ref().map(|service| service.arrivals().len()));
        let goes_on = || services.iter().zip(came).all(|(service, came)| service.arrivals().len() > came + 600);
        assert!(wait_for(goes_on), "{how}: nothing is delivered; it said:\n{}", sidecar.said());
        assert!(load.acknowledged() == taken || how.starts_with("delay"), "nothing is taken meanwhile");
        strace.end();
        takes_more(&load, &sidecar, how);
    }
    let mut posts = load.stop();
    judge(&mut posts, false);
    sidecar.drain(&["amplitude", "segment"]);
    for (id, service) in [("amplitude", &services[0]), ("segment", &services[1])] {
        Arrived::at_webhook(&service.arrivals()).holds(&posts, id);
    }
}

/// A full disk refuses what comes in, delivers what it has, and is itself again once that is gone: across a kill, too.
#[test]
fn a_small_disk_that_is_full_refuses_drains_and_comes_back_across_a_kill() {
    let receiver = Receiver::start();
    let home = Home::new("full").log("replay_window = \"0s\"").webhook("hook", &receiver, "batch_records_max = 1000");
    let disk = match SmallDisk::mount(&home.path("data"), 12 << 20) {
        Ok(disk) => disk,
        Err(why) => return eprintln!("NOT RUN: a full disk under the real binary: {why}"),
    };
    let mut sidecar = home.start();
    receiver.down();
    let load = Load::start("full", 8, 2, home.ingest());
    assert!(wait_for(|| load.refused() > 20), "it said:\n{}", sidecar.said());
    sidecar.kill();
    // Not ready before it takes posts.
    sidecar = home.spawn();
    let before = load.refused();
    assert!(wait_for(|| load.refused() > before + 20), "it starts on a full disk, and refuses at once");
    receiver.up();
    sidecar.wait_until_ready();
    takes_more(&load, &sidecar, "when the disk has room again");
    let mut posts = load.stop();
    let refused = judge(&mut posts, true);
    let lags = sidecar.drain(&["hook"]);
    let arrived = Arrived::at_webhook(&receiver.arrivals());
    arrived.holds(&posts, "hook");
    balance_closes(&lags, &["hook"], arrived.len());
    eprintln!("a full disk: {} posts, {refused} refused, {} impressions arrived", posts.len(), arrived.len());
    drop(sidecar);
    drop(disk);
}

/// Disk and network fail together: each waits for its own, and the third notices nothing.
#[test]
fn a_destination_on_a_full_disk_and_one_that_is_down_wait_beside_one_that_is_well() {
    let (down, well) = (Receiver::start(), Receiver::start());
    let more = "batch_records_max = 100";
    let home = Home::new("beside").webhook("down", &down, more).webhook("well", &well, more).file("archive", more);
    let disk = match SmallDisk::mount(&home.path("archive"), 64 << 10) {
        Ok(disk) => disk,
        Err(why) => return eprintln!("NOT RUN: a file destination on a full disk: {why}"),
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
