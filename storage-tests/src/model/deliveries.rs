//! What receivers see of deliveries, on paper: what came under which id, and what its sender heard of it.
//!
//! It knows no bytes: `R` names a record. A batch has the same records whenever it comes, less those that have ended; a
//! record comes in one batch, or in a part of that after that was too large or rejected in part. What is otherwise is a panic.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::sync::Arc;

/// What became of records that were posted together, as far as who posted them knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Answered with 2xx: each must come.
    Acknowledged,
    /// Answered with another status: none may come.
    Refused(u16),
    /// Cut off: all may come, or none.
    Unknown,
}

/// What a sender heard of a request.
#[derive(Debug, Clone)]
pub enum Heard<R> {
    /// All that it carried is taken.
    Taken,
    /// These never will be taken, and all else of it is to come again, or its batch in parts.
    NothingBut(Vec<R>),
    /// It is too large: its batch may come in parts from now on.
    TooLarge,
    /// Nothing that ends anything.
    Nothing,
}

/// All that came to one receiver.
#[derive(Debug, Clone, Default)]
pub struct Deliveries<R> {
    batches: BTreeMap<Arc<str>, Batch>,
    records: BTreeMap<R, Record>,
    /// Batches that came again with something that had been taken: in which life it was, and in which they came.
    again: Vec<(Arc<str>, usize, usize)>,
}

#[derive(Debug, Clone)]
struct Batch {
    records: usize,
    divisible: bool,
}

#[derive(Debug, Clone, Default)]
struct Record {
    id: Arc<str>,
    /// The last life of its sender in which it came, and the first and the last in which that heard that it is taken.
    came: usize,
    taken: Option<(usize, usize)>,
    rejected: bool,
}

impl<R: Clone + Debug + Ord> Deliveries<R> {
    /// A request came, of its sender in one of its lives, with what is left of the batch of an id.
    pub fn comes(&mut self, life: usize, id: &str, batch: &[R], left: &[R], heard: &Heard<R>) {
        let all: BTreeSet<&R> = batch.iter().collect();
        assert!(!all.is_empty() && all.len() == batch.len(), "batch {id} is empty, or has a record twice: {batch:?}");
        let before: BTreeSet<Option<&str>> = all.iter().map(|record| Some(&*self.records.get(record)?.id)).collect();
        let whole = before.first().copied().flatten();
        let fits = match (self.batches.get(id), whole.map(|whole| &self.batches[whole])) {
            (None, None) => true,
            (None, Some(whole)) => whole.divisible && all.len() < whole.records,
            (Some(known), _) => whole == Some(id) && all.len() == known.records,
        };
        assert!(fits && before.len() == 1, "batch {id} came with {batch:?}, which came in {before:?} before");
        let id = Arc::<str>::from(id);
        let known = self.batches.entry(Arc::clone(&id)).or_insert(Batch { records: all.len(), divisible: false });
        known.divisible |= matches!(heard, Heard::TooLarge | Heard::NothingBut(_));
        let left: BTreeSet<&R> = left.iter().collect();
        assert!(left.is_subset(&all), "{id} carries {left:?}, and has {all:?}");
        let mut taken_before = None;
        for record in batch {
            let known = self.records.entry(record.clone()).or_default();
            known.id = Arc::clone(&id);
            if !left.contains(record) {
                assert!(known.taken.is_some() || known.rejected, "{id} came without {record:?}, which waits for it");
                continue;
            }
            known.came = known.came.max(life);
            taken_before = taken_before.max(known.taken.map(|(_, last)| last));
            match heard {
                Heard::NothingBut(bad) if bad.contains(record) => known.rejected = true,
                Heard::Taken => known.taken = Some((known.taken.map_or(life, |(first, _)| first), life)),
                Heard::NothingBut(_) | Heard::TooLarge | Heard::Nothing => {}
            }
        }
        self.again.extend(taken_before.map(|taken| (id, taken, life)));
    }

    /// All that came, and under which id it did last.
    pub fn ids(&self) -> impl Iterator<Item = (&R, &str)> {
        self.records.iter().map(|(record, known)| (record, &*known.id))
    }

    /// What came, and of which nobody heard that it was taken.
    pub fn never_taken(&self) -> Vec<&R> {
        self.records.iter().filter(|(_, known)| known.taken.is_none()).map(|(record, _)| record).collect()
    }

    /// Everything acknowledged came, nothing that was refused or never sent did, and nothing in part.
    pub fn hold(&self, at: &str, posts: &[(&[R], Fate)]) {
        let (mut sent, mut missing) = (0, Vec::new());
        for &(post, fate) in posts {
            let here = post.iter().filter(|record| self.records.contains_key(record)).count();
            sent += here;
            match fate {
                Fate::Acknowledged if here < post.len() => missing.push(post),
                Fate::Refused(status) => assert_eq!(here, 0, "{at} has {post:?}, refused with {status}"),
                _ => assert!(here == 0 || here == post.len(), "{at} has a part of {post:?}"),
            }
        }
        assert!(missing.is_empty(), "{at} lacks {} acknowledged posts, {:?} first", missing.len(), missing[0]);
        assert_eq!(sent, self.records.len(), "{at} has what nobody sent");
    }

    /// What was taken comes again only where a kill took the news of it along. `deaths` holds of each life that ended by
    /// a kill how many records its sender knew to be taken, durably; of what was taken by then no more records may come
    /// again than were not. Returns how many requests did.
    pub fn repeats_excused_by(&self, deaths: &BTreeMap<usize, u64>) -> usize {
        for (id, taken, life) in &self.again {
            assert!(life > taken, "batch {id} came again in life {life}, which knew that it was taken");
            assert!(deaths.contains_key(taken), "batch {id} came again, though life {taken} ended in good order");
        }
        let mut lives = BTreeMap::<(usize, usize), u64>::new();
        for known in self.records.values() {
            known.taken.into_iter().for_each(|(first, _)| *lives.entry((first, known.came)).or_default() += 1);
        }
        let mut durable = 0;
        for (&life, &known) in deaths {
            durable = durable.max(known);
            let by_then = lives.iter().filter(|((taken, _), _)| *taken <= life);
            let taken: u64 = by_then.clone().map(|(_, records)| records).sum();
            let again: u64 = by_then.filter(|((_, came), _)| *came > life).map(|(_, records)| records).sum();
            assert!(durable <= taken, "life {life} says that {durable} records are delivered, and {taken} were taken");
            assert!(again <= taken - durable, "{again} came again after life {life}: durable, {durable} of {taken}");
        }
        self.again.len()
    }
}
