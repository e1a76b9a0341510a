//! What is given up when a destination falls behind too far: only what an operator has set beforehand, and never unsaid.
//!
//! Once a second every queue of a destination that has a policy is looked at. What always holds: without a policy nothing
//! is given up; what is given up are the oldest records, counted as expired or as dead letters that stay where they lie, and
//! the log says how many; from four fifths of a limit on it says once an hour what is coming, and [`Overflow::ahead`] says when. See docs/delivery.md, "Overflow".

mod shed;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use forebay::{Cursor, Much, Queue, QueueError, Queues, StreamStats};
use tracing::warn;

use shed::shed;

use crate::ages::{Now, SharedAges, ms};

/// How often [`Overflow::tend`] is to be called.
pub const TEND_EVERY: Duration = Duration::from_secs(1);

/// Limits are acted on in steps of this part of them, so that a destination which is behind for good is acted on, and told
/// of, now and then and not every second: the oldest get that much older at most, and then so many bytes more go.
const STEP: u64 = 16;

/// How often what is coming is said.
const SAID_EVERY: Duration = Duration::from_secs(3_600);

/// What becomes of what is given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// It is gone, counted as expired.
    Drop,
    /// It lies where it lay, as a dead letter.
    Mark,
}

/// What may be given up of a destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// What becomes of it.
    pub what: What,
    /// What was received longer ago.
    pub age_max: Option<Duration>,
    /// The oldest, while more bytes wait over all its queues.
    pub bytes_max: Option<u64>,
}

/// What is coming for the oldest record of a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ahead {
    /// When it will have become too old, in milliseconds since 1970, if it is not delivered before.
    pub too_old_at_ms: Option<u64>,
    /// So many bytes more may wait for the destination before the oldest go.
    pub bytes_left: Option<u64>,
}

/// Whether a record of a destination lies as a letter and is not settled yet where it was taken out, as a crash may leave it.
type InTwoPlaces = Box<dyn Fn(&str) -> bool + Send + Sync>;

/// The policies of all destinations that have one.
pub struct Overflow {
    queues: Queues,
    in_two_places: InTwoPlaces,
    ages: Arc<SharedAges>,
    watched: Mutex<BTreeMap<Arc<str>, Watched>>,
}

/// A destination with a policy.
struct Watched {
    policy: Policy,
    queues: Arc<[Queue]>,
    /// Whether this still holds. Locked while something is given up by it.
    holds: Arc<Mutex<bool>>,
    /// What was found when it was last looked at, by stream.
    ahead: HashMap<Arc<str>, Ahead>,
    /// When what is coming was last said.
    said: Option<Duration>,
}

/// A short disk, as a round finds it.
struct Short {
    /// What a stream may hold.
    share: u64,
    streams: HashMap<Arc<str>, StreamStats>,
    /// Everybody's queues, by stream.
    queues: HashMap<Arc<str>, Vec<Queue>>,
}

/// One queue, as it is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Waits {
    bytes: u64,
    /// When the oldest was received.
    oldest_ms: Option<u64>,
}

impl Overflow {
    /// Over these queues; nobody has a policy yet. While a record of a destination is `in_two_places`, a letter and not yet
    /// settled where it was taken out, nothing of that destination is given up: it would count twice, and could be sent twice.
    #[must_use]
    pub fn new(
        queues: Queues,
        ages: Arc<SharedAges>,
        in_two_places: impl Fn(&str) -> bool + Send + Sync + 'static,
    ) -> Self {
        Self { queues, in_two_places: Box::new(in_two_places), ages, watched: Mutex::default() }
    }

    /// From now on this holds for the destination with these queues, or nothing does. Waits for the disk, if something of
    /// the destination is being given up by what held before: when this returns no more of that goes.
    pub fn set(&self, destination: &Arc<str>, policy: Option<Policy>, queues: Vec<Queue>) {
        let watched = policy.map(|policy| {
            let ahead = queues.iter().map(|queue| (queue.stream_name(), Ahead::default())).collect();
            Watched { policy, queues: queues.into(), holds: Arc::new(Mutex::new(true)), ahead, said: None }
        });
        let before = match watched {
            Some(watched) => self.watched().insert(Arc::clone(destination), watched),
            None => self.watched().remove(destination),
        };
        before.into_iter().for_each(Watched::end);
    }

