//! What nothing takes from: queues of destinations that left the configuration. They keep their records until somebody
//! decides, and are never silent about it.
//!
//! An upstream's queues lie in a log of its own: whoever counts or gives up what a destination has must see those, too.

use std::io;
use std::sync::Arc;

use forebay::{Queue, QueueError, Queues};
use tracing::{error, warn};

use super::table::Running;
use super::{Registry, Wanted};
use crate::{causes, post};

/// Whose records or posts a stream holds.
pub fn environment_of(stream: &str) -> &str {
    post::stream_owner(stream).map_or(stream, |(environment, _)| environment)
}

impl Registry {
    /// All queues of a destination, whether it runs or not: its environments', its letters', its posts'.
    pub fn queues_of(&self, id: &str) -> Vec<Queue> {
        let mut queues = self.queues.of(id);
        queues.extend(self.upstreams.queues_of(id));
        queues
    }

    /// Whether a destination runs, with just these settings.
    pub fn runs_as(&self, wanted: &Wanted) -> bool {
        let running = self.table().destinations.get(wanted.destination.id.as_str()).map(|running| running.fingerprint);
        running == Some(self.fingerprint(wanted))
    }

    /// Those of them that hold records or posts and that nothing takes from.
    pub fn left_of(&self, id: &str) -> Vec<Queue> {
        let mut left = self.queues_of(id);
        left.retain(|queue| self.is_left(queue));
        left
    }

    /// Whether this is a queue of records or posts that nothing takes from. A replay's is sent by the loop of its destination.
    pub fn is_left(&self, queue: &Queue) -> bool {
        !queue.stream().starts_with('!') && !queue.destination().contains('!') && !self.drains(queue)
    }

    /// Deletes the queues of a destination for an environment that nothing takes from, with all that they hold, durably. Waits
    /// for the disk.
    ///
    /// # Errors
    /// When the disk refuses. Asked for again it goes on where it was.
    pub fn delete_left(&self, id: &str, environment: &str) -> Result<(), QueueError> {
        let left = self.left_of(id);
        for queue in left.iter().filter(|queue| environment_of(queue.stream()) == environment) {
            match post::stream_owner(queue.stream()) {
                Some(_) => self.upstreams.delete_queue(id, queue.stream())?,
                None => self.queues.delete(id, Some(queue.stream())).map(drop)?,
            }
        }
        Ok(())
    }

    /// Whether anything takes from this queue of records or posts.
    pub fn drains(&self, queue: &Queue) -> bool {
        let of_posts = post::stream_owner(queue.stream());
        let environment = environment_of(queue.stream());
        let Some(place) = self.ingest.environments().place_of(environment) else { return false };
        let table = self.table();
        let running = table.destinations.get(queue.destination());
        running.is_some_and(|running| {
            running.is_upstream == of_posts.is_some() && running.environments.all().contains(&(place as u32))
        })
    }

    /// The queues that nothing takes from.
    pub fn left_behind(&self) -> Vec<Queue> {
        let mut left = self.queues.all();
        self.upstreams.each_queue(&mut |queue| left.push(queue.clone()));
        left.retain(|queue| self.is_left(queue));
        left
    }

    /// The logs that keep everything, since a damaged floor has lost cursors: an upstream's by its id, that which all share by
    /// "".
    pub fn pinned(&self) -> Vec<(String, Queues)> {
        let shared = self.queues.stats().pinned.then(|| (String::new(), self.queues.clone()));
        shared.into_iter().chain(self.upstreams.pinned()).collect()
    }

    /// Opens what upstreams left behind that left the configuration while no process ran. Waits for the disk.
    pub fn open_left_behind(&self) {
        self.upstreams.open_left_behind();
    }

    /// Says of these queues, whose destinations are gone, that nothing takes from them: a destination that is taken out of the
    /// configuration is kept with all its records until it is purged, and holds the disk.
    pub fn warn_of_orphans(&self, orphans: &[Queue]) {
        for queue in orphans {
            warn!(
                destination = queue.destination(),
                environment = queue.stream(),
                records = queue.lag().records,
                "this destination was taken out of the configuration: nothing is delivered to it, its records are kept, new ones \
                 too, and they fill the disk; put it back under this id to drain it, or delete it: forebay destinations delete"
            );
        }
    }

    /// The upstream that runs and keeps the posts of this environment, other than `but`.
    pub fn upstream_of(&self, environment: &str, but: &str) -> Option<Arc<str>> {
        let place = u32::try_from(self.ingest.environments().place_of(environment)?).ok()?;
        let table = self.table();
        let keeps = |(id, running): &(&Arc<str>, &Running)| {
            ***id != *but && running.is_upstream && running.environments.all().contains(&place)
        };
        table.destinations.iter().find(keeps).map(|(id, _)| Arc::clone(id))
    }

    /// [Forgets](Self::forget) a destination that could not be deleted: the letters that it has left are there to be seen, for
    /// another try.
    pub async fn forget_in_vain(&self, id: &str) {
        self.forget(id);
        let (letters, of) = (Arc::clone(&self.letters), id.to_owned());
        let taken_up = tokio::task::spawn_blocking(move || letters.read(&of)).await;
        if let Err(why) = taken_up.expect("reading letters does not panic") {
            let why = causes::line(&*why);
            error!(destination = id, why, "its letters can't be read: they are kept, and not shown before they can");
        }
    }

    /// Deletes the log of an upstream that does not run any more, with all its posts. Waits for the disk.
    ///
    /// # Errors
    /// When the disk refuses: the posts are all there, or none is.
    pub async fn delete_posts(&self, id: &str) -> io::Result<()> {
        let (upstreams, id) = (Arc::clone(&self.upstreams), id.to_owned());
        let deleted = tokio::task::spawn_blocking(move || upstreams.delete(&id)).await;
        deleted.expect("deleting a log does not panic")
    }
}
