//! Looks at a floor without opening its log: for the operator with a damaged disk. Writes nothing, takes no lock.
//!
//! It judges as opening would. Of a floor that is in use it tells what was there a moment ago.

use super::floor_file::{FLOOR_NAME, FloorDamage, FloorEntry, FloorError, FloorFile, Found};
use crate::disk::Disk;
use crate::sync::Arc;
use crate::{LogId, PLANS_STREAM};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What a floor holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenFloor {
    /// The file.
    pub path: PathBuf,
    /// Queues whose cursors are known.
    pub queues: usize,
    /// Of each stream that a queue takes from, below which offset all of them are done, and nothing waits that was given up
    /// where it lies; of the stream of plans, from where on they are needed.
    pub lows: BTreeMap<String, u64>,
    /// What is wrong with it: cursors are missing, or could be, unless it is page 0 alone.
    pub damage: Vec<FloorDamage>,
    /// Cursors are missing, by this damage or by an earlier one, so that nothing is deleted from the log.
    pub pinned: bool,
}

/// Reads the floor in the data directory `dir`, which belongs to this log.
///
/// # Errors
/// When the file cannot be opened or read, or a newer program wrote it.
pub fn inspect_floor(disk: Arc<dyn Disk>, dir: &Path, log: Option<LogId>) -> Result<SeenFloor, FloorError> {
    let (mut floor, found) = FloorFile::load(disk, dir)?;
    let path = dir.join(FLOOR_NAME);
    let is_queue = |entry: &FloorEntry| *entry.destination != *PLANS_STREAM;
    let queues = floor.entries().filter(|(_, entry)| is_queue(entry)).count();
    let mut lows = BTreeMap::new();
    for (_, entry) in floor.entries() {
        let needed = entry.first_needed().offset;
        let low = lows.entry(entry.stream.to_string()).or_insert(needed);
        *low = needed.min(*low);
    }
    let foreign = log.and_then(|log| floor.bind(log, &found, false));
    let mut damage = if let Found::File(damage) = found { damage } else { Vec::new() };
    damage.extend(foreign);
    if damage.iter().any(FloorDamage::pins) {
        lows.clear(); // a queue that is not known any more may need all
    }
    Ok(SeenFloor { path, queues, lows, damage, pinned: floor.is_pinned() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;
    use crate::disk::mem::MemDisk;
    use crate::{LogOptions, Payload, QueueOptions, Queues, Start};
    use std::io::IoSlice;

    #[test]
    fn a_floor_that_is_sound_missing_or_damaged_is_told_as_opening_would_judge_it() {
        let (disk, dir) = (Arc::new(MemDisk::new()), Path::new("data"));
        let clock = Arc::new(ManualClock::at(0));
        let queues =
            Queues::open(Arc::clone(&disk) as Arc<dyn Disk>, clock, dir, LogOptions::small(), QueueOptions::inline());
        let queues = queues.expect("it opens");
        let queue = queues.queue("hook", "acme", Start::Earliest).expect("it is made");
        queues.log().append_wait("acme", vec![Payload { bytes: vec![7; 100], records: 10 }]).expect("it is taken");
        queue.purge(0..4).expect("memory reads");
        queues.tick().expect("memory writes");
        let log = queues.log().log_id();
        let look = |log| inspect_floor(Arc::clone(&disk) as Arc<dyn Disk>, dir, log).expect("memory reads");
        let sound = look(Some(log));
        assert_eq!((sound.queues, sound.lows.get("acme"), sound.pinned), (1, Some(&4), false));
        assert_eq!(sound.damage, []);

        // Both slots of the page with the queue: nobody knows any more from where on it needs its records.
        let floor = disk.open(&sound.path).expect("it is there");
        floor.write_all_at(&[IoSlice::new(&[0xEE; 24 << 10])], 24 << 10).expect("memory writes");
        let damaged = look(Some(log));
        assert_eq!(damaged.damage, [FloorDamage::Page { page: 1 }]);
        assert!(damaged.lows.is_empty() && damaged.pinned);

        disk.remove(&sound.path).expect("it is there");
        let missing = look(Some(log));
        assert_eq!((missing.queues, missing.damage, missing.pinned), (0, vec![FloorDamage::Missing], true));
        assert!(look(None).damage.is_empty(), "without a log there is nothing that it is missing for");
    }
}
