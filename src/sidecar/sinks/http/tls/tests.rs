//! A receiver on loopback that speaks TLS and may demand a client's certificate. All certificates are made here.

use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Mutex;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use forebay::clock::ManualClock;
use hyper::HeaderMap;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use rustls::server::WebPkiClientVerifier;
use tokio::io::{AsyncWriteExt, copy, sink};
use tokio::net::TcpListener;
use tokio::time::Instant;
use tokio_rustls::{LazyConfigAcceptor, TlsAcceptor};

use super::*;
use crate::config::{Endpoint, WebhookConfig};
use crate::delivery::outcome::Outcome;
use crate::delivery::sink::Sink;
use crate::sinks::address_guard::AddressPolicy;
use crate::sinks::http::Http;
use crate::sinks::receiver::whole_request;
use crate::sinks::sample::job;
use crate::sinks::webhook::Webhook;

/// Who vouches for others.
struct Authority {
    pem: String,
    der: rustls::pki_types::CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate as PEM, and its key as PEM and as it is.
struct Leaf {
    pem: String,
    der: rustls::pki_types::CertificateDer<'static>,
    key_pem: String,
    key: PrivateKeyDer<'static>,
}

fn pem(label: &str, der: &[u8]) -> String {
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der))
}

fn authority() -> Authority {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let der = params.self_signed(&key).unwrap().der().clone();
    Authority { pem: pem("CERTIFICATE", &der), der, issuer: Issuer::new(params, key) }
}

/// Years in which a certificate is good: now, before, and later.
const NOW: Range<i32> = 1975..4000;
const EXPIRED: Range<i32> = 1999..2001;
const FUTURE: Range<i32> = 3000..4000;

fn leaf(authority: &Authority, name: &str) -> Leaf {
    leaf_of(authority, name, NOW)
}

fn leaf_of(authority: &Authority, name: &str, years: Range<i32>) -> Leaf {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    (params.not_before, params.not_after) = (date_time_ymd(years.start, 1, 1), date_time_ymd(years.end, 1, 1));
    let der = params.signed_by(&key, &authority.issuer).unwrap().der().clone();
    let key_der = key.serialize_der();
    let key_pem = pem("PRIVATE KEY", &key_der);
    Leaf { pem: pem("CERTIFICATE", &der), der, key_pem, key: PrivateKeyDer::Pkcs8(key_der.into()) }
}

const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok";

/// Serves over TLS whom `clients` vouches for, and nobody else.
async fn receiver(server: Leaf, clients: &Authority) -> SocketAddr {
    receiver_of(server, Some(clients), OK, true).await.0
}

/// Serves over TLS, whom `clients` vouches for if there are any: reads a request, writes this, and ends with a word of farewell
/// or without one. And all that it ever read.
async fn receiver_of(
    server: Leaf,
    clients: Option<&Authority>,
    answer: &'static [u8],
    farewell: bool,
) -> (SocketAddr, Arc<Mutex<Vec<u8>>>) {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config =
        ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions().unwrap();
    let config = match clients {
        None => config.with_no_client_auth(),
        Some(clients) => {
            let mut roots = RootCertStore::empty();
            roots.add(clients.der.clone()).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
            config.with_client_cert_verifier(verifier)
        }
    };
    let acceptor = TlsAcceptor::from(Arc::new(config.with_single_cert(vec![server.der], server.key).unwrap()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (addr, read) = (listener.local_addr().unwrap(), Arc::<Mutex<Vec<u8>>>::default());
    let noted = Arc::clone(&read);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let mut stream = match acceptor.accept(stream).into_fallible().await {
                Ok(stream) => stream,
                Err((_, mut stream)) => {
                    // Bytes that nobody reads would have the system take back what was said last.
                    let _ = copy(&mut stream, &mut sink()).await;
                    continue;
                }
            };
            let request = whole_request(&mut stream).await;
            noted.lock().unwrap().extend(request);
            let _ = stream.write_all(answer).await;
            let _ = stream.flush().await;
            if farewell {
                let _ = stream.shutdown().await;
            }
        }
    });
    (addr, read)
}

