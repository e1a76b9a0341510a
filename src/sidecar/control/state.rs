//! The state that the records of `!control` come to. Pure.
//!
//! What always holds: the records of a [`State`] come to that state again, so that a snapshot stands for all that was
//! before it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use forebay::LogId;
use ring::digest::{Context, SHA256};

use crate::config::Secret;
use crate::proto::v1::control_record::Change;
use crate::proto::v1::{
    ControlDestination, ControlDrain, ControlDrainEnd, ControlEnvironment, ControlForget, ControlKeys, ControlPause,
    ControlRevision, ControlRevisionsGone,
};

/// So many of a destination's newest revisions stay, whatever plans say: a plan of one of these may be on its way.
pub const REVISIONS_KEPT: usize = 4;

/// Tells an SDK key from another without holding it.
pub type Fingerprint = [u8; 16];

/// The fingerprint of an environment's key in a log: another in every log.
#[must_use]
pub fn fingerprint(log: LogId, environment: &str, key: &str) -> Fingerprint {
    let mut digest = Context::new(&SHA256);
    digest.update(&log.0.to_le_bytes());
    // With its length: no environment's name can run into a key.
    digest.update(&(environment.len() as u64).to_le_bytes());
    digest.update(environment.as_bytes());
    digest.update(key.as_bytes());
    let digest = digest.finish();
    digest.as_ref().first_chunk().copied().expect("SHA-256 has 32 bytes")
}

/// The settings that decide what a batch is to a destination, each as JSON. A batch that was planned is finished under
/// those that it was planned in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Revision {
    /// What it gets.
    pub filter: String,
    /// How its objects are named and what is in them; empty where it writes none.
    pub objects: String,
}

/// What is decided at this moment.
#[derive(Debug, Clone, Default)]
pub struct State {
    /// The settings of destinations that were made through the API, by id, as they were given.
    pub destinations: BTreeMap<String, Secret<String>>,
    /// The same of environments.
    pub environments: BTreeMap<String, Secret<String>>,
    /// Destinations that are paused, wherever they were made.
    pub paused: BTreeSet<String>,
    /// By destination: what decides the content of its batches, under each revision of its settings.
    pub revisions: BTreeMap<String, BTreeMap<u32, Revision>>,
    /// By environment: the fingerprints of its keys by place.
    pub keys: BTreeMap<String, Vec<Fingerprint>>,
    /// By destination that goes when it has got what is there: where each of its streams ends for it.
    pub draining: BTreeMap<String, BTreeMap<String, u64>>,
}

impl State {
    /// Takes a change in. Those that say nothing, and snapshots, which are more than a change, change nothing.
    pub fn apply(&mut self, change: &Change) {
        match change {
            Change::Snapshot(_) => {}
            Change::Destination(ControlDestination { id, settings }) => {
                self.destinations.insert(id.clone(), Secret::new(settings.clone()));
                self.draining.remove(id);
            }
            Change::DestinationDeleted(ControlForget { id }) => {
                self.destinations.remove(id);
                self.paused.remove(id);
                self.draining.remove(id);
            }
            Change::Environment(ControlEnvironment { id, settings }) => {
                self.environments.insert(id.clone(), Secret::new(settings.clone()));
            }
            // Its keys keep their places, should it come back: records that name them may still be there.
            Change::EnvironmentDeleted(ControlForget { id }) => drop(self.environments.remove(id)),
            Change::Pause(ControlPause { destination, paused: true }) => drop(self.paused.insert(destination.clone())),
            Change::Pause(ControlPause { destination, paused: false }) => drop(self.paused.remove(destination)),
            Change::Revision(ControlRevision { destination, revision, filter, objects }) => {
                let settings = Revision { filter: filter.clone(), objects: objects.clone() };
                self.revisions.entry(destination.clone()).or_default().insert(*revision, settings);
            }
            Change::RevisionsGone(ControlRevisionsGone { destination, revisions }) if revisions.is_empty() => {
                drop(self.revisions.remove(destination));
            }
            Change::RevisionsGone(ControlRevisionsGone { destination, revisions }) => {
                if let Some(known) = self.revisions.get_mut(destination) {
                    let newest = known.last_key_value().map(|(revision, _)| *revision);
                    known.retain(|revision, _| Some(*revision) == newest || !revisions.contains(revision));
                }
            }
            Change::Keys(ControlKeys { environment, fingerprints }) => {
                let read = |bytes: &Vec<u8>| bytes.first_chunk().copied().unwrap_or_default();
                self.keys.insert(environment.clone(), fingerprints.iter().map(read).collect());
            }
            Change::Drain(ControlDrain { destination, ends }) if ends.is_empty() => {
                drop(self.draining.remove(destination));
            }
            Change::Drain(ControlDrain { destination, ends }) => {
                let ends = ends.iter().map(|end| (end.stream.clone(), end.offset)).collect();
                self.draining.insert(destination.clone(), ends);
            }
        }
    }

