//! Finds the number of a value by its hash: open addressing over numbers alone, the values lie elsewhere.
//!
//! Keys are drawn for each table, so that no customer can make theirs collide; no number depends on them.

use std::hash::RandomState;

/// Places at first; always a power of two.
const PLACES_MIN: usize = 64;

/// Numbers by the hashes of their values.
#[derive(Debug, Default)]
pub(super) struct Table {
    keys: RandomState,
    /// A number and one, or 0 for nothing; half of them at most are taken.
    places: Vec<u32>,
    /// The hash of each number's value.
    hashes: Vec<u32>,
}

impl Table {
    pub(super) fn keys(&self) -> &RandomState {
        &self.keys
    }

    /// The number of a value of this hash that `is` it.
    #[inline]
    pub(super) fn find(&self, hash: u64, is: impl Fn(u32) -> bool) -> Option<u32> {
        let hash = hash as u32;
        let mut place = self.first(hash)?;
        loop {
            let number = self.places[place].checked_sub(1)?;
            if self.hashes[number as usize] == hash && is(number) {
                return Some(number);
            }
            place = (place + 1) & (self.places.len() - 1);
        }
    }

    /// Gives the next number to a value of this hash that was not found.
    pub(super) fn add(&mut self, hash: u64) -> u32 {
        let number = u32::try_from(self.hashes.len()).expect("a group has few rows");
        self.hashes.push(hash as u32);
        if self.hashes.len() * 2 > self.places.len() {
            self.grow();
        } else {
            self.place(number);
        }
        number
    }

    /// Memory in use.
    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.places) + size_of_val(&*self.hashes)
    }

    fn grow(&mut self) {
        let places = (self.places.len() * 2).max(PLACES_MIN);
        self.places.clear();
        self.places.resize(places, 0);
        (0..self.hashes.len() as u32).for_each(|number| self.place(number));
    }

    fn place(&mut self, number: u32) {
        let mut place = self.first(self.hashes[number as usize]).expect("there are places");
        while self.places[place] != 0 {
            place = (place + 1) & (self.places.len() - 1);
        }
        self.places[place] = number + 1;
    }

    /// Where to look first; `None` while there are no places.
    #[inline]
    fn first(&self, hash: u32) -> Option<usize> {
        Some(hash as usize & self.places.len().checked_sub(1)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_found_by_their_values_even_where_all_hashes_are_the_same() {
        for hash in [|n: u32| u64::from(n).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 20, |_| 7] {
            let mut table = Table::default();
            for n in 0..1_000 {
                assert_eq!(table.find(hash(n), |number| number == n), None);
                assert_eq!(table.add(hash(n)), n);
            }
            for n in 0..1_000 {
                assert_eq!(table.find(hash(n), |number| number == n), Some(n));
            }
            assert_eq!(table.find(hash(1_000), |_| false), None);
            assert!(table.places.len() == 2_048 && table.bytes() == 2_048 * 4 + 1_000 * 4);
        }
    }
}
