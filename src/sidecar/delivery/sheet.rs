//! The balance sheet of a destination: its queues added up, those of its dead and held letters too. Pure.
//!
//! A record that is moved is settled where it was and accepted where it goes, so the plain sum would count it at both
//! places. What always holds, in records: `accepted` is what the destination's own streams gave it; `pending` has the
//! held ones in it, `dead_lettered` is what lies in the dead-letter queue now; and the sheet closes. A record whose
//! letter is durable while it is not settled yet itself counts as pending.
//!
//! Bytes are as stored where the record lies: a letter is larger than its record by what is said of it, so `accepted`
//! is the sum of the parts there.

use forebay::{Balance, Count};

/// The streams of dead and of held letters begin with these.
const DEAD: &str = "!dead/";
const HELD: &str = "!held/";

/// Adds up the queues of one destination, each named by its stream.
#[must_use]
pub fn sheet<'a>(queues: impl IntoIterator<Item = (&'a str, Balance)>) -> Balance {
    let (mut sum, mut dead, mut held) = (Balance::default(), Balance::default(), Balance::default());
    let mut moved = (Count::default(), Count::default());
    let mut own_pending = Count::default();
    for (stream, queue) in queues {
        moved.0 += queue.dead_lettered;
        moved.1 += queue.held;
        sum.delivered += queue.delivered;
        sum.filtered += queue.filtered;
        sum.expired += queue.expired;
        sum.purged += queue.purged;
        sum.lost += queue.lost;
        if stream.starts_with(DEAD) {
            dead = queue;
        } else if stream.starts_with(HELD) {
            held = queue;
        } else {
            own_pending += queue.pending;
        }
    }
    // What lies on a shelf, less what has not been settled yet where it came from.
    let surplus = |shelf: Balance, moved: Count| i128::from(shelf.accepted.records) - i128::from(moved.records);
    let (of_dead, of_held) = (surplus(dead, moved.0), surplus(held, moved.1));
    // A record that was parked as the one and settled as the other is no surplus.
    let crossed = if of_dead.signum() * of_held.signum() < 0 { of_dead.abs().min(of_held.abs()) } else { 0 };
    sum.dead_lettered = there(dead.pending, of_dead - crossed * of_dead.signum());
    sum.pending = own_pending + there(held.pending, of_held - crossed * of_held.signum());
    // Equal to what the own streams gave, in records; while queues are read one after the other as records move, as
    // much as was seen.
    sum.accepted = sum.settled() + sum.pending;
    sum
}

/// What of a shelf's letters is to be counted there, if so many of them are counted elsewhere still.
fn there(letters: Count, surplus: i128) -> Count {
    let records = u64::try_from(i128::from(letters.records) - surplus).unwrap_or(0);
    Count { records, bytes: if records == 0 { 0 } else { letters.bytes } }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(records: u64) -> Count {
        Count { records, bytes: records * 10 }
    }

    #[test]
    fn without_letters_it_is_the_sum() {
        let one = Balance { accepted: count(10), delivered: count(6), pending: count(4), ..Balance::default() };
        let other = Balance { accepted: count(5), lost: count(1), filtered: count(4), ..Balance::default() };
        let sheet = sheet([("a", one), ("b", other)]);
        assert_eq!((sheet.accepted, sheet.delivered, sheet.pending), (count(15), count(6), count(4)));
        assert_eq!((sheet.lost, sheet.filtered), (count(1), count(4)));
        assert!(sheet.closes());
    }

    #[test]
    fn a_record_that_moved_counts_where_it_is() {
        // Of ten, three are dead and two held; one dead one was redriven and delivered, one purged, and one held one
        // was held again.
        let own = Balance {
            accepted: count(10),
            delivered: count(4),
            pending: count(1),
            dead_lettered: count(3),
            held: count(2),
            ..Balance::default()
        };
        let dead =
            Balance { accepted: count(3), pending: count(1), purged: count(1), held: count(1), ..Balance::default() };
        let held = Balance {
            accepted: count(4),
            pending: count(2),
            delivered: count(1),
            held: count(1),
            ..Balance::default()
        };
        let sheet = sheet([("prod", own), ("!dead/x", dead), ("!held/x", held)]);
        assert_eq!((sheet.accepted.records, sheet.delivered.records, sheet.purged.records), (10, 5, 1));
        assert_eq!((sheet.dead_lettered.records, sheet.pending.records, sheet.held.records), (1, 3, 0));
        assert!(sheet.closes());
    }

    #[test]
    fn a_letter_that_is_durable_before_its_record_is_settled_counts_once() {
        let own = Balance { accepted: count(10), pending: count(10), ..Balance::default() };
        let shelf = Balance { accepted: count(2), pending: count(2), ..Balance::default() };
        let sheet = sheet([("prod", own), ("!dead/x", shelf), ("!held/x", shelf)]);
        assert_eq!((sheet.accepted.records, sheet.pending.records, sheet.dead_lettered.records), (10, 10, 0));
        assert!(sheet.closes());
    }
}
