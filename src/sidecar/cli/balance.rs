//! `forebay balance`: where every record went, as a table or as JSON.
//!
//! A client of `forebay.v1.Balances` and nothing more.

use std::io::{self, Write};

use serde_json::{Value, json};

use super::args::BalanceArgs;
use super::client::{CallError, connect, refused};
use super::lag::json::balance as balance_json;
use crate::config::Listen;
use crate::console::columns::aligned;
use crate::console::units::count;
use crate::proto::v1::balances_client::BalancesClient;
use crate::proto::v1::{Balance, Count, DestinationBalance, HourBalance, ListBalancesRequest, QueueBalance};

/// Milliseconds of a day.
const DAY_MS: u64 = 86_400_000;

/// Shows the balances on standard output.
///
/// # Errors
/// See [`CallError`]. A reader who has seen enough (`| head`) is no error.
pub fn run(args: &BalanceArgs, address: &Listen) -> Result<(), CallError> {
    super::client::block_on(async {
        let balances = Books::of(args, address).await?;
        if let Some(id) = args.destination.as_ref().filter(|_| balances.queues.is_empty()) {
            let message = format!("there is no destination {id:?}: `forebay balance` without --destination lists all");
            return Err(CallError::Refused { address: address.clone(), message });
        }
        let text = if args.json { format!("{}\n", balances.json()) } else { balances.table() };
        io::stdout().write_all(text.as_bytes()).map_err(CallError::Output)
    })
}

/// What the sidecar tells.
#[derive(Default)]
struct Books {
    queues: Vec<QueueBalance>,
    destinations: Vec<DestinationBalance>,
}

impl Books {
    /// Every page.
    async fn of(args: &BalanceArgs, address: &Listen) -> Result<Self, CallError> {
        let mut client = BalancesClient::new(connect(address).await?);
        let destination = args.destination.clone().unwrap_or_default();
        let mut asked = ListBalancesRequest { destination, with_hours: args.hours || args.json, ..Default::default() };
        let mut books = Self::default();
        loop {
            let page = client.list_balances(asked.clone()).await;
            let page = page.map_err(|status| refused(address, &status))?.into_inner();
            books.queues.extend(page.balances);
            books.destinations.extend(page.destinations);
            if page.next_page_token.is_empty() {
                return Ok(books);
            }
            asked.page_token = page.next_page_token;
        }
    }

    /// A destination of several queues has a line for all of them, above theirs.
    fn table(&self) -> String {
        let mut rows = vec![HEAD.map(str::to_owned)];
        for (at, queue) in self.queues.iter().enumerate() {
            let is_of = |name: &str| name == queue.destination;
            let first = at == 0 || !is_of(&self.queues[at - 1].destination);
            let several = self.queues.get(at + 1).is_some_and(|next| is_of(&next.destination));
            let sheet = self.destinations.iter().find(|sheet| is_of(&sheet.destination));
            if let Some(sheet) = sheet.filter(|_| first && several) {
                rows.push(row(&sheet.destination, "(all)", &sheet.total.unwrap_or_default(), String::new()));
            }
            let total = queue.total.unwrap_or_default();
            rows.push(row(&queue.destination, &queue.stream, &total, records(queue.replayed.as_ref())));
            rows.extend(hour_rows(queue, &total));
        }
        aligned(&rows, [false, false, true, true, true, true, true, true, true, true, true, true])
    }

    fn json(&self) -> Value {
        let sheet = |sheet: &DestinationBalance| json!({ "destination": sheet.destination, "total": sheet.total.as_ref().map(balance_json) });
        json!({
            "destinations": self.destinations.iter().map(sheet).collect::<Vec<_>>(),
            "balances": self.queues.iter().map(queue_json).collect::<Vec<_>>(),
        })
    }
}

const HEAD: [&str; 12] = [
    "DESTINATION",
    "ENVIRONMENT",
    "ACCEPTED",
    "DELIVERED",
    "PENDING",
    "DEAD",
    "HELD",
    "FILTERED",
    "EXPIRED",
    "PURGED",
    "LOST",
    "REPLAYED",
];

