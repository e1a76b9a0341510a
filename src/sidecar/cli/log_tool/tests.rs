use std::sync::Arc;

use forebay::clock::ManualClock;
use forebay::disk::mem::MemDisk;
use forebay::{Log, LogOptions, Payload, QueueOptions, Queues, Settled, Start};
use serde_json::Value;

use super::*;
use crate::cli::args::{DumpArgs, GiveUpArgs, LogDir};
use crate::impression::{BatchMeta, Form, Limits, parse};

/// A data directory with 3 impressions, a frame of ours and one that is no batch, and the positions they got.
fn data_dir() -> MemDisk {
    let disk = MemDisk::new();
    let clock = Arc::new(ManualClock::at(5_000));
    let log = Log::open(Arc::new(disk.clone()), clock, Path::new("/data/log"), LogOptions::small()).unwrap();
    let body =
        br#"[{"f":"flag","i":[{"k":"a\u0041","t":"on","m":1},{"k":"b","t":"on","m":2},{"k":"c","t":"off","m":3}]}]"#;
    let meta = BatchMeta {
        sdk: b"go-6.8.1",
        machine_name: b"host",
        machine_ip: b"",
        mode: b"DEBUG",
        received_ms: 4_999,
        sdk_key_index: 1,
    };
    let parsed = parse(body, Form::Bulk, &meta, &Limits::default()).unwrap();
    let parts = parsed.parts.into_iter().map(|part| Payload { bytes: part.payload, records: part.records }).collect();
    log.append_wait("prod", parts).unwrap();
    log.append_wait("!other", vec![Payload { bytes: vec![0xab; 300], records: 2 }]).unwrap();
    log.append_wait("odd", vec![Payload { bytes: vec![0xff; 8], records: 4 }]).unwrap();
    log.close().unwrap();
    disk
}

fn place(dir: &str) -> LogDir {
    LogDir { dir: dir.into() }
}

fn shared(disk: &MemDisk) -> Arc<dyn Disk> {
    Arc::new(disk.clone())
}

fn told(disk: &MemDisk, command: &LogCommand) -> (String, Verdict) {
    let mut out = Vec::new();
    let verdict = act(command, &shared(disk), &mut out).unwrap();
    (String::from_utf8(out).unwrap(), verdict)
}

fn dumped(disk: &MemDisk, stream: Option<&str>, from: u64, limit: Option<u64>) -> Vec<Value> {
    dump(disk, stream, from, limit).0
}

/// What is written, and what is missing if so: places and records.
fn dump(disk: &MemDisk, stream: Option<&str>, from: u64, limit: Option<u64>) -> (Vec<Value>, Option<(usize, u64)>) {
    let args = DumpArgs { place: place("/data"), stream: stream.map(str::to_owned), from, limit };
    let mut out = Vec::new();
    let missing = match act(&LogCommand::Dump(args), &shared(disk), &mut out) {
        Err(LogToolError::NotAll { places, records }) => Some((places, records)),
        other => other.map(|_| None).unwrap(),
    };
    let text = String::from_utf8(out).unwrap();
    (text.lines().map(|line| serde_json::from_str(line).unwrap()).collect(), missing)
}

/// Breaks the payload of the frame whose first bytes are these.
fn damage(disk: &MemDisk, needle: &[u8]) {
    damage_in(disk, "/data/log", needle);
}

fn damage_in(disk: &MemDisk, dir: &str, needle: &[u8]) {
    let dir = Path::new(dir);
    for name in disk.list(dir).unwrap().iter().filter(|name| name.ends_with(".seg")) {
        let file = disk.open(&dir.join(name)).unwrap();
        let bytes = forebay::disk::read_all(&*file).unwrap();
        if let Some(at) = bytes.windows(needle.len()).position(|window| window == needle) {
            file.write_all_at(&[io::IoSlice::new(b"\x00")], at as u64).unwrap();
        }
    }
}

#[test]
fn inspect_shows_streams_and_segments_from_either_directory() {
    let disk = data_dir();
    for dir in ["/data", "/data/log"] {
        let (text, verdict) = told(&disk, &LogCommand::Inspect(place(dir)));
        assert_eq!(verdict, Verdict::Clean);
        assert!(text.contains("in /data/log: 3 streams, 2 segments"), "{text}");
        assert!(text.contains("\nprod             0     3        3\n"), "{text}");
        assert!(text.contains("impressions") && text.contains("sealed") && !text.contains("there is damage"), "{text}");
    }
}

