//! Replays through the real binary, with a SIGKILL in their middle: under the ids that were, or under new ones, at a
//! webhook and in a bucket; live delivery goes on beside them, and the books tell them apart.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::Value;
use tokio::runtime::Runtime;

use super::books::Balance;
use super::bucket::{self, objects, side_by_side};
use super::load::{Load, Post};
use super::proof::Arrived;
use super::receiver::{Answer, Arrival, Receiver};
use super::sidecar::{Home, Sidecar, wait_for};
use super::store::{Act, Seen, Store, error, serve};

const ENVIRONMENT: &str = "acme-prod";

/// The replays that are under way, as `forebay replay --list` tells of them.
fn under_way(sidecar: &Sidecar<'_>) -> Vec<Value> {
    sidecar.asked(&["replay", "--list"])["replays"].as_array().expect("a list").clone()
}

/// Records of the only replay that were delivered, and those that are still to go.
fn progress(sidecar: &Sidecar<'_>) -> (u64, u64) {
    let [replay] = &under_way(sidecar)[..] else { return (0, 0) };
    let records = |name: &str| replay["balance"][name]["records"].as_u64().expect("a number");
    (records("delivered"), records("pending"))
}

/// Starts a replay of the records below `end`.
fn replay(sidecar: &Sidecar<'_>, destination: &str, end: u64, how: &[&str]) -> Value {
    let end = end.to_string();
    let which = ["replay", destination, "--from-offset", "0", "--to-offset", &end, "--environment", ENVIRONMENT];
    let started = sidecar.asked(&[&which[..], how].concat());
    assert_eq!((&started["replays"][0]["number"], &started["none"]), (&1.into(), &Value::Array(Vec::new())));
    started["replays"][0].clone()
}

/// What had been sent and delivered before the replay, and what has come since.
struct Staged {
    old_posts: Vec<Post>,
    live_posts: Vec<Post>,
    /// Records that were delivered before.
    records: u64,
    before: Vec<Arrival>,
    after: Vec<Arrival>,
    books: super::books::Books,
}

fn is_old(arrival: &Arrival) -> bool {
    memchr::memmem::find(&arrival.body, b"\"old-").is_some()
}

/// A webhook has everything; then all of it is replayed while more comes in; and the process is killed once it has sent a
/// part of it again. It is slow for as long as we look at it in its middle.
fn replayed_at_a_webhook(name: &str, how: &[&str]) -> Staged {
    let hook = Receiver::start();
    let home = Home::new(name).webhook("hook", &hook, "batch_records_max = 20");
    let sidecar = home.start();
    let load = Load::start("old", 11, 2, home.ingest());
    assert!(wait_for(|| load.acknowledged() > 100));
    let old_posts = load.stop();
    sidecar.drain(&["hook"]);
    let before = hook.arrivals();
    let records = Arrived::at_webhook(&before).len() as u64;

    let pause = Arc::new(AtomicU64::new(1_000));
    let theirs = Arc::clone(&pause);
    hook.judge(move |arrival| match theirs.load(Ordering::SeqCst) {
        pause if is_old(arrival) => Answer::Slow(Duration::from_millis(pause)),
        _ => Answer::Ok,
    });
    let live = Load::start("live", 12, 1, home.ingest());
    let started = replay(&sidecar, "hook", records, how);
    assert_eq!((&started["first_offset"], &started["end_offset"]), (&0.into(), &records.into()));
    let under_old_ids = if how.is_empty() { records } else { 0 };
    assert_eq!(started["records_under_old_ids"], under_old_ids);
    let live_before = live.acknowledged();
    assert!(wait_for(|| live.acknowledged() > live_before + 20), "a replay stops nobody from posting");
    let mut seen = (0, 0);
    let amid = wait_for(|| {
        seen = progress(&sidecar);
        seen.0 > 40
    });
    assert!(amid && seen.1 > 0, "{seen:?}: it is in its middle");
    let books = sidecar.books();
    let apart = books.queues[&("hook!replay-1".to_owned(), ENVIRONMENT.to_owned())];
    assert_eq!(apart.accepted, records);
    assert!(books.destinations["hook"].delivered >= records && books.replayed.is_empty(), "{books:?}");
    sidecar.kill();

    let sidecar = home.start();
    let (delivered, pending) = progress(&sidecar);
    assert!(pending > 0 && delivered + pending == records, "it outlives the kill: {delivered} and {pending} to go");
    pause.store(20, Ordering::SeqCst);
    assert!(wait_for(|| under_way(&sidecar).is_empty()), "{:?}", under_way(&sidecar));
    let live_posts = live.stop();
    sidecar.drain(&["hook"]);
    let after = hook.arrivals().split_off(before.len());
    Staged { old_posts, live_posts, records, before, after, books: sidecar.books() }
}

