//! Impressions and their post lie in two logs, each with syncs of its own: a power cut at any change of either leaves both of
//! what was answered with 200, and at most one half of what was not.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use forebay::clock::SystemClock;
use forebay::{Log, LogOptions};
use storage_tests::fault::Performed;
use storage_tests::sim_disk::{PowerCut, SimDisk};

use super::harness::{KEY, frames, impressions, post, start_on};
use crate::ingest::{Limits, Relay};
use crate::post::Post;

/// Impressions in a bulk, and bulks in a life.
const RECORDS: u64 = 3;
const BULKS: u64 = 3;

fn logs(disk: &SimDisk) -> Option<[Log; 2]> {
    let open = |dir: &str| {
        let options = LogOptions { inline: false, ..LogOptions::small() };
        Log::open(Arc::new(disk.clone()), Arc::new(SystemClock::new()), Path::new(dir), options).ok()
    };
    Some([open("/data/log")?, open("/data/upstream")?])
}

/// Posts bulks until one is not taken. Says how many were.
async fn life(disk: &SimDisk) -> u64 {
    let Some([log, posts]) = logs(disk) else { return 0 };
    let server = start_on(log.clone(), Limits::default()).await;
    let relay = Relay::new("split".into(), posts.clone(), Arc::new(SystemClock::new()));
    server.ingest.environments().set_relay(0, Some(Arc::new(relay)));
    let authorization = format!("Bearer {KEY}");
    let mut taken = 0;
    while taken < BULKS {
        let bulk =
            post("/api/testImpressions/bulk", &[("Authorization", &authorization)], impressions(RECORDS as usize));
        // Of a process that has ended nobody hears.
        if server.send(bulk).await.status != 200 || disk.crashed() {
            break;
        }
        taken += 1;
    }
    server.stop().await;
    // The process ends: nothing of it writes when the power is back.
    for log in [log, posts] {
        let _ = log.close();
    }
    taken
}

/// Impressions and posts that are there.
fn there(disk: &SimDisk) -> (u64, u64) {
    let [log, posts] = logs(disk).expect("no crash keeps a log from opening");
    let records = frames(&log, "prod").iter().map(|(_, records)| u64::from(*records)).sum();
    let kept = frames(&posts, "posts/prod/1");
    let whole = kept.iter().filter(|(payload, _)| Post::read(&Bytes::from(payload.clone())).is_ok()).count();
    assert_eq!(whole, kept.len(), "what is kept is whole");
    (records, whole as u64)
}

#[tokio::test]
async fn a_power_cut_at_any_change_of_either_log_leaves_both_halves_of_what_was_answered() {
    let start = SimDisk::new(13);
    drop(logs(&start).unwrap());
    let snapshot = start.snapshot();
    let whole = SimDisk::from_snapshot(&snapshot);
    let first = whole.ops();
    assert_eq!(life(&whole).await, BULKS);
    let last = whole.ops();
    assert_eq!(there(&whole), (BULKS * RECORDS, BULKS));
    let (mut crashes, mut halves) = (0, 0);
    for op in first..last {
        for (performed, cut) in [
            (Performed::Nothing, PowerCut::NothingUnsynced),
            (Performed::All, PowerCut::NothingUnsynced),
            (Performed::All, PowerCut::Everything),
        ] {
            let disk = SimDisk::from_snapshot(&snapshot);
            disk.reseed(op);
            disk.crash_at(op, performed);
            let taken = life(&disk).await;
            disk.power_cut(cut);
            let (records, posts) = there(&disk);
            let what = format!("change {op}, {performed:?}, {cut:?}: {taken} taken, {records} records, {posts} posts");
            assert!(records >= taken * RECORDS && posts >= taken, "{what}");
            assert!(records <= (taken + 1) * RECORDS && posts <= taken + 1 && records % RECORDS == 0, "{what}");
            halves += u64::from(records / RECORDS != posts);
            crashes += 1;
        }
    }
    eprintln!("{crashes} crashes, {halves} of which left one half of a bulk that nobody was told of");
    assert!(halves > 0, "some come between the two syncs");
}
