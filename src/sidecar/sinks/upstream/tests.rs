//! Posts out of a real log, through the real loop, to a scripted Split.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use forebay::clock::SystemClock;
use forebay::disk::mem::MemDisk;
use forebay::{LogId, LogOptions, Payload, QueueOptions, Queues, Start, StoreChoice, StreamId};
use http_body_util::Full;
use hyper::Response;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, USER_AGENT};

use super::*;
use crate::delivery::budget::{Budget, BudgetLimits};
use crate::delivery::except::Except;
use crate::delivery::parking::NoParking;
use crate::delivery::queued::Queued;
use crate::delivery::sink::{Environment, Origin, Part};
use crate::delivery::source::{Limits, Source};
use crate::delivery::{Delivery, Settings};
use crate::post::{self, Arrival, Kind};
use crate::sinks::receiver::{Received, serve};

const KEYS: [&str; 3] = ["sdk-key-of-a-customer-0001", "sdk-key-of-a-customer-0002", "sdk-key-of-a-customer-0003"];

fn keys() -> Arc<SdkKeys> {
    let keys = SdkKeys::default();
    let placed: Vec<_> = (0..).zip(KEYS.map(str::to_owned)).collect();
    keys.replace([("prod", &placed[..])]);
    Arc::new(keys)
}

fn upstream(addr: SocketAddr) -> Upstream {
    let config = UpstreamConfig::at(&format!("http://{addr}/")).unwrap();
    let clock = Arc::new(SystemClock::new());
    Upstream::new(&config, AddressPolicy::Operator, 8, keys(), &Arc::default(), clock)
}

/// A post of the key at this place, as ingest keeps it.
fn kept(kind: Kind, place: u32, body: &str) -> Bytes {
    let key = KEYS[place as usize];
    let mut headers = HeaderMap::new();
    if !kind.is_beacon() {
        headers.insert(AUTHORIZATION, format!("Bearer {key}").parse().unwrap());
    }
    headers.insert("splitsdkversion", "go-6.8.1".parse().unwrap());
    headers.insert(CONTENT_TYPE, "application/json".parse().unwrap());
    let arrival = Arrival { kind, received_ms: 7, environment: "prod", key: key.as_bytes(), sdk_key_index: place };
    post::keep(&arrival, &headers, &Bytes::copy_from_slice(body.as_bytes())).unwrap().into()
}

fn job(payload: Bytes) -> Job {
    Job {
        id: "batch".into(),
        origin: Origin { log: LogId(7), stream: StreamId(0), offsets: 5..6 },
        environment: environment(),
        bytes: payload.len() as u64,
        parts: vec![Part { payload, skip: 0, take: 1, first: 5 }],
        except: Except::default(),
    }
}

fn environment() -> Arc<Environment> {
    Arc::new(Environment { id: "prod".to_owned(), name: "production".to_owned() })
}

async fn send(sink: &dyn Sink, payload: Bytes) -> Outcome {
    let job = job(payload);
    let encoded = sink.encode(&job).unwrap();
    assert!(KEYS.iter().all(|key| memchr::memmem::find(&encoded.body, key.as_bytes()).is_none()));
    sink.send(&encoded, &job.id, Instant::now() + Duration::from_secs(20)).await
}