impl Staged {
    /// What came of live records while old ones came again, and the books.
    fn check(&self) {
        let of_old = |at: &usize| is_old(&self.after[*at]);
        let (first, last) = ((0..self.after.len()).find(of_old), (0..self.after.len()).rfind(of_old));
        let (Some(first), Some(last)) = (first, last) else { panic!("nothing came again") };
        let beside = self.after[first..last].iter().filter(|arrival| !is_old(arrival)).count();
        assert!(beside > 10, "{beside} live batches came while the replay was under way");
        let live: Vec<Arrival> = self.after.iter().filter(|arrival| !is_old(arrival)).cloned().collect();
        let live = Arrived::at_webhook(&live);
        live.holds(&self.live_posts, "hook");
        // Each record counts once; what the replay delivered stands apart.
        let all = self.records + live.len() as u64;
        assert_eq!(self.books.destinations["hook"], Balance::all_delivered(all), "{:?}", self.books);
        assert_eq!(self.books.replayed["hook"], (1, self.records));
        assert_eq!(self.books.queues.len(), 1, "the replay's own books are closed: {:?}", self.books);
    }

    /// The batches that were replayed.
    fn again(&self) -> Vec<Arrival> {
        self.after.iter().filter(|arrival| is_old(arrival)).cloned().collect()
    }
}

fn ids(arrivals: &[Arrival]) -> BTreeSet<&str> {
    arrivals.iter().map(|arrival| &*arrival.id).collect()
}

#[test]
fn a_replay_that_fills_gaps_sends_the_same_batches_under_their_ids_across_a_kill() {
    let staged = replayed_at_a_webhook("filled", &[]);
    staged.check();
    let again = staged.again();
    assert_eq!(ids(&again), ids(&staged.before), "all of them, and no other");
    // The same id is the same batch, and each record is in one.
    let together: Vec<Arrival> = staged.before.iter().chain(&again).cloned().collect();
    Arrived::at_webhook(&together).holds(&staged.old_posts, "hook");
    assert!(ids(&staged.before).len() > 40, "a test in which nothing happened would pass as well");
}

#[test]
fn a_replay_again_sends_everything_once_more_under_new_ids_across_a_kill() {
    let staged = replayed_at_a_webhook("again", &["--again", "--yes"]);
    staged.check();
    let again = staged.again();
    assert!(ids(&again).is_disjoint(&ids(&staged.before)));
    // Under one new id each, whatever the kill took with it.
    Arrived::at_webhook(&again).holds(&staged.old_posts, "hook");
}

#[test]
fn a_replay_under_new_ids_needs_a_yes() {
    let hook = Receiver::start();
    let home = Home::new("asked").webhook("hook", &hook, "");
    let sidecar = home.start();
    let refused = sidecar.call(&["replay", "hook", "--from", "1h", "--again"]);
    assert!(!refused.status.success() && String::from_utf8_lossy(&refused.stderr).contains("--yes"), "{refused:?}");
}

/// A bucket with objects, and a gate that lets so many more be put before the store asks for a pause.
struct Gated {
    _runtime: Runtime,
    root: tempfile::TempDir,
    store: Store,
    left: Arc<AtomicUsize>,
    refused: Arc<AtomicBool>,
}

