//! Lives of destinations that end by power cuts: the real loop, its real queues and their letters on a disk that loses what was
//! not synced, on a paused clock, with chance from a seed. A process is gone in the midst of a change of the disk; what is left
//! is opened, and goes on. What comes to receivers is as the model of deliveries says: a cut excuses that what was not durable
//! comes again, and nothing else; and after each cut the books say of each record what became of it. The disk is a sound one
//! up to its cut, or it fails now and then as well, beside receivers that do.
//!
//! `FOREBAY_DELIVERY_CUTS=4000 cargo test -p forebay-sidecar --lib power_cuts -- --nocapture`; `FOREBAY_CASE` plays one.

use std::hash::Hasher;
use std::path::Path;

use forebay::{Cursor, Payload, QueueOptions, Queues, Start};
use storage_tests::crash_points::number;
use storage_tests::crew::{self, Until};
use storage_tests::model::deliveries::Fate;
use storage_tests::power_cuts::{DEPTH, any_cut, performed};
use storage_tests::queue_life::inject;
use storage_tests::queues::{DIR, books_close, tiny};
use storage_tests::rng::Rng;
use storage_tests::sim_disk::SimDisk;

use self::station::{Station, Weather};
use super::*;
use crate::ages::Now;
use crate::delivery::catch_up::CatchUp;
use crate::delivery::parking::Letter;
use crate::delivery::queued::Queued;
use crate::delivery::sheet::sheet;
use crate::letters::{Filter, Letters};

mod station;

const STREAMS: [&str; 2] = ["acme", "umbrella"];
/// The first rejects some records by name; the second may go on with what comes in, beside its backlog.
const DESTINATIONS: [&str; 2] = ["hook", "far"];
/// Lives of a case, besides the one in which all is well.
const LIVES: usize = 6;
/// Ways in which each cut ends besides the one that goes on.
const BRANCHES: usize = 3;

/// What outlives a process: its disk, its receivers, and what we know of both.
struct World {
    rng: Rng,
    disk: SimDisk,
    /// It fails now and then, until it is cut.
    fails: bool,
    clock: ManualClock,
    stations: Vec<Arc<Station>>,
    posts: Vec<(Vec<u64>, Fate)>,
    /// By stream: how many records were posted, and where those end that were acknowledged.
    posted: [u64; 2],
    tails: [u64; 2],
    /// By destination and stream: what was settled when a tick last succeeded.
    durable: [[Cursor; 2]; 2],
    /// By destination, of each life that was cut: how many records the books of the next one say to be delivered.
    deaths: [BTreeMap<usize, u64>; 2],
    life: usize,
    cuts: u64,
    refused: u64,
}

/// A process, without its loops.
struct House {
    queues: Queues,
    letters: Arc<Letters>,
}

/// Keeps letters before it returns: where there is no runtime they have no thread of their own to be kept on, which comes first
/// or last by chance.
struct AtOnce(Arc<Letters>);

impl Parking for AtOnce {
    fn park(&self, letters: Vec<Letter>, done: Box<dyn FnOnce(Result<(), BoxError>) + Send>) {
        std::thread::scope(|scope| drop(scope.spawn(|| self.0.park(letters, done))));
    }

    fn has_room(&self, destination: &str, bytes: u64) -> bool {
        self.0.has_room(destination, bytes)
    }
}

impl World {
    fn new(seed: u64, fails: bool) -> Self {
        let (mut rng, disk) = (Rng::new(seed), SimDisk::new(seed));
        let stations = (0..2).map(|nth| Arc::new(Station::new(&disk, nth == 0, rng.bits()))).collect();
        let (posts, posted, tails, durable, deaths) = Default::default();
        let clock = ManualClock::at(1_700_000_000_000);
        Self { rng, disk, fails, clock, stations, posts, posted, tails, durable, deaths, life: 0, cuts: 0, refused: 0 }
    }

    /// Another one that is as this one is, for another end.
    fn branch(&mut self) -> Self {
        let disk = SimDisk::from_snapshot(&self.disk.snapshot());
        let rng = Rng::new(self.rng.bits());
        disk.reseed(self.rng.bits());
        let station = |of: &Arc<Station>| Arc::new(Station { disk: disk.clone(), seen: Mutex::new(of.seen().clone()) });
        Self {
            rng,
            clock: ManualClock::at(self.clock.wall_ms()),
            stations: self.stations.iter().map(station).collect(),
            posts: self.posts.clone(),
            durable: self.durable.clone(),
            deaths: self.deaths.clone(),
            disk,
            cuts: 0,
            ..*self
        }
    }

    fn now(&self) -> Now {
        Now::of(&self.clock)
    }

