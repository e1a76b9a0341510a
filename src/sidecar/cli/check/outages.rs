//! How long an outage of its destinations each environment's share of the disk holds, as the sidecar that runs says it.
//!
//! A file says nothing of what comes in, so this is asked of the sidecar where the file says that it listens. Where none answers there is
//! nothing to say: a file can be checked anywhere.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use crate::cli::{client, lag};
use crate::config::Listen;
use crate::console::units;
use crate::proto::v1::DiskShare;
use crate::proto::v1::cursors_client::CursorsClient;

/// A sidecar beside whoever asks answers in a millisecond; a check must not wait for one that is not there.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(2);

/// Most lines: those that hold the shortest outage come first.
const LINES_MAX: usize = 20;

/// The lines, or none where no sidecar answers.
pub(super) fn of_the_sidecar_at(address: &Listen) -> String {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return String::new() };
    let asked = runtime.block_on(async { tokio::time::timeout(ANSWER_TIME_MAX, shares(address)).await });
    asked.ok().flatten().map_or_else(String::new, |shares| text(address, &shares))
}

/// The shares by environment; nothing where there is no answer.
async fn shares(address: &Listen) -> Option<BTreeMap<String, DiskShare>> {
    let mut cursors = CursorsClient::new(client::connect(address).await.ok()?);
    let (lags, _) = lag::pages(&mut cursors, "").await.ok()?;
    Some(lags.into_iter().filter_map(|lag| Some((lag.stream, lag.disk?))).collect())
}

fn text(address: &Listen, shares: &BTreeMap<String, DiskShare>) -> String {
    if shares.is_empty() {
        return String::new();
    }
    let mut text = format!("the sidecar at {address} says how long the disk holds what comes in if nobody takes it:\n");
    let mut shortest: Vec<_> = shares.iter().collect();
    let hours = |share: &DiskShare| share.outage_hours.unwrap_or(f64::INFINITY);
    shortest.sort_by(|(_, a), (_, b)| hours(a).total_cmp(&hours(b)));
    let omitted = shortest.len().saturating_sub(LINES_MAX);
    for (environment, share) in shortest.into_iter().take(LINES_MAX) {
        let DiskShare { refused, bytes_per_hour, outage_hours, outage_hours_if_all, .. } = *share;
        let said = match (bytes_per_hour, outage_hours, outage_hours_if_all) {
            (Some(rate), Some(one), Some(all)) => format!(
                "{} an hour on the last day; {} if its own destinations take nothing, {} if none of anybody's do",
                // The cast saturates.
                units::bytes(rate as u64),
                units::hours(one),
                units::hours(all),
            ),
            (Some(_), ..) => "nothing came in on the last day".to_owned(),
            _ => "not known yet: ask again when it has run for ten minutes".to_owned(),
        };
        let refused = if refused { "; it is refused now: it holds more than its share of a short disk" } else { "" };
        // Writing to a String cannot fail, here and below.
        let _ = writeln!(text, "  {environment}: {said}{refused}");
    }
    if omitted > 0 {
        let _ = writeln!(text, "  and {omitted} more, for longer or not known");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_can_wait_least_comes_first_and_what_is_not_known_is_not_made_up() {
        let share = |bytes_per_hour, outage_hours| DiskShare {
            bytes_per_hour,
            outage_hours,
            outage_hours_if_all: outage_hours.map(|hours: f64| hours / 4.0),
            ..DiskShare::default()
        };
        let shares = BTreeMap::from([
            ("acme-prod".to_owned(), share(Some(1_073_741_824.0), Some(38.0))),
            ("new".to_owned(), share(None, None)),
            ("quiet".to_owned(), share(Some(0.0), None)),
            ("umbrella".to_owned(), DiskShare { refused: true, ..share(Some(1024.0), Some(2.0)) }),
        ]);
        let address: Listen = "127.0.0.1:4711".parse().unwrap();
        assert_eq!(
            text(&address, &shares),
            "\
the sidecar at 127.0.0.1:4711 says how long the disk holds what comes in if nobody takes it:
  umbrella: 1.0 KiB an hour on the last day; 2h 00m if its own destinations take nothing, 30m 00s if none of anybody's do; it is refused now: it holds more than its share of a short disk
  acme-prod: 1.0 GiB an hour on the last day; 1d 14h if its own destinations take nothing, 9h 30m if none of anybody's do
  new: not known yet: ask again when it has run for ten minutes
  quiet: nothing came in on the last day
"
        );
        assert_eq!(text(&address, &BTreeMap::new()), "");
    }

    #[test]
    fn where_no_sidecar_answers_nothing_is_said() {
        let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = nobody.local_addr().unwrap().to_string().parse().unwrap();
        drop(nobody);
        assert_eq!(of_the_sidecar_at(&address), "");
    }
}
