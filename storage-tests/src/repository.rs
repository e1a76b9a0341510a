//! The repository as text: its sources, the names of its tests, and the pages that are made from tables.
#![expect(clippy::disallowed_methods, reason = "reads and writes files of the repository, and no log")]

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

/// Where it lies.
#[must_use]
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."))
}

/// A file's text, by its path from the root.
///
/// # Panics
/// When it is not there.
#[must_use]
pub fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// Writes a file, by its path from the root.
///
/// # Errors
/// The disk's.
pub fn write(path: &str, text: &str) -> io::Result<()> {
    std::fs::write(root().join(path), text)
}

/// The names of all tests of the log, the sidecar and the storage tests.
///
/// # Panics
/// When the sources can't be read.
#[must_use]
pub fn tests() -> BTreeSet<String> {
    let mut open: Vec<PathBuf> = ["src", "storage-tests"].map(|dir| root().join(dir)).into();
    let mut names = BTreeSet::new();
    while let Some(path) = open.pop() {
        if path.is_dir() {
            let entries = std::fs::read_dir(&path).expect("a directory of sources");
            open.extend(entries.map(|entry| entry.expect("listed").path()));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            names.extend(tests_in(&std::fs::read_to_string(&path).expect("read")));
        }
    }
    names
}

/// The functions that have an attribute of a test on one of the lines above them.
fn tests_in(code: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut is_test = false;
    for line in code.lines().map(str::trim_start) {
        let attribute = line.starts_with("#[");
        if attribute {
            is_test |= line.contains("test]") || line.contains("test(");
        } else if let Some((before, rest)) = line.split_once("fn ")
            && matches!(before, "" | "async " | "pub " | "pub(crate) " | "pub(super) ")
        {
            let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
            names.extend(is_test.then(|| rest[..end].to_owned()));
            is_test = false;
        } else if !line.starts_with("//") && !line.is_empty() {
            is_test = false;
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_are_found_by_their_attribute() {
        let code =
            "#[test]\nfn one() {}\n#[tokio::test(start_paused = true)]\n// why\nasync fn two() {}\nfn none() {}\n";
        assert_eq!(tests_in(code), ["one", "two"]);
        assert!(tests().contains("tests_are_found_by_their_attribute"));
        assert!(!tests().contains("tests_in"));
    }
}
