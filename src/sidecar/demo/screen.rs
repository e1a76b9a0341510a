//! What the demo shows while it runs: a picture that is drawn again and again on a terminal, lines anywhere else. Pure.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use super::receiver::RETRY_AFTER_SECONDS;
use super::sdk;
use crate::console::lag_table::{self, Snapshot};
use crate::console::{CLEAR, units};
use crate::proto::v1::Lag;
use crate::proto::v1::forecast::Outcome;

/// The widest curve: fits beside a name on a terminal of 80 columns.
const CURVE_CHARS_MAX: usize = 60;

const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// What happens at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Act {
    /// All is well.
    Calm,
    /// The webhook takes nothing, for so long yet.
    Throttled(Duration),
    /// It would take again, and is asked when the wait that it named is over.
    Awaited(Duration),
    /// It takes again, and the SDKs still send.
    Recovered,
    /// The SDKs are done.
    Draining,
}

/// One moment of the demo.
pub(super) struct View<'a> {
    /// Since its start.
    pub(super) elapsed: Duration,
    /// What happens.
    pub(super) act: Act,
    /// Where SDKs post.
    pub(super) ingest: SocketAddr,
    /// Impressions in posts that were answered.
    pub(super) acknowledged: u64,
    /// Both queues.
    pub(super) snapshot: &'a Snapshot,
    /// How far they were behind.
    pub(super) history: &'a History,
}

/// How far each destination was behind, look by look.
#[derive(Debug, Default)]
pub(super) struct History {
    behind: BTreeMap<String, Vec<u64>>,
}

impl History {
    pub(super) fn note(&mut self, lags: &[Lag]) {
        for lag in lags {
            self.behind.entry(lag.destination.clone()).or_default().push(lag.records_behind);
        }
    }

    /// One curve a destination, all on the scale of the most that any was behind.
    pub(super) fn curves(&self) -> String {
        let width = self.behind.keys().map(|name| name.chars().count()).max().unwrap_or(0);
        let peak = self.behind.values().flatten().copied().max().unwrap_or(0);
        let mut text = format!("\nrecords behind, from the start (the tallest bar is {})\n", units::count(peak));
        for (name, behind) in &self.behind {
            // Writing to a String cannot fail, here and below.
            let _ = writeln!(text, "{name:<width$}  {}", curve(behind, peak));
        }
        text
    }
}

/// The words before the first look.
pub(super) fn opening(seconds: u64) -> String {
    format!(
        "Forebay demo: {} simulated SDKs post {} impressions a second for {seconds} s to a real sidecar with two\n\
         destinations, a file and a webhook. For a while the webhook throttles. Watch where the records wait.\n\n",
        sdk::APPLICATIONS.len(),
        units::count(sdk::RECORDS_PER_SECOND),
    )
}

/// The moment as a picture that replaces the one before.
pub(super) fn picture(view: &View<'_>, seconds: u64) -> String {
    let mut text = format!("{CLEAR}{}", opening(seconds));
    let _ = writeln!(
        text,
        "{:>5.1} s  {} impressions acknowledged on http://{}, each on disk before the answer",
        view.elapsed.as_secs_f64(),
        units::count(view.acknowledged),
        view.ingest,
    );
    let _ = writeln!(text, "         {}\n", words(view.act));
    text.push_str(&lag_table::text(view.snapshot));
    text.push_str(&view.history.curves());
    text
}

/// What has just begun, as a line.
pub(super) fn headline(act: Act) -> String {
    format!("-- {}\n", words(act))
}

/// The moment as a line.
pub(super) fn line(view: &View<'_>) -> String {
    let mut text =
        format!("{:>5.1} s  {:>7} acknowledged", view.elapsed.as_secs_f64(), units::count(view.acknowledged));
    for lag in &view.snapshot.lags {
        let _ = write!(text, " | {} {} behind", lag.destination, units::count(lag.records_behind));
        if lag.records_behind > 0 {
            let _ = write!(text, " ({})", particulars(lag).join(", "));
        }
    }
    text.push('\n');
    text
}

fn particulars(lag: &Lag) -> Vec<String> {
    let mut parts = vec![units::bytes(lag.bytes_behind)];
    parts.extend(lag.oldest_age_ms.map(|age_ms| format!("{} old", units::duration(Duration::from_millis(age_ms)))));
    parts.extend(lag.delivered_per_second.map(units::rate));
    match lag.forecast.and_then(|forecast| forecast.outcome) {
        Some(Outcome::DrainsInSeconds(seconds)) => {
            let time = Duration::try_from_secs_f64(seconds).map_or_else(|_| units::UNKNOWN.to_owned(), units::duration);
            parts.push(format!("drains in {time}"));
        }
        Some(Outcome::KeepsUp(_)) => parts.push("keeps up".to_owned()),
        Some(Outcome::NeverAtThisRate(_)) => parts.push("grows for now".to_owned()),
        None => {}
    }
    parts
}

