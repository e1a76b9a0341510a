//! Records that an overflow policy gave up where they lie: dead letters by the range, that nobody ever copied.
//!
//! They are shown, sent again and let go as whole ranges; what would have to look into one (a flag, a record's id) means none
//! of them. What always holds: those that are sent again are pending, and a replay of their queue, until that is over.

use forebay::{Count, Queue, ReplayError, Settled};

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

impl Desk {
    /// The ranges that nobody has decided on and that are meant, in order.
    #[must_use]
    pub fn marked(&self, filter: &Filter) -> Vec<MarkedLetters> {
        self.markers().iter().flat_map(|queue| meant(queue, filter)).collect()
    }

    /// How many records lie in such ranges.
    #[must_use]
    pub fn marked_count(&self) -> Count {
        self.markers().iter().map(waiting).fold(Count::default(), |sum, count| sum + count)
    }

    /// Sends the ranges that are meant again: durable when it returns. Of each environment those that lie one behind the
    /// other; what is left waits for these. Blocks.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn redrive_marked(&self, filter: &Filter) -> Result<Ranges, ReplayError> {
        let mut ranges = Ranges::default();
        let Some(_inside) = self.enter() else { return Ok(ranges) };
        for queue in self.markers() {
            let meant = meant(&queue, filter);
            let count = |ranges: &[MarkedLetters]| -> u64 {
                ranges.iter().map(|range| range.offsets.end - range.offsets.start).sum()
            };
            // No range that is not meant lies between.
            let all = marked(&queue);
            let first = all.iter().position(|range| meant.first() == Some(range)).unwrap_or(all.len());
            let run = all[first..].iter().zip(&meant).take_while(|(range, meant)| range == meant).count();
            let (now, later) = meant.split_at(run);
            let (Some(from), Some(to)) = (now.first(), now.last()) else { continue };
            let span = from.offsets.start..to.offsets.end;
            match self.ground.queues.redrive(&self.destination, queue.stream(), span) {
                Ok(Some(_)) => {
                    ranges.done += count(now);
                    ranges.waiting += count(later);
                }
                Ok(None) => {} // somebody let it go meanwhile
                Err(ReplayError::UnderWay { .. }) => ranges.waiting += count(&meant),
                Err(error) => return Err(error),
            }
        }
        if ranges.done > 0 {
            self.wake();
        }
        Ok(ranges)
    }

    /// Lets the oldest range go, counted as expired, and says how many records that was.
    pub(super) fn expire_oldest_marked(&self) -> u64 {
        let oldest = self.marked(&Filter::default()).into_iter().min_by_key(|range| range.at_ms);
        let Some(oldest) = oldest else { return 0 };
        let queue = self.ground.queues.find(&self.destination, &oldest.environment);
        queue.map_or(0, |queue| queue.let_marked_go(oldest.offsets, Settled::Expired).records)
    }

    /// Lets the ranges that are meant go for good, counted as `as_`. None that are sent again.
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
    fn markers(&self) -> Vec<Queue> {
        let marking = self.ground.queues.marking().into_iter();
        marking.filter(|queue| queue.destination() == self.destination()).collect()
    }
}

fn meant(queue: &Queue, filter: &Filter) -> Vec<MarkedLetters> {
    marked(queue).into_iter().filter(|range| filter.means(range)).collect()
}

/// The ranges of a queue, but for those that are sent again.
fn marked(queue: &Queue) -> Vec<MarkedLetters> {
    let (ranges, _) = queue.marked();
    let again = if ranges.is_empty() { None } else { queue.replay_under_way() }.and_then(|replay| replay.redrives());
    let waits = |start: u64| again.as_ref().is_none_or(|again| !again.contains(&start));
    let ranges = ranges.into_iter().filter(|range| waits(range.start));
    let shown = |range: forebay::MarkedRange| MarkedLetters {
        environment: queue.stream().to_owned(),
        offsets: range.start..range.end,
        bytes: range.bytes,
        at_ms: range.at_ms,
    };
    ranges.map(shown).collect()
}

/// What waits in the ranges of a queue for somebody to decide.
pub(super) fn waiting(queue: &Queue) -> Count {
    let ranges = marked(queue).into_iter();
    ranges.fold(Count::default(), |sum, range| {
        sum + Count { records: range.offsets.end - range.offsets.start, bytes: range.bytes }
    })
}
