//! Whether the sidecar is ready for traffic, and if not, why.
//!
//! Two kinds of reason. A [`Latch`] stands for something that has to happen once, at start: it is taken before the
//! work begins and dropped when that is done. A block is a state that comes and goes under a name, such as a log that
//! is read-only. Ready means: no latch is held and nothing blocks. All latches are taken before anyone asks; else the
//! sidecar would be ready for a moment before the first. Decides nothing about liveness.

use std::collections::BTreeMap;

use tokio::sync::watch;

/// The state of one sidecar. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Readiness {
    state: watch::Sender<State>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct State {
    /// What is still to happen, and how many latches say so.
    awaited: BTreeMap<&'static str, usize>,
    /// What stands in the way, with the particulars.
    blocks: BTreeMap<&'static str, String>,
}

/// Whether the sidecar is ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Status {
    /// Send traffic.
    Ready,
    /// Do not, for these reasons; there is at least one.
    NotReady(Vec<String>),
}

impl Status {
    /// Whether it is [`Status::Ready`].
    #[must_use]
    pub fn is_ready(&self) -> bool {
        *self == Self::Ready
    }
}

impl Readiness {
    /// Ready, until a latch is taken or something blocks.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Not ready until what is returned is dropped. `what` completes the sentence "waiting for ..".
    #[must_use = "dropping it says that what it stands for has happened"]
    pub fn latch(&self, what: &'static str) -> Latch {
        self.state.send_modify(|state| *state.awaited.entry(what).or_default() += 1);
        Latch { what, state: self.state.clone() }
    }

    /// Not ready while `reason` stands. Said again, the new particulars replace the old.
    pub fn block(&self, reason: &'static str, particulars: impl Into<String>) {
        let particulars = particulars.into();
        self.state.send_if_modified(|state| {
            let changed = state.blocks.get(reason) != Some(&particulars);
            state.blocks.insert(reason, particulars);
            changed
        });
    }

    /// `reason` stands no longer. Fine if it never did.
    pub fn unblock(&self, reason: &'static str) {
        self.state.send_if_modified(|state| state.blocks.remove(reason).is_some());
    }

    /// Whether the sidecar is ready now.
    #[must_use]
    pub fn status(&self) -> Status {
        self.state.borrow().status()
    }

    /// For whoever has to pass every change on, such as gRPC health.
    #[must_use]
    pub fn watch(&self) -> Watch {
        Watch { state: self.state.subscribe(), last: None }
    }
}

impl State {
    fn status(&self) -> Status {
        let awaited = self.awaited.keys().map(|what| format!("waiting for {what}"));
        let blocks = self.blocks.iter().map(|(reason, particulars)| match particulars.as_str() {
            "" => (*reason).to_owned(),
            particulars => format!("{reason}: {particulars}"),
        });
        let reasons: Vec<String> = awaited.chain(blocks).collect();
        if reasons.is_empty() { Status::Ready } else { Status::NotReady(reasons) }
    }
}

/// Holds readiness back; see [`Readiness::latch`].
#[derive(Debug)]
pub struct Latch {
    what: &'static str,
    state: watch::Sender<State>,
}

impl Drop for Latch {
    fn drop(&mut self) {
        self.state.send_modify(|state| {
            let held =
                state.awaited.get_mut(self.what).expect("latch() counted this one, and only drop() takes it off");
            *held -= 1;
            if *held == 0 {
                state.awaited.remove(self.what);
            }
        });
    }
}

/// Follows the changes; see [`Readiness::watch`].
#[derive(Debug)]
pub struct Watch {
    state: watch::Receiver<State>,
    last: Option<Status>,
}

impl Watch {
    /// The status at the first call, then each other one as it comes. Changes too quick to be seen are left out, the
    /// last one never is. `None` when nobody is left who could change it. Cancel safe.
    pub async fn next(&mut self) -> Option<Status> {
        loop {
            let status = self.state.borrow_and_update().status();
            if self.last.as_ref() != Some(&status) {
                self.last = Some(status.clone());
                return Some(status);
            }
            self.state.changed().await.ok()?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn not_ready(reasons: &[&str]) -> Status {
        Status::NotReady(reasons.iter().map(|reason| (*reason).to_owned()).collect())
    }

    #[test]
    fn ready_is_when_every_latch_is_dropped() {
        let readiness = Readiness::new();
        let log = readiness.latch("the log");
        let first = readiness.latch("a listener");
        let second = readiness.clone().latch("a listener");
        assert_eq!(readiness.status(), not_ready(&["waiting for a listener", "waiting for the log"]));
        drop((log, first));
        assert_eq!(readiness.status(), not_ready(&["waiting for a listener"]), "the other one still waits");
        drop(second);
        assert!(readiness.status().is_ready());
    }

    #[test]
    fn a_block_comes_and_goes_by_name() {
        let readiness = Readiness::new();
        readiness.block("the log is read-only", "fsync failed");
        readiness.block("the log is read-only", "the disk is full");
        readiness.block("stopping", "");
        assert_eq!(readiness.status(), not_ready(&["stopping", "the log is read-only: the disk is full"]));
        readiness.unblock("stopping");
        readiness.unblock("never heard of");
        readiness.unblock("the log is read-only");
        assert!(readiness.status().is_ready());
    }

    #[tokio::test]
    async fn a_watch_sees_the_last_change_and_no_repeat() {
        let readiness = Readiness::new();
        let latch = readiness.latch("the log");
        let mut watch = readiness.watch();
        assert_eq!(watch.next().await, Some(not_ready(&["waiting for the log"])));
        readiness.unblock("nothing");
        let another = readiness.latch("the log");
        drop((latch, another));
        assert_eq!(watch.next().await, Some(Status::Ready));
        drop(readiness);
        assert_eq!(watch.next().await, None);
    }
}