fn row(first: &str, second: &str, balance: &Balance, replayed: String) -> [String; 12] {
    let Balance { accepted, delivered, pending, dead_lettered, filtered, expired, purged, lost, held } = balance;
    let [accepted, delivered, pending, dead, held, filtered, expired, purged, lost] =
        [accepted, delivered, pending, dead_lettered, held, filtered, expired, purged, lost]
            .map(|count| records(count.as_ref()));
    let (first, second) = (first.to_owned(), second.to_owned());
    [first, second, accepted, delivered, pending, dead, held, filtered, expired, purged, lost, replayed]
}

fn records(of: Option<&Count>) -> String {
    count(of.map_or(0, |count| count.records))
}

/// The hours of a queue, in front of them what came before they are known, so that the rows add up to the total; where there are
/// none, that there are none.
fn hour_rows(queue: &QueueBalance, total: &Balance) -> Vec<[String; 12]> {
    let Some(known_from) = queue.hours_known_from_unix_ms.map(super::when::text) else { return Vec::new() };
    let mut rows = Vec::new();
    if let Some(before) = before_the_hours(total, &queue.hours) {
        rows.push(row("", &format!("before {known_from}"), &before, String::new()));
    }
    let hours = queue.hours.iter().map(|hour| row("", &span(hour), &hour.balance.unwrap_or_default(), String::new()));
    rows.extend(hours);
    if queue.hours.is_empty() {
        let mut nothing = [const { String::new() }; 12];
        nothing[1] = format!("nothing since {known_from}");
        rows.push(nothing);
    }
    rows
}

/// What is in the total and in no hour. What was pending when the hours begin was accepted before, and settled in one of them
/// perhaps.
fn before_the_hours(total: &Balance, hours: &[HourBalance]) -> Option<Balance> {
    let counts = |of: &Balance| {
        let Balance { accepted, delivered, pending: _, dead_lettered, filtered, expired, purged, lost, held } = *of;
        [accepted, delivered, dead_lettered, filtered, expired, purged, lost, held].map(Option::unwrap_or_default)
    };
    let mut left = counts(total);
    for hour in hours.iter().filter_map(|hour| hour.balance.as_ref()) {
        for (left, here) in left.iter_mut().zip(counts(hour)) {
            left.records = left.records.saturating_sub(here.records);
            left.bytes = left.bytes.saturating_sub(here.bytes);
        }
    }
    if left.iter().all(|count| count.records == 0) {
        return None;
    }
    let gone: u64 = left[1..].iter().map(|count| count.records).sum();
    let pending = Some(Count { records: left[0].records.saturating_sub(gone), bytes: 0 });
    let [accepted, delivered, dead_lettered, filtered, expired, purged, lost, held] = left.map(Some);
    Some(Balance { accepted, delivered, pending, dead_lettered, filtered, expired, purged, lost, held })
}

/// `2026-11-26 10:00-11:00`, UTC; the last of a day ends at 24:00.
fn span(hour: &HourBalance) -> String {
    let (from, to) = (super::when::text(hour.from_unix_ms), super::when::text(hour.to_unix_ms));
    let ends_at_midnight = hour.to_unix_ms.is_multiple_of(DAY_MS) && hour.to_unix_ms - hour.from_unix_ms <= DAY_MS;
    match (from.split_once(' '), to.split_once(' ')) {
        (Some((day, _)), Some((same, until))) if day == same => format!("{from}-{until}"),
        _ if ends_at_midnight => format!("{from}-24:00"),
        _ => format!("{from} - {to}"),
    }
}

