//! Senders that take their time, with heads and bodies that drip, and senders that read no answer: each keeps its own
//! connection busy, and no one else. No limit of time helps: here they are hours.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use super::harness::{KEY, Running, bulk, comes_to, impressions, post, read_reply, start_with};
use crate::ingest::Limits;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::task::JoinHandle;

/// Heads that drip, and as many bodies.
const DRIPPING: usize = 50;

/// Senders that read no answer.
const UNREAD: usize = 3;

/// Posts of others at a time, half of them of the same environment.
const BESIDE: u64 = 40;

/// More than any system keeps of what nobody reads: it takes without end.
const ROUNDS_MAX: usize = 100_000;

/// One that sends request after request, and reads nothing.
struct Unread {
    /// How often it sent a post and a question whose answer is as long as itself.
    rounds: Arc<AtomicUsize>,
    enough: Arc<AtomicBool>,
    writing: JoinHandle<OwnedWriteHalf>,
    answers: OwnedReadHalf,
}

impl Unread {
    async fn at(server: &Running) -> Self {
        let (answers, mut sender) = server.connect().await.into_split();
        let (rounds, enough) = (Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
        let (sent, told) = (Arc::clone(&rounds), Arc::clone(&enough));
        let preflight = format!(
            "OPTIONS /api/testImpressions/bulk HTTP/1.1\r\nHost: s\r\nAccess-Control-Request-Headers: {}\r\n\r\n",
            "x".repeat(16_000)
        );
        let round = [preflight.into_bytes(), bulk(impressions(1))].concat();
        let writing = tokio::spawn(async move {
            while !told.load(Relaxed) {
                sender.write_all(&round).await.expect("nobody ends it");
                assert!(sent.fetch_add(1, Relaxed) < ROUNDS_MAX, "it is taken without end");
            }
            sender
        });
        Self { rounds, enough, writing, answers }
    }

    /// Reads at last: every post was taken, and every question answered. Returns how many of each there were.
    async fn reads(mut self) -> u64 {
        self.enough.store(true, Relaxed);
        let ends = tokio::spawn(async move { self.writing.await.unwrap().shutdown().await.unwrap() });
        let mut answers = Vec::new();
        self.answers.read_to_end(&mut answers).await.unwrap();
        ends.await.unwrap();
        let rounds = self.rounds.load(Relaxed);
        let count = |status: &str| memchr::memmem::find_iter(&answers, status).count();
        assert_eq!((count("HTTP/1.1 200 "), count("HTTP/1.1 204 "), count("HTTP/1.1 ")), (rounds, rounds, 2 * rounds));
        rounds as u64
    }
}

/// A request of which a byte more is sent with each post of somebody else.
struct Dripping {
    stream: TcpStream,
    request: Vec<u8>,
    sent: usize,
}

impl Dripping {
    /// All but so many bytes at once.
    async fn at(server: &Running, request: Vec<u8>, left: usize) -> Self {
        let (mut stream, sent) = (server.connect().await, request.len() - left);
        stream.write_all(&request[..sent]).await.unwrap();
        Self { stream, request, sent }
    }

    async fn drips(&mut self) {
        self.stream.write_all(&self.request[self.sent..=self.sent]).await.unwrap();
        self.sent += 1;
    }

    async fn ends(mut self) -> u16 {
        self.stream.write_all(&self.request[self.sent..]).await.unwrap();
        read_reply(&mut self.stream).await.expect("an answer").status
    }
}

/// Posts of both environments, each answered before the next, while the others drip.
async fn post_beside(server: &Running, dripping: &mut [Dripping]) {
    for n in 0..BESIDE {
        let authorization = format!("Bearer {}", if n % 2 == 0 { KEY } else { "staging-key" });
        let headers = [("Authorization", authorization.as_str())];
        assert_eq!(server.send(post("/api/testImpressions/bulk", &headers, impressions(1))).await.status, 200);
        if n < BESIDE / 4 {
            for one in &mut *dripping {
                one.drips().await;
            }
        }
    }
}

#[tokio::test]
async fn who_drips_or_reads_no_answer_holds_up_nobody_else_and_loses_nothing() {
    let hours = Duration::from_secs(10 * 3600);
    let patient = Limits { body_time_max: hours, head_time_max: hours, idle_time_max: hours, ..Limits::default() };
    let server = start_with(patient).await;
    let mut unread = Vec::new();
    for _ in 0..UNREAD {
        unread.push(Unread::at(&server).await);
    }
    let (mut dripping, request, behind_head) = (Vec::new(), bulk(impressions(10)), impressions(10).len());
    for _ in 0..DRIPPING {
        // Stops in its first line; stops in its body.
        dripping.push(Dripping::at(&server, request.clone(), request.len() - 10).await);
        dripping.push(Dripping::at(&server, request.clone(), behind_head - 10).await);
    }
    let work = async {
        let mut batches = 0;
        // Until nothing more is taken of those who do not read: what is on its way stays as it is.
        loop {
            let rounds = || unread.iter().map(|one| one.rounds.load(Relaxed)).sum::<usize>();
            let (before, taken) = (rounds(), server.prod().requests);
            post_beside(&server, if batches < 2 { &mut dripping } else { &mut [] }).await;
            batches += 1;
            if batches >= 2 && (rounds(), server.prod().requests) == (before, taken + BESIDE / 2) {
                return batches;
            }
        }
    };
    // Generous: it is over in a second.
    let batches = tokio::time::timeout(Duration::from_secs(300), work).await.expect("others wait behind them");
    let there = (UNREAD + 2 * DRIPPING) as u64;
    let connections = || server.ingest.stats().snapshot().connections_open;
    // The last of the others may not be gone yet.
    comes_to(there, connections).await;
    assert!(server.ingest.memory_used_bytes() < 1_000_000, "{}", server.ingest.memory_used_bytes());

    for one in dripping {
        assert_eq!(one.ends().await, 200);
    }
    let mut rounds = 0;
    for one in unread {
        rounds += one.reads().await;
    }
    let records = rounds + 10 * 2 * DRIPPING as u64 + batches * BESIDE / 2;
    assert_eq!((server.records("prod"), server.records("staging")), (records, batches * BESIDE / 2));
    let told = server.ingest.stats().snapshot();
    let refusals = told.environments.iter().flat_map(|one| &one.refusals).chain(&told.strangers);
    assert!(refusals.clone().all(|(_, count)| *count == 0), "{told:?}");
    assert_eq!(server.ingest.memory_used_bytes(), 0);
    eprintln!("{rounds} posts of {UNREAD} that read no answer, {batches} times {BESIDE} posts beside them");
}
