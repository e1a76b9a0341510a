//! Plans that a crash left, by first offset: many for a moment after a start, and none ever after. A word while there are
//! none.

use super::Planned;
use std::collections::BTreeMap;
use std::ops::Deref;

static NONE: BTreeMap<u64, Planned> = BTreeMap::new();

/// Plans that were not yet handed out again. They do not overlap.
#[derive(Debug, Default)]
#[expect(clippy::box_collection, reason = "a word instead of three in every idle queue, and almost always absent")]
pub(super) struct Left(Option<Box<BTreeMap<u64, Planned>>>);

impl Deref for Left {
    type Target = BTreeMap<u64, Planned>;

    fn deref(&self) -> &Self::Target {
        self.0.as_deref().unwrap_or(&NONE)
    }
}

impl Left {
    pub(super) fn insert(&mut self, start: u64, planned: Planned) {
        self.0.get_or_insert_default().insert(start, planned);
    }

    pub(super) fn get_mut(&mut self, start: u64) -> Option<&mut Planned> {
        self.0.as_mut()?.get_mut(&start)
    }

    pub(super) fn remove(&mut self, start: u64) -> Option<Planned> {
        let removed = self.0.as_mut()?.remove(&start);
        self.forget_if_empty();
        removed
    }

    pub(super) fn retain(&mut self, keep: impl FnMut(&u64, &mut Planned) -> bool) {
        if let Some(left) = &mut self.0 {
            left.retain(keep);
        }
        self.forget_if_empty();
    }

    fn forget_if_empty(&mut self) {
        self.0.take_if(|left| left.is_empty());
    }
}
