//! A snapshot as an aligned table for people. Pure.

use std::fmt::Write as _;
use std::time::Duration;

use super::columns::aligned;
use super::units::{self, UNKNOWN};
use crate::proto::v1::forecast::Outcome;
use crate::proto::v1::{DeliveryState, DiskShare, Lag, WaitsFor};

const COLUMNS: [&str; 9] =
    ["DESTINATION", "STREAM", "RECORDS", "BYTES", "AGE", "RATE", "DRAINS IN", "DISK HOLDS", "STATE"];

/// Words stand to the left, numbers to the right.
const RIGHT: [bool; 9] = [false, false, true, true, true, true, true, true, false];

/// What is shown at a time.
pub(crate) struct Snapshot {
    pub(crate) lags: Vec<Lag>,
    /// How many more there are.
    pub(crate) omitted: u64,
    pub(crate) read_at_unix_ms: u64,
}

/// The table, and below it what went wrong where something waits.
pub(crate) fn text(snapshot: &Snapshot) -> String {
    if snapshot.lags.is_empty() {
        return "no destination has a queue here\n".to_owned();
    }
    let mut rows = vec![COLUMNS.map(str::to_owned)];
    rows.extend(snapshot.lags.iter().map(row));
    let mut text = aligned(&rows, RIGHT);
    if snapshot.omitted > 0 {
        // Writing to a String cannot fail, here and below.
        let _ = writeln!(text, "and {} more, which have waited less long", units::count(snapshot.omitted));
    }
    for lag in &snapshot.lags {
        not_as_decided(&mut text, lag);
        note(&mut text, lag, snapshot.read_at_unix_ms);
        pace(&mut text, lag);
        live(&mut text, lag);
        gives_up(&mut text, lag, snapshot.read_at_unix_ms);
    }
    text
}

fn row(lag: &Lag) -> [String; 9] {
    let known = |text: Option<String>| text.unwrap_or_else(|| UNKNOWN.to_owned());
    [
        lag.destination.clone(),
        lag.stream.clone(),
        units::count(lag.records_behind),
        units::bytes(lag.bytes_behind),
        known(lag.oldest_age_ms.map(|age_ms| units::duration(Duration::from_millis(age_ms)))),
        known(lag.delivered_per_second.map(units::rate)),
        drains_in(lag),
        disk_holds(lag),
        state(lag).replace('_', " "),
    ]
}

fn drains_in(lag: &Lag) -> String {
    match lag.forecast.as_ref().and_then(|forecast| forecast.outcome.as_ref()) {
        None => UNKNOWN.to_owned(),
        Some(Outcome::DrainsInSeconds(seconds)) => {
            // What is no time (negative, infinite) comes from no Forebay; it is not worth a panic.
            Duration::try_from_secs_f64(*seconds).map_or_else(|_| UNKNOWN.to_owned(), units::duration)
        }
        Some(Outcome::KeepsUp(_)) => "keeps up".to_owned(),
        Some(Outcome::NeverAtThisRate(_)) => "never".to_owned(),
    }
}

/// How long an outage of its destinations the environment's share of the disk holds.
fn disk_holds(lag: &Lag) -> String {
    match lag.disk {
        Some(DiskShare { refused: true, .. }) => "refused".to_owned(),
        Some(DiskShare { outage_hours: Some(hours), .. }) => units::hours(hours),
        _ => UNKNOWN.to_owned(),
    }
}

/// `throttled` for `DELIVERY_STATE_THROTTLED`.
pub(crate) fn state(lag: &Lag) -> String {
    let name = lag.state().as_str_name();
    name.strip_prefix("DELIVERY_STATE_").unwrap_or(name).to_ascii_lowercase()
}

/// `learned_rate` for `WAITS_FOR_LEARNED_RATE`; nothing where it waits for nothing.
pub(crate) fn waits_for(lag: &Lag) -> Option<String> {
    let name = lag.waits_for().as_str_name();
    let name = name.strip_prefix("WAITS_FOR_").filter(|name| *name != "UNSPECIFIED")?;
    Some(name.to_ascii_lowercase())
}

/// That it is not what its settings say, and why.
fn not_as_decided(text: &mut String, lag: &Lag) {
    let Some(why) = &lag.not_as_decided else { return };
    let how = match lag.state() {
        DeliveryState::NotStarted => "could not be started",
        _ => "goes on with older settings",
    };
    let _ = writeln!(text, "{}/{}: {how}, and is tried again: {why}", lag.destination, lag.stream);
}

/// At which rate it goes, where that is what it waits for.
fn pace(text: &mut String, lag: &Lag) {
    let Some(rate) = lag.rate.as_ref() else { return };
    let (why, requests, records, bytes) = match lag.waits_for() {
        WaitsFor::AllowedRate => (
            "as its settings say",
            rate.allowed_requests.map(f64::from),
            rate.allowed_records.map(f64::from),
            rate.allowed_bytes,
        ),
        WaitsFor::LearnedRate => ("as was learned of what it takes", rate.learned_requests, rate.learned_records, None),
        _ => return,
    };
    let of = |what: &str, rate: Option<f64>| rate.map(|rate| format!("{rate:.1} {what}"));
    let bytes = bytes.map(units::bytes);
    let limits: Vec<_> = [of("requests", requests), of("records", records), bytes].into_iter().flatten().collect();
    let _ = writeln!(text, "{}/{}: at most {} a second, {why}", lag.destination, lag.stream, limits.join(", "));
}

/// How late what comes in now is, where that goes beside the backlog.
fn live(text: &mut String, lag: &Lag) {
    let Some(age_ms) = lag.live_age_ms else { return };
    let age = units::duration(Duration::from_millis(age_ms));
    let (destination, stream) = (&lag.destination, &lag.stream);
    let _ =
        writeln!(text, "{destination}/{stream}: what comes in goes beside the backlog, its oldest has waited {age}");
}

