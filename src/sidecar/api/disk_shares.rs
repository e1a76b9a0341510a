//! What each environment holds of the disk, and how long an outage of its destinations its share outlasts.
//!
//! Pure. A forecast for people, not an account: what is behind now is taken to stay, what comes in to come as on the day
//! before. An environment whose destinations take nothing is refused when the disk is short and it holds more than its share
//! ([decision 12]); until then it may hold all that others don't need. Were all behind at once they would fill the disk together.
//!
//! [decision 12]: https://github.com/forebay/forebay/blob/main/docs/decisions/0012-disk-shares.md

use std::collections::BTreeMap;
use std::sync::Arc;

use forebay::Hourly;

/// Disk use is up to a quarter more than what is undelivered: compaction leaves no more than that.
const USED_FOR_NEEDED: f64 = 1.25;

/// Rates are those of the last day.
const DAY_MS: u64 = 24 * HOUR_MS;

/// An hour, by which they are told.
const HOUR_MS: u64 = 3_600_000;

/// What is known of a shorter time says nothing about a day.
const KNOWN_MS_MIN: u64 = 10 * 60_000;

/// The disk, as the log has it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DiskReading {
    /// From so many bytes in use on somebody is refused.
    pub short_at_bytes: u64,
    /// Of these are always taken: room ahead, and what is written to.
    pub ahead_bytes: u64,
    /// While the disk is short: whoever holds more is refused.
    pub share_bytes: Option<u64>,
    /// What each environment has of it.
    pub environments: Vec<EnvironmentOnDisk>,
}

/// What an environment has of the disk.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct EnvironmentOnDisk {
    /// The environment's id, which is its stream's name.
    pub environment: Arc<str>,
    /// Bytes that some destination of it has still to take.
    pub backlog_bytes: u64,
    /// What it is charged for: its backlog, and its part of what is kept because of it.
    pub held_bytes: u64,
    /// Bytes that came in an hour, on the average of the last day, or of what is known of it.
    pub bytes_per_hour: Option<f64>,
}

/// An environment's share of the disk.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct DiskShare {
    /// What it holds.
    pub held_bytes: u64,
    /// It holds more than its share: its posts are refused.
    pub refused: bool,
    /// Bytes that came in an hour, on the average of the last day. Absent while that is not known.
    pub bytes_per_hour: Option<f64>,
    /// So many hours can its destinations take nothing before it is refused, from when they are not behind. Absent while that is
    /// not known, and where nothing comes in.
    pub outage_hours: Option<f64>,
    /// The same if those of all environments take nothing.
    pub outage_hours_if_all: Option<f64>,
}

/// The shares of all environments, by their ids.
pub type DiskShares = BTreeMap<Arc<str>, DiskShare>;

/// The shares that follow from a reading.
#[must_use]
pub fn shares(reading: &DiskReading) -> DiskShares {
    let room = reading.short_at_bytes.saturating_sub(reading.ahead_bytes) as f64 / USED_FOR_NEEDED;
    let backlogs: u64 = reading.environments.iter().map(|environment| environment.backlog_bytes).sum();
    let come: f64 = reading.environments.iter().filter_map(|environment| environment.bytes_per_hour).sum();
    let hours = |room: f64, per_hour: f64| (per_hour >= 1.0).then(|| room.max(0.0) / per_hour);
    let share = |environment: &EnvironmentOnDisk| {
        let others = (backlogs - environment.backlog_bytes) as f64;
        let known = environment.bytes_per_hour;
        DiskShare {
            held_bytes: environment.held_bytes,
            refused: reading.share_bytes.is_some_and(|share| environment.held_bytes > share),
            bytes_per_hour: known,
            outage_hours: known.and_then(|per_hour| hours(room - others, per_hour)),
            outage_hours_if_all: known.filter(|per_hour| *per_hour >= 1.0).and_then(|_| hours(room, come)),
        }
    };
    reading.environments.iter().map(|one| (Arc::clone(&one.environment), share(one))).collect()
}

