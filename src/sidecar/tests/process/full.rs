//! A sidecar that can keep nothing more, since nobody takes what it has: whatever is posted is refused and counted, however
//! much that is, and costs no memory that stays. When somebody takes it again, all that was acknowledged arrives.

use std::thread;

use storage_tests::aloud;
use storage_tests::mounts::SmallDisk;

use super::load::{Fate, Post, post};
use super::proof::{Arrived, balance_closes};
use super::receiver::{Answer, Receiver};
use super::sidecar::{Home, wait_for};
use super::together::kib_taken;
use super::wire::Client;

const DESTINATIONS: [&str; 2] = ["fails", "gone"];

/// SDKs at a time, and posts that each has refused before its memory is looked at, and after.
const SENDERS: usize = 4;
const WARM: usize = 25;
const REFUSED: usize = 500;

/// Impressions in a post: some 6 KB.
const IMPRESSIONS: usize = 30;

/// What all refusals together may cost. Were a fifth of each post kept it would be more. Measured: 70 to 400.
const GROWTH_KIB_MAX: usize = 2 << 10;

/// What the configuration lets bodies, the log's queue, its tail cache and batches have, and 64 MiB for all the rest.
const MIB_MAX: usize = 32 + 16 + 4 + 8 + 64;

/// Two destinations, of which one is not there and the other fails.
fn home(name: &str, gone: &Receiver, fails: &Receiver) -> Home {
    let more = "batch_records_max = 1000";
    Home::new(name)
        .way_in("body_bytes_max = \"1MiB\"\nmemory_bytes_max = \"32MiB\"\nqueue_bytes_max = \"16MiB\"")
        .setting("delivery.batch_memory_bytes = \"8MiB\"")
        .log("replay_window = \"0s\"\ntail_cache_bytes = \"4MiB\"")
        .webhook("gone", gone, more)
        .webhook("fails", fails, more)
}

/// What one SDK posted until so many of its posts were refused, over a connection that stays.
fn until_refused(home: &Home, name: &str, refused: usize) -> Vec<Post> {
    let mut client = Client::connect(home.ingest()).expect("it listens");
    let machine = format!("{name}-{:x>40}", "");
    let (mut posts, mut left) = (Vec::new(), refused);
    while left > 0 {
        let first = posts.len() * IMPRESSIONS;
        let keys: Vec<_> = (first..first + IMPRESSIONS).map(|n| format!("{machine}-{n}")).collect();
        let status = post(&mut client, &machine, &keys).expect("it answers");
        assert!(status == 200 || status == 503, "{status}");
        left -= usize::from(status == 503);
        let fate = if status == 200 { Fate::Acknowledged } else { Fate::Refused(status) };
        posts.push(Post { keys, fate });
    }
    posts
}

/// The same of all of them at a time.
fn all_until_refused(home: &Home, when: &str, refused: usize) -> Vec<Post> {
    thread::scope(|scope| {
        let senders: Vec<_> =
            (0..SENDERS).map(|n| scope.spawn(move || until_refused(home, &format!("{when}-{n}"), refused))).collect();
        senders.into_iter().flat_map(|sender| sender.join().expect("it is answered")).collect()
    })
}

/// How many posts it counts as refused for its disk.
fn counted(home: &Home) -> u64 {
    let series = "forebay_ingest_refused_requests_total{environment=\"acme-prod\",reason=\"disk\"}";
    home.metric(series).expect("it is there")
}

/// `mib_max` is what it may take of the disk.
fn refuses_in_bounded_memory(home: &Home, gone: &Receiver, fails: &Receiver, mib_max: u64) {
    let sidecar = home.start();
    gone.down();
    fails.script(|_| Answer::Status(503));
    let mut posts = all_until_refused(home, "fills", WARM);
    assert!(posts.iter().any(|post| post.fate == Fate::Acknowledged), "it had room");
    let (memory, before) = (sidecar.resident_kib_max(), counted(home));
    let refused = all_until_refused(home, "full", REFUSED);
    let most = sidecar.resident_kib_max();
    let taken = refused.iter().filter(|post| post.fate == Fate::Acknowledged).count();
    assert_eq!(counted(home) - before, (SENDERS * REFUSED) as u64, "each refusal is counted");
    assert!(most - memory <= GROWTH_KIB_MAX, "{} KiB more for {} refusals", most - memory, SENDERS * REFUSED);
    assert!(most >> 10 < MIB_MAX, "{} MiB", most >> 10);
    posts.extend(refused);

    // By now it tries them once a minute. A start does at once.
    sidecar.kill();
    let kib = kib_taken(&home.path("data/log"));
    assert!(kib <= mib_max << 10, "{kib} KiB on the disk");
    gone.up();
    fails.script(|_| Answer::Ok);
    let sidecar = home.start();
    sidecar.drain(&DESTINATIONS);
    // It takes posts again, without help.
    let mut client = Client::connect(home.ingest()).expect("it listens");
    let again = wait_for(|| {
        let keys = vec![format!("again-{}", posts.len())];
        let status = post(&mut client, "again", &keys).expect("it answers");
        let fate = if status == 200 { Fate::Acknowledged } else { Fate::Refused(status) };
        posts.push(Post { keys, fate });
        fate == Fate::Acknowledged
    });
    assert!(again, "it said:\n{}", sidecar.said());
    let lags = sidecar.drain(&DESTINATIONS);
    for (id, receiver) in [("gone", gone), ("fails", fails)] {
        let arrived = Arrived::at_webhook(&receiver.arrivals());
        arrived.holds(&posts, id);
        balance_closes(&lags, &DESTINATIONS, arrived.len());
    }
    eprintln!(
        "{} posts refused, {taken} taken meanwhile: {} KiB more, {} MiB in all",
        SENDERS * REFUSED,
        most - memory,
        most >> 10
    );
}

#[test]
fn a_used_up_budget_behind_dead_destinations_refuses_thousands_of_posts_in_bounded_memory() {
    let (gone, fails) = (Receiver::start(), Receiver::start());
    let home = home("used-up", &gone, &fails).budget("7MiB");
    refuses_in_bounded_memory(&home, &gone, &fails, 7);
}

#[test]
fn a_full_disk_behind_dead_destinations_refuses_thousands_of_posts_in_bounded_memory() {
    let (gone, fails) = (Receiver::start(), Receiver::start());
    let home = home("full-disk", &gone, &fails);
    let disk = match SmallDisk::mount(&home.path("data"), 10 << 20) {
        Ok(disk) => disk,
        Err(why) => return aloud::not_run(format_args!("the memory of a sidecar on a full disk: {why}")),
    };
    refuses_in_bounded_memory(&home, &gone, &fails, 10);
    drop(disk);
}
