//! Five thousand segments, at their usual size a backlog of 320 GB: what a start among them reads, and what each costs in
//! memory. Both are bounded for each of them, so that ten times as many cost ten times as much.

use forebay::clock::ManualClock;
use forebay::disk::counted::CountedDisk;
use forebay::disk::mem::MemDisk;
use forebay::{Item, Log, LogOptions, Payload};
use std::path::Path;
use std::sync::Arc;
use storage_tests::resident::resident_bytes;

const SEGMENTS: u64 = 5_000;

/// More than half of a segment, so that each holds one.
const PAYLOAD_BYTES: usize = 2_200;

/// Else the allocator would serve a start with what the log before it gave back, and nothing would be seen to grow.
fn fill_what_was_given_back() -> Vec<Vec<u8>> {
    let (before, mut all) = (resident_bytes(), Vec::new());
    while resident_bytes() < before + (1 << 20) {
        all.extend((0..100).map(|_| vec![1; 100]));
    }
    all
}

fn open(disk: &CountedDisk) -> Log {
    let options = LogOptions { segment_bytes: 4 << 10, budget_bytes: 1 << 30, ..LogOptions::small() };
    let clock = Arc::new(ManualClock::at(1_000_000));
    Log::open(Arc::new(disk.clone()), clock, Path::new("/data"), options).expect("it opens")
}

#[test]
fn a_start_among_five_thousand_segments_reads_the_ends_of_each_and_keeps_little_of_it() {
    let disk = CountedDisk::new(Arc::new(MemDisk::new()));
    let log = open(&disk);
    for n in 0..SEGMENTS {
        let bytes = n.to_le_bytes().into_iter().cycle().take(PAYLOAD_BYTES).collect();
        log.append_wait("environment", vec![Payload { bytes, records: 1 }]).expect("a good disk");
    }
    assert!(log.stats().segments as u64 >= SEGMENTS);
    drop(log); // no close: as after a kill

    let kept = fill_what_was_given_back();
    let (before, resident) = (disk.counts(), resident_bytes());
    let log = open(&disk);
    let (asked, resident) = (disk.counts() - before, resident_bytes().saturating_sub(resident));
    println!("{asked:?}, {} bytes of memory a segment", resident / SEGMENTS);
    assert!(asked.bytes_read < 256 * SEGMENTS, "{asked:?}");
    assert!(resident < 1_024 * SEGMENTS, "{resident} bytes");
    drop(kept);

    let environment = log.stream("environment").expect("known");
    for n in [0, SEGMENTS / 2, SEGMENTS - 1] {
        let before = disk.counts();
        let Some(Item::Frame(frame)) = log.reader(environment, n).next().expect("a good disk") else {
            panic!("nothing at {n}")
        };
        assert_eq!(frame.payload()[..8], n.to_le_bytes());
        let asked = disk.counts() - before;
        assert!(asked.bytes_read < 16 << 10, "{asked:?} for one frame");
    }

    assert_eq!(log.durable(environment).offset, SEGMENTS);
    let mut reader = log.reader(environment, 0);
    for n in 0..SEGMENTS {
        let Some(Item::Frame(frame)) = reader.next().expect("a good disk") else { panic!("nothing at {n}") };
        assert!(frame.first == n && frame.payload()[..8] == n.to_le_bytes(), "{n}");
    }
}
