//! The proof: what was acknowledged against what arrived, by the model of deliveries. Reads what came and sees that each
//! record is as it was sent. Panics with the first thing that is wrong. Does no I/O.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use serde_json::Value;
use storage_tests::model::deliveries::{Deliveries, Heard};

use super::books::Lag;
use super::load::{Post, delivered};
use super::receiver::Arrival;

/// The impressions that arrived at one destination, each by its key.
pub(crate) struct Arrived(Deliveries<String>);

impl Arrived {
    /// Of a webhook, all of whose batches were taken in the end.
    pub(crate) fn at_webhook(arrivals: &[Arrival]) -> Self {
        let (mut deliveries, mut bodies) = (Deliveries::default(), HashMap::<&str, &Arc<[u8]>>::new());
        for arrival in arrivals {
            let records: Vec<Value> = serde_json::from_slice(&arrival.body).expect("a batch is an array");
            let keys: Vec<String> = records.iter().map(checked_key).collect();
            let heard = if arrival.taken() { Heard::Taken } else { Heard::Nothing };
            deliveries.comes(arrival.life, &arrival.id, &keys, &keys, &heard);
            let before = bodies.insert(&arrival.id, &arrival.body);
            assert!(before.is_none_or(|before| *before == arrival.body), "batch {} has other bytes", arrival.id);
        }
        let never = deliveries.never_taken();
        assert!(never.is_empty(), "sent and never taken: {never:?}");
        Self(deliveries)
    }

    /// Of a file destination: each record stands there once, under an id of its own, as it was sent.
    pub(crate) fn in_files(lines: Vec<Value>) -> Self {
        let mut deliveries = Deliveries::default();
        for mut line in lines {
            let object = line.as_object_mut().expect("a line is an object");
            let id = object.remove("id").and_then(|id| Some(id.as_str()?.to_owned())).expect("a line has an id");
            assert!(object.remove("receivedTime").is_some_and(|time| time.is_u64()));
            assert_eq!(object.remove("impressionsMode").unwrap_or_default(), "DEBUG");
            let key = [checked_key(&line)];
            deliveries.comes(0, &id, &key, &key, &Heard::Taken);
        }
        assert_eq!(deliveries.repeats_excused_by(&BTreeMap::new()), 0, "what stands there was taken");
        Self(deliveries)
    }

    pub(crate) fn len(&self) -> usize {
        self.0.ids().count()
    }

    /// Everything acknowledged is here, nothing that was never sent or was refused, and no body in part.
    pub(crate) fn holds(&self, posts: &[Post], destination: &str) {
        let posts: Vec<_> = posts.iter().map(|post| (&post.keys[..], post.fate)).collect();
        self.0.hold(destination, &posts);
    }

    /// Batches come again only when they failed, or when a kill took the news of their success with it. `deaths` holds of
    /// each life that ended by a kill how many records the queue had delivered durably, as far as was seen; a life that is
    /// not there ended in good order. Returns how many requests came again after a success.
    pub(crate) fn repeats_excused_by(&self, deaths: &BTreeMap<usize, u64>) -> usize {
        self.0.repeats_excused_by(deaths)
    }

    /// The same impressions are at both.
    pub(crate) fn equals(&self, other: &Self) {
        let (here, there) = (self.keys(), other.keys());
        let differs: Vec<_> = here.symmetric_difference(&there).take(5).collect();
        assert!(differs.is_empty(), "only one of two destinations has {differs:?}");
    }

    /// Each record has the id that it has at the other, too.
    pub(crate) fn has_the_ids_of(&self, other: &Self) {
        let ids: HashMap<_, _> = other.0.ids().collect();
        for (key, id) in self.0.ids() {
            assert_eq!(ids.get(key), Some(&id), "the id of {key}");
        }
    }

    /// Each record has the offset that it has at the other, too: where ids are of different kinds.
    pub(crate) fn has_the_offsets_of(&self, other: &Self) {
        let offset = |id: &str| id.rsplit('-').next().map(str::to_owned);
        let ids: HashMap<_, _> = other.0.ids().collect();
        for (key, id) in self.0.ids() {
            assert_eq!(ids.get(key).and_then(|id| offset(id)), offset(id), "the offset of {key}");
        }
    }

    /// No id of this one is one of the other's.
    pub(crate) fn shares_no_id_with(&self, other: &Self) {
        let others: HashSet<_> = other.0.ids().map(|(_, id)| id).collect();
        let shared = self.0.ids().find(|(_, id)| others.contains(id));
        assert!(shared.is_none(), "two sidecars share the id {shared:?}");
    }

    fn keys(&self) -> HashSet<&String> {
        self.0.ids().map(|(key, _)| key).collect()
    }
}

