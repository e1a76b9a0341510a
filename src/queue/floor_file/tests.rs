mod moved;
mod refused;
mod sizes;

use super::whole::EVIDENCE_NAME;
use super::*;
use crate::disk::counted::CountedDisk;
use crate::disk::mem::MemDisk;
use crate::disk::{Lock, Space, read_all};
use crate::queue::balance::{Books, Count, Settled};
use crate::queue::cursor::Cursor;
use crate::queue::marked::{Marked, MarkedRange};
use crate::queue::replay::Replayed;
use crate::{Sequence, StreamId};
use proptest::prelude::RngExt;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

const LOG: LogId = LogId(7 << 100);

fn dir() -> PathBuf {
    PathBuf::from("data")
}

fn fresh_disk() -> MemDisk {
    let disk = MemDisk::new();
    disk.create_dir(&dir()).expect("a new directory");
    disk
}

/// The entry of queue `n` when it has settled `low` records and every other one of the next `2 * ranges`.
fn entry(n: u32, low: u64, ranges: u64) -> FloorEntry {
    let mut cursor = Cursor::at(0, 0);
    let mut books = Books::from(0, 0);
    let above = (0..ranges).map(|range| low + 1 + range * 2).map(|start| start..start + 1);
    for offsets in std::iter::once(0..low).filter(|offsets| !offsets.is_empty()).chain(above) {
        let count = Count { records: offsets.end - offsets.start, bytes: (offsets.end - offsets.start) * 100 };
        cursor.insert(offsets.clone(), offsets.start * 100..offsets.end * 100);
        books.post(count, Settled::Delivered);
    }
    FloorEntry {
        destination: format!("destination-{n:05}").into(),
        stream: "acme-prod".into(),
        stream_id: Some(StreamId(n % 7)),
        incarnation: 0,
        epoch: 0,
        books,
        cursor,
        extra: None,
    }
}

fn load(disk: &MemDisk) -> (FloorFile, Vec<FloorDamage>) {
    load_beside(disk, false)
}

/// A floor as the commit behind the first one of a start finds it: that one has written all of it to a new file.
fn load_and_commit(disk: &MemDisk) -> FloorFile {
    let (mut floor, damage) = load(disk);
    assert_eq!(damage, []);
    assert!(floor.commit().expect("the disk is sound").whole);
    floor
}

/// A floor that has to go on in the file that was found, and its disk.
fn load_on_a_full_disk(disk: &MemDisk) -> (FloorFile, MemDisk) {
    let plays = Plays::on(disk);
    plays.full.store(true, Ordering::SeqCst);
    let (mut floor, found) = FloorFile::load(Arc::new(plays.clone()), &dir()).expect("the file opens");
    assert_eq!(floor.bind(LOG, &found, false), None);
    assert_eq!(found, Found::File(vec![]));
    (floor, plays.disk)
}

fn load_beside(disk: &MemDisk, log_is_empty: bool) -> (FloorFile, Vec<FloorDamage>) {
    let (mut floor, found) = FloorFile::load(Arc::new(disk.clone()), &dir()).expect("the file opens");
    let foreign = floor.bind(LOG, &found, log_is_empty);
    let damage = if let Found::File(damage) = found { damage } else { Vec::new() };
    (floor, damage.into_iter().chain(foreign).collect())
}

fn new_floor(disk: Arc<dyn Disk>) -> FloorFile {
    let (mut floor, found) = FloorFile::load(disk, &dir()).expect("there is none");
    assert_eq!(floor.bind(LOG, &found, true), None, "a new log has a new floor");
    floor
}

/// A floor of these entries on a disk of its own, committed twice so that both slots of every page are in use.
fn floor_of(entries: impl IntoIterator<Item = FloorEntry>) -> MemDisk {
    let disk = fresh_disk();
    let mut floor = new_floor(Arc::new(disk.clone()));
    entries.into_iter().for_each(|entry| assert!(floor.add(entry).is_some()));
    floor.add_synced(vec![SyncedMark { sequence: Sequence(3), position: 77 }]);
    floor.commit().expect("the disk is sound");
    disk
}