#[test]
fn a_clean_log_is_called_so() {
    let (text, verdict) = told(&data_dir(), &LogCommand::Verify(place("/data")));
    assert_eq!(verdict, Verdict::Clean);
    let frames = "read 6 frames with 9 records of 3 streams in 2 segments: no damage\n";
    let floor = "/data/floor: there is none: no destination has taken anything from this log\nnothing was changed\n";
    assert_eq!(text, format!("/data/log: {frames}{floor}"));
}

#[test]
fn damage_is_named_and_the_rest_is_still_dumped() {
    let disk = data_dir();
    damage(&disk, b"flag");
    let (text, verdict) = told(&disk, &LogCommand::Verify(place("/data")));
    assert_eq!(verdict, Verdict::Damaged);
    let first = text.lines().next().unwrap();
    assert!(first.ends_with("the payload's checksum is wrong, stream \"prod\", records 0..3"), "{text}");
    assert!(text.contains("1 damaged place\nlost: 3 records; ") && text.ends_with("nothing was changed\n"), "{text}");
    let (text, _) = told(&disk, &LogCommand::Inspect(place("/data")));
    assert!(text.contains("there is damage"), "{text}");
    assert_eq!(dumped(&disk, None, 0, None).len(), 2, "the frames of the other two streams");
}

/// Before: a dump of a damaged log was shorter and said nothing.
#[test]
fn a_dump_that_is_not_all_says_what_is_missing() {
    let disk = data_dir();
    assert_eq!(dump(&disk, None, 0, None).1, None);
    damage(&disk, b"flag");
    assert_eq!(dump(&disk, None, 0, None).1, Some((1, 3)));
    assert_eq!(dump(&disk, Some("prod"), 1, None).1, Some((1, 2)), "of those that were asked for");
    assert_eq!(dump(&disk, Some("odd"), 0, None).1, None);
    assert_eq!(dump(&disk, Some("prod"), 3, None).1, None);
    let error = LogToolError::NotAll { places: 1, records: 3 }.to_string();
    assert!(error.starts_with("1 place damaged, at least 3 records are missing here"), "{error}");
}

/// A data directory with a queue that has taken a part of what there is.
fn with_a_queue(disk: &MemDisk, dir: &str) {
    let clock = Arc::new(ManualClock::at(5_000));
    let options = (LogOptions::small(), QueueOptions::inline());
    let queues = Queues::open(shared(disk), clock, Path::new(dir), options.0, options.1).unwrap();
    for byte in [b'a', b'b'] {
        queues.log().append_wait("prod", vec![Payload { bytes: vec![byte; 100], records: 10 }]).unwrap();
    }
    let queue = queues.queue("hook", "prod", Start::Earliest).unwrap();
    queue.settle_range(0..10, Settled::Delivered);
    queues.close().unwrap();
}

#[test]
fn damage_to_what_everybody_has_is_no_loss() {
    let disk = MemDisk::new();
    with_a_queue(&disk, "/data");
    let (text, verdict) = told(&disk, &LogCommand::Verify(place("/data")));
    assert_eq!(verdict, Verdict::Clean, "{text}");
    assert!(text.contains("/data/floor: the cursors of 1 queue, no damage\n"), "{text}");
    damage(&disk, &[b'a'; 100]);
    let (text, verdict) = told(&disk, &LogCommand::Verify(place("/data")));
    assert_eq!(verdict, Verdict::Damaged);
    assert!(text.contains("\nlost: 0 records; ") && text.contains("\n10 more records are damaged that"), "{text}");
    damage(&disk, &[b'b'; 100]);
    let (text, _) = told(&disk, &LogCommand::Verify(place("/data")));
    assert!(text.contains("\nlost: 10 records; "), "{text}");
    let (text, _) = told(&disk, &LogCommand::Verify(place("/data/log")));
    assert!(text.contains("\nlost: 20 records; ") && text.contains("was not looked at: give data_dir"), "{text}");
}

