//! What is taken, from whom, and how it is answered.

use super::harness::{KEY, bulk, frames, impressions, post, read_reply, start};
use crate::ingest::gunzip::gzip;
use crate::ingest::{Refusal, decode_rejects};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[tokio::test]
async fn a_bulk_is_in_the_log_when_it_is_answered() {
    let server = start().await;
    let reply = server.bulk(impressions(3)).await;
    assert_eq!((reply.status, reply.body.as_str()), (200, ""));
    assert_eq!(server.records("prod"), 3);
    assert_eq!(server.records("staging"), 0);
    let prod = server.prod();
    assert_eq!((prod.requests, prod.accepted, prod.rejected, prod.unrouted), (1, 3, 0, 0));
    assert_eq!(prod.body_bytes, impressions(3).len() as u64);
}

#[tokio::test]
async fn a_bulk_without_impressions_is_fine_and_stores_nothing() {
    let server = start().await;
    for body in ["[]", r#"[{"f":"flag","i":[]}]"#] {
        assert_eq!(server.bulk(body).await.status, 200);
    }
    assert_eq!(server.records("prod"), 0);
}

#[tokio::test]
async fn prefix_slashes_and_query_make_no_difference() {
    let server = start().await;
    let authorization = format!("Bearer {KEY}");
    for path in ["/testImpressions/bulk", "/api//testImpressions/bulk", "//api/testImpressions/bulk/?x=1"] {
        let reply = server.send(post(path, &[("authorization", &authorization)], impressions(1))).await;
        assert_eq!(reply.status, 200, "{path}");
    }
    assert_eq!(server.records("prod"), 3);
}

#[tokio::test]
async fn a_large_bulk_arrives_whole_whatever_its_size() {
    let server = start().await;
    let body = impressions(70_000);
    assert!(body.len() > 4_000_000);
    assert_eq!(server.bulk(body).await.status, 200);
    assert_eq!(server.records("prod"), 70_000);
    assert_eq!(server.ingest.memory_used_bytes(), 0);
}

#[tokio::test]
async fn an_unknown_key_gets_401_and_sees_it_after_a_large_body_too() {
    let server = start().await;
    for authorization in ["Bearer wrong", "Bearer ", KEY, "Basic abc"] {
        let request = post("/api/testImpressions/bulk", &[("Authorization", authorization)], impressions(50_000));
        let reply = server.send(request).await;
        assert_eq!(reply.status, 401, "{authorization}");
        assert!(!reply.body.contains("wrong"), "a key is never repeated");
    }
    assert_eq!(server.send(post("/api/testImpressions/bulk", &[], "[]")).await.status, 401);
    assert_eq!(server.strangers_refused(Refusal::UnknownKey), 5);
    assert_eq!(server.records("prod"), 0);
}

#[tokio::test]
async fn what_cannot_be_an_impression_is_set_aside_and_the_rest_is_stored() {
    let server = start().await;
    let body = r#"[{"f":"flag","i":[{"k":"a","t":"on","m":1},{"t":"on","m":2},{"k":"b","t":"on","m":3}]}]"#;
    let reply = server.bulk(body).await;
    assert_eq!(reply.status, 200);
    assert_eq!(reply.json(), serde_json::json!({ "stored": 2, "rejected": 1 }));
    assert_eq!(server.records("prod"), 2);
    let set_aside = frames(&server.log, "!rejects/prod");
    let rejects: Vec<_> = decode_rejects(&set_aside[0].0).map(Result::unwrap).collect();
    assert_eq!((set_aside.len(), rejects.len()), (1, 1));
    assert_eq!(rejects[0].sdk_key, 1);
    let raw: serde_json::Value = serde_json::from_slice(&rejects[0].raw).unwrap();
    assert_eq!(raw, serde_json::json!({ "t": "on", "m": 2 }));
    assert!(!rejects[0].reason.is_empty());
    assert_eq!((server.prod().accepted, server.prod().rejected), (2, 1));
}

#[tokio::test]
async fn what_cannot_be_read_is_refused_with_the_place_and_stores_nothing() {
    let server = start().await;
    let bodies: [&[u8]; 6] = [b"", b"not json", b"[{\"f\":\"x\",\"i\":[{\"k\":\"a\"", b"[\"\xff\"]", b"[] []", b"7"];
    for body in bodies {
        let reply = server.bulk(body).await;
        assert_eq!(reply.status, 400, "{reply:?}");
        assert!(reply.json()["at"].is_u64(), "{reply:?}");
        assert!(!reply.error().is_empty());
    }
    assert_eq!(server.records("prod"), 0);
    assert_eq!(server.refused(Refusal::Unreadable), 6);
    assert_eq!(server.prod().unreadable_by_key, [0, 6, 0], "by the key's place, never by the key");
}

