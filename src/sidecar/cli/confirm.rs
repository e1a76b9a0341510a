//! Asks before records are given up for good.
//!
//! What always holds: nothing but the number that was shown is a yes, and nobody to ask is a no.

use std::io::{self, BufRead, Write};

/// It was not said that they may go.
#[derive(Debug, thiserror::Error)]
pub enum ConfirmError {
    /// The operator did not say yes.
    #[error("nothing was purged")]
    NotConfirmed,
    /// There is nobody to ask.
    #[error("nothing was purged: {0} would be gone for good; say --yes where there is no terminal to ask at")]
    NobodyToAsk(String),
    /// The question cannot be written, or the answer not be read.
    #[error("cannot ask")]
    Ask(#[from] io::Error),
}

/// Has `number` typed by whoever can be asked. `what` says what is given up, such as "7 dead letters of hook".
pub(super) fn confirm(
    what: &str,
    number: u64,
    answers: Option<impl BufRead>,
    out: &mut impl Write,
) -> Result<(), ConfirmError> {
    let Some(mut answers) = answers else { return Err(ConfirmError::NobodyToAsk(what.to_owned())) };
    write!(out, "{what} would be gone for good. Type {number} to purge them: ")?;
    out.flush()?;
    let mut answer = String::new();
    answers.read_line(&mut answer)?;
    if answer.trim() == number.to_string() { Ok(()) } else { Err(ConfirmError::NotConfirmed) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(answer: Option<&str>) -> (Result<(), ConfirmError>, String) {
        let mut out = Vec::new();
        let done = confirm("12 records of hook", 12, answer.map(str::as_bytes), &mut out);
        (done, String::from_utf8(out).unwrap())
    }

    #[test]
    fn only_the_number_is_a_yes() {
        let (done, said) = asked(Some("12\n"));
        assert!(done.is_ok() && said.contains("12 records of hook") && said.contains("Type 12"), "{said}");
        for wrong in ["", "\n", "y\n", "yes\n", "1\n", "122\n"] {
            assert!(matches!(asked(Some(wrong)).0, Err(ConfirmError::NotConfirmed)), "{wrong:?}");
        }
        let (done, said) = asked(None);
        let told = done.unwrap_err().to_string();
        assert!(told.contains("12 records of hook would be gone") && said.is_empty(), "{told} {said}");
    }
}
