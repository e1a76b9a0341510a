//! SIGTERM: a stop in good order, within its grace; a second one ends it at once.

use std::collections::{BTreeMap, BTreeSet};
use std::thread;
use std::time::{Duration, Instant};

use super::load::Load;
use super::proof::{Arrived, balance_closes, in_order};
use super::receiver::{Answer, Receiver};
use super::sidecar::{Home, wait_for};

#[test]
fn a_stop_under_load_loses_nothing_and_repeats_nothing() {
    let (receiver, ordered) = (Receiver::start(), Receiver::start());
    let home = Home::new("stopped")
        .webhook("hook", &receiver, "batch_records_max = 100")
        .webhook("ordered", &ordered, "batch_records_max = 100\nordered = true")
        .file("archive", "");
    let load = Load::start("stopped", 1, 4, home.ingest());
    for _ in 0..4 {
        let sidecar = home.start();
        let before = load.acknowledged();
        assert!(wait_for(|| load.acknowledged() > before + 50));
        sidecar.terminate();
        assert_eq!(sidecar.wait(), Some(0));
    }
    let last = home.start();
    let posts = load.stop();
    let destinations = ["archive", "hook", "ordered"];
    let lags = last.drain(&destinations);

    let lines = home.lines("archive");
    in_order(&ordered.arrivals(), &lines);
    let files = Arrived::in_files(lines);
    files.holds(&posts, "archive");
    balance_closes(&lags, &destinations, files.len());
    for (id, receiver) in [("hook", &receiver), ("ordered", &ordered)] {
        let arrived = Arrived::at_webhook(&receiver.arrivals());
        arrived.holds(&posts, id);
        assert_eq!(arrived.repeats_excused_by(&BTreeMap::new()), 0);
    }
}

/// A receiver that takes requests and never answers, and a sidecar with some in flight to it.
fn hung(receiver: &Receiver, grace: &str) -> Home {
    receiver.script(|_| Answer::Hang);
    Home::new("hung").setting(&format!("shutdown_grace = \"{grace}\"")).webhook("hook", receiver, "timeout = \"5m\"")
}

#[test]
fn a_stop_waits_for_a_hung_destination_as_long_as_its_grace_and_no_longer() {
    let receiver = Receiver::start();
    let home = hung(&receiver, "2s");
    let sidecar = home.start();
    let load = Load::start("hung", 2, 1, home.ingest());
    assert!(wait_for(|| receiver.count() > 0 && load.acknowledged() > 10));
    let began = Instant::now();
    sidecar.terminate();
    assert_eq!(sidecar.wait(), Some(0));
    let took = began.elapsed();
    assert!(took >= Duration::from_secs(2), "what was in flight got only {took:?}");
    assert!(took < Duration::from_secs(20), "it took {took:?}");

    // What it did not finish comes again, under the same id, and nothing is missing.
    receiver.script(|_| Answer::Ok);
    let last = home.start();
    let posts = load.stop();
    last.drain(&["hook"]);
    let arrivals = receiver.arrivals();
    let arrived = Arrived::at_webhook(&arrivals);
    arrived.holds(&posts, "hook");
    assert_eq!(arrivals[1].id, arrivals[0].id);
    assert_eq!(arrived.repeats_excused_by(&BTreeMap::new()), 0);
}

#[test]
fn a_second_signal_ends_it_at_once_and_loses_nothing() {
    let receiver = Receiver::start();
    let home = hung(&receiver, "10m");
    let sidecar = home.start();
    let load = Load::start("hung", 3, 1, home.ingest());
    assert!(wait_for(|| receiver.count() > 0 && load.acknowledged() > 10));
    sidecar.terminate();
    assert!(wait_for(|| sidecar.said().contains("stopping")), "it heard the first signal");
    thread::sleep(Duration::from_millis(100));
    sidecar.terminate();
    assert_eq!(sidecar.wait(), Some(143));

    receiver.script(|_| Answer::Ok);
    let last = home.start();
    let posts = load.stop();
    last.drain(&["hook"]);
    Arrived::at_webhook(&receiver.arrivals()).holds(&posts, "hook");
}

/// A machine that was suspended, a container that was paused: the clock went on, and nobody was at work.
#[test]
fn who_is_stopped_and_goes_on_repeats_no_more_than_what_was_in_flight_and_loses_nothing() {
    const STOPS: usize = 4;
    let receiver = Receiver::start();
    // All that is in flight is late when it goes on, and nothing is that a busy machine keeps for a second or two.
    let home = Home::new("suspended").webhook("hook", &receiver, "timeout = \"4s\"\nconcurrency = 4");
    let sidecar = home.start();
    let load = Load::start("suspended", 4, 2, home.ingest());
    for _ in 0..STOPS {
        let before = load.acknowledged();
        assert!(wait_for(|| load.acknowledged() > before + 20));
        sidecar.suspend(Duration::from_secs(5));
    }
    let posts = load.stop();
    let lags = sidecar.drain(&["hook"]);
    let arrivals = receiver.arrivals();
    let arrived = Arrived::at_webhook(&arrivals);
    arrived.holds(&posts, "hook");
    balance_closes(&lags, &["hook"], arrived.len());
    let batches = arrivals.iter().map(|arrival| &arrival.id).collect::<BTreeSet<_>>().len();
    let again = arrivals.len() - batches;
    assert!(again <= STOPS * 4, "{again} requests came again, where four are in flight at most");
}
