//! The largest body that a sidecar takes as it comes: an SDK posts its whole queue at once and never splits it. And what
//! would be many times as large, unpacked.

use std::io::{BufReader, Read as _, Write};
use std::net::TcpStream;
use std::time::Duration;

use flate2::Compression;
use flate2::read::GzEncoder;

use super::load::Load;
use super::proof::Arrived;
use super::receiver::Receiver;
use super::sidecar::{Home, SDK_KEY, wait_for};
use super::wire::{Client, Message};

/// `[ingest] body_bytes_max` as it is where nobody sets it.
const LARGEST: usize = 64 << 20;
const RECORDS: usize = 16_000;

/// A bulk of exactly [`LARGEST`] bytes; its keys begin with `name`.
fn largest(name: &str) -> Vec<u8> {
    let key = "k".repeat(LARGEST / RECORDS - 100);
    let impression = |i: usize| format!(r#"{{"k":"{name}-{i}-{key}","t":"on","m":1795450894053,"r":"rule"}}"#);
    let impressions: Vec<_> = (0..RECORDS).map(impression).collect();
    let mut body = format!(r#"[{{"f":"flag","i":[{}]}}]"#, impressions.join(","));
    assert!(body.len() <= LARGEST);
    body.extend(std::iter::repeat_n(' ', LARGEST - body.len()));
    body.into_bytes()
}

/// Posts it in chunks, without a word about its length; returns the status.
fn post_chunked(home: &Home, body: &[u8]) -> u16 {
    let mut stream = TcpStream::connect(home.ingest()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let head = format!(
        "POST /api/testImpressions/bulk HTTP/1.1\r\nhost: sidecar\r\nauthorization: Bearer {SDK_KEY}\r\n\
         transfer-encoding: chunked\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    for chunk in body.chunks(100_000) {
        write!(stream, "{:x}\r\n", chunk.len()).unwrap();
        stream.write_all(chunk).unwrap();
        stream.write_all(b"\r\n").unwrap();
    }
    stream.write_all(b"0\r\n\r\n").unwrap();
    Message::read(&mut BufReader::new(stream)).unwrap().expect("an answer").status().unwrap()
}

#[test]
fn bodies_of_the_largest_size_are_taken_whole_whether_or_not_they_say_it_first() {
    let home = Home::new("largest").file("archive", "");
    let sidecar = home.start();
    let authorization = format!("Bearer {SDK_KEY}");
    let headers = [("authorization", authorization.as_str())];
    let mut client = Client::connect(home.ingest()).unwrap();
    let path = "/api/testImpressions/bulk";
    assert_eq!(client.ask("POST", path, &headers, &largest("told")).unwrap().status().unwrap(), 200);
    assert_eq!(post_chunked(&home, &largest("chunked")), 200);
    let one_more = [largest("over"), b" ".to_vec()].concat();
    assert_eq!(client.ask("POST", path, &headers, &one_more).unwrap().status().unwrap(), 413);

    sidecar.drain(&["archive"]);
    // What one body takes (128 MiB: it comes one at a time), what the log's queue, its tail cache and batches may have by their
    // budgets (64, 32 and 64), and the rest of the process.
    let most = sidecar.resident_kib_max() >> 10;
    assert!(most < 288 + 64, "{most} MiB");
    sidecar.terminate();
    assert_eq!(sidecar.wait(), Some(0));
    let mut keys: Vec<String> = home.lines("archive").iter().map(|line| line["key"].as_str().unwrap().into()).collect();
    keys.sort_unstable();
    keys.dedup();
    assert_eq!(keys.len(), 2 * RECORDS);
    assert!(keys.iter().all(|key| key.starts_with("told-") || key.starts_with("chunked-")));
}

/// Before it is refused it holds what the largest body may.
#[test]
fn bombs_of_a_gigabyte_are_refused_and_cost_no_more_memory_than_the_largest_body_and_nobody_else_anything() {
    let receiver = Receiver::start();
    let home = Home::new("bombs").webhook("hook", &receiver, "batch_records_max = 100");
    let sidecar = home.start();
    let before = sidecar.resident_kib_max() >> 10;
    let mut member = Vec::new();
    GzEncoder::new(std::io::repeat(b' ').take(16 << 20), Compression::best()).read_to_end(&mut member).unwrap();
    let bomb = member.repeat(64);
    assert!(bomb.len() < 2 << 20, "{} bytes", bomb.len());
    let authorization = format!("Bearer {SDK_KEY}");
    let headers = [("authorization", authorization.as_str()), ("content-encoding", "gzip")];
    let mut client = Client::connect(home.ingest()).unwrap();
    let path = "/api/testImpressions/bulk";
    let mut explode = || assert_eq!(client.ask("POST", path, &headers, &bomb).unwrap().status().unwrap(), 413);
    (0..3).for_each(|_| explode());
    let series = "forebay_ingest_refused_requests_total{environment=\"acme-prod\",reason=\"too_large\"}";
    assert_eq!(home.metric(series), Some(3));
    let grown = (sidecar.resident_kib_max() >> 10) - before;
    assert!(grown < (LARGEST >> 20) + 32, "{grown} MiB");

    // Whoever posts meanwhile is taken and delivered as ever.
    let load = Load::start("beside-bombs", 18, 2, home.ingest());
    assert!(wait_for(|| receiver.count() > 0), "it said:\n{}", sidecar.said());
    let (taken, delivered) = (load.acknowledged(), receiver.count());
    let mut bombs = 0;
    while load.acknowledged() < taken + 50 || receiver.count() < delivered + 5 {
        bombs += 1;
        assert!(
            bombs < 50,
            "{} posts and {} requests beside them",
            load.acknowledged() - taken,
            receiver.count() - delivered
        );
        explode();
    }
    assert!(bombs > 0 && load.refused() == 0, "{bombs} bombs, {} posts refused", load.refused());
    let posts = load.stop();
    sidecar.drain(&["hook"]);
    Arrived::at_webhook(&receiver.arrivals()).holds(&posts, "hook");
}
