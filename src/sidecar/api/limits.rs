//! Every limit of the API, with its reason.
//!
//! The API serves a handful of operators and scrapers. Its limits keep one that went wild from costing ingest and
//! delivery anything that is felt.

use std::time::Duration;

/// Connections to one listener at a time; more wait in the kernel. A dashboard opens one, a person one or two.
pub(super) const CONNECTIONS_MAX: usize = 64;

/// Calls in flight on one connection: as many as any client library opens by itself.
pub(super) const STREAMS_PER_CONNECTION_MAX: u32 = 32;

/// Who may watch at a time, on all connections. At the shortest interval and the largest snapshot they encode 160,000 lags a
/// second, a fraction of one core; a dozen dashboards are far below that.
pub(super) const WATCHERS_MAX: usize = 16;

/// A request names two ids and a token: this is a hundred times what one needs.
pub(super) const REQUEST_BYTES_MAX: usize = 16 * 1024;

/// A full page of lags is below a megabyte; clients refuse more than 4 MiB by default.
pub(super) const RESPONSE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Calls of one service that go through all queues or wait for the disk at a time: more would only share the processors and
/// the disk with deliveries.
pub(super) const LOOKS_MAX: usize = 2;

/// Headers of a request.
pub(super) const HEADER_BYTES_MAX: u32 = 16 * 1024;

/// From a request to its answer's first byte. Reading all queues takes milliseconds; what takes longer hangs.
pub(super) const CALL_TIME_MAX: Duration = Duration::from_secs(10);

/// The same over gRPC, where a change waits for what is in flight to a destination (`shutdown_grace`, 20 s by default),
/// and for the change before it. A change that takes longer goes on: the answer is what is lost. Shorter than our own
/// command line waits, which is to hear of it.
pub(super) const CHANGE_TIME_MAX: Duration = Duration::from_secs(50);

/// Changes that were asked for and are not made, whether anybody waits for them still or not. They are made one at a time.
pub(super) const CHANGES_MAX: usize = 64;

/// A peer that has said nothing for this long is asked whether it is there,
pub(super) const KEEPALIVE_AFTER: Duration = Duration::from_secs(30);

/// and given up when it does not answer within this.
pub(super) const KEEPALIVE_TIME_MAX: Duration = Duration::from_secs(10);

/// What is under way at shutdown may take this long to end; streams end at once.
pub(super) const SHUTDOWN_GRACE: Duration = Duration::from_secs(2);

/// Lags on a page or in a message, unless asked otherwise, and at most.
pub(super) const LAGS_DEFAULT: u32 = 100;
/// See [`LAGS_DEFAULT`].
pub(super) const LAGS_MAX: u32 = 1_000;

/// So many of what is listed come on a page, of the number that was asked for.
pub(super) fn page(asked: u32) -> usize {
    let most = if asked == 0 { LAGS_DEFAULT } else { asked.min(LAGS_MAX) };
    usize::try_from(most).expect("a thousand fits")
}

/// A request with settings: those of a destination with certificates, and room for what is refused with a reason.
pub(super) const SETTINGS_REQUEST_BYTES_MAX: usize = 128 * 1024;

/// Dead letters on a page unless asked otherwise, and at most; ids of a filter at most. The reason and the excerpt of
/// each are a few kilobytes at worst.
pub(super) const LETTERS_DEFAULT: u32 = 100;
/// See [`LETTERS_DEFAULT`].
pub(super) const LETTERS_MAX: u32 = 200;

/// Time between two messages of a watch, unless asked otherwise. The bounds: faster than the lag is read shows nothing new,
/// slower than a minute is a poll.
pub(super) const WATCH_INTERVAL_DEFAULT: Duration = Duration::from_secs(1);
/// See [`WATCH_INTERVAL_DEFAULT`].
pub(super) const WATCH_INTERVAL_MIN: Duration = Duration::from_millis(100);
/// See [`WATCH_INTERVAL_DEFAULT`].
pub(super) const WATCH_INTERVAL_MAX: Duration = Duration::from_secs(60);

/// How often the rates are fed and the health is looked at: an operator who comes finds both known.
pub(super) const SAMPLE_EVERY: Duration = Duration::from_secs(1);

/// From the connection to a request's last header byte. A peer that dribbles holds a connection no longer.
pub(super) const HTTP_HEADER_TIME_MAX: Duration = Duration::from_secs(10);

/// A connection is asked to close after this, whatever it does: a peer that never reads its answer must end as well. Scrapers
/// connect again by themselves.
pub(super) const HTTP_CONNECTION_TIME_MAX: Duration = Duration::from_secs(120);

/// Scrapes rendered at a time: each may hold megabytes of text when destinations are many.
pub(super) const SCRAPES_MAX: usize = 2;
