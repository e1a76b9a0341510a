//! The metrics, rendered from readings when asked for.
//!
//! Counts nothing itself: every number is the one that decides elsewhere, so the two cannot disagree. What always holds: label
//! values are ids from the configuration or words from this program, never something a client sent, so that the number of
//! series is bounded by the configuration. What each metric means for an operator stands in docs/operating.md.

mod delivery;
mod disk;
mod queues;
mod rates;
mod storage;
mod way_in;

use super::exposition::{Exposition, Kind};
use super::lag::Reading;
use super::readings::{IngestReading, LogReading, ReloadReading, ThreadsReading};
use crate::telemetry;

/// All metrics.
pub(super) fn render(
    reading: &Reading,
    ingest: &IngestReading,
    log: &LogReading,
    reloads: &ReloadReading,
    watched: &[ThreadsReading],
    ready: bool,
) -> String {
    let mut page = Exposition::default();
    process(&mut page, ready);
    threads(&mut page, watched);
    configuration(&mut page, reloads);
    queues::lag(&mut page, reading);
    queues::settled(&mut page, reading);
    queues::sheets(&mut page, reading);
    delivery::render(&mut page, reading);
    rates::render(&mut page, reading);
    way_in::render(&mut page, ingest);
    storage::render(&mut page, log);
    disk::render(&mut page, reading, log);
    queues::dead_letters(&mut page, log);
    page.into_text()
}

fn process(page: &mut Exposition, ready: bool) {
    page.family("forebay_build_info", Kind::Gauge, "Always 1; the labels say what runs.")
        .sample(&[("version", env!("CARGO_PKG_VERSION"))], 1);
    page.family("forebay_ready", Kind::Gauge, "1 when /readyz says yes.").sample(&[], u64::from(ready));
    page.family(
        "forebay_log_lines_dropped_total",
        Kind::Counter,
        "Log lines that nobody read: the standard error was full.",
    )
    .sample(&[], telemetry::lines_dropped());
}

fn threads(page: &mut Exposition, watched: &[ThreadsReading]) {
    let help = "How long what is new for these threads has had no turn; 0 when it had.";
    let mut waits = page.family("forebay_threads_wait_seconds", Kind::Gauge, help);
    for of in watched {
        waits.sample(&[("of", of.threads)], of.waits.as_secs_f64());
    }
    let help = "Stalls: times that nothing new had its turn on these threads for more than a second.";
    let mut stalls = page.family("forebay_threads_stalls_total", Kind::Counter, help);
    for of in watched {
        stalls.sample(&[("of", of.threads)], of.stalls);
    }
}

fn configuration(page: &mut Exposition, reloads: &ReloadReading) {
    let help = "Times that the configuration file was read again.";
    let mut reads = page.family("forebay_config_reloads_total", Kind::Counter, help);
    reads.sample(&[("result", "done")], reloads.done);
    reads.sample(&[("result", "failed")], reloads.failed);
    page.family(
        "forebay_config_reload_failed",
        Kind::Gauge,
        "1 when the configuration file was not taken, or a destination does not run as it says.",
    )
    .sample(&[], u64::from(reloads.last_failed));
}

#[cfg(test)]
mod tests;
