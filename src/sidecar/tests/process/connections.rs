//! Ten thousand connections that ask for nothing more, and thousands that come and go: they cost little memory, nobody whose
//! connection is open notices them, and when they are gone they have left nothing.

use std::io::Write as _;
use std::net::TcpStream;

use super::crowd::{Crowd, Regular};
use super::proof::Arrived;
use super::receiver::Receiver;
use super::sidecar::{Home, Sidecar, wait_for};
use super::wire::Client;

/// Where the machine allows so many.
const CROWD: u64 = 10_000;

/// Places for connections at a time, where the system allows as many files.
const PLACES: u64 = 1_024;

/// What each connection that has a place may cost, in KiB. Measured: 18.
const KIB_MAX: usize = 32;

/// And what all that goes on meanwhile may.
const KIB_FOR_ALL: usize = 16 << 10;

/// Connections that come and go.
const CHURN: usize = 3_000;

/// Descriptors that may be others': a file of the log that is being made, a call of an operator, a request on its way.
const SLACK: usize = 8;

pub(super) const OPEN: &str = "forebay_ingest_connections";

/// Those that it has: where the system allows few files it says how many.
fn places(sidecar: &Sidecar<'_>) -> u64 {
    let said = sidecar.said();
    let fewer = said.lines().find(|line| line.contains("the system allows few open files"));
    fewer.map_or(PLACES, |line| {
        let places = line.split_whitespace().find_map(|word| word.strip_prefix("ingest=")).expect("it says so");
        places.parse().expect("a number")
    })
}

pub(super) fn home(receiver: &Receiver) -> Home {
    Home::new("crowded").webhook("hook", receiver, "batch_records_max = 100").file("archive", "")
}

/// A sidecar that has delivered what one SDK posted, whose connection is open.
pub(super) fn begun(home: &Home) -> (Sidecar<'_>, Regular) {
    let sidecar = home.start();
    let mut regular = Regular::at(home.ingest());
    (0..50).for_each(|_| regular.posts(10));
    sidecar.drain(&["archive", "hook"]);
    (sidecar, regular)
}

/// Posts until what was posted meanwhile is delivered to everybody.
pub(super) fn others_go_on(home: &Home, sidecar: &Sidecar<'_>, regular: &mut Regular) {
    let series = ["archive", "hook"].map(|id| {
        format!("forebay_settled_records_total{{destination=\"{id}\",stream=\"acme-prod\",as=\"delivered\"}}")
    });
    let delivered = || series.each_ref().map(|series| home.metric(series).expect("it is there"));
    let before = delivered();
    let goes_on = wait_for(|| {
        regular.posts(10);
        delivered().iter().zip(before).all(|(now, before)| *now > before + 300)
    });
    assert!(goes_on, "nothing is delivered; it said:\n{}", sidecar.said());
}

/// Waits until all other connections are gone, and with them the descriptors that it has beside those that it had.
pub(super) fn only_the_regular_one_is_left(
    home: &Home,
    sidecar: &Sidecar<'_>,
    regular: &mut Regular,
    descriptors: usize,
) {
    let gone = wait_for(|| {
        regular.posts(10);
        home.metric(OPEN) == Some(1) && sidecar.descriptors() <= descriptors + SLACK
    });
    assert!(gone, "{:?} are left and {} descriptors of {descriptors}", home.metric(OPEN), sidecar.descriptors());
}

#[test]
fn ten_thousand_idle_connections_cost_little_memory_and_leave_nothing_behind() {
    let receiver = Receiver::start();
    let home = home(&receiver);
    let (sidecar, mut regular) = begun(&home);
    let (memory, descriptors) = (sidecar.resident_kib_max(), sidecar.descriptors());

    let crowd = Crowd::comes("idle", CROWD, home.ingest());
    let (places, mut held) = (places(&sidecar), 0);
    let all_places_taken = wait_for(|| {
        regular.posts(10);
        held = home.metric(OPEN).expect("it is there").max(held);
        held == places && crowd.answered() as u64 + 1 >= places
    });
    assert!(all_places_taken, "{held} of {places} have a place; it said:\n{}", sidecar.said());
    // Others notice nothing.
    others_go_on(&home, &sidecar, &mut regular);
    let grown = sidecar.resident_kib_max() - memory;
    let most = KIB_FOR_ALL + KIB_MAX * usize::try_from(places).expect("few");
    assert!(grown <= most, "{grown} KiB for {places} connections");

    let size = crowd.size();
    let mut posts = crowd.goes();
    only_the_regular_one_is_left(&home, &sidecar, &mut regular, descriptors);
    // There is a place for a new one.
    regular.connects();
    regular.posts(10);
    posts.append(&mut regular.posted);
    sidecar.drain(&["archive", "hook"]);
    Arrived::at_webhook(&receiver.arrivals()).holds(&posts, "hook");
    Arrived::in_files(home.lines("archive")).holds(&posts, "archive");
    eprintln!("{size} idle connections, {places} at a time: {grown} KiB for all");
}

#[test]
fn connections_that_come_and_go_leave_no_descriptor_behind() {
    let receiver = Receiver::start();
    let home = home(&receiver);
    let (sidecar, mut regular) = begun(&home);
    let descriptors = sidecar.descriptors();
    for n in 0..CHURN {
        let mut stream = TcpStream::connect(home.ingest()).expect("it listens");
        match n % 3 {
            // Without a word.
            0 => {}
            // In the midst of a head.
            1 => stream.write_all(b"POST /api/testImpressions/bulk HTTP/1.1\r\nhost: si").expect("it is open"),
            // After a request.
            _ => {
                let mut client = Client::connect(home.ingest()).expect("it listens");
                client.get("/").expect("an answer");
            }
        }
        if n % 100 == 0 {
            regular.posts(10);
        }
    }
    only_the_regular_one_is_left(&home, &sidecar, &mut regular, descriptors);
    sidecar.drain(&["archive", "hook"]);
    Arrived::at_webhook(&receiver.arrivals()).holds(&regular.posted, "hook");
}
