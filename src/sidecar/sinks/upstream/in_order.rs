//! A key's queue of posts, one post at a time: what keeps them in order.
//!
//! What always holds: of the posts that are claimed all but one lie aside; the next one is claimed after the one before was
//! settled or set aside, or is that same post again. One lies aside when it was rejected: it lets the next one pass, for the
//! loop needs to see whether anything is taken before it calls the post poison. Adds no order of its own: it is the
//! queue's.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use forebay::{LogId, Settled, StreamId, Waiting};

use crate::delivery::heavy::Heavy;
use crate::delivery::sink::LargeJob;
use crate::delivery::source::{BoxError, Claimed, Limits, Source, Stored, Ticket};
use crate::post;

/// One SDK key's queue.
pub struct InOrder {
    turn: Arc<Turn>,
}

/// Whose turn it is.
struct Turn {
    inner: Arc<dyn Source>,
    out: Mutex<Out>,
    wake: Mutex<Option<Arc<dyn Fn() + Send + Sync>>>,
}

/// Posts that are claimed.
#[derive(Debug, Default)]
struct Out {
    claimed: u32,
    /// Those of them that lie aside.
    aside: u32,
}

impl InOrder {
    /// The queue `inner` of one key.
    #[must_use]
    pub fn new(inner: Arc<dyn Source>) -> Self {
        Self { turn: Arc::new(Turn { inner, out: Mutex::default(), wake: Mutex::default() }) }
    }
}

impl Source for InOrder {
    fn has_more(&self) -> bool {
        !self.turn.out().busy() && self.turn.inner.has_more()
    }

    fn in_memory(&self, limits: Limits) -> bool {
        self.turn.inner.in_memory(limits)
    }

    fn next(&self, limits: Limits) -> Result<Option<Claimed>, BoxError> {
        // Gives the turn back however this ends, unless a post is claimed: then the post's end does.
        let Some(mut held) = self.turn.take() else { return Ok(None) };
        let Some(Claimed { job, ticket }) = self.turn.inner.next(Limits { records_max: 1, ..limits })? else {
            return Ok(None);
        };
        (held.claimed, held.ticket) = (true, Some(ticket));
        Ok(Some(Claimed { job, ticket: Box::new(held) }))
    }

    fn next_large(&self, _: Limits, _: Option<u64>, _: &Heavy) -> Result<Option<Claimed<LargeJob>>, BoxError> {
        Err("a post is held in memory while it is sent, and never claimed as a range".into())
    }

    fn waiting(&self) -> Result<Waiting, BoxError> {
        self.turn.inner.waiting()
    }

    fn on_more(&self, wake: Arc<dyn Fn() + Send + Sync>) {
        *self.turn.wake.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&wake));
        self.turn.inner.on_more(wake);
    }

    fn stream(&self) -> String {
        self.turn.inner.stream()
    }

    fn sender(&self, _: LogId, _: StreamId) -> String {
        let stream = self.stream();
        post::stream_owner(&stream).map_or(stream.clone(), |(environment, place)| post::key_name(environment, place))
    }
}

/// A claimed post. Its end, whatever it is, gives the turn back.
struct InTurn {
    turn: Arc<Turn>,
    /// There was a post to claim.
    claimed: bool,
    /// It gave the turn to the next one.
    aside: AtomicBool,
    ticket: Option<Box<dyn Ticket>>,
}

impl InTurn {
    fn ticket(&self) -> &dyn Ticket {
        &**self.ticket.as_ref().expect("only settling and splitting take it, and those take this")
    }
}

impl Ticket for InTurn {
    fn plan(&self, done: Box<dyn FnOnce(Result<(), BoxError>) + Send>) {
        self.ticket().plan(done);
    }

    fn to_be_split(&self) -> Option<u64> {
        self.ticket().to_be_split()
    }

    fn settle(mut self: Box<Self>, parts: &[(Range<u64>, Settled)], rest: Settled) {
        if let Some(ticket) = self.ticket.take() {
            ticket.settle(parts, rest);
        }
    }

    fn set_aside(&self) {
        if !self.aside.swap(true, Ordering::AcqRel) {
            self.turn.out().aside += 1;
            self.turn.pass();
        }
    }

    fn split(mut self: Box<Self>, at: u64, done: Box<dyn FnOnce(Result<(), BoxError>) + Send>) {
        match self.ticket.take() {
            // One post has no halves, so this is handed back as it was.
            Some(ticket) => ticket.split(at, done),
            None => done(Err("the post is settled".into())),
        }
    }

    fn letters(&self, offsets: &[u64]) -> Result<Vec<Stored>, BoxError> {
        self.ticket().letters(offsets)
    }
}

