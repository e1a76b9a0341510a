//! The sled index on a real directory: deleted, damaged, cut, replaced by an older copy, hanging, on a full disk. Each
//! may cost repeats and nothing else.

use forebay::clock::SystemClock;
use forebay::disk::{Disk, real::RealDisk};
use forebay::{
    Batch, BatchLimits, LogOptions, OpenError, OpenQueuesError, OpenStore, Payload, QueueOptions, Queues, Settled,
    Start, StoreChoice,
};
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;
use storage_tests::crash_points::number;
use storage_tests::queues::{ANY, half_id};
use storage_tests::rng::Rng;

// === sled, on a real directory ===

struct Home {
    dir: tempfile::TempDir,
    /// The first batch that was sent: whatever comes again has the log id and the life of its id.
    sent: OnceLock<Batch>,
}

impl Home {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().expect("a temporary directory"), sent: OnceLock::new() }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join("data").join(name)
    }

    fn open(&self, store: StoreChoice) -> Queues {
        self.open_within(store, Duration::from_secs(10))
    }

    fn open_within(&self, store: StoreChoice, store_deadline: Duration) -> Queues {
        // Nothing is taken away by itself: what an older floor needs again is there.
        let by_hand = Duration::from_secs(3_600);
        let log = LogOptions { inline: false, replay_window: by_hand, ..LogOptions::small() };
        let options = QueueOptions { store, store_deadline, tick: by_hand, ..QueueOptions::default() };
        let (disk, clock, dir) = (Arc::new(RealDisk), Arc::new(SystemClock::new()), self.dir.path().join("data"));
        for _ in 0..6_000 {
            match Queues::open(disk.clone(), clock.clone(), &dir, log.clone(), options.clone()) {
                // A set that is dropped has threads that hold the lock a moment longer.
                Err(OpenQueuesError::Locked { .. } | OpenQueuesError::Log(OpenError::Locked { .. })) => {
                    std::thread::sleep(Duration::from_millis(10));
                }
                opened => return opened.expect("it opens"),
            }
        }
        panic!("the lock is not let go");
    }

    /// Appends and settles some; ten records are not settled.
    fn live(&self, store: StoreChoice) -> u64 {
        let queues = self.open(store);
        let queue = queues.queue("hook", "acme", Start::Earliest).expect("it is made");
        for _ in 0..10 {
            queues.log().append_wait("acme", vec![Payload { bytes: vec![1; 100], records: 10 }]).expect("it is taken");
        }
        let waiting = queue.lag().records;
        let limits = BatchLimits { records_max: waiting - 10, ..ANY };
        while queue.lag().records > 10 {
            let batch = queue.next_batch(limits).expect("reads").expect("more");
            queue.settle(&batch, Settled::Delivered);
            self.sent.get_or_init(|| batch);
        }
        let low = queue.cursor().low;
        queues.close().expect("the disk is sound"); // waits for sled, so that its files are whole
        low
    }

    /// Starts, and everything is delivered that is not.
    fn check(&self, store: StoreChoice, low: u64) -> Queues {
        let queues = self.open(store);
        let queue = queues.queue("hook", "acme", Start::Earliest).expect("it is there");
        assert_eq!(queue.cursor().low, low, "the floor had the same: not even a repeat");
        let batch = queue.next_batch(ANY).expect("reads").expect("ten");
        assert_eq!(batch.offsets, low..low + 10);
        self.comes_under_its_id(&batch);
        queue.settle(&batch, Settled::Delivered);
        queues.tick().expect("the disk is sound");
        assert!(queue.balance().closes() && queue.lag().records == 0);
        queues
    }

    fn comes_under_its_id(&self, batch: &Batch) {
        let sent = self.sent.get().expect("it has lived");
        assert_eq!(batch.id, half_id(sent, &batch.offsets), "{:?}", batch.offsets);
    }
}

/// The store opened as it was, and is in use.
fn assert_sound(queues: &Queues) {
    let stats = queues.stats();
    assert_eq!((stats.store_resets, stats.store_given_up), (0, None));
}

fn files_of(dir: &Path) -> Vec<std::path::PathBuf> {
    let disk = RealDisk;
    disk.list(dir).expect("it is there").into_iter().map(|name| dir.join(name)).collect()
}

