//! Poison: records that a receiver never takes become dead letters, whatever ends the sidecar meanwhile, everything else
//! goes on; and when the receiver is mended they are sent again, under the ids that they had.

use std::collections::BTreeSet;

use serde_json::Value;

use super::books::Balance;
use super::load::{Fate, Load, Post, post};
use super::proof::Arrived;
use super::receiver::{Answer, Arrival, Receiver};
use super::sidecar::{Home, Sidecar, wait_for};
use super::wire::Client;

/// Keys that begin so are poison. As many as are always allowed: see docs/delivery.md.
const POISON: &str = "poison-";
const POISONED: usize = 3;

pub(crate) fn is_poisoned(arrival: &Arrival) -> bool {
    memchr::memmem::find(&arrival.body, format!("\"{POISON}").as_bytes()).is_some()
}

/// The only key in a body.
fn alone(arrival: &Arrival) -> Option<String> {
    let records: Vec<Value> = serde_json::from_slice(&arrival.body).expect("a batch is an array");
    let [record] = &records[..] else { return None };
    Some(record["key"].as_str().expect("a record has a key").to_owned())
}

pub(crate) fn post_poison(home: &Home, n: usize) -> Post {
    let keys = vec![format!("{POISON}{n}")];
    let mut client = Client::connect(home.ingest()).expect("it listens");
    let status = post(&mut client, "poison", &keys).expect("it answers");
    assert!((200..300).contains(&status), "{status}");
    Post { keys, fate: Fate::Acknowledged }
}

pub(crate) fn dead(sidecar: &Sidecar<'_>, destination: &str) -> u64 {
    let counted = sidecar.asked(&["dead-letters", "list"]);
    let all = counted["destinations"].as_array().expect("a list");
    all.iter().find(|one| one["destination"] == destination).and_then(|one| one["records"].as_u64()).unwrap_or(0)
}

#[test]
fn poison_becomes_dead_letters_across_kills_and_is_redriven_under_its_ids() {
    let receiver = Receiver::start();
    receiver.judge(|arrival| if is_poisoned(arrival) { Answer::Status(400) } else { Answer::Ok });
    let home = Home::new("letters").webhook("hook", &receiver, "batch_records_max = 100");
    let mut sidecar = home.start();
    let load = Load::start("letters", 9, 2, home.ingest());
    assert!(wait_for(|| receiver.count() > 3));
    // One after the other: two that poison both halves of one batch would have it taken for one that refuses.
    let mut posts = Vec::new();
    for n in 0..POISONED {
        posts.push(post_poison(&home, n));
        if n == 1 {
            // In the midst of the search, or shortly before or after it.
            let rejected = || receiver.arrivals().iter().filter(|arrival| is_poisoned(arrival)).count();
            let before = rejected();
            assert!(wait_for(|| rejected() > before));
            sidecar.kill();
            sidecar = home.start();
        }
        assert!(wait_for(|| dead(&sidecar, "hook") == n as u64 + 1), "letter {n}; it said:\n{}", sidecar.said());
    }
    sidecar.kill();
    sidecar = home.start();
    posts.extend(load.stop());
    sidecar.drain(&["hook"]);
    assert_eq!(dead(&sidecar, "hook"), POISONED as u64, "they are kept across a kill");
    let sheet = sidecar.books().destinations["hook"];
    assert_eq!((sheet.dead_lettered, sheet.pending, sheet.gone), (POISONED as u64, 0, 0), "{sheet:?}");
    assert_eq!(sheet.delivered + sheet.dead_lettered, sheet.accepted, "{sheet:?}");

    let listed = sidecar.call(&["dead-letters", "list", "hook", "--json"]);
    let listed = String::from_utf8(listed.stdout).expect("UTF-8");
    let letters: Vec<Value> = listed.lines().map(|line| serde_json::from_str(line).expect("a letter")).collect();
    let mut shown = BTreeSet::new();
    for letter in &letters {
        let id = letter["id"].as_str().expect("an id");
        let letter = sidecar.asked(&["dead-letters", "show", "hook", id]);
        assert!(letter["reason"].as_str().is_some_and(|reason| reason.contains("400")), "{letter}");
        shown.insert(letter["record"]["key"].as_str().expect("its record").to_owned());
    }
    let poison: BTreeSet<String> = (0..POISONED).map(|n| format!("{POISON}{n}")).collect();
    assert_eq!((letters.len(), &shown), (POISONED, &poison));

    let rejected = receiver.arrivals();
    receiver.script(|_| Answer::Ok);
    assert_eq!(sidecar.asked(&["dead-letters", "redrive", "hook", "--all"])["redriven"], POISONED);
    assert!(wait_for(|| receiver.arrivals().iter().filter(|a| is_poisoned(a) && a.taken()).count() == POISONED));
    sidecar.drain(&["hook"]);
    let arrivals = receiver.arrivals();
    for redriven in &arrivals[rejected.len()..] {
        let before = rejected.iter().find(|arrival| alone(arrival).is_some() && alone(arrival) == alone(redriven));
        let before = before.unwrap_or_else(|| panic!("{:?} was not sent alone before", alone(redriven)));
        assert_eq!(before.id, redriven.id, "it keeps its id");
    }
    // What was rejected came in other batches: only what was taken is to be whole.
    let taken: Vec<Arrival> = arrivals.into_iter().filter(Arrival::taken).collect();
    let arrived = Arrived::at_webhook(&taken);
    arrived.holds(&posts, "hook");

    let books = sidecar.books();
    let records = arrived.len() as u64;
    assert_eq!(books.destinations["hook"], Balance::all_delivered(records), "{books:?}");
    assert_eq!(books.queues[&("hook".to_owned(), "acme-prod".to_owned())].accepted, records);
}

/// Nothing is wrong with records that everything is said of: they wait, across a kill, and none becomes a dead letter.
#[test]
fn a_receiver_that_rejects_everything_for_a_while_costs_no_record_across_a_kill() {
    let receiver = Receiver::start();
    receiver.script(|_| Answer::Status(400));
    let home = Home::new("rejecting").webhook("hook", &receiver, "batch_records_max = 50");
    let mut sidecar = home.start();
    let load = Load::start("rejecting", 14, 2, home.ingest());
    assert!(wait_for(|| load.acknowledged() > 50));
    for _ in 0..2 {
        let refused = || sidecar.asked(&["lag"])["lags"][0]["state"] == "refused";
        assert!(wait_for(refused), "it said:\n{}", sidecar.said());
        sidecar.kill();
        sidecar = home.start();
    }
    let posts = load.stop();
    assert_eq!(dead(&sidecar, "hook"), 0);
    assert!(receiver.arrivals().iter().all(|arrival| !arrival.taken()));
    receiver.script(|_| Answer::Ok);
    sidecar.asked(&["destinations", "probe", "hook"]);
    sidecar.drain(&["hook"]);
    let taken: Vec<Arrival> = receiver.arrivals().into_iter().filter(Arrival::taken).collect();
    let arrived = Arrived::at_webhook(&taken);
    arrived.holds(&posts, "hook");
    assert_eq!(sidecar.books().destinations["hook"], Balance::all_delivered(arrived.len() as u64));
}