fn words(act: Act) -> String {
    match act {
        Act::Calm => "the webhook takes everything".to_owned(),
        Act::Throttled(left) => format!(
            "the webhook answers 429, Retry-After: {RETRY_AFTER_SECONDS} (for {:.1} s more); the file does not wait for it",
            left.as_secs_f64()
        ),
        Act::Awaited(wait) => format!(
            "the webhook would take again; it is asked once Retry-After and backoff are over (in {:.1} s)",
            wait.as_secs_f64()
        ),
        Act::Recovered => "the webhook takes again: the backlog drains, oldest first".to_owned(),
        Act::Draining => "the SDKs are done; what is left is delivered".to_owned(),
    }
}

/// Values as bars. Where there are more values than columns the tallest of its neighbours stands for them all.
fn curve(values: &[u64], peak: u64) -> String {
    let per_bar = values.len().div_ceil(CURVE_CHARS_MAX).max(1);
    let bar = |values: &[u64]| {
        let value = values.iter().copied().max().unwrap_or(0);
        // Up to the peak, which is at least 1 here, so the place is at most the last bar's.
        let place = (value.saturating_mul(BARS.len() as u64 - 1)).div_ceil(peak.max(1));
        BARS[usize::try_from(place).map_or(0, |place| place.min(BARS.len() - 1))]
    };
    values.chunks(per_bar).map(bar).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::v1::{DeliveryState, Forecast};

    fn lags() -> Vec<Lag> {
        let lag = |destination: &str, state: DeliveryState| Lag {
            destination: destination.to_owned(),
            stream: "demo".to_owned(),
            state: state.into(),
            ..Lag::default()
        };
        let hook = Lag {
            records_behind: 14_000,
            bytes_behind: 1 << 20,
            oldest_age_ms: Some(3_500),
            delivered_per_second: Some(9_000.0),
            forecast: Some(Forecast { outcome: Some(Outcome::DrainsInSeconds(2.8)) }),
            ..lag("webhook", DeliveryState::Delivering)
        };
        vec![lag("file", DeliveryState::Idle), hook]
    }

    fn shown(act: Act, show: impl Fn(&View<'_>) -> String) -> String {
        let mut history = History::default();
        for records in [0, 7_000, 14_000] {
            let lags: Vec<Lag> = lags().into_iter().map(|lag| Lag { records_behind: records, ..lag }).collect();
            history.note(&lags[1..]);
        }
        show(&View {
            elapsed: Duration::from_millis(7_500),
            act,
            ingest: "127.0.0.1:8080".parse().unwrap(),
            acknowledged: 30_000,
            snapshot: &Snapshot { lags: lags(), omitted: 0, read_at_unix_ms: 0 },
            history: &history,
        })
    }

    #[test]
    fn a_line_says_how_far_each_is_behind_and_where_that_leads() {
        assert_eq!(
            shown(Act::Recovered, line),
            "  7.5 s   30,000 acknowledged | file 0 behind | webhook 14,000 behind (1.0 MiB, 3.5s old, 9,000/s, drains in 2.8s)\n"
        );
        let headline = headline(Act::Awaited(Duration::from_millis(1_240)));
        assert!(headline.starts_with("-- the webhook would") && headline.ends_with("(in 1.2 s)\n"), "{headline}");
    }

    #[test]
    fn a_picture_replaces_the_one_before_and_has_table_and_curves() {
        let picture = shown(Act::Throttled(Duration::from_millis(4_500)), |view| picture(view, 20));
        assert!(picture.starts_with(CLEAR));
        for part in ["DESTINATION", "30,000 impressions", "429, Retry-After: 2 (for 4.5 s more)", "webhook  ▁▅█\n"]
        {
            assert!(picture.contains(part), "{part}: {picture}");
        }
    }

    #[test]
    fn a_long_curve_fits_and_keeps_its_peak() {
        let values: Vec<u64> = (0..1_000).map(|n| u64::from(n == 500) * 10).collect();
        let text = curve(&values, 10);
        assert!(text.chars().count() <= CURVE_CHARS_MAX);
        assert_eq!(text.matches('█').count(), 1);
        assert_eq!(curve(&[0, 1], 1_000), "▁▂", "a little is not nothing");
        assert_eq!((curve(&[0, 0], 0).as_str(), curve(&[], 0).as_str()), ("▁▁", ""));
        assert_eq!(curve(&[u64::MAX], u64::MAX).chars().count(), 1);
    }
}
