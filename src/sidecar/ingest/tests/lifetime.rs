//! Clients that leave, and a server that stops.

use std::time::Duration;

use super::harness::{bulk, impressions, log, read_reply, start, start_for};
use crate::ingest::Limits;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

#[tokio::test]
async fn a_body_is_stored_though_its_sender_left_before_the_answer() {
    let server = start().await;
    for count in [1, 20_000] {
        let mut stream = server.connect().await;
        stream.write_all(&bulk(impressions(count))).await.unwrap();
        drop(stream);
    }
    server.wait_for("prod", 20_001).await;
}

#[tokio::test]
async fn half_a_body_is_not_stored() {
    let server = start().await;
    let request = bulk(impressions(10));
    let mut stream = server.connect().await;
    stream.write_all(&request[..request.len() - 1]).await.unwrap();
    drop(stream);
    while server.ingest.stats().snapshot().connections_open > 0 || server.ingest.stats().snapshot().connections == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(server.records("prod"), 0);
    assert_eq!(server.ingest.memory_used_bytes(), 0);
}

#[tokio::test]
async fn a_stop_lets_the_request_in_hand_finish_and_takes_no_other() {
    let mut server = start().await;
    let request = bulk(impressions(10));
    let mut idle = server.connect().await;
    idle.write_all(&bulk(impressions(1))).await.unwrap();
    assert_eq!(read_reply(&mut idle).await.unwrap().status, 200);
    let mut in_hand = server.connect().await;
    in_hand.write_all(&request[..request.len() - 1]).await.unwrap();
    while server.ingest.memory_used_bytes() == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }

    server.begin_stop();
    assert_eq!(idle.read(&mut [0; 10]).await.unwrap(), 0, "an idle connection is closed");
    assert!(TcpStream::connect(server.addr).await.is_err(), "nobody listens");
    in_hand.write_all(&request[request.len() - 1..]).await.unwrap();
    let reply = read_reply(&mut in_hand).await.unwrap();
    assert_eq!((reply.status, reply.header("connection")), (200, Some("close")));
    assert_eq!(server.records("prod"), 11);
    assert_eq!(server.stop().await.cut, 0);
}

#[tokio::test]
async fn a_request_that_outlasts_the_grace_is_cut() {
    let server = start_for(log(), Limits::default(), Duration::from_millis(500)).await;
    let request = bulk(impressions(10));
    let mut stalled = server.connect().await;
    stalled.write_all(&request[..request.len() - 1]).await.unwrap();
    while server.ingest.memory_used_bytes() == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(server.stop().await.cut, 1);
    assert!(read_reply(&mut stalled).await.is_none());
}
