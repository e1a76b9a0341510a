//! `forebay demo` as a newcomer calls it: the real binary, with less time than usual.

#![expect(clippy::disallowed_methods, reason = "the test looks at what the process left behind")]

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

/// A demo that sends for `seconds`, with `temporary` for its files.
fn demo(seconds: &str, temporary: &tempfile::TempDir) -> Child {
    Command::new(env!("CARGO_BIN_EXE_forebay"))
        .args(["demo", "--seconds", seconds])
        .env("TMPDIR", temporary.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn is_empty(dir: &tempfile::TempDir) -> bool {
    fs::read_dir(dir.path()).unwrap().next().is_none()
}

#[test]
fn lag_grows_and_drains_and_the_books_balance() {
    let temporary = tempfile::tempdir().unwrap();
    let ended = demo("5", &temporary).wait_with_output().unwrap();
    let said = String::from_utf8(ended.stdout).unwrap();
    assert_eq!((ended.status.code(), String::from_utf8(ended.stderr).unwrap()), (Some(0), String::new()), "{said}");
    for words in [
        "-- the webhook answers 429, Retry-After: 2",
        "grows for now",
        "0 pending, 0 lost",
        "the webhook got every one of them exactly once",
        "the files hold every one of them exactly once",
        "Nothing was lost, nothing came twice.",
        "cargo test --workspace",
    ] {
        assert!(said.contains(words), "{words:?} in {said}");
    }
    assert!(is_empty(&temporary), "nothing is left behind");
}

#[test]
fn an_interrupt_ends_it_and_leaves_nothing_behind() {
    let temporary = tempfile::tempdir().unwrap();
    let mut demo = demo("60", &temporary);
    let mut lines = BufReader::new(demo.stdout.take().unwrap()).lines().map(|line| line.expect("text"));
    assert!(lines.any(|line| line.contains("acknowledged |")), "it runs");
    let interrupt = format!("kill -INT {}", demo.id());
    assert!(Command::new("sh").args(["-c", &interrupt]).status().unwrap().success());
    assert_eq!(lines.last().as_deref(), Some("stopped; nothing is left behind"));
    assert_eq!(demo.wait().unwrap().code(), Some(130));
    assert!(is_empty(&temporary));
}

#[test]
fn who_has_seen_enough_may_leave() {
    let temporary = tempfile::tempdir().unwrap();
    let mut demo = demo("60", &temporary);
    // The pipe is closed behind the first line.
    let first = BufReader::new(demo.stdout.take().unwrap()).lines().next().unwrap().unwrap();
    assert!(first.starts_with("Forebay demo"), "{first}");
    let ended = demo.wait_with_output().unwrap();
    assert_eq!((ended.status.code(), String::from_utf8(ended.stderr).unwrap()), (Some(0), String::new()));
    assert!(is_empty(&temporary));
}
