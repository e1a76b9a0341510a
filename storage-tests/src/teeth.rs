//! Which test notices which mutant: the list, its place in the manual, and the run that shows it.
//!
//! No killer is a proptest: those keep what made them fail, and these are to fail.
//! A mutant is a switch in the one build of the tests (see `forebay::mutants`), so all of them together cost no build.

use forebay::mutants::Mutant;
use std::fmt::Write as _;

/// Where the list stands in the manual.
pub const PAGE: &str = "docs/testing.md";

const BEGIN: &str = "<!-- made by `cargo run -p storage-tests --bin teeth -- list` -->\n";
const END: &str = "<!-- end -->\n";

/// The mutant, the executable of the test that kills it, and the test.
pub const TEETH: &[(Mutant, &str, &str)] = &[
    (Mutant::AppendNotSynced, "crash", "a_crash_at_any_change_loses_nothing_that_was_acknowledged"),
    (Mutant::SegmentNameNotSynced, "crash", "a_crash_at_any_change_loses_nothing_that_was_acknowledged"),
    (Mutant::FailedFileUsedAgain, "storage_tests", "the_latch_keeps_a_second_sync_from_lying"),
    (Mutant::TableNotSavedBeforeReclaim, "crash", "a_crash_at_any_change_loses_nothing_that_was_acknowledged"),
    (
        Mutant::RecycledWithoutLooking,
        "reclaim",
        "a_segments_name_that_leads_to_another_segments_file_makes_no_spare_of_it",
    ),
    (
        Mutant::SmallFileNotSynced,
        "faults",
        "a_failure_of_any_change_loses_nothing_and_passes_when_the_disk_is_good_again",
    ),
    (Mutant::SyncedMarkNotBelieved, "damage", "damage_before_the_last_commit_is_told_by_the_frames_alone"),
    (
        Mutant::FramesBehindABreakTaken,
        "forebay",
        "valid_looking_frames_behind_a_broken_one_above_the_synced_position_are_cut",
    ),
    (Mutant::HalfAGroupKept, "crash", "a_crash_at_any_change_loses_nothing_that_was_acknowledged"),
    (
        Mutant::StepsCalledSynced,
        "crash",
        "a_crash_at_any_change_leaves_all_of_a_large_append_or_nothing_and_all_that_came_meanwhile",
    ),
    (
        Mutant::SuccessorNotHeard,
        "faults",
        "what_lies_behind_a_failed_files_end_never_competes_with_what_was_written_again",
    ),
    (Mutant::DamagedTableLeft, "faults", "the_logs_id_outlives_every_tear_of_its_tables"),
    (Mutant::DamagedOffsetsForgotten, "damage", "the_offsets_of_a_streams_damaged_last_frame_are_not_given_again"),
    (
        Mutant::KeptBytesNotWrittenAnew,
        "faults",
        "what_a_failed_sync_left_in_the_cache_is_written_anew_before_it_is_served",
    ),
    (Mutant::CutNotSynced, "crash", "a_crash_at_any_change_loses_nothing_that_was_acknowledged"),
    (Mutant::PayloadNotChecked, "bits", "every_bit_of_a_log_that_turns_is_noticed_and_costs_its_own_frame_at_most"),
    (Mutant::FrameOfAnyPlaceTaken, "forebay", "a_frame_is_bound_to_its_log_its_segment_and_its_position"),
    (Mutant::DamageSkipped, "bits", "every_bit_of_a_log_that_turns_is_noticed_and_costs_its_own_frame_at_most"),
    (Mutant::OneRecordTrimmedTooMany, "it_queue", "no_crash_loses_a_record_a_cursor_or_a_plan"),
    (Mutant::BudgetOverrun, "forebay", "a_full_budget_refuses_applications_serves_our_own_and_ends_when_there_is_room"),
    (Mutant::FloorNotSynced, "it_queue", "a_crash_at_any_change_of_a_life_of_queues_loses_nothing"),
    (Mutant::FloorNameNotSynced, "forebay", "whatever_a_power_cut_leaves_no_entry_is_lost"),
    (Mutant::TrimmedByOneSlot, "floor", "a_slot_that_rots_makes_nothing_lost_that_was_delivered"),
    (Mutant::TrimmedAheadOfTheFloor, "forebay", "settled_segments_go_after_the_floor_that_says_so_and_only_then"),
    (
        Mutant::PlansLetGoAtOnce,
        "it_queue",
        "a_plan_is_never_gone_before_the_cursor_that_settled_it_whatever_part_of_a_tick_lands",
    ),
    (
        Mutant::FailedPlanTold,
        "it_queue",
        "a_disk_that_takes_no_change_from_any_moment_on_loses_nothing_across_a_start_and_passes",
    ),
    (Mutant::NewIdEachTime, "power_cuts", "no_power_cut_takes_what_was_acknowledged_settled_or_planned"),
    (Mutant::AnyHintBelieved, "it_queue", "an_older_copy_of_sled_is_not_believed_against_the_floor"),
    (Mutant::ClaimSettles, "it_queue", "no_crash_loses_a_record_a_cursor_or_a_plan"),
    (Mutant::FailureSettles, "forebay_sidecar", "each_outcome_has_its_consequence"),
    (Mutant::RefusalSettles, "forebay_sidecar", "each_outcome_has_its_consequence"),
    (Mutant::RedirectDelivers, "forebay_sidecar", "only_2xx_delivers"),
    (Mutant::RetryAfterIgnored, "forebay_sidecar", "a_throttle_of_an_hour_is_asked_once_an_hour"),
    (Mutant::LettersNotAwaited, "forebay_sidecar", "each_outcome_has_its_consequence"),
    (Mutant::PartialTakenWhole, "forebay_sidecar", "each_outcome_has_its_consequence"),
    (Mutant::AnswerReadWithoutEnd, "forebay_sidecar", "a_body_without_end_is_cut_at_once"),
    (Mutant::FailureNotTriedAgain, "forebay_sidecar", "a_throttle_of_an_hour_is_asked_once_an_hour"),
    (
        Mutant::OrderNotKept,
        "forebay_sidecar",
        "in_order_one_is_in_flight_and_what_failed_or_was_split_comes_before_what_is_behind_it",
    ),
    (Mutant::NothingKeptForOthers, "forebay_sidecar", "destinations_that_hang_keep_nobody_out"),
    (Mutant::SecretShown, "forebay_sidecar", "what_an_answer_repeats_of_headers_and_address_is_not_shown"),
];

/// The list as the manual shows it.
#[must_use]
pub fn list() -> String {
    let mut list = "| mutant | what it breaks | killed by |\n| --- | --- | --- |\n".to_owned();
    for (mutant, executable, test) in TEETH {
        let _ = writeln!(list, "| `{mutant:?}` | {} | `{executable}: {test}` |", mutant.what());
    }
    list
}

/// The manual with this list in the place of the one that it has. `None` when it has no such place.
#[must_use]
pub fn place(page: &str) -> Option<String> {
    let (before, rest) = page.split_once(BEGIN)?;
    let (_, behind) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}\n{}\n{END}{behind}", list()))
}
