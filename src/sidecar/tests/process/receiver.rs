//! A customer's webhook: takes batches, notes each with its id and its records, and answers as the test wants.
//!
//! What always holds: an arrival is noted before it is answered, and a request that is not a sound batch fails the
//! test that asks for the arrivals.

use std::io::{BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use flate2::read::GzDecoder;

use super::sidecar::{free_address, wait_for};
use super::wire::Message;

/// How a request is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    Ok,
    /// 200, but not at once.
    Slow(Duration),
    Status(u16),
    /// 429, and when to come back.
    Throttle {
        seconds: u64,
    },
    /// None, until the other side gives up.
    Hang,
    /// The connection ends without one.
    Drop,
}

/// A request that was read to its end.
#[derive(Debug, Clone)]
pub(crate) struct Arrival {
    /// Its `webhook-id`.
    pub(crate) id: String,
    /// The sidecar that sent it, and in which of its lives, by the headers that its configuration adds.
    pub(crate) sidecar: String,
    pub(crate) life: usize,
    /// The JSON, decompressed.
    pub(crate) body: Arc<[u8]>,
    pub(crate) answer: Answer,
    pub(crate) at: Instant,
    /// When the answer was written.
    pub(crate) answered: Option<Instant>,
}

impl Arrival {
    /// Whether the sender was, as far as the receiver knows, told that the batch was taken.
    pub(crate) fn taken(&self) -> bool {
        matches!(self.answer, Answer::Ok | Answer::Slow(_)) && self.answered.is_some()
    }
}

type Script = Arc<dyn Fn(usize, &Arrival) -> Answer + Send + Sync>;

/// A webhook's receiver. Ends with its last handle.
pub(crate) struct Receiver {
    address: SocketAddr,
    inner: Arc<Inner>,
    open: Mutex<Option<Open>>,
}

struct Inner {
    script: Mutex<Script>,
    arrivals: Mutex<Vec<Arrival>>,
    anomalies: Mutex<Vec<String>>,
}

/// While it takes connections.
struct Open {
    closing: Arc<AtomicBool>,
    connections: Arc<Mutex<Vec<TcpStream>>>,
    accepting: thread::JoinHandle<()>,
}

impl Receiver {
    /// Takes everything, until told otherwise.
    pub(crate) fn start() -> Self {
        let inner = Inner {
            script: Mutex::new(Arc::new(|_, _| Answer::Ok)),
            arrivals: Mutex::default(),
            anomalies: Mutex::default(),
        };
        let receiver = Self { address: free_address(), inner: Arc::new(inner), open: Mutex::default() };
        receiver.up();
        receiver
    }

    /// Answers from now on by `script`, given how many requests came before.
    pub(crate) fn script(&self, script: impl Fn(usize) -> Answer + Send + Sync + 'static) {
        *self.inner.script.lock().unwrap() = Arc::new(move |before, _| script(before));
    }

    /// Answers from now on by what is in the request.
    pub(crate) fn judge(&self, judge: impl Fn(&Arrival) -> Answer + Send + Sync + 'static) {
        *self.inner.script.lock().unwrap() = Arc::new(move |_, arrival| judge(arrival));
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/impressions", self.address)
    }

    /// All that came so far, in order.
    pub(crate) fn arrivals(&self) -> Vec<Arrival> {
        let anomalies = self.inner.anomalies.lock().unwrap();
        assert!(anomalies.is_empty(), "requests that are no batches: {anomalies:?}");
        self.inner.arrivals.lock().unwrap().clone()
    }

    pub(crate) fn count(&self) -> usize {
        self.inner.arrivals.lock().unwrap().len()
    }

    /// Nobody listens from here on, and all connections are cut.
    pub(crate) fn down(&self) {
        let Some(open) = self.open.lock().unwrap().take() else { return };
        open.closing.store(true, Ordering::SeqCst);
        // The listener only looks up when somebody comes.
        drop(TcpStream::connect(self.address));
        open.accepting.join().expect("the receiver's listener does not panic");
        for connection in open.connections.lock().unwrap().drain(..) {
            // It may have ended by itself.
            let _ = connection.shutdown(Shutdown::Both);
        }
    }

