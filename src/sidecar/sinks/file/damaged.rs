//! Lines that file destinations could not read back, counted for whoever watches.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// How many lines at least, by destination, since the process began. Only what was damaged takes room.
#[derive(Debug, Default)]
pub struct Damaged {
    lines: Mutex<BTreeMap<Arc<str>, u64>>,
}

impl Damaged {
    /// So many more.
    pub(super) fn add(&self, destination: &str, lines: u64) {
        if lines > 0 {
            *self.lock().entry(destination.into()).or_default() += lines;
        }
    }

    /// Those of each destination that has lost some.
    #[must_use]
    pub fn all(&self) -> Vec<(Arc<str>, u64)> {
        self.lock().iter().map(|(destination, lines)| (Arc::clone(destination), *lines)).collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<Arc<str>, u64>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
