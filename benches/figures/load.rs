//! The world around the sidecar in the figures: senders that post like SDKs, a receiver that takes everything, and the
//! real binary as a process of its own, whose CPU and memory the kernel counts.
//!
//! Threads and plain sockets: the harness must cost less than what it measures.

use forebay::clock::{Clock, SystemClock};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

pub(crate) const SDK_KEY: &str = "figures-sdk-key";

/// When impressions were made, unless they say.
const MADE: &str = "1795450894053";

/// A server that reads requests whole and answers 200 with nothing.
pub(crate) struct Receiver {
    pub(crate) address: SocketAddr,
    /// Opening braces seen: in a webhook's body one for each impression.
    pub(crate) objects: Arc<AtomicU64>,
}

/// What a receiver does with a body.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reads {
    /// Nothing: it steps over the bytes.
    Nothing,
    /// It counts the objects in it, so that "delivered" is the receiver's own word, and does not ask whether they are any.
    Braces,
    /// It has the whole body checked by serde_json, which keeps nothing, and counts the objects: the least that lets a
    /// receiver say 200 to JSON and mean it.
    Json,
}

impl Receiver {
    /// Runs until the process ends; its threads are few and end with their connections.
    pub(crate) fn start(reads: Reads) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
        let receiver = Self { address: listener.local_addr().expect("bound"), objects: Arc::default() };
        let objects = Arc::clone(&receiver.objects);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let objects = Arc::clone(&objects);
                std::thread::spawn(move || {
                    // A connection that ends is how each of them ends.
                    let _ = serve(stream, reads, &objects);
                });
            }
        });
        receiver
    }
}

/// An address of this machine at which nobody listens.
pub(crate) fn nowhere() -> SocketAddr {
    let [port] = free_ports();
    port
}

fn serve(stream: TcpStream, reads: Reads, objects: &AtomicU64) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut out = stream.try_clone()?;
    let mut input = BufReader::with_capacity(256 << 10, stream);
    let mut body = Vec::new();
    while let Some(bytes) = head(&mut input)? {
        let seen = match reads {
            Reads::Nothing => take(&mut input, bytes, |_| 0)?,
            Reads::Braces => take(&mut input, bytes, braces)?,
            Reads::Json => {
                body.resize(bytes, 0);
                input.read_exact(&mut body)?;
                serde_json::from_slice::<serde::de::IgnoredAny>(&body).expect("what is sent is JSON");
                braces(&body)
            }
        };
        objects.fetch_add(seen, Ordering::Relaxed);
        out.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")?;
    }
    Ok(())
}

fn braces(bytes: &[u8]) -> u64 {
    memchr::memchr_iter(b'{', bytes).count() as u64
}

/// Reads a head; returns the body's length, or `None` at the end of the connection.
fn head(input: &mut impl BufRead) -> io::Result<Option<usize>> {
    let mut line = Vec::with_capacity(128);
    let mut length = 0;
    let mut lines = 0;
    loop {
        line.clear();
        if input.read_until(b'\n', &mut line)? == 0 {
            return Ok(None);
        }
        if line == b"\r\n" && lines > 0 {
            return Ok(Some(length));
        }
        lines += 1;
        let text = line.to_ascii_lowercase();
        if let Some(value) = text.strip_prefix(b"content-length:") {
            length = String::from_utf8_lossy(value).trim().parse().map_err(io::Error::other)?;
        }
    }
}

/// Reads a body piece by piece; returns what they come to.
fn take(input: &mut impl BufRead, mut bytes: usize, count: impl Fn(&[u8]) -> u64) -> io::Result<u64> {
    let mut counted = 0;
    while bytes > 0 {
        let buffer = input.fill_buf()?;
        let n = buffer.len().min(bytes);
        if n == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        counted += count(&buffer[..n]);
        input.consume(n);
        bytes -= n;
    }
    Ok(counted)
}

/// What senders did.
#[derive(Default)]
pub(crate) struct Sent {
    pub(crate) requests: u64,
    pub(crate) refused: u64,
    pub(crate) seconds: f64,
    /// Time of each answer, in seconds.
    pub(crate) latencies: Vec<f64>,
}

