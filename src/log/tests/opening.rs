//! What becomes of files that an opening finds where none should be.

use super::*;

fn copy(disk: &dyn Disk, from: &str, to: &str) {
    let bytes = crate::disk::read_all(&*disk.open(&Path::new(DIR).join(from)).expect("it is there")).expect("memory");
    let file = disk.create(&Path::new(DIR).join(to)).expect("it is not there");
    file.write_all_at(&[IoSlice::new(&bytes)], 0).expect("memory");
}

fn names(disk: &dyn Disk, with: &str) -> Vec<String> {
    let mut names = disk.list(Path::new(DIR)).expect("memory lists");
    names.retain(|name| name.contains(with));
    names.sort();
    names
}

/// A rename whose sync failed can leave a file's old name; a stranger's file may have any.
#[test]
fn of_two_segments_with_one_number_the_one_holds_whose_header_says_so_and_the_other_one_goes_if_it_is_empty() {
    const SYSTEM: &str = "0000000000000001.sys";
    const MAIN: &str = "0000000000000001.seg";
    for (what, aside) in [("zeros", false), ("another segment's", false), (SYSTEM, true)] {
        let bench = Bench::new();
        let log = bench.open();
        append(&log, "a", 1, 100, 1);
        append(&log, "!ours", 2, 100, 1);
        drop(log);
        match what {
            SYSTEM => copy(&*bench.disk, SYSTEM, MAIN),
            "zeros" => bench.disk.create(&Path::new(DIR).join(MAIN)).expect("new").set_len(4_096).expect("memory"),
            _ => copy(&*bench.disk, "0000000000000000.seg", MAIN),
        }
        let log = bench.open();
        assert_eq!((read(&log, "a", 0), read(&log, "!ours", 0)), (vec![(0..1, Some(1))], vec![(0..1, Some(2))]));
        let bad = format!("{MAIN}.bad");
        let left = if aside { vec![bad.as_str(), SYSTEM] } else { vec![SYSTEM] };
        assert_eq!(names(&*bench.disk, "0000000000000001.s"), left, "{what}");
    }
}

#[test]
fn spares_that_somebody_took_away_are_missed_once_each() {
    let bench = Bench::new();
    let log = bench.open();
    log.housekeep();
    let spares = names(&*bench.disk, "spare-");
    assert_eq!(spares.len(), 2);
    spares.iter().for_each(|name| bench.disk.remove(&Path::new(DIR).join(name)).expect("it is there"));
    let refused = log.append_wait("a", vec![part(1, 100, 1)]).expect_err("its segment can't be made");
    assert!(matches!(refused, AppendError::ReadOnly { .. }), "{refused}");
    (0..3).for_each(|_| log.housekeep());
    assert_eq!(log.state(), LogState::Serving);
    assert_eq!(append(&log, "a", 1, 100, 1), 0..1);
}
