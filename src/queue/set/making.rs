//! Making a queue: what may be its name, where it begins, and which life of its destination it is.

use super::{Keeping, Set, Start};
use crate::Tail;
use crate::log::check_name;
use crate::queue::balance::Books;
use crate::queue::cursor::Cursor;
use crate::queue::floor_file::{EntryId, Extra, FloorEntry};
use crate::queue::limits::{DESTINATION_BYTES_MAX, QUEUES_MAX};
use crate::queue::marked::Marked;
use crate::queue::plan::PlanRecord;
use crate::queue::reading::{offset_at_time, total_at};
use crate::queue::replay::{self, Bounds, Replays};
use crate::queue::window::{Plan, Window};
use crate::queue::{Context, Inner, QueueError};
use crate::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};
use crate::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

impl Set {
    /// A queue that was never seen.
    pub(super) fn make(
        &self,
        keeping: &mut Keeping,
        destination: &str,
        stream: &str,
        start: Start,
    ) -> Result<Arc<Inner>, QueueError> {
        let log = &self.context.log;
        let stream_id = log.stream(stream);
        let tail = stream_id.map_or(Tail::default(), |stream| log.durable(stream));
        let wanted = match start {
            _ if keeping.floor.is_pinned() => 0,
            Start::Now => tail.offset,
            Start::Earliest => 0,
            Start::At(offset) => offset.min(tail.offset),
            Start::Time(ms) => stream_id.map_or(Ok(0), |stream| offset_at_time(log, stream, ms))?,
        };
        // Others may be done with it: then the log lets it go, unless it hears otherwise.
        let offset = stream_id.map_or(0, |stream| log.keep(stream, wanted));
        let bytes = match stream_id {
            Some(stream) if offset < tail.offset => total_at(log, stream, offset)?,
            _ => tail.bytes,
        };
        let ours = |plan: &PlanRecord| *plan.destination == *destination && Some(plan.stream_id) == stream_id;
        // After damage to the floor it is the one that it was, as far as its plans tell.
        let orphaned = keeping.orphans.iter().filter(|(_, plan)| ours(plan)).map(|(_, plan)| plan.incarnation).max();
        let incarnation = orphaned.unwrap_or(keeping.incarnation);
        let mut index = self.index.write().unwrap_or_else(PoisonError::into_inner);
        let entry = FloorEntry {
            destination: index.name(destination, |inner| &inner.destination),
            stream: index.name(stream, |inner| &inner.stream),
            stream_id,
            incarnation,
            epoch: keeping.first_epoch(),
            books: Books::from(offset, bytes),
            cursor: Cursor::at(offset, bytes),
            extra: None,
        };
        let too_many = QueueError::TooMany { limit: QUEUES_MAX };
        let id = keeping.floor.add(entry.clone()).ok_or(too_many)?;
        let inner = Arc::new(Inner::new(&self.context, id, entry));
        keeping.orphans.retain(|(offset, plan)| {
            if ours(plan) && plan.incarnation == incarnation && plan.offsets.end <= tail.offset {
                inner.window().adopt(plan.offsets.clone(), Plan { offset: *offset, revision: plan.revision });
                inner.touch();
            }
            !ours(plan)
        });
        index.add(Arc::clone(&inner));
        keeping.unsaved.push(Arc::clone(&inner));
        Ok(inner)
    }
}

impl Inner {
    pub(super) fn new(context: &Arc<Context>, id: EntryId, entry: FloorEntry) -> Self {
        let first_needed = entry.first_needed();
        let mut marked = Marked::default();
        let (mut replay, mut replays) = (None, None);
        match entry.extra.as_deref() {
            Some(Extra::Replay { again, redrive, end }) => {
                let (of, number) = replay::parse(&entry.destination).expect("checked where entries come from");
                let (of, under_old_ids) = (Arc::from(of), AtomicU64::default());
                let (live, cancelled) = (Weak::new(), AtomicBool::new(false)); // until it is linked
                let (again, redrive, end) = (*again, *redrive, *end);
                replay = Some(Box::new(Bounds { of, number, again, redrive, end, under_old_ids, cancelled, live }));
            }
            Some(Extra::Replayed(over)) => replays = Some(Box::new(Replays { over: *over, under_way: None })),
            Some(Extra::Marked(over, of_it)) => {
                replays = Some(Box::new(Replays { over: *over, under_way: None }));
                marked = of_it.clone();
            }
            None => {}
        }
        Self {
            context: Arc::clone(context),
            destination: entry.destination,
            stream: entry.stream,
            stream_id: entry.stream_id.map_or_else(OnceLock::new, OnceLock::from),
            incarnation: entry.incarnation,
            epoch: entry.epoch,
            entry: id,
            window: Mutex::new(Window::new(entry.cursor, entry.books).with_marked(marked)),
            reading: Mutex::default(),
            reading_live: Mutex::default(),
            ages: Mutex::default(),
            replay,
            replays: Mutex::new(replays),
            more: Mutex::default(),
            hours: Mutex::default(),
            hours_stored: AtomicBool::default(),
            revision: AtomicU32::new(0),
            noted: AtomicBool::new(false),
            saved: AtomicBool::new(false),
            gone: AtomicBool::new(false),
            durable_low: AtomicU64::new(first_needed.offset),
            durable_low_bytes: AtomicU64::new(first_needed.bytes),
        }
    }
}

pub(super) fn check_names(destination: &str, stream: &str) -> Result<(), QueueError> {
    let digit = |c: u8| c.is_ascii_alphanumeric() || c == b'_' || c == b'-';
    let bad = |what, name: &str, rule| Err(QueueError::BadName { what, name: name.chars().take(200).collect(), rule });
    if destination.is_empty() || destination.len() > DESTINATION_BYTES_MAX || !destination.bytes().all(digit) {
        return bad("the destination's id", destination, "1 to 40 of A-Z, a-z, 0-9, _ and -");
    }
    if check_name(stream).is_err() {
        return bad("the stream's name", stream, "1 to 120 bytes without control characters");
    }
    Ok(())
}