async fn post(addr: SocketAddr, own: TlsSettings) -> Result<Vec<u8>, Failure> {
    let endpoint = Endpoint::parse(&format!("https://{addr}/hook")).unwrap();
    let http = Http::new(&endpoint, Arc::new(Tls::of(own, &Tls::default())), 4);
    let deadline = Instant::now() + Duration::from_secs(20);
    http.post(HeaderMap::new(), Bytes::from_static(b"[]"), deadline).await.map(|answer| answer.body)
}

#[tokio::test]
async fn the_right_certificate_opens_and_any_other_does_not() {
    let (servers, clients, strangers) = (authority(), authority(), authority());
    let addr = receiver(leaf(&servers, "127.0.0.1"), &clients).await;
    let known = leaf(&clients, "acme");
    let settings = |leaf: &Leaf| TlsSettings::read(Some((&leaf.pem, &leaf.key_pem)), Some(&servers.pem)).unwrap();
    assert_eq!(post(addr, settings(&known)).await.unwrap(), b"ok");

    assert!(post(addr, settings(&leaf(&strangers, "acme"))).await.is_err(), "another authority's");
    assert!(post(addr, TlsSettings::read(None, Some(&servers.pem)).unwrap()).await.is_err(), "none at all");
    let error = post(addr, TlsSettings::read(Some((&known.pem, &known.key_pem)), Some(&strangers.pem)).unwrap()).await;
    let Err(Failure::Connect(why)) = error else { panic!("a receiver that nobody vouches for: {error:?}") };
    assert!(why.contains("certificate"), "{why}");
}

/// Whoever speaks HTTP/2 alone has no say: its GOAWAYs, resets and windows reach nobody.
#[tokio::test]
async fn nothing_but_http_1_1_is_offered() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let heard = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let hello = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), stream).await.unwrap();
        let offered = hello.client_hello().alpn();
        offered.map(|names| names.map(<[u8]>::to_vec).collect::<Vec<_>>())
    });
    let own = TlsSettings::read(None, Some(&authority().pem)).unwrap();
    assert!(post(addr, own).await.is_err(), "the handshake does not go on");
    let offered = heard.await.unwrap().unwrap_or_default();
    assert!(offered.iter().all(|name| name == b"http/1.1"), "{offered:?}");
}

/// What becomes of a batch that a webhook of these settings sends there.
async fn delivered(addr: SocketAddr, tls: TlsSettings) -> Outcome {
    let url = Endpoint::parse(&format!("https://{addr}/hook")).unwrap();
    let config = WebhookConfig { tls, ..WebhookConfig::new(url) };
    let clock = Arc::new(ManualClock::at(784_111_777_000));
    let webhook = Webhook::new(&config, AddressPolicy::Operator, 1, Arc::default(), clock);
    let encoded = webhook.encode(&job(0..5)).unwrap();
    webhook.send(&encoded, "a-batch", Instant::now() + Duration::from_secs(20)).await
}

#[tokio::test]
async fn a_webhook_shows_the_certificate_that_its_settings_name() {
    let (servers, clients) = (authority(), authority());
    let addr = receiver(leaf(&servers, "127.0.0.1"), &clients).await;
    let known = leaf(&clients, "acme");
    let pair = Some((&*known.pem, &*known.key_pem));
    for (own, taken) in [(pair, true), (None, false)] {
        let outcome = delivered(addr, TlsSettings::read(own, Some(&servers.pem)).unwrap()).await;
        assert_eq!(outcome == Outcome::Delivered, taken, "{outcome:?}");
        assert!(taken || matches!(outcome, Outcome::Retry { .. }), "{outcome:?}");
    }
}

