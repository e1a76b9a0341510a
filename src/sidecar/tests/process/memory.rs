//! A process that gets no more memory: it ends at once, in the midst of whatever it did, and nothing is lost by that. Whoever is
//! killed for memory ends by SIGKILL, as in `kills.rs`.

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, prlimit};

use super::load::{Fate, Load, Post, request};
use super::proof::{Arrived, balance_closes};
use super::receiver::Receiver;
use super::sidecar::{Home, wait_for};
use super::wire::Client;

/// What it may have beside what it has, in bytes: enough for the small posts meanwhile.
const MORE: u64 = 4 << 20;

/// In one post, of some 10 MB.
const IMPRESSIONS: u64 = 60_000;

#[test]
fn an_allocation_that_fails_ends_the_process_and_loses_nothing() {
    let receiver = Receiver::start();
    let home = Home::new("memory").webhook("hook", &receiver, "").file("archive", "");
    let mut sidecar = home.start();
    let load = Load::start("memory", 1, 2, home.ingest());
    assert!(wait_for(|| load.acknowledged() > 100));
    let keys: Vec<_> = (0..IMPRESSIONS).map(|n| format!("large-{n}")).collect();
    let (large, mut client) = (request("large", &keys), Client::connect(home.ingest()).expect("it listens"));
    let process = i32::try_from(sidecar.process()).ok().and_then(Pid::from_raw);
    let most = (sidecar.data_kib() as u64 * 1024) + MORE;
    let maximum = getrlimit(Resource::Data).maximum;
    prlimit(process, Resource::Data, Rlimit { current: Some(most), maximum }).expect("it is our child");

    let answer = client.send(&large);
    assert!(answer.is_err(), "it had the memory: {answer:?}");
    let signal = sidecar.ends_by();
    let said = sidecar.said();
    assert_eq!(signal, Some(Signal::ABORT.as_raw()), "{said}");
    assert!(said.contains("memory allocation of"), "{said}");
    drop(sidecar);

    let last = home.start();
    let before = load.acknowledged();
    assert!(wait_for(|| load.acknowledged() > before + 100));
    let mut posts = load.stop();
    posts.push(Post { keys, fate: Fate::Unknown });
    let lags = last.drain(&["hook", "archive"]);
    let (arrived, files) = (Arrived::at_webhook(&receiver.arrivals()), Arrived::in_files(home.lines("archive")));
    arrived.holds(&posts, "hook");
    files.holds(&posts, "archive");
    arrived.equals(&files);
    balance_closes(&lags, &["archive", "hook"], files.len());
}
