//! A sidecar's inside over a disk in memory, for the tests of what wires it: log, queues, letters, loops, the way in, and
//! a registry in which nothing runs yet.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use forebay::Queues;
use forebay::clock::{Clock, SystemClock};
use forebay::disk::Disk;
use forebay::disk::mem::MemDisk;
use ipnet::IpNet;

use super::registry::Registry;
use super::sinks::SinkFactory;
use super::upstreams::Upstreams;
use crate::config::IngestConfig;
use crate::delivery::Delivery;
use crate::delivery::budget::{Budget, BudgetLimits};
use crate::delivery::parking::Parking;
use crate::ingest::{Environments, Ingest, Limits};
use crate::letters::Letters;
use crate::sinks::address_guard::AddressGuard;
use crate::sinks::sample;

/// See the module. Its disk outlives it.
pub(super) struct House {
    pub(super) disk: MemDisk,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) queues: Queues,
    pub(super) letters: Arc<Letters>,
    pub(super) upstreams: Arc<Upstreams>,
    pub(super) delivery: Arc<Delivery>,
    pub(super) ingest: Arc<Ingest>,
    pub(super) registry: Arc<Registry>,
}

impl House {
    pub(super) fn on(disk: &MemDisk) -> Self {
        Self::with(disk, Duration::from_secs(5), &[])
    }

    /// One where what is stopped has so long for what is in flight, and the API's destinations may be here, too.
    pub(super) fn with(disk: &MemDisk, grace: Duration, allowed: &[IpNet]) -> Self {
        Self::over(Arc::new(disk.clone()), disk, (grace, allowed), || ())
    }

    /// One over any disk, which does something as soon as its log and its queues are open.
    pub(super) fn over(
        any: Arc<dyn Disk>,
        disk: &MemDisk,
        (grace, allowed): (Duration, &[IpNet]),
        opened: impl FnOnce(),
    ) -> Self {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let queues = sample::queues_over(&any, &clock);
        opened();
        let letters = Letters::open(queues.clone(), Arc::clone(&clock));
        let parking = Arc::clone(&letters) as Arc<dyn Parking>;
        let delivery = Arc::new(Delivery::new(Budget::new(BudgetLimits::default()), Arc::clone(&clock), parking));
        let (log, environments) = (queues.log().clone(), Environments::none());
        let ingest = Arc::new(Ingest::new(log, Arc::clone(&clock), environments, Limits::default()));
        let guard = AddressGuard::customer(allowed);
        let factory = SinkFactory::new(queues.clone(), Arc::clone(&any), Arc::clone(&clock), 16, guard, |sink| sink);
        let (of_posts, ingest_config) = (any, IngestConfig::default());
        let theirs = Arc::clone(&letters);
        let upstreams = Upstreams::new(Path::new("data"), of_posts, Arc::clone(&clock), &ingest_config, theirs);
        let upstreams = Arc::new(upstreams);
        let parts = (Arc::clone(&delivery), Arc::clone(&ingest), Arc::clone(&letters));
        let registry = Registry::new(queues.clone(), Arc::clone(&upstreams), parts, factory, grace);
        let (disk, registry) = (disk.clone(), Arc::new(registry));
        Self { disk, clock, queues, letters, upstreams, delivery, ingest, registry }
    }

    /// Stops it. Returns the disk, for another one: whatever is in flight has ended, and holds no queue any more.
    pub(super) async fn stop(self) -> MemDisk {
        self.delivery.shutdown(Duration::from_secs(10)).await;
        self.letters.rest();
        self.upstreams.close().unwrap();
        self.queues.close().unwrap();
        self.disk
    }

    /// Ten records: those of the keys `first` and the nine that follow.
    pub(super) fn append(&self, stream: &str, first: u64) {
        sample::append(&self.queues, stream, first);
    }
}
