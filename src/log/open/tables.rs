//! The stream tables as an opening finds them: which can be read, whose log it is when none can, and both made sound
//! again before anything else is written.
//!
//! Not what a table holds (that is `stream_table`), nor when it is written later (`keeper`).

use super::super::compact;
use super::super::file_name::FileName;
use super::super::files::Files;
use super::super::index::IndexHeader;
use super::super::limits::SEGMENT_HEADER_BYTES;
use super::super::listing::{Listing, read_header};
use super::super::options::OpenError;
use super::super::stream_table::{BadTable, StreamTable};
use crate::disk::{is_full, is_media_error, read_all};
use crate::failpoints::{self, Point};
use crate::mutants::{self, Mutant};
use crate::offset::LogId;
use std::collections::BTreeMap;

/// The stream tables on disk.
#[derive(Default)]
pub(super) struct Tables {
    pub(super) newest: Option<StreamTable>,
    /// The slots that can be read.
    pub(super) good: Vec<u8>,
    /// Slots that the disk refuses to read: each is written anew from the other one.
    pub(super) refused: u64,
}

/// Writes the slots of the stream table that can't be read, so that writing the table later never goes over the only good copy. In a
/// fresh log this comes before anything else: its id must outlive the first record.
pub(super) fn make_sound(files: &Files, listing: &Listing, good: &[u8], table: &StreamTable) -> Result<(), OpenError> {
    let left = mutants::on(Mutant::DamagedTableLeft) && !good.is_empty();
    for slot in (0..2).filter(|slot| !good.contains(slot) && !left) {
        let name = FileName::Streams(slot);
        let path = files.path(name);
        let write = || files.write_or_replace(name, &table.encode(), || listing.next_sequence());
        match failpoints::around(Point::OpenTables, write) {
            // On a full disk a damaged slot may stay one, and so may one that nothing can be written to: it is the next to be
            // written.
            Err(e) if !good.is_empty() && (is_full(&e) || is_media_error(&e)) => {
                tracing::warn!(path = %path.display(), error = %e, "this copy of the stream table stays as it is for now");
            }
            written => written.map_err(OpenError::io("write", &path))?,
        }
    }
    let named = (0..2).all(|slot| listing.tables.contains(&slot));
    if named { Ok(()) } else { files.sync_names(files.mark_names()).map_err(OpenError::io("sync", files.dir())) }
}

pub(super) fn read(files: &Files, listing: &Listing) -> Result<Tables, OpenError> {
    let mut tables = Tables::default();
    let mut unreadable = None;
    for slot in &listing.tables {
        files.find_table(*slot);
        let path = files.path(FileName::Streams(*slot));
        let bytes = match files.disk().open(&path).and_then(|file| read_all(&*file)) {
            Err(e) if is_media_error(&e) => {
                tracing::error!(path = %path.display(), error = %e, "this copy of the stream table can't be read");
                tables.refused += 1;
                unreadable.get_or_insert((path, e));
                continue;
            }
            read => read.map_err(OpenError::io("read", &path))?,
        };
        match StreamTable::decode(&bytes) {
            Ok(table) => {
                tables.good.push(*slot);
                if tables.newest.as_ref().is_none_or(|newest| newest.generation < table.generation) {
                    tables.newest = Some(table);
                }
            }
            Err(BadTable::Version(version)) => return Err(OpenError::Newer { path, version }),
            Err(BadTable::Damaged) => {
                tracing::warn!(path = %path.display(), "this copy of the stream table is torn or damaged");
            }
        }
    }
    match unreadable {
        // Without either the log goes by its segments, and streams that have none begin anew: not for an error that may pass.
        Some((path, e)) if tables.newest.is_none() => Err(OpenError::io("read", &path)(e)),
        _ => Ok(tables),
    }
}

/// The log's id, when both copies of the table are damaged: what most segments and indexes say.
pub(super) fn id_from_segments(files: &Files, listing: &Listing) -> Result<Option<LogId>, OpenError> {
    let mut votes: BTreeMap<LogId, usize> = BTreeMap::new();
    for (sequence, class) in &listing.segments {
        if let Some(header) = read_header(files, *sequence, *class)? {
            *votes.entry(header.log).or_default() += 1;
        }
    }
    for file in &listing.compact {
        let path = files.path(file.name());
        let mut bytes = [0; SEGMENT_HEADER_BYTES as usize];
        let n = match files.disk().open(&path).and_then(|opened| opened.read_at(&mut bytes, 0)) {
            Err(e) if is_media_error(&e) => continue,
            read => read.map_err(OpenError::io("read", &path))?,
        };
        if let Some((log, _)) = compact::owner(true, &bytes[..n]) {
            *votes.entry(log).or_default() += 1;
        }
    }
    for sequence in &listing.indexes {
        let path = files.path(FileName::Index(*sequence));
        let bytes = match files.disk().open(&path).and_then(|file| read_all(&*file)) {
            Err(e) if is_media_error(&e) => continue, // it has no vote
            read => read.map_err(OpenError::io("read", &path))?,
        };
        if let Some(header) = IndexHeader::decode(&bytes) {
            *votes.entry(header.log).or_default() += 1;
        }
    }
    Ok(votes.into_iter().max_by_key(|(_, votes)| *votes).map(|(log, _)| log))
}
