//! SIGKILL at any moment while objects are written: each record lies in one object, and no two objects overlap.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use serde_json::Value;
use tokio::runtime::Runtime;

use super::kills::{kills, seed};
use super::load::Load;
use super::proof::{Arrived, balance_closes};
use super::sidecar::Home;
use super::store::{Act, KEYS, Seen, error, serve};

/// Mostly well; now and then an answer that is lost, a pause that is asked for, a connection that ends in the body.
fn flaky(seed: u64) -> impl Fn(&Seen) -> Act + Send + Sync {
    let rng = Mutex::new(SmallRng::seed_from_u64(seed));
    move |_| match rng.lock().unwrap().random_range(0..100) {
        0..3 => Act::Answer(error(503, "SlowDown", &[])),
        3..6 => Act::Lose(error(500, "InternalError", &[])),
        6..9 => Act::Hush,
        9..12 => Act::Cut,
        12 => Act::Answer(error(409, "ConditionalRequestConflict", &[])),
        _ => Act::Pass,
    }
}

/// An object, as its name and its lines tell of it.
struct Object {
    path: PathBuf,
    first: u64,
    last: u64,
    lines: Vec<Value>,
}

/// The objects of a bucket, by name.
fn objects(bucket: &Path) -> Vec<Object> {
    let (mut found, mut open) = (Vec::new(), vec![bucket.to_owned()]);
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
                continue;
            }
            let name = path.file_name().unwrap().to_str().unwrap();
            let mut numbers = name.splitn(3, '-').map(|part| part.parse::<u64>());
            let (first, last) = (numbers.next().unwrap().unwrap(), numbers.next().unwrap().unwrap());
            let text = zstd::decode_all(&fs::read(&path).unwrap()[..]).expect("an object is whole");
            let lines = text.split_inclusive(|byte| *byte == b'\n').map(|line| serde_json::from_slice(line).unwrap());
            let lines = lines.collect();
            found.push(Object { path, first, last, lines });
        }
    }
    found.sort_by_key(|object| object.first);
    found
}

#[test]
fn each_record_lies_in_one_object_however_often_the_writer_is_killed() {
    let seed = seed();
    let mut rng = SmallRng::seed_from_u64(seed);
    let runtime = Runtime::new().unwrap();
    let root = tempfile::tempdir().unwrap();
    let store = runtime.block_on(serve(root.path(), flaky(seed)));
    let settings = format!(
        "type = \"s3\"\nbucket = \"impressions\"\nendpoint = \"http://{}\"\npath_style = true\n\
         access_key_id = \"{}\"\nsecret_access_key = \"{}\"\nmax_records = 150\nmax_age = \"1s\"\ntimeout = \"10s\"",
        store.addr, KEYS.0, KEYS.1
    );
    let home = Home::new("bucket").destination("acme-s3", &settings).file("archive", "").log("replay_window = \"0s\"");
    let load = Load::start("bucket", seed, 4, home.ingest());
    let kills = kills();
    for _ in 0..kills {
        let sidecar = home.start();
        thread::sleep(Duration::from_millis(rng.random_range(0..1_500)));
        sidecar.kill();
    }
    let last = home.start();
    thread::sleep(Duration::from_millis(300));
    let posts = load.stop();
    let lags = last.drain(&["acme-s3", "archive"]);

    let objects = objects(&root.path().join("impressions"));
    let mut next = 0;
    for object in &objects {
        let name = object.path.display();
        assert_eq!(object.first, next, "{name} begins where the one before it ends");
        next = object.last + 1;
        let offsets: Vec<u64> = object.lines.iter().map(offset).collect();
        assert_eq!(offsets, (object.first..next).collect::<Vec<_>>(), "{name} holds what it is called after");
    }
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

fn offset(line: &Value) -> u64 {
    line["id"].as_str().and_then(|id| id.rsplit('-').next()?.parse().ok()).expect("an id ends in an offset")
}
