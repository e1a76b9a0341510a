//! A store that speaks S3, for tests and figures: the crate `s3s-fs` over HTTP on loopback, with signatures and checksums
//! checked, and before it a hand that can make its answers fail.
#![allow(dead_code, reason = "each crate that takes this in uses a part of it")]

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::http::request::Parts;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use s3s::auth::SimpleAuth;
use s3s::host::SingleDomain;
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s_fs::FileSystem;
use tokio::net::TcpListener;

/// Whose signatures are taken.
pub(crate) const KEYS: (&str, &str) = ("AKIDEXAMPLE", "a secret of the tests");

/// What becomes of a request.
#[derive(Debug, Clone)]
pub(crate) enum Act {
    /// The store answers.
    Pass,
    /// The store hears nothing of it.
    Answer(Response<Full<Bytes>>),
    /// The same, so much later.
    Late(Duration, Response<Full<Bytes>>),
    /// The store does as it is asked, and this is what the client hears of it.
    Lose(Response<Full<Bytes>>),
    /// The connection ends within the body.
    Cut,
    /// The store does as it is asked, and the connection ends without a word.
    Hush,
    /// The store takes the request and never answers. A hand that blocks instead would hold a worker of the runtime, and
    /// with it what stands next on it, or the clock.
    Hang,
}

/// A request as it came.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) method: String,
    /// With the query.
    pub(crate) path: String,
    pub(crate) headers: Vec<(String, String)>,
}

impl Seen {
    fn of(head: &Parts) -> Self {
        let text = |value: &hyper::header::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        Self {
            method: head.method.to_string(),
            path: head.uri.path_and_query().map(ToString::to_string).unwrap_or_default(),
            headers: head.headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect(),
        }
    }

    /// The operation, as far as method and query tell.
    pub(crate) fn operation(&self) -> &'static str {
        let query = self.path.split_once('?').map_or("", |(_, query)| query);
        let has = |name: &str| query.split('&').any(|part| part.split('=').next() == Some(name));
        match self.method.as_str() {
            "PUT" if has("partNumber") => "part",
            "PUT" => "put",
            "POST" if has("uploads") => "begin",
            "POST" => "complete",
            "DELETE" => "abort",
            "HEAD" => "look",
            "GET" if has("uploads") => "list uploads",
            _ => "other",
        }
    }
}

/// A running store.
#[derive(Clone)]
pub(crate) struct Store {
    pub(crate) addr: SocketAddr,
    /// Where its buckets lie, as directories.
    pub(crate) root: PathBuf,
    pub(crate) seen: Arc<Mutex<Vec<Seen>>>,
}

impl Store {
    /// The operations that were asked for, in order.
    pub(crate) fn operations(&self) -> Vec<&'static str> {
        self.seen.lock().unwrap().iter().map(Seen::operation).collect()
    }

    pub(crate) fn forget(&self) {
        self.seen.lock().unwrap().clear();
    }
}

/// Starts a store in `root`. `act` says what becomes of each request.
pub(crate) async fn serve(root: &Path, act: impl Fn(&Seen) -> Act + Send + Sync + 'static) -> Store {
    serve_as(root, None, act).await
}

/// The same, whose buckets are hosts below `domain`, at its port.
pub(crate) async fn serve_as(
    root: &Path,
    domain: Option<&str>,
    act: impl Fn(&Seen) -> Act + Send + Sync + 'static,
) -> Store {
    let mut service = S3ServiceBuilder::new(FileSystem::new(root).unwrap());
    service.set_auth(SimpleAuth::from_single(KEYS.0, KEYS.1));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    if let Some(domain) = domain {
        service.set_host(SingleDomain::new(&format!("{domain}:{port}")).unwrap());
    }
    let service = service.build();
    let store = Store { addr: listener.local_addr().unwrap(), root: root.to_owned(), seen: Arc::default() };
    let (act, seen) = (Arc::new(act), Arc::clone(&store.seen));
    tokio::spawn(async move {
        loop {
            let Ok((stream, _)) = listener.accept().await else { continue };
            let (service, act, seen) = (service.clone(), Arc::clone(&act), Arc::clone(&seen));
            let answer = service_fn(move |request: Request<Incoming>| {
                let (service, act, seen) = (service.clone(), Arc::clone(&act), Arc::clone(&seen));
                async move {
                    let (head, body) = request.into_parts();
                    let saw = Seen::of(&head);
                    seen.lock().unwrap().push(saw.clone());
                    answer(&service, Request::from_parts(head, body), act(&saw)).await
                }
            });
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), answer));
        }
    });
    store
}

type Answer = Response<http_body_util::combinators::UnsyncBoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>>;

async fn answer(service: &S3Service, request: Request<Incoming>, act: Act) -> Result<Answer, std::io::Error> {
    let cut = || std::io::Error::other("the connection ends here");
    let own = |response: Response<Full<Bytes>>| {
        response.map(|body| body.map_err(|never: Infallible| match never {}).boxed_unsync())
    };
    match act {
        Act::Pass => pass(service, request).await,
        Act::Answer(response) => {
            let _ = request.into_body().collect().await;
            Ok(own(response))
        }
        Act::Late(wait, response) => {
            let _ = request.into_body().collect().await;
            tokio::time::sleep(wait).await;
            Ok(own(response))
        }
        Act::Lose(response) => {
            let _ = pass(service, request).await?.into_body().collect().await;
            Ok(own(response))
        }
        Act::Cut => {
            let _ = request.into_body().frame().await;
            Err(cut())
        }
        Act::Hush => {
            let _ = pass(service, request).await?.into_body().collect().await;
            Err(cut())
        }
        Act::Hang => {
            let _ = request.into_body().collect().await;
            std::future::pending().await
        }
    }
}

async fn pass(service: &S3Service, request: Request<Incoming>) -> Result<Answer, std::io::Error> {
    // On its own: a client that goes away would cut it off between an object and its metadata, which are two files here
    // and one thing in a real store.
    let service = service.clone();
    let answer = tokio::spawn(async move { service.call(request.map(s3s::Body::from)).await });
    let answer = answer.await.map_err(std::io::Error::other)?.map_err(|_| std::io::Error::other("no answer"))?;
    Ok(answer.map(|body| body.map_err(Into::into).boxed_unsync()))
}

/// An answer as S3 words it.
pub(crate) fn error(status: u16, code: &str, headers: &[(&str, &str)]) -> Response<Full<Bytes>> {
    let xml = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Error><Code>{code}</Code><Message>told to</Message></Error>"
    );
    let mut builder = Response::builder().status(status).header("content-type", "application/xml");
    for (name, value) in headers {
        builder = builder.header(*name, *value);
    }
    builder.body(Full::from(xml)).unwrap()
}
