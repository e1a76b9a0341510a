//! What it says of itself, and nobody there to read it.

use super::load::Load;
use super::proof::Arrived;
use super::receiver::Receiver;
use super::sidecar::{Home, wait_for};

/// A pipe takes 64 KiB, and some of what runs a container never empties it.
#[test]
fn lines_that_nobody_reads_are_dropped_and_counted_and_hold_up_nothing() {
    let receiver = Receiver::start();
    let home = Home::new("unread").unread().webhook("hook", &receiver, "");
    let sidecar = home.start();
    let dropped = || home.metric("forebay_log_lines_dropped_total").expect("the metric is there");

    let load = Load::start("unread", 1, 4, home.ingest());
    assert!(wait_for(|| dropped() > 0), "the pipe is full, and what does not fit is counted");
    let before = load.acknowledged();
    assert!(wait_for(|| load.acknowledged() > before + 50), "posts are answered all the same");
    let posts = load.stop();
    sidecar.drain(&["hook"]);
    Arrived::at_webhook(&receiver.arrivals()).holds(&posts, "hook");
    sidecar.terminate();
    assert_eq!(sidecar.wait(), Some(0), "it does not wait for a reader when it stops");
}
