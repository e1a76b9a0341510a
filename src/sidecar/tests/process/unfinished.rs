//! Senders that come to no end: heads that grow, bodies that stop half way, answers that nobody reads. Each costs so much
//! memory and no more, and whoever posts and is delivered to beside them notices nothing.

use std::io::{BufReader, Write};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use super::connections::{OPEN, begun, home, only_the_regular_one_is_left, others_go_on};
use super::load::{Fate, Post, request};
use super::proof::Arrived;
use super::receiver::Receiver;
use super::sidecar::{Home, wait_for};
use super::wire::Message;

/// Heads, half of which have many headers, and half a long address.
const HEADS: usize = 200;

/// Of a head that is not complete yet so much is taken: 32 KiB are its limit.
const HEAD_BYTES: usize = 31_000;

/// Bodies that stop half way.
const BODIES: usize = 100;

/// Senders that read no answer.
const UNREAD: usize = 16;

/// What each of them all may cost, in KiB: its buffer for reading, of 64, and one answer, or what came of a body.
const KIB_MAX: usize = 128;

/// And what goes on beside them may.
const KIB_BESIDE: usize = 16 << 10;

/// Who is not taken from for so long is held back.
const HELD_BACK_AFTER: Duration = Duration::from_secs(2);

/// Far more than the system keeps of what nobody reads.
const ROUNDS_MAX: usize = 20_000;

fn connect(home: &Home) -> TcpStream {
    TcpStream::connect(home.ingest()).expect("it listens")
}

/// One that asks again and again for answers as long as its questions, and reads none, until nothing more is taken of it.
fn unread(home: &Home) -> TcpStream {
    let mut stream = connect(home);
    stream.set_write_timeout(Some(HELD_BACK_AFTER)).expect("a socket");
    let question = format!(
        "OPTIONS /api/testImpressions/bulk HTTP/1.1\r\nhost: s\r\naccess-control-request-headers: {}\r\n\r\n",
        "x".repeat(16_000)
    );
    let held_back = (0..ROUNDS_MAX).any(|_| stream.write_all(question.as_bytes()).is_err());
    assert!(held_back, "it takes without end");
    stream
}

/// The first part of a head, below its limit, and more of the same above it.
fn head(n: usize) -> [String; 2] {
    let (first, more): (_, fn(usize) -> String) = if n.is_multiple_of(2) {
        ("GET /api/version HTTP/1.1\r\nhost: s\r\n", |n| format!("x-{n}: y\r\n"))
    } else {
        ("GET /api/version?", |n| format!("and-{n}=y&"))
    };
    let mut lines = (0..10_000).map(more);
    let mut below = first.to_owned();
    while below.len() < HEAD_BYTES {
        below.extend(lines.next());
    }
    [below, lines.collect()]
}

#[test]
fn heads_bodies_and_answers_without_end_cost_bounded_memory_and_nobody_else_anything() {
    let receiver = Receiver::start();
    let home = home(&receiver);
    let (sidecar, mut regular) = begun(&home);
    let (memory, descriptors) = (sidecar.resident_kib_max(), sidecar.descriptors());

    let unread: Vec<TcpStream> = thread::scope(|scope| {
        let peers: Vec<_> = (0..UNREAD).map(|_| scope.spawn(|| unread(&home))).collect();
        peers.into_iter().map(|peer| peer.join().expect("it is held back")).collect()
    });
    let mut bodies: Vec<_> = (0..BODIES)
        .map(|n| {
            let keys: Vec<_> = (100 * n..100 * (n + 1)).map(|n| format!("half-{n}")).collect();
            let (mut stream, request) = (connect(&home), request("half", &keys));
            stream.write_all(&request[..request.len() / 2]).expect("it is taken");
            (stream, request, keys)
        })
        .collect();
    let mut heads: Vec<_> = (0..HEADS)
        .map(|n| {
            let (mut stream, [below, above]) = (connect(&home), head(n));
            stream.write_all(below.as_bytes()).expect("it is taken");
            (stream, above)
        })
        .collect();
    let all = UNREAD + BODIES + HEADS;
    let there = wait_for(|| {
        regular.posts(10);
        // On a slow machine heads are given up by now.
        home.metric(OPEN) > Some((UNREAD + BODIES) as u64)
    });
    assert!(there, "{:?} of {all}; it said:\n{}", home.metric(OPEN), sidecar.said());
    others_go_on(&home, &sidecar, &mut regular);

    // A head above the limit is told so; one that took too long meanwhile was told that.
    let told_431 = heads.iter_mut().filter_map(|(stream, above)| {
        let _ = stream.write_all(above.as_bytes());
        Message::read(&mut BufReader::new(stream)).ok()??.status().ok()
    });
    let told_431 = told_431.filter(|status| *status == 431).count() as u64;
    let refused = |why: &str| {
        let series = format!("forebay_ingest_refused_requests_total{{environment=\"\",reason=\"{why}\"}}");
        home.metric(&series).expect("it is there")
    };
    // Who has an answer may be counted a moment later.
    wait_for(|| refused("head") + refused("slow") == HEADS as u64);
    let (too_long, too_slow) = (refused("head"), refused("slow"));
    assert_eq!((too_long, too_long + too_slow), (told_431, HEADS as u64), "each is counted once");
    let grown = sidecar.resident_kib_max() - memory;
    assert!(grown <= KIB_BESIDE + KIB_MAX * all, "{grown} KiB for {all} connections");

    // Half a body may go on as long as it has time.
    for (stream, request, keys) in &mut bodies {
        stream.write_all(&request[request.len() / 2..]).expect("it is taken");
        let status = Message::read(&mut BufReader::new(stream)).expect("an answer").expect("one").status();
        assert_eq!(status.expect("a status"), 200);
        regular.posted.push(Post { keys: std::mem::take(keys), fate: Fate::Acknowledged });
    }
    drop((unread, bodies, heads));
    only_the_regular_one_is_left(&home, &sidecar, &mut regular, descriptors);
    sidecar.drain(&["archive", "hook"]);
    Arrived::at_webhook(&receiver.arrivals()).holds(&regular.posted, "hook");
    Arrived::in_files(home.lines("archive")).holds(&regular.posted, "archive");
    eprintln!("{all} senders without an end: {grown} KiB; {too_long} heads too long, {too_slow} too slow");
}
