//! The table of faults by invariants: read from `storage-tests/matrix.txt`, judged, and made into a page.
//!
//! A table has a cell for every invariant of every fault: the tests that show it, the reason why the fault cannot touch
//! it, or that nothing shows it yet. What always holds of one that was read: no cell is empty, none is there twice.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

/// Where the table lies.
pub const TABLE: &str = "storage-tests/matrix.txt";

/// Where the page lies that is made of it.
pub const PAGE: &str = "docs/matrix.md";

/// Faults by invariants.
#[derive(Debug, Default)]
pub struct Matrix {
    /// Short names and what must hold, in order.
    pub invariants: Vec<(String, String)>,
    /// In order.
    pub faults: Vec<Fault>,
}

/// One fault.
#[derive(Debug)]
pub struct Fault {
    /// Where it belongs.
    pub section: String,
    /// Its number, as `D17`.
    pub number: String,
    /// What goes wrong.
    pub what: String,
    /// A cell for each invariant, in their order.
    pub cells: Vec<Cell>,
}

/// What there is to say of one invariant under one fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cell {
    /// These tests show that it holds.
    Shown(Vec<String>),
    /// It cannot be touched, for this reason.
    NotApplicable(String),
    /// Nothing shows it yet; what is missing.
    Open(String),
}

/// How many cells are what.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Count {
    /// With tests.
    pub shown: usize,
    /// With a reason.
    pub not_applicable: usize,
    /// With neither.
    pub open: usize,
}

#[derive(Default)]
struct Reading {
    matrix: Matrix,
    reasons: BTreeMap<String, String>,
    short: BTreeMap<String, String>,
    section: String,
    /// The fault that is being read, with the cells that it has so far.
    fault: Option<(String, String, BTreeMap<String, Cell>)>,
    wrong: Vec<String>,
}

