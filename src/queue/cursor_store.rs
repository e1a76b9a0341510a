//! A place for hints about cursors: fast, and trusted with nothing.
//!
//! Three kinds: sled, memory, none. All may forget anything at any time; what they give back proves itself (see
//! [`Hint`](super::hint::Hint)). Calls may block, fail or panic: [`StoreKeeper`](super::store_keeper::StoreKeeper)
//! keeps that away from everybody else.

use super::mem_store::MemStore;
use super::sled_store::SledStore;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// A store of small values by key. Used by one thread.
pub trait CursorStore: Send {
    /// Everything in it.
    ///
    /// # Errors
    /// When it cannot be read; it is set aside then.
    fn load(&mut self) -> Result<Vec<KeyValue>, StoreError>;

    /// Stores these values, replacing what is there, and hands them to the disk. Does not promise that they survive. An empty
    /// value says that there is none any more: its key goes, or is kept with that.
    ///
    /// # Errors
    /// When it cannot; the store is not used again then.
    fn store(&mut self, values: &[KeyValue]) -> Result<(), StoreError>;
}

/// A key and its value.
pub type KeyValue = (Vec<u8>, Vec<u8>);

/// A store refused.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the cursor store refused: {0}")]
pub struct StoreError(pub String);

/// Opens a store.
pub type OpenStore = Arc<dyn Fn() -> Result<Box<dyn CursorStore>, StoreError> + Send + Sync>;

/// Which store to use for hints about cursors. Without one a crash repeats at most one tick more.
#[derive(Clone, Default)]
pub enum StoreChoice {
    /// sled, in the directory `sled` beside the log. Reads and writes the real file system, whatever the disk.
    #[default]
    Sled,
    /// None: only the floor.
    None,
    /// Memory that whoever made it may keep over a reopen.
    Memory(MemStore),
    /// Another one.
    Other(OpenStore),
}

impl StoreChoice {
    /// How to open it. `dir` is where sled would be.
    pub(crate) fn opener(&self, dir: &Path) -> OpenStore {
        match self.clone() {
            Self::Sled => {
                let dir = dir.to_owned();
                Arc::new(move || Ok(Box::new(SledStore::open(&dir)?)))
            }
            Self::None => Arc::new(|| Ok(Box::new(NoStore))),
            Self::Memory(store) => Arc::new(move || Ok(Box::new(store.clone()))),
            Self::Other(open) => open,
        }
    }
}

impl fmt::Debug for StoreChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sled => "Sled",
            Self::None => "None",
            Self::Memory(_) => "Memory",
            Self::Other(_) => "Other",
        })
    }
}

/// Keeps nothing.
struct NoStore;

impl CursorStore for NoStore {
    fn load(&mut self) -> Result<Vec<KeyValue>, StoreError> {
        Ok(Vec::new())
    }

    fn store(&mut self, _values: &[KeyValue]) -> Result<(), StoreError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    //! What every store must do, and nothing more: it may forget, it may not invent.

    use super::*;
    use std::collections::BTreeMap;

    fn every_store() -> Vec<(OpenStore, bool, tempfile::TempDir)> {
        let store = |choice: StoreChoice, remembers| {
            let dir = tempfile::tempdir().expect("a temporary directory");
            (choice.opener(&dir.path().join("sled")), remembers, dir)
        };
        vec![
            store(StoreChoice::Sled, true),
            store(StoreChoice::Memory(MemStore::default()), true),
            store(StoreChoice::None, false),
        ]
    }

    fn value(n: u8) -> KeyValue {
        (vec![b'k', 0, n % 7], vec![n; usize::from(n)])
    }

    #[test]
    fn of_a_store_its_kind_is_printed_and_nothing_that_it_holds() {
        let memory = MemStore::default();
        memory.clone().store(&[value(7)]).expect("it stores");
        let other: OpenStore = Arc::new(|| Err(StoreError("of another kind".into())));
        let choices = [StoreChoice::Sled, StoreChoice::None, StoreChoice::Memory(memory), StoreChoice::Other(other)];
        assert_eq!(choices.map(|choice| format!("{choice:?}")), ["Sled", "None", "Memory", "Other"]);
    }

    #[test]
    fn a_new_store_is_empty() {
        for (open, ..) in every_store() {
            assert_eq!(open().and_then(|mut store| store.load()).expect("it opens"), []);
        }
    }

    #[test]
    fn it_gives_back_the_last_value_of_each_key_or_nothing_also_after_a_reopen() {
        for (open, remembers, _dir) in every_store() {
            let mut expected = BTreeMap::new();
            for batch in [0..20, 20..40, 40..43] {
                let mut store = open().expect("it opens");
                let values: Vec<_> = batch.map(value).collect();
                store.store(&values).expect("it stores");
                store.store(&[]).expect("nothing is fine");
                expected.extend(values);
                drop(store);
                let mut store = open().expect("it opens again");
                let found: BTreeMap<_, _> = store.load().expect("it loads").into_iter().collect();
                assert!(found == expected || (!remembers && found.is_empty()), "{found:?}");
            }
        }
    }

    #[test]
    fn an_empty_value_takes_its_key_away() {
        for (open, _, _dir) in every_store() {
            let mut store = open().expect("it opens");
            store.store(&[value(1), value(2)]).expect("it stores");
            store.store(&[(value(1).0, Vec::new()), (value(3).0, Vec::new())]).expect("it stores");
            drop(store);
            let mut store = open().expect("it opens again");
            let found = store.load().expect("it loads");
            assert!(found.iter().all(|found| *found == value(2)), "{found:?}");
        }
    }

    #[test]
    fn a_value_may_be_as_long_as_the_longest_cursor() {
        for (open, remembers, _dir) in every_store() {
            let longest = (vec![7; 200], vec![9; 9_000]);
            let mut store = open().expect("it opens");
            store.store(std::slice::from_ref(&longest)).expect("it stores");
            drop(store);
            let found = open().and_then(|mut store| store.load()).expect("it loads");
            assert_eq!(found, if remembers { vec![longest] } else { vec![] });
        }
    }
}
