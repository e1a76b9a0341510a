//! The SDK keys by environment and place, to be put back into posts. Shows none.

use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::sync::{PoisonError, RwLock};

use crate::config::Secret;
use crate::post::Check;

/// The configured keys.
#[derive(Debug, Default)]
pub struct SdkKeys(RwLock<HashMap<String, Vec<Placed>>>);

/// A key, and the place under which posts that showed it are kept.
#[derive(Debug, Clone)]
struct Placed {
    place: u32,
    check: Check,
    key: Secret<String>,
}

impl SdkKeys {
    /// From now on these keys, by environment and with their places, and no others.
    pub fn replace<'a>(&self, environments: impl IntoIterator<Item = (&'a str, &'a [(u32, String)])>) {
        let placed = |(place, key): &(u32, String)| Placed {
            place: *place,
            check: Check::of(key.as_bytes()),
            key: Secret::new(key.clone()),
        };
        let keys = environments.into_iter().map(|(id, keys)| (id.to_owned(), keys.iter().map(placed).collect()));
        let keys = keys.collect();
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = keys;
    }

    /// The key that stood at `place` of an environment when a post came: where it stands now, if it still does.
    #[must_use]
    pub fn find(&self, environment: &str, place: u32, check: Check) -> Option<Secret<String>> {
        let all = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let keys = all.get(environment)?;
        let same = || keys.iter().filter(|known| known.check == check);
        same().find(|known| known.place == place).or_else(|| same().next()).map(|known| known.key.clone())
    }

    /// The places of an environment's keys.
    #[must_use]
    pub fn places(&self, environment: &str) -> Vec<u32> {
        let all = self.0.read().unwrap_or_else(PoisonError::into_inner);
        all.get(environment).map(|keys| keys.iter().map(|known| known.place).collect()).unwrap_or_default()
    }

    /// Tells whether an environment's keys have changed.
    pub fn hash_of(&self, environment: &str, state: &mut impl Hasher) {
        let all = self.0.read().unwrap_or_else(PoisonError::into_inner);
        for Placed { place, check, .. } in all.get(environment).into_iter().flatten() {
            (place, check).hash(state);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_found_where_it_stood_or_where_it_stands_now_and_no_other_is_taken_for_it() {
        let keyed = |list: &[(u32, &str)]| {
            let list: Vec<_> = list.iter().map(|(place, key)| (*place, (*key).to_owned())).collect();
            let keys = SdkKeys::default();
            keys.replace([("prod", &list[..])]);
            keys
        };
        let find = |list: &[(u32, &str)], place, key: &str| {
            keyed(list).find("prod", place, Check::of(key.as_bytes())).map(|key| key.reveal().clone())
        };
        assert_eq!(find(&[(0, "key-a"), (1, "key-b")], 1, "key-b").as_deref(), Some("key-b"));
        assert_eq!(find(&[(1, "key-b")], 1, "key-b").as_deref(), Some("key-b"), "the one before it is gone");
        assert_eq!(find(&[(0, "key-new"), (2, "key-a")], 0, "key-a").as_deref(), Some("key-a"), "moved");
        assert_eq!(find(&[(0, "key-new")], 0, "key-a"), None, "replaced");
        let keys = keyed(&[(0, "key-a"), (3, "key-b")]);
        assert!(keys.find("staging", 0, Check::of(b"key-a")).is_none());
        assert_eq!((keys.places("prod"), keys.places("staging")), (vec![0, 3], vec![]));
        assert!(!format!("{keys:?}").contains("key-a"));
    }
}
