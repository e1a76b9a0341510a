//! How far each queue is behind, and what became of its records.

use forebay::{Balance, Count};

use super::super::exposition::{Exposition, Kind};
use super::super::forecast::Forecast;
use super::super::lag::Reading;
use super::super::readings::LogReading;

pub(super) fn lag(page: &mut Exposition, reading: &Reading) {
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
            // Nothing of it can be read: 0 would say that all is well.
            forebay::Lag { oldest_age_ms: None, .. } => continue,
        };
        age.sample(&[("destination", destination), ("stream", stream)], age_ms as f64 / 1_000.0);
    }
    let mut live_age = page.family(
        "forebay_lag_live_age_seconds",
        Kind::Gauge,
        "How long the oldest has waited of what goes beside a backlog; absent where nothing does.",
    );
    for ((destination, stream), lag) in &reading.lags {
        let Some(age_ms) = lag.queue.lag.live_age_ms else { continue };
        live_age.sample(&[("destination", destination), ("stream", stream)], age_ms as f64 / 1_000.0);
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
    let mut gives_up = page.family(
        "forebay_lag_gives_up_in_seconds",
        Kind::Gauge,
        "When the oldest is given up, as overflow of its destination says; absent where that is not set or not foreseen.",
    );
    for ((destination, stream), lag) in &reading.lags {
        let Some(at_ms) = lag.gives_up_at_unix_ms else { continue };
        let seconds = at_ms.saturating_sub(reading.at_unix_ms) as f64 / 1_000.0;
        gives_up.sample(&[("destination", destination), ("stream", stream)], seconds);
    }
}

pub(super) fn settled(page: &mut Exposition, reading: &Reading) {
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

/// Where every record of a destination is, whatever queues it went through.
pub(super) fn sheets(page: &mut Exposition, reading: &Reading) {
    let mut records = page.family(
        "forebay_destination_records",
        Kind::Gauge,
        "Records of the destination by where they are now, each once; accepted is the sum of the others.",
    );
    for (destination, sheet) in &reading.sheets {
        // A letter that is held is pending in a sheet.
        let Balance { accepted, delivered, pending, dead_lettered, filtered, expired, purged, lost, held: _ } = sheet;
        let places = [
            ("accepted", accepted),
            ("delivered", delivered),
            ("pending", pending),
            ("dead_lettered", dead_lettered),
            ("filtered", filtered),
            ("expired", expired),
            ("purged", purged),
            ("lost", lost),
        ];
        for (place, count) in places {
            records.sample(&[("destination", destination), ("as", place)], count.records);
        }
    }
}

pub(super) fn dead_letters(page: &mut Exposition, reading: &LogReading) {
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
