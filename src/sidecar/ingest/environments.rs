//! From an SDK key to its environment. Holds the configured keys; shows, logs and stores none of them: outside this
//! file a key is its number.
//!
//! The lookup tells a stranger nothing by its time: keys are found by a hash that is keyed anew in every process, and
//! compared in a time that depends on their length only.

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use thiserror::Error;

use super::limits::ENVIRONMENTS_MAX;
use super::relay::Relay;

/// The environments and their keys, as they are until [others](Environments::changed) take their place.
pub struct Environments {
    all: Vec<Arc<Environment>>,
    /// Their places in the order of their ids.
    by_id: Box<[u32]>,
    by_key_hash: HashMap<u64, Vec<Configured>>,
    hasher: RandomState,
    /// Some environment had a relay once: whether it is worth asking.
    relayed: Arc<AtomicBool>,
}

/// One environment, as far as ingest needs it.
#[derive(Debug)]
pub struct Environment {
    id: Arc<str>,
    rejects: Arc<str>,
    keys: usize,
    routed: Arc<AtomicBool>,
    relay: Arc<RwLock<Option<Arc<Relay>>>>,
}

/// Whose key it was: two places.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyOwner {
    /// The environment, as a place in [`Environments::all`].
    pub environment: usize,
    /// The key, as its place among the environment's keys. This is what the log stores.
    pub key: u32,
}

/// An environment to take in: its id, and its keys with their places.
pub type Wanted<K> = (String, Vec<(u32, K)>);

struct Configured {
    secret: Box<[u8]>,
    owner: KeyOwner,
}

/// Why environments were refused.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum EnvironmentsError {
    /// Two environments claim one key.
    #[error("environments {first:?} and {second:?} have the same sdk key: a key belongs to one environment")]
    SharedKey {
        /// The environment that had it first.
        first: Arc<str>,
        /// The one that wants it too.
        second: Arc<str>,
    },
    /// A key without a character.
    #[error("environment {environment:?} has an empty sdk key: remove it or fill it in")]
    EmptyKey {
        /// Whose it is.
        environment: Arc<str>,
    },
    /// More than there is room for, those that are gone included.
    #[error("this process has had {limit} environments, and takes no more before it is started again")]
    TooMany {
        /// The limit.
        limit: usize,
    },
}

impl Environments {
    /// Takes each environment's id and its keys, whose places are those in the list.
    ///
    /// # Errors
    /// A key that is empty or belongs to two environments.
    pub fn new<K: AsRef<[u8]>>(
        environments: impl IntoIterator<Item = (String, Vec<K>)>,
    ) -> Result<Self, EnvironmentsError> {
        let placed = |keys: Vec<K>| (0..).zip(keys).collect();
        Self::none().changed(environments.into_iter().map(|(id, keys)| (id, placed(keys))))
    }

    /// No environments.
    #[must_use]
    pub fn none() -> Self {
        let (all, by_id, by_key_hash) = Default::default();
        Self { all, by_id, by_key_hash, hasher: RandomState::new(), relayed: Arc::default() }
    }

    /// What takes the place of these: the environments that are wanted. An environment's place stays its own for ever:
    /// one that is not wanted any more keeps it and has no keys, since what came for it may still be under way.
    ///
    /// # Errors
    /// A key that is empty or belongs to two environments; too many of them. Nothing has changed then.
    pub fn changed<K: AsRef<[u8]>>(
        &self,
        wanted: impl IntoIterator<Item = Wanted<K>>,
    ) -> Result<Self, EnvironmentsError> {
        let mut built = Self { all: self.all.clone(), relayed: Arc::clone(&self.relayed), ..Self::none() };
        let mut places: HashMap<Arc<str>, usize> =
            self.all.iter().enumerate().map(|(place, environment)| (Arc::clone(&environment.id), place)).collect();
        for (id, keys) in wanted {
            let keys_max = keys.iter().map(|(place, _)| *place as usize + 1).max().unwrap_or(0);
            let place = match places.get(id.as_str()) {
                Some(&place) => {
                    if built.all[place].keys < keys_max {
                        built.all[place] = Arc::new(built.all[place].with_keys(keys_max));
                    }
                    place
                }
                None if built.all.len() >= ENVIRONMENTS_MAX => {
                    return Err(EnvironmentsError::TooMany { limit: ENVIRONMENTS_MAX });
                }
                None => {
                    built.all.push(Arc::new(Environment::new(&id, keys_max)));
                    places.insert(id.as_str().into(), built.all.len() - 1);
                    built.all.len() - 1
                }
            };
            built.take_keys(place, &keys)?;
        }
        let mut by_id: Vec<u32> = (0..).take(built.all.len()).collect();
        by_id.sort_unstable_by_key(|&place| built.all[place as usize].id());
        built.by_id = by_id.into();
        Ok(built)
    }

