//! Turns lags into the messages of `forebay.v1`. One way only: nothing is read from them.

use forebay::{Balance, Count};

use super::disk_shares::{DiskShare, DiskShares};
use super::forecast::Forecast;
use super::lag::{Key, Lag};
use super::readings::{DeliveryState, RateReading, WaitsFor};
use crate::proto::v1;

/// The whole of a queue's lag.
pub(super) fn lag((destination, stream): &Key, lag: &Lag, disk: &DiskShares) -> v1::Lag {
    let queue = &lag.queue;
    let delivery = lag.delivery.as_deref();
    v1::Lag {
        destination: destination.to_string(),
        stream: stream.to_string(),
        records_behind: queue.lag.records,
        bytes_behind: queue.lag.bytes,
        oldest_age_ms: queue.lag.oldest_age_ms,
        live_age_ms: queue.lag.live_age_ms,
        durable_tail: queue.lag.durable_tail,
        low_mark: queue.lag.low_mark,
        records_in_flight: queue.lag.in_flight,
        state: state(lag.state).into(),
        delivered_per_second: lag.delivered_per_second,
        settled_per_second: lag.settled_per_second,
        arrived_per_second: lag.arrived_per_second,
        forecast: forecast(lag.forecast),
        balance: Some(balance(&queue.balance)),
        last_error: match &lag.held {
            Some(held) => Some(v1::LastError { message: held.why.clone(), at_unix_ms: Some(held.since_unix_ms) }),
            None => delivery
                .and_then(|delivery| Some((delivery.last_error.clone()?, delivery.last_error_unix_ms)))
                .map(|(message, at_unix_ms)| v1::LastError { message, at_unix_ms }),
        },
        last_success_unix_ms: delivery.and_then(|delivery| delivery.last_success_unix_ms),
        next_attempt_unix_ms: match &lag.held {
            Some(held) => Some(held.until_unix_ms),
            None => delivery.and_then(|delivery| delivery.next_attempt_unix_ms),
        },
        rate: delivery.and_then(|delivery| rate(delivery.rate)),
        waits_for: waits_for(delivery.map(|delivery| delivery.waits_for).unwrap_or_default()).into(),
        overflow: queue.overflow.map(|overflow| v1::Overflow {
            gives_up_at_unix_ms: lag.gives_up_at_unix_ms,
            bytes_left: overflow.bytes_left,
        }),
        disk: disk.get(stream).map(disk_share),
        not_as_decided: delivery.and_then(|delivery| delivery.not_as_decided.clone()),
    }
}

fn disk_share(share: &DiskShare) -> v1::DiskShare {
    let DiskShare { held_bytes, refused, bytes_per_hour, outage_hours, outage_hours_if_all } = *share;
    v1::DiskShare { held_bytes, refused, bytes_per_hour, outage_hours, outage_hours_if_all }
}

fn rate(rate: RateReading) -> Option<v1::Rate> {
    let RateReading { allowed_requests, allowed_records, allowed_bytes, learned_requests, learned_records } = rate;
    let rate = v1::Rate { allowed_requests, allowed_records, allowed_bytes, learned_requests, learned_records };
    (rate != v1::Rate::default()).then_some(rate)
}

fn waits_for(waits_for: WaitsFor) -> v1::WaitsFor {
    match waits_for {
        WaitsFor::Nothing => v1::WaitsFor::Unspecified,
        WaitsFor::Answers => v1::WaitsFor::Answers,
        WaitsFor::Share => v1::WaitsFor::Share,
        WaitsFor::AllowedRate => v1::WaitsFor::AllowedRate,
        WaitsFor::LearnedRate => v1::WaitsFor::LearnedRate,
        WaitsFor::Reset => v1::WaitsFor::Reset,
    }
}

fn state(state: Option<DeliveryState>) -> v1::DeliveryState {
    match state {
        None => v1::DeliveryState::Unconfigured,
        Some(DeliveryState::Idle) => v1::DeliveryState::Idle,
        Some(DeliveryState::Delivering) => v1::DeliveryState::Delivering,
        Some(DeliveryState::Throttled) => v1::DeliveryState::Throttled,
        Some(DeliveryState::Retrying) => v1::DeliveryState::Retrying,
        Some(DeliveryState::Refused) => v1::DeliveryState::Refused,
        Some(DeliveryState::Paused) => v1::DeliveryState::Paused,
        Some(DeliveryState::Stopping) => v1::DeliveryState::Stopping,
        Some(DeliveryState::NotStarted) => v1::DeliveryState::NotStarted,
    }
}

fn forecast(forecast: Forecast) -> Option<v1::Forecast> {
    use v1::forecast::Outcome;
    let outcome = match forecast {
        Forecast::Unknown => return None,
        Forecast::DrainsIn(time) => Outcome::DrainsInSeconds(time.as_secs_f64()),
        Forecast::KeepsUp => Outcome::KeepsUp(v1::KeepsUp {}),
        Forecast::Never => Outcome::NeverAtThisRate(v1::NeverAtThisRate {}),
    };
    Some(v1::Forecast { outcome: Some(outcome) })
}

pub(super) fn balance(balance: &Balance) -> v1::Balance {
    // Taken apart by name, so that a new way to settle cannot be forgotten here.
    let Balance { accepted, delivered, pending, dead_lettered, filtered, expired, purged, lost, held } = *balance;
    v1::Balance {
        accepted: count(accepted),
        delivered: count(delivered),
        pending: count(pending),
        dead_lettered: count(dead_lettered),
        filtered: count(filtered),
        expired: count(expired),
        purged: count(purged),
        lost: count(lost),
        held: count(held),
    }
}

fn count(Count { records, bytes }: Count) -> Option<v1::Count> {
    Some(v1::Count { records, bytes })
}
