//! Whether what lies on a disk is what a log counts against its budget.

use crate::sim_disk::SimDisk;
use forebay::Log;

/// After a round of housekeeping every byte of the log's segments and of the room that it took ahead counts, whether finished or
/// not, none that is gone does, and all of them are within the budget. For a log at rest: while a file moves it counts twice.
///
/// # Errors
/// The difference.
pub fn check(disk: &SimDisk, log: &Log, budget_bytes: u64) -> Result<(), String> {
    log.housekeep();
    let is_counted = |name: &str| {
        let is_room = [".seg", ".sys", ".new"].iter().any(|end| name.ends_with(end));
        is_room || name.starts_with("spare")
    };
    let mut files: Vec<(String, u64)> = Vec::new();
    for path in disk.paths() {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if path.parent().is_some_and(|dir| dir.ends_with("log")) && is_counted(&name) {
            files.push((name, disk.read_live(&path).map_or(0, |bytes| bytes.len() as u64)));
        }
    }
    let (there, stats) = (files.iter().map(|(_, bytes)| bytes).sum::<u64>(), log.stats());
    if there != stats.bytes_used {
        return Err(format!(
            "{} bytes count against the budget, and {there} are there: {files:?}; {stats:?}",
            stats.bytes_used
        ));
    }
    if there > budget_bytes {
        return Err(format!("{there} bytes are there, of a budget of {budget_bytes}: {files:?}"));
    }
    Ok(())
}
