//! The whole way out: a real log with its queues, the loops, real sinks, and receivers on loopback.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use forebay::clock::Clock;
use forebay::disk::mem::MemDisk;
use forebay::disk::{Disk, read_all};
use forebay::{Queues, Start};
use http_body_util::Full;
use hyper::Response;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

use super::address_guard::AddressPolicy;
use super::file::FileSink;
use super::receiver::{Received, serve, whole_request};
use super::sample;
use super::webhook::Webhook;
use crate::config::{Endpoint, FileConfig, WebhookConfig};
use crate::delivery::budget::{Budget, BudgetLimits};
use crate::delivery::parking::NoParking;
use crate::delivery::queued::Queued;
use crate::delivery::sink::{Environment, Sink};
use crate::delivery::source::{Limits, Source};
use crate::delivery::{Delivery, Settings};

mod forgotten;
mod names;

const ENVIRONMENT: &str = "acme-prod";

struct Stage {
    queues: Queues,
    delivery: Delivery,
    clock: Arc<dyn Clock>,
    disk: MemDisk,
}

fn stage(disk: &MemDisk) -> Stage {
    let (queues, clock) = sample::queues(disk);
    on_stage(disk, queues, clock)
}

fn on_stage(disk: &MemDisk, queues: Queues, clock: Arc<dyn Clock>) -> Stage {
    let delivery = Delivery::new(Budget::new(BudgetLimits::default()), Arc::clone(&clock), Arc::new(NoParking));
    Stage { queues, delivery, clock, disk: disk.clone() }
}

impl Stage {
    /// Ten records: those of the keys `first` and the nine that follow.
    fn append(&self, first: u64) {
        sample::append(&self.queues, ENVIRONMENT, first);
    }

    fn start(&self, id: &str, sink: Arc<dyn Sink>) {
        let queue = self.queues.queue(id, ENVIRONMENT, Start::Earliest).unwrap();
        let environment = Arc::new(Environment { id: ENVIRONMENT.to_owned(), name: "production".to_owned() });
        let source: Arc<dyn Source> = Arc::new(Queued::new(queue, environment));
        let limits = Limits { records_max: 25, bytes_max: 1 << 20 };
        let settings = Settings { limits, timeout: Duration::from_secs(5), ..Settings::default() };
        self.delivery.start(id, sink, vec![source], settings).unwrap();
    }

    fn webhook(&self, id: &str, addr: std::net::SocketAddr) {
        let config = WebhookConfig::new(Endpoint::parse(&format!("http://{addr}/")).unwrap());
        self.start(
            id,
            Arc::new(Webhook::new(&config, AddressPolicy::Operator, 4, Arc::default(), Arc::clone(&self.clock))),
        );
    }

    fn files(&self, id: &str) {
        let config = FileConfig::new("out");
        self.start(id, Arc::new(FileSink::new(id, config, Arc::new(self.disk.clone()), Arc::clone(&self.clock))));
    }