fn queue_json(queue: &QueueBalance) -> Value {
    let hour = |hour: &HourBalance| {
        json!({
            "from_unix_ms": hour.from_unix_ms,
            "to_unix_ms": hour.to_unix_ms,
            "balance": hour.balance.as_ref().map(balance_json),
        })
    };
    json!({
        "destination": queue.destination,
        "environment": queue.stream,
        "total": queue.total.as_ref().map(balance_json),
        "replays": queue.replays,
        "replayed": queue.replayed.as_ref().map(|count| json!({ "records": count.records, "bytes": count.bytes })),
        "hours_known_from_unix_ms": queue.hours_known_from_unix_ms,
        "hours": queue.hours.iter().map(hour).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn balance(accepted: u64, pending: u64) -> Balance {
        let count = |records| Some(Count { records, bytes: records * 10 });
        Balance {
            accepted: count(accepted),
            delivered: count(accepted - pending),
            pending: count(pending),
            ..Default::default()
        }
    }

    fn queue() -> QueueBalance {
        let hour = |from_unix_ms, to_unix_ms| HourBalance { from_unix_ms, to_unix_ms, balance: Some(balance(5, 1)) };
        QueueBalance {
            destination: "hook".to_owned(),
            stream: "prod".to_owned(),
            total: Some(balance(1_234, 4)),
            replays: 1,
            replayed: Some(Count { records: 7, bytes: 70 }),
            hours_known_from_unix_ms: Some(0),
            hours: vec![hour(1_767_225_600_000, 1_767_229_200_000), hour(1_767_308_400_000, 1_767_315_600_000)],
        }
    }

    fn sheet() -> DestinationBalance {
        DestinationBalance { destination: "hook".to_owned(), total: Some(balance(1_240, 5)) }
    }

    #[test]
    fn a_destination_of_several_queues_has_a_line_for_all_of_them() {
        let stream = "!held/hook".to_owned();
        let letters = QueueBalance { stream, hours: Vec::new(), hours_known_from_unix_ms: None, ..queue() };
        let other = QueueBalance { destination: "other".to_owned(), ..letters.clone() };
        let text = Books { queues: vec![letters, queue(), other], destinations: vec![sheet()] }.table();
        let words: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().take(3).collect()).collect();
        let named = [["hook", "(all)", "1,240"], ["hook", "!held/hook", "1,234"], ["hook", "prod", "1,234"]];
        assert_eq!(words[1..4], named, "{text}");
        assert_eq!(words[words.len() - 1], ["other", "!held/hook", "1,234"]);
    }

    #[test]
    fn a_table_has_the_totals_and_under_them_the_hours() {
        let text = Books { queues: vec![queue()], destinations: vec![sheet()] }.table();
        let words: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(words[0], HEAD);
        assert_eq!(words[1], ["hook", "prod", "1,234", "1,230", "4", "0", "0", "0", "0", "0", "0", "7"]);
        assert_eq!(words[3][..4], ["2026-01-01", "00:00-01:00", "5", "4"]);
        assert!(text.contains("2026-01-01 23:00 - 2026-01-02 01:00"), "{text}");
    }

    /// Before: what had come before the hours were known was in no row, and a queue without an hour looked as though it had been
    /// asked for none.
    #[test]
    fn what_is_in_no_hour_is_said_and_so_is_a_queue_that_has_none() {
        let idle = QueueBalance { stream: "idle".to_owned(), total: Some(balance(0, 0)), hours: Vec::new(), ..queue() };
        let midnight = HourBalance { from_unix_ms: 86_220_000, to_unix_ms: 86_400_000, balance: Some(balance(5, 1)) };
        let late = QueueBalance {
            hours_known_from_unix_ms: Some(86_220_000),
            hours: vec![midnight],
            stream: "late".to_owned(),
            total: Some(balance(5, 1)),
            ..queue()
        };
        let unasked = QueueBalance { hours_known_from_unix_ms: None, ..idle.clone() };
        let text = Books { queues: vec![queue(), idle, late, unasked], destinations: Vec::new() }.table();
        let lines: Vec<&str> = text.lines().collect();
        let words = |line: usize| lines[line].split_whitespace().collect::<Vec<_>>();
        assert_eq!(words(2)[..6], ["before", "1970-01-01", "00:00", "1,224", "1,222", "2"], "{text}");
        assert_eq!(words(6), ["nothing", "since", "1970-01-01", "00:00"]);
        assert_eq!(words(8)[..4], ["1970-01-01", "23:57-24:00", "5", "4"], "the only hour, and nothing before it");
        assert_eq!(lines.len(), 10);
        let column = |line: usize| lines[line].find(" 1,2").expect("a number");
        assert_eq!(column(1), column(2), "in one column");
    }

    #[test]
    fn json_has_everything_that_the_api_tells() {
        let line = Books { queues: vec![queue()], destinations: vec![sheet()] }.json();
        assert_eq!(line["destinations"][0]["total"]["accepted"]["records"], 1_240);
        let read = &line["balances"][0];
        assert_eq!((&read["total"]["pending"]["records"], &read["replayed"]["bytes"]), (&json!(4), &json!(70)));
        assert_eq!(read["hours"][0]["balance"]["delivered"]["records"], 4);
    }
}
