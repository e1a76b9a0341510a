//! The one HTTP client of all sinks: posts bytes, brings back the answer. Judges no answer; that is the sink's part.
//!
//! What always holds: the whole exchange ends by its deadline; nothing is connected to but addresses that the
//! destination's guard has judged; no redirect is followed; of an answer's body at most
//! [`ANSWER_BYTES_MAX`] are read (unless a sink says otherwise), and a connection whose answer was not read to its end
//! is not used again. Each destination has connections of its own, made when it sends and dropped when it does not;
//! `connections` bounds those that all keep idle, `names` the threads that wait for a resolver.

mod connections;
mod connector;
mod names;
mod tls;
mod trusted;

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use bytes::buf::Chain;
use bytes::{Buf, Bytes};
use forebay::mutants::{self, Mutant};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{HeaderMap, HeaderValue, LOCATION, USER_AGENT};
use hyper::{Method, Request, StatusCode, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::ClientConfig;
use tokio::time::{Instant, timeout_at};

use crate::causes;
use crate::config::Endpoint;
use crate::delivery::outcome::Failure;
use crate::delivery::rate_hints;
use crate::delivery::sink::Told;
use crate::sinks::address_guard::AddressGuard;
use connections::{Connections, Note, User};
use connector::Guarded;
use tls::Over;

pub use connections::IDLE_MAX;
pub use tls::Tls;

/// More of an answer's body than this tells us nothing that we would act on.
pub const ANSWER_BYTES_MAX: usize = 64 << 10;

/// The head of an answer, and each line of it, must fit in this.
const HEAD_BYTES_MAX: usize = 64 << 10;

/// A peer that does not answer a SYN for this long is down; the rest of the deadline is better spent waiting.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Shorter than the 60 to 75 seconds after which common servers close, so that we seldom write to a closing one.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// Of a failed answer's body this many characters are shown to people.
const EXCERPT_CHARS_MAX: usize = 200;

/// Who we say we are.
const AGENT: &str = concat!("forebay/", env!("CARGO_PKG_VERSION"));

type Connector = HttpsConnector<Guarded>;

/// One destination's way over HTTP.
pub struct Http {
    endpoint: Endpoint,
    /// Most have that of an operator who allows nothing besides: none is kept for those.
    guard: Option<Box<AddressGuard>>,
    tls: Arc<Tls>,
    connections_max: u32,
    answer_bytes_max: u32,
    /// Made when it is first used, since most destinations of a large sidecar are idle.
    line: OnceLock<Box<Line>>,
}

/// What it takes to send.
struct Line {
    uri: Uri,
    wire: Arc<Wire>,
    /// What the last answer said that is still taken, until somebody asks.
    told: Mutex<Option<Told>>,
}

type HttpClient = Client<Connector, Full<Chain<Bytes, Bytes>>>;

/// Connections of one destination whose requests say themselves where they go: for protocols that sign their addresses.
pub struct Wire {
    /// Made when it is used, and dropped when it is not.
    client: Mutex<Option<Made>>,
    make: Box<dyn Fn(&ClientConfig) -> HttpClient + Send + Sync>,
    over: Over,
    connections: Arc<Connections>,
    note: Note,
    answer_bytes_max: usize,
}

/// A client, and the settings that it was made with.
struct Made {
    client: HttpClient,
    config: Arc<ClientConfig>,
}

/// A whole answer, or as much of it as came.
#[derive(Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body, up to [`ANSWER_BYTES_MAX`] or the sink's own limit; ends early if the rest did not come in time or not
    /// at all.
    pub body: Vec<u8>,
}

impl Http {
    /// A way to `endpoint`, which an operator has chosen, with at most `connections_max` idle connections kept. Does not
    /// connect yet.
    #[must_use]
    pub fn new(endpoint: &Endpoint, tls: Arc<Tls>, connections_max: u32) -> Self {
        Self::guarded(endpoint, AddressGuard::plain(), tls, connections_max)
    }

