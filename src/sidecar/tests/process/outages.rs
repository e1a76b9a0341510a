//! Destinations that are down, throttle or hang: late, never lost, and nobody else pays.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, SystemTime};

use forebay::clock::ManualClock;
use forebay::disk::real::RealDisk;
use forebay::{LogOptions, Payload, QueueOptions, Queues, Settled, Start};
use tokio::runtime::Runtime;

use super::bucket::{objects, settings, side_by_side};
use super::load::Load;
use super::proof::{Arrived, balance_closes};
use super::receiver::{Answer, Arrival, Receiver};
use super::sidecar::{Home, forebay, wait_for};
use super::store::{Act, serve};

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
    const WAIT: Duration = Duration::from_secs(6);
    /// By then the sidecar has read the answer, on a busy machine too; what was on its way before is nobody's fault.
    const HEARD: Duration = Duration::from_secs(4);
    const SECOND: usize = 20;
    let receiver = Receiver::start();
    // The first of all, and one in the middle of things.
    receiver.script(|n| match n {
        0 | SECOND => Answer::Throttle { seconds: WAIT.as_secs() },
        _ => Answer::Ok,
    });
    let home = Home::new("throttled").webhook("hook", &receiver, "batch_records_max = 20\nconcurrency = 4");
    let sidecar = home.start();
    let load = Load::start("throttled", 5, 2, home.ingest());
    let came_again =
        |arrivals: &[Arrival], at: usize| arrivals.iter().skip(at + 1).any(|one| one.id == arrivals[at].id);
    // Until then there is always something that could be sent.
    let again = wait_for(|| came_again(&receiver.arrivals(), SECOND));
    let posts = load.stop();
    sidecar.drain(&["hook"]);

    let arrivals = receiver.arrivals();
    Arrived::at_webhook(&arrivals).holds(&posts, "hook");
    assert!(again && came_again(&arrivals, 0), "a batch that was throttled came again under its id");
    for throttled in [0, SECOND] {
        let (first, later) = (&arrivals[throttled], &arrivals[throttled + 1..]);
        let answered = first.answered.expect("it was answered");
        // The first of all is alone. That which was throttled was not on its way.
        let heard = if throttled == 0 { answered } else { answered + HEARD };
        let early = |one: &&Arrival| one.at < answered + WAIT && (one.at > heard || one.id == first.id);
        assert_eq!(later.iter().filter(early).count(), 0, "requests came before the time that was named");
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

/// Takes connections and says nothing; how many it has.
fn mute() -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("there are ports");
    let (address, count) = (listener.local_addr().expect("it has one"), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&count);
    thread::spawn(move || {
        let mut held = Vec::new();
        for stream in listener.incoming() {
            held.push(stream);
            counted.fetch_add(1, Ordering::SeqCst);
        }
    });
    (address, count)
}

/// A handshake that is not answered, and a service that does not hand out credentials.
#[test]
fn who_hangs_before_anything_is_sent_stops_no_other() {
    let runtime = Runtime::new().expect("there are threads");
    let root = tempfile::tempdir().expect("there is room");
    let store = runtime.block_on(serve(root.path(), |_| Act::Pass));
    ["mute", "healthy"].iter().for_each(|name| fs::create_dir(root.path().join(name)).expect("there is room"));
    let (healthy, handshake, credentials) = (Receiver::start(), mute(), mute());
    let patient = "timeout = \"5m\"\n";
    let keyless = format!(
        "type = \"s3\"\nbucket = \"mute\"\nendpoint = \"http://{}\"\npath_style = true\n{patient}max_age = \"1s\"",
        store.addr
    );
    let home = Home::new("mute")
        .destination("mute-hook", &format!("type = \"webhook\"\nurl = \"https://{}/in\"\n{patient}", handshake.0))
        .destination("mute-bucket", &keyless)
        .destination("healthy-bucket", &(settings(&store, "healthy") + "max_age = \"1s\"\nmax_records = 500"))
        .webhook("healthy-hook", &healthy, "batch_records_max = 50")
        .file("archive", "")
        .env("AWS_CONTAINER_CREDENTIALS_FULL_URI", &format!("http://{}/creds", credentials.0))
        .env("AWS_CONFIG_FILE", "/nonexistent/of-the-tests")
        .env("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent/of-the-tests")
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .without_env(&["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE"]);
    let sidecar = home.start();
    let load = Load::start("mute", 7, 2, home.ingest());
    let hang = || [&handshake.1, &credentials.1].iter().all(|count| count.load(Ordering::SeqCst) > 0);
    assert!(wait_for(|| hang() && load.acknowledged() > 100));
    let posts = load.stop();
    let lags = sidecar.drain(&["healthy-bucket", "healthy-hook", "archive"]);
    Arrived::at_webhook(&healthy.arrivals()).holds(&posts, "healthy-hook");
    Arrived::in_files(home.lines("archive")).holds(&posts, "archive");
    let objects = objects(&root.path().join("healthy"));
    side_by_side(&objects);
    Arrived::in_files(objects.into_iter().flat_map(|object| object.lines).collect()).holds(&posts, "healthy-bucket");
    for id in ["mute-hook", "mute-bucket"] {
        let behind = lags.iter().find(|lag| lag.destination == id).expect("it has a queue");
        assert_eq!((behind.delivered, behind.records_behind), (0, behind.accepted), "{id}");
    }
}

