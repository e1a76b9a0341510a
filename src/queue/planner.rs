//! Gathers plans of all queues into few appends: while one append is on its way the next plans gather, and then go as
//! one. No timer; a lone plan goes at once.
//!
//! Knows how to append only by a function that it is given, so it is tested without a log.

use super::limits::PLANS_WAITING_MAX;
use super::plan::{PLANS_PER_FRAME_MAX, PlanRecord, encode};
use crate::failpoints::{self, Point};
use crate::mutants::{self, Mutant};
use crate::sync::{Arc, Mutex, MutexGuard, PoisonError};
use crate::{AppendError, Appended, Done, Payload};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

/// Gathers plans. Clones are the same planner.
#[derive(Clone)]
pub(crate) struct Planner {
    shared: Arc<Shared>,
}

struct Shared {
    append: AppendPlans,
    state: Mutex<State>,
}

/// Appends to the stream of plans; must not block.
pub(crate) type AppendPlans = Box<dyn Fn(Vec<Payload>, Done) -> Result<(), AppendError> + Send + Sync>;

/// Called with the plan's offset when it is durable, on the writer's thread. A second half has the next one.
pub(crate) type Planned = Box<dyn FnOnce(Result<u64, PlanError>) + Send>;

/// Plans that become durable together, in one frame: one, or the two halves of a split.
struct Submitted {
    plan: PlanRecord,
    half: Option<PlanRecord>,
    planned: Planned,
}

#[derive(Default)]
struct State {
    waiting: Vec<Submitted>,
    /// No plan of the append that is on its way has an offset below.
    on_its_way: Option<u64>,
    /// Somebody is in [`Planner::send`], and sends what gathers before they leave it. An append may be answered before its call
    /// returns, and whoever is told may plan again: that must not go deeper and deeper.
    sending: bool,
}

/// Who waits for an append, and which of its plans is theirs.
type Waiting = Vec<(u64, Planned)>;

/// Why a batch has no durable plan: it must not be sent yet. Give it back; it comes again with the same boundaries.
#[derive(Debug, Clone, thiserror::Error)]
pub enum PlanError {
    /// The log did not take it.
    #[error("the plan is not durable")]
    Append(#[from] Arc<AppendError>),
    /// The queue was deleted.
    #[error("the queue of this batch was deleted: do not send it")]
    Deleted,
    /// Too many plans wait already.
    #[error("{waiting} plans wait already; settle or give back batches first")]
    Busy {
        /// Plans that wait.
        waiting: usize,
    },
    /// The batch was to be split and that could not be made durable, or not for certain: after a crash either the batch
    /// or its halves come again. So it must not be sent whole any more.
    #[error("a split of this batch is not settled: split it again, at {at} or elsewhere, and send the halves")]
    SplitFailed {
        /// Where it was to be split.
        at: u64,
    },
}

impl Planner {
    pub(crate) fn new(append: AppendPlans) -> Self {
        Self { shared: Arc::new(Shared { append, state: Mutex::default() }) }
    }

    /// Makes a plan durable. `tail` is the durable tail of the stream of plans now.
    pub(crate) fn submit(&self, plan: PlanRecord, tail: u64, planned: Planned) {
        self.submit_all(Submitted { plan, half: None, planned }, tail);
    }

    /// Makes the two halves of a split durable: both or, whatever happens, neither.
    pub(crate) fn submit_halves(&self, [plan, half]: [PlanRecord; 2], tail: u64, planned: Planned) {
        self.submit_all(Submitted { plan, half: Some(half), planned }, tail);
    }

    fn submit_all(&self, submitted: Submitted, tail: u64) {
        let mut state = self.lock();
        let waiting = state.waiting.len();
        if waiting >= PLANS_WAITING_MAX {
            drop(state);
            return (submitted.planned)(Err(PlanError::Busy { waiting }));
        }
        state.waiting.push(submitted);
        self.send(state, tail);
    }

    /// Makes plans durable that are so already, behind all others. Each is asked for while nobody else can submit one: what it
    /// says then is not overtaken by what replaces it. As many as there is room for.
    pub(crate) fn submit_again<P>(&self, tail: u64, plans: impl Iterator<Item = P>)
    where
        P: FnOnce() -> Option<(PlanRecord, Planned)>,
    {
        let mut state = self.lock();
        let room = PLANS_WAITING_MAX.saturating_sub(state.waiting.len());
        let again = plans.filter_map(|plan| plan()).take(room);
        state.waiting.extend(again.map(|(plan, planned)| Submitted { plan, half: None, planned }));
        self.send(state, tail);
    }

    /// The least offset that a plan on its way may get.
    pub(crate) fn on_its_way(&self) -> Option<u64> {
        self.lock().on_its_way
    }

    /// Sends all that waits as one append, unless one is on its way, and whatever has gathered when that is answered before
    /// its call returns.
    fn send<'a>(&'a self, mut state: MutexGuard<'a, State>, tail: u64) {
        if state.sending {
            return;
        }
        while state.on_its_way.is_none() && !state.waiting.is_empty() {
            let plans = std::mem::take(&mut state.waiting);
            (state.on_its_way, state.sending) = (Some(tail), true);
            drop(state);
            self.append(plans);
            state = self.lock();
            state.sending = false;
        }
    }

