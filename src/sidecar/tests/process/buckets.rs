//! SIGKILL at any moment while objects are written: each record lies in one object, and no two objects overlap.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use http_body_util::Full;
use hyper::Response;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tokio::runtime::Runtime;

use super::bucket::{flaky, objects, settings, side_by_side};
use super::kills::{kills, seed};
use super::load::{Fate, Load, Post, post};
use super::proof::{Arrived, balance_closes};
use super::sidecar::Home;
use super::store::{Act, Seen, error, serve};
use super::wire::Client;

fn wait_until(mut done: impl FnMut() -> bool) {
    let since = Instant::now();
    while !done() {
        assert!(since.elapsed() < Duration::from_secs(120), "nothing happens");
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn each_record_lies_in_one_object_however_often_the_writer_is_killed() {
    let seed = seed();
    let mut rng = SmallRng::seed_from_u64(seed);
    let runtime = Runtime::new().unwrap();
    let root = tempfile::tempdir().unwrap();
    let calm = Arc::<AtomicBool>::default();
    let (spoiled, answers) = (Arc::<AtomicUsize>::default(), flaky(seed, Arc::clone(&calm)));
    let puts = Arc::clone(&spoiled);
    let answer = move |seen: &Seen| {
        let act = answers(seen);
        puts.fetch_add(usize::from(seen.operation() == "put" && !matches!(act, Act::Pass)), Ordering::SeqCst);
        act
    };
    let store = runtime.block_on(serve(root.path(), answer));
    let settings = settings(&store, "impressions") + "max_records = 150\nmax_age = \"1s\"\ntimeout = \"5s\"";
    let home = Home::new("bucket").destination("acme-s3", &settings).file("archive", "").log("replay_window = \"0s\"");
    let load = Load::start("bucket", seed, 4, home.ingest());
    let kills = kills().div_ceil(2);
    for _ in 0..kills {
        let sidecar = home.start();
        thread::sleep(Duration::from_millis(rng.random_range(0..1_500)));
        sidecar.kill();
    }
    let last = home.start();
    // However few objects the lives before have asked for.
    wait_until(|| spoiled.load(Ordering::SeqCst) > 0);
    thread::sleep(Duration::from_millis(300));
    let posts = load.stop();
    // What was learned of it slows the rest down for minutes.
    calm.store(true, Ordering::SeqCst);
    let lags = last.drain(&["acme-s3", "archive"]);

    let objects = objects(&root.path().join("impressions"));
    side_by_side(&objects);
    let written = objects.len();
    let in_bucket = Arrived::in_files(objects.into_iter().flat_map(|object| object.lines).collect());
    in_bucket.holds(&posts, "acme-s3");
    in_bucket.equals(&Arrived::in_files(home.lines("archive")));
    balance_closes(&lags, &["acme-s3", "archive"], in_bucket.len());

    let mut asked = BTreeMap::<&str, usize>::new();
    store.operations().into_iter().for_each(|operation| *asked.entry(operation).or_default() += 1);
    eprintln!(
        "{kills} kills, {} posts, {} records in {written} objects; asked: {asked:?}",
        posts.len(),
        in_bucket.len()
    );
    // A test in which nothing happened would pass as well.
    assert!(written > kills && asked["put"] > written, "some objects were asked for more than once");
}

/// Objects lie in the bucket and their answers were lost; then the process dies, and comes back with another prefix. A
/// batch under its new name as well would be the same records twice.
#[test]
fn a_batch_that_was_begun_keeps_its_name_when_the_prefix_changes_before_the_next_start() {
    let runtime = Runtime::new().unwrap();
    let root = tempfile::tempdir().unwrap();
    let losing = Arc::new(AtomicBool::new(true));
    let lost = Arc::clone(&losing);
    let act = move |seen: &Seen| match seen.operation() {
        "put" if lost.load(Ordering::SeqCst) => Act::Lose(error(500, "InternalError", &[])),
        // Nor can it find out that the object is there.
        _ if lost.load(Ordering::SeqCst) => Act::Answer(error(500, "InternalError", &[])),
        _ => Act::Pass,
    };
    let store = runtime.block_on(serve(root.path(), act));
    let settings = settings(&store, "impressions")
        + "prefix = \"before/\"\nmax_records = 150\nmax_age = \"1s\"\ntimeout = \"10s\"";
    let mut home = Home::new("moved").destination("acme-s3", &settings);
    let load = Load::start("moved", seed(), 2, home.ingest());
    let bucket = root.path().join("impressions");
    fs::create_dir(&bucket).unwrap();
    let sidecar = home.start();
    // Two go at once: with the fourth, two have been answered.
    wait_until(|| store.operations().iter().filter(|operation| **operation == "put").count() >= 4);
    sidecar.kill();
    losing.store(false, Ordering::SeqCst);
    home.change("before/", "after/");
    let last = home.start();
    thread::sleep(Duration::from_secs(1));
    let posts = load.stop();
    last.drain(&["acme-s3"]);

    let mut folders = BTreeMap::<String, usize>::new();
    let objects = objects(&bucket);
    side_by_side(&objects);
    for object in &objects {
        let within = object.path.strip_prefix(&bucket).unwrap();
        *folders.entry(within.iter().next().unwrap().to_str().unwrap().to_owned()).or_default() += 1;
    }
    Arrived::in_files(objects.into_iter().flat_map(|object| object.lines).collect()).holds(&posts, "acme-s3");
    assert!(folders["before"] > 0 && folders["after"] > 0, "{folders:?}");
}

/// The path of a part's request, as the store lists the upload that it is of.
fn listed(path: &str) -> Option<String> {
    let (path, query) = path.split_once('?')?;
    let key = path.strip_prefix("/impressions/")?.replace("%3D", "=");
    let id = query.split('&').find_map(|part| part.strip_prefix("uploadId="))?;
    Some(format!("<Upload><Key>{key}</Key><UploadId>{id}</UploadId></Upload>"))
}

/// Parts are taken, and no upload is completed or given up; then the process dies in the middle of one.
#[test]
fn an_upload_in_parts_that_a_kill_cut_off_is_given_up_and_its_object_is_written_once() {
    let runtime = Runtime::new().unwrap();
    let root = tempfile::tempdir().unwrap();
    let (holding, begun) = (Arc::new(AtomicBool::new(true)), Arc::new(Mutex::new(BTreeSet::<String>::new())));
    let (held, uploads) = (Arc::clone(&holding), Arc::clone(&begun));
    let act = move |seen: &Seen| match (seen.operation(), held.load(Ordering::SeqCst)) {
        ("part", true) => {
            uploads.lock().unwrap().extend(listed(&seen.path));
            Act::Hush
        }
        ("abort" | "complete", true) => Act::Answer(error(500, "InternalError", &[])),
        // The store of these tests can't list: its list is ours.
        ("list uploads", false) => {
            let uploads: String = uploads.lock().unwrap().iter().map(String::as_str).collect();
            let xml = format!(
                "<?xml version=\"1.0\" encoding=\"UTF-8\"?><ListMultipartUploadsResult><Bucket>impressions</Bucket>\
                 <IsTruncated>false</IsTruncated>{uploads}</ListMultipartUploadsResult>"
            );
            Act::Answer(Response::new(Full::from(xml)))
        }
        _ => Act::Pass,
    };
    fs::create_dir(root.path().join("impressions")).unwrap();
    let store = runtime.block_on(serve(root.path(), act));
    // Lines of 30,000 records, not packed, are more than one part. Short names: this store makes a file's name of an
    // object's name and an upload's. However slowly they are posted, none goes before it has them all.
    let settings = settings(&store, "impressions")
        + "partitions = \"\"\ncompression = \"none\"\nmax_records = 30000\nmax_age = \"10m\"";
    let mut home = Home::new("parts").destination("acme-s3", &settings);
    let sidecar = home.start();
    let mut client = Client::connect(home.ingest()).unwrap();
    let mut posts = Vec::new();
    wait_until(|| {
        let first = posts.len() * 1_000;
        let keys: Vec<String> = (first..first + 1_000).map(|n| format!("parts-{n}")).collect();
        assert!(matches!(post(&mut client, "parts", &keys), Ok(200..300)));
        posts.push(Post { keys, fate: Fate::Acknowledged });
        !begun.lock().unwrap().is_empty()
    });
    sidecar.kill();
    holding.store(false, Ordering::SeqCst);
    home.change("max_age = \"10m\"", "max_age = \"1s\"");
    let last = home.start();
    last.drain(&["acme-s3"]);

    let objects = objects(&root.path().join("impressions"));
    side_by_side(&objects);
    Arrived::in_files(objects.into_iter().flat_map(|object| object.lines).collect()).holds(&posts, "acme-s3");
    let asked = store.operations();
    assert!(asked.contains(&"complete") && asked.contains(&"abort"), "{asked:?}");
    let names = fs::read_dir(root.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let left: Vec<String> = names.filter(|name| name.contains("upload")).collect();
    assert!(left.is_empty(), "nothing is left of any upload: {left:?}");
}
