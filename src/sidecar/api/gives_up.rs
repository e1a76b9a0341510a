//! When the oldest record that waits is given up, if nothing changes: for its age, or since too much waits. Pure.

use super::forecast::DRAINS_IN_MAX_SECONDS;
use super::readings::QueueReading;

/// In milliseconds since 1970. `settled` and `arrived` are records a second; bytes go with the records that wait now.
pub(super) fn gives_up_at(
    queue: &QueueReading,
    settled: Option<f64>,
    arrived: Option<f64>,
    now_ms: u64,
) -> Option<u64> {
    let overflow = queue.overflow.filter(|_| queue.lag.records > 0)?;
    let too_much_at = overflow.bytes_left.and_then(|left| {
        let bytes_a_record = queue.lag.bytes as f64 / queue.lag.records as f64;
        let grows = (arrived? - settled?) * bytes_a_record;
        let in_ms = left as f64 / grows * 1_000.0;
        // Not a number where nothing is left and nothing comes: then it is now, or was.
        (grows > 0.0 && in_ms <= DRAINS_IN_MAX_SECONDS * 1_000.0).then(|| now_ms.saturating_add(in_ms as u64))
    });
    [overflow.too_old_at_unix_ms, too_much_at].into_iter().flatten().min()
}

#[cfg(test)]
mod tests {
    use super::super::readings::OverflowReading;
    use super::*;

    fn queue(too_old_at_unix_ms: Option<u64>, bytes_left: Option<u64>) -> QueueReading {
        QueueReading {
            lag: forebay::Lag { records: 1_000, bytes: 100_000, ..forebay::Lag::default() },
            overflow: Some(OverflowReading { too_old_at_unix_ms, bytes_left }),
            ..QueueReading::default()
        }
    }

    #[test]
    fn it_is_the_earlier_of_too_old_and_too_much() {
        // Ten records a second more, of a hundred bytes: a megabyte in a thousand seconds.
        let at = |queue: &QueueReading, arrived| gives_up_at(queue, Some(5.0), Some(arrived), 1_000_000);
        assert_eq!(at(&queue(Some(7_000_000), Some(1_000_000)), 15.0), Some(2_000_000));
        assert_eq!(at(&queue(Some(1_500_000), Some(1_000_000)), 15.0), Some(1_500_000));
        assert_eq!(at(&queue(None, Some(1_000_000)), 15.0), Some(2_000_000));
        assert_eq!(at(&queue(None, Some(1_000_000)), 5.0), None, "it does not grow");
        assert_eq!(at(&queue(None, Some(u64::MAX)), 5.000_001), None, "no century is foreseen");
        assert_eq!(at(&queue(Some(7), None), 5.0), Some(7));
    }

    #[test]
    fn nothing_is_foreseen_where_nothing_waits_nobody_has_said_so_or_no_rate_is_known() {
        let waiting = queue(Some(7), Some(1));
        let nothing = QueueReading { lag: forebay::Lag::default(), ..waiting.clone() };
        assert_eq!(gives_up_at(&nothing, Some(1.0), Some(2.0), 0), None);
        assert_eq!(gives_up_at(&QueueReading { overflow: None, ..waiting.clone() }, Some(1.0), Some(2.0), 0), None);
        assert_eq!(gives_up_at(&waiting, None, None, 0), Some(7), "its age needs no rate");
    }
}
