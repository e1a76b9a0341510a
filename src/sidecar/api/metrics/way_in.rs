//! What came in, environment by environment, and the posts that are kept for upstreams.

use super::super::exposition::{Exposition, Kind};
use super::super::readings::{EnvironmentReading, IngestReading, RelayReading};

pub(super) fn render(page: &mut Exposition, ingest: &IngestReading) {
    type Of = fn(&EnvironmentReading) -> u64;
    let families: [(&'static str, &'static str, Of); 5] = [
        ("forebay_ingest_requests_total", "Requests acknowledged.", |of| of.accepted_requests),
        ("forebay_ingest_records_total", "Impressions in them.", |of| of.accepted_records),
        ("forebay_ingest_unrouted_records_total", "Those that no destination takes.", |of| of.unrouted_records),
        ("forebay_ingest_body_bytes_total", "Bytes of bodies that arrived, decompressed.", |of| of.body_bytes),
        ("forebay_ingest_rejected_records_total", "Elements that are no impressions, kept as raw text.", |of| {
            of.rejected_records
        }),
    ];
    for (name, help, of) in families {
        let mut family = page.family(name, Kind::Counter, help);
        for environment in &ingest.environments {
            family.sample(&[("environment", &environment.environment)], of(environment));
        }
    }
    let mut unreadable = page.family(
        "forebay_ingest_unreadable_requests_total",
        Kind::Counter,
        "Bodies that could not be read at all, by the place of their SDK key in the configuration, from 0.",
    );
    for environment in &ingest.environments {
        for (key, count) in environment.unreadable_by_key.iter().enumerate() {
            let key = key.to_string();
            unreadable.sample(&[("environment", &environment.environment), ("key", &key)], *count);
        }
    }
    relays(page, &ingest.relays);
    let mut refused = page.family(
        "forebay_ingest_refused_requests_total",
        Kind::Counter,
        "Requests answered with 4xx or 503, by reason.",
    );
    for (environment, reason, count) in &ingest.refused {
        // Prometheus reads an empty label as none: the environment is not known where the key is not.
        let environment = environment.as_deref().unwrap_or("");
        refused.sample(&[("environment", environment), ("reason", reason)], *count);
    }
    page.family("forebay_ingest_ignored_requests_total", Kind::Counter, "Posts of other kinds, answered and not kept.")
        .sample(&[], ingest.ignored_requests);
    page.family("forebay_ingest_connections", Kind::Gauge, "Connections open now.")
        .sample(&[], ingest.connections_open);
    page.family("forebay_ingest_body_held_bytes", Kind::Gauge, "Memory that request bodies hold now.")
        .sample(&[], ingest.body_bytes_held);
    page.family("forebay_ingest_body_limit_bytes", Kind::Gauge, "The most that they may hold.")
        .sample(&[], ingest.body_bytes_held_max);
}

fn relays(page: &mut Exposition, relays: &[RelayReading]) {
    let mut posts = page.family(
        "forebay_upstream_posts_total",
        Kind::Counter,
        "Posts for an upstream: kept to be relayed, missed by it though their impressions were accepted, or refused.",
    );
    for relay in relays {
        for (way, count) in relay.posts {
            posts.sample(&[("destination", &relay.destination), ("as", way)], count);
        }
    }
    type Of = fn(&RelayReading) -> u64;
    let families: [(&'static str, Kind, &'static str, Of); 3] = [
        ("forebay_upstream_kept_bytes_total", Kind::Counter, "Bytes of posts that were kept.", |of| of.kept_bytes),
        ("forebay_upstream_used_bytes", Kind::Gauge, "What an upstream's posts take of the disk.", |of| of.used_bytes),
        (
            "forebay_upstream_limit_bytes",
            Kind::Gauge,
            "The most that they may take; beyond it posts are missed.",
            |of| of.limit_bytes,
        ),
    ];
    for (name, kind, help, of) in families {
        let mut family = page.family(name, kind, help);
        for relay in relays {
            family.sample(&[("destination", &relay.destination)], of(relay));
        }
    }
}
