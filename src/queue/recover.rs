//! What is believed of a queue when a set is opened: the floor, unless a hint continues it; and how both are fitted to
//! a log that may have lost data. Pure; the set reads and reports.

use super::balance::Books;
use super::cursor::Cursor;
use super::floor_file::FloorEntry;
use super::hint::Hint;
use crate::{LogId, Tail};

/// Takes the hint for the floor's word where it may be believed. Whether it was.
pub(super) fn take_hint(entry: &mut FloorEntry, hint: Option<Hint>, log_id: LogId, tail: Tail) -> bool {
    let Some(hint) = hint.filter(|hint| hint.continues(entry, log_id, tail.offset)) else { return false };
    (entry.books, entry.cursor) = (hint.books, hint.cursor);
    true
}

/// Fits a cursor to a log that ends below it: the log lost records that this queue has settled. The cursor stays, as
/// offsets never repeat. The stream's running total goes on from what the log still knows, so every total beyond the
/// tail becomes the tail's, and the books begin that much earlier: what was delivered stays counted.
pub(super) fn fit_to_tail(books: &mut Books, cursor: &mut Cursor, tail: Tail) {
    let bytes_before = cursor.low_bytes + cursor.settled_bytes();
    let fitted = |offset: u64, bytes: u64| if offset >= tail.offset { tail.bytes } else { bytes.min(tail.bytes) };
    for range in &mut cursor.settled {
        let end_bytes = fitted(range.end, range.start_bytes + range.bytes);
        range.start_bytes = fitted(range.start, range.start_bytes);
        range.bytes = end_bytes - range.start_bytes;
    }
    cursor.low_bytes = fitted(cursor.low, cursor.low_bytes);
    let bytes_now = cursor.low_bytes + cursor.settled_bytes();
    books.start_bytes = books.start_bytes.wrapping_sub(bytes_before).wrapping_add(bytes_now);
    debug_assert!(books.agree_with(cursor), "what was settled stays settled");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::balance::{Count, End, Settled};

    /// Ten bytes a record; 0..60 and 70..90 delivered.
    fn books_and_cursor() -> (Books, Cursor) {
        let mut cursor = Cursor::at(0, 0);
        let mut books = Books::from(0, 0);
        for offsets in [0..60, 70..90] {
            let count = Count { records: offsets.end - offsets.start, bytes: (offsets.end - offsets.start) * 10 };
            cursor.insert(offsets.clone(), offsets.start * 10..offsets.end * 10);
            books.post(count, Settled::Delivered);
        }
        (books, cursor)
    }

    #[test]
    fn the_books_close_over_a_log_that_lost_its_end() {
        for lost_from in [0, 30, 60, 65, 70, 80, 90] {
            let (mut books, mut cursor) = books_and_cursor();
            fit_to_tail(&mut books, &mut cursor, Tail { offset: lost_from, bytes: lost_from * 10 });
            // The log gives no offset again, and its totals go on: 20 records of 100 bytes behind offset 90.
            let balance = books.balance(&cursor, End { offset: 110, bytes: lost_from * 10 + 2_000 });
            assert!(balance.closes(), "lost from {lost_from}: {balance:?}");
            assert_eq!(balance.delivered, Count { records: 80, bytes: 800 });
            assert_eq!(balance.pending.records, 30, "ten between and twenty behind");
            let mut kept = Vec::new();
            cursor.encode(&mut kept);
            assert_eq!(Cursor::decode(&mut crate::queue::codec::Decoder::new(&kept)), Ok(cursor));
        }
    }
}
