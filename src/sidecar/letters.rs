//! Records that were taken out of their destination's way: where they are kept, and how they get out again.
//!
//! Dead letters lie in the stream `!dead/<destination>` of the log, held ones in `!held/<destination>`: as safe as any
//! record, each stream with a queue of its own that pins what is not settled. There is no other copy and no index on
//! disk; what is remembered in memory is read from the streams when they are opened. See
//! docs/decisions/0030-letters.md.
//!
//! What always holds:
//! - A record lies in one place: its own queue, dead, or held. It is appended where it goes before it is settled where
//!   it was, and says where it was: what a crash leaves in two places the next start settles in the first.
//! - A letter whose record is not settled yet in its own queue is touched by nobody.
//! - It keeps its id, however often it is moved, and is sent under the same id at every attempt.

mod desk;
mod doors;
mod doubts;
mod due;
mod filter;
mod flights;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
mod held;
mod marked;
mod oldest;
mod packed;
mod policy;
mod room;
mod shelf;
mod sweep;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use forebay::clock::Clock;
use forebay::{Count, Queues, Settled};

use crate::ages::{Now, SharedAges};
use crate::delivery::parking::{Letter, Parking};
use crate::delivery::sheet::InDoubt;
use crate::delivery::source::BoxError;

pub use desk::Desk;
use doors::Doors;
pub use filter::{Filter, Shown};
pub use held::HeldSource;
pub(crate) use marked::waiting;
pub use marked::{MarkedLetters, REASON as MARKED_REASON, Ranges};
pub use policy::Policy;
pub use sweep::{Page, Step, SweepError};

/// How often [`Letters::tend`] is to be called: a held letter leaves at most so much late.
pub const TEND_EVERY: Duration = Duration::from_secs(1);

/// The two places of a destination's letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Shelf {
    /// What the destination never takes.
    Dead,
    /// What waits for its time.
    Held,
}

impl Shelf {
    /// The stream of a destination's letters.
    #[must_use]
    pub fn stream(self, destination: &str) -> String {
        format!("{}{destination}", self.prefix())
    }

    /// The shelf that a stream is, if it is one.
    #[must_use]
    pub fn of_stream(stream: &str) -> Option<(Self, &str)> {
        [Self::Dead, Self::Held].into_iter().find_map(|shelf| Some((shelf, stream.strip_prefix(shelf.prefix())?)))
    }

    fn prefix(self) -> &'static str {
        match self {
            Self::Dead => "!dead/",
            Self::Held => "!held/",
        }
    }

    /// How a record is settled that was put here.
    fn settled(self) -> Settled {
        match self {
            Self::Dead => Settled::DeadLettered,
            Self::Held => Settled::Held,
        }
    }
}

/// The letters of all destinations.
pub struct Letters {
    ground: Arc<Ground>,
    desks: Mutex<BTreeMap<Arc<str>, Arc<Desk>>>,
}

/// What all desks need.
struct Ground {
    queues: Queues,
    clock: Arc<dyn Clock>,
    doors: Arc<Doors>,
    /// Where upstreams' posts lie: in logs of their own.
    posts: OnceLock<Posts>,
    ages: Arc<SharedAges>,
}

/// The queues of an upstream's own log, by destination, while that is open.
pub type Posts = Box<dyn Fn(&str) -> Option<Queues> + Send + Sync>;

impl Ground {
    fn posts_of(&self, destination: &str) -> Option<Queues> {
        self.posts.get().and_then(|posts| posts(destination))
    }
}

impl Letters {
    /// Takes up what the log holds. Reads all letters once: what a crash left in two places is settled in the first. Those of a
    /// destination that can't be read are told, and are for [`read`](Self::read) to try again. Blocks. To be called before
    /// anything is delivered.
    #[must_use]
    pub fn open(queues: Queues, clock: Arc<dyn Clock>) -> Arc<Self> {
        let (doors, posts, ages) = Default::default();
        let ground = Arc::new(Ground { queues, clock, doors, posts, ages });
        // From here on it is known how far the wall clock went.
        ground.ages.at(Now::of(&*ground.clock));
        let letters = Self { ground, desks: Mutex::default() };
        let queues = &letters.ground.queues;
        let cursors_lost = queues.stats().pinned;
        for stream in queues.log().streams() {
            let Some((_, destination)) = Shelf::of_stream(&stream.name) else { continue };
            if letters.is_unread(destination) {
                continue; // its other shelf was tried
            }
            if cursors_lost || queues.find(destination, &stream.name).is_some() {
                if let Err(error) = letters.read(destination) {
                    let error: &dyn std::error::Error = &*error;
                    tracing::error!(
                        destination,
                        error,
                        "the letters of a destination can't be read: they are kept, and nothing is sent to it before they can be"
                    );
                }
            } else {
                // Queues of letters are durable before the first letter: this one's destination was deleted.
                queues.log().trim(stream.id, stream.tail.offset);
            }
        }
        Arc::new(letters)
    }