/// Bytes that a queue accepted in an hour, on the average of the last day or of what is known of it. `None` while too little is.
#[must_use]
pub fn bytes_per_hour(hourly: &Hourly, now_ms: u64) -> Option<f64> {
    let from_ms = hourly.known_from_ms.max(now_ms.saturating_sub(DAY_MS));
    let known_ms = now_ms.checked_sub(from_ms).filter(|known| *known >= KNOWN_MS_MIN)?;
    // A span that begins before is known as a whole only: it counts for the part that lies behind.
    let counted = hourly.hours.iter().map(|hour| {
        let (span, within) = (hour.to_ms - hour.from_ms, hour.to_ms.saturating_sub(hour.from_ms.max(from_ms)));
        hour.balance.accepted.bytes as f64 * within as f64 / span.max(1) as f64
    });
    Some(counted.sum::<f64>() * HOUR_MS as f64 / known_ms as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use forebay::{Balance, Count, Hour};

    fn environment(id: &str, backlog_bytes: u64, bytes_per_hour: Option<f64>) -> EnvironmentOnDisk {
        let held_bytes = backlog_bytes + 100;
        EnvironmentOnDisk { environment: id.into(), backlog_bytes, held_bytes, bytes_per_hour }
    }

    fn reading(environments: Vec<EnvironmentOnDisk>) -> DiskReading {
        DiskReading { short_at_bytes: 1_500_000, ahead_bytes: 250_000, share_bytes: None, environments }
    }

    #[test]
    fn an_environment_may_hold_what_the_others_do_not_need() {
        let shares =
            shares(&reading(vec![environment("a", 0, Some(10_000.0)), environment("b", 400_000, Some(30_000.0))]));
        // Of a million that may be needed, four fifths of what lies there.
        assert_eq!(shares["a"].outage_hours, Some(60.0));
        assert_eq!(shares["b"].outage_hours, Some(1_000_000.0 / 30_000.0), "its own backlog is a part of its share");
        assert_eq!(shares["a"].outage_hours_if_all, Some(25.0));
        assert_eq!(shares["b"].outage_hours_if_all, Some(25.0));
        assert!(!shares["a"].refused && !shares["b"].refused);
    }

    #[test]
    fn whoever_holds_more_than_its_share_is_refused_and_a_full_disk_holds_no_outage() {
        let all = vec![environment("a", 10, Some(10_000.0)), environment("b", 2_000_000, Some(30_000.0))];
        let shares = shares(&DiskReading { share_bytes: Some(1_000_000), ..reading(all) });
        assert!(!shares["a"].refused && shares["b"].refused);
        assert_eq!(shares["a"].outage_hours, Some(0.0));
    }

    #[test]
    fn where_nothing_is_known_or_comes_nothing_is_said() {
        let shares = shares(&reading(vec![environment("a", 0, None), environment("b", 0, Some(0.0))]));
        for id in ["a", "b"] {
            assert_eq!((shares[id].outage_hours, shares[id].outage_hours_if_all), (None, None), "{id}");
        }
    }

    fn hour(from_ms: u64, to_ms: u64, bytes: u64) -> Hour {
        Hour { from_ms, to_ms, balance: Balance { accepted: Count { records: 1, bytes }, ..Balance::default() } }
    }

    #[test]
    fn the_rate_is_that_of_the_last_day_or_of_what_is_known_of_it() {
        let hours: Vec<Hour> =
            (0..48).map(|n| hour(n * HOUR_MS, (n + 1) * HOUR_MS, if n < 24 { 900 } else { 100 })).collect();
        let hourly = Hourly { known_from_ms: 0, hours };
        assert_eq!(bytes_per_hour(&hourly, 48 * HOUR_MS), Some(100.0));
        let half_of_the_first =
            Hourly { known_from_ms: 0, hours: vec![hour(0, HOUR_MS, 240), hour(HOUR_MS, 2 * HOUR_MS, 360)] };
        assert_eq!(bytes_per_hour(&half_of_the_first, 24 * HOUR_MS + HOUR_MS / 2), Some((120.0 + 360.0) / 24.0));
        let short = Hourly { known_from_ms: 0, hours: vec![hour(0, HOUR_MS / 2, 50)] };
        assert_eq!(bytes_per_hour(&short, HOUR_MS / 2), Some(100.0));
        assert_eq!(bytes_per_hour(&short, KNOWN_MS_MIN - 1), None);
        let quiet = Hourly { known_from_ms: 0, hours: Vec::new() };
        assert_eq!(bytes_per_hour(&quiet, 5 * HOUR_MS), Some(0.0));
    }
}