    fn open(&self) -> Result<House, BoxError> {
        let (disk, clock) = (Arc::new(self.disk.clone()), Arc::new(self.clock.clone()));
        let options = (tiny(Duration::ZERO), QueueOptions::inline());
        let queues = Queues::open(disk, clock.clone(), Path::new(DIR), options.0, options.1)?;
        for destination in DESTINATIONS {
            for stream in STREAMS {
                queues.queue(destination, stream, Start::Earliest)?;
            }
        }
        let letters = Letters::open(queues.clone(), clock);
        Ok(House { queues, letters })
    }

    fn cut(&mut self) {
        self.disk.clear_faults();
        self.disk.power_cut(any_cut(&mut self.rng, &self.disk));
        self.cuts += 1;
    }

    fn crash_within(&mut self, changes: usize) {
        self.disk.crash_at(self.disk.ops() + self.rng.below(changes) as u64, performed(&mut self.rng));
    }

    /// The power went and comes back, now and then once more while what is left opens.
    fn recover(&mut self) -> House {
        self.cut();
        if self.rng.chance(1, 10) {
            for _ in 0..DEPTH {
                self.crash_within(30);
                match self.open() {
                    Ok(house) => {
                        // The crash may still be ahead.
                        let _ = house.queues.tick();
                        house.letters.tend(self.now());
                    }
                    Err(error) => assert!(self.disk.crashed(), "it does not open: {error}"),
                }
                self.cut();
            }
        }
        let house = self.open().expect("no cut keeps it from opening");
        self.check(&house);
        for (destination, deaths) in DESTINATIONS.into_iter().zip(&mut self.deaths) {
            let own = STREAMS.map(|stream| house.queues.find(destination, stream).unwrap().balance().delivered.records);
            deaths.insert(self.life, own.iter().sum());
        }
        house
    }

    /// What a cut left against what must and what may be left.
    fn check(&self, house: &House) {
        books_close(&house.queues);
        let log = house.queues.log();
        for (nth, destination) in DESTINATIONS.into_iter().enumerate() {
            let seen = self.stations[nth].seen();
            let never: BTreeSet<u64> = seen.deliveries.never_taken().into_iter().copied().collect();
            let page = house.letters.desk(destination).list(&Filter::default(), 0, usize::MAX).unwrap();
            let mut dead = BTreeSet::new();
            for letter in page.letters {
                assert!(dead.insert((letter.origin.stream, letter.origin.offset)), "{destination}: twice: {letter:?}");
            }
            let (mut accepted, mut delivered, mut settled_dead) = (0, 0, 0);
            for (at, stream) in STREAMS.into_iter().enumerate() {
                let Some(id) = log.stream(stream) else { continue };
                let (tail, place) = (log.durable(id).offset, format!("{destination}/{stream}"));
                assert!(tail >= self.tails[at], "{place}: {tail} of {} acknowledged are there", self.tails[at]);
                let (cursor, durable) =
                    (house.queues.find(destination, stream).unwrap().cursor(), &self.durable[nth][at]);
                assert!(cursor.covers(durable), "{place}: {cursor:?} after {durable:?}");
                for offset in (0..cursor.end()).filter(|offset| cursor.is_settled(*offset)) {
                    let taken = seen.contents.get(&(id, offset)).is_some_and(|record| !never.contains(record));
                    let is_dead = dead.contains(&(id, offset));
                    assert!(taken != is_dead, "{place}: {offset} is settled: taken {taken}, a letter {is_dead}");
                    if taken { delivered += 1 } else { settled_dead += 1 }
                }
                accepted += tail;
            }
            assert_eq!(settled_dead, dead.len(), "{destination}: a letter's record may come again");
            let queues = house.queues.all().into_iter().filter(|queue| queue.destination() == destination);
            let books: Vec<_> = queues.map(|queue| (queue.stream_name(), queue.balance())).collect();
            let books = books.iter().map(|(stream, balance)| (&**stream, *balance));
            let sheet = sheet(books, house.letters.in_doubt(destination));
            let told = (sheet.accepted.records, sheet.delivered.records, sheet.dead_lettered.records);
            assert_eq!(told, (accepted, delivered, dead.len() as u64), "{destination}: {sheet:?}");
            assert!(sheet.closes(), "{destination}: {sheet:?}");
        }
    }