#[tokio::test]
async fn a_post_goes_where_it_was_meant_to_go_with_its_key_put_back() {
    let (addr, received) = serve(|_| Response::new(Full::default())).await;
    let sink = upstream(addr);
    for kind in Kind::ALL {
        let body = if kind.is_beacon() {
            format!(r#"{{"entries":[],"token":"{}","sdk":"b"}}"#, KEYS[1])
        } else {
            "[{\"f\":\"x\"}]".to_owned()
        };
        assert_eq!(send(&sink, kept(kind, 1, &body)).await, Outcome::Delivered);
        let (head, got) = received.lock().unwrap().pop().unwrap();
        assert_eq!((head.method.as_str(), head.uri.path()), ("POST", format!("/api/{}", kind.path()).as_str()));
        assert_eq!(got, body);
        let bearer = head.headers.get(AUTHORIZATION).map(|value| value.to_str().unwrap().to_owned());
        assert_eq!(bearer, (!kind.is_beacon()).then(|| format!("Bearer {}", KEYS[1])));
        assert_eq!(head.headers["splitsdkversion"], "go-6.8.1");
        assert_eq!(head.headers[CONTENT_TYPE], "application/json");
        assert!(head.headers.contains_key(USER_AGENT));
    }
}

#[tokio::test]
async fn telemetry_has_a_host_of_its_own_where_it_is_told_so() {
    let (events, to_events) = serve(|_| Response::new(Full::default())).await;
    let (telemetry, to_telemetry) = serve(|_| Response::new(Full::default())).await;
    let config = UpstreamConfig {
        telemetry: UpstreamConfig::at(&format!("http://{telemetry}/api")).unwrap().telemetry,
        ..UpstreamConfig::at(&format!("http://{events}/api")).unwrap()
    };
    let clock = Arc::new(SystemClock::new());
    let sink = Upstream::new(&config, AddressPolicy::Operator, 1, keys(), &Arc::default(), clock);
    for kind in [Kind::Events, Kind::KeysOfServer] {
        assert_eq!(send(&sink, kept(kind, 0, "[]")).await, Outcome::Delivered);
    }
    let paths = |received: &Received| {
        let received = received.lock().unwrap();
        received.iter().map(|(head, _)| head.uri.path().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(
        (paths(&to_events), paths(&to_telemetry)),
        (vec!["/api/events/bulk".into()], vec!["/api/v1/keys/ss".into()])
    );
}

#[tokio::test]
async fn each_status_has_its_meaning() {
    for status in 200..600_u16 {
        if (300..400).contains(&status) && status != 302 {
            continue;
        }
        let (addr, received) = serve(move |_| {
            Response::builder().status(status).header("location", "/in").body(Full::from(KEYS[0])).unwrap()
        })
        .await;
        let outcome = send(&upstream(addr), kept(Kind::Counts, 0, "{}")).await;
        let class = match &outcome {
            Outcome::Delivered => "delivered",
            Outcome::Throttled { .. } => "throttled",
            Outcome::Retry { .. } => "retry",
            Outcome::Rejected { .. } => "rejected",
            Outcome::Refused { .. } => "refused",
            Outcome::QueueRefused { .. } => "key",
            _ => "other",
        };
        let expected = match status {
            200..300 => "delivered",
            401 | 403 => "key",
            404 | 405 | 410 => "refused",
            429 | 503 => "throttled",
            408 | 409 | 421 | 425 => "retry",
            400..500 => "rejected",
            _ => "retry",
        };
        assert_eq!(class, expected, "{status}: {outcome:?}");
        assert_eq!(received.lock().unwrap().len(), 1, "{status}: a redirect is not followed");
        assert!(!format!("{outcome:?}").contains(KEYS[0]), "{status}: an answer that repeats the key is shown without");
        if expected == "key" {
            let said = outcome.failure().unwrap().to_string();
            assert!(said.contains("sdk key 0 of environment prod"), "{said}");
        }
    }
}

#[tokio::test]
async fn a_post_whose_key_is_gone_is_left_out_and_nothing_is_sent() {
    let (addr, received) = serve(|_| Response::new(Full::default())).await;
    let config = UpstreamConfig::at(&format!("http://{addr}")).unwrap();
    let clock = Arc::new(SystemClock::new());
    let sink = Upstream::new(&config, AddressPolicy::Operator, 1, Arc::default(), &Arc::default(), clock);
    let job = job(kept(Kind::Counts, 2, "{}"));
    let encoded = sink.encode(&job).unwrap();
    assert_eq!((encoded.records(), encoded.rejected.len(), encoded.rejected[0].offset), (0, 1, 5));
    assert!(encoded.rejected[0].reason.contains("place 2 of environment prod"), "{:?}", encoded.rejected);
    assert_eq!(sink.send(&encoded, &job.id, Instant::now() + Duration::from_secs(20)).await, Outcome::Delivered);
    assert!(received.lock().unwrap().is_empty());
}

#[tokio::test]
async fn what_is_no_post_cannot_be_encoded() {
    let sink = upstream("127.0.0.1:1".parse().unwrap());
    let good = kept(Kind::Counts, 0, "{}");
    assert!(sink.encode(&job(Bytes::from_static(b"no post"))).is_err());
    let two = Job { parts: vec![job(good.clone()).parts.remove(0), job(good).parts.remove(0)], ..job(Bytes::new()) };
    assert!(sink.encode(&two).is_err());
}

/// A log of posts, its queues, and the loop.
struct Stage {
    queues: Queues,
    delivery: Delivery,
}

impl Stage {
    fn new(disk: &MemDisk) -> Self {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let options = QueueOptions { store: StoreChoice::None, ..QueueOptions::default() };
        let log = LogOptions { segment_bytes: 1 << 20, prewrite: false, ..LogOptions::default() };
        let disk = Arc::new(disk.clone());
        let queues = Queues::open(disk, Arc::clone(&clock), Path::new("data"), log, options).unwrap();
        let delivery = Delivery::new(Budget::new(BudgetLimits::default()), clock, Arc::new(NoParking));
        Self { queues, delivery }
    }

    fn append(&self, place: u32, n: usize) {
        let bytes = kept(Kind::Events, place, &format!("{place}:{n}")).to_vec();
        let parts = vec![Payload { bytes, records: 1 }];
        self.queues.log().append_wait(&post::stream("prod", place), parts).unwrap();
    }

    fn start(&self, addr: SocketAddr) {
        let sink = Arc::new(upstream(addr));
        let source = |place| -> Arc<dyn Source> {
            let queue = self.queues.queue("split", &post::stream("prod", place), Start::Earliest).unwrap();
            let queued = Arc::new(Queued::new(queue, environment()));
            Arc::new(InOrder::new(queued))
        };
        let limits = Limits { records_max: 1, bytes_max: 1 << 20 };
        let settings = Settings { concurrency_max: 8, limits, ..Settings::default() };
        self.delivery.start("split", sink, (0..3).map(source).collect(), settings).unwrap();
    }

    fn behind(&self, place: u32) -> u64 {
        let stream = post::stream("prod", place);
        self.queues.all().iter().find(|queue| queue.stream() == stream).unwrap().lag().records
    }

    async fn until(&self, done: impl Fn(&Self) -> bool) {
        for _ in 0..6_000 {
            if done(self) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("not done: {:?}", self.delivery.stats());
    }
}

/// The numbers that came for each key, in order.
fn by_key(received: &Received) -> BTreeMap<u32, Vec<usize>> {
    let mut by_key: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
    for (head, body) in received.lock().unwrap().iter() {
        let (place, n) = std::str::from_utf8(body).unwrap().split_once(':').unwrap();
        let place = place.parse().unwrap();
        assert_eq!(head.headers[AUTHORIZATION], format!("Bearer {}", KEYS[place as usize]));
        by_key.entry(place).or_default().push(n.parse().unwrap());
    }
    by_key
}

#[tokio::test(flavor = "multi_thread")]
async fn posts_of_a_key_go_in_order_whatever_is_answered_and_each_is_taken_once() {
    // What Split does with the n-th request, for 40 % of them not what was hoped for.
    let answer = |n: usize| match (n * 7919) % 10 {
        0 => Response::builder().status(503).header("retry-after", "0").body(Full::default()).unwrap(),
        1 => Response::builder().status(500).body(Full::default()).unwrap(),
        2 => Response::builder().status(429).header("retry-after", "0").body(Full::default()).unwrap(),
        3 => Response::builder().status(408).body(Full::default()).unwrap(),
        _ => Response::new(Full::default()),
    };
    let taken = |n: usize| !matches!((n * 7919) % 10, 0..=3);
    let (addr, received) = serve(answer).await;
    let stage = Stage::new(&MemDisk::new());
    const POSTS: usize = 12;
    for n in 0..POSTS / 2 {
        (0..3).for_each(|place| stage.append(place, n));
    }
    stage.start(addr);
    for n in POSTS / 2..POSTS {
        (0..3).for_each(|place| stage.append(place, n));
    }
    stage.until(|stage| (0..3).all(|place| stage.behind(place) == 0)).await;
    let answered: Vec<bool> = (0..received.lock().unwrap().len()).map(taken).collect();
    let mut next = BTreeMap::from([(0, 0), (1, 0), (2, 0)]);
    for ((_, body), taken) in received.lock().unwrap().iter().zip(answered) {
        let (place, n) = std::str::from_utf8(body).unwrap().split_once(':').unwrap();
        let next = next.get_mut(&place.parse::<u32>().unwrap()).unwrap();
        assert_eq!(n.parse::<usize>().unwrap(), *next, "key {place}: the next one, and nothing before it is taken");
        *next += usize::from(taken);
    }
    assert_eq!(next, BTreeMap::from([(0, POSTS), (1, POSTS), (2, POSTS)]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_refused_holds_only_itself_and_goes_on_in_order_when_it_is_mended() {
    let mended = Arc::new(AtomicBool::new(false));
    let (addr, received) = {
        let mended = Arc::clone(&mended);
        serve_by_key(move |key| if key == KEYS[1] && !mended.load(Ordering::SeqCst) { 401 } else { 200 }).await
    };
    let stage = Stage::new(&MemDisk::new());
    for n in 0..20 {
        (0..3).for_each(|place| stage.append(place, n));
    }
    stage.start(addr);
    stage.until(|stage| stage.behind(0) == 0 && stage.behind(2) == 0).await;
    assert_eq!(stage.behind(1), 20, "nothing of it is given up or overtaken");
    let all: Vec<usize> = (0..20).collect();
    let came = by_key(&received);
    assert_eq!((&came[&0], &came[&2]), (&all, &all));
    assert!(came[&1].iter().all(|n| *n == 0) && came[&1].len() < 5, "its first one is tried now and then: {came:?}");
    let snapshot = stage.delivery.stats_of("split").unwrap();
    let [held] = &snapshot.held[..] else { panic!("{:?}", snapshot.held) };
    assert_eq!((held.stream.as_str(), held.refused), ("posts/prod/1", true));
    assert_eq!(held.why, "answered 401: sdk key 1 of environment prod");
    assert!(held.until_ms > held.since_ms && snapshot.answers[3] > 0, "{snapshot:?}");
    mended.store(true, Ordering::SeqCst);
    received.lock().unwrap().clear();
    // An operator says so; else it is found out by itself, within the wait.
    stage.delivery.probe("split");
    stage.until(|stage| stage.behind(1) == 0).await;
    assert_eq!(by_key(&received)[&1], all);
    assert!(stage.delivery.stats_of("split").unwrap().held.is_empty());
}

/// Answers each request by the key that it shows.
async fn serve_by_key(status: impl Fn(&str) -> u16 + Send + Sync + 'static) -> (SocketAddr, Received) {
    let seen: Arc<std::sync::OnceLock<Received>> = Arc::default();
    let theirs = Arc::clone(&seen);
    let (addr, received) = serve(move |n| {
        let seen = theirs.get().expect("set before the first request");
        let key = {
            let seen = seen.lock().unwrap();
            // Requests that were taken out were before this one.
            let (head, _) = seen.get(n).or(seen.last()).expect("it was noted");
            head.headers[AUTHORIZATION].to_str().unwrap().trim_start_matches("Bearer ").to_owned()
        };
        Response::builder().status(status(&key)).body(Full::default()).unwrap()
    })
    .await;
    seen.set(Arc::clone(&received)).expect("set once");
    (addr, received)
}
