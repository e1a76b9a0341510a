//! Opening: what is believed of the floor, of the hints and of the plans, in the light of the log; and what is told.
//!
//! Each step reads one of them and makes the queues of it. Nothing here refuses a set for damage to bytes.

use super::index::Index;
use super::replaying::linked;
use super::{OpenQueuesError, QueueOptions, QueuesStats};
use crate::clock::Clock;
use crate::disk::Disk;
use crate::queue::balance::{Books, End};
use crate::queue::cursor::Cursor;
use crate::queue::cursor_store::StoreChoice;
use crate::queue::floor_file::{EntryId, Extra, FloorEntry, FloorFile};
use crate::queue::hint::{self, Hint};
use crate::queue::hours::Hours;
use crate::queue::limits::ORPHANED_PLANS_MAX;
use crate::queue::plan::{self, PlanRecord};
use crate::queue::store_keeper::{OpenFailure, StoreKeeper};
use crate::queue::window::Plan;
use crate::queue::{Balance, Context, Inner, Queue, Settled, lock, recover, replay};
use crate::sync::Arc;
use crate::sync::atomic::Ordering;
use crate::{Item, Log, OnFull, PLANS_STREAM, ReadError, StreamId, Tail};
use std::collections::{HashMap, HashSet};
use std::io::{self, ErrorKind, IoSlice};
use std::path::Path;
use std::time::Duration;

const STORE_NAME: &str = "sled";

/// Between two batches of hints. They are offered by the tick that puts the same cursors into the floor, so they are newer than it only
/// where it fails; and each batch costs about two syncs, which the log's commits wait behind.
const STORE_PAUSE: Duration = Duration::from_secs(1);

/// Names the directory of the last store that was set aside, so that only one is kept.
const SET_ASIDE_NAME: &str = "sled.bad";

pub(super) fn io_error(what: &'static str, path: &Path, source: io::Error) -> OpenQueuesError {
    OpenQueuesError::Io { what, path: path.to_owned(), source }
}

pub(super) type Hints = HashMap<Vec<u8>, Vec<u8>>;

/// Opens the cursor store. One that fails is set aside for an empty one; if that fails too, or it hangs, there is none.
pub(super) fn open_store(
    disk: &Arc<dyn Disk>,
    clock: &Arc<dyn Clock>,
    dir: &Path,
    options: &QueueOptions,
    stats: &mut QueuesStats,
) -> (StoreKeeper, Hints) {
    let open = |choice: &StoreChoice| {
        let opener = choice.opener(&dir.join(STORE_NAME));
        StoreKeeper::open(opener, Arc::clone(clock), options.store_deadline, (!options.inline).then_some(STORE_PAUSE))
    };
    let mut opened = open(&options.store);
    if let Err(failure) = &opened {
        stats.store_resets += 1;
        tracing::warn!(%failure, "the cursor store is set aside: cursors go on from the floor");
        set_aside(&**disk, dir, clock.wall_ms());
        // One that hung may still touch its files, under whatever name: no second one beside it.
        if !matches!(failure, OpenFailure::Hung(_)) {
            opened = open(&options.store);
        }
    }
    match opened {
        Ok((keeper, hints)) => (keeper, hints.into_iter().collect()),
        Err(failure) => {
            stats.store_given_up = Some(failure.to_string());
            let (keeper, _) =
                StoreKeeper::open(StoreChoice::None.opener(dir), Arc::clone(clock), options.store_deadline, None)
                    .expect("the store that keeps nothing opens");
            (keeper, Hints::new())
        }
    }
}

/// Gives the store's directory another name, and removes the one that was set aside before. Best effort.
fn set_aside(disk: &dyn Disk, dir: &Path, now_ms: u64) {
    let note = dir.join(SET_ASIDE_NAME);
    let act = || -> io::Result<()> {
        let name = format!("{STORE_NAME}.bad-{now_ms}");
        let before = disk.open(&note).and_then(|file| crate::disk::read_all(&*file));
        match disk.rename_dir(&dir.join(STORE_NAME), &dir.join(&name)) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            renamed => renamed?,
        }
        let before = before.ok().and_then(|before| String::from_utf8(before).ok());
        // Only ever a name of our own making, whatever stands in the note.
        let digits = before.as_deref().and_then(|before| before.strip_prefix("sled.bad-"));
        if let Some(digits) = digits.filter(|digits| !digits.is_empty() && digits.bytes().all(|c| c.is_ascii_digit())) {
            disk.remove_dir(&dir.join(format!("{STORE_NAME}.bad-{digits}")))?;
        }
        let _ = disk.remove(&note);
        disk.create(&note)?.write_all_at(&[IoSlice::new(name.as_bytes())], 0)
    };
    if let Err(error) = act() {
        tracing::warn!(%error, "the cursor store could not be set aside");
    }
}

