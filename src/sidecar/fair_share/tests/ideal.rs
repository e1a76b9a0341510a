//! The ideal that a fair share is held against, reckoned anew in a plain way.

use std::collections::BTreeMap;

use super::FlowId;

/// What each still wants of the fluid, in bytes.
#[derive(Default)]
pub(super) struct Ideal(BTreeMap<FlowId, f64>);

impl Ideal {
    pub(super) fn wants(&self, flow: FlowId) -> f64 {
        self.0.get(&flow).copied().unwrap_or_default()
    }

    pub(super) fn want(&mut self, flow: FlowId, bytes: f64) {
        let wants = self.0.entry(flow).or_default();
        *wants = (*wants + bytes).max(0.0);
    }

    /// So much flows to all who want some, to each by its weight.
    pub(super) fn flow(&mut self, bytes: u64, weights: &[u32]) {
        let mut left = bytes as f64;
        while left > 1e-9 {
            let wanting = || self.0.iter().filter(|(_, wants)| **wants > 1e-9);
            let all: f64 = wanting().map(|(flow, _)| f64::from(weights[*flow as usize])).sum();
            let soonest = wanting().map(|(flow, wants)| wants / f64::from(weights[*flow as usize])).reduce(f64::min);
            let Some(time) = soonest.map(|time| time.min(left / all)) else { return };
            for (flow, wants) in self.0.iter_mut().filter(|(_, wants)| **wants > 1e-9) {
                *wants = (*wants - f64::from(weights[*flow as usize]) * time).max(0.0);
            }
            left -= all * time;
        }
    }

    /// Nobody is ahead or behind any more.
    pub(super) fn end(&mut self) {
        self.0.clear();
    }
}