fn read(path: &Path) -> Vec<u8> {
    forebay::disk::read_all(&*RealDisk.open(path).expect("it is there")).expect("reads")
}

fn write(path: &Path, bytes: &[u8]) {
    let disk = RealDisk;
    let _ = disk.remove(path);
    let file = disk.create(path).expect("it can be made");
    file.write_all_at(&[std::io::IoSlice::new(bytes)], 0).expect("writes");
}

#[test]
fn sled_deleted_is_only_hints_deleted() {
    let home = Home::new();
    let low = home.live(StoreChoice::Sled);
    RealDisk.remove_dir(&home.path("sled")).expect("removed");
    let queues = home.check(StoreChoice::Sled, low);
    assert_sound(&queues);
    queues.close().expect("closes");
}

/// Cuts each file of a directory somewhere, or empties it, or has a page of zeros in it, or some bits turned.
fn damage(dir: &Path, seed: u64) {
    let mut rng = Rng::new(seed);
    for path in files_of(dir) {
        let mut bytes = read(&path);
        if bytes.is_empty() {
            continue;
        }
        match seed % 4 {
            0 => bytes.truncate(rng.below(bytes.len())),
            1 => bytes.clear(),
            2 => {
                let at = rng.below(bytes.len());
                let end = bytes.len().min(at + 4096);
                bytes[at..end].fill(0);
            }
            _ => (0..20).for_each(|_| {
                let at = rng.below(bytes.len());
                bytes[at] ^= 1 << rng.below(8);
            }),
        }
        write(&path, &bytes);
    }
}

#[test]
fn sled_damaged_anyhow_costs_hints_and_nothing_else() {
    for seed in 0..number("FOREBAY_DAMAGES", 8) {
        let home = Home::new();
        let low = home.live(StoreChoice::Sled);
        damage(&home.path("sled"), seed);
        home.check(StoreChoice::Sled, low).close().expect("closes");
    }
}

#[test]
fn an_older_copy_of_sled_is_not_believed_against_the_floor() {
    let home = Home::new();
    let sled = home.path("sled");
    home.live(StoreChoice::Sled);
    let old: Vec<_> = files_of(&sled).into_iter().map(|path| (path.clone(), read(&path))).collect();
    let low = home.live(StoreChoice::Sled);
    files_of(&sled).iter().for_each(|path| RealDisk.remove(path).expect("removed"));
    old.iter().for_each(|(path, bytes)| write(path, bytes));
    let queues = home.check(StoreChoice::Sled, low);
    assert_sound(&queues);
    assert_eq!((queues.stats().hints_taken, queues.stats().hints_refused), (0, 1));
    queues.close().expect("closes");
}

#[test]
fn a_store_that_hangs_when_it_opens_is_set_aside_and_the_next_start_has_a_new_one() {
    let home = Home::new();
    let low = home.live(StoreChoice::Sled);
    let hangs: OpenStore = Arc::new(|| {
        loop {
            std::thread::park();
        }
    });
    let queues = home.open_within(StoreChoice::Other(hangs), Duration::from_millis(100));
    let stats = queues.stats();
    assert_eq!(stats.store_resets, 1);
    assert!(stats.store_given_up.is_some_and(|why| why.contains("did not open within")));
    drop(queues);
    let queues = home.check(StoreChoice::Sled, low);
    assert_sound(&queues);
    queues.close().expect("closes");
}

#[test]
fn a_store_on_a_full_disk_is_gone_without_and_one_directory_set_aside_is_kept() {
    let home = Home::new();
    let low = home.live(StoreChoice::Sled);
    let opens = Arc::new(Mutex::new(0));
    let theirs = Arc::clone(&opens);
    let full: OpenStore = Arc::new(move || {
        *theirs.lock().expect("not poisoned") += 1;
        Err(forebay::StoreError("no space left on device".into()))
    });
    let aside = || -> Vec<String> {
        let names = std::process::Command::new("ls").arg(home.path("")).output().expect("ls").stdout;
        let names = String::from_utf8(names).expect("ASCII");
        names.lines().filter(|name| name.starts_with("sled.bad-")).map(str::to_owned).collect()
    };
    drop(home.open(StoreChoice::Other(Arc::clone(&full))));
    assert_eq!(*opens.lock().expect("not poisoned"), 2, "once as it was, once empty");
    let first = aside();
    assert_eq!(first.len(), 1);
    // Again, with a sled to set aside again.
    drop(home.open(StoreChoice::Sled));
    std::thread::sleep(Duration::from_millis(5));
    drop(home.open(StoreChoice::Other(full)));
    let second = aside();
    assert!(second.len() == 1 && second != first, "{first:?}, then {second:?}");
    home.check(StoreChoice::Sled, low).close().expect("closes");
}

