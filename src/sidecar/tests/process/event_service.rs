//! An event service: Amplitude or Segment, as far as their documentation goes. Takes events, notes each with its id and its
//! record, and answers with the documented bodies, also with those that take nothing and name events.
//!
//! What always holds: a request is noted before it is answered, and one that is not as documented fails the test that asks
//! for the arrivals.

use std::io::{BufReader, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Instant;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};

use super::receiver::{Answer, Arrival};
use super::sidecar::free_address;
use super::wire::Message;

/// Which of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Service {
    Amplitude,
    Segment,
}

/// A service at an address of its own. Ends with its handle.
pub(crate) struct EventService {
    service: Service,
    address: SocketAddr,
    inner: Arc<Inner>,
}

struct Inner {
    service: Service,
    rng: Mutex<SmallRng>,
    calm: AtomicBool,
    closing: AtomicBool,
    /// One for each event of each request.
    arrivals: Mutex<Vec<Arrival>>,
    /// How often each kind of answer was given.
    said: Mutex<Vec<&'static str>>,
    anomalies: Mutex<Vec<String>>,
}

/// What is answered, and whether the events were taken.
enum Reply {
    Taken(String),
    Not(&'static str, u16, String),
    /// The connection ends without an answer.
    Drop,
}

impl EventService {
    /// Answers by chance: mostly well.
    pub(crate) fn start(service: Service, seed: u64) -> Self {
        let address = free_address();
        let inner = Arc::new(Inner {
            service,
            rng: Mutex::new(SmallRng::seed_from_u64(seed)),
            calm: AtomicBool::new(false),
            closing: AtomicBool::new(false),
            arrivals: Mutex::default(),
            said: Mutex::default(),
            anomalies: Mutex::default(),
        });
        let listener = TcpListener::bind(address).expect("the address was free");
        let accepting = Arc::clone(&inner);
        thread::spawn(move || {
            for stream in listener.incoming() {
                if accepting.closing.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let inner = Arc::clone(&accepting);
                thread::spawn(move || inner.converse(stream));
            }
        });
        Self { service, address, inner }
    }

    /// From now on everything is taken.
    pub(crate) fn calm(&self) {
        self.inner.calm.store(true, Ordering::SeqCst);
    }

    /// The keys of a destination's table. The service's key names the life of who sends.
    pub(crate) fn settings(&self) -> String {
        let (kind, key, path) = match self.service {
            Service::Amplitude => ("amplitude", "api_key", "batch"),
            Service::Segment => ("segment", "write_key", "v1/batch"),
        };
        format!("type = \"{kind}\"\n{key} = \"env:FOREBAY_TEST_KEY\"\nendpoint = \"http://{}/{path}\"\n", self.address)
    }

    /// Every event of every request, in order.
    pub(crate) fn arrivals(&self) -> Vec<Arrival> {
        let anomalies = self.inner.anomalies.lock().unwrap();
        assert!(anomalies.is_empty(), "requests that are not as documented: {anomalies:?}");
        self.inner.arrivals.lock().unwrap().clone()
    }

    /// How often `kind` was answered.
    pub(crate) fn said(&self, kind: &str) -> usize {
        self.inner.said.lock().unwrap().iter().filter(|said| **said == kind).count()
    }
}

impl Drop for EventService {
    fn drop(&mut self) {
        self.inner.closing.store(true, Ordering::SeqCst);
        // The listener only looks up when somebody comes.
        drop(TcpStream::connect(self.address));
    }
}

impl Inner {
    /// One connection. Errors of the connection are the sender's death, and end it.
    fn converse(&self, stream: TcpStream) {
        let _ = stream.set_nodelay(true);
        let Ok(mut writer) = stream.try_clone() else { return };
        let mut reader = BufReader::new(stream);
        while let Ok(Some(request)) = Message::read(&mut reader) {
            let events = match self.events(&request) {
                Ok(events) => events,
                Err(why) => return self.anomalies.lock().unwrap().push(format!("{why}: {:?}", request.first)),
            };
            let reply = self.reply(&events);
            let (taken, status, body) = match reply {
                Reply::Drop => {
                    self.note(events, false, "dropped");
                    return drop(writer.shutdown(Shutdown::Both));
                }
                Reply::Taken(body) => (self.note(events, true, "taken"), 200, body),
                Reply::Not(kind, status, body) => (self.note(events, false, kind), status, body),
            };
            let head = format!("HTTP/1.1 {status} As Told\r\ncontent-length: {}\r\n\r\n", body.len());
            if writer.write_all((head + &body).as_bytes()).is_err() {
                // It was not told.
                self.arrivals.lock().unwrap()[taken].iter_mut().for_each(|arrival| arrival.answered = None);
                return;
            }
        }
    }

