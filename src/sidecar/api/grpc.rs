//! The gRPC server: services, health and reflection on one listener, with limits on all of it.
//!
//! Decides nothing about lag. What always holds: it answers whatever state the log is in; after shutdown was requested every
//! watch ends at once, and [`serve`] returns within the grace whatever its clients do.

use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use super::balances::BalancesService;
use super::cursors::CursorsService;
use super::dead_letters::DeadLettersService;
use super::destinations::DestinationsService;
use super::listen::{Connection, LocalListener};
use super::replays::ReplaysService;
use super::{Api, limits};
use crate::proto::FILE_DESCRIPTOR_SET;
use crate::proto::v1::balances_server::{BalancesServer, SERVICE_NAME as BALANCES};
use crate::proto::v1::cursors_server::{CursorsServer, SERVICE_NAME};
use crate::proto::v1::dead_letters_server::{DeadLettersServer, SERVICE_NAME as DEAD_LETTERS};
use crate::proto::v1::destinations_server::{DestinationsServer, SERVICE_NAME as DESTINATIONS};
use crate::proto::v1::replays_server::{ReplaysServer, SERVICE_NAME as REPLAYS};
use crate::shutdown::Shutdown;

/// The name under which gRPC health checks ask for the server as a whole.
const WHOLE_SERVER: &str = "";

/// Why the server ended before it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The transport gave up.
    #[error("the gRPC server ended")]
    Transport(#[from] tonic::transport::Error),
    /// The descriptors that were compiled in cannot be read.
    #[error("the service descriptions cannot be served")]
    Reflection(#[from] tonic_reflection::server::Error),
}

/// Serves until `shutdown`, then for two seconds at most (`limits::SHUTDOWN_GRACE`). Feeds the rates while it runs.
///
/// # Errors
/// See [`ServeError`].
pub async fn serve(api: Api, listener: LocalListener, shutdown: Shutdown) -> Result<(), ServeError> {
    let (reporter, health) = tonic_health::server::health_reporter();
    // Before the first connection: the reporter's own default is that all is well.
    report(&api, &reporter, &shutdown).await;
    reporter.set_service_status(SERVICE_NAME, ServingStatus::Serving).await;
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()?;
    let cursors = CursorsServer::new(CursorsService::new(api.clone(), shutdown.clone()))
        .max_decoding_message_size(limits::REQUEST_BYTES_MAX)
        .max_encoding_message_size(limits::RESPONSE_BYTES_MAX);

    let replays = api.replayed().map(|replayed| {
        ReplaysServer::new(ReplaysService::new(replayed, api.booked()))
            .max_decoding_message_size(limits::REQUEST_BYTES_MAX)
            .max_encoding_message_size(limits::RESPONSE_BYTES_MAX)
    });
    let balances = BalancesServer::new(BalancesService::new(api.booked(), api.letters()))
        .max_decoding_message_size(limits::REQUEST_BYTES_MAX)
        .max_encoding_message_size(limits::RESPONSE_BYTES_MAX);
    reporter.set_service_status(BALANCES, ServingStatus::Serving).await;
    if replays.is_some() {
        reporter.set_service_status(REPLAYS, ServingStatus::Serving).await;
    }
    let destinations = api.operations().map(|operations| {
        DestinationsServer::new(DestinationsService::new(operations))
            .max_decoding_message_size(limits::SETTINGS_REQUEST_BYTES_MAX)
            .max_encoding_message_size(limits::RESPONSE_BYTES_MAX)
    });
    if destinations.is_some() {
        reporter.set_service_status(DESTINATIONS, ServingStatus::Serving).await;
    }
    let dead_letters = api.letters().map(|letters| {
        DeadLettersServer::new(DeadLettersService::new(letters))
            .max_decoding_message_size(limits::REQUEST_BYTES_MAX)
            .max_encoding_message_size(limits::RESPONSE_BYTES_MAX)
    });
    if dead_letters.is_some() {
        reporter.set_service_status(DEAD_LETTERS, ServingStatus::Serving).await;
    }

    let (connections, incoming) = mpsc::channel(1);
    let server = Server::builder()
        .timeout(limits::CHANGE_TIME_MAX)
        .max_concurrent_streams(limits::STREAMS_PER_CONNECTION_MAX)
        .http2_max_header_list_size(limits::HEADER_BYTES_MAX)
        .http2_keepalive_interval(Some(limits::KEEPALIVE_AFTER))
        .http2_keepalive_timeout(Some(limits::KEEPALIVE_TIME_MAX))
        .add_service(health.max_decoding_message_size(limits::REQUEST_BYTES_MAX))
        .add_service(reflection.max_decoding_message_size(limits::REQUEST_BYTES_MAX))
        .add_service(cursors)
        .add_optional_service(replays)
        .add_service(balances)
        .add_optional_service(destinations)
        .add_optional_service(dead_letters)
        .serve_with_incoming_shutdown(
            ReceiverStream::new(incoming).map(Ok::<Connection, std::io::Error>),
            shutdown.requested(),
        );
    tokio::select! {
        served = server => served?,
        () = accept(&listener, &connections) => {}
        () = look_after(&api, &reporter, &shutdown) => {}
        () = grace_is_over(&shutdown) => tracing::debug!("clients of the gRPC API were cut off at shutdown"),
    }
    Ok(())
}

/// Passes connections on; one at a time, so that no more are taken than are served.
async fn accept(listener: &LocalListener, connections: &mpsc::Sender<Connection>) {
    loop {
        let connection = listener.accept().await;
        if connections.send(connection).await.is_err() {
            // The server takes no more: it is shutting down, and says itself when it is done.
            std::future::pending().await
        }
    }
}

/// Keeps rates and health fresh, for ever. A change of readiness is passed on at once, one of the log within a second.
async fn look_after(api: &Api, reporter: &HealthReporter, shutdown: &Shutdown) {
    let mut changes = api.readiness().watch();
    let mut ticks = interval(limits::SAMPLE_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => if let Err(error) = api.sample().await {
                tracing::warn!(%error, "the lag could not be read");
            },
            Some(_) = changes.next() => {}
            () = shutdown.requested(), if !shutdown.is_requested() => {}
        }
        report(api, reporter, shutdown).await;
    }
}

/// The server as a whole is healthy when the sidecar is ready. The service of lags answers in every state, and says so.
async fn report(api: &Api, reporter: &HealthReporter, shutdown: &Shutdown) {
    let ready = api.not_ready().is_empty() && !shutdown.is_requested();
    let status = if ready { ServingStatus::Serving } else { ServingStatus::NotServing };
    reporter.set_service_status(WHOLE_SERVER, status).await;
}

async fn grace_is_over(shutdown: &Shutdown) {
    shutdown.requested().await;
    sleep(limits::SHUTDOWN_GRACE).await;
}
