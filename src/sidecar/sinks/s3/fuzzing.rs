//! What the fuzzer of a store's answers calls: see [`crate::fuzzing`].
//!
//! The SDK itself reads the answers here, since what it makes of a body is what we go by.

use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use aws_credential_types::Credentials;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::http::{HttpRequest, HttpResponse};
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    BehaviorVersion, Config, Region, RuntimeComponents, SharedHttpClient, StalledStreamProtectionConfig,
};
use aws_sdk_s3::primitives::SdkBody;
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use bytes::Bytes;
use forebay::clock::ManualClock;
use hyper::Response;
use hyper::header::HeaderMap;
use tokio::runtime::{Builder, Runtime};

use super::digest::Contents;
use super::store::{Object, Store, Upload};
use crate::config::{LinesCompression, S3Config, S3Format};
use crate::delivery::outcome::{Failure, Outcome};
use crate::delivery::retry_after::WAIT_MAX;

const LIMIT: Duration = Duration::from_secs(60);

/// Of a store's words, with a hint.
const SHOWN_CHARS_MAX: usize = 400;

/// The store that answers as it is told.
struct Stage {
    runtime: Runtime,
    store: Store,
    says: Canned,
}

type Says = (u16, HeaderMap, Bytes);

#[derive(Debug, Clone, Default)]
struct Canned(Arc<Mutex<Says>>);

static STAGE: LazyLock<Mutex<Stage>> = LazyLock::new(|| {
    let says = Canned::default();
    let config = Config::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .region(Region::new("us-east-1"))
        .credentials_provider(Credentials::new("id", "secret", None, None, "a fuzzer"))
        .retry_config(super::client::retries())
        .timeout_config(TimeoutConfig::disabled())
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
        .http_client(SharedHttpClient::new(says.clone()))
        .build();
    let clock = Arc::new(ManualClock::at(1_795_450_895_000));
    let store = Store { client: Client::from_conf(config), config: Arc::new(S3Config::new("bucket")), clock };
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    Mutex::new(Stage { runtime, store, says })
});

/// `data`: what was asked for (1 byte), the answer's status (2 bytes), how long its headers are (1 byte), the headers as
/// lines, and its body. Only a 2xx is a success; whatever else is no success of any kind, asks for a day at most, and is
/// shown in few words.
pub fn store_answers(data: &[u8]) {
    let [what, low, high, head, rest @ ..] = data else { return };
    let status = 200 + u16::from_le_bytes([*low, *high]) % 400;
    let (head, body) = rest.split_at(rest.len().min(usize::from(*head)));
    let stage = STAGE.lock().unwrap_or_else(PoisonError::into_inner);
    let Stage { runtime, store, says } = &*stage;
    *says.0.lock().unwrap_or_else(PoisonError::into_inner) =
        (status, crate::sinks::fuzzing::headers(head), Bytes::copy_from_slice(body));
    let format = S3Format::JsonLines(LinesCompression::None);
    let object = Object { key: "prefix/name.jsonl", format, timeout: LIMIT };
    let contents = Contents { first: 1, last: 2, count: 2, digest: "00".to_owned() };
    let upload = Upload { key: object.key.to_owned(), id: "upload".to_owned() };
    let answered = runtime.block_on(async {
        match what % 7 {
            0 => store.put(object, &contents, Bytes::from_static(b"line\n")).await,
            1 => store.look(object).await.map(|metadata| {
                let bytes: usize = metadata.iter().map(|(name, value)| name.len() + value.len()).sum();
                assert!(bytes <= data.len(), "metadata is what the headers say");
            }),
            2 => store.begin(object, &contents).await.map(|upload| assert!(upload.id.len() <= data.len())),
            3 => store.part(&upload, 1, Bytes::from_static(b"line\n"), LIMIT).await.map(drop),
            4 => store.complete(&upload, Vec::new(), LIMIT).await,
            5 => store.abort(&upload, LIMIT).await,
            _ => store.unfinished("prefix/", None, LIMIT).await.map(|(uploads, _)| {
                let bytes: usize = uploads.iter().map(|upload| upload.key.len() + upload.id.len()).sum();
                assert!(uploads.len() <= data.len() && bytes <= data.len(), "uploads are what the body lists");
            }),
        }
    });
    let Err(trouble) = answered else { return assert!((200..300).contains(&status), "{status} is no success") };
    assert!(trouble.exists() == (trouble.status == Some(412)));
    assert!(trouble.status.is_none_or(|told| told == status));
    match &trouble.outcome {
        Outcome::Throttled { retry_after, .. } => assert!(retry_after.is_none_or(|wait| wait <= WAIT_MAX)),
        Outcome::Retry { .. } | Outcome::Refused { .. } | Outcome::TooLarge { .. } => {}
        other => panic!("{other:?} is nothing that a store says"),
    }
    if let Some(Failure::Status { words, .. }) = trouble.outcome.failure() {
        assert!(words.chars().count() <= SHOWN_CHARS_MAX && !words.chars().any(char::is_control), "{words:?}");
    }
}

impl HttpConnector for Canned {
    fn call(&self, _: HttpRequest) -> HttpConnectorFuture {
        let (status, headers, body) = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut response = Response::new(SdkBody::from(body));
        *response.status_mut() = hyper::StatusCode::from_u16(status).expect("200 to 599");
        *response.headers_mut() = headers;
        HttpConnectorFuture::ready(
            HttpResponse::try_from(response).map_err(|why| aws_sdk_s3::error::ConnectorError::user(why.into())),
        )
    }
}

impl HttpClient for Canned {
    fn http_connector(&self, _: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        SharedHttpConnector::new(self.clone())
    }
}
