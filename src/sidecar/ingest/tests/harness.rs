//! A server that runs, a client that writes what it likes, and a look into the log behind.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use forebay::clock::SystemClock;
use forebay::{Item, Log, LogOptions};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::gated_disk::GatedDisk;
use crate::ingest::{Ended, EnvironmentSnapshot, Environments, Ingest, Limits, Refusal, serve};

/// The key of environment `prod`.
pub(super) const KEY: &str = "sidecar-test-sdk-key-0001";

/// A server for the environments `prod` (its second key is [`KEY`], its third the browser's of the captures) and `staging` (key `staging-key`).
pub(super) struct Running {
    pub(super) addr: SocketAddr,
    pub(super) ingest: Arc<Ingest>,
    pub(super) log: Log,
    stop: oneshot::Sender<()>,
    server: JoinHandle<Ended>,
}

/// What came back.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    head: String,
    pub(super) body: String,
}

pub(super) async fn start() -> Running {
    start_with(Limits::default()).await
}

pub(super) async fn start_with(limits: Limits) -> Running {
    start_on(log(), limits).await
}

pub(super) async fn start_on(log: Log, limits: Limits) -> Running {
    // Enough for what is asked of a stop, and less than what a connection may take that holds one up: five seconds, or ten.
    start_for(log, limits, Duration::from_secs(3)).await
}

/// One whose connections have so long when it stops.
pub(super) async fn start_for(log: Log, limits: Limits, grace: Duration) -> Running {
    let environments = Environments::new([
        ("prod".to_owned(), vec!["other-key", KEY, "browser-sdk-key-0001"]),
        ("staging".to_owned(), vec!["staging-key"]),
    ]);
    let ingest = Arc::new(Ingest::new(log.clone(), Arc::new(SystemClock::new()), environments.unwrap(), limits));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let stopped = async move {
        let _ = stopped.await;
    };
    let server = tokio::spawn(serve(listener, Arc::clone(&ingest), stopped, grace));
    Running { addr, ingest, log, stop, server }
}

impl Running {
    /// One request on a connection of its own.
    pub(super) async fn send(&self, request: impl AsRef<[u8]>) -> Reply {
        let mut stream = self.connect().await;
        stream.write_all(request.as_ref()).await.unwrap();
        read_reply(&mut stream).await.expect("an answer")
    }

    /// A bulk with [`KEY`].
    pub(super) async fn bulk(&self, body: impl AsRef<[u8]>) -> Reply {
        self.send(bulk(body)).await
    }

    pub(super) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.addr).await.unwrap()
    }

    pub(super) fn prod(&self) -> EnvironmentSnapshot {
        self.ingest.stats().snapshot().environments[0].clone()
    }

    /// How often `prod` was refused for this reason.
    pub(super) fn refused(&self, why: Refusal) -> u64 {
        count(&self.prod().refusals, why)
    }

    /// How often somebody unknown was.
    pub(super) fn strangers_refused(&self, why: Refusal) -> u64 {
        count(&self.ingest.stats().snapshot().strangers, why)
    }

    /// Records in a stream.
    pub(super) fn records(&self, stream: &str) -> u64 {
        frames(&self.log, stream).iter().map(|(_, records)| u64::from(*records)).sum()
    }

    /// Waits until a stream has as many records; for what goes on behind the answer.
    pub(super) async fn wait_for(&self, stream: &str, records: u64) {
        comes_to(records, || self.records(stream)).await;
    }

    pub(super) fn begin_stop(&mut self) {
        let (stop, _) = oneshot::channel();
        let _ = std::mem::replace(&mut self.stop, stop).send(());
    }

    pub(super) async fn stop(mut self) -> Ended {
        self.begin_stop();
        self.server.await.unwrap()
    }
}

/// Waits until a number is what it should be.
pub(super) async fn comes_to(wanted: u64, number: impl Fn() -> u64) {
    for _ in 0..6_000 {
        if number() == wanted {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{} and not {wanted}", number());
}

impl Reply {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    /// The `error` of a refusal.
    pub(super) fn error(&self) -> String {
        self.json()["error"].as_str().unwrap_or_else(|| panic!("{self:?}")).to_owned()
    }

    pub(super) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("{self:?}"))
    }
}

/// The next answer on a connection; `None` when it was closed instead.
pub(super) async fn read_reply(stream: &mut TcpStream) -> Option<Reply> {
    let mut bytes = Vec::new();
    let head_len = loop {
        if let Some(at) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
        let n = stream.read_buf(&mut bytes).await.ok()?;
        if n == 0 {
            return None;
        }
    };
    let head = String::from_utf8(bytes[..head_len].to_vec()).unwrap();
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let mut reply = Reply { status, head, body: String::new() };
    let len: usize = reply.header("content-length").map_or(0, |len| len.parse().unwrap());
    let mut body = bytes.split_off(head_len);
    while body.len() < len {
        let n = stream.read_buf(&mut body).await.ok()?;
        assert_ne!(n, 0, "closed inside an answer");
    }
    assert_eq!(body.len(), len, "one answer at a time");
    reply.body = String::from_utf8(body).unwrap();
    Some(reply)
}

pub(super) fn bulk(body: impl AsRef<[u8]>) -> Vec<u8> {
    post("/api/testImpressions/bulk", &[("Authorization", &format!("Bearer {KEY}"))], body)
}

pub(super) fn post(path: &str, headers: &[(&str, &str)], body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let mut request = format!("POST {path} HTTP/1.1\r\nHost: sidecar\r\nContent-Length: {}\r\n", body.len());
    for (name, value) in headers {
        request += &format!("{name}: {value}\r\n");
    }
    request += "\r\n";
    [request.as_bytes(), body].concat()
}

/// A body with `count` impressions, as Go sends it.
pub(super) fn impressions(count: usize) -> String {
    let one = |n| format!(r#"{{"k":"user-{n}","t":"on","m":{},"c":7,"r":"default rule"}}"#, 1_795_450_894_053_u64 + n);
    let all: Vec<_> = (0..count as u64).map(one).collect();
    format!(r#"[{{"f":"exp_checkout","i":[{}]}}]"#, all.join(","))
}

fn count(refusals: &[(Refusal, u64)], why: Refusal) -> u64 {
    refusals.iter().find(|(reason, _)| *reason == why).unwrap().1
}

/// A fresh log on a disk in memory.
pub(super) fn log() -> Log {
    log_on(&GatedDisk::new(), LogOptions::default())
}

pub(super) fn log_on(disk: &GatedDisk, options: LogOptions) -> Log {
    // Small files are quick to make in memory; the larger append gets one of its own.
    let options = LogOptions { segment_bytes: 1 << 20, prewrite: false, ..options };
    Log::open(Arc::new(disk.clone()), Arc::new(SystemClock::new()), "log".as_ref(), options).unwrap()
}

/// The payloads of a stream, with their records.
pub(super) fn frames(log: &Log, stream: &str) -> Vec<(Vec<u8>, u32)> {
    let Some(stream) = log.stream(stream) else { return Vec::new() };
    let mut reader = log.reader(stream, 0);
    let mut frames = Vec::new();
    while let Some(item) = reader.next().unwrap() {
        let Item::Frame(frame) = item else { panic!("{item:?}") };
        frames.push((frame.payload().to_vec(), frame.records));
    }
    frames
}
