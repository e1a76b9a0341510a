//! Records that an overflow policy gave up where they lie: dead letters by the range, that nobody ever copied.
//!
//! They are shown, sent again and let go as whole ranges; what would have to look into one (a flag, a record's id) means none
//! of them. What always holds: those that are sent again are pending, and a replay of their queue, until that is over.

use forebay::{Balance, Count, MarkedRange, Queue, ReplayError, Settled};

use super::desk::Desk;
use super::filter::Filter;

/// Why they are here.
pub const REASON: &str = "overflow: the destination was too far behind";

/// Records that lie where they lay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MarkedLetters {
    /// The environment's id.
    pub environment: String,
    /// The first offset of its stream, and the one behind the last.
    pub offsets: std::ops::Range<u64>,
    /// Their bytes as stored.
    pub bytes: u64,
    /// When the last of them was given up, in milliseconds since 1970.
    pub at_ms: u64,
}

/// What was done with ranges.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ranges {
    /// Records that are sent again, or were let go.
    pub done: u64,
    /// Records that are meant as well, and wait: their queue has a replay under way. Ask again when that is over.
    pub waiting: u64,
}

impl MarkedLetters {
    /// Its records and bytes.
    #[must_use]
    pub fn count(&self) -> Count {
        Count { records: self.offsets.end - self.offsets.start, bytes: self.bytes }
    }
}

impl Desk {
    /// The ranges that nobody has decided on and that are meant, in order.
    #[must_use]
    pub fn marked(&self, filter: &Filter) -> Vec<MarkedLetters> {
        self.markers().iter().flat_map(|queue| meant(queue, filter)).collect()
    }

    /// Sends the ranges that are meant again: durable when it returns. Of each environment those that lie one behind the
    /// other; what is left waits for these. Blocks.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn redrive_marked(&self, filter: &Filter) -> Result<Ranges, ReplayError> {
        let (mut ranges, mut redriven) = (Ranges::default(), Ok(()));
        let Some(_inside) = self.enter() else { return Ok(ranges) };
        for queue in self.markers() {
            let all = marked(&queue);
            let mut rest = all.iter().skip_while(|range| !filter.means(range));
            // No range that is not meant lies between.
            let now: Vec<_> = rest.by_ref().take_while(|range| filter.means(range)).collect();
            let (Some(from), Some(to)) = (now.first(), now.last()) else { continue };
            let span = from.offsets.start..to.offsets.end;
            let records = |range: &MarkedLetters| range.count().records;
            let later: u64 = rest.filter(|range| filter.means(range)).map(records).sum();
            let now: u64 = now.into_iter().map(records).sum();
            match self.ground.queues.redrive(&self.destination, queue.stream(), span) {
                Ok(Some(_)) => {
                    ranges.done += now;
                    ranges.waiting += later;
                }
                Ok(None) => {} // somebody let it go meanwhile
                Err(ReplayError::UnderWay { .. }) => ranges.waiting += now + later,
                Err(error) => {
                    redriven = Err(error);
                    break;
                }
            }
        }
        if ranges.done > 0 {
            self.wake();
        }
        redriven.map(|()| ranges)
    }

    /// Lets the ranges that are meant go for good, counted as `as_`. None that are sent again. Durable with the next tick: see
    /// [`purge`](Self::purge).
    pub fn let_marked_go(&self, filter: &Filter, as_: Settled) -> u64 {
        let Some(_inside) = self.enter() else { return 0 };
        let mut gone = 0;
        for queue in self.markers() {
            gone += meant(&queue, filter)
                .into_iter()
                .map(|range| queue.let_marked_go(range.offsets, as_).records)
                .sum::<u64>();
        }
        gone
    }

    /// The destination's own queues of which records lie where they were given up.
    pub(super) fn markers(&self) -> Vec<Queue> {
        self.ground.queues.marking_of(&self.destination)
    }
}

fn meant(queue: &Queue, filter: &Filter) -> Vec<MarkedLetters> {
    marked(queue).into_iter().filter(|range| filter.means(range)).collect()
}

/// The ranges of a queue, but for those that are sent again.
pub(super) fn marked(queue: &Queue) -> Vec<MarkedLetters> {
    let shown = |range: MarkedRange| MarkedLetters {
        environment: queue.stream().to_owned(),
        offsets: range.start..range.end,
        bytes: range.bytes,
        at_ms: range.at_ms,
    };
    waiting_ranges(queue).0.into_iter().map(shown).collect()
}

/// What waits in the ranges of a queue for somebody to decide, and the books of all that was ever given up there.
pub(crate) fn waiting(queue: &Queue) -> (Count, Balance) {
    let (ranges, books) = waiting_ranges(queue);
    (ranges.iter().map(MarkedRange::count).sum(), books)
}

fn waiting_ranges(queue: &Queue) -> (Vec<MarkedRange>, Balance) {
    let (mut ranges, books) = queue.marked();
    let again = if ranges.is_empty() { None } else { queue.replay_under_way() }.and_then(|replay| replay.redrives());
    ranges.retain(|range| again.as_ref().is_none_or(|again| !again.contains(&range.start)));
    (ranges, books)
}