    /// Begins to deliver.
    fn start(&mut self, house: &House, weather: fn(&mut Rng) -> Weather) -> Delivery {
        let (budget, clock) = (Budget::new(BudgetLimits::default()), Arc::new(self.clock.clone()));
        let parking = Arc::new(AtOnce(Arc::clone(&house.letters)));
        let delivery = Delivery::beginning_with(budget, clock, parking, Some(self.rng.bits()));
        for (nth, destination) in DESTINATIONS.into_iter().enumerate() {
            let live_first = nth == 1 && self.rng.chance(1, 2);
            let source = |stream| -> Arc<dyn Source> {
                let queue = house.queues.find(destination, stream).unwrap();
                let queued = Queued::new(queue, environment()).with_apart(house.letters.desk(destination));
                Arc::new(if live_first { queued.live_first(Duration::ZERO) } else { queued })
            };
            let station = Arc::clone(&self.stations[nth]);
            let mut seen = station.seen();
            (seen.life, seen.began, seen.weather) = (self.life, Instant::now(), weather(&mut self.rng));
            drop(seen);
            let catch_up = live_first.then_some(CatchUp { backlog_percent: 20 });
            delivery
                .start(destination, station, STREAMS.map(source).into(), Settings { catch_up, ..settings() })
                .unwrap();
        }
        delivery
    }

    /// One life, to a crash, or now and then to its end in good order. Says whether it crashed.
    async fn live(&mut self, house: &House) -> bool {
        let delivery = self.start(house, Weather::of);
        let steps = if self.rng.chance(1, 5) { self.rng.below(60) } else { usize::MAX };
        self.crash_within(if self.fails { 400 } else { 150 });
        for _ in 0..steps {
            self.step(house).await;
            if self.disk.crashed() {
                return true;
            }
        }
        delivery.shutdown(HOUR).await;
        house.queues.close().is_err() || self.disk.crashed()
    }

    async fn step(&mut self, house: &House) {
        if self.fails && self.rng.chance(1, 3) {
            inject(&mut self.rng, &self.disk);
        } else if self.fails && self.rng.chance(1, 4) {
            self.disk.clear_faults();
        }
        match self.rng.below(10) {
            0..5 => self.append(house, 20),
            5..8 => self.tick(house),
            8 => house.queues.log().housekeep(),
            _ => house.letters.tend(self.now()),
        }
        let ms = match self.rng.below(8) {
            0..3 => self.rng.below(20),
            3..6 => self.rng.below(500),
            6 => self.rng.below(5_000),
            _ => self.rng.below(60_000),
        };
        self.pass(Duration::from_millis(1 + ms as u64)).await;
    }

    async fn pass(&mut self, time: Duration) {
        sleep(time).await;
        self.clock.advance(time);
        self.stations.iter().for_each(|station| drop(station.seen()));
    }

    fn tick(&mut self, house: &House) {
        if house.queues.tick().is_ok() {
            let cursor = |destination, stream| house.queues.find(destination, stream).unwrap().cursor();
            self.durable = DESTINATIONS.map(|destination| STREAMS.map(|stream| cursor(destination, stream)));
        }
    }

    /// Some records come in, in one append of a frame or a few.
    fn append(&mut self, house: &House, most: usize) {
        let nth = self.rng.below(STREAMS.len());
        let (first, records) = (self.posted[nth], 1 + self.rng.below(most) as u64);
        self.posted[nth] += records;
        let post: Vec<u64> = (first..first + records).map(|record| (nth as u64) << 32 | record).collect();
        let payload = |records: &[u64]| Payload {
            bytes: records.iter().flat_map(|record| record.to_le_bytes()).collect(),
            records: records.len() as u32,
        };
        let payloads = post.chunks(8).map(payload).collect();
        let fate = match house.queues.log().append_wait(STREAMS[nth], payloads) {
            Ok(appended) => {
                self.tails[nth] = appended.offsets.end;
                Fate::Acknowledged
            }
            Err(error) => {
                assert!(self.fails || self.disk.crashed(), "{error}");
                self.refused += u64::from(!self.disk.crashed());
                Fate::Unknown
            }
        };
        self.posts.push((post, fate));
    }

    /// All are well from here on, and in the end everything is where it should be.
    async fn drain(&mut self, house: &House) {
        let delivery = self.start(house, |_| Weather::Well);
        let pending = || {
            house
                .queues
                .all()
                .iter()
                .filter(|queue| !queue.stream().starts_with('!'))
                .any(|queue| queue.balance().pending.records > 0)
        };
        let mut rounds = 0;
        while pending() {
            // What is rejected alone waits until others are taken.
            if rounds % 4 == 0 {
                self.append(house, 3);
            }
            // Too many bad ones of too few wait for more that are taken, or for somebody who vouches for the destination.
            if rounds % 100 == 99 {
                for (destination, told) in delivery.stats() {
                    assert!(!matches!(told.state, State::Refused { .. }) || delivery.probe(&destination));
                }
            }
            self.tick(house);
            self.pass(Duration::from_secs(20)).await;
            rounds += 1;
            // Lives on a disk that fails are longer, and leave more behind.
            assert!(rounds < if self.fails { 600 } else { 200 }, "it never drains: {:?}", delivery.stats());
        }
        assert!(delivery.shutdown(HOUR).await.is_empty());
        house.queues.close().unwrap();
    }

