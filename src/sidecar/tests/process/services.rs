//! SIGKILL at any moment with event services as destinations, which tell repeats apart by the record: nothing that was
//! acknowledged is lost, and what comes again was in flight and comes under the id that it had.

use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::event_service::{EventService, Service};
use super::kills::{kills, seed};
use super::load::Load;
use super::proof::{Arrived, balance_closes};
use super::sidecar::{Home, wait_for};
use super::witness::{Delivered, Witness};

const DESTINATIONS: [&str; 3] = ["amplitude", "archive", "segment"];

#[test]
fn what_was_acknowledged_before_a_kill_arrives_at_event_services_under_the_same_ids() {
    let seed = seed();
    let mut rng = SmallRng::seed_from_u64(seed);
    let amplitude = EventService::start(Service::Amplitude, seed);
    let segment = EventService::start(Service::Segment, seed + 1);
    let small = "batch_records_max = 100\ntimeout = \"10s\"";
    let home = Home::new("services")
        .log("replay_window = \"0s\"")
        .destination("amplitude", &(amplitude.settings() + small))
        .destination("segment", &(segment.settings() + small))
        .file("archive", "rotate_bytes = \"1MiB\"");
    let load = Load::start("services", seed, 3, home.ingest());
    let mut deaths = BTreeMap::<usize, Delivered>::new();
    for _ in 0..kills().div_ceil(2) {
        let sidecar = home.start();
        let (life, witness) = (sidecar.life, Witness::over(home.admin()));
        thread::sleep(Duration::from_millis(rng.random_range(0..1500)));
        sidecar.kill();
        deaths.insert(life, witness.end());
    }
    let last = home.start();
    // However few requests the lives before have made.
    assert!(wait_for(|| amplitude.said("429 of a user") > 0));
    amplitude.calm();
    segment.calm();
    thread::sleep(Duration::from_millis(300));
    let posts = load.stop();
    let lags = last.drain(&DESTINATIONS);

    let files = Arrived::in_files(home.lines("archive"));
    files.holds(&posts, "archive");
    balance_closes(&lags, &DESTINATIONS, files.len());
    for (id, service) in [("amplitude", &amplitude), ("segment", &segment)] {
        let arrivals = service.arrivals();
        let arrived = Arrived::at_webhook(&arrivals);
        arrived.holds(&posts, id);
        arrived.equals(&files);
        arrived.has_the_ids_of(&files);
        let durable = |seen: &Delivered| seen.get(id).copied().unwrap_or_default();
        let repeats = arrived.repeats_excused_by(&deaths.iter().map(|(life, seen)| (*life, durable(seen))).collect());
        let said = ["taken", "dropped", "500", "503", "429", "429 of a user", "413"]
            .map(|kind| format!("{kind}: {}", service.said(kind)));
        eprintln!("{id}: {} events, {repeats} repeated after a success; answers: {said:?}", arrived.len());
    }
    // A test in which nothing happened would pass as well.
    assert!(posts.len() > 5 * deaths.len());
}
