//! The golden floors: a floor file that any version wrote must be read, and the same history must give the bytes of the
//! newest.
//!
//! Whoever means a change of format raises the version, keeps the old file, and writes a new one with
//! `FOREBAY_WRITE_GOLDEN=1 cargo test -p storage-tests --test golden_floor`. The bytes are drawn in docs/format.md.
#![expect(clippy::disallowed_methods, reason = "golden files lie in the repository, not on a simulated disk")]

use forebay::clock::ManualClock;
use forebay::disk::{Disk, mem::MemDisk, read_all};
use forebay::{
    BatchLimits, Count, Cursor, LogOptions, MarkedRange, Much, Payload, QueueOptions, Queues, ReplayFrom, ReplayMode,
    ReplayRequest, Replayed, Settled, SettledRange, Start,
};
use std::io::IoSlice;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use storage_tests::known_entropy::KnownEntropy;

fn open(disk: &MemDisk) -> Queues {
    let (disk, clock) = (Arc::new(KnownEntropy(disk.clone())), Arc::new(ManualClock::at(1_795_450_894_000)));
    Queues::open(disk, clock, Path::new("/data"), LogOptions::small(), QueueOptions::inline()).expect("it opens")
}

/// Two queues and a replay; one settled some of each kind with two ranges above its low mark, one has a planned batch in flight,
/// and behind that records that were given up where they lie, some of which are sent again.
fn history(disk: &MemDisk) -> Queues {
    let queues = open(disk);
    let hook = queues.queue("acme-hook", "acme-prod", Start::Earliest).expect("it is made");
    let archive = queues.queue("acme-archive", "acme-prod", Start::Earliest).expect("it is made");
    for records in [10, 20, 30] {
        let payload = Payload { bytes: vec![b'x'; 100], records };
        queues.log().append_wait("acme-prod", vec![payload]).expect("it is taken");
    }
    use Settled::{DeadLettered, Delivered, Expired, Filtered, Held, Purged};
    let kinds = [Delivered, DeadLettered, Filtered, Expired, Purged, Held];
    for (n, as_) in (0..).zip(kinds) {
        hook.settle_range(n * 3..n * 3 + 3, as_);
    }
    hook.settle_range(20..30, Settled::Delivered);
    hook.settle_range(40..60, Settled::Delivered);
    let limits = BatchLimits { records_max: 25, bytes_max: u64::MAX };
    let batch = archive.next_batch(limits).expect("memory reads").expect("more");
    archive.plan(&batch, Box::new(|result| result.expect("durable")));
    for _ in 0..2 {
        archive.mark_oldest(Much::Bytes(40)).expect("memory reads");
    }
    queues.tick().expect("memory writes");
    let request = ReplayRequest { from: ReplayFrom::Earliest, to: None, mode: ReplayMode::Fill };
    let replay = queues.replay("acme-hook", "acme-prod", request).expect("all of it is kept");
    replay.settle_range(0..2, Settled::Delivered);
    queues.cancel_replay("acme-hook", "acme-prod").expect("memory writes");
    let request = ReplayRequest { mode: ReplayMode::Again, ..request };
    queues.replay("acme-hook", "acme-prod", request).expect("all of it is kept");
    queues.redrive("acme-archive", "acme-prod", 0..40).expect("memory writes").expect("the first range lies there");
    queues
}

fn golden(version: u16) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("golden/v{version}-floor/floor"))
}

fn floor_of(disk: &MemDisk) -> Vec<u8> {
    read_all(&*disk.open("/data/floor".as_ref()).expect("it is there")).expect("memory reads")
}

#[test]
fn the_same_history_gives_the_same_bytes() {
    let disk = MemDisk::new();
    drop(history(&disk));
    let written = floor_of(&disk);
    if std::env::var_os("FOREBAY_WRITE_GOLDEN").is_some() {
        std::fs::create_dir_all(golden(4).parent().expect("it has one")).expect("the repository can be written");
        std::fs::write(golden(4), &written).expect("the repository can be written");
    }
    let golden = std::fs::read(golden(4)).expect("the golden floor is there");
    let differs = golden.iter().zip(&written).position(|(a, b)| a != b);
    assert_eq!((differs, written.len()), (None, golden.len()), "the first byte that differs, and the length");
}