fn all(floor: &FloorFile) -> Vec<FloorEntry> {
    let mut entries: Vec<_> = floor.entries().map(|(_, entry)| entry.clone()).collect();
    entries.sort_by(|a, b| a.destination.cmp(&b.destination));
    entries
}

fn bytes_of(disk: &MemDisk, name: &str) -> Vec<u8> {
    read_all(&*disk.open(&dir().join(name)).expect("it is there")).expect("memory reads")
}

fn overwrite(disk: &MemDisk, position: usize, bytes: &[u8]) {
    let file = disk.open(&dir().join(FLOOR_NAME)).expect("it is there");
    file.write_all_at(&[IoSlice::new(bytes)], position as u64).expect("memory writes");
}

#[test]
fn what_was_committed_is_there_after_a_reopen() {
    let entries: Vec<_> = (0..500).map(|n| entry(n, u64::from(n), u64::from(n) % 9)).collect();
    let disk = floor_of(entries.clone());
    let (floor, damage) = load(&disk);
    assert_eq!(damage, []);
    assert_eq!(all(&floor), entries);
    assert_eq!(floor.synced(), [SyncedMark { sequence: Sequence(3), position: 77 }]);
    assert!(!floor.is_pinned());
}

#[test]
fn an_entry_with_every_range_and_the_longest_names_is_as_long_as_the_page_allows_for() {
    let mut longest = entry(0, 500, 256);
    longest.destination = "d".repeat(40).into();
    let mut marked = Marked::default();
    (0..64)
        .map(|n| MarkedRange { start: n * 2, end: n * 2 + 1, start_bytes: n * 200, bytes: 100, at_ms: 7 })
        .for_each(|range| marked.add(range));
    longest.extra = Some(Box::new(Extra::Marked(Replayed::default(), marked)));
    longest.stream = "s".repeat(128).into();
    let mut bytes = Vec::new();
    longest.encode(&mut bytes);
    // The name of a replay is longer, and what stands behind its cursor much shorter.
    let most = FloorEntry::ENCODED_BYTES_MAX - crate::queue::replay::SUFFIX_BYTES_MAX;
    assert_eq!((bytes.len(), longest.encoded_len()), (most, most));
    let disk = floor_of([longest.clone(), entry(1, 2, 3)]);
    assert_eq!(all(&load(&disk).0)[0], longest);
}

#[test]
fn a_commit_writes_the_changed_pages_and_syncs_once_and_an_idle_one_does_nothing() {
    let disk = CountedDisk::new(Arc::new(fresh_disk()));
    let mut floor = new_floor(Arc::new(disk.clone()));
    let ids: Vec<_> = (0..1_000).map(|n| floor.add(entry(n, 0, 0)).expect("room")).collect();
    floor.commit().expect("the disk is sound");

    let before = disk.counts();
    assert_eq!(floor.commit().expect("the disk is sound"), Committed::default());
    assert_eq!(disk.counts() - before, crate::disk::counted::Counts::default());

    // Neighbours share a page: thirty queues that move are one or two pages, and one sync.
    ids[..30].iter().zip(0..).for_each(|(id, n)| floor.set(*id, entry(n, 9, 1)));
    let committed = floor.commit().expect("the disk is sound");
    assert!(committed.slots <= 2, "{committed:?}");
    assert_eq!(committed.syncs, 1);
    let counts = disk.counts() - before;
    assert_eq!((counts.file_syncs, counts.bytes_written), (1, (committed.slots * FLOOR_SLOT_BYTES) as u64));
}

#[test]
fn one_bad_slot_falls_back_to_the_other_at_any_damaged_byte() {
    let disk = floor_of((0..3).map(|n| entry(n, 10, 2)));
    let mut floor = load_and_commit(&disk);
    let (id, _) = floor.entries().next().expect("three");
    floor.set(id, entry(0, 20, 0));
    floor.commit().expect("the disk is sound");
    let sound = bytes_of(&disk, FLOOR_NAME);
    // Page 1 is slots 2 and 3; the commit went to slot 2, the older.
    for (slot, low) in [(2, 10), (3, 20)] {
        for at in (0..FLOOR_SLOT_BYTES).step_by(61).chain([0, 4, 8, 12, FLOOR_SLOT_BYTES - 1]) {
            let position = slot * FLOOR_SLOT_BYTES + at;
            overwrite(&disk, position, &[sound[position] ^ 0x40]);
            let (floor, damage) = load(&disk);
            assert_eq!((damage, floor.is_pinned()), (vec![], false), "byte {at} of slot {slot}");
            assert_eq!(all(&floor)[0].cursor.low, low, "byte {at} of slot {slot}");
            overwrite(&disk, position, &sound[position..=position]);
        }
    }
}

