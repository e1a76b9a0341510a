//! Posts kept as they came for an upstream: which, when they are answered, and what happens when they find no room.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use forebay::clock::SystemClock;
use forebay::disk::Disk;
use forebay::{Log, LogOptions};
use serde_json::Value;
use tokio::io::AsyncWriteExt;

use super::gated_disk::{Gate, GatedDisk};
use super::harness::{KEY, Running, bulk, comes_to, frames, impressions, log_on, post, read_reply, start, start_on};
use crate::ingest::gunzip::gzip;
use crate::ingest::{Limits, Refusal, Relay, RelaySnapshot};
use crate::post::Post;

/// The stream of [`KEY`].
const STREAM: &str = "posts/prod/1";

/// A server whose environment `prod` has an upstream, and what lies below.
pub(super) struct Relayed {
    pub(super) server: Running,
    disk: GatedDisk,
    /// Of the posts, as that of the impressions is another one here.
    posts_disk: GatedDisk,
    posts: Log,
}

pub(super) async fn relayed() -> Relayed {
    relayed_with(LogOptions::default()).await
}

async fn relayed_with(posts_options: LogOptions) -> Relayed {
    relayed_under(posts_options, Limits::default()).await
}

async fn relayed_under(posts_options: LogOptions, limits: Limits) -> Relayed {
    let (disk, posts_disk) = (GatedDisk::new(), GatedDisk::new());
    let server = start_on(log_on(&disk, LogOptions::default()), limits).await;
    let posts = log_on(&posts_disk, posts_options);
    let relay = Relay::new("split".into(), posts.clone(), Arc::new(SystemClock::new()));
    server.ingest.environments().set_relay(0, Some(Arc::new(relay)));
    Relayed { server, disk, posts_disk, posts }
}

impl Relayed {
    fn kept(&self, stream: &str) -> Vec<Post> {
        let frames = frames(&self.posts, stream);
        assert!(frames.iter().all(|(_, records)| *records == 1), "a post is a record");
        frames.into_iter().map(|(payload, _)| Post::read(&Bytes::from(payload)).unwrap()).collect()
    }

    fn snapshot(&self) -> RelaySnapshot {
        self.server.ingest.relays().remove(0)
    }

    async fn other(&self, path: &str, key: &str, body: &str) -> u16 {
        let authorization = format!("Bearer {key}");
        let request = post(path, &[("Authorization", &authorization), ("SplitSDKVersion", "go-6.8.1")], body);
        self.server.send(request).await.status
    }
}

#[tokio::test]
async fn a_bulk_is_kept_as_it_came_beside_its_impressions() {
    let relayed = relayed().await;
    let authorization = format!("Bearer {KEY}");
    let headers =
        [("Authorization", authorization.as_str()), ("SplitSDKVersion", "go-6.8.1"), ("Cookie", "not-for-split")];
    let reply = relayed.server.send(post("/api//testImpressions/bulk", &headers, impressions(3))).await;
    assert_eq!((reply.status, relayed.server.records("prod")), (200, 3));
    let kept = relayed.kept(STREAM);
    assert_eq!(kept.len(), 1);
    assert_eq!((kept[0].path(), kept[0].environment(), kept[0].sdk_key_index()), ("testImpressions/bulk", "prod", 1));
    let request = kept[0].request(KEY).unwrap();
    assert_eq!(request.body, impressions(3));
    assert_eq!((request.headers["authorization"].as_bytes(), request.headers.len()), (authorization.as_bytes(), 2));
    let snapshot = relayed.snapshot();
    assert_eq!((snapshot.kept, snapshot.missed, snapshot.refused), (1, 0, 0));
    assert_eq!(relayed.server.ingest.memory_used_bytes(), 0);
}

#[tokio::test]
async fn a_body_that_came_compressed_is_kept_without_that() {
    let relayed = relayed().await;
    let authorization = format!("Bearer {KEY}");
    for (path, body) in
        [("/api/testImpressions/bulk", impressions(2)), ("/api/events/bulk", "[{\"key\":1}]".to_owned())]
    {
        let headers = [("Authorization", authorization.as_str()), ("Content-Encoding", "gzip")];
        assert_eq!(relayed.server.send(post(path, &headers, gzip(body.as_bytes()))).await.status, 200);
        let kept = relayed.kept(STREAM).pop().unwrap().request(KEY).unwrap();
        assert_eq!(kept.body, body);
        assert!(!kept.headers.contains_key("content-encoding"));
    }
}