    fn append(&self, submitted: Vec<Submitted>) {
        let mut frames = vec![Vec::new()];
        let mut waiting = Waiting::with_capacity(submitted.len());
        let mut count = 0;
        for Submitted { plan, half, planned } in submitted {
            let plans = 1 + usize::from(half.is_some());
            if frames.last().is_some_and(|frame| frame.len() + plans > PLANS_PER_FRAME_MAX) {
                frames.push(Vec::new()); // halves are never parted: damage takes both or none
            }
            frames.last_mut().expect("one at least").extend([plan].into_iter().chain(half));
            waiting.push((count, planned));
            count += plans as u64;
        }
        let frame = |plans: Vec<PlanRecord>| Payload {
            bytes: encode(&plans),
            records: u32::try_from(plans.len()).expect("a few thousand at most"),
        };
        let frames = frames.into_iter().map(frame).collect();
        // Whoever comes first takes them: the callback, or this call when the append was not taken.
        let waiting = Arc::new(Mutex::new(Some(waiting)));
        let (planner, theirs) = (self.clone(), Arc::clone(&waiting));
        let done: Done = Box::new(move |appended| planner.finish(&theirs, appended));
        if let Err(error) = failpoints::around(Point::PlansAppend, || (self.shared.append)(frames, done)) {
            self.finish(&waiting, Err(error));
        }
    }

    /// Tells everybody, and only then takes the append off its way: in between a plan is known by its queue and here.
    fn finish(&self, waiting: &Mutex<Option<Waiting>>, appended: Result<Appended, AppendError>) {
        let waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner).take();
        let tail = appended.as_ref().ok().map(|appended| appended.offsets.end);
        let told = catch_unwind(AssertUnwindSafe(|| match appended.map_err(Arc::new) {
            Ok(Appended { offsets, .. }) => {
                let tell = || waiting.into_iter().flatten().for_each(|(nth, planned)| planned(Ok(offsets.start + nth)));
                failpoints::around(Point::PlansAnswer, tell);
            }
            Err(error) => {
                let told = || match mutants::on(Mutant::FailedPlanTold) {
                    true => Ok(0),
                    false => Err(PlanError::Append(Arc::clone(&error))),
                };
                waiting.into_iter().flatten().for_each(|(_, planned)| planned(told()));
            }
        }));
        let mut state = self.lock();
        let tail = tail.or(state.on_its_way).unwrap_or_default();
        state.on_its_way = None;
        self.send(state, tail);
        // Whose mistake it was hears of it, and nobody else's plans wait for that.
        told.unwrap_or_else(|panic| resume_unwind(panic));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::StreamId;
    use crate::queue::plan::decode;
    use std::collections::VecDeque;

    type Appends = Arc<Mutex<VecDeque<(Vec<Payload>, Done)>>>;
    type Heard = Arc<Mutex<Vec<(u64, Result<u64, String>)>>>;

    fn plan(first: u64) -> PlanRecord {
        let offsets = first..first + 10;
        PlanRecord { destination: "hook".into(), incarnation: 0, stream_id: StreamId(1), offsets, revision: 0 }
    }

    /// A planner whose appends wait until they are completed by hand.
    fn planner() -> (Planner, Appends, Heard) {
        let appends = Appends::default();
        let theirs = Arc::clone(&appends);
        let append = move |frames: Vec<Payload>, done: Done| {
            theirs.lock().expect("one thread").push_back((frames, done));
            Ok(())
        };
        (Planner::new(Box::new(append)), appends, Heard::default())
    }

    fn submit(planner: &Planner, heard: &Heard, first: u64, tail: u64) {
        let heard = Arc::clone(heard);
        let planned = move |result: Result<u64, PlanError>| {
            heard.lock().expect("one thread").push((first, result.map_err(|error| error.to_string())));
        };
        planner.submit(plan(first), tail, Box::new(planned));
    }

    fn complete(appends: &Appends, result: Result<u64, AppendError>) -> Vec<PlanRecord> {
        let (frames, done) = appends.lock().expect("one thread").pop_front().expect("an append");
        let records: u64 = frames.iter().map(|frame| u64::from(frame.records)).sum();
        done(result.map(|first| Appended { stream: StreamId(0), offsets: first..first + records }));
        frames.iter().flat_map(|frame| decode(&frame.bytes).expect("ours")).collect()
    }

    #[test]
    fn a_lone_plan_goes_at_once_and_what_gathers_meanwhile_goes_as_one() {
        let (planner, appends, heard) = planner();
        (0..100).for_each(|n| submit(&planner, &heard, n, 500));
        assert_eq!(appends.lock().expect("one thread").len(), 1);
        assert_eq!(planner.on_its_way(), Some(500));
        assert_eq!(complete(&appends, Ok(500)), [plan(0)]);
        assert_eq!(planner.on_its_way(), Some(501), "the next is on its way already");
        assert_eq!(complete(&appends, Ok(501)), (1..100).map(plan).collect::<Vec<_>>());
        assert_eq!(planner.on_its_way(), None);
        assert_eq!(*heard.lock().expect("one thread"), (0..100).map(|n| (n, Ok(500 + n))).collect::<Vec<_>>());
    }

