//! What nothing takes from: queues of destinations that left the configuration. They keep their records until somebody
//! decides, and are never silent about it.

use forebay::Queue;
use tracing::warn;

use super::Registry;

impl Registry {
    /// Whether anything takes from this queue.
    pub fn drains(&self, queue: &Queue) -> bool {
        let place = self.ingest.environments().place_of(queue.stream());
        let table = self.table();
        let running = table.destinations.get(queue.destination());
        running.is_some_and(|running| place.is_some_and(|place| running.environments.all().contains(&(place as u32))))
    }

    /// The queues that nothing takes from.
    pub fn left_behind(&self) -> Vec<Queue> {
        let ours = |queue: &Queue| !queue.stream().starts_with('!') && !queue.destination().contains('!');
        self.queues.all().into_iter().filter(|queue| ours(queue) && !self.drains(queue)).collect()
    }

    /// Says which queues nothing takes from: a destination that is taken out of the configuration is kept with all its
    /// records until it is purged, and holds the disk.
    pub fn warn_of_orphans(&self) {
        for queue in self.left_behind() {
            warn!(
                destination = queue.destination(),
                environment = queue.stream(),
                records = queue.lag().records,
                "this destination is no longer in the configuration: nothing is delivered to it, its records are kept, new ones \
                 too, and they fill the disk; put it back under this id to drain it"
            );
        }
    }
}