#[tokio::test]
async fn all_that_real_sdks_post_is_kept_in_order_by_key_and_no_key_lies_in_the_log() {
    let captures = [
        include_str!("../../../../storage-tests/captures/java-debug.json"),
        include_str!("../../../../storage-tests/captures/python-debug.json"),
        include_str!("../../../../storage-tests/captures/node-debug.json"),
        include_str!("../../../../storage-tests/captures/browser-debug-navigate.json"),
        include_str!("../../../../storage-tests/captures/browser-optimized-navigate.json"),
    ];
    let relayed = relayed().await;
    let mut sent: Vec<(&str, String, Vec<u8>)> = Vec::new();
    let captures: Vec<Value> = captures.iter().map(|capture| serde_json::from_str(capture).unwrap()).collect();
    for request in captures.iter().flat_map(|capture| capture["requests"].as_array().unwrap()) {
        let path = request["path"].as_str().unwrap();
        let body = request["body_text"].as_str().unwrap();
        let headers: Vec<(&str, String)> = request["headers"]
            .as_array()
            .unwrap()
            .iter()
            .map(|header| (header[0].as_str().unwrap(), header[1].as_str().unwrap().to_owned()))
            .filter(|(name, _)| !["host", "content-length"].contains(&name.to_lowercase().as_str()))
            .map(|(name, value)| match name {
                // The recorder's key is not ours; those of browsers are, in their bodies.
                "Authorization" => (name, format!("Bearer {KEY}")),
                "SplitSDKClientKey" => (name, KEY[KEY.len() - 4..].to_owned()),
                _ => (name, value),
            })
            .collect();
        let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let beacon = path.ends_with("beacon");
        assert_eq!(relayed.server.send(post(path, &headers, body)).await.status, 200, "{path}");
        let (stream, key) = if beacon { ("posts/prod/2", "browser-sdk-key-0001") } else { (STREAM, KEY) };
        assert!(!beacon || body.contains(key));
        sent.push((stream, path.trim_start_matches("/api/").to_owned(), body.into()));
    }
    for (stream, key) in [(STREAM, KEY), ("posts/prod/2", "browser-sdk-key-0001")] {
        let wanted: Vec<_> = sent.iter().filter(|(of, ..)| *of == stream).collect();
        let kept = relayed.kept(stream);
        assert!(kept.len() >= 8);
        assert_eq!(kept.len(), wanted.len());
        for (kept, (_, path, body)) in kept.iter().zip(wanted) {
            assert_eq!(kept.path(), path);
            assert!(kept.request(key).unwrap().body == body, "{path}: every byte");
        }
    }
    // Files and all: what is preallocated, what is indexed, what is named.
    for disk in [&relayed.disk, &relayed.posts_disk] {
        for name in disk.list("log".as_ref()).unwrap() {
            let file = disk.open(&std::path::Path::new("log").join(&name)).unwrap();
            let bytes = forebay::disk::read_all(&*file).unwrap();
            for key in [KEY, "browser-sdk-key-0001"] {
                assert!(memchr::memmem::find(&bytes, key.as_bytes()).is_none(), "{name} holds a key");
            }
        }
    }
}

#[tokio::test]
async fn nothing_is_answered_before_both_are_synced() {
    let relayed = relayed().await;
    for (request, both) in [
        (bulk(impressions(1)), true),
        (post("/api/events/bulk", &[("Authorization", &format!("Bearer {KEY}"))], "[]"), false),
    ] {
        for slow in [&relayed.posts_disk, &relayed.disk] {
            if !both && std::ptr::eq(slow, &relayed.disk) {
                continue;
            }
            slow.set(Gate::Closed);
            let mut stream = relayed.server.connect().await;
            stream.write_all(&request).await.unwrap();
            let mut byte = [0; 1];
            let early = tokio::time::timeout(Duration::from_millis(100), stream.peek(&mut byte)).await;
            assert!(early.is_err(), "answered before the sync");
            slow.set(Gate::Open);
            assert_eq!(read_reply(&mut stream).await.unwrap().status, 200);
        }
    }
    assert_eq!(relayed.snapshot().kept, 3);
    assert_eq!(relayed.server.ingest.memory_used_bytes(), 0);
}

