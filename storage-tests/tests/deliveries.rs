//! The model of deliveries: it is worth nothing unless it fails. What compares with it are the sidecar's tests of processes
//! and its simulation of days.

use std::collections::BTreeMap;
use std::ops::Range;
use storage_tests::model::deliveries::Heard::{self, Nothing, NothingBut, Taken, TooLarge};
use storage_tests::model::deliveries::{Deliveries, Fate};

/// What came: in which life, under which id, which records, and what was heard of them.
fn all(came: &[(usize, &str, Range<u32>, Heard<u32>)]) -> Deliveries<u32> {
    let mut deliveries = Deliveries::default();
    for (life, id, records, heard) in came {
        let records: Vec<u32> = records.clone().collect();
        deliveries.comes(*life, id, &records, &records, heard);
    }
    deliveries
}

fn hold(deliveries: &Deliveries<u32>, posts: &[(Range<u32>, Fate)]) {
    let posts: Vec<(Vec<u32>, Fate)> = posts.iter().map(|(post, fate)| (post.clone().collect(), *fate)).collect();
    let posts: Vec<(&[u32], Fate)> = posts.iter().map(|(post, fate)| (&post[..], *fate)).collect();
    deliveries.hold("hook", &posts);
}

#[test]
fn what_is_whole_passes_however_often_it_failed() {
    let came = all(&[(0, "a", 0..3, Nothing), (0, "a", 0..3, Taken), (0, "b", 3..5, Taken)]);
    hold(
        &came,
        &[(0..3, Fate::Acknowledged), (3..5, Fate::Unknown), (5..9, Fate::Unknown), (9..10, Fate::Refused(503))],
    );
    assert_eq!((came.repeats_excused_by(&BTreeMap::new()), came.never_taken().len()), (0, 0));
    assert_eq!(came.ids().map(|(_, id)| id).collect::<String>(), "aaabb");
}

#[test]
#[should_panic(expected = "hook lacks 1 acknowledged posts")]
fn an_acknowledged_record_that_is_missing_is_told() {
    hold(&all(&[(0, "a", 0..2, Taken)]), &[(0..3, Fate::Acknowledged)]);
}

#[test]
#[should_panic(expected = "hook has a part of")]
fn a_part_of_a_post_is_told() {
    hold(&all(&[(0, "a", 0..2, Taken)]), &[(0..3, Fate::Unknown)]);
}

#[test]
#[should_panic(expected = "refused with 503")]
fn a_refused_record_that_came_is_told() {
    hold(&all(&[(0, "a", 0..2, Taken)]), &[(0..1, Fate::Acknowledged), (1..2, Fate::Refused(503))]);
}

#[test]
#[should_panic(expected = "what nobody sent")]
fn a_record_that_nobody_sent_is_told() {
    hold(&all(&[(0, "a", 0..2, Taken)]), &[(0..1, Fate::Acknowledged)]);
}

#[test]
#[should_panic(expected = r#"batch b came with [1, 2], which came in {None, Some("a")} before"#)]
fn a_record_in_two_batches_is_told() {
    all(&[(0, "a", 0..2, Taken), (0, "b", 1..3, Taken)]);
}

#[test]
fn a_batch_with_other_records_than_before_is_told() {
    for other in [0..3, 0..1, 2..4, 1..3] {
        let came = || all(&[(0, "a", 0..2, Nothing), (0, "a", other.clone(), Taken)]);
        assert!(std::panic::catch_unwind(came).is_err(), "{other:?}");
    }
}

#[test]
#[should_panic(expected = "has a record twice")]
fn a_record_that_is_twice_in_its_batch_is_told() {
    Deliveries::default().comes(0, "a", &[1, 1], &[1, 1], &Taken);
}

