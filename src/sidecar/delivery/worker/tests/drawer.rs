//! Where the letters of these tests are kept: in memory.

use super::*;
use crate::delivery::parking::{Kind, Letter, Parking};

/// Keeps letters in memory.
#[derive(Default)]
pub(super) struct Drawer {
    pub(super) letters: Mutex<Vec<Letter>>,
    /// So many times it keeps nothing.
    pub(super) refusals: AtomicU64,
    /// It has no room for more than so many.
    pub(super) full_at: Option<usize>,
    /// So many times it panics.
    pub(super) panics: AtomicU64,
    /// How many bytes it was last asked to have room for.
    pub(super) asked: AtomicU64,
}

impl Parking for Drawer {
    fn park(&self, letters: Vec<Letter>, done: Box<dyn FnOnce(Result<(), BoxError>) + Send>) {
        assert!(letters.is_sorted_by_key(|letter| letter.origin));
        assert!(!take_one(&self.panics), "the drawer sticks");
        if take_one(&self.refusals) {
            return done(Err("the log is read-only".into()));
        }
        let mut kept = self.letters.lock().unwrap();
        for letter in letters {
            if !kept.iter().any(|other| (other.origin, other.kind) == (letter.origin, letter.kind)) {
                kept.push(letter);
            }
        }
        drop(kept);
        done(Ok(()));
    }

    fn has_room(&self, _: &str, bytes: u64) -> bool {
        self.asked.store(bytes, Ordering::SeqCst);
        self.full_at.is_none_or(|most| self.letters.lock().unwrap().len() < most)
    }
}

impl Drawer {
    pub(super) fn of(&self, dead: bool) -> Vec<u64> {
        let letters = self.letters.lock().unwrap();
        let mut offsets: Vec<u64> =
            letters.iter().filter(|l| (l.kind == Kind::Dead) == dead).map(|l| l.origin.offset).collect();
        offsets.sort_unstable();
        offsets
    }
}
