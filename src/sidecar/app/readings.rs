//! What ingest and delivery count, as the API shows it.
//!
//! The API knows neither of the two, and they do not know it: this is where their words are put into its own. Pure.

use std::collections::BTreeMap;
use std::num::{NonZeroU32, NonZeroU64};
use std::sync::Arc;

use crate::api::readings::{
    DeliveryReading, DeliveryState, EnvironmentReading, HeldReading, IngestReading, OverflowReading, QueueReading,
    RateReading, RelayReading, WaitsFor,
};
use crate::app::operations::NotAsDecided;
use crate::delivery::rate::By;
use crate::delivery::stats::{ANSWERS, CLASSES, Held, Snapshot as DeliverySnapshot, State, Waits};
use crate::ingest::{Refusal, RelaySnapshot, Snapshot as IngestSnapshot};
use crate::overflow::Ahead;

/// One destination.
#[must_use]
pub fn delivery(destination: Arc<str>, snapshot: DeliverySnapshot) -> DeliveryReading {
    let next = |until_ms| Some(until_ms).filter(|until_ms| *until_ms > 0);
    let (state, next_attempt_unix_ms) = match snapshot.state {
        State::Idle => (DeliveryState::Idle, None),
        State::Sending => (DeliveryState::Delivering, None),
        State::Backoff { until_ms } if snapshot.asked_to_wait => (DeliveryState::Throttled, next(until_ms)),
        State::Backoff { until_ms } => (DeliveryState::Retrying, next(until_ms)),
        State::Stopped => (DeliveryState::Stopping, None),
        State::Paused => (DeliveryState::Paused, None),
        State::Refused { until_ms } => (DeliveryState::Refused, next(until_ms)),
    };
    let mut requests = vec![("delivered", snapshot.delivered_batches)];
    requests.extend(CLASSES.into_iter().zip(snapshot.failures));
    DeliveryReading {
        destination,
        state,
        next_attempt_unix_ms,
        last_error: snapshot.last_error,
        last_error_unix_ms: snapshot.last_error_ms,
        last_success_unix_ms: snapshot.last_success_ms,
        failures_in_a_row: snapshot.failures_in_a_row,
        requests,
        requests_in_flight: snapshot.in_flight,
        sent_bytes: snapshot.sent_bytes,
        verdicts: ANSWERS.into_iter().zip(snapshot.answers).collect(),
        undecided_records: snapshot.undecided_records,
        rate: RateReading {
            allowed_requests: snapshot.allowed.requests.map(NonZeroU32::get),
            allowed_records: snapshot.allowed.records.map(NonZeroU32::get),
            allowed_bytes: snapshot.allowed.bytes.map(NonZeroU64::get),
            learned_requests: snapshot.learned.map(|learned| learned.now.requests),
            learned_records: snapshot.learned.map(|learned| learned.now.records).filter(|records| records.is_finite()),
        },
        waits_for: match snapshot.waits {
            Waits::Nothing => WaitsFor::Nothing,
            Waits::Answers => WaitsFor::Answers,
            Waits::Share => WaitsFor::Share,
            Waits::Rate(By::Operator) => WaitsFor::AllowedRate,
            Waits::Rate(By::Learned) => WaitsFor::LearnedRate,
            Waits::Rate(By::Told) => WaitsFor::Reset,
        },
        held: snapshot.held.into_iter().map(held).collect(),
        not_as_decided: None,
    }
}

/// Adds what is known of destinations that do not run as was decided: those that do not run at all are not among the others.
#[must_use]
pub fn as_decided(mut deliveries: Vec<DeliveryReading>, not_as_decided: Vec<NotAsDecided>) -> Vec<DeliveryReading> {
    if not_as_decided.is_empty() {
        return deliveries;
    }
    let mut why: BTreeMap<String, NotAsDecided> = not_as_decided.into_iter().map(|one| (one.id.clone(), one)).collect();
    for delivery in &mut deliveries {
        delivery.not_as_decided = why.remove(&*delivery.destination).map(|one| one.why);
    }
    deliveries.extend(why.into_values().filter(|one| !one.runs).map(|one| DeliveryReading {
        destination: one.id.into(),
        state: DeliveryState::NotStarted,
        not_as_decided: Some(one.why),
        ..DeliveryReading::default()
    }));
    deliveries
}

