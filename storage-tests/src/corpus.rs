//! What fuzzers ever kept, through the same checks, without a fuzzer.
#![expect(clippy::disallowed_methods, reason = "reads the corpora in the repository")]

use crate::repository;

/// Puts every file of a fuzz target's corpus through its check.
///
/// # Panics
/// When the check does, and when the seeds are missing.
pub fn replay(target: &str, check: fn(&[u8])) {
    let corpus = repository::root().join("fuzz/corpus").join(target);
    let mut replayed = 0;
    for entry in std::fs::read_dir(corpus).expect("the corpus is there") {
        let path = entry.expect("listed").path();
        // A panic names the check, and this line, shown with it, the file.
        println!("{}", path.display());
        check(&std::fs::read(path).expect("read"));
        replayed += 1;
    }
    assert!(replayed >= 5, "{replayed} files: the seeds of {target} are missing");
}