/// Lives twice, and puts the floor of the first time under what the second one left of sled. Where the floor stood then, and
/// where it did at last.
fn newer_sled_over_older_floor(home: &Home) -> [u64; 2] {
    let floor = home.path("floor");
    let older = home.live(StoreChoice::Sled);
    let old = read(&floor);
    let newer = home.live(StoreChoice::Sled);
    assert!(older < newer);
    write(&floor, &old);
    [older, newer]
}

/// Starts where `low` says, and everything from there on comes, once, to the end, under the ids that it had.
fn all_comes_from(home: &Home, queues: &Queues, low: u64, end: u64) {
    let queue = queues.queue("hook", "acme", Start::Earliest).expect("it is there");
    assert_eq!(queue.cursor().low, low);
    let mut next = low;
    while let Some(batch) = queue.next_batch(ANY).expect("reads") {
        assert_eq!(batch.offsets.start, next);
        home.comes_under_its_id(&batch);
        next = batch.offsets.end;
        queue.settle(&batch, Settled::Delivered);
    }
    assert_eq!(next, end);
    queues.tick().expect("the disk is sound");
    assert!(queue.balance().closes() && queue.lag().records == 0);
}

#[test]
fn a_sled_that_is_newer_than_the_floor_spares_what_it_knows_to_be_delivered() {
    let home = Home::new();
    let [_, newer] = newer_sled_over_older_floor(&home);
    let queues = home.open(StoreChoice::Sled);
    assert_eq!((queues.stats().hints_taken, queues.stats().hints_refused), (1, 0));
    all_comes_from(&home, &queues, newer, newer + 10);
    queues.close().expect("closes");
}

/// Here a hint that is believed counts: damage must leave it whole or take it away.
#[test]
fn a_newer_sled_that_is_damaged_anyhow_costs_repeats_and_nothing_else() {
    let mut taken = 0;
    let damages = number("FOREBAY_DAMAGES", 8);
    for seed in 0..damages {
        let home = Home::new();
        let [older, newer] = newer_sled_over_older_floor(&home);
        damage(&home.path("sled"), seed);
        let queues = home.open(StoreChoice::Sled);
        let hints = queues.stats().hints_taken;
        taken += hints;
        all_comes_from(&home, &queues, if hints == 0 { older } else { newer }, newer + 10);
        queues.close().expect("closes");
    }
    assert!(taken < damages, "some lost what they knew");
}

#[test]
fn the_sled_of_another_node_is_not_believed_however_much_it_knows() {
    let [home, other] = [Home::new(), Home::new()];
    let low = home.live(StoreChoice::Sled);
    other.live(StoreChoice::Sled);
    assert!(other.live(StoreChoice::Sled) > low);
    // The log holds as much: nothing but its id tells that these are other records.
    let queues = home.open(StoreChoice::None);
    for _ in 0..10 {
        queues.log().append_wait("acme", vec![Payload { bytes: vec![1; 100], records: 10 }]).expect("it is taken");
    }
    queues.close().expect("closes");
    drop(queues);
    files_of(&home.path("sled")).iter().for_each(|path| RealDisk.remove(path).expect("removed"));
    for path in files_of(&other.path("sled")) {
        write(&home.path("sled").join(path.file_name().expect("a name")), &read(&path));
    }
    let queues = home.open(StoreChoice::Sled);
    assert_eq!((queues.stats().hints_taken, queues.stats().hints_refused), (0, 1));
    all_comes_from(&home, &queues, low, low + 110);
    queues.close().expect("closes");
}
