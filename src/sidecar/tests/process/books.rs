//! Where the queues stand and what became of their records, as the operators' commands tell it.
//!
//! What always holds: whoever asks has the balance equation checked, of every queue, in total and by the hour, and of every
//! destination.

use std::collections::BTreeMap;

use serde_json::Value;

use super::sidecar::{PATIENCE, Sidecar, wait_for};

/// What records of a balance may have become, beside delivered.
const OTHERWISE: [&str; 5] = ["dead_lettered", "filtered", "expired", "purged", "lost"];

/// Where one destination stands with a stream, by `forebay lag --json`.
#[derive(Debug, Clone)]
pub(crate) struct Lag {
    pub(crate) destination: String,
    pub(crate) records_behind: u64,
    pub(crate) in_flight: u64,
    pub(crate) accepted: u64,
    pub(crate) delivered: u64,
    /// Dead-lettered, filtered, expired, purged and lost. What is held counts where it is held, in the other fields.
    pub(crate) otherwise: u64,
}

/// Every balance, by `forebay balance --json`. Each closes.
#[derive(Debug)]
pub(crate) struct Books {
    /// By destination: its queues and letters added up.
    pub(crate) destinations: BTreeMap<String, Balance>,
    /// By destination and stream.
    pub(crate) queues: BTreeMap<(String, String), Balance>,
    /// Of replays that are over, by destination: how many, and the records that they delivered.
    pub(crate) replayed: BTreeMap<String, (u64, u64)>,
}

/// One balance, in records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Balance {
    pub(crate) accepted: u64,
    pub(crate) delivered: u64,
    pub(crate) pending: u64,
    pub(crate) dead_lettered: u64,
    pub(crate) held: u64,
    /// Filtered, expired, purged and lost.
    pub(crate) gone: u64,
}

impl Balance {
    /// All of so many records were delivered.
    pub(crate) fn all_delivered(records: u64) -> Self {
        Self { accepted: records, delivered: records, ..Self::default() }
    }

    /// Of a balance as it is told, which closes in records and in bytes.
    fn of(told: &Value, place: &str) -> Self {
        let number = |name: &str, unit: &str| {
            told[name][unit].as_u64().unwrap_or_else(|| panic!("{place}: no {unit} of {name} in {told}"))
        };
        let settled = ["delivered", "held"].iter().chain(&OTHERWISE);
        for unit in ["records", "bytes"] {
            let sum: u64 = settled.clone().chain(&["pending"]).map(|name| number(name, unit)).sum();
            assert_eq!(number("accepted", unit), sum, "{place} does not close in {unit}: {told}");
        }
        let records = |name| number(name, "records");
        Self {
            accepted: records("accepted"),
            delivered: records("delivered"),
            pending: records("pending"),
            dead_lettered: records("dead_lettered"),
            held: records("held"),
            gone: OTHERWISE[1..].iter().map(|name| records(name)).sum(),
        }
    }
}

impl Books {
    /// What a destination's own streams gave it, whatever became of it.
    fn given(&self, destination: &str) -> u64 {
        let own = self.queues.iter().filter(|((of, stream), _)| of == destination && !stream.starts_with('!'));
        own.map(|(_, balance)| balance.accepted).sum()
    }

    /// While nothing moves, each record that a destination was given stands in its sheet once.
    fn agree(&self) {
        for (destination, sheet) in &self.destinations {
            // A record that a replay made a letter of is there once more.
            let replayed = self.replayed.contains_key(destination)
                || self.queues.keys().any(|(queue, _)| queue.starts_with(&format!("{destination}!replay-")));
            if !replayed {
                assert_eq!(sheet.accepted, self.given(destination), "the sheet of {destination}: {self:?}");
            }
        }
    }
}

/// A queue hour by hour: one behind the other, what was pending before and came, less what went, is pending at the end of
/// each, and all of them together are no more than the total.
fn hours_follow(queue: &Value) {
    let hours = queue["hours"].as_array().unwrap_or_else(|| panic!("no hours in {queue}"));
    let (mut end, mut before, mut came) = (&queue["hours_known_from_unix_ms"], None, 0);
    for hour in hours {
        let records = |name: &str| hour["balance"][name]["records"].as_u64().expect("a number");
        let (from, to) = (&hour["from_unix_ms"], &hour["to_unix_ms"]);
        assert!(end.as_u64() <= from.as_u64() && from.as_u64() <= to.as_u64(), "{queue}");
        end = to;
        let went: u64 = ["delivered", "held"].iter().chain(&OTHERWISE).map(|name| records(name)).sum();
        let pending = records("pending");
        if let Some(before) = before {
            assert_eq!(before + records("accepted"), went + pending, "an hour does not close: {queue}");
        }
        before = Some(pending);
        came += records("accepted");
    }
    assert!(came <= queue["total"]["accepted"]["records"].as_u64().expect("a number"), "{queue}");
}