    /// Reads the letters of a destination, if it has any and they were not read yet. To be called before anything is delivered to
    /// it: a record that is a letter may lie in its own queue still. Blocks.
    ///
    /// # Errors
    /// When they cannot be read. Nothing may be sent then.
    pub fn read(&self, destination: &str) -> Result<(), BoxError> {
        let queues = &self.ground.queues;
        let desk = self.lock().get(destination).cloned();
        if desk.is_some_and(|desk| desk.is_open()) {
            return Ok(());
        }
        let has = |shelf: Shelf| {
            let stream = shelf.stream(destination);
            queues.log().stream(&stream).is_some()
                && (queues.find(destination, &stream).is_some() || queues.stats().pinned)
        };
        if ![Shelf::Dead, Shelf::Held].into_iter().any(has) {
            return Ok(());
        }
        let desk = self.desk(destination);
        let _inside = desk.enter().ok_or("the destination is being deleted")?;
        desk.open().map(drop)
    }

    /// Whether a destination has letters that could not be read.
    #[must_use]
    pub fn is_unread(&self, destination: &str) -> bool {
        self.lock().get(destination).is_some_and(|desk| desk.is_unread())
    }

    /// Says where upstreams' posts lie. To be called once, before the first of their logs is opened. `posts` must not wait
    /// for whoever opens one.
    pub fn look_for_posts(&self, posts: Posts) {
        let _ = self.ground.posts.set(posts);
    }

    /// The log of an upstream's posts was opened, with these queues: what a crash left there and in a letter is settled
    /// there, as far as its queue is there. Reads the letters of the destination. To be called before anything of that log is
    /// delivered. Blocks.
    ///
    /// # Errors
    /// When the letters cannot be read.
    pub fn take_up_posts(&self, destination: &str, posts: &Queues) -> Result<(), BoxError> {
        self.read(destination)?;
        let desk = self.lock().get(destination).cloned();
        match desk.as_deref().and_then(|desk| Some((desk, desk.shelves()?))) {
            Some((desk, shelves)) => desk.take_up_posts(shelves, posts),
            None => Ok(()),
        }
    }

    /// Between two loops of a destination: what the first parked and did not come to settle, since it was cut off, is
    /// settled, so that the second does not deliver what lies here. Waits until it is durable or has failed. Blocks.
    pub fn catch_up(&self, destination: &str) {
        let desk = self.lock().get(destination).cloned();
        if let Some(desk) = desk {
            self.ground.doors.wait_for(destination);
            desk.catch_up();
        }
    }

    /// Waits until nobody is at work here: nothing is appended or settled any more. To be called before the log is closed,
    /// when nothing is delivered any more. Blocks.
    pub fn rest(&self) {
        self.ground.doors.wait_for_all();
    }

    /// From now on no letter of this destination is touched, by whoever asks for it, until it is
    /// [forgotten](Self::forget): it is being deleted. Waits for those at work. Blocks.
    pub fn close(&self, destination: &str) {
        self.ground.doors.close(destination);
    }

    /// Forgets a destination whose queues were deleted, those of its letters too; one that is made again under its id
    /// begins without letters. What is sent to it must have ended before. Should its queues be there still, see
    /// [`read`](Self::read).
    pub fn forget(&self, destination: &str) {
        let forgotten = self.lock().remove(destination);
        if let Some(desk) = forgotten {
            desk.forget();
        }
        self.ground.doors.open(destination);
    }

    /// The desk of a destination. One without letters costs next to nothing.
    #[must_use]
    pub fn desk(&self, destination: impl Into<Arc<str>> + AsRef<str>) -> Arc<Desk> {
        let mut desks = self.lock();
        if let Some(desk) = desks.get(destination.as_ref()) {
            return Arc::clone(desk);
        }
        let id: Arc<str> = destination.into();
        let desk = Arc::new(Desk::new(Arc::clone(&id), Arc::clone(&self.ground)));
        desks.insert(id, Arc::clone(&desk));
        desk
    }

