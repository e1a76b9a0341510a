//! Every file that a fuzzer of what lies inside of the sidecar ever kept, through the same checks, without a fuzzer.
#![expect(clippy::disallowed_methods, reason = "reads the corpora in the repository")]

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
fn what_fuzzers_found_of_decisions_holds() {
    replay("control", super::control);
}

#[test]
fn what_fuzzers_found_of_letters_holds() {
    replay("letters", super::letters);
}

#[test]
fn what_fuzzers_found_of_relayed_posts_holds() {
    replay("posts", super::posts);
}

#[test]
fn what_fuzzers_found_of_answers_holds() {
    replay("answers", super::answers);
}

#[test]
fn what_fuzzers_found_of_stores_answers_holds() {
    replay("store_answers", super::store_answers);
}

#[test]
fn what_fuzzers_found_of_headers_holds() {
    replay("rate_headers", super::rate_headers);
}

#[test]
fn what_fuzzers_found_of_configurations_holds() {
    replay("config", super::configuration);
}
