//! Destinations that do not run as was decided: each with the reason, and tried again until it does.
//!
//! What always holds: what was decided and could not be done is listed here, from then until it is done or something else is
//! decided. Only who holds `operating` changes the list, so that a try comes before a reload, an operation or the end, or
//! behind it. One that ran before goes on with the settings that it had; one that did not sends nothing. Either way what is
//! in its queues is kept. Nothing of the list is on disk: file and journal say what is decided, and a start tries all of it.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tracing::{error, info};

use super::{Operations, posts_wanted};
use crate::app::registry::Put;
use crate::causes;
use crate::config::{self, Destination, Secret};
use crate::sinks::address_guard::AddressPolicy;

/// How long after the first failure it is tried again. Each further one doubles it.
const TRY_AFTER_MIN: Duration = Duration::from_secs(1);

/// The most: a disk that is well again is not kept waiting, and each try of an upstream may read its log.
const TRY_AFTER_MAX: Duration = Duration::from_secs(60);

/// The list.
#[derive(Default)]
pub(super) struct Unmet(Mutex<BTreeMap<String, One>>);

struct One {
    policy: AddressPolicy,
    /// `None` where its settings can't be read any more: only a change helps then.
    destination: Option<Box<Destination>>,
    why: String,
    failures: u32,
    next: Instant,
}

/// When something is begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum When {
    /// Before anything else runs.
    Start,
    /// While others do.
    Later,
}

/// A destination that does not run as was decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotAsDecided {
    /// Its id.
    pub id: String,
    /// Whose records it is to get, as far as that is known.
    pub environments: Vec<String>,
    /// What is in the way.
    pub why: String,
    /// It goes on as it was before.
    pub runs: bool,
}

impl Unmet {
    /// Says whether that is news.
    fn note(&self, id: &str, policy: AddressPolicy, destination: Option<Box<Destination>>, why: String) -> bool {
        let mut all = self.lock();
        let before = all.get(id);
        let failures = before.map_or(0, |before| before.failures).saturating_add(1);
        let is_news = before.is_none_or(|before| before.why != why);
        let next = Instant::now() + try_after(failures);
        all.insert(id.to_owned(), One { policy, destination, why, failures, next });
        is_news
    }

    /// It runs as was decided, or something else was decided. Says whether it was on the list.
    pub(super) fn forget(&self, id: &str) -> bool {
        self.lock().remove(id).is_some()
    }

    pub(super) fn contains(&self, id: &str) -> bool {
        self.lock().contains_key(id)
    }

    /// Who decided, and what, as far as that can be read.
    pub(super) fn wanted(&self, id: &str) -> Option<(AddressPolicy, Option<Box<Destination>>)> {
        self.lock().get(id).map(|one| (one.policy, one.destination.clone()))
    }

    /// All of them, by id.
    pub(super) fn ids(&self) -> Vec<String> {
        self.lock().keys().cloned().collect()
    }

    /// Those of the configuration file.
    pub(super) fn of_file(&self) -> Vec<String> {
        let all = self.lock();
        let of_file = all.iter().filter(|(_, one)| one.policy == AddressPolicy::Operator);
        of_file.map(|(id, _)| id.clone()).collect()
    }

    /// Whether one of them is to have what lies in the queues of an environment.
    pub(super) fn takes(&self, id: &str, environment: &str) -> bool {
        let all = self.lock();
        let environments = all.get(id).and_then(|one| one.destination.as_ref()).map(|wanted| &wanted.environments);
        environments.is_some_and(|environments| environments.iter().any(|of| of == environment))
    }

    /// Whether one of them takes from this environment.
    pub(super) fn subscribes(&self, environment: &str) -> bool {
        let all = self.lock();
        let mut environments = all.values().filter_map(|one| one.destination.as_ref()).flat_map(|of| &of.environments);
        environments.any(|of| of == environment)
    }

    /// The one that is to relay the posts of this environment, other than `but`.
    pub(super) fn upstream_of(&self, environment: &str, but: &str) -> Option<String> {
        let all = self.lock();
        let relays = |(id, one): &(&String, &One)| {
            let wanted = one.destination.as_deref().map(posts_wanted).unwrap_or_default();
            *id != but && wanted.iter().any(|of| of == environment)
        };
        all.iter().find(relays).map(|(id, _)| id.clone())
    }

