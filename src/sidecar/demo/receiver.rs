//! The demo's webhook receiver: throttles for a while, then takes what it is given at a bounded rate, and remembers what
//! it got.
//!
//! A receiver as they should be: it tells repeats apart by `webhook-id`, so a batch that comes again is answered and not
//! counted again.

use std::collections::HashSet;
use std::convert::Infallible;
use std::io::{self, Read as _};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use flate2::read::GzDecoder;
use forebay::clock::Clock;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{CONTENT_ENCODING, RETRY_AFTER};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::ledger::{self, Ledger};

/// What it says when it throttles, in seconds.
pub(super) const RETRY_AFTER_SECONDS: u64 = 2;

/// Larger bodies are refused, packed or not: a batch is a MiB of stored bytes, about three of JSON.
const BODY_BYTES_MAX: u64 = 32 << 20;

/// How it behaves.
#[derive(Debug, Clone)]
pub(super) struct Manners {
    /// When it answers 429, by the demo's clock.
    pub(super) throttles: Range<Duration>,
    /// The most it takes at other times.
    pub(super) records_per_second: f64,
}

/// A receiver, for as long as it lives.
pub(super) struct Receiver {
    shared: Arc<Shared>,
    /// Ends with it.
    _serving: JoinSet<()>,
}

/// What it got so far.
#[derive(Debug, Default)]
pub(super) struct Received {
    /// Which impressions.
    pub(super) ledger: Ledger,
    /// Batches it took.
    pub(super) batches: u64,
    /// Requests answered with 429.
    pub(super) throttled: u64,
    /// Batches that came again.
    pub(super) repeats: u64,
    /// Requests that were no batch.
    pub(super) unreadable: u64,
    /// The ids of the batches it took.
    pub(super) ids: HashSet<String>,
    /// When it is done with what it took.
    pub(super) busy_until: Duration,
}

struct Shared {
    clock: Arc<dyn Clock>,
    manners: Manners,
    received: Mutex<Received>,
}

/// Of Split's object, what the demo looks at.
#[derive(Deserialize)]
struct Object {
    key: String,
}

impl Receiver {
    /// Takes who comes there, and who waits there by now.
    pub(super) fn start(listener: TcpListener, clock: Arc<dyn Clock>, manners: Manners) -> Self {
        let shared = Arc::new(Shared { clock, manners, received: Mutex::default() });
        let mut serving = JoinSet::new();
        serving.spawn(accept(listener, Arc::clone(&shared)));
        Self { shared, _serving: serving }
    }

    /// What it got so far.
    pub(super) fn received(&self) -> MutexGuard<'_, Received> {
        self.shared.received()
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    // Its connections end with it.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                // Out of file handles: the sidecar tries again.
                let Ok((stream, _)) = accepted else { continue };
                let shared = Arc::clone(&shared);
                connections.spawn(async move {
                    let service = service_fn(|request| {
                        let shared = Arc::clone(&shared);
                        async move { Ok::<_, Infallible>(shared.answer(request).await) }
                    });
                    // A connection that breaks is the sidecar's to mend.
                    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
                });
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

impl Shared {
    fn received(&self) -> MutexGuard<'_, Received> {
        // Counters are whole even where a panic left them.
        self.received.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (head, body) = request.into_parts();
        let body = Limited::new(body, usize::try_from(BODY_BYTES_MAX).expect("it fits"));
        let Ok(body) = body.collect().await else { return self.refuse() };
        if self.manners.throttles.contains(&self.clock.monotonic()) {
            self.received().throttled += 1;
            let mut answer = status(StatusCode::TOO_MANY_REQUESTS);
            answer.headers_mut().insert(RETRY_AFTER, RETRY_AFTER_SECONDS.into());
            return answer;
        }
        let gzip = head.headers.get(CONTENT_ENCODING).is_some_and(|coding| coding == "gzip");
        let id = head.headers.get("webhook-id").and_then(|id| id.to_str().ok()).map(str::to_owned);
        let (Some(id), Ok(numbers)) = (id, numbers(&body.to_bytes(), gzip)) else { return self.refuse() };
        let wait = self.received().book(numbers.len(), self.manners.records_per_second, self.clock.monotonic());
        tokio::time::sleep(wait).await;
        self.received().take(id, numbers);
        status(StatusCode::OK)
    }

