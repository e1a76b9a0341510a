//! Notes of whoever uses the queues, kept in the cursor store: for what is found out again when it is lost.
//!
//! What always holds: a note that is given back is the last that was made under its name, or one before it; it was made
//! for this log, and is whole. It says nothing of any queue, and no queue's hint is ever taken for one.

use super::Queues;
use super::opening::Hints;
use crate::LogId;
use crate::queue::codec::{Decoder, Malformed};
use crate::queue::{KeyValue, lock};
use crate::sync::Mutex;
use std::collections::BTreeMap;

/// No note and no name is longer.
const NOTE_BYTES_MAX: usize = 256;

/// What keys of notes begin with. Those of hints and hours hold no two zeros in the beginning.
const KEY_START: [u8; 2] = [0, 0];

const VERSION: u8 = 1;

/// All notes, in memory.
pub(super) struct Notes {
    log_id: LogId,
    all: Mutex<BTreeMap<Box<str>, Box<[u8]>>>,
}

impl Notes {
    /// Takes out what a store gave back. What can't be believed is left behind, to be written over.
    pub(super) fn from(hints: &mut Hints, log_id: LogId) -> Self {
        let mut all = BTreeMap::new();
        hints.retain(|key, value| {
            let Some(name) = key.strip_prefix(&KEY_START) else { return true };
            let name = std::str::from_utf8(name);
            if let (Ok(name), Ok(note)) = (name, decode(value, log_id)) {
                all.insert(name.into(), note);
            }
            false
        });
        Self { log_id, all: Mutex::new(all) }
    }

    fn get(&self, name: &str) -> Option<Vec<u8>> {
        lock(&self.all).get(name).map(|note| note.to_vec())
    }

    /// Says whether anything changes.
    fn set(&self, name: &str, note: &[u8]) -> bool {
        let mut all = lock(&self.all);
        if note.is_empty() {
            return all.remove(name).is_some();
        }
        all.insert(name.into(), note.into()).is_none_or(|before| *before != *note)
    }

    fn value(&self, name: &str, note: &[u8]) -> KeyValue {
        // What is empty is nothing to any reader.
        let value = if note.is_empty() { Vec::new() } else { encode(note, self.log_id) };
        ([&KEY_START, name.as_bytes()].concat(), value)
    }
}

impl Queues {
    /// Remembers a note under a name of the caller's, in the place of the one before; an empty note is none. It is handed
    /// to the cursor store, which may lose it: only for what can be found out again. Waits for nothing.
    ///
    /// ```
    /// # use forebay::{LogOptions, QueueOptions, Queues};
    /// # use std::{path::Path, sync::Arc};
    /// # let (disk, clock) = (Arc::new(forebay::disk::mem::MemDisk::new()), Arc::new(forebay::clock::SystemClock::new()));
    /// # let queues = Queues::open(disk, clock, Path::new("/data"), LogOptions::small(), QueueOptions::inline())?;
    /// queues.remember("acme-hook", b"takes 50 a second");
    /// assert_eq!(queues.remembered("acme-hook").as_deref(), Some(&b"takes 50 a second"[..]));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Panics
    /// When note or name are longer than 256 bytes.
    pub fn remember(&self, name: &str, note: &[u8]) {
        assert!(name.len() <= NOTE_BYTES_MAX && note.len() <= NOTE_BYTES_MAX, "a note and its name are short");
        if self.set.notes.set(name, note) {
            self.set.keeper.offer([self.set.notes.value(name, note)]);
        }
    }

    /// The note under a name, of this process or of one before it.
    #[must_use]
    pub fn remembered(&self, name: &str) -> Option<Vec<u8>> {
        self.set.notes.get(name)
    }
}

/// Version (u8), log id (u128), the note, and a CRC-32 of all that.
fn encode(note: &[u8], log_id: LogId) -> Vec<u8> {
    let mut out = vec![VERSION];
    out.extend_from_slice(&log_id.0.to_le_bytes());
    out.extend_from_slice(note);
    let crc = crc32fast::hash(&out);
    out.extend_from_slice(&crc.to_le_bytes());
    out
}