    /// A way to `endpoint` as far as it lies where `guard` lets it.
    #[must_use]
    pub fn guarded(endpoint: &Endpoint, guard: AddressGuard, tls: Arc<Tls>, connections_max: u32) -> Self {
        let guard = (!guard.is_plain()).then(|| Box::new(guard));
        let answer_bytes_max = ANSWER_BYTES_MAX as u32;
        Self { endpoint: endpoint.clone(), guard, tls, connections_max, answer_bytes_max, line: OnceLock::new() }
    }

    /// The same way, as far as it lies where `guard` lets it.
    #[must_use]
    pub fn behind(self, guard: AddressGuard) -> Self {
        Self { guard: (!guard.is_plain()).then(|| Box::new(guard)), ..self }
    }

    /// Reads more of an answer's body, for receivers whose answers have much to say.
    #[must_use]
    pub fn with_answers_up_to(self, answer_bytes_max: u32) -> Self {
        Self { answer_bytes_max, ..self }
    }

    /// Posts `body` once. An answer of any status is an answer.
    ///
    /// # Errors
    /// When no head of an answer came by the deadline. The peer may have had the request or not.
    pub async fn post(&self, headers: HeaderMap, body: Bytes, deadline: Instant) -> Result<Answer, Failure> {
        self.post_with_tail(headers, body, Bytes::new(), deadline).await
    }

    /// Posts `body` and behind it `tail`, as one body: so that what is shared by many requests is not copied for each.
    ///
    /// # Errors
    /// As [`Http::post`].
    pub async fn post_with_tail(
        &self,
        headers: HeaderMap,
        body: Bytes,
        tail: Bytes,
        deadline: Instant,
    ) -> Result<Answer, Failure> {
        let uri = self.line()?.uri.clone();
        self.exchange(uri, headers, body, tail, deadline).await
    }

    /// Posts `body` once to the address of `path` below the endpoint, which is a base without a query.
    ///
    /// # Errors
    /// As [`Http::post`].
    pub async fn post_below(
        &self,
        path: &str,
        headers: HeaderMap,
        body: Bytes,
        deadline: Instant,
    ) -> Result<Answer, Failure> {
        let uri = self.endpoint.below(path).map_err(|why| Failure::Local(format!("{path:?} is no path: {why}")))?;
        self.exchange(uri, headers, body, Bytes::new(), deadline).await
    }

    async fn exchange(
        &self,
        uri: Uri,
        headers: HeaderMap,
        body: Bytes,
        tail: Bytes,
        deadline: Instant,
    ) -> Result<Answer, Failure> {
        let line = self.line()?;
        let mut request = Request::new(Full::new(body.chain(tail)));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = uri;
        *request.headers_mut() = headers;
        request.headers_mut().entry(USER_AGENT).or_insert(HeaderValue::from_static(AGENT));
        line.wire.exchange(request, deadline).await
    }

    /// Takes path and query of the address out of an answer.
    pub(super) fn hide_place(&self, answer: &mut Answer) {
        if let Some(line) = self.line.get()
            && let Some(place) = line.uri.path_and_query()
            && place.as_str().len() > 1
        {
            answer.hide(place.as_str());
            answer.hide(place.query().unwrap_or_default());
        }
    }

    fn line(&self) -> Result<&Line, Failure> {
        if let Some(line) = self.line.get() {
            return Ok(line);
        }
        let uri = self.endpoint.uri();
        let over_tls = uri.scheme_str() == Some("https");
        let guard = self.guard.as_deref().cloned().unwrap_or_else(AddressGuard::plain);
        let wire = Wire::new(&self.tls, over_tls, guard, self.connections_max, self.answer_bytes_max)?;
        let wire = Arc::new(wire);
        Ok(self.line.get_or_init(|| Box::new(Line { uri, wire, told: Mutex::default() })))
    }

