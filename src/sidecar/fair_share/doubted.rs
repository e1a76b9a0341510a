//! Those that may be of no use: they get half of all at most, one after the other.

use super::{Amount, Demand, DemandId, FairShare, Line};

impl FairShare {
    /// The first of those that stand aside lines up again once there is room for it, whatever made it: what came back, or
    /// one before it that left without taking any.
    pub(super) fn look_at_doubted(&mut self) {
        let Some((&(_, id), &flow)) = self.lines[Line::Doubted as usize].first_key_value() else { return };
        let demand = self.first_of(flow).demand;
        // Where others came its share got smaller: then it is not this turn that it waits for. When it is looked at, that is:
        // until then it may get larger again.
        if self.is_due(&demand) && self.is_doubted(id, &demand) {
            return;
        }
        self.called.insert(id);
        self.line_up(flow);
    }

    /// Whether it would take them beyond their half; one at a time always goes. Or whether one of them that came before it
    /// has stood aside, and has yet to have its turn: else small ones would keep out a large one for ever.
    pub(super) fn is_doubted(&self, id: DemandId, demand: &Demand) -> bool {
        let aside = self.lines[Line::Doubted as usize].first_key_value().map(|((_, id), _)| id);
        let is_behind = || aside.into_iter().chain(self.called.first()).any(|before| *before < id);
        let too_much = || !(self.doubtful + demand.amount).within(self.capacity.part(1, 2));
        demand.doubtful && (is_behind() || (self.doubtful != Amount::default() && too_much()))
    }
}
