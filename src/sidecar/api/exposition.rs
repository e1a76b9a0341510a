//! Prometheus' text format: families of samples, one under the other.
//!
//! Writes text; knows no metric. What always holds: each family is announced once, and a family without samples not at all; label
//! values are escaped, so that none can end its line.

use std::fmt::Write as _;

/// What a family's numbers are.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    /// Only grows, from the start of the process or of the queue.
    Counter,
    /// Goes up and down.
    Gauge,
}

/// The text so far.
#[derive(Debug, Default)]
pub(super) struct Exposition {
    text: String,
}

/// Takes the samples of one family.
pub(super) struct Family<'a> {
    text: &'a mut String,
    name: &'static str,
    kind: Kind,
    help: &'static str,
    announced: bool,
}

/// A sample's number.
#[derive(Debug, Clone, Copy)]
pub(super) enum Number {
    /// Written exactly.
    Whole(u64),
    /// Written as short as it reads back.
    Real(f64),
}

impl From<u64> for Number {
    fn from(number: u64) -> Self {
        Self::Whole(number)
    }
}

impl From<f64> for Number {
    fn from(number: f64) -> Self {
        Self::Real(number)
    }
}

impl Exposition {
    /// Begins the family `name`.
    pub(super) fn family(&mut self, name: &'static str, kind: Kind, help: &'static str) -> Family<'_> {
        Family { text: &mut self.text, name, kind, help, announced: false }
    }

    /// All of it.
    pub(super) fn into_text(self) -> String {
        self.text
    }
}

impl Family<'_> {
    /// One sample. The labels' names are ours; their values are escaped.
    pub(super) fn sample(&mut self, labels: &[(&'static str, &str)], number: impl Into<Number>) {
        self.announce();
        self.text.push_str(self.name);
        for (place, (name, value)) in labels.iter().enumerate() {
            self.text.push(if place == 0 { '{' } else { ',' });
            self.text.push_str(name);
            self.text.push_str("=\"");
            push_escaped(self.text, value);
            self.text.push('"');
        }
        self.text.push_str(if labels.is_empty() { " " } else { "} " });
        push_number(self.text, number.into());
        self.text.push('\n');
    }

    fn announce(&mut self) {
        if !self.announced {
            let kind = match self.kind {
                Kind::Counter => "counter",
                Kind::Gauge => "gauge",
            };
            let Self { name, help, .. } = self;
            let _ = write!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
            self.announced = true;
        }
    }
}

fn push_escaped(text: &mut String, value: &str) {
    for character in value.chars() {
        match character {
            '\\' => text.push_str("\\\\"),
            '"' => text.push_str("\\\""),
            '\n' => text.push_str("\\n"),
            other => text.push(other),
        }
    }
}

fn push_number(text: &mut String, number: Number) {
    // Writing to a String cannot fail.
    let _ = match number {
        Number::Whole(number) => write!(text, "{number}"),
        Number::Real(number) if number == f64::INFINITY => write!(text, "+Inf"),
        Number::Real(number) if number == f64::NEG_INFINITY => write!(text, "-Inf"),
        Number::Real(number) => write!(text, "{number}"),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_is_announced_once_and_only_with_samples() {
        let mut page = Exposition::default();
        let mut family = page.family("a_total", Kind::Counter, "As.");
        family.sample(&[], 1);
        family.sample(&[("x", "1"), ("y", "2")], 0.5);
        page.family("b", Kind::Gauge, "Bs.");
        assert_eq!(
            page.into_text(),
            "# HELP a_total As.\n# TYPE a_total counter\na_total 1\na_total{x=\"1\",y=\"2\"} 0.5\n"
        );
    }

    #[test]
    fn no_label_can_end_its_line() {
        let mut page = Exposition::default();
        page.family("a", Kind::Gauge, "As.").sample(&[("x", "1\"} 7\nb\\")], 1);
        assert!(page.into_text().ends_with("a{x=\"1\\\"} 7\\nb\\\\\"} 1\n"));
    }

    #[test]
    fn numbers_are_written_as_prometheus_reads_them() {
        let mut text = String::new();
        for number in
            [Number::Whole(u64::MAX), f64::INFINITY.into(), f64::NEG_INFINITY.into(), f64::NAN.into(), 1.5e300.into()]
        {
            push_number(&mut text, number);
            text.push(' ');
        }
        let read: Vec<f64> = text.split_whitespace().map(|word| word.parse().unwrap()).collect();
        assert!(text.starts_with("18446744073709551615 +Inf -Inf NaN "), "{text}");
        assert!((read[4] - 1.5e300).abs() < 1e290);
    }
}
