//! The books at the end of the demo, and whether they balance. Pure.

use std::fmt::Write as _;

use super::archive::Archive;
use super::ledger::Audit;
use super::meter::records;
use super::receiver::Received;
use crate::console::{aligned, units};
use crate::proto::v1::{Balance, Lag};

/// All that the demo has seen when it is over.
pub(super) struct Books<'a> {
    /// Impressions in posts that were answered with 2xx.
    pub(super) acknowledged: u64,
    /// Impressions that were evaluated.
    pub(super) evaluated: u64,
    /// Posts that the SDKs had to send again.
    pub(super) refused: u64,
    /// The queues, as the API told them last.
    pub(super) lags: &'a [Lag],
    /// The webhook's side.
    pub(super) received: &'a Received,
    /// The files' side.
    pub(super) archive: &'a Archive,
}

/// The books in words, and whether all of them balance.
pub(super) fn report(books: &Books<'_>) -> (String, bool) {
    let mut text = String::from("\n");
    text.push_str(&balance_table(books.lags));
    text.push_str(
        "accepted = delivered + pending + held + dead-lettered + filtered + expired + purged + lost, at every moment\n\n",
    );
    let checks = [queues(books), webhook(books), files(books)];
    for (good, words) in &checks {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{}  {words}", if *good { "ok   " } else { "WRONG" });
    }
    let good = checks.iter().all(|(good, _)| *good);
    text.push_str(if good { GOOD } else { BAD });
    (text, good)
}

/// The last words when all is well.
pub(super) const GOOD: &str = "
The webhook's trouble was its own: late, never lost. Nothing was lost, nothing came twice.

Where to go next, from the root of the project:
  cargo test --workspace                    every promise, tested; crashes and failing disks included
  cp forebay.example.toml forebay.toml      a configuration to change, each setting explained
  cargo run --release -- check              every mistake in it at once
  cargo run --release -- run                the sidecar; point your SDK's events URL at its [ingest] address
  cargo run --release -- lag --watch        the table above, of your own destinations
";

const BAD: &str = "
Something does not add up. That is a bug: please report it with all of the above.
";

fn balance_table(lags: &[Lag]) -> String {
    let titles =
        ["DESTINATION", "ACCEPTED", "DELIVERED", "PENDING", "DEAD-LETTERED", "FILTERED", "EXPIRED", "PURGED", "LOST"];
    let mut rows = vec![titles.map(str::to_owned)];
    rows.extend(lags.iter().map(|lag| {
        let Balance { accepted, delivered, pending, dead_lettered, filtered, expired, purged, lost, .. } =
            lag.balance.unwrap_or_default();
        let counts = [accepted, delivered, pending, dead_lettered, filtered, expired, purged, lost];
        let [a, d, p, dl, f, e, pu, l] = counts.map(|count| units::count(records(count)));
        [lag.destination.clone(), a, d, p, dl, f, e, pu, l]
    }));
    aligned(&rows, [false, true, true, true, true, true, true, true, true])
}

/// Whether everything acknowledged is delivered, by the sidecar's own books.
fn queues(books: &Books<'_>) -> (bool, String) {
    let closed = |lag: &Lag| {
        let Some(balance) = lag.balance else { return false };
        let Balance { delivered, dead_lettered, filtered, expired, purged, lost, held, .. } = balance;
        let settled = [delivered, dead_lettered, filtered, expired, purged, lost, held];
        let settled: u64 = settled.into_iter().map(records).sum();
        let (accepted, pending) = (records(balance.accepted), records(balance.pending));
        let delivered = records(balance.delivered) == books.acknowledged;
        accepted == settled + pending && accepted == books.acknowledged && delivered
    };
    let good = books.lags.len() == 2 && books.lags.iter().all(closed) && books.acknowledged == books.evaluated;
    let mut words = format!(
        "all {} impressions were acknowledged, and each queue has delivered as many: 0 pending, 0 lost",
        units::count(books.evaluated)
    );
    if books.refused > 0 {
        let _ = write!(words, "; {} posts had to be sent again", units::count(books.refused));
    }
    let wrong = format!(
        "of {} impressions {} were acknowledged, and the queues' books above do not close at that",
        units::count(books.evaluated),
        units::count(books.acknowledged)
    );
    (good, if good { words } else { wrong })
}

