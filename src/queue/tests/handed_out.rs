//! What a queue says of itself and of a batch that is handed out, to whoever sends it.

use super::*;
use crate::queue::planner::PlanError;

/// Splits at once.
fn split(queue: &Queue, batch: &Batch, at: u64) -> Result<[Batch; 2], SplitError> {
    let halves = Arc::new(Mutex::new(None));
    let heard = Arc::clone(&halves);
    queue.split(batch, at, Box::new(move |result| *lock(&heard) = Some(result)));
    lock(&halves).take().expect("everything is on this thread")
}

#[test]
fn a_queue_says_who_it_is_and_a_handle_what_it_hands_out() {
    let queues = open(&mem());
    let queue = hook(&queues);
    assert_eq!(queue.log_id(), queues.log().log_id());
    let names = [queue.destination_name(), queue.stream_name()];
    assert_eq!(names.each_ref().map(|name| &**name), ["hook", "acme"]);
    assert!(Arc::ptr_eq(&names[0], &queue.destination_name()) && Arc::ptr_eq(&names[1], &queue.stream_name()));
    let positions = [&queue, &queue.backlog(), &queue.live()].map(Queue::position);
    assert_eq!(positions, [Position::Only, Position::Backlog, Position::Live]);
}

/// Before: what was sent to a log or stood in a panic's message had all records of the batch in it.
#[test]
fn what_is_printed_of_a_batch_is_short_and_has_no_record_in_it() {
    let queues = open(&mem());
    let queue = hook(&queues);
    queues.log().append_wait("acme", vec![Payload { bytes: vec![201; 1_000], records: 10 }]).expect("it is taken");
    let batch = next(&queue, 10);
    let printed = format!("{batch:?}");
    assert!(printed.contains(&batch.id) && printed.contains("0..10") && printed.contains("stands: true"), "{printed}");
    assert!(!printed.contains("201, 201") && printed.len() < 600, "{printed}");
    queue.settle(&batch, Settled::Delivered);
    assert!(format!("{batch:?}").contains("stands: false"));
}

#[test]
fn a_record_of_a_batch_is_had_with_what_follows_it_in_its_frame_as_far_as_it_is_of_the_batch() {
    let queues = open(&mem());
    let queue = hook(&queues);
    (0..2).for_each(|_| append(&queues, "acme", 10));
    let range = queue.next_range(of_records(15).into()).expect("memory reads").expect("twenty wait");
    let at = |offset| queue.slice_at(&range, offset).expect("memory reads").map(|slice| slice.offsets);
    assert_eq!([0, 4, 12].map(at), [Some(0..10), Some(4..10), Some(12..15)]);
    queues.delete("hook", None).expect("memory writes");
    assert_eq!(at(4), None, "its queue is gone");
}

#[test]
fn what_is_settled_of_a_batch_is_told_also_when_it_comes_again() {
    let queues = open(&mem());
    let queue = hook(&queues);
    append(&queues, "acme", 10);
    let batch = next(&queue, 10);
    assert_eq!(queue.settled_within(&batch), []);
    for part in [2..4, 9..10] {
        queue.settle_range(part, Settled::Purged);
    }
    queue.release(&batch);
    let again = next(&queue, 1);
    assert_eq!((&again.id, queue.settled_within(&again)), (&batch.id, vec![2..4, 9..10]));
}

#[test]
fn where_a_split_failed_is_told_of_that_batch_alone_and_it_is_not_to_be_sent_whole() {
    let queues = open(&mem());
    let queue = hook(&queues);
    append(&queues, "acme", 20);
    let (batch, other) = (next(&queue, 10), next(&queue, 10));
    [&batch, &other].into_iter().for_each(|batch| plan(&queue, batch));
    assert_eq!(queue.failed_split(&batch), None);
    queues.log().close().expect("memory writes");
    assert!(matches!(split(&queue, &batch, 4), Err(SplitError::Plan(_))), "a log that is closed takes none");
    assert_eq!((queue.failed_split(&batch), queue.failed_split(&other)), (Some(4), None));
    queue.plan(&batch, Box::new(|planned| assert!(matches!(planned, Err(PlanError::SplitFailed { at: 4 })))));
}

#[test]
fn without_a_place_a_batch_stays_whole_and_is_split_once_another_is_settled() {
    let queues = open(&mem());
    let queue = hook(&queues);
    append(&queues, "acme", 1_000);
    let mut batches: Vec<Batch> =
        std::iter::from_fn(|| queue.next_batch(of_records(2)).expect("memory reads")).collect();
    let last = batches.pop().expect("there are many");
    let at = last.offsets.start + 1;
    assert!(at < 999, "the places are taken, not the records");
    assert!(matches!(split(&queue, &last, at), Err(SplitError::NoRoom)));
    assert_eq!((queue.failed_split(&last), queue.lag().in_flight), (None, last.offsets.end));
    queue.settle(&batches[0], Settled::Delivered);
    let [first, second] = split(&queue, &last, at).expect("there is room");
    assert_eq!((first.offsets.end, second.offsets.start, second.offsets.end), (at, at, last.offsets.end));
}