    fn due(&self, now: Instant) -> Vec<String> {
        let all = self.lock();
        let due = all.iter().filter(|(_, one)| one.destination.is_some() && one.next <= now);
        due.map(|(id, _)| id.clone()).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, One>> {
        // Each change is one of the map.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Operations {
    /// Which destinations do not run as was decided.
    #[must_use]
    pub fn not_as_decided(&self) -> Vec<NotAsDecided> {
        let all = self.unmet.lock();
        let shown = |(id, one): (&String, &One)| NotAsDecided {
            id: id.clone(),
            environments: one.destination.as_ref().map(|wanted| wanted.environments.clone()).unwrap_or_default(),
            why: one.why.clone(),
            runs: self.registry.runs(id),
        };
        all.iter().map(shown).collect()
    }

    /// Has a destination run as was decided, or notes what is in the way. To be called by who holds `operating`.
    pub(super) async fn bring(&self, wanted: Box<Destination>, policy: AddressPolicy, when: When) -> Option<Put> {
        match self.try_to_bring(&wanted, policy, when).await {
            Ok(put) => {
                if self.unmet.forget(&wanted.id) {
                    info!(destination = wanted.id, "the destination runs as was decided now");
                }
                Some(put)
            }
            Err(why) => {
                self.does_not_run(wanted, policy, why);
                None
            }
        }
    }

    async fn try_to_bring(&self, wanted: &Destination, policy: AddressPolicy, when: When) -> Result<Put, String> {
        if let Some(why) = self.relayed_already(wanted).filter(|_| policy == AddressPolicy::Customer) {
            return Err(why); // the file's is the one that runs
        }
        let paused = self.paused(&wanted.id);
        let wanted = self.wanted(wanted.clone(), policy).await.map_err(|why| causes::line(&why))?;
        let put = match when {
            When::Start => self.registry.start(&wanted, paused).map(|()| Put::Started),
            When::Later => self.registry.put(wanted, paused).await,
        };
        put.map_err(|why| causes::line(&why))
    }

    /// A destination does not run as was decided, and is to be tried again.
    pub(super) fn does_not_run(&self, wanted: Box<Destination>, policy: AddressPolicy, why: String) {
        let id = wanted.id.clone();
        self.registry.miss_posts(&id, posts_wanted(&wanted));
        self.tell(&id, policy, Some(wanted), why);
    }

    /// The settings of a destination that was made through the API are valid no more.
    pub(super) fn is_unreadable(&self, id: &str, settings: &Secret<String>, why: String) {
        self.registry.miss_posts(id, &config::posts_wanted(settings.reveal()));
        self.tell(id, AddressPolicy::Customer, None, why);
    }

    fn tell(&self, id: &str, policy: AddressPolicy, wanted: Option<Box<Destination>>, why: String) {
        let (runs, readable) = (self.registry.runs(id), wanted.is_some());
        if !self.unmet.note(id, policy, wanted, why.clone()) {
            return;
        }
        match (runs, readable) {
            (true, _) => error!(destination = id, why, "the destination goes on with its old settings: tried again"),
            (false, true) => {
                error!(
                    destination = id,
                    why, "the destination does not run: its records are kept, and it is tried again"
                )
            }
            (false, false) => error!(
                destination = id,
                why,
                "this destination was made through the API and its settings are valid no more: its records are kept"
            ),
        }
    }

    /// Tries those again whose time has come.
    pub(super) async fn try_again(&self, now: Instant) {
        for id in self.unmet.due(now) {
            let _operating = self.operating.lock().await;
            // Something else may have been decided meanwhile.
            if let Some((policy, Some(wanted))) = self.unmet.wanted(&id) {
                self.bring(wanted, policy, When::Later).await;
            }
        }
    }
}

/// How long after so many failures in a row it is tried again.
pub(super) fn try_after(failures: u32) -> Duration {
    TRY_AFTER_MIN.saturating_mul(2_u32.saturating_pow(failures.saturating_sub(1))).min(TRY_AFTER_MAX)
}
