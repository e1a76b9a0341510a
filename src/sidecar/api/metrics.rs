//! The metrics, rendered from readings when asked for.
//!
//! Counts nothing itself: every number is the one that decides elsewhere, so the two cannot disagree. What always holds: label
//! values are ids from the configuration or words from this program, never something a client sent, so that the number of
//! series is bounded by the configuration. What each metric means for an operator stands in docs/operating.md.

mod rates;

use std::collections::BTreeSet;

use forebay::{Balance, Count, LogState};

use super::exposition::{Exposition, Kind};
use super::forecast::Forecast;
use super::lag::Reading;
use super::readings::{
    DeliveryReading, DeliveryState, EnvironmentReading, IngestReading, LogReading, RelayReading, ReloadReading,
};

/// All metrics.
pub(super) fn render(
    reading: &Reading,
    ingest: &IngestReading,
    log: &LogReading,
    reloads: &ReloadReading,
    ready: bool,
) -> String {
    let mut page = Exposition::default();
    process(&mut page, ready);
    configuration(&mut page, reloads);
    lag(&mut page, reading);
    settled(&mut page, reading);
    delivery(&mut page, reading);
    rates::render(&mut page, reading);
    way_in(&mut page, ingest);
    storage(&mut page, log);
    dead_letters(&mut page, log);
    page.into_text()
}

fn process(page: &mut Exposition, ready: bool) {
    page.family("forebay_build_info", Kind::Gauge, "Always 1; the labels say what runs.")
        .sample(&[("version", env!("CARGO_PKG_VERSION"))], 1);
    page.family("forebay_ready", Kind::Gauge, "1 when /readyz says yes.").sample(&[], u64::from(ready));
}

fn configuration(page: &mut Exposition, reloads: &ReloadReading) {
    let help = "Times that the configuration file was read again.";
    let mut reads = page.family("forebay_config_reloads_total", Kind::Counter, help);
    reads.sample(&[("result", "done")], reloads.done);
    reads.sample(&[("result", "failed")], reloads.failed);
    page.family(
        "forebay_config_reload_failed",
        Kind::Gauge,
        "1 when the configuration file has a mistake: what runs is not what it says.",
    )
    .sample(&[], u64::from(reloads.last_failed));
}

fn lag(page: &mut Exposition, reading: &Reading) {
    let mut records = page.family("forebay_lag_records", Kind::Gauge, "Records accepted and not yet settled.");
    for ((destination, stream), lag) in &reading.lags {
        records.sample(&[("destination", destination), ("stream", stream)], lag.queue.lag.records);
    }
    let mut bytes = page.family("forebay_lag_bytes", Kind::Gauge, "Their bytes as stored in the log.");
    for ((destination, stream), lag) in &reading.lags {
        bytes.sample(&[("destination", destination), ("stream", stream)], lag.queue.lag.bytes);
    }
    let mut age =
        page.family("forebay_lag_age_seconds", Kind::Gauge, "How long the oldest has waited; 0 when none waits.");
    for ((destination, stream), lag) in &reading.lags {
        let age_ms = match lag.queue.lag {
            forebay::Lag { records: 0, .. } => 0,
            forebay::Lag { oldest_age_ms: Some(age_ms), .. } => age_ms,
            // The oldest record cannot be read: 0 would say that all is well.
            forebay::Lag { oldest_age_ms: None, .. } => continue,
        };
        age.sample(&[("destination", destination), ("stream", stream)], age_ms as f64 / 1_000.0);
    }
    let mut in_flight = page.family(
        "forebay_in_flight_records",
        Kind::Gauge,
        "Records sent that the destination has not answered for.",
    );
    for ((destination, stream), lag) in &reading.lags {
        in_flight.sample(&[("destination", destination), ("stream", stream)], lag.queue.lag.in_flight);
    }
    let mut drains = page.family(
        "forebay_lag_drains_in_seconds",
        Kind::Gauge,
        "When the lag is gone at the present rates; 0 when it keeps up, +Inf when never, absent while unknown.",
    );
    for ((destination, stream), lag) in &reading.lags {
        let seconds = match lag.forecast {
            Forecast::Unknown => continue,
            Forecast::DrainsIn(time) => time.as_secs_f64(),
            Forecast::KeepsUp => 0.0,
            Forecast::Never => f64::INFINITY,
        };
        drains.sample(&[("destination", destination), ("stream", stream)], seconds);
    }
}

