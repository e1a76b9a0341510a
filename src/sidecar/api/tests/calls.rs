//! Calls that are none: bytes that are no protobuf, lengths that lie, no time to answer in, callers who hang up. Each ends with its
//! code, what it held comes free, and the next call on the same connection is answered.

use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex};

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper::header::CONTENT_TYPE;
use hyper::{Method, Request, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;

use super::*;

/// More than one connection may have under way, so that a call which keeps its place is missed.
const TIMES: usize = limits::STREAMS_PER_CONNECTION_MAX as usize + 8;

const GET_LAG: &str = "/forebay.v1.Cursors/GetLag";
const WATCH_LAG: &str = "/forebay.v1.Cursors/WatchLag";

/// A caller who sends what he likes.
struct Caller(SendRequest<UnsyncBoxBody<Bytes, Infallible>>);

impl Caller {
    async fn of(house: &House) -> Self {
        let Listen::Tcp(address) = house.address else { panic!("it is TCP") };
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let (calls, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        Self(calls)
    }

    /// What one such call ends with.
    async fn call(&mut self, path: &str, time: Option<&str>, body: Vec<u8>) -> Code {
        timeout(SOON, self.0.ready()).await.expect("there is a place").unwrap();
        let answer = self.0.send_request(request(path, time, Full::from(body).boxed_unsync()));
        let ended = timeout(SOON, async {
            let (head, body) = answer.await.unwrap().into_parts();
            // An error without an answer stands in the head, any other behind the answer.
            let behind = body.collect().await.unwrap().trailers().cloned().unwrap_or_default();
            let code = head.headers.get("grpc-status").or(behind.get("grpc-status")).cloned();
            Code::from_bytes(code.expect("a call ends with a code").as_bytes())
        });
        ended.await.expect("each call ends")
    }
}

fn request<B>(path: &str, time: Option<&str>, body: B) -> Request<B> {
    let mut request = Request::new(body);
    (*request.method_mut(), *request.version_mut()) = (Method::POST, Version::HTTP_2);
    *request.uri_mut() = format!("http://house{path}").parse().unwrap();
    let headers = request.headers_mut();
    headers.insert(CONTENT_TYPE, "application/grpc".parse().unwrap());
    headers.insert("te", "trailers".parse().unwrap());
    if let Some(time) = time {
        headers.insert("grpc-timeout", time.parse().unwrap());
    }
    request
}

/// A message as it goes over the wire, or what says that it is one.
fn framed(flag: u8, length: usize, message: &[u8]) -> Vec<u8> {
    [&[flag][..], &u32::try_from(length).unwrap().to_be_bytes(), message].concat()
}

fn good() -> Vec<u8> {
    let message = of("hook").encode_to_vec();
    framed(0, message.len(), &message)
}

#[tokio::test]
async fn what_is_no_message_is_refused_and_the_next_call_is_answered() {
    let house = House::on("127.0.0.1:0").await;
    let mut caller = Caller::of(&house).await;
    let message = of("hook").encode_to_vec();
    let whole = |bytes: &[u8]| framed(0, bytes.len(), bytes);
    let none: [(&str, Vec<u8>, Code); 13] = [
        ("nothing", Vec::new(), Code::Internal),
        ("half a head", vec![0; 3], Code::Internal),
        ("no protobuf", whole(&[0xff; 64]), Code::Internal),
        ("a text that ends beyond its message", whole(&[0x0a, 0x7f, b'x']), Code::Internal),
        ("a text that is none", whole(&[0x0a, 2, 0xff, 0xfe]), Code::Internal),
        ("a number for a text", whole(&[0x08, 1, 0x10, 1]), Code::Internal),
        ("groups in groups", whole(&[0x7b; 5_000]), Code::Internal),
        ("a length beyond what comes", framed(0, message.len() + 1, &message), Code::Internal),
        ("a length short of what comes", framed(0, message.len() - 1, &message), Code::Internal),
        ("no length, and something comes", framed(0, 0, &message), Code::Internal),
        ("four gigabytes", framed(0, u32::MAX as usize, &message), Code::OutOfRange),
        ("packed, and nobody said how", framed(1, message.len(), &message), Code::Internal),
        ("a flag that is none", framed(7, message.len(), &message), Code::Internal),
    ];
    for (name, body, code) in none {
        for path in [GET_LAG, WATCH_LAG] {
            for n in 0..TIMES {
                assert_eq!(caller.call(path, None, body.clone()).await, code, "{name}, {path}, {n}");
            }
        }
        assert_eq!(caller.call(GET_LAG, None, good()).await, Code::Ok, "after {name}");
    }
}

/// Before, who had gone left its turn to look to the next, and as many threads as went waited for the one that looked.
#[test]
fn calls_without_time_end_at_once_and_take_no_thread_each() {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    // One looks, and one is for others.
    let runtime = runtime.enable_all().max_blocking_threads(2).build().unwrap();
    runtime.block_on(async {
        // Whoever looks at the queues while this is shut stays there.
        let (gate, looks) = (Arc::new((Mutex::new(false), Condvar::new())), Arc::new(AtomicUsize::new(0)));
        let (shut, looked) = (Arc::clone(&gate), Arc::clone(&looks));
        let house = House::showing("127.0.0.1:0", |readiness| Sources {
            queues: Box::new(move |each| {
                let (shut, opened) = &*shut;
                let shut = shut.lock().unwrap();
                looked.fetch_add(1, Ordering::SeqCst);
                // However the test ends, this does.
                drop(opened.wait_timeout_while(shut, SOON * 2, |shut| *shut).unwrap());
                [queue("archive", 0), queue("hook", 70)].into_iter().for_each(each);
            }),
            ..sources(readiness)
        });
        let house = house.await;
        let mut caller = Caller::of(&house).await;
        // The house looks by itself once a second: behind its first look the next one is a caller's.
        while looks.load(Ordering::SeqCst) == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let before = {
            let mut shut = gate.0.lock().unwrap();
            *shut = true;
            looks.load(Ordering::SeqCst)
        };
        for n in 0..TIMES {
            // The last of these comes as far as the queues.
            for time in ["0n", "1n", "1u", "0H", "10m"] {
                assert_eq!(caller.call(GET_LAG, Some(time), good()).await, Code::Cancelled, "{time}, {n}");
            }
        }
        assert_eq!(looks.load(Ordering::SeqCst), before + 1, "one looks, and it has not ended");
        timeout(SOON, tokio::task::spawn_blocking(|| ())).await.expect("a thread is free for others").unwrap();
        *gate.0.lock().unwrap() = false;
        gate.1.notify_all();
        // What is no time is none that was named.
        for time in [None, Some("1H"), Some("99999999S"), Some("soon"), Some("1"), Some("-1n"), Some("999999999n")] {
            assert_eq!(caller.call(GET_LAG, time, good()).await, Code::Ok, "{time:?}");
        }
    });
}

#[tokio::test]
async fn callers_who_hang_up_in_the_midst_of_a_message_leave_their_place() {
    let house = House::on("127.0.0.1:0").await;
    let mut caller = Caller::of(&house).await;
    for n in 0..TIMES * 5 {
        let beginning = Bytes::from(good()).slice(..7);
        let frames = tokio_stream::once(Ok(Frame::data(beginning))).chain(tokio_stream::pending());
        timeout(SOON, caller.0.ready()).await.expect("there is a place").unwrap();
        let call = caller.0.send_request(request(GET_LAG, None, StreamBody::new(frames).boxed_unsync()));
        // Until it is under way, mostly.
        assert!(timeout(Duration::from_millis(1), call).await.is_err(), "{n}: nothing to answer came");
    }
    assert_eq!(caller.call(GET_LAG, None, good()).await, Code::Ok);
}

#[tokio::test]
async fn watches_that_are_hung_up_by_the_hundred_leave_their_places_and_no_task() {
    let house = House::on("127.0.0.1:0").await;
    let mut cursors = house.cursors().await;
    cursors.get_lag(of("hook")).await.unwrap();
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let before = tasks();
    // Nearly all have nothing to say for a minute when they are left.
    let watch = |interval_ms| WatchLagRequest { interval_ms, ..WatchLagRequest::default() };
    // Its place may come free a moment after it was left.
    let admitted = async |cursors: &mut CursorsClient<Channel>, interval_ms| loop {
        match cursors.watch_lag(watch(interval_ms)).await {
            Ok(snapshots) => return snapshots.into_inner(),
            Err(status) => assert_eq!(status.code(), Code::ResourceExhausted, "{status}"),
        }
        tokio::task::yield_now().await;
    };
    for n in 0..20 * limits::WATCHERS_MAX {
        // Some go before the first word, some behind it, some behind the second.
        let words = if n % 50 == 0 { 2 } else { n % 2 };
        let interval_ms = if words == 2 { 100 } else { 60_000 };
        let mut snapshots = timeout(SOON, admitted(&mut cursors, interval_ms)).await.expect("a place comes free");
        for _ in 0..words {
            assert_eq!(timeout(SOON, snapshots.next()).await.unwrap().unwrap().unwrap().lags.len(), 3);
        }
    }
    let mut all = Vec::new();
    for _ in 0..limits::WATCHERS_MAX {
        all.push(timeout(SOON, admitted(&mut cursors, 60_000)).await.expect("each place has come free"));
    }
    assert_eq!(cursors.watch_lag(watch(100)).await.unwrap_err().code(), Code::ResourceExhausted);
    drop(all);
    let gone = timeout(SOON, async {
        while tasks() > before {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    assert!(gone.await.is_ok(), "{} tasks more than before", tasks() - before);
    cursors.get_lag(of("hook")).await.unwrap();
}
