//! What a start asks of the disk, counted: so that it takes as long with thousands of destinations as with ten. And that
//! what it starts to deliver needs no thread of the way in; and what is told where deliveries have none.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::RwLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::sync_channel;

use forebay::disk::counted::{CountedDisk, Counts};
use forebay::disk::mem::MemDisk;
use forebay::{Start, StoreChoice};
use tokio::runtime::Builder;

use super::super::runtimes::Runtimes;
use super::*;
use crate::config::{Destination, Environment, FileConfig, Secret, SinkConfig};
use crate::sinks::sample;

/// What a process leaves behind that was killed when each of its destinations had something to get.
fn killed(disk: &MemDisk, dir: &Path, destinations: usize) {
    let options = QueueOptions { store: StoreChoice::None, ..QueueOptions::inline() };
    let (disk, clock) = (Arc::new(disk.clone()), Arc::new(SystemClock::new()));
    // Without threads of its own, which would hold the directory for a moment longer.
    let log = LogOptions { inline: true, ..LogOptions::default() };
    let queues = Queues::open(disk, clock, dir, log, options).unwrap();
    for n in 0..destinations {
        queues.queue(&format!("hook-{n}"), &format!("env-{n}"), Start::Earliest).unwrap();
        sample::append(&queues, &format!("env-{n}"), 0);
    }
    queues.tick().unwrap();
}

fn config(dir: &Path, destinations: usize) -> Config {
    let anywhere = SocketAddr::from(([127, 0, 0, 1], 0));
    let environment = |n| Environment {
        id: format!("env-{n}"),
        name: format!("env-{n}"),
        sdk_keys: vec![Secret::new(format!("key-{n}"))],
    };
    let destination = |n| {
        let sink = SinkConfig::File(FileConfig::new(format!("out-{n}")));
        Destination::new(format!("hook-{n}"), vec![format!("env-{n}")], sink)
    };
    let mut config = Config {
        data_dir: dir.to_owned(),
        environments: (0..destinations).map(environment).collect(),
        destinations: (0..destinations).map(destination).collect(),
        ..Config::default()
    };
    (config.ingest.listen, config.admin.listen, config.grpc.listen) = (anywhere, anywhere, Listen::Tcp(anywhere));
    config
}

/// What a start over so many destinations asks, until it serves.
async fn asked(destinations: usize) -> Counts {
    // For the hints alone, which no disk of ours knows.
    let dir = tempfile::tempdir().unwrap();
    let mem = MemDisk::new();
    killed(&mem, dir.path(), destinations);
    let disk = CountedDisk::new(Arc::new(mem));
    // Nobody runs it: what destinations read when they begin comes behind the start.
    let deliveries = Builder::new_current_thread().enable_all().build().unwrap();
    let (_stop, shutdown) = crate::shutdown::channel();
    let counted = Arc::new(disk.clone());
    let sidecar =
        start(config(dir.path(), destinations), None, shutdown, |sink| sink, deliveries.handle().clone(), counted);
    let sidecar = sidecar.await.unwrap();
    let counts = disk.counts();
    assert_eq!(sidecar.queues.all().len(), destinations);
    let pending: u64 = sidecar.queues.all().iter().map(|queue| queue.lag().records).sum();
    assert_eq!(pending, 10 * destinations as u64, "there was something to look at");
    drop(sidecar);
    deliveries.shutdown_background();
    counts
}

/// On one thread, so that what a start leaves to be done behind it, as to look at every queue once a second, is done behind the count.
#[tokio::test]
async fn a_start_asks_no_more_of_the_disk_for_a_thousand_destinations_than_for_ten() {
    let (few, many) = (asked(10).await, asked(1_000).await);
    // Of the floor a slot for each few dozen destinations is read, and a page for as many is written.
    assert!(many.reads < few.reads + 200, "{few:?} {many:?}");
    assert!(many.writes < few.writes + 200, "{few:?} {many:?}");
    for (few, many) in [
        (few.file_syncs + few.dir_syncs, many.file_syncs + many.dir_syncs),
        (few.opens, many.opens),
        (few.creates + few.removes + few.renames, many.creates + many.removes + many.renames),
    ] {
        assert!(many < few + 20, "{few} {many}");
    }
}

#[tokio::test]
async fn what_is_wrong_with_the_address_for_sdks_is_told_with_its_own_remedy() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let refused = bind(taken.local_addr().unwrap()).await.unwrap_err().to_string();
    assert!(refused.contains("is another sidecar running?"), "{refused}");
    // Of a network that is for examples, and nobody's.
    let refused = bind("192.0.2.1:4".parse().unwrap()).await.unwrap_err().to_string();
    assert!(refused.contains("an address of this machine") && !refused.contains("another sidecar"), "{refused}");
}

