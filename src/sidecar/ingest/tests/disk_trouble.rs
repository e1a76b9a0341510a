//! Answers while the disk is slow or broken.

use std::time::Duration;

use super::gated_disk::{Gate, GatedDisk};
use super::harness::{bulk, comes_to, impressions, log_on, post, read_reply, start_on};
use crate::ingest::{Limits, Refusal};
use forebay::LogOptions;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const REJECTED: &str = r#"[{"f":"flag","i":[{"t":"on","m":1}]}]"#;

#[tokio::test]
async fn nothing_is_answered_before_it_is_synced() {
    let disk = GatedDisk::new();
    let server = start_on(log_on(&disk, LogOptions::default()), Limits::default()).await;
    for body in [impressions(1), REJECTED.to_owned(), impressions(10_000)] {
        let before = server.prod();
        disk.set(Gate::Closed);
        let mut stream = server.connect().await;
        stream.write_all(&bulk(body)).await.unwrap();
        while server.ingest.memory_used_bytes() == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let mut byte = [0; 1];
        let early = tokio::time::timeout(Duration::from_millis(100), stream.peek(&mut byte)).await;
        assert!(early.is_err(), "answered before the sync");
        let now = server.prod();
        assert_eq!((now.requests, now.accepted, now.rejected), (before.requests, before.accepted, before.rejected));
        assert!(server.ingest.memory_used_bytes() > 0, "what waits for the disk is held, and counted as held");
        disk.set(Gate::Open);
        assert_eq!(read_reply(&mut stream).await.unwrap().status, 200);
        assert_eq!(server.ingest.memory_used_bytes(), 0);
    }
    assert_eq!((server.prod().accepted, server.prod().rejected), (10_001, 1));
}

#[tokio::test]
async fn a_full_queue_is_503_soon_again() {
    let disk = GatedDisk::new();
    let options = LogOptions { queue_bytes_max: 10_000, ..LogOptions::default() };
    let server = start_on(log_on(&disk, options), Limits::default()).await;
    disk.set(Gate::Closed);
    let mut waiting = Vec::new();
    let refused = loop {
        let held = server.ingest.memory_used_bytes();
        let mut stream = server.connect().await;
        stream.write_all(&bulk(impressions(100))).await.unwrap();
        while server.ingest.memory_used_bytes() == held && server.refused(Refusal::Busy) == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let mut byte = [0; 1];
        let answered = tokio::time::timeout(Duration::from_millis(100), stream.peek(&mut byte)).await.is_ok();
        // An answer may be on its way: it is counted before.
        if answered || server.refused(Refusal::Busy) > 0 {
            break read_reply(&mut stream).await.unwrap();
        }
        waiting.push(stream);
        assert!(waiting.len() < 20, "the queue never fills");
    };
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")));
    assert_eq!(server.refused(Refusal::Busy), 1);
    disk.set(Gate::Open);
    for stream in &mut waiting {
        assert_eq!(read_reply(stream).await.unwrap().status, 200);
    }
    assert_eq!(server.records("prod"), 100 * waiting.len() as u64, "nothing of the refused one");
}

/// Ten minutes are longer than any limit that a connection has, and more comes in than may be held.
#[tokio::test]
async fn however_long_a_sync_takes_what_is_held_is_bounded_and_whoever_waits_is_answered() {
    const POSTS: usize = 40;
    let disk = GatedDisk::new();
    let limits = Limits { memory_bytes_max: 100_000, memory_wait_max: Duration::from_millis(100), ..Limits::default() };
    let server = start_on(log_on(&disk, LogOptions::default()), limits).await;
    disk.set(Gate::Closed);
    let mut posts = Vec::new();
    for _ in 0..POSTS {
        let mut stream = server.connect().await;
        stream.write_all(&bulk(impressions(100))).await.unwrap();
        posts.push(stream);
    }
    while server.refused(Refusal::Memory) == 0 || server.ingest.memory_waiting() > 0 {
        assert!(server.ingest.memory_used_bytes() <= 100_000);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    tokio::time::pause();
    tokio::time::sleep(Duration::from_secs(600)).await;
    tokio::time::resume();
    let held = server.ingest.memory_used_bytes();
    assert!(0 < held && held <= 100_000, "{held}");
    assert_eq!(server.prod().requests, 0, "nobody is told anything of what is not synced");
    disk.set(Gate::Open);
    let (mut taken, mut refused) = (0, 0);
    for mut stream in posts {
        match read_reply(&mut stream).await.expect("an answer").status {
            200 => taken += 1,
            503 => refused += 1,
            status => panic!("{status}"),
        }
    }
    assert!(taken > 0, "{refused} refused");
    assert_eq!((server.refused(Refusal::Memory), server.records("prod")), (refused, 100 * taken));
    assert_eq!((server.prod().accepted, server.ingest.memory_used_bytes()), (100 * taken, 0));
}

#[tokio::test]
async fn a_broken_disk_is_503_and_heals() {
    let disk = GatedDisk::new();
    let server = start_on(log_on(&disk, LogOptions::default()), Limits::default()).await;
    assert_eq!(server.bulk(impressions(1)).await.status, 200);
    disk.set(Gate::Broken);
    for _ in 0..3 {
        let refused = server.bulk(impressions(1)).await;
        assert_eq!((refused.status, refused.header("retry-after")), (503, Some("5")), "{refused:?}");
    }
    assert_eq!(server.refused(Refusal::Disk), 3);
    assert_eq!(server.ingest.memory_used_bytes(), 0);
    disk.set(Gate::Open);
    for _ in 0..600 {
        if server.bulk(impressions(1)).await.status == 200 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("never came back");
}

#[tokio::test]
async fn a_full_disk_is_503_for_what_is_rejected_too_so_that_the_reserve_stays() {
    let options = LogOptions { budget_bytes: 6 << 20, ..LogOptions::default() };
    let server = start_on(log_on(&GatedDisk::new(), options), Limits::default()).await;
    let mut taken = 0;
    let refused = loop {
        let reply = server.bulk(impressions(5_000)).await;
        if reply.status != 200 {
            break reply;
        }
        taken += 5_000;
        assert!(taken < 1_000_000, "the budget never ends");
    };
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("5")));
    assert_eq!(server.bulk(REJECTED).await.status, 503);
    assert_eq!((server.prod().accepted, server.records("prod"), server.prod().rejected), (taken, taken, 0));
}

