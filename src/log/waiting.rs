//! The queue of appends: who goes with the next commit, and who waits for a large one to end.
//!
//! Reads and writes nothing. A large append is taken by itself, and one at a time; what comes behind it in its own stream, and
//! further large ones, wait aside until it has ended, while everybody else goes on. What always holds: the appends of one
//! stream leave in the order in which they came.

use super::limits::{COMMIT_APPENDS_MAX, COMMIT_BYTES_MAX};
use super::pending::Pending;
use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

/// Appends that wait for the writer.
#[derive(Default)]
pub(super) struct Waiting {
    appends: VecDeque<Pending>,
    /// What waits until the large append under way has ended. Each came before all of its stream in `appends`.
    aside: VecDeque<Pending>,
    /// The streams of `aside`.
    streams_aside: HashSet<Arc<str>>,
    pub(super) bytes: usize,
    pub(super) closed: bool,
    /// The writer sleeps. Whoever wakes it takes this back: waking costs a system call even where nobody sleeps.
    pub(super) writer_sleeps: bool,
    /// Appends that sleep until the queue has room.
    pub(super) blocked: usize,
}

/// What the writer does next.
#[derive(Default)]
pub(super) struct Taken {
    /// One commit.
    pub(super) appends: Vec<Pending>,
    /// A large append, which comes behind these.
    pub(super) large: Option<Pending>,
}

// === impl Waiting ===

impl Waiting {
    pub(super) fn is_empty(&self) -> bool {
        self.appends.is_empty() && self.aside.is_empty()
    }

    pub(super) fn push(&mut self, append: Pending) {
        self.bytes += append.queued_bytes();
        self.appends.push_back(append);
    }

    /// Takes what goes into one commit, and at most one append of more than `large_bytes`: none while one of the stream
    /// `under_way` is.
    pub(super) fn take(&mut self, under_way: Option<&str>, large_bytes: usize) -> Taken {
        let mut taken = Taken::default();
        let mut bytes = 0;
        while let Some(next) = self.appends.front() {
            let more = next.queued_bytes();
            let is_large = more > large_bytes;
            let before = under_way.or(taken.large.as_ref().map(|large| &*large.stream));
            if before == Some(&*next.stream)
                || self.streams_aside.contains(&next.stream)
                || (is_large && before.is_some())
            {
                self.streams_aside.insert(Arc::clone(&next.stream));
                self.aside.extend(self.appends.pop_front());
            } else if is_large {
                self.bytes -= more;
                taken.large = self.appends.pop_front();
            } else if taken.appends.len() >= COMMIT_APPENDS_MAX || (bytes > 0 && bytes + more > COMMIT_BYTES_MAX) {
                break;
            } else {
                bytes += more;
                taken.appends.extend(self.appends.pop_front());
            }
        }
        self.bytes -= bytes;
        taken
    }

    /// No large append is under way any more: what waited for its end is next.
    pub(super) fn large_one_ended(&mut self) {
        self.streams_aside.clear();
        self.aside.append(&mut self.appends);
        std::mem::swap(&mut self.aside, &mut self.appends);
    }
}

// === impl Taken ===

impl Taken {
    pub(super) fn is_empty(&self) -> bool {
        self.appends.is_empty() && self.large.is_none()
    }

