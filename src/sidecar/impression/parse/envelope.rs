//! The outermost structure of a post: where its groups are, and what is said beside them.
//!
//! Not the groups themselves. A beacon's or listener's body is checked to its end here, so that names may stand in
//! any order and what stands behind the groups is known before the first of them is stored; its groups are then read
//! a second time. A bulk is nothing but its groups and is left untouched.

use super::Form;
use crate::impression::scan::{Kind, Scanner, Unreadable, UnreadableWhy};
use crate::impression::text::JsonText;

/// What stands around the groups of a post.
#[derive(Debug, Default)]
pub(super) struct Envelope<'a> {
    /// Where the array of groups begins.
    pub(super) groups_at: usize,
    /// How many arrays and objects are open around that array.
    pub(super) depth: u32,
    pub(super) sdk: Option<JsonText<'a>>,
    pub(super) machine_name: Option<JsonText<'a>>,
    pub(super) machine_ip: Option<JsonText<'a>>,
    pub(super) mode: Option<JsonText<'a>>,
    pub(super) token: Option<JsonText<'a>>,
}

impl<'a> Envelope<'a> {
    /// Reads what is around the groups of a post of this `form`.
    pub(super) fn read(scanner: &mut Scanner<'a>, form: Form) -> Result<Self, Unreadable> {
        let (groups_name, expected) = match form {
            Form::Bulk => {
                let expected = UnreadableWhy::WrongShape { expected: "an array of groups" };
                let is_array = scanner.kind()? == Kind::Array;
                return if is_array {
                    Ok(Self { groups_at: scanner.at(), ..Self::default() })
                } else {
                    Err(wrong(scanner, expected))
                };
            }
            Form::Beacon => ("entries", UnreadableWhy::WrongShape { expected: "an object with an array \"entries\"" }),
            Form::Listener => {
                ("impressions", UnreadableWhy::WrongShape { expected: "an object with an array \"impressions\"" })
            }
        };
        if scanner.kind()? != Kind::Object {
            return Err(wrong(scanner, expected));
        }
        let start = scanner.at();
        let mut envelope = Self { depth: 1, ..Self::default() };
        let mut groups = None;
        let mut more = scanner.open(b'}')?;
        while more {
            let name = scanner.name()?.unescape();
            if name == groups_name {
                groups = Some((scanner.kind()?, scanner.at()));
                scanner.skip(1)?;
            } else {
                envelope.member(&name, form, scanner)?;
            }
            more = scanner.more(b'}')?;
        }
        scanner.end()?;
        match groups {
            Some((Kind::Array, at)) => Ok(Self { groups_at: at, ..envelope }),
            Some((_, at)) => Err(Unreadable { at, why: expected }),
            None => Err(Unreadable { at: start, why: expected }),
        }
    }

    /// Takes the value of `name`, if it is a string that says something of the post; else skips it.
    fn member(&mut self, name: &str, form: Form, scanner: &mut Scanner<'a>) -> Result<(), Unreadable> {
        let field = match (form, name) {
            (Form::Beacon, "token") => &mut self.token,
            (Form::Beacon, "sdk") | (Form::Listener, "sdkVersion") => &mut self.sdk,
            (Form::Beacon, "sim") => &mut self.mode,
            (Form::Listener, "machineName") => &mut self.machine_name,
            (Form::Listener, "machineIP") => &mut self.machine_ip,
            _ => return scanner.skip(1),
        };
        *field = None;
        if scanner.kind()? == Kind::String {
            *field = Some(scanner.string()?)
        } else {
            scanner.skip(1)?
        }
        Ok(())
    }
}

/// The error at the value that the scanner is before, once that value is known to be JSON to its end.
fn wrong(scanner: &mut Scanner<'_>, why: UnreadableWhy) -> Unreadable {
    let at = scanner.at();
    match scanner.skip(0).and_then(|()| scanner.end()) {
        Ok(()) => Unreadable { at, why },
        Err(unreadable) => unreadable,
    }
}