    /// All of them, in the order in which they came. Those that are gone have no keys.
    #[must_use]
    pub fn all(&self) -> &[Arc<Environment>] {
        &self.all
    }

    /// The place of an environment.
    #[must_use]
    pub fn place_of(&self, id: &str) -> Option<usize> {
        let at = self.by_id.binary_search_by_key(&id, |&place| self.all[place as usize].id()).ok()?;
        Some(self.by_id[at] as usize)
    }

    /// Whose key this is, if anybody's.
    #[must_use]
    pub fn owner_of(&self, key: &[u8]) -> Option<KeyOwner> {
        let candidates = self.by_key_hash.get(&self.hasher.hash_one(key))?;
        candidates.iter().find(|configured| equal_in_constant_time(&configured.secret, key)).map(|found| found.owner)
    }

    /// Says where the posts of the environment at this place are kept as they come, from now on, whichever version of
    /// the environments a request has seen.
    pub fn set_relay(&self, environment: usize, relay: Option<Arc<Relay>>) {
        self.relayed.fetch_or(relay.is_some(), Ordering::Relaxed);
        *self.all[environment].relay.write().unwrap_or_else(PoisonError::into_inner) = relay;
    }

    /// Whether the posts of any environment may be kept as they come.
    #[must_use]
    pub fn relayed(&self) -> bool {
        self.relayed.load(Ordering::Relaxed)
    }

    fn take_keys<K: AsRef<[u8]>>(&mut self, environment: usize, keys: &[(u32, K)]) -> Result<(), EnvironmentsError> {
        let id = Arc::clone(&self.all[environment].id);
        for (place, key) in keys.iter().map(|(place, key)| (*place, key.as_ref())) {
            if key.is_empty() {
                return Err(EnvironmentsError::EmptyKey { environment: id });
            }
            match self.owner_of(key) {
                // The same key twice in one environment is clumsy and harmless: the first place counts.
                Some(owner) if owner.environment == environment => continue,
                Some(owner) => {
                    let first = Arc::clone(&self.all[owner.environment].id);
                    return Err(EnvironmentsError::SharedKey { first, second: id });
                }
                None => {}
            }
            let configured = Configured { secret: key.into(), owner: KeyOwner { environment, key: place } };
            self.by_key_hash.entry(self.hasher.hash_one(key)).or_default().push(configured);
        }
        Ok(())
    }
}

impl Environment {
    fn new(id: &str, keys: usize) -> Self {
        let (routed, relay) = (Arc::new(AtomicBool::new(true)), Arc::default());
        Self { id: id.into(), rejects: format!("!rejects/{id}").into(), keys, routed, relay }
    }

    fn with_keys(&self, keys: usize) -> Self {
        let (routed, relay) = (Arc::clone(&self.routed), Arc::clone(&self.relay));
        Self { id: Arc::clone(&self.id), rejects: Arc::clone(&self.rejects), keys, routed, relay }
    }

    /// Its id, which is also the name of its stream.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The stream of what it sent and cannot be an impression.
    #[must_use]
    pub fn rejects_stream(&self) -> &str {
        &self.rejects
    }

    /// How many places its keys have had.
    #[must_use]
    pub fn keys(&self) -> usize {
        self.keys
    }

    /// Whether any destination takes its records.
    #[must_use]
    pub fn routed(&self) -> bool {
        self.routed.load(Ordering::Relaxed)
    }

    /// Says whether any destination takes its records; so it is until somebody says otherwise.
    pub fn set_routed(&self, routed: bool) {
        self.routed.store(routed, Ordering::Relaxed);
    }

