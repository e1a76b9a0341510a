//! The client against receivers on loopback, good and bad. Real sockets and real time, so deadlines are short.

use hyper::Response;
use hyper::header::CONTENT_TYPE;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

use super::*;
use crate::sinks::receiver::{bomb, raw, serve};

const SOON: Duration = Duration::from_millis(300);
const LATER: Duration = Duration::from_secs(20);
/// Enough for a head and the begin of a body on a busy machine.
const HEARD: Duration = Duration::from_secs(2);

fn http(addr: std::net::SocketAddr) -> Http {
    Http::new(&Endpoint::parse(&format!("http://{addr}/hook?a=b")).unwrap(), Arc::default(), 4)
}

async fn post(http: &Http, within: Duration) -> Result<Answer, Failure> {
    http.post(HeaderMap::new(), Bytes::from_static(b"[1]"), Instant::now() + within).await
}

#[tokio::test]
async fn a_post_arrives_as_it_was_meant() {
    let (addr, received) = serve(|_| Response::new(Full::from("fine"))).await;
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let answer = http(addr).post(headers, Bytes::from_static(b"[1]"), Instant::now() + LATER).await.unwrap();
    assert_eq!((answer.status, &answer.body[..]), (StatusCode::OK, &b"fine"[..]));
    let received = received.lock().unwrap();
    let (head, body) = &received[0];
    assert_eq!((&head.method, head.uri.to_string(), &body[..]), (&Method::POST, "/hook?a=b".to_owned(), &b"[1]"[..]));
    assert_eq!(head.headers["user-agent"], AGENT);
    assert_eq!(head.headers["host"], addr.to_string());
    assert_eq!(head.headers["content-length"], "3");
    assert_eq!(head.headers["content-type"], "application/json");
}

#[tokio::test]
async fn a_redirect_is_an_answer_and_is_not_followed() {
    let (addr, received) = serve(|_| {
        Response::builder().status(307).header(LOCATION, "http://169.254.169.254/secret").body(Full::default()).unwrap()
    })
    .await;
    let answer = post(&http(addr), LATER).await.unwrap();
    assert_eq!(answer.status, 307);
    let says = answer.failure().to_string();
    assert_eq!(says, "answered 307: redirects to http://169.254.169.254/..; redirects are not followed");
    assert_eq!(received.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_peer_that_never_answers_is_a_timeout() {
    let addr = raw(b"", |stream| async move {
        tokio::time::sleep(LATER).await;
        drop(stream);
    })
    .await;
    assert_eq!(post(&http(addr), SOON).await.unwrap_err(), Failure::Timeout);
}

#[tokio::test]
async fn a_peer_that_accepts_and_reads_nothing_is_a_timeout() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let http = http(listener.local_addr().unwrap());
    let large = Bytes::from(vec![b'x'; 32 << 20]);
    let result = http.post(HeaderMap::new(), large, Instant::now() + SOON).await;
    assert_eq!(result.unwrap_err(), Failure::Timeout);
}

#[tokio::test]
async fn a_head_that_drips_is_a_timeout() {
    let addr = raw(b"HTTP/1.1 200 OK\r\n", |mut stream| async move {
        while stream.write_all(b"x-drip: 1\r\n").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    assert_eq!(post(&http(addr), SOON).await.unwrap_err(), Failure::Timeout);
}

#[tokio::test]
async fn a_body_that_drips_ends_at_the_deadline_and_the_status_counts() {
    let addr = raw(b"HTTP/1.1 202 Accepted\r\ncontent-length: 1000000\r\n\r\n", |mut stream| async move {
        while stream.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    let began = Instant::now();
    let answer = post(&http(addr), HEARD).await.unwrap();
    assert_eq!(answer.status, 202);
    assert!(!answer.body.is_empty() && answer.body.len() < 100);
    assert!(Instant::now() - began < LATER / 2);
}

#[tokio::test]
async fn a_body_without_end_is_cut_at_once() {
    let addr = raw(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000000\r\n\r\n", |mut stream| async move {
        while stream.write_all(&[b'x'; 4096]).await.is_ok() {}
    })
    .await;
    let began = Instant::now();
    let answer = post(&http(addr), LATER).await.unwrap();
    assert_eq!((answer.status, answer.body.len()), (StatusCode::OK, ANSWER_BYTES_MAX));
    assert!(Instant::now() - began < LATER / 2);
}

#[tokio::test]
async fn chunks_without_end_are_cut_at_the_deadline_however_small_and_at_the_limit_however_large() {
    for (chunk, within) in
        [(&b"0001\r\nx\r\n"[..], HEARD), (&[&b"1000\r\n"[..], &[b'x'; 0x1000], b"\r\n"].concat(), LATER)]
    {
        let (chunk, pause) = (chunk.to_vec(), Duration::from_millis(if within == HEARD { 20 } else { 0 }));
        let addr = raw(b"HTTP/1.1 503 Busy\r\ntransfer-encoding: chunked\r\n\r\n", move |mut stream| {
            let chunk = chunk.clone();
            async move {
                while stream.write_all(&chunk).await.is_ok() {
                    tokio::time::sleep(pause).await;
                }
            }
        })
        .await;
        let answer = post(&http(addr), within).await.unwrap();
        assert_eq!(answer.status, 503);
        assert!(within == HEARD && answer.body.len() < 1_000 || answer.body.len() == ANSWER_BYTES_MAX);
    }
}

#[tokio::test]
async fn a_connection_whose_answer_was_cut_is_not_used_again() {
    let (addr, _) = serve(|n| Response::new(Full::from(vec![b'x'; if n == 0 { 50 << 20 } else { 2 }]))).await;
    let http = http(addr);
    assert_eq!(post(&http, LATER).await.unwrap().body.len(), ANSWER_BYTES_MAX);
    assert_eq!(post(&http, LATER).await.unwrap().body, b"xx");
}

#[tokio::test]
async fn of_a_packed_bomb_the_first_bytes_are_kept_as_they_came() {
    let bomb = bomb();
    assert!(bomb.len() > 2 * ANSWER_BYTES_MAX);
    let head = format!("HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: {}\r\n\r\n", bomb.len());
    let addr = raw([head.as_bytes(), &bomb].concat(), |stream| async move { drop(stream) }).await;
    assert!(post(&http(addr), LATER).await.unwrap().body == bomb[..ANSWER_BYTES_MAX]);
}

#[tokio::test]
async fn a_head_that_never_ends_is_refused() {
    let addr = raw(b"HTTP/1.1 200 OK\r\nx-long: ", |mut stream| async move {
        while stream.write_all(&[b'x'; 4096]).await.is_ok() {}
    })
    .await;
    assert!(matches!(post(&http(addr), LATER).await.unwrap_err(), Failure::Broken(_)));
}

#[tokio::test]
async fn a_connection_that_ends_after_the_request_is_broken() {
    for answer in [&b""[..], b"HTTP/1.1 2", b"HTTP/1.1 nonsense\r\n\r\n"] {
        let addr = raw(answer, |stream| async move { drop(stream) }).await;
        let failure = post(&http(addr), LATER).await.unwrap_err();
        assert!(matches!(failure, Failure::Broken(_)), "{answer:?}: {failure:?}");
    }
}

#[tokio::test]
async fn a_reset_after_the_request_is_broken() {
    let addr = raw(b"", |stream| async move {
        stream.set_zero_linger().unwrap();
    })
    .await;
    assert!(matches!(post(&http(addr), LATER).await.unwrap_err(), Failure::Broken(_)));
}

#[tokio::test]
async fn nobody_listening_says_so() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let http = http(listener.local_addr().unwrap());
    drop(listener);
    let Failure::Connect(why) = post(&http, LATER).await.unwrap_err() else { panic!("not a failure to connect") };
    assert!(why.to_lowercase().contains("refused"), "{why}");
}

#[tokio::test]
async fn a_peer_that_speaks_no_tls_cannot_be_connected_to() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
    });
    let http = Http::new(&Endpoint::parse(&format!("https://{addr}/")).unwrap(), Arc::default(), 4);
    assert!(matches!(post(&http, LATER).await.unwrap_err(), Failure::Connect(_)));
}

