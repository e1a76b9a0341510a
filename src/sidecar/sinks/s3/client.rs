//! Makes the SDK's client of one destination: the SDK signs and spells, our own [`Wire`] carries.
//!
//! What always holds: the SDK repeats nothing by itself (a repeat is the loop's to decide, and its counters are shared by
//! all of a process), and its requests go where the destination's guard lets them. What asks for credentials may reach
//! the places where clouds keep those; nothing else may.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use aws_config::SdkConfig;
use aws_config::sts::AssumeRoleProvider;
use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::http::{HttpRequest, HttpResponse};
use aws_sdk_s3::config::retry::{ReconnectMode, RetryConfig, RetryPartition};
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    BehaviorVersion, Config, Region, RequestChecksumCalculation, ResponseChecksumValidation, RuntimeComponents,
    SharedHttpClient, StalledStreamProtectionConfig,
};
use aws_sdk_s3::error::ConnectorError;
use aws_sdk_s3::primitives::SdkBody;
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use http_body_util::BodyExt;
use hyper::Response;
use ipnet::IpNet;
use tokio::time::Instant;

use crate::config::{AssumeRole, Endpoint, S3Config, S3Keys};
use crate::delivery::outcome::Failure;
use crate::sinks::address_guard::{AddressGuard, AddressPolicy};
use crate::sinks::http::{Tls, Wire};

/// Answers are short, but for lists of uploads: some hundred bytes each.
const ANSWER_BYTES_MAX: u32 = 1 << 20;

/// A backstop: each request has its own, shorter time limit.
const REQUEST_MAX: Duration = Duration::from_secs(2 * 3_600);

/// For roles and the machine's own credentials: small answers from near by.
const CREDENTIALS_TIMEOUT: Duration = Duration::from_secs(10);

/// Where clouds keep the credentials of a machine, a container or a pod.
const CREDENTIALS_AT: [IpAddr; 5] = [
    IpAddr::V4(std::net::Ipv4Addr::new(169, 254, 169, 254)),
    IpAddr::V4(std::net::Ipv4Addr::new(169, 254, 170, 2)),
    IpAddr::V4(std::net::Ipv4Addr::new(169, 254, 170, 23)),
    IpAddr::V6(std::net::Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V6(std::net::Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23)),
];

/// A client for this destination, with at most `connections_max` idle connections kept. Connects when it first sends.
///
/// # Errors
/// When there are no trusted certificates.
pub(super) async fn client(
    destination: &str,
    config: &S3Config,
    guard: AddressGuard,
    tls: &Tls,
    connections_max: u32,
) -> Result<Client, Failure> {
    let over_tls = config.endpoint.as_ref().is_none_or(is_https);
    let http = SharedHttpClient::new(Carrier::new(tls, over_tls, guard, connections_max)?);
    let version = BehaviorVersion::v2026_01_12();
    let mut builder = Config::builder()
        .behavior_version(version)
        .region(Region::new(config.region.clone()))
        .http_client(http)
        .credentials_provider(credentials(config, tls).await?)
        .force_path_style(config.path_style)
        .retry_config(retries())
        // Nothing is repeated; should a later SDK count otherwise, it counts for this destination alone.
        .retry_partition(RetryPartition::new(format!("forebay {destination}")))
        // Each request is timed as a whole, by who sends it: bodies are in memory, and a slow one runs into that limit.
        .timeout_config(TimeoutConfig::disabled())
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
        .request_checksum_calculation(RequestChecksumCalculation::WhenSupported)
        .response_checksum_validation(ResponseChecksumValidation::WhenSupported);
    if let Some(endpoint) = &config.endpoint {
        builder = builder.endpoint_url(endpoint.uri().to_string());
    }
    Ok(Client::from_conf(builder.build()))
}

/// As whom we come: with the keys that the file names or those of the surroundings, as ourselves or in a role.
async fn credentials(config: &S3Config, tls: &Tls) -> Result<SharedCredentialsProvider, Failure> {
    let own = config.keys.as_ref().map(own_keys);
    let role = match (own, &config.assume_role) {
        (Some(own), None) => return Ok(own),
        (own, role) => (own, role),
    };
    let asked = role.1.as_ref().and_then(|role| role.endpoint.as_ref());
    let shared = surroundings(config, role.0, asked, tls).await?;
    Ok(match role.1 {
        Some(role) => SharedCredentialsProvider::new(assume(role, &shared).await),
        None => shared.credentials_provider().expect("loaded with a provider"),
    })
}

/// None; and no closing of connections that failed, which the SDK would do through its own client only. Ours closes one
/// whose answer was not read to its end.
pub(super) fn retries() -> RetryConfig {
    RetryConfig::disabled().with_reconnect_mode(ReconnectMode::ReuseAllConnections)
}

