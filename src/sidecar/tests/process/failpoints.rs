//! SIGKILL before and after each named point of the sidecar itself, under load: what answers, sends, settles, keeps letters,
//! writes files and objects, and writes down what operators decide. Those of the log are in `storage-tests/tests/failpoints.rs`.

use std::collections::BTreeMap;
use std::fs::{self, DirEntry};

use forebay::failpoints::Point;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use storage_tests::crash_points::number;
use storage_tests::crew::{self, Until};
use tokio::runtime::Runtime;

use super::books::Balance;
use super::bucket::{self, objects, side_by_side};
use super::kills::{WEBHOOK, seed};
use super::letters::{dead, is_poisoned, post_poison};
use super::load::Load;
use super::proof::Arrived;
use super::receiver::{Answer, Arrival, Receiver};
use super::sidecar::{Home, Sidecar, wait_for};
use super::store::{Act, serve};
use super::witness::{Delivered, Witness};

/// Those that something has to be done for, and how often it is waited until the process comes there.
fn times(point: Point, rng: &mut SmallRng) -> u32 {
    match point {
        Point::LettersKeep | Point::LettersAppend | Point::LettersSettle => 1,
        Point::ControlAppend | Point::ControlApply => 1,
        Point::FileTakeUp | Point::FileEnd | Point::FileMake | Point::FileNameSync => 1,
        Point::Put | Point::ObjectPut => rng.random_range(1..3),
        _ => rng.random_range(1..20),
    }
}

fn is_paused(sidecar: &Sidecar<'_>) -> bool {
    let list = sidecar.asked(&["destinations", "list"]);
    let all = list["destinations"].as_array().expect("a list").clone();
    all.iter().any(|one| one["id"] == "picky" && one["paused"] == true)
}

/// A life of which a file is left that was being written to.
fn leave_a_file_open(home: &Home, deaths: &mut BTreeMap<usize, Delivered>) {
    let sidecar = home.start();
    let (life, witness) = (sidecar.life, Witness::over(home.admin()));
    let is_open = |entry: std::io::Result<DirEntry>| {
        let path = entry.expect("listed").path();
        path.extension().is_some_and(|end| end == "open") && path.metadata().is_ok_and(|found| found.len() > 0)
    };
    assert!(wait_for(|| fs::read_dir(home.path("archive")).expect("it is there").any(is_open)));
    sidecar.kill();
    deaths.insert(life, witness.end());
}

/// A life that goes through all poison that was posted before: what it kept, and where, is durable when it stops.
fn have_it_keep_letters(home: &Home, letters: usize) {
    let sidecar = home.start();
    assert!(wait_for(|| dead(&sidecar, "picky") == letters as u64), "it said:\n{}", sidecar.said());
    sidecar.terminate();
    assert_eq!(sidecar.wait(), Some(0));
}

