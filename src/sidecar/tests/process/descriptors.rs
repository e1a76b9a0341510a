//! A process that may have few descriptors, and one that has none left: connections that ask for nothing take none from the log
//! or from deliveries; without any, posts are refused and nothing is lost; and either is over by itself.

use std::fs;
use std::process::Command;

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};

use super::crowd::{Crowd, Regular};
use super::load::{Fate, Post};
use super::proof::{Arrived, balance_closes};
use super::receiver::Receiver;
use super::sidecar::{Home, Sidecar, binary, wait_for};

const DESTINATIONS: [&str; 2] = ["archive", "hook"];

/// Its file destination needs a new file often, and so does its log.
fn home(name: &str, receiver: &Receiver) -> Home {
    let more = "batch_records_max = 500";
    Home::new(name).webhook("hook", receiver, more).file("archive", &format!("{more}\nrotate_bytes = \"200KB\""))
}

/// What becomes the binary, with so many descriptors at most.
fn limited(descriptors: u64) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("ulimit -n {descriptors} && exec \"$0\" \"$@\"")]).arg(binary());
    command
}

/// The least that it starts with, as it says it itself to whoever gives it less.
fn least(home: &Home) -> u64 {
    const WORDS: &str = "files open and needs ";
    let needs = |descriptors: u64| {
        let sidecar = home.spawn_as(limited(descriptors));
        // The last that it says of it.
        sidecar.says("ulimit -n", 1);
        let said = sidecar.said();
        assert_eq!(sidecar.wait(), Some(1), "{said}");
        assert!(!home.path("data").exists(), "{said}");
        let needed = said.split(WORDS).nth(1).and_then(|rest| rest.split(':').next()?.parse::<u64>().ok());
        needed.unwrap_or_else(|| panic!("no number: {said}"))
    };
    let least = needs(32);
    assert_eq!(needs(least - 1), least);
    least
}

/// Posts until it is delivered, and new files were made for the log and for the file destination.
fn goes_on(home: &Home, regular: &mut Regular, receiver: &Receiver, sidecar: &Sidecar<'_>) {
    let files = || ["data/log", "archive"].map(|dir| fs::read_dir(home.path(dir)).map_or(0, Iterator::count));
    let (batches, before) = (receiver.count(), files());
    let more = || {
        regular.posts(500);
        receiver.count() > batches + 10 && files().iter().zip(before).all(|(now, before)| *now > before + 1)
    };
    assert!(wait_for(more), "{:?} files, and before {before:?}; it said:\n{}", files(), sidecar.said());
}

fn ends(home: &Home, posts: &[Post], receiver: &Receiver, sidecar: &Sidecar<'_>) {
    let lags = sidecar.drain(&DESTINATIONS);
    let (arrived, files) = (Arrived::at_webhook(&receiver.arrivals()), Arrived::in_files(home.lines("archive")));
    arrived.holds(posts, "hook");
    files.holds(posts, "archive");
    arrived.equals(&files);
    balance_closes(&lags, &DESTINATIONS, files.len());
}

#[test]
fn idle_connections_take_no_descriptor_from_the_log_or_from_deliveries_however_few_there_are() {
    let receiver = Receiver::start();
    let home = home("few-files", &receiver);
    let least = least(&home);
    let mut sidecar = home.spawn_as(limited(least));
    sidecar.wait_until_ready();
    let mut regular = Regular::at(home.ingest());
    regular.posts(1);
    let crowd = Crowd::comes("idle", least + 100, home.ingest());
    // With the one that is open they have all the places that there are at the least.
    let all = wait_for(|| {
        regular.posts(1);
        crowd.answered() >= 15
    });
    assert!(all, "{} have a place; it said:\n{}", crowd.answered(), sidecar.said());
    goes_on(&home, &mut regular, &receiver, &sidecar);
    let size = crowd.size();
    let mut posts = crowd.goes();
    regular.connects();
    regular.posts(1);
    posts.append(&mut regular.posted);
    ends(&home, &posts, &receiver, &sidecar);
    eprintln!("{size} idle connections at {least} descriptors, the least that it starts with: {} posts", posts.len());
}

#[test]
fn without_a_descriptor_left_posts_are_refused_and_nothing_is_lost_and_it_is_over_when_there_are_some() {
    let receiver = Receiver::start();
    let home = home("no-files", &receiver);
    let sidecar = home.start();
    let mut regular = Regular::at(home.ingest());
    goes_on(&home, &mut regular, &receiver, &sidecar);
    let process = i32::try_from(sidecar.process()).ok().and_then(Pid::from_raw);
    // What it may have at most it has from us.
    let maximum = getrlimit(Resource::Nofile).maximum;
    let set = |current| prlimit(process, Resource::Nofile, Rlimit { current, maximum }).expect("it is our child");
    let batches = receiver.count();
    set(Some(0));
    // The log has files that it made ahead, and takes posts until those are full. Whoever is connected is delivered to.
    let status = loop {
        match regular.tries(500) {
            200 => {}
            status => break status,
        }
    };
    assert_eq!(status, 503, "try again later");
    assert!(wait_for(|| receiver.count() > batches + 10), "it said:\n{}", sidecar.said());
    // Whoever connects waits, and is taken when there are some again; an SDK that is refused then comes again.
    regular.connects();
    sidecar.says("a connection could not be accepted", 1);
    set(maximum);
    let again = wait_for(|| {
        let taken = regular.tries(1) == 200;
        if !taken {
            regular.connects();
        }
        taken
    });
    assert!(again, "it said:\n{}", sidecar.said());
    goes_on(&home, &mut regular, &receiver, &sidecar);
    ends(&home, &regular.posted, &receiver, &sidecar);
    let refused = regular.posted.iter().filter(|post| post.fate == Fate::Refused(503)).count();
    eprintln!("without a descriptor for a while: {} posts, {refused} refused", regular.posted.len());
}
