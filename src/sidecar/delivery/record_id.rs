//! Names single records to destinations: `<log id>-<stream>-<offset>`, made of `[A-Za-z0-9_-]` only. Pure.
//!
//! What always holds: a record has the same id at every destination and at every attempt, and no two records of any
//! two logs share one.

use super::sink::Origin;

/// All of a record's id but its offset: the same for all records of a stream.
#[must_use]
pub fn prefix(origin: &Origin) -> String {
    format!("{}-{}-", origin.log, origin.stream)
}

/// Appends the id of the record at `offset` of the stream whose prefix this is.
pub fn write(prefix: &str, offset: u64, out: &mut Vec<u8>) {
    use std::io::Write;
    write!(out, "{prefix}{offset}").expect("a Vec takes all that is written to it");
}

/// The prefix and the offset of an id; `None` if it is none. The log's part may hold hyphens, the others do not.
#[must_use]
pub fn parse(id: &str) -> Option<(&str, u64)> {
    let at = id.rfind('-')? + 1;
    let (prefix, offset) = id.split_at(at);
    Some((prefix, offset.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use forebay::{LogId, StreamId};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn an_id_reads_back_and_keeps_to_its_letters(log: u128, stream: u32, offset: u64) {
            let origin = Origin { log: LogId(log), stream: StreamId(stream), offsets: 0..1 };
            let prefix = prefix(&origin);
            let mut id = Vec::new();
            write(&prefix, offset, &mut id);
            let id = String::from_utf8(id).unwrap();
            prop_assert!(id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_'));
            prop_assert!(id.len() < 100);
            prop_assert_eq!(parse(&id), Some((prefix.as_str(), offset)));
        }
    }

    #[test]
    fn what_is_no_id_is_none() {
        for text in ["", "-", "abc", "a-b-", "a-1-x", "a-1-99999999999999999999"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