#[tokio::test]
async fn a_body_too_deep_is_refused_and_the_server_lives() {
    let server = start().await;
    let deep = "[".repeat(1_000_000);
    assert_eq!(server.bulk(&deep).await.status, 400);
    assert_eq!(server.bulk(impressions(1)).await.status, 200);
}

#[tokio::test]
async fn a_beacon_shows_its_key_in_its_body() {
    let server = start().await;
    let beacon = |token: &str| {
        let body =
            format!(r#"{{"entries":{},"token":"{token}","sdk":"browserjs-1.7.1","sim":"DEBUG"}}"#, impressions(2));
        post("/api/testImpressions/beacon", &[("Content-Type", "text/plain;charset=UTF-8")], body)
    };
    assert_eq!(server.send(beacon(KEY)).await.status, 200);
    assert_eq!(server.send(beacon("staging-key")).await.status, 200);
    assert_eq!(server.send(beacon("wrong")).await.status, 401);
    assert_eq!((server.records("prod"), server.records("staging")), (2, 2));
    let reply = server.send(post("/api/testImpressions/beacon", &[], "{\"entries\":[")).await;
    assert_eq!(reply.status, 400, "unreadable says more than unknown");
    assert_eq!(server.strangers_refused(Refusal::Unreadable), 1);
}

#[tokio::test]
async fn a_listener_shows_its_key_in_the_query_or_the_header() {
    let server = start().await;
    let body = r#"{"impressions":[{"testName":"flag","keyImpressions":[{"keyName":"u1","treatment":"on","time":5,
        "changeNumber":7,"label":"default rule"}]}],"sdkVersion":"java-4.18.2","machineIP":"10.0.0.1","machineName":"h"}"#;
    for path in ["/listener", "/api/listener"] {
        let in_query = format!("{path}?key={KEY}");
        assert_eq!(server.send(post(&in_query, &[], body)).await.status, 200);
        let in_header = post(path, &[("Authorization", &format!("Bearer {KEY}"))], body);
        assert_eq!(server.send(in_header).await.status, 200);
        assert_eq!(server.send(post(path, &[], body)).await.status, 401);
    }
    assert_eq!(server.records("prod"), 4);
    let in_query = format!("/api/testImpressions/bulk?key={KEY}");
    assert_eq!(server.send(post(&in_query, &[], "[]")).await.status, 401, "a listener's privilege");
}

