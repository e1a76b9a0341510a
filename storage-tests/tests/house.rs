//! The plan of the house as a test: which module names which, and that nothing of the network reaches the log.
//!
//! Reads the sources as text. A module that the tables don't know fails the test: whoever adds a room says what it may
//! see. What may touch files, clocks and unbounded channels is a lint (.clippy.toml). See docs/architecture.md.
#![expect(clippy::disallowed_methods, reason = "reads the sources in the repository")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use storage_tests::repository;

/// Each module of the root package with the modules that it may name. Arrows point down.
const CORE: &[(&str, &[&str])] = &[
    ("offset", &[]),
    ("sync", &[]),
    ("clock", &[]),
    ("failpoints", &[]),
    ("mutants", &[]),
    ("disk", &["mutants", "sync"]),
    ("log", &["clock", "disk", "failpoints", "mutants", "offset", "sync"]),
    ("queue", &["clock", "disk", "failpoints", "log", "mutants", "offset", "sync"]),
    ("lib", &["clock", "disk", "failpoints", "log", "mutants", "offset", "queue"]),
];

/// The same for the sidecar's library. All of them may name the root package, save those in [`WITHOUT_THE_LOG`].
const SIDECAR: &[(&str, &[&str])] = &[
    ("causes", &[]),
    ("logged", &[]),
    ("ages", &[]),
    ("fair_share", &[]),
    ("impression", &[]),
    ("proto", &[]),
    ("post", &["proto"]),
    ("config", &[]),
    ("ready", &[]),
    ("shutdown", &[]),
    ("telemetry", &[]),
    ("control", &["config", "proto"]),
    ("console", &["proto"]),
    ("ingest", &["config", "fair_share", "impression", "post"]),
    ("delivery", &["causes", "config", "fair_share", "impression"]),
    ("letters", &["ages", "delivery", "impression", "proto"]),
    ("overflow", &["ages"]),
    // `logged` is of tests, as is `sinks/conformance`.
    ("sinks", &["causes", "config", "delivery", "impression", "logged", "post"]),
    (
        "api",
        &[
            "causes",
            "config",
            "delivery",
            "impression",
            "ingest",
            "letters",
            "post",
            "proto",
            "ready",
            "shutdown",
            "telemetry",
        ],
    ),
    (
        "app",
        &[
            "ages",
            "api",
            "causes",
            "config",
            "control",
            "delivery",
            "impression",
            "ingest",
            "letters",
            "overflow",
            "post",
            "proto",
            "ready",
            "shutdown",
            "sinks",
            "telemetry",
        ],
    ),
    ("demo", &["api", "app", "config", "console", "impression", "proto", "shutdown", "telemetry"]),
    (
        "cli",
        &["api", "app", "causes", "config", "console", "demo", "impression", "ingest", "post", "proto", "shutdown"],
    ),
    ("fuzzing", &["config", "control", "delivery", "impression", "ingest", "letters", "post", "sinks"]),
    ("main", &["cli"]),
    ("lib", &[]),
];

/// Modules of the sidecar that are pure and know no log.
const WITHOUT_THE_LOG: &[&str] = &["causes", "fair_share", "impression", "post", "proto", "config", "console"];

/// What must not be among the root package's dependencies, however deep.
const NETWORK: &[&str] =
    &["async-std", "axum", "hyper", "mio", "reqwest", "rustls", "smol", "socket2", "tokio", "tonic"];

/// Calls `each` with every Rust file under `dir`.
fn rust_files(dir: &Path, each: &mut dyn FnMut(&Path)) {
    for entry in std::fs::read_dir(dir).expect("a directory of sources") {
        let path = entry.expect("listed").path();
        if path.is_dir() {
            rust_files(&path, each);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            each(&path);
        }
    }
}

/// The code under `dir` by its path relative to it, without the extension. Tests see what they like, so they are left out.
fn sources(dir: &Path, skip: &[&str]) -> Vec<(String, String)> {
    let mut found = Vec::new();
    rust_files(dir, &mut |path| {
        let module = path.strip_prefix(dir).expect("inside").with_extension("");
        let module = module.to_str().expect("UTF-8");
        let rooms: Vec<&str> = module.split('/').collect();
        if rooms.iter().any(|room| *room == "tests" || *room == "build" || skip.contains(room)) {
            return;
        }
        let text = std::fs::read_to_string(path).expect("read");
        let code = text.split("#[cfg(test)]\nmod ").next().expect("split yields one at least");
        found.push((module.to_owned(), without_comments(code)));
    });
    found
}