    /// Listens (again), at the same address.
    pub(crate) fn up(&self) {
        // A process that another test starts at this moment has, until it becomes itself, the listener that `down`
        // let go of.
        let mut listener = None;
        wait_for(|| {
            listener = TcpListener::bind(self.address).ok();
            listener.is_some()
        });
        let listener = listener.expect("the address is free");
        let (closing, connections) = (Arc::<AtomicBool>::default(), Arc::<Mutex<Vec<TcpStream>>>::default());
        let accepting = {
            let (inner, closing, connections) =
                (Arc::clone(&self.inner), Arc::clone(&closing), Arc::clone(&connections));
            thread::spawn(move || {
                for stream in listener.incoming() {
                    if closing.load(Ordering::SeqCst) {
                        return;
                    }
                    let Ok(stream) = stream else { continue };
                    connections.lock().unwrap().extend(stream.try_clone());
                    let inner = Arc::clone(&inner);
                    thread::spawn(move || inner.converse(stream));
                }
            })
        };
        let before = self.open.lock().unwrap().replace(Open { closing, connections, accepting });
        assert!(before.is_none(), "it was up already");
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.down();
    }
}

impl Inner {
    /// One connection. Errors of the connection are the sender's death or doing, and end it.
    fn converse(&self, stream: TcpStream) {
        let _ = stream.set_nodelay(true);
        let Ok(mut writer) = stream.try_clone() else { return };
        let mut reader = BufReader::new(stream);
        while let Ok(Some(request)) = Message::read(&mut reader) {
            let Some((place, answer)) = self.note(&request) else { return };
            let text = match answer {
                Answer::Ok => "200 OK\r\n".to_owned(),
                Answer::Slow(delay) => {
                    thread::sleep(delay);
                    "200 OK\r\n".to_owned()
                }
                Answer::Status(status) => format!("{status} As Told\r\n"),
                Answer::Throttle { seconds } => format!("429 Too Many Requests\r\nretry-after: {seconds}\r\n"),
                Answer::Hang => {
                    let _ = reader.read(&mut [0]);
                    return;
                }
                Answer::Drop => return drop(writer.shutdown(Shutdown::Both)),
            };
            // Before the write: whoever reads the answer acts on it at once.
            self.arrivals.lock().unwrap()[place].answered = Some(Instant::now());
            if write!(writer, "HTTP/1.1 {text}content-length: 0\r\n\r\n").is_err() {
                self.arrivals.lock().unwrap()[place].answered = None;
                return;
            }
        }
    }

    /// Notes a request. `None` if it is not a batch.
    fn note(&self, request: &Message) -> Option<(usize, Answer)> {
        match arrival(request) {
            Ok(mut arrival) => {
                let script = Arc::clone(&self.script.lock().unwrap());
                let mut arrivals = self.arrivals.lock().unwrap();
                let place = arrivals.len();
                arrival.answer = script(place, &arrival);
                let answer = arrival.answer;
                arrivals.push(arrival);
                Some((place, answer))
            }
            Err(why) => {
                self.anomalies.lock().unwrap().push(format!("{why}: {:?} {:?}", request.first, request.headers));
                None
            }
        }
    }
}

fn arrival(request: &Message) -> Result<Arrival, String> {
    let at = Instant::now();
    let header = |name: &str| request.header(name).ok_or_else(|| format!("no {name}"));
    let id = header("webhook-id")?;
    if id.is_empty() || id.len() >= 100 || !id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_') {
        return Err("the id is not made as ids are".to_owned());
    }
    if header("content-type")? != "application/json" {
        return Err("not JSON".to_owned());
    }
    let body = match request.header("content-encoding") {
        None => request.body.clone(),
        Some("gzip") => {
            let mut body = Vec::new();
            GzDecoder::new(&request.body[..]).read_to_end(&mut body).map_err(|why| why.to_string())?;
            body
        }
        Some(other) => return Err(format!("{other} was not asked for")),
    };
    Ok(Arrival {
        id: id.to_owned(),
        sidecar: header("x-sidecar")?.to_owned(),
        life: header("x-life")?.parse().map_err(|_| "x-life is no number".to_owned())?,
        body: body.into(),
        answer: Answer::Ok,
        at,
        answered: None,
    })
}
