//! A destination that is down for too long, whose operator said what goes then: exactly that goes, the others notice
//! nothing, and the books say so across a kill.

use std::fs;

use super::letters::dead;
use super::load::{Fate, Post, post};
use super::proof::Arrived;
use super::receiver::{Arrival, Receiver};
use super::sidecar::{Home, Sidecar, wait_for};
use super::wire::Client;

const POLICY: &str = "overflow = { policy = \"drop_oldest\", max_bytes = \"1MiB\" }";

/// Posts until told to stop; a thousand records a post.
fn post_until(home: &Home, posts: &mut Vec<Post>, mut done: impl FnMut() -> bool) {
    let mut client = Client::connect(home.ingest()).expect("it listens");
    for _ in 0..2_000 {
        let keys: Vec<String> = (0..1_000).map(|n| format!("overflow-{:05}{n:04}{:x>60}", posts.len(), "")).collect();
        let status = post(&mut client, "overflow", &keys).expect("it answers");
        assert!((200..300).contains(&status), "{status}");
        posts.push(Post { keys, fate: Fate::Acknowledged });
        if done() {
            return;
        }
    }
    panic!("it is never done");
}

/// Posts until all that the books say now is on the disk: of two further writes of the floor the second began behind this.
fn post_until_durable(home: &Home, posts: &mut Vec<Post>) {
    let writes = || home.metric("forebay_floor_writes_total").expect("it counts them");
    let before = writes();
    post_until(home, posts, || writes() >= before + 2);
}

fn lag(sidecar: &Sidecar<'_>, destination: &str) -> serde_json::Value {
    let told = sidecar.asked(&["lag"]);
    let lags = told["lags"].as_array().expect("a list").clone();
    lags.into_iter()
        .find(|lag| lag["destination"] == destination)
        .unwrap_or_else(|| panic!("no {destination} in {told}"))
}

fn expired(sidecar: &Sidecar<'_>, destination: &str) -> u64 {
    lag(sidecar, destination)["balance"]["expired"]["records"].as_u64().expect("a number")
}

#[test]
fn what_an_operator_lets_go_is_dropped_and_told_and_the_rest_arrives_across_a_kill() {
    let (down, healthy) = (Receiver::start(), Receiver::start());
    let more = "batch_records_max = 500";
    let home =
        Home::new("overflow").webhook("hook", &down, &format!("{more}\n{POLICY}")).webhook("other", &healthy, more);
    let sidecar = home.start();
    down.down();
    let mut posts = Vec::new();
    post_until(&home, &mut posts, || lag(&sidecar, "hook")["bytes_behind"].as_u64().expect("a number") > 900 << 10);
    // As of the last look.
    let near = || lag(&sidecar, "hook")["overflow"]["bytes_left"].as_u64().is_some_and(|left| left < 124 << 10);
    assert!(wait_for(near), "{}", lag(&sidecar, "hook"));
    assert_eq!(lag(&sidecar, "other")["overflow"], serde_json::Value::Null);
    sidecar.says("will be given up soon", 1);
    post_until(&home, &mut posts, || expired(&sidecar, "hook") > 0);
    sidecar.says("the oldest records were given up", 1);
    let first = expired(&sidecar, "hook");
    post_until_durable(&home, &mut posts);
    sidecar.kill();

    let sidecar = home.start();
    assert!(expired(&sidecar, "hook") >= first, "it is not taken back");
    // Without a policy nothing goes any more, from the moment on that the file says so.
    let config = home.path("forebay.toml");
    let text = fs::read_to_string(&config).expect("it was written");
    fs::write(&config, text.replace(POLICY, "")).expect("the directory is ours");
    sidecar.hang_up();
    assert!(wait_for(|| lag(&sidecar, "hook")["overflow"].is_null()), "it said:\n{}", sidecar.said());
    let gone = expired(&sidecar, "hook");
    let waits = lag(&sidecar, "hook")["bytes_behind"].as_u64().expect("a number");
    post_until(&home, &mut posts, || {
        lag(&sidecar, "hook")["bytes_behind"].as_u64().expect("a number") > waits + (2 << 20)
    });
    assert_eq!(expired(&sidecar, "hook"), gone);

    down.up();
    sidecar.drain(&["hook", "other"]);
    let books = sidecar.books();
    let (hook, records) = (books.destinations["hook"], posts.len() as u64 * 1_000);
    assert_eq!((hook.accepted, hook.gone, hook.delivered), (records, gone, records - gone), "{hook:?}");
    // The other one has all of it; this one all but what went, save what it had taken before the kill without our knowing.
    Arrived::at_webhook(&healthy.arrivals()).holds(&posts, "other");
    let taken: Vec<Arrival> = down.arrivals().into_iter().filter(Arrival::taken).collect();
    let arrived = Arrived::at_webhook(&taken).len() as u64;
    assert_eq!(arrived, records - gone);
}

#[test]
fn what_becomes_a_dead_letter_where_it_lies_is_sent_again_across_kills() {
    let receiver = Receiver::start();
    let policy = "overflow = { policy = \"dead_letter\", max_bytes = \"1MiB\" }";
    let home = Home::new("overflow").webhook("hook", &receiver, &format!("batch_records_max = 500\n{policy}"));
    let mut sidecar = home.start();
    receiver.down();
    let mut posts = Vec::new();
    for _ in 0..2 {
        let before = dead(&sidecar, "hook");
        post_until(&home, &mut posts, || dead(&sidecar, "hook") > before);
        sidecar.says("they are dead letters and lie where they lay", 1);
        let first = dead(&sidecar, "hook");
        post_until_durable(&home, &mut posts);
        sidecar.kill();
        sidecar = home.start();
        assert!(dead(&sidecar, "hook") >= first, "it is not taken back");
    }
    receiver.up();
    sidecar.drain(&["hook"]);
    let records = posts.len() as u64 * 1_000;
    let sheet = sidecar.books().destinations["hook"];
    assert_eq!((sheet.accepted, sheet.delivered + sheet.dead_lettered, sheet.gone), (records, records, 0), "{sheet:?}");
    let listed = sidecar.call(&["dead-letters", "list", "hook"]);
    assert!(String::from_utf8_lossy(&listed.stdout).contains("records from offset"), "{listed:?}");
    let redriven = sidecar.asked(&["dead-letters", "redrive", "hook", "--reason", "overflow"]);
    assert_eq!((&redriven["redriven"], &redriven["waiting"]), (&sheet.dead_lettered.into(), &0.into()));
    sidecar.kill();
    let sidecar = home.start();
    assert!(wait_for(|| sidecar.books().destinations["hook"].delivered == records), "it said:\n{}", sidecar.said());
    // What was refused while it was down came again as it had been, and nothing came twice.
    Arrived::at_webhook(&receiver.arrivals()).holds(&posts, "hook");
    assert!(
        wait_for(|| sidecar.asked(&["lag"])["lags"].as_array().is_some_and(|lags| lags.len() == 1)),
        "the replay is over"
    );
    let sheet = sidecar.books().destinations["hook"];
    assert_eq!((sheet.accepted, sheet.delivered, sheet.dead_lettered), (records, records, 0), "{sheet:?}");
}