const PATIENCE: Duration = Duration::from_secs(60);

/// Waits on no thread that might be blocked.
fn until(what: &str, done: &dyn Fn() -> bool) {
    let waited = (0..PATIENCE.as_millis()).any(|_| {
        std::thread::sleep(Duration::from_millis(1));
        done()
    });
    assert!(waited, "{what}");
}

/// Whatever blocks the threads of the way in, and all of them: each destination gets what comes, at once.
#[test]
fn while_calls_block_every_thread_of_the_way_in_deliveries_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let runtimes = Runtimes::start(1).unwrap();
    let (_stop, shutdown) = crate::shutdown::channel();
    let (disk, deliveries) = (Arc::new(MemDisk::new()), runtimes.deliveries());
    let (front, sidecar) = runtimes.block_on(async {
        let sidecar = start(config(dir.path(), 2), None, shutdown, |sink| sink, deliveries, disk).await.unwrap();
        (Handle::current(), sidecar)
    });
    let lasts = Arc::new(RwLock::new(()));
    let last = lasts.write().unwrap();
    let (begins, begun) = sync_channel(1);
    for _ in 0..front.metrics().num_workers() {
        let (lasts, begins) = (Arc::clone(&lasts), begins.clone());
        front.spawn(async move {
            begins.send(()).unwrap();
            drop(lasts.read());
        });
        begun.recv_timeout(PATIENCE).unwrap();
    }
    // It has its turn when one of them is over.
    let over = Arc::new(AtomicBool::new(false));
    let is_over = Arc::clone(&over);
    front.spawn(async move { is_over.store(true, Ordering::SeqCst) });
    for n in 0..50 {
        for (destination, stream) in [("hook-0", "env-0"), ("hook-1", "env-1")] {
            sample::append(&sidecar.queues, stream, n * 10);
            let queue = sidecar.queues.find(destination, stream).unwrap();
            until(destination, &|| queue.balance().delivered.records == (n + 1) * 10);
        }
    }
    assert!(!over.load(Ordering::SeqCst), "they lasted all the while");
    drop(last);
    until("the way in has its threads again", &|| over.load(Ordering::SeqCst));
    drop(sidecar);
    runtimes.end();
}

/// What a scraper reads now of this series.
fn metric(sidecar: &Sidecar, series: &str) -> f64 {
    let Listen::Tcp(address) = sidecar.addresses().admin else { panic!("it listens on a port") };
    let mut connection = TcpStream::connect(address).unwrap();
    connection.write_all(b"GET /metrics HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n").unwrap();
    let mut page = String::new();
    connection.read_to_string(&mut page).unwrap();
    let sample = page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    sample.unwrap_or_else(|| panic!("{series} is on the page: {page}")).parse().unwrap()
}

#[test]
fn a_call_that_blocks_deliveries_shows_among_the_metrics_and_what_waited_goes_out_when_it_is_over() {
    let dir = tempfile::tempdir().unwrap();
    let runtimes = Runtimes::start(1).unwrap();
    let (_stop, shutdown) = crate::shutdown::channel();
    let (disk, deliveries) = (Arc::new(MemDisk::new()), runtimes.deliveries());
    let sidecar =
        runtimes.block_on(start(config(dir.path(), 1), None, shutdown, |sink| sink, deliveries, disk)).unwrap();
    let waits = |of: &str| metric(&sidecar, &format!("forebay_threads_wait_seconds{{of=\"{of}\"}}"));
    let stalls = || metric(&sidecar, "forebay_threads_stalls_total{of=\"send\"}");
    let ((end, ends), (begins, begun)) = (sync_channel::<()>(0), sync_channel(1));
    runtimes.deliveries().spawn(async move {
        begins.send(()).unwrap();
        let _ = ends.recv();
    });
    begun.recv_timeout(PATIENCE).unwrap();
    sample::append(&sidecar.queues, "env-0", 0);
    until("it is told", &|| stalls() >= 1.0 && waits("send") >= 1.0);
    let first = waits("send");
    until("with how long it lasts", &|| waits("send") > first);
    until("of those alone", &|| waits("front") == 0.0);
    let queue = sidecar.queues.find("hook-0", "env-0").unwrap();
    assert_eq!((queue.balance().delivered.records, queue.lag().records), (0, 10), "it lasted all the while");
    drop(end);
    until("what waited is delivered", &|| queue.balance().delivered.records == 10);
    until("the threads are told to run", &|| waits("send") == 0.0);
    drop(sidecar);
    runtimes.end();
}