    /// Nothing holds for the destination any more. Waits as [`set`](Self::set) does.
    pub fn forget(&self, destination: &str) {
        let before = self.watched().remove(destination);
        before.into_iter().for_each(Watched::end);
    }

    /// Whether anybody has a policy.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.watched().is_empty()
    }

    /// What is coming for a queue, if its destination has a policy; as of the last look.
    #[must_use]
    pub fn ahead(&self, destination: &str, stream: &str) -> Option<Ahead> {
        self.watched().get(destination)?.ahead.get(stream).copied()
    }

    /// Looks at every queue of a destination with a policy, and gives up what is too far behind. Blocks: reads the disk.
    /// See [`TEND_EVERY`].
    pub fn tend(&self, now: Now) {
        let watched = self.watched();
        let age_now = self.ages.at(now);
        let held_until_ms = self.ages.held_until(now);
        let each = |(id, of): (&Arc<str>, &Watched)| {
            (Arc::clone(id), of.policy, Arc::clone(&of.queues), Arc::clone(&of.holds))
        };
        let all: Vec<_> = watched.iter().map(each).collect();
        drop(watched);
        let short = self.short();
        for (destination, policy, queues, holds) in all {
            let holds = lock(&holds);
            // It was taken back while others were looked at.
            if !*holds {
                continue;
            }
            let looked = match (self.in_two_places)(&destination) {
                true => queues.iter().map(|queue| waits(queue, policy.what, now.wall_ms)).collect(),
                false => look(&destination, policy, &queues, (age_now, now.wall_ms), short.as_ref()),
            };
            let looked = looked.inspect_err(|error| {
                let error: &dyn std::error::Error = error;
                warn!(%destination, error, "what waits cannot be read: nothing of it is given up, tried again");
            });
            drop(holds);
            let Ok(waits) = looked else { continue };
            let ahead = ahead(policy, &waits, held_until_ms);
            let near = is_near(policy, &waits, now.wall_ms);
            let mut watched = self.watched();
            // It may have been given another policy meanwhile.
            let same = watched.get_mut(&destination).filter(|other| Arc::ptr_eq(&other.queues, &queues));
            let Some(same) = same else { continue };
            same.ahead = queues.iter().map(Queue::stream_name).zip(ahead).collect();
            let due = same.said.is_none_or(|said| now.monotonic.saturating_sub(said) >= SAID_EVERY);
            if near && due {
                same.said = Some(now.monotonic);
                let bytes: u64 = waits.iter().map(|waits| waits.bytes).sum();
                let oldest_ms = waits.iter().filter_map(|waits| waits.oldest_ms).min();
                let oldest_age_s = oldest_ms.map(|oldest_ms| now.wall_ms.saturating_sub(oldest_ms) / 1_000);
                let at_ms = same.ahead.values().filter_map(|ahead| ahead.too_old_at_ms).min();
                let too_old_in_s = at_ms.map(|at_ms| at_ms.saturating_sub(now.wall_ms) / 1_000);
                warn!(
                    %destination, bytes, oldest_age_s, too_old_in_s,
                    "the oldest records will be given up soon, as overflow of the configuration says: mend the destination, \
                     or raise the limit"
                );
            }
        }
    }

    /// The disk, if it is short now.
    fn short(&self) -> Option<Short> {
        let log = self.queues.log();
        let share = log.stats().share_bytes?;
        let streams = log.streams().into_iter().map(|stream| (Arc::clone(&stream.name), stream)).collect();
        let mut queues: HashMap<Arc<str>, Vec<Queue>> = HashMap::new();
        self.queues.all().into_iter().for_each(|queue| queues.entry(queue.stream_name()).or_default().push(queue));
        Some(Short { share, streams, queues })
    }

    fn watched(&self) -> MutexGuard<'_, BTreeMap<Arc<str>, Watched>> {
        lock(&self.watched)
    }
}