    fn end(mut self, house: House) -> Played {
        played(self.drain(&house));
        drop(house);
        self.check(&self.open().unwrap());
        let (refused, struck) = (self.refused, self.disk.struck());
        let mut played = Played { cuts: self.cuts, refused, struck, ..Played::default() };
        let posts: Vec<(&[u64], Fate)> = self.posts.iter().map(|(post, fate)| (&post[..], *fate)).collect();
        for ((destination, station), deaths) in DESTINATIONS.iter().zip(&self.stations).zip(&self.deaths) {
            let seen = station.seen();
            seen.deliveries.hold(destination, &posts);
            let bad = seen.deliveries.ids().map(|(record, _)| record).filter(|record| seen.is_bad(**record));
            assert!(bad.eq(seen.deliveries.never_taken()), "{destination} took what it did not reject");
            played.again += seen.deliveries.repeats_excused_by(deaths) as u64;
            played.letters += seen.deliveries.never_taken().len() as u64;
            played.requests += seen.requests;
            played.records += seen.contents.len() as u64;
            played.trace = played.trace.wrapping_mul(31).wrapping_add(seen.trace.finish());
        }
        let bytes = self.disk.paths().into_iter().filter_map(|path| self.disk.read_live(&path)).flatten();
        played.left = bytes.fold(0, |digest: u64, byte| digest.wrapping_mul(31).wrapping_add(u64::from(byte)));
        played
    }
}

/// What a case came to: of the life that went on, and all cuts.
#[derive(Debug, Default, PartialEq, Eq)]
struct Played {
    cuts: u64,
    requests: u64,
    records: u64,
    letters: u64,
    /// Requests with something that had been taken.
    again: u64,
    /// Posts that were told so by a process that lived on, and calls of the disk that failed.
    refused: u64,
    struck: u64,
    /// Digests of what went out, and of the bytes that were left.
    trace: u64,
    left: u64,
}

/// Lets a process live: what is under way when it ends is gone with it.
fn played<T>(life: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(life)
}

fn play(seed: u64, fails: bool) -> Played {
    let mut world = World::new(seed, fails);
    let (mut house, mut elsewhere) = (world.open().unwrap(), 0);
    while world.life < LIVES {
        let crashed = played(world.live(&house));
        drop(house);
        house = if crashed {
            for _ in 0..BRANCHES {
                let mut branch = world.branch();
                let house = branch.recover();
                elsewhere += branch.cuts;
                if branch.rng.chance(1, 4) {
                    branch.life += 1;
                    branch.end(house);
                }
            }
            world.recover()
        } else {
            // It ended before its crash came.
            world.disk.clear_faults();
            world.disk.process_kill();
            let house = world.open().unwrap();
            world.check(&house);
            house
        };
        world.life += 1;
    }
    let played = world.end(house);
    Played { cuts: played.cuts + elsewhere, ..played }
}

/// As many cuts as are asked for.
fn cuts(asked: u64, fails: bool) {
    let sum = Mutex::new(Played::default());
    let case = |seed: u64| {
        let played = play(seed, fails);
        if seed.is_multiple_of(10) {
            assert_eq!(play(seed, fails), played, "case {seed} is not the same twice");
        }
        let mut sum = sum.lock().unwrap();
        sum.requests += played.requests;
        sum.records += played.records;
        sum.letters += played.letters;
        sum.again += played.again;
        sum.refused += played.refused;
        sum.struck += played.struck;
        played.cuts
    };
    let repeat = |seed| {
        format!(
            "FOREBAY_CASE={seed} FOREBAY_DELIVERY_CUTS=1 cargo test -p forebay-sidecar --lib power_cuts -- --nocapture"
        )
    };
    let done = crew::each(number("FOREBAY_CASE", 0), Until::all(asked), case, repeat);
    let Played { requests, records, letters, again, refused, struck, .. } = sum.into_inner().unwrap();
    println!(
        "power cuts of deliveries: {done}; {requests} requests, {records} records, {letters} letters, {again} again; \
         {struck} calls failed, {refused} posts were refused"
    );
    assert!(asked < 200 || (letters > 0 && again > 0), "{letters} letters, {again} came again");
    assert!(
        asked < 200 || !fails || (struck > 0 && refused > 0),
        "{struck} calls failed, {refused} posts were refused"
    );
}

#[test]
fn after_any_power_cut_each_record_comes_to_its_destination_and_again_only_if_that_was_not_durable() {
    cuts(number("FOREBAY_DELIVERY_CUTS", 200), false);
}

/// Syncs, writes and names fail while receivers do, each for a while, and then the power goes.
#[test]
fn after_any_power_cut_of_a_disk_that_failed_beside_its_receivers_the_same_holds() {
    cuts(number("FOREBAY_DELIVERY_CUTS", 400) / 2, true);
}
