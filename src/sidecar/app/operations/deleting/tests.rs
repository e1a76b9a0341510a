//! Deleting on the simulated disk: a power cut at every change.

use std::path::Path;
use std::sync::Arc;

use forebay::clock::ManualClock;
use forebay::{LogOptions, OpenQueuesError, Payload, QueueOptions, Start};
use storage_tests::any_change::power_cut_at_any_change;
use storage_tests::sim_disk::{PowerCut, SimDisk};

use super::*;

fn open(disk: &SimDisk) -> Result<Queues, OpenQueuesError> {
    let clock = Arc::new(ManualClock::at(1_000_000));
    Queues::open(Arc::new(disk.clone()), clock, Path::new("/data"), LogOptions::small(), QueueOptions::inline())
}

fn letters(queues: &Queues) -> u64 {
    queues.find("hook", "!held/hook").map_or(0, |queue| queue.lag().records)
}

/// With records of its own, or with nothing but letters: those of a destination whose deletion a crash came between.
fn before(with_records: bool) -> SimDisk {
    let disk = SimDisk::new(3);
    let queues = open(&disk).unwrap();
    let append = |stream: &str| {
        queues.log().append_wait(stream, vec![Payload { bytes: vec![1; 100], records: 10 }]).unwrap();
    };
    queues.queue("hook", "!held/hook", Start::Now).unwrap();
    append("!held/hook");
    if with_records {
        queues.queue("hook", "prod", Start::Earliest).unwrap();
        append("prod");
    }
    queues.tick().unwrap();
    disk
}

#[test]
fn a_crash_anywhere_in_a_deletion_leaves_no_letters_to_the_next_destination_of_that_id() {
    for with_records in [true, false] {
        let snapshot = before(with_records).snapshot();
        let delete = |disk: &SimDisk, told: &mut bool| -> Result<(), Box<dyn std::error::Error>> {
            give_up(&open(disk)?, "hook")?;
            *told = true;
            Ok(())
        };
        power_cut_at_any_change(&snapshot, delete, |disk, told, case| {
            let what = format!("{case}, records {with_records}");
            let queues = open(disk).unwrap();
            let has_records = queues.find("hook", "prod").is_some();
            assert!(has_records || letters(&queues) == 0 || !with_records, "{what}: hidden letters");
            assert!(!told || (!has_records && letters(&queues) == 0), "{what}: told, and not done");
            give_up(&queues, "hook").unwrap();
            queues.queue("hook", "prod", Start::Now).unwrap();
            drop(queues);
            disk.power_cut(PowerCut::NothingUnsynced);
            let queues = open(disk).unwrap();
            assert_eq!(letters(&queues), 0, "{what}: the next one gets letters of the one before");
        });
    }
}
