//! Places at which a process can be made to die: before and after each line that changes the disk, or promises something.
//!
//! `FOREBAY_FAILPOINT=FloorSync:before:3` kills the process (SIGKILL, by its own hand) when it comes there for the third
//! time; `after` is behind that line; with `:panic` behind it the thread panics instead. In test builds alone, as mutants are: with the feature `mutants` *and* debug assertions.
//! Everywhere else nothing of it is left. Who makes a process die where, and looks at what it leaves, is in
//! `storage-tests/tests/failpoints.rs` and the sidecar's `tests/process/failpoints.rs`. No part of the API.

macro_rules! points {
    ($($part:ident { $($name:ident: $what:literal,)* })*) => {
        /// Such a place.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Point {
            $($(#[doc = $what] $name,)*)*
        }

        impl Point {
            /// All of them.
            pub const ALL: &[Self] = &[$($(Self::$name),*),*];

            $(
                /// Those of a part of the house.
                pub const $part: &[Self] = &[$(Self::$name),*];
            )*

            /// What happens there.
            #[must_use]
            pub const fn what(self) -> &'static str {
                match self {
                    $($(Self::$name => $what,)*)*
                }
            }
        }
    };
}

points! {
    LOG {
        SegmentTake: "a spare becomes a segment by its new name",
        SegmentNameSync: "a segment's name is synced",
        SegmentHeader: "a segment's header is written",
        SegmentRetire: "a segment is full, and the next one takes its place",
        FramesWrite: "frames are written",
        FramesSync: "frames are synced",
        FramesPublish: "readers see what is durable",
        AppendsAnswer: "appends are answered",
        ReadersWake: "readers are told of more",
        LastCut: "at a close, a segment is cut to what it holds",
        LastSync: "at a close, a segment is synced",
        SpareMake: "a spare's file is made",
        SpareAllocate: "a spare's blocks are taken",
        SpareSync: "a spare is synced",
        SmallWrite: "an index or a table is written",
        SmallCut: "an index or a table is cut to its length",
        SmallSync: "an index or a table is synced",
        IndexNameSync: "an index's name is synced",
        ReclaimTable: "the table is written before segments go",
        IndexRemove: "an index is removed",
        SegmentRecycle: "a segment that nobody needs becomes a spare by its new name",
        SegmentRemove: "a segment that nobody needs is removed",
        ReclaimSync: "the going of segments is synced",
        CompactWrite: "a compact segment is written",
        CompactSync: "a compact segment is synced",
        CompactTable: "the table is written before a compact segment takes its place",
        CompactName: "a compact segment gets its name",
        CompactNameSync: "a compact segment's name is synced",
        CompactPlace: "readers find a compact segment",
        CompactLeftovers: "the indexes of what was compacted are gone, and that is synced",
        OpenTables: "at an open, a table that is not sound is written",
        OpenRewrite: "at an open, frames that may not be durable are written anew",
        OpenCut: "at an open, a torn end is cut",
        OpenCutSync: "at an open, what is kept and what was cut is synced",
        OpenTable: "at an open, the table is written",
    }
    QUEUES {
        FloorMake: "a new floor's file is made",
        FloorFill: "a new floor is written",
        FloorFillSync: "a new floor is synced",
        FloorName: "a new floor takes the old one's name",
        FloorNameSync: "a new floor's name is synced",
        FloorWrite: "pages of the floor are written",
        FloorSync: "pages of the floor are synced",
        TickCollect: "a tick takes the cursors that moved",
        TickHints: "the sled index gets its hints",
        TickConfirm: "cursors count as durable",
        TickTrim: "the log hears what nobody needs",
        SledStore: "sled takes a batch and flushes it",
        PlansAppend: "plans are appended",
        PlansAnswer: "who asked for plans hears that they are durable",
        Settle: "records are settled",
    }
    SIDECAR {
        ReplyDurable: "a post's impressions are durable",
        Send: "a batch is sent",
        Put: "an object is sent",
        ObjectPut: "an object is put into the bucket",
        Finish: "a batch that was taken is settled",
        LettersKeep: "the letters of a batch are kept",
        LettersAppend: "letters are appended",
        LettersSettle: "the batch of letters that are kept is settled",
        ControlAppend: "a decision of an operator is written down",
        ControlApply: "a decision of an operator counts",
        FileMake: "a destination's file is made",
        FileNameSync: "the name of a destination's file is synced",
        FileWrite: "lines are written",
        FileSync: "lines are synced",
        FileEnd: "a destination's file is ended by its new name",
        FileTakeUp: "at a start, a destination's file is synced and gone on with",
    }
}

/// Before what happens there.
#[inline]
pub fn before(point: Point) {
    reached(point, "before");
}

/// After it.
#[inline]
pub fn after(point: Point) {
    reached(point, "after");
}

/// Does it, between both.
#[inline]
pub fn around<T>(point: Point, act: impl FnOnce() -> T) -> T {
    before(point);
    let done = act();
    after(point);
    done
}

/// Awaits it, between both.
#[inline]
pub async fn around_async<T>(point: Point, act: impl Future<Output = T>) -> T {
    before(point);
    let done = act.await;
    after(point);
    done
}

#[cfg(all(feature = "mutants", debug_assertions))]
fn reached(point: Point, side: &str) {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    struct Armed {
        point: Point,
        side: String,
        /// How often it may still come there.
        left: AtomicU64,
        panics: bool,
    }

    static ARMED: OnceLock<Option<Armed>> = OnceLock::new();
    let parse = |text: String| {
        let wrong = || panic!("FOREBAY_FAILPOINT={text}: a point's name, before or after, and a number");
        let mut words = text.split(':');
        let point = Point::ALL.iter().copied().find(|point| words.clone().next() == Some(&*format!("{point:?}")));
        let (_, side, left) = (words.next(), words.next(), words.next().and_then(|left| left.parse().ok()));
        let (Some(point), Some(side @ ("before" | "after")), Some(left)) = (point, side, left) else { wrong() };
        Armed { point, side: side.to_owned(), left: AtomicU64::new(left), panics: words.next() == Some("panic") }
    };
    let armed = ARMED.get_or_init(|| std::env::var("FOREBAY_FAILPOINT").ok().map(parse));
    let Some(armed) = armed.as_ref().filter(|armed| armed.point == point && armed.side == side) else { return };
    if armed.left.fetch_sub(1, Ordering::Relaxed) == 1 {
        assert!(!armed.panics, "{point:?}, as it was told");
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        loop {
            std::thread::park(); // no line more, whatever the kernel is at
        }
    }
}

#[cfg(not(all(feature = "mutants", debug_assertions)))]
#[inline]
fn reached(_: Point, _: &str) {}
