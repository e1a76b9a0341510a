//! Each fuzz target is declared, has seeds that plain `cargo test` replays, and stands in docs/testing.md.
//!
//! Uses nothing of the project's crates: those are instrumented when this is built beside the targets.
#![expect(clippy::disallowed_methods, reason = "reads the repository")]

use std::collections::BTreeSet;
use std::path::Path;

/// The names of what lies in a directory, without their endings.
fn names(dir: &Path) -> BTreeSet<String> {
    let stem = |path: &Path| path.file_stem().expect("a name").to_string_lossy().into_owned();
    std::fs::read_dir(dir).expect("it is there").map(|entry| stem(&entry.expect("listed").path())).collect()
}

#[test]
fn each_target_is_declared_and_has_seeds_and_a_place_in_the_docs() {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR"));
    let manifest = std::fs::read_to_string(fuzz.join("Cargo.toml")).expect("read");
    let docs = std::fs::read_to_string(fuzz.join("../docs/testing.md")).expect("read");
    let targets = names(&fuzz.join("fuzz_targets"));
    assert!(targets.len() >= 16, "{targets:?}");
    assert_eq!(names(&fuzz.join("corpus")), targets);
    assert!(names(&fuzz.join("dictionaries")).is_subset(&targets));
    for target in targets {
        assert!(manifest.contains(&format!("path = \"fuzz_targets/{target}.rs\"")), "{target} is not built");
        assert!(docs.contains(&format!("`{target}`")), "{target} is not in docs/testing.md");
    }
}
