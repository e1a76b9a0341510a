//! Which records lie in files already, as found at start: what a crash left written but unsettled comes again, and is
//! recognised here. Pure.
//!
//! Remembers ranges of offsets per stream, so its size follows the gaps and not the records. What was recognised once
//! is forgotten, so that a replay asked for later is written.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::delivery::record_id;

/// How each line begins; the id follows.
pub(super) const LINE_START: &[u8] = b"{\"id\":\"";

/// So many ranges are remembered, some tens of megabytes: more than there are unless cursors were lost and a filter leaves
/// gaps all over.
const RANGES_MAX: usize = 1 << 20;

/// The records of the files that were found.
#[derive(Debug)]
pub(super) struct Present {
    /// By prefix of the record id: disjoint ranges, start to end.
    streams: BTreeMap<String, BTreeMap<u64, u64>>,
    /// How many more there may be.
    room: usize,
    left_out: u64,
}

impl Default for Present {
    fn default() -> Self {
        Self { streams: BTreeMap::new(), room: RANGES_MAX, left_out: 0 }
    }
}

/// The id of a line that is whole; `None` if it is not. `line` is without its newline.
pub(super) fn line_id(line: &[u8]) -> Option<&str> {
    let rest = line.strip_prefix(LINE_START)?;
    // Blocks that never reached the disk read as zeros, and JSON has none.
    if !line.ends_with(b"}") || memchr::memchr(0, line).is_some() {
        return None;
    }
    let id = &rest[..memchr::memchr(b'"', rest)?];
    std::str::from_utf8(id).ok()
}

impl Present {
    /// Notes the record of this id. What is no id is not noted.
    pub(super) fn note(&mut self, id: &str) {
        let Some((prefix, offset)) = record_id::parse(id) else { return };
        let Some(end) = offset.checked_add(1) else { return };
        let ranges = match self.streams.get_mut(prefix) {
            Some(ranges) => ranges,
            None => self.streams.entry(prefix.to_owned()).or_default(),
        };
        let before = ranges.range(..=offset).next_back().map(|(&start, &end)| start..end);
        let after_end = ranges.get(&end).copied();
        let start = match before {
            Some(range) if range.end > offset => return,
            Some(range) if range.end == offset => range.start,
            _ => offset,
        };
        match (start < offset, after_end.is_some()) {
            (true, true) => self.room += 1,
            (false, false) if self.room == 0 => {
                self.left_out += 1;
                return;
            }
            (false, false) => self.room -= 1,
            _ => {}
        }
        ranges.remove(&end);
        ranges.insert(start, after_end.unwrap_or(end));
    }

    /// How many records are in files and will not be recognised, for want of room.
    pub(super) fn left_out(&self) -> u64 {
        self.left_out
    }

    /// Whether this record lies in a file.
    pub(super) fn has(&self, prefix: &str, offset: u64) -> bool {
        let Some(ranges) = self.streams.get(prefix) else { return false };
        ranges.range(..=offset).next_back().is_some_and(|(_, &end)| end > offset)
    }

    /// Whether any of these records lies in a file.
    pub(super) fn has_any(&self, prefix: &str, offsets: &Range<u64>) -> bool {
        let Some(ranges) = self.streams.get(prefix) else { return false };
        ranges.range(..offsets.end).next_back().is_some_and(|(_, &end)| end > offsets.start)
    }

    /// These records were delivered: they will not come again, unless someone asks for them.
    pub(super) fn forget(&mut self, prefix: &str, offsets: &Range<u64>) {
        let Some(ranges) = self.streams.get_mut(prefix) else { return };
        while let Some((&start, &end)) = ranges.range(..offsets.end).next_back() {
            if end <= offsets.start {
                break;
            }
            ranges.remove(&start);
            self.room += 1;
            for (start, end) in [(start, offsets.start), (offsets.end, end)] {
                if start < end {
                    ranges.insert(start, end);
                    self.room = self.room.saturating_sub(1);
                }
            }
        }
        if ranges.is_empty() {
            self.streams.remove(prefix);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn it_holds_what_a_set_would_hold(
            noted in proptest::collection::vec(0u64..60, 0..80),
            forgotten in proptest::collection::vec((0u64..60, 0u64..20), 0..6),
            asked in (0u64..60, 1u64..20),
        ) {
            let (mut present, mut model) = (Present::default(), BTreeSet::new());
            for offset in noted {
                present.note(&format!("log-1-{offset}"));
                model.insert(offset);
            }
            for (start, len) in forgotten {
                present.forget("log-1-", &(start..start + len));
                model.retain(|offset| !(start..start + len).contains(offset));
            }
            for offset in 0..100 {
                prop_assert_eq!(present.has("log-1-", offset), model.contains(&offset));
            }
            let ranges: usize = present.streams.values().map(BTreeMap::len).sum();
            prop_assert_eq!((present.room, present.left_out()), (RANGES_MAX - ranges, 0));
            let range = asked.0..asked.0 + asked.1;
            prop_assert_eq!(present.has_any("log-1-", &range), model.range(range).next().is_some());
            prop_assert!(!present.has("log-2-", 1) && !present.has_any("log-2-", &(0..100)));
        }
    }

    #[test]
    fn a_million_consecutive_records_are_one_range() {
        let mut present = Present::default();
        (0..1_000_000).rev().for_each(|offset| present.note(&format!("log-1-{offset}")));
        assert_eq!(present.streams["log-1-"].len(), 1);
    }

    #[test]
    fn where_there_is_no_room_what_is_left_out_is_counted() {
        let mut present = Present { room: 3, ..Present::default() };
        for offset in [0, 10, 20, 30, 1, 40, 9] {
            present.note(&format!("log-1-{offset}"));
        }
        assert_eq!(present.left_out(), 2);
        let here: Vec<u64> = (0..50).filter(|offset| present.has("log-1-", *offset)).collect();
        assert_eq!(here, [0, 1, 9, 10, 20]);
    }

    #[test]
    fn only_a_whole_line_has_an_id() {
        assert_eq!(line_id(b"{\"id\":\"a-1-2\",\"key\":\"k\"}"), Some("a-1-2"));
        for line in
            [&b""[..], b"{}", b"{\"id\":\"a-1-2\",\"ke", b"{\"id\":\"a-1-2\",\"\0\0\0\"}", b"\0\0\0}", b"{\"id\":\"a}"]
        {
            assert_eq!(line_id(line), None);
        }
    }
}
