//! What environments have of the disk, as the API shows it: the log says what each holds, the queues how much comes in.

use std::collections::HashMap;
use std::sync::Arc;

use forebay::Queues;
use forebay::clock::Clock;

use crate::api::disk_shares::{DiskReading, EnvironmentOnDisk, bytes_per_hour};

/// Goes through all queues and all their hours.
pub(super) fn reading(queues: &Queues, clock: &dyn Clock) -> DiskReading {
    let now_ms = clock.wall_ms();
    // Of an environment's queues each counts all that comes in; one that is younger than the others knows less of it.
    let mut rates: HashMap<Arc<str>, f64> = HashMap::new();
    for queue in queues.all() {
        if queue.replay().is_none()
            && !queue.stream().starts_with('!')
            && let Some(rate) = bytes_per_hour(&queue.hourly(), now_ms)
        {
            let known = rates.entry(queue.stream_name()).or_default();
            *known = known.max(rate);
        }
    }
    let stats = queues.log().stats();
    let streams = queues.log().streams().into_iter().filter(|stream| !stream.name.starts_with('!'));
    let environments = streams.map(|stream| EnvironmentOnDisk {
        bytes_per_hour: rates.get(&stream.name).copied(),
        environment: stream.name,
        backlog_bytes: stream.backlog_bytes,
        held_bytes: stream.held_bytes,
    });
    DiskReading {
        short_at_bytes: stats.short_at_bytes,
        ahead_bytes: stats.ahead_bytes,
        share_bytes: stats.share_bytes,
        environments: environments.collect(),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use forebay::clock::ManualClock;
    use forebay::disk::mem::MemDisk;
    use forebay::{LogOptions, Payload, QueueOptions, Settled, Start};

    use super::*;

    #[test]
    fn an_environment_comes_in_as_fast_as_the_queue_that_knows_most_of_it_says() {
        let clock = ManualClock::at(1_000_000);
        let (disk, log) = (Arc::new(MemDisk::new()), LogOptions::small());
        let queues =
            Queues::open(disk, Arc::new(clock.clone()), Path::new("/data"), log, QueueOptions::inline()).unwrap();
        let first = queues.queue("hook", "acme", Start::Earliest).unwrap();
        for _ in 0..2 {
            clock.advance(Duration::from_secs(30 * 60));
            let payload = Payload { bytes: vec![7; 5_000], records: 50 };
            queues.log().append_wait("acme", vec![payload]).unwrap();
            queues.log().append_wait("!ours", vec![Payload { bytes: vec![7; 9], records: 1 }]).unwrap();
        }
        queues.queue("late", "acme", Start::Now).unwrap();
        first.settle_range(0..75, Settled::Delivered);
        (0..3).for_each(|_| queues.tick().unwrap());
        let reading = reading(&queues, &clock);
        let [acme] = &reading.environments[..] else { panic!("{reading:?}") };
        assert_eq!((&*acme.environment, acme.backlog_bytes, acme.held_bytes), ("acme", 2_500, 2_500));
        assert_eq!(acme.bytes_per_hour, Some(10_000.0));
        let limit = queues.log().stats().bytes_limit;
        assert_eq!(reading.short_at_bytes, limit - limit / 10);
    }
}
