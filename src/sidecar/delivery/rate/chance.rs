//! Whether requests to wait come for the rate, or by chance. Pure.
//!
//! A limit that was met is left behind: after a step or two down nothing is refused until more is tried. Who refuses some
//! of its requests at random refuses the same part of them however slowly it is sent to; each of them taken for a limit would
//! bring the rate down to nothing.
//!
//! What always holds: refusals are called chance only after many steps down in a row that changed nothing; then the rate is
//! again what it was before these; and when much more is refused than by chance it is a limit again.

use super::learned::Speed;

/// So many steps down in a row, without that more was tried in between, are no limit's.
const STEPS: u32 = 8;

/// Where at least so many requests were taken for each: who refuses nearly everything has another reason.
const TAKEN_A_STEP: u32 = 3;

/// And where the rate fell to less than this part of what it was: that would have been felt.
const FELL_TO: f64 = 0.75;

/// Each time that this was a mistake it takes twice as many steps, up to so many times.
const MISTAKES_MAX: u32 = 4;

/// So many steps down in a row by more than chance are a limit's after all.
const LIMITS: u32 = 4;

/// What counts as recent: so many requests, mostly.
const RECENT: f64 = 64.0;

/// Refusals by chance vary. Beyond so many times their usual part, and this, they are a limit's.
const VARIES: f64 = 2.0;
const VARIES_BY: f64 = 0.03;

/// Below one in so many of their usual part there are none any more.
const FADES: f64 = 16.0;

/// What a request to wait is about.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Verdict {
    /// The rate.
    Limit,
    /// Nothing.
    Chance,
    /// Nothing, nor were those before it: this was the rate before the first of them.
    AllChance(Speed),
}

/// What is remembered of refusals.
#[derive(Debug, Clone, Default)]
pub(super) struct Chance {
    /// Steps down since more was tried, and what was taken since the first.
    steps: u32,
    taken: u32,
    /// The rate before the first of them.
    before: Option<Speed>,
    /// The part of the requests that is refused by chance, as soon as that is known.
    part: Option<f64>,
    /// The part that was refused lately.
    recent: f64,
    mistakes: u32,
}

impl Chance {
    /// Whether it is known to refuse by chance.
    pub(super) fn is_known(&self) -> bool {
        self.part.is_some()
    }

    /// A request was taken.
    pub(super) fn taken(&mut self) {
        self.recent *= 1.0 - 1.0 / RECENT;
        if self.part.is_some_and(|part| self.recent < part / FADES) {
            self.part = None; // it has ended, or never was
        }
        self.taken = self.taken.saturating_add(u32::from(self.before.is_some()));
    }

    /// More is tried: what was known was kept to without a refusal.
    pub(super) fn kept(&mut self) {
        (self.steps, self.taken, self.before) = (0, 0, None);
    }

    /// A request was refused at this rate. `holding`: no more was tried than is known to be taken.
    pub(super) fn refused(&mut self, holding: bool, now: Speed) -> Verdict {
        self.recent += (1.0 - self.recent) / RECENT;
        if let Some(part) = self.part {
            if self.recent <= VARIES * part + VARIES_BY {
                return Verdict::Chance;
            }
            // The rate falls: from here on it is counted anew.
            self.recent = part;
            self.steps += u32::from(holding);
            if self.steps >= LIMITS {
                (self.part, self.mistakes) = (None, (self.mistakes + 1).min(MISTAKES_MAX));
                self.kept();
            }
            return Verdict::Limit;
        }
        if !holding {
            return Verdict::Limit;
        }
        let before = *self.before.get_or_insert(now);
        self.steps = self.steps.saturating_add(1);
        let many = self.steps >= STEPS << self.mistakes && self.taken >= self.steps.saturating_mul(TAKEN_A_STEP);
        if many && now.requests < before.requests * FELL_TO {
            let part = f64::from(self.steps) / f64::from(self.steps + self.taken);
            (self.part, self.recent) = (Some(part), part);
            self.kept();
            return Verdict::AllChance(before);
        }
        Verdict::Limit
    }
}
