//! The HTTP server of the way in: accepts, keeps connections within their limits, and ends them in good order.
//!
//! What always holds: no more connections than allowed, no head, body or buffer without a bound, no phase of a
//! connection without a time limit. Whoever is refused a connection waits in the kernel's queue.

use std::convert::Infallible;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, copy, sink};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, timeout};
use tracing::{debug, warn};

use super::limits::{DISCARD_BYTES_MAX, DISCARD_TIME_MAX, HEAD_BYTES_MAX, PATIENCE_TICK, READ_BUFFER_BYTES_MAX};
use super::patience::{Patience, Pulse};
use super::stats::Refusal;
use super::{Environments, Ingest, request};

/// While connections can't be accepted that is said so often.
const TROUBLE_TOLD_EVERY: Duration = Duration::from_secs(60);

/// The answer to a head that is not complete in time. To one that can't be read hyper answers by itself, unless it is HTTP/2's.
const HEAD_TOO_SLOW: &[u8] = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

/// How many environments one line names.
const NAMED_MAX: usize = 10;

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// Connections that were still busy when the grace was over, and were cut.
    pub cut: usize,
}

/// What the connections are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Serve,
    /// Finish the request in hand, then close.
    Finish,
    /// Close now.
    Cut,
}

/// Serves until `stop` is ready; then takes no more connections, lets requests in hand finish for at most `grace`, and
/// cuts the rest. Whatever was queued in the log by then still becomes durable; only the answer is lost.
pub async fn serve(
    listener: TcpListener,
    ingest: Arc<Ingest>,
    stop: impl Future<Output = ()>,
    grace: Duration,
) -> Ended {
    warn_of_drops(&ingest.environments());
    let all = ingest.limits.connections_max.clamp(1, Semaphore::MAX_PERMITS.min(u32::MAX as usize));
    let places = Arc::new(Semaphore::new(all));
    let (orders, order) = watch::channel(Order::Serve);
    accept(&listener, &ingest, &places, &order, stop).await;
    drop(listener);
    // Every place is free again when every connection has ended.
    let everybody = u32::try_from(all).unwrap_or(u32::MAX);
    // An error means that no connection is left to be told.
    let _ = orders.send(Order::Finish);
    let ended = timeout(grace, places.acquire_many(everybody)).await;
    if ended.is_ok() {
        return Ended { cut: 0 };
    }
    let cut = all - places.available_permits();
    let _ = orders.send(Order::Cut);
    // Prompt: a connection that is cut waits for nothing.
    let _ = places.acquire_many(everybody).await;
    Ended { cut }
}

/// Says once whose other posts nobody wants.
fn warn_of_drops(environments: &Environments) {
    let all = environments.all().iter();
    let dropped: Vec<_> = all.filter(|one| one.keys() > 0 && one.relay().is_none()).map(|one| one.id()).collect();
    if dropped.is_empty() {
        return;
    }
    let first = dropped[..dropped.len().min(NAMED_MAX)].join(", ");
    warn!(
        environments = dropped.len(),
        first,
        "posts of sdks other than impressions (counts, unique keys, events, metrics) are answered with 202 and dropped: a \
         destination of type upstream relays them"
    );
}

