//! The names in one simulated directory: those a process sees, those a crash leaves for sure, and the changes between.
//!
//! It knows no bytes. What always holds: a file that has a durable name keeps one until its removal is durable, for of
//! the changes to one name a later one survives only if the earlier did. Changes to different names are independent.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub(super) type Name = Arc<str>;

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Node {
    File(u64),
    Dir(u64),
}

#[derive(Clone, Default)]
pub(super) struct Names {
    live: BTreeMap<Name, Node>,
    durable: BTreeMap<Name, Node>,
    /// Since the last sync, oldest first.
    pending: Vec<Change>,
}

#[derive(Clone)]
struct Change {
    op: u64,
    what: What,
}

#[derive(Clone)]
enum What {
    Put { name: Name, node: Node },
    Rename { from: Name, to: Name, node: Node },
    Remove { name: Name },
}

impl Names {
    pub(super) fn get(&self, name: &str) -> Option<Node> {
        self.live.get(name).copied()
    }

    pub(super) fn get_durable(&self, name: &str) -> Option<Node> {
        self.durable.get(name).copied()
    }

    pub(super) fn live(&self) -> impl Iterator<Item = (&Name, Node)> {
        self.live.iter().map(|(name, node)| (name, *node))
    }

    /// Everything that has a name here now or may have one after a crash.
    pub(super) fn nodes(&self) -> impl Iterator<Item = Node> {
        let pending = self.pending.iter().filter_map(|change| match &change.what {
            What::Put { node, .. } | What::Rename { node, .. } => Some(*node),
            What::Remove { .. } => None,
        });
        self.live.values().chain(self.durable.values()).copied().chain(pending)
    }

    pub(super) fn put(&mut self, op: u64, name: Name, node: Node) {
        self.change(op, What::Put { name, node });
    }

    /// The name must be there.
    pub(super) fn rename(&mut self, op: u64, from: Name, to: Name) {
        let node = self.live[&from];
        if from != to {
            self.change(op, What::Rename { from, to, node });
        }
    }

    pub(super) fn remove(&mut self, op: u64, name: Name) {
        self.change(op, What::Remove { name });
    }

    /// As if it had always been so.
    pub(super) fn put_durably(&mut self, name: Name, node: Node) {
        self.settle_name(&name);
        self.live.insert(Arc::clone(&name), node);
        self.durable.insert(name, node);
    }

    /// As if it had never been.
    pub(super) fn remove_durably(&mut self, name: &str) {
        self.settle_name(name);
        self.live.remove(name);
        self.durable.remove(name);
    }

    /// Makes changes durable, oldest first. One that `survives` says no to is lost, and with it all later ones to the
    /// same names; the live names stay as they are.
    pub(super) fn settle(&mut self, mut survives: impl FnMut(u64) -> bool) {
        let mut lost = BTreeSet::new();
        for change in std::mem::take(&mut self.pending) {
            let survives = survives(change.op);
            if survives && !change.what.names().any(|name| lost.contains(name)) {
                change.what.apply(&mut self.durable);
            } else {
                lost.extend(change.what.names().cloned());
            }
        }
    }

    /// The process finds on its return what is durable.
    pub(super) fn forget_live(&mut self) {
        self.pending.clear();
        self.live.clone_from(&self.durable);
    }

    pub(super) fn pending_ops(&self) -> impl Iterator<Item = u64> {
        self.pending.iter().map(|change| change.op)
    }

    /// Makes all changes durable that this name depends on: others hang on to them, so it is simply all.
    fn settle_name(&mut self, name: &str) {
        if self.pending.iter().any(|change| change.what.names().any(|touched| &**touched == name)) {
            self.settle(|_| true);
        }
    }

    fn change(&mut self, op: u64, what: What) {
        what.apply(&mut self.live);
        self.pending.push(Change { op, what });
    }
}

impl What {
    fn apply(&self, names: &mut BTreeMap<Name, Node>) {
        match self {
            Self::Put { name, node } => {
                names.insert(Arc::clone(name), *node);
            }
            Self::Rename { from, to, node } => {
                names.remove(from);
                names.insert(Arc::clone(to), *node);
            }
            Self::Remove { name } => {
                names.remove(name);
            }
        }
    }

    fn names(&self) -> impl Iterator<Item = &Name> {
        let (one, two) = match self {
            Self::Put { name, .. } | Self::Remove { name } => (name, None),
            Self::Rename { from, to, .. } => (from, Some(to)),
        };
        std::iter::once(one).chain(two)
    }
}