/// Under which keys senders post: one after the other.
pub(crate) struct Keys {
    /// The n-th, as long as [`SDK_KEY`].
    pub(crate) of: fn(usize) -> String,
    pub(crate) first: usize,
    pub(crate) count: usize,
    /// Impressions say when they are sent, instead of the same moment always.
    pub(crate) timed: bool,
}

impl Keys {
    fn at(&self, turn: usize) -> String {
        (self.of)((self.first + turn) % self.count)
    }
}

/// How senders post.
#[derive(Clone, Copy)]
pub(crate) struct Load {
    pub(crate) connections: usize,
    pub(crate) impressions: usize,
    pub(crate) time: Duration,
    /// Requests a second over all connections; as fast as answers come where there is none.
    pub(crate) rate: Option<f64>,
}

impl Load {
    /// Posts to `address` for the time given, one request at a time on each connection.
    pub(crate) fn run(self, address: SocketAddr) -> Sent {
        self.run_with(address, Keys { of: |_| SDK_KEY.to_owned(), first: 0, count: 1, timed: false })
    }

    /// The same under these keys.
    pub(crate) fn run_with(self, address: SocketAddr, keys: Keys) -> Sent {
        let request: Arc<[u8]> = request(self.impressions).into();
        let place = memchr::memmem::find(&request, SDK_KEY.as_bytes()).expect("it says who sends");
        let times: Arc<[usize]> = memchr::memmem::find_iter(&request, MADE).collect();
        let (keys, turns) = (Arc::new(keys), Arc::new(AtomicU64::new(0)));
        let clock = Arc::new(SystemClock::new());
        let stop = Arc::new(AtomicBool::new(false));
        let senders: Vec<JoinHandle<Sent>> = (0..self.connections)
            .map(|i| {
                let (request, clock, stop) = (Arc::clone(&request), Arc::clone(&clock), Arc::clone(&stop));
                let (keys, turns, times) = (Arc::clone(&keys), Arc::clone(&turns), Arc::clone(&times));
                std::thread::spawn(move || {
                    let mut request = request.to_vec();
                    let next = |request: &mut [u8]| {
                        if keys.count > 1 {
                            let key = keys.at(turns.fetch_add(1, Ordering::Relaxed) as usize);
                            request[place..place + SDK_KEY.len()].copy_from_slice(key.as_bytes());
                        }
                        if keys.timed {
                            let now = SystemClock::new().wall_ms().to_string();
                            times.iter().for_each(|at| request[*at..*at + MADE.len()].copy_from_slice(now.as_bytes()));
                        }
                    };
                    send(address, &mut request, next, self.pauses(i), &*clock, &stop).expect("the server stays")
                })
            })
            .collect();
        std::thread::sleep(self.time);
        stop.store(true, Ordering::Relaxed);
        let mut all = Sent::default();
        for sender in senders {
            let one = sender.join().expect("no panic");
            all.requests += one.requests;
            all.refused += one.refused;
            all.latencies.extend(one.latencies);
        }
        all.seconds = clock.monotonic().as_secs_f64();
        all
    }

    /// The start and the distance of this connection's requests.
    fn pauses(&self, i: usize) -> Option<(Duration, Duration)> {
        let every = Duration::from_secs_f64(self.connections as f64 / self.rate?);
        Some((every.mul_f64(i as f64 / self.connections as f64), every))
    }
}

fn send(
    address: SocketAddr,
    request: &mut [u8],
    next: impl Fn(&mut [u8]),
    pauses: Option<(Duration, Duration)>,
    clock: &dyn Clock,
    stop: &AtomicBool,
) -> io::Result<Sent> {
    let stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    let mut out = stream.try_clone()?;
    let mut input = BufReader::new(stream);
    let mut sent = Sent::default();
    let mut due = pauses.map(|(first, _)| first);
    while !stop.load(Ordering::Relaxed) {
        if let (Some(at), Some((_, every))) = (due, pauses) {
            std::thread::sleep(at.saturating_sub(clock.monotonic()));
            due = Some(at + every);
        }
        // From when it was due, so that a server that stalls pays for those that wait behind.
        let from = due.zip(pauses).map_or_else(|| clock.monotonic(), |(next, (_, every))| next - every);
        next(request);
        out.write_all(request)?;
        let status = status(&mut input)?;
        sent.latencies.push((clock.monotonic() - from).as_secs_f64());
        sent.requests += 1;
        sent.refused += u64::from(status / 100 != 2);
    }
    Ok(sent)
}

