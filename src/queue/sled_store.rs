//! The cursor store on sled 0.34.7; the only file that names sled.
//!
//! sled is a fast ordered index and no more is asked of it. Its `flush` does not sync, damage to its files goes
//! unnoticed, and `flush_async` hangs for ever with seven callers: so nothing here is believed without proof, and only
//! the blocking calls are used, from one thread.

use super::cursor_store::{CursorStore, KeyValue, StoreError};
use std::path::Path;
use std::time::Duration;

/// Bytes of sled's page cache. Ten thousand cursors take about a fifth of it.
const CACHE_BYTES: u64 = 16 << 20;

/// How often, and how far apart, a lock that sled still holds is tried again: two seconds in all.
const LOCK_TRIES: usize = 40;
const LOCK_PAUSE: Duration = Duration::from_millis(50);

/// Cursor hints in a sled directory of their own.
pub(crate) struct SledStore {
    db: sled::Db,
}

impl SledStore {
    pub(crate) fn open(dir: &Path) -> Result<Self, StoreError> {
        // No flusher of its own: we flush once a tick, and a hint that a power cut takes back is no loss.
        let config = sled::Config::default().path(dir).cache_capacity(CACHE_BYTES).flush_every_ms(None);
        // sled lets go of its lock some time after its last handle is dropped. Two processes never meet here: the data
        // directory has a lock of its own.
        let mut again = 0..LOCK_TRIES;
        let is_held = |error: &sled::Error| error.to_string().contains("could not acquire lock");
        loop {
            match config.open() {
                Err(error) if is_held(&error) && again.next().is_some() => std::thread::sleep(LOCK_PAUSE),
                opened => return Ok(Self { db: opened? }),
            }
        }
    }
}

impl CursorStore for SledStore {
    fn load(&mut self) -> Result<Vec<KeyValue>, StoreError> {
        let pair =
            |pair: sled::Result<(sled::IVec, sled::IVec)>| Ok(pair.map(|(key, value)| (key.to_vec(), value.to_vec()))?);
        self.db.iter().map(pair).collect()
    }

    fn store(&mut self, values: &[KeyValue]) -> Result<(), StoreError> {
        let mut batch = sled::Batch::default();
        for (key, value) in values {
            if value.is_empty() {
                batch.remove(key.as_slice());
            } else {
                batch.insert(key.as_slice(), value.as_slice());
            }
        }
        self.db.apply_batch(batch)?;
        self.db.flush()?;
        Ok(())
    }
}

impl From<sled::Error> for StoreError {
    fn from(error: sled::Error) -> Self {
        Self(error.to_string())
    }
}
