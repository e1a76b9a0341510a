//! The command against the real service over a log in memory.

use std::sync::Arc;

use bytes::Bytes;
use clap::Parser;
use forebay::disk::mem::MemDisk;
use forebay::{BatchLimits, LogOptions, Payload, QueueOptions, Queues, Settled, Start};
use hyper::header::{CONTENT_TYPE, HeaderMap};

use super::*;
use crate::api::readings::Sources;
use crate::api::{Api, LocalListener, grpc};
use crate::delivery::parking::{Kind, Letter, LetterOrigin, Parking};
use crate::delivery::sink::Environment;
use crate::letters::Letters;
use crate::post::{self, Arrival};
use crate::shutdown::{self, Stop};
use crate::sinks::sample;

struct Running {
    address: Listen,
    queues: Queues,
    letters: Arc<Letters>,
    payload: Bytes,
    id_of_three: String,
    _stop: Stop,
}

/// A sidecar's API with ten records of which 3 and 7 are dead letters of `hook`.
async fn running() -> Running {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let options = QueueOptions::inline();
    let disk = Arc::new(MemDisk::new());
    let queues = Queues::open(disk, Arc::clone(&clock), "/data".as_ref(), LogOptions::small(), options).unwrap();
    let letters = Letters::open(queues.clone(), Arc::clone(&clock));
    let queue = queues.queue("hook", "prod", Start::Earliest).unwrap();
    let payload = sample::job(0..10).parts.remove(0).payload;
    queues.log().append_wait("prod", vec![Payload { bytes: payload.to_vec(), records: 10 }]).unwrap();
    let batch = queue.next_batch(BatchLimits { records_max: 10, bytes_max: u64::MAX }).unwrap().unwrap();
    let letter = |offset: u64, reason: &str| letter(&queues, &payload, (offset, reason), clock.wall_ms());
    let (sent, parked) = tokio::sync::oneshot::channel();
    let two = vec![letter(3, "invalid time"), letter(7, "invalid user")];
    letters.park(two, Box::new(move |result| drop(sent.send(result))));
    parked.await.unwrap().unwrap();
    queue.settle_parts(&batch, &[(3..4, Settled::DeadLettered), (7..8, Settled::DeadLettered)], Settled::Delivered);
    let listener = LocalListener::bind(&"127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = listener.address().unwrap();
    let (stop, shutdown) = shutdown::channel();
    let sources = Sources { letters: Some(Arc::clone(&letters)), ..Sources::empty() };
    tokio::spawn(grpc::serve(Api::new(clock, sources), listener, shutdown));
    let log = queues.log();
    let id_of_three = format!("{}-{}-3", log.log_id(), log.stream("prod").unwrap());
    Running { address, queues, letters, payload, id_of_three, _stop: stop }
}

fn letter(queues: &Queues, payload: &Bytes, (offset, reason): (u64, &str), at_ms: u64) -> Letter {
    Letter {
        kind: Kind::Dead,
        destination: "hook".into(),
        origin: LetterOrigin { log: queues.log().log_id(), stream: queues.log().stream("prod").unwrap(), offset },
        replay: 0,
        environment: Arc::new(Environment { id: "prod".to_owned(), name: "production".to_owned() }),
        payload: Bytes::clone(payload),
        index: offset as usize,
        reason: reason.to_owned(),
        excerpt: "\u{1b}[2J no".to_owned(),
        at_ms,
        attempts: 2,
    }
}

#[derive(Debug, Parser)]
struct Line {
    #[command(subcommand)]
    command: DeadLettersCommand,
}

impl Running {
    /// What the command says, when it is answered like this.
    async fn says(&self, line: &str, answer: Option<&str>) -> Result<String, DeadLettersError> {
        self.asked(line, answer.map(str::as_bytes)).await
    }

    async fn asked(&self, line: &str, answers: Option<impl BufRead>) -> Result<String, DeadLettersError> {
        let words = std::iter::once("dead-letters").chain(line.split_whitespace());
        let command = Line::try_parse_from(words).unwrap().command;
        makes_sense(&command)?;
        let (mut out, mut notes) = (Vec::new(), Vec::new());
        let mut office = Office::connect(&self.address).await?;
        office.serve(&command, answers, (&mut out, &mut notes)).await?;
        let [notes, out] = [notes, out].map(|said| String::from_utf8(said).unwrap());
        Ok(if command.call().json { out } else { notes + &out })
    }

    fn balance(&self, stream: &str) -> forebay::Balance {
        self.queues.find("hook", stream).unwrap().balance()
    }
}

#[tokio::test]
async fn letters_are_counted_listed_and_shown() {
    let running = running().await;
    assert!(running.says("list", None).await.unwrap().contains("2 dead letters"));
    let listed = running.says("list hook", None).await.unwrap();
    assert_eq!(listed.lines().count(), 2);
    assert!(listed.contains(&running.id_of_three) && listed.contains("invalid time") && listed.contains("checkout"));
    assert_eq!(running.says("list hook -r USER", None).await.unwrap().lines().count(), 1);
    assert_eq!(running.says("list hook --flag other", None).await.unwrap(), "no dead letters match\n");
    assert_eq!(running.says("list hook --older-than 1h", None).await.unwrap(), "no dead letters match\n");
    assert_eq!(running.says("list hook --newer-than 1h --json", None).await.unwrap().lines().count(), 2);
    assert!(running.says("list hook -n 1", None).await.unwrap().contains("there may be more"));
    let shown = running.says(&format!("show hook {}", running.id_of_three), None).await.unwrap();
    assert!(shown.contains("\"key\":\"user-3\"") && shown.contains("sent         2 times"), "{shown}");
    assert!(!shown.contains('\u{1b}'), "an answer cannot speak to the terminal");
    let shown = running.says(&format!("show hook {} --json", running.id_of_three), None).await.unwrap();
    let shown: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!((&shown["record"]["key"], &shown["reason"]), (&json!("user-3"), &json!("invalid time")));
    let unknown = running.says("list nosuch", None).await.unwrap_err();
    assert!(unknown.to_string().contains("`forebay dead-letters list` shows"), "{unknown}");
    running.queues.queue("healthy", "prod", Start::Earliest).unwrap();
    assert_eq!(running.says("list healthy", None).await.unwrap(), "no dead letters match\n");
    let of_none = running.says("list --flag other", None).await.unwrap_err();
    assert!(matches!(of_none, DeadLettersError::FilterOfNone), "{of_none}");
    assert!(Line::try_parse_from(["dead-letters", "list", "hook", "--limit", "0"]).is_err());
}

#[tokio::test]
async fn a_redrive_says_which_or_all() {
    let running = running().await;
    let refused = running.says("redrive hook", None).await.unwrap_err();
    assert!(refused.to_string().contains("or --all of them"), "{refused}");
    let line = format!("redrive hook --id {} --json", running.id_of_three);
    assert_eq!(running.says(&line, None).await.unwrap(), "{\"redriven\":1,\"waiting\":0}\n");
    assert_eq!(running.balance("!held/hook").pending.records, 1);
    assert!(running.says("redrive hook --all", None).await.unwrap().starts_with("1 dead letters"));
    assert_eq!((running.balance("!held/hook").pending.records, running.balance("!dead/hook").pending.records), (2, 0));
}

#[tokio::test]
async fn a_redrive_takes_what_each_filter_means_and_nothing_else() {
    for (filter, redriven) in [
        ("-r TIME", 1),
        ("--reason invalid", 2),
        ("--reason nothing", 0),
        ("--flag checkout", 2),
        ("--flag other", 0),
        ("--environment prod", 2),
        ("--environment other", 0),
        ("--older-than 1h", 0),
        ("--newer-than 1h", 2),
        ("--newer-than 1h --environment prod --flag checkout -r user", 1),
    ] {
        let running = running().await;
        let said = running.says(&format!("redrive hook {filter} --json"), None).await.unwrap();
        assert_eq!(serde_json::from_str::<Value>(&said).unwrap()["redriven"], redriven, "{filter}");
        let places = ["!held/hook", "!dead/hook"].map(|stream| running.balance(stream).pending.records);
        assert_eq!(places, [redriven, 2 - redriven], "{filter}");
        if filter == "-r TIME" {
            let left = running.says("list hook --json", None).await.unwrap();
            assert!(left.contains("invalid user") && !left.contains("invalid time"), "{left}");
        }
    }
}

#[tokio::test]
async fn a_purge_asks_and_does_nothing_without_the_right_answer() {
    let running = running().await;
    let nobody = running.says("purge hook --all", None).await.unwrap_err();
    assert!(nobody.to_string().contains("2 dead letters of hook would be gone for good; say --yes"), "{nobody}");
    for wrong in ["y\n", "\n", "", "22\n"] {
        let refused = running.says("purge hook --all", Some(wrong)).await.unwrap_err();
        assert!(matches!(refused, DeadLettersError::Confirm(ConfirmError::NotConfirmed)), "{wrong:?}: {refused}");
    }
    assert_eq!(running.balance("!dead/hook").pending.records, 2);
    let asked = running.says("purge hook -r time", Some("1\n")).await.unwrap();
    assert!(asked.contains("Type 1 to purge") && asked.ends_with("1 dead letters are gone\n"), "{asked}");
    assert_eq!(running.says("purge hook --all --yes --json", None).await.unwrap(), "{\"counted\":null,\"purged\":1}\n");
    let balance = running.balance("!dead/hook");
    assert_eq!((balance.pending.records, balance.purged.records), (0, 2));
}

/// Before, the question stood in front of the JSON, and what was counted in none of it.
#[tokio::test]
async fn what_a_purge_answers_as_json_is_json_whatever_was_asked() {
    let running = running().await;
    let said = running.says("purge hook --all --json", Some("2\n")).await.unwrap();
    assert_eq!(serde_json::from_str::<Value>(&said).unwrap(), json!({ "purged": 2, "counted": 2 }));
}

/// Before, a command that makes no sense was told so only where a sidecar ran.
#[test]
fn a_command_that_makes_no_sense_calls_nobody() {
    let nobody: Listen = "127.0.0.1:1".parse().unwrap();
    let run = |line: &str| {
        let words = std::iter::once("dead-letters").chain(line.split_whitespace());
        run(&Line::try_parse_from(words).unwrap().command, &nobody).unwrap_err()
    };
    assert!(matches!(run("purge hook"), DeadLettersError::Which));
    assert!(matches!(run("redrive hook --all -r time"), DeadLettersError::AllOrSome));
    let called = run("list");
    assert!(matches!(called, DeadLettersError::Call(CallError::NothingListens { .. })), "{called}");
}

#[tokio::test]
async fn a_purge_leaves_what_died_after_the_count() {
    let running = running().await;
    for (line, why) in [("purge hook", "or --all of them"), ("purge hook --all -r time", "not both")] {
        let refused = running.says(line, Some("2\n")).await.unwrap_err();
        assert!(refused.to_string().contains(why), "{refused}");
    }
    let answers = DiesMeanwhile { running: &running, left: b"2\n", died: false };
    let said = running.asked("purge hook --all", Some(answers)).await.unwrap();
    assert!(said.ends_with("2 dead letters are gone\n"), "{said}");
    let balance = running.balance("!dead/hook");
    assert_eq!((balance.pending.records, balance.purged.records), (1, 2));
    assert_eq!(
        gone(3, Some(2)),
        "3 dead letters are gone, not the 2 that were counted: some came or were moved in between"
    );
}

/// An operator who takes long to answer: a letter comes before the answer does.
struct DiesMeanwhile<'a> {
    running: &'a Running,
    left: &'static [u8],
    died: bool,
}

