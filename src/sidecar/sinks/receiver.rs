//! A receiver on loopback for the tests of HTTP sinks: a real hyper server with an answer of the test's choice, and
//! raw sockets for what a proper server cannot be made to do.

use std::convert::Infallible;
use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::http::request;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::timeout;

/// What came in: heads and bodies, in order.
pub(crate) type Received = Arc<Mutex<Vec<(request::Parts, Bytes)>>>;

/// Answers every request with what `answer` makes of its number.
pub(crate) async fn serve(
    answer: impl Fn(usize) -> Response<Full<Bytes>> + Send + Sync + 'static,
) -> (SocketAddr, Received) {
    serve_on(TcpListener::bind("127.0.0.1:0").await.unwrap(), answer)
}

/// The same, to those who come to this one.
pub(crate) fn serve_on(
    listener: TcpListener,
    answer: impl Fn(usize) -> Response<Full<Bytes>> + Send + Sync + 'static,
) -> (SocketAddr, Received) {
    let addr = listener.local_addr().unwrap();
    let received = Received::default();
    let answer = Arc::new(answer);
    let log = Arc::clone(&received);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (answer, log) = (Arc::clone(&answer), Arc::clone(&log));
            let service = service_fn(move |request: Request<Incoming>| {
                let (answer, log) = (Arc::clone(&answer), Arc::clone(&log));
                async move {
                    let (head, body) = request.into_parts();
                    let body = body.collect().await.unwrap().to_bytes();
                    let n = {
                        let mut log = log.lock().unwrap();
                        log.push((head, body));
                        log.len() - 1
                    };
                    Ok::<_, Infallible>(answer(n))
                }
            });
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    });
    (addr, received)
}

/// Reads a whole request, writes `answer` as it stands, then does with the connection what `then` says.
pub(crate) async fn raw<A, F>(answer: A, then: impl Fn(TcpStream) -> F + Send + 'static) -> SocketAddr
where
    A: AsRef<[u8]> + Send + Sync + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            whole_request(&mut stream).await;
            let _ = stream.write_all(answer.as_ref()).await;
            tokio::spawn(then(stream));
        }
    });
    addr
}

/// Reads a whole request that has a content-length, or as much of it as comes.
pub(crate) async fn whole_request(stream: &mut (impl AsyncRead + Unpin)) -> Vec<u8> {
    let mut request = Vec::new();
    while !whole(&request) {
        if stream.read_buf(&mut request).await.unwrap_or(0) == 0 {
            break;
        }
    }
    request
}

fn whole(request: &[u8]) -> bool {
    let Some(head) = request.windows(4).position(|window| window == b"\r\n\r\n") else { return false };
    let text = String::from_utf8_lossy(&request[..head]).to_lowercase();
    let length = text.split("content-length: ").nth(1).and_then(|rest| rest.lines().next()?.parse().ok());
    request.len() - head - 4 >= length.unwrap_or(0)
}

/// A body of 200 MB, each of whose letters is an `x`, packed to less than 300 KB: a thousandth, two hundred times over.
pub(crate) fn bomb() -> Vec<u8> {
    let mut packer = GzEncoder::new(Vec::new(), Compression::best());
    packer.write_all(&[b'x'; 1 << 20]).unwrap();
    packer.finish().unwrap().repeat(200)
}

/// A connection to it hangs: as many as it takes wait to be accepted, and nobody accepts them.
pub(crate) async fn black_hole(address: SocketAddr) -> (TcpListener, Vec<TcpStream>) {
    let socket = TcpSocket::new_v6().unwrap();
    socket.bind(address).unwrap();
    let (listener, mut waiting) = (socket.listen(1).unwrap(), Vec::new());
    while let Ok(stream) = timeout(Duration::from_millis(200), TcpStream::connect(address)).await {
        waiting.push(stream.unwrap());
    }
    (listener, waiting)
}