/// Of one that gets its records in order: what came first came behind all that lies before it in the log.
pub(crate) fn in_order(arrivals: &[Arrival], lines: &[Value]) {
    let place = |line: &Value| line["id"].as_str()?.rsplit('-').next()?.parse::<u64>().ok();
    let places: HashMap<_, _> = lines.iter().map(|line| (&line["key"], place(line).expect("a place"))).collect();
    let (mut seen, mut last) = (HashSet::new(), None);
    for arrival in arrivals {
        let records: Vec<Value> = serde_json::from_slice(&arrival.body).expect("a batch is an array");
        for place in records.iter().map(|record| places[&record["key"]]) {
            if seen.insert(place) {
                assert!(Some(place) > last, "{place} came behind {last:?}");
                last = Some(place);
            }
        }
    }
}

/// The key of a record, all of which is as it was sent.
fn checked_key(record: &Value) -> String {
    let key = record["key"].as_str().expect("a record has a key");
    assert_eq!(*record, delivered(key));
    key.to_owned()
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

/// The proof itself: it is worth nothing unless it fails. What the model sees is beside it (storage-tests/tests/deliveries.rs);
/// here is that it is told what came.
mod tests {
    use super::super::load::Fate;
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

    fn with(mut arrival: Arrival, before: &str, after: &str) -> Arrival {
        let body = String::from_utf8_lossy(&arrival.body).replace(before, after);
        assert_ne!(body.as_bytes(), &*arrival.body);
        arrival.body = body.into_bytes().into();
        arrival
    }

    #[test]
    fn what_is_whole_passes() {
        let arrivals = [batch("a", 0..3, 0, Answer::Drop), taken("a", 0..3), taken("b", 3..5)];
        let arrived = Arrived::at_webhook(&arrivals);
        let posts = [
            post(0..3, Fate::Acknowledged),
            post(3..5, Fate::Unknown),
            post(5..9, Fate::Unknown),
            post(9..10, Fate::Refused(503)),
        ];
        arrived.holds(&posts, "hook");
        assert_eq!((arrived.len(), arrived.repeats_excused_by(&BTreeMap::new())), (5, 0));
    }

    #[test]
    #[should_panic(expected = "hook lacks 1 acknowledged posts")]
    fn a_lost_record_is_seen() {
        Arrived::at_webhook(&[taken("a", 0..2)]).holds(&[post(0..3, Fate::Acknowledged)], "hook");
    }

    #[test]
    #[should_panic(expected = "refused with 503")]
    fn a_refused_record_is_seen() {
        Arrived::at_webhook(&[taken("a", 0..2)]).holds(&[post(0..2, Fate::Refused(503))], "hook");
    }

    #[test]
    #[should_panic(expected = "which came in {None, Some(\"a\")} before")]
    fn an_id_with_other_records_is_seen() {
        Arrived::at_webhook(&[taken("a", 0..2), taken("a", 0..3)]);
    }

    #[test]
    #[should_panic(expected = "has other bytes")]
    fn a_batch_of_other_bytes_is_seen() {
        Arrived::at_webhook(&[taken("a", 0..2), with(taken("a", 0..2), "},{", "}, {")]);
    }

    #[test]
    #[should_panic(expected = "never taken")]
    fn a_batch_that_was_given_up_is_seen() {
        Arrived::at_webhook(&[batch("a", 0..2, 0, Answer::Status(500))]);
    }

    #[test]
    #[should_panic(expected = "left == right")]
    fn a_changed_field_is_seen() {
        Arrived::at_webhook(&[with(taken("a", 0..1), "treatment of", "treatment for")]);
    }

    #[test]
    #[should_panic(expected = "left == right")]
    fn a_field_that_changed_when_it_came_again_is_seen() {
        Arrived::at_webhook(&[taken("a", 0..1), with(taken("a", 0..1), "treatment of", "treatment for")]);
    }

    #[test]
    fn repeats_are_excused_by_the_kill_of_the_life_that_knew() {
        let arrived = Arrived::at_webhook(&[taken("a", 0..4), batch("a", 0..4, 1, Answer::Ok)]);
        assert_eq!(arrived.repeats_excused_by(&BTreeMap::from([(0, 0)])), 1);
        for deaths in [BTreeMap::new(), BTreeMap::from([(0, 1)]), BTreeMap::from([(1, 0)])] {
            assert!(std::panic::catch_unwind(|| arrived.repeats_excused_by(&deaths)).is_err(), "{deaths:?}");
        }
    }

    #[test]
    #[should_panic(expected = "which knew")]
    fn a_line_that_stands_there_twice_is_seen() {
        let mut line = delivered("load-0-1");
        let more = [("id", Value::from("a")), ("receivedTime", 1.into()), ("impressionsMode", "DEBUG".into())];
        line.as_object_mut().expect("a line").extend(more.map(|(name, value)| (name.to_owned(), value)));
        assert_eq!(Arrived::in_files(vec![line.clone()]).len(), 1);
        Arrived::in_files(vec![line.clone(), line]);
    }

    #[test]
    #[should_panic(expected = "two sidecars share")]
    fn a_shared_id_is_seen() {
        Arrived::at_webhook(&[taken("a", 0..1)]).shares_no_id_with(&Arrived::at_webhook(&[taken("a", 1..2)]));
    }
}
