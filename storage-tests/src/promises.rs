//! A process that appends, plans, settles and ticks on the machine's own disk, and says what it promises; and what must
//! be there when it is gone, whatever ended it.
//!
//! What always holds: a promise is said after it was made, in one line; one that is cut off was never said. Real threads
//! and a real clock: no seed repeats a life.

use crate::model::queues::Model;
use crate::queues::{ANY, books_close};
use crate::reading::read;
use crate::rng::Rng;
use forebay::clock::SystemClock;
use forebay::disk::real::RealDisk;
use forebay::{BatchLimits, Cursor, LogOptions, Payload, Queue, QueueOptions, Queues, Settled, Start};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::sync_channel;
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Where a process of promises works: set in its environment.
pub const DIR: &str = "FOREBAY_PROMISES_DIR";

/// After so many appends of all streams together it closes what it has open and opens it again; then so often it ends by
/// itself. Without it, it never does.
pub const ROUND: &str = "FOREBAY_PROMISES_ROUND";

/// How often a process of rounds opens.
const ROUNDS: usize = 3;

/// `quiet` has little to say to somebody who takes nothing: it pins segments of which the others need no more.
static QUEUES: [(&str, &str); 5] =
    [("hook", "acme"), ("hook", "umbrella"), ("archive", "acme"), ("archive", "umbrella"), ("stuck", "quiet")];

/// Appenders wait where a destination is further behind: files are to come and go, and no disk to be full.
const LAG_MAX: u64 = 3_000;

fn open(dir: &Path, inline: bool) -> Queues {
    let log = LogOptions { segment_bytes: 16 << 10, budget_bytes: 256 << 20, inline, ..LogOptions::small() };
    let options = QueueOptions { tick: Duration::from_millis(10), inline, ..QueueOptions::default() };
    let (disk, clock) = (Arc::new(RealDisk), Arc::new(SystemClock::new()));
    Queues::open(disk, clock, dir, log, options).expect("nothing keeps it from opening")
}

fn queue(queues: &Queues, destination: &str, stream: &str) -> Queue {
    queues.queue(destination, stream, Start::Earliest).expect("it is there, or made")
}

fn subscribers(stream: &str) -> impl Iterator<Item = &'static str> {
    QUEUES.iter().filter(move |(_, of)| *of == stream).map(|(destination, _)| *destination)
}

/// A promise. One that nobody hears any more is the last.
fn say(promise: &str) {
    if writeln!(std::io::stdout(), "{promise}").is_err() {
        std::process::exit(0);
    }
}

/// What the process does that was told to work in `dir`.
pub fn make(dir: &Path) {
    say(""); // a harness may have begun a line
    let round = crate::crash_points::number(ROUND, 0) as usize;
    let mut rng = Rng::new(u64::from(std::process::id()));
    for nth in 0.. {
        if round > 0 && nth == ROUNDS {
            return;
        }
        live(&open(dir, false), if round > 0 { round } else { usize::MAX }, &mut rng);
    }
}

/// Goes on until there were so many appends.
fn live(queues: &Queues, appends_max: usize, rng: &mut Rng) {
    let (appends, mut seed) = (AtomicUsize::new(0), || Rng::new(rng.bits()));
    let more = || appends.load(Ordering::Relaxed) < appends_max;
    thread::scope(|scope| {
        for streams in [["acme", "acme"], ["umbrella", "quiet"]] {
            let (appends, rng) = (&appends, seed());
            scope.spawn(move || append(queues, streams, rng, || appends.fetch_add(1, Ordering::Relaxed) < appends_max));
        }
        for destination in ["hook", "archive"] {
            let rng = seed();
            scope.spawn(move || deliver(queues, destination, rng, more));
        }
    });
    queues.close().expect("the disk is sound");
}

fn append(queues: &Queues, [stream, rarely]: [&str; 2], mut rng: Rng, more: impl Fn() -> bool) {
    let queues_of: Vec<Queue> = subscribers(stream).map(|destination| queue(queues, destination, stream)).collect();
    subscribers(rarely).for_each(|destination| drop(queue(queues, destination, rarely)));
    while more() {
        // For a second at most: who delivers may have gone home.
        let behind = || queues_of.iter().any(|queue| queue.lag().records > LAG_MAX);
        let _ = (0..1_000).take_while(|_| behind()).map(|_| thread::sleep(Duration::from_millis(1))).count();
        let stream = if rng.chance(1, 20) { rarely } else { stream };
        let records = 1 + rng.below(60) as u64;
        let from = rng.bits() >> 1;
        let appended = queues.log().append_wait(stream, vec![payload(from, records)]).expect("the disk is sound");
        say(&format!("appended {stream} {} {records} {from}", appended.offsets.start));
    }
}

