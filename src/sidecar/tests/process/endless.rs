//! Receivers whose answers come to no end, at many webhooks at a time: bodies and heads that drip or never stop. Memory stays
//! under its bound, posts go on, and a webhook beside them gets everything.

use std::io::{BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use super::load::Load;
use super::proof::Arrived;
use super::receiver::Receiver;
use super::sidecar::{Home, wait_for};
use super::wire::Message;

/// Webhooks at receivers of each kind.
const EACH: usize = 4;

/// Requests of one webhook at a time.
const CONCURRENCY: usize = 2;

/// Answers of each kind that begin before memory is looked at.
const BEGUN: usize = 3 * EACH;

/// What each connection may cost, in KiB: 64 of a head and of what is read ahead, 64 of a body, and as much for the rest.
const KIB_MAX: usize = 192;

/// What batches that wait to be sent again may take, by the configuration, and what goes on beside them.
const KIB_BESIDE: usize = (8 << 10) + (8 << 10);

/// How one answers: its name, how the answer begins, what follows for ever, and how often.
type Endless = (&'static str, &'static [u8], &'static [u8], Duration);

const AT_ONCE: Duration = Duration::ZERO;
const DRIP: Duration = Duration::from_millis(20);
const LETTERS: &[u8] = &[b'x'; 1 << 16];

/// One of 4 KiB.
const CHUNK: &[u8] = &{
    let mut chunk = [b'x'; 6 + 0x1000 + 2];
    [chunk[0], chunk[1], chunk[2], chunk[3], chunk[4], chunk[5]] = *b"1000\r\n";
    [chunk[6 + 0x1000], chunk[7 + 0x1000]] = *b"\r\n";
    chunk
};

const KINDS: [Endless; 8] = [
    ("a body that drips", b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n", b"x", DRIP),
    ("a body", b"HTTP/1.1 503 No\r\ncontent-length: 1000000000000\r\n\r\n", LETTERS, AT_ONCE),
    ("a body that ends with its connection", b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n", LETTERS, AT_ONCE),
    ("chunks", b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", CHUNK, AT_ONCE),
    ("a header line", b"HTTP/1.1 200 OK\r\nx-long: ", LETTERS, AT_ONCE),
    ("header lines", b"HTTP/1.1 200 OK\r\n", b"x-more: y\r\n", AT_ONCE),
    ("header lines that drip", b"HTTP/1.1 200 OK\r\n", b"x-more: y\r\n", DRIP),
    ("heads before the head", b"", b"HTTP/1.1 103 Early Hints\r\n\r\n", DRIP),
];

/// A receiver of a kind: where it listens, and how many of its answers it has begun. It answers properly until it is let loose.
fn receiver(kind: Endless, loose: &Arc<AtomicBool>) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("there are ports");
    let (address, begun) = (listener.local_addr().expect("it has one"), Arc::<AtomicUsize>::default());
    let (loose, counted) = (Arc::clone(loose), Arc::clone(&begun));
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (Ok(stream), loose, begun) = (stream, Arc::clone(&loose), Arc::clone(&counted)) else { continue };
            thread::spawn(move || converse(stream, kind, &loose, &begun));
        }
    });
    (address, begun)
}

/// One connection, which ends when the other side ends it.
fn converse(mut stream: TcpStream, (_, head, more, pause): Endless, loose: &AtomicBool, begun: &AtomicUsize) {
    let Ok(reader) = stream.try_clone() else { return };
    let mut reader = BufReader::new(reader);
    // As much at a time as a socket takes, unless it drips.
    let more = if pause == AT_ONCE { more.repeat(LETTERS.len() / more.len()) } else { more.to_vec() };
    while let Ok(Some(_)) = Message::read(&mut reader) {
        if !loose.load(Ordering::SeqCst) {
            let answered = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
            if answered.is_err() {
                return;
            }
            continue;
        }
        begun.fetch_add(1, Ordering::SeqCst);
        let mut taken = stream.write_all(head);
        while taken.is_ok() {
            thread::sleep(pause);
            taken = stream.write_all(&more);
        }
        return;
    }
}

#[test]
fn answers_without_end_at_many_webhooks_cost_bounded_memory_and_nobody_else_anything() {
    let (healthy, loose) = (Receiver::start(), Arc::<AtomicBool>::default());
    let mut home = Home::new("endless")
        .setting("delivery.batch_memory_bytes = \"8MiB\"")
        .log("tail_cache_bytes = \"4MiB\"")
        .webhook("healthy", &healthy, "batch_records_max = 100");
    let mut begun = Vec::new();
    for (kind, endless) in KINDS.into_iter().enumerate() {
        // What never stops is cut off at once, not by a deadline.
        let timeout = if endless.3 == AT_ONCE { "60s" } else { "1s" };
        for n in 0..EACH {
            let (address, count) = receiver(endless, &loose);
            begun.push((endless.0, count));
            home = home.destination(
                &format!("endless-{kind}-{n}"),
                &format!(
                    "type = \"webhook\"\nurl = \"http://{address}/in\"\ntimeout = \"{timeout}\"\n\
                     batch_records_max = 100\n\
                     concurrency = {CONCURRENCY}"
                ),
            );
        }
    }
    let sidecar = home.start();
    let load = Load::start("endless", 17, 2, home.ingest());
    let goes_on = |when: &str| {
        let (posts, batches) = (load.acknowledged(), healthy.count());
        let goes_on = wait_for(|| load.acknowledged() > posts + 30 && healthy.count() > batches + 5);
        assert!(goes_on, "{when}: nothing goes on; it said:\n{}", sidecar.said());
    };
    goes_on("before");
    let before = sidecar.resident_kib_max();
    loose.store(true, Ordering::SeqCst);
    let of_kind = |name: &str| -> usize {
        begun.iter().filter(|(of, _)| *of == name).map(|(_, count)| count.load(Ordering::SeqCst)).sum()
    };
    let all = wait_for(|| KINDS.iter().all(|kind| of_kind(kind.0) >= BEGUN));
    let told = KINDS.map(|kind| format!("{}: {}", kind.0, of_kind(kind.0)));
    assert!(all, "{told:?}; it said:\n{}", sidecar.said());
    goes_on("beside them");
    let grown = sidecar.resident_kib_max() - before;
    let most = KIB_BESIDE + KINDS.len() * EACH * CONCURRENCY * KIB_MAX;
    assert!(grown <= most, "{grown} KiB more, of {most}: {told:?}");
    let posts = load.stop();
    sidecar.drain(&["healthy"]);
    Arrived::at_webhook(&healthy.arrivals()).holds(&posts, "healthy");
    eprintln!("answers without end, {}: {grown} KiB more, of {most}", told.join(", "));
}