    fn refuse(&self) -> Response<Full<Bytes>> {
        self.received().unreadable += 1;
        status(StatusCode::BAD_REQUEST)
    }
}

impl Received {
    /// Queues `records` behind what it is busy with. Returns how long it takes until they are done.
    fn book(&mut self, records: usize, per_second: f64, now: Duration) -> Duration {
        let work = Duration::from_secs_f64(records as f64 / per_second);
        self.busy_until = self.busy_until.max(now) + work;
        self.busy_until - now
    }

    fn take(&mut self, id: String, numbers: Vec<Option<u64>>) {
        if !self.ids.insert(id) {
            self.repeats += 1;
            return;
        }
        self.batches += 1;
        for number in numbers {
            self.ledger.note(number);
        }
    }
}

/// The numbers of a batch's impressions.
fn numbers(body: &[u8], gzip: bool) -> Result<Vec<Option<u64>>, io::Error> {
    let mut plain = Vec::new();
    let plain = if gzip {
        GzDecoder::new(body).take(BODY_BYTES_MAX).read_to_end(&mut plain)?;
        &plain
    } else {
        body
    };
    let objects: Vec<Object> = serde_json::from_slice(plain)?;
    Ok(objects.iter().map(|object| ledger::number(&object.key)).collect())
}

fn status(code: StatusCode) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::default());
    *answer.status_mut() = code;
    answer
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::net::SocketAddr;

    use flate2::Compression;
    use flate2::write::GzEncoder;
    use forebay::clock::ManualClock;
    use hyper_util::client::legacy::Client;
    use hyper_util::rt::TokioExecutor;

    use super::*;

    const BATCH: &[u8] = br#"[{"key":"user-0","split":"f"},{"key":"user-1","split":"f"}]"#;

    async fn receiver(clock: &ManualClock) -> (Receiver, SocketAddr) {
        let throttles = Duration::from_secs(10)..Duration::from_secs(20);
        let manners = Manners { throttles, records_per_second: 1e9 };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        (Receiver::start(listener, Arc::new(clock.clone()), manners), address)
    }

    async fn post(to: SocketAddr, id: &str, body: Vec<u8>, gzip: bool) -> Response<Incoming> {
        let mut request = Request::post(format!("http://{to}/x")).header("webhook-id", id);
        if gzip {
            request = request.header(CONTENT_ENCODING, "gzip");
        }
        let client = Client::builder(TokioExecutor::new()).build_http();
        client.request(request.body(Full::new(Bytes::from(body))).unwrap()).await.unwrap()
    }

    #[tokio::test]
    async fn it_throttles_for_its_while_and_then_takes_each_batch_once() {
        let clock = ManualClock::at(10_000);
        let (receiver, address) = receiver(&clock).await;
        let throttled = post(address, "a", BATCH.to_vec(), false).await;
        assert_eq!((throttled.status().as_u16(), &throttled.headers()[RETRY_AFTER]), (429, &"2".parse().unwrap()));
        clock.advance(Duration::from_secs(10));
        let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
        packed.write_all(BATCH).unwrap();
        assert_eq!(post(address, "a", packed.finish().unwrap(), true).await.status(), StatusCode::OK);
        assert_eq!(post(address, "a", BATCH.to_vec(), false).await.status(), StatusCode::OK);
        let received = receiver.received();
        assert_eq!((received.throttled, received.batches, received.repeats), (1, 1, 1));
        assert!(received.ledger.audit(2).is_exact());
    }

    #[tokio::test]
    async fn what_is_no_batch_is_refused_and_counted() {
        let (receiver, address) = receiver(&ManualClock::at(0)).await;
        for (body, gzip) in [(&b"["[..], false), (BATCH, true)] {
            assert_eq!(post(address, "a", body.to_vec(), gzip).await.status(), StatusCode::BAD_REQUEST);
        }
        assert_eq!(receiver.received().unreadable, 2);
    }

    #[test]
    fn it_works_off_one_batch_after_the_other() {
        let mut received = Received::default();
        let second = Duration::from_secs(1);
        assert_eq!(received.book(1_000, 1_000.0, second), second);
        assert_eq!(received.book(500, 1_000.0, second), second * 3 / 2, "it waits for the first");
        assert_eq!(received.book(1_000, 1_000.0, second * 60), second, "time off is not saved up");
    }
}
