//! Deleting queues, for good.
//!
//! Three commits, because pages of the floor may land in any order. The first makes durable what only a tick would have:
//! from then on every queue that a plan names is in the floor or was deleted. The second raises the incarnation that
//! new queues get beyond what goes. The third takes the entries away. A crash before the third leaves the queues as they
//! are, one after it leaves none; and none of their ids can be given again, since the number is there before they go.

use super::{Deleted, Keeping, Set};
use crate::queue::hint;
use crate::queue::plan::PlanRecord;
use crate::queue::{Inner, QueueError, lock, replay};
use crate::sync::atomic::Ordering;
use crate::sync::{Arc, PoisonError};

impl Set {
    /// See [`Queues::delete`](super::Queues::delete).
    pub(super) fn delete(
        &self,
        keeping: &mut Keeping,
        destination: &str,
        stream: Option<&str>,
    ) -> Result<Deleted, QueueError> {
        // Its replays go with it.
        let wanted = |inner: &&Arc<Inner>| {
            replay::is_of(&inner.destination, destination) && stream.is_none_or(|stream| *inner.stream == *stream)
        };
        let going: Vec<Arc<Inner>> = self.index_read().by_name.values().filter(wanted).cloned().collect();
        // After damage to the floor there may be plans of queues that nobody has made again: what is deleted is deleted
        // with them. They go with the number, since that tells them from those of queues that a crash took.
        let log = &self.context.log;
        let orphaned = |plan: &PlanRecord| {
            replay::is_of(&plan.destination, destination)
                && stream.is_none_or(|stream| log.stream_name(plan.stream_id).is_some_and(|name| *name == *stream))
        };
        let orphans = keeping.orphans.iter().map(|(_, plan)| plan).filter(|plan| orphaned(plan));
        let lives = going.iter().map(|inner| inner.incarnation).chain(orphans.map(|plan| plan.incarnation));
        let Some(newest) = lives.max() else {
            // Asked for again, perhaps: then what the last time left undone is done now.
            self.commit(keeping).map_err(QueueError::NotDurable)?;
            return Ok(Deleted::default());
        };
        self.commit(keeping).map_err(QueueError::NotDeleted)?;
        keeping.incarnation = keeping.incarnation.max(newest).saturating_add(1);
        // In both slots: without that number the plans of what goes would look like those of a queue that a crash took.
        keeping.floor.hold_fast(keeping.plans);
        self.commit(keeping).map_err(QueueError::NotDeleted)?;
        keeping.orphans.retain(|(_, plan)| !orphaned(plan));
        let mut deleted = Deleted::default();
        // A replay that was done may have gone with a commit.
        for inner in going.iter().filter(|inner| !inner.gone.load(Ordering::Acquire)) {
            let pending = self.forget(keeping, inner);
            if inner.replay.is_none() {
                deleted.queues += 1;
                deleted.pending += pending;
            }
        }
        self.commit(keeping).map_err(QueueError::NotDurable)?;
        Ok(deleted)
    }

    /// Takes a queue out of everything but the disk: the next commit does that. Says what it had not settled.
    pub(super) fn forget(&self, keeping: &mut Keeping, inner: &Arc<Inner>) -> crate::Count {
        let pending = crate::Queue::of(Arc::clone(inner)).balance().pending;
        inner.gone.store(true, Ordering::Release);
        if let Some(live) = inner.replay.as_ref().and_then(|bounds| bounds.live.upgrade()) {
            lock(&live.replays).get_or_insert_default().under_way = None;
            live.window().end_again();
        }
        self.index.write().unwrap_or_else(PoisonError::into_inner).remove(inner);
        keeping.floor.remove(inner.entry);
        keeping.unconfirmed.remove(&inner.entry);
        keeping.in_one_slot.remove(&inner.entry);
        keeping.confirmed.remove(&inner.entry);
        keeping.plan_lows.remove(&inner.entry);
        // Each replay has a name of its own: without this the store would grow with every one that ever was.
        self.keeper.offer(hint::nothing_of(&inner.destination, &inner.stream));
        // What was kept for it may go, once it is durable that nobody needs it.
        keeping.trim_all = true;
        lock(&self.unrouted).any_may_be();
        pending
    }
}
