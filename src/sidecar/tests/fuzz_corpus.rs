//! Every file that a fuzzer of the SDKs' side ever kept, through the same checks, without a fuzzer.
#![expect(clippy::disallowed_methods, reason = "reads the corpora in the repository")]

#[expect(unreachable_pub, reason = "public for the fuzzers, which share the file")]
#[path = "../../../fuzz/src/checks.rs"]
mod checks;

use forebay_sidecar::impression;
use std::path::Path;

fn replay(target: &str, check: fn(&[u8])) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target);
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

#[test]
fn what_fuzzers_found_of_posts_holds() {
    replay("ingest", checks::ingest);
}

#[test]
fn what_fuzzers_found_of_stored_batches_holds() {
    replay("stored", checks::stored);
}
