//! What is taken up to its bound, and not beyond.

use super::*;

#[test]
fn options_are_taken_up_to_their_bounds_and_not_beyond() {
    type Change = fn(&mut LogOptions);
    let refused = |change: Change| {
        let mut options = LogOptions { budget_bytes: u64::MAX, ..LogOptions::small() };
        change(&mut options);
        match options.check() {
            Ok(()) => None,
            Err(OpenError::Option { name, .. }) => Some(name),
            Err(other) => panic!("{other}"),
        }
    };
    assert_eq!(LogOptions::APPEND_BYTES_MAX, 512 << 20);
    let taken: [Change; 5] = [
        |of| of.segment_bytes = limits::SEGMENT_BYTES_MIN,
        |of| of.segment_bytes = limits::SEGMENT_BYTES_MAX,
        |of| of.append_bytes_max = 1,
        |of| of.append_bytes_max = LogOptions::APPEND_BYTES_MAX,
        |of| of.large_append_bytes = 1,
    ];
    assert_eq!(taken.map(refused), [None; 5]);
    let beyond: [Change; 5] = [
        |of| of.segment_bytes = limits::SEGMENT_BYTES_MIN - 1,
        |of| of.segment_bytes = limits::SEGMENT_BYTES_MAX + 1,
        |of| of.append_bytes_max = 0,
        |of| of.append_bytes_max = LogOptions::APPEND_BYTES_MAX + 1,
        |of| of.large_append_bytes = 0,
    ];
    let named = ["segment_bytes", "segment_bytes", "append_bytes_max", "append_bytes_max", "large_append_bytes"];
    assert_eq!(beyond.map(refused), named.map(Some));
}

#[test]
fn a_log_takes_so_many_streams_and_goes_on_with_those() {
    let log = Bench::new().open();
    append(&log, "the first", 1, 10, 1);
    {
        let mut catalog = log.shared.catalog_write();
        let many = catalog.streams[0].clone();
        catalog.streams.resize(limits::STREAMS_MAX - 1, many); // quickly: nobody asks for them by name
    }
    append(&log, "the last", 1, 10, 1);
    let refused = log.append_wait("one more", vec![part(1, 10, 1)]).expect_err("there are as many as may be");
    assert!(matches!(refused, AppendError::TooManyStreams { limit: limits::STREAMS_MAX }), "{refused}");
    assert_eq!(append(&log, "the last", 1, 10, 1), 1..2);
    assert_eq!(append(&log, "the first", 1, 10, 1), 1..2);
}

#[test]
fn what_is_said_and_asked_of_a_stream_that_never_was_comes_to_nothing() {
    let log = Bench::new().open();
    let never = StreamId(0);
    log.trim(never, 7);
    assert_eq!(log.keep(never, 7), 7);
    assert_eq!((log.durable(never), log.first_kept(never), log.stream_name(never)), (Tail::default(), 0, None));
    let mut reader = log.reader(never, 7);
    assert!(reader.in_memory() && reader.next().expect("nothing is read").is_none());
    assert_eq!((log.stats().streams, log.shared.told.load(Ordering::SeqCst)), (0, false));
}