#[tokio::test]
async fn gzip_and_chunks_are_undone() {
    let server = start().await;
    let authorization = format!("Bearer {KEY}");
    let packed = gzip(impressions(5_000).as_bytes());
    let headers = [("Authorization", authorization.as_str()), ("Content-Encoding", "gzip")];
    let reply = server.send(post("/api/testImpressions/bulk", &headers, &packed)).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    assert_eq!(server.records("prod"), 5_000);

    for (encoding, body) in [("identity", impressions(100).into_bytes()), ("gzip", gzip(impressions(100).as_bytes()))] {
        let mut request = format!(
            "POST /api/testImpressions/bulk HTTP/1.1\r\nHost: s\r\nAuthorization: {authorization}\r\n\
             Content-Encoding: {encoding}\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        .into_bytes();
        for chunk in body.chunks(77) {
            request.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
            request.extend_from_slice(chunk);
            request.extend_from_slice(b"\r\n");
        }
        request.extend_from_slice(b"0\r\n\r\n");
        assert_eq!(server.send(request).await.status, 200);
    }
    assert_eq!(server.records("prod"), 5_200);
}

#[tokio::test]
async fn damaged_gzip_and_other_encodings_are_refused() {
    let server = start().await;
    let send = async |encoding: &str, body: &[u8]| {
        let headers = [("Authorization", &*format!("Bearer {KEY}")), ("Content-Encoding", encoding)];
        server.send(post("/api/testImpressions/bulk", &headers, body)).await
    };
    let packed = gzip(impressions(100).as_bytes());
    let truncated = send("gzip", &packed[..packed.len() - 3]).await;
    assert_eq!(truncated.status, 400);
    assert_eq!(truncated.json()["at"], packed.len() - 3);
    assert_eq!(send("gzip", b"[]").await.status, 400);
    assert_eq!(send("br", b"[]").await.status, 415);
    assert_eq!(server.records("prod"), 0);
}

#[tokio::test]
async fn browsers_are_let_in() {
    let server = start().await;
    let preflight = server
        .send(
            "OPTIONS /api/testImpressions/bulk HTTP/1.1\r\nHost: s\r\nOrigin: http://shop\r\n\
             Access-Control-Request-Method: POST\r\n\
             Access-Control-Request-Headers: authorization,splitsdkversion,splitsdkfuture\r\n\r\n",
        )
        .await;
    assert_eq!(preflight.status, 204);
    assert_eq!(preflight.header("access-control-allow-origin"), Some("*"));
    assert_eq!(preflight.header("access-control-allow-headers"), Some("authorization,splitsdkversion,splitsdkfuture"));
    assert!(preflight.header("access-control-allow-methods").unwrap().contains("POST"));
    let silent = server.send("OPTIONS /api/events/bulk HTTP/1.1\r\nHost: s\r\n\r\n").await;
    assert!(silent.header("access-control-allow-headers").unwrap().contains("splitsdkimpressionsmode"));
    for reply in [server.bulk(impressions(1)).await, server.bulk("no").await, server.send(post("/x", &[], "")).await] {
        assert_eq!(reply.header("access-control-allow-origin"), Some("*"), "{reply:?}");
    }
}

#[tokio::test]
async fn other_posts_of_an_sdk_are_taken_and_counted() {
    let server = start().await;
    for path in
        ["/api/testImpressions/count", "/api/events/bulk", "/api/v1/keys/ss", "/v1/metrics/usage", "/metrics/times"]
    {
        assert_eq!(server.send(post(path, &[], "x".repeat(100_000))).await.status, 202, "{path}");
    }
    assert_eq!(server.ingest.stats().snapshot().ignored, 5);
}

#[tokio::test]
async fn the_rest_is_answered_as_http_has_it() {
    let server = start().await;
    let version = server.send("GET /api/version HTTP/1.1\r\nHost: s\r\n\r\n").await;
    assert_eq!((version.status, version.json()["version"].as_str()), (200, Some(env!("CARGO_PKG_VERSION"))));
    let mut asking = server.connect().await;
    asking.write_all(b"HEAD /api/version HTTP/1.1\r\nHost: s\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut head = String::new();
    asking.read_to_string(&mut head).await.unwrap();
    assert!(head.starts_with("HTTP/1.1 200 ") && head.ends_with("\r\n\r\n"), "a head and no body: {head:?}");
    assert_eq!(server.send("GET /nowhere HTTP/1.1\r\nHost: s\r\n\r\n").await.status, 404);
    let wrong = server.send("GET /api/testImpressions/bulk HTTP/1.1\r\nHost: s\r\n\r\n").await;
    assert_eq!((wrong.status, wrong.header("allow")), (405, Some("POST, OPTIONS")));
    assert_eq!(server.strangers_refused(Refusal::NotFound), 2);
}

#[tokio::test]
async fn a_connection_serves_one_request_after_the_other() {
    let server = start().await;
    let mut stream = server.connect().await;
    for count in 1..=20 {
        let body = if count % 5 == 0 { "broken".to_owned() } else { impressions(10) };
        stream.write_all(&bulk(body)).await.unwrap();
        let reply = read_reply(&mut stream).await.expect("the connection stays open, after a refusal too");
        assert_eq!(reply.status, if count % 5 == 0 { 400 } else { 200 });
    }
    assert_eq!(server.records("prod"), 160);
    assert_eq!(server.ingest.stats().snapshot().connections, 1);
}

#[tokio::test]
async fn a_sender_that_asks_before_it_sends_is_told_to_go_on() {
    let server = start().await;
    let mut stream = server.connect().await;
    let request = post(
        "/api/testImpressions/bulk",
        &[("Authorization", &format!("Bearer {KEY}")), ("Expect", "100-continue")],
        impressions(1),
    );
    let (head, body) = request.split_at(request.len() - impressions(1).len());
    stream.write_all(head).await.unwrap();
    assert_eq!(read_reply(&mut stream).await.unwrap().status, 100);
    stream.write_all(body).await.unwrap();
    assert_eq!(read_reply(&mut stream).await.unwrap().status, 200);
}

#[tokio::test]
async fn records_that_no_destination_takes_are_kept_and_counted() {
    let server = start().await;
    server.ingest.environments().all()[0].set_routed(false);
    assert_eq!(server.bulk(impressions(4)).await.status, 200);
    assert_eq!((server.prod().accepted, server.prod().unrouted), (4, 4));
    assert_eq!(server.records("prod"), 4);
}