#[tokio::test]
async fn an_answer_without_a_body_or_with_chunks_is_whole() {
    let addr = raw(b"HTTP/1.1 204 No Content\r\n\r\n", |stream| async move { drop(stream) }).await;
    assert_eq!(post(&http(addr), LATER).await.unwrap().status, 204);
    let chunked = b"HTTP/1.1 500 Oops\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    let addr = raw(chunked, |stream| async move { drop(stream) }).await;
    let Failure::Status { status: 500, excerpt, .. } = post(&http(addr), LATER).await.unwrap().failure() else {
        panic!()
    };
    assert_eq!(excerpt, "abc");
}

#[test]
fn an_excerpt_is_short_and_printable() {
    assert_eq!(printable(b" a\r\nb\x1b[31m\xff "), "a  b [31m\u{fffd}");
    assert_eq!(printable(&[b'x'; 10_000]).len(), EXCERPT_CHARS_MAX);
}

#[tokio::test]
async fn a_tail_arrives_behind_the_body_as_one_body() {
    let (addr, received) = serve(|_| Response::new(Full::default())).await;
    let (body, tail) = (Bytes::from_static(b"[1,"), Bytes::from_static(b"2]"));
    http(addr).post_with_tail(HeaderMap::new(), body, tail, Instant::now() + LATER).await.unwrap();
    let received = received.lock().unwrap();
    assert_eq!((&received[0].0.headers["content-length"], &received[0].1[..]), (&"5".parse().unwrap(), &b"[1,2]"[..]));
}

#[tokio::test]
async fn a_sink_may_have_more_of_an_answer_read() {
    let (addr, _) = serve(|_| Response::new(Full::from(vec![b'x'; 1 << 20]))).await;
    let more = http(addr).with_answers_up_to(500_000);
    assert_eq!(post(&more, LATER).await.unwrap().body.len(), 500_000);
}

#[test]
fn a_secret_that_an_answer_repeats_is_taken_out() {
    let answer = |body: &str| Answer { status: StatusCode::OK, headers: HeaderMap::new(), body: body.into() };
    for (body, shown) in [("Invalid key: hush.hush", "Invalid key: [secret].[secret]"), ("hus", "hus"), ("", "")] {
        let mut answer = answer(body);
        answer.hide("hush");
        let (words, excerpt) = (String::new(), shown.to_owned());
        assert_eq!(answer.failure(), Failure::Status { status: 200, words, excerpt });
    }
    let mut redirect = Answer { status: StatusCode::FOUND, ..answer("") };
    redirect.headers.insert(LOCATION, HeaderValue::from_static("https://of-hush.example.com/in"));
    assert!(redirect.failure().to_string().contains("of-hush"), "{}", redirect.failure());
    redirect.hide("hush");
    assert!(!redirect.failure().to_string().contains("hush"), "{}", redirect.failure());
}
