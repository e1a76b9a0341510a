//! One who shares: what it holds, what it waits for, and where it stands.

use std::collections::VecDeque;

use super::amount::Amount;
use super::fluid::{Moment, span};
use super::{Demand, DemandId};

/// A place in a line: the least is next.
pub(super) type Place = (Moment, DemandId);

/// Where the first demand of a flow stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Line {
    /// It is within its flow's share, as far as is known. In the order in which the fluid fills them.
    #[default]
    Within,
    /// It is beyond its flow's share; the fluid passes it by. Who has had least is first.
    Beyond,
    /// It is one too many of those that may be of no use. As they came.
    Doubted,
}

/// One who shares.
#[derive(Debug, Default)]
pub(super) struct Flow {
    pub(super) weight: u32,
    pub(super) held: Amount,
    pub(super) waiting: VecDeque<Waiting>,
    pub(super) line: Line,
    /// Where it stands in its line, if it waits.
    pub(super) place: Option<Place>,
    /// Until when the fluid flows to it: for what waits, unless it stands aside, and for what it got ahead of the fluid.
    pub(super) end: Moment,
    /// What it has had, within its share and beyond it, by weight.
    pub(super) had: Moment,
}

/// A demand that waits.
#[derive(Debug, Clone, Copy)]
pub(super) struct Waiting {
    pub(super) id: DemandId,
    pub(super) demand: Demand,
    /// When the fluid has filled it, unless it stands aside.
    pub(super) filled: Moment,
}

impl Flow {
    pub(super) fn is_present(&self) -> bool {
        self.held != Amount::default() || !self.waiting.is_empty()
    }

    /// How long the fluid flows to fill all that waits.
    pub(super) fn wants(&self) -> Moment {
        self.waiting.iter().map(|waiting| span(waiting.demand.cost, self.weight)).sum()
    }

    /// The fluid flows to it for so long from now on, the last of it for what waits.
    pub(super) fn stand(&mut self, now: Moment, owed: Moment) {
        self.end = now + owed;
        let mut filled = self.end;
        for waiting in self.waiting.iter_mut().rev() {
            waiting.filled = filled;
            filled = filled.saturating_sub(span(waiting.demand.cost, self.weight));
        }
    }

    /// It is looked at anew, and counts from now on.
    pub(super) fn line_up(&mut self, now: Moment) {
        let owed = self.end.saturating_sub(now);
        self.line = Line::Within;
        self.stand(now, owed + self.wants());
    }

    /// The fluid passes by what waits.
    pub(super) fn stand_aside(&mut self, line: Line) {
        self.line = line;
        if let Some(first) = self.waiting.front() {
            self.end = first.filled.saturating_sub(span(first.demand.cost, self.weight));
        }
    }
}
