//! The API from outside: a real server on a real socket, a real client.

use std::path::PathBuf;
use std::time::Duration;

use forebay::clock::SystemClock;
use forebay::{Balance, Count};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_stream::StreamExt;
use tonic::Code;
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tonic_reflection::pb::v1::{ServerReflectionRequest, ServerReflectionResponse};

use super::listen::uri;
use super::readings::{DeliveryReading, DeliveryState, QueueReading};
use super::*;
use crate::config::Listen;
use crate::proto::v1::cursors_client::CursorsClient;
use crate::proto::v1::forecast::Outcome;
use crate::proto::v1::{self, GetLagRequest, ListLagRequest, WatchLagRequest};
use crate::shutdown::{self, Stop};

mod calls;

/// Far longer than anything here takes, far shorter than a test run.
const SOON: Duration = Duration::from_secs(60);

/// A server with three queues, of which nothing delivers the last, and whose readiness the test sets.
struct House {
    address: Listen,
    stop: Stop,
    readiness: Readiness,
    server: JoinHandle<Result<(), grpc::ServeError>>,
}

impl House {
    async fn on(address: &str) -> Self {
        Self::showing(address, sources).await
    }

    async fn showing(address: &str, sources: impl FnOnce(&Readiness) -> Sources) -> Self {
        let listener = LocalListener::bind(&address.parse().unwrap()).await.unwrap();
        let address = listener.address().unwrap();
        let (stop, shutdown) = shutdown::channel();
        let readiness = Readiness::new();
        let api = Api::new(Arc::new(SystemClock::new()), sources(&readiness));
        let server = tokio::spawn(grpc::serve(api, listener, shutdown));
        Self { address, stop, readiness, server }
    }

    async fn channel(&self) -> Channel {
        Endpoint::from_shared(uri(&self.address)).unwrap().connect().await.unwrap()
    }

    async fn cursors(&self) -> CursorsClient<Channel> {
        CursorsClient::new(self.channel().await)
    }

    /// Asks for shutdown and returns how long it took.
    async fn stop(self) -> Duration {
        let clock = SystemClock::new();
        self.stop.stop();
        timeout(SOON, self.server).await.expect("the server ends").unwrap().unwrap();
        clock.monotonic()
    }
}

fn sources(readiness: &Readiness) -> Sources {
    Sources {
        queues: Box::new(|each| {
            [queue("archive", 0), queue("hook", 70), queue("retired", 3)].into_iter().for_each(each)
        }),
        deliveries: Box::new(|| {
            vec![delivery("archive", DeliveryState::Idle), delivery("hook", DeliveryState::Throttled)]
        }),
        readiness: readiness.clone(),
        ..Sources::empty()
    }
}

fn queue(destination: &str, behind: u64) -> QueueReading {
    let count = |records| Count { records, bytes: records * 100 };
    QueueReading {
        destination: destination.into(),
        stream: "acme-prod".into(),
        lag: forebay::Lag {
            records: behind,
            bytes: behind * 100,
            oldest_age_ms: (behind > 0).then_some(1_500),
            live_age_ms: (behind == 70).then_some(300),
            durable_tail: 100,
            low_mark: 100 - behind,
            in_flight: behind.min(10),
        },
        balance: Balance {
            accepted: count(100),
            delivered: count(100 - behind),
            pending: count(behind),
            ..Balance::default()
        },
        ..QueueReading::default()
    }
}

fn delivery(destination: &str, state: DeliveryState) -> DeliveryReading {
    DeliveryReading {
        destination: destination.into(),
        state,
        last_error: (state == DeliveryState::Throttled).then(|| "429 Too Many Requests".to_owned()),
        last_error_unix_ms: Some(1_700_000_000_000),
        last_success_unix_ms: Some(1_600_000_000_000),
        next_attempt_unix_ms: (state == DeliveryState::Throttled).then_some(1_700_000_005_000),
        requests: vec![("delivered", 5)],
        ..DeliveryReading::default()
    }
}