pub(super) fn append_plans(log: &Log) -> crate::queue::planner::AppendPlans {
    let log = log.clone();
    Box::new(move |frames, done| log.append_group(PLANS_STREAM, frames, OnFull::Refuse, done))
}

/// The pseudo entry that holds the plan mark, and the incarnation of queues that are made next. No destination can have
/// its name.
pub(super) fn plan_entry(mark: u64, incarnation: u32) -> FloorEntry {
    let name: Arc<str> = Arc::from(PLANS_STREAM);
    FloorEntry {
        destination: Arc::clone(&name),
        stream: name,
        stream_id: None,
        incarnation,
        epoch: 0,
        books: Books::from(mark, 0),
        cursor: Cursor::at(mark, 0),
        extra: None,
    }
}

/// What the pseudo entry of the floor says.
pub(super) struct Own {
    pub(super) entry: EntryId,
    /// The oldest plan still needed.
    pub(super) plan_mark: u64,
    /// The incarnation that new queues had when the last process ended.
    pub(super) incarnation_was: u32,
    /// The incarnation of queues that are made next: greater than that of any that was deleted.
    pub(super) incarnation: u32,
}

impl Own {
    /// An incarnation that no queue ever had, for one that had `before`.
    pub(super) fn another(&mut self, before: u32) -> u32 {
        self.incarnation = self.incarnation.max(before).saturating_add(1);
        self.incarnation
    }
}

/// Makes the queues that the floor knows.
pub(super) fn rebuild(
    context: &Arc<Context>,
    floor: &mut FloorFile,
    hints: &mut Hints,
    index: &mut Index,
    stats: &mut QueuesStats,
) -> Result<Own, OpenQueuesError> {
    let log = &context.log;
    let mut entries: Vec<(EntryId, FloorEntry)> = floor.entries().map(|(id, entry)| (id, entry.clone())).collect();
    // Should the log have lost its streams, they are made again in the order of their numbers.
    // Replays come last: they are linked to what they replay.
    let is_replay = |entry: &FloorEntry| matches!(entry.extra.as_deref(), Some(Extra::Replay { .. }));
    entries.sort_by_key(|(_, entry)| (is_replay(entry), entry.stream_id.map_or(u32::MAX, |id| id.0)));
    // Where damage took a stream's name, and not what it holds, the floor knows it still.
    for (_, entry) in &entries {
        let Some(stream) = entry.stream_id else { continue };
        if log.restore_name(stream, &entry.stream) {
            stats.streams_named_again += 1;
        }
    }
    // As the log says it, before any cursor says otherwise.
    let tails: HashMap<Arc<str>, Tail> = log.streams().into_iter().map(|stream| (stream.name, stream.tail)).collect();
    let place = entries.iter().position(|(_, entry)| &*entry.destination == PLANS_STREAM);
    let own = place.map(|place| entries.remove(place));
    let own = own.or_else(|| Some((floor.add(plan_entry(0, 0))?, plan_entry(0, 0))));
    let (id, entry) = own.expect("there is room: entries are fewer than the floor holds, see FloorFile::add");
    let mut own = Own {
        entry: id,
        plan_mark: entry.cursor.low,
        incarnation_was: entry.incarnation,
        // No smaller than any that is seen: should the floor have lost what it said.
        incarnation: entries.iter().map(|(_, entry)| entry.incarnation).fold(entry.incarnation, u32::max),
    };
    log.raise_next(PLANS_STREAM, own.plan_mark);
    let over = replays_over(&entries);
    for (id, mut entry) in entries {
        if over.contains(&id) {
            floor.remove(id);
            continue;
        }
        let tail = tails.get(&entry.stream).copied().unwrap_or_default();
        let hint = hints.remove(&hint::key(&entry.destination, &entry.stream));
        let offered = hint.is_some();
        let hint = hint.and_then(|bytes| Hint::decode(&bytes).ok());
        let taken = recover::take_hint(&mut entry, hint, context.log_id, tail);
        stats.hints_taken += u64::from(taken);
        stats.hints_refused += u64::from(offered && !taken);
        let ahead = entry.cursor.end() > tail.offset;
        if ahead {
            stats.cursors_ahead += 1;
            tracing::error!(destination = %entry.destination, stream = %entry.stream, cursor = entry.cursor.end(),
                tail = tail.offset, "the log ends below a cursor: it has lost records");
            recover::fit_to_tail(&mut entry.books, &mut entry.cursor, tail);
            log.raise_next(&entry.stream, entry.cursor.end());
        }
        if let Some(Extra::Replay { end, .. }) = entry.extra.as_deref_mut()
            && end.offset > tail.offset
        {
            *end = End { offset: tail.offset, bytes: tail.bytes }; // the log has lost the rest
        }
        let now = log.stream(&entry.stream);
        if is_replay(&entry) && entry.stream_id != now {
            tracing::error!(replay = %entry.destination, stream = %entry.stream, "a replay is given up: its stream has another number");
            floor.remove(id);
            continue;
        }
        let renumbered = entry.stream_id.is_some() && now.is_some() && entry.stream_id != now;
        if renumbered {
            // Batch ids hold the stream's number: under another incarnation no old one can come again.
            stats.streams_renumbered += 1;
            entry.incarnation = own.another(entry.incarnation);
            tracing::error!(stream = %entry.stream, was = ?entry.stream_id, is = ?now, "a stream has another number");
        }
        let forgotten = entry.stream_id.is_some() && now.is_none();
        if forgotten {
            // Its first append failed, or nothing of it is left. The number may be another stream's by now, or soon.
            entry.incarnation = own.another(entry.incarnation);
            tracing::warn!(stream = %entry.stream, was = ?entry.stream_id, "a stream has no number any more");
        }
        let learned = entry.stream_id.is_none() && now.is_some();
        entry.stream_id = now;
        if taken || ahead || renumbered || learned || forgotten {
            floor.set(id, entry.clone());
        }
        (entry.destination, entry.stream) = (
            index.name(&entry.destination, |inner| &inner.destination),
            index.name(&entry.stream, |inner| &inner.stream),
        );
        let inner = Inner::new(context, id, entry);
        inner.saved.store(true, Ordering::Release); // it was read
        let live = inner.replay.as_ref().and_then(|bounds| index.by_name.get(&bounds.of, &inner.stream));
        let inner = match live {
            Some(live) => {
                inner.touch(); // it may be done
                linked(inner, live)
            }
            None => Arc::new(inner),
        };
        if inner.has_marks() {
            inner.note_marks();
        }
        settle_gap(&inner, stats)?;
        let balance = Queue::of(Arc::clone(&inner)).balance();
        if balance != Balance::default() {
            // What the store forgot is known from now on.
            let kept = hints.remove(&hint::hours_key(&inner.destination, &inner.stream));
            let of = (context.log_id, inner.incarnation, inner.epoch);
            let kept = kept.and_then(|bytes| Hours::decode(&bytes, of, &balance).ok());
            inner.hours_stored.store(kept.is_some(), Ordering::Relaxed);
            let hours = kept.unwrap_or_else(|| Hours::from(context.opened_ms, balance));
            *lock(&inner.hours) = Some(Box::new(hours));
        }
        index.add(inner);
    }
    Ok(own)
}

