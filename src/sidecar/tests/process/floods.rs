//! Floods of HTTP/2 frames on the operators' API, from peers that never read: resets, settings, pings, streams, headers without
//! end, empty data. Memory stays under its bound, posts and deliveries go on meanwhile, and operators are answered.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::Duration;

use super::load::Load;
use super::proof::Arrived;
use super::receiver::Receiver;
use super::sidecar::{Home, wait_for};

/// Frames that one peer sends, unless it is cut off.
const FRAMES: u32 = 30_000;

/// Peers at a time: with a few operators they are below the limit of connections.
const PEERS: usize = 8;

/// What all floods together may cost. The dearest, calls whose answers nobody reads, took 9 to 10 MiB a peer: 32 calls and
/// their answers.
const GROWTH_MIB_MAX: usize = 16 * PEERS;

/// A peer that is not read from for so long is held back, which is as good as being cut off.
const HELD_BACK_AFTER: Duration = Duration::from_secs(2);

// Kinds of frames and their flags: RFC 9113, section 6.
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a frame is short").to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// The head of a call, packed as little as RFC 7541 allows: static names and plain values.
fn head() -> Vec<u8> {
    let path = "/forebay.v1.Cursors/ListLag";
    let mut head = vec![0x83, 0x86]; // POST, http
    for (name, value) in [(&[0x04][..], path), (&[0x01], "sidecar"), (&[0x0f, 0x10], "application/grpc")] {
        head.extend_from_slice(name);
        head.push(u8::try_from(value.len()).expect("short"));
        head.extend_from_slice(value.as_bytes());
    }
    head.extend_from_slice(b"\x00\x02te\x08trailers");
    head
}

/// A header of its own, of some size.
fn header(size: usize) -> Vec<u8> {
    let mut header = vec![0x00, 0x01, b'x', 0x7f];
    let mut rest = size.checked_sub(127).expect("larger than that");
    while rest >= 128 {
        header.push(u8::try_from(rest % 128 + 128).expect("seven bits"));
        rest /= 128;
    }
    header.push(u8::try_from(rest).expect("seven bits"));
    header.resize(header.len() + size, b'y');
    header
}

/// The nth stream that a client opens.
fn stream(n: u32) -> u32 {
    2 * n + 1
}

/// What is sent as often as it is taken: its name, and the frames of the nth time.
type Flood = (&'static str, fn(u32) -> Vec<u8>);

const FLOODS: [Flood; 8] = [
    ("streams that are reset at once", |n| {
        let call = frame(HEADERS, END_STREAM | END_HEADERS, stream(n), &head());
        [call, frame(RST_STREAM, 0, stream(n), &8u32.to_be_bytes())].concat()
    }),
    ("streams that are never ended", |n| frame(HEADERS, END_HEADERS, stream(n), &head())),
    ("calls whose answers nobody reads", |n| {
        [frame(HEADERS, END_HEADERS, stream(n), &head()), frame(DATA, END_STREAM, stream(n), &[0; 5])].concat()
    }),
    ("settings", |_| frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0xff, 0xff])),
    ("pings", |n| frame(PING, 0, 0, &[n.to_be_bytes(), n.to_be_bytes()].concat())),
    ("headers without end", |n| match n {
        0 => frame(HEADERS, 0, stream(0), &head()),
        _ => frame(CONTINUATION, 0, stream(0), &header(1_000)),
    }),
    ("large headers", |n| frame(HEADERS, END_STREAM | END_HEADERS, stream(n), &[head(), header(15_000)].concat())),
    ("empty data and windows", |n| match n {
        0 => frame(HEADERS, END_HEADERS, stream(0), &head()),
        _ => [frame(DATA, 0, stream(0), b""), frame(WINDOW_UPDATE, 0, stream(0), &1u32.to_be_bytes())].concat(),
    }),
];

/// How a peer fared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// All was taken.
    Taken,
    /// Nobody took any more.
    HeldBack,
    /// The connection was closed.
    CutOff,
}

/// One peer, who sends and never reads.
fn flood(home: &Home, frames: fn(u32) -> Vec<u8>) -> End {
    let mut peer = UnixStream::connect(home.path("grpc.sock")).expect("it listens");
    peer.set_write_timeout(Some(HELD_BACK_AFTER)).expect("a socket");
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend(frame(SETTINGS, 0, 0, b""));
    for n in 0..FRAMES {
        bytes.extend(frames(n));
        if bytes.len() >= 1 << 16 || n + 1 == FRAMES {
            match peer.write_all(&bytes) {
                Ok(()) => bytes.clear(),
                Err(why) if why.kind() == std::io::ErrorKind::WouldBlock => return End::HeldBack,
                Err(_) => return End::CutOff,
            }
        }
    }
    End::Taken
}

#[test]
fn floods_on_the_api_cost_bounded_memory_and_nobody_else_anything() {
    let receiver = Receiver::start();
    let home = Home::new("flooded").webhook("hook", &receiver, "batch_records_max = 100");
    let sidecar = home.start();
    let load = Load::start("flooded", 11, 2, home.ingest());
    assert!(wait_for(|| load.acknowledged() > 50 && receiver.count() > 10));
    sidecar.lags();
    let before = sidecar.resident_kib_max();
    let mut told = Vec::new();
    for (name, frames) in FLOODS {
        let (posts, batches) = (load.acknowledged(), receiver.count());
        let ends: Vec<End> = thread::scope(|scope| {
            let peers: Vec<_> = (0..PEERS).map(|_| scope.spawn(|| flood(&home, frames))).collect();
            // In the midst of it.
            sidecar.lags();
            peers.into_iter().map(|peer| peer.join().expect("a peer does not panic")).collect()
        });
        let goes_on = wait_for(|| load.acknowledged() > posts + 10 && receiver.count() > batches + 3);
        assert!(goes_on, "{name}: nothing goes on; it said:\n{}", sidecar.said());
        sidecar.lags();
        let grown = (sidecar.resident_kib_max() - before) >> 10;
        assert!(grown <= GROWTH_MIB_MAX, "{name}: {grown} MiB more");
        let count = |end| ends.iter().filter(|found| **found == end).count();
        told.push(format!(
            "{name}: {} cut off, {} held back, {} taken whole; {grown} MiB",
            count(End::CutOff),
            count(End::HeldBack),
            count(End::Taken)
        ));
    }
    let posts = load.stop();
    sidecar.drain(&["hook"]);
    Arrived::at_webhook(&receiver.arrivals()).holds(&posts, "hook");
    eprintln!("{PEERS} peers of {FRAMES} frames each, of\n{}", told.join("\n"));
}