#[tokio::test]
async fn without_an_upstream_other_posts_are_dropped_as_before() {
    let relayed = relayed().await;
    // Another environment's key, and a stranger's.
    for key in ["staging-key", "nobody"] {
        assert_eq!(relayed.other("/api/events/bulk", key, "[]").await, 202);
        let beacon = format!(r#"{{"entries":[],"token":"{key}"}}"#);
        assert_eq!(relayed.server.send(post("/api/events/beacon", &[], beacon)).await.status, 202);
    }
    for body in ["", "{", "[]", r#"{"entries":[]}"#] {
        assert_eq!(relayed.server.send(post("/api/events/beacon", &[], body)).await.status, 202);
    }
    // What Split's own Proxy drops.
    assert_eq!(relayed.other("/api/metrics/times", KEY, "[]").await, 202);
    let snapshot = relayed.server.ingest.stats().snapshot();
    assert_eq!((snapshot.ignored, relayed.snapshot().kept), (9, 0));
    let none = start().await;
    let request = post("/api/events/bulk", &[("Authorization", &format!("Bearer {KEY}"))], "[]");
    assert_eq!(none.send(request).await.status, 202);
    assert!(none.ingest.relays().is_empty());
}

/// Before, they were taken for ones that nobody wants: answered 202, dropped, and counted nowhere.
#[tokio::test]
async fn while_the_upstream_does_not_run_impressions_are_accepted_and_counted_as_missed_and_others_are_refused() {
    let relayed = relayed().await;
    let environments = relayed.server.ingest.environments();
    let relay = Relay::missing("split".into(), Arc::new(SystemClock::new()));
    let found = Arc::new(relay.found(relayed.posts.clone()));
    environments.set_relay(0, Some(Arc::new(relay)));
    for _ in 0..2 {
        assert_eq!(relayed.server.bulk(impressions(1)).await.status, 200);
    }
    let request = post("/api/events/bulk", &[("Authorization", &format!("Bearer {KEY}"))], "[]");
    let reply = relayed.server.send(request).await;
    assert_eq!((reply.status, reply.header("retry-after")), (503, Some("5")));
    assert!(reply.error().contains("does not run now"), "{reply:?}");
    let beacon = format!(r#"{{"entries":[],"token":"{KEY}"}}"#);
    assert_eq!(relayed.server.send(post("/api/events/beacon", &[], beacon)).await.status, 503);
    assert_eq!(relayed.other("/api/events/bulk", "staging-key", "[]").await, 202, "another environment's");
    let snapshot = relayed.snapshot();
    assert_eq!((snapshot.kept, snapshot.missed, snapshot.refused), (0, 2, 2));
    assert_eq!((relayed.server.records("prod"), relayed.server.refused(Refusal::Disk)), (2, 2));
    assert_eq!((relayed.kept(STREAM).len(), relayed.server.ingest.memory_used_bytes()), (0, 0));
    // One upstream is counted once, though only some of its environments are there.
    environments.set_relay(1, Some(found));
    assert_eq!(relayed.server.ingest.relays().len(), 1);
    assert_eq!(relayed.other("/api/events/bulk", "staging-key", "[]").await, 200);
    let snapshot = relayed.snapshot();
    assert_eq!((snapshot.kept, snapshot.missed, snapshot.refused), (1, 2, 2), "it goes on counting");
    assert!(snapshot.limit_bytes > 0);
}

#[tokio::test]
async fn a_listeners_posts_and_unreadable_ones_are_not_kept() {
    let relayed = relayed().await;
    let listener = r#"{"impressions":[{"testName":"f","keyImpressions":[{"keyName":"k","treatment":"on","time":1}]}]}"#;
    let authorization = format!("Bearer {KEY}");
    let headers = [("Authorization", authorization.as_str())];
    assert_eq!(relayed.server.send(post("/api/listener", &headers, listener)).await.status, 200);
    assert_eq!(relayed.server.bulk("not json").await.status, 400);
    assert_eq!((relayed.kept(STREAM).len(), relayed.server.records("prod")), (0, 1));
    // What can't be an impression goes on with the rest of its post.
    assert_eq!(relayed.server.bulk(r#"[{"f":"flag","i":[{"t":"on","m":1}]}]"#).await.status, 200);
    assert_eq!(relayed.server.bulk("[]").await.status, 200);
    assert_eq!(relayed.kept(STREAM).len(), 2);
}

#[tokio::test]
async fn when_the_share_is_full_impressions_are_accepted_and_what_the_upstream_misses_is_counted() {
    let options = LogOptions { budget_bytes: 4 << 20, reserve_segments: 1, ..LogOptions::default() };
    let relayed = relayed_with(options).await;
    let body = impressions(5_000);
    let mut accepted = 0;
    while relayed.snapshot().missed < 3 {
        assert_eq!(relayed.server.bulk(&body).await.status, 200, "a full share refuses no impression");
        accepted += 1;
        assert!(accepted < 100, "it gets full");
    }
    assert_eq!(relayed.server.prod().accepted, accepted * 5_000);
    let snapshot = relayed.snapshot();
    assert_eq!(snapshot.kept + snapshot.missed, accepted);
    // The log may take one segment more than its budget, when its housekeeping makes one just then.
    assert!(snapshot.kept >= 3 && snapshot.used_bytes <= snapshot.limit_bytes + (1 << 20), "{snapshot:?}");
    // Others are refused: some senders hold them back, and all of them know.
    let request = post("/api/events/bulk", &[("Authorization", &format!("Bearer {KEY}"))], "[]");
    let reply = relayed.server.send(request).await;
    assert_eq!((reply.status, reply.header("retry-after")), (503, Some("5")));
    assert_eq!((relayed.snapshot().refused, relayed.server.refused(Refusal::Disk)), (1, 1));
    assert_eq!(relayed.server.ingest.memory_used_bytes(), 0);
    // What is relayed makes room again.
    let stream = relayed.posts.stream(STREAM).unwrap();
    relayed.posts.trim(stream, relayed.posts.durable(stream).offset);
    for _ in 0..6_000 {
        if relayed.other("/api/events/bulk", KEY, "[]").await == 200 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("posts are kept again when there is room: {:?}", relayed.snapshot());
}

#[tokio::test]
async fn a_broken_disk_of_the_posts_costs_no_impression() {
    let relayed = relayed().await;
    relayed.posts_disk.set(Gate::Broken);
    for _ in 0..3 {
        assert_eq!(relayed.server.bulk(impressions(1)).await.status, 200);
    }
    assert_eq!(relayed.other("/api/v1/keys/ss", KEY, "{}").await, 503);
    let snapshot = relayed.snapshot();
    assert_eq!((snapshot.kept, snapshot.missed, snapshot.refused), (0, 3, 1));
    assert_eq!(relayed.server.records("prod"), 3);
}

#[tokio::test]
async fn a_post_whose_impressions_are_refused_is_not_kept() {
    let relayed = relayed().await;
    relayed.disk.set(Gate::Broken);
    assert_eq!(relayed.server.bulk(impressions(1)).await.status, 503);
    // The first one found out; the log is read-only from now on. Its post was on its way by then, and its sender was
    // refused without waiting for that.
    comes_to(1, || relayed.snapshot().kept).await;
    assert_eq!(relayed.server.bulk(impressions(1)).await.status, 503);
    assert_eq!(relayed.other("/api/events/bulk", KEY, "[]").await, 200, "posts have their own disk");
    // A post of the second would be kept before this one.
    assert_eq!((relayed.kept(STREAM).len(), relayed.snapshot().kept, relayed.snapshot().missed), (2, 2, 0));
}

/// Before, it was searched for the key and copied where all connections are served.
#[tokio::test]
async fn a_large_post_waits_for_a_thread_as_large_impressions_do_and_a_small_one_does_not() {
    let limits = Limits { body_time_max: Duration::from_secs(2), ..Limits::default() };
    let mut relayed = relayed_under(LogOptions::default(), limits).await;
    let mut all = Vec::new();
    while let Ok(one) = relayed.server.ingest.parsers.reserve(10 + all.len(), 1, Duration::from_millis(1)).await {
        all.push(one);
    }
    let large = format!("[{}]", " ".repeat(300 << 10));
    assert_eq!(relayed.other("/api/events/bulk", KEY, &large).await, 503);
    assert_eq!(relayed.other("/api/events/bulk", KEY, "[]").await, 200);
    assert_eq!((relayed.kept(STREAM).len(), relayed.server.refused(Refusal::Busy)), (1, 1));
    drop(all);
    assert_eq!(relayed.other("/api/events/bulk", KEY, &large).await, 200);
    assert_eq!(relayed.kept(STREAM)[1].body_bytes(), large.len() as u64);
    relayed.server.begin_stop();
}

#[tokio::test]
async fn a_post_of_nothing_but_its_key_is_refused_and_impressions_beside_it_are_not() {
    let relayed = relayed().await;
    assert_eq!(relayed.other("/api/events/bulk", KEY, &KEY.repeat(100)).await, 400);
    let named = format!(r#"{{"k":"{}","t":"on"}}"#, KEY.repeat(100));
    let authorization = format!("Bearer {KEY}");
    let body = format!(r#"[{{"f":"a","i":[{named}]}}]"#);
    let reply =
        relayed.server.send(post("/api/testImpressions/bulk", &[("Authorization", &authorization)], body)).await;
    assert_eq!((reply.status, relayed.server.records("prod"), relayed.snapshot().missed), (200, 1, 1));
    assert_eq!(relayed.kept(STREAM).len(), 0);
}