#[test]
fn a_kill_at_any_named_point_of_the_sidecar_loses_nothing_that_was_acknowledged() {
    let seed = seed();
    let mut rng = SmallRng::seed_from_u64(seed);
    let runtime = Runtime::new().unwrap();
    let root = tempfile::tempdir().unwrap();
    let store = runtime.block_on(serve(root.path(), |_| Act::Pass));
    let (hook, picky) = (Receiver::start(), Receiver::start());
    picky.judge(|arrival| if is_poisoned(arrival) { Answer::Status(400) } else { Answer::Ok });
    let home = Home::new("failpoints")
        .log("replay_window = \"0s\"")
        .webhook("hook", &hook, WEBHOOK)
        .webhook("picky", &picky, WEBHOOK)
        .destination("lines", &(bucket::settings(&store, "lines") + "max_records = 400\nmax_age = \"1s\"\n"))
        .file("archive", "rotate_bytes = \"1MiB\"");
    let load = Load::start("failpoints", seed, 3, home.ingest());

    let mut deaths = BTreeMap::<usize, Delivered>::new();
    let mut poison = Vec::new();
    let cases = Point::SIDECAR.iter().flat_map(|point| ["before", "after"].map(|side| (*point, side)));
    // Some of them, in plain `cargo test`.
    let cases: Vec<_> = cases.step_by(number("FOREBAY_FAILPOINTS", 9).max(1) as usize).collect();
    let done = crew::in_turn(Until::all(cases.len() as u64), |nth| {
        let (point, side) = cases[nth as usize];
        let failpoint = format!("{point:?}:{side}:{}", times(point, &mut rng));
        match point {
            Point::FileTakeUp => leave_a_file_open(&home, &mut deaths),
            // Or it comes to the point before anything is posted.
            Point::LettersKeep | Point::LettersAppend | Point::LettersSettle => {
                have_it_keep_letters(&home, poison.len())
            }
            _ => {}
        }
        let mut sidecar = home.spawn_to_die_at(&failpoint);
        let (life, witness) = (sidecar.life, Witness::over(home.admin()));
        let mut paused = None;
        match point {
            Point::LettersKeep | Point::LettersAppend | Point::LettersSettle => {
                sidecar.wait_until_ready();
                poison.push(post_poison(&home, poison.len()));
            }
            Point::ControlAppend | Point::ControlApply => {
                sidecar.wait_until_ready();
                paused = Some(sidecar.call(&["destinations", "pause", "picky"]).status.success());
            }
            _ => {}
        }
        assert!(sidecar.ends_by() == Some(9), "nothing comes to {failpoint} ({})", point.what());
        deaths.insert(life, witness.end());
        if let Some(answered) = paused {
            let next = home.start();
            let (paused, written) = (is_paused(&next), (point, side) != (Point::ControlAppend, "before"));
            assert!(!answered || paused, "{failpoint}: who was answered finds it decided");
            assert_eq!(paused, written, "{failpoint}: it is decided when it is written down");
            next.asked(&["destinations", "resume", "picky"]);
            let witness = Witness::over(home.admin());
            let life = next.life;
            next.kill();
            deaths.insert(life, witness.end());
        }
    });

    let last = home.start();
    let mut posts = load.stop();
    posts.append(&mut poison.clone());
    last.drain(&["archive", "hook", "lines", "picky"]);
    let files = Arrived::in_files(home.lines("archive"));
    files.holds(&posts, "archive");
    let arrived = Arrived::at_webhook(&hook.arrivals());
    arrived.holds(&posts, "hook");
    arrived.equals(&files);
    let durable = |seen: &Delivered| seen.get("hook").copied().unwrap_or_default();
    let deaths = deaths.iter().map(|(life, seen)| (*life, durable(seen))).collect();
    let repeats = arrived.repeats_excused_by(&deaths);
    let objects = objects(&root.path().join("lines"));
    side_by_side(&objects);
    Arrived::in_files(objects.into_iter().flat_map(|object| object.lines).collect()).equals(&files);

    let books = last.books();
    let all = files.len() as u64;
    for id in ["archive", "hook", "lines"] {
        assert_eq!(books.destinations[id], Balance::all_delivered(all), "the books of {id}: {books:?}");
    }
    let letters = poison.len() as u64;
    let but_letters = Balance { accepted: all, delivered: all - letters, dead_lettered: letters, ..Balance::default() };
    assert_eq!(books.destinations["picky"], but_letters, "each poisoned record is one letter: {books:?}");
    let taken: Vec<Arrival> = picky.arrivals().into_iter().filter(Arrival::taken).collect();
    assert_eq!(Arrived::at_webhook(&taken).len() as u64, all - letters, "all the others arrived");
    eprintln!(
        "failpoints of the sidecar, before and after: {done}; there are {}; {} posts, {all} impressions, {letters} letters, \
         {repeats} batches repeated after a success",
        Point::SIDECAR.len() * 2,
        posts.len()
    );
}
