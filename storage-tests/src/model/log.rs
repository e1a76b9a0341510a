//! The log as one would keep it on paper: what was asked, what was answered, and what must therefore be there.
//!
//! It knows no files. What always holds: `frames` are the records that somebody was promised or has seen, each offset
//! once; `maybe` are the appends of this life that were not promised and may, whole, come out of a crash. Opening the
//! log again decides about them for good. What is otherwise is an error, of which the first is told.

use crate::parts::Part;
use crate::reading::{Seen, read};
use forebay::{Appended, Log};
use std::collections::BTreeMap;
use std::ops::Range;

/// What the log must hold.
#[derive(Debug, Clone, Default)]
pub struct Model {
    streams: BTreeMap<String, StreamModel>,
}

#[derive(Debug, Clone, Default)]
struct StreamModel {
    frames: Vec<Known>,
    next: u64,
    bytes: u64,
    /// Below this anything may be missing.
    trimmed: u64,
    maybe: Vec<Vec<Part>>,
}

#[derive(Debug, Clone)]
struct Known {
    first: u64,
    bytes_before: u64,
    part: Part,
}

/// What is missing from a damaged log, per stream. Nothing that is there is altered: see [`Model::missing`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Missing {
    /// What readers were told is lost.
    pub told: Vec<(String, Range<u64>)>,
    /// What is gone without a word: frames at the very end of a stream.
    pub untold: Vec<(String, Range<u64>)>,
}

impl Model {
    /// An append is about to be asked for: from now on it may be there.
    pub fn attempt(&mut self, stream: &str, parts: &[Part]) {
        self.streams.entry(stream.to_owned()).or_default().maybe.push(parts.to_vec());
    }

    /// The append attempted last is promised, at the next offsets.
    pub fn acked(&mut self, stream: &str, appended: &Appended) -> Result<(), String> {
        let model = self.streams.get_mut(stream).expect("attempted before");
        let parts = model.maybe.pop().expect("attempted before");
        let records: u64 = parts.iter().map(|part| u64::from(part.records)).sum();
        let expected = model.next..model.next + records;
        let given = &appended.offsets;
        ensure(*given == expected, || format!("{stream} was given {given:?}, not {expected:?}"))?;
        parts.into_iter().for_each(|part| model.push(part));
        Ok(())
    }

    /// Nobody needs records of `stream` below `before` any more.
    pub fn trim(&mut self, stream: &str, before: u64) {
        if let Some(model) = self.streams.get_mut(stream) {
            model.trimmed = model.trimmed.max(before.min(model.next));
        }
    }

    /// Somebody has seen offsets below `offset`: none of them is given again.
    pub fn raise(&mut self, stream: &str, offset: u64) {
        let model = self.streams.entry(stream.to_owned()).or_default();
        model.next = model.next.max(offset);
        model.trimmed = model.trimmed.max(offset); // lost before we knew
    }

    /// The offset that the next record gets.
    #[must_use]
    pub fn next(&self, stream: &str) -> u64 {
        self.streams.get(stream).map_or(0, |model| model.next)
    }

    /// Compares with a log that has been open since the last check: nothing but what was promised is seen.
    pub fn check_live(&self, log: &Log) -> Result<(), String> {
        self.clone().check(log, false)
    }

    /// Compares with a log just opened on what a crash left, and takes in what it kept of the unanswered appends.
    /// What it did not keep must never come back.
    pub fn check_reopened(&mut self, log: &Log) -> Result<(), String> {
        self.check(log, true)
    }

    fn check(&mut self, log: &Log, reopened: bool) -> Result<(), String> {
        let damages = log.damages();
        let sound = damages.is_empty() && log.stats().damages == 0;
        ensure(sound, || format!("damage is reported where none was done: {damages:?}"))?;
        let foreign = log.streams().into_iter().find(|known| !self.streams.contains_key(&*known.name));
        ensure(foreign.is_none(), || format!("a stream nobody asked for: {foreign:?}"))?;
        let missing = self.compare(log, reopened)?;
        ensure(missing == Missing::default(), || format!("{missing:?}"))?;
        for (name, model) in &self.streams {
            let id = log.stream(name);
            ensure(id.is_some() || model.next == 0, || format!("stream {name} is unknown"))?;
            let Some(id) = id else { continue };
            let (tail, kept) = (log.durable(id), log.first_kept(id));
            let (end, trimmed) = ((model.next, model.bytes), model.trimmed);
            ensure((tail.offset, tail.bytes) == end, || format!("stream {name} ends at {tail:?}, not at {end:?}"))?;
            ensure(kept <= trimmed, || format!("stream {name}: {kept} first kept, {trimmed} trimmed"))?;
        }
        Ok(())
    }