    /// Letters of a destination that count elsewhere still.
    #[must_use]
    pub fn in_doubt(&self, destination: &str) -> InDoubt {
        let desk = self.lock().get(destination).cloned();
        desk.map_or_else(InDoubt::default, |desk| desk.in_doubt())
    }

    /// The desks of destinations that have or had letters.
    #[must_use]
    pub fn desks(&self) -> Vec<Arc<Desk>> {
        self.lock().values().filter(|desk| desk.is_open()).cloned().collect()
    }

    /// Dead letters by destination: those that were copied, and those that lie where they were given up.
    #[must_use]
    pub fn dead(&self) -> BTreeMap<Arc<str>, Count> {
        let mut dead = self.marked();
        let known = self.lock().values().filter(|desk| desk.is_open() || desk.is_unread()).cloned().collect::<Vec<_>>();
        for desk in known {
            *dead.entry(desk.destination_name()).or_default() += desk.dead();
        }
        dead
    }

    /// The destinations of which records were given up where they lie, and how many of those wait.
    #[must_use]
    pub fn marked(&self) -> BTreeMap<Arc<str>, Count> {
        let mut marked: BTreeMap<Arc<str>, Count> = BTreeMap::new();
        for queue in self.ground.queues.marking() {
            let (waiting, _) = marked::waiting(&queue);
            if waiting.records > 0 {
                *marked.entry(queue.destination_name()).or_default() += waiting;
            }
        }
        marked
    }

    /// Whether such records of one destination wait.
    #[must_use]
    pub fn marks(&self, destination: &str) -> bool {
        self.ground.queues.marking_of(destination).iter().any(|queue| marked::waiting(queue).0.records > 0)
    }

    /// Whether there is nothing to [tend](Self::tend).
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.desks().is_empty() && self.ground.queues.marking().is_empty()
    }

    /// Whether there is a destination of this name, with letters or without.
    #[must_use]
    pub fn knows(&self, destination: &str) -> bool {
        self.ground.queues.destination_known(destination)
    }

    /// The clock that the ages of letters run on, for whoever else gives up what is too old.
    #[must_use]
    pub fn ages(&self) -> Arc<SharedAges> {
        Arc::clone(&self.ground.ages)
    }

    /// What is to be done now and then: wakes destinations whose held letters are due, lets go what a policy says, moves
    /// letters together. What is too old goes by the clock of [`ages`](Self::ages), and not in the hour after a start or a jump of
    /// the wall clock. Blocks. See [`TEND_EVERY`].
    pub fn tend(&self, now: Now) {
        let age_now = self.ground.ages.at(now);
        let marking: BTreeSet<Arc<str>> =
            self.ground.queues.marking().iter().map(|queue| Arc::from(queue.destination())).collect();
        for destination in marking {
            // One without a desk has no policy.
            let desk = self.lock().get(&destination).cloned();
            if let Some(desk) = desk {
                desk.obey_policy_where_it_lies(age_now, now.wall_ms);
            }
        }
        for desk in self.desks() {
            if let Err(error) = desk.tend(age_now, now.wall_ms) {
                let error: &dyn std::error::Error = &*error;
                tracing::warn!(destination = desk.destination(), error, "letters could not be tended: tried again");
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<Arc<str>, Arc<Desk>>> {
        // Nothing between two changes of the map can panic.
        self.desks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Parking for Letters {
    fn park(&self, letters: Vec<Letter>, done: Box<dyn FnOnce(Result<(), BoxError>) + Send>) {
        let Some(first) = letters.first() else { return done(Ok(())) };
        let desk = self.desk(Arc::clone(&first.destination));
        let Some(inside) = desk.enter() else { return done(Err("the destination is being deleted".into())) };
        off_worker(move || {
            let parked = desk.park(&letters);
            drop(inside);
            done(parked);
        });
    }

    fn has_room(&self, destination: &str, bytes: u64) -> bool {
        let desk = self.lock().get(destination).cloned();
        desk.is_none_or(|desk| desk.has_room(bytes))
    }
}

/// Runs what may wait for the disk: on a thread for it where there is a runtime, else here.
fn off_worker(work: impl FnOnce() + Send + 'static) {
    match tokio::runtime::Handle::try_current() {
        Ok(runtime) => drop(runtime.spawn_blocking(work)),
        Err(_) => work(),
    }
}

#[cfg(test)]
mod tests;