fn settled(page: &mut Exposition, reading: &Reading) {
    balances(
        page,
        reading,
        ("forebay_queue_accepted_records_total", "Records that the queue took from its stream, since it began."),
        ("forebay_settled_records_total", "Records settled, by how, since the queue began."),
        |count| count.records,
    );
    balances(
        page,
        reading,
        ("forebay_queue_accepted_bytes_total", "Bytes of the records that the queue took, since it began."),
        ("forebay_settled_bytes_total", "Bytes of the records settled, by how, since the queue began."),
        |count| count.bytes,
    );
}

fn balances(
    page: &mut Exposition,
    reading: &Reading,
    (accepted_name, accepted_help): (&'static str, &'static str),
    (settled_name, settled_help): (&'static str, &'static str),
    of: impl Fn(Count) -> u64,
) {
    let mut taken = page.family(accepted_name, Kind::Counter, accepted_help);
    for ((destination, stream), lag) in &reading.lags {
        taken.sample(&[("destination", destination), ("stream", stream)], of(lag.queue.balance.accepted));
    }
    let mut settled = page.family(settled_name, Kind::Counter, settled_help);
    for ((destination, stream), lag) in &reading.lags {
        let Balance { accepted: _, delivered, pending: _, dead_lettered, filtered, expired, purged, lost, held } =
            lag.queue.balance;
        let ways = [
            ("delivered", delivered),
            ("dead_lettered", dead_lettered),
            ("filtered", filtered),
            ("expired", expired),
            ("purged", purged),
            ("lost", lost),
            ("held", held),
        ];
        for (way, count) in ways {
            settled.sample(&[("destination", destination), ("stream", stream), ("as", way)], of(count));
        }
    }
}

fn delivery(page: &mut Exposition, reading: &Reading) {
    // A destination that has a queue but nobody to deliver it is just the one that must not be missing.
    let destinations: BTreeSet<&str> = reading
        .lags
        .keys()
        .map(|(destination, _)| destination)
        .chain(reading.deliveries.keys())
        .map(|destination| &**destination)
        .collect();
    let mut states = page.family("forebay_delivery_state", Kind::Gauge, "1 for the state that the destination is in.");
    for destination in destinations {
        let state = state(reading.deliveries.get(destination).map(|delivery| delivery.state));
        states.sample(&[("destination", destination), ("state", state)], 1);
    }
    let mut requests = page.family(
        "forebay_delivery_requests_total",
        Kind::Counter,
        "Requests to the destination, by what came of them.",
    );
    for (destination, delivery) in &reading.deliveries {
        for (outcome, count) in &delivery.requests {
            requests.sample(&[("destination", destination), ("outcome", outcome)], *count);
        }
    }
    type Of = fn(&DeliveryReading) -> u64;
    let families: [(&'static str, Kind, &'static str, Of); 4] = [
        (
            "forebay_delivery_undecided_records",
            Kind::Gauge,
            "Records that were rejected and not yet decided on.",
            |of| of.undecided_records,
        ),
        ("forebay_delivery_requests_in_flight", Kind::Gauge, "Requests on their way now.", |of| of.requests_in_flight),
        ("forebay_delivery_failures_in_a_row", Kind::Gauge, "Failures since the last success.", |of| {
            of.failures_in_a_row
        }),
        ("forebay_delivery_sent_bytes_total", Kind::Counter, "Bytes of bodies, as sent.", |of| of.sent_bytes),
    ];
    for (name, kind, help, of) in families {
        let mut family = page.family(name, kind, help);
        for (destination, delivery) in &reading.deliveries {
            family.sample(&[("destination", destination)], of(delivery));
        }
    }
    let mut verdicts = page.family(
        "forebay_delivery_verdicts_total",
        Kind::Counter,
        "Answers about records or about the destination itself.",
    );
    for (destination, delivery) in &reading.deliveries {
        for (outcome, count) in &delivery.verdicts {
            verdicts.sample(&[("destination", destination), ("outcome", outcome)], *count);
        }
    }
    let mut success = page.family(
        "forebay_delivery_last_success_timestamp_seconds",
        Kind::Gauge,
        "When the destination last took something, since 1970; absent when not since the start.",
    );
    for (destination, delivery) in &reading.deliveries {
        if let Some(at_ms) = delivery.last_success_unix_ms {
            success.sample(&[("destination", destination)], at_ms as f64 / 1_000.0);
        }
    }
}