#[test]
fn a_page_with_both_slots_bad_pins_is_named_and_stays_pinned_until_the_operator_says_so() {
    let entries: Vec<_> = (0..100).map(|n| entry(n, 10, 2)).collect();
    let disk = floor_of(entries);
    overwrite(&disk, 2 * FLOOR_SLOT_BYTES + 100, &[0xEE; 13_000]);
    let damaged = bytes_of(&disk, FLOOR_NAME);
    let (mut floor, damage) = load(&disk);
    assert_eq!(damage, [FloorDamage::Page { page: 1 }]);
    assert!(floor.is_pinned());
    let left = floor.entries().count();
    assert!(0 < left && left < 100, "the other pages are sound");
    floor.commit().expect("the disk is sound");
    assert_eq!(bytes_of(&disk, EVIDENCE_NAME), damaged, "kept for whoever looks into it");

    let (mut floor, damage) = load(&disk);
    assert_eq!((damage, floor.is_pinned(), floor.entries().count()), (vec![], true, left), "it outlives a restart");
    floor.unpin();
    floor.commit().expect("the disk is sound");
    assert!(!load(&disk).0.is_pinned());
}

#[test]
fn a_truncated_emptied_missing_or_foreign_floor_is_damage_and_never_passes_for_a_new_one() {
    let entries: Vec<_> = (0..100).map(|n| entry(n, 10, 0)).collect();
    let disk = floor_of(entries);
    let path = dir().join(FLOOR_NAME);
    let file = disk.open(&path).expect("it is there");
    let expected = file.len().expect("memory");
    let cut = 3 * 2 * FLOOR_SLOT_BYTES as u64 - 5;
    file.set_len(cut).expect("memory");
    let (floor, damage) = load(&disk);
    assert_eq!(damage, [FloorDamage::Truncated { bytes: cut, expected }], "named once");
    assert!(floor.is_pinned() && floor.entries().count() > 0);

    let cut = 3 * 2 * FLOOR_SLOT_BYTES as u64;
    file.set_len(cut).expect("memory");
    assert_eq!(load(&disk).1, [FloorDamage::Truncated { bytes: cut, expected }], "of whole pages");

    file.set_len(0).expect("memory");
    let (floor, damage) = load(&disk);
    assert_eq!((damage, floor.is_pinned()), (vec![FloorDamage::Whole { bytes: 0 }], true));

    disk.remove(&path).expect("memory");
    let (floor, damage) = load(&disk);
    assert_eq!((damage, floor.is_pinned()), (vec![FloorDamage::Missing], true));

    let disk = floor_of([entry(0, 10, 0)]);
    let (mut floor, found) = FloorFile::load(Arc::new(disk), &dir()).expect("the file opens");
    assert_eq!(floor.bind(LogId(1), &found, false), Some(FloorDamage::Foreign { found: LOG }));
    assert!(floor.is_pinned());
    assert_eq!(floor.entries().count(), 0);
}

#[test]
fn a_slot_of_another_log_or_of_a_floor_of_another_size_is_not_taken() {
    let whole = |log_id, pages, generation| {
        let header = Header { page: 1, pages, generation, log_id, pinned: false };
        page::encode(header, [entry(9, 99, 0)].iter())
    };
    for (log_id, pages) in [(LogId(1), 4), (LOG, 5)] {
        let disk = floor_of([entry(0, 10, 0)]);
        assert_eq!(bytes_of(&disk, FLOOR_NAME).len(), 4 * 2 * FLOOR_SLOT_BYTES, "four pages");
        for slot in [2, 3] {
            overwrite(&disk, slot * FLOOR_SLOT_BYTES, &whole(log_id, pages, 1));
        }
        let (floor, damage) = load(&disk);
        assert_eq!(damage, [FloorDamage::Page { page: 1 }]);
        assert!(floor.is_pinned() && floor.entries().count() == 0);
    }
}