#[test]
fn a_batch_comes_in_parts_once_it_was_too_large_or_rejected_in_part_and_never_whole_again() {
    let halves = [(0, "b", 0..2, Nothing), (0, "c", 2..4, Taken), (0, "b", 0..2, Taken)];
    let came = |heard, then: &[_]| all(&[&[(0, "a", 0..4, heard)], &halves[..], then].concat());
    for heard in [TooLarge, NothingBut(vec![3])] {
        hold(&came(heard, &[]), &[(0..4, Fate::Acknowledged)]);
    }
    for (heard, then) in [
        (Nothing, vec![]),
        (Taken, vec![]),
        (TooLarge, vec![(0, "a", 0..4, Taken)]),
        (TooLarge, vec![(0, "d", 0..1, Taken)]),
        (TooLarge, vec![(0, "d", 1..3, Taken)]),
    ] {
        assert!(std::panic::catch_unwind(|| came(heard.clone(), &then)).is_err(), "{heard:?}, then {then:?}");
    }
    let as_large = || all(&[(0, "a", 0..4, TooLarge), (0, "b", 0..4, Taken)]);
    assert!(std::panic::catch_unwind(as_large).is_err(), "all of it under another id is no part");
}

#[test]
fn a_batch_comes_without_what_has_ended_and_with_all_that_has_not() {
    let come = |heard: Heard<u32>, left: &[u32]| {
        let mut came = Deliveries::default();
        came.comes(0, "a", &[0, 1, 2], &[0, 1, 2], &heard);
        came.comes(0, "a", &[0, 1, 2], left, &Nothing);
        came
    };
    let came = come(NothingBut(vec![1]), &[0, 2]);
    assert_eq!((came.never_taken(), came.repeats_excused_by(&BTreeMap::new())), (vec![&0, &1, &2], 0));
    assert!(std::panic::catch_unwind(|| come(NothingBut(vec![1]), &[0])).is_err(), "2 waits, too");
    assert!(std::panic::catch_unwind(|| come(Nothing, &[1])).is_err(), "0 and 2 wait");
    assert!(std::panic::catch_unwind(|| come(Nothing, &[0, 1, 2, 3])).is_err(), "3 is of no batch");
    let at_first = || Deliveries::default().comes(0, "a", &[0, 1], &[0], &Taken);
    assert!(std::panic::catch_unwind(at_first).is_err(), "nothing has ended");
}

#[test]
fn what_was_sent_and_never_taken_is_told() {
    let came = all(&[(0, "a", 0..2, Nothing), (0, "b", 2..3, Taken), (1, "c", 3..4, TooLarge)]);
    assert_eq!(came.never_taken(), [&0, &1, &3]);
}

#[test]
#[should_panic(expected = "which knew")]
fn a_repeat_of_a_success_is_told() {
    all(&[(0, "a", 0..1, Taken), (0, "a", 0..1, Taken)]).repeats_excused_by(&BTreeMap::new());
}

#[test]
#[should_panic(expected = "in good order")]
fn a_repeat_after_a_stop_in_good_order_is_told() {
    all(&[(0, "a", 0..1, Taken), (1, "a", 0..1, Taken)]).repeats_excused_by(&BTreeMap::new());
}

#[test]
fn repeats_after_a_kill_are_excused_as_far_as_their_successes_were_not_durable() {
    let came = all(&[(0, "a", 0..4, Taken), (0, "b", 4..7, Taken), (1, "b", 4..7, Taken)]);
    let excused = |durable| came.repeats_excused_by(&BTreeMap::from([(0, durable)]));
    assert_eq!((excused(0), excused(4)), (1, 1));
    for too_much in [5, 7, 8] {
        assert!(std::panic::catch_unwind(|| excused(too_much)).is_err(), "{too_much} were durable");
    }
}

#[test]
#[should_panic(expected = "came again after life 1")]
fn what_one_life_made_durable_binds_those_that_follow() {
    let came = all(&[(0, "a", 0..4, Taken), (1, "b", 4..7, Taken), (2, "a", 0..4, Taken)]);
    came.repeats_excused_by(&BTreeMap::from([(0, 0), (1, 4)]));
}
