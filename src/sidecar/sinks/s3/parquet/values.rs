//! The values of one column that wait to be written: each that differs once, and how many rows in a row have it.
//!
//! A value is looked up only where it differs from that of the row before. In a column whose values hardly ever come again
//! looking for them is given up, and each is kept where it stands.

mod table;

use std::hash::{BuildHasher, RandomState};

use table::Table;

/// Different values from which on it is asked whether looking for them pays.
const ASK_FROM: usize = 4096;

/// Rows in a row that have the same value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    /// The value's number.
    pub(super) value: u32,
    /// How many they are: one at least.
    pub(super) rows: u32,
}

/// A value on its way into a column.
pub(super) trait New {
    /// What is kept of it.
    type Kept: Copy;

    /// Whether that is it.
    fn is(&self, kept: Self::Kept) -> bool;

    /// Equal for equal ones.
    fn hash(&self, keys: &RandomState) -> u64;

    /// Keeps it.
    fn keep(self) -> Self::Kept;
}

/// Runs of rows: neighbours of the same value are one.
#[derive(Debug, Default)]
pub(super) struct Runs(Vec<Run>);

impl Runs {
    #[inline]
    pub(super) fn push(&mut self, value: u32, rows: u32) {
        match self.0.last_mut() {
            Some(last) if last.value == value => last.rows += rows,
            _ => self.0.push(Run { value, rows }),
        }
    }

    pub(super) fn as_slice(&self) -> &[Run] {
        &self.0
    }

    /// Memory, as far as it is in use.
    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.0)
    }
}

/// Each value once, and the rows as runs of them.
#[derive(Debug)]
pub(super) struct Distinct<V> {
    pub(super) values: Vec<V>,
    pub(super) runs: Runs,
    table: Table,
    rows: usize,
}

/// The values of a column.
#[derive(Debug)]
pub(super) enum Values<V> {
    /// Those that differ, and where they stand.
    Distinct(Distinct<V>),
    /// Each, row by row.
    Every(Vec<V>),
}

impl<V> Default for Values<V> {
    fn default() -> Self {
        Self::Distinct(Distinct::default())
    }
}

impl<V> Default for Distinct<V> {
    fn default() -> Self {
        Self { values: Vec::new(), runs: Runs::default(), table: Table::default(), rows: 0 }
    }
}

impl<V: Copy> Values<V> {
    /// Adds so many rows of this value.
    #[inline]
    pub(super) fn push(&mut self, new: impl New<Kept = V>, rows: u32) {
        match self {
            Self::Distinct(distinct) => {
                distinct.push(new, rows);
                if !distinct.pays() {
                    *self = Self::Every(distinct.every());
                }
            }
            Self::Every(values) => {
                let last = values.last().copied().filter(|last| new.is(*last));
                let value = last.unwrap_or_else(|| new.keep());
                values.extend(std::iter::repeat_n(value, rows as usize));
            }
        }
    }

    /// Memory, as far as it is in use, besides what the values refer to.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Distinct(distinct) => distinct.bytes(),
            Self::Every(values) => size_of_val(&**values),
        }
    }
}

impl<V: Copy> Distinct<V> {
    /// Adds so many rows of this value.
    #[inline]
    pub(super) fn push(&mut self, new: impl New<Kept = V>, rows: u32) {
        self.rows += rows as usize;
        if let Some(last) = self.runs.0.last_mut()
            && new.is(self.values[last.value as usize])
        {
            last.rows += rows;
            return;
        }
        let value = self.number(new);
        self.runs.push(value, rows);
    }

    /// The number of a value; the next one, if it is new.
    fn number(&mut self, new: impl New<Kept = V>) -> u32 {
        let hash = new.hash(self.table.keys());
        self.table.find(hash, |number| new.is(self.values[number as usize])).unwrap_or_else(|| {
            self.values.push(new.keep());
            self.table.add(hash)
        })
    }

    /// Whether rows are more than their values by enough.
    #[inline]
    fn pays(&self) -> bool {
        self.values.len() < ASK_FROM || self.values.len() / 3 < self.rows / 4
    }