#[test]
fn page_zero_holds_no_cursors_so_its_loss_pins_nothing() {
    let disk = floor_of([entry(0, 10, 0)]);
    overwrite(&disk, 50, &[0xEE; 13_000]);
    let (floor, damage) = load(&disk);
    assert_eq!(damage, [FloorDamage::Page { page: 0 }]);
    assert!(!floor.is_pinned() && floor.synced().is_empty());
    assert_eq!(floor.entries().count(), 1);
}

#[test]
fn a_newer_format_is_refused_as_such_and_not_taken_for_damage() {
    let disk = floor_of([entry(0, 10, 0)]);
    let mut slot = bytes_of(&disk, FLOOR_NAME)[..FLOOR_SLOT_BYTES].to_vec();
    slot[8] = 5;
    let crc = crc32fast::hash(&slot[4..]);
    slot[..4].copy_from_slice(&crc.to_le_bytes());
    overwrite(&disk, 0, &slot);
    let error = FloorFile::load(Arc::new(disk), &dir()).err().expect("refused");
    assert!(matches!(error, FloorError::NewerFormat { version: 5, .. }), "{error}");
}

/// A page that version 1 had filled is too small for its entries since they have a seventh count. A fuzzer found that
/// such a page cannot be written as it was read; the floor must move entries out of it, and lose none.
#[test]
fn a_page_that_version_1_had_filled_makes_room_with_its_next_change() {
    let (entries, disk) = filled_by_version_1(|_| ());

    let (mut floor, disk) = load_on_a_full_disk(&disk);
    assert_eq!(all(&floor), entries);
    let (id, _) = floor.entries().next().expect("seventy");
    floor.set(id, entry(0, 9, 0));
    assert!(!floor.commit().expect("the disk is sound").whole);
    let (floor, damage) = load(&disk);
    assert_eq!(damage, []);
    assert_eq!(all(&floor)[1..], entries[1..]);
    assert_eq!(all(&floor)[0], entry(0, 9, 0));
}

/// Before: a page whose older slot only had to be made like the newer one was written as it lay, and the start panicked.
#[test]
fn a_page_that_version_1_had_filled_makes_room_when_its_older_slot_is_made_good() {
    let (entries, disk) = filled_by_version_1(|older| older[3] = entry(3, 1, 0));
    let (mut floor, disk) = load_on_a_full_disk(&disk);
    assert!(floor.changed.is_empty() && floor.lagging.contains(&1), "{:?} {:?}", floor.changed, floor.lagging);
    assert!(!floor.commit().expect("the disk is sound").whole);
    let (floor, damage) = load(&disk);
    assert_eq!(damage, []);
    assert_eq!(all(&floor), entries);
}

/// Seventy entries, and a floor whose page 1 is full of them in version 1. `older` makes the older slot differ.
fn filled_by_version_1(older: impl FnOnce(&mut [FloorEntry])) -> (Vec<FloorEntry>, MemDisk) {
    let entries: Vec<_> = (0..70).map(|n| entry(n, u64::from(n), 0)).collect();
    let disk = floor_of([]);
    let len: usize = entries.iter().map(FloorEntry::encoded_len).sum();
    assert!(len > page::ENTRIES_BYTES_MAX && len - 70 * 17 <= page::ENTRIES_BYTES_MAX, "{len}");
    let mut before = entries.clone();
    older(&mut before);
    for (slot, generation, entries) in [(2, 50, &before), (3, 51, &entries)] {
        overwrite(&disk, slot * FLOOR_SLOT_BYTES, &slot_of_version_1(entries, generation));
    }
    (entries, disk)
}