/// When the oldest that waits is given up, where that was set and is foreseen.
fn gives_up(text: &mut String, lag: &Lag, now_ms: u64) {
    let Some(at_ms) = lag.overflow.as_ref().and_then(|overflow| overflow.gives_up_at_unix_ms) else { return };
    let wait = units::duration(Duration::from_millis(at_ms.saturating_sub(now_ms)));
    let _ =
        writeln!(text, "{}/{}: gives up its oldest records in {wait}, as overflow says", lag.destination, lag.stream);
}

/// Why it does not go on, and when it will be tried again.
fn note(text: &mut String, lag: &Lag, now_ms: u64) {
    let troubled = !matches!(lag.state(), DeliveryState::Idle | DeliveryState::Delivering);
    let Some(error) = lag.last_error.as_ref().filter(|_| troubled) else { return };
    let _ = write!(text, "{}/{}: {}", lag.destination, lag.stream, error.message);
    if let Some(at_ms) = error.at_unix_ms {
        let ago = units::duration(Duration::from_millis(now_ms.saturating_sub(at_ms)));
        let _ = write!(text, " ({ago} ago)");
    }
    if let Some(next_ms) = lag.next_attempt_unix_ms {
        let wait = units::duration(Duration::from_millis(next_ms.saturating_sub(now_ms)));
        let _ = write!(text, ", next attempt in {wait}");
    }
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::v1::{Forecast, KeepsUp, LastError, NeverAtThisRate, Overflow, Rate};

    fn lag(destination: &str, state: DeliveryState, outcome: Option<Outcome>) -> Lag {
        Lag {
            destination: destination.to_owned(),
            stream: "acme-prod".to_owned(),
            state: state.into(),
            forecast: outcome.map(|outcome| Forecast { outcome: Some(outcome) }),
            ..Lag::default()
        }
    }

    #[test]
    fn a_table_lines_up_and_says_what_is_wrong_below() {
        let hook = Lag {
            records_behind: 1_234_567,
            bytes_behind: 123_456_789,
            oldest_age_ms: Some(192_000),
            delivered_per_second: Some(1_520.0),
            last_error: Some(LastError { at_unix_ms: Some(88_000), message: "429 Too Many Requests".to_owned() }),
            next_attempt_unix_ms: Some(105_000),
            disk: Some(DiskShare { outage_hours: Some(38.5), ..DiskShare::default() }),
            overflow: Some(Overflow { gives_up_at_unix_ms: Some(7_300_000), bytes_left: None }),
            live_age_ms: Some(2_300),
            ..lag("acme-hook", DeliveryState::Throttled, Some(Outcome::NeverAtThisRate(NeverAtThisRate {})))
        };
        let archive = Lag {
            records_behind: 800,
            bytes_behind: 81_920,
            oldest_age_ms: Some(400),
            delivered_per_second: Some(9_000.0),
            last_error: Some(LastError { at_unix_ms: Some(1), message: "long over".to_owned() }),
            ..lag("acme-archive", DeliveryState::Delivering, Some(Outcome::KeepsUp(KeepsUp {})))
        };
        let archive = Lag {
            rate: Some(Rate { learned_requests: Some(9.04), learned_records: Some(9040.0), ..Rate::default() }),
            waits_for: WaitsFor::LearnedRate.into(),
            disk: Some(DiskShare { refused: true, outage_hours: Some(1.0), ..DiskShare::default() }),
            ..archive
        };
        let fresh = Lag {
            not_as_decided: Some("its letters can't be read".to_owned()),
            ..lag("new", DeliveryState::NotStarted, None)
        };
        let drains = lag("b", DeliveryState::Delivering, Some(Outcome::DrainsInSeconds(754.2)));
        let snapshot = Snapshot { lags: vec![archive, hook, drains, fresh], omitted: 3, read_at_unix_ms: 100_000 };
        assert_eq!(
            text(&snapshot),
            "\
DESTINATION   STREAM       RECORDS      BYTES     AGE     RATE  DRAINS IN  DISK HOLDS  STATE
acme-archive  acme-prod        800   80.0 KiB    0.4s  9,000/s   keeps up     refused  delivering
acme-hook     acme-prod  1,234,567  117.7 MiB  3m 12s  1,520/s      never      1d 14h  throttled
b             acme-prod          0        0 B       -        -    12m 34s           -  delivering
new           acme-prod          0        0 B       -        -          -           -  not started
and 3 more, which have waited less long
acme-archive/acme-prod: at most 9.0 requests, 9040.0 records a second, as was learned of what it takes
acme-hook/acme-prod: 429 Too Many Requests (12s ago), next attempt in 5.0s
acme-hook/acme-prod: what comes in goes beside the backlog, its oldest has waited 2.3s
acme-hook/acme-prod: gives up its oldest records in 2h 00m, as overflow says
new/acme-prod: could not be started, and is tried again: its letters can't be read
"
        );
    }

    #[test]
    fn an_empty_snapshot_says_so() {
        let snapshot = Snapshot { lags: Vec::new(), omitted: 0, read_at_unix_ms: 0 };
        assert_eq!(text(&snapshot), "no destination has a queue here\n");
    }

    #[test]
    fn a_state_of_a_later_version_is_shown_as_unspecified() {
        let mut odd = lag("a", DeliveryState::Idle, Some(Outcome::DrainsInSeconds(f64::NAN)));
        odd.state = 99;
        assert_eq!((state(&odd).as_str(), drains_in(&odd).as_str()), ("unspecified", "-"));
    }
}