/// Queues that are not there yet, of destinations that do not run: so that these are seen.
#[must_use]
pub fn queues_missing(not_as_decided: Vec<NotAsDecided>, is_there: impl Fn(&str, &str) -> bool) -> Vec<QueueReading> {
    let mut missing = Vec::new();
    for NotAsDecided { id, environments, .. } in not_as_decided.into_iter().filter(|one| !one.runs) {
        for environment in environments.into_iter().filter(|environment| !is_there(&id, environment)) {
            let (destination, stream) = (id.as_str().into(), environment.into());
            missing.push(QueueReading { destination, stream, ..QueueReading::default() });
        }
    }
    missing
}

fn held(Held { stream, why, since_ms, until_ms, refused }: Held) -> HeldReading {
    HeldReading { stream, why, since_unix_ms: since_ms, until_unix_ms: until_ms, refused }
}

/// What is coming for what waits too long.
#[must_use]
pub fn overflow(Ahead { too_old_at_ms, bytes_left }: Ahead) -> OverflowReading {
    OverflowReading { too_old_at_unix_ms: too_old_at_ms, bytes_left }
}

/// The way in. The bodies' memory and its limit are known to whoever made it.
#[must_use]
pub fn ingest(
    snapshot: IngestSnapshot,
    relays: Vec<RelaySnapshot>,
    body_bytes_held: u64,
    body_bytes_held_max: u64,
) -> IngestReading {
    let named =
        |environment: Option<&str>, (why, count): (Refusal, u64)| (environment.map(str::to_owned), why.label(), count);
    let mut refused: Vec<_> = snapshot.strangers.into_iter().map(|refusal| named(None, refusal)).collect();
    let mut environments = Vec::with_capacity(snapshot.environments.len());
    for environment in snapshot.environments {
        refused.extend(environment.refusals.iter().map(|refusal| named(Some(&environment.id), *refusal)));
        environments.push(EnvironmentReading {
            environment: environment.id.to_string(),
            accepted_requests: environment.requests,
            accepted_records: environment.accepted,
            unrouted_records: environment.unrouted,
            rejected_records: environment.rejected,
            body_bytes: environment.body_bytes,
            unreadable_by_key: environment.unreadable_by_key,
        });
    }
    let relays = relays.into_iter().map(|relay| RelayReading {
        destination: relay.destination,
        posts: [("kept", relay.kept), ("missed", relay.missed), ("refused", relay.refused)],
        kept_bytes: relay.kept_bytes,
        used_bytes: relay.used_bytes,
        limit_bytes: relay.limit_bytes,
    });
    IngestReading {
        environments,
        relays: relays.collect(),
        refused,
        ignored_requests: snapshot.ignored,
        connections_open: snapshot.connections_open,
        body_bytes_held,
        body_bytes_held_max,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::rate::learned::Speed;
    use crate::delivery::stats::Learned;

    #[test]
    fn a_destination_that_waits_says_until_when_and_counts_by_what_came_of_it() {
        let stats = crate::delivery::stats::DeliveryStats::default();
        let mut snapshot = stats.snapshot();
        snapshot.state = State::Backoff { until_ms: 77 };
        snapshot.delivered_batches = 4;
        snapshot.failures[2] = 3;
        let reading = delivery("hook".into(), snapshot.clone());
        assert_eq!((reading.state, reading.next_attempt_unix_ms), (DeliveryState::Retrying, Some(77)));
        snapshot.asked_to_wait = true;
        assert_eq!(delivery("hook".into(), snapshot.clone()).state, DeliveryState::Throttled);
        snapshot.state = State::Backoff { until_ms: 0 };
        let trying = delivery("hook".into(), snapshot);
        assert_eq!((trying.state, trying.next_attempt_unix_ms), (DeliveryState::Throttled, None));
        assert!(reading.requests.contains(&("delivered", 4)) && reading.requests.contains(&(CLASSES[2], 3)));
    }

    #[test]
    fn what_limits_a_destination_is_shown_by_who_says_so() {
        let mut snapshot = crate::delivery::stats::DeliveryStats::default().snapshot();
        assert_eq!(delivery("hook".into(), snapshot.clone()).rate, RateReading::default());
        snapshot.allowed.records = NonZeroU32::new(500);
        let now = Speed { requests: 2.5, records: 250.0 };
        snapshot.learned = Some(Learned { now, known: None });
        snapshot.waits = Waits::Rate(By::Learned);
        let reading = delivery("hook".into(), snapshot);
        assert_eq!((reading.rate.allowed_requests, reading.rate.allowed_records), (None, Some(500)));
        assert_eq!((reading.rate.learned_requests, reading.rate.learned_records), (Some(2.5), Some(250.0)));
        assert_eq!(reading.waits_for, WaitsFor::LearnedRate);
    }

    #[test]
    fn what_does_not_run_as_was_decided_is_seen_whether_it_runs_or_not_and_has_a_queue_or_none() {
        let one = |id: &str, runs| NotAsDecided {
            id: id.to_owned(),
            environments: vec!["a".to_owned(), "b".to_owned()],
            why: format!("why {id}"),
            runs,
        };
        let of = |id: &str| DeliveryReading { destination: id.into(), ..DeliveryReading::default() };
        let unmet = || vec![one("old", true), one("new", false)];
        let seen = as_decided(vec![of("old"), of("well")], unmet());
        let seen: Vec<_> =
            seen.iter().map(|one| (&*one.destination, one.state, one.not_as_decided.as_deref())).collect();
        let expected = [
            ("old", DeliveryState::Idle, Some("why old")),
            ("well", DeliveryState::Idle, None),
            ("new", DeliveryState::NotStarted, Some("why new")),
        ];
        assert_eq!(seen, expected);
        let missing = queues_missing(unmet(), |id, environment| (id, environment) == ("new", "a"));
        let missing: Vec<_> = missing.iter().map(|queue| (&*queue.destination, &*queue.stream)).collect();
        assert_eq!(missing, [("new", "b")]);
    }

    #[test]
    fn refusals_keep_their_environment_and_those_of_strangers_have_none() {
        let environment = crate::ingest::EnvironmentSnapshot {
            id: "prod".into(),
            requests: 1,
            body_bytes: 2,
            accepted: 3,
            rejected: 4,
            unrouted: 5,
            refusals: vec![(Refusal::Busy, 6)],
            unreadable_by_key: vec![7],
        };
        let snapshot = IngestSnapshot {
            environments: vec![environment],
            strangers: vec![(Refusal::UnknownKey, 8)],
            ignored: 9,
            connections: 10,
            connections_open: 11,
        };
        let relay = RelaySnapshot {
            destination: "split".into(),
            kept: 14,
            kept_bytes: 15,
            missed: 16,
            refused: 17,
            used_bytes: 18,
            limit_bytes: 19,
        };
        let reading = ingest(snapshot, vec![relay], 12, 13);
        assert_eq!(reading.relays[0].posts, [("kept", 14), ("missed", 16), ("refused", 17)]);
        assert_eq!((reading.relays[0].used_bytes, reading.relays[0].limit_bytes), (18, 19));
        assert_eq!(reading.refused, [(None, "unknown_key", 8), (Some("prod".to_owned()), "busy", 6)]);
        let prod = &reading.environments[0];
        assert_eq!((prod.accepted_requests, prod.body_bytes, prod.accepted_records), (1, 2, 3));
        assert_eq!((prod.rejected_records, prod.unrouted_records, &prod.unreadable_by_key), (4, 5, &vec![7]));
        assert_eq!((reading.ignored_requests, reading.connections_open), (9, 11));
        assert_eq!((reading.body_bytes_held, reading.body_bytes_held_max), (12, 13));
    }
}