impl io::Read for DiesMeanwhile<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.left.read(out)
    }
}

impl BufRead for DiesMeanwhile<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if !std::mem::replace(&mut self.died, true) {
            let Running { queues, letters, payload, .. } = self.running;
            queues.log().append_wait("prod", vec![Payload { bytes: payload.to_vec(), records: 10 }]).unwrap();
            let letter =
                Letter { index: 3, ..letter(queues, payload, (13, "too late"), SystemClock::new().wall_ms() + 1_000) };
            let (sent, parked) = std::sync::mpsc::sync_channel(1);
            letters.park(vec![letter], Box::new(move |result| sent.send(result).unwrap()));
            parked.recv().unwrap().unwrap();
            let queue = queues.find("hook", "prod").unwrap();
            let batch = queue.next_batch(BatchLimits { records_max: 10, bytes_max: u64::MAX }).unwrap().unwrap();
            queue.settle_parts(&batch, &[(13..14, Settled::DeadLettered)], Settled::Delivered);
        }
        Ok(self.left)
    }

    fn consume(&mut self, bytes: usize) {
        self.left = &self.left[bytes..];
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_lies_where_it_was_given_up_is_listed_by_the_range_sent_again_and_purged() {
    let running = running().await;
    let queue = running.queues.find("hook", "prod").unwrap();
    let append = || Payload { bytes: running.payload.to_vec(), records: 10 };
    for _ in 0..2 {
        running.queues.log().append_wait("prod", vec![append()]).unwrap();
        assert_eq!(queue.mark_oldest(forebay::Much::OlderThan(u64::MAX)).unwrap().records, 10);
        running.queues.log().append_wait("prod", vec![append()]).unwrap();
        let limits = BatchLimits { records_max: 10, bytes_max: u64::MAX };
        let batch = queue.next_batch(limits).unwrap().unwrap();
        queue.settle(&batch, Settled::Delivered);
    }
    let listed = running.says("list", None).await.unwrap();
    assert!(listed.contains("22 dead letters"), "two letters and two ranges: {listed}");
    let listed = running.says("list hook --reason overflow", None).await.unwrap();
    assert!(listed.contains("10 records from offset 10 on") && listed.contains("from offset 30 on"), "{listed}");
    assert!(!running.says("list hook --flag f", None).await.unwrap().contains("from offset"), "nothing looks inside");
    let redriven = running.says("redrive hook --reason overflow", None).await.unwrap();
    assert!(redriven.starts_with("20 dead letters are sent again"), "{redriven}");
    let redrive = queue.replay_under_way().unwrap();
    assert_eq!((redrive.redrives(), redrive.lag().records), (Some(10..40), 20));
    running.queues.log().append_wait("prod", vec![append()]).unwrap();
    queue.mark_oldest(forebay::Much::OlderThan(u64::MAX)).unwrap();
    let waits = running.says("redrive hook --reason overflow", None).await.unwrap();
    assert!(waits.contains("10 more wait"), "{waits}");
    let purged = running.says("purge hook --reason overflow", Some("10\n")).await.unwrap();
    assert!(purged.contains("10 dead letters are gone"), "{purged}");
    assert_eq!((queue.marked().1.purged.records, redrive.lag().records), (10, 20), "not what is sent again");
}

/// Before, nothing was shown of a post by which to decide what becomes of it.
#[tokio::test]
async fn a_post_is_told_by_its_path_its_keys_place_and_its_body_without_the_key() {
    const KEY: &str = "sdk-key-of-a-customer-0001";
    let running = running().await;
    let body = format!("{{\"entries\":[{}],\"token\":\"{KEY}\"}}", "7,".repeat(2_000));
    let (kind, environment, key) = (post::Kind::EventsBeacon, "prod", KEY.as_bytes());
    let arrival = Arrival { kind, received_ms: 7, environment, key, sdk_key_index: 3 };
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, "text/plain".parse().unwrap());
    let payload = Bytes::from(post::keep(&arrival, &headers, &Bytes::from(body.clone())).unwrap());
    let letter = Letter { index: 0, ..letter(&running.queues, &payload, (90, "answered 422"), now_ms()) };
    let (sent, parked) = tokio::sync::oneshot::channel();
    running.letters.park(vec![letter], Box::new(move |result| drop(sent.send(result))));
    parked.await.unwrap().unwrap();
    let listed = running.says("list hook -r 422", None).await.unwrap();
    assert!(listed.contains("  prod/3  POST /api/events/beacon (3.9 KiB)  answered 422\n"), "{listed}");
    let id = listed.split(' ').next().unwrap();
    let shown = running.says(&format!("show hook {id}"), None).await.unwrap();
    assert!(
        shown
            .contains("post         POST /api/events/beacon (3.9 KiB)\nsdk key      prod/3\ntype         text/plain\n"),
        "{shown}"
    );
    let all = running.says(&format!("show hook {id} --json"), None).await.unwrap();
    let all: Value = serde_json::from_str(&all).unwrap();
    let excerpt = all["record"]["body"].as_str().unwrap();
    assert!(excerpt.chars().count() == 2_000 && body.starts_with(excerpt), "{excerpt}");
    assert_eq!((&all["post"]["sdk_key_index"], &all["record"]["path"]), (&json!(3), &json!("/api/events/beacon")));
    assert_eq!(all["post"]["body_bytes"], body.len() - KEY.len());
    for said in [&listed, &shown, &all.to_string()] {
        assert!(!said.contains(KEY), "{said}");
    }
}