fn own_keys(keys: &S3Keys) -> SharedCredentialsProvider {
    let [id, secret] = [&keys.access_key_id, &keys.secret_access_key].map(|key| key.reveal().clone());
    SharedCredentialsProvider::new(Credentials::new(id, secret, None, None, "forebay's configuration"))
}

/// What the SDK finds around it; with `own` keys it does not look for others. `asked`: another token service.
async fn surroundings(
    config: &S3Config,
    own: Option<SharedCredentialsProvider>,
    asked: Option<&Endpoint>,
    tls: &Tls,
) -> Result<SdkConfig, Failure> {
    let places = CREDENTIALS_AT.map(IpNet::from);
    let guard = AddressGuard::new(AddressPolicy::Operator, &places);
    let over_tls = own.is_none() || asked.is_none_or(is_https);
    let http = Carrier::new(tls, over_tls, guard, 1)?;
    let timeouts = TimeoutConfig::builder().operation_timeout(CREDENTIALS_TIMEOUT).build();
    let mut loader = aws_config::defaults(BehaviorVersion::v2026_01_12())
        .region(Region::new(config.region.clone()))
        .http_client(SharedHttpClient::new(http))
        .retry_config(retries())
        .timeout_config(timeouts);
    if let Some(own) = own {
        loader = loader.credentials_provider(own);
    }
    if let Some(endpoint) = asked {
        loader = loader.endpoint_url(endpoint.uri().to_string());
    }
    Ok(loader.load().await)
}

async fn assume(role: &AssumeRole, shared: &SdkConfig) -> AssumeRoleProvider {
    let mut builder = AssumeRoleProvider::builder(&role.role_arn).session_name(&role.session_name).configure(shared);
    if let Some(id) = &role.external_id {
        builder = builder.external_id(id);
    }
    builder.build().await
}

fn is_https(endpoint: &Endpoint) -> bool {
    endpoint.uri().scheme_str() == Some("https")
}

/// Our connections, as the SDK has them.
#[derive(Clone)]
struct Carrier(Arc<Wire>);

impl Carrier {
    fn new(tls: &Tls, over_tls: bool, guard: AddressGuard, connections_max: u32) -> Result<Self, Failure> {
        Ok(Self(Arc::new(Wire::new(tls, over_tls, guard, connections_max, ANSWER_BYTES_MAX)?)))
    }

    async fn carry(&self, request: HttpRequest) -> Result<HttpResponse, ConnectorError> {
        let request = request.try_into_http1x().map_err(|why| ConnectorError::user(why.into()))?;
        let (head, body) = request.into_parts();
        // In memory already, and of one piece: nothing is copied.
        let body = body.collect().await.map_err(ConnectorError::user)?.to_bytes();
        let request = hyper::Request::from_parts(head, body);
        let answer = self.0.send(request, Instant::now() + REQUEST_MAX).await.map_err(|why| match why {
            Failure::Timeout => ConnectorError::timeout(why.to_string().into()),
            _ => ConnectorError::io(Box::new(Uncarried(why))),
        })?;
        let mut response = Response::new(SdkBody::from(answer.body));
        *response.status_mut() = answer.status;
        *response.headers_mut() = answer.headers;
        HttpResponse::try_from(response).map_err(|why| ConnectorError::user(why.into()))
    }
}

/// Why a request found no answer, for who asks the SDK's error for its causes.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Uncarried(pub(super) Failure);

impl fmt::Debug for Carrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Carrier")
    }
}

impl HttpConnector for Carrier {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let this = self.clone();
        HttpConnectorFuture::new(async move { this.carry(request).await })
    }
}

impl HttpClient for Carrier {
    fn http_connector(&self, _: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        SharedHttpConnector::new(self.clone())
    }
}

/// The SDK's requests as they are, to one address whatever host they name.
#[cfg(test)]
pub(super) fn carried_to(addr: std::net::SocketAddr) -> SharedHttpClient {
    SharedHttpClient::new(Elsewhere(
        addr,
        Carrier::new(&Tls::default(), false, AddressGuard::plain(), 2).expect("no certificates"),
    ))
}

#[cfg(test)]
#[derive(Debug, Clone)]
struct Elsewhere(std::net::SocketAddr, Carrier);

#[cfg(test)]
impl HttpConnector for Elsewhere {
    fn call(&self, mut request: HttpRequest) -> HttpConnectorFuture {
        let uri: hyper::Uri = request.uri().parse().expect("an address");
        let host = uri.authority().expect("a host").to_string();
        let path = uri.path_and_query().map(ToString::to_string).unwrap_or_default();
        request.headers_mut().insert("host", host);
        request.set_uri(format!("http://{}{path}", self.0)).expect("an address");
        let carrier = self.1.clone();
        HttpConnectorFuture::new(async move { carrier.carry(request).await })
    }
}

#[cfg(test)]
impl HttpClient for Elsewhere {
    fn http_connector(&self, _: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        SharedHttpConnector::new(self.clone())
    }
}