#[tokio::test]
async fn a_receiver_whose_certificate_is_out_of_date_is_told_nothing_and_the_batch_waits() {
    let servers = authority();
    for (years, why) in [(EXPIRED, Some("expired")), (FUTURE, Some("not valid yet")), (NOW, None)] {
        let (addr, read) = receiver_of(leaf_of(&servers, "127.0.0.1", years), None, OK, true).await;
        let outcome = delivered(addr, TlsSettings::read(None, Some(&servers.pem)).unwrap()).await;
        assert_eq!(read.lock().unwrap().is_empty(), why.is_some(), "{why:?}");
        match (outcome, why) {
            (Outcome::Delivered, None) => {}
            (Outcome::Retry { why: Failure::Connect(told) }, Some(why)) => {
                assert!(told.contains("certificate") && told.contains(why), "{told}");
            }
            (outcome, _) => panic!("{why:?}: {outcome:?}"),
        }
    }
}

/// With TLS 1.3 whoever shows a certificate hears only after it has sent a request what is thought of that. Nobody reads it.
#[tokio::test]
async fn who_shows_a_certificate_that_is_out_of_date_is_not_read_and_the_batch_waits() {
    let (servers, clients) = (authority(), authority());
    for years in [EXPIRED, FUTURE] {
        let (addr, read) = receiver_of(leaf(&servers, "127.0.0.1"), Some(&clients), OK, true).await;
        let own = leaf_of(&clients, "acme", years);
        let settings = TlsSettings::read(Some((&own.pem, &own.key_pem)), Some(&servers.pem)).unwrap();
        let outcome = delivered(addr, settings).await;
        assert!(read.lock().unwrap().is_empty());
        let Outcome::Retry { why: Failure::Connect(told) | Failure::Broken(told) } = outcome else {
            panic!("{outcome:?}");
        };
        assert!(told.to_lowercase().contains("certificate"), "{told}");
    }
}

/// An end that nobody vouches for may be anybody's: what is not there by then never was said.
#[tokio::test]
async fn an_end_without_a_farewell_is_no_answer_unless_all_of_it_is_there() {
    let servers = authority();
    for (answer, taken) in [(&b""[..], false), (b"HTTP/1.1 200 OK\r\ncontent-len", false), (OK, true)] {
        let (addr, read) = receiver_of(leaf(&servers, "127.0.0.1"), None, answer, false).await;
        let outcome = delivered(addr, TlsSettings::read(None, Some(&servers.pem)).unwrap()).await;
        assert!(!read.lock().unwrap().is_empty(), "the request came");
        match outcome {
            Outcome::Delivered => assert!(taken, "{answer:?}"),
            Outcome::Retry { why: Failure::Broken(told) } => assert!(!taken && told.contains("close_notify"), "{told}"),
            outcome => panic!("{answer:?}: {outcome:?}"),
        }
    }
}

#[tokio::test]
async fn a_receiver_under_another_name_is_not_talked_to() {
    let (servers, clients) = (authority(), authority());
    let addr = receiver(leaf(&servers, "hook.example.com"), &clients).await;
    let known = leaf(&clients, "acme");
    let own = TlsSettings::read(Some((&known.pem, &known.key_pem)), Some(&servers.pem)).unwrap();
    assert!(matches!(post(addr, own).await, Err(Failure::Connect(_))));
}

#[test]
fn a_key_that_belongs_to_another_certificate_is_found_at_once() {
    let clients = authority();
    let (one, other) = (leaf(&clients, "one"), leaf(&clients, "other"));
    assert!(TlsSettings::read(Some((&one.pem, &other.key_pem)), None).is_err());
    assert!(TlsSettings::read(Some((&one.key_pem, &one.key_pem)), None).is_err());
    assert!(TlsSettings::read(Some((&one.pem, &one.pem)), None).is_err());
    assert!(TlsSettings::read(None, Some("")).is_err());
    let settings = TlsSettings::read(Some((&one.pem, &one.key_pem)), Some(&clients.pem)).unwrap();
    assert_eq!(format!("{settings:?}"), "TlsSettings { client: Some([secret]), authorities: 1 }");
}