/// Each change under such a lock is whole or has not begun.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Watched {
    /// It holds no more. Waits for what is being given up by it.
    fn end(self) {
        *lock(&self.holds) = false;
    }
}

/// For what something goes.
#[derive(Debug, Clone, Copy)]
enum Limit {
    Age,
    Bytes,
    /// Its environment's share of a short disk.
    Share,
}

/// What goes of a queue.
#[derive(Debug, Clone, Copy)]
struct Going {
    /// Which queue of its destination's.
    at: usize,
    much: Much,
    /// What lies there or behind it stays.
    below: u64,
}

impl Short {
    /// What goes for the room of these queues' environments. No two of them are of the same.
    fn over_shares(&self, queues: &[Queue], waits: &[Waits]) -> Vec<Going> {
        let over = |(at, queue): (usize, &Queue)| {
            let (much, below) = self.over_share(queue, waits[at].bytes)?;
            Some(Going { at, much, below })
        };
        queues.iter().enumerate().filter_map(over).collect()
    }

    /// A queue's environment is about to be refused for its backlog: what of that nobody else needs goes first. No more
    /// than brings what lies here from the low mark on below the share: what goes makes room only later. That is more than
    /// waits where a second read position has delivered behind a backlog.
    fn over_share(&self, queue: &Queue, waiting: u64) -> Option<(Much, u64)> {
        let stream = self.streams.get(queue.stream())?;
        let (room, cursor) = (self.share / STEP, queue.cursor());
        let waiting = waiting.saturating_add(cursor.settled_bytes());
        // What stays beside a backlog because of it is charged, too, and goes a while after it.
        let beside = stream.held_bytes.saturating_sub(stream.backlog_bytes);
        let too_much = stream.held_bytes.min(waiting.saturating_add(beside)).checked_sub(self.share - room)?;
        if first_needed(queue) < cursor.low {
            return None; // what it gave up before, and keeps, keeps all behind that: nothing that goes would make room
        }
        let others = self.queues.get(queue.stream()).into_iter().flatten();
        let others = others.filter(|other| other.destination() != queue.destination());
        let needed = others.map(first_needed).min().unwrap_or(u64::MAX);
        let (much, below) = off_the_front(&cursor, too_much + room);
        Some((much, below.min(needed)))
    }
}

/// What is to go so that the low mark moves by so many bytes: what is settled on the way there is gone already, also that which
/// went before and is kept by a batch that somebody has.
fn off_the_front(cursor: &Cursor, bytes: u64) -> (Much, u64) {
    let until = cursor.low_bytes.saturating_add(bytes);
    let mut settled = 0;
    for range in cursor.settled.iter().take_while(|range| range.start_bytes < until) {
        if range.start_bytes + range.bytes >= until {
            return (Much::Bytes(range.start_bytes - cursor.low_bytes - settled), range.start);
        }
        settled += range.bytes;
    }
    (Much::Bytes(bytes - settled), u64::MAX)
}

/// Where what a queue keeps on the disk begins.
fn first_needed(queue: &Queue) -> u64 {
    let (ranges, _) = queue.marked();
    ranges.first().map_or(u64::MAX, |range| range.start).min(queue.cursor().low)
}

/// Gives up what is to go of a destination, and says what waits then.
///
/// One limit after the other, each held against what is left by the one before: records that are within a limit do not go
/// for it because others were not.
fn look(
    destination: &str,
    policy: Policy,
    queues: &[Queue],
    (age_now, wall_ms): (Option<u64>, u64),
    short: Option<&Short>,
) -> Result<Vec<Waits>, QueueError> {
    let look = || -> Result<Vec<Waits>, QueueError> {
        queues.iter().map(|queue| waits(queue, policy.what, wall_ms)).collect()
    };
    // What is marked makes no room.
    let short = short.filter(|_| policy.what == What::Drop);
    let mut waits = look()?;
    for limit in [Limit::Age, Limit::Bytes, Limit::Share] {
        let going = match limit {
            Limit::Age => too_old(policy, &waits, age_now),
            Limit::Bytes => too_much(policy, &waits),
            Limit::Share => short.map_or_else(Vec::new, |short| short.over_shares(queues, &waits)),
        };
        let mut gone_any = false;
        for Going { at, much, below } in going {
            let queue = &queues[at];
            let (gone, now) = match policy.what {
                What::Drop => (queue.drop_oldest(much, below)?, "they are counted as expired"),
                What::Mark => (queue.mark_oldest(much)?, "they are dead letters and lie where they lay"),
            };
            if gone.records > 0 {
                gone_any = true;
                warn!(
                    destination,
                    stream = queue.stream(),
                    records = gone.records,
                    bytes = gone.bytes,
                    ?much,
                    ?limit,
                    disk_is_short = short.is_some(),
                    "the oldest records were given up, as overflow of the configuration says: {now}"
                );
            }
        }
        if gone_any {
            waits = look()?;
        }
    }
    Ok(waits)
}

