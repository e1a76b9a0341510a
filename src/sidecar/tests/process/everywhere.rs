//! SIGKILL at any moment with a destination of every kind at once: what was acknowledged is at all of them, each record
//! lies in one object of each bucket, what comes again elsewhere was in flight and comes under the id that it had, and the
//! books say so.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tokio::runtime::Runtime;

use super::books::Balance;
use super::bucket::{self, objects, side_by_side};
use super::event_service::{EventService, Service};
use super::kills::{WEBHOOK, flaky, kills, seed};
use super::load::{Fate, Load, Post, bulk};
use super::proof::Arrived;
use super::receiver::{Answer, Receiver};
use super::sidecar::Home;
use super::split::Split;
use super::store::serve;
use super::witness::{Delivered, Witness};

const DESTINATIONS: [&str; 7] = ["amplitude", "archive", "columns", "hook", "lines", "segment", "split"];

/// Mostly well; 0 cuts the connection.
fn moody(seed: u64) -> impl Fn(usize) -> u16 {
    move |n| match SmallRng::seed_from_u64(seed ^ n as u64).random_range(0..100) {
        0..3 => 0,
        3..5 => 500,
        5..7 => 503,
        7 => 429,
        _ => 200,
    }
}

#[test]
fn what_was_acknowledged_before_a_kill_arrives_at_every_kind_of_destination() {
    let seed = seed();
    let mut rng = SmallRng::seed_from_u64(seed);
    let runtime = Runtime::new().unwrap();
    let root = tempfile::tempdir().unwrap();
    let calm = Arc::<AtomicBool>::default();
    let store = runtime.block_on(serve(root.path(), bucket::flaky(seed, Arc::clone(&calm))));
    let (hook, split) = (Receiver::start(), Split::start());
    let services = [EventService::start(Service::Amplitude, seed), EventService::start(Service::Segment, seed + 1)];
    let [amplitude, segment] = &services;
    hook.script(flaky(seed));
    split.answers(moody(seed));
    let small = "batch_records_max = 100\ntimeout = \"10s\"";
    let objects_of = "max_records = 400\nmax_age = \"1s\"\ntimeout = \"5s\"\n";
    let home = Home::new("everywhere")
        .log("replay_window = \"0s\"")
        .webhook("hook", &hook, WEBHOOK)
        .destination("amplitude", &(amplitude.settings() + small))
        .destination("segment", &(segment.settings() + small))
        .destination("lines", &(bucket::settings(&store, "lines") + objects_of))
        .destination("columns", &(bucket::settings(&store, "columns") + objects_of + "format = \"parquet\""))
        .destination(
            "split",
            &format!("type = \"upstream\"\nurl = \"http://{}/api\"\ntimeout = \"10s\"", split.address),
        )
        .file("archive", "rotate_bytes = \"1MiB\"");
    let load = Load::start("everywhere", seed, 3, home.ingest());

    let mut deaths = BTreeMap::<usize, Delivered>::new();
    for _ in 0..kills().div_ceil(2) {
        // Some die while they start.
        let infant = rng.random_ratio(1, 5);
        let sidecar = if infant { home.spawn() } else { home.start() };
        let (life, witness) = (sidecar.life, Witness::over(home.admin()));
        thread::sleep(Duration::from_millis(rng.random_range(0..if infant { 200 } else { 1_500 })));
        sidecar.kill();
        deaths.insert(life, witness.end());
    }
    let last = home.start();
    thread::sleep(Duration::from_millis(300));
    let posts = load.stop();
    hook.script(|_| Answer::Ok);
    calm.store(true, Ordering::SeqCst);
    services.iter().for_each(EventService::calm);
    split.answers(|_| 200);
    last.drain(&DESTINATIONS);

    let files = Arrived::in_files(home.lines("archive"));
    files.holds(&posts, "archive");
    let mut told = Vec::new();
    for (id, arrivals) in
        [("hook", hook.arrivals()), ("amplitude", amplitude.arrivals()), ("segment", segment.arrivals())]
    {
        let arrived = Arrived::at_webhook(&arrivals);
        arrived.holds(&posts, id);
        arrived.equals(&files);
        if id != "hook" {
            arrived.has_the_ids_of(&files);
        }
        told.push(format!("{id}: {} repeated after a success", repeats_at(id, &arrived, &deaths)));
    }
    for id in ["lines", "columns"] {
        let objects = objects(&root.path().join(id));
        side_by_side(&objects);
        told.push(format!("{id}: {} objects", objects.len()));
        let rows = Arrived::in_files(objects.into_iter().flat_map(|object| object.lines).collect());
        rows.holds(&posts, id);
        rows.equals(&files);
        rows.has_the_offsets_of(&files);
        if id == "lines" {
            rows.has_the_ids_of(&files);
        }
    }
    let (relayed, again) = relayed_in_order(&posts, &split, deaths.len());
    told.push(format!("split: {relayed} posts, {again} repeated after a success"));

    let books = last.books();
    assert_eq!(books.destinations.keys().collect::<Vec<_>>(), DESTINATIONS);
    for (id, balance) in &books.destinations {
        let records = if id == "split" { relayed } else { files.len() };
        assert_eq!(*balance, Balance::all_delivered(records as u64), "the books of {id}: {books:?}");
    }
    eprintln!("{} kills, {} posts, {} impressions; {}", deaths.len(), posts.len(), files.len(), told.join(", "));
    // A test in which nothing happened would pass as well.
    assert!(posts.len() > 5 * deaths.len() && files.len() > 50 * deaths.len());
    for id in DESTINATIONS {
        let seen = deaths.values().filter_map(|seen| seen.get(id)).max().copied().unwrap_or_default();
        assert!(seen > 0 || deaths.len() < 5, "nothing arrived at {id} before the last kill");
    }
}