    /// Notes the events before they are answered; says where.
    fn note(&self, events: Vec<Arrival>, taken: bool, kind: &'static str) -> std::ops::Range<usize> {
        let answer = if taken { Answer::Ok } else { Answer::Drop };
        self.said.lock().unwrap().push(kind);
        let mut arrivals = self.arrivals.lock().unwrap();
        let from = arrivals.len();
        let at = Some(Instant::now());
        arrivals.extend(events.into_iter().map(|event| Arrival { answer, answered: at, ..event }));
        from..arrivals.len()
    }

    fn reply(&self, events: &[Arrival]) -> Reply {
        let taken = || match self.service {
            Service::Amplitude => json!({"code": 200, "events_ingested": events.len(), "payload_size_bytes": 50,
                "server_upload_time": 1_396_381_378_123_u64}),
            Service::Segment => json!({"success": true}),
        };
        if self.calm.load(Ordering::SeqCst) {
            return Reply::Taken(taken().to_string());
        }
        let mut rng = self.rng.lock().unwrap();
        match (rng.random_range(0..100), self.service) {
            (0..4, _) => Reply::Drop,
            (4..7, _) => Reply::Not("500", 500, String::new()),
            (7..9, _) => Reply::Not("503", 503, "<html>".to_owned()),
            (9..13, Service::Amplitude) => {
                let index = rng.random_range(0..events.len());
                let record: Value = serde_json::from_slice(&events[index].body).expect("made below");
                let user = record[0]["key"].as_str().expect("made below");
                let body = json!({"code": 429, "error": "Too many requests for some devices and users",
                    "eps_threshold": 1000, "throttled_devices": {}, "throttled_users": {user: 4000},
                    "exceeded_daily_quota_users": {}, "exceeded_daily_quota_devices": {}, "throttled_events": [index]});
                Reply::Not("429 of a user", 429, body.to_string())
            }
            (13..15, Service::Amplitude) if events.len() > 1 => {
                Reply::Not("413", 413, json!({"code": 413, "error": "Payload too large"}).to_string())
            }
            (9..11, Service::Segment) => Reply::Not("429", 429, String::new()),
            _ => Reply::Taken(taken().to_string()),
        }
    }

    /// The events of a request, each as a batch of its own record.
    fn events(&self, request: &Message) -> Result<Vec<Arrival>, String> {
        let at = Instant::now();
        if request.header("content-type") != Some("application/json") {
            return Err("not JSON".to_owned());
        }
        let body: Value = serde_json::from_slice(&request.body).map_err(|why| why.to_string())?;
        let (list, key, id, properties, user) = match self.service {
            Service::Amplitude => ("events", "api_key", "insert_id", "event_properties", "user_id"),
            Service::Segment => ("batch", "writeKey", "messageId", "properties", "userId"),
        };
        let life = body[key].as_str().and_then(|key| key.strip_prefix("key-of-life-")?.parse().ok()).ok_or("no key")?;
        if self.service == Service::Segment && !body["sentAt"].is_string() {
            return Err("no sentAt".to_owned());
        }
        let events = body[list].as_array().filter(|events| !events.is_empty()).ok_or("no events")?;
        let event = |event: &Value| {
            let record = &event[properties];
            if record["key"] != event[user] {
                return Err(format!("{event} is of somebody else"));
            }
            Ok(Arrival {
                id: event[id].as_str().ok_or("no id")?.to_owned(),
                sidecar: String::new(),
                life,
                body: json!([record]).to_string().into_bytes().into(),
                answer: Answer::Ok,
                at,
                answered: None,
            })
        };
        events.iter().map(event).collect()
    }
}
