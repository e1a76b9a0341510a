//! From a destination's settings to the sink that obeys them. The one place that knows every type of destination.

use std::sync::Arc;

use forebay::Queues;
use forebay::clock::Clock;
use forebay::disk::Disk;

use super::WrapSink;
use super::registry::Wanted;
use crate::config::{Destination, SinkConfig, UpstreamConfig};
use crate::delivery::sink::Sink;
use crate::sinks::address_guard::{AddressGuard, AddressPolicy};
use crate::sinks::amplitude::Amplitude;
use crate::sinks::file::{Damaged, FileSink, Writers};
use crate::sinks::http::Tls;
use crate::sinks::s3::S3Sink;
use crate::sinks::segment::Segment;
use crate::sinks::upstream::{SdkKeys, Upstream};
use crate::sinks::webhook::Webhook;

/// Makes sinks. They share what the machine trusts, and one of a file destination waits for those before it.
pub(super) struct SinkFactory {
    queues: Queues,
    disk: Arc<dyn Disk>,
    clock: Arc<dyn Clock>,
    tls: Arc<Tls>,
    /// Where destinations that were made through the API may be.
    customers: AddressGuard,
    wrap: WrapSink,
    damaged: Arc<Damaged>,
    files: Writers,
}

impl SinkFactory {
    /// At most `idle_max` connections are kept idle, by all together.
    pub(super) fn new(
        queues: Queues,
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
        idle_max: usize,
        customers: AddressGuard,
        wrap: WrapSink,
    ) -> Self {
        let (tls, damaged) = (Arc::new(Tls::keeping_idle(idle_max)), Arc::default());
        Self { queues, disk, clock, tls, customers, wrap, damaged, files: Writers::default() }
    }

    /// Where destinations that were made through the API may be.
    pub(super) fn customers(&self) -> &AddressGuard {
        &self.customers
    }

    /// What damage the files of its destinations have.
    pub(super) fn damaged(&self) -> Arc<Damaged> {
        Arc::clone(&self.damaged)
    }

    /// The sink of a destination. Does not connect and opens nothing yet.
    pub(super) fn sink(&self, wanted: &Wanted) -> Arc<dyn Sink> {
        let Wanted { destination, policy, layouts, .. } = wanted;
        let policy = *policy;
        let (tls, clock) = (Arc::clone(&self.tls), Arc::clone(&self.clock));
        let connections_max = destination.concurrency;
        let sink: Arc<dyn Sink> = match &destination.sink {
            SinkConfig::Webhook(webhook) => {
                let sink = Webhook::new(webhook, policy, connections_max, tls, clock);
                Arc::new(self.kept_in(policy, sink, Webhook::behind))
            }
            SinkConfig::File(file) => {
                let sink = FileSink::new(&destination.id, file.clone(), Arc::clone(&self.disk), clock);
                Arc::new(sink.counting(&self.damaged).draining(&self.queues).following(&self.files))
            }
            SinkConfig::Amplitude(amplitude) => {
                let sink = Amplitude::new(amplitude, connections_max, tls, clock);
                Arc::new(self.kept_in(policy, sink, Amplitude::behind))
            }
            SinkConfig::Segment(segment) => {
                let sink = Segment::new(segment, connections_max, tls, clock);
                Arc::new(self.kept_in(policy, sink, Segment::behind))
            }
            SinkConfig::S3(s3) => {
                let sink = S3Sink::new(&destination.id, s3, policy, connections_max, tls, clock);
                let sink = sink.with_layouts(layouts);
                Arc::new(self.kept_in(policy, sink, S3Sink::behind))
            }
            // For whoever has no log of posts: it refuses whatever is no post of a known key.
            SinkConfig::Upstream(upstream) => return self.upstream(upstream, destination, policy, Arc::default()),
        };
        (self.wrap)(sink)
    }

    /// The sink of an upstream, which puts these keys back.
    pub(super) fn upstream(
        &self,
        config: &UpstreamConfig,
        destination: &Destination,
        policy: AddressPolicy,
        keys: Arc<SdkKeys>,
    ) -> Arc<dyn Sink> {
        let clock = Arc::clone(&self.clock);
        let sink = Upstream::new(config, policy, destination.concurrency, keys, &self.tls, clock);
        (self.wrap)(Arc::new(self.kept_in(policy, sink, Upstream::behind)))
    }

