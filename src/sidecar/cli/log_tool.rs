//! `forebay log`: what a log's directory holds, what is damaged in it, and the records themselves. Without the sidecar.
//!
//! Writes nothing to the directory and takes no lock, save for `give-up --lose`. On the directory of a sidecar that runs it tells what was there a
//! moment ago.

mod dump;
mod verify;

use std::fmt::Write as _;
use std::io::{self, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use forebay::disk::Disk;
use forebay::disk::real::RealDisk;
use forebay::{Class, Damage, GiveUpError, Inspected, OpenError, SegmentReport, Unreadable, give_up, inspect};

use super::args::LogCommand;
use super::code_of;
use crate::console::{aligned, units};

/// Between two tries to read a place: an error that passes has time to.
const BETWEEN_TRIES: Duration = Duration::from_secs(2);

/// Why a log could not be looked at.
#[derive(Debug, thiserror::Error)]
pub enum LogToolError {
    /// The directory has nothing of ours.
    #[error("{}: no log lies here; give data_dir of the configuration, or the log directory in it", dir.display())]
    NoLog {
        /// Where it was sought.
        dir: PathBuf,
    },
    /// It can't be read, or a later version wrote it.
    #[error(transparent)]
    Unreadable(#[from] OpenError),
    /// Places can't be given up.
    #[error(transparent)]
    NotGivenUp(#[from] GiveUpError),
    /// `--stream` names none.
    #[error("no stream of this log is named {name:?}: `forebay log inspect` lists them")]
    NoSuchStream {
        /// The name.
        name: String,
    },
    /// What was asked for is written, as far as it can be read.
    #[error("{} damaged, at least {} records are missing here: `forebay log verify` names them", counted(*places, "place"), units::count(*records))]
    NotAll {
        /// Damaged places.
        places: usize,
        /// Records that lay there, as far as that is known.
        records: u64,
    },
    /// The output can't be written.
    #[error("can't write the output")]
    Output(#[from] io::Error),
}

/// What was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Clean,
    Damaged,
}

/// Does what the command says, on the standard output. Exits with 1 when `verify` finds damage, `dump` can't
/// write all, or `give-up` finds what can't be read.
pub fn run(command: &LogCommand) -> ExitCode {
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    match act(command, &disk, &mut io::stdout().lock()) {
        Ok(Verdict::Clean) => ExitCode::SUCCESS,
        Ok(Verdict::Damaged) => ExitCode::FAILURE,
        // Whoever closed the pipe has seen enough.
        Err(LogToolError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => code_of(Err(error)),
    }
}

fn act(command: &LogCommand, shared: &Arc<dyn Disk>, out: &mut impl Write) -> Result<Verdict, LogToolError> {
    let disk = &**shared;
    match command {
        LogCommand::Inspect(place) => {
            let dir = log_dir(disk, &place.dir);
            out.write_all(overview(&dir, &read(disk, &dir)?).as_bytes())?;
        }
        LogCommand::Verify(place) => {
            let (text, verdict) = verify::verify(shared, &place.dir)?;
            // The verdict is the exit code's, whoever reads along.
            return match out.write_all(text.as_bytes()) {
                Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
                _ => Ok(verdict),
            };
        }
        LogCommand::GiveUp(args) => {
            let dir = log_dir(disk, &args.place.dir);
            expect_a_log(&dir, &inspect(disk, &dir, |_| ControlFlow::Continue(()))?)?;
            let places = give_up(disk, &dir, args.lose, &mut || std::thread::sleep(BETWEEN_TRIES))?;
            out.write_all(given_up(&dir, &places, args.lose).as_bytes())?;
            out.flush()?;
            return Ok(if places.is_empty() || args.lose { Verdict::Clean } else { Verdict::Damaged });
        }
        LogCommand::Dump(args) => dump::dump(disk, &log_dir(disk, &args.place.dir), args, out)?,
    }
    out.flush()?;
    Ok(Verdict::Clean)
}

/// The log of a data directory, or the directory itself where it has none.
fn log_dir(disk: &dyn Disk, dir: &Path) -> PathBuf {
    let log = dir.join("log");
    if disk.list(&log).is_ok() { log } else { dir.to_owned() }
}

fn read(disk: &dyn Disk, dir: &Path) -> Result<Inspected, LogToolError> {
    let seen = inspect(disk, dir, |_| ControlFlow::Continue(()))?;
    expect_a_log(dir, &seen)?;
    Ok(seen)
}

fn expect_a_log(dir: &Path, seen: &Inspected) -> Result<(), LogToolError> {
    let empty = seen.log_id.is_none() && seen.segments.is_empty() && seen.flaws.is_empty();
    if empty { Err(LogToolError::NoLog { dir: dir.to_owned() }) } else { Ok(()) }
}

fn overview(dir: &Path, seen: &Inspected) -> String {
    let id = seen.log_id.map_or_else(|| units::UNKNOWN.to_owned(), |id| id.to_string());
    let mut text = format!(
        "log {id} in {}: {}, {}, {} taken ahead\n\n",
        dir.display(),
        counted(seen.streams.len(), "stream"),
        counted(seen.segments.len(), "segment"),
        counted(seen.spares, "file"),
    );
    let mut rows = vec![["STREAM", "FIRST KEPT", "NEXT", "RECORDS"].map(str::to_owned)];
    rows.extend(seen.streams.iter().map(|stream| {
        let numbers = [stream.offsets.start, stream.offsets.end, stream.records].map(units::count);
        let [first, next, records] = numbers;
        [stream.name.clone(), first, next, records]
    }));
    text.push_str(&aligned(&rows, [false, true, true, true]));
    text.push('\n');
    let titles = ["SEGMENT", "HOLDS", "FILE", "FRAMES END", "FRAMES", "RECORDS", "STATE", "DAMAGED"];
    let mut rows = vec![titles.map(str::to_owned)];
    rows.extend(seen.segments.iter().map(segment_row));
    text.push_str(&aligned(&rows, [true, false, true, true, true, true, false, true]));
    remarks(&mut text, seen);
    if damaged(seen).count() + unmended(seen) > 0 {
        text.push_str("\nthere is damage: `forebay log verify` names it\n");
    }
    text
}

fn segment_row(segment: &SegmentReport) -> [String; 8] {
    let holds = match segment.class {
        Class::Main => "impressions",
        Class::System => "our own",
    };
    [
        segment.sequence.to_string(),
        holds.to_owned(),
        units::bytes(segment.file_bytes),
        units::count(u64::from(segment.end)),
        units::count(segment.frames),
        units::count(segment.records),
        if segment.sealed { "sealed" } else { "open" }.to_owned(),
        if segment.damage.is_empty() { units::UNKNOWN.to_owned() } else { units::count(segment.damage.len() as u64) },
    ]
}

/// What is odd about the files, damage or not.
fn remarks(text: &mut String, seen: &Inspected) {
    for flaw in &seen.flaws {
        // Writing to a String cannot fail, here and below.
        let _ = writeln!(text, "{}: {}", flaw.file, flaw.what);
    }
    for name in &seen.strangers {
        let _ = writeln!(text, "{name:?}: not a file of the log; it is left alone");
    }
}

/// What can't be read, and what became of it.
fn given_up(dir: &Path, places: &[Unreadable], lose: bool) -> String {
    let mut text = String::new();
    for place in places {
        let _ = writeln!(text, "{place}");
    }
    let _ = match (places.len(), lose) {
        (0, _) => writeln!(text, "{}: everything can be read; nothing was changed", dir.display()),
        (n, false) => writeln!(
            text,
            "{} can't be read; nothing was changed. With --lose what lies there is given up: stop the sidecar first",
            counted(n, "place")
        ),
        (n, true) => writeln!(
            text,
            "{} given up: `forebay log verify` names the records, the next start counts them as lost",
            counted(n, "place")
        ),
    };
    text
}

/// The damaged places of the segments.
fn damaged(seen: &Inspected) -> impl Iterator<Item = &Damage> {
    seen.segments.iter().flat_map(|segment| &segment.damage)
}

/// How many other places are; not those that a crash can leave and opening mends.
fn unmended(seen: &Inspected) -> usize {
    seen.flaws.iter().filter(|flaw| !flaw.mended).count()
}

fn counted(n: usize, what: &str) -> String {
    format!("{} {what}{}", units::count(n as u64), if n == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests;
