//! From a destination's settings to the sink that obeys them. The one place that knows every type of destination.

use std::sync::Arc;

use forebay::clock::Clock;
use forebay::disk::Disk;

use super::WrapSink;
use super::registry::Wanted;
use crate::config::{Destination, SinkConfig, UpstreamConfig};
use crate::delivery::sink::Sink;
use crate::sinks::address_guard::{AddressGuard, AddressPolicy};
use crate::sinks::amplitude::Amplitude;
use crate::sinks::file::{Damaged, FileSink};
use crate::sinks::http::Tls;
use crate::sinks::s3::S3Sink;
use crate::sinks::segment::Segment;
use crate::sinks::upstream::{Gates, SdkKeys, Upstream};
use crate::sinks::webhook::Webhook;

/// Makes sinks. They share what the machine trusts.
pub(super) struct SinkFactory {
    disk: Arc<dyn Disk>,
    clock: Arc<dyn Clock>,
    tls: Arc<Tls>,
    /// Where destinations that were made through the API may be.
    customers: AddressGuard,
    wrap: WrapSink,
    damaged: Arc<Damaged>,
}

impl SinkFactory {
    /// At most `idle_max` connections are kept idle, by all together.
    pub(super) fn new(
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
        idle_max: usize,
        customers: AddressGuard,
        wrap: WrapSink,
    ) -> Self {
        Self { disk, clock, tls: Arc::new(Tls::keeping_idle(idle_max)), customers, wrap, damaged: Arc::default() }
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
        // Of the file: as its own settings say.
        let customers = (policy == AddressPolicy::Customer).then(|| self.customers.clone());
        let sink: Arc<dyn Sink> = match &destination.sink {
            SinkConfig::Webhook(webhook) => {
                let sink = Webhook::new(webhook, policy, connections_max, tls, clock);
                Arc::new(match customers {
                    Some(guard) => sink.behind(guard),
                    None => sink,
                })
            }
            SinkConfig::File(file) => {
                let sink = FileSink::new(&destination.id, file.clone(), Arc::clone(&self.disk), clock);
                Arc::new(sink.counting(&self.damaged))
            }
            SinkConfig::Amplitude(amplitude) => {
                let sink = Amplitude::new(amplitude, connections_max, tls, clock);
                Arc::new(match customers {
                    Some(guard) => sink.behind(guard),
                    None => sink,
                })
            }
            SinkConfig::Segment(segment) => {
                let sink = Segment::new(segment, connections_max, tls, clock);
                Arc::new(match customers {
                    Some(guard) => sink.behind(guard),
                    None => sink,
                })
            }
            SinkConfig::S3(s3) => {
                let sink = S3Sink::new(&destination.id, s3, policy, connections_max, tls, clock);
                Arc::new(sink.with_layouts(layouts))
            }
            // For whoever has no log of posts: it refuses whatever is no post of a known key.
            SinkConfig::Upstream(upstream) => {
                let gates = Arc::new(Gates::new(destination.id.as_str().into()));
                return self.upstream(upstream, destination, policy, Arc::default(), gates);
            }
        };
        (self.wrap)(sink)
    }

    /// The sink of an upstream, with the gates of its sources.
    pub(super) fn upstream(
        &self,
        config: &UpstreamConfig,
        destination: &Destination,
        policy: AddressPolicy,
        keys: Arc<SdkKeys>,
        gates: Arc<Gates>,
    ) -> Arc<dyn Sink> {
        let clock = Arc::clone(&self.clock);
        let sink = Upstream::new(config, policy, destination.concurrency, keys, gates, &self.tls, clock);
        (self.wrap)(Arc::new(sink))
    }
}
