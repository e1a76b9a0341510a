//! The log under crashes: at every change of a script, and by chance in random histories.

use forebay::{Log, LogOptions};
use proptest::prelude::*;
use proptest::sample::select;
use std::time::Duration;
use storage_tests::crash_points::{self, Plan, number};
use storage_tests::fault::{Failure, Fault, OpKind, Performed};
use storage_tests::parts::Part;
use storage_tests::scripts::{large_script, script};
use storage_tests::sim_disk::PowerCut;
use storage_tests::workload::{End, Session, Step, tiny, tiny_steps};

fn crash_at_any_change(steps: Vec<Step>, options: LogOptions) {
    let cuts = number("FOREBAY_CUTS", 2);
    let plan = Plan { steps, options, seed: number("FOREBAY_SEED", 1), cuts, nested_every: 120 / cuts.max(1) };
    let count = crash_points::run(&plan, "crash");
    println!("{count:?}");
    assert!(count.changes > 150 && count.crashes > 400 && count.nested > 1000, "{count:?}");
}

#[test]
fn a_crash_at_any_change_loses_nothing_that_was_acknowledged() {
    crash_at_any_change(script(), tiny());
}

#[test]
fn a_crash_at_any_change_leaves_all_of_a_large_append_or_nothing_and_all_that_came_meanwhile() {
    crash_at_any_change(large_script(), tiny_steps());
}

const STREAMS: [&str; 5] = ["a", "b", "quiet", "!plans", "!dead/x"];

fn end() -> impl Strategy<Value = End> {
    let cuts = [PowerCut::NothingUnsynced, PowerCut::Everything, PowerCut::Prefix, PowerCut::RandomSubset];
    prop_oneof![
        1 => Just(End::Kill),
        4 => select(cuts.to_vec()).prop_map(End::Cut),
        1 => (0usize..20).prop_map(|n| End::Cut(PowerCut::OnlySector(n))),
        1 => (0usize..20).prop_map(|n| End::Cut(PowerCut::AllButSector(n))),
    ]
}

fn performed() -> impl Strategy<Value = Performed> {
    prop_oneof![Just(Performed::Nothing), Just(Performed::All), (0usize..3000).prop_map(Performed::Bytes)]
}

fn fault() -> impl Strategy<Value = Fault> {
    use OpKind::{Allocate, Create, Open, Read, Remove, Rename, SetLen, Sync, SyncDir, Write};
    let kinds = vec![Allocate, Create, Open, Read, Remove, Rename, SetLen, Sync, Sync, Sync, SyncDir, Write, Write];
    let failures = vec![Failure::Eio, Failure::NoSpace, Failure::ShortWrite, Failure::Os(24)];
    (select(kinds), 0u64..8, 1u64..5, select(failures))
        .prop_map(|(kind, from, n, failure)| Fault::nths(kind, from..from + n, failure))
}

/// Around the sizes at which something changes: nothing, a sector, what just fits into a segment, more than fits.
fn part() -> impl Strategy<Value = (usize, u32)> {
    let size = prop_oneof![4 => 0usize..40, 3 => 400usize..1200, 2 => 3700usize..4100, 1 => 4100usize..9000];
    (size, 1u32..6)
}

fn step() -> impl Strategy<Value = Step> {
    let append = (select(STREAMS.to_vec()), proptest::collection::vec(part(), 1..5));
    prop_oneof![
        12 => append.prop_map(|(stream, parts)| Step::Append(stream, parts)),
        4 => (select(STREAMS.to_vec()), 0u64..8).prop_map(|(stream, back)| Step::Trim(stream, back)),
        3 => Just(Step::Housekeep),
        2 => Just(Step::Read),
        1 => Just(Step::Reopen),
        1 => (0u64..40_000).prop_map(|ms| Step::Advance(Duration::from_millis(ms))),
        2 => end().prop_map(Step::End),
        2 => (0u64..30, performed()).prop_map(|(ahead, performed)| Step::CrashAhead(ahead, performed)),
    ]
}

/// Others that append while an append is written.
fn among() -> impl Strategy<Value = Step> {
    let append = || (select(STREAMS.to_vec()), proptest::collection::vec(part(), 1..5));
    (append(), proptest::collection::vec(append(), 0..8)).prop_map(|(append, others)| Step::Among(append, others))
}

fn bad_disk_step() -> impl Strategy<Value = Step> {
    bad_disk_steps(step())
}

