//! The service `forebay.v1.Cursors`: the lag of one queue, of all, and as it changes.
//!
//! Only looks. A watch ends when its caller hangs up and when the sidecar stops; it holds one snapshot at most, so that a
//! caller who does not read costs the memory of one message.

use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc};
use tokio::time::{MissedTickBehavior, interval};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::lag::{Key, Lag, Reading};
use super::{Api, limits, messages};
use crate::proto::v1::cursors_server::Cursors;
use crate::proto::v1::{
    GetLagRequest, GetLagResponse, ListLagRequest, ListLagResponse, WatchLagRequest, WatchLagResponse,
};
use crate::shutdown::Shutdown;

/// The service.
pub(super) struct CursorsService {
    api: Api,
    shutdown: Shutdown,
    watchers: Arc<Semaphore>,
}

impl CursorsService {
    /// A service that ends its streams at `shutdown`.
    pub(super) fn new(api: Api, shutdown: Shutdown) -> Self {
        Self { api, shutdown, watchers: Arc::new(Semaphore::new(limits::WATCHERS_MAX)) }
    }

    async fn reading(&self) -> Result<Arc<Reading>, Status> {
        self.api.reading().await.map_err(|error| Status::internal(error.to_string()))
    }
}

#[tonic::async_trait]
impl Cursors for CursorsService {
    async fn get_lag(&self, request: Request<GetLagRequest>) -> Result<Response<GetLagResponse>, Status> {
        let GetLagRequest { destination, stream } = request.into_inner();
        if destination.is_empty() || stream.is_empty() {
            return Err(Status::invalid_argument("destination and stream are both needed"));
        }
        let reading = self.reading().await?;
        let key = (destination.into(), stream.into());
        match reading.lags.get(&key) {
            Some(lag) => Ok(Response::new(GetLagResponse {
                lag: Some(messages::lag(&key, lag, &reading.disk)),
                read_at_unix_ms: reading.at_unix_ms,
            })),
            None => {
                Err(Status::not_found("no destination of this name takes this stream: ListLag shows which there are"))
            }
        }
    }

    async fn list_lag(&self, request: Request<ListLagRequest>) -> Result<Response<ListLagResponse>, Status> {
        let request = request.into_inner();
        let after = match request.page_token.as_str() {
            "" => None,
            token => Some(key_of(token).ok_or_else(|| {
                Status::invalid_argument("page_token is not one that ListLag gave: leave it empty for the first page")
            })?),
        };
        let reading = self.reading().await?;
        Ok(Response::new(page(&reading, &request.destination, after, lags_max(request.page_size))))
    }

    type WatchLagStream = ReceiverStream<Result<WatchLagResponse, Status>>;