fn without_comments(code: &str) -> String {
    let kept = |line: &&str| !line.trim_start().starts_with("//");
    code.lines().filter(kept).collect::<Vec<_>>().join("\n")
}

/// The first names behind `prefix`, such as `log` in `crate::log::Log` and both in `crate::{log::Log, clock}`.
fn named_behind<'a>(code: &'a str, prefix: &str) -> BTreeSet<&'a str> {
    let mut names = BTreeSet::new();
    for (at, _) in code.match_indices(prefix) {
        let before = code[..at].chars().next_back();
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':') {
            continue; // part of a longer name
        }
        let rest = &code[at + prefix.len()..];
        match rest.strip_prefix('{') {
            Some(group) => names.extend(first_level(group)),
            None => names.extend(first_name(rest)),
        }
    }
    names
}

/// The first name of each member of a group, up to the brace that closes it.
fn first_level(group: &str) -> Vec<&str> {
    let (mut depth, mut from, mut names) = (0, 0, Vec::new());
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            ',' | '}' if depth == 0 => {
                names.extend(first_name(group[from..at].trim_start()));
                from = at + 1;
                if c == '}' {
                    break;
                }
            }
            '}' => depth -= 1,
            _ => {}
        }
    }
    names
}

fn first_name(path: &str) -> Option<&str> {
    let end = path.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(path.len());
    Some(&path[..end]).filter(|name| !name.is_empty())
}

/// Which module each name is from that `lib.rs` re-exports, so that `crate::LogId` counts as `offset`.
fn re_exports(lib: &str) -> BTreeMap<&str, &str> {
    let mut from = BTreeMap::new();
    for statement in lib.split("pub use ").skip(1) {
        let statement = statement.split(';').next().expect("split yields one at least");
        let Some((module, names)) = statement.split_once("::") else { continue };
        for name in names.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|name| !name.is_empty()) {
            from.insert(name, module);
        }
    }
    from
}

/// What each arrow against the tables looks like, for the message.
fn wrong_arrows(sources: &[(String, String)], table: &[(&str, &[&str])], prefixes: &[&str]) -> Vec<String> {
    let lib = sources.iter().find(|(path, _)| path == "lib").map_or("", |(_, code)| code);
    let from = re_exports(lib);
    let mut wrong = Vec::new();
    for (path, code) in sources {
        let module = path.split('/').next().expect("split yields one at least");
        let Some((_, may)) = table.iter().find(|(known, _)| *known == module) else {
            wrong.push(format!("{path}.rs: the table in {} has no room {module:?}: say what it may name", file!()));
            continue;
        };
        for name in prefixes.iter().flat_map(|prefix| named_behind(code, prefix)) {
            let target = from.get(name).copied().unwrap_or(name);
            let is_room = table.iter().any(|(known, _)| *known == target);
            if module != "lib" && is_room && target != module && !may.contains(&target) {
                wrong.push(format!("{path}.rs names {target} ({name}), which does not lie below {module}"));
            }
        }
    }
    wrong
}

#[test]
fn in_the_log_modules_name_only_those_below() {
    let sources = sources(&repository::root().join("src"), &["sidecar"]);
    assert!(sources.len() > 20, "the sources are where they should be");
    assert_eq!(wrong_arrows(&sources, CORE, &["crate::"]), [""; 0]);
}

#[test]
fn in_the_sidecar_modules_name_only_those_below() {
    let sources = sources(&repository::root().join("src/sidecar"), &[]);
    let mut wrong = wrong_arrows(&sources, SIDECAR, &["crate::", "forebay_sidecar::"]);
    for (path, code) in &sources {
        let module = path.split('/').next().expect("split yields one at least");
        if WITHOUT_THE_LOG.contains(&module) && !named_behind(code, "forebay::").is_empty() {
            wrong.push(format!("{path}.rs names the log, and {module} is to know none"));
        }
    }
    assert_eq!(wrong, [""; 0]);
}

