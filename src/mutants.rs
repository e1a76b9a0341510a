//! Faults put in on purpose, so that it is known which test notices each: the teeth of the tests.
//!
//! `FOREBAY_MUTANT=AppendNotSynced` switches one on, in test builds alone: with the feature `mutants` *and* debug
//! assertions. Everywhere else [`on`] is `false` when the code is compiled, and nothing of a mutant is left. Which test
//! kills which is said in `storage-tests/src/teeth.rs`. No part of the API.

use std::io;

macro_rules! mutants {
    ($($name:ident: $what:literal,)*) => {
        /// What is broken.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Mutant {
            $(#[doc = $what] $name,)*
        }

        impl Mutant {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// What is broken, in words.
            #[must_use]
            pub const fn what(self) -> &'static str {
                match self {
                    $(Self::$name => $what,)*
                }
            }
        }
    };
}

mutants! {
    AppendNotSynced: "appends are answered without a sync",
    SegmentNameNotSynced: "a new segment's name is not synced",
    FailedFileUsedAgain: "a file is written and synced again after it failed",
    TableNotSavedBeforeReclaim: "segments go before the table says what goes with them",
    RecycledWithoutLooking: "a file is recycled without a look whose it is",
    SmallFileNotSynced: "tables and indexes are written without a sync",
    SyncedMarkNotBelieved: "damage in the midst of a segment is cut off like a torn end",
    FramesBehindABreakTaken: "frames behind a broken one are taken though nobody was promised them",
    HalfAGroupKept: "a part of an append is kept",
    StepsCalledSynced: "the frames of a large append say that the steps before them count",
    SuccessorNotHeard: "where the next segment says that this one ends is not heard",
    DamagedTableLeft: "a damaged copy of the stream table is not made again",
    DamagedOffsetsForgotten: "offsets of damaged records are given again",
    KeptBytesNotWrittenAnew: "what the cache shows after a failed sync is taken for durable",
    CutNotSynced: "a torn end is cut without a sync",
    PayloadNotChecked: "the checksum of a payload is not looked at",
    FrameOfAnyPlaceTaken: "a frame is taken at any position",
    DamageSkipped: "readers go past damage without a word",
    OneRecordTrimmedTooMany: "the log is told of one record more than may go",
    BudgetOverrun: "segments are made beyond the budget",
    FloorNotSynced: "cursors are called durable without a sync",
    FloorNameNotSynced: "a new floor's name is not synced",
    TrimmedByOneSlot: "the log is trimmed by cursors that one slot of the floor holds",
    TrimmedAheadOfTheFloor: "the log is trimmed by cursors that are not durable",
    PlansLetGoAtOnce: "plans go with the cursor that settled them, not after it",
    FailedPlanTold: "a plan that could not be stored is called durable",
    NewIdEachTime: "a batch that comes again has another id",
    AnyHintBelieved: "the sled index is believed against the floor",
    ClaimSettles: "a batch counts as delivered when it is handed out, before any answer",
    FailureSettles: "a batch that failed or was throttled counts as delivered",
    RefusalSettles: "a batch that was refused counts as delivered",
    RedirectDelivers: "a redirect counts as a success",
    RetryAfterIgnored: "nobody waits as long as a Retry-After says",
    LettersNotAwaited: "a batch is settled before the letters of its records are durable",
    PartialTakenWhole: "what was to be sent again of a partial answer counts as delivered",
    AnswerReadWithoutEnd: "answers are read however long they are",
    FailureNotTriedAgain: "a destination that failed has no other turn",
    OrderNotKept: "a destination that gets its records in order is sent two batches at once",
    NothingKeptForOthers: "who hangs may hold all there is",
    SecretShown: "what an answer repeats of a secret is shown",
}

/// Whether this one is switched on.
#[cfg(all(feature = "mutants", debug_assertions))]
#[must_use]
pub fn on(mutant: Mutant) -> bool {
    use std::sync::OnceLock;
    static ON: OnceLock<Option<Mutant>> = OnceLock::new();
    let find = |name: String| {
        let found = Mutant::ALL.iter().find(|mutant| format!("{mutant:?}") == name);
        *found.unwrap_or_else(|| panic!("FOREBAY_MUTANT={name}: there is no such mutant"))
    };
    *ON.get_or_init(|| std::env::var("FOREBAY_MUTANT").ok().map(find)) == Some(mutant)
}

/// Whether this one is switched on: none ever is.
#[cfg(not(all(feature = "mutants", debug_assertions)))]
#[must_use]
pub const fn on(_: Mutant) -> bool {
    false
}

/// Does what it is told, unless the mutant is on.
pub(crate) fn unless(mutant: Mutant, act: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    if on(mutant) { Ok(()) } else { act() }
}

/// The same text, or one that never was where the mutant is on.
pub(crate) fn vary(mutant: Mutant, text: String) -> String {
    use std::sync::atomic::{AtomicU64, Ordering};
    static COUNT: AtomicU64 = AtomicU64::new(0);
    if on(mutant) { format!("{}{text}", COUNT.fetch_add(1, Ordering::Relaxed)) } else { text }
}
