//! The proof: what was acknowledged against what arrived. Panics with the first thing that is wrong. Does no I/O.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use serde_json::Value;

use super::books::Lag;
use super::load::{Fate, Post, delivered};
use super::receiver::Arrival;

/// The impressions that arrived at one destination, each by its key.
pub(crate) struct Arrived {
    /// The id under which each came: a batch's for a webhook, its own for a file.
    ids: HashMap<String, String>,
}

impl Arrived {
    /// Of a webhook. Each id has the same records at every attempt; each record has one id; each is as it was sent.
    pub(crate) fn at_webhook(arrivals: &[Arrival]) -> Self {
        let mut bodies = BTreeMap::<&str, &Arc<[u8]>>::new();
        let mut ids = HashMap::new();
        for arrival in arrivals {
            if let Some(body) = bodies.insert(&arrival.id, &arrival.body) {
                assert!(*body == arrival.body, "batch {} came with other records than before", arrival.id);
                continue;
            }
            let records: Vec<Value> = serde_json::from_slice(&arrival.body).expect("a batch is an array");
            assert!(!records.is_empty(), "batch {} is empty", arrival.id);
            for record in records {
                let key = checked_key(&record);
                let other = ids.insert(key.clone(), arrival.id.clone());
                assert!(other.is_none(), "{key} came in {other:?} and in {}", arrival.id);
            }
        }
        let taken: HashSet<_> = arrivals.iter().filter(|arrival| arrival.taken()).map(|arrival| &*arrival.id).collect();
        let never: Vec<_> = bodies.keys().filter(|id| !taken.contains(*id)).collect();
        assert!(never.is_empty(), "batches that were sent and never taken: {never:?}");
        Self { ids }
    }

    /// Of a file destination: each record stands there once, under an id of its own, as it was sent.
    pub(crate) fn in_files(lines: Vec<Value>) -> Self {
        let (mut ids, mut seen) = (HashMap::new(), HashSet::new());
        for mut line in lines {
            let object = line.as_object_mut().expect("a line is an object");
            let id = object.remove("id").and_then(|id| Some(id.as_str()?.to_owned())).expect("a line has an id");
            assert!(seen.insert(id.clone()), "record {id} stands there twice");
            assert!(object.remove("receivedTime").is_some_and(|time| time.is_u64()));
            assert_eq!(object.remove("impressionsMode").unwrap_or_default(), "DEBUG");
            let key = checked_key(&line);
            let other = ids.insert(key.clone(), id.clone());
            assert!(other.is_none(), "{key} stands there as {other:?} and as {id}");
        }
        Self { ids }
    }

    pub(crate) fn len(&self) -> usize {
        self.ids.len()
    }

    /// Everything acknowledged is here, nothing that was never sent or was refused, and no body in part.
    pub(crate) fn holds(&self, posts: &[Post], destination: &str) {
        let (mut sent, mut missing) = (0, Vec::new());
        for post in posts {
            let here = post.keys.iter().filter(|key| self.ids.contains_key(*key)).count();
            sent += here;
            match post.fate {
                Fate::Acknowledged if here < post.keys.len() => missing.push(&post.keys),
                Fate::Acknowledged | Fate::Unknown => {
                    assert!(here == 0 || here == post.keys.len(), "{destination} has a part of {:?}", post.keys);
                }
                Fate::Refused(status) => assert_eq!(here, 0, "{:?} was refused with {status}", post.keys),
            }
        }
        assert!(missing.is_empty(), "{destination} lacks {} acknowledged posts, {:?} first", missing.len(), missing[0]);
        assert_eq!(sent, self.ids.len(), "{destination} has what nobody sent");
    }

    /// The same impressions are at both.
    pub(crate) fn equals(&self, other: &Self) {
        let keys = |arrived: &Self| arrived.ids.keys().cloned().collect::<HashSet<_>>();
        let differs: Vec<_> = keys(self).symmetric_difference(&keys(other)).take(5).cloned().collect();
        assert!(differs.is_empty(), "only one of two destinations has {differs:?}");
    }

    /// Each record has the id that it has at the other, too.
    pub(crate) fn has_the_ids_of(&self, other: &Self) {
        for (key, id) in &self.ids {
            assert_eq!(other.ids.get(key), Some(id), "the id of {key}");
        }
    }

