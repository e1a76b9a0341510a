//! `forebay log` as an operator calls it: the real binary on a real directory.

#![expect(clippy::disallowed_methods, reason = "the test breaks files as a disk does, and compares them")]

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use forebay::clock::SystemClock;
use forebay::disk::real::RealDisk;
use forebay::{Log, LogOptions, Payload};
use forebay_sidecar::impression::{BatchMeta, Form, Limits, parse};

/// A data directory with `posts` posts of 100 impressions each in the stream `prod`.
fn data_dir(posts: usize) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(SystemClock::new());
    let log = Log::open(Arc::new(RealDisk), clock, &dir.path().join("log"), LogOptions::small()).unwrap();
    for post in 0..posts {
        let impressions: Vec<String> =
            (0..100).map(|n| format!(r#"{{"k":"user-{post}-{n}","t":"on","m":{n}}}"#)).collect();
        let body = format!(r#"[{{"f":"checkout","i":[{}]}}]"#, impressions.join(","));
        let meta = BatchMeta {
            sdk: b"go-6.8.1",
            machine_name: b"",
            machine_ip: b"",
            mode: b"",
            received_ms: 1,
            sdk_key_index: 0,
        };
        let parsed = parse(body.as_bytes(), Form::Bulk, &meta, &Limits::default()).unwrap();
        let part = |part: forebay_sidecar::impression::Part| Payload { bytes: part.payload, records: part.records };
        log.append_wait("prod", parsed.parts.into_iter().map(part).collect()).unwrap();
    }
    log.close().unwrap();
    dir
}

fn forebay(args: &[&str], dir: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_forebay")).arg("log").args(args).arg(dir).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn first_segment(dir: &Path) -> PathBuf {
    let mut segments: Vec<PathBuf> =
        fs::read_dir(dir.join("log")).unwrap().map(|entry| entry.unwrap().path()).collect();
    segments.retain(|path| path.extension().is_some_and(|extension| extension == "seg"));
    segments.sort();
    segments.remove(0)
}

/// Every file of a directory and what it holds.
fn content(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files: Vec<PathBuf> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

#[test]
fn a_sound_log_is_clean_and_every_record_is_dumped() {
    let dir = data_dir(50);
    let verify = forebay(&["verify"], dir.path());
    assert_eq!((verify.status.code(), text(&verify.stderr)), (Some(0), String::new()));
    assert!(text(&verify.stdout).contains("with 5,000 records of 1 stream"), "{}", text(&verify.stdout));
    let inspect = text(&forebay(&["inspect"], dir.path()).stdout);
    assert!(inspect.contains("prod             0  5,000    5,000"), "{inspect}");
    let dump = text(&forebay(&["dump", "--stream", "prod"], &dir.path().join("log")).stdout);
    assert_eq!(dump.lines().count(), 5_000);
    let last: serde_json::Value = serde_json::from_str(dump.lines().last().unwrap()).unwrap();
    assert_eq!((&last["offset"], &last["impression"]["key"]), (&4_999.into(), &"user-49-99".into()));
}

#[test]
fn a_flipped_byte_is_named_by_exit_code_1_and_nothing_is_changed() {
    let dir = data_dir(50);
    let path = first_segment(dir.path());
    let mut bytes = fs::read(&path).unwrap();
    let at = bytes.windows(9).position(|window| window == b"user-7-42").unwrap();
    bytes[at] ^= 1;
    fs::write(&path, bytes).unwrap();
    let before = content(&dir.path().join("log"));
    let verify = forebay(&["verify"], dir.path());
    assert_eq!(verify.status.code(), Some(1));
    let said = text(&verify.stdout);
    assert!(said.starts_with("segment 0 bytes "), "{said}");
    assert!(said.contains("stream \"prod\", records 700..800\n"), "{said}");
    assert!(said.contains("lost: 100 records;") && said.ends_with("nothing was changed\n"), "{said}");
    let dump = forebay(&["dump"], dir.path());
    assert_eq!((dump.status.code(), text(&dump.stdout).lines().count()), (Some(1), 4_900));
    assert!(text(&dump.stderr).contains("at least 100 records are missing here"), "{}", text(&dump.stderr));
    assert!(content(&dir.path().join("log")) == before, "looking changes nothing");
}

#[test]
fn a_reader_who_has_seen_enough_is_no_error() {
    let dir = data_dir(50);
    let mut dump = Command::new(env!("CARGO_BIN_EXE_forebay"))
        .args(["log", "dump"])
        .arg(dir.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = [0; 10];
    dump.stdout.take().unwrap().read_exact(&mut first).unwrap();
    let ended = dump.wait_with_output().unwrap();
    assert_eq!((ended.status.code(), text(&ended.stderr)), (Some(0), String::new()));
}

#[test]
fn a_directory_without_a_log_is_refused_with_what_to_give() {
    let dir = tempfile::tempdir().unwrap();
    for command in ["inspect", "verify", "dump"] {
        let refused = forebay(&[command], dir.path());
        assert_eq!(refused.status.code(), Some(1), "{command}");
        let said = text(&refused.stderr);
        assert!(said.starts_with("forebay: ") && said.contains("give data_dir"), "{command}: {said}");
    }
}