/// Page 1 as version 1 wrote it: the books without the seventh count, and nothing behind the cursor.
fn slot_of_version_1(entries: &[FloorEntry], generation: u64) -> Vec<u8> {
    let header = Header { page: 1, pages: 4, generation, log_id: LOG, pinned: false };
    let mut body = u16::try_from(entries.len()).expect("seventy").to_le_bytes().to_vec();
    for entry in entries {
        let mut bytes = Vec::new();
        entry.encode(&mut bytes);
        bytes.pop();
        let books_end = bytes.len() - (8 + 8 + 2); // a cursor without ranges
        bytes.drain(books_end - 16..books_end);
        body.extend(bytes);
    }
    let mut slot = page::encode(header, [].iter());
    slot[8] = 1;
    slot[20..24].copy_from_slice(&u32::try_from(body.len()).expect("below 12 KiB").to_le_bytes());
    slot[48..48 + body.len()].copy_from_slice(&body);
    let crc = crc32fast::hash(&slot[4..]);
    slot[..4].copy_from_slice(&crc.to_le_bytes());
    slot
}

#[test]
fn after_a_failed_sync_the_file_is_left_alone_and_a_new_one_takes_its_place() {
    let plays = Plays::on(&fresh_disk());
    let mut floor = new_floor(Arc::new(plays.clone()));
    let id = floor.add(entry(0, 1, 0)).expect("room");
    floor.commit().expect("the disk is sound");
    floor.set(id, entry(0, 2, 0));
    plays.fail_syncs(1);
    let error = floor.commit().expect_err("the sync failed");
    assert!(error.to_string().starts_with("cannot sync the floor file data/floor"), "{error}");

    let before = plays.steps();
    assert_eq!(floor.commit().expect("the disk is sound again").syncs, 1);
    let after = plays.steps();
    let first_file = |step: &Step| matches!(step, Step::Write(0, ..) | Step::Sync(0));
    assert!(!after[before.len()..].iter().any(first_file), "nothing touches the failed file");
    assert_eq!(all(&load(&plays.disk).0), [entry(0, 2, 0)]);
}

/// Each commit changes, adds, grows and shrinks entries; then the power fails at every step of it in turn, with any
/// part of what was not synced on the disk. What was committed is there, as it was or as it was to become; nothing is
/// lost, nothing is damage. Then it goes on from there, so that crashes meet what crashes left.
#[test]
fn whatever_a_power_cut_leaves_no_entry_is_lost() {
    let mut rng =
        TestRunner::new_with_rng(Config::default(), TestRng::from_seed(RngAlgorithm::ChaCha, &[5; 32])).new_rng();
    let mut cuts = 0;
    let mut moved = 0;
    for _ in 0..20 {
        let mut disk = fresh_disk();
        let mut committed: Vec<FloorEntry> = Vec::new();
        let mut born = 0;
        for _ in 0..8 {
            let plays = Plays::on(&disk);
            let (mut floor, found) = FloorFile::load(Arc::new(plays.clone()), &dir()).expect("it opens");
            assert_eq!(floor.bind(LOG, &found, committed.is_empty()), None);
            let known = all(&floor);
            assert_eq!(known, committed);
            if rng.random_bool(0.8) {
                // As a start does, here and there on a disk that has no room for a new file.
                plays.full.store(found != Found::Nothing && rng.random_bool(0.3), Ordering::SeqCst);
                floor.commit().expect("it lies there already");
                plays.full.store(false, Ordering::SeqCst);
            }
            for (id, old) in floor.entries().map(|(id, entry)| (id, entry.clone())).collect::<Vec<_>>() {
                if rng.random_bool(0.3) {
                    let n = old.destination[12..].parse().expect("a number");
                    let ranges = if rng.random_bool(0.1) { rng.random_range(0..=256) } else { rng.random_range(0..8) };
                    floor.set(id, entry(n, old.cursor.end() + 1, ranges));
                }
            }
            for _ in 0..rng.random_range(0..30) {
                floor.add(entry(born, 0, 0)).expect("room");
                born += 1;
            }
            let intended = all(&floor);
            let done = floor.commit().expect("the disk is sound");
            moved += usize::from(done.syncs == 2);
            let steps = plays.steps();
            let goes_on_from = if rng.random_bool(0.5) { steps.len() } else { rng.random_range(0..=steps.len()) };
            let mut left = None;
            for stop in 0..=steps.len() {
                let image = plays.power_cut(stop, &mut rng);
                let (floor, damage) = load_beside(&image, committed.is_empty());
                assert_eq!(damage, [], "step {stop} of {steps:?}");
                let found = all(&floor);
                assert!(found.iter().all(|entry| committed.contains(entry) || intended.contains(entry)));
                let names: BTreeSet<_> = found.iter().map(|entry| &entry.destination).collect();
                assert_eq!(names.len(), found.len(), "nobody is there twice");
                assert!(committed.iter().all(|entry| names.contains(&entry.destination)), "step {stop} of {steps:?}");
                assert!(stop < steps.len() || found == intended);
                cuts += 1;
                if stop == goes_on_from {
                    left = Some((image, found));
                }
            }
            (disk, committed) = left.expect("it is one of the steps");
        }
    }
    assert!(cuts > 1_000 && moved > 25, "{cuts} cuts, {moved} commits with two rounds: the test has gone blind");
}

