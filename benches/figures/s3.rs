//! Objects for S3: what making them costs, how fast they get to a store on loopback, and what memory a large one takes.

use std::path::Path;
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{ChecksumAlgorithm, CompletedMultipartUpload, CompletedPart};
use bytes::Bytes;
use forebay::clock::{Clock, SystemClock};
use forebay_sidecar::config::{Endpoint, LinesCompression, ParquetCompression, S3Config, S3Format, S3Keys, Secret};
use forebay_sidecar::delivery::except::Except;
use forebay_sidecar::delivery::outcome::Outcome;
use forebay_sidecar::delivery::sink::{Job, LargeJob, LargeSink, Origin, Part, Reread};
use forebay_sidecar::sinks::address_guard::AddressPolicy;
use forebay_sidecar::sinks::s3::S3Sink;
use tokio::runtime::Runtime;

use crate::encode_cost;
use crate::load::{cpu_seconds, memory_mb};
use crate::report::{Figure, Target, median};
use crate::store::{Act, KEYS, serve};

const MILLION: u64 = 1_000_000;
const ROUNDS: usize = 5;
const TIMEOUT: Duration = Duration::from_secs(120);
const WRITE: &str = "--write-one-large-object";

/// Some ten thousand records over and over: further apart than any packer looks back.
struct Repeated {
    parts: Arc<Vec<Part>>,
    times: u64,
}

impl Reread for Repeated {
    fn parts(&self) -> Box<dyn Iterator<Item = Result<Part, Box<dyn std::error::Error + Send + Sync>>> + Send + '_> {
        let parts = self.parts.iter().cycle().zip(0..self.times);
        Box::new(parts.map(|(part, n)| Ok(Part { first: n * part.take as u64, ..part.clone() })))
    }
}

/// So many thousand records, as Node's SDK posts them.
fn job(thousands: u64, n: u64) -> LargeJob {
    repeated((0..100).map(|n| encode_cost::job(n * 1_000)).collect(), thousands, n)
}

/// The same with properties of 200 bytes, no two of them alike in what is held of an object of columns at a time: those
/// don't shrink.
fn job_with_properties(thousands: u64, n: u64) -> LargeJob {
    let digits = |n: u64| {
        let digit = |state: u64| state.wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29) ^ state;
        let states = std::iter::successors(Some(digit(n + 1)), |state| Some(digit(*state)));
        states.take(12).map(|state| format!("{state:016x}")).collect::<String>()
    };
    let with = |n| format!(r#","properties":"{{\"a\":\"{}\"}}""#, digits(n));
    repeated((0..40).map(|n| encode_cost::job_with(n * 1_000, with)).collect(), thousands, n)
}

/// These batches of a thousand records over and over, as the batch of the number `n`.
fn repeated(jobs: Vec<Job>, thousands: u64, n: u64) -> LargeJob {
    let parts: Vec<Part> = jobs.iter().flat_map(|job| job.parts.iter().cloned()).collect();
    let job = jobs.into_iter().next().expect("there is one");
    let records = thousands * 1_000;
    LargeJob {
        id: format!("batch-{n}").into(),
        origin: Origin { offsets: 0..records, ..job.origin },
        environment: job.environment,
        except: Except::default(),
        received_ms: 1_795_450_895_000,
        bytes: job.bytes * thousands,
        settings_revision: None,
        replay: None,
        records: Arc::new(Repeated { parts: Arc::new(parts), times: thousands }),
        turns: forebay_sidecar::delivery::budget::Turns::default(),
        patience: forebay_sidecar::delivery::patience::Patience::default(),
    }
}

fn sink(address: &str, format: S3Format) -> S3Sink {
    let [access_key_id, secret_access_key] = [KEYS.0, KEYS.1].map(|key| Secret::new(key.to_owned()));
    let config = S3Config {
        endpoint: Some(Endpoint::parse(&format!("http://{address}")).expect("an address")),
        path_style: true,
        keys: Some(S3Keys { access_key_id, secret_access_key }),
        format,
        ..S3Config::new("impressions")
    };
    S3Sink::new("s3", &config, AddressPolicy::Operator, 2, Arc::default(), Arc::new(SystemClock::new()))
}

/// CPU to make the objects of a million impressions.
pub(crate) fn encode_cost() -> Vec<Figure> {
    let runtime = Runtime::new().expect("threads");
    let formats = [
        ("JSON lines, zstd", S3Format::JsonLines(LinesCompression::Zstd), Target::ValueAtMost(0.6)),
        ("JSON lines, gzip", S3Format::JsonLines(LinesCompression::Gzip), Target::None),
        ("JSON lines, not packed", S3Format::JsonLines(LinesCompression::None), Target::None),
        ("Parquet, zstd", S3Format::Parquet(ParquetCompression::Zstd), Target::ValueAtMost(1.0)),
        ("Parquet, snappy", S3Format::Parquet(ParquetCompression::Snappy), Target::ValueAtMost(1.0)),
    ];
    let figure = |(name, format, target)| {
        let (sink, job) = (sink("127.0.0.1:9", format), job(MILLION / 1_000, 0));
        let mut bytes = 0;
        let mut round = || {
            bytes = 0;
            let before = cpu_seconds("self");
            runtime.block_on(sink.make(&job, |part| bytes += part.len())).expect("it was just stored");
            cpu_seconds("self") - before
        };
        let value = (0..ROUNDS).map(|_| round()).fold(f64::INFINITY, f64::min);
        let mb = bytes as f64 / 1e6;
        Figure {
            name: "s3_encode_cost",
            what: format!("CPU to make an object of a million impressions, {name}, {mb:.1} MB"),
            value,
            unit: "s",
            baseline: None,
            ratio: None,
            target,
        }
    };
    formats.into_iter().map(figure).collect()
}