    /// Takes in what a snapshot says once more: where that is known already, nothing changes.
    pub fn restate(&mut self, change: &Change) {
        let draining = match change {
            // Said of a destination that is new it would end what was decided about the one before.
            Change::Destination(ControlDestination { id, .. }) => self.draining.remove_entry(id),
            _ => None,
        };
        self.apply(change);
        self.draining.extend(draining);
    }

    /// The changes that come to this state.
    #[must_use]
    pub fn changes(&self) -> Vec<Change> {
        let text = |(id, settings): (&String, &Secret<String>)| (id.clone(), settings.reveal().clone());
        let environment = |(id, settings)| Change::Environment(ControlEnvironment { id, settings });
        let destination = |(id, settings)| Change::Destination(ControlDestination { id, settings });
        let mut changes: Vec<Change> = self.environments.iter().map(text).map(environment).collect();
        changes.extend(self.destinations.iter().map(text).map(destination));
        changes
            .extend(self.paused.iter().map(|id| Change::Pause(ControlPause { destination: id.clone(), paused: true })));
        for (destination, revisions) in &self.revisions {
            changes.extend(revisions.iter().map(|(revision, settings)| {
                let (destination, Revision { filter, objects }) = (destination.clone(), settings.clone());
                Change::Revision(ControlRevision { destination, revision: *revision, filter, objects })
            }));
        }
        changes.extend(self.keys.iter().map(|(environment, keys)| {
            let fingerprints = keys.iter().map(|key| key.to_vec()).collect();
            Change::Keys(ControlKeys { environment: environment.clone(), fingerprints })
        }));
        changes.extend(self.draining.iter().map(|(destination, ends)| {
            let end = |(stream, offset): (&String, &u64)| ControlDrainEnd { stream: stream.clone(), offset: *offset };
            Change::Drain(ControlDrain { destination: destination.clone(), ends: ends.iter().map(end).collect() })
        }));
        changes
    }

    /// The revision of a destination's settings that has these, and whether that is a new one. `is_plain`: everything is
    /// sent, as it is.
    #[must_use]
    pub fn revision_of(&self, destination: &str, settings: &Revision, is_plain: bool) -> (u32, bool) {
        match self.revisions.get(destination).and_then(|revisions| revisions.last_key_value()) {
            Some((revision, last)) if last == settings => (*revision, false),
            Some((revision, _)) => (revision.saturating_add(1), true),
            // What was never otherwise needs no words.
            None if is_plain => (0, false),
            None => (1, true),
        }
    }

    /// Whether a destination has more than so many revisions.
    #[must_use]
    pub fn has_revisions_beyond(&self, count: usize) -> bool {
        self.revisions.values().any(|revisions| revisions.len() > count)
    }

    /// What says that revisions are gone which no batch is of any more: none of `planned`, and not among the newest
    /// [`REVISIONS_KEPT`].
    #[must_use]
    pub fn revisions_gone(&self, planned: &BTreeMap<Arc<str>, BTreeSet<u32>>) -> Vec<Change> {
        let gone = |(id, known): (&String, &BTreeMap<u32, Revision>)| {
            let planned = planned.get(id.as_str());
            let is_planned = |revision: &u32| planned.is_some_and(|planned| planned.contains(revision));
            let older = known.keys().rev().skip(REVISIONS_KEPT);
            let mut revisions: Vec<u32> = older.copied().filter(|revision| !is_planned(revision)).collect();
            revisions.reverse();
            let destination = id.clone();
            (!revisions.is_empty()).then_some(Change::RevisionsGone(ControlRevisionsGone { destination, revisions }))
        };
        self.revisions.iter().filter_map(gone).collect()
    }
}