/// Each record is its number.
const RECORD_BYTES: u64 = 8;

/// Records that say their numbers.
fn payload(from: u64, records: u64) -> Payload {
    let bytes = (from..from + records).flat_map(u64::to_le_bytes).collect();
    Payload { bytes, records: u32::try_from(records).expect("small") }
}

fn deliver(queues: &Queues, destination: &str, mut rng: Rng, more: impl Fn() -> bool) {
    let queues_of = ["acme", "umbrella"].map(|stream| queue(queues, destination, stream));
    while more() {
        let queue = &queues_of[rng.below(2)];
        let limits = BatchLimits { records_max: 1 + rng.below(300) as u64, ..ANY };
        let Some(batch) = queue.next_batch(limits).expect("it reads") else {
            thread::sleep(Duration::from_millis(1));
            continue;
        };
        let (planned, heard) = sync_channel(1);
        queue.plan(&batch, Box::new(move |result| planned.send(result).expect("somebody waits")));
        heard.recv().expect("it is answered").expect("the disk is sound");
        let (stream, offsets) = (queue.stream(), &batch.offsets);
        say(&format!("planned {destination} {stream} {} {} {}", offsets.start, offsets.end, batch.id));
        if rng.chance(1, 8) {
            queue.release(&batch); // it comes again
            continue;
        }
        queue.settle(&batch, Settled::Delivered);
        if rng.chance(1, 8) {
            let low = queue.cursor().low;
            queues.tick().expect("the disk is sound");
            say(&format!("durable {destination} {stream} {low}"));
        }
    }
}

/// What was promised over all lives of one directory, told to the model of queues.
#[derive(Debug, Default)]
pub struct Promised {
    model: Model,
    appends: usize,
    plans: usize,
}

impl Promised {
    /// Appends that were promised.
    #[must_use]
    pub fn appends(&self) -> usize {
        self.appends
    }

    /// Plans that were.
    #[must_use]
    pub fn plans(&self) -> usize {
        self.plans
    }

    /// Takes in what a process said.
    ///
    /// # Panics
    /// When it contradicts what was said before.
    pub fn hear(&mut self, said: &[u8]) {
        // A line that was cut off was never said.
        let lines = said.split_inclusive(|byte| *byte == b'\n').filter_map(|line| line.strip_suffix(b"\n"));
        lines.for_each(|line| self.hear_line(&String::from_utf8_lossy(line)));
    }

    fn hear_line(&mut self, line: &str) {
        let words: Vec<&str> = line.split(' ').collect();
        let n = |at: usize| words[at].parse::<u64>().expect("a number");
        let place = || *QUEUES.iter().find(|place| [place.0, place.1] == words[1..3]).expect("one of ours");
        match words[0] {
            "appended" => {
                let (_, stream) = QUEUES.iter().find(|(_, stream)| *stream == words[1]).expect("one of ours");
                self.model.acknowledge(stream, n(2), n(4)..n(4) + n(3));
                self.appends += 1;
            }
            "planned" => {
                let queue = self.model.queues.entry(place()).or_default();
                let open = queue.planned.get(&n(3));
                assert!(
                    open.is_none_or(|(offsets, id)| (offsets.end, &**id) == (n(4), words[5])),
                    "not as it stood: {line}"
                );
                queue.plan(n(3)..n(4), words[5]);
                // Which it is from now on, or was about to be.
                queue.settle(n(3)..n(4), Settled::Delivered);
                self.plans += 1;
            }
            "durable" => {
                let queue = self.model.queues.entry(place()).or_default();
                assert!(queue.durable.low <= n(3), "it went back: {line}");
                queue.durable = Cursor::at(n(3), n(3) * RECORD_BYTES);
            }
            _ => {} // a harness of tests talks on the same pipe
        }
    }

