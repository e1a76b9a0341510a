//! Every file that a fuzzer of the disk's side ever kept, through the same checks, without a fuzzer.
#![expect(clippy::disallowed_methods, reason = "reads the corpora in the repository")]

use std::path::Path;

fn replay(target: &str, check: fn(&[u8])) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target);
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
fn what_fuzzers_found_of_frames_holds() {
    replay("frame", forebay::fuzzing::frame);
}

#[test]
fn what_fuzzers_found_of_recovery_holds() {
    replay("recovery", forebay::fuzzing::recovery);
}

#[test]
fn what_fuzzers_found_of_tables_holds() {
    replay("tables", forebay::fuzzing::tables);
}

#[test]
fn what_fuzzers_found_of_floor_pages_holds() {
    replay("floor_page", forebay::fuzzing::floor_page);
}

#[test]
fn what_fuzzers_found_of_plans_holds() {
    replay("plans", forebay::fuzzing::plans);
}

#[test]
fn what_fuzzers_found_of_cursor_hints_holds() {
    replay("hint", forebay::fuzzing::hint);
}