    /// Each record has the offset that it has at the other, too: where ids are of different kinds.
    pub(crate) fn has_the_offsets_of(&self, other: &Self) {
        let offset = |id: &String| id.rsplit('-').next().map(str::to_owned);
        for (key, id) in &self.ids {
            assert_eq!(other.ids.get(key).and_then(offset), offset(id), "the offset of {key}");
        }
    }

    /// No id of this one is one of the other's.
    pub(crate) fn shares_no_id_with(&self, other: &Self) {
        let others: HashSet<_> = other.ids.values().collect();
        let shared = self.ids.values().find(|id| others.contains(id));
        assert!(shared.is_none(), "two sidecars share the id {shared:?}");
    }
}

/// The key of a record, all of which is as it was sent.
fn checked_key(record: &Value) -> String {
    let key = record["key"].as_str().expect("a record has a key");
    assert_eq!(*record, delivered(key));
    key.to_owned()
}

/// Batches come again only when they failed, or when a kill took the news of their success with it. `deaths` holds of
/// each life that ended by a kill how many records the queue had delivered durably, as far as was seen; a life that is
/// not there ended in good order. Returns how many batches came again after a success.
///
/// What was durable does not come again: so of what the receiver had taken when a life ended, no more records can
/// come again than were not durable. That is a count of records, whatever the time between.
pub(crate) fn repeats_are_excused(arrivals: &[Arrival], deaths: &BTreeMap<usize, u64>) -> usize {
    let mut last = HashMap::<&str, &Arrival>::new();
    let mut repeats = 0;
    for arrival in arrivals {
        let Some(before) = last.insert(&arrival.id, arrival).filter(|before| before.taken()) else { continue };
        repeats += 1;
        let (id, life) = (&arrival.id, before.life);
        assert!(arrival.life > life, "batch {id} came again in life {life}, which knew that it was taken");
        assert!(deaths.contains_key(&life), "batch {id} came again, though life {life} ended in good order");
    }
    // Counted once: a batch is looked at for each death.
    let counted: Vec<_> = arrivals.iter().map(|arrival| (arrival, arrival.records())).collect();
    let mut durable = 0;
    for (&life, &seen) in deaths {
        durable = durable.max(seen);
        let (taken, again) = taken_and_again(&counted, life);
        assert!(durable <= taken, "life {life} says that {durable} records are delivered, and {taken} were taken");
        assert!(
            again <= taken - durable,
            "{again} records came again after life {life}, though of {taken} that were taken {durable} were durable"
        );
    }
    repeats
}

/// Records that were taken up to the end of `life`, and those of them that came again in a later one.
fn taken_and_again(arrivals: &[(&Arrival, u64)], life: usize) -> (u64, u64) {
    let taken: HashMap<&str, u64> = arrivals
        .iter()
        .filter(|(arrival, _)| arrival.life <= life && arrival.taken())
        .map(|(arrival, records)| (&*arrival.id, *records))
        .collect();
    let again: HashSet<&str> =
        arrivals.iter().filter(|(arrival, _)| arrival.life > life).map(|(arrival, _)| &*arrival.id).collect();
    let again = taken.iter().filter(|(id, _)| again.contains(*id)).map(|(_, records)| records).sum();
    (taken.values().sum(), again)
}

/// Every queue is empty, has delivered all that it accepted, and accepted this many.
pub(crate) fn balance_closes(lags: &[Lag], destinations: &[&str], accepted: usize) {
    let mut names: Vec<_> = lags.iter().map(|lag| &*lag.destination).collect();
    names.sort_unstable();
    assert_eq!(names, destinations);
    for lag in lags {
        let sums = (lag.accepted, lag.delivered, lag.records_behind, lag.otherwise);
        assert_eq!(sums, (accepted as u64, accepted as u64, 0, 0), "the balance of {}", lag.destination);
    }
}

/// The proof itself: it is worth nothing unless it fails.
mod tests {
    use super::super::receiver::Answer;
    use super::*;
    use std::time::Instant;

    fn keys(range: std::ops::Range<u32>) -> Vec<String> {
        range.map(|n| format!("load-0-{n}")).collect()
    }

    fn post(range: std::ops::Range<u32>, fate: Fate) -> Post {
        Post { keys: keys(range), fate }
    }

    fn batch(id: &str, range: std::ops::Range<u32>, life: usize, answer: Answer) -> Arrival {
        let records: Vec<_> = keys(range).iter().map(|key| delivered(key)).collect();
        let body = Value::from(records).to_string().into_bytes().into();
        let at = Instant::now();
        Arrival { id: id.to_owned(), sidecar: "s".to_owned(), life, body, answer, at, answered: Some(at) }
    }

