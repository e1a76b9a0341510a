//! A snapshot as one line of JSON for programs. Pure.
//!
//! The names and units are those of `cursors.proto`; what is not known is `null`. Names are kept once given.

use serde_json::{Value, json};

use crate::console::lag_table::{self, Snapshot};
use crate::proto::v1::forecast::Outcome;
use crate::proto::v1::{Balance, Count, Lag};

/// The line, with its end.
pub(super) fn line(snapshot: &Snapshot) -> String {
    let lags: Vec<Value> = snapshot.lags.iter().map(lag).collect();
    let line = json!({
        "read_at_unix_ms": snapshot.read_at_unix_ms,
        "omitted": snapshot.omitted,
        "lags": lags,
    });
    format!("{line}\n")
}

fn lag(lag: &Lag) -> Value {
    json!({
        "destination": lag.destination,
        "stream": lag.stream,
        "records_behind": lag.records_behind,
        "bytes_behind": lag.bytes_behind,
        "oldest_age_ms": lag.oldest_age_ms,
        "live_age_ms": lag.live_age_ms,
        "durable_tail": lag.durable_tail,
        "low_mark": lag.low_mark,
        "records_in_flight": lag.records_in_flight,
        "state": lag_table::state(lag),
        "delivered_per_second": lag.delivered_per_second,
        "settled_per_second": lag.settled_per_second,
        "arrived_per_second": lag.arrived_per_second,
        "forecast": forecast(lag),
        "balance": lag.balance.as_ref().map(balance),
        "last_error": lag.last_error.as_ref().map(|error| json!({
            "at_unix_ms": error.at_unix_ms,
            "message": error.message,
        })),
        "last_success_unix_ms": lag.last_success_unix_ms,
        "next_attempt_unix_ms": lag.next_attempt_unix_ms,
        "rate": lag.rate.as_ref().map(|rate| json!({
            "allowed_requests": rate.allowed_requests,
            "allowed_records": rate.allowed_records,
            "allowed_bytes": rate.allowed_bytes,
            "learned_requests": rate.learned_requests,
            "learned_records": rate.learned_records,
        })),
        "waits_for": lag_table::waits_for(lag),
        "not_as_decided": lag.not_as_decided,
        "overflow": lag.overflow.as_ref().map(|overflow| json!({
            "gives_up_at_unix_ms": overflow.gives_up_at_unix_ms,
            "bytes_left": overflow.bytes_left,
        })),
        "disk": lag.disk.as_ref().map(|disk| json!({
            "held_bytes": disk.held_bytes,
            "refused": disk.refused,
            "bytes_per_hour": disk.bytes_per_hour,
            "outage_hours": disk.outage_hours,
            "outage_hours_if_all": disk.outage_hours_if_all,
        })),
    })
}

fn forecast(lag: &Lag) -> Value {
    match lag.forecast.as_ref().and_then(|forecast| forecast.outcome.as_ref()) {
        None => Value::Null,
        Some(Outcome::DrainsInSeconds(seconds)) => json!({ "outcome": "drains", "drains_in_seconds": seconds }),
        Some(Outcome::KeepsUp(_)) => json!({ "outcome": "keeps_up" }),
        Some(Outcome::NeverAtThisRate(_)) => json!({ "outcome": "never_at_this_rate" }),
    }
}

pub(in crate::cli) fn balance(balance: &Balance) -> Value {
    let count = |count: &Option<Count>| {
        count.as_ref().map(|Count { records, bytes }| json!({ "records": records, "bytes": bytes }))
    };
    json!({
        "accepted": count(&balance.accepted),
        "delivered": count(&balance.delivered),
        "pending": count(&balance.pending),
        "dead_lettered": count(&balance.dead_lettered),
        "filtered": count(&balance.filtered),
        "expired": count(&balance.expired),
        "purged": count(&balance.purged),
        "lost": count(&balance.lost),
        "held": count(&balance.held),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::v1::{DeliveryState, Forecast, LastError, Overflow, Rate, WaitsFor};

    #[test]
    fn a_line_holds_everything_and_only_one_line_end() {
        let full = Lag {
            destination: "hook".to_owned(),
            records_behind: u64::MAX,
            state: DeliveryState::Retrying.into(),
            forecast: Some(Forecast { outcome: Some(Outcome::DrainsInSeconds(1.5)) }),
            balance: Some(Balance { lost: Some(Count { records: 3, bytes: 300 }), ..Balance::default() }),
            last_error: Some(LastError { at_unix_ms: Some(7), message: "two\nlines".to_owned() }),
            rate: Some(Rate { allowed_records: Some(500), learned_records: Some(120.5), ..Rate::default() }),
            waits_for: WaitsFor::LearnedRate.into(),
            overflow: Some(Overflow { gives_up_at_unix_ms: Some(9), bytes_left: None }),
            ..Lag::default()
        };
        let snapshot = Snapshot { lags: vec![full, Lag::default()], omitted: 1, read_at_unix_ms: 5 };
        let line = line(&snapshot);
        assert_eq!(line.find('\n'), Some(line.len() - 1));
        let read: Value = serde_json::from_str(&line).unwrap();
        let lag = &read["lags"][0];
        assert_eq!(lag["records_behind"], u64::MAX);
        assert_eq!(lag["state"], "retrying");
        assert_eq!(lag["forecast"], json!({ "outcome": "drains", "drains_in_seconds": 1.5 }));
        assert_eq!(lag["balance"]["lost"]["records"], 3);
        assert_eq!(lag["last_error"]["message"], "two\nlines");
        assert_eq!((&lag["rate"]["allowed_records"], &lag["rate"]["learned_records"]), (&json!(500), &json!(120.5)));
        assert_eq!((&lag["waits_for"], &read["lags"][1]["waits_for"]), (&json!("learned_rate"), &Value::Null));
        assert_eq!(lag["overflow"], json!({ "gives_up_at_unix_ms": 9, "bytes_left": null }));
        assert_eq!((&read["lags"][1]["forecast"], &read["lags"][1]["overflow"]), (&Value::Null, &Value::Null));
        assert_eq!(read["lags"][1]["oldest_age_ms"], Value::Null);
    }
}
