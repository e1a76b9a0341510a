//! The log on a disk that fails: at every change of a script, and in the ways that have a story.

use forebay::AppendError;
use storage_tests::sim_disk::PowerCut;
use storage_tests::workload::{End, Session, Step, tiny};

mod any;
mod comebacks;
mod compacted;
mod cuts;
mod full;
mod headers;
mod reads;
mod returning;
mod stories;
mod tables;

const ENDS: [End; 4] =
    [End::Kill, End::Cut(PowerCut::NothingUnsynced), End::Cut(PowerCut::Everything), End::Cut(PowerCut::RandomSubset)];

fn session(seed: u64) -> Session {
    let mut session = Session::new(seed, tiny());
    assert_eq!(session.open(), Ok(true));
    session
}

fn acked(session: &mut Session, stream: &str, parts: &[(usize, u32)]) {
    session.append(stream, parts).expect("right offsets").expect("taken");
}

fn refused(session: &mut Session, stream: &str, parts: &[(usize, u32)]) -> AppendError {
    session.append(stream, parts).expect("right offsets").expect_err("the disk is broken")
}

/// The disk is good again, and what named the end of the first segment goes, as nobody needs anything of it.
fn let_its_successor_go(session: &mut Session) {
    session.act(&Step::Heal).expect("healed");
    (0..4).for_each(|_| acked(session, "b", &[(3_000, 1)]));
    session.trim("a", 0);
    session.trim("b", 1);
    (0..3).for_each(|_| session.log().housekeep());
}
