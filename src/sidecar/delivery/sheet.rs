//! The balance sheet of a destination: its queues added up, those of its dead and held letters too. Pure.
//!
//! A record that is moved is settled where it was and accepted where it goes, so the plain sum would count it at both
//! places. What always holds, in records: each counts once, where it is now: `pending` has the held and the redriven ones
//! in it, `dead_lettered` is what lies in the dead-letter queue; and the sheet closes, `accepted` being the sum of all.
//! That is what the destination's own streams gave it, and once more each record that a replay sent again and that became
//! a letter then: the first time it had been settled already.
//!
//! Bytes are as stored where the record lies: a letter is larger than its record by what is said of it.

use forebay::{Balance, Count};

/// The streams of dead and of held letters begin with these.
const DEAD: &str = "!dead/";
const HELD: &str = "!held/";

/// The name under which the books of what was given up where it lies come, for want of a stream of their own.
pub const MARKED: &str = "!marked";

/// Letters that lie on a shelf and count elsewhere still: their records are not settled yet where they came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct InDoubt {
    /// Dead ones.
    pub dead: u64,
    /// Held ones.
    pub held: u64,
}

/// Adds up the queues of one destination, each named by its stream; those of its replays have books of their own, and are
/// not among them.
#[must_use]
pub fn sheet<'a>(queues: impl IntoIterator<Item = (&'a str, Balance)>, in_doubt: InDoubt) -> Balance {
    let mut sum = Balance::default();
    for (stream, queue) in queues {
        // What was dead-lettered or held there lies on a shelf since, or left one.
        sum.delivered += queue.delivered;
        sum.filtered += queue.filtered;
        sum.expired += queue.expired;
        sum.purged += queue.purged;
        sum.lost += queue.lost;
        if stream.starts_with(DEAD) {
            sum.dead_lettered += without(queue.pending, in_doubt.dead);
        } else if stream == MARKED {
            sum.dead_lettered += queue.pending;
        } else if stream.starts_with(HELD) {
            sum.pending += without(queue.pending, in_doubt.held);
        } else {
            sum.pending += queue.pending;
        }
    }
    // While queues are read one after the other as records move, it is as much as was seen.
    sum.accepted = sum.settled() + sum.pending;
    sum
}

/// What of a shelf's letters is to be counted there, if so many of them are counted elsewhere still.
fn without(letters: Count, elsewhere: u64) -> Count {
    let records = letters.records.saturating_sub(elsewhere);
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
        let sheet = sheet([("a", one), ("b", other)], InDoubt::default());
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
        let sheet = sheet([("prod", own), ("!dead/x", dead), ("!held/x", held)], InDoubt::default());
        assert_eq!((sheet.accepted.records, sheet.delivered.records, sheet.purged.records), (10, 5, 1));
        assert_eq!((sheet.dead_lettered.records, sheet.pending.records, sheet.held.records), (1, 3, 0));
        assert!(sheet.closes());
    }

    /// Of ten five were given up where they lie: one is gone, one was sent again, one became a letter then.
    #[test]
    fn what_was_given_up_where_it_lies_is_dead_until_somebody_decides() {
        let own = Balance { accepted: count(10), delivered: count(5), dead_lettered: count(5), ..Balance::default() };
        let marked = Balance {
            accepted: count(5),
            pending: count(2),
            delivered: count(1),
            expired: count(1),
            dead_lettered: count(1),
            ..Balance::default()
        };
        let dead = Balance { accepted: count(1), pending: count(1), ..Balance::default() };
        let sheet = sheet([("prod", own), (MARKED, marked), ("!dead/x", dead)], InDoubt::default());
        assert_eq!((sheet.accepted.records, sheet.delivered.records, sheet.expired.records), (10, 6, 1));
        assert_eq!((sheet.dead_lettered.records, sheet.pending.records), (3, 0));
        assert!(sheet.closes());
    }

    #[test]
    fn a_letter_that_is_durable_before_its_record_is_settled_counts_once() {
        let own = Balance { accepted: count(10), pending: count(10), ..Balance::default() };
        let shelf = Balance { accepted: count(2), pending: count(2), ..Balance::default() };
        let queues = [("prod", own), ("!dead/x", shelf), ("!held/x", shelf)];
        let sheet = sheet(queues, InDoubt { dead: 2, held: 1 });
        assert_eq!((sheet.accepted.records, sheet.pending.records, sheet.dead_lettered.records), (11, 11, 0));
        assert!(sheet.closes());
    }

    /// Ten were delivered; a replay sent them once more, and three became letters, of which one was sent again.
    #[test]
    fn a_letter_of_a_replay_is_accepted_once_more_for_as_long_as_it_is_told_of() {
        let own = Balance { accepted: count(10), delivered: count(10), ..Balance::default() };
        let dead = Balance { accepted: count(3), pending: count(2), held: count(1), ..Balance::default() };
        let held = Balance { accepted: count(1), delivered: count(1), ..Balance::default() };
        let sheet = sheet([("prod", own), ("!dead/x", dead), ("!held/x", held)], InDoubt::default());
        assert_eq!((sheet.accepted.records, sheet.delivered.records, sheet.dead_lettered.records), (13, 11, 2));
        assert!(sheet.closes());
    }
}
