//! Letters across crashes: at every change of a scripted life on the simulated disk, and after random lives in memory.
//!
//! What is asked each time: every record is in one place (its own queue, dead, held) or was let go of, what was let go of
//! was delivered or purged, and the books say the same.

use std::collections::BTreeSet;

use proptest::prelude::*;
use storage_tests::any_change::power_cut_at_any_change;
use storage_tests::sim_disk::SimDisk;

use super::*;

/// What the world outside has seen.
#[derive(Debug, Clone, Default)]
pub(super) struct Seen {
    pub(super) appended: u64,
    pub(super) delivered: BTreeSet<u64>,
    pub(super) purged: BTreeSet<u64>,
}

impl House {
    /// Where every record is, and whether the books agree.
    fn check(&self, seen: &Seen) {
        let cursor = self.main.cursor();
        let log = self.queues.log();
        let tail = log.stream("prod").map_or(0, |stream| log.durable(stream).offset);
        assert!(tail >= seen.appended, "acknowledged records are gone");
        let own: Vec<u64> = (0..tail).filter(|offset| !cursor.is_settled(*offset)).collect();
        let (dead, held) = (letters_on(&self.desk(), Shelf::Dead), letters_on(&self.desk(), Shelf::Held));
        let mut places: Vec<u64> = own.iter().chain(&dead).chain(&held).copied().collect();
        places.sort_unstable();
        assert!(places.windows(2).all(|two| two[0] != two[1]), "twice: own {own:?}, dead {dead:?}, held {held:?}");
        let gone: Vec<u64> = (0..tail).filter(|offset| places.binary_search(offset).is_err()).collect();
        let known = |offset: &u64| seen.delivered.contains(offset) || seen.purged.contains(offset);
        assert!(gone.iter().all(known), "lost: {gone:?} of {seen:?}");
        let sheet = self.sheet();
        assert!(sheet.closes());
        assert_eq!(sheet.accepted.records, tail, "{sheet:?}");
        assert_eq!(sheet.pending.records, (own.len() + held.len()) as u64, "{sheet:?}");
        assert_eq!(sheet.dead_lettered.records, dead.len() as u64, "{sheet:?}");
        assert_eq!(sheet.delivered.records + sheet.purged.records, gone.len() as u64, "{sheet:?}");
    }

    /// Takes up to ten records; those that `fate` names become letters, and the rest is delivered.
    fn take(&self, seen: &mut Seen, fate: impl Fn(u64) -> Option<Kind>) -> Result<(), BoxError> {
        let limits = BatchLimits { records_max: 10, bytes_max: u64::MAX };
        let Some(batch) = self.main.next_batch(limits)? else { return Ok(()) };
        let letters: Vec<Letter> = (batch.offsets.clone())
            .filter_map(|offset| fate(offset).map(|kind| self.letter(&batch, offset, kind, "because")))
            .collect();
        let as_ = |letter: &Letter| match letter.kind {
            Kind::Dead => Settled::DeadLettered,
            Kind::Held { .. } => Settled::Held,
        };
        let parts: Vec<_> = letters.iter().map(|l| (l.origin.offset..l.origin.offset + 1, as_(l))).collect();
        let taken = batch.offsets.clone().filter(|offset| fate(*offset).is_none());
        seen.delivered.extend(taken);
        if let Err(error) = if letters.is_empty() { Ok(()) } else { self.try_park(letters) } {
            self.main.release(&batch);
            return Err(error);
        }
        self.main.settle_parts(&batch, &parts, Settled::Delivered);
        Ok(())
    }

    /// Sends what is held and due; those that `fate` names become letters again.
    pub(super) fn send_held(&self, seen: &mut Seen, fate: impl Fn(u64) -> Option<Kind>) -> Result<(), BoxError> {
        self.send(&self.held(false), LIMITS, seen, fate)
    }

    /// Sends all that a source has; those that `fate` names become letters.
    pub(super) fn send(
        &self,
        source: &dyn Source,
        limits: Limits,
        seen: &mut Seen,
        fate: impl Fn(u64) -> Option<Kind>,
    ) -> Result<(), BoxError> {
        while let Some(claimed) = source.next(limits)? {
            let sent = offsets(&claimed);
            let again: Vec<u64> = sent.iter().copied().filter(|offset| fate(*offset).is_some()).collect();
            seen.delivered.extend(sent.iter().filter(|offset| !again.contains(offset)));
            let letters: Vec<Letter> = (claimed.ticket.letters(&again)?.into_iter())
                .map(|stored| Letter {
                    kind: fate(stored.offset).expect("it is among them"),
                    destination: HOOK.into(),
                    origin: stored.origin,
                    replay: stored.replay,
                    environment: stored.environment,
                    payload: stored.payload,
                    index: stored.index,
                    reason: "again".to_owned(),
                    excerpt: String::new(),
                    at_ms: 1,
                    attempts: 2,
                })
                .collect();
            let as_ = |letter: &Letter| match letter.kind {
                Kind::Dead => Settled::DeadLettered,
                Kind::Held { .. } => Settled::Held,
            };
            let parts: Vec<_> = letters.iter().map(|l| (l.origin.offset..l.origin.offset + 1, as_(l))).collect();
            if !letters.is_empty() {
                self.try_park(letters)?;
            }
            claimed.ticket.settle(&parts, Settled::Delivered);
        }
        Ok(())
    }

