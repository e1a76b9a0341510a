//! The SDK keys by environment and place, to be put back into posts. Shows none.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};

use crate::config::{Environment, Secret};
use crate::post::Check;

/// The configured keys.
#[derive(Debug, Default)]
pub struct SdkKeys(RwLock<ByEnvironment>);

type ByEnvironment = HashMap<String, Vec<(Check, Secret<String>)>>;

impl SdkKeys {
    /// The keys of these environments.
    #[must_use]
    pub fn of<'a>(environments: impl IntoIterator<Item = &'a Environment>) -> Self {
        let keys = Self::default();
        keys.replace(environments);
        keys
    }

    /// From now on the keys of these environments, and no others.
    pub fn replace<'a>(&self, environments: impl IntoIterator<Item = &'a Environment>) {
        let keys = |environment: &Environment| {
            let checked = |key: &Secret<String>| (Check::of(key.reveal().as_bytes()), key.clone());
            (environment.id.clone(), environment.sdk_keys.iter().map(checked).collect())
        };
        let keys = environments.into_iter().map(keys).collect();
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = keys;
    }

    /// The key that stood at `place` of an environment when a post came: where it stands now, if it still does.
    #[must_use]
    pub fn find(&self, environment: &str, place: u32, check: Check) -> Option<Secret<String>> {
        let all = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let keys = all.get(environment)?;
        let at_its_place = keys.get(place as usize).filter(|(known, _)| *known == check);
        at_its_place.or_else(|| keys.iter().find(|(known, _)| *known == check)).map(|(_, key)| key.clone())
    }

    /// How many keys an environment has.
    #[must_use]
    pub fn count(&self, environment: &str) -> u32 {
        let all = self.0.read().unwrap_or_else(PoisonError::into_inner);
        all.get(environment).map_or(0, |keys| u32::try_from(keys.len()).unwrap_or(u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_found_where_it_stood_or_where_it_stands_now_and_no_other_is_taken_for_it() {
        let environment = |keys: &[&str]| Environment {
            id: "prod".to_owned(),
            name: "prod".to_owned(),
            sdk_keys: keys.iter().map(|key| Secret::new((*key).to_owned())).collect(),
        };
        let find = |keys: &[&str], place, key: &str| {
            let keys = SdkKeys::of([&environment(keys)]);
            keys.find("prod", place, Check::of(key.as_bytes())).map(|key| key.reveal().clone())
        };
        assert_eq!(find(&["key-a", "key-b"], 1, "key-b").as_deref(), Some("key-b"));
        assert_eq!(find(&["key-b"], 1, "key-b").as_deref(), Some("key-b"), "the one before it is gone");
        assert_eq!(find(&["key-new", "key-b", "key-a"], 0, "key-a").as_deref(), Some("key-a"), "moved");
        assert_eq!(find(&["key-new"], 0, "key-a"), None, "replaced");
        let keys = SdkKeys::of([&environment(&["key-a"])]);
        assert!(keys.find("staging", 0, Check::of(b"key-a")).is_none());
        assert_eq!((keys.count("prod"), keys.count("staging")), (1, 0));
        assert!(!format!("{keys:?}").contains("key-a"));
    }
}