    async fn watch_lag(&self, request: Request<WatchLagRequest>) -> Result<Response<Self::WatchLagStream>, Status> {
        let WatchLagRequest { destination, interval_ms, lags_max: asked } = request.into_inner();
        let every = watch_interval(interval_ms)?;
        let most = lags_max(asked);
        let Ok(permit) = Arc::clone(&self.watchers).try_acquire_owned() else {
            return Err(Status::resource_exhausted(format!("{} watch already: end one first", limits::WATCHERS_MAX)));
        };
        let (sender, receiver) = mpsc::channel(1);
        let (api, shutdown) = (self.api.clone(), self.shutdown.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = watch(&api, &destination, every, most, &sender) => {}
                () = shutdown.requested() => {}
                () = sender.closed() => {}
            }
            drop(permit);
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

/// Sends snapshots until nobody reads them. The place in the channel is waited for before the lag is read, so that what is
/// sent late is not old.
async fn watch(
    api: &Api,
    destination: &str,
    every: Duration,
    most: usize,
    sender: &mpsc::Sender<Result<WatchLagResponse, Status>>,
) {
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Ok(place) = sender.reserve().await else { return };
        match api.reading().await {
            Ok(reading) => place.send(Ok(snapshot(&reading, destination, most))),
            Err(error) => return place.send(Err(Status::internal(error.to_string()))),
        }
    }
}

fn page(reading: &Reading, destination: &str, after: Option<Key>, most: usize) -> ListLagResponse {
    let wanted = |(key, _): &(&Key, &Lag)| is_of(key, destination);
    let from = after.map_or(Bound::Unbounded, Bound::Excluded);
    let mut rest = reading.lags.range((from, Bound::Unbounded)).filter(wanted).peekable();
    let mut lags = Vec::new();
    let mut last = None;
    while lags.len() < most
        && let Some((key, lag)) = rest.next()
    {
        lags.push(messages::lag(key, lag, &reading.disk));
        last = Some(key);
    }
    let next_page_token = match (last, rest.peek()) {
        (Some(last), Some(_)) => token_of(last),
        _ => String::new(),
    };
    let total = reading.lags.iter().filter(wanted).count() as u64;
    ListLagResponse { lags, next_page_token, total, read_at_unix_ms: reading.at_unix_ms }
}

/// Whether a queue is one of a destination's, or of all where it is empty. A replay's, `<id>!replay-<n>`, is.
fn is_of(key: &Key, destination: &str) -> bool {
    let behind = key.0.strip_prefix(destination);
    destination.is_empty() || behind.is_some_and(|rest| rest.is_empty() || rest.starts_with('!'))
}

fn snapshot(reading: &Reading, destination: &str, most: usize) -> WatchLagResponse {
    let mut matching: Vec<(&Key, &Lag)> = reading.lags.iter().filter(|(key, _)| is_of(key, destination)).collect();
    let omitted = matching.len().saturating_sub(most);
    if omitted > 0 {
        // Stable: among equals the first by name stay, the same ones in each snapshot.
        matching.sort_by_key(|(_, lag)| std::cmp::Reverse(lag.queue.lag.oldest_age_ms));
        matching.truncate(most);
        matching.sort_by_key(|(key, _)| *key);
    }
    WatchLagResponse {
        lags: matching.into_iter().map(|(key, lag)| messages::lag(key, lag, &reading.disk)).collect(),
        omitted: omitted as u64,
        read_at_unix_ms: reading.at_unix_ms,
    }
}

fn lags_max(asked: u32) -> usize {
    let lags = if asked == 0 { limits::LAGS_DEFAULT } else { asked.min(limits::LAGS_MAX) };
    usize::try_from(lags).expect("a thousand fits")
}

fn watch_interval(interval_ms: u32) -> Result<Duration, Status> {
    let every = Duration::from_millis(interval_ms.into());
    if every.is_zero() {
        return Ok(limits::WATCH_INTERVAL_DEFAULT);
    }
    if (limits::WATCH_INTERVAL_MIN..=limits::WATCH_INTERVAL_MAX).contains(&every) {
        return Ok(every);
    }
    Err(Status::invalid_argument(format!(
        "interval_ms is {interval_ms}: at least {} and at most {}, or 0 for {}",
        limits::WATCH_INTERVAL_MIN.as_millis(),
        limits::WATCH_INTERVAL_MAX.as_millis(),
        limits::WATCH_INTERVAL_DEFAULT.as_millis()
    )))
}

/// The last queue of a page. A destination's id has no slash; a stream's name may.
fn token_of((destination, stream): &Key) -> String {
    format!("{destination}/{stream}")
}

fn key_of(token: &str) -> Option<Key> {
    token.split_once('/').map(|(destination, stream)| (destination.into(), stream.into()))
}

#[cfg(test)]
mod tests {
    use super::super::forecast::Forecast;
    use super::super::readings::QueueReading;
    use super::*;

