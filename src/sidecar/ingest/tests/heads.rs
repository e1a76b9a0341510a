//! Heads that are too long, are none, or do not end: who sends one is told so, it is counted, and nothing is kept.

use std::sync::Arc;
use std::time::Duration;

use super::harness::{KEY, Running, impressions, read_reply, start};
use crate::ingest::Refusal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const BULK: &str = "/api/testImpressions/bulk";

/// A post without impressions to this address, with these lines in its head.
fn request(address: &str, lines: &str) -> String {
    format!("POST {address} HTTP/1.1\r\nHost: s\r\nAuthorization: Bearer {KEY}\r\nContent-Length: 2\r\n{lines}\r\n[]")
}

/// So many headers.
fn headers(count: usize) -> String {
    (0..count).map(|n| format!("X-{n}: y\r\n")).collect()
}

/// All that was refused, of which this reason had so many.
fn assert_refused(server: &Running, why: Refusal, count: u64) {
    let told = server.ingest.stats().snapshot().strangers;
    assert!(told.iter().all(|(reason, told)| *told == if *reason == why { count } else { 0 }), "{told:?}");
}

#[tokio::test]
async fn a_head_above_its_limits_gets_431_whatever_makes_it_so_and_is_counted() {
    let server = start().await;
    let x = |count| "x".repeat(count);
    let too_long = [
        request(BULK, &format!("X-Long: {}\r\n", x(40_000))),
        request(BULK, &format!("X-Long: {}\r\n", x(20_000_000))),
        request(BULK, &format!("{}: y\r\n", x(40_000))),
        // Short, but too many.
        request(BULK, &headers(101)),
        request(BULK, &headers(10_000)),
        request(&format!("{BULK}?key={}", x(40_000)), ""),
        request(&format!("/{}", x(8_000_000)), ""),
    ];
    for (count, request) in (1..).zip(&too_long) {
        let mut stream = server.connect().await;
        // It looks for an answer when all of it is sent.
        stream.write_all(request.as_bytes()).await.expect("somebody reads it");
        let reply = read_reply(&mut stream).await.expect("an answer");
        assert_eq!((reply.status, reply.header("connection")), (431, Some("close")), "{}", &request[..100]);
        assert!(read_reply(&mut stream).await.is_none(), "what is behind it is no request");
        assert_refused(&server, Refusal::Head, count);
    }
    // What is long, and can be taken.
    for request in [
        request(BULK, &format!("X-Long: {}\r\n", x(30_000))),
        request(BULK, &headers(90)),
        request(&format!("{BULK}?key={}", x(30_000)), ""),
    ] {
        assert_eq!(server.send(request).await.status, 200);
    }
    assert_refused(&server, Refusal::Head, too_long.len() as u64);
    assert_eq!(server.ingest.memory_used_bytes(), 0);
    assert_eq!(server.stop().await.cut, 0, "none of them holds anybody up");
}

#[tokio::test]
async fn what_is_not_proper_http_is_refused_and_stores_nothing() {
    let server = start().await;
    let head = format!("POST {BULK} HTTP/1.1\r\nHost: s\r\nAuthorization: Bearer {KEY}\r\n");
    let body = impressions(1);
    for (count, broken) in (1..).zip([
        format!("{head}Content-Length: 5\r\nContent-Length: 6\r\n\r\n{body}"),
        format!("{head}Content-Length: -1\r\n\r\n{body}"),
        format!("{head}Content-Length: 99999999999999999999\r\n\r\n{body}"),
        format!("{head}Transfer-Encoding: gzip\r\n\r\n{body}"),
        "POST\r\n\r\n".to_owned(),
        "\u{16}\u{3}\u{1} not even text \r\n\r\n".to_owned(),
    ]) {
        let reply = server.send(&broken).await;
        assert_eq!((reply.status, reply.header("connection")), (400, Some("close")), "{broken:?}");
        assert_refused(&server, Refusal::Head, count);
    }
    let chunks = server.send(format!("{head}Transfer-Encoding: chunked\r\n\r\nzz\r\n{body}\r\n0\r\n\r\n")).await;
    assert_eq!((chunks.status, server.refused(Refusal::Disconnected)), (400, 1));
    // A proxy in front may read such a request in the other way: what follows it must not be taken for a request.
    let smuggled = format!("{head}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /api/version");
    let mut stream = server.connect().await;
    stream.write_all(smuggled.as_bytes()).await.unwrap();
    let reply = read_reply(&mut stream).await.unwrap();
    assert_eq!((reply.status, reply.header("connection")), (400, Some("close")));
    assert!(read_reply(&mut stream).await.is_none());
    assert_eq!(server.records("prod"), 0);
    assert_eq!((server.strangers_refused(Refusal::Head), server.refused(Refusal::Disconnected)), (6, 1), "each once");
}

/// It would understand no answer, and waits for one.
#[tokio::test]
async fn who_speaks_http_2_is_counted_and_let_go_at_once() {
    let server = start().await;
    let mut stream = server.connect().await;
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    let mut told = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(60), stream.read_to_end(&mut told));
    let _ = ended.await.expect("nobody waits for what it says next");
    assert_refused(&server, Refusal::Head, 1);
}

#[tokio::test]
async fn who_leaves_in_a_head_has_asked_for_nothing() {
    let server = start().await;
    let mut stream = server.connect().await;
    stream.write_all(b"POST /api/testImpressions/bulk HT").await.unwrap();
    drop(stream);
    let ingest = Arc::clone(&server.ingest);
    assert_eq!(server.stop().await.cut, 0);
    assert!(ingest.stats().snapshot().strangers.iter().all(|(_, count)| *count == 0));
}

#[tokio::test(start_paused = true)]
async fn a_head_that_never_ends_is_given_up() {
    let server = start().await;
    let mut stream = server.connect().await;
    stream.write_all(b"POST /api/testImpressions/bulk HTTP/1.1\r\nHost: s\r\n").await.unwrap();
    let mut told = Vec::new();
    stream.read_to_end(&mut told).await.unwrap();
    assert!(told.starts_with(b"HTTP/1.1 408 "), "{}", String::from_utf8_lossy(&told));
    assert_refused(&server, Refusal::Slow, 1);
    // Who is silent asked for nothing, and is told nothing.
    let mut silent = server.connect().await;
    told.clear();
    silent.read_to_end(&mut told).await.unwrap();
    assert!(told.is_empty());
    assert_refused(&server, Refusal::Slow, 1);
}
