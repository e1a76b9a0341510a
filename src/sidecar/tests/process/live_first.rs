//! A destination that comes back after an hour and takes little: what comes in now does not wait for what has waited, across
//! kills, and everything arrives once.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use forebay::clock::{Clock, ManualClock};
use forebay::disk::real::RealDisk;
use forebay::{Item, LogOptions, Payload, QueueOptions, Queues};

use super::load::{Fate, Post, post};
use super::proof::{Arrived, balance_closes};
use super::receiver::{Answer, Arrival, Receiver};
use super::sidecar::{Home, Sidecar, wait_for};
use super::wire::Client;
use super::witness::Witness;

const OLD: usize = 6_000;

/// Posts so many records, whose keys begin with `kind`.
fn post_some(home: &Home, kind: &str, records: usize, posts: &mut Vec<Post>) {
    let mut client = Client::connect(home.ingest()).expect("it listens");
    for _ in 0..records / 20 {
        let keys: Vec<String> = (0..20).map(|n| format!("{kind}-{}{n:02}", posts.len())).collect();
        let status = post(&mut client, kind, &keys).expect("it answers");
        assert!((200..300).contains(&status), "{status}");
        posts.push(Post { keys, fate: Fate::Acknowledged });
    }
}

/// Has all that the data directory holds come in an hour ago. By the library, whose clock may stand elsewhere: nobody waits
/// for an hour.
fn have_waited_for_an_hour(home: &Home) {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
    let then = u64::try_from((now - Duration::from_secs(3_600)).as_millis()).expect("before the year 500,000,000");
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::at(then));
    let open = |path| {
        let log = LogOptions { segment_bytes: 1 << 20, prewrite: false, ..LogOptions::default() };
        let options = QueueOptions { inline: true, ..QueueOptions::default() };
        Queues::open(Arc::new(RealDisk), Arc::clone(&clock), path, log, options).expect("the directory is ours")
    };
    let (data, aside) = (home.path("data"), home.path("data.before"));
    fs::rename(&data, &aside).expect("both are in one place");
    let (before, after) = (open(&aside), open(&data));
    let stream = before.log().stream("acme-prod").expect("records came in");
    let mut reader = before.log().reader(stream, 0);
    while let Some(item) = reader.next().expect("it reads") {
        let Item::Frame(frame) = item else { panic!("nothing is lost") };
        let payload = Payload { bytes: frame.payload().to_vec(), records: frame.records };
        after.log().append_wait("acme-prod", vec![payload]).expect("there is room");
    }
    after.close().expect("all of it is durable");
}

fn behind(sidecar: &Sidecar<'_>) -> u64 {
    sidecar.lags()[0].records_behind
}

/// Whether a record of this kind was taken in a life.
fn has(arrivals: &[Arrival], life: usize, kind: &str) -> bool {
    let kind = format!("\"{kind}-");
    let has = |arrival: &&Arrival| String::from_utf8_lossy(&arrival.body).contains(&kind);
    arrivals.iter().filter(|arrival| arrival.life == life && arrival.taken()).any(|arrival| has(&arrival))
}

#[test]
fn what_comes_in_now_goes_beside_an_old_backlog_across_kills_and_all_of_it_once() {
    let receiver = Receiver::start();
    let more = "batch_records_max = 20\nconcurrency = 1\ncatch_up = \"live_first\"\nbacklog_percent = 50";
    let home = Home::new("live-first").webhook("hook", &receiver, more);
    let mut posts = Vec::new();
    receiver.down();
    let sidecar = home.start();
    post_some(&home, "old", OLD, &mut posts);
    sidecar.terminate();
    assert_eq!(sidecar.wait(), Some(0));
    have_waited_for_an_hour(&home);
    receiver.up();
    // So slow that most of it waits yet in the third life, however long a start takes.
    receiver.script(|_| Answer::Slow(Duration::from_millis(100)));

    let mut deaths = BTreeMap::new();
    for kind in ["first", "second", "third"] {
        let sidecar = home.start();
        let (life, witness) = (sidecar.life, Witness::over(home.admin()));
        let before = receiver.count();
        assert!(wait_for(|| receiver.count() > before), "the backlog drains");
        post_some(&home, kind, 200, &mut posts);
        assert!(wait_for(|| has(&receiver.arrivals(), life, kind)));
        assert!(behind(&sidecar) > 1_000, "and what is old was not waited for");
        // In the midst of both.
        sidecar.kill();
        deaths.insert(life, witness.end().get("hook").copied().unwrap_or_default());
        assert!(has(&receiver.arrivals(), life, "old"), "which goes beside it");
    }

    receiver.script(|_| Answer::Ok);
    let sidecar = home.start();
    let lags = sidecar.drain(&["hook"]);
    let arrivals = receiver.arrivals();
    let arrived = Arrived::at_webhook(&arrivals);
    arrived.holds(&posts, "hook");
    balance_closes(&lags, &["hook"], arrived.len());
    arrived.repeats_excused_by(&deaths);
}