impl Sidecar<'_> {
    /// Every balance, as it is now.
    pub(crate) fn books(&self) -> Books {
        let told = self.asked(&["balance"]);
        let list = |name: &str| told[name].as_array().unwrap_or_else(|| panic!("no {name} in {told}"));
        let text = |value: &Value| value.as_str().expect("a name").to_owned();
        let mut books = Books { destinations: BTreeMap::new(), queues: BTreeMap::new(), replayed: BTreeMap::new() };
        for sheet in list("destinations") {
            let destination = text(&sheet["destination"]);
            let balance = Balance::of(&sheet["total"], &destination);
            assert_eq!(balance.held, 0, "what is held is pending: {sheet}");
            books.destinations.insert(destination, balance);
        }
        for queue in list("balances") {
            let key = (text(&queue["destination"]), text(&queue["environment"]));
            let balance = Balance::of(&queue["total"], &format!("{key:?}"));
            hours_follow(queue);
            let number = |value: &Value| value.as_u64().expect("a number");
            let replayed = (number(&queue["replays"]), number(&queue["replayed"]["records"]));
            if replayed.0 > 0 {
                let sum = books.replayed.entry(key.0.clone()).or_default();
                *sum = (sum.0 + replayed.0, sum.1 + replayed.1);
            }
            books.queues.insert(key, balance);
        }
        books
    }

    /// Every destination and stream, by `forebay lag --json`.
    pub(crate) fn lags(&self) -> Vec<Lag> {
        self.snapshot().1
    }

    /// The same, and when they were read: the sidecar may show what it read a moment before.
    fn snapshot(&self) -> (u64, Vec<Lag>) {
        let snapshot = self.asked(&["lag"]);
        let number = |value: &Value| value.as_u64().unwrap_or_else(|| panic!("not a number in {snapshot}"));
        let lag = |lag: &Value| {
            let records = |name: &str| number(&lag["balance"][name]["records"]);
            let stream = lag["stream"].as_str().expect("a name").to_owned();
            let lag = Lag {
                destination: lag["destination"].as_str().expect("a name").to_owned(),
                records_behind: number(&lag["records_behind"]),
                in_flight: number(&lag["records_in_flight"]),
                accepted: records("accepted"),
                delivered: records("delivered"),
                otherwise: OTHERWISE.iter().map(|name| records(name)).sum(),
            };
            (stream, lag)
        };
        let rows = snapshot["lags"].as_array().expect("a list").iter().map(lag);
        let (held, rows): (Vec<_>, Vec<_>) = rows.partition(|(stream, _)| stream.starts_with("!held/"));
        let mut lags: Vec<Lag> = rows.into_iter().map(|(_, lag)| lag).collect();
        // What waits for a time of its own was accepted once, and is delivered or pending over there.
        for (_, held) in held {
            let Some(lag) = lags.iter_mut().find(|lag| lag.destination == held.destination) else { continue };
            lag.records_behind += held.records_behind;
            lag.in_flight += held.in_flight;
            lag.delivered += held.delivered;
            lag.otherwise += held.otherwise;
        }
        (number(&snapshot["read_at_unix_ms"]), lags)
    }

    /// Waits until `destinations` are behind by nothing, and returns where all stand then. Their books agree.
    pub(crate) fn drain(&self, destinations: &[&str]) -> Vec<Lag> {
        // What was read before now does not count.
        let (before, mut lags) = self.snapshot();
        // As long as it goes on: how much there is depends on how fast the machine took it.
        let mut left = u64::MAX;
        while !wait_for(|| {
            let (at, now) = self.snapshot();
            lags = now;
            at > before && destinations.iter().all(|id| is_drained(&lags, id))
        }) {
            let still = lags.iter().map(|lag| lag.records_behind).sum();
            assert!(still < left, "nothing drained for {PATIENCE:?}: {lags:?}; it said:\n{}", self.said());
            left = still;
        }
        if lags.iter().all(|lag| lag.records_behind == 0) {
            self.books().agree();
        }
        lags
    }
}

/// Whether there is such a destination, and none of its queues has anything left to do.
fn is_drained(lags: &[Lag], destination: &str) -> bool {
    let mut of = lags.iter().filter(|lag| lag.destination == destination).peekable();
    of.peek().is_some() && of.all(|lag| lag.records_behind == 0 && lag.in_flight == 0)
}
