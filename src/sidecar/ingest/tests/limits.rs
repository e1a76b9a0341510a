//! What is refused for its size, its slowness, or for want of room; and that the refused get to know it.

use std::time::Duration;

use super::harness::{KEY, Running, bulk, frames, impressions, post, read_reply, start, start_with};
use crate::ingest::gunzip::gzip;
use crate::ingest::{Limits, Refusal};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

const SMALL: u64 = 100_000;

fn small_bodies() -> Limits {
    Limits { body_bytes_max: SMALL, ..Limits::default() }
}

#[tokio::test]
async fn a_body_above_the_limit_gets_413_that_names_the_limit() {
    let server = start_with(small_bodies()).await;
    let large = " ".repeat(SMALL as usize + 1);
    let chunked = format!(
        "POST /api/testImpressions/bulk HTTP/1.1\r\nHost: s\r\nAuthorization: Bearer {KEY}\r\n\
         Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{large}\r\n0\r\n\r\n",
        large.len()
    );
    for request in [bulk(&large), chunked.into_bytes()] {
        let reply = server.send(request).await;
        assert_eq!(reply.status, 413);
        assert!(reply.error().contains("100000 bytes"), "{reply:?}");
    }
    let room = SMALL as usize - 2;
    assert_eq!(server.bulk(format!("[{}]", " ".repeat(room))).await.status, 200, "the limit itself is allowed");
    assert_eq!(server.refused(Refusal::TooLarge), 2);
    assert_eq!(server.prod().unreadable_by_key, [0, 2, 0]);
    assert_eq!(server.ingest.memory_used_bytes(), 0);
}

#[tokio::test]
async fn a_gzip_bomb_gets_413_and_not_our_memory() {
    let server = start_with(small_bodies()).await;
    let bomb = gzip(&vec![b' '; 20_000_000]);
    assert!(bomb.len() < 25_000);
    let headers = [("Authorization", &*format!("Bearer {KEY}")), ("Content-Encoding", "gzip")];
    let reply = server.send(post("/api/testImpressions/bulk", &headers, bomb)).await;
    assert_eq!((reply.status, server.refused(Refusal::TooLarge)), (413, 1));
    assert!(reply.error().contains("100000 bytes"), "{reply:?}");
    assert_eq!(server.ingest.memory_used_bytes(), 0);
}

