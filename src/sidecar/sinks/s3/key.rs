//! Names of objects: made of what never changes, so that every attempt at a batch has the same one and no two batches
//! share one. Pure.
//!
//! `<prefix><first offset>-<last offset>-<batch id>.<extension>`, before it `replay=<n>/` for what a replay sends once
//! more, offsets in 20 digits so that names sort by them. The
//! batch's id holds log, incarnation, stream, range and destination.

use std::ops::Range;

use crate::config::{LinesCompression, ParquetCompression, S3Format, S3Layout};
use crate::delivery::sink::LargeJob;
use crate::sinks::rfc3339::Times;

/// The name of a job's object.
pub(super) fn key(layout: &S3Layout, job: &LargeJob) -> String {
    let (date, hour) = date_and_hour(job.received_ms);
    let mut key = replay_prefix(job);
    key.push_str(&layout.prefix.fill(&job.environment.id, &date, &hour));
    let Range { start, end } = job.origin.offsets;
    key.push_str(&format!("{start:020}-{:020}-{}.{}", end.saturating_sub(1), job.id, extension(layout.format)));
    key
}

/// What names of jobs of this kind begin with, whatever they hold.
pub(super) fn beginning(layout: &S3Layout, job: &LargeJob) -> String {
    replay_prefix(job) + layout.prefix.literal()
}

/// In front of all else: whoever reads the usual names does not see the same records twice.
fn replay_prefix(job: &LargeJob) -> String {
    job.replay.map_or_else(String::new, |number| format!("replay={number}/"))
}

/// The batch's id in a name of an object of ours; `None` if it is none.
pub(super) fn batch_id(key: &str) -> Option<&str> {
    let name = key.rsplit('/').next()?;
    let (stem, _) = name.split_once('.')?;
    let mut offsets = stem.splitn(3, '-');
    let is_offset = |text: &str| text.len() == 20 && text.bytes().all(|b| b.is_ascii_digit());
    (is_offset(offsets.next()?) && is_offset(offsets.next()?)).then_some(offsets.next()?)
}

/// Whose batch an id names: the digits of the log, and the destination. `None` if it is no batch's id.
///
/// 22 digits of the log, then four numbers, each behind a digit that tells its length, then the destination.
pub(super) fn owner(batch_id: &str) -> Option<(&str, &str)> {
    let (log, mut rest) = batch_id.split_at_checked(22)?;
    for _ in 0..4 {
        // The first digits of base64 are letters: no number here has more than eleven.
        let digits = usize::from(rest.bytes().next()?.checked_sub(b'A').filter(|digits| *digits < 12)?);
        rest = rest.get(1 + digits..)?;
    }
    (!rest.is_empty()).then_some((log, rest))
}

/// What names of objects end in.
fn extension(format: S3Format) -> &'static str {
    match format {
        S3Format::JsonLines(LinesCompression::Zstd) => "jsonl.zst",
        S3Format::JsonLines(LinesCompression::Gzip) => "jsonl.gz",
        S3Format::JsonLines(LinesCompression::None) => "jsonl",
        S3Format::Parquet(ParquetCompression::Zstd) => "zstd.parquet",
        S3Format::Parquet(ParquetCompression::Snappy) => "snappy.parquet",
        S3Format::Parquet(ParquetCompression::None) => "parquet",
    }
}

/// The date and the hour of a moment, in UTC. A time that no calendar has counts as the first.
fn date_and_hour(ms: u64) -> (String, String) {
    let mut text = Vec::with_capacity(24);
    let mut times = Times::new();
    if !i64::try_from(ms).is_ok_and(|ms| times.write(ms, &mut text)) {
        times.write(0, &mut text);
    }
    let text = String::from_utf8(text).expect("times are written in ASCII");
    (text[..10].to_owned(), text[11..13].to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::S3Config;
    use crate::sinks::s3::sample::large;

    #[test]
    fn a_name_holds_partition_range_and_batch() {
        let config = S3Config::new("bucket");
        let job = LargeJob { received_ms: 1_767_254_400_123, ..large(7..25) };
        assert_eq!(
            key(&config.layout(), &job),
            "environment=acme-prod/date=2026-01-01/hour=08/\
             00000000000000000007-00000000000000000024-batch-7-25.jsonl.zst"
        );
        let again = LargeJob { replay: Some(3), ..job.clone() };
        assert_eq!(key(&config.layout(), &again), format!("replay=3/{}", key(&config.layout(), &job)));
        assert_eq!(beginning(&config.layout(), &again), "replay=3/environment=");
        let snappy = S3Layout { format: S3Format::Parquet(ParquetCompression::Snappy), ..config.layout() };
        assert!(key(&snappy, &job).ends_with("-batch-7-25.snappy.parquet"));
        assert_eq!(date_and_hour(u64::MAX), ("1970-01-01".to_owned(), "00".to_owned()));
    }

    #[test]
    fn a_batch_belongs_to_one_log_and_one_destination() {
        // The example of docs/format.md: incarnation 0, stream 3, records 1,000 to 1,500.
        let log = "A".repeat(22);
        let id = format!("{log}BABDCPoCH0acme-hook");
        assert_eq!(owner(&id), Some((log.as_str(), "acme-hook")));
        let bigger = format!("{log}BABDCPoCH0big-acme-hook");
        assert_eq!(owner(&bigger), Some((log.as_str(), "big-acme-hook")), "an end in common is no kinship");
        for other in ["", "batch-7-25", &id[..22], &id[..30], &format!("{log}zzz")] {
            assert_eq!(owner(other), None, "{other}");
        }
    }

    #[test]
    fn only_names_of_ours_have_a_batch() {
        let job = large(7..25);
        let config = S3Config::new("bucket");
        assert_eq!(batch_id(&key(&config.layout(), &job)), Some("batch-7-25"));
        for other in ["", "a/b", "a/00000000000000000007-1-x.jsonl", "00000000000000000007-00000000000000000024-x"] {
            assert_eq!(batch_id(other), None, "{other}");
        }
    }
}
