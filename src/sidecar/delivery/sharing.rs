//! Encoded once for destinations alike: who encodes the same records in the same format at the same time shares the
//! bytes.
//!
//! Holds no bytes by itself, only weak references to what is being sent, so it needs no bound of its own beyond that
//! of the requests in flight. What always holds: equal keys have equal bytes, because [`Sink::format`] promises it.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::sink::{EncodeError, Encoded, Environment, Format, Job, Origin, Sink};

/// Below this many entries dead ones are not worth looking for.
const SWEEP_MIN: usize = 64;

/// The encodings that are in use.
#[derive(Debug, Default)]
pub(super) struct Sharing {
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    cells: HashMap<Key, Weak<Cell>>,
    sweep_at: usize,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Key {
    origin: Origin,
    sent: Arc<[Range<u64>]>,
    format: Format,
    environment: Arc<Environment>,
}

/// The place of one encoding. Locked while it is made, so that who comes second waits instead of doing it again.
#[derive(Debug, Default)]
struct Cell {
    encoded: Mutex<Option<Arc<Encoded>>>,
}

/// An encoding that is in use. While one of these lives others can share it.
#[derive(Debug, Clone)]
pub(super) struct Shared {
    encoded: Arc<Encoded>,
    _cell: Arc<Cell>,
}

impl std::ops::Deref for Shared {
    type Target = Encoded;

    fn deref(&self) -> &Encoded {
        &self.encoded
    }
}

impl Sharing {
    /// The job's bytes in the sink's format: those that are in use already, or made now on this thread.
    ///
    /// # Errors
    /// What the sink's encoder says. The next caller tries again.
    pub(super) fn encode(&self, sink: &dyn Sink, job: &Job) -> Result<Shared, EncodeError> {
        let cell = self.cell(sink.format(), job);
        let mut place = cell.encoded.lock().unwrap_or_else(PoisonError::into_inner);
        let encoded = match &*place {
            Some(encoded) => Arc::clone(encoded),
            None => Arc::clone(place.insert(Arc::new(sink.encode(job)?))),
        };
        drop(place);
        Ok(Shared { encoded, _cell: cell })
    }

    fn cell(&self, format: Format, job: &Job) -> Arc<Cell> {
        let key =
            Key { origin: job.origin.clone(), sent: job.sent(&[]), format, environment: Arc::clone(&job.environment) };
        // A panic under this lock could at most leave an entry too many.
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(cell) = table.cells.get(&key).and_then(Weak::upgrade) {
            return cell;
        }
        table.sweep();
        let cell = Arc::new(Cell::default());
        table.cells.insert(key, Arc::downgrade(&cell));
        cell
    }
}

impl Table {
    /// Forgets what nobody uses, whenever the table has doubled: O(1) an entry, and never more than twice the
    /// requests in flight.
    fn sweep(&mut self) {
        if self.cells.len() >= self.sweep_at.max(SWEEP_MIN) {
            self.cells.retain(|_, cell| cell.strong_count() > 0);
            self.sweep_at = self.cells.len() * 2;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::except::Except;
    use crate::delivery::outcome::Outcome;
    use crate::delivery::sink::BoxFuture;
    use bytes::Bytes;
    use forebay::{LogId, StreamId};
    use std::sync::atomic::{AtomicU32, Ordering};
    use tokio::time::Instant;

    #[derive(Default)]
    struct Counting {
        encoded: AtomicU32,
        fails: bool,
        gzip: Option<u8>,
    }

    impl Sink for Counting {
        fn format(&self) -> Format {
            Format { name: "counting", settings: None, gzip: self.gzip }
        }

        fn encode(&self, job: &Job) -> Result<Encoded, EncodeError> {
            self.encoded.fetch_add(1, Ordering::SeqCst);
            if self.fails {
                return Err(EncodeError { at: job.origin.clone(), why: "told to".to_owned() });
            }
            Ok(Encoded::whole(job, Bytes::from_static(b"x")))
        }

        fn send<'a>(&'a self, _: &'a Encoded, _: &'a str, _: Instant) -> BoxFuture<'a, Outcome> {
            unreachable!("nothing is sent here")
        }

        fn needs_plan(&self) -> bool {
            false
        }
    }

    fn job(offsets: Range<u64>) -> Job {
        Job {
            id: "batch".into(),
            origin: Origin { log: LogId(7), stream: StreamId(1), offsets },
            environment: Arc::new(Environment { id: "env".to_owned(), name: "production".to_owned() }),
            parts: Vec::new(),
            except: Except::default(),
            bytes: 1,
        }
    }

    #[test]
    fn the_same_records_in_the_same_format_are_encoded_once() {
        let (sharing, sink) = (Sharing::default(), Counting::default());
        let first = sharing.encode(&sink, &job(0..10)).unwrap();
        let second = sharing.encode(&sink, &job(0..10)).unwrap();
        assert!(Arc::ptr_eq(&first.encoded, &second.encoded));
        assert_eq!(sink.encoded.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn other_records_formats_and_environments_are_encoded_apart() {
        let (sharing, sink) = (Sharing::default(), Counting::default());
        let _first = sharing.encode(&sink, &job(0..10)).unwrap();
        let _range = sharing.encode(&sink, &job(0..11)).unwrap();
        let renamed = Environment { id: "env".to_owned(), name: "prod".to_owned() };
        let _environment = sharing.encode(&sink, &Job { environment: Arc::new(renamed), ..job(0..10) }).unwrap();
        assert_eq!(sink.encoded.load(Ordering::SeqCst), 3);
        let gzip = Counting { gzip: Some(1), ..Counting::default() };
        let _gzip = sharing.encode(&gzip, &job(0..10)).unwrap();
        assert_eq!(gzip.encoded.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn a_failure_is_not_remembered() {
        let sharing = Sharing::default();
        let bad = Counting { fails: true, ..Counting::default() };
        assert!(sharing.encode(&bad, &job(0..10)).is_err());
        assert!(sharing.encode(&Counting::default(), &job(0..10)).is_ok());
    }

    #[test]
    fn what_nobody_uses_is_forgotten() {
        let (sharing, sink) = (Sharing::default(), Counting::default());
        for n in 0..10_000 {
            sharing.encode(&sink, &job(n..n + 1)).unwrap();
        }
        assert!(sharing.table.lock().unwrap().cells.len() <= SWEEP_MIN);
        sharing.encode(&sink, &job(0..1)).unwrap();
        assert_eq!(sink.encoded.load(Ordering::SeqCst), 10_001, "bytes do not outlive their use");
    }

    #[test]
    fn who_comes_while_it_is_made_waits_for_it() {
        let (sharing, sink) = (Sharing::default(), Counting::default());
        let held: Mutex<Vec<Shared>> = Mutex::default();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let shared = sharing.encode(&sink, &job(0..10)).unwrap();
                    held.lock().unwrap().push(shared);
                });
            }
        });
        assert_eq!(sink.encoded.load(Ordering::SeqCst), 1);
    }
}