    /// All of it is there, and what is not settled comes, as it was planned.
    ///
    /// # Panics
    /// When it is not.
    pub fn check(&mut self, dir: &Path) {
        let queues = open(dir, true);
        books_close(&queues);
        assert!(queues.log().damages().is_empty(), "{:?}", queues.log().damages());
        for (destination, stream) in QUEUES {
            self.model.acked.entry(stream).or_default();
            self.model.queues.entry((destination, stream)).or_default();
        }
        // Before anybody reads: what can't be read is settled by whoever meets it.
        let lows: Vec<_> = self.model.acked.keys().map(|stream| (*stream, low(&queues, stream))).collect();
        self.model.check_after_crash(&queues);
        lows.into_iter().for_each(|(stream, low)| check_stream(&queues, stream, low, &self.model.acked[stream]));
        assert!(queues.log().damages().is_empty(), "{:?}", queues.log().damages());
    }
}

/// The first offset of a stream that not everybody has.
fn low(queues: &Queues, stream: &str) -> u64 {
    let lows = subscribers(stream).map(|destination| queue(queues, destination, stream).cursor().low);
    lows.min().expect("each stream has one")
}

/// All that was promised is in the log from `low` on; whatever else is there is whole, and lost is only what everybody has.
fn check_stream(queues: &Queues, stream: &str, low: u64, acked: &BTreeMap<u64, u64>) {
    let mut seen = BTreeMap::new();
    for part in read(queues.log(), stream).expect("it reads") {
        let Some((_, bytes)) = part.frame else {
            assert!(part.offsets.end <= low, "{stream}: {:?} are lost", part.offsets);
            continue;
        };
        let numbers: Vec<u64> = (bytes.chunks(RECORD_BYTES as usize))
            .map(|bytes| u64::from_le_bytes(bytes.try_into().expect("records of eight")))
            .collect();
        assert!(numbers.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{stream}: {:?} is no append", part.offsets);
        assert_eq!(numbers.len() as u64, part.offsets.end - part.offsets.start, "{stream}: {:?}", part.offsets);
        seen.extend(part.offsets.zip(numbers));
    }
    for (offset, promised) in acked.range(low..) {
        assert_eq!(seen.get(offset), Some(promised), "{stream}: the record at {offset}, of those from {low} on");
    }
}

/// The process, as whoever ends it has it. It never outlives this value.
#[derive(Debug)]
pub struct Promiser {
    child: Child,
    lines: Arc<AtomicUsize>,
    said: Option<JoinHandle<Vec<u8>>>,
}

impl Promiser {
    /// Starts this very program again, to run the one `test` that makes promises when it is told where; `env` is added to
    /// its environment.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start(test: &str, dir: &Path, env: &[(&str, &str)]) -> Self {
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        command.args([test, "--exact", "--nocapture"]).env(DIR, dir).envs(env.iter().copied());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("this program again");
        let mut out = BufReader::new(child.stdout.take().expect("a pipe"));
        let lines = Arc::<AtomicUsize>::default();
        let count = Arc::clone(&lines);
        let said = thread::spawn(move || {
            let mut said = Vec::new();
            while out.read_until(b'\n', &mut said).expect("a pipe") > 0 {
                count.fetch_add(1, Ordering::Relaxed);
            }
            said
        });
        Self { child, lines, said: Some(said) }
    }

    /// Waits until it has said so much, however slow the machine is.
    ///
    /// # Panics
    /// When it has not for minutes.
    pub fn hear(&self, lines: usize) {
        let heard = (0..120_000).any(|_| {
            let heard = self.lines.load(Ordering::Relaxed) >= lines;
            if !heard {
                thread::sleep(Duration::from_millis(1));
            }
            heard
        });
        assert!(heard, "it says nothing");
    }

    /// Its number among the machine's processes.
    #[must_use]
    pub fn process(&self) -> u32 {
        self.child.id()
    }

    /// Kills it, and returns what it said.
    #[must_use]
    pub fn kill(mut self) -> Vec<u8> {
        let _ = self.child.kill();
        self.end().1
    }

    /// Waits until it ends by itself, and returns how, and what it said.
    ///
    /// # Panics
    /// When it can't be waited for.
    #[must_use]
    pub fn end(&mut self) -> (ExitStatus, Vec<u8>) {
        let mut complaints = String::new();
        let mut err = self.child.stderr.take().expect("ended once");
        let _ = err.read_to_string(&mut complaints);
        let status = self.child.wait().expect("it is ours");
        if status.code().is_some_and(|code| code != 0) {
            eprintln!("{complaints}");
        }
        (status, self.said.take().expect("ended once").join().expect("it only reads"))
    }
}

impl Drop for Promiser {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
