//! The records of one batch that answers set apart from the rest: those never taken, and those not taken yet. Pure.
//!
//! What always holds: every record of the batch settles in one way, and what is set apart is not sent again with it.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use forebay::Settled;

use super::except::Except;
use super::outcome::{Failure, HeldRecord, Partial, RejectedRecord};
use super::parking::Kind;
use super::stats::moment_ms;

/// The records of a batch that are apart from the rest, by offset.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Apart(BTreeMap<u64, Fate>);

/// What is to become of a record, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fate {
    pub(super) kind: Kind,
    /// For the letter, which holds the record as well: all that was answered.
    pub(super) reason: Arc<str>,
    pub(super) excerpt: Arc<str>,
    /// The same for everybody: no record shows in it.
    words: Arc<str>,
    /// The destination said so; not our own knowledge of it.
    told: bool,
}

impl Apart {
    /// Takes in an answer about a batch with these offsets, of which those in `except` were not sent.
    ///
    /// # Errors
    /// When it can't be about that request: it names records that were not in it, or none. Nothing is taken in then.
    pub(super) fn take_in(
        &mut self,
        partial: &Partial,
        offsets: &Range<u64>,
        except: &Except,
        now_ms: u64,
    ) -> Result<(), Failure> {
        let rejected = partial.rejected.iter().map(|record| record.offset);
        let named = rejected.chain(partial.held.iter().map(|record| record.offset));
        let sent = |at: u64| offsets.contains(&at) && !except.contains(at) && !self.0.contains_key(&at);
        let mut count = 0;
        for offset in named {
            if !sent(offset) {
                let why =
                    format!("the answer ({}) names the record at offset {offset}, which was not sent", partial.why);
                return Err(Failure::Local(why));
            }
            count += 1;
        }
        if count == 0 {
            return Err(Failure::Local(format!("the answer ({}) sets no record apart", partial.why)));
        }
        let excerpt = excerpt(&partial.why);
        // Of what the receiver says about each record the reason alone may show a part of it.
        let words: Arc<str> = partial.why.to_string().into();
        for RejectedRecord { offset, reason } in &partial.rejected {
            let dead = Fate::dead(reason.as_str().into(), Arc::clone(&excerpt));
            self.0.insert(*offset, Fate { told: true, words: Arc::clone(&words), ..dead });
        }
        let reason: Arc<str> = if partial.held.is_empty() { "".into() } else { partial.why.in_full().into() };
        let words: Arc<str> = "".into();
        for HeldRecord { offset, wait } in &partial.held {
            let kind = Kind::Held { not_before_ms: moment_ms(now_ms, *wait) };
            let (reason, excerpt, words) = (Arc::clone(&reason), Arc::clone(&excerpt), Arc::clone(&words));
            let fate = Fate { kind, reason, excerpt, words, told: true };
            self.0.insert(*offset, fate);
        }
        Ok(())
    }

    /// Takes in what the sink knew before it sent anything.
    pub(super) fn beforehand(&mut self, rejected: &[RejectedRecord]) {
        for RejectedRecord { offset, reason } in rejected {
            self.0.entry(*offset).or_insert_with(|| Fate::dead(reason.as_str().into(), "".into()));
        }
    }

    /// A record was rejected alone. `told` by the destination.
    pub(super) fn alone(&mut self, offset: u64, why: &Failure, told: bool) {
        let (reason, words) = (why.in_full().into(), why.to_string().into());
        self.0.insert(offset, Fate { kind: Kind::Dead, reason, excerpt: excerpt(why), words, told });
    }

    /// Those of them that lie in `offsets`.
    pub(super) fn within(&self, offsets: &Range<u64>) -> Self {
        Self(self.0.range(offsets.clone()).map(|(offset, fate)| (*offset, fate.clone())).collect())
    }

    /// All but the record at `offset`.
    pub(super) fn without(mut self, offset: u64) -> Self {
        self.0.remove(&offset);
        self
    }

    /// The first that is never taken, and why, in words in which no record shows.
    pub(super) fn first_dead(&self) -> Option<(u64, &str)> {
        self.0.iter().find(|(_, fate)| fate.kind == Kind::Dead).map(|(offset, fate)| (*offset, &*fate.words))
    }

    /// How many records are apart.
    pub(super) fn len(&self) -> u64 {
        self.0.len() as u64
    }

    /// How many of them the destination said that it never takes.
    pub(super) fn told_dead(&self) -> u64 {
        self.0.values().filter(|fate| fate.told && fate.kind == Kind::Dead).count() as u64
    }

    /// How many of them it does not take yet.
    pub(super) fn held(&self) -> u64 {
        self.0.values().filter(|fate| fate.kind != Kind::Dead).count() as u64
    }

    /// What is not to be sent: `others` and these.
    pub(super) fn except(&self, others: &Except) -> Except {
        others.and(self.0.keys().map(|offset| *offset..*offset + 1))
    }

    /// How they settle, when all of them are kept as letters.
    pub(super) fn parts(&self) -> Vec<(Range<u64>, Settled)> {
        let mut parts: Vec<(Range<u64>, Settled)> = Vec::new();
        for (&offset, fate) in &self.0 {
            let as_ = match fate.kind {
                Kind::Dead => Settled::DeadLettered,
                Kind::Held { .. } => Settled::Held,
            };
            match parts.last_mut() {
                Some((part, same)) if part.end == offset && *same == as_ => part.end += 1,
                _ => parts.push((offset..offset + 1, as_)),
            }
        }
        parts
    }