/// The replays that ended, but whose entries a crash left: what their queues say of them goes before.
fn replays_over(entries: &[(EntryId, FloorEntry)]) -> HashSet<EntryId> {
    let mut ended: HashMap<(&str, &str), u32> = HashMap::new();
    for (_, entry) in entries {
        let number = match entry.extra.as_deref() {
            Some(Extra::Replayed(replayed) | Extra::Marked(replayed, _)) => replayed.replays,
            _ => 0,
        };
        ended.insert((&entry.destination, &entry.stream), number);
    }
    let is_over = |entry: &FloorEntry| {
        let Some((of, number)) = replay::parse(&entry.destination) else { return false };
        ended.get(&(of, &*entry.stream)).is_none_or(|ended| number <= *ended)
    };
    entries.iter().filter(|(_, entry)| is_over(entry)).map(|(id, _)| *id).collect()
}

/// Settles what is not kept any more but was not settled: the floor is older than what was deleted, or it was damaged.
fn settle_gap(inner: &Inner, stats: &mut QueuesStats) -> Result<(), ReadError> {
    let Some(stream) = inner.stream_id() else { return Ok(()) };
    let log = &inner.context.log;
    let (low, first_kept) = (inner.window().cursor().low, log.first_kept(stream));
    if low >= first_kept {
        return Ok(());
    }
    let bytes = log.bytes_at(stream, first_kept)?;
    let lost = inner.window().settle(low..first_kept, Settled::Lost, |_| Some(bytes));
    inner.touch();
    stats.cursors_below += 1;
    tracing::error!(destination = %inner.destination, stream = %inner.stream, cursor = low, first_kept,
        records = lost.records, "records below the oldest one kept were not settled: counted as lost");
    Ok(())
}

pub(super) type Orphans = Vec<(u64, PlanRecord)>;