/// The log of the history, with the golden floor of this version.
fn disk_with(version: u16) -> MemDisk {
    let disk = MemDisk::new();
    drop(history(&disk));
    let file = disk.open("/data/floor".as_ref()).expect("it is there");
    file.set_len(0).expect("memory");
    let bytes = std::fs::read(golden(version)).expect("the golden floor is there");
    file.write_all_at(&[IoSlice::new(&bytes)], 0).expect("memory writes");
    disk
}

#[test]
fn a_floor_of_version_1_is_read_and_goes_on_as_one_of_the_newest() {
    let disk = disk_with(1);

    let queues = open(&disk);
    let stats = queues.stats();
    assert_eq!((stats.floor_damage.len(), stats.plans_resumed), (0, 1));
    let hook = queues.queue("acme-hook", "acme-prod", Start::Now).expect("it is known");
    let settled = [
        SettledRange { start: 20, end: 30, start_bytes: 150, bytes: 50 },
        SettledRange { start: 40, end: 60, start_bytes: 233, bytes: 67 },
    ];
    assert_eq!(hook.cursor(), Cursor { low: 15, low_bytes: 125, settled: settled.to_vec() });
    let balance = hook.balance();
    assert!(balance.closes());
    assert_eq!(balance.delivered, Count { records: 33, bytes: 147 });
    assert_eq!(balance.purged, Count { records: 3, bytes: 15 });
    assert_eq!(hook.settle_range(15..17, Settled::Held), 2);
    queues.tick().expect("memory writes");
    let pending = hook.balance().pending;
    drop((hook, queues));

    let hook = open(&disk).queue("acme-hook", "acme-prod", Start::Now).expect("it is known");
    let balance = hook.balance();
    assert!(balance.closes());
    assert_eq!((balance.held.records, balance.pending, balance.delivered.records), (2, pending, 33));
}

#[test]
fn a_floor_of_version_2_is_read() {
    let queues = open(&disk_with(2));
    assert_eq!((queues.stats().floor_damage.len(), queues.stats().plans_resumed), (0, 1));
    let balance = queues.queue("acme-hook", "acme-prod", Start::Now).expect("it is known").balance();
    assert!(balance.closes());
    assert_eq!((balance.held.records, balance.purged.records, balance.delivered.records), (3, 3, 33));
    assert!(queues.replays().is_empty());
}

#[test]
fn a_floor_of_version_3_is_read_with_its_replay() {
    let queues = open(&disk_with(3));
    assert_eq!((queues.stats().floor_damage.len(), queues.stats().plans_resumed), (0, 1));
    let hook = queues.queue("acme-hook", "acme-prod", Start::Now).expect("it is known");
    let replayed = Replayed { replays: 1, delivered: Count { records: 2, bytes: 20 } };
    assert_eq!((hook.replayed(), hook.balance().delivered.records), (replayed, 33));
    let replay = queues.replays().pop().expect("one is under way").replay().expect("it is one");
    assert_eq!((replay.number, replay.mode, replay.offsets), (2, ReplayMode::Again, 0..18));
}

#[test]
fn a_floor_of_version_4_is_read_with_what_was_given_up_where_it_lies() {
    let queues = open(&disk_with(4));
    assert_eq!((queues.stats().floor_damage.len(), queues.stats().plans_resumed), (0, 1));
    let archive = queues.queue("acme-archive", "acme-prod", Start::Now).expect("it is known");
    let (ranges, books) = archive.marked();
    let [first, second] = &ranges[..] else { panic!("{ranges:?}") };
    assert_eq!((first.start, first.end == second.start, books.pending), (25, true, archive.balance().dead_lettered));
    assert_eq!(
        *first,
        MarkedRange { start: 25, end: first.end, start_bytes: 175, bytes: first.bytes, at_ms: 1_795_450_894_000 }
    );
    let again = archive.replay_under_way().expect("it is sent again");
    assert_eq!((again.redrives(), again.lag().records), (Some(25..first.end), first.end - 25));
}
