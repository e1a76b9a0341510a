//! An error with all its causes as one line for people. An error's own text leaves its cause to `source`, so whoever
//! shows one, or keeps its text, comes through here. Pure.

use std::error::Error;

/// The error, and behind each colon what caused it. What was said already is not said again.
pub(crate) fn line(error: &dyn Error) -> String {
    let mut line = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let text = cause.to_string();
        if !line.contains(&text) {
            line.push_str(": ");
            line.push_str(&text);
        }
        source = cause.source();
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    #[derive(Debug, thiserror::Error)]
    #[error("can't start")]
    struct Start(#[source] Open);

    #[derive(Debug, thiserror::Error)]
    #[error("/data: can't open")]
    struct Open(#[source] io::Error);

    #[test]
    fn every_cause_is_told_once() {
        let error = Start(Open(io::Error::other("no such disk")));
        assert_eq!(line(&error), "can't start: /data: can't open: no such disk");
        // Wrapped by somebody whose text holds the cause's.
        let repeats = Start(Open(io::Error::other(io::Error::other("no such disk"))));
        assert_eq!(line(&repeats), "can't start: /data: can't open: no such disk");
    }
}