    /// The value of each row.
    fn every(&self) -> Vec<V> {
        let mut every = Vec::with_capacity(self.rows);
        for run in self.runs.as_slice() {
            every.extend(std::iter::repeat_n(self.values[run.value as usize], run.rows as usize));
        }
        every
    }

    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.values) + self.runs.bytes() + self.table.bytes()
    }
}

/// A number, which stands for itself.
pub(super) struct Number(pub(super) i64);

impl New for Number {
    type Kept = i64;

    #[inline]
    fn is(&self, kept: i64) -> bool {
        self.0 == kept
    }

    fn hash(&self, keys: &RandomState) -> u64 {
        keys.hash_one(self.0)
    }

    #[inline]
    fn keep(self) -> i64 {
        self.0
    }
}

/// Where a text lies in the group's text.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span {
    start: u32,
    length: u32,
}

impl Span {
    #[inline]
    pub(super) fn of(self, text: &[u8]) -> &[u8] {
        &text[self.start as usize..][..self.length as usize]
    }

    pub(super) fn len(self) -> usize {
        self.length as usize
    }
}

/// A text, and the group's text, where it is kept.
pub(super) struct Text<'a> {
    pub(super) new: &'a [u8],
    pub(super) group: &'a mut Vec<u8>,
}

impl New for Text<'_> {
    type Kept = Span;

    #[inline]
    fn is(&self, kept: Span) -> bool {
        self.new == kept.of(self.group)
    }

    fn hash(&self, keys: &RandomState) -> u64 {
        keys.hash_one(self.new)
    }

    #[inline]
    fn keep(self) -> Span {
        let start = offset(self.group.len());
        self.group.extend_from_slice(self.new);
        Span { start, length: offset(self.new.len()) }
    }
}

/// A group's text is far below 4 GiB: one frame's and a limit's worth.
fn offset(at: usize) -> u32 {
    u32::try_from(at).expect("a group of rows has less than 4 GiB of text")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(list: &[&str]) -> (Values<Span>, Vec<u8>) {
        let (mut values, mut group) = (Values::default(), Vec::new());
        for text in list {
            values.push(Text { new: text.as_bytes(), group: &mut group }, 1);
        }
        (values, group)
    }

    fn numbers(rows: impl IntoIterator<Item = i64>) -> Values<i64> {
        let mut values = Values::default();
        rows.into_iter().for_each(|number| values.push(Number(number), 1));
        values
    }

    #[test]
    fn each_value_is_kept_once_and_rows_are_runs_of_them() {
        let (values, group) = texts(&["on", "on", "off", "on", "", ""]);
        let Values::Distinct(distinct) = values else { panic!("few values") };
        let kept: Vec<&[u8]> = distinct.values.iter().map(|span| span.of(&group)).collect();
        assert_eq!(kept, [&b"on"[..], b"off", b""]);
        let runs: Vec<(u32, u32)> = distinct.runs.as_slice().iter().map(|run| (run.value, run.rows)).collect();
        assert_eq!(runs, [(0, 2), (1, 1), (0, 1), (2, 2)]);
        assert_eq!(group, b"onoff");
    }

    #[test]
    fn values_that_come_again_later_are_found_however_many_there_are() {
        let block = ASK_FROM as i64 / 2;
        let values = numbers((0..5).flat_map(|n| (0..4).flat_map(move |_| n * block..(n + 1) * block)));
        let Values::Distinct(distinct) = values else { panic!("each comes four times") };
        assert_eq!(distinct.values, (0..5 * block).collect::<Vec<_>>());
        assert_eq!(distinct.rows as i64, 20 * block);
    }

    #[test]
    fn values_that_never_come_again_are_no_longer_looked_for() {
        let Values::Every(values) = numbers(0..10_000) else { panic!("all differ") };
        assert_eq!(values, (0..10_000).collect::<Vec<_>>());
        // What was known before the looking ended keeps its place.
        let rows: Vec<i64> = (0..3_000).flat_map(|n| [n, n]).chain(3_000..20_000).chain([7, 7, 8]).collect();
        let Values::Every(values) = numbers(rows.clone()) else { panic!("most differ") };
        assert_eq!(values, rows);
    }
}
