//! A fleet of SDKs: posts bulks of impressions over connections that stay open, and remembers what became of each.
//!
//! Every impression has a key of its own, from which all its fields follow, so that whoever meets it later can tell
//! whether it is the one that was sent. What is cut off on its way is not sent again: a second time would be a second
//! record under the same key.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
pub(crate) use storage_tests::model::deliveries::Fate;

use super::sidecar::SDK_KEY;
use super::wire::{self, Client};

/// The most impressions in one post.
const IMPRESSIONS_MAX: u64 = 30;

/// One body that went out.
#[derive(Debug, Clone)]
pub(crate) struct Post {
    pub(crate) keys: Vec<String>,
    pub(crate) fate: Fate,
}

/// Senders at work.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicUsize>,
    refused: Arc<AtomicUsize>,
    senders: Vec<JoinHandle<Vec<Post>>>,
}

impl Load {
    /// Starts so many senders, each over a connection of its own. `name` makes their keys differ from other loads'.
    pub(crate) fn start(name: &str, seed: u64, senders: usize, address: SocketAddr) -> Self {
        let (stop, acknowledged, refused) =
            (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let senders = (0..senders)
            .map(|n| {
                let sender = Sender {
                    name: format!("{name}-{n}"),
                    address,
                    rng: SmallRng::seed_from_u64(seed.wrapping_add(n as u64)),
                    stop: Arc::clone(&stop),
                    acknowledged: Arc::clone(&acknowledged),
                    refused: Arc::clone(&refused),
                };
                thread::spawn(move || sender.run())
            })
            .collect();
        Self { stop, acknowledged, refused, senders }
    }

    /// Posts that were acknowledged so far.
    pub(crate) fn acknowledged(&self) -> usize {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// Posts that were refused so far.
    pub(crate) fn refused(&self) -> usize {
        self.refused.load(Ordering::Relaxed)
    }

    /// Ends it, and tells what became of each post.
    pub(crate) fn stop(mut self) -> Vec<Post> {
        self.stop.store(true, Ordering::Relaxed);
        self.senders.drain(..).flat_map(|sender| sender.join().expect("a sender does not panic")).collect()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

struct Sender {
    name: String,
    address: SocketAddr,
    rng: SmallRng,
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicUsize>,
    refused: Arc<AtomicUsize>,
}

impl Sender {
    fn run(mut self) -> Vec<Post> {
        let mut posts = Vec::new();
        let (mut connection, mut n, mut burst) = (None, 0, false);
        while !self.stop.load(Ordering::Relaxed) {
            let Some(client) = connection.as_mut() else {
                connection = Client::connect(self.address).ok();
                thread::sleep(Duration::from_millis(5));
                continue;
            };
            let count = self.rng.random_range(1..=IMPRESSIONS_MAX);
            let keys: Vec<_> = (n..n + count).map(|n| format!("{}-{n}", self.name)).collect();
            n += count;
            let fate = self.post(client, &keys);
            if fate == Fate::Acknowledged {
                self.acknowledged.fetch_add(1, Ordering::Relaxed);
            } else {
                self.refused.fetch_add(usize::from(fate != Fate::Unknown), Ordering::Relaxed);
                connection = None;
            }
            posts.push(Post { keys, fate });
            // In bursts, as fast as it goes, and calmly in between.
            if self.rng.random_ratio(1, 40) {
                burst = !burst;
            }
            if !burst {
                thread::sleep(Duration::from_millis(self.rng.random_range(2..20)));
            }
        }
        posts
    }

    fn post(&self, client: &mut Client, keys: &[String]) -> Fate {
        match post(client, &self.name, keys) {
            Ok(200..300) => Fate::Acknowledged,
            Ok(status) => Fate::Refused(status),
            Err(_) => Fate::Unknown,
        }
    }
}

/// Posts the impressions of these keys, as an SDK on `machine` does. Returns the status.
pub(crate) fn post(client: &mut Client, machine: &str, keys: &[String]) -> io::Result<u16> {
    client.send(&request(machine, keys))?.status()
}

/// That post as it is sent.
pub(crate) fn request(machine: &str, keys: &[String]) -> Vec<u8> {
    let authorization = format!("Bearer {SDK_KEY}");
    let headers = [
        ("authorization", authorization.as_str()),
        ("content-type", "application/json"),
        ("splitsdkversion", "python-10.7.0"),
        ("splitsdkmachinename", machine),
        ("splitsdkmachineip", "10.1.2.3"),
        ("splitsdkimpressionsmode", "DEBUG"),
    ];
    wire::request("POST", "/api/testImpressions/bulk", &headers, &bulk(keys))
}

/// The body of that post.
pub(crate) fn bulk(keys: &[String]) -> Vec<u8> {
    let mut flags = BTreeMap::<String, Vec<Value>>::new();
    for key in keys {
        let made = Impression::of(key);
        let impression = json!({
            "k": key, "t": made.treatment, "m": made.time, "c": made.change_number, "r": made.label, "b": null,
        });
        flags.entry(made.flag).or_default().push(impression);
    }
    let groups: Vec<_> = flags.into_iter().map(|(flag, impressions)| json!({ "f": flag, "i": impressions })).collect();
    Value::from(groups).to_string().into_bytes()
}

/// The fields that follow from a key.
struct Impression {
    flag: String,
    treatment: String,
    time: u64,
    change_number: u64,
    label: &'static str,
    machine: String,
}

impl Impression {
    fn of(key: &str) -> Self {
        let (machine, n) = key.rsplit_once('-').unwrap_or((key, ""));
        let n: u64 = n.parse().unwrap_or(u64::MAX >> 32);
        Self {
            flag: format!("flag_{}", n % 3),
            treatment: format!("treatment of {key}"),
            time: 1_795_000_000_000 + n,
            change_number: 1_700_000_000_000 + n % 7,
            label: if n.is_multiple_of(2) { "default rule" } else { "in \"segment\" \u{e9}\u{1f600}" },
            machine: machine.to_owned(),
        }
    }
}

/// What a destination has to be given for the impression of a key, in the fields that all destinations have.
pub(crate) fn delivered(key: &str) -> Value {
    let made = Impression::of(key);
    json!({
        "key": key, "split": made.flag, "environmentId": "acme-prod", "environmentName": "production",
        "treatment": made.treatment, "time": made.time, "label": made.label, "machineName": made.machine,
        "machineIp": "10.1.2.3", "splitVersionNumber": made.change_number, "sdk": "python", "sdkVersion": "10.7.0",
    })
}
