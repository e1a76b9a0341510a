//! The configuration file, read again: at SIGHUP, and when it has changed.
//!
//! What always holds: a file with a mistake changes nothing and is told; what is equal goes on untouched; a destination
//! that is taken out is stopped and kept with all its records, until it is put back or deleted.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::signal::unix::Signal;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tracing::{error, info, warn};

use super::unmet::{When, try_after};
use super::version::{Version, look};
use super::{OperationError, Operations, mistakes};
use crate::api::readings::ReloadReading;
use crate::app::registry::{EnvironmentsChange, Put};
use crate::causes;
use crate::config::{self, Config, DeliveryConfig, Environment, Secret, SinkConfig};
use crate::shutdown::Shutdown;
use crate::sinks::address_guard::AddressPolicy;

/// How often it is looked whether the file has changed. It is read when it has stayed as it is for as long: whoever writes
/// it is done then.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// What came of the file's changes since the process began.
#[derive(Debug, Default)]
pub(super) struct Counts {
    done: AtomicU64,
    failed: AtomicU64,
    last_failed: AtomicBool,
}

/// What a reload did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Reloaded {
    /// Destinations that are new.
    pub started: usize,
    /// Those with other settings.
    pub replaced: usize,
    /// Those that went on as they were.
    pub untouched: usize,
    /// Those that are not in the file any more.
    pub taken_out: usize,
    /// Those that could not be brought to run as was decided, and are tried again.
    pub failed: usize,
}

/// The file was not taken, and nothing has changed.
#[derive(Debug, thiserror::Error)]
#[error("{why}")]
pub struct ReloadFailed {
    why: String,
    /// It is no mistake in the file, and it is worth reading it again as it is.
    passes: bool,
}

impl ReloadFailed {
    fn mistake(why: String) -> Self {
        Self { why, passes: false }
    }
}

impl From<OperationError> for ReloadFailed {
    fn from(why: OperationError) -> Self {
        let passes = !matches!(why, OperationError::Environments(EnvironmentsChange::Keys(_)));
        Self { why: causes::line(&why), passes }
    }
}

/// Reads the file again whenever a signal says so or it has changed since it was read, until the sidecar stops. Ends at once
/// where the configuration comes from none.
pub async fn watch(operations: Arc<Operations>, mut hangups: Signal, shutdown: Shutdown) {
    let Some(path) = operations.file().of.as_ref().map(|of| of.path.clone()) else { return };
    let mut ticks = interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut seen = operations.version_read();
    // What failed and may pass is left unread, and is read again, less and less often.
    let (mut failures, mut not_before) = (0_u32, Instant::now());
    loop {
        tokio::select! {
            Some(()) = hangups.recv() => operations.reload_file(&path).await,
            _ = ticks.tick() => {
                let now = look(&path).await;
                if now != seen {
                    failures = 0;
                } else if now != operations.version_read() && now.is_some() && (failures == 0 || Instant::now() >= not_before) {
                    operations.reload_file(&path).await;
                    failures = failures.saturating_add(1);
                    not_before = Instant::now() + try_after(failures);
                }
                seen = now;
            }
            () = shutdown.requested() => return,
        }
    }
}

impl Operations {
    /// How the file's changes went.
    #[must_use]
    pub fn reloads(&self) -> ReloadReading {
        ReloadReading {
            done: self.reloads.done.load(Ordering::Relaxed),
            failed: self.reloads.failed.load(Ordering::Relaxed),
            last_failed: self.was_not_taken() || !self.unmet.of_file().is_empty(),
        }
    }

    /// Whether the file was not taken when it was read last.
    pub(super) fn was_not_taken(&self) -> bool {
        self.reloads.last_failed.load(Ordering::Relaxed)
    }

    /// Reads the file and does what it says. Tells how it went, in the log and in the counts.
    pub async fn reload_file(&self, path: &Path) {
        let file = path.to_owned();
        let loaded = tokio::task::spawn_blocking(move || (Version::of(&file), config::load(&file))).await;
        let (version, loaded) = loaded.expect("reading a configuration does not panic");
        let reloaded = match loaded {
            (Some(config), _) => self.reload(config).await,
            (None, findings) => Err(ReloadFailed::mistake(mistakes(&findings))),
        };
        self.reloads.last_failed.store(reloaded.is_err(), Ordering::Relaxed);
        // Only now: who finds that nothing is unread finds what came of it, too.
        let is_read = reloaded.as_ref().err().is_none_or(|failed| !failed.passes);
        if let Some(of) = self.file().of.as_mut().filter(|_| is_read) {
            of.version = version;
        }
        match reloaded {
            Ok(Reloaded { started, replaced, untouched, taken_out, failed }) => {
                self.reloads.done.fetch_add(1, Ordering::Relaxed);
                info!(started, replaced, untouched, taken_out, failed, "the configuration was read again");
            }
            Err(ReloadFailed { why, passes }) => {
                self.reloads.failed.fetch_add(1, Ordering::Relaxed);
                let file = path.display();
                match passes {
                    true => {
                        error!(%file, why, "the configuration was not taken: all goes on as it was; it is read again")
                    }
                    false => error!(%file, why, "the configuration was not taken: all goes on as it was"),
                }
            }
        }
    }

