//! The others, while what the file says of one destination is put to work: that waits for what is in flight there, however
//! long.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use http_body_util::Full;
use hyper::Response;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::*;
use crate::sinks::receiver::{serve, whole_request};

/// Reached only by what will never happen.
const PATIENCE: Duration = Duration::from_secs(60);

/// A receiver that answers nobody while it is shut.
struct Gate {
    address: SocketAddr,
    open: watch::Sender<bool>,
    waiting: Arc<AtomicUsize>,
}

impl Gate {
    async fn shut() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let ((open, opened), waiting) = (watch::channel(false), Arc::<AtomicUsize>::default());
        let counted = Arc::clone(&waiting);
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let (mut opened, waiting) = (opened.clone(), Arc::clone(&counted));
                tokio::spawn(async move {
                    whole_request(&mut stream).await;
                    waiting.fetch_add(1, Ordering::SeqCst);
                    let _ = opened.wait_for(|open| *open).await;
                    waiting.fetch_sub(1, Ordering::SeqCst);
                    let taken = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
                    let _ = stream.write_all(taken).await;
                });
            }
        });
        Self { address, open, waiting }
    }
}

async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let waited = timeout(PATIENCE, async {
        while !done() {
            sleep(Duration::from_millis(2)).await;
        }
    });
    assert!(waited.await.is_ok(), "{what}");
}

fn hook_at(id: &str, address: SocketAddr, more: &str) -> String {
    hook(id, more).replace("secret:hook_url", &format!("http://{address}/in"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_destination_goes_on_while_a_change_of_the_file_waits_for_what_is_in_flight_at_one() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("forebay.toml");
    let (gate, (well, received)) = (Gate::shut().await, serve(|_| Response::new(Full::default())).await);
    let lags = |id: &str, more: &str| hook_at(id, gate.address, &format!("timeout = \"5m\"\n{more}"));
    let file = |says: &str| write(&path, &(file_text(&[]) + &hook_at("well", well, "") + says));
    file(&lags("lags", ""));
    let house = start_in(Inside::with(&MemDisk::default(), 10 * PATIENCE, &[]), load(&path)).await;
    house.operations.comes_from(ConfigFile::before_reading(&path));

    let renamed = lags("late", "");
    let mut appended = 0;
    for (says, waits_for) in [
        (lags("lags", "concurrency = 2"), Some("lags")),
        (String::new(), Some("lags")),
        (lags("lags", ""), None),
        (renamed.clone(), Some("lags")),
        (renamed.replace("\"webhook\"", "\"webhok\""), None),
        (renamed[..renamed.len() - 4].to_owned(), None),
        (renamed, None),
    ] {
        if waits_for.is_some() {
            gate.open.send_replace(false);
            house.append("prod", appended);
            appended += 10;
            until("something is on its way", || gate.waiting.load(Ordering::SeqCst) > 0).await;
            until("the other one has got it", || received.lock().unwrap().len() as u64 == appended / 10).await;
        }
        file(&says);
        let (operations, from) = (Arc::clone(&house.operations), path.clone());
        let reading = tokio::spawn(async move { operations.reload_file(&from).await });
        if let Some(id) = waits_for {
            until("it is being stopped", || !house.delivery.runs(id)).await;
        }
        // Each append is a request of its own, as where nobody changes anything.
        for _ in 0..20 {
            house.append("prod", appended);
            appended += 10;
            until("it has got that", || received.lock().unwrap().len() as u64 == appended / 10).await;
        }
        assert!(waits_for.is_none() || !reading.is_finished(), "the change waited all the while: {says}");
        gate.open.send_replace(true);
        timeout(PATIENCE, reading).await.expect("nothing is in flight there any more").unwrap();
    }
    let reloads = house.operations.reloads();
    assert_eq!((reloads.done, reloads.failed), (5, 2));
    let balance = || house.queues.find("well", "prod").unwrap().balance();
    until("all of it is settled", || balance().delivered.records == appended).await;
    let ids: BTreeSet<_> =
        received.lock().unwrap().iter().map(|(head, _)| head.headers["webhook-id"].clone()).collect();
    assert_eq!(ids.len() as u64, appended / 10, "nothing of it came again");
}