fn decode(value: &[u8], log_id: LogId) -> Result<Box<[u8]>, Malformed> {
    let (body, crc) = value.split_last_chunk::<4>().ok_or(Malformed("ends too early"))?;
    if crc32fast::hash(body) != u32::from_le_bytes(*crc) {
        return Err(Malformed("the checksum is wrong"));
    }
    let mut from = Decoder::new(body);
    if from.u8()? != VERSION || LogId(from.u128()?) != log_id {
        return Err(Malformed("of another version or log"));
    }
    Ok(body[1 + 16..].into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;
    use crate::disk::mem::MemDisk;
    use crate::{LogOptions, MemStore, QueueOptions, Start, StoreChoice};
    use std::path::Path;
    use std::sync::Arc;

    fn open(disk: &Arc<MemDisk>, store: &MemStore) -> Queues {
        let options = QueueOptions { store: StoreChoice::Memory(store.clone()), ..QueueOptions::inline() };
        let (disk, clock) = (Arc::clone(disk) as Arc<dyn crate::disk::Disk>, Arc::new(SystemClock::new()));
        Queues::open(disk, clock, Path::new("/data"), LogOptions::small(), options).expect("it opens")
    }

    #[test]
    fn notes_outlive_a_reopen_and_can_be_taken_back() {
        let (disk, store) = (Arc::new(MemDisk::new()), MemStore::default());
        let queues = open(&disk, &store);
        queues.queue("hook", "prod", Start::Earliest).expect("made");
        assert_eq!(queues.remembered("hook"), None);
        for note in [&b"one"[..], b"two"] {
            queues.remember("hook", note);
        }
        queues.remember("other", b"three");
        queues.remember("other", b"");
        queues.close().expect("closed");
        drop(queues);
        let queues = open(&disk, &store);
        assert_eq!(queues.remembered("hook").as_deref(), Some(&b"two"[..]));
        assert_eq!(queues.remembered("other"), None);
        assert_eq!(queues.stats().hints_refused, 0, "none was taken for a hint");
    }

    #[test]
    fn what_was_remembered_for_another_log_is_not_believed() {
        let store = MemStore::default();
        let queues = open(&Arc::new(MemDisk::new()), &store);
        queues.remember("hook", b"one");
        drop(queues);
        assert_eq!(open(&Arc::new(MemDisk::new()), &store).remembered("hook"), None);
    }

    #[test]
    fn any_changed_or_missing_byte_is_noticed() {
        let value = encode(b"note", LogId(7));
        assert_eq!(decode(&value, LogId(7)).as_deref(), Ok(&b"note"[..]));
        for at in 0..value.len() {
            let mut changed = value.clone();
            changed[at] ^= 1;
            assert!(decode(&changed, LogId(7)).is_err() && decode(&value[..at], LogId(7)).is_err());
        }
        let mut later = value[..value.len() - 4].to_vec();
        later[0] += 1;
        later.extend_from_slice(&crc32fast::hash(&later).to_le_bytes());
        assert!(decode(&later, LogId(7)).is_err(), "a sound one of a version that nobody knows yet");
        assert!(decode(&value, LogId(8)).is_err(), "of another log");
    }

    #[test]
    fn a_note_that_stays_as_it_is_costs_the_store_nothing() {
        let store = MemStore::default();
        let queues = open(&Arc::new(MemDisk::new()), &store);
        queues.remember("hook", b"one");
        let batches = queues.stats().store_batches;
        queues.remember("hook", b"one");
        assert_eq!(queues.stats().store_batches, batches);
    }

    #[test]
    fn a_note_and_its_name_are_as_long_as_they_may_be_and_no_longer() {
        let queues = open(&Arc::new(MemDisk::new()), &MemStore::default());
        let remembers = |name: usize, note: usize| {
            let remember = || queues.remember(&"n".repeat(name), &vec![1; note]);
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(remember)).is_ok()
        };
        let most = NOTE_BYTES_MAX;
        assert_eq!(
            [(most, most), (most + 1, 1), (1, most + 1)].map(|(name, note)| remembers(name, note)),
            [true, false, false]
        );
    }
}