fn webhook(books: &Books<'_>) -> (bool, String) {
    let received = books.received;
    let audit = received.ledger.audit(books.evaluated);
    let good = audit.is_exact() && received.unreadable == 0;
    let mut words = format!("the webhook got {} in {} batches", exactly(&audit), units::count(received.batches));
    let _ = write!(words, "; {} more it answered with 429, and got them again later", received.throttled);
    if received.repeats > 0 {
        let _ = write!(words, "; {} batches came again under their ids and were told by them", received.repeats);
    }
    if received.unreadable > 0 {
        let _ = write!(words, "; {} requests could not be read", received.unreadable);
    }
    (good, words)
}

fn files(books: &Books<'_>) -> (bool, String) {
    let archive = books.archive;
    let audit = archive.ledger.audit(books.evaluated);
    let good = audit.is_exact() && archive.bad_ids == 0;
    let mut words = format!(
        "the files hold {}, each under an id of its own ({} in {} of JSON lines)",
        exactly(&audit),
        units::bytes(archive.bytes),
        if archive.files == 1 { "1 file".to_owned() } else { format!("{} files", archive.files) },
    );
    if archive.bad_ids > 0 {
        let _ = write!(words, "; {} lines have no id or one that was there before", units::count(archive.bad_ids));
    }
    (good, words)
}

fn exactly(audit: &Audit) -> String {
    if audit.is_exact() {
        return "every one of them exactly once".to_owned();
    }
    let Audit { once, missing, repeated, strangers } = *audit;
    let [once, missing, repeated, strangers] = [once, missing, repeated, strangers].map(units::count);
    format!("{once} of them once, {repeated} more often, {missing} never, and {strangers} that nobody sent")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::v1::Count;

    fn lag(destination: &str, accepted: u64, delivered: u64, pending: u64) -> Lag {
        let count = |records| Some(Count { records, bytes: 0 });
        let balance = Balance {
            accepted: count(accepted),
            delivered: count(delivered),
            pending: count(pending),
            ..Balance::default()
        };
        Lag { destination: destination.to_owned(), balance: Some(balance), ..Lag::default() }
    }

    fn told(lags: &[Lag], webhook: &[u64], files: &[u64]) -> (String, bool) {
        let mut received = Received { batches: 2, throttled: 3, ..Received::default() };
        webhook.iter().for_each(|number| received.ledger.note(Some(*number)));
        let mut archive = Archive { files: 1, bytes: 2_048, ..Archive::default() };
        files.iter().for_each(|number| archive.ledger.note(Some(*number)));
        let (received, archive) = (&received, &archive);
        report(&Books { acknowledged: 3, evaluated: 3, refused: 0, lags, received, archive })
    }

    #[test]
    fn books_that_close_end_with_where_to_go_next() {
        let (text, good) = told(&[lag("file", 3, 3, 0), lag("webhook", 3, 3, 0)], &[0, 1, 2], &[2, 1, 0]);
        assert!(good && text.ends_with(GOOD), "{text}");
        assert_eq!(text.matches("\nok     ").count(), 3, "{text}");
        assert!(text.contains("the webhook got every one of them exactly once in 2 batches; 3 more"), "{text}");
        assert!(text.contains("(2.0 KiB in 1 file of JSON lines)"), "{text}");
    }

    #[test]
    fn each_thing_that_does_not_add_up_is_called_wrong() {
        let closed = [lag("file", 3, 3, 0), lag("webhook", 3, 3, 0)];
        type Case<'a> = (&'a [Lag], &'a [u64], &'a [u64], &'a str);
        let cases: [Case<'_>; 6] = [
            (&[lag("file", 3, 3, 0), lag("webhook", 3, 2, 1)], &[0, 1, 2], &[0, 1, 2], "books above do not close"),
            (&[lag("file", 3, 3, 0), lag("webhook", 4, 4, 0)], &[0, 1, 2], &[0, 1, 2], "books above do not close"),
            (&closed[..1], &[0, 1, 2], &[0, 1, 2], "books above do not close"),
            (&closed, &[0, 1], &[0, 1, 2], "2 of them once, 0 more often, 1 never"),
            (&closed, &[0, 1, 2], &[0, 1, 1, 2], "2 of them once, 1 more often, 0 never"),
            (&closed, &[0, 1, 2, 9], &[0, 1, 2], "and 1 that nobody sent"),
        ];
        for (lags, webhook, files, words) in cases {
            let (text, good) = told(lags, webhook, files);
            assert!(!good && text.contains("WRONG  ") && text.contains(words), "{words}: {text}");
            assert!(text.ends_with(BAD));
        }
    }
}
