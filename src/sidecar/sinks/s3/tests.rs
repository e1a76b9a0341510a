//! The sink as a whole against a store that checks signatures and checksums: what each answer means, that an object is
//! there once, and that nothing is left behind.

#![expect(clippy::disallowed_methods, reason = "looks into the store's own directory, as nobody else does")]

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering as Order};

use bytes::Bytes;
use forebay::clock::SystemClock;
use http_body_util::Full;
use hyper::Response;
use tempfile::TempDir;

use super::sample::{bucket_at, large, many};
use super::*;
use crate::config::{Endpoint, LinesCompression, ParquetCompression, S3Keys, Secret};
use store_server::{Act, KEYS, Seen, error, serve};

mod as_whom;
mod asked;
mod conditions;
#[path = "../../tests/store/mod.rs"]
mod store_server;

const LIMIT: Duration = Duration::from_secs(60);

fn config(addr: std::net::SocketAddr, format: S3Format) -> S3Config {
    let [access_key_id, secret_access_key] = [KEYS.0, KEYS.1].map(|key| Secret::new(key.to_owned()));
    let keys = Some(S3Keys { access_key_id, secret_access_key });
    S3Config { keys, format, ..bucket_at(&format!("http://{addr}")) }
}

const PLAIN: S3Format = S3Format::JsonLines(LinesCompression::None);

fn sink(config: &S3Config) -> S3Sink {
    S3Sink::new("acme-s3", config, AddressPolicy::Operator, 2, Arc::default(), Arc::new(SystemClock::new()))
}

/// A store, and a sink for it.
async fn stage(format: S3Format, act: impl Fn(&Seen) -> Act + Send + Sync + 'static) -> (TempDir, Store, S3Sink) {
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir(root.path().join("impressions")).unwrap();
    let store = serve(root.path(), act).await;
    let sink = sink(&config(store.addr, format));
    (root, store, sink)
}

use store_server::Store;

/// The objects of the bucket by their names.
fn objects(root: &Path) -> BTreeMap<String, Vec<u8>> {
    objects_of(&root.join("impressions"))
}

fn objects_of(bucket: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut open = vec![bucket.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else {
                let name = path.strip_prefix(bucket).unwrap().to_str().unwrap().to_owned();
                found.insert(name, std::fs::read(&path).unwrap());
            }
        }
    }
    found
}

/// What lies beside the buckets: parts of uploads that are not complete.
fn parts_left(root: &Path) -> usize {
    let names = std::fs::read_dir(root).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.contains(".upload_id-") || name.contains("upload-")).count()
}