/// The places of keys: those that are known keep theirs, others come behind. And all keys by place.
#[must_use]
pub fn place_keys(mut known: Vec<Fingerprint>, keys: &[Fingerprint]) -> (Vec<u32>, Vec<Fingerprint>) {
    let place = |key: &Fingerprint| {
        let place = known.iter().position(|other| other == key).unwrap_or_else(|| {
            known.push(*key);
            known.len() - 1
        });
        u32::try_from(place).expect("keys are limited")
    };
    (keys.iter().map(place).collect(), known)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_change() -> impl Strategy<Value = Change> {
        let id = || "[ab]";
        let text = || "[xy]{0,2}";
        prop_oneof![
            (id(), text()).prop_map(|(id, settings)| Change::Destination(ControlDestination { id, settings })),
            id().prop_map(|id| Change::DestinationDeleted(ControlForget { id })),
            (id(), text()).prop_map(|(id, settings)| Change::Environment(ControlEnvironment { id, settings })),
            id().prop_map(|id| Change::EnvironmentDeleted(ControlForget { id })),
            (id(), any::<bool>()).prop_map(|(destination, paused)| Change::Pause(ControlPause { destination, paused })),
            (id(), 0..3u32, text(), text()).prop_map(|(destination, revision, filter, objects)| {
                Change::Revision(ControlRevision { destination, revision, filter, objects })
            }),
            (id(), prop::collection::vec(0..4u32, 0..3)).prop_map(|(destination, revisions)| {
                Change::RevisionsGone(ControlRevisionsGone { destination, revisions })
            }),
            (id(), prop::collection::vec(any::<[u8; 16]>(), 0..3)).prop_map(|(environment, prints)| {
                let fingerprints = prints.iter().map(|print| print.to_vec()).collect();
                Change::Keys(ControlKeys { environment, fingerprints })
            }),
            (id(), prop::collection::vec(("[st]", 0..9u64), 0..3)).prop_map(|(destination, ends)| {
                let end = |(stream, offset)| ControlDrainEnd { stream, offset };
                Change::Drain(ControlDrain { destination, ends: ends.into_iter().map(end).collect() })
            }),
        ]
    }

    proptest! {
        #[test]
        fn the_changes_of_a_state_come_to_that_state(changes in prop::collection::vec(any_change(), 0..40)) {
            let mut state = State::default();
            changes.iter().for_each(|change| state.apply(change));
            let snapshot = state.changes();
            let mut again = State::default();
            snapshot.iter().for_each(|change| again.apply(change));
            prop_assert_eq!(again.changes(), snapshot);
        }

        #[test]
        fn a_key_keeps_its_place_whatever_comes_and_goes(lists in prop::collection::vec(
            prop::collection::btree_set("[a-f]", 0..4), 1..8,
        )) {
            let mut known = Vec::new();
            let mut first: BTreeMap<String, u32> = BTreeMap::new();
            for list in lists {
                let prints: Vec<_> = list.iter().map(|key| fingerprint(LogId(7), "prod", key)).collect();
                let (places, now) = place_keys(known, &prints);
                known = now;
                for (key, place) in list.iter().zip(places) {
                    prop_assert_eq!(*first.entry(key.clone()).or_insert(place), place);
                }
            }
            let places: BTreeSet<u32> = first.values().copied().collect();
            prop_assert_eq!(places.len(), first.len(), "one place each");
        }
    }

    #[test]
    fn a_revision_is_counted_when_what_decides_its_batches_changes_and_only_then() {
        let mut state = State::default();
        let of = |filter: &str, objects: &str| Revision { filter: filter.to_owned(), objects: objects.to_owned() };
        assert_eq!(state.revision_of("hook", &of("{}", ""), true), (0, false), "never filtered");
        assert_eq!(state.revision_of("hook", &of("a", ""), false), (1, true));
        let Revision { filter, objects } = of("a", "");
        let destination = "hook".to_owned();
        state.apply(&Change::Revision(ControlRevision { destination, revision: 1, filter, objects }));
        assert_eq!(state.revision_of("hook", &of("a", ""), false), (1, false));
        assert_eq!(state.revision_of("hook", &of("a", "other names"), false), (2, true));
        assert_eq!(state.revision_of("hook", &of("{}", ""), true), (2, true), "no filter any more is a change, too");
    }

    #[test]
    fn revisions_go_that_no_plan_names_and_never_the_newest() {
        let mut state = State::default();
        let revision = |revision: u32| {
            let (destination, filter, objects) = ("hook".to_owned(), revision.to_string(), String::new());
            Change::Revision(ControlRevision { destination, revision, filter, objects })
        };
        (1..=10).for_each(|n| state.apply(&revision(n)));
        assert!(state.has_revisions_beyond(9) && !state.has_revisions_beyond(10));
        let planned =
            BTreeMap::from([("hook".into(), BTreeSet::from([0, 2, 9])), ("other".into(), BTreeSet::from([1]))]);
        let gone = state.revisions_gone(&planned);
        gone.iter().for_each(|change| state.apply(change));
        assert_eq!(state.revisions["hook"].keys().copied().collect::<Vec<_>>(), [2, 7, 8, 9, 10]);
        assert_eq!(state.revisions_gone(&planned), [], "once");
        // Whatever somebody wrote down: the next one must get a number that none had.
        let (destination, revisions) = ("hook".to_owned(), (0..20).collect());
        state.apply(&Change::RevisionsGone(ControlRevisionsGone { destination, revisions }));
        let other = Revision { filter: "other".to_owned(), objects: String::new() };
        assert_eq!(state.revision_of("hook", &other, false), (11, true));
    }

    #[test]
    fn a_fingerprint_shows_nothing_and_is_another_for_each_log_and_environment() {
        let prints = [(1, "a", "bc"), (1, "ab", "c"), (2, "a", "bc")]
            .map(|(log, environment, key)| fingerprint(LogId(log), environment, key));
        assert_eq!(prints.iter().collect::<BTreeSet<_>>().len(), 3);
        let shown = format!(
            "{:?}",
            State {
                environments: BTreeMap::from([("prod".to_owned(), Secret::new("canary".to_owned()))]),
                ..State::default()
            }
        );
        assert!(!shown.contains("canary"), "{shown}");
    }
}
