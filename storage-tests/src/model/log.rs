//! The log as one would keep it on paper: what was asked, what was answered, and what must therefore be there.
//!
//! It knows no files. What always holds: `frames` are the records that somebody was promised or has seen, each offset
//! once; `maybe` are the appends of this life that were not promised and may, whole, come out of a crash. Opening the
//! log again decides about them for good.

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

    /// The append attempted last is promised.
    ///
    /// # Errors
    /// When its offsets are not the next ones.
    pub fn acked(&mut self, stream: &str, appended: &Appended) -> Result<(), String> {
        let model = self.streams.get_mut(stream).expect("attempted before");
        let parts = model.maybe.pop().expect("attempted before");
        let records: u64 = parts.iter().map(|part| u64::from(part.records)).sum();
        let expected = model.next..model.next + records;
        if appended.offsets != expected {
            return Err(format!("{stream} was given {:?}, the next offsets are {expected:?}", appended.offsets));
        }
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

    /// Streams that were ever asked for.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.streams.keys().map(String::as_str)
    }

    /// Compares with a log that has been open since the last check: nothing but what was promised is seen.
    ///
    /// # Errors
    /// The first difference.
    pub fn check_live(&self, log: &Log) -> Result<(), String> {
        self.clone().check(log, false)
    }

    /// Compares with a log just opened on what a crash left, and takes in what it kept of the unanswered appends.
    /// What it did not keep must never come back.
    ///
    /// # Errors
    /// The first difference.
    pub fn check_reopened(&mut self, log: &Log) -> Result<(), String> {
        self.check(log, true)
    }

    fn check(&mut self, log: &Log, reopened: bool) -> Result<(), String> {
        if log.stats().damages != 0 || !log.damages().is_empty() {
            return Err(format!("damage is reported where none was done: {:?}", log.damages()));
        }
        for known in log.streams() {
            if !self.streams.contains_key(&*known.name) {
                return Err(format!("a stream nobody asked for: {}", known.name));
            }
        }
        for (name, model) in &mut self.streams {
            let seen = read(log, name)?;
            model.compare(&seen, reopened).map_err(|e| format!("stream {name}: {e}"))?;
            if reopened {
                model.maybe.clear();
            }
            let Some(id) = log.stream(name) else {
                if model.next > 0 {
                    return Err(format!("stream {name} is unknown"));
                }
                continue;
            };
            let tail = log.durable(id);
            if (tail.offset, tail.bytes) != (model.next, model.bytes) {
                return Err(format!(
                    "stream {name} ends at {tail:?}, not at {} with {} bytes",
                    model.next, model.bytes
                ));
            }
            if log.first_kept(id) > model.trimmed {
                return Err(format!("stream {name}: {} first kept, {} trimmed", log.first_kept(id), model.trimmed));
            }
        }
        Ok(())
    }

    /// What a log with damaged files has lost. Everything it serves must be as it was appended.
    ///
    /// # Errors
    /// When it serves something else.
    pub fn missing(&self, log: &Log) -> Result<Missing, String> {
        let mut missing = Missing::default();
        for (name, model) in &self.streams {
            let seen = read(log, name)?;
            let mut end = 0;
            for item in &seen {
                if item.offsets.start != end {
                    return Err(format!(
                        "stream {name}: {:?} follows on offset {end}: skipped in silence",
                        item.offsets
                    ));
                }
                end = item.offsets.end;
                match &item.frame {
                    Some(_) => model.expect(item).map_err(|e| format!("stream {name}: {e}"))?,
                    None => missing.told.push((name.clone(), item.offsets.clone())),
                }
            }
            if end < model.next {
                missing.untold.push((name.clone(), end..model.next));
            }
        }
        missing.told.retain(|(name, offsets)| offsets.end > self.streams[name].trimmed);
        missing.untold.retain(|(name, offsets)| offsets.end > self.streams[name].trimmed);
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

    fn compare(&mut self, seen: &[Seen], reopened: bool) -> Result<(), String> {
        let mut at = 0;
        let mut rest = seen;
        while let Some(item) = rest.first() {
            if item.offsets.start != at {
                return Err(format!("{:?} follows on offset {at}", item.offsets));
            }
            at = item.offsets.end;
            match &item.frame {
                None if item.offsets.end > self.trimmed => return Err(format!("{:?} are lost", item.offsets)),
                None => rest = &rest[1..],
                Some(_) if item.offsets.start < self.next => {
                    self.expect(item)?;
                    rest = &rest[1..];
                }
                Some(_) if !reopened => return Err(format!("{:?} were never promised", item.offsets)),
                Some(_) => {
                    rest = self.absorb(rest)?;
                    at = self.next;
                }
            }
        }
        if at < self.next && self.trimmed < self.next {
            return Err(format!("read up to {at} of {}", self.next));
        }
        Ok(())
    }

    /// The item must be a frame that was promised.
    fn expect(&self, item: &Seen) -> Result<(), String> {
        let at = self.frames.binary_search_by_key(&item.offsets.start, |known| known.first);
        let Ok(at) = at else { return Err(format!("{:?} is no frame of ours", item.offsets)) };
        let known = &self.frames[at];
        let same = item.offsets.end == known.first + u64::from(known.part.records)
            && item
                .frame
                .as_ref()
                .is_some_and(|(before, bytes)| *before == known.bytes_before && bytes[..] == known.part.bytes[..]);
        if same { Ok(()) } else { Err(format!("{:?} is not what was appended", item.offsets)) }
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
