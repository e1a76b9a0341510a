//! Records that were rejected alone and are not yet decided on: they lie aside, still claimed, until the destination has
//! taken something else, or is held for one that refuses.
//!
//! What always holds: none of them is a letter before it was rejected again after something was taken; and none lies here
//! for ever, since all are tried again now and then.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::holds::Cause;
use super::landing::Batch;
use super::{Busy, Failure, Mark, Worker};
use crate::delivery::notes::{Lane, Note};
use crate::delivery::pace::{Probes, Refusal};
use crate::delivery::poison::Sender;

/// Records of a destination that refuses which are kept aside: more go back to the queue.
const ASIDES_MAX: usize = 32;

/// The same where senders are apart, of all of them: what lies behind a sender's bad records is come to by keeping those
/// aside. Each is a claim and a note, a few hundred bytes.
const ASIDES_OF_SENDERS_MAX: usize = 4096;

/// Of a queue that has records of several senders, as letters come from: half of what may be claimed there at a time, so that
/// those of some senders never keep others' from being read.
const ASIDES_OF_SHARED_MAX: usize = 512;

/// Records that were rejected alone and are not yet decided on.
#[derive(Default)]
pub(super) struct Asides {
    all: Vec<Aside>,
    retest_at: Option<Duration>,
    retests: Probes,
}

pub(super) struct Aside {
    pub(super) batch: Batch,
    /// With the record in it.
    pub(super) note: Note,
    /// It will be a dead letter, if the search that found it does not end in a refusal.
    pub(super) poison: bool,
}

impl Asides {
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// Takes out those that `which` is true of.
    fn take(&mut self, which: impl FnMut(&mut Aside) -> bool) -> Vec<Aside> {
        self.all.extract_if(.., which).collect()
    }

    /// How many of them `which` is true of.
    pub(super) fn count(&self, which: impl Fn(&Batch) -> bool) -> usize {
        self.all.iter().filter(|aside| which(&aside.batch)).count()
    }

    /// The queues that they come from.
    pub(super) fn queues(&self) -> impl Iterator<Item = usize> {
        self.all.iter().map(|aside| aside.batch.queue.queue)
    }

    /// When they are to be tried again whatever happens.
    pub(super) fn retest_at(&self) -> Option<Duration> {
        self.retest_at.filter(|_| !self.all.is_empty())
    }
}

impl Worker {
    pub(super) fn set_aside(&mut self, busy: &mut Busy, aside: Aside) {
        if busy.asides.all.is_empty() {
            busy.asides.retest_at = Some(self.now() + busy.asides.retests.next(&mut busy.rng));
        }
        aside.batch.ticket.set_aside();
        busy.asides.all.push(aside);
    }

    /// Dead letters at last: poison of searches that are over.
    pub(super) fn decide(&mut self, busy: &mut Busy) {
        if busy.asides.all.is_empty() {
            return;
        }
        let doubts = busy.asides.all.iter().filter(|aside| !aside.poison);
        let doubted: Vec<Option<Mark>> = doubts.map(|aside| aside.note.run).collect();
        let notes = self.memory.notes();
        let over = |run: Option<Mark>| !doubted.contains(&run) && !run.is_some_and(|run| notes.searching(run));
        let over = busy.asides.take(|aside| aside.poison && over(aside.note.run));
        self.condemn(busy, over);
        if busy.asides.all.is_empty() {
            busy.asides.retests = Probes::default();
        }
    }

    fn condemn(&mut self, busy: &mut Busy, asides: Vec<Aside>) {
        for Aside { batch, note, .. } in asides {
            let apart = note.apart.clone();
            *self.memory.notes().make(batch.queue, &batch.shape.offsets) = note;
            self.finish(busy, batch, apart);
        }
    }

    /// The destination takes something: who is in doubt since before gets another chance.
    pub(super) fn put_back_proven(&mut self, busy: &mut Busy) {
        let back = busy.asides.take(|aside| {
            let sender = self.sender(&aside.batch);
            !aside.poison && self.memory.poison().proven(sender, aside.note.since)
        });
        self.put_back(back);
    }

    /// Whatever is not decided on is tried again.
    pub(super) fn put_back_all(&mut self, busy: &mut Busy) {
        let back = std::mem::take(&mut busy.asides.all);
        self.put_back(back);
    }

    fn put_back(&mut self, asides: Vec<Aside>) {
        for Aside { batch, note, .. } in asides {
            let apart = note.apart.without(batch.shape.first);
            *self.memory.notes().make(batch.queue, &batch.shape.offsets) = Note { apart, ..note };
        }
    }

    /// In case that there is nothing else to send by which the destination could show that it takes anything.
    pub(super) fn retest_if_due(&mut self, busy: &mut Busy) {
        if busy.asides.retest_at().is_some_and(|at| at <= self.now()) {
            self.wet();
            let something = self.turn(busy).is_some();
            let preparing = busy.preparing.is_some().then_some(busy.chosen.turn);
            // There is something else to probe it with.
            let probed = |aside: &Aside| match self.sink.senders_apart() {
                true => self.is_probed(aside.batch.queue, preparing),
                false => self.pace.refused() && something,
            };
            let back = busy.asides.take(|aside| !probed(aside));
            if !busy.asides.all.is_empty() {
                busy.asides.retest_at = Some(self.now() + busy.asides.retests.next(&mut busy.rng));
            }
            // A search that takes as long may never end: a piece of it was purged perhaps.
            let (poison, doubts) = back.into_iter().partition(|aside| aside.poison);
            self.condemn(busy, poison);
            self.put_back(doubts);
            self.wet();
        }
    }

    /// It is the destination, not the records; or it is their sender, where others send as well.
    pub(super) fn refuses(&mut self, busy: &mut Busy, (lane, sender): (Lane, Sender), why: &Failure) {
        let refused_before = self.pace.refused();
        if sender == Sender::All {
            self.pace.refuse(Refusal::Rejects, self.now(), &mut busy.rng);
            busy.post.epoch.store(self.pace.epoch().number(), Ordering::Release);
        } else {
            self.hold(busy, lane, Cause::Rejects, why);
        }
        // What was found to be poison is in doubt again. It stays aside, so that probes come to what lies behind it.
        let doubted = self.memory.poison().now();
        let mut of_sender = busy.asides.take(|aside| self.sender(&aside.batch) == sender);
        for aside in &mut of_sender {
            (aside.poison, aside.note.since) = (false, aside.note.since.max(Some(doubted)));
        }
        let too_many = match sender {
            Sender::All => of_sender.len() > ASIDES_MAX,
            // Put back they come first, and are tried again one by one before anything that lies behind them.
            Sender::Stream(..) => {
                let of_queue = of_sender.len() + busy.asides.count(|batch| batch.queue.queue == lane.queue);
                let shared = self.queues[lane.queue].hold_of((lane.log, lane.stream)).is_some();
                of_sender.len() + busy.asides.len() > ASIDES_OF_SENDERS_MAX || shared && of_queue > ASIDES_OF_SHARED_MAX
            }
        };
        if too_many {
            self.put_back(of_sender);
        } else {
            busy.asides.all.append(&mut of_sender);
        }
        if self.pace.refused() && !refused_before {
            self.alert(why);
        }
    }
}