    /// Remembers what an answer, received at `now_ms` (milliseconds since 1970), says that the peer still takes.
    pub fn heed(&self, answer: &Answer, now_ms: u64) {
        let header = |name: &str| answer.headers.get(name).map(HeaderValue::as_bytes);
        let Some(allowance) = rate_hints::allowance(header, UNIX_EPOCH + Duration::from_millis(now_ms)) else { return };
        let told = Told { requests: allowance.requests, until: Instant::now() + allowance.resets_in };
        if let Some(line) = self.line.get() {
            *line.told.lock().unwrap_or_else(PoisonError::into_inner) = Some(told);
        }
    }

    /// What was remembered last; told once.
    #[must_use]
    pub fn allowance(&self) -> Option<Told> {
        self.line.get()?.told.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Wire {
    /// Connections to wherever `guard` lets them go, of which at most `connections_max` are kept idle. Does not connect
    /// yet.
    ///
    /// # Errors
    /// When requests go `over_tls` and there are no trusted certificates.
    pub fn new(
        tls: &Tls,
        over_tls: bool,
        guard: AddressGuard,
        connections_max: u32,
        answer_bytes_max: u32,
    ) -> Result<Self, Failure> {
        let over = tls.over(over_tls);
        // Known now rather than at the first request.
        over.config()?;
        let (connections, names, note) = (Arc::clone(&tls.connections), tls.names.clone(), Note::default());
        let counter = connections.counter(&note);
        let make = Box::new(move |config: &ClientConfig| {
            let tcp = Guarded::new(names.clone(), guard.clone(), counter.clone(), |tcp| {
                tcp.enforce_http(false);
                tcp.set_nodelay(true);
                tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
            });
            let connector = HttpsConnectorBuilder::new().with_tls_config(config.clone()).https_or_http().enable_http1();
            Client::builder(TokioExecutor::new())
                .pool_timer(TokioTimer::new())
                .pool_idle_timeout(IDLE_TIMEOUT)
                .pool_max_idle_per_host(connections_max as usize)
                .http1_max_buf_size(HEAD_BYTES_MAX)
                .build(connector.wrap_connector(tcp))
        });
        let answer_bytes_max = answer_bytes_max as usize;
        Ok(Self { client: Mutex::default(), make, over, connections, note, answer_bytes_max })
    }

    /// Sends a request as it is, once. An answer of any status is an answer.
    ///
    /// # Errors
    /// As [`Http::post`].
    pub async fn send(self: &Arc<Self>, request: Request<Bytes>, deadline: Instant) -> Result<Answer, Failure> {
        self.exchange(request.map(|body| Full::new(body.chain(Bytes::new()))), deadline).await
    }

    async fn exchange(
        self: &Arc<Self>,
        request: Request<Full<Chain<Bytes, Bytes>>>,
        deadline: Instant,
    ) -> Result<Answer, Failure> {
        let _use = self.connections.begin(self);
        let answer = match timeout_at(deadline, self.client()?.request(request)).await {
            Err(_) => return Err(Failure::Timeout),
            Ok(Err(why)) if why.is_connect() => return Err(Failure::Connect(causes::line(&why))),
            Ok(Err(why)) => return Err(Failure::Broken(causes::line(&why))),
            Ok(Ok(answer)) => answer,
        };
        let (head, incoming) = answer.into_parts();
        let endless = mutants::on(Mutant::AnswerReadWithoutEnd);
        let body = read(incoming, if endless { usize::MAX } else { self.answer_bytes_max }, deadline).await;
        Ok(Answer { status: head.status, headers: head.headers, body })
    }

    /// Made anew where it is not the one that the settings of now would make.
    fn client(&self) -> Result<HttpClient, Failure> {
        let config = self.over.config()?;
        let mut made = self.client.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(made) = made.as_ref().filter(|made| Arc::ptr_eq(&made.config, &config)) {
            return Ok(made.client.clone());
        }
        let client = (self.make)(&config);
        *made = Some(Made { client: client.clone(), config });
        Ok(client)
    }
}

impl User for Wire {
    fn note(&self) -> &Note {
        &self.note
    }

    fn close(&self) {
        let client = self.client.lock().unwrap_or_else(PoisonError::into_inner).take();
        // Its idle connections close with it; who is using one keeps that to the end.
        drop(client);
    }
}

impl std::fmt::Debug for Wire {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wire").field("note", &self.note).finish_non_exhaustive()
    }
}

impl Answer {
    /// How long it asks us to wait, counted from `now_ms`, its receipt, in milliseconds since 1970.
    #[must_use]
    pub fn wait(&self, now_ms: u64) -> Option<Duration> {
        let header = |name: &str| self.headers.get(name).map(HeaderValue::as_bytes);
        rate_hints::wait(self.status.as_u16(), header, UNIX_EPOCH + Duration::from_millis(now_ms))
    }

