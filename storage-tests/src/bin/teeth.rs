//! Switches each mutant on in turn and has its test notice it. `teeth list` writes the list into the manual instead.

use forebay::clock::{Clock, SystemClock};
use forebay::mutants::Mutant;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Seek};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::thread;
use std::time::Duration;
use storage_tests::crew::{self, Until};
use storage_tests::repository;
use storage_tests::teeth::{PAGE, TEETH, place};

/// A test that takes longer has not told anything.
const TIME_MAX: Duration = Duration::from_secs(180);

/// Executables that are the tests of a package's library.
const LIBRARIES: [&str; 3] = ["forebay", "forebay_sidecar", "storage_tests"];

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Passed,
    Failed,
    /// It did not run, or did not end.
    Unclear(String),
}

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some("list") {
        let page = place(&repository::read(PAGE)).expect("the manual has a place for the list");
        repository::write(PAGE, &page).expect("the manual can be written");
        return ExitCode::SUCCESS;
    }
    let executables = build();
    let run = |executable: &str, test: &str, mutant: Option<Mutant>| {
        let found = executables.iter().find(|path| {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            name.rsplit_once('-').is_some_and(|(name, _)| name == executable)
        });
        let path = found.unwrap_or_else(|| panic!("there is no executable {executable}"));
        attempt(path, executable, test, mutant)
    };
    let clock = SystemClock::new();
    // Without a mutant all of them pass: else they would notice nothing.
    let tests: Vec<(&str, &str)> =
        TEETH.iter().map(|(_, executable, test)| (*executable, *test)).collect::<BTreeSet<_>>().into_iter().collect();
    let sound = |nth: u64| {
        let Some((executable, test)) = tests.get(nth as usize) else { return 1 };
        assert_eq!(run(executable, test, None), Verdict::Passed, "{executable}: {test} fails without a mutant");
        1
    };
    crew::each(0, Until::all(tests.len() as u64), sound, |nth| format!("{:?}", tests[nth as usize]));
    println!("{} tests pass without a mutant, {} s", tests.len(), clock.monotonic().as_secs());

    let kill = |nth: u64| {
        let Some((mutant, executable, test)) = TEETH.get(nth as usize) else { return 1 };
        let from = clock.monotonic();
        let verdict = run(executable, test, Some(*mutant));
        let ms = (clock.monotonic() - from).as_millis();
        println!("{:<28} {ms:>6} ms  {executable}: {test}  {verdict:?}", format!("{mutant:?}"));
        assert_eq!(verdict, Verdict::Failed, "{mutant:?} lives: {}", mutant.what());
        1
    };
    let repeat = |nth: u64| {
        let (mutant, executable, test) = TEETH[nth as usize];
        format!("FOREBAY_MUTANT={mutant:?} cargo test --workspace {test} (in {executable})")
    };
    let done = crew::each(0, Until::all(TEETH.len() as u64), kill, repeat);
    println!(
        "{} mutants, all of them noticed, {} s",
        TEETH.len().min(done.count as usize),
        clock.monotonic().as_secs()
    );
    ExitCode::SUCCESS
}

/// Builds the tests as `cargo test --workspace` does, so that after it there is nothing to build, and says where they are.
fn build() -> Vec<PathBuf> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let files: BTreeSet<&str> =
        TEETH.iter().map(|(_, name, _)| *name).filter(|name| !LIBRARIES.contains(name)).collect();
    let built = Command::new(cargo)
        .args(["test", "--workspace", "--no-run", "--lib"])
        .args(files.into_iter().flat_map(|file| ["--test", file]))
        .env("CARGO_TERM_COLOR", "never")
        .current_dir(repository::root())
        .stderr(Stdio::piped())
        .output()
        .expect("cargo runs");
    let told = String::from_utf8_lossy(&built.stderr).into_owned();
    assert!(built.status.success(), "{told}");
    // `  Executable tests/crash.rs (target/debug/deps/crash-0123456789abcdef)`
    let executables = told.lines().filter(|line| line.contains("Executable "));
    let path = |line: &str| line.rsplit_once('(').map(|(_, path)| repository::root().join(path.trim_end_matches(')')));
    executables.filter_map(path).collect()
}

fn attempt(path: &Path, executable: &str, test: &str, mutant: Option<Mutant>) -> Verdict {
    let dir = match executable {
        "forebay" => "",
        "forebay_sidecar" => "src/sidecar",
        _ => "storage-tests",
    };
    let mut told: File = tempfile::tempfile().expect("room for what a test tells");
    let mut command = Command::new(path);
    command.arg(test).current_dir(repository::root().join(dir)).env("RUST_BACKTRACE", "0");
    command.stdout(told.try_clone().expect("a handle more")).stderr(Stdio::null());
    match mutant {
        Some(mutant) => command.env("FOREBAY_MUTANT", format!("{mutant:?}")),
        None => command.env_remove("FOREBAY_MUTANT"),
    };
    let clock = SystemClock::new();
    let mut child = command.spawn().expect("a test starts");
    let status = loop {
        match child.try_wait().expect("it is ours") {
            Some(status) => break status,
            None if clock.monotonic() > TIME_MAX => {
                let _ = child.kill();
                let _ = child.wait();
                return Verdict::Unclear(format!("no end after {} s", TIME_MAX.as_secs()));
            }
            None => thread::sleep(Duration::from_millis(20)),
        }
    };
    let mut text = String::new();
    told.rewind().expect("a file");
    told.read_to_string(&mut text).expect("tests write text");
    match () {
        () if !text.contains("running 1 test\n") => Verdict::Unclear(format!("{test} is not one test there")),
        () if status.success() => Verdict::Passed,
        () if text.contains("test result: FAILED") => Verdict::Failed,
        () => Verdict::Unclear(format!("it ended with {status}")),
    }
}
