//! `forebay log verify`: every damaged place of a data directory by name, what it comes to, and what to do about it.
//!
//! A data directory has a log and a floor, and so has each upstream in it; all of them are read.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use forebay::disk::Disk;
use forebay::{Damage, FloorDamage, FloorError, Inspected, PLANS_STREAM, SeenFloor, inspect_floor};

use super::{LogToolError, Verdict, counted, damaged, log_dir, read, remarks, unmended};
use crate::console::units;

/// Where the logs of upstreams lie in a data directory, and what their notes' names end in.
const UPSTREAMS: (&str, &str) = ("upstream", ".upstream");

/// Looks at `dir`, and at the upstreams that lie in it.
pub(super) fn verify(disk: &Arc<dyn Disk>, dir: &Path) -> Result<(String, Verdict), LogToolError> {
    let mut text = String::new();
    let mut verdict = Verdict::Clean;
    for dir in std::iter::once(dir.to_owned()).chain(upstreams(&**disk, dir)) {
        let log = log_dir(&**disk, &dir);
        let seen = read(&**disk, &log)?;
        let floor = (log != dir).then(|| inspect_floor(Arc::clone(disk), &dir, seen.log_id));
        let lows = match &floor {
            Some(Ok(floor)) => floor.lows.clone(),
            _ => BTreeMap::new(),
        };
        let found = [log_of(&mut text, &log, &seen, &lows), floor_of(&mut text, &seen, floor.as_ref())];
        if found.contains(&Verdict::Damaged) {
            verdict = Verdict::Damaged;
        }
    }
    text.push_str("nothing was changed\n");
    Ok((text, verdict))
}

/// The data directories of upstreams.
fn upstreams(disk: &dyn Disk, dir: &Path) -> Vec<PathBuf> {
    let (below, note) = UPSTREAMS;
    let root = dir.join(below);
    let mut names = disk.list(&root).unwrap_or_default(); // no upstream ever was
    names.sort_unstable();
    let ids = names.iter().filter_map(|name| name.strip_suffix(note));
    ids.map(|id| root.join(id)).filter(|dir| disk.list(&dir.join("log")).is_ok()).collect()
}

fn log_of(text: &mut String, dir: &Path, seen: &Inspected, lows: &BTreeMap<String, u64>) -> Verdict {
    for damage in damaged(seen) {
        // Writing to a String cannot fail, here and below.
        let _ = writeln!(text, "{damage}");
    }
    remarks(text, seen);
    let places = damaged(seen).count() + unmended(seen);
    let frames: u64 = seen.segments.iter().map(|segment| segment.frames).sum();
    let records: u64 = seen.segments.iter().map(|segment| segment.records).sum();
    let _ = writeln!(
        text,
        "{}: read {} frames with {} records of {} in {}: {}",
        dir.display(),
        units::count(frames),
        units::count(records),
        counted(seen.streams.len(), "stream"),
        counted(seen.segments.len(), "segment"),
        if places == 0 { "no damage".to_owned() } else { counted(places, "damaged place") },
    );
    let open = seen.segments.iter().filter(|segment| !segment.sealed).count();
    if open > 0 {
        let _ = writeln!(
            text,
            "{} not sealed: what is broken at the very end of such a one counts as never acknowledged",
            counted(open, "segment")
        );
    }
    if places == 0 {
        return Verdict::Clean;
    }
    comes_to(text, damaged(seen), lows);
    Verdict::Damaged
}

/// What the damage means for those who were to get the records.
fn comes_to<'a>(text: &mut String, damage: impl Iterator<Item = &'a Damage>, lows: &BTreeMap<String, u64>) {
    let (mut lost, mut settled, mut plans, mut at_least) = (0, 0, 0, false);
    for damage in damage {
        let Some(offsets) = &damage.offsets else {
            (lost, at_least) = (lost + 1, true);
            continue;
        };
        let stream = damage.stream.as_deref().unwrap_or_default();
        let low = lows.get(stream).copied().unwrap_or(0).clamp(offsets.start, offsets.end);
        if stream == PLANS_STREAM {
            plans += offsets.end - low;
        } else {
            lost += offsets.end - low;
            settled += low - offsets.start;
        }
    }
    let _ = writeln!(
        text,
        "lost: {}{} records; `forebay run` starts all the same, counts them as lost and delivers the rest",
        if at_least { "at least " } else { "" },
        units::count(lost)
    );
    if settled > 0 {
        let _ = writeln!(
            text,
            "{} more records are damaged that every destination is done with: only a replay would miss them",
            units::count(settled)
        );
    }
    if plans > 0 {
        let _ = writeln!(
            text,
            "{} are damaged: batches that were under way may come again under other ids",
            counted(usize::try_from(plans).unwrap_or(usize::MAX), "plan")
        );
    }
}

/// What the floor says, and what follows where it is damaged. `None`: its directory was not given.
fn floor_of(text: &mut String, seen: &Inspected, floor: Option<&Result<SeenFloor, FloorError>>) -> Verdict {
    let floor = match floor {
        Some(Ok(floor)) => floor,
        Some(Err(error)) => {
            let cause = std::error::Error::source(error).map_or_else(String::new, |cause| format!(": {cause}"));
            let _ = writeln!(text, "{error}{cause}: the sidecar does not start before it can be read");
            return Verdict::Damaged;
        }
        None => {
            text.push_str("the floor, which says what is delivered, was not looked at: give data_dir for that\n");
            return Verdict::Clean;
        }
    };
    let path = floor.path.display();
    // A log that never had a queue has no floor.
    let has_queues = seen.streams.iter().any(|stream| stream.name == PLANS_STREAM || stream.name == "!control");
    if floor.damage == [FloorDamage::Missing] && !has_queues {
        let _ = writeln!(text, "{path}: there is none: no destination has taken anything from this log");
        return Verdict::Clean;
    }
    for damage in &floor.damage {
        let _ = writeln!(text, "{path}: {damage}");
    }
    if !floor.damage.is_empty() && floor.pinned {
        let _ = writeln!(
            text,
            "{path}: how far destinations are is lost, so the next start delivers them all that the log keeps once more, \
             and deletes nothing from then on: put back a copy of this file from just before, if there is one, before you start"
        );
    } else if floor.pinned {
        let _ = writeln!(text, "{path}: it was damaged before, and nothing is deleted from the log since");
    }
    if floor.damage.is_empty() {
        let _ = writeln!(text, "{path}: the cursors of {}, no damage", counted(floor.queues, "queue"));
        return Verdict::Clean;
    }
    Verdict::Damaged
}