/// Before: nothing was said of a floor, however damaged, and the next start sent everything again.
#[test]
fn a_damaged_floor_is_named_with_what_follows_and_so_are_upstreams() {
    let disk = MemDisk::new();
    with_a_queue(&disk, "/data");
    with_a_queue(&disk, "/data/upstream/split");
    disk.create(Path::new("/data/upstream/split.upstream")).unwrap();
    let (text, verdict) = told(&disk, &LogCommand::Verify(place("/data")));
    assert_eq!((verdict, text.matches("no damage").count()), (Verdict::Clean, 4), "{text}");
    let floor = disk.open(Path::new("/data/upstream/split/floor")).unwrap();
    let len = usize::try_from(floor.len().unwrap()).unwrap();
    floor.write_all_at(&[io::IoSlice::new(&vec![0xff; len])], 0).unwrap();
    let (text, verdict) = told(&disk, &LogCommand::Verify(place("/data")));
    assert_eq!(verdict, Verdict::Damaged, "{text}");
    assert!(text.contains("/data/upstream/split/floor: the floor file (98304 bytes) has no sound slot\n"), "{text}");
    assert!(text.contains("once more") && text.contains("put back a copy of this file"), "{text}");
    damage_in(&disk, "/data/upstream/split/log", &[b'a'; 100]);
    let (text, _) = told(&disk, &LogCommand::Verify(place("/data")));
    assert!(text.contains("stream \"prod\", records 0..10\n") && text.contains("lost: 10 records"), "{text}");
    for name in ["/data/floor", "/data/upstream/split/floor"] {
        disk.remove(Path::new(name)).unwrap();
    }
    let (text, _) = told(&disk, &LogCommand::Verify(place("/data")));
    assert!(text.contains("/data/floor: "), "{text}");
}

/// Before: a letter was shown as the beginning of its bytes.
#[test]
fn a_letter_is_shown_with_its_reason_and_its_record() {
    let disk = MemDisk::new();
    let clock = Arc::new(ManualClock::at(5_000));
    let log = Log::open(Arc::new(disk.clone()), clock, Path::new("/data/log"), LogOptions::small()).unwrap();
    let meta =
        BatchMeta { sdk: b"go", machine_name: b"", machine_ip: b"", mode: b"", received_ms: 4_999, sdk_key_index: 1 };
    let body = br#"[{"f":"checkout","i":[{"k":"a","t":"on","m":1},{"k":"b","t":"on","m":2}]}]"#;
    let record = parse(body, Form::Bulk, &meta, &Limits::default()).unwrap().parts.remove(0).payload;
    let letter = |index| crate::proto::v1::Letter {
        stream: 3,
        offset: 17,
        environment_id: "prod".to_owned(),
        record: record.clone(),
        index,
        reason: "answered 400".to_owned(),
        excerpt: "no such user".to_owned(),
        at_ms: 5_000,
        attempts: 2,
        ..Default::default()
    };
    let letters = crate::proto::v1::Letters { letters: vec![letter(1), letter(9)] };
    let bytes = prost::Message::encode_to_vec(&letters);
    log.append_wait("!dead/hook", vec![Payload { bytes, records: 2 }]).unwrap();
    log.close().unwrap();
    let lines = dumped(&disk, Some("!dead/hook"), 0, None);
    let shown = &lines[0]["letter"];
    let id = shown["id"].as_str().unwrap();
    assert!(id.ends_with("-3-17"), "{id}");
    assert_eq!((&shown["reason"], &shown["answer"]), (&"answered 400".into(), &"no such user".into()));
    assert_eq!((&shown["impression"]["flag"], &shown["impression"]["key"]), (&"checkout".into(), &"b".into()));
    assert!(shown.get("not_before_ms").is_none() && shown.get("post").is_none(), "{shown}");
    assert!(lines[1]["letter"].get("impression").is_none(), "there is no tenth record");
}