#[test]
fn the_tables_have_no_way_in_a_circle() {
    for table in [CORE, SIDECAR] {
        let mut placed: BTreeSet<&str> = BTreeSet::new();
        let mut left: Vec<_> = table.iter().collect();
        while !left.is_empty() {
            let before = left.len();
            left.retain(|(module, may)| {
                let ready = may.iter().all(|name| placed.contains(name));
                if ready {
                    placed.insert(module);
                }
                !ready
            });
            assert!(left.len() < before, "a circle among {left:?}");
        }
    }
}

#[test]
fn nothing_of_async_or_network_is_among_the_dependencies_of_the_log() {
    let lock = repository::read("Cargo.lock");
    let mut dependencies: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for package in lock.split("[[package]]").skip(1) {
        let name = package.split("name = \"").nth(1).and_then(|rest| rest.split('"').next()).expect("a name");
        let list = package.split("dependencies = [").nth(1).and_then(|rest| rest.split(']').next()).unwrap_or("");
        let names = list.split('"').skip(1).step_by(2).filter_map(|entry| entry.split(' ').next());
        dependencies.entry(name).or_default().extend(names);
    }
    let mut reached = BTreeSet::from(["forebay"]);
    let mut open = vec!["forebay"];
    while let Some(name) = open.pop() {
        for next in &dependencies[name] {
            if reached.insert(next) {
                open.push(next);
            }
        }
    }
    assert!(reached.contains("crc32fast") && reached.contains("sled"), "the lock file was understood: {reached:?}");
    let network: Vec<_> = NETWORK.iter().filter(|name| reached.contains(*name)).collect();
    assert!(network.is_empty(), "the log would bring {network:?}");
}

#[test]
fn every_test_that_the_architecture_names_exists() {
    let docs = repository::read("docs/architecture.md");
    let rows = docs.lines().filter(|line| line.starts_with("| I"));
    // A claim has several words; shorter names in backticks are functions and types.
    let is_claim = |name: &&str| {
        name.matches('_').count() >= 3 && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
    };
    let named: BTreeSet<&str> = rows.flat_map(|row| row.split('`').skip(1).step_by(2)).filter(is_claim).collect();
    assert!(named.len() > 10, "the table was understood: {named:?}");
    let tests = repository::tests();
    let missing: Vec<_> = named.into_iter().filter(|name| !tests.contains(*name)).collect();
    assert_eq!(missing, [""; 0]);
}

/// It is to be read, and believed.
#[test]
fn the_model_has_fewer_than_five_hundred_lines() {
    let mut lines = repository::read("storage-tests/src/model.rs").lines().count();
    rust_files(&repository::root().join("storage-tests/src/model"), &mut |path| {
        lines += std::fs::read_to_string(path).expect("read").lines().count();
    });
    assert!((1..500).contains(&lines), "{lines} lines");
}

/// All times are since 1970, and what is written out of them is UTC, wherever the process runs.
#[test]
fn no_source_asks_for_a_time_zone() {
    let mut found = Vec::new();
    rust_files(&repository::root().join("src"), &mut |path| {
        let code = without_comments(&std::fs::read_to_string(path).expect("read"));
        for way in ["Local::", "LocalTime", "localtime", "now_local", "tzset", "\"TZ\""] {
            found.extend(code.contains(way).then(|| format!("{}: {way}", path.display())));
        }
    });
    assert_eq!(found, [""; 0]);
}

#[test]
fn names_are_found_in_every_spelling() {
    let code =
        "use crate::log::Log;\nuse crate::{clock::Clock, disk::{Disk, File}, offset};\nlet x = crate::queue::new();";
    let names: Vec<_> = named_behind(code, "crate::").into_iter().collect();
    assert_eq!(names, ["clock", "disk", "log", "offset", "queue"]);
    assert!(named_behind("my_crate::log::Log", "crate::").is_empty());
    let from = re_exports("pub use log::{Log,\n    Item};\npub use offset::LogId;\n");
    assert_eq!(from, BTreeMap::from([("Item", "log"), ("Log", "log"), ("LogId", "offset")]));
    let upward = vec![("disk/real".to_owned(), "use crate::log::Log;".to_owned())];
    assert_eq!(wrong_arrows(&upward, CORE, &["crate::"]).len(), 1);
}
