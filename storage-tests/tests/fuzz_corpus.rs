//! Every file that a fuzzer of the disk's side ever kept, through the same checks, without a fuzzer.

use storage_tests::corpus::replay;

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

#[test]
fn what_fuzzers_found_of_sequences_of_operations_holds() {
    replay("sequences", storage_tests::sequences::sequence);
}
