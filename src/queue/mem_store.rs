//! A cursor store in memory, for simulations and for programs that want no file beside the log.

use super::cursor_store::{CursorStore, KeyValue, StoreError};
use crate::sync::{Arc, Mutex, PoisonError};
use std::collections::BTreeMap;

/// A cursor store in memory. Clones are the same store, so it can be kept over a reopen.
#[derive(Debug, Clone, Default)]
pub struct MemStore {
    values: Arc<Mutex<BTreeMap<Vec<u8>, Vec<u8>>>>,
}

impl CursorStore for MemStore {
    fn load(&mut self) -> Result<Vec<KeyValue>, StoreError> {
        let values = self.values.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(values.iter().map(|(key, value)| (key.clone(), value.clone())).collect())
    }

    fn store(&mut self, values: &[KeyValue]) -> Result<(), StoreError> {
        let mut all = self.values.lock().unwrap_or_else(PoisonError::into_inner);
        for (key, value) in values {
            if value.is_empty() {
                all.remove(key);
            } else {
                all.insert(key.clone(), value.clone());
            }
        }
        Ok(())
    }
}
