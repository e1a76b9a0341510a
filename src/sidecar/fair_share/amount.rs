//! So much of what is shared. Pure arithmetic, which never wraps.

use std::ops::{Add, AddAssign, Sub, SubAssign};

/// So much of what is shared, in two kinds of which a demand may want one or both.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Amount {
    /// Places: requests in flight, threads.
    pub(crate) places: u64,
    /// Bytes of memory.
    pub(crate) bytes: u64,
}

impl Amount {
    /// No place, and these bytes.
    pub(crate) fn bytes(bytes: u64) -> Self {
        Self { places: 0, bytes }
    }

    /// One place, and these bytes.
    pub(crate) fn place(bytes: u64) -> Self {
        Self { places: 1, bytes }
    }

    pub(super) fn within(self, other: Self) -> bool {
        self.places <= other.places && self.bytes <= other.bytes
    }

    /// The smaller of each kind.
    pub(crate) fn min(self, other: Self) -> Self {
        Self { places: self.places.min(other.places), bytes: self.bytes.min(other.bytes) }
    }

    /// What is left of it without `other`; nothing of a kind of which that is more.
    pub(crate) fn without(self, other: Self) -> Self {
        let places = self.places.saturating_sub(other.places);
        Self { places, bytes: self.bytes.saturating_sub(other.bytes) }
    }

    /// `part` of `whole` of it.
    pub(crate) fn part(self, part: u64, whole: u64) -> Self {
        let of =
            |n: u64| u64::try_from(u128::from(n) * u128::from(part) / u128::from(whole.max(1))).unwrap_or(u64::MAX);
        Self { places: of(self.places), bytes: of(self.bytes) }
    }
}

impl Add for Amount {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        let places = self.places.saturating_add(other.places);
        Self { places, bytes: self.bytes.saturating_add(other.bytes) }
    }
}

impl AddAssign for Amount {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Sub for Amount {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self { places: self.places - other.places, bytes: self.bytes - other.bytes }
    }
}

impl SubAssign for Amount {
    fn sub_assign(&mut self, other: Self) {
        *self = *self - other;
    }
}
