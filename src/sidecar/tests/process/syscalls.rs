//! Calls of the real binary that fail: `strace` lets fsync, pwritev and their kin say EIO, ENOSPC or EINTR under load; and a
//! disk in memory is full. What was acknowledged arrives, whatever it was that failed, what was refused does not, and the
//! sidecar goes on by itself once calls work again.

use std::fs;

use serde_json::Value;
use storage_tests::aloud;
use storage_tests::mounts::SmallDisk;

use super::event_service::{EventService, Service};
use super::load::{Fate, Load, Post, post};
use super::proof::{Arrived, balance_closes};
use super::receiver::Receiver;
use super::sidecar::{Home, Sidecar, wait_for};
use super::strace::{Strace, can_trace};
use super::wire::Client;

/// What becomes of posts while calls fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Posts {
    /// Some are refused: no fresh file helps.
    Refused,
    /// Some may be.
    Perhaps,
    /// All are taken as ever: a call that was interrupted is made again.
    Taken,
}

/// Calls that fail: which, what they say, and which of them do: `3+` is a thread's third of its kind and all behind it, `1+2`
/// every other. And how many of each are waited for, and what becomes of posts.
type Fault = (&'static [(&'static str, &'static str)], &'static [(&'static str, usize)], Posts);

/// Has a segment be given up and another begun.
const ONE_SYNC: (&str, &str) = ("fdatasync", "error=EIO:when=3");

/// Those by which data gets to the disk. Lengths change, and directories are synced, where a segment ends.
const FAULTS: [Fault; 10] = [
    (&[ONE_SYNC], &[("fdatasync", 1)], Posts::Perhaps),
    (&[("fdatasync", "error=EIO:when=1+")], &[("fdatasync", FELT)], Posts::Refused),
    (&[("fsync", "error=EIO:when=1+")], &[("fsync", FELT)], Posts::Perhaps),
    (&[("pwritev,pwritev2", "error=ENOSPC:when=2+3")], &[("pwritev", FELT)], Posts::Perhaps),
    (&[("pwritev,pwritev2", "error=EIO:when=1+")], &[("pwritev", FELT)], Posts::Refused),
    (&[("fallocate", "error=ENOSPC:when=1+"), ONE_SYNC], &[("fallocate", 1)], Posts::Perhaps),
    (&[("ftruncate", "error=EIO:when=1+"), ONE_SYNC], &[("ftruncate", 1)], Posts::Perhaps),
    (&[("rename,renameat,renameat2", "error=EIO:when=1+"), ONE_SYNC], &[("rename", FELT)], Posts::Perhaps),
    (
        &[("pwritev,pwritev2,fdatasync", "error=EINTR:when=1+2")],
        &[("pwritev", FELT), ("fdatasync", FELT)],
        Posts::Taken,
    ),
    (&[("fdatasync", "delay_enter=300000:when=1+")], &[("fdatasync", FELT)], Posts::Perhaps),
];

/// Faults of one call that a test waits for.
pub(super) const FELT: usize = 3;

/// Waits until more posts are taken.
pub(super) fn takes_more(load: &Load, sidecar: &Sidecar<'_>, when: &str) {
    let before = load.acknowledged();
    let goes_on = wait_for(|| load.acknowledged() > before + 20);
    assert!(goes_on, "{when}: nothing is taken any more; it said:\n{}", sidecar.said());
}

/// What follows from what became of the posts. After a kill in the midst of a failure a refused post may lie in the log.
pub(super) fn judge(posts: &mut [Post], killed: bool) -> usize {
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

/// The archive's lines. How far a file counts that failed and could not be cut its name says; what lies behind that is written again.
pub(super) fn lines(home: &Home) -> Vec<Value> {
    for entry in fs::read_dir(home.path("archive")).expect("it was written to") {
        let path = entry.expect("listed").path();
        let end = path.extension().and_then(|end| end.to_str()?.strip_prefix("failed-")?.parse::<u64>().ok());
        if let Some(end) = end {
            let file = fs::File::options().write(true).open(&path).expect("it is ours");
            let len = file.metadata().expect("it is there").len();
            file.set_len(end.min(len)).expect("it is ours");
        }
    }
    home.lines("archive")
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
    for (faults, enough, fare) in FAULTS {
        takes_more(&load, &sidecar, &format!("before {faults:?}"));
        let (refused, taken) = (load.refused(), load.acknowledged());
        let strace = Strace::over(&sidecar, &home, faults);
        let felt = wait_for(|| {
            enough.iter().all(|(call, times)| strace.felt(call) >= *times)
                && match fare {
                    Posts::Refused => load.refused() > refused + 3,
                    Posts::Perhaps => true,
                    Posts::Taken => load.acknowledged() > taken + 20,
                }
        });
        let times: Vec<_> = enough.iter().map(|(call, _)| (call, strace.felt(call))).collect();
        assert!(felt, "{faults:?}: felt {times:?}; it said:\n{}", sidecar.said());
        let more = load.refused() - refused;
        assert!(more == 0 || fare != Posts::Taken, "{faults:?}: {more} refused; it said:\n{}", sidecar.said());
        if killed {
            // It dies among its failures, and starts on what they left.
            sidecar.kill();
            strace.end();
            sidecar = home.start();
        } else {
            strace.end();
        }
        takes_more(&load, &sidecar, &format!("after {faults:?}"));
    }
    let mut posts = load.stop();
    let refused = judge(&mut posts, killed);
    let lags = sidecar.drain(&["archive", "hook"]);
    let (arrived, files) = (Arrived::at_webhook(&receiver.arrivals()), Arrived::in_files(lines(&home)));
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

/// Whoever needs no plan is sent what is durable at its own pace, whatever the disk says or leaves unsaid for half a minute.
#[test]
fn what_is_durable_is_delivered_while_syncs_fail_or_stall() {
    const STALLS: &str = "delay_enter=30000000:when=1+";
    if !can_trace() {
        return;
    }
    let services = [EventService::start(Service::Amplitude, 1), EventService::start(Service::Segment, 2)];
    services.iter().for_each(EventService::calm);
    let [amplitude, segment] =
        services.each_ref().map(|service| service.settings() + "batch_records_max = 50\nrate = { records = 400 }");
    // Most of what waits is read from the disk.
    let home = Home::new("durable")
        .log("tail_cache_bytes = \"1MiB\"")
        .destination("amplitude", &amplitude)
        .destination("segment", &segment);
    let sidecar = home.start();
    let load = Load::start("durable", 13, 2, home.ingest());
    let mut brought = Vec::new();
    let faults = [
        ("fdatasync", "error=EIO:when=1+"),
        ("pwritev,pwritev2", "error=EROFS:when=1+"),
        ("fdatasync", "error=EDQUOT:when=1+"),
        ("fdatasync", STALLS),
    ];
    for (calls, how) in faults {
        // Many at a time: where a sync takes long the load alone brings no more than is delivered meanwhile.
        let mut client = Client::connect(home.ingest()).expect("it listens");
        let behind = if how == STALLS { 15_000 } else { 3_000 };
        let backlog = || {
            let keys: Vec<String> = (0..1_000).map(|n| format!("brought-{}{n:03}", brought.len())).collect();
            assert!(matches!(post(&mut client, "brought", &keys), Ok(200..300)));
            brought.push(Post { keys, fate: Fate::Acknowledged });
            sidecar.lags().iter().all(|lag| lag.records_behind > behind)
        };
        assert!(wait_for(backlog), "it said:\n{}", sidecar.said());
        let strace = Strace::over(&sidecar, &home, &[(calls, how)]);
        let refused = load.refused();
        let call = calls.split(',').next().expect("one at least");
        let felt = || strace.felt(call) >= FELT && load.refused() > refused + 5;
        assert!(how == STALLS || wait_for(felt), "{how}: it said:\n{}", sidecar.said());
        let taken = load.acknowledged();
        // What stalls is told of when it is over.
        let mut times = 0;
        while times == 0 || (how == STALLS && strace.felt(call) == 0) {
            let came = services.each_ref().map(|service| service.arrivals().len());
            let goes_on = || services.iter().zip(came).all(|(service, came)| service.arrivals().len() > came + 600);
            assert!(wait_for(goes_on), "{how}: nothing is delivered; it said:\n{}", sidecar.said());
            times += 1;
        }
        assert!(times > 3 || how != STALLS, "delivered in the half minute of a sync: {times} times 600 records");
        assert!(load.acknowledged() == taken || how == STALLS, "nothing is taken meanwhile");
        strace.end();
        takes_more(&load, &sidecar, how);
    }
    let mut posts = load.stop();
    posts.append(&mut brought);
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
        Err(why) => return aloud::not_run(format_args!("a full disk under the real binary: {why}")),
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

/// What lies on the disk and cannot be read waits, and nothing of it is skipped or called lost. Whoever needs only what comes
/// in gets it meanwhile.
#[test]
fn a_backlog_that_cannot_be_read_for_a_while_waits_and_all_of_it_arrives() {
    const READS: &str = "pread64,preadv,preadv2";
    if !can_trace() {
        return;
    }
    let (behind, beside) = (Receiver::start(), Receiver::start());
    let more = "batch_records_max = 100";
    let home = Home::new("unreadable").webhook("behind", &behind, more).webhook("beside", &beside, more);
    let sidecar = home.start();
    behind.down();
    let load = Load::start("backlog", 15, 2, home.ingest());
    assert!(wait_for(|| load.acknowledged() > 300), "it said:\n{}", sidecar.said());
    let mut posts = load.stop();
    sidecar.drain(&["beside"]);
    sidecar.terminate();
    assert_eq!(sidecar.wait(), Some(0));
    // Whatever it had in memory is gone.
    let sidecar = home.start();
    let strace = Strace::over(&sidecar, &home, &[(READS, "error=EIO:when=1+")]);
    behind.up();
    assert!(wait_for(|| strace.felt("pread") >= FELT), "it said:\n{}", sidecar.said());
    let (load, count) = (Load::start("tail", 16, 2, home.ingest()), beside.count());
    assert!(wait_for(|| beside.count() > count + 3), "it said:\n{}", sidecar.said());
    let lag = sidecar.lags().into_iter().find(|lag| lag.destination == "behind").expect("it has a queue");
    assert!(lag.records_behind > 2_000, "most of it was never read");
    // The rest of it by reads of which every other is interrupted.
    behind.down();
    strace.end();
    let strace = Strace::over(&sidecar, &home, &[(READS, "error=EINTR:when=1+2")]);
    behind.up();
    posts.extend(load.stop());
    let destinations = ["behind", "beside"];
    let lags = sidecar.drain(&destinations);
    assert!(strace.felt("pread") > 0, "no read was interrupted");
    strace.end();
    for (id, receiver) in [("behind", &behind), ("beside", &beside)] {
        let arrived = Arrived::at_webhook(&receiver.arrivals());
        arrived.holds(&posts, id);
        balance_closes(&lags, &destinations, arrived.len());
    }
}
