//! Every file that a fuzzer of the sidecar ever kept, through the same checks, without a fuzzer.

use storage_tests::corpus::replay;

#[test]
fn what_fuzzers_found_of_posts_holds() {
    replay("ingest", super::ingest);
}

#[test]
fn what_fuzzers_found_of_packed_bodies_holds() {
    replay("gunzip", super::gunzip);
}

#[test]
fn what_fuzzers_found_of_stored_batches_holds() {
    replay("stored", super::stored);
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
