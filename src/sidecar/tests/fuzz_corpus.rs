//! Every file that a fuzzer of the SDKs' side ever kept, through the same checks, without a fuzzer.

#[expect(unreachable_pub, reason = "public for the fuzzers, which share the file")]
#[path = "../../../fuzz/src/checks.rs"]
mod checks;

use forebay_sidecar::impression;
use storage_tests::corpus::replay;

#[test]
fn what_fuzzers_found_of_posts_holds() {
    replay("ingest", checks::ingest);
}

#[test]
fn what_fuzzers_found_of_stored_batches_holds() {
    replay("stored", checks::stored);
}
