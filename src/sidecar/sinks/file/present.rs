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

/// The records of the files that were found.
#[derive(Debug, Default)]
pub(super) struct Present {
    /// By prefix of the record id: disjoint ranges, start to end.
    streams: BTreeMap<String, BTreeMap<u64, u64>>,
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
        ranges.remove(&end);
        ranges.insert(start, after_end.unwrap_or(end));
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
            if start < offsets.start {
                ranges.insert(start, offsets.start);
            }
            if end > offsets.end {
                ranges.insert(offsets.end, end);
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
    fn only_a_whole_line_has_an_id() {
        assert_eq!(line_id(b"{\"id\":\"a-1-2\",\"key\":\"k\"}"), Some("a-1-2"));
        for line in
            [&b""[..], b"{}", b"{\"id\":\"a-1-2\",\"ke", b"{\"id\":\"a-1-2\",\"\0\0\0\"}", b"\0\0\0}", b"{\"id\":\"a}"]
        {
            assert_eq!(line_id(line), None);
        }
    }
}
