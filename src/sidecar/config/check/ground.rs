//! The rules between a configuration and the machine: whether directories can be used, whether the budget has a disk.
//!
//! What only one destination needs is a warning: a destination that can't write waits, and the others go on.

use std::path::Path;

use super::super::files::Ground;
use super::super::raw::Section;
use super::super::report::Place;
use super::super::units::show_bytes;
use super::super::{Budget, LogSettings};
use super::Outside;

/// Reports a data directory that can't be one. Returns the size of its disk.
pub(super) fn data_dir(dir: &Path, place: &Place<'_>, outside: &Outside<'_>) -> Option<u64> {
    match usable(dir, outside) {
        Ok(Ground { disk_bytes: 0, nearest, .. }) => {
            place.error(format!("{} keeps no files", nearest.display()), "name a directory that is on a disk");
            None
        }
        Ok(Ground { disk_bytes, .. }) => Some(disk_bytes),
        Err((message, remedy)) => {
            place.error(message, remedy);
            None
        }
    }
}

/// Reports a socket for operators whose directory is not there, or may not be written to: nobody makes that.
pub(super) fn socket(section: &Section<'_>, path: &Path, outside: &Outside<'_>) {
    let Some(dir) = path.parent() else { return };
    let place = section.at("listen");
    match usable(dir, outside) {
        Ok(Ground { nearest, .. }) if nearest != dir => {
            place.error(format!("{} is not there", dir.display()), "make the directory, or name a socket elsewhere");
        }
        Ok(_) => {}
        Err((message, remedy)) => place.error(message, remedy),
    }
}

/// Warns of a destination's directory that can't be one.
pub(super) fn destination(dir: &Path, place: &Place<'_>, outside: &Outside<'_>) {
    if let Err((message, remedy)) = usable(dir, outside) {
        place.warning(message, format!("{remedy}; until then nothing is delivered, and the records wait"));
    }
}

/// Warns of a budget larger than the disk that the data directory is on. The sidecar would run, and be refused by the
/// disk before the budget can make room.
pub(super) fn budget(section: &Section<'_>, log: &LogSettings, disk_bytes: Option<u64>) {
    let (Budget::Bytes(budget), Some(disk_bytes)) = (log.budget, disk_bytes) else { return };
    if budget > disk_bytes {
        let message = format!(
            "{} is more than the disk of data_dir holds, which is {}",
            show_bytes(budget),
            show_bytes(rounded(disk_bytes))
        );
        section.at("budget_bytes").warning(message, "write a smaller size, or a share such as \"80%\"");
    }
}

/// Sizes of disks are odd numbers of bytes, which nobody wants to read to the last.
fn rounded(bytes: u64) -> u64 {
    let unit = if bytes >= 10 << 30 { 1 << 30 } else { 1 << 20 };
    bytes / unit * unit
}

/// What it is on; or what is wrong, and the remedy.
fn usable(dir: &Path, outside: &Outside<'_>) -> Result<Ground, (String, String)> {
    let take_another = || String::from("name a directory that this user may write to");
    let ground = (outside.ground)(dir)
        .map_err(|error| (format!("{} can't be looked at: {error}", dir.display()), take_another()))?;
    let nearest = ground.nearest.display();
    if !ground.is_directory {
        return Err((format!("{nearest} is a file, not a directory"), "name a directory, or move the file".into()));
    }
    if !ground.writable {
        let message = format!("this user may not write to {nearest}");
        return Err((message, "give the directory to the user that the sidecar runs as, or name another".into()));
    }
    Ok(ground)
}