#[test]
fn dump_decodes_impressions_and_shows_the_bytes_of_the_rest() {
    let lines = dumped(&data_dir(), None, 0, None);
    assert_eq!(lines.len(), 5);
    let first = &lines[0];
    assert_eq!((&first["stream"], &first["offset"], &first["ingest_ms"]), (&"prod".into(), &0.into(), &5_000.into()));
    let impression = &first["impression"];
    assert_eq!((&impression["flag"], &impression["key"]), (&"flag".into(), &"aA".into()), "escapes are undone");
    assert_eq!((&impression["sdk"], &impression["received_ms"]), (&"go-6.8.1".into(), &4_999.into()));
    assert!(impression.get("label").is_none() && impression.get("machine_ip").is_none(), "not given, not shown");
    let ours = &lines[4]["payload"];
    assert_eq!((&ours["records"], &ours["bytes"]), (&2.into(), &300.into()));
    assert_eq!(ours["hex"], "ab".repeat(256));
    let odd = &lines[3]["payload"];
    assert!(odd["undecodable"].is_string() && odd["records"] == 4, "{odd}");
}

#[test]
fn dump_shows_what_was_asked_for() {
    let disk = data_dir();
    let keys = |lines: Vec<Value>| lines.iter().map(|line| line["impression"]["key"].clone()).collect::<Vec<_>>();
    assert_eq!(keys(dumped(&disk, Some("prod"), 1, None)), ["b", "c"]);
    assert_eq!(keys(dumped(&disk, Some("prod"), 1, Some(1))), ["b"]);
    assert!(dumped(&disk, Some("prod"), 3, None).is_empty());
    assert!(dumped(&disk, None, 0, Some(0)).is_empty());
}

#[test]
fn what_is_not_there_is_said() {
    let disk = data_dir();
    let error = |command: &LogCommand| act(command, &shared(&disk), &mut Vec::new()).unwrap_err();
    disk.create_dir(Path::new("/empty")).unwrap();
    for wrong in [LogCommand::Inspect(place("/empty")), LogCommand::Verify(place("/empty"))] {
        assert!(matches!(error(&wrong), LogToolError::NoLog { .. }));
    }
    let absent = error(&LogCommand::Verify(place("/absent")));
    assert!(absent.to_string().starts_with("/absent: can't list"), "{absent}");
    let args = DumpArgs { place: place("/data"), stream: Some("prd".to_owned()), from: 0, limit: None };
    assert!(matches!(error(&LogCommand::Dump(args)), LogToolError::NoSuchStream { name } if name == "prd"));
}

#[test]
fn a_reject_is_shown_with_its_reason() {
    let disk = MemDisk::new();
    let clock = Arc::new(ManualClock::at(5_000));
    let log = Log::open(Arc::new(disk.clone()), clock, Path::new("/data/log"), LogOptions::small()).unwrap();
    let reject = crate::ingest::StoredReject {
        received_ms: 1,
        reason: "no key".to_owned(),
        sdk_key: 0,
        sdk: b"node-1".to_vec(),
        raw: b"{\"k\":7}".to_vec(),
    };
    let bytes = prost::Message::encode_length_delimited_to_vec(&reject);
    log.append_wait("!rejects/prod", vec![Payload { bytes, records: 1 }]).unwrap();
    log.close().unwrap();
    let lines = dumped(&disk, Some("!rejects/prod"), 0, None);
    assert_eq!((&lines[0]["reject"]["reason"], &lines[0]["reject"]["raw"]), (&"no key".into(), &"{\"k\":7}".into()));
}

#[test]
fn give_up_says_what_cannot_be_read_and_what_became_of_it() {
    let disk = data_dir();
    for lose in [false, true] {
        let (text, verdict) = told(&disk, &LogCommand::GiveUp(GiveUpArgs { place: place("/data"), lose }));
        assert_eq!((&*text, verdict), ("/data/log: everything can be read; nothing was changed\n", Verdict::Clean));
    }
    let bad = [Unreadable { path: "/d/0.seg".into(), positions: 4096..8192, why: "EIO".to_owned() }];
    let text = |lose| given_up(Path::new("/d"), &bad, lose);
    assert!(text(false).starts_with("/d/0.seg bytes 4096..8192: EIO\n1 place can't be read; nothing was changed."));
    assert!(text(true).contains("1 place given up"));
    let nowhere = LogCommand::GiveUp(GiveUpArgs { place: place("/no"), lose: true });
    assert!(act(&nowhere, &shared(&disk), &mut Vec::new()).is_err());
}