/// Nothing of prod is ever delivered, all of staging at once: when the disk is short prod waits, and staging notices nothing.
#[tokio::test]
async fn on_a_short_disk_only_the_environment_that_is_behind_is_503() {
    let options = LogOptions { budget_bytes: 32 << 20, replay_window: Duration::ZERO, ..LogOptions::default() };
    let server = start_on(log_on(&GatedDisk::new(), options), Limits::default()).await;
    let staging = || post("/api/testImpressions/bulk", &[("Authorization", "Bearer staging-key")], impressions(10));
    let deliver = |stream: &str| {
        let id = server.log.stream(stream).expect("it has records");
        server.log.trim(id, server.log.durable(id).offset);
    };
    let mut taken = 0;
    let refused = loop {
        let reply = server.bulk(impressions(5_000)).await;
        if reply.status != 200 {
            break reply;
        }
        taken += 5_000;
        assert_eq!(server.send(staging()).await.status, 200);
        deliver("staging");
        assert!(taken < 2_000_000, "the disk never gets short");
    };
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("5")));
    assert!(refused.error().contains("more than its share"), "{}", refused.error());
    for _ in 0..20 {
        assert_eq!(server.send(staging()).await.status, 200);
        deliver("staging");
        assert_eq!(server.bulk(impressions(5_000)).await.status, 503);
        assert_eq!(server.bulk(REJECTED).await.status, 503, "nor is what is rejected kept");
    }
    assert_eq!((server.records("prod"), server.prod().accepted, server.prod().rejected), (taken, taken, 0));
    deliver("prod");
    for _ in 0..300 {
        if server.bulk(impressions(1)).await.status == 200 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("it is never taken again");
}

#[tokio::test]
async fn a_sender_that_left_while_the_disk_was_slow_is_stored_all_the_same() {
    let disk = GatedDisk::new();
    let server = start_on(log_on(&disk, LogOptions::default()), Limits::default()).await;
    disk.set(Gate::Closed);
    let mut stream = server.connect().await;
    stream.write_all(&bulk(impressions(7))).await.unwrap();
    let mut byte = [0; 1];
    assert!(tokio::time::timeout(Duration::from_millis(100), stream.read(&mut byte)).await.is_err());
    drop(stream);
    tokio::time::sleep(Duration::from_millis(50)).await;
    disk.set(Gate::Open);
    server.wait_for("prod", 7).await;
    comes_to(7, || server.prod().accepted).await; // it is counted behind that
}

/// Before: where only the rejects could not be stored the body was refused with its impressions on disk, and stored them
/// once more when it was sent again.
#[tokio::test]
async fn a_body_that_is_refused_for_its_rejects_has_stored_no_impression() {
    const MIXED: &str = r#"[{"f":"flag","i":[{"k":"user","t":"on","m":1},{"t":"on","m":1}]}]"#;
    let disk = GatedDisk::new();
    let server = start_on(log_on(&disk, LogOptions::default()), Limits::default()).await;
    disk.refuse(Some(".sys"));
    assert_eq!(server.bulk(MIXED).await.status, 503);
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!((server.records("prod"), server.prod().accepted, server.prod().rejected), (0, 0, 0));
    assert_eq!(server.ingest.memory_used_bytes(), 0);
    disk.refuse(None);
    for _ in 0..600 {
        if server.bulk(MIXED).await.status == 200 {
            assert_eq!((server.records("prod"), server.records("!rejects/prod")), (1, 1));
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("never came back");
}