/// Reads the plans that were open, and hands them to their queues. Returns those of queues that nobody knows.
pub(super) fn resume_plans(
    context: &Context,
    own: &mut Own,
    index: &Index,
    stats: &mut QueuesStats,
) -> Result<Orphans, OpenQueuesError> {
    let (log, mark) = (&context.log, own.plan_mark);
    let Some(stream) = log.stream(PLANS_STREAM) else { return Ok(Orphans::new()) };
    let mut reader = log.reader(stream, mark.max(log.first_kept(stream)));
    let mut orphans = Orphans::new();
    let queues: HashMap<(Arc<str>, StreamId), Arc<Inner>> = (index.by_name.values())
        // Those that fill gaps have theirs already.
        .filter(|inner| !inner.fills_gaps())
        .filter_map(|inner| Some(((Arc::clone(&inner.destination), inner.stream_id()?), Arc::clone(inner))))
        .collect();
    while let Some(item) = reader.next()? {
        let (offsets, plans) = match item {
            Item::Frame(frame) => (frame.offsets(), plan::decode(frame.payload()).unwrap_or_default()),
            Item::Lost { offsets, .. } => (offsets, Vec::new()),
        };
        if plans.len() as u64 != offsets.end - offsets.start {
            stats.plans_lost += offsets.end - offsets.start;
            tracing::error!(?offsets, "plans can't be read: their batches are sent again under other ids");
            continue;
        }
        for (offset, plan) in offsets.zip(plans).filter(|(offset, _)| *offset >= mark) {
            let key = (Arc::clone(&plan.destination), plan.stream_id);
            own.incarnation = own.incarnation.max(plan.incarnation);
            if let Some(name) = log.stream_name(plan.stream_id) {
                log.raise_next(&name, plan.offsets.end);
            }
            match queues.get(&key) {
                Some(inner) if inner.incarnation == plan.incarnation => {
                    let replaced = inner.window().adopt(plan.offsets, Plan { offset, revision: plan.revision });
                    stats.plans_replaced += replaced as u64;
                    inner.touch();
                }
                Some(_) => {}
                None if replay::parse(&plan.destination).is_some() => {} // of one that fills gaps, or is over
                None if orphans.len() < ORPHANED_PLANS_MAX => orphans.push((offset, plan)),
                None => {}
            }
        }
    }
    stats.plans_resumed = queues.values().map(|inner| inner.window().plans_left() as u64).sum();
    // The mark itself stays until the first tick has seen which plans its queues took.
    Ok(orphans)
}

/// Takes care of plans without a queue. Where the floor was damaged they wait for their queues to be made again, as far
/// as the floor's number does not say that these may have been deleted. Else
/// the queue was deleted, or the crash came before the first tick of one that begins at the oldest record: that is made
/// again as it was. The incarnation tells: deleting raises it, and makes everything else durable before.
pub(super) fn place_orphans(
    context: &Arc<Context>,
    floor: &mut FloorFile,
    index: &mut Index,
    (orphans, incarnation): (Orphans, u32),
    stats: &mut QueuesStats,
) -> Result<Orphans, ReadError> {
    let log = &context.log;
    if floor.is_pinned() {
        // Below the floor's number they may be those of a destination that was deleted: under its ids the one that is
        // made anew would send what its receiver takes for repeats.
        return Ok(orphans.into_iter().filter(|(_, plan)| plan.incarnation >= incarnation).collect());
    }
    if !stats.floor_damage.is_empty() || stats.streams_renumbered > 0 || !log.damages().is_empty() {
        return Ok(Orphans::new()); // whose the numbers were cannot be known for sure
    }
    let mut made: HashMap<(Arc<str>, StreamId), Arc<Inner>> = HashMap::new();
    for (offset, plan) in orphans.into_iter().filter(|(_, plan)| plan.incarnation == incarnation) {
        let key = (Arc::clone(&plan.destination), plan.stream_id);
        let inner = match made.get(&key) {
            Some(inner) => Arc::clone(inner),
            None => {
                let Some(stream) = log.stream_name(plan.stream_id) else { continue };
                if index.by_name.get(&plan.destination, &stream).is_some() {
                    continue;
                }
                let first_kept = log.first_kept(plan.stream_id);
                let bytes = log.bytes_at(plan.stream_id, first_kept)?;
                let entry = FloorEntry {
                    destination: index.name(&plan.destination, |inner| &inner.destination),
                    stream: index.name(&stream, |inner| &inner.stream),
                    stream_id: Some(plan.stream_id),
                    incarnation,
                    epoch: 0,
                    books: Books::from(first_kept, bytes),
                    cursor: Cursor::at(first_kept, bytes),
                    extra: None,
                };
                let Some(id) = floor.add(entry.clone()) else { continue };
                let inner = Arc::new(Inner::new(context, id, entry));
                index.add(Arc::clone(&inner));
                made.insert(key, Arc::clone(&inner));
                inner
            }
        };
        let replaced = inner.window().adopt(plan.offsets, Plan { offset, revision: plan.revision });
        stats.plans_replaced += replaced as u64;
        inner.touch();
    }
    stats.plans_resumed += made.values().map(|inner| inner.window().plans_left() as u64).sum::<u64>();
    Ok(Orphans::new())
}
