//! What is remembered of destinations that run: a few dozen bytes each, since there may be thousands, all idle.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::delivery::sink::Environment as Label;
use crate::sinks::address_guard::AddressPolicy;

/// What runs, and the names that it runs with.
#[derive(Default)]
pub(super) struct Table {
    /// By the environment's id: what its records are sent with.
    pub(super) labels: BTreeMap<Arc<str>, Arc<Label>>,
    pub(super) destinations: BTreeMap<Arc<str>, Running>,
    /// How many destinations take from an environment, by its place.
    pub(super) subscribers: Vec<u32>,
}

/// What is remembered of a destination that runs.
pub(super) struct Running {
    pub(super) fingerprint: u64,
    pub(super) environments: Places,
    pub(super) type_name: &'static str,
    pub(super) policy: AddressPolicy,
    /// It takes posts from a log of its own, and no records.
    pub(super) is_upstream: bool,
}

/// Environments by their places in the way in. Nearly always one.
pub(super) enum Places {
    One(u32),
    Some(Box<[u32]>),
}

impl Places {
    pub(super) fn of(places: impl Iterator<Item = usize>) -> Self {
        let places: Box<[u32]> = places.map(|place| u32::try_from(place).expect("environments are limited")).collect();
        match *places {
            [one] => Self::One(one),
            _ => Self::Some(places),
        }
    }

    pub(super) fn all(&self) -> &[u32] {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::Some(places) => places,
        }
    }
}

const _: () = assert!(size_of::<Running>() <= 48);