impl Matrix {
    /// Reads a table.
    ///
    /// # Errors
    /// Everything that is wrong with it, each with its line or its fault.
    pub fn parse(text: &str) -> Result<Self, Vec<String>> {
        let mut reading = Reading::default();
        let mut part = "";
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if ["invariants", "reasons", "tests", "faults"].contains(&line) {
                part = line;
            } else if reading.line(part, line).is_none() {
                reading.wrong.push(format!("line {}: this says nothing that is known: {line}", number + 1));
            }
        }
        reading.close();
        if reading.wrong.is_empty() { Ok(reading.matrix) } else { Err(reading.wrong) }
    }

    /// The names of all tests that it refers to.
    #[must_use]
    pub fn tests(&self) -> BTreeSet<&str> {
        let shown = self.faults.iter().flat_map(|fault| &fault.cells).filter_map(|cell| match cell {
            Cell::Shown(tests) => Some(tests),
            _ => None,
        });
        shown.flatten().map(String::as_str).collect()
    }

    /// What keeps it from being whole: cells that nothing shows yet, and tests that are not among these.
    #[must_use]
    pub fn lacks(&self, tests: &BTreeSet<String>) -> Vec<String> {
        let mut lacks = Vec::new();
        for fault in &self.faults {
            for (cell, (name, _)) in fault.cells.iter().zip(&self.invariants) {
                if let Cell::Open(what) = cell {
                    lacks.push(format!("{} {name} is open: {what}", fault.number));
                }
            }
        }
        let missing = self.tests().into_iter().filter(|test| !tests.contains(*test));
        lacks.extend(missing.map(|test| format!("there is no test {test}")));
        lacks
    }

    /// How many cells are what.
    #[must_use]
    pub fn count(&self) -> Count {
        let mut count = Count::default();
        for cell in self.faults.iter().flat_map(|fault| &fault.cells) {
            match cell {
                Cell::Shown(_) => count.shown += 1,
                Cell::NotApplicable(_) => count.not_applicable += 1,
                Cell::Open(_) => count.open += 1,
            }
        }
        count
    }

    /// One line of what is in it.
    #[must_use]
    pub fn summary(&self) -> String {
        let Count { shown, not_applicable, open } = self.count();
        format!(
            "{} faults by {} invariants are {} cells: {shown} have tests ({} of them different), {not_applicable} a reason why \
             the fault cannot touch the invariant, {open} are open, none is empty.",
            self.faults.len(),
            self.invariants.len(),
            shown + not_applicable + open,
            self.tests().len()
        )
    }

    /// The page.
    #[must_use]
    pub fn page(&self) -> String {
        let mut page = format!(
            "# Faults by invariants\n\nMade of [matrix.txt](../storage-tests/matrix.txt) by `cargo run -p storage-tests \
             --bin matrix`; a test compares the two, and that every test named here exists.\n\n{}\n\n",
            self.summary()
        );
        for (name, what) in &self.invariants {
            let _ = writeln!(page, "- **{name}** {what}.");
        }
        page += "\n■ shown by a test, · cannot be touched, ○ open. What stands behind each is below the tables. What a destination \
                 does wrong is shown in two steps: which outcome it is, for each kind of destination, and what the loop does \
                 with an outcome, which asks no more where it came from.\n";
        let mut section = "";
        for fault in &self.faults {
            if fault.section != section {
                section = &fault.section;
                let names: Vec<&str> = self.invariants.iter().map(|(name, _)| name.as_str()).collect();
                let _ = write!(page, "\n## {section}\n\n| | | {} |\n", names.join(" | "));
                page += &format!("| --- | --- |{}\n", " --- |".repeat(names.len()));
            }
            let marks: Vec<&str> = fault.cells.iter().map(Cell::mark).collect();
            let _ = writeln!(page, "| {} | {} | {} |", fault.number, fault.what, marks.join(" | "));
        }
        page += "\n## What stands behind each\n";
        for fault in &self.faults {
            let _ = write!(page, "\n**{}** {}\n\n", fault.number, fault.what);
            for (cell, names) in self.alike(fault) {
                let _ = writeln!(page, "- {}: {}", names.join(" "), cell.words());
            }
        }
        page
    }

    /// The cells of a fault, with the invariants that share one.
    fn alike<'a>(&'a self, fault: &'a Fault) -> Vec<(&'a Cell, Vec<&'a str>)> {
        let mut alike: Vec<(&Cell, Vec<&str>)> = Vec::new();
        for (cell, (name, _)) in fault.cells.iter().zip(&self.invariants) {
            match alike.iter_mut().find(|(known, _)| *known == cell) {
                Some((_, names)) => names.push(name),
                None => alike.push((cell, vec![name])),
            }
        }
        alike
    }
}

impl Cell {
    fn mark(&self) -> &'static str {
        match self {
            Self::Shown(_) => "■",
            Self::NotApplicable(_) => "·",
            Self::Open(_) => "○",
        }
    }

    fn words(&self) -> String {
        match self {
            Self::Shown(tests) => format!("`{}`", tests.join("`, `")),
            Self::NotApplicable(why) => format!("n/a, {why}"),
            Self::Open(what) => format!("**open**, {what}"),
        }
    }
}

impl Reading {
    /// Takes in one line. `None` when it is no line of that part.
    fn line(&mut self, part: &str, line: &str) -> Option<()> {
        match part {
            "invariants" => {
                let (name, what) = line.split_once(' ')?;
                self.matrix.invariants.push((name.to_owned(), what.to_owned()));
            }
            "reasons" => {
                let (name, words) = line.split_once(": ")?;
                self.reasons.insert(name.to_owned(), words.to_owned());
            }
            "tests" => {
                let (name, test) = line.split_once(" = ")?;
                self.short.insert(name.to_owned(), test.to_owned());
            }
            "faults" => return self.of_a_fault(line),
            _ => return None,
        }
        Some(())
    }