async fn put(sink: &S3Sink, job: &LargeJob) -> Outcome {
    sink.put(job, LIMIT).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_batch_is_one_object_with_its_metadata() {
    let (root, store, sink) = stage(PLAIN, |_| Act::Pass).await;
    let job = large(7..25);
    assert_eq!(put(&sink, &job).await, Outcome::Delivered);
    let objects = objects(root.path());
    let (name, bytes) = objects.first_key_value().unwrap();
    assert_eq!(objects.len(), 1);
    assert_eq!(
        name,
        "environment=acme-prod/date=2023-11-14/hour=22/00000000000000000007-00000000000000000024-batch-7-25.jsonl"
    );
    let lines: Vec<serde_json::Value> =
        bytes.split_inclusive(|b| *b == b'\n').map(|line| serde_json::from_slice(line).unwrap()).collect();
    assert_eq!(lines.len(), 18);
    for (offset, line) in (7..).zip(&lines) {
        assert_eq!(line["id"], format!("{}-3-{offset}", forebay::LogId(77)));
        assert_eq!(line["key"], format!("user-{offset}"));
    }
    let put = store.seen.lock().unwrap().iter().find(|seen| seen.operation() == "put").cloned().unwrap();
    let header = |name: &str| put.headers.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str());
    assert_eq!(header("if-none-match"), Some("*"));
    assert_eq!(header("x-amz-meta-first-offset"), Some("7"));
    assert_eq!(header("x-amz-meta-last-offset"), Some("24"));
    assert_eq!(header("x-amz-meta-count"), Some("18"));
    assert_eq!(header("x-amz-meta-digest").map(str::len), Some(64));
    assert!(header("x-amz-checksum-crc32").is_some(), "{put:?}");
    assert_eq!(header("content-encoding"), None, "no store has to know aws-chunked");
    assert!(header("x-amz-content-sha256").is_some_and(|hash| hash.len() == 64), "the body is signed");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_batch_again_finds_its_object_and_is_delivered() {
    for job in [large(0..30), many(12_000)] {
        let (root, store, sink) = stage(PLAIN, |_| Act::Pass).await;
        assert_eq!(put(&sink, &job).await, Outcome::Delivered);
        let before = objects(root.path());
        store.forget();
        assert_eq!(put(&sink, &job).await, Outcome::Delivered);
        assert_eq!(objects(root.path()), before);
        assert!(store.operations().contains(&"look"), "{:?}", store.operations());
        assert!(!store.operations().contains(&"begin"), "nothing is sent twice to find out");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_batch_goes_in_parts_and_reads_back_whole() {
    let (root, store, sink) = stage(PLAIN, |_| Act::Pass).await;
    let job = many(12_000);
    assert_eq!(put(&sink, &job).await, Outcome::Delivered);
    assert_eq!(store.operations(), ["look", "begin", "part", "part", "part", "complete"]);
    let objects = objects(root.path());
    let bytes = objects.values().next().unwrap();
    assert!(bytes.len() > 2 * PART_BYTES, "{}", bytes.len());
    assert_eq!(memchr::memchr_iter(b'\n', bytes).count(), 12_000);
    assert_eq!(parts_left(root.path()), 0);
    let complete = store.seen.lock().unwrap().last().cloned().unwrap();
    assert!(complete.headers.contains(&("if-none-match".to_owned(), "*".to_owned())));
}

#[tokio::test(flavor = "multi_thread")]
async fn each_packing_gives_the_same_bytes_at_every_attempt_and_unpacks_to_the_same_lines() {
    let mut lines = Vec::new();
    for compression in [LinesCompression::None, LinesCompression::Gzip, LinesCompression::Zstd] {
        let mut tries = Vec::new();
        for _ in 0..2 {
            let (root, _, sink) = stage(S3Format::JsonLines(compression), |_| Act::Pass).await;
            assert_eq!(put(&sink, &large(3..999)).await, Outcome::Delivered);
            tries.push(objects(root.path()));
        }
        assert_eq!(tries[0], tries[1], "{compression:?}");
        let bytes = tries[0].values().next().unwrap();
        let mut plain = Vec::new();
        match compression {
            LinesCompression::None => plain.clone_from(bytes),
            LinesCompression::Gzip => _ = flate2::read::GzDecoder::new(&bytes[..]).read_to_end(&mut plain).unwrap(),
            LinesCompression::Zstd => plain = zstd::decode_all(&bytes[..]).unwrap(),
        }
        lines.push(plain);
    }
    assert!(lines[0] == lines[1] && lines[1] == lines[2] && !lines[0].is_empty());
}

/// Answers the first request of this kind so, and lets all others pass.
fn once(operation: &'static str, act: Act) -> impl Fn(&Seen) -> Act + Send + Sync {
    let left = AtomicUsize::new(1);
    move |seen| {
        let hit = seen.operation() == operation
            && left.fetch_update(Order::SeqCst, Order::SeqCst, |left| left.checked_sub(1)).is_ok();
        if hit { act.clone() } else { Act::Pass }
    }
}

fn kind(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Delivered => "delivered",
        Outcome::Throttled { .. } => "throttled",
        Outcome::Retry { .. } => "retry",
        Outcome::Refused { .. } => "refused",
        other => panic!("{other:?} is nothing that a store says"),
    }
}

/// After each fault the batch is tried again: the object is there once, whole, and nothing is left beside it.
#[tokio::test(flavor = "multi_thread")]
async fn whatever_fails_the_next_attempt_leaves_one_whole_object_and_nothing_else() {
    let (small, in_parts) = (large(0..30), many(12_000));
    let table: [(&str, &LargeJob, &'static str, Act, &str); 17] = [
        ("slow down", &small, "put", Act::Answer(error(503, "SlowDown", &[])), "throttled"),
        ("too many", &small, "put", Act::Answer(error(429, "Whatever", &[])), "throttled"),
        ("internal error", &small, "put", Act::Answer(error(500, "InternalError", &[])), "retry"),
        ("conflict", &small, "put", Act::Answer(error(409, "ConditionalRequestConflict", &[])), "retry"),
        ("no bucket", &small, "put", Act::Answer(error(404, "NoSuchBucket", &[])), "refused"),
        ("expired", &small, "put", Act::Answer(error(400, "ExpiredToken", &[])), "refused"),
        ("denied", &small, "put", Act::Answer(error(403, "AccessDenied", &[])), "refused"),
        ("clock", &small, "put", Act::Answer(error(403, "RequestTimeTooSkewed", &[])), "refused"),
        ("reset in the body", &small, "put", Act::Cut, "retry"),
        ("answer lost", &small, "put", Act::Lose(error(500, "InternalError", &[])), "retry"),
        ("no answer", &small, "put", Act::Hush, "retry"),
        ("reset in a part", &in_parts, "part", Act::Cut, "retry"),
        ("slow down at a part", &in_parts, "part", Act::Answer(error(503, "SlowDown", &[])), "throttled"),
        (
            "conflict at the end",
            &in_parts,
            "complete",
            Act::Answer(error(409, "ConditionalRequestConflict", &[])),
            "retry",
        ),
        ("end not heard", &in_parts, "complete", Act::Lose(error(500, "InternalError", &[])), "retry"),
        ("end without a word", &in_parts, "complete", Act::Hush, "retry"),
        ("no beginning", &in_parts, "begin", Act::Answer(error(503, "SlowDown", &[])), "throttled"),
    ];
    let mut whole = BTreeMap::new();
    for job in [&small, &in_parts] {
        let (root, _, sink) = stage(PLAIN, |_| Act::Pass).await;
        assert_eq!(put(&sink, job).await, Outcome::Delivered);
        whole.insert(Arc::clone(&job.id), objects(root.path()));
    }
    for (name, job, operation, act, expected) in table {
        let (root, store, sink) = stage(PLAIN, once(operation, act)).await;
        let outcome = put(&sink, job).await;
        assert_eq!(kind(&outcome), expected, "{name}: {outcome:?}");
        let tried = store.operations().iter().filter(|other| **other == operation).count();
        assert_eq!(tried, 1, "{name}: the sdk repeats nothing by itself");
        assert_eq!(put(&sink, job).await, Outcome::Delivered, "{name}");
        assert!(objects(root.path()) == whole[&job.id], "{name}: one whole object");
        assert_eq!(parts_left(root.path()), 0, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_that_the_store_asks_for_is_handed_on() {
    for (header, value, seconds) in [("retry-after", "7", 7), ("x-amz-retry-after", "9000", 9)] {
        let act = once("put", Act::Answer(error(503, "SlowDown", &[(header, value)])));
        let (_root, _, sink) = stage(PLAIN, act).await;
        let outcome = put(&sink, &large(0..10)).await;
        let asked = Some(Duration::from_secs(seconds));
        assert!(matches!(&outcome, Outcome::Throttled { retry_after, .. } if *retry_after == asked), "{outcome:?}");
    }
}

/// The settings changed while it was not known whether the object is there.
#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_finished_under_the_settings_that_it_was_planned_in() {
    let answers = AtomicUsize::new(0);
    let (root, store, before) = stage(PLAIN, move |seen| match seen.operation() {
        "put" if answers.fetch_add(1, Order::SeqCst) == 0 => Act::Lose(error(500, "InternalError", &[])),
        _ => Act::Pass,
    })
    .await;
    let old = config(store.addr, PLAIN);
    let planned = LargeJob { settings_revision: Some(1), ..large(0..10) };
    assert_eq!(kind(&put(&before.with_layouts(&[(1, old.layout())]), &planned).await), "retry");
    let written = objects(root.path());
    assert_eq!(written.len(), 1);

    let prefix = crate::config::KeyTemplate::parse("later/").unwrap();
    let new = S3Config { prefix, ..config(store.addr, S3Format::Parquet(ParquetCompression::Zstd)) };
    let after = sink(&new).with_layouts(&[(1, old.layout()), (2, new.layout())]);
    assert_eq!(put(&after, &planned).await, Outcome::Delivered);
    assert_eq!(objects(root.path()), written, "one object, as it was");
    let fresh = LargeJob { settings_revision: Some(2), ..large(10..20) };
    assert_eq!(put(&after, &fresh).await, Outcome::Delivered);
    let names: Vec<String> = objects(root.path()).into_keys().collect();
    assert!(names[0].ends_with("-batch-0-10.jsonl") && names[1].starts_with("later/"), "{names:?}");
    assert!(names[1].ends_with("-batch-10-20.zstd.parquet"), "{names:?}");
    let again = LargeJob { replay: Some(2), ..fresh };
    assert_eq!(put(&after, &again).await, Outcome::Delivered);
    assert!(objects(root.path()).contains_key(&format!("replay=2/{}", names[1])), "beside it");
}

/// The bucket changed while it was not known whether the object is there. Before, there was a second one in the new bucket.
#[tokio::test(flavor = "multi_thread")]
async fn a_batch_in_doubt_is_finished_in_the_bucket_that_it_was_planned_for_unless_that_takes_nothing() {
    let answers = AtomicUsize::new(0);
    let (root, store, before) = stage(PLAIN, move |seen| match seen.operation() {
        _ if seen.path.starts_with("/nosuch") => Act::Answer(error(404, "NoSuchBucket", &[])),
        "put" if answers.fetch_add(1, Order::SeqCst) == 0 => Act::Lose(error(500, "InternalError", &[])),
        _ => Act::Pass,
    })
    .await;
    let old = config(store.addr, PLAIN);
    let planned = LargeJob { settings_revision: Some(1), ..large(0..10) };
    assert_eq!(kind(&put(&before.with_layouts(&[(1, old.layout())]), &planned).await), "retry");
    let new = S3Config { bucket: "other".to_owned(), ..config(store.addr, PLAIN) };
    std::fs::create_dir(root.path().join("other")).unwrap();
    let in_other = || objects_of(&root.path().join("other"));
    let after = sink(&new).with_layouts(&[(1, old.layout()), (2, new.layout())]);
    assert_eq!(put(&after, &planned).await, Outcome::Delivered);
    assert_eq!((objects(root.path()).len(), in_other().len()), (1, 0), "one object, where it was");
    let fresh = LargeJob { settings_revision: Some(2), ..large(10..20) };
    assert_eq!(put(&after, &fresh).await, Outcome::Delivered);
    assert_eq!((objects(root.path()).len(), in_other().len()), (1, 1));

    // A bucket that never was took nothing: what was planned for it goes where all go.
    let mistyped = S3Config { bucket: "nosuch".to_owned(), ..config(store.addr, PLAIN) };
    let after = sink(&new).with_layouts(&[(3, mistyped.layout())]);
    let planned = LargeJob { settings_revision: Some(3), ..large(20..30) };
    assert_eq!(put(&after, &planned).await, Outcome::Delivered);
    assert_eq!(in_other().len(), 2);

    // A store that nobody reaches is waited for, and not for ever.
    let nobody = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let unreached = || sink(&new).with_layouts(&[(4, config(nobody, PLAIN).layout())]);
    let (patient, mut after) = (unreached(), unreached());
    let planned = LargeJob { settings_revision: Some(4), ..large(30..40) };
    for _ in 0..2 {
        let outcome = put(&patient, &planned).await;
        assert!(matches!(outcome, Outcome::Retry { why: Failure::Connect(_) }), "{outcome:?}");
    }
    assert_eq!(in_other().len(), 2);
    Arc::get_mut(&mut after.inner).unwrap().patience = Duration::ZERO;
    assert_eq!(put(&after, &planned).await, Outcome::Delivered);
    assert_eq!(in_other().len(), 3);
}

/// What an earlier run left unfinished is found by listing, and given up before anything else is sent; a neighbour's
/// uploads are left alone. The store of these tests can't list, so its list is ours.
#[tokio::test(flavor = "multi_thread")]
async fn uploads_that_an_earlier_run_left_are_given_up_and_a_neighbours_are_not() {
    let log = "A".repeat(22);
    let id = |destination: &str| format!("{log}BABDCPoCH0{destination}");
    let name = |batch: &str| format!("environment=e/00000000000000001000-00000000000000001499-{batch}.jsonl");
    let keys = [name(&id("acme-s3")), name(&id("big-acme-s3")), "somebody/else.txt".to_owned()];
    let upload =
        |(n, key): (usize, &String)| format!("<Upload><Key>{key}</Key><UploadId>upload-{n}</UploadId></Upload>");
    let list: String = keys.iter().enumerate().map(upload).collect();
    let xml = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?><ListMultipartUploadsResult><Bucket>impressions</Bucket>\
         <IsTruncated>false</IsTruncated>{list}</ListMultipartUploadsResult>"
    );
    let act = move |seen: &Seen| match seen.operation() {
        "list uploads" => Act::Answer(Response::new(Full::from(xml.clone()))),
        "abort" => Act::Answer(Response::builder().status(204).body(Full::new(Bytes::new())).unwrap()),
        _ => Act::Pass,
    };
    let (_root, store, sink) = stage(PLAIN, act).await;
    let job = LargeJob { id: id("acme-s3").into(), ..large(0..10) };
    assert_eq!(put(&sink, &job).await, Outcome::Delivered);
    assert_eq!(store.operations(), ["list uploads", "abort", "put"]);
    assert!(store.seen.lock().unwrap()[1].path.contains("uploadId=upload-0"));
    store.forget();
    assert_eq!(put(&sink, &LargeJob { received_ms: 0, ..job }).await, Outcome::Delivered);
    assert_eq!(store.operations(), ["put"], "once a run is enough");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_can_not_be_read_makes_no_object() {
    let (root, store, sink) = stage(PLAIN, |_| Act::Pass).await;
    let job = large(0..30);
    let short = LargeJob { origin: crate::delivery::sink::Origin { offsets: 0..40, ..job.origin.clone() }, ..job };
    let outcome = put(&sink, &short).await;
    assert_eq!(kind(&outcome), "retry", "{outcome:?}");
    let most = many(12_000);
    let short =
        LargeJob { origin: crate::delivery::sink::Origin { offsets: 0..12_001, ..most.origin.clone() }, ..most };
    let outcome = put(&sink, &short).await;
    assert_eq!(kind(&outcome), "retry", "{outcome:?}");
    assert_eq!(objects(root.path()), BTreeMap::new());
    assert_eq!(parts_left(root.path()), 0);
    assert!(!store.operations().contains(&"complete"));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_nobody_uses_is_dropped() {
    let (_root, _, sink) = stage(PLAIN, |_| Act::Pass).await;
    // Paused time runs ahead while the store is at work: the answer may come too late, the client is there all the same.
    let _ = put(&sink, &large(0..10)).await;
    assert_eq!(sink.inner.places.lock().await.len(), 1);
    sleep(IDLE * 3).await;
    assert!(sink.inner.places.lock().await.is_empty());
    assert!(!sink.inner.watched.load(Ordering::Acquire));
}
