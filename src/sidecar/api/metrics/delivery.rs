//! How delivery fares, destination by destination.

use std::collections::BTreeSet;

use super::super::exposition::{Exposition, Kind};
use super::super::lag::Reading;
use super::super::readings::{DeliveryReading, DeliveryState};

pub(super) fn render(page: &mut Exposition, reading: &Reading) {
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
        let state = state(reading.deliveries.get(destination).map(|delivery| delivery.worst_state()));
        states.sample(&[("destination", destination), ("state", state)], 1);
    }
    let mut not_as_decided = page.family(
        "forebay_destination_not_as_decided",
        Kind::Gauge,
        "1 while the destination does not run as the file or an operator says, and is tried again: forebay lag says why.",
    );
    for (destination, delivery) in &reading.deliveries {
        if delivery.not_as_decided.is_some() {
            not_as_decided.sample(&[("destination", destination)], 1);
        }
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
        Some(DeliveryState::NotStarted) => "not_started",
    }
}