#[tokio::test]
async fn a_beacon_from_a_stranger_may_not_be_large() {
    let server = start().await;
    let beacon = format!(r#"{{"token":"{KEY}","entries":[{}]}}"#, " ".repeat(1024 * 1024));
    assert_eq!(server.send(post("/api/testImpressions/beacon", &[], beacon)).await.status, 413);
}

#[tokio::test]
async fn without_memory_a_body_waits_and_then_gets_503_with_retry_after() {
    let limits = Limits { memory_bytes_max: 100_000, memory_wait_max: Duration::from_millis(100), ..Limits::default() };
    let server = start_with(limits).await;
    // Says that it will be large, and stops: its memory is reserved.
    let mut slow = server.connect().await;
    let body = format!("[{}]", " ".repeat(48_000));
    let request = bulk(&body);
    slow.write_all(&request[..request.len() - 10]).await.unwrap();
    while server.ingest.memory_used_bytes() == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let refused = server.bulk(&body).await;
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")));
    assert_eq!(server.refused(Refusal::Memory), 1);
    assert_eq!(server.bulk("[]").await.status, 200, "what fits is taken meanwhile");
    slow.write_all(&request[request.len() - 10..]).await.unwrap();
    assert_eq!(read_reply(&mut slow).await.unwrap().status, 200);
    assert_eq!(server.bulk(&body).await.status, 200);
    assert_eq!(server.ingest.memory_used_bytes(), 0);
}

/// Of each body of a flood so much is sent at first: what nobody receives yet may not fit into the sockets.
const FIRST_BYTES: usize = 100_000;

fn flooded(memory_wait_max: Duration) -> Limits {
    // It is the wait for memory that ends: what has its memory may take as long as its sender does.
    let body_time_max = Duration::from_secs(7_200);
    Limits { memory_bytes_max: 1_000_000, memory_wait_max, body_time_max, ..Limits::default() }
}

/// Ten bodies of one environment, of which one fits, and all of which stay half sent; and what each is in full.
async fn flood(server: &Running) -> (Vec<TcpStream>, Vec<u8>) {
    let request = bulk(format!("[{}]", " ".repeat(300_000)));
    let mut half_sent = Vec::new();
    for _ in 0..10 {
        let mut stream = server.connect().await;
        stream.write_all(&request[..FIRST_BYTES]).await.unwrap();
        half_sent.push(stream);
    }
    (half_sent, request)
}

/// Fifty small posts of another environment than the one that floods.
async fn post_beside(server: &Running) {
    let headers = [("Authorization", "Bearer staging-key"), ("Content-Type", "application/json")];
    for _ in 0..50 {
        let reply = server.send(post("/api/testImpressions/bulk", &headers, impressions(10))).await;
        assert_eq!(reply.status, 200, "{reply:?}");
    }
    let staging = &server.ingest.stats().snapshot().environments[1];
    assert!(staging.refusals.iter().all(|(_, count)| *count == 0), "{staging:?}");
}

#[tokio::test]
async fn an_environment_that_floods_waits_for_itself_and_no_other_waits_behind_it() {
    let server = start_with(flooded(Duration::from_secs(3600))).await;
    let (half_sent, request) = flood(&server).await;
    while server.ingest.memory_waiting() < 9 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let beside = tokio::time::timeout(Duration::from_secs(300), post_beside(&server)).await;
    assert!(beside.is_ok(), "they wait behind the flood");
    // All the while: who came later was answered before them.
    assert_eq!((server.ingest.memory_waiting(), server.refused(Refusal::Memory)), (9, 0));
    assert_eq!((server.prod().requests, server.ingest.stats().snapshot().environments[1].requests), (0, 50));
    let mut rest = tokio::task::JoinSet::new();
    for mut stream in half_sent {
        let left = request[FIRST_BYTES..].to_vec();
        rest.spawn(async move {
            stream.write_all(&left).await.unwrap();
            read_reply(&mut stream).await.map(|reply| reply.status)
        });
    }
    assert_eq!(rest.join_all().await, [Some(200); 10], "one after the other, as there is room");
    assert_eq!(server.ingest.memory_used_bytes(), 0);
}

#[tokio::test]
async fn an_environment_that_floods_for_too_long_gets_503_and_no_other_does() {
    let server = start_with(flooded(Duration::from_secs(1))).await;
    let (half_sent, request) = flood(&server).await;
    while server.ingest.memory_waiting() + (server.refused(Refusal::Memory) as usize) < 9 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    post_beside(&server).await;
    while server.refused(Refusal::Memory) < 9 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let mut taken = 0;
    for mut stream in half_sent {
        // Who was refused may be gone.
        let _ = stream.write_all(&request[FIRST_BYTES..]).await;
        taken += usize::from(read_reply(&mut stream).await.is_some_and(|reply| reply.status == 200));
    }
    assert_eq!(taken, 1, "the one that fitted");
}

#[tokio::test]
async fn a_body_larger_than_half_the_memory_still_passes_alone() {
    let server = start_with(Limits { memory_bytes_max: 100_000, ..Limits::default() }).await;
    assert_eq!(server.bulk(format!("[{}]", " ".repeat(90_000))).await.status, 200);
}

#[tokio::test]
async fn a_body_that_drips_gets_408() {
    let server = start_with(Limits { body_time_max: Duration::from_millis(100), ..Limits::default() }).await;
    let mut stream = server.connect().await;
    let request = bulk(impressions(10));
    stream.write_all(&request[..request.len() - 1]).await.unwrap();
    let reply = read_reply(&mut stream).await.unwrap();
    assert_eq!((reply.status, reply.header("connection")), (408, Some("close")));
    assert_eq!((server.records("prod"), server.refused(Refusal::Slow)), (0, 1));
    assert_eq!(server.ingest.memory_used_bytes(), 0);
}

#[tokio::test]
async fn more_connections_than_allowed_wait_for_a_place() {
    let server = start_with(Limits { connections_max: 2, ..Limits::default() }).await;
    let (first, second) = (server.connect().await, server.connect().await);
    let third = async { server.bulk(impressions(1)).await.status };
    let mut third = std::pin::pin!(third);
    let waited = tokio::time::timeout(Duration::from_millis(200), third.as_mut()).await;
    assert!(waited.is_err(), "no place yet");
    drop((first, second));
    assert_eq!(third.await, 200);
}

/// Before: each of a body's rejects had the whole header in which its sender names itself: 2 KB became 30 MB.
#[tokio::test]
async fn rejects_do_not_multiply_a_long_header() {
    let server = start().await;
    let (sdk, key) = ("x".repeat(20_000), format!("Bearer {KEY}"));
    let headers = [("Authorization", key.as_str()), ("SplitSDKVersion", sdk.as_str())];
    let body = format!("[{}7]", "7,".repeat(999));
    assert_eq!(server.send(post("/api/testImpressions/bulk", &headers, body)).await.status, 200);
    let stored: usize = frames(&server.log, "!rejects/prod").iter().map(|(payload, _)| payload.len()).sum();
    assert!(stored < 2_000_000, "{stored}");
    assert_eq!(server.records("!rejects/prod"), 1000);
}