    /// What a log with damaged files has lost. Everything it serves must be as it was appended.
    pub fn missing(&self, log: &Log) -> Result<Missing, String> {
        self.clone().compare(log, false)
    }

    /// Compares all that readers meet, and says what they don't.
    fn compare(&mut self, log: &Log, reopened: bool) -> Result<Missing, String> {
        let mut missing = Missing::default();
        for (name, model) in &mut self.streams {
            let lost = model.compare(&read(log, name)?, reopened);
            let (told, untold) = lost.map_err(|e| format!("stream {name}: {e}"))?;
            missing.told.extend(told.into_iter().map(|offsets| (name.clone(), offsets)));
            missing.untold.extend((!untold.is_empty()).then_some((name.clone(), untold)));
        }
        Ok(missing)
    }
}

impl StreamModel {
    fn push(&mut self, part: Part) {
        let (first, bytes_before) = (self.next, self.bytes);
        self.next += u64::from(part.records);
        self.bytes += part.bytes.len() as u64;
        self.frames.push(Known { first, bytes_before, part });
    }

    /// Compares with what a reader met. What it was told is lost, and what is gone from the end, where not all of it was
    /// trimmed.
    fn compare(&mut self, seen: &[Seen], reopened: bool) -> Result<(Vec<Range<u64>>, Range<u64>), String> {
        let (mut at, mut rest, mut told) = (0, seen, Vec::new());
        while let Some(item) = rest.first() {
            ensure(item.offsets.start == at, || format!("{:?} follows on {at}: skipped in silence", item.offsets))?;
            at = item.offsets.end;
            match &item.frame {
                Some(_) if reopened && item.offsets.start >= self.next => {
                    rest = self.absorb(rest)?;
                    at = self.next;
                    continue;
                }
                Some(_) => self.expect(item)?,
                None => told.push(item.offsets.clone()),
            }
            rest = &rest[1..];
        }
        if reopened {
            self.maybe.clear();
        }
        told.retain(|offsets| offsets.end > self.trimmed);
        Ok((told, if self.next > self.trimmed { at..self.next } else { 0..0 }))
    }

    /// The item must be a frame that was promised.
    fn expect(&self, item: &Seen) -> Result<(), String> {
        let at = self.frames.binary_search_by_key(&item.offsets.start, |known| known.first);
        let same = at.is_ok_and(|at| {
            let Known { first, bytes_before, part } = &self.frames[at];
            let as_it_was = |(before, bytes): &(u64, Vec<u8>)| before == bytes_before && bytes[..] == part.bytes[..];
            item.offsets.end == first + u64::from(part.records) && item.frame.as_ref().is_some_and(as_it_was)
        });
        ensure(same, || format!("{:?} is not what was appended", item.offsets))
    }

    /// Takes in an unanswered append that was kept: whole, or it should not be there.
    fn absorb<'a>(&mut self, rest: &'a [Seen]) -> Result<&'a [Seen], String> {
        let fits = |parts: &Vec<Part>| {
            parts.len() <= rest.len()
                && parts.iter().zip(rest).all(|(part, item)| {
                    item.offsets.end - item.offsets.start == u64::from(part.records)
                        && item.frame.as_ref().is_some_and(|(_, bytes)| bytes[..] == part.bytes[..])
                })
        };
        let Some(at) = self.maybe.iter().position(fits) else {
            return Err(format!("{:?} was appended by nobody, or not so, or in part", rest[0].offsets));
        };
        let parts = self.maybe.remove(at);
        let n = parts.len();
        for (part, item) in parts.into_iter().zip(rest) {
            self.push(part);
            self.expect(item)?;
        }
        Ok(&rest[n..])
    }
}

fn ensure(holds: bool, else_: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(else_()) }
}
