//! What is no whole answer: broken, slow, endless, giant, or none; and what answers a handshake.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::Response;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::Instant;

use super::Class::{Delivered, Retry};
use super::{Class, LATER, SINKS, SOON, deliver, same_ids};
use crate::delivery::outcome::{Failure, Outcome};
use crate::sinks::receiver::{bomb, raw, serve};

/// What becomes of a connection once the request was read and the start of an answer was written.
#[derive(Debug, Clone, Copy)]
enum Then {
    Close,
    Reset,
    Hang,
    Drip,
    Flood,
    /// Informational heads, one after the other, and never the answer.
    Hints,
}

impl Then {
    async fn play(self, mut stream: TcpStream) {
        match self {
            Then::Close => drop(stream),
            Then::Reset => stream.set_zero_linger().unwrap(),
            Then::Hang => tokio::time::sleep(LATER).await,
            Then::Drip => {
                while stream.write_all(b"x").await.is_ok() {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
            Then::Hints => {
                while stream.write_all(b"HTTP/1.1 103 Early Hints\r\n\r\n").await.is_ok() {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
            Then::Flood => while stream.write_all(&[b'x'; 65_536]).await.is_ok() {},
        }
    }
}

const LENGTH: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000000\r\n\r\n";
const FAILED: &[u8] = b"HTTP/1.1 500 No\r\ncontent-length: 1000000000000\r\n\r\n";
const CLOSED: &[u8] = b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n";
const CHUNKS: &[u8] = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";

/// Frames of HTTP/2, of which nobody asked for any.
const SETTINGS: &[u8] = b"\0\0\x06\x04\0\0\0\0\0\0\x04\0\0\0\0";
const GOAWAY: &[u8] = b"\0\0\x08\x07\0\0\0\0\0\0\0\0\0\0\0\0\0";
const RST_STREAM: &[u8] = b"\0\0\x04\x03\0\0\0\0\x01\0\0\0\x08";

/// What is answered, what then, and what the sinks that post make of it, and S3: that one hears an answer to its end, and may send
/// again what is there, since it is the same object.
const TROUBLES: [(&[u8], Then, [Class; 2]); 31] = [
    (b"", Then::Close, [Retry, Retry]),
    (b"", Then::Reset, [Retry, Retry]),
    (b"", Then::Hang, [Retry, Retry]),
    (b"HTTP/1.1 2", Then::Close, [Retry, Retry]),
    (b"HTTP/1.1 200 OK\r\n", Then::Hang, [Retry, Retry]),
    (b"HTTP/1.1 200 OK\r\nx-drip: ", Then::Drip, [Retry, Retry]),
    (b"HTTP/1.1 200 OK\r\nx-long: ", Then::Flood, [Retry, Retry]),
    (b"HTTP/1.1 nonsense\r\n\r\n", Then::Close, [Retry, Retry]),
    (b"no HTTP at all\r\n\r\n", Then::Close, [Retry, Retry]),
    (b"HTTP/1.1 099 Low\r\n\r\n", Then::Close, [Retry, Retry]),
    (b"HTTP/1.1 200 OK\r\ncontent-length: many\r\n\r\n", Then::Close, [Retry, Retry]),
    (b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n", Then::Close, [Retry, Retry]),
    (b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n", Then::Close, [Retry, Retry]),
    (b"HTTP/3.0 200 OK\r\n\r\n", Then::Close, [Retry, Retry]),
    (SETTINGS, Then::Hang, [Retry, Retry]),
    (GOAWAY, Then::Close, [Retry, Retry]),
    (RST_STREAM, Then::Reset, [Retry, Retry]),
    (b"", Then::Hints, [Retry, Retry]),
    (b"HTTP/1.1 102 Processing\r\n\r\n", Then::Hang, [Retry, Retry]),
    (b"HTTP/1.1 101 Switching Protocols\r\n\r\n", Then::Close, [Retry, Retry]),
    (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", Then::Close, [Delivered, Delivered]),
    (
        b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
        Then::Close,
        [Delivered, Delivered],
    ),
    (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nxyz\r\n", Then::Close, [Delivered, Delivered]),
    (CHUNKS, Then::Flood, [Delivered, Delivered]),
    (LENGTH, Then::Close, [Delivered, Delivered]),
    (LENGTH, Then::Hang, [Delivered, Retry]),
    (LENGTH, Then::Drip, [Delivered, Retry]),
    (LENGTH, Then::Flood, [Delivered, Delivered]),
    (CLOSED, Then::Flood, [Delivered, Delivered]),
    (FAILED, Then::Drip, [Retry, Retry]),
    (FAILED, Then::Flood, [Retry, Retry]),
];

#[tokio::test]
async fn broken_slow_and_endless_answers_end_by_the_deadline_as_their_heads_say() {
    let began = Instant::now();
    for subject in &SINKS {
        for (answer, then, [posted, put]) in TROUBLES {
            let addr = raw(answer, move |stream| then.play(stream)).await;
            let sink = subject.at(addr);
            let class = if sink.large().is_some() { put } else { posted };
            let patience = match then {
                // The head has to come in time, on a busy machine too.
                Then::Hang | Then::Drip | Then::Hints if class == Delivered => 4 * SOON,
                Then::Hang | Then::Drip | Then::Hints => SOON,
                _ => LATER,
            };
            let outcome = deliver(&*sink, &(subject.job)(0..3), patience).await;
            let place = format!("{} {:?} {then:?}", subject.name, String::from_utf8_lossy(answer));
            assert_eq!(Class::of(&outcome), class, "{place}: {outcome:?}");
            if answer.is_empty() && matches!(then, Then::Hang) {
                assert_eq!(outcome, Outcome::Retry { why: Failure::Timeout }, "{place}");
            }
        }
    }
    assert!(Instant::now() - began < LATER * SINKS.len() as u32, "nothing is read for ever");
}

/// Begins of answers that never come to anything. Counted is what the sinks took of them.
#[tokio::test]
async fn of_what_is_no_answer_no_more_is_taken_than_sockets_hold() {
    const NO_ANSWERS: [&[u8]; 9] = [
        b"",
        b"no HTTP at all ",
        b"HTTP/1.1 200 ",
        b"HTTP/1.1 200 OK\r\nx-long: ",
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 18446744073709551616\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5;x=",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\nx-trailer: ",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\ncontent-length: 3\r\n\r\nfffffffffffffffff\r\n",
    ];
    for subject in &SINKS {
        for beginning in NO_ANSWERS {
            let taken = Arc::new(AtomicUsize::new(0));
            let counted = Arc::clone(&taken);
            let flood = move |mut stream: TcpStream| {
                let counted = Arc::clone(&counted);
                async move {
                    while let Ok(n) = stream.write(&[b'x'; 65_536]).await {
                        counted.fetch_add(n, Ordering::SeqCst);
                    }
                }
            };
            let sink = subject.at(raw(beginning, flood).await);
            deliver(&*sink, &(subject.job)(0..3), LATER).await;
            // Of three attempts that an SDK may make.
            let taken = taken.load(Ordering::SeqCst);
            let place = format!("{} {:?}", subject.name, String::from_utf8_lossy(beginning));
            assert!(taken > 0 && taken < 32 << 20, "{place}: {taken} bytes");
        }
    }
}

#[tokio::test]
async fn nobody_listening_and_a_cut_before_the_request_was_read_are_retries() {
    for subject in &SINKS {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let sink = subject.at(listener.local_addr().unwrap());
        let cutting = tokio::spawn(async move {
            // Twice: the client may try another connection where it knows that nothing was read.
            for _ in 0..2 {
                drop(listener.accept().await.unwrap());
            }
        });
        // Large enough not to be taken by the socket's buffers before the cut is noticed.
        let outcome = deliver(&*sink, &(subject.job)(0..500), SOON).await;
        assert_eq!(Class::of(&outcome), Retry, "{}: {outcome:?}", subject.name);
        cutting.abort();
        // The listener is gone with its task, whenever that is.
        let _ = cutting.await;
        let outcome = deliver(&*sink, &(subject.job)(0..3), LATER).await;
        let connected = matches!(outcome, Outcome::Retry { why: Failure::Connect(_) });
        assert!(connected, "{}: {outcome:?}", subject.name);
    }
}

#[tokio::test]
async fn a_giant_answer_leaves_the_sink_usable_and_is_not_shown_whole() {
    for subject in &SINKS {
        let (addr, received) = serve(|n| {
            let body = Full::from(vec![b'x'; if n == 0 { 50 << 20 } else { 2 }]);
            Response::builder().status(if n == 0 { 500 } else { 200 }).body(body).unwrap()
        })
        .await;
        let (sink, job) = (subject.at(addr), (subject.job)(0..3));
        let outcome = deliver(&*sink, &job, LATER).await;
        assert!(outcome.failure().unwrap().to_string().len() < 300, "{}", subject.name);
        assert_eq!(deliver(&*sink, &job, LATER).await, Outcome::Delivered, "{}", subject.name);
        same_ids(subject, &job, &received);
    }
}

/// Nobody asked for a packed answer, and none is unpacked: what is shown of it is no letter of what is inside.
#[tokio::test]
async fn a_packed_bomb_stays_packed_and_the_status_counts() {
    let bomb = Bytes::from(bomb());
    for subject in &SINKS {
        for status in [200, 400, 500] {
            let packed = bomb.clone();
            let (addr, _) = serve(move |_| {
                let answer = Response::builder().status(status).header("content-encoding", "gzip");
                answer.body(Full::from(packed.clone())).unwrap()
            })
            .await;
            let outcome = deliver(&*subject.at(addr), &(subject.job)(0..3), LATER).await;
            let place = format!("{} {status}: {outcome:?}", subject.name);
            assert_eq!(Class::of(&outcome) == Delivered, status == 200, "{place}");
            assert!(status != 500 || Class::of(&outcome) == Retry, "{place}");
            let told = outcome.failure().map(ToString::to_string).unwrap_or_default();
            assert!(told.len() < 1_000 && !told.contains("xxx"), "{place}");
        }
    }
}

/// Ten thousand lines are no head that anybody reads to its end, whatever stands above them.
#[tokio::test]
async fn an_answer_of_ten_thousand_header_lines_is_none() {
    for subject in &SINKS {
        for status in ["200 OK", "429 Too Many Requests", "413 Too Large"] {
            let lines: String = (0..10_000).map(|n| format!("x-{n}: y\r\n")).collect();
            let answer = format!("HTTP/1.1 {status}\r\n{lines}content-length: 0\r\n\r\n");
            let addr = raw(answer, |stream| Then::Close.play(stream)).await;
            let outcome = deliver(&*subject.at(addr), &(subject.job)(0..3), LATER).await;
            assert!(matches!(outcome, Outcome::Retry { why: Failure::Broken(_) }), "{}: {outcome:?}", subject.name);
        }
    }
}

#[tokio::test]
async fn a_request_that_is_cut_in_its_middle_is_a_retry() {
    for subject in &SINKS {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let sink = subject.at(listener.local_addr().unwrap());
        let cutting = tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                // Some of it, and then a reset.
                stream.read_exact(&mut [0; 1024]).await.unwrap();
                stream.set_zero_linger().unwrap();
            }
        });
        let outcome = deliver(&*sink, &(subject.job)(0..500), LATER).await;
        let broken = matches!(outcome, Outcome::Retry { why: Failure::Broken(_) });
        assert!(broken, "{}: {outcome:?}", subject.name);
        cutting.abort();
    }
}

/// Some refuse a body by its length alone: they answer, end their side, and let run into nothing what still comes.
#[tokio::test]
async fn an_answer_before_the_request_has_ended_is_heard() {
    for subject in &SINKS {
        for status in ["413 Content Too Large", "429 Too Many Requests", "503 Service Unavailable", "401 Unauthorized"]
        {
            let line = format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
            let code = status[..3].parse::<u16>().unwrap();
            let (patient, _) = serve(move |_| Response::builder().status(code).body(Full::default()).unwrap()).await;
            let expected = deliver(&*subject.at(patient), &(subject.job)(0..500), LATER).await;

            let socket = TcpSocket::new_v4().unwrap();
            // So that the sender has most of it left when it is answered.
            socket.set_recv_buffer_size(4096).unwrap();
            socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
            let listener = socket.listen(8).unwrap();
            let sink = subject.at(listener.local_addr().unwrap());
            let answering = tokio::spawn(async move {
                loop {
                    let (mut stream, _) = listener.accept().await.unwrap();
                    stream.read_exact(&mut [0; 1024]).await.unwrap();
                    stream.write_all(line.as_bytes()).await.unwrap();
                    stream.shutdown().await.unwrap();
                    let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
                }
            });
            let outcome = deliver(&*sink, &(subject.job)(0..500), LATER).await;
            assert_eq!(Class::of(&outcome), Class::of(&expected), "{} {status}: {outcome:?}", subject.name);
            answering.abort();
        }
    }
}

/// What answers a TLS handshake.
#[derive(Debug, Clone, Copy)]
enum Handshake {
    /// Somebody who speaks HTTP without TLS.
    Plain,
    /// Nobody.
    Silence,
    /// The connection ends.
    Close,
    /// An alert: the handshake failed.
    Alert,
    /// What is no TLS at all.
    Noise,
}

#[tokio::test]
async fn a_failed_handshake_is_a_retry_and_no_byte_of_the_request_leaves() {
    use Handshake::{Alert, Close, Noise, Plain, Silence};
    for subject in &SINKS {
        for handshake in [Plain, Silence, Close, Alert, Noise] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let sink = (subject.make)(&format!("https://{}", listener.local_addr().unwrap()));
            let answering = tokio::spawn(async move {
                let mut heard = Vec::new();
                // As often as it is tried.
                while let Ok(Ok((mut stream, _))) = tokio::time::timeout(SOON, listener.accept()).await {
                    let answer: &[u8] = match handshake {
                        Plain => b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n",
                        Alert => &[0x15, 3, 3, 0, 2, 2, 40],
                        Noise => &[0x80; 64],
                        Silence | Close => b"",
                    };
                    let mut hello = vec![0; 16 << 10];
                    let n = stream.read(&mut hello).await.unwrap_or(0);
                    heard.extend_from_slice(&hello[..n]);
                    stream.write_all(answer).await.unwrap();
                    if matches!(handshake, Silence) {
                        let more = tokio::time::timeout(SOON * 2, stream.read_to_end(&mut heard)).await;
                        drop(more);
                    }
                }
                heard
            });
            let patience = if matches!(handshake, Silence) { SOON } else { LATER };
            let outcome = deliver(&*sink, &(subject.job)(0..3), patience).await;
            let place = format!("{} {handshake:?}", subject.name);
            assert_eq!(Class::of(&outcome), Retry, "{place}: {outcome:?}");
            let heard = answering.await.unwrap();
            assert!(!heard.is_empty(), "{place}: nobody came");
            assert!(memchr::memmem::find(&heard, b"user-").is_none() && !heard.starts_with(b"POST"), "{place}");
        }
    }
}