fn state(state: Option<DeliveryState>) -> &'static str {
    match state {
        None => "unconfigured",
        Some(DeliveryState::Idle) => "idle",
        Some(DeliveryState::Delivering) => "delivering",
        Some(DeliveryState::Throttled) => "throttled",
        Some(DeliveryState::Retrying) => "retrying",
        Some(DeliveryState::Refused) => "refused",
        Some(DeliveryState::Paused) => "paused",
        Some(DeliveryState::Stopping) => "stopping",
    }
}

fn way_in(page: &mut Exposition, ingest: &IngestReading) {
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

fn dead_letters(page: &mut Exposition, reading: &LogReading) {
    let mut records =
        page.family("forebay_dead_letters_records", Kind::Gauge, "Dead letters that wait for somebody to decide.");
    for (destination, dead) in &reading.dead_letters {
        records.sample(&[("destination", destination)], dead.records);
    }
    let mut bytes = page.family("forebay_dead_letters_bytes", Kind::Gauge, "Their bytes as stored in the log.");
    for (destination, dead) in &reading.dead_letters {
        bytes.sample(&[("destination", destination)], dead.bytes);
    }
}

fn storage(page: &mut Exposition, reading: &LogReading) {
    let log = &reading.log;
    let state = match log.state {
        LogState::Serving => "serving",
        LogState::ReadOnly { .. } => "read_only",
        LogState::Full { .. } => "full",
    };
    page.family("forebay_log_state", Kind::Gauge, "1 for the state that the log is in.").sample(&[("state", state)], 1);
    let gauges = [
        ("forebay_log_used_bytes", "Bytes of segments, and of room taken ahead.", log.bytes_used),
        ("forebay_log_limit_bytes", "The disk budget.", log.bytes_limit),
        ("forebay_log_segments", "Segment files.", log.segments as u64),
        ("forebay_log_streams", "Streams that ever were.", log.streams as u64),
        ("forebay_log_queued_bytes", "Bytes that wait to be written.", log.queued_bytes as u64),
        ("forebay_log_tail_cache_bytes", "Memory that holds what was just appended.", log.tail_cache_bytes as u64),
    ];
    for (name, help, number) in gauges {
        page.family(name, Kind::Gauge, help).sample(&[], number);
    }
    let counters = [
        ("forebay_log_appends_total", "Appends that became durable.", log.appends),
        ("forebay_log_commits_total", "Commits: each is one write and one sync for all that waited.", log.commits),
        ("forebay_log_segments_reclaimed_total", "Segments taken away.", log.segments_reclaimed),
        ("forebay_log_damages_total", "Damaged places met.", log.damages),
        (
            "forebay_log_reads_refused_total",
            "Reads of acknowledged records that the disk refused. Who needs them waits.",
            log.reads_refused,
        ),
        ("forebay_log_housekeeping_errors_total", "Rounds of housekeeping that met an error.", log.housekeeping_errors),
        ("forebay_floor_writes_total", "Ticks of the floor that wrote something.", reading.floor_writes),
        ("forebay_sled_resets_total", "How often the sled index was set aside and made anew.", reading.sled_resets),
    ];
    for (name, help, number) in counters {
        page.family(name, Kind::Counter, help).sample(&[], number);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use super::super::lag::Lag;
    use super::super::readings::{QueueReading, RateReading, WaitsFor};
    use super::*;

    const MANUAL: &str = include_str!("../../../docs/operating.md");

    /// One of everything, with a secret in the one text that comes from afar.
    fn full_page() -> String {
        let delivery = Arc::new(DeliveryReading {
            destination: "hook".into(),
            last_error: Some("canary-4711".to_owned()),
            last_success_unix_ms: Some(1_700_000_000_500),
            verdicts: vec![("rejected", 1)],
            requests: vec![("delivered", 5), ("429", 2)],
            rate: RateReading { learned_requests: Some(2.5), ..RateReading::default() },
            waits_for: WaitsFor::LearnedRate,
            ..DeliveryReading::default()
        });
        let lag = Lag {
            queue: QueueReading {
                lag: forebay::Lag { records: 7, oldest_age_ms: Some(1_500), ..forebay::Lag::default() },
                ..QueueReading::default()
            },
            delivery: Some(Arc::clone(&delivery)),
            state: Some(DeliveryState::Idle),
            arrived_per_second: Some(1.0),
            settled_per_second: Some(0.0),
            delivered_per_second: Some(0.0),
            forecast: Forecast::Never,
        };
        let lags = BTreeMap::from([
            (("hook".into(), "prod".into()), lag.clone()),
            (("gone".into(), "prod".into()), Lag { delivery: None, state: None, ..lag }),
        ]);
        let environment = EnvironmentReading {
            environment: "prod".to_owned(),
            unreadable_by_key: vec![0, 4],
            ..EnvironmentReading::default()
        };
        let ingest = IngestReading {
            environments: vec![environment],
            relays: vec![RelayReading {
                destination: "split".into(),
                posts: [("kept", 3), ("missed", 2), ("refused", 1)],
                ..RelayReading::default()
            }],
            refused: vec![(None, "unknown_key", 3), (Some("prod".to_owned()), "busy", 1)],
            ..IngestReading::default()
        };
        let deliveries = BTreeMap::from([("hook".into(), delivery)]);
        let dead_letters = vec![("hook".into(), Count { records: 2, bytes: 900 })];
        let log = LogReading { dead_letters, ..LogReading::empty() };
        render(&Reading { at_unix_ms: 1, lags, deliveries }, &ingest, &log, &ReloadReading::default(), true)
    }

    /// Splits a sample line as Prometheus does: name, labels, number.
    fn sample(line: &str) -> (&str, BTreeMap<&str, &str>, f64) {
        let (series, number) = line.rsplit_once(' ').expect("a number at the end");
        let (name, labels) = match series.split_once('{') {
            Some((name, labels)) => (name, labels.strip_suffix('}').expect("the brace is closed")),
            None => (series, ""),
        };
        let labels = labels.split(',').filter(|label| !label.is_empty()).map(|label| {
            let (name, value) = label.split_once('=').expect("a label has a value");
            (name, value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).expect("in quotes"))
        });
        (name, labels.collect(), number.parse().expect("a number"))
    }

    #[test]
    fn every_line_is_well_formed_and_no_series_comes_twice() {
        let page = full_page();
        let mut series = BTreeSet::new();
        let mut announced = "";
        for line in page.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                announced = rest.split_once(' ').unwrap().0;
                continue;
            }
            if line.starts_with("# HELP ") {
                continue;
            }
            let (name, labels, _) = sample(line);
            assert_eq!(name, announced, "samples stand under their family");
            assert!(name.chars().all(|character| character.is_ascii_lowercase() || character == '_'), "{name}");
            assert!(series.insert((name, labels)), "{line} comes twice");
        }
        assert!(series.len() > 40, "{}", series.len());
        assert!(page.ends_with('\n'));
    }

    #[test]
    fn counters_end_in_total_and_nothing_else_does() {
        for line in full_page().lines().filter_map(|line| line.strip_prefix("# TYPE ").map(str::to_owned)) {
            let (name, kind) = line.split_once(' ').unwrap();
            assert_eq!(name.ends_with("_total"), kind == "counter", "{line}");
        }
    }

    #[test]
    fn labels_are_few_and_nothing_from_afar_is_among_the_values() {
        let page = full_page();
        assert!(!page.contains("canary-4711"));
        let known = BTreeSet::from([
            "destination",
            "stream",
            "environment",
            "as",
            "by",
            "for",
            "of",
            "state",
            "outcome",
            "reason",
            "result",
            "key",
            "version",
        ]);
        for line in page.lines().filter(|line| !line.starts_with('#')) {
            let (_, labels, _) = sample(line);
            assert!(labels.keys().all(|name| known.contains(name)), "{line}");
        }
    }

    #[test]
    fn the_manual_explains_every_metric_and_no_other() {
        let page = full_page();
        let rendered: BTreeSet<&str> =
            page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
        let documented: BTreeSet<&str> = MANUAL
            .lines()
            .filter_map(|line| line.strip_prefix("| `forebay_"))
            .map(|line| line.split_once('`').expect("the name ends").0)
            .collect();
        let rendered: BTreeSet<&str> =
            rendered.into_iter().map(|name| name.strip_prefix("forebay_").unwrap()).collect();
        assert_eq!(rendered, documented, "rendered left, docs/operating.md right");
    }

    #[test]
    fn a_destination_that_nothing_delivers_has_a_state_too() {
        let page = full_page();
        assert!(page.contains("forebay_delivery_state{destination=\"gone\",state=\"unconfigured\"} 1\n"));
        assert!(page.contains("forebay_delivery_state{destination=\"hook\",state=\"idle\"} 1\n"));
    }

    #[test]
    fn a_lag_that_never_drains_is_infinite() {
        let page = full_page();
        assert!(page.contains("forebay_lag_drains_in_seconds{destination=\"hook\",stream=\"prod\"} +Inf\n"));
        assert!(page.contains("forebay_lag_age_seconds{destination=\"hook\",stream=\"prod\"} 1.5\n"));
    }
}
