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