    /// Takes a secret out of what may be [shown](Self::failure), wherever the receiver repeats it: the body, and where it
    /// redirects to.
    pub fn hide(&mut self, secret: &str) {
        if mutants::on(Mutant::SecretShown) {
            return;
        }
        if let Some(shown) = without(&self.body, secret) {
            self.body = shown;
        }
        if let Some(location) = self.headers.get_mut(LOCATION)
            && let Some(shown) = without(location.as_bytes(), secret)
        {
            // It was a header's value before, and what it got is one.
            *location = HeaderValue::from_bytes(&shown).unwrap_or_else(|_| HeaderValue::from_static("[secret]"));
        }
    }

    /// What the answer says to people, if it is no success: its status, where it redirects to, and the start of its body in
    /// printable form.
    #[must_use]
    pub fn failure(&self) -> Failure {
        self.failure_in_words(self.redirects().unwrap_or_default())
    }

    /// The same, with words that the sink has for it.
    #[must_use]
    pub fn failure_in_words(&self, words: String) -> Failure {
        Failure::Status { status: self.status.as_u16(), words, excerpt: printable(&self.body) }
    }

    fn redirects(&self) -> Option<String> {
        let location = self.headers.get(LOCATION).filter(|_| self.status.is_redirection())?;
        Some(format!("redirects to {}; redirects are not followed", without_secret(location)))
    }
}

/// A text with a word in each place of a secret; `None` where it has none.
fn without(text: &[u8], secret: &str) -> Option<Vec<u8>> {
    if secret.is_empty() || memchr::memmem::find(text, secret.as_bytes()).is_none() {
        return None;
    }
    let (mut shown, mut rest) = (Vec::with_capacity(text.len()), text);
    while let Some(at) = memchr::memmem::find(rest, secret.as_bytes()) {
        shown.extend_from_slice(&rest[..at]);
        shown.extend_from_slice(b"[secret]");
        rest = &rest[at + secret.len()..];
    }
    shown.extend_from_slice(rest);
    Some(shown)
}

/// The body by the deadline; whatever is missing then stays missing. Dropping the rest closes the connection.
async fn read(mut incoming: Incoming, bytes_max: usize, deadline: Instant) -> Vec<u8> {
    let mut body = Vec::new();
    while let Ok(Some(Ok(frame))) = timeout_at(deadline, incoming.frame()).await {
        let Some(data) = frame.data_ref() else { continue };
        let room = bytes_max - body.len();
        body.extend_from_slice(&data[..data.len().min(room)]);
        if data.len() > room {
            break;
        }
    }
    body
}

/// Where a redirect leads, without its path and query: those of webhooks often are the password.
fn without_secret(location: &HeaderValue) -> String {
    let endpoint = location.to_str().ok().and_then(|text| Endpoint::parse(text).ok());
    endpoint.map_or_else(|| "another path".to_owned(), |endpoint| format!("{endpoint}/.."))
}

fn printable(bytes: &[u8]) -> String {
    let start = &bytes[..bytes.len().min(EXCERPT_CHARS_MAX * 4)];
    let text = String::from_utf8_lossy(start);
    text.trim().chars().take(EXCERPT_CHARS_MAX).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests;
