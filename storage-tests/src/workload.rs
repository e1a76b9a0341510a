//! One life after another of a log on a simulated disk, with the model beside it: what tests and crash points drive.
//!
//! A step never panics over what the log does wrong: it says so, and whoever drives adds which case it was.

use crate::budget;
use crate::fault::{Fault, Performed};
use crate::interrupted::Interrupted;
use crate::model::log::Model;
use crate::parts::Part;
use crate::sim_disk::{PowerCut, SimDisk};
use forebay::clock::ManualClock;
use forebay::disk::Disk;
use forebay::{AppendError, Appended, Log, LogOptions, LogState, OnFull, OpenError, Payload};
use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Where the log lies.
pub const DIR: &str = "/log";

/// A stream, and parts of these lengths and record counts.
pub type Append = (&'static str, Vec<(usize, u32)>);

/// Something done to a log.
#[derive(Debug, Clone)]
pub enum Step {
    /// Appends parts of these lengths and record counts to a stream.
    Append(&'static str, Vec<(usize, u32)>),
    /// The same, and whenever something is written to a segment before it is answered somebody else appends the next of these.
    Among(Append, Vec<Append>),
    /// Trims a stream to this many records before its end.
    Trim(&'static str, u64),
    /// A round of housekeeping.
    Housekeep,
    /// Reads everything and compares.
    Read,
    /// Time goes by.
    Advance(Duration),
    /// Closes and opens again.
    Reopen,
    /// The process or the machine ends here.
    End(End),
    /// The process ends in the midst of the change that is this many ahead.
    CrashAhead(u64, Performed),
    /// The disk goes bad.
    Inject(Fault),
    /// The disk is good again.
    Heal,
    /// This much room from now on.
    Capacity(u64),
}

/// How a life ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The process is killed; the kernel lives on.
    Kill,
    /// The power fails.
    Cut(PowerCut),
}

/// A log and what is known about it.
pub struct Session {
    /// The disk.
    pub disk: SimDisk,
    /// The clock.
    pub clock: ManualClock,
    /// How the log is opened.
    pub options: LogOptions,
    /// What must be there.
    pub model: Model,
    /// How lives end that end in the midst of a change.
    pub ends: Vec<End>,
    log: Option<Log>,
    /// The disk as the log sees it.
    seam: Interrupted<SimDisk>,
    appends: u64,
    faulty: bool,
}

/// Geometry in which everything happens within a few kilobytes.
#[must_use]
pub fn tiny() -> LogOptions {
    LogOptions {
        segment_bytes: 4 << 10,
        append_bytes_max: 64 << 10,
        tail_cache_bytes: 1 << 10,
        budget_bytes: 256 << 10,
        inline: true,
        ..LogOptions::small()
    }
}

impl Session {
    /// An empty disk; nothing is open yet.
    #[must_use]
    pub fn new(seed: u64, options: LogOptions) -> Self {
        let disk = SimDisk::new(seed);
        Self {
            seam: Interrupted::over(disk.clone()),
            disk,
            clock: ManualClock::at(1_000_000),
            options,
            model: Model::default(),
            ends: vec![End::Cut(PowerCut::RandomSubset)],
            log: None,
            appends: 0,
            faulty: false,
        }
    }

    /// Another session that stands where this one stands, with other chances. Its log is not open.
    #[must_use]
    pub fn fork(&self, seed: u64) -> Self {
        let disk = SimDisk::from_snapshot(&self.disk.snapshot());
        disk.reseed(seed);
        Self {
            seam: Interrupted::over(disk.clone()),
            disk,
            clock: self.clock.clone(),
            options: self.options.clone(),
            model: self.model.clone(),
            ends: self.ends.clone(),
            log: None,
            appends: self.appends,
            faulty: self.faulty,
        }
    }

    /// The open log.
    ///
    /// # Panics
    /// When none is open.
    #[must_use]
    pub fn log(&self) -> &Log {
        self.log.as_ref().expect("the test opened the log")
    }

    /// Opens the log without looking at it.
    ///
    /// # Errors
    /// As the log says.
    pub fn try_open(&mut self) -> Result<&Log, OpenError> {
        self.log = None;
        let disk = Arc::new(self.seam.clone()) as Arc<dyn Disk>;
        let log = Log::open(disk, Arc::new(self.clock.clone()), Path::new(DIR), self.options.clone())?;
        Ok(self.log.insert(log))
    }

    /// Opens the log and checks what it holds. `false` when the disk did not let it.
    ///
    /// # Errors
    /// When it holds anything else than it must, or can't be opened on a disk that works.
    pub fn open(&mut self) -> Result<bool, String> {
        match self.try_open().map(|_| ()) {
            Ok(_) => {}
            Err(OpenError::Io { .. }) if self.disk.crashed() || self.faulty => return Ok(false),
            Err(e) => return Err(format!("the log does not open: {e}")),
        }
        let log = self.log.as_ref().expect("just opened");
        // On a copy: where a bad disk ends the look at it early, nothing is decided.
        let mut seen = self.model.clone();
        match seen.check_reopened(log) {
            Err(_) if self.disk.crashed() || self.faulty => {
                self.log = None;
                Ok(false)
            }
            Err(e) => Err(e),
            Ok(()) => {
                self.model = seen;
                Ok(true)
            }
        }
    }

    /// Does one step. A crash point that is reached in it ends this life, and the next one is opened and checked.
    ///
    /// # Errors
    /// When the log did something else than it must.
    pub fn step(&mut self, step: &Step) -> Result<(), String> {
        self.act(step)?;
        if self.disk.crashed() && !self.ends.is_empty() {
            let end = self.ends[self.appends as usize % self.ends.len()];
            self.end(end);
            self.revive()?;
        }
        Ok(())
    }

    /// Does one step, and leaves a crash for what it is.
    ///
    /// # Errors
    /// When the log did something else than it must.
    pub fn act(&mut self, step: &Step) -> Result<(), String> {
        match step {
            Step::Append(stream, parts) => drop(self.append(stream, parts)?),
            Step::Among(append, others) => self.append_among(append, others)?,
            Step::Trim(stream, back) => self.trim(stream, *back),
            Step::Housekeep => self.log.iter().for_each(Log::housekeep),
            Step::Read => self.check_live()?,
            Step::Advance(by) => self.clock.advance(*by),
            Step::Reopen => {
                let closed = self.log.take().map(|log| log.close());
                if let Some(Err(e)) = closed
                    && !self.faulty
                    && !self.disk.crashed()
                {
                    return Err(format!("the log does not close: {e}"));
                }
                self.revive()?;
            }
            Step::End(end) => {
                self.end(*end);
                self.revive()?;
            }
            Step::CrashAhead(ahead, performed) => self.disk.crash_at(self.disk.ops() + ahead, *performed),
            Step::Inject(fault) => {
                self.faulty = true;
                self.disk.inject(fault.clone());
            }
            Step::Heal => {
                self.disk.clear_faults();
                self.disk.set_capacity(1 << 40);
                self.faulty = false;
                if self.log.is_none() {
                    self.revive()?;
                }
                // The log finds out by itself, but not before it looks.
                self.log.iter().for_each(Log::housekeep);
            }
            Step::Capacity(bytes) => {
                self.faulty = true;
                self.disk.set_capacity(*bytes);
            }
        }
        Ok(())
    }

    /// Appends, and tells the model. What the log answered.
    ///
    /// # Errors
    /// When it gave wrong offsets.
    pub fn append(&mut self, stream: &str, parts: &[(usize, u32)]) -> Result<Result<(), AppendError>, String> {
        let parts = self.parts(parts);
        let Some(log) = &self.log else { return Ok(Err(AppendError::Closed)) };
        let answer = log.append_wait(stream, payloads(&parts));
        self.answered(stream, &parts, answer)
    }

    /// Appends, and has others append meanwhile; then tells the model of all, in their order.
    fn append_among(&mut self, (stream, parts): &Append, others: &[Append]) -> Result<(), String> {
        type Answered = Arc<Mutex<Option<Result<Appended, AppendError>>>>;
        type Came = (&'static str, Vec<Part>, Answered);
        let Some(log) = self.log.clone() else { return Ok(()) };
        let parts = self.parts(parts);
        let others = others.iter().map(|(stream, parts)| (*stream, self.parts(parts)));
        let coming: Mutex<VecDeque<(&'static str, Vec<Part>)>> = Mutex::new(others.collect());
        let came: Arc<Mutex<Vec<Came>>> = Arc::default();
        let queue = {
            let (log, came) = (log.clone(), Arc::clone(&came));
            move |(stream, parts): (&'static str, Vec<Part>)| {
                let answered = Answered::default();
                let theirs = Arc::clone(&answered);
                let done = Box::new(move |answer| *theirs.lock().expect("no panic") = Some(answer));
                let queued = log.append_group(stream, payloads(&parts), OnFull::Refuse, done);
                if let Err(e) = queued {
                    *answered.lock().expect("no panic") = Some(Err(e));
                }
                came.lock().expect("no panic").push((stream, parts, answered));
            }
        };
        self.seam.interrupt_writing(Some(Arc::new(move |path, _| {
            if path.extension().is_some_and(|name| name == "seg" || name == "sys") {
                let next = coming.lock().expect("no panic").pop_front();
                next.into_iter().for_each(&queue);
            }
        })));
        let answer = log.append_wait(stream, payloads(&parts));
        self.seam.interrupt_writing(None);
        let _ = self.answered(stream, &parts, answer)?;
        let came = std::mem::take(&mut *came.lock().expect("no panic"));
        for (stream, parts, answered) in came {
            let answer = answered.lock().expect("no panic").take();
            let _ = self.answered(stream, &parts, answer.ok_or("an append is not answered")?)?;
        }
        Ok(())
    }

    /// Parts of bytes that nobody appended yet.
    fn parts(&mut self, parts: &[(usize, u32)]) -> Vec<Part> {
        self.appends += 1;
        let id = |i: usize| self.appends * 16 + i as u64;
        parts.iter().enumerate().map(|(i, (len, records))| Part::new(id(i), *len, *records)).collect()
    }

    /// Tells the model of an append and what was answered.
    fn answered(
        &mut self,
        stream: &str,
        parts: &[Part],
        answer: Result<Appended, AppendError>,
    ) -> Result<Result<(), AppendError>, String> {
        self.model.attempt(stream, parts);
        let serving = self.log.as_ref().is_some_and(|log| log.state() == LogState::Serving);
        match answer {
            Ok(appended) => self.model.acked(stream, &appended).map(Ok),
            Err(e @ AppendError::OverShare { .. }) => Ok(Err(e)), // nobody trimmed it for long
            Err(e) if self.disk.crashed() || self.faulty || !serving => Ok(Err(e)),
            Err(e) => Err(format!("an append is refused: {e}")),
        }
    }

    /// Trims a stream to `back` records before its end.
    pub fn trim(&mut self, stream: &str, back: u64) {
        let before = self.model.next(stream).saturating_sub(back);
        self.model.trim(stream, before);
        if let Some(log) = &self.log
            && let Some(id) = log.stream(stream)
        {
            log.trim(id, before);
        }
    }

    /// Compares everything that can be read now.
    ///
    /// # Errors
    /// The first difference.
    pub fn check_live(&self) -> Result<(), String> {
        match self.log.as_ref().map(|log| self.model.check_live(log)) {
            Some(Err(e)) if !self.faulty && !self.disk.crashed() => Err(e),
            _ => Ok(()),
        }
    }

    /// Compares what is on the disk with what the log counts.
    ///
    /// # Errors
    /// The difference.
    pub fn check_budget(&self) -> Result<(), String> {
        budget::check(&self.disk, self.log(), self.options.budget_bytes)
    }

    /// The end of this life.
    pub fn end(&mut self, end: End) {
        self.log = None;
        match end {
            End::Kill => self.disk.process_kill(),
            End::Cut(cut) => self.disk.power_cut(cut),
        }
    }

    /// Opens and checks, through as many crashes as are still armed.
    ///
    /// # Errors
    /// When the log holds anything else than it must.
    pub fn revive(&mut self) -> Result<(), String> {
        loop {
            if self.open()? || !self.disk.crashed() {
                return Ok(());
            }
            self.end(self.ends.first().copied().unwrap_or(End::Cut(PowerCut::NothingUnsynced)));
        }
    }

    /// What follows on every recovery: it can be repeated, the log goes on, and what it then promises holds too.
    ///
    /// # Errors
    /// When any of it fails.
    pub fn goes_on(&mut self) -> Result<(), String> {
        self.end(End::Cut(PowerCut::NothingUnsynced));
        self.open().map_err(|e| format!("opened again: {e}"))?;
        for stream in ["a", "b", "!plans", "!dead/x", "late"] {
            self.append(stream, &[(40, 2)])?.map_err(|e| format!("after recovery: {e}"))?;
        }
        self.check_budget().and_then(|()| self.check_live()).map_err(|e| format!("after recovery: {e}"))?;
        self.end(End::Cut(PowerCut::NothingUnsynced));
        self.open().map_err(|e| format!("after recovery, appends and a cut: {e}"))?;
        Ok(())
    }
}

/// As the log takes them.
fn payloads(parts: &[Part]) -> Vec<Payload> {
    parts.iter().map(Part::payload).collect()
}

/// Geometry in which appends of more than two thousand bytes are written in steps.
#[must_use]
pub fn tiny_steps() -> LogOptions {
    LogOptions { large_append_bytes: 2000, ..tiny() }
}
