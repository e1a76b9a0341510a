//! The end of the process: what is left of a simulated disk, and of whom it forgets.
//!
//! It is asked nothing while the process lives. After a power cut nothing is pending: what there is, is durable.

use std::ops::Range;

use super::content::Chosen;
use super::names::Names;
use super::state::State;
use super::{PowerCut, Rest};

impl State {
    /// The process is gone; the kernel and its cache are not.
    pub(super) fn end_process(&mut self) {
        self.generation += 1;
        self.crashed = false;
        self.crash_point = None;
        self.locks.clear();
        self.files.values_mut().for_each(|file| file.handles = 0);
        self.collect();
    }

    pub(super) fn cut_power(&mut self, cut: PowerCut) {
        let cut = match cut {
            PowerCut::Prefix => self.prefix_by_chance(),
            cut => cut,
        };
        match cut {
            PowerCut::NothingUnsynced => {}
            PowerCut::Everything => self.keep_before(u64::MAX, 0),
            PowerCut::PrefixOf { op, bytes } => self.keep_before(op, bytes),
            PowerCut::InWrite { op, from, to, rest } => self.keep_in_write(op, &(from..to), rest),
            PowerCut::RandomSubset | PowerCut::Prefix => self.keep_by_chance(),
            PowerCut::OnlySector(nth) => self.keep_sectors(nth, Chosen::Only),
            PowerCut::AllButSector(nth) => self.keep_sectors(nth, Chosen::AllBut),
        }
        self.files.values_mut().for_each(|file| file.content.forget_live());
        self.dirs.values_mut().for_each(Names::forget_live);
        self.end_process();
    }

    fn keep_before(&mut self, op: u64, bytes: usize) {
        self.files.values_mut().for_each(|file| file.content.keep_before(op, bytes));
        self.dirs.values_mut().for_each(|dir| dir.settle(|change| change < op));
    }

    fn keep_in_write(&mut self, op: u64, part: &Range<usize>, rest: Rest) {
        self.files.values_mut().for_each(|file| file.content.keep_part(op, part, rest != Rest::Nothing));
        self.dirs.values_mut().for_each(|dir| dir.settle(|_| rest == Rest::All));
    }

    fn keep_by_chance(&mut self) {
        let Self { rng, files, dirs, .. } = self;
        files.values_mut().for_each(|file| file.content.keep_by_chance(rng));
        let odds = [1, 4, 7][rng.below(3)];
        dirs.values_mut().for_each(|dir| dir.settle(|_| rng.chance(odds, 8)));
    }

    /// All names survive: the bytes are what is asked about.
    fn keep_sectors(&mut self, nth: usize, chosen: fn(usize) -> Chosen) {
        let mut before = 0;
        for file in self.files.values_mut() {
            let dirty = file.content.dirty_sectors();
            // A number that no sector of this file has, when the one meant lies in another.
            let here = nth.checked_sub(before).unwrap_or(usize::MAX);
            file.content.keep_sectors(chosen(here));
            before += dirty;
        }
        self.dirs.values_mut().for_each(|dir| dir.settle(|_| true));
    }

    fn prefix_by_chance(&mut self) -> PowerCut {
        let writes = self.files.values().flat_map(|file| file.content.pending_ops());
        let names = self.dirs.values().flat_map(Names::pending_ops).map(|op| (op, 0));
        let mut ops: Vec<(u64, usize)> = writes.chain(names).collect();
        ops.sort_unstable();
        match ops.get(self.rng.below(ops.len() + 1)) {
            None => PowerCut::Everything,
            Some((op, bytes)) => PowerCut::PrefixOf { op: *op, bytes: self.rng.below(bytes + 1) },
        }
    }

    pub(super) fn dirty_sectors(&self) -> usize {
        self.files.values().map(|file| file.content.dirty_sectors()).sum()
    }
}