/// How often something came again after a success, which was in flight at a kill each time, or not yet written down.
fn repeats_at(destination: &str, arrived: &Arrived, deaths: &BTreeMap<usize, Delivered>) -> usize {
    let durable = |seen: &Delivered| seen.get(destination).copied().unwrap_or_default();
    arrived.repeats_excused_by(&deaths.iter().map(|(life, seen)| (*life, durable(seen))).collect())
}

/// Split has every acknowledged post as it was sent, those of each sender in their order, and nothing else. It tells no
/// repeats apart: they come in stretches, in order, one for each kill at most. Says how many posts came, and how many
/// came again.
fn relayed_in_order(posts: &[Post], split: &Split, kills: usize) -> (usize, usize) {
    let places: HashMap<Vec<u8>, usize> =
        posts.iter().enumerate().map(|(place, post)| (bulk(&post.keys), place)).collect();
    let came: Vec<usize> = (split.posts().into_iter().filter(|post| post.status == 200))
        .map(|post| *places.get(&post.body).expect("a post that somebody sent, byte for byte"))
        .collect();
    // In the order in which each came first.
    let (mut order, mut stretches, mut before) = (HashMap::new(), 0, None);
    for &place in &came {
        let next = order.len();
        let turn = *order.entry(place).or_insert(next);
        let goes_on = before.is_none_or(|before| turn == before + 1);
        if turn < next && !goes_on {
            stretches += 1;
        }
        // Behind a stretch that comes again it goes on with what is new.
        assert!(goes_on || turn < next, "{turn} behind {before:?}");
        before = Some(turn);
    }
    assert!(stretches <= kills, "{stretches} stretches came again, at {kills} kills");
    for (place, post) in posts.iter().enumerate() {
        match (post.fate, order.contains_key(&place)) {
            (Fate::Acknowledged, false) => panic!("split lacks the acknowledged {:?}", post.keys),
            (Fate::Refused(status), true) => panic!("{:?} was refused with {status}", post.keys),
            _ => {}
        }
    }
    // A sender's posts lie behind one another in the list.
    let sender = |place: usize| posts[place].keys[0].rsplit_once('-').expect("a sender and a number").0;
    for pair in (0..posts.len()).filter(|place| order.contains_key(place)).collect::<Vec<_>>().windows(2) {
        let in_turn = sender(pair[0]) != sender(pair[1]) || order[&pair[0]] < order[&pair[1]];
        assert!(in_turn, "{:?} came behind {:?}", posts[pair[0]].keys, posts[pair[1]].keys);
    }
    (order.len(), came.len() - order.len())
}
