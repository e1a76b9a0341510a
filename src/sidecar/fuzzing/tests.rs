//! Every file that a fuzzer of what lies inside of the sidecar ever kept, through the same checks, without a fuzzer.

use storage_tests::corpus::replay;

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
