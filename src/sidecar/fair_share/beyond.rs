//! Those that wait for more than their share: they get what nobody wants within his, who has had least first.
//!
//! Within shares or beyond them is all the same in what each has had. A share is rounded down to whole demands, and who
//! loses by that is first here: of thirteen places seven equals have one each, and the six more in turn.
//!
//! What always holds: everybody's turn comes. Who comes counts as having had what who was granted some last had, so that none
//! who comes and goes is first again and again; and nobody is ahead or behind by more than a few of the largest, so that who
//! was quick with its own share is not without what is left over for long.

use super::fluid::{Moment, span};
use super::{Demand, FairShare, FlowId, Line, Step, Waiting};

/// Nobody counts as having had more than so many of the largest above who was granted some last, nor below.
const APART_MAX: Moment = 8;

/// The largest is forgotten over so many others.
const REMEMBERED: u64 = 256;

/// What each has had, by weight, as the fluid's time is reckoned. Pure arithmetic.
#[derive(Debug)]
pub(super) struct Had {
    /// What those have had that were granted some beyond their share: of all that waited for it they had had least.
    least: Moment,
    /// The largest of late, in bytes.
    largest: u64,
}

impl Default for Had {
    /// Nobody has had any; late enough for there to be less.
    fn default() -> Self {
        Self { least: 1 << 100, largest: 0 }
    }
}

impl Had {
    /// What who comes counts as having had.
    pub(super) fn at_first(&self) -> Moment {
        self.least
    }

    /// The place in line of one that has had so much.
    pub(super) fn place(&self, had: Moment) -> Moment {
        had.max(self.least.saturating_sub(self.apart()))
    }

    /// What one of this weight has had when it has had so many bytes more.
    fn and(&mut self, bytes: u64, had: Moment, weight: u32) -> Moment {
        self.largest = bytes.max(self.largest - self.largest / REMEMBERED);
        had.max((self.place(had) + span(bytes, weight)).min(self.least + self.apart()))
    }

    fn apart(&self) -> Moment {
        span(self.largest, 1) * APART_MAX
    }
}

impl FairShare {
    /// Whether it waits for more than its share, or behind such a demand of its own.
    pub(super) fn waits_beyond(&self, flow: FlowId) -> bool {
        self.flows.get(&flow).is_some_and(|it| it.line == Line::Beyond && !it.waiting.is_empty())
    }

    /// What it has had when it has had so many bytes more.
    pub(super) fn had_and(&mut self, bytes: u64, flow: FlowId) -> Moment {
        let it = &self.flows[&flow];
        self.had.and(bytes, it.had, it.weight)
    }

    /// One step on the way to the next grant while nobody waits within its share.
    pub(super) fn step_beyond(&mut self) -> Step {
        let Some(Waiting { id, demand, .. }) = self.first_beyond().copied() else { return Step::Nothing };
        if !self.may_beyond(&demand) {
            return Step::Nothing;
        }
        let had = self.had.place(self.flows[&demand.flow].had);
        self.had.least = self.had.least.max(had);
        Step::Granted(id, self.grant(demand.flow))
    }

    /// Who is next once nobody waits within its share.
    pub(super) fn first_beyond(&self) -> Option<&Waiting> {
        let mut firsts = self.lines[Line::Beyond as usize].values().map(|flow| self.first_of(*flow));
        firsts.find(|first| !self.is_doubted(first.id, &first.demand))
    }

    /// Whether what is left is enough for one that is next.
    pub(super) fn may_beyond(&self, demand: &Demand) -> bool {
        self.fits(demand.amount) && (self.is_due(demand) || self.leaves_reserve(demand.amount))
    }
}