    pub(super) fn redrive_some(&self, wanted: impl Fn(u64) -> bool) -> Result<(), BoxError> {
        let filter = self.some(wanted)?;
        self.desk().redrive(&filter, 0)?;
        Ok(())
    }

    fn purge_some(&self, seen: &mut Seen, wanted: impl Fn(u64) -> bool) -> Result<(), BoxError> {
        let filter = self.some(&wanted)?;
        seen.purged.extend(letters_on(&self.desk(), Shelf::Dead).into_iter().filter(|offset| wanted(*offset)));
        self.desk().purge(&filter, 0)?;
        Ok(())
    }

    fn some(&self, wanted: impl Fn(u64) -> bool) -> Result<Filter, BoxError> {
        let page = self.desk().list(&Filter::default(), 0, usize::MAX)?;
        let ids = page.letters.iter().filter(|l| wanted(l.origin.offset)).map(|l| l.id.clone());
        let ids: Vec<String> = ids.chain([format!("{}-999-0", self.queues.log().log_id())]).collect();
        Ok(Filter { ids, ..Filter::default() })
    }
}

pub(super) const NOW: Kind = Kind::Held { not_before_ms: 0 };

/// A life with everything in it. Ends at the first thing that the disk refuses.
fn life(house: &House, seen: &mut Seen) -> Result<(), BoxError> {
    house.try_append(20)?;
    seen.appended = 20;
    house.take(seen, |offset| match offset {
        1 | 3 => Some(Kind::Dead),
        5 | 6 => Some(NOW),
        _ => None,
    })?;
    house.queues.tick()?;
    house.take(seen, |offset| (offset % 3 == 0).then_some(Kind::Dead))?;
    house.clock.advance(Duration::from_secs(1));
    house.send_held(seen, |offset| (offset == 6).then_some(Kind::Held { not_before_ms: u64::MAX }))?;
    house.redrive_some(|offset| offset == 3 || offset == 12)?;
    house.queues.tick()?;
    house.send_held(seen, |offset| (offset == 12).then_some(Kind::Dead))?;
    house.purge_some(seen, |offset| offset == 15)?;
    house.queues.tick()?;
    house.queues.tick()?;
    Ok(())
}

#[test]
fn a_crash_at_any_change_leaves_every_record_in_one_place() {
    let start = SimDisk::new(7);
    let house = House::on(Arc::new(start.clone()), ManualClock::at(1_000_000)).unwrap();
    drop(house);
    let snapshot = start.snapshot();
    let run = |disk: &SimDisk, seen: &mut Seen| {
        let house = House::on(Arc::new(disk.clone()), ManualClock::at(1_000_000));
        house.and_then(|house| life(&house, seen))
    };
    let changes = power_cut_at_any_change(&snapshot, run, |disk, mut seen, _| {
        let house = House::on(Arc::new(disk.clone()), ManualClock::at(2_000_000)).unwrap();
        house.check(&seen);
        // And it goes on from there.
        for _ in 0..4 {
            house.take(&mut seen, |offset| (offset % 3 == 0).then_some(Kind::Dead)).unwrap();
        }
        house.check(&seen);
        house.send_held(&mut seen, |_| None).unwrap();
        house.redrive_some(|_| true).unwrap();
        house.send_held(&mut seen, |_| None).unwrap();
        house.check(&seen);
        assert_eq!(house.sheet().dead_lettered.records, 0);
    });
    assert!(changes > 40, "{changes}: a life in which much is written");
}

/// What happens next in a random life.
#[derive(Debug, Clone)]
enum Step {
    Append,
    Take(u64),
    Send(u64),
    Redrive(u64),
    Purge(u64),
    Tick,
    Tend,
    Wait,
    Crash,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => Just(Step::Append),
        4 => (1u64..7).prop_map(Step::Take),
        3 => (2u64..9).prop_map(Step::Send),
        2 => (1u64..5).prop_map(Step::Redrive),
        1 => (2u64..5).prop_map(Step::Purge),
        2 => Just(Step::Tick),
        1 => Just(Step::Tend),
        2 => Just(Step::Wait),
        1 => Just(Step::Crash),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn whatever_happens_to_letters_the_books_say_where_each_record_is(steps in prop::collection::vec(step(), 1..40)) {
        let (mut house, mut seen) = (House::new(), Seen::default());
        for step in steps {
            match step {
                Step::Append => {
                    house.append(10);
                    seen.appended += 10;
                }
                Step::Take(n) => house.take(&mut seen, |offset| match offset % n {
                    0 => Some(Kind::Dead),
                    1 => Some(NOW),
                    2 => Some(Kind::Held { not_before_ms: 1_020_000 }),
                    _ => None,
                }).unwrap(),
                Step::Send(n) => house.send_held(&mut seen, |offset| match offset % n {
                    0 => Some(Kind::Dead),
                    1 => Some(Kind::Held { not_before_ms: house.clock.wall_ms() + 5_000 }),
                    _ => None,
                }).unwrap(),
                Step::Redrive(n) => house.redrive_some(|offset| offset % n == 0).unwrap(),
                Step::Purge(n) => house.purge_some(&mut seen, |offset| offset % n == 0).unwrap(),
                Step::Tick => house.queues.tick().unwrap(),
                Step::Tend => house.tend(),
                Step::Wait => house.clock.advance(Duration::from_secs(3)),
                Step::Crash => house = house.crash(),
            }
            house.check(&seen);
        }
    }
}