    fn of_a_fault(&mut self, line: &str) -> Option<()> {
        if let Some(cells) = line.strip_prefix("n/a: ") {
            for cell in cells.split(", ") {
                let (name, reason) = cell.split_once(' ')?;
                let words = self.reasons.get(reason)?.clone();
                self.put(name, Cell::NotApplicable(words));
            }
        } else if let Some(words) = line.strip_prefix("open: ") {
            let named = |word: &&str| self.matrix.invariants.iter().any(|(name, _)| name == word);
            let names: Vec<&str> = words.split(' ').take_while(named).collect();
            let words = words.get(names.join(" ").len() + 1..).filter(|words| !words.is_empty())?;
            names.iter().for_each(|name| self.put(name, Cell::Open(words.to_owned())));
        } else if let Some((names, tests)) = line.split_once(": ").filter(|_| line.starts_with('R')) {
            let tests = tests.split(' ').map(|test| match test.starts_with('@') {
                true => self.short.get(test).cloned(),
                false => Some(test.to_owned()),
            });
            let tests = tests.collect::<Option<Vec<String>>>()?;
            names.split(' ').for_each(|name| self.put(name, Cell::Shown(tests.clone())));
        } else {
            let (number, what) = line.split_once(' ').unwrap_or((line, ""));
            self.close();
            if number.ends_with(|c: char| c.is_ascii_digit()) && !what.is_empty() {
                self.fault = Some((number.to_owned(), what.to_owned(), BTreeMap::new()));
            } else {
                self.section = line.to_owned();
            }
        }
        Some(())
    }

    fn put(&mut self, name: &str, cell: Cell) {
        let known = self.matrix.invariants.iter().any(|(known, _)| known == name);
        match &mut self.fault {
            Some((number, _, cells)) if !known || cells.contains_key(name) => {
                self.wrong.push(format!("{number} has {name} twice, or there is no such invariant"));
            }
            Some((_, _, cells)) => drop(cells.insert(name.to_owned(), cell)),
            None => self.wrong.push(format!("a cell {name} of no fault")),
        }
    }

    /// The fault that was being read is complete, or says which cells are empty.
    fn close(&mut self) {
        let Some((number, what, mut cells)) = self.fault.take() else { return };
        let mut row = Vec::new();
        for (name, _) in &self.matrix.invariants {
            match cells.remove(name) {
                Some(cell) => row.push(cell),
                None => self.wrong.push(format!("{number} says nothing of {name}")),
            }
        }
        let section = self.section.clone();
        self.matrix.faults.push(Fault { section, number, what, cells: row });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str =
        "invariants\nR1 nothing is lost\nR2 in order\nreasons\nno: it cannot\ntests\n@t = a_test\nfaults\nDisk\n";

    #[test]
    fn every_cell_is_read_and_every_empty_one_is_named() {
        let matrix =
            Matrix::parse(&format!("{HEAD}\nD1 torn\nR1: @t other_test\nn/a: R2 no\nD2 full\nopen: R1 R2 later"));
        let matrix = matrix.expect("all cells are there");
        let shown = Cell::Shown(vec!["a_test".into(), "other_test".into()]);
        assert_eq!(matrix.faults[0].cells, [shown, Cell::NotApplicable("it cannot".into())]);
        assert_eq!(matrix.faults[1].cells, [Cell::Open("later".into()), Cell::Open("later".into())]);
        assert_eq!(matrix.count(), Count { shown: 1, not_applicable: 1, open: 2 });
        assert!(matrix.page().contains("| D1 | torn | ■ | · |"), "{}", matrix.page());
        assert!(matrix.page().contains("- R1 R2: **open**, later"), "{}", matrix.page());
        let tests = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let open = ["D2 R1 is open: later", "D2 R2 is open: later"];
        assert_eq!(matrix.lacks(&tests(&["a_test", "other_test"])), open);
        assert_eq!(matrix.lacks(&tests(&["a_test"])), [&open[..], &["there is no test other_test"]].concat());

        let wrong = |faults: &str| Matrix::parse(&format!("{HEAD}{faults}")).expect_err("something is wrong");
        assert_eq!(wrong("D1 torn\nR1: @t"), ["D1 says nothing of R2"]);
        assert_eq!(wrong("D1 torn\nR1 R2: @t\nn/a: R2 no"), ["D1 has R2 twice, or there is no such invariant"]);
        assert_eq!(wrong("D1 torn\nR1 R2: @nobody")[0], "line 11: this says nothing that is known: R1 R2: @nobody");
        assert_eq!(wrong("D1 torn\nn/a: R1 never\nR2: @t").len(), 2);
    }
}