/// Reads an answer whole and says its status.
pub(crate) fn status(input: &mut impl BufRead) -> io::Result<u16> {
    let mut line = String::new();
    input.read_line(&mut line)?;
    let body = head(input)?.ok_or(io::ErrorKind::UnexpectedEof)?;
    take(input, body, |_| 0)?;
    line.get(9..12).and_then(|code| code.parse().ok()).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// A bulk as Node's SDK writes it.
pub(crate) fn request(impressions: usize) -> Vec<u8> {
    let mut groups: Vec<String> = Vec::new();
    for flag in 0..impressions.div_ceil(10) {
        let of_flag = (flag * 10..impressions.min(flag * 10 + 10))
            .map(|i| format!(r#"{{"k":"user-{i:06}","t":"on","m":{MADE},"c":1700000000001,"r":"default rule"}}"#));
        groups.push(format!(r#"{{"f":"exp_checkout_{flag}","i":[{}]}}"#, of_flag.collect::<Vec<_>>().join(",")));
    }
    let body = format!("[{}]", groups.join(","));
    let head = format!(
        "POST /api/testImpressions/bulk HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer {SDK_KEY}\r\n\
         content-type: application/json\r\nsplitsdkversion: nodejs-11.11.2\r\nsplitsdkmachinename: bench\r\n\
         splitsdkmachineip: 10.0.0.1\r\nsplitsdkimpressionsmode: DEBUG\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    [head.into_bytes(), body.into_bytes()].concat()
}

/// The real binary.
pub(crate) struct Sidecar {
    child: Child,
    pub(crate) ingest: SocketAddr,
    admin: SocketAddr,
    /// From its start until it was ready.
    pub(crate) started_seconds: f64,
    dir: tempfile::TempDir,
}

impl Sidecar {
    /// Starts it with these `[[destinations]]` and waits until it is ready.
    pub(crate) fn start(destinations: &str) -> Self {
        Self::start_as(command(), destinations)
    }

    /// Starts it by this command, to which the configuration's path is added.
    pub(crate) fn start_as(command: Command, destinations: &str) -> Self {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory on the disk under test");
        Self::start_on(command, dir, destinations)
    }

    /// The same in a directory where there is a data directory, `data`, already.
    pub(crate) fn start_on(command: Command, dir: tempfile::TempDir, destinations: &str) -> Self {
        Self::start_with(command, dir, "", destinations)
    }

    /// The same with these lines in `[log]`.
    pub(crate) fn start_with(command: Command, dir: tempfile::TempDir, log: &str, destinations: &str) -> Self {
        let [ingest, admin, grpc] = free_ports();
        let config = format!(
            "data_dir = \"data\"\n[ingest]\nlisten = \"{ingest}\"\n[admin]\nlisten = \"{admin}\"\n[grpc]\nlisten = \"{grpc}\"\n\
             [log]\nreplay_window = \"0s\"\n{log}\
             [[environments]]\nid = \"bench\"\nname = \"bench\"\nsdk_keys = [\"env:FIGURES_SDK_KEY\"]\n{destinations}"
        );
        write(&dir.path().join("forebay.toml"), &config);
        Self::start_in(command, dir, ingest, admin)
    }

    fn start_in(mut command: Command, dir: tempfile::TempDir, ingest: SocketAddr, admin: SocketAddr) -> Self {
        let clock = SystemClock::new();
        let path = dir.path().join("forebay.toml");
        let quiet = command.arg(&path).env("FOREBAY_LOG", "error").env("FIGURES_SDK_KEY", SDK_KEY);
        let child = quiet.stdout(Stdio::null()).spawn().expect("the binary starts");
        let mut sidecar = Self { child, ingest, admin, started_seconds: 0.0, dir };
        for _ in 0..2000 {
            if sidecar.page("/readyz").is_some_and(|page| page.starts_with("HTTP/1.1 200")) {
                sidecar.started_seconds = clock.monotonic().as_secs_f64();
                std::thread::sleep(Duration::from_secs(1)); // housekeeping takes its room ahead
                return sidecar;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("the sidecar does not become ready");
    }

    /// Kills it, and starts another by this command on what it left behind.
    pub(crate) fn again(mut self, command: Command) -> Self {
        self.stop();
        let empty = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
        let dir = std::mem::replace(&mut self.dir, empty);
        Self::start_in(command, dir, self.ingest, self.admin)
    }

    fn stop(&mut self) {
        // What it leaves behind goes with its directory.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Waits until nothing is pending.
    pub(crate) fn drain(&self) {
        while self.metric("forebay_lag_records") > 0.0 {
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The sum of a metric over its labels.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let page = self.page("/metrics").expect("the sidecar runs");
        let of_name = page
            .lines()
            .filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with('{') || rest.starts_with(' ')));
        of_name.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    fn page(&self, path: &str) -> Option<String> {
        let mut stream = TcpStream::connect(self.admin).ok()?;
        write!(stream, "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").ok()?;
        let mut page = String::new();
        stream.read_to_string(&mut page).ok()?;
        Some(page)
    }

    /// CPU seconds that the process has used, user and system.
    pub(crate) fn cpu_seconds(&self) -> f64 {
        cpu_seconds(&self.child.id().to_string())
    }

    /// Resident memory in MB: the most so far, and now.
    pub(crate) fn memory_mb(&self) -> (f64, f64) {
        memory_mb(&self.child.id().to_string())
    }
}

/// CPU seconds that a process (`self`, or its number) has used, user and system.
pub(crate) fn cpu_seconds(process: &str) -> f64 {
    let stat = read(Path::new(&format!("/proc/{process}/stat")));
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
    let ticks = |i: usize| fields[i].parse::<f64>().expect("a number");
    (ticks(11) + ticks(12)) / 100.0 // USER_HZ is 100 on Linux, whatever the kernel's own tick
}

/// Resident memory of a process in MB: the most so far, and now.
pub(crate) fn memory_mb(process: &str) -> (f64, f64) {
    let status = read(Path::new(&format!("/proc/{process}/status")));
    let kb = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).expect("the kernel tells it");
        line.split_whitespace().nth(1).and_then(|kb| kb.parse::<f64>().ok()).expect("a number")
    };
    (kb("VmHWM:") / 1024.0, kb("VmRSS:") / 1024.0)
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The binary under test.
pub(crate) fn command() -> Command {
    let binary = std::env::var_os("FIGURES_BINARY").unwrap_or_else(|| env!("CARGO_BIN_EXE_forebay").into());
    let mut command = Command::new(binary);
    command.args(["run", "--config"]);
    command
}

/// A `[[destinations]]` table for a webhook at this address.
pub(crate) fn webhook(id: &str, address: SocketAddr, compression: &str) -> String {
    webhook_of("bench", id, address, compression)
}

/// The same for another environment.
pub(crate) fn webhook_of(environment: &str, id: &str, address: SocketAddr, compression: &str) -> String {
    format!(
        "[[destinations]]\nid = \"{id}\"\nenvironments = [\"{environment}\"]\ntype = \"webhook\"\nurl = \"http://{address}/\"\n\
         compression = \"{compression}\"\n"
    )
}

/// Waits until it is so, or for as long as that.
pub(crate) fn wait_until(patience: Duration, is_so: impl Fn() -> bool) {
    let clock = SystemClock::new();
    while !is_so() && clock.monotonic() < patience {
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// All of them are held until the last is found: one that was let go may be had again.
fn free_ports<const N: usize>() -> [SocketAddr; N] {
    let held = [(); N].map(|()| TcpListener::bind("127.0.0.1:0").expect("loopback"));
    held.each_ref().map(|listener| listener.local_addr().expect("bound"))
}

#[expect(clippy::disallowed_methods, reason = "the harness is no part of the house")]
fn write(path: &Path, text: &str) {
    std::fs::write(path, text).expect("writes");
}

#[expect(clippy::disallowed_methods, reason = "the harness is no part of the house")]
fn read(path: &Path) -> String {
    std::fs::read_to_string(path).expect("the kernel tells it")
}