/// What was done to the disk, file by file.
#[derive(Debug, Clone)]
enum Step {
    Create(usize, PathBuf),
    Grow(usize, u64),
    Write(usize, u64, Vec<u8>),
    Sync(usize),
    Rename(PathBuf, PathBuf),
    Remove(PathBuf),
    SyncDir,
}

/// Plays on a disk, remembers every step, and gives the images that a power cut could leave.
#[derive(Clone)]
struct Plays {
    disk: MemDisk,
    before: Vec<(PathBuf, Vec<u8>)>,
    steps: Arc<Mutex<Vec<Step>>>,
    opened: Arc<Mutex<Vec<PathBuf>>>,
    failing: Arc<Mutex<usize>>,
    /// Files can't be given room.
    full: Arc<AtomicBool>,
}

struct PlaysFile {
    inner: Arc<dyn File>,
    number: usize,
    plays: Plays,
}

impl Plays {
    fn on(disk: &MemDisk) -> Self {
        let names = disk.list(&dir()).expect("memory");
        let before = names.iter().map(|name| (dir().join(name), bytes_of(disk, name))).collect();
        let disk = fresh_copy(&before);
        Self {
            disk,
            before,
            steps: Arc::default(),
            opened: Arc::default(),
            failing: Arc::default(),
            full: Arc::default(),
        }
    }

    fn fail_syncs(&self, count: usize) {
        *self.failing.lock().expect("one thread") = count;
    }

    fn steps(&self) -> Vec<Step> {
        self.steps.lock().expect("one thread").clone()
    }

    fn did(&self, step: Step) {
        self.steps.lock().expect("one thread").push(step);
    }

    fn file(&self, path: &Path, inner: Arc<dyn File>) -> Arc<dyn File> {
        let mut opened = self.opened.lock().expect("one thread");
        opened.push(path.to_owned());
        Arc::new(PlaysFile { inner, number: opened.len() - 1, plays: self.clone() })
    }

    /// What is on the disk when the power fails after `stop` steps.
    fn power_cut(&self, stop: usize, rng: &mut TestRng) -> MemDisk {
        // Files by number: durable bytes and what waits for a sync. Names: as synced, and as seen by a process.
        let opened = self.opened.lock().expect("one thread").clone();
        let mut files: Vec<(Vec<u8>, Vec<Step>)> = vec![(Vec::new(), Vec::new()); opened.len()];
        let mut live: HashMap<PathBuf, usize> = HashMap::new();
        for (path, bytes) in &self.before {
            // A file that was there before and never opened is numbered behind the others.
            let number =
                opened.iter().position(|open| open == path).filter(|n| !self.created(*n)).unwrap_or_else(|| {
                    files.push((Vec::new(), Vec::new()));
                    files.len() - 1
                });
            files[number].0.clone_from(bytes);
            live.insert(path.clone(), number);
        }
        let mut durable = live.clone();
        for step in self.steps.lock().expect("one thread").iter().take(stop).cloned() {
            match step {
                Step::Create(number, path) => drop(live.insert(path, number)),
                Step::Rename(from, to) => {
                    let number = live.remove(&from).expect("it is there");
                    live.insert(to, number);
                }
                Step::Remove(path) => drop(live.remove(&path)),
                Step::SyncDir => durable.clone_from(&live),
                Step::Sync(number) => {
                    let (bytes, waiting) = &mut files[number];
                    std::mem::take(waiting).iter().for_each(|step| play(bytes, step, |_| true));
                }
                Step::Grow(number, _) | Step::Write(number, ..) => files[number].1.push(step),
            }
        }
        let names = if rng.random_bool(0.5) { live } else { durable };
        let image = names.into_iter().map(|(path, number)| {
            let (mut bytes, waiting) = files[number].clone();
            for step in &waiting {
                let (all, none) = (rng.random_bool(0.3), rng.random_bool(0.3));
                play(&mut bytes, step, |_sector| all || (!none && rng.random_bool(0.5)));
            }
            (path, bytes)
        });
        fresh_copy(&image.collect())
    }

