//! The disk as environments share it.

use super::super::exposition::{Exposition, Kind};
use super::super::lag::Reading;
use super::super::readings::LogReading;

pub(super) fn render(page: &mut Exposition, reading: &Reading, log: &LogReading) {
    let mut share = page.family(
        "forebay_disk_share_bytes",
        Kind::Gauge,
        "What an environment may hold while the disk is short; absent while it is not.",
    );
    if let Some(bytes) = log.log.share_bytes {
        share.sample(&[], bytes);
    }
    let mut held = page.family(
        "forebay_disk_held_bytes",
        Kind::Gauge,
        "What an environment holds of the disk: its backlog, and its part of what is kept because of it.",
    );
    reading.disk.iter().for_each(|(id, share)| held.sample(&[("environment", id)], share.held_bytes));
    let mut refused = page.family(
        "forebay_disk_refused",
        Kind::Gauge,
        "1 for an environment that is refused, since it holds more than its share of a short disk.",
    );
    reading.disk.iter().for_each(|(id, share)| refused.sample(&[("environment", id)], u64::from(share.refused)));
    let mut hours = page.family(
        "forebay_disk_outage_hours",
        Kind::Gauge,
        "How long an environment's destinations may take nothing before it is refused, at the last day's rate; with of=all, if those of all do so.",
    );
    for (id, share) in &*reading.disk {
        for (of, known) in [("one", share.outage_hours), ("all", share.outage_hours_if_all)] {
            if let Some(known) = known {
                hours.sample(&[("environment", id), ("of", of)], known);
            }
        }
    }
}
