//! Destinations that are down, throttle or hang: late, never lost, and nobody else pays.

use std::time::Duration;

use super::load::Load;
use super::proof::{Arrived, balance_closes};
use super::receiver::{Answer, Receiver};
use super::sidecar::{Home, wait_for};

#[test]
fn what_came_in_during_an_outage_arrives_after_it_and_after_a_kill() {
    let receiver = Receiver::start();
    let home = Home::new("cut-off").webhook("hook", &receiver, "batch_records_max = 100");
    let sidecar = home.start();
    let load = Load::start("cut-off", 4, 2, home.ingest());
    assert!(wait_for(|| receiver.count() > 3));
    receiver.down();
    let before = load.acknowledged();
    assert!(wait_for(|| load.acknowledged() > before + 50), "an outage stops nobody from posting");
    sidecar.kill();
    let sidecar = home.start();
    let before = load.acknowledged();
    assert!(wait_for(|| load.acknowledged() > before + 50));
    let posts = load.stop();
    assert!(sidecar.lags()[0].records_behind > 0, "there is something to be late with");
    receiver.up();
    let lags = sidecar.drain(&["hook"]);
    let arrived = Arrived::at_webhook(&receiver.arrivals());
    arrived.holds(&posts, "hook");
    balance_closes(&lags, &["hook"], arrived.len());
}

#[test]
fn nothing_is_sent_before_the_time_that_a_429_names() {
    const WAIT: Duration = Duration::from_secs(3);
    /// By then the sidecar has read the answer; what was on its way before is nobody's fault.
    const HEARD: Duration = Duration::from_secs(1);
    let receiver = Receiver::start();
    // The first of all, and one in the middle of things.
    receiver.script(|n| match n {
        0 | 20 => Answer::Throttle { seconds: WAIT.as_secs() },
        _ => Answer::Ok,
    });
    let home = Home::new("throttled").webhook("hook", &receiver, "batch_records_max = 20\nconcurrency = 4");
    let sidecar = home.start();
    let load = Load::start("throttled", 5, 2, home.ingest());
    assert!(wait_for(|| receiver.count() > 40));
    let posts = load.stop();
    sidecar.drain(&["hook"]);

    let arrivals = receiver.arrivals();
    Arrived::at_webhook(&arrivals).holds(&posts, "hook");
    for throttled in [0, 20] {
        let answered = arrivals[throttled].answered.expect("it was answered");
        // The first of all is alone.
        let heard = if throttled == 0 { answered } else { answered + HEARD };
        let early = arrivals[throttled + 1..].iter().filter(|one| one.at > heard && one.at < answered + WAIT).count();
        assert_eq!(early, 0, "requests came before the time that was named");
        let again = arrivals[throttled + 1..].iter().any(|arrival| arrival.id == arrivals[throttled].id);
        assert!(again, "the batch that was throttled came again under its id");
    }
}

#[test]
fn a_hung_destination_stops_no_other() {
    let (hung, healthy) = (Receiver::start(), Receiver::start());
    hung.script(|_| Answer::Hang);
    let home = Home::new("neighbours")
        .webhook("hung-hook", &hung, "timeout = \"5m\"\nbatch_records_max = 50")
        .webhook("healthy-hook", &healthy, "batch_records_max = 50")
        .file("archive", "");
    let sidecar = home.start();
    let load = Load::start("neighbours", 6, 2, home.ingest());
    assert!(wait_for(|| hung.count() > 0 && load.acknowledged() > 100));
    let posts = load.stop();
    let lags = sidecar.drain(&["healthy-hook", "archive"]);
    Arrived::at_webhook(&healthy.arrivals()).holds(&posts, "healthy-hook");
    Arrived::in_files(home.lines("archive")).holds(&posts, "archive");
    let behind = lags.iter().find(|lag| lag.destination == "hung-hook").expect("it has a queue");
    assert_eq!((behind.delivered, behind.records_behind), (0, behind.accepted));
    assert_eq!(hung.count(), 1, "one probe, and nothing piled upon it");
}