    /// The offsets, ascending.
    pub(super) fn offsets(&self) -> Vec<u64> {
        self.0.keys().copied().collect()
    }

    /// What is to become of the record at `offset`.
    pub(super) fn fate(&self, offset: u64) -> Option<&Fate> {
        self.0.get(&offset)
    }
}

impl Fate {
    /// Never taken, by what the sink itself says of it.
    fn dead(reason: Arc<str>, excerpt: Arc<str>) -> Self {
        Self { kind: Kind::Dead, words: Arc::clone(&reason), reason, excerpt, told: false }
    }
}

/// What the destination said, if it said anything.
fn excerpt(why: &Failure) -> Arc<str> {
    match why {
        Failure::Status { excerpt, .. } => excerpt.as_str().into(),
        _ => "".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::{btree_map, btree_set};
    use proptest::prelude::*;
    use std::time::Duration;

    fn partial(rejected: &[u64], held: &[u64]) -> Partial {
        let reject = |&offset: &u64| RejectedRecord { offset, reason: "bad".to_owned() };
        let hold = |&offset: &u64| HeldRecord { offset, wait: Duration::from_secs(30) };
        let why = Failure::Status { status: 400, words: String::new(), excerpt: "no".to_owned() };
        let (rejected, held) = (rejected.iter().map(reject).collect(), held.iter().map(hold).collect());
        Partial { rejected, held, why }
    }

    #[test]
    fn an_answer_that_cannot_be_about_the_request_changes_nothing() {
        let mut apart = Apart::default();
        apart.take_in(&partial(&[3], &[]), &(0..10), &Except::default(), 0).unwrap();
        let before = apart.clone();
        for wrong in [partial(&[10], &[]), partial(&[4, 3], &[]), partial(&[], &[7]), partial(&[], &[])] {
            apart.take_in(&wrong, &(0..10), &[7].into(), 0).unwrap_err();
        }
        assert_eq!(apart, before);
    }

    #[test]
    fn a_held_record_waits_from_now_and_says_why() {
        let mut apart = Apart::default();
        apart.take_in(&partial(&[], &[5]), &(0..10), &Except::default(), 1_000).unwrap();
        let fate = apart.fate(5).unwrap();
        assert_eq!(fate.kind, Kind::Held { not_before_ms: 31_000 });
        assert_eq!((&*fate.reason, &*fate.excerpt), ("answered 400: no", "no"));
    }

    #[test]
    fn why_a_record_is_dead_is_told_in_full_beside_it_and_in_words_elsewhere() {
        let mut apart = Apart::default();
        let (words, excerpt) = (String::new(), "no such user: user-17".to_owned());
        apart.alone(3, &Failure::Status { status: 400, words, excerpt }, true);
        assert_eq!(&*apart.fate(3).unwrap().reason, "answered 400: no such user: user-17");
        assert_eq!(apart.first_dead(), Some((3, "answered 400")));

        // A receiver may name a part of the record in what it says of each.
        let mut told = partial(&[5], &[]);
        told.rejected[0].reason = "invalid user-17".to_owned();
        let mut apart = Apart::default();
        apart.take_in(&told, &(0..10), &Except::default(), 0).unwrap();
        assert_eq!(&*apart.fate(5).unwrap().reason, "invalid user-17");
        assert!(!apart.first_dead().unwrap().1.contains("user-17"));
    }

    proptest! {
        /// However answers set records apart: the parts are in order, and each record is sent or settles in one way.
        #[test]
        fn every_record_is_either_sent_or_has_one_fate(
            fates in btree_map(0u64..60, 0usize..3, 0..60),
            filtered in btree_set(0u64..60, 0..30),
        ) {
            let filtered = Except::of(filtered.into_iter().map(|at| at..at + 1));
            let mut apart = Apart::default();
            for round in 0..3 {
                let of = |held: bool| {
                    let mine = |(at, fate): (&u64, &usize)| (*fate == round && (at % 2 == 0) == held).then_some(*at);
                    fates.iter().filter_map(mine).filter(|at| !filtered.contains(*at)).collect::<Vec<_>>()
                };
                let (rejected, held) = (of(false), of(true));
                let except = apart.except(&filtered);
                let taken = apart.take_in(&partial(&rejected, &held), &(0..60), &except, 0);
                prop_assert_eq!(taken.is_err(), rejected.is_empty() && held.is_empty());
            }
            let except = apart.except(&filtered);
            let parts = apart.parts();
            prop_assert!(parts.is_sorted_by(|a, b| a.0.end <= b.0.start));
            for at in 0..60 {
                let fate = parts.iter().find(|(part, _)| part.contains(&at)).map(|(_, as_)| *as_);
                let named = fates.contains_key(&at) && !filtered.contains(at);
                prop_assert_eq!(fate, named.then_some(if at % 2 == 0 { Settled::Held } else { Settled::DeadLettered }));
                prop_assert_eq!(except.contains(at), named || filtered.contains(at));
            }
            prop_assert_eq!(apart.told_dead() + apart.held(), apart.len());
        }
    }
}