    fn reading(queues: &[(&str, &str, u64)]) -> Reading {
        let lag = |age: u64| Lag {
            queue: QueueReading {
                lag: forebay::Lag { oldest_age_ms: Some(age), ..forebay::Lag::default() },
                ..QueueReading::default()
            },
            delivery: None,
            state: None,
            held: None,
            arrived_per_second: None,
            settled_per_second: None,
            delivered_per_second: None,
            forecast: Forecast::Unknown,
            gives_up_at_unix_ms: None,
        };
        let lags =
            queues.iter().map(|(destination, stream, age)| (((*destination).into(), (*stream).into()), lag(*age)));
        Reading { at_unix_ms: 1, lags: lags.collect(), ..Reading::default() }
    }

    /// Before, whoever asked for one destination did not see its replays.
    #[test]
    fn a_destinations_replays_are_among_its_queues_and_no_other_destinations_are() {
        let all = [("hook", "prod", 1), ("hook!replay-1", "prod", 2), ("hook-2", "prod", 3), ("hoo", "prod", 4)];
        let reading = reading(&all);
        let names = |lags: Vec<crate::proto::v1::Lag>| lags.into_iter().map(|lag| lag.destination).collect::<Vec<_>>();
        assert_eq!(names(page(&reading, "hook", None, 10).lags), ["hook", "hook!replay-1"]);
        assert_eq!(names(snapshot(&reading, "hook", 10).lags), ["hook", "hook!replay-1"]);
        assert_eq!(names(snapshot(&reading, "hook!replay-1", 10).lags), ["hook!replay-1"]);
        assert_eq!(page(&reading, "hook", None, 1).total, 2);
    }

    #[test]
    fn pages_show_every_queue_once_and_in_order() {
        let names: Vec<(String, String)> =
            (0..7).flat_map(|d| (0..3).map(move |s| (format!("d{d}"), format!("!rejects/s{s}")))).collect();
        let queues: Vec<(&str, &str, u64)> = names.iter().map(|(d, s)| (d.as_str(), s.as_str(), 0)).collect();
        let reading = reading(&queues);
        for size in [1, 2, 5, 20, 21, 22] {
            let mut seen = Vec::new();
            let mut after = None;
            loop {
                let page = page(&reading, "", after, size);
                assert!(page.lags.len() <= size);
                assert_eq!(page.total, 21);
                seen.extend(page.lags.into_iter().map(|lag| (lag.destination, lag.stream)));
                if page.next_page_token.is_empty() {
                    break;
                }
                after = key_of(&page.next_page_token);
                assert!(after.is_some());
            }
            assert_eq!(seen, names, "pages of {size}");
        }
    }

    #[test]
    fn a_page_of_one_destination_counts_its_own() {
        let reading = reading(&[("a", "s", 0), ("b", "s", 0), ("b", "t", 0), ("c", "s", 0)]);
        let page = page(&reading, "b", None, 1);
        assert_eq!((page.total, page.lags.len(), page.next_page_token.as_str()), (2, 1, "b/s"));
    }

    #[test]
    fn a_snapshot_that_is_too_large_keeps_those_that_wait_longest() {
        let reading = reading(&[("a", "s", 5), ("b", "s", 50), ("c", "s", 1), ("d", "s", 40)]);
        let snapshot = snapshot(&reading, "", 2);
        let names: Vec<&str> = snapshot.lags.iter().map(|lag| lag.destination.as_str()).collect();
        assert_eq!((names, snapshot.omitted), (vec!["b", "d"], 2));
    }

    #[test]
    fn an_interval_out_of_bounds_is_refused_with_the_bounds() {
        assert_eq!(watch_interval(0).unwrap(), Duration::from_secs(1));
        assert_eq!(watch_interval(100).unwrap(), Duration::from_millis(100));
        assert_eq!(watch_interval(60_000).unwrap(), Duration::from_secs(60));
        for wrong in [1, 99, 60_001, u32::MAX] {
            let status = watch_interval(wrong).unwrap_err();
            assert_eq!(status.code(), tonic::Code::InvalidArgument);
            assert!(status.message().contains("at least 100 and at most 60000"), "{}", status.message());
        }
    }
}