impl Drop for InTurn {
    fn drop(&mut self) {
        // First handed back, so that it is the next one: its return wakes, and finds the turn taken.
        drop(self.ticket.take());
        let mut out = self.turn.out();
        out.claimed -= 1;
        out.aside -= u32::from(self.aside.load(Ordering::Acquire));
        drop(out);
        if self.claimed {
            self.turn.pass();
        }
    }
}

impl Turn {
    /// Takes the turn for the next post, if it is free.
    fn take(self: &Arc<Self>) -> Option<InTurn> {
        let mut out = self.out();
        if out.busy() {
            return None;
        }
        out.claimed += 1;
        drop(out);
        Some(InTurn { turn: Arc::clone(self), claimed: false, aside: AtomicBool::new(false), ticket: None })
    }

    /// Wakes whoever may take the next post.
    fn pass(&self) {
        if self.out().busy() || !self.inner.has_more() {
            return;
        }
        let wake = self.wake.lock().unwrap_or_else(PoisonError::into_inner).clone();
        wake.inspect(|wake| wake());
    }

    fn out(&self) -> MutexGuard<'_, Out> {
        // Nothing that can panic runs between two changes of it.
        self.out.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Out {
    fn busy(&self) -> bool {
        self.claimed > self.aside
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;
    use crate::delivery::except::Except;
    use crate::delivery::sink::{Environment, Job, Origin};

    /// A queue of posts that are claimed one after the other.
    #[derive(Default)]
    struct Posts {
        next: AtomicUsize,
    }

    /// A claim that is never settled.
    struct Post;

    impl Source for Posts {
        fn has_more(&self) -> bool {
            true
        }

        fn in_memory(&self, _: Limits) -> bool {
            true
        }

        fn next(&self, limits: Limits) -> Result<Option<Claimed>, BoxError> {
            assert_eq!(limits.records_max, 1);
            let at = self.next.fetch_add(1, Ordering::SeqCst) as u64;
            let job = Job {
                id: "post".into(),
                origin: Origin { log: LogId(1), stream: StreamId(1), offsets: at..at + 1 },
                environment: Arc::new(Environment { id: "prod".to_owned(), name: "prod".to_owned() }),
                parts: Vec::new(),
                except: Except::default(),
                bytes: 1,
            };
            Ok(Some(Claimed { job, ticket: Box::new(Post) }))
        }

        fn next_large(&self, _: Limits, _: Option<u64>, _: &Heavy) -> Result<Option<Claimed<LargeJob>>, BoxError> {
            Ok(None)
        }

        fn waiting(&self) -> Result<Waiting, BoxError> {
            Ok(Waiting::default())
        }

        fn on_more(&self, _: Arc<dyn Fn() + Send + Sync>) {}

        fn stream(&self) -> String {
            post::stream("prod", 3)
        }
    }

    impl Ticket for Post {
        fn plan(&self, done: Box<dyn FnOnce(Result<(), BoxError>) + Send>) {
            done(Ok(()));
        }

        fn settle(self: Box<Self>, _: &[(Range<u64>, Settled)], _: Settled) {}

        fn split(self: Box<Self>, _: u64, done: Box<dyn FnOnce(Result<(), BoxError>) + Send>) {
            done(Ok(()));
        }

        fn letters(&self, _: &[u64]) -> Result<Vec<Stored>, BoxError> {
            Ok(Vec::new())
        }
    }

    /// Before, the line for a key that waits named a stream, and whoever read it had to know how those are named.
    #[test]
    fn whose_posts_they_are_is_told_by_the_place_of_the_key() {
        let source = InOrder::new(Arc::new(Posts::default()));
        assert_eq!(source.sender(LogId(1), StreamId(1)), "sdk key 3 of environment prod");
    }

    #[test]
    fn one_post_is_on_its_way_and_those_that_were_rejected_lie_aside() {
        let (source, woken) = (InOrder::new(Arc::new(Posts::default())), Arc::new(AtomicUsize::new(0)));
        let counted = Arc::clone(&woken);
        source.on_more(Arc::new(move || {
            counted.fetch_add(1, Ordering::SeqCst);
        }));
        let next =
            || source.next(Limits { records_max: 100, bytes_max: 1 << 20 }).unwrap().map(|claimed| claimed.ticket);
        let first = next().unwrap();
        assert!(!source.has_more() && next().is_none());
        first.set_aside();
        first.set_aside();
        assert_eq!(woken.load(Ordering::SeqCst), 1, "the next one may go");
        let second = next().unwrap();
        assert!(next().is_none());
        second.set_aside();
        let third = next().unwrap();
        drop(second);
        assert!(!source.has_more(), "the third is on its way, the first aside");
        third.settle(&[], Settled::Delivered);
        assert!(source.has_more(), "the first is aside still");
        drop(first);
        assert_eq!((next().is_some(), woken.load(Ordering::SeqCst)), (true, 4));
    }
}