fn of(destination: &str) -> GetLagRequest {
    GetLagRequest { destination: destination.to_owned(), stream: "acme-prod".to_owned() }
}

#[tokio::test]
async fn get_lag_tells_all_about_one_queue() {
    let house = House::on("127.0.0.1:0").await;
    let answer = house.cursors().await.get_lag(of("hook")).await.unwrap().into_inner();
    let lag = answer.lag.unwrap();
    assert!(answer.read_at_unix_ms > 1_600_000_000_000);
    assert_eq!((lag.records_behind, lag.bytes_behind, lag.oldest_age_ms), (70, 7_000, Some(1_500)));
    assert_eq!(lag.live_age_ms, Some(300));
    assert_eq!((lag.durable_tail, lag.low_mark, lag.records_in_flight), (100, 30, 10));
    assert_eq!(lag.state(), v1::DeliveryState::Throttled);
    let error = lag.last_error.unwrap();
    assert_eq!((error.message.as_str(), error.at_unix_ms), ("429 Too Many Requests", Some(1_700_000_000_000)));
    assert_eq!(lag.last_success_unix_ms, Some(1_600_000_000_000));
    assert_eq!(lag.next_attempt_unix_ms, Some(1_700_000_005_000));
    assert_eq!(lag.forecast, None, "the rates are not known yet");
    let balance = lag.balance.unwrap();
    let records = |count: Option<v1::Count>| count.unwrap().records;
    assert_eq!((records(balance.accepted), records(balance.delivered), records(balance.pending)), (100, 30, 70));
}

#[tokio::test]
async fn a_queue_that_nothing_delivers_says_so() {
    let house = House::on("127.0.0.1:0").await;
    let lag = house.cursors().await.get_lag(of("retired")).await.unwrap().into_inner().lag.unwrap();
    assert_eq!(lag.state(), v1::DeliveryState::Unconfigured);
}