impl Gated {
    fn new() -> Self {
        let runtime = Runtime::new().unwrap();
        let root = tempfile::tempdir().unwrap();
        let (left, refused) = (Arc::new(AtomicUsize::new(usize::MAX)), Arc::<AtomicBool>::default());
        let (theirs, said) = (Arc::clone(&left), Arc::clone(&refused));
        let act = move |seen: &Seen| {
            let one_less = |left: usize| left.checked_sub(1);
            if seen.operation() != "put" || theirs.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less).is_ok() {
                return Act::Pass;
            }
            said.store(true, Ordering::SeqCst);
            Act::Answer(error(503, "SlowDown", &[]))
        };
        let store = runtime.block_on(serve(root.path(), act));
        Self { _runtime: runtime, root, store, left, refused }
    }

    fn home(&self, name: &str) -> Home {
        let settings = "prefix = \"all/\"\nmax_records = 20\nmax_age = \"1s\"\n";
        Home::new(name).destination("bucket", &(bucket::settings(&self.store, "impressions") + settings))
    }

    fn path(&self) -> PathBuf {
        self.root.path().join("impressions")
    }

    /// What was written, and by whom it was sent.
    fn filled(&self, home: &Home, sidecar: &Sidecar<'_>) -> (Vec<Post>, u64) {
        let load = Load::start("old", 13, 2, home.ingest());
        assert!(wait_for(|| load.acknowledged() > 80));
        let posts = load.stop();
        let lags = sidecar.drain(&["bucket"]);
        (posts, lags[0].accepted)
    }

    /// Kills it once so many objects were put and the next was refused; starts it, and waits until the replay is over.
    fn killed_in_its_middle<'h>(&self, home: &'h Home, sidecar: Sidecar<'_>) -> Sidecar<'h> {
        assert!(wait_for(|| self.refused.load(Ordering::SeqCst)));
        sidecar.kill();
        self.left.store(usize::MAX, Ordering::SeqCst);
        let sidecar = home.start();
        assert!(wait_for(|| under_way(&sidecar).is_empty()), "{:?}", under_way(&sidecar));
        sidecar.drain(&["bucket"]);
        sidecar
    }
}

fn names(objects: &[bucket::Object]) -> BTreeSet<PathBuf> {
    objects.iter().map(|object| object.path.clone()).collect()
}

/// The objects in one of the bucket's folders, end to end, and their records once each.
fn holds_all(folder: &std::path::Path, posts: &[Post]) -> Vec<bucket::Object> {
    let objects = objects(folder);
    side_by_side(&objects);
    let lines = objects.iter().flat_map(|object| object.lines.clone()).collect();
    Arrived::in_files(lines).holds(posts, "bucket");
    objects
}

#[test]
fn a_replay_again_into_a_bucket_writes_each_record_once_more_under_a_prefix_of_its_own_across_a_kill() {
    let gated = Gated::new();
    let home = gated.home("once-more");
    let sidecar = home.start();
    let (posts, records) = gated.filled(&home, &sidecar);
    let before = names(&holds_all(&gated.path().join("all"), &posts));
    gated.left.store(5, Ordering::SeqCst);
    replay(&sidecar, "bucket", records, &["--again", "--yes"]);
    let sidecar = gated.killed_in_its_middle(&home, sidecar);

    let again = holds_all(&gated.path().join("replay=1"), &posts);
    assert!(again.len() > 10 && again.iter().all(|object| object.path.starts_with(gated.path().join("replay=1/all"))));
    assert_eq!(names(&holds_all(&gated.path().join("all"), &posts)), before, "what was there is as it was");
    let books = sidecar.books();
    assert_eq!(books.destinations["bucket"], Balance::all_delivered(records), "{books:?}");
    assert_eq!(books.replayed["bucket"], (1, records));
}

#[test]
fn a_replay_that_fills_gaps_of_a_bucket_writes_the_objects_that_are_missing_and_no_other_across_a_kill() {
    let gated = Gated::new();
    let home = gated.home("gaps");
    let sidecar = home.start();
    let (posts, records) = gated.filled(&home, &sidecar);
    let before = names(&holds_all(&gated.path().join("all"), &posts));
    assert!(before.len() > 10, "{before:?}");
    for missing in before.iter().step_by(3) {
        fs::remove_file(missing).unwrap();
    }
    gated.store.forget();
    gated.left.store(5, Ordering::SeqCst);
    replay(&sidecar, "bucket", records, &[]);
    let sidecar = gated.killed_in_its_middle(&home, sidecar);
    assert_eq!(names(&holds_all(&gated.path().join("all"), &posts)), before, "under the names that they had");
    let folders = fs::read_dir(gated.path()).unwrap().count();
    assert_eq!(folders, 1, "and nowhere else");
    assert_eq!(sidecar.books().replayed["bucket"], (1, records));
}