/// Objects of 64 MB to a store on loopback, made on the way, against ready-made ones of the same size.
pub(crate) fn throughput() -> Vec<Figure> {
    let runtime = Runtime::new().expect("threads");
    let root = tempfile::tempdir().expect("a directory");
    let store = runtime.block_on(serve(root.path(), |_| Act::Pass));
    let sink = sink(&store.addr.to_string(), S3Format::JsonLines(LinesCompression::None));
    let mut ready = Vec::new();
    let thousands = 220;
    runtime.block_on(sink.make(&job(thousands, 0), |part| ready.push(part))).expect("it was just stored");
    let bytes: usize = ready.iter().map(Bytes::len).sum();
    let client = runtime.block_on(sink.client()).expect("no certificates needed");
    let timed = |work: &mut dyn FnMut()| {
        let clock = SystemClock::new();
        work();
        bytes as f64 / 1e6 / clock.monotonic().as_secs_f64()
    };
    let (mut made, mut ready_made) = (Vec::new(), Vec::new());
    for n in 0..=ROUNDS as u64 {
        let one = timed(&mut || runtime.block_on(put_ready(&client, &format!("ready-{n}"), &ready)));
        let other = timed(&mut || {
            let outcome = runtime.block_on(sink.put(&job(thousands, n), TIMEOUT));
            assert_eq!(outcome, Outcome::Delivered);
        });
        // The first of each makes connections.
        if n > 0 {
            ready_made.push(one);
            made.push(other);
        }
    }
    let ratio = median(made.iter().zip(&ready_made).map(|(made, ready)| made / ready).collect());
    vec![Figure {
        name: "s3_throughput",
        what: format!(
            "objects of {:.0} MB of JSON lines to a store on loopback; baseline ready-made",
            bytes as f64 / 1e6
        ),
        value: median(made),
        unit: "MB/s",
        baseline: Some(median(ready_made)),
        ratio: Some(ratio),
        target: Target::RatioAtLeast(0.7),
    }]
}

/// What a plain program does: one part after the other.
async fn put_ready(client: &aws_sdk_s3::Client, key: &str, parts: &[Bytes]) {
    let begun = client
        .create_multipart_upload()
        .bucket("impressions")
        .key(key)
        .checksum_algorithm(ChecksumAlgorithm::Crc32)
        .send()
        .await
        .expect("begun");
    let id = begun.upload_id.expect("it has a name");
    let mut done = Vec::new();
    for (number, part) in (1..).zip(parts) {
        let sent = client
            .upload_part()
            .bucket("impressions")
            .key(key)
            .upload_id(&id)
            .part_number(number)
            .checksum_algorithm(ChecksumAlgorithm::Crc32)
            .body(ByteStream::from(part.clone()))
            .send()
            .await
            .expect("taken");
        let part = CompletedPart::builder().part_number(number).set_e_tag(sent.e_tag);
        done.push(part.set_checksum_crc32(sent.checksum_crc32).build());
    }
    let done = CompletedMultipartUpload::builder().set_parts(Some(done)).build();
    let complete = client.complete_multipart_upload().bucket("impressions").key(key).upload_id(&id);
    complete.multipart_upload(done).if_none_match("*").send().await.expect("complete");
}

/// The most memory of a process that writes one object of a GiB.
pub(crate) fn memory() -> Vec<Figure> {
    let runtime = Runtime::new().expect("threads");
    let figure = |format: &'static str| {
        let root = tempfile::tempdir().expect("a directory");
        let store = runtime.block_on(serve(root.path(), |_| Act::Pass));
        let mut command = Command::new(std::env::current_exe().expect("this program has a path"));
        let output = command.args([WRITE, &store.addr.to_string(), format]).output().expect("it starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).expect("text");
        let mut numbers = text.split_whitespace().map(|number| number.parse::<f64>().expect("numbers"));
        let (mb, records) = (numbers.next().expect("memory"), numbers.next().expect("records"));
        Figure {
            name: "s3_memory",
            what: format!(
                "most resident memory of a process that writes {records} impressions as one object of {:.2} GiB, {format}",
                largest_object(root.path()) as f64 / (1_u64 << 30) as f64
            ),
            value: mb,
            unit: "MB",
            baseline: None,
            ratio: None,
            target: Target::ValueAtMost(200.0),
        }
    };
    vec![figure("lines"), figure("parquet")]
}

/// Plays the writer, where this process was started for that.
pub(crate) fn play() -> Option<ExitCode> {
    let mut args = std::env::args().skip(1);
    if args.next()? != WRITE {
        return None;
    }
    let (address, format) = (args.next()?, args.next()?);
    // A GiB and a little more of either.
    let (format, job) = if format == "parquet" {
        (S3Format::Parquet(ParquetCompression::None), job_with_properties(4_900, 1))
    } else {
        (S3Format::JsonLines(LinesCompression::None), job(3_500, 0))
    };
    let runtime = Runtime::new().expect("threads");
    let outcome = runtime.block_on(sink(&address, format).put(&job, TIMEOUT));
    if outcome != Outcome::Delivered {
        eprintln!("{outcome:?}");
        return Some(ExitCode::FAILURE);
    }
    println!("{} {}", memory_mb("self").0, job.origin.records());
    Some(ExitCode::SUCCESS)
}

/// Bytes of the largest object in a store. Its directory goes with the process.
#[expect(clippy::disallowed_methods, reason = "the harness is no part of the house")]
fn largest_object(dir: &Path) -> u64 {
    let entries = std::fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("listed"));
    let bytes = entries.map(|entry| match entry.metadata().expect("it is there") {
        found if found.is_dir() => largest_object(&entry.path()),
        found => found.len(),
    });
    bytes.max().unwrap_or(0)
}