fn bad_disk_steps(step: impl Strategy<Value = Step>) -> impl Strategy<Value = Step> {
    prop_oneof![
        10 => step,
        1 => fault().prop_map(Step::Inject),
        1 => (0u64..200_000).prop_map(Step::Capacity),
        2 => Just(Step::Heal),
    ]
}

fn live(steps: &[Step], seed: u64, options: LogOptions, ends: Vec<End>) -> Result<(), String> {
    let mut session = Session::new(seed, options);
    session.ends = ends;
    session.open()?;
    for (i, step) in steps.iter().enumerate() {
        session.step(step).map_err(|e| format!("step {i}, {step:?}: {e}"))?;
    }
    session.disk.clear_faults();
    session.step(&Step::Heal)?;
    session.step(&Step::End(End::Kill))?;
    session.log().housekeep();
    session.log().housekeep();
    session.goes_on()
}

/// How random histories are run: `FOREBAY_CUTS` multiplies their number.
fn config() -> ProptestConfig {
    let cases = u32::try_from(60 * number("FOREBAY_CUTS", 2)).unwrap_or(u32::MAX);
    ProptestConfig { cases, max_shrink_iters: 4000, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_log_is_what_its_model_is_across_any_history(
        steps in proptest::collection::vec(step(), 1..60), seed: u64, ends in proptest::collection::vec(end(), 1..4),
        tail in select(vec![0usize, 1 << 10, 64 << 10]), window in select(vec![0u64, 20_000]),
    ) {
        let replay_window = Duration::from_millis(window);
        let options = LogOptions { tail_cache_bytes: tail, replay_window, ..tiny() };
        prop_assert_eq!(live(&steps, seed, options, ends), Ok(()));
    }

    #[test]
    fn a_log_on_a_disk_that_fails_now_and_then_is_what_its_model_is(
        steps in proptest::collection::vec(bad_disk_step(), 1..60), seed: u64,
        ends in proptest::collection::vec(end(), 1..4), reserve_segments in 1usize..3,
    ) {
        let options = LogOptions { reserve_segments, ..tiny() };
        prop_assert_eq!(live(&steps, seed, options, ends), Ok(()));
    }

    #[test]
    fn large_appends_in_steps_hold_the_same_promises_whoever_comes_meanwhile(
        steps in proptest::collection::vec(prop_oneof![3 => step(), 1 => among()], 1..60), seed: u64,
        ends in proptest::collection::vec(end(), 1..4),
    ) {
        prop_assert_eq!(live(&steps, seed, LogOptions { budget_bytes: 64 << 20, ..tiny_steps() }, ends), Ok(()));
    }

    #[test]
    fn large_appends_in_steps_hold_them_on_a_disk_that_fails_now_and_then(
        steps in proptest::collection::vec(bad_disk_steps(prop_oneof![3 => step(), 1 => among()]), 1..60), seed: u64,
        ends in proptest::collection::vec(end(), 1..4), reserve_segments in 1usize..3,
    ) {
        let options = LogOptions { reserve_segments, budget_bytes: 64 << 20, ..tiny_steps() };
        prop_assert_eq!(live(&steps, seed, options, ends), Ok(()));
    }

    #[test]
    fn larger_segments_hold_the_same_promises(
        steps in proptest::collection::vec(step(), 1..80), seed: u64, ends in proptest::collection::vec(end(), 1..4),
    ) {
        prop_assert_eq!(live(&steps, seed, LogOptions::small(), ends), Ok(()));
    }
}

/// What one of many writers was promised: its stream, its appends in order, and the one that was under way.
struct Promised {
    stream: String,
    acked: Vec<(forebay::Appended, Part)>,
    open: Option<Part>,
}

fn write_until_refused(log: &Log, writer: u64) -> Promised {
    let stream = if writer.is_multiple_of(4) { format!("!dead/{writer}") } else { format!("s{writer}") };
    let mut promised = Promised { stream, acked: Vec::new(), open: None };
    for i in 0..60 {
        let part = Part::new(writer << 32 | i, (i as usize * 137) % 900, 1 + i as u32 % 3);
        match log.append_wait(&promised.stream, vec![part.payload()]) {
            Ok(appended) => promised.acked.push((appended, part)),
            Err(_) => {
                promised.open = Some(part);
                break;
            }
        }
    }
    promised
}

#[test]
fn many_writers_at_once_are_promised_nothing_that_a_crash_takes() {
    for seed in 0..10 * number("FOREBAY_CUTS", 2) {
        let mut session = Session::new(seed, LogOptions { inline: false, budget_bytes: 4 << 20, ..tiny() });
        assert_eq!(session.open(), Ok(true));
        session.disk.crash_at(session.disk.ops() + 10 + seed * 37 % 300, Performed::Bytes(seed as usize * 71 % 2000));
        let log = session.log().clone();
        let promised: Vec<Promised> = std::thread::scope(|scope| {
            let writers: Vec<_> = (0..6)
                .map(|writer| {
                    scope.spawn({
                        let log = &log;
                        move || write_until_refused(log, writer)
                    })
                })
                .collect();
            writers.into_iter().map(|writer| writer.join().expect("no panic")).collect()
        });
        for Promised { stream, acked, open } in promised {
            for (appended, part) in acked {
                session.model.attempt(&stream, std::slice::from_ref(&part));
                session.model.acked(&stream, &appended).expect("offsets in order");
            }
            if let Some(part) = open {
                session.model.attempt(&stream, &[part]);
            }
        }
        // The threads must be gone before the next life: names, unlike handles, do not know whose they are.
        session.disk.crash_at(0, Performed::Nothing);
        let _ = log.close();
        drop(log);
        let cuts = [PowerCut::NothingUnsynced, PowerCut::Everything, PowerCut::Prefix, PowerCut::RandomSubset];
        session.end(End::Cut(cuts[seed as usize % 4]));
        session.options.inline = true;
        assert_eq!(session.open(), Ok(true), "seed {seed}");
        session.goes_on().expect("as promised");
    }
}

/// A segment in which one append leaves `left` bytes, for another one of a new stream that leaves some of them, fills them to
/// the byte, or takes one more. No crash takes what stands before it, nor a part of it.
#[test]
fn a_segment_that_is_filled_to_the_byte_one_less_or_one_more_loses_nothing_in_any_crash() {
    const SEGMENT: usize = 4096;
    const HEADER: usize = 128;
    const FRAME: usize = 56;
    const CUTS: [PowerCut; 4] =
        [PowerCut::Everything, PowerCut::NothingUnsynced, PowerCut::Prefix, PowerCut::RandomSubset];
    let stored = |len: usize| (FRAME + len).next_multiple_of(8);
    let declared = stored("a".len());
    let begun = |left: usize| {
        let mut session = Session::new(1, tiny());
        session.ends.clear();
        assert_eq!(session.open(), Ok(true));
        let first = SEGMENT - HEADER - declared - FRAME - left;
        session.append("a", &[(first, 3)]).expect("right offsets").expect("taken");
        session
    };
    let segments = |session: &Session| {
        session.disk.paths().iter().filter(|path| path.extension().is_some_and(|end| end == "seg")).count()
    };
    let (mut cases, mut filled) = (0, 0);
    let room = [0, 8, FRAME, declared, declared + FRAME - 8, declared + FRAME, declared + FRAME + 8, 512];
    for left in room {
        // One frame behind the stream's name, and two.
        let most = left.saturating_sub(declared + FRAME);
        let one = [most.saturating_sub(1), most, most + 1].map(|len| vec![(len, 1)]);
        let most = left.saturating_sub(declared + stored(8) + FRAME);
        let two = [most.saturating_sub(1), most, most + 1].map(|len| vec![(8, 2), (len, 1)]);
        for parts in one.into_iter().chain(two) {
            let mut whole = begun(left);
            let from = whole.disk.ops();
            whole.append("b", &parts).expect("right offsets").expect("taken");
            let fits = declared + parts.iter().map(|(len, _)| stored(*len)).sum::<usize>() <= left;
            assert_eq!(segments(&whole), if fits { 1 } else { 2 }, "{parts:?} into {left} bytes");
            filled += usize::from(fits && parts.iter().all(|(len, _)| len % 8 == 0));
            for change in from..=whole.disk.ops() {
                for performed in [Performed::Nothing, Performed::Bytes(declared + FRAME), Performed::All] {
                    let mut session = begun(left);
                    session.disk.crash_at(change, performed);
                    let _ = session.append("b", &parts).expect("right offsets");
                    let cut = CUTS[cases % CUTS.len()];
                    session.end(End::Cut(cut));
                    let held = session.open().and_then(|_| session.goes_on());
                    held.unwrap_or_else(|e| {
                        panic!("{parts:?} into {left} bytes, change {change}, {performed:?}, {cut:?}: {e}")
                    });
                    cases += 1;
                }
            }
        }
    }
    println!("{cases} cases, {filled} times filled to the byte");
    assert!(filled >= 4);
}
