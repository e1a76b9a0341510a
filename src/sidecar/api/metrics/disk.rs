//! The disk as environments share it, and what compaction does about what nobody needs.

use super::super::exposition::{Exposition, Kind};
use super::super::lag::Reading;
use super::super::readings::LogReading;

pub(super) fn render(page: &mut Exposition, reading: &Reading, log: &LogReading) {
    compaction(page, log);
    let share = page.family(
        "forebay_disk_share_bytes",
        Kind::Gauge,
        "What an environment may hold while the disk is short; absent while it is not.",
    );
    log.log.share_bytes.into_iter().fold(share, |mut family, bytes| {
        family.sample(&[], bytes);
        family
    });
    let environments = || reading.disk.iter();
    let mut held = page.family(
        "forebay_disk_held_bytes",
        Kind::Gauge,
        "What an environment holds of the disk: its backlog, and its part of what is kept because of it.",
    );
    environments().for_each(|(id, share)| held.sample(&[("environment", id)], share.held_bytes));
    let mut refused = page.family(
        "forebay_disk_refused",
        Kind::Gauge,
        "1 for an environment that is refused, since it holds more than its share of a short disk.",
    );
    environments().for_each(|(id, share)| refused.sample(&[("environment", id)], u64::from(share.refused)));
    let mut hours = page.family(
        "forebay_disk_outage_hours",
        Kind::Gauge,
        "How long an environment's destinations may take nothing before it is refused, at the last day's rate; with of=all, if those of all do so.",
    );
    for (id, share) in environments() {
        for (of, known) in [("one", share.outage_hours), ("all", share.outage_hours_if_all)] {
            if let Some(known) = known {
                hours.sample(&[("environment", id), ("of", of)], known);
            }
        }
    }
}

fn compaction(page: &mut Exposition, reading: &LogReading) {
    let log = &reading.log;
    let counters = [
        (
            "forebay_log_segments_compacted_total",
            "Segments of which only what somebody needs was kept, in a compact one.",
            log.segments_compacted,
        ),
        ("forebay_log_compacted_bytes_total", "Bytes that were written to compact segments.", log.compacted_bytes),
    ];
    for (name, help, number) in counters {
        page.family(name, Kind::Counter, help).sample(&[], number);
    }
    let gauges = [
        ("forebay_log_needed_bytes", "Payload bytes that somebody still needs.", log.needed_bytes),
        ("forebay_log_pinned_bytes", "Bytes of sealed segments beyond what is needed.", log.pinned_bytes),
    ];
    for (name, help, number) in gauges {
        page.family(name, Kind::Gauge, help).sample(&[], number);
    }
}
