//! The log, the floor and the index beside it; the files of file destinations.

use forebay::LogState;

use super::super::exposition::{Exposition, Kind};
use super::super::readings::LogReading;

pub(super) fn render(page: &mut Exposition, reading: &LogReading) {
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
        ("forebay_log_needed_bytes", "Payload bytes that somebody still needs.", log.needed_bytes),
        ("forebay_log_pinned_bytes", "Bytes of sealed segments beyond what is needed.", log.pinned_bytes),
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
        (
            "forebay_log_segments_compacted_total",
            "Segments of which only what somebody needs was kept, in a compact one.",
            log.segments_compacted,
        ),
        ("forebay_log_compacted_bytes_total", "Bytes that were written to compact segments.", log.compacted_bytes),
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
    let help = "Lines in the middle of a destination's files that could not be read back, at least.";
    let mut damaged = page.family("forebay_file_damaged_lines_total", Kind::Counter, help);
    for (destination, lines) in &reading.damaged_lines {
        damaged.sample(&[("destination", destination)], *lines);
    }
}