    /// Waits until nothing is pending at any destination.
    async fn drained(&self) {
        for _ in 0..12_000 {
            if self.queues.all().iter().all(|queue| queue.lag().records == 0) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("not drained: {:?}", self.delivery.stats());
    }
}

fn keys(json: &[u8]) -> Vec<String> {
    let array: Vec<serde_json::Value> = serde_json::from_slice(json).unwrap();
    array.iter().map(|object| object["key"].as_str().unwrap().to_owned()).collect()
}

/// The keys of each batch that came in, by id. The same id twice must be the same records.
fn batches(received: &Received) -> BTreeMap<String, Vec<String>> {
    let mut batches = BTreeMap::new();
    for (head, body) in received.lock().unwrap().iter() {
        let mut json = Vec::new();
        flate2::read::GzDecoder::new(&body[..]).read_to_end(&mut json).unwrap();
        let id = head.headers["webhook-id"].to_str().unwrap().to_owned();
        let keys = keys(&json);
        let before = batches.insert(id, keys.clone());
        assert!(before.is_none_or(|before| before == keys), "one id, two contents");
    }
    batches
}

fn delivered(received: &Received) -> Vec<String> {
    let mut keys: Vec<_> = batches(received).into_values().flatten().collect();
    keys.sort();
    keys
}

fn expected(n: u64) -> Vec<String> {
    let mut keys: Vec<_> = (0..n).map(|n| format!("user-{n}")).collect();
    keys.sort();
    keys
}

fn status(status: u16) -> Response<Full<Bytes>> {
    Response::builder().status(status).body(Full::default()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_destination_gets_every_record_however_its_receiver_behaves() {
    let stage = stage(&MemDisk::new());
    let (good, good_received) = serve(|_| status(200)).await;
    let (moody, moody_received) = serve(|n| status(*[500, 200, 429, 200, 301].get(n % 12).unwrap_or(&200))).await;
    stage.webhook("good", good);
    stage.webhook("moody", moody);
    stage.files("archive");
    for n in 0..30 {
        stage.append(n * 10);
    }
    stage.drained().await;
    assert_eq!(delivered(&good_received), expected(300));
    assert_eq!(delivered(&moody_received), expected(300));
    let names = stage.disk.list("out".as_ref()).unwrap();
    let text = read_all(&*stage.disk.open(&Path::new("out").join(&names[0])).unwrap()).unwrap();
    let ids: BTreeSet<_> = text.split(|byte| *byte == b'\n').collect();
    assert_eq!(ids.len(), 301, "300 lines, each once");
    for queue in stage.queues.all() {
        let balance = queue.balance();
        assert_eq!((balance.accepted.records, balance.delivered.records), (300, 300));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_whose_answer_was_lost_comes_again_under_the_same_id() {
    let stage = stage(&MemDisk::new());
    // Twice it takes the whole request and closes without a word.
    let (addr, received) = silent_at_first(2).await;
    stage.append(0);
    stage.webhook("d", addr);
    stage.drained().await;
    let requests = received.lock().unwrap();
    assert_eq!(requests.len(), 3);
    assert!(String::from_utf8_lossy(&requests[0]).contains("webhook-id: "));
    assert!(requests.iter().all(|request| *request == requests[0]), "head and body, byte for byte");
}

/// A receiver that reads whole requests and answers none of the first `silent`. Returns what came.
async fn silent_at_first(silent: usize) -> (std::net::SocketAddr, Arc<Mutex<Vec<Vec<u8>>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let received = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&received);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let request = whole_request(&mut stream).await;
            let n = {
                let mut log = log.lock().unwrap();
                log.push(request);
                log.len()
            };
            if n > silent {
                let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
                stream.write_all(answer).await.unwrap();
            }
        }
    });
    (addr, received)
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_stop_in_mid_flight_the_same_batches_come_again_under_the_same_ids() {
    let disk = MemDisk::new();
    let broken = Arc::new(AtomicBool::new(true));
    let mood = Arc::clone(&broken);
    // The receiver takes what it is sent, but says so only after the restart.
    let (addr, received) = serve(move |_| status(if mood.load(Ordering::SeqCst) { 500 } else { 200 })).await;
    let first = stage(&disk);
    first.append(0);
    first.webhook("d", addr);
    while received.lock().unwrap().is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    first.delivery.shutdown(Duration::ZERO).await;
    first.queues.close().unwrap();
    drop(first);

    broken.store(false, Ordering::SeqCst);
    let second = stage(&disk);
    (1..10).for_each(|n| second.append(n * 10));
    second.webhook("d", addr);
    second.drained().await;
    let first_id = received.lock().unwrap()[0].0.headers["webhook-id"].clone();
    let repeats = received.lock().unwrap().iter().filter(|(head, _)| head.headers["webhook-id"] == first_id).count();
    assert!(repeats >= 2, "before the stop and after it");
    assert_eq!(batches(&received)[first_id.to_str().unwrap()], expected(10));
    assert_eq!(delivered(&received), expected(100));
}