    /// Where its posts are kept as they came, if anywhere.
    #[must_use]
    pub fn relay(&self) -> Option<Arc<Relay>> {
        self.relay.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl fmt::Debug for Environments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Environments").field("all", &self.all).finish_non_exhaustive()
    }
}

fn equal_in_constant_time(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    // Every byte is looked at; `black_box` keeps the compiler from leaving at the first difference.
    let difference = a.iter().zip(b).fold(0, |difference, (a, b)| black_box(difference | (a ^ b)));
    difference == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two() -> Environments {
        Environments::new([
            ("prod".to_owned(), vec!["key-a", "key-b"]),
            ("staging".to_owned(), vec!["key-c"]),
            ("empty".to_owned(), vec![]),
        ])
        .unwrap()
    }

    #[test]
    fn a_key_leads_to_its_environment_and_its_place() {
        let environments = two();
        assert_eq!(environments.owner_of(b"key-a"), Some(KeyOwner { environment: 0, key: 0 }));
        assert_eq!(environments.owner_of(b"key-b"), Some(KeyOwner { environment: 0, key: 1 }));
        assert_eq!(environments.owner_of(b"key-c"), Some(KeyOwner { environment: 1, key: 0 }));
        assert_eq!(environments.all()[1].rejects_stream(), "!rejects/staging");
    }

    #[test]
    fn anything_else_leads_nowhere() {
        let environments = two();
        for key in ["", "key", "key-", "key-d", "key-aa", "KEY-A", "key-a "] {
            assert_eq!(environments.owner_of(key.as_bytes()), None, "{key:?}");
        }
    }

    #[test]
    fn a_key_of_two_environments_is_refused_by_their_names() {
        let shared = Environments::new([("a".to_owned(), vec!["same"]), ("b".to_owned(), vec!["same"])]);
        assert_eq!(shared.unwrap_err(), EnvironmentsError::SharedKey { first: "a".into(), second: "b".into() });
        let empty = Environments::new([("a".to_owned(), vec![""])]);
        assert_eq!(empty.unwrap_err(), EnvironmentsError::EmptyKey { environment: "a".into() });
        assert!(Environments::new([("a".to_owned(), vec!["twice", "twice"])]).is_ok());
    }

    #[test]
    fn places_stay_whatever_comes_and_goes() {
        let before = two();
        let keyed = |keys: &[(u32, &'static str)]| keys.to_vec();
        let after = before
            .changed([
                ("new".to_owned(), keyed(&[(0, "key-n")])),
                ("prod".to_owned(), keyed(&[(1, "key-b"), (2, "key-d")])),
            ])
            .unwrap();
        assert_eq!(after.owner_of(b"key-b"), Some(KeyOwner { environment: 0, key: 1 }));
        assert_eq!(after.owner_of(b"key-d"), Some(KeyOwner { environment: 0, key: 2 }));
        assert_eq!(after.owner_of(b"key-n"), Some(KeyOwner { environment: 3, key: 0 }));
        assert_eq!((after.owner_of(b"key-a"), after.owner_of(b"key-c")), (None, None), "taken out");
        let ids = [0, 1, 2, 3].map(|place: usize| after.all()[place].id());
        assert_eq!(ids, ["prod", "staging", "empty", "new"]);
        assert_eq!(ids.map(|id| after.place_of(id)), [Some(0), Some(1), Some(2), Some(3)]);
        assert_eq!(["", "a", "prod-1", "zeta"].map(|id| after.place_of(id)), [None; 4]);
        assert_eq!(Environments::none().place_of("prod"), None);
        before.all()[0].set_routed(false);
        assert!(!after.all()[0].routed(), "one flag, whichever version a request has seen");
        let again = after.changed([("staging".to_owned(), keyed(&[(0, "key-c")]))]).unwrap();
        assert_eq!(again.owner_of(b"key-c"), Some(KeyOwner { environment: 1, key: 0 }), "back where it was");
    }

    #[test]
    fn no_key_is_ever_shown() {
        assert!(!format!("{:?}", two()).contains("key-"), "{:?}", two());
    }
}
