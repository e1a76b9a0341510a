//! Reads the values that have a form of their own: addresses, paths, ids, secrets.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::super::raw::{Field, Section};
use super::super::secret::Source;
use super::super::{Listen, ListenError, is_id, limits};
use super::{Outside, Through};

/// A TCP address, or the default.
pub(super) fn socket(section: &Section<'_>, key: &'static str, default: SocketAddr) -> SocketAddr {
    let Some(field) = section.get(key) else { return default };
    let Some(text) = field.text() else { return default };
    text.parse().unwrap_or_else(|_| {
        let remedy =
            format!("write an IP address and a port, such as \"{default}\" (0.0.0.0 stands for all addresses)");
        field.place.error(format!("{text:?} is not an IP address with a port"), remedy);
        default
    })
}

/// An address that only this machine can reach.
pub(super) fn listen(field: &Field<'_>, outside: &Outside<'_>) -> Option<Listen> {
    let in_full = |path: &str| format!("unix:{}", outside.absolute(path).display());
    let text = field.text()?;
    let parsed = match text.strip_prefix("unix:").filter(|path| !path.is_empty()) {
        Some(path) => in_full(path).parse(),
        None => text.parse::<Listen>(),
    };
    match parsed {
        Ok(listen) if listen.is_local() => Some(listen),
        Ok(_) => {
            let remedy = "listen on 127.0.0.1, [::1] or \"unix:/path\"; from elsewhere come through ssh -L";
            field.place.error("this API has no authentication yet and must not be reachable from elsewhere", remedy);
            None
        }
        Err(error) => {
            let remedy = match error {
                ListenError::PathTooLong { .. } => "take a shorter path, such as \"unix:/run/forebay.sock\"",
                ListenError::NotAnAddress(_) | ListenError::NoPath => {
                    "write \"127.0.0.1:9090\" or \"unix:/run/forebay.sock\""
                }
            };
            field.place.error(error.to_string(), remedy);
            None
        }
    }
}

/// A path; a relative one starts at the file's directory.
pub(super) fn path(field: &Field<'_>, outside: &Outside<'_>) -> Option<PathBuf> {
    let text = field.text()?;
    if text.is_empty() || text.contains('\0') {
        field.place.error("this is not a path", "name a directory");
        return None;
    }
    Some(outside.absolute(text))
}

/// The id of a table.
pub(super) fn id<'r>(section: &Section<'r>) -> Option<&'r str> {
    let field = section.require("id", "give it a short name of its own, such as id = \"acme-prod\"")?;
    let text = field.text()?;
    if !is_id(text) {
        let shown: String = text.chars().take(limits::ID_BYTES_MAX + 1).collect();
        let remedy = format!("write 1 to {} of the characters A-Z a-z 0-9 _ -", limits::ID_BYTES_MAX);
        field.place.error(format!("{shown:?} can't be an id"), remedy);
        return None;
    }
    Some(text)
}

/// A value that may be a secret.
pub(super) struct Resolved {
    pub(super) value: String,
    /// It stands in the file itself.
    pub(super) literal: bool,
}

/// Gets a value from where the field says. The value is not empty; no finding shows it.
pub(super) fn secret(field: &Field<'_>, outside: &Outside<'_>) -> Option<Resolved> {
    let text = field.text()?;
    field.place.secret();
    let source = Source::of(text);
    refuse_outside(field, &source, outside)?;
    let (value, literal) = match source {
        Source::Named(name) => (named(field, name, outside)?, false),
        Source::Env(name) => (from_env(field, name, outside)?, false),
        Source::File(path) => (from_file(field, path, outside)?, false),
        Source::Literal(text) if text.starts_with('$') => {
            field.place.error("this looks like a shell variable, and no shell reads this file", "write \"env:NAME\"");
            return None;
        }
        // What comes through the API stands in no file that others read.
        Source::Literal(text) => (text.to_owned(), outside.through == Through::File),
    };
    if value.trim().is_empty() {
        field.place.error("the value is empty", "put the value there, or remove this entry");
        return None;
    }
    Some(Resolved { value, literal })
}

/// What runs as somebody else's: an environment variable or a file of the machine is not for the API to name.
fn refuse_outside(field: &Field<'_>, source: &Source<'_>, outside: &Outside<'_>) -> Option<()> {
    if outside.through == Through::Api && matches!(source, Source::Env(_) | Source::File(_)) {
        let remedy = "write \"secret:NAME\" with a name from [secrets] in the configuration file, or the value itself";
        field.place.error("env: and file: are for the configuration file only", remedy);
        return None;
    }
    Some(())
}

fn named(field: &Field<'_>, name: &str, outside: &Outside<'_>) -> Option<String> {
    let found = outside.secrets.get(name).map(|secret| secret.reveal().clone());
    if found.is_none() {
        let shown: String = name.chars().take(limits::ID_BYTES_MAX).collect();
        let remedy = "add it under [secrets] in the configuration file, or name one that is there";
        field.place.error(format!("there is no secret {shown:?}"), remedy);
    }
    found
}

fn from_env(field: &Field<'_>, name: &str, outside: &Outside<'_>) -> Option<String> {
    if name.is_empty() || name.contains(['=', '\0']) {
        field.place.error("this names no environment variable", "write \"env:NAME\"");
        return None;
    }
    let value = (outside.env)(name);
    if value.is_none() {
        let remedy = "set it where the sidecar is started, or write \"file:PATH\"";
        field.place.error(format!("the environment variable {name:?} is not set"), remedy);
    }
    value
}

/// Gets a value that everybody may know from where the field says.
pub(super) fn open(field: &Field<'_>, outside: &Outside<'_>) -> Option<String> {
    let source = Source::of(field.text()?);
    refuse_outside(field, &source, outside)?;
    match source {
        Source::Named(name) => named(field, name, outside),
        Source::Env(name) => from_env(field, name, outside),
        Source::File(path) => text_of(field, path, outside).map(|(text, _)| text),
        Source::Literal(text) => Some(text.to_owned()),
    }
}

fn from_file(field: &Field<'_>, path: &str, outside: &Outside<'_>) -> Option<String> {
    let (text, world_readable) = text_of(field, path, outside)?;
    if world_readable {
        let path = outside.absolute(path);
        let remedy = format!("chmod o-r {}", path.display());
        field.place.warning(format!("every user of this machine may read {path:?}"), remedy);
    }
    Some(text)
}

/// What a file holds, and whether every user may read it.
fn text_of(field: &Field<'_>, path: &str, outside: &Outside<'_>) -> Option<(String, bool)> {
    if path.is_empty() || path.contains('\0') {
        field.place.error("this names no file", "write \"file:PATH\"");
        return None;
    }
    let path = outside.absolute(path);
    let content = match (outside.file)(&path) {
        Ok(content) => content,
        Err(error) => {
            let remedy = "put it there, readable for the user that the sidecar runs as";
            field.place.error(format!("the file {path:?} can't be read: {error}"), remedy);
            return None;
        }
    };
    let Ok(text) = String::from_utf8(content.bytes) else {
        field.place.error(format!("the file {path:?} is not text"), "put it there as plain text");
        return None;
    };
    // Editors and `echo` end a file with a line break that is no part of the secret.
    Some((text.trim_end_matches(['\r', '\n']).to_owned(), content.world_readable))
}