    pub(super) fn len(&self) -> usize {
        self.appends.len() + usize::from(self.large.is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::limits::FRAME_HEADER_BYTES;
    use crate::log::options::Payload;
    use proptest::prelude::*;

    const HEADER: usize = FRAME_HEADER_BYTES as usize;
    const LARGE: usize = 100 + HEADER;

    /// An append whose first byte says which.
    fn push(waiting: &mut Waiting, stream: &str, nth: u8, len: usize) {
        let part = Payload { bytes: vec![nth; len], records: 1 };
        waiting.push(Pending::new(stream, vec![part], Box::new(|_| ())));
    }

    fn nth(append: &Pending) -> u8 {
        append.parts[0].0.bytes[0]
    }

    fn take(waiting: &mut Waiting, under_way: Option<&str>) -> (Vec<u8>, Option<u8>) {
        let taken = waiting.take(under_way, LARGE);
        (taken.appends.iter().map(nth).collect(), taken.large.as_ref().map(nth))
    }

    #[test]
    fn a_large_append_holds_up_its_own_stream_and_other_large_ones_and_nobody_else() {
        let mut waiting = Waiting::default();
        for (n, (stream, len)) in
            [("a", 1), ("a", 200), ("b", 1), ("a", 1), ("c", 200), ("b", 1), ("c", 1)].iter().enumerate()
        {
            push(&mut waiting, stream, n as u8, *len);
        }
        assert_eq!(take(&mut waiting, None), (vec![0, 2, 5], Some(1)));
        assert_eq!(waiting.bytes, 202 + 3 * HEADER, "what waits aside counts");
        push(&mut waiting, "b", 7, 1);
        push(&mut waiting, "c", 8, 1);
        assert_eq!(take(&mut waiting, Some("a")), (vec![7], None), "c has one aside that came before");
        assert!(!waiting.is_empty());
        waiting.large_one_ended();
        assert_eq!(take(&mut waiting, None), (vec![3], Some(4)));
        waiting.large_one_ended();
        assert_eq!(take(&mut waiting, None), (vec![6, 8], None));
        assert!(waiting.is_empty());
        assert_eq!(waiting.bytes, 0);
    }

    #[test]
    fn a_commit_takes_so_many_appends_and_so_many_bytes_and_one_however_large() {
        let mut waiting = Waiting::default();
        let mut commits = |lens: &[usize]| {
            lens.iter().for_each(|len| push(&mut waiting, "a", 0, *len));
            let mut take = || Some(waiting.take(None, usize::MAX).appends.len()).filter(|taken| *taken > 0);
            let commits: Vec<usize> = std::iter::from_fn(&mut take).collect();
            assert_eq!(waiting.bytes, 0);
            commits
        };
        assert_eq!(commits(&[0; COMMIT_APPENDS_MAX + 1]), [COMMIT_APPENDS_MAX, 1]);
        let half = COMMIT_BYTES_MAX / 2 - HEADER;
        assert_eq!(commits(&[half, half, 0]), [2, 1], "just as many as may be");
        assert_eq!(commits(&[half, half + 1]), [1, 1], "one more");
        assert_eq!(commits(&[COMMIT_BYTES_MAX, 0]), [1, 1], "too large for any, and alone");
    }

    proptest! {
        #[test]
        fn each_append_leaves_once_and_those_of_a_stream_in_their_order(
            appends in proptest::collection::vec((0usize..3, prop_oneof![3 => 1usize..50, 1 => 101usize..150]), 0..60),
            steps in 1usize..4, at_once in 1usize..20,
        ) {
            let names = ["a", "b", "c"];
            let mut waiting = Waiting::default();
            let mut left = vec![Vec::new(); names.len()];
            let mut came = vec![Vec::new(); names.len()];
            let mut under_way: Option<(String, usize)> = None;
            let mut coming = appends.iter().enumerate();
            loop {
                for (n, (stream, len)) in coming.by_ref().take(at_once) {
                    push(&mut waiting, names[*stream], n as u8, *len);
                    came[*stream].push(n as u8);
                }
                let taken = waiting.take(under_way.as_ref().map(|(stream, _)| stream.as_str()), LARGE);
                if taken.is_empty() && under_way.is_none() && coming.len() == 0 {
                    break;
                }
                for append in taken.appends.iter().chain(&taken.large) {
                    let stream = names.iter().position(|name| *name == &*append.stream).expect("one of them");
                    left[stream].push(nth(append));
                }
                if let Some(large) = &taken.large {
                    prop_assert!(under_way.is_none(), "one at a time");
                    under_way = Some((large.stream.to_string(), steps));
                }
                if let Some((_, steps)) = &mut under_way {
                    *steps -= 1;
                    if *steps == 0 {
                        under_way = None;
                        waiting.large_one_ended();
                    }
                }
            }
            prop_assert_eq!(left, came);
            prop_assert!(waiting.is_empty() && waiting.bytes == 0);
        }
    }
}