async fn accept(
    listener: &TcpListener,
    ingest: &Arc<Ingest>,
    places: &Arc<Semaphore>,
    order: &watch::Receiver<Order>,
    stop: impl Future<Output = ()>,
) {
    let mut stop = pin!(stop);
    let mut told: Option<Instant> = None;
    loop {
        let next = async {
            let place = Arc::clone(places).acquire_owned().await.expect("the semaphore is never closed");
            (place, listener.accept().await)
        };
        let (place, accepted) = tokio::select! {
            biased;
            () = &mut stop => return,
            next = next => next,
        };
        match accepted {
            Ok((stream, _)) => {
                let connection =
                    Connection { ingest: Arc::clone(ingest), order: order.clone(), places: Arc::clone(places) };
                tokio::spawn(connection.run(stream, place));
            }
            Err(error) => {
                // Out of file handles, mostly. They come back as connections end; turning in a circle helps nobody.
                if told.is_none_or(|told| told.elapsed() >= TROUBLE_TOLD_EVERY) {
                    warn!(%error, "a connection could not be accepted");
                    told = Some(Instant::now());
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

struct Connection {
    ingest: Arc<Ingest>,
    order: watch::Receiver<Order>,
    places: Arc<Semaphore>,
}

impl Connection {
    async fn run(mut self, stream: TcpStream, _place: OwnedSemaphorePermit) {
        self.ingest.stats.connected();
        // Answers are small and awaited. An error here is found again by the first read.
        let _ = stream.set_nodelay(true);
        let pulse = Arc::new(Pulse::default());
        let serving = service_fn(|request| {
            pulse.request_began();
            let (ingest, pulse) = (Arc::clone(&self.ingest), Arc::clone(&pulse));
            async move {
                let answer = request::answer(&ingest, request).await;
                pulse.request_ended();
                Ok::<_, Infallible>(answer)
            }
        });
        let stream = Watched { stream: TokioIo::new(stream), pulse: Arc::clone(&pulse) };
        let mut connection = http().serve_connection(stream, serving);
        let mut patience = Patience::new(&self.ingest.limits);
        let mut ticks = ticks();
        let refused = loop {
            tokio::select! {
                biased;
                ended = &mut connection => {
                    let error = ended.err();
                    if let Some(error) = &error {
                        debug!(%error, "a connection ended early");
                    }
                    break error.filter(hyper::Error::is_parse).map(|error| match error.is_parse_version_h2() {
                        true => NoHead::Foreign,
                        false => NoHead::Answered,
                    });
                }
                _ = ticks.tick() => {
                    if patience.ends(&pulse, crowded(&self.places, &self.ingest)) {
                        break pulse.in_head().then_some(NoHead::Slow);
                    }
                }
                changed = self.order.changed() => match *self.order.borrow_and_update() {
                    Order::Finish if changed.is_ok() => Pin::new(&mut connection).graceful_shutdown(),
                    Order::Serve if changed.is_ok() => {}
                    _ => break None,
                },
            }
        };
        if let Some(refused) = refused {
            let why = if refused == NoHead::Slow { Refusal::Slow } else { Refusal::Head };
            self.ingest.stats.refused(None, why);
            let stream = connection.into_parts().io.stream.into_inner();
            match refused {
                // Nothing else is on its way out. Where there is no room even for that, nobody reads.
                NoHead::Slow => _ = stream.try_write(HEAD_TOO_SLOW),
                // A stop waits for nobody who asked for nothing.
                NoHead::Answered if *self.order.borrow() == Order::Serve => tokio::select! {
                    () = hear_out(stream) => {}
                    _ = self.order.changed() => {}
                },
                NoHead::Answered | NoHead::Foreign => {}
            }
        }
        self.ingest.stats.disconnected();
    }
}

/// Why there is no request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NoHead {
    /// Its head can't be read, or is too long, and was answered.
    Answered,
    /// It speaks HTTP/2, and understands no answer of ours.
    Foreign,
    /// Its head is not complete in time.
    Slow,
}

/// Reads what the sender of a refused head still sends and throws it away, within the bounds of a refused body, and for the
/// same reason.
async fn hear_out(stream: TcpStream) {
    let mut rest = stream.take(DISCARD_BYTES_MAX);
    let _ = timeout(DISCARD_TIME_MAX, copy(&mut rest, &mut sink())).await;
}

fn http() -> http1::Builder {
    let mut http = http1::Builder::new();
    http.header_read_timeout(None) // `Patience` does it, without a timer for each request.
        .half_close(true) // A sender that closes its side still wants to know.
        .max_buf_size(READ_BUFFER_BYTES_MAX)
        .max_header_size(HEAD_BYTES_MAX);
    http
}

fn ticks() -> Interval {
    let mut ticks = interval(PATIENCE_TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.reset();
    ticks
}

/// Whether less than a quarter of the connections is left.
fn crowded(places: &Semaphore, ingest: &Ingest) -> bool {
    places.available_permits() < ingest.limits.connections_max / 4
}

/// A stream that notes when bytes come.
struct Watched {
    stream: TokioIo<TcpStream>,
    pulse: Arc<Pulse>,
}

impl Read for Watched {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if let Poll::Ready(Ok(())) = read {
            self.pulse.bytes_came();
        }
        read
    }
}

impl Write for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
