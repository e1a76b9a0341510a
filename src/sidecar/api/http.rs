//! The HTTP side: `/metrics` for scrapers, `/livez` and `/readyz` for whoever starts and routes to this process.
//!
//! Others may reach it, so it shows numbers and ids only, takes no body, and changes nothing. What always holds: a peer that
//! dribbles, or never reads, holds its connection for a bounded time, and [`serve`] returns within the grace after shutdown.

use std::pin::pin;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::listen::{Connection, Listener};
use super::{Api, limits};
use crate::shutdown::Shutdown;

/// The version of Prometheus' text format that [`super::exposition`] writes.
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

#[derive(Clone)]
struct Pages {
    api: Api,
    shutdown: Shutdown,
    scrapes: Arc<Semaphore>,
}

/// Serves until `shutdown`, then for two seconds at most (`limits::SHUTDOWN_GRACE`).
pub async fn serve(api: Api, listener: Listener, shutdown: Shutdown) {
    let pages = Pages { api, shutdown: shutdown.clone(), scrapes: Arc::new(Semaphore::new(limits::SCRAPES_MAX)) };
    let routes = Router::new()
        .route("/livez", get(live))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(pages);
    let mut connections = JoinSet::new();
    let mut stop = pin!(shutdown.requested());
    loop {
        tokio::select! {
            () = &mut stop => break,
            connection = listener.accept() => {
                connections.spawn(converse(connection, routes.clone(), shutdown.clone()));
            }
            // Without this the set would grow by every connection that ever was.
            Some(_) = connections.join_next() => {}
        }
    }
    drop(listener);
    // What is left when the grace is over is cut off as the set is dropped.
    let _ = timeout(limits::SHUTDOWN_GRACE, async { while connections.join_next().await.is_some() {} }).await;
}

/// One connection, from its first request to its end.
async fn converse(connection: Connection, routes: Router, shutdown: Shutdown) {
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits::HTTP_HEADER_TIME_MAX)
        .max_buf_size(usize::try_from(limits::HEADER_BYTES_MAX).expect("a few kilobytes"))
        .serve_connection(TokioIo::new(connection), TowerToHyperService::new(routes));
    let mut served = pin!(served);
    let ended = tokio::select! {
        ended = served.as_mut() => Some(ended),
        () = sleep(limits::HTTP_CONNECTION_TIME_MAX) => None,
        () = shutdown.requested() => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            served.as_mut().graceful_shutdown();
            timeout(limits::CALL_TIME_MAX, served).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection to the metrics and probes broke");
    }
}

/// The process is up and its runtime turns.
async fn live() -> &'static str {
    "alive\n"
}

/// Whether to send here, and if not, why: a line each.
async fn ready(State(pages): State<Pages>) -> Response {
    let mut reasons = pages.api.not_ready();
    if pages.shutdown.is_requested() {
        reasons.push("shutting down".to_owned());
    }
    if reasons.is_empty() {
        return "ready\n".into_response();
    }
    (StatusCode::SERVICE_UNAVAILABLE, format!("not ready\n{}\n", reasons.join("\n"))).into_response()
}

async fn metrics(State(pages): State<Pages>) -> Response {
    let rendered = timeout(limits::CALL_TIME_MAX, async {
        let _turn = pages.scrapes.acquire().await.expect("the semaphore is never closed");
        pages.api.metrics().await
    });
    match rendered.await {
        Ok(Ok(text)) => ([(header::CONTENT_TYPE, METRICS_TYPE)], text).into_response(),
        Ok(Err(error)) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
        Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "too many scrapes at once\n").into_response(),
    }
}