    fn taken(id: &str, range: std::ops::Range<u32>) -> Arrival {
        batch(id, range, 0, Answer::Ok)
    }

    #[test]
    fn what_is_whole_passes() {
        let arrivals = [batch("a", 0..3, 0, Answer::Drop), taken("a", 0..3), taken("b", 3..5)];
        let arrived = Arrived::at_webhook(&arrivals);
        let posts = [post(0..3, Fate::Acknowledged), post(3..5, Fate::Unknown), post(5..9, Fate::Unknown)];
        arrived.holds(&posts, "hook");
        assert_eq!(repeats_are_excused(&arrivals, &BTreeMap::new()), 0);
    }

    #[test]
    #[should_panic(expected = "lacks 1 acknowledged posts")]
    fn a_lost_record_is_seen() {
        Arrived::at_webhook(&[taken("a", 0..2)]).holds(&[post(0..3, Fate::Acknowledged)], "hook");
    }

    #[test]
    #[should_panic(expected = "a part of")]
    fn a_torn_body_is_seen() {
        Arrived::at_webhook(&[taken("a", 0..2)]).holds(&[post(0..3, Fate::Unknown)], "hook");
    }

    #[test]
    #[should_panic(expected = "what nobody sent")]
    fn an_invented_record_is_seen() {
        Arrived::at_webhook(&[taken("a", 0..2)]).holds(&[post(0..1, Fate::Acknowledged)], "hook");
    }

    #[test]
    #[should_panic(expected = "came in")]
    fn a_record_under_two_ids_is_seen() {
        Arrived::at_webhook(&[taken("a", 0..2), taken("b", 1..3)]);
    }

    #[test]
    #[should_panic(expected = "other records than before")]
    fn an_id_with_other_records_is_seen() {
        Arrived::at_webhook(&[taken("a", 0..2), taken("a", 0..3)]);
    }

    #[test]
    #[should_panic(expected = "never taken")]
    fn a_batch_that_was_given_up_is_seen() {
        Arrived::at_webhook(&[batch("a", 0..2, 0, Answer::Status(500))]);
    }

    #[test]
    #[should_panic(expected = "left == right")]
    fn a_changed_field_is_seen() {
        let mut arrival = taken("a", 0..1);
        arrival.body =
            String::from_utf8_lossy(&arrival.body).replace("treatment of", "treatment for").into_bytes().into();
        Arrived::at_webhook(&[arrival]);
    }

    #[test]
    #[should_panic(expected = "which knew")]
    fn a_repeat_of_a_success_is_seen() {
        repeats_are_excused(&[taken("a", 0..1), taken("a", 0..1)], &BTreeMap::new());
    }

    #[test]
    #[should_panic(expected = "in good order")]
    fn a_repeat_after_a_stop_in_good_order_is_seen() {
        repeats_are_excused(&[taken("a", 0..1), batch("a", 0..1, 1, Answer::Ok)], &BTreeMap::new());
    }

    #[test]
    fn repeats_after_a_kill_are_excused_as_far_as_their_successes_were_not_durable() {
        let again = |id, range| batch(id, range, 1, Answer::Ok);
        let arrivals = [taken("a", 0..4), taken("b", 4..7), again("b", 4..7)];
        let excused = |durable| repeats_are_excused(&arrivals, &BTreeMap::from([(0, durable)]));
        assert_eq!((excused(0), excused(4)), (1, 1));
        for too_much in [5, 7, 8] {
            assert!(std::panic::catch_unwind(|| excused(too_much)).is_err(), "{too_much} were durable");
        }
    }

    #[test]
    #[should_panic(expected = "came again after life 1")]
    fn what_one_life_made_durable_binds_those_that_follow() {
        let arrivals = [taken("a", 0..4), batch("b", 4..7, 1, Answer::Ok), batch("a", 0..4, 2, Answer::Ok)];
        repeats_are_excused(&arrivals, &BTreeMap::from([(0, 0), (1, 4)]));
    }

    #[test]
    #[should_panic(expected = "two sidecars share")]
    fn a_shared_id_is_seen() {
        Arrived::at_webhook(&[taken("a", 0..1)]).shares_no_id_with(&Arrived::at_webhook(&[taken("a", 1..2)]));
    }
}
