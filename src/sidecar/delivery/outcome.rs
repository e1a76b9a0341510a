//! What came of one attempt to deliver a batch. The sink says it; the worker obeys it. Pure.
//!
//! Only a record that the destination rejects by itself is ever taken out of its way, and then it is kept as a dead
//! letter; whatever else is not [`Outcome::Delivered`] waits and is sent again under the same id.

use std::fmt;
use std::time::Duration;

use forebay::mutants::{self, Mutant};

/// What came of one attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The destination has taken all records of the batch.
    Delivered,
    /// The destination is there and asks for a pause.
    Throttled {
        /// Nothing may be sent to the whole destination before this has passed, counted from now.
        retry_after: Option<Duration>,
        /// What it answered.
        why: Failure,
    },
    /// Anything else: it may or may not have taken the batch. Unknown answers are this.
    Retry {
        /// What happened.
        why: Failure,
    },
    /// The request is larger than the destination takes. It has taken nothing of it.
    TooLarge {
        /// What it answered.
        why: Failure,
    },
    /// The destination rejects the batch for what is in it, without saying which records. It has taken nothing of it.
    Rejected {
        /// What it answered.
        why: Failure,
    },
    /// Some records are apart from the rest, and it has taken nothing.
    Partial(Partial),
    /// The destination refuses whatever is sent: credentials, address, permission. No fault of the records.
    Refused {
        /// What it answered.
        why: Failure,
    },
    /// The destination refuses what comes from the batch's queue, whatever that is, and not what others do: the sender's
    /// credentials.
    QueueRefused {
        /// What it answered.
        why: Failure,
    },
}

/// An answer that tells records apart. It took none of the request: what it does not name can be sent again at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partial {
    /// Records that the destination never takes, in the order of their offsets.
    pub rejected: Vec<RejectedRecord>,
    /// Records that may not be sent before some time has passed, in the order of their offsets; none of them is among
    /// the rejected.
    pub held: Vec<HeldRecord>,
    /// What it answered.
    pub why: Failure,
}

/// A record that its destination never takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RejectedRecord {
    /// Its offset in the stream.
    pub offset: u64,
    /// Why, in words for people; bounded by the sink.
    pub reason: String,
}

/// A record that its destination does not take yet, while it takes others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldRecord {
    /// Its offset in the stream.
    pub offset: u64,
    /// Counted from now.
    pub wait: Duration,
}

impl Outcome {
    /// Why it was not, or not wholly, delivered.
    #[must_use]
    pub fn failure(&self) -> Option<&Failure> {
        match self {
            Outcome::Delivered => None,
            Outcome::Partial(Partial { why, .. }) => Some(why),
            Outcome::Throttled { why, .. }
            | Outcome::Retry { why }
            | Outcome::TooLarge { why }
            | Outcome::Rejected { why }
            | Outcome::Refused { why }
            | Outcome::QueueRefused { why } => Some(why),
        }
    }
}

/// Why an attempt did not deliver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// The destination answered, but not with a success.
    Status {
        /// The HTTP status.
        status: u16,
        /// What it says, in words that can hold no record and no secret: ours, a protocol's, or those of a store, which reads
        /// none of what it keeps. May be empty.
        words: String,
        /// The start of the answer's body, made printable; may be empty. A receiver may repeat in it what it was sent, so
        /// it is kept with the letter, which holds the record as well, and is shown nowhere else.
        excerpt: String,
    },
    /// No whole answer before the deadline.
    Timeout,
    /// No connection: name not found, refused, TLS.
    Connect(String),
    /// The connection ended in the middle of the request or of the answer.
    Broken(String),
    /// The disk of a file destination.
    Disk(String),
    /// Nothing was sent: the fault is on our side (the plan could not be stored, the batch not be encoded).
    Local(String),
    /// The log's disk can't be read where the batch lies. Others of the destination's lie elsewhere.
    Unread(String),
    /// The destination's loop ran into a mistake of Forebay's own, and was begun anew.
    Panic(String),
}

/// An HTTP answer, sorted: what a webhook's status means. `retry_after` is the answer's own wish, if any; `why` says what
/// it answered.
///
/// 2xx is a success and nothing else is. 429 and 503 ask for a pause; so does any other answer that says for how long.
#[must_use]
pub fn classify(status: u16, retry_after: Option<Duration>, why: impl FnOnce() -> Failure) -> Outcome {
    if (200..300).contains(&status) || mutants::on(Mutant::RedirectDelivers) && (300..400).contains(&status) {
        return Outcome::Delivered;
    }
    let why = why();
    match status {
        429 | 503 => Outcome::Throttled { retry_after, why },
        _ if retry_after.is_some() => Outcome::Throttled { retry_after, why },
        _ => Outcome::Retry { why },
    }
}

impl Failure {
    /// With the start of the answer's body, for the letter.
    #[must_use]
    pub fn in_full(&self) -> String {
        match self {
            Failure::Status { excerpt, .. } if !excerpt.is_empty() => format!("{self}: {excerpt}"),
            _ => self.to_string(),
        }
    }

    /// An answer that says nothing else.
    #[cfg(test)]
    pub(crate) fn status(status: u16) -> Self {
        Self::Status { status, words: String::new(), excerpt: String::new() }
    }
}

/// For log lines and errors: no record shows in it.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Status { status, words, .. } if words.is_empty() => write!(f, "answered {status}"),
            Failure::Status { status, words, .. } => write!(f, "answered {status}: {words}"),
            Failure::Timeout => f.write_str("no answer before the timeout"),
            Failure::Connect(why) => write!(f, "cannot connect: {why}"),
            Failure::Broken(why) => write!(f, "connection broke: {why}"),
            Failure::Disk(why) => write!(f, "disk: {why}"),
            Failure::Local(why) => f.write_str(why),
            Failure::Unread(why) => write!(f, "the batch could not be read: {why}"),
            Failure::Panic(why) => write!(f, "the destination's loop panicked and is begun anew: {why}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn hour() -> Option<Duration> {
        Some(Duration::from_secs(3600))
    }

    #[test]
    fn only_2xx_delivers() {
        for status in 0..1000 {
            let delivered = classify(status, None, || Failure::status(status)) == Outcome::Delivered;
            assert_eq!(delivered, (200..300).contains(&status), "{status}");
        }
    }

    #[test]
    fn a_success_stays_a_success_with_a_retry_after() {
        assert_eq!(classify(202, hour(), || Failure::status(202)), Outcome::Delivered);
    }

    #[test]
    fn too_many_requests_and_unavailable_are_throttles_even_without_a_hint() {
        for status in [429, 503] {
            let outcome = classify(status, None, || Failure::status(status));
            assert!(matches!(outcome, Outcome::Throttled { retry_after: None, .. }));
        }
        assert!(matches!(classify(500, None, || Failure::status(500)), Outcome::Retry { .. }));
    }

    proptest! {
        #[test]
        fn a_failure_that_says_how_long_is_a_throttle_of_that_length(status in 300u16..1000) {
            let outcome = classify(status, hour(), || Failure::status(status));
            let obeyed = matches!(outcome, Outcome::Throttled { retry_after, .. } if retry_after == hour());
            prop_assert!(obeyed);
        }
    }

    #[test]
    fn a_failure_says_what_was_answered_and_nothing_that_may_repeat_a_record() {
        let said = |words: &str| {
            let (words, excerpt) = (words.to_owned(), "no such user: user-17".to_owned());
            Failure::Status { status: 502, words, excerpt }.to_string()
        };
        assert_eq!((said("").as_str(), said("SlowDown").as_str()), ("answered 502", "answered 502: SlowDown"));
    }
}