/// Has the sidecar's data directory written as if it had run for two hours, in which so many bytes came in and were delivered to
/// this destination. By the library, whose clock may stand elsewhere: nobody waits for two hours.
fn have_run_for_two_hours(home: &Home, destination: &str, bytes: usize) {
    const HALF: Duration = Duration::from_secs(3_600);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
    let clock = ManualClock::at(u64::try_from((now - 2 * HALF).as_millis()).expect("before the year 500,000,000"));
    let (disk, data) = (Arc::new(RealDisk), home.path("data"));
    let log = LogOptions { segment_bytes: 1 << 20, prewrite: false, ..LogOptions::default() };
    let options = QueueOptions { inline: true, ..QueueOptions::default() };
    let queues = Queues::open(disk, Arc::new(clock.clone()), &data, log, options).expect("the directory is ours");
    let queue = queues.queue(destination, "acme-prod", Start::Earliest).expect("it is new");
    for hour in 0..2 {
        clock.advance(HALF / 2);
        let half = Payload { bytes: vec![7; bytes / 2], records: 10 };
        queues.log().append_wait("acme-prod", vec![half]).expect("there is room");
        queue.settle_range(hour * 10..hour * 10 + 10, Settled::Delivered);
        clock.advance(HALF / 2);
        queues.tick().expect("there is room");
    }
    queues.close().expect("all of it is durable");
}

#[test]
fn how_long_an_outage_the_disk_holds_is_told_over_grpc_and_by_check() {
    const BYTES: usize = 1 << 20;
    let receiver = Receiver::start();
    let home = Home::new("holds").webhook("hook", &receiver, "");
    have_run_for_two_hours(&home, "hook", BYTES);
    let sidecar = home.start();
    let told = sidecar.asked(&["lag"]);
    let lag = told["lags"].as_array().and_then(|lags| lags.first()).expect("one queue");
    assert_eq!((&lag["destination"], &lag["disk"]["refused"]), (&"hook".into(), &false.into()), "{told}");
    let number = |name: &str| lag["disk"][name].as_f64().unwrap_or_else(|| panic!("no {name} in {told}"));
    let (per_hour, hours) = (number("bytes_per_hour"), number("outage_hours"));
    // Time goes on while it starts, and nothing comes in.
    let average = BYTES as f64 / 2.0;
    assert!(per_hour <= average && per_hour > average * 0.8, "{per_hour} bytes an hour");
    // Nine tenths of the budget less the five segments that are always taken; a quarter more is used than is needed.
    let room = ((1u64 << 30) as f64 * 0.9 - (5 << 20) as f64) / 1.25;
    assert!((hours * per_hour / room - 1.0).abs() < 1e-6, "{hours} hours at {per_hour} bytes an hour, {room} bytes");
    assert_eq!(number("outage_hours_if_all"), hours, "there is no other environment");

    let table = sidecar.call(&["lag"]).stdout;
    let table = String::from_utf8(table).expect("text");
    assert!(table.contains("DISK HOLDS"), "{table}");
    let mut check = forebay(&["check", "--config"]);
    check.arg(home.path("forebay.toml")).env("FOREBAY_TEST_LIFE", "0");
    // It gives the sidecar two seconds to answer, and says nothing of it otherwise.
    let mut checked = String::new();
    let told = wait_for(|| {
        checked = String::from_utf8(check.output().expect("the binary was built").stdout).expect("text");
        checked.contains("acme-prod:")
    });
    assert!(told, "{checked}");
    let line = checked.lines().find(|line| line.contains("acme-prod:")).expect("it is there");
    assert!(
        line.contains("an hour on the last day") && line.contains("if its own destinations take nothing"),
        "{line}"
    );
}