#[tokio::test]
async fn a_queue_that_is_not_there_is_not_found() {
    let house = House::on("127.0.0.1:0").await;
    let mut cursors = house.cursors().await;
    assert_eq!(cursors.get_lag(of("nobody")).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(cursors.get_lag(of("")).await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn list_lag_pages_through_all_queues() {
    let house = House::on("127.0.0.1:0").await;
    let mut cursors = house.cursors().await;
    let first = ListLagRequest { page_size: 2, ..ListLagRequest::default() };
    let page = cursors.list_lag(first).await.unwrap().into_inner();
    assert_eq!((page.lags.len(), page.total), (2, 3));
    let second = ListLagRequest { page_size: 2, page_token: page.next_page_token, ..ListLagRequest::default() };
    let page = cursors.list_lag(second).await.unwrap().into_inner();
    assert_eq!((page.lags[0].destination.as_str(), page.next_page_token.as_str()), ("retired", ""));

    let one = ListLagRequest { destination: "hook".to_owned(), ..ListLagRequest::default() };
    assert_eq!(cursors.list_lag(one).await.unwrap().into_inner().total, 1);
    let wrong = ListLagRequest { page_token: "no token".to_owned(), ..ListLagRequest::default() };
    assert_eq!(cursors.list_lag(wrong).await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn the_forecast_is_there_once_the_rates_are() {
    let house = House::on("127.0.0.1:0").await;
    let mut cursors = house.cursors().await;
    let watch = WatchLagRequest { destination: "hook".to_owned(), interval_ms: 200, ..WatchLagRequest::default() };
    let mut snapshots = cursors.watch_lag(watch).await.unwrap().into_inner();
    let outcome = timeout(SOON, async {
        loop {
            let lag = snapshots.next().await.unwrap().unwrap().lags.remove(0);
            if let Some(forecast) = lag.forecast {
                return forecast.outcome.unwrap();
            }
        }
    });
    assert_eq!(outcome.await.unwrap(), Outcome::NeverAtThisRate(v1::NeverAtThisRate {}), "nothing moves");
}

#[tokio::test]
async fn a_watch_speaks_at_once_and_ends_well_at_shutdown() {
    let house = House::on("127.0.0.1:0").await;
    let mut cursors = house.cursors().await;
    // Only the first message can come within the test's patience: the interval is longer.
    let watch = WatchLagRequest { interval_ms: 60_000, ..WatchLagRequest::default() };
    let mut snapshots = cursors.watch_lag(watch).await.unwrap().into_inner();
    let first = timeout(SOON, snapshots.next()).await.unwrap().unwrap().unwrap();
    assert_eq!((first.lags.len(), first.omitted), (3, 0));

    house.stop().await;
    assert!(timeout(SOON, snapshots.next()).await.unwrap().is_none(), "it ends without an error: it was not cut off");
}

#[tokio::test]
async fn a_watch_with_an_interval_out_of_bounds_is_refused() {
    let house = House::on("127.0.0.1:0").await;
    let watch = WatchLagRequest { interval_ms: 1, ..WatchLagRequest::default() };
    assert_eq!(house.cursors().await.watch_lag(watch).await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn one_watcher_too_many_is_told_so_and_a_place_comes_free_when_one_hangs_up() {
    let house = House::on("127.0.0.1:0").await;
    let watch = || WatchLagRequest { interval_ms: 60_000, ..WatchLagRequest::default() };
    let mut cursors = house.cursors().await;
    let mut watching = Vec::new();
    for _ in 0..limits::WATCHERS_MAX {
        watching.push(cursors.watch_lag(watch()).await.unwrap());
    }
    assert_eq!(cursors.watch_lag(watch()).await.unwrap_err().code(), Code::ResourceExhausted);

    watching.pop();
    let admitted = timeout(SOON, async {
        while cursors.watch_lag(watch()).await.is_err() {
            tokio::task::yield_now().await;
        }
    });
    admitted.await.expect("the place comes free");
}

#[tokio::test]
async fn a_client_that_reads_nothing_does_not_hold_up_the_shutdown() {
    let house = House::on("127.0.0.1:0").await;
    // Health's watch knows nothing of our shutdown: it stays open until it is cut off.
    let mut health = HealthClient::new(house.channel().await);
    let _open = health.watch(HealthCheckRequest::default()).await.unwrap();
    assert!(house.stop().await < limits::SHUTDOWN_GRACE + SOON);
}

#[tokio::test]
async fn health_follows_readiness_and_lag_is_served_in_any_state() {
    let house = House::on("127.0.0.1:0").await;
    let mut health = HealthClient::new(house.channel().await);
    assert_eq!(check(&mut health, "").await, ServingStatus::Serving);

    house.readiness.block("the disk is odd", "");
    let turned = timeout(SOON, async {
        while check(&mut health, "").await == ServingStatus::Serving {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    turned.await.expect("health follows within a moment");
    assert_eq!(check(&mut health, "forebay.v1.Cursors").await, ServingStatus::Serving);
    house.cursors().await.get_lag(of("hook")).await.unwrap();
}

async fn check(health: &mut HealthClient<Channel>, service: &str) -> ServingStatus {
    health.check(HealthCheckRequest { service: service.to_owned() }).await.unwrap().into_inner().status()
}

#[tokio::test]
async fn reflection_lists_the_services() {
    let house = House::on("127.0.0.1:0").await;
    let mut reflection = ServerReflectionClient::new(house.channel().await);
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut answers = reflection.server_reflection_info(tokio_stream::once(request)).await.unwrap().into_inner();
    let ServerReflectionResponse { message_response: Some(MessageResponse::ListServicesResponse(list)), .. } =
        answers.next().await.unwrap().unwrap()
    else {
        panic!("it is a list");
    };
    let names: Vec<&str> = list.service.iter().map(|service| service.name.as_str()).collect();
    for name in ["forebay.v1.Cursors", "grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection"] {
        assert!(names.contains(&name), "{names:?}");
    }
}

#[tokio::test]
async fn the_same_is_served_on_a_unix_socket() {
    let directory = tempfile::tempdir().unwrap();
    let path: PathBuf = directory.path().join("api.sock");
    let house = House::on(&format!("unix:{}", path.display())).await;
    let lag = house.cursors().await.get_lag(of("hook")).await.unwrap().into_inner().lag.unwrap();
    assert_eq!(lag.records_behind, 70);
    house.stop().await;
    assert!(!path.exists(), "the socket goes with the server");
}

#[tokio::test]
async fn an_oversized_request_is_refused() {
    let house = House::on("127.0.0.1:0").await;
    let error = house.cursors().await.get_lag(of(&"x".repeat(limits::REQUEST_BYTES_MAX))).await.unwrap_err();
    assert_eq!(error.code(), Code::OutOfRange);
}

/// The HTTP side, with the same queues.
struct Probes {
    address: Listen,
    stop: Stop,
    readiness: Readiness,
    server: JoinHandle<()>,
}

impl Probes {
    async fn start() -> Self {
        let listener = Listener::bind(&"127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = listener.address().unwrap();
        let (stop, shutdown) = shutdown::channel();
        let readiness = Readiness::new();
        let api = Api::new(Arc::new(SystemClock::new()), sources(&readiness));
        let server = tokio::spawn(http::serve(api, listener, shutdown));
        Self { address, stop, readiness, server }
    }

    async fn connect(&self) -> TcpStream {
        let Listen::Tcp(address) = self.address else { panic!("it is TCP") };
        TcpStream::connect(address).await.unwrap()
    }

    /// Status line and headers, and the body.
    async fn get(&self, path: &str) -> (String, String) {
        let mut connection = self.connect().await;
        let request = format!("GET {path} HTTP/1.1\r\nhost: here\r\nconnection: close\r\n\r\n");
        connection.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        timeout(SOON, connection.read_to_string(&mut answer)).await.unwrap().unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.to_owned(), body.to_owned())
    }
}

#[tokio::test]
async fn readiness_gives_its_reasons_and_liveness_does_not_care() {
    let probes = Probes::start().await;
    let (head, body) = probes.get("/readyz").await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert_eq!(body, "ready\n");

    probes.readiness.block("the disk is odd", "it hums");
    let _latch = probes.readiness.latch("the queues");
    let (head, body) = probes.get("/readyz").await;
    assert!(head.starts_with("HTTP/1.1 503"), "{head}");
    assert_eq!(body, "not ready\nwaiting for the queues\nthe disk is odd: it hums\n");
    assert!(probes.get("/livez").await.0.starts_with("HTTP/1.1 200"));
    assert!(probes.get("/elsewhere").await.0.starts_with("HTTP/1.1 404"));
}

#[tokio::test]
async fn metrics_show_the_lag_as_prometheus_reads_it() {
    let probes = Probes::start().await;
    let (head, body) = probes.get("/metrics").await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert!(head.contains("content-type: text/plain; version=0.0.4"), "{head}");
    assert!(body.contains("forebay_lag_records{destination=\"hook\",stream=\"acme-prod\"} 70\n"));
    assert!(body.contains("forebay_delivery_state{destination=\"retired\",state=\"unconfigured\"} 1\n"));
}

#[tokio::test]
async fn an_idle_connection_does_not_hold_up_the_shutdown_of_the_probes() {
    let probes = Probes::start().await;
    let mut idle = probes.connect().await;
    idle.write_all(b"GET /livez HT").await.unwrap();
    probes.get("/livez").await;
    probes.stop.stop();
    timeout(limits::SHUTDOWN_GRACE + SOON, probes.server).await.expect("it ends").unwrap();
}
