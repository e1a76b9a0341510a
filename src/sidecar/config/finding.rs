//! What is wrong with a configuration, as data, and the one place that turns it into text.
//!
//! A finding says where, what, and what to do about it. It never holds a secret: whoever makes one from a value that
//! may be secret names the value's place and not the value.

use std::fmt::Write as _;

/// Whether a finding keeps the sidecar from starting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The configuration can't be used.
    Error,
    /// It can be used, and the operator should know.
    Warning,
}

impl Severity {
    fn word(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
        }
    }
}

/// One thing that is wrong, or doubtful.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Whether it keeps the sidecar from starting.
    pub severity: Severity,
    /// The line it is on, counted from 1; `None` when it is about the file as a whole.
    pub line: Option<usize>,
    /// The key it is about, such as `destinations[acme-hook].url`; empty when it is about the file.
    pub path: String,
    /// What is wrong: lower case, no full stop.
    pub message: String,
    /// What to do about it.
    pub remedy: String,
}

/// Whether any of them keeps the sidecar from starting.
#[must_use]
pub fn any_error(findings: &[Finding]) -> bool {
    findings.iter().any(|finding| finding.severity == Severity::Error)
}

/// The findings as text for people: two lines each, the first in the `file:line:` form that editors jump to.
#[must_use]
pub fn render(file: &str, findings: &[Finding]) -> String {
    let mut text = String::new();
    for finding in findings {
        text.push_str(file);
        if let Some(line) = finding.line {
            write!(text, ":{line}").expect("a String takes everything");
        }
        write!(text, ": {}: ", finding.severity.word()).expect("a String takes everything");
        if !finding.path.is_empty() {
            write!(text, "{}: ", finding.path).expect("a String takes everything");
        }
        text.push_str(&finding.message);
        text.push('\n');
        if !finding.remedy.is_empty() {
            writeln!(text, "    {}", finding.remedy).expect("a String takes everything");
        }
    }
    text
}

/// How many there are, in words: "2 errors, 1 warning".
#[must_use]
pub fn tally(findings: &[Finding]) -> String {
    let errors = findings.iter().filter(|finding| finding.severity == Severity::Error).count();
    let warnings = findings.len() - errors;
    [(errors, "error"), (warnings, "warning")]
        .into_iter()
        .filter(|(n, _)| *n > 0)
        .map(|(n, word)| format!("{n} {word}{}", if n == 1 { "" } else { "s" }))
        .collect::<Vec<_>>()
        .join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(severity: Severity, line: Option<usize>, path: &str) -> Finding {
        Finding { severity, line, path: path.into(), message: "is wrong".into(), remedy: "make it right".into() }
    }

    #[test]
    fn a_finding_reads_as_file_line_what_and_remedy() {
        let found = [
            finding(Severity::Error, Some(7), "ingest.listen"),
            finding(Severity::Error, None, ""),
            finding(Severity::Warning, Some(9), "environments[a]"),
        ];
        assert_eq!(
            render("f.toml", &found),
            "f.toml:7: error: ingest.listen: is wrong\n    make it right\n\
             f.toml: error: is wrong\n    make it right\n\
             f.toml:9: warning: environments[a]: is wrong\n    make it right\n"
        );
        assert_eq!(tally(&found), "2 errors, 1 warning");
        assert!(any_error(&found) && !any_error(&found[2..]));
    }
}
