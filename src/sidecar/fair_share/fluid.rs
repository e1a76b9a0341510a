//! The ideal that a fair share is held against: a fluid that flows to all who want some at once, to each by its weight.
//! Pure.
//!
//! Nobody can give a part of a batch, so grants come one after another; but each is ordered by the moment at which the
//! fluid would have filled it. What always holds: the fluid hands out exactly what was granted, never more and never less,
//! as long as anybody wants it. Its time ([`Moment`]) stands still while nothing is granted.

use std::collections::BTreeSet;

/// Who shares.
pub(crate) type FlowId = u32;

/// A moment of the fluid's time: what has flowed to each unit of weight, in parts of a byte.
pub(super) type Moment = u128;

/// Parts of a byte: so that what is left over in a division is nothing to speak of.
const PARTS: u128 = 1 << 20;

/// The fluid.
#[derive(Debug)]
pub(super) struct Fluid {
    now: Moment,
    /// When each of those who still want some will have had all.
    ends: BTreeSet<(Moment, FlowId, u32)>,
    /// The weights of all of them.
    weight: u64,
}

/// How long the fluid takes to bring so many bytes to one of this weight that it flows to.
pub(super) fn span(bytes: u64, weight: u32) -> Moment {
    u128::from(bytes) * PARTS / u128::from(weight.max(1))
}

impl Default for Fluid {
    /// A fluid that nobody wants. Its time begins late enough for there to be a time before.
    fn default() -> Self {
        Self { now: 1 << 100, ends: BTreeSet::new(), weight: 0 }
    }
}

impl Fluid {
    /// Now.
    pub(super) fn now(&self) -> Moment {
        self.now
    }

    /// Flows to one of this weight until `end`; not at all, if that is past.
    pub(super) fn enter(&mut self, flow: FlowId, weight: u32, end: Moment) {
        if end > self.now && self.ends.insert((end, flow, weight)) {
            self.weight += u64::from(weight);
        }
    }

    /// Flows no more to one that was entered so.
    pub(super) fn leave(&mut self, flow: FlowId, weight: u32, end: Moment) {
        if self.ends.remove(&(end, flow, weight)) {
            self.weight -= u64::from(weight);
        }
    }

    /// So much was granted: as much flows. `had_all` hears of each that has had all.
    pub(super) fn flow(&mut self, bytes: u64, mut had_all: impl FnMut(FlowId)) {
        let mut left = u128::from(bytes) * PARTS;
        while let Some(&(end, flow, weight)) = self.ends.first() {
            let until_end = (end - self.now) * u128::from(self.weight);
            if until_end > left {
                self.now += left / u128::from(self.weight);
                return;
            }
            left -= until_end;
            self.now = end;
            self.leave(flow, weight, end);
            had_all(flow);
        }
    }

    /// All that was wanted is granted: nobody is ahead or behind any more. `had_all` hears of those that still were.
    pub(super) fn end(&mut self, had_all: impl FnMut(FlowId)) {
        self.weight = 0;
        std::mem::take(&mut self.ends).into_iter().map(|(_, flow, _)| flow).for_each(had_all);
    }
}
