//! The page as a whole: what a scraper reads, and what the manual says of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use forebay::{Balance, Count};

use super::super::disk_shares::DiskShare;
use super::super::forecast::Forecast;
use super::super::lag::Lag;
use super::super::readings::{
    DeliveryReading, DeliveryState, EnvironmentReading, HeldReading, QueueReading, RateReading, RelayReading, WaitsFor,
};
use super::*;

const MANUAL: &str = include_str!("../../../../docs/operating.md");

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
            lag: forebay::Lag {
                records: 7,
                oldest_age_ms: Some(1_500),
                live_age_ms: Some(250),
                ..forebay::Lag::default()
            },
            ..QueueReading::default()
        },
        delivery: Some(Arc::clone(&delivery)),
        state: Some(DeliveryState::Idle),
        held: None,
        arrived_per_second: Some(1.0),
        settled_per_second: Some(0.0),
        delivered_per_second: Some(0.0),
        forecast: Forecast::Never,
        gives_up_at_unix_ms: Some(61_001),
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
    let held = vec![HeldReading { why: "canary-4711".to_owned(), refused: true, ..HeldReading::default() }];
    let not_as_decided = Some("its log can't be opened".to_owned());
    let split =
        Arc::new(DeliveryReading { destination: "split".into(), held, not_as_decided, ..DeliveryReading::default() });
    let deliveries = BTreeMap::from([("hook".into(), delivery), ("split".into(), split)]);
    let dead_letters = vec![("hook".into(), Count { records: 2, bytes: 900 })];
    let damaged_lines = vec![("archive".into(), 3)];
    let mut log = LogReading { dead_letters, damaged_lines, ..LogReading::empty() };
    log.log.share_bytes = Some(4_096);
    let share = DiskShare {
        held_bytes: 5_000,
        refused: true,
        bytes_per_hour: Some(100.0),
        outage_hours: Some(40.5),
        outage_hours_if_all: Some(2.0),
    };
    let disk = Arc::new(BTreeMap::from([("prod".into(), share)]));
    let sheet = Balance { accepted: Count { records: 9, bytes: 900 }, ..Balance::default() };
    let sheets = BTreeMap::from([("hook".into(), sheet)]);
    let threads = [ThreadsReading { threads: "send", waits: Duration::from_millis(2_500), stalls: 3 }];
    let reading = Reading { at_unix_ms: 1, lags, deliveries, sheets, disk };
    render(&reading, &ingest, &log, &ReloadReading::default(), &threads, true)
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
    let rendered: BTreeSet<&str> = rendered.into_iter().map(|name| name.strip_prefix("forebay_").unwrap()).collect();
    assert_eq!(rendered, documented, "rendered left, docs/operating.md right");
}

#[test]
fn a_destination_that_nothing_delivers_has_a_state_too() {
    let page = full_page();
    assert!(page.contains("forebay_delivery_state{destination=\"gone\",state=\"unconfigured\"} 1\n"));
    assert!(page.contains("forebay_delivery_state{destination=\"hook\",state=\"idle\"} 1\n"));
    let refused = "forebay_delivery_state{destination=\"split\",state=\"refused\"} 1\n";
    assert!(page.contains(refused), "an upstream that refuses one key alone");
    assert_eq!(page.matches("\nforebay_destination_not_as_decided{").count(), 1);
    assert!(page.contains("forebay_destination_not_as_decided{destination=\"split\"} 1\n"));
}

#[test]
fn threads_that_stand_still_are_told_in_seconds() {
    let page = full_page();
    assert!(page.contains("forebay_threads_wait_seconds{of=\"send\"} 2.5\n"));
    assert!(page.contains("forebay_threads_stalls_total{of=\"send\"} 3\n"));
}

#[test]
fn a_lag_that_never_drains_is_infinite() {
    let page = full_page();
    assert!(page.contains("forebay_lag_drains_in_seconds{destination=\"hook\",stream=\"prod\"} +Inf\n"));
    assert!(page.contains("forebay_lag_age_seconds{destination=\"hook\",stream=\"prod\"} 1.5\n"));
    assert!(page.contains("forebay_lag_live_age_seconds{destination=\"hook\",stream=\"prod\"} 0.25\n"));
    assert!(page.contains("forebay_lag_gives_up_in_seconds{destination=\"hook\",stream=\"prod\"} 61\n"));
}