    /// One that somebody else than the file made may be where the operator lets all of those be; one of the file is where
    /// its own settings say.
    fn kept_in<S>(&self, policy: AddressPolicy, sink: S, behind: fn(S, AddressGuard) -> S) -> S {
        match policy {
            AddressPolicy::Customer => behind(sink, self.customers.clone()),
            AddressPolicy::Operator => sink,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use forebay::clock::ManualClock;
    use forebay::disk::mem::MemDisk;
    use http_body_util::Full;
    use hyper::Response;
    use tokio::time::Instant;

    use super::*;
    use crate::config::{AmplitudeConfig, Endpoint, FileConfig, SegmentConfig, WebhookConfig};
    use crate::delivery::outcome::{Failure, Outcome};
    use crate::delivery::sink::Job;
    use crate::sinks::file::faulty::Faulty;
    use crate::sinks::receiver::serve;
    use crate::sinks::s3::sample::{bucket_at, of as large_of};
    use crate::sinks::sample::{self, captured_posts, job};

    const LIMIT: Duration = Duration::from_secs(20);
    const CAPTURE: &str = include_str!("../../../storage-tests/captures/node-debug.json");

    async fn deliver(sink: &dyn Sink, job: Job) -> Outcome {
        match sink.large() {
            Some(large) => large.put(&large_of(job), LIMIT).await,
            None => sink.send(&sink.encode(&job).unwrap(), &job.id, Instant::now() + LIMIT).await,
        }
    }

    #[tokio::test]
    async fn a_file_destination_that_is_replaced_waits_for_what_is_written_to_its_files_still() {
        let disk = Faulty::default();
        let clock = Arc::new(ManualClock::at(784_111_777_000));
        let guard = AddressGuard::customer(&[]);
        let (queues, _) = sample::queues(&MemDisk::new());
        let factory = SinkFactory::new(queues, Arc::new(disk.clone()), clock, 16, guard, |sink| sink);
        let file = |rotate_bytes| {
            let config = FileConfig { rotate_bytes, ..FileConfig::new("/out") };
            let environments = vec!["acme-prod".to_owned()];
            factory.sink(&Wanted::of_file(Destination::new("archive", environments, SinkConfig::File(config))))
        };
        let _hangs = disk.hang();
        let before = file(1 << 20);
        let hung = tokio::spawn(async move { deliver(&*before, job(0..10)).await });
        let there = disk.clone();
        tokio::task::spawn_blocking(move || there.wait_for_a_write()).await.unwrap();
        hung.abort();
        let (next, job) = (file(2 << 20), job(10..20));
        let encoded = next.encode(&job).unwrap();
        let sent = next.send(&encoded, &job.id, Instant::now() + Duration::from_millis(20));
        let outcome = tokio::time::timeout(LIMIT, sent).await.expect("it waits, and writes nothing");
        assert_eq!(outcome, Outcome::Retry { why: Failure::Timeout });
    }

    /// Before, buckets and upstreams that were made through the API were let into none of the networks that the operator
    /// allows.
    #[tokio::test]
    async fn whatever_was_made_through_the_api_is_let_where_the_operator_allows_and_nowhere_else() {
        let (addr, received) = serve(|_| Response::new(Full::default())).await;
        let endpoint = || Endpoint::parse(&format!("http://{addr}/in")).unwrap();
        let s3 = bucket_at(&format!("http://{addr}"));
        let upstream = UpstreamConfig::at(&format!("http://{addr}")).unwrap();
        let types = [
            SinkConfig::Webhook(WebhookConfig::new(endpoint())),
            SinkConfig::Amplitude(AmplitudeConfig { endpoint: Some(endpoint()), ..AmplitudeConfig::new("key") }),
            SinkConfig::Segment(SegmentConfig { endpoint: Some(endpoint()), ..SegmentConfig::new("key") }),
            SinkConfig::S3(Box::new(s3)),
            SinkConfig::Upstream(upstream.clone()),
        ];
        for (allowed, reached) in [(&["127.0.0.0/8".parse().unwrap()][..], true), (&[], false)] {
            let clock = Arc::new(ManualClock::at(784_111_777_000));
            let guard = AddressGuard::customer(allowed);
            let (queues, _) = sample::queues(&MemDisk::new());
            let factory = SinkFactory::new(queues, Arc::new(MemDisk::new()), clock, 16, guard, |sink| sink);
            for config in types.clone() {
                received.lock().unwrap().clear();
                let destination = Destination::new("made", vec!["acme-prod".to_owned()], config);
                let type_name = destination.sink.type_name();
                let outcome = if type_name == "upstream" {
                    let keys = SdkKeys::default();
                    keys.replace([("acme-prod", &[(0, "a-key".to_owned())][..])]);
                    let policy = AddressPolicy::Customer;
                    let sink = factory.upstream(&upstream, &destination, policy, Arc::new(keys));
                    deliver(&*sink, captured_posts(CAPTURE, "a-key").remove(0)).await
                } else {
                    let wanted = Wanted { policy: AddressPolicy::Customer, ..Wanted::of_file(destination) };
                    deliver(&*factory.sink(&wanted), job(0..3)).await
                };
                assert_eq!(outcome == Outcome::Delivered, reached, "{type_name}: {outcome:?}");
                assert_eq!(received.lock().unwrap().is_empty(), !reached, "{type_name}");
            }
        }
    }
}
