//! Those that may be of no use: half at most, and each its turn.

use super::*;

fn doubtful(flow: FlowId, bytes: u64) -> Demand {
    Demand { doubtful: true, ..demand(flow, 1, bytes) }
}

#[test]
fn who_may_be_of_no_use_is_looked_at_again_when_the_one_before_it_leaves() {
    let (mut share, mut ids) = (share(64, 1000), BTreeMap::new());
    assert!(matches!(share.ask(doubtful(0, 300), NOW), Asked::Granted(_)));
    assert!(has(&mut share, 9, 500));
    wait(&mut share, &mut ids, doubtful(1, 600));
    wait(&mut share, &mut ids, doubtful(2, 600));
    assert_eq!(share.next(NOW), None);
    assert!(!share.is_short(), "they wait for each other only: nobody else's batches are to be smaller for it");
    share.give_back(0, Amount::place(300), true);
    assert_eq!(share.next(NOW), None, "the first is looked at, and has no room yet");
    let first = *ids.iter().find(|(_, flow)| **flow == 1).expect("it waits").0;
    assert!(share.withdraw(1, first, NOW));
    share.give_back(9, Amount::place(500), false);
    assert_eq!(served(&mut share, &ids), [2]);
}

#[test]
fn who_lines_up_again_shares_in_what_flows_from_the_very_next_grant() {
    let (mut share, mut ids) = (share(8, 1000), BTreeMap::new());
    assert!(matches!(share.ask(doubtful(0, 400), NOW), Asked::Granted(_)));
    wait(&mut share, &mut ids, doubtful(1, 190));
    assert_eq!(share.next(NOW), None, "it stands aside");
    assert!(has(&mut share, 9, 550));
    for _ in 0..2 {
        wait(&mut share, &mut ids, demand(2, 1, 100));
    }
    assert_eq!(share.next(NOW), None);
    share.give_back(0, Amount::place(400), true);
    assert_eq!(served(&mut share, &ids), [2, 1, 2], "190 bytes are filled before twice 100");
}

#[test]
fn those_that_may_be_of_no_use_get_half_at_most_and_their_turns() {
    let (mut share, mut ids) = (share(8, 1000), BTreeMap::new());
    for flow in 0..4 {
        assert!(matches!(share.ask(doubtful(flow, 10), NOW), Asked::Granted(_)));
    }
    for flow in 4..6 {
        wait(&mut share, &mut ids, doubtful(flow, 10));
    }
    assert_eq!(served(&mut share, &ids), [] as [FlowId; 0]);
    assert!(has(&mut share, 50, 10), "the others don't wait for them");
    share.give_back(0, Amount::place(10), true);
    assert_eq!(served(&mut share, &ids), [4]);
    share.give_back(1, Amount::place(10), true);
    assert_eq!(served(&mut share, &ids), [5]);
}

#[test]
fn a_large_one_that_may_be_of_no_use_is_not_kept_out_by_small_ones_that_keep_coming() {
    let (mut share, mut ids) = (share(64, 1000), BTreeMap::new());
    let mut held: Vec<FlowId> = (10..14).collect();
    for flow in &held {
        assert!(matches!(share.ask(doubtful(*flow, 100), NOW), Asked::Granted(_)));
    }
    wait(&mut share, &mut ids, doubtful(1, 400));
    assert_eq!(share.next(NOW), None, "it stands aside");
    let mut order = Vec::new();
    for flow in 20..30 {
        // There would be room for each of them at every moment.
        wait(&mut share, &mut ids, doubtful(flow, 100));
        if !held.is_empty() {
            share.give_back(held.remove(0), Amount::place(100), true);
        }
        let now = served(&mut share, &ids);
        held.extend(now.iter().filter(|flow| **flow != 1));
        order.extend(now);
    }
    assert_eq!(order[..2], [1, 20], "{order:?}");
}

#[test]
fn who_was_called_has_its_turn_though_it_waits_for_room_and_another_would_be_filled_before() {
    let (mut share, mut ids) = (share(64, 1000), BTreeMap::new());
    assert!(matches!(share.ask(doubtful(0, 300), NOW), Asked::Granted(_)));
    wait(&mut share, &mut ids, doubtful(1, 400));
    assert_eq!(share.next(NOW), None, "it stands aside");
    assert!(has(&mut share, 8, 400) && has(&mut share, 9, 290));
    share.give_back(0, Amount::place(300), true);
    assert_eq!(share.next(NOW), None, "it is called, and there is no room");
    wait(&mut share, &mut ids, doubtful(2, 200));
    assert_eq!(share.next(NOW), None, "the second is not called before the first has what it waits for");
    share.give_back(9, Amount::place(290), false);
    assert_eq!(served(&mut share, &ids), [1]);
    let second = *ids.iter().find(|(_, flow)| **flow == 2).expect("it waits").0;
    assert!(share.withdraw(2, second, NOW));
    assert!(share.called.is_empty());
}

#[test]
fn one_beyond_its_share_keeps_no_other_from_what_is_left_of_the_half() {
    let (mut share, mut ids) = (share(64, 1000), BTreeMap::new());
    assert!(matches!(share.ask(doubtful(1, 300), NOW), Asked::Granted(_)));
    assert!(has(&mut share, 9, 500));
    // It would hold more than its share, and more than the half; what it holds it never gives back.
    wait(&mut share, &mut ids, doubtful(1, 300));
    assert_eq!(share.next(NOW), None);
    assert!(
        matches!(share.ask(doubtful(2, 50), NOW), Asked::Granted(_)),
        "nothing stands aside for being one too many"
    );
    share.give_back(9, Amount::place(500), false);
    assert_eq!(share.next(NOW), None, "nor does it pass the half where nobody else wants anything");
    share.give_back(1, Amount::place(300), true);
    assert_eq!(served(&mut share, &ids), [1]);
}
