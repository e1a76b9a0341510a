//! Names of streams, and the table that keeps them.

use super::*;

#[test]
fn only_a_stream_without_a_name_gets_one_that_is_free_and_a_number_alone_is_no_stream() {
    let log = Bench::new().open();
    append(&log, "a", 1, 10, 1);
    for name in ["!nameless/1", "!nameless/2", "named"] {
        log.shared.catalog_write().add_stream(name.into()); // as a commit that failed, or damage, leaves them
    }
    log.raise_next("!nameless/2", 3);
    let names = |log: &Log| log.streams().iter().map(|stream| stream.name.to_string()).collect::<Vec<_>>();
    assert_eq!(names(&log), ["a", "!nameless/2", "named"]);
    let nameless = StreamId(2);
    assert!(!log.restore_name(StreamId(0), "new"), "it has one");
    assert!(!log.restore_name(nameless, "a"), "it is another one's");
    assert!(!log.restore_name(nameless, "a\nb"), "nobody may have it");
    assert!(!log.restore_name(StreamId(9), "new"), "there is no such stream");
    assert!(log.restore_name(nameless, "new") && !log.restore_name(nameless, "newer"));
    assert_eq!(names(&log), ["a", "new", "named"]);
    assert_eq!((log.stream("new"), log.stream("!nameless/2")), (Some(nameless), None));
}

#[test]
fn the_stream_table_is_written_in_turn_over_restarts_and_no_name_a_second_time() {
    let bench = Bench::new();
    let generations = || {
        [0, 1].map(|slot| {
            let file = bench.disk.open(&Path::new(DIR).join(format!("streams.{slot}"))).expect("there are two");
            let bytes = crate::disk::read_all(&*file).expect("memory reads");
            stream_table::StreamTable::decode(&bytes).expect("it is sound").generation
        })
    };
    let log = bench.open();
    assert_eq!(generations(), [0, 0]);
    append(&log, "a", 1, 100, 1);
    log.close().expect("closed");
    assert_eq!(generations(), [0, 1]);
    drop(log);
    let log = bench.open();
    assert_eq!(generations(), [2, 1], "it finds out nothing new, and makes sure of what it found");
    log.raise_next("a", 5);
    log.housekeep();
    assert_eq!(generations(), [2, 3]);
    drop(log);
    let log = bench.open();
    append(&log, "a", 1, 100, 1);
    let [end] = log.synced()[..] else { panic!("one segment is written to") };
    assert_eq!(end.position, limits::SEGMENT_HEADER_BYTES + 160, "a frame alone: the table has the name");
    drop(log); // killed
    let log = bench.open();
    assert_eq!(generations(), [4, 5], "what the segment held");
    log.raise_next("a", 50);
    log.housekeep();
    assert_eq!(generations(), [6, 5]);
}
