//! A start that finds a compact segment beside what it replaces, on a disk that does not let it give that one its name anew.

use forebay::OpenError;
use forebay::disk::Disk;
use std::path::{Path, PathBuf};
use storage_tests::fault::{Failure, Fault, OpKind};
use storage_tests::sim_disk::PowerCut;
use storage_tests::workload::{DIR, End, Session, Step};

use super::{acked, session};

/// A log that was killed between the name of a compact segment, sealed or not, and the end of what is in it, and the paths of that.
fn beside_what_it_replaces(sealed: bool) -> (Session, Vec<PathBuf>) {
    let mut session = session(1);
    for n in 0..10 {
        acked(&mut session, "slow", &[(200 + n, 2)]);
        acked(&mut session, "fast", &[(3_000, 1)]);
    }
    acked(&mut session, "fast", &[(3_000, 1)]);
    session.trim("fast", 0);
    let run: Vec<_> = named(&session, |name| name.ends_with(".seg"));
    let run: Vec<_> = run.into_iter().map(|path| (session.disk.read_live(&path).expect("listed"), path)).collect();
    (0..1 + u8::from(sealed)).for_each(|_| session.log().housekeep());
    assert!(session.log().stats().segments_compacted > 0);
    session.end(End::Kill);
    let compact = compact(&session);
    let name = compact.file_stem().expect("a name").to_string_lossy().into_owned();
    let (first, last) = name.split_once('.').and_then(|(_, places)| places.split_once('-')).expect("a compact one's");
    let is_in_it = |path: &Path| {
        let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
        name.as_str() >= first && name.as_str() <= last
    };
    let run: Vec<_> = run.into_iter().filter(|(_, path)| is_in_it(path)).collect();
    run.iter().for_each(|(bytes, path)| session.disk.overwrite(path, bytes));
    (session, run.into_iter().map(|(_, path)| path).collect())
}

fn compact(session: &Session) -> PathBuf {
    let mut compact = named(session, |name| name.ends_with(".seg") && name.contains('-'));
    assert_eq!(compact.len(), 1, "one run was compacted: {compact:?}");
    compact.remove(0)
}

fn named(session: &Session, is_it: impl Fn(&str) -> bool) -> Vec<PathBuf> {
    let name = |path: &Path| path.file_name().expect("a file").to_string_lossy().into_owned();
    session.disk.paths().into_iter().filter(|path| path.starts_with(DIR) && is_it(&name(path))).collect()
}

fn spares(session: &Session) -> usize {
    named(session, |name| name.starts_with("spare-")).len()
}

/// As many of these as are there still.
fn there(session: &Session, run: &[PathBuf]) -> usize {
    run.iter().filter(|path| session.disk.read_live(path).is_some()).count()
}

/// All that a later start on a good disk makes of it, and that a power cut takes nothing of.
fn goes_with_the_next_start(mut session: Session, run: &[PathBuf]) {
    session.end(End::Kill);
    session.act(&Step::Heal).expect("healed: all that is needed is there");
    assert_eq!((there(&session, run), named(&session, |name| name.ends_with(".new")).len()), (0, 0));
    session.check_budget().expect("what is there counts, and nothing else");
    session.end(End::Cut(PowerCut::NothingUnsynced));
    assert_eq!(session.open(), Ok(true), "the name is sure");
    assert_eq!(session.log().damages(), []);
    session.goes_on().expect("as promised");
}

#[test]
fn on_a_full_disk_a_spare_makes_room_for_the_copy_that_takes_the_compact_segments_place() {
    let (mut session, run) = beside_what_it_replaces(false);
    let before = spares(&session);
    assert!(before > 0 && run.len() >= 8, "{before} spares, {run:?}");
    let space = session.disk.space(Path::new(DIR)).expect("measured");
    session.act(&Step::Capacity(space.total - space.free)).expect("no block is free");
    assert_eq!(session.open(), Ok(true), "all that is needed is there");
    assert_eq!((there(&session, &run), spares(&session)), (0, before - 1), "what is replaced goes, for one spare");
    session.check_budget().expect("what is there counts, and nothing else");
    goes_with_the_next_start(session, &run);
}

/// Whatever is in the way of the copy: it stays beside what it replaces, and both count.
#[test]
fn what_a_compact_segment_replaces_stays_where_its_name_cannot_be_made_sure_and_goes_with_the_next_start() {
    let full = || Fault::every(OpKind::Write, Failure::NoSpace).on(".new");
    let bad_place = || Fault::every(OpKind::Sync, Failure::Eio).on(".new");
    // Of a disk that is full whatever goes it takes one spare, and no second one.
    for (what, fault, spent) in [("full", full(), 1), ("bad for the copy", bad_place(), 0)] {
        let (mut session, run) = beside_what_it_replaces(false);
        let (before, of_run) = (spares(&session), there(&session, &run));
        session.act(&Step::Inject(fault)).expect("armed");
        assert_eq!(session.open(), Ok(true), "{what}: all that is needed is there");
        assert_eq!((there(&session, &run), spares(&session)), (of_run, before - spent), "{what}");
        assert!(named(&session, |name| name.ends_with(".new")).is_empty(), "{what}");
        session.check_budget().unwrap_or_else(|e| panic!("{what}: {e}"));
        goes_with_the_next_start(session, &run);
    }
}

/// Its index is whole, so it is taken for what it is; whether its name is sure no copy can tell.
#[test]
fn what_an_unreadable_compact_segment_replaces_stays_until_a_start_can_read_it() {
    let (mut session, run) = beside_what_it_replaces(true);
    let compact = compact(&session);
    let (before, of_run) = (spares(&session), there(&session, &run));
    session.act(&Step::Inject(Fault::every(OpKind::Read, Failure::Eio).on(&compact.to_string_lossy()))).expect("armed");
    session.try_open().expect("it opens");
    assert_eq!((there(&session, &run), spares(&session)), (of_run, before));
    session.check_budget().expect("both count");
    goes_with_the_next_start(session, &run);
}

/// No handle is left, say: that is nothing about the segment, and passes.
#[test]
fn a_copy_that_fails_for_another_reason_ends_the_start_and_nothing_went() {
    let (mut session, run) = beside_what_it_replaces(false);
    let of_run = there(&session, &run);
    session.act(&Step::Inject(Fault::every(OpKind::Create, Failure::Os(24)).on(".new"))).expect("armed");
    assert!(matches!(session.try_open(), Err(OpenError::Io { what: "write anew", .. })));
    assert_eq!(there(&session, &run), of_run);
    goes_with_the_next_start(session, &run);
}