    #[test]
    fn of_more_plans_than_may_wait_the_next_is_refused_and_the_others_are_heard_of() {
        let (planner, appends, heard) = planner();
        (0..=PLANS_WAITING_MAX as u64).for_each(|n| submit(&planner, &heard, n, 0));
        submit(&planner, &heard, u64::MAX - 10, 0);
        let busy = PlanError::Busy { waiting: PLANS_WAITING_MAX }.to_string();
        assert_eq!(std::mem::take(&mut *heard.lock().expect("one thread")), [(u64::MAX - 10, Err(busy))]);
        assert_eq!([complete(&appends, Ok(0)).len(), complete(&appends, Ok(1)).len()], [1, PLANS_WAITING_MAX]);
        let told = heard.lock().expect("one thread");
        assert!(told.len() == 1 + PLANS_WAITING_MAX && told.iter().all(|(n, at)| *at == Ok(*n)));
    }

    #[test]
    fn a_failed_append_fails_its_plans_and_lets_the_next_ones_try() {
        let (planner, appends, heard) = planner();
        submit(&planner, &heard, 1, 0);
        submit(&planner, &heard, 2, 0);
        complete(&appends, Err(AppendError::Closed));
        complete(&appends, Ok(7));
        let heard = heard.lock().expect("one thread");
        assert!(heard[0].1.is_err());
        assert_eq!(heard[1], (2, Ok(7)));
    }

    #[test]
    fn who_panics_over_a_plan_does_not_keep_others_from_theirs() {
        let (planner, appends, heard) = planner();
        planner.submit(plan(1), 0, Box::new(|_| panic!("a mistake of the caller's")));
        submit(&planner, &heard, 2, 0);
        let panicked = catch_unwind(AssertUnwindSafe(|| complete(&appends, Ok(4))));
        assert!(panicked.is_err(), "it is told");
        assert_eq!(complete(&appends, Ok(5)), [plan(2)]);
        assert_eq!(*heard.lock().expect("one thread"), [(2, Ok(5))]);
        assert_eq!(planner.on_its_way(), None);
    }

    #[test]
    fn what_callbacks_submit_goes_when_the_append_that_is_answered_at_once_has_returned() {
        let depth = Arc::new(Mutex::new(0));
        let append = move |frames: Vec<Payload>, done: Done| {
            let first = depth.try_lock().map(|mut first| std::mem::replace(&mut *first, 10)).expect("not re-entered");
            done(Ok(Appended { stream: StreamId(0), offsets: first..first + frames.len() as u64 }));
            Ok(())
        };
        let planner = Planner::new(Box::new(append));
        let heard = Heard::default();
        let (again, theirs) = (planner.clone(), Arc::clone(&heard));
        planner.submit(plan(1), 0, Box::new(move |_| submit(&again, &theirs, 2, 0)));
        assert_eq!(*heard.lock().expect("one thread"), [(2, Ok(10))]);
    }

    #[test]
    fn more_plans_than_a_frame_holds_are_several_frames_of_one_append() {
        let (planner, appends, heard) = planner();
        (0..=PLANS_PER_FRAME_MAX as u64 + 1).for_each(|n| submit(&planner, &heard, n, 0));
        complete(&appends, Ok(0));
        assert_eq!(appends.lock().expect("one thread")[0].0.len(), 2);
        assert_eq!(complete(&appends, Ok(1)).len(), PLANS_PER_FRAME_MAX + 1);
    }

    #[test]
    fn halves_share_a_frame_and_each_hears_where_its_plan_lies() {
        let (planner, appends, heard) = planner();
        submit(&planner, &heard, 0, 0);
        (1..PLANS_PER_FRAME_MAX as u64).for_each(|n| submit(&planner, &heard, n, 0));
        let theirs = Arc::clone(&heard);
        let planned = move |result: Result<u64, PlanError>| {
            theirs.lock().expect("one thread").push((999, result.map_err(|error| error.to_string())));
        };
        planner.submit_halves([plan(20), plan(30)], 0, Box::new(planned));
        submit(&planner, &heard, 777, 0);
        complete(&appends, Ok(0));
        let frames = appends.lock().expect("one thread")[0].0.iter().map(|frame| frame.records).collect::<Vec<_>>();
        assert_eq!(frames, [PLANS_PER_FRAME_MAX as u32 - 1, 3], "the halves had no room together in the first");
        complete(&appends, Ok(1));
        let heard = heard.lock().expect("one thread");
        let first = PLANS_PER_FRAME_MAX as u64;
        assert_eq!(heard[heard.len() - 2..], [(999, Ok(first)), (777, Ok(first + 2))]);
    }
}
