//! SIGKILL at any moment: everything acknowledged arrives everywhere, and what is repeated is told apart by its id.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use storage_tests::crew::{self, Until};

use super::load::Load;
use super::proof::{Arrived, balance_closes};
use super::receiver::{Answer, Receiver};
use super::sidecar::{self, Home};
use super::witness::{Delivered, Witness};

/// The seed of `FOREBAY_SEED`, or a fresh one. Printed with the command that repeats the test.
pub(crate) fn seed() -> u64 {
    let seed = std::env::var("FOREBAY_SEED").map_or_else(|_| rand::random(), |text| text.parse().expect("a number"));
    let test = thread::current().name().unwrap_or_default().to_owned();
    let (kills, binary) = (kills(), sidecar::binary());
    eprintln!("of {}", binary.display());
    eprintln!(
        "repeat with FOREBAY_SEED={seed} FOREBAY_KILLS={kills} cargo test -p forebay-sidecar --test process {test}"
    );
    seed
}

/// How often the sidecar is killed.
pub(crate) fn kills() -> usize {
    std::env::var("FOREBAY_KILLS").map_or(20, |text| text.parse().expect("a number"))
}

/// Mostly well; now and then all that can go wrong at a receiver.
pub(crate) fn flaky(seed: u64) -> impl Fn(usize) -> Answer + Send + Sync {
    let rng = Mutex::new(SmallRng::seed_from_u64(seed));
    move |_| {
        let mut rng = rng.lock().unwrap();
        match rng.random_range(0..100) {
            0..2 => Answer::Status(503),
            2..4 => Answer::Status(500),
            4 => Answer::Throttle { seconds: 1 },
            5..8 => Answer::Drop,
            8..13 => Answer::Slow(Duration::from_millis(rng.random_range(20..200))),
            13 => Answer::Hang,
            _ => Answer::Ok,
        }
    }
}

/// Small batches, so that there are many; a timeout that answers on a starved machine keep (one that comes later is not
/// heard, and its batch comes again), and that costs the test little where a receiver hangs.
pub(crate) const WEBHOOK: &str = "batch_records_max = 150\ntimeout = \"10s\"";

fn home(name: &str, first: &Receiver, second: &Receiver) -> Home {
    Home::new(name)
        .webhook("first-hook", first, WEBHOOK)
        .webhook("second-hook", second, &format!("{WEBHOOK}\ncompression = \"none\""))
        .file("archive", "rotate_bytes = \"1MiB\"")
}

const DESTINATIONS: [&str; 3] = ["archive", "first-hook", "second-hook"];

/// So many kills, and then it is proven what arrived: all of it is kept until then, 10 GB after a thousand.
const KILLS_BEFORE_PROOF: usize = 250;

#[test]
fn what_was_acknowledged_before_a_kill_arrives_everywhere() {
    let (seed, mut left) = (seed(), kills());
    for life in 0.. {
        let (seed, now) = (seed.wrapping_add(life), left.min(KILLS_BEFORE_PROOF));
        eprintln!("{now} kills, by FOREBAY_SEED={seed} FOREBAY_KILLS={now} alone");
        a_hard_life(seed, now);
        left -= now;
        if left == 0 {
            return;
        }
    }
}

/// Two sidecars of one environment side by side, as on two ingest nodes; one of them is killed so often.
fn a_hard_life(seed: u64, kills: usize) {
    let mut rng = SmallRng::seed_from_u64(seed);
    let (first, second) = (Receiver::start(), Receiver::start());
    first.script(flaky(seed));
    let (killed, spared) =
        (home("killed", &first, &second).log("replay_window = \"0s\""), home("spared", &first, &second));
    let beside = spared.start();
    let load = Load::start("killed", seed, 4, killed.ingest());
    let load_beside = Load::start("spared", seed, 1, spared.ingest());

    let mut deaths = BTreeMap::<usize, Delivered>::new();
    let done = crew::in_turn(Until::all(kills as u64), |_| {
        // Some die while they start.
        let infant = rng.random_ratio(1, 5);
        let sidecar = if infant { killed.spawn() } else { killed.start() };
        let (life, witness) = (sidecar.life, Witness::over(killed.admin()));
        let lifetime = Duration::from_millis(rng.random_range(0..if infant { 200 } else { 1200 }));
        thread::sleep(lifetime);
        sidecar.kill();
        deaths.insert(life, witness.end());
    });

    let last = killed.start();
    thread::sleep(Duration::from_millis(300));
    let (posts, posts_beside) = (load.stop(), load_beside.stop());
    first.script(|_| Answer::Ok);
    let (lags, lags_beside) = (last.drain(&DESTINATIONS), beside.drain(&DESTINATIONS));

    let mut repeats = 0;
    let mut everything = Vec::new();
    for (home, posts, lags, deaths) in
        [(&killed, &posts, &lags, &deaths), (&spared, &posts_beside, &lags_beside, &BTreeMap::new())]
    {
        let files = Arrived::in_files(home.lines("archive"));
        files.holds(posts, "archive");
        balance_closes(lags, &DESTINATIONS, files.len());
        for (id, receiver) in [("first-hook", &first), ("second-hook", &second)] {
            let mut arrivals = receiver.arrivals();
            arrivals.retain(|arrival| arrival.sidecar == home.name());
            let arrived = Arrived::at_webhook(&arrivals);
            arrived.holds(posts, id);
            arrived.equals(&files);
            let durable = |seen: &Delivered| seen.get(id).copied().unwrap_or_default();
            repeats += arrived.repeats_excused_by(&deaths.iter().map(|(life, seen)| (*life, durable(seen))).collect());
            everything.push(arrived);
        }
        everything.push(files);
    }
    let (of_killed, of_spared) = everything.split_at(DESTINATIONS.len());
    for one in of_killed {
        of_spared.iter().for_each(|other| one.shares_no_id_with(other));
    }
    let count = |n: usize| of_killed[n].len();
    let durable = |id: &str| deaths.values().filter_map(|seen| seen.get(id)).max().copied().unwrap_or_default();
    eprintln!(
        "{done}: kills; {} posts, {} impressions, {} requests, {repeats} repeated after a success",
        posts.len(),
        count(0),
        first.count() + second.count()
    );
    for id in DESTINATIONS {
        let (durable, arrived) = (durable(id), count(0) as u64);
        eprintln!("{id}: {durable} of {arrived} were seen to be durable before the last kill");
        assert!(durable > 0 || deaths.len() < 5, "the witness saw nothing of {id}");
    }
    // A test in which nothing happened would pass as well.
    assert!(posts.len() > 10 * deaths.len() && count(0) > 100 * deaths.len());
}