    /// Does what a configuration says that was checked by itself.
    ///
    /// # Errors
    /// When it does not go together with what was made through the API, or the environments can't be as it says. Nothing has
    /// changed then. A destination that can't be is tried again.
    pub async fn reload(&self, mut config: Config) -> Result<Reloaded, ReloadFailed> {
        let _operating = self.operating.lock().await;
        let destinations = std::mem::take(&mut config.destinations);
        let environments = std::mem::take(&mut config.environments);
        let secrets = std::mem::take(&mut config.secrets);
        self.goes_together(&destinations, &environments, &config, &secrets)?;
        let made = self.made_environments(&environments);
        self.set_environments(&environments, made).await?;
        self.registry.set_bulk_percent(config.delivery.bulk_percent);
        self.say_what_needs_a_restart(&config);
        // What is read at the start only stays as it was, to be compared with.
        {
            let mut file = self.file();
            (file.environments, file.secrets) = (environments, secrets);
        }

        let mut reloaded = Reloaded::default();
        let listed: BTreeSet<String> = destinations.iter().map(|destination| destination.id.clone()).collect();
        for destination in destinations {
            self.put_again(destination, AddressPolicy::Operator, &mut reloaded).await;
        }
        for id in self.unmet.of_file().into_iter().filter(|id| !listed.contains(id)) {
            self.unmet.forget(&id);
            reloaded.taken_out += usize::from(self.registry.remove(&id).await);
        }
        for shown in self.registry.all_after("", usize::MAX) {
            if shown.policy == AddressPolicy::Operator && !listed.contains(&*shown.id) {
                self.registry.remove(&shown.id).await;
                reloaded.taken_out += 1;
            }
        }
        let made: Vec<_> =
            self.journal.state().destinations.iter().map(|(id, settings)| (id.clone(), settings.clone())).collect();
        for (id, settings) in made {
            match self.read_destination(settings.reveal()) {
                (Some(wanted), _) => self.put_again(wanted, AddressPolicy::Customer, &mut reloaded).await,
                (None, findings) => self.is_unreadable(&id, &settings, mistakes(&findings)),
            }
        }
        self.forget_revisions_now_and_then().await;
        self.warn_of_left_behind();
        Ok(reloaded)
    }

    async fn put_again(&self, wanted: config::Destination, policy: AddressPolicy, reloaded: &mut Reloaded) {
        let count = match self.bring(Box::new(wanted), policy, When::Later).await {
            Some(Put::Started) => &mut reloaded.started,
            Some(Put::Replaced) => &mut reloaded.replaced,
            Some(Put::Untouched) => &mut reloaded.untouched,
            None => &mut reloaded.failed,
        };
        *count += 1;
    }

    /// What the file says must not take anything from what was made through the API.
    fn goes_together(
        &self,
        destinations: &[config::Destination],
        environments: &[Environment],
        config: &Config,
        secrets: &BTreeMap<String, Secret<String>>,
    ) -> Result<(), ReloadFailed> {
        let state = self.journal.state();
        if let Some(both) = destinations.iter().find(|destination| state.destinations.contains_key(&destination.id)) {
            let id = &both.id;
            return Err(ReloadFailed::mistake(format!(
                "destination {id:?} was made through the API: delete it there, or choose another id"
            )));
        }
        if let Some(both) = environments.iter().find(|environment| state.environments.contains_key(&environment.id)) {
            let id = &both.id;
            return Err(ReloadFailed::mistake(format!(
                "environment {id:?} was made through the API: delete it there, or choose another id"
            )));
        }
        for destination in destinations {
            let SinkConfig::Upstream(_) = destination.sink else { continue };
            for environment in &destination.environments {
                let keeper = self.registry.upstream_of(environment, &destination.id);
                if let Some(id) = keeper.filter(|id| state.destinations.contains_key(&**id)) {
                    let id = &*id;
                    return Err(ReloadFailed::mistake(format!(
                        "the posts of environment {environment:?} go to upstream {id:?}, which was made through the API: delete \
                         it there, or name the environment in one upstream only"
                    )));
                }
            }
        }
        let ids: Vec<String> = environments
            .iter()
            .map(|environment| environment.id.clone())
            .chain(state.environments.keys().cloned())
            .collect();
        let around = config::Surroundings { environments: &ids, delivery: &config.delivery, secrets };
        for (id, settings) in &state.destinations {
            let before = self.registry.runs(id);
            let checked = config::check_destination(settings.reveal(), &around);
            if before && checked.value.is_none() {
                let why = mistakes(&checked.findings);
                return Err(ReloadFailed::mistake(format!(
                    "destination {id:?}, made through the API, could not go on: {why}"
                )));
            }
        }
        Ok(())
    }

    /// Names settings that are read at the start only, where the file has others now.
    fn say_what_needs_a_restart(&self, now: &Config) {
        let file = self.file();
        let before = &file.config;
        let at_the_start =
            |now: &DeliveryConfig| DeliveryConfig { bulk_percent: before.delivery.bulk_percent, ..now.clone() };
        let changed = [
            ("data_dir", before.data_dir != now.data_dir),
            ("shutdown_grace", before.shutdown_grace != now.shutdown_grace),
            ("[ingest]", before.ingest != now.ingest),
            ("[grpc]", before.grpc != now.grpc),
            ("[admin]", before.admin != now.admin),
            ("[log]", before.log != now.log),
            ("[delivery]", before.delivery != at_the_start(&now.delivery)),
        ];
        for (settings, _) in changed.iter().filter(|(_, changed)| *changed) {
            warn!(settings, "these settings were changed and need a restart; until then the old ones hold");
        }
    }
}
