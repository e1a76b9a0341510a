//! The entries of the floor, by number.
//!
//! A list that grows by pieces: one that doubles leaves its former places behind it, which the allocator keeps. With
//! 10,000 queues they came to 1.7 MB.

use super::entry::FloorEntry;
use std::ops::{Index, IndexMut};

/// Entries of a piece: some 9 KB.
const PIECE: usize = 64;

/// Entries, numbered from 0 on.
#[derive(Default)]
pub(super) struct Entries(Vec<Vec<FloorEntry>>);

impl Entries {
    pub(super) fn len(&self) -> usize {
        self.0.last().map_or(0, |last| (self.0.len() - 1) * PIECE + last.len())
    }

    /// Adds one, under the number that is the length before.
    pub(super) fn push(&mut self, entry: FloorEntry) {
        match self.0.last_mut().filter(|last| last.len() < PIECE) {
            Some(last) => last.push(entry),
            None => {
                let mut piece = Vec::with_capacity(PIECE);
                piece.push(entry);
                self.0.push(piece);
            }
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &FloorEntry> {
        self.0.iter().flatten()
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

impl Index<u32> for Entries {
    type Output = FloorEntry;

    fn index(&self, id: u32) -> &FloorEntry {
        &self.0[id as usize / PIECE][id as usize % PIECE]
    }
}

impl IndexMut<u32> for Entries {
    fn index_mut(&mut self, id: u32) -> &mut FloorEntry {
        &mut self.0[id as usize / PIECE][id as usize % PIECE]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::balance::Books;
    use crate::queue::cursor::Cursor;

    fn entry(incarnation: u32) -> FloorEntry {
        FloorEntry {
            destination: "d".into(),
            stream: "s".into(),
            stream_id: None,
            incarnation,
            epoch: 0,
            books: Books::default(),
            cursor: Cursor::default(),
            extra: None,
        }
    }

    #[test]
    fn entries_keep_their_numbers_and_their_places_as_it_grows() {
        let mut entries = Entries::default();
        assert_eq!(entries.len(), 0);
        let mut places = Vec::new();
        for n in 0..3 * PIECE as u32 + 1 {
            assert_eq!(entries.len(), n as usize);
            entries.push(entry(n));
            places.push(std::ptr::from_ref(&entries[n]));
        }
        assert_eq!(entries.len(), places.len());
        for (n, place) in (0..).zip(places) {
            assert_eq!(entries[n].incarnation, n);
            assert_eq!(std::ptr::from_ref(&entries[n]), place, "{n} was moved");
        }
        assert!(entries.iter().map(|entry| entry.incarnation).eq(0..3 * PIECE as u32 + 1));
        entries[PIECE as u32].epoch = 7;
        assert_eq!(entries.iter().filter(|entry| entry.epoch == 7).count(), 1);
        entries.clear();
        assert_eq!((entries.len(), entries.iter().count()), (0, 0));
    }
}
