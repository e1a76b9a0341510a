use std::sync::Arc;

use forebay::clock::ManualClock;
use forebay::disk::mem::MemDisk;
use forebay::{Log, LogOptions, Payload};
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
    log.append_wait("!plans", vec![Payload { bytes: vec![0xab; 300], records: 2 }]).unwrap();
    log.append_wait("odd", vec![Payload { bytes: vec![0xff; 8], records: 4 }]).unwrap();
    log.close().unwrap();
    disk
}

fn place(dir: &str) -> LogDir {
    LogDir { dir: dir.into() }
}

fn told(disk: &MemDisk, command: &LogCommand) -> (String, Verdict) {
    let mut out = Vec::new();
    let verdict = act(command, disk, &mut out).unwrap();
    (String::from_utf8(out).unwrap(), verdict)
}

fn dumped(disk: &MemDisk, stream: Option<&str>, from: u64, limit: Option<u64>) -> Vec<Value> {
    let args = DumpArgs { place: place("/data"), stream: stream.map(str::to_owned), from, limit };
    let (text, _) = told(disk, &LogCommand::Dump(args));
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Breaks the payload of the frame whose first bytes are these.
fn damage(disk: &MemDisk, needle: &[u8]) {
    let dir = Path::new("/data/log");
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
        assert!(text.contains("in /data/log: 3 streams, 1 segment"), "{text}");
        assert!(text.contains("\nprod             0     3        3\n"), "{text}");
        assert!(text.contains("impressions") && text.contains("sealed") && !text.contains("there is damage"), "{text}");
    }
}

#[test]
fn a_clean_log_is_called_so() {
    let (text, verdict) = told(&data_dir(), &LogCommand::Verify(place("/data")));
    assert_eq!(verdict, Verdict::Clean);
    let frames = "read 6 frames with 9 records of 3 streams in 1 segment: no damage\nnothing was changed\n";
    assert_eq!(text, format!("/data/log: {frames}"));
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
    let plans = &lines[3]["payload"];
    assert_eq!((&plans["records"], &plans["bytes"]), (&2.into(), &300.into()));
    assert_eq!(plans["hex"], "ab".repeat(256));
    let odd = &lines[4]["payload"];
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
    let error = |command: &LogCommand| act(command, &disk, &mut Vec::new()).unwrap_err();
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
    assert!(act(&LogCommand::GiveUp(GiveUpArgs { place: place("/no"), lose: true }), &disk, &mut Vec::new()).is_err());
}
