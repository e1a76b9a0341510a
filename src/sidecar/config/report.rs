//! Gathers the findings of one document, and knows where in it they are.
//!
//! Parses the text as well, because a torn line is the first kind of finding and colours the others: what was
//! recovered from a torn line is a guess, and gets no findings of its own. Judges no value.

use std::cell::RefCell;
use std::collections::BTreeSet;

use toml::Spanned;
use toml::de::DeTable;

use super::finding::{Finding, Severity, any_error};

/// The findings of one document.
pub(super) struct Report {
    /// The byte at which each line starts.
    line_starts: Box<[u32]>,
    /// Lines that are not TOML: what was recovered from them is a guess, and gets no findings of its own.
    torn_lines: BTreeSet<usize>,
    /// A `[table]` line is among them, so keys may stand in the wrong table or seem to lack.
    torn_header: bool,
    found: RefCell<Vec<Finding>>,
    /// Every key that was asked for, with its table: what the example has to mention, as a test sees to. Of thousands of
    /// destinations that was a fifth of what a start takes.
    #[cfg(test)]
    asked: RefCell<BTreeSet<(String, &'static str)>>,
    /// The paths of values that may not be shown.
    secrets: RefCell<BTreeSet<String>>,
}

impl Report {
    /// Parses `text`; what is not TOML is reported, and the rest is there to be read.
    pub(super) fn parse(text: &str) -> (Self, Spanned<DeTable<'_>>) {
        let (document, errors) = DeTable::parse_recoverable(text);
        // Of its final size from the start: thousands of destinations are ten thousands of lines.
        let mut line_starts = Vec::with_capacity(1 + text.matches('\n').count());
        line_starts.push(0);
        line_starts.extend(text.match_indices('\n').map(|(at, _)| short(at + 1)));
        let mut report = Self {
            line_starts: line_starts.into(),
            torn_lines: BTreeSet::new(),
            torn_header: false,
            found: RefCell::default(),
            #[cfg(test)]
            asked: RefCell::default(),
            secrets: RefCell::default(),
        };
        for error in errors {
            let line = report.line(error.span().map_or(0, |span| span.start));
            // One slip can make the parser stumble several times over the same line.
            if report.torn_lines.insert(line) {
                report.torn_header |= text.lines().nth(line - 1).is_some_and(|line| line.trim_start().starts_with('['));
                report.found.borrow_mut().push(Finding {
                    severity: Severity::Error,
                    line: Some(line),
                    path: String::new(),
                    // The message alone: the error's Display quotes the line, and that may hold a secret.
                    message: format!("this is not TOML: {}", error.message()),
                    remedy: "correct the line; the format is at https://toml.io".into(),
                });
            }
        }
        (report, document)
    }

    /// The place of the document as a whole.
    pub(super) fn top(&self) -> Place<'_> {
        Place { report: self, line: 1, path: String::new() }
    }

    /// The findings in the order of the file.
    pub(super) fn into_findings(self) -> Vec<Finding> {
        let mut found = self.found.into_inner();
        found.sort_by(|a, b| (a.line, a.severity, &a.path).cmp(&(b.line, b.severity, &b.path)));
        found
    }

    /// Whether the document can't be used.
    pub(super) fn any_error(&self) -> bool {
        any_error(&self.found.borrow())
    }

    /// The paths of values that may not be shown.
    pub(super) fn secrets(&self) -> BTreeSet<String> {
        self.secrets.borrow().clone()
    }

    /// The keys that were asked for, each with its table's kind.
    #[cfg(test)]
    pub(super) fn asked(&self) -> BTreeSet<(String, &'static str)> {
        self.asked.borrow().clone()
    }

    fn line(&self, at: usize) -> usize {
        self.line_starts.partition_point(|start| *start <= short(at))
    }
}

/// A place in the text. No file is read that is longer, and a longer text would only get wrong line numbers.
fn short(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}

/// A place in the document that findings can be about.
#[derive(Clone)]
pub(super) struct Place<'r> {
    report: &'r Report,
    line: usize,
    path: String,
}

impl<'r> Place<'r> {
    pub(super) fn line(&self) -> usize {
        self.line
    }

    pub(super) fn path(&self) -> &str {
        &self.path
    }

    pub(super) fn error(&self, message: impl Into<String>, remedy: impl Into<String>) {
        self.found(Severity::Error, message.into(), remedy.into());
    }

    pub(super) fn warning(&self, message: impl Into<String>, remedy: impl Into<String>) {
        self.found(Severity::Warning, message.into(), remedy.into());
    }

    /// An error that stands only if the document's tables are what they seem: something is missing or out of place.
    pub(super) fn misplaced(&self, message: impl Into<String>, remedy: impl Into<String>) {
        if !self.report.torn_header {
            self.error(message, remedy);
        }
    }

    /// Remembers that a key was asked for, in a table of this kind.
    #[cfg(test)]
    pub(super) fn asked(&self, kind: &str, key: &'static str) {
        self.report.asked.borrow_mut().insert((kind.to_owned(), key));
    }

    /// Remembers that what stands here may not be shown.
    pub(super) fn secret(&self) {
        self.report.secrets.borrow_mut().insert(self.path.clone());
    }

    fn found(&self, severity: Severity, message: String, remedy: String) {
        if !self.report.torn_lines.contains(&self.line) {
            let finding = Finding { severity, line: Some(self.line), path: self.path.clone(), message, remedy };
            self.report.found.borrow_mut().push(finding);
        }
    }

    /// The place of a key inside this one.
    pub(super) fn key(&self, key: &str, at: usize) -> Self {
        Self { report: self.report, line: self.report.line(at), path: join(&self.path, key) }
    }

    /// The place of a key that is not written down: its table's line.
    pub(super) fn default_of(&self, key: &str) -> Self {
        Self { path: join(&self.path, key), ..self.clone() }
    }

    /// The place of one element, by name or number.
    pub(super) fn element(&self, label: &str, at: usize) -> Self {
        Self { report: self.report, line: self.report.line(at), path: format!("{}[{label}]", self.path) }
    }
}

/// A path of keys, one longer; a key that is no bare word is quoted and escaped.
pub(super) fn join(path: &str, key: &str) -> String {
    let bare = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    let key = if bare { key.to_owned() } else { format!("{key:?}") };
    if path.is_empty() { key } else { format!("{path}.{key}") }
}
