//! What this machine can't show, said so that whoever runs the tests hears it.

use std::fmt::Display;
use std::io::{self, Write as _};

/// What is not run here, and why.
pub fn not_run(what: impl Display) {
    say("RUN", &what);
}

/// What nobody has checked here, and how to.
pub fn not_checked(what: impl Display) {
    say("CHECKED", &what);
}

/// Not by a macro: what those print of a test that passes nobody sees.
fn say(how: &str, what: &dyn Display) {
    let line = format!("NOT {how}: {what}\n");
    io::stderr().write_all(line.as_bytes()).expect("standard error is open");
}