fn waits(queue: &Queue, what: What, wall_ms: u64) -> Result<Waits, QueueError> {
    let lag = queue.lag();
    let oldest_ms = match what {
        What::Drop => lag.oldest_age_ms.map(|age_ms| wall_ms.saturating_sub(age_ms)),
        // What somebody had once is never marked.
        What::Mark => queue.waiting()?.oldest_ingest_ms,
    };
    Ok(Waits { bytes: lag.bytes, oldest_ms })
}

/// What goes for its age. `age_now` is the time by which ages count, unless they do not count now.
fn too_old(policy: Policy, waits: &[Waits], age_now: Option<u64>) -> Vec<Going> {
    let (Some(age_max), Some(now)) = (policy.age_max.map(ms), age_now) else { return Vec::new() };
    let old = |oldest_ms: u64| now.saturating_sub(oldest_ms) >= age_max.saturating_add(age_max / STEP);
    let old = waits.iter().enumerate().filter(|(_, waits)| waits.oldest_ms.is_some_and(old));
    let much = Much::OlderThan(now.saturating_sub(age_max));
    old.map(|(at, _)| Going { at, much, below: u64::MAX }).collect()
}

/// What goes for its bytes.
fn too_much(policy: Policy, waits: &[Waits]) -> Vec<Going> {
    let bytes: Vec<u64> = waits.iter().map(|waits| waits.bytes).collect();
    let Some(bytes_max) = policy.bytes_max.filter(|max| bytes.iter().sum::<u64>() > *max) else { return Vec::new() };
    let less = shed(&bytes, bytes_max - bytes_max / STEP).into_iter().enumerate().filter(|(_, less)| *less > 0);
    less.map(|(at, less)| Going { at, much: Much::Bytes(less), below: u64::MAX }).collect()
}

/// What is coming, by queue. Ages do not count before `held_until_ms`.
fn ahead(policy: Policy, waits: &[Waits], held_until_ms: Option<u64>) -> Vec<Ahead> {
    let bytes: u64 = waits.iter().map(|waits| waits.bytes).sum();
    let bytes_left = policy.bytes_max.map(|max| max.saturating_sub(bytes));
    let too_old_at = |oldest_ms: u64| {
        let age_max = ms(policy.age_max?);
        let at_ms = oldest_ms.saturating_add(age_max).saturating_add(age_max / STEP);
        Some(at_ms.max(held_until_ms.unwrap_or(0)))
    };
    waits.iter().map(|waits| Ahead { too_old_at_ms: waits.oldest_ms.and_then(too_old_at), bytes_left }).collect()
}

/// Whether four fifths of a limit are reached.
fn is_near(policy: Policy, waits: &[Waits], now_ms: u64) -> bool {
    let bytes: u64 = waits.iter().map(|waits| waits.bytes).sum();
    let oldest_ms = waits.iter().filter_map(|waits| waits.oldest_ms).min();
    let age_ms = oldest_ms.map_or(0, |oldest_ms| now_ms.saturating_sub(oldest_ms));
    policy.age_max.is_some_and(|max| age_ms >= ms(max) / 5 * 4)
        || policy.bytes_max.is_some_and(|max| bytes >= max / 5 * 4)
}

#[cfg(test)]
mod tests;