    fn created(&self, number: usize) -> bool {
        let steps = self.steps.lock().expect("one thread");
        steps.iter().any(|step| matches!(step, Step::Create(created, _) if *created == number))
    }
}

/// Applies the sectors of a step that made it to the disk.
fn play(bytes: &mut Vec<u8>, step: &Step, mut lands: impl FnMut(usize) -> bool) {
    match step {
        Step::Grow(_, len) if lands(0) => bytes.resize((*len as usize).max(bytes.len()), 0),
        Step::Write(_, position, written) => {
            for (n, sector) in written.chunks(512).enumerate().filter(|(n, _)| lands(*n)) {
                let start = *position as usize + n * 512;
                bytes.resize(bytes.len().max(start + sector.len()), 0);
                bytes[start..start + sector.len()].copy_from_slice(sector);
            }
        }
        _ => {}
    }
}

fn fresh_copy(files: &Vec<(PathBuf, Vec<u8>)>) -> MemDisk {
    let disk = fresh_disk();
    for (path, bytes) in files {
        disk.create(path).and_then(|file| file.write_all_at(&[IoSlice::new(bytes)], 0)).expect("memory");
    }
    disk
}

impl Disk for Plays {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let file = self.file(path, self.disk.create(path)?);
        self.did(Step::Create(self.opened.lock().expect("one thread").len() - 1, path.to_owned()));
        Ok(file)
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        Ok(self.file(path, self.disk.open(path)?))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.disk.list(dir)
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.disk.create_dir(dir)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to)?;
        self.did(Step::Rename(from.to_owned(), to.to_owned()));
        Ok(())
    }

    fn rename_dir(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename_dir(from, to)
    }

    fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        self.disk.remove_dir(dir)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.disk.remove(path)?;
        self.did(Step::Remove(path.to_owned()));
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.disk.sync_dir(dir)?;
        self.did(Step::SyncDir);
        Ok(())
    }

    fn lock(&self, path: &Path, holder: &str) -> io::Result<Box<dyn Lock>> {
        self.disk.lock(path, holder)
    }

    fn space(&self, dir: &Path) -> io::Result<Space> {
        self.disk.space(dir)
    }

    fn entropy(&self) -> u128 {
        self.disk.entropy()
    }
}

impl File for PlaysFile {
    fn read_at(&self, buf: &mut [u8], position: u64) -> io::Result<usize> {
        self.inner.read_at(buf, position)
    }

    fn write_all_at(&self, bufs: &[IoSlice<'_>], position: u64) -> io::Result<()> {
        self.inner.write_all_at(bufs, position)?;
        self.plays.did(Step::Write(self.number, position, bufs.iter().flat_map(|buf| buf.to_vec()).collect()));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut failing = self.plays.failing.lock().expect("one thread");
        if *failing > 0 {
            *failing -= 1;
            return Err(io::Error::other("the disk is failing"));
        }
        self.plays.did(Step::Sync(self.number));
        self.inner.sync_data()
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        if self.plays.full.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.inner.allocate(len)?;
        self.plays.did(Step::Grow(self.number, len));
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.inner.set_len(len)
    }

    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }
}
