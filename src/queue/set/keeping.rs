//! What is known from tick to tick, under one lock: the floor, and how far its news has got.

use crate::queue::Inner;
use crate::queue::balance::End;
use crate::queue::floor_file::{EntryId, FloorFile};
use crate::queue::plan::PlanRecord;
use crate::sync::atomic::Ordering;
use crate::sync::{Arc, Weak};
use std::collections::{BTreeMap, HashMap};

/// What a tick keeps.
pub(super) struct Keeping {
    pub(super) floor: FloorFile,
    /// The entry that holds the plan mark: the oldest plan still needed.
    pub(super) plans: EntryId,
    /// Where the plan mark goes in the next tick, once the cursors that allow it are durable.
    pub(super) plan_mark: u64,
    /// How many plans were written again the last time that some were.
    pub(super) plans_moved: u64,
    /// Those that are on their way hold it.
    pub(super) plans_moving: Weak<()>,
    /// The incarnation of queues that are made next: no queue of theirs that was deleted had it.
    pub(super) incarnation: u32,
    /// The oldest plan that a replay goes by which fills gaps, as of the last tick: kept beside the mark.
    pub(super) fills_low: u64,
    /// The queues that needed plans when a tick last looked at them, and the oldest plan of each.
    pub(super) plan_lows: BTreeMap<EntryId, (Arc<Inner>, u64)>,
    /// The hour of the last tick, counted from 1970.
    pub(super) hour: u64,
    /// The next commit is to tell the store of every queue's hours of which it knows nothing yet.
    pub(super) hours_wanted: bool,
    /// Queues that no floor has made durable yet.
    pub(super) unsaved: Vec<Arc<Inner>>,
    /// Low marks that no floor has made durable yet.
    pub(super) unconfirmed: HashMap<EntryId, (Arc<Inner>, End)>,
    /// Low marks that the last commit made durable: in one slot of their page.
    pub(super) in_one_slot: HashMap<EntryId, (Arc<Inner>, End)>,
    /// Queues whose low mark is in both slots, and of which the log has not heard yet.
    pub(super) confirmed: HashMap<EntryId, Arc<Inner>>,
    /// The floor was damaged when it was read: of a queue that is made now somebody may know an earlier life.
    pub(super) floor_was_damaged: bool,
    /// Plans of queues that the floor does not know, for when they are made again.
    pub(super) orphans: Vec<(u64, PlanRecord)>,
    /// The log has not heard of every queue's low mark: it forgets them when it is closed, and hears nothing while the
    /// floor is pinned.
    pub(super) trim_all: bool,
}

impl Keeping {
    /// The epoch of a queue that is made now. After damage to the floor one that nobody knows: what the cursor store has of an
    /// earlier life, which the floor has forgotten, is not this one's.
    pub(super) fn first_epoch(&self) -> u32 {
        if self.floor_was_damaged { self.floor.another_epoch() } else { 0 }
    }

    /// A commit succeeded: every queue is on disk.
    pub(super) fn told_saved(&mut self) {
        self.unsaved.drain(..).for_each(|inner| inner.saved.store(true, Ordering::Release));
    }
}
