//! Reads the array of groups, which all forms have: impressions into the writer, the rest into the rejects.
//!
//! Knows the fields' names in both dialects; knows no header and no envelope. One pass, as long as a group names its
//! flag before its impressions (all SDKs do) and names neither twice; otherwise the group is read twice.

use super::reject::{RejectWhy, Rejects};
use super::{Form, Limits};
use crate::impression::scan::{Kind, Scanner, Unreadable};
use crate::impression::stored::{Impression, Part, Writer};
use crate::impression::text::JsonText;

/// Why reading stopped before the end.
#[derive(Debug)]
pub(super) enum Stop {
    /// The body is not JSON.
    Unreadable(Unreadable),
    /// A group named its flag or its impressions again after some had been stored under the first. Whoever reads
    /// again must do so [`Groups::patiently`].
    NameTwice,
}

impl From<Unreadable> for Stop {
    fn from(unreadable: Unreadable) -> Self {
        Self::Unreadable(unreadable)
    }
}

/// A field of an impression. Its number is its bit among those that are wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    Key,
    Treatment,
    Time,
    ChangeNumber,
    Label,
    BucketingKey,
    PreviousTime,
    Properties,
}

use Field::{BucketingKey, ChangeNumber, Key, Label, PreviousTime, Properties, Time, Treatment};

/// In the order of their bits.
const FIELDS: [Field; 8] = [Key, Treatment, Time, ChangeNumber, Label, BucketingKey, PreviousTime, Properties];

/// The names that a form gives to the same things.
#[derive(Debug)]
struct Dialect {
    flag: &'static str,
    impressions: &'static str,
    /// In the order of [`FIELDS`].
    fields: [&'static str; 8],
    field: fn(&[u8]) -> Option<Field>,
}

const BULK: Dialect = Dialect {
    flag: "f",
    impressions: "i",
    fields: ["k", "t", "m", "c", "r", "b", "pt", "properties"],
    // Spelled out a second time, because a match on constants is several times faster than a search. A test compares.
    field: |name| match name {
        b"k" => Some(Key),
        b"t" => Some(Treatment),
        b"m" => Some(Time),
        b"c" => Some(ChangeNumber),
        b"r" => Some(Label),
        b"b" => Some(BucketingKey),
        b"pt" => Some(PreviousTime),
        b"properties" => Some(Properties),
        _ => None,
    },
};

const LISTENER: Dialect = Dialect {
    flag: "testName",
    impressions: "keyImpressions",
    fields: ["keyName", "treatment", "time", "changeNumber", "label", "bucketingKey", "pt", "properties"],
    field: |name| match name {
        b"keyName" => Some(Key),
        b"treatment" => Some(Treatment),
        b"time" => Some(Time),
        b"changeNumber" => Some(ChangeNumber),
        b"label" => Some(Label),
        b"bucketingKey" => Some(BucketingKey),
        b"pt" => Some(PreviousTime),
        b"properties" => Some(Properties),
        _ => None,
    },
};

/// A reader of groups, and what it has read.
pub(super) struct Groups<'a> {
    scanner: Scanner<'a>,
    /// How many arrays and objects are open around the array of groups.
    depth: u32,
    dialect: &'static Dialect,
    flag_bytes_max: usize,
    patient: bool,
    writer: Writer,
    rejects: Rejects,
}

impl<'a> Groups<'a> {
    /// Stands before the array of groups.
    pub(super) fn new(scanner: Scanner<'a>, depth: u32, form: Form, limits: &Limits, writer: Writer) -> Self {
        let dialect = match form {
            Form::Bulk | Form::Beacon => &BULK,
            Form::Listener => &LISTENER,
        };
        let rejects = Rejects::new(limits.rejects_max);
        Self { scanner, depth, dialect, flag_bytes_max: limits.flag_bytes_max, patient: false, writer, rejects }
    }

    /// Reads every group to its end before it stores any of it: slower, and sure to know the last of each name.
    pub(super) fn patiently(mut self) -> Self {
        self.patient = true;
        self
    }

    /// Reads all groups. A bulk must end with them.
    pub(super) fn read(mut self) -> Result<(Vec<Part>, Rejects), Stop> {
        let mut more = self.scanner.open(b']')?;
        while more {
            self.group()?;
            more = self.scanner.more(b']')?;
        }
        if self.depth == 0 {
            self.scanner.end()?;
        }
        Ok((self.writer.finish(), self.rejects))
    }

    fn group(&mut self) -> Result<(), Stop> {
        let kind = self.scanner.kind()?;
        let start = self.scanner.at();
        if kind != Kind::Object {
            self.scanner.skip(self.depth + 1)?;
            self.rejects.add(self.scanner.text_since(start), start, RejectWhy::GroupNotObject, None);
            return Ok(());
        }
        self.writer.end_group();
        let mut flag = Err(RejectWhy::GroupLacks { name: self.dialect.flag });
        let mut list = List::Missing;
        let mut more = self.scanner.open(b'}')?;
        while more {
            let name = self.scanner.name()?;
            if is(name, self.dialect.flag) {
                if matches!(list, List::Stored) {
                    return Err(Stop::NameTwice);
                }
                flag = self.flag()?;
            } else if is(name, self.dialect.impressions) {
                if matches!(list, List::Stored) {
                    return Err(Stop::NameTwice);
                }
                list = self.list(flag.ok())?;
            } else {
                self.scanner.skip(self.depth + 2)?;
            }
            more = self.scanner.more(b'}')?;
        }
        let why = match (flag, list) {
            (_, List::Stored) | (Ok(_), List::Null) => return Ok(()),
            (Ok(flag), List::Found { at }) => {
                let list = self.scanner.from(at);
                let behind = std::mem::replace(&mut self.scanner, list);
                self.impressions(flag)?;
                self.scanner = behind;
                return Ok(());
            }
            (Err(why), _) => why,
            (Ok(_), List::Missing) => RejectWhy::GroupLacks { name: self.dialect.impressions },
            (Ok(_), List::Wrong) => RejectWhy::GroupWrong { name: self.dialect.impressions, must_be: "an array" },
        };
        self.rejects.add(self.scanner.text_since(start), start, why, flag.ok());
        Ok(())
    }

    /// Reads the value of a group's flag.
    fn flag(&mut self) -> Result<Result<JsonText<'a>, RejectWhy>, Unreadable> {
        let name = self.dialect.flag;
        match self.scanner.kind()? {
            Kind::String => {
                let flag = self.scanner.string()?;
                let limit = self.flag_bytes_max;
                Ok(if flag.as_bytes().len() > limit { Err(RejectWhy::FlagTooLong { limit }) } else { Ok(flag) })
            }
            Kind::Null => {
                self.scanner.literal("null")?;
                Ok(Err(RejectWhy::GroupLacks { name }))
            }
            _ => {
                self.scanner.skip(self.depth + 2)?;
                Ok(Err(RejectWhy::GroupWrong { name, must_be: "a string" }))
            }
        }
    }

    /// Reads the value of a group's impressions: stores them if that can be done now, else remembers the place.
    fn list(&mut self, flag: Option<JsonText<'a>>) -> Result<List, Stop> {
        let kind = self.scanner.kind()?;
        if let (Kind::Array, Some(flag), false) = (kind, flag, self.patient) {
            self.impressions(flag)?;
            return Ok(List::Stored);
        }
        let at = self.scanner.at();
        self.scanner.skip(self.depth + 2)?;
        Ok(match kind {
            Kind::Array => List::Found { at },
            Kind::Null => List::Null,
            _ => List::Wrong,
        })
    }

    /// Reads an array of impressions of `flag`.
    fn impressions(&mut self, flag: JsonText<'a>) -> Result<(), Unreadable> {
        let mut more = self.scanner.open(b']')?;
        while more {
            self.impression(flag)?;
            more = self.scanner.more(b']')?;
        }
        Ok(())
    }

    #[inline]
    fn impression(&mut self, flag: JsonText<'a>) -> Result<(), Unreadable> {
        let kind = self.scanner.kind()?;
        let start = self.scanner.at();
        if kind != Kind::Object {
            self.scanner.skip(self.depth + 3)?;
            self.rejects.add(self.scanner.text_since(start), start, RejectWhy::NotObject, Some(flag));
            return Ok(());
        }
        let mut read = Impression { flag, ..Impression::default() };
        let mut key = None;
        let mut wrong = Wrong::default();
        let mut more = self.scanner.open(b'}')?;
        while more {
            let name = self.scanner.name()?;
            match self.dialect.field(name) {
                Some(field @ Key) => key = self.text(field, &mut wrong)?,
                Some(field @ Treatment) => read.treatment = self.text(field, &mut wrong)?,
                Some(field @ Time) => read.time_ms = self.integer(field, &mut wrong)?,
                Some(field @ ChangeNumber) => read.change_number = self.integer(field, &mut wrong)?,
                Some(field @ Label) => read.label = self.text(field, &mut wrong)?,
                Some(field @ BucketingKey) => read.bucketing_key = self.text(field, &mut wrong)?,
                Some(field @ PreviousTime) => read.previous_time_ms = self.integer(field, &mut wrong)?,
                Some(field @ Properties) => read.properties = self.text(field, &mut wrong)?,
                None => self.scanner.skip(self.depth + 4)?,
            }
            more = self.scanner.more(b'}')?;
        }
        match (wrong.first(), key) {
            (None, Some(key)) => {
                read.key = key;
                self.writer.push(&read);
            }
            (Some(field), _) => self.reject(start, flag, field, true),
            (None, None) => self.reject(start, flag, Key, false),
        }
        Ok(())
    }

    #[cold]
    fn reject(&mut self, start: usize, flag: JsonText<'a>, field: Field, is_given: bool) {
        let name = self.dialect.fields[field as usize];
        let must_be = match field {
            Time | ChangeNumber | PreviousTime => "a whole number of 64 bits",
            _ => "a string",
        };
        let why = if is_given { RejectWhy::Wrong { name, must_be } } else { RejectWhy::Lacks { name } };
        self.rejects.add(self.scanner.text_since(start), start, why, Some(flag));
    }

    /// Reads a field that must be a string or null.
    #[inline(always)]
    fn text(&mut self, field: Field, wrong: &mut Wrong) -> Result<Option<JsonText<'a>>, Unreadable> {
        wrong.clear(field);
        match self.scanner.kind()? {
            Kind::String => return Ok(Some(self.scanner.string()?)),
            Kind::Null => self.scanner.literal("null")?,
            _ => {
                self.scanner.skip(self.depth + 4)?;
                wrong.set(field);
            }
        }
        Ok(None)
    }

    /// Reads a field that must be a whole number or null.
    #[inline(always)]
    fn integer(&mut self, field: Field, wrong: &mut Wrong) -> Result<Option<i64>, Unreadable> {
        wrong.clear(field);
        match self.scanner.kind()? {
            Kind::Number => {
                let number = self.scanner.number()?;
                if number.is_none() {
                    wrong.set(field);
                }
                return Ok(number);
            }
            Kind::Null => self.scanner.literal("null")?,
            _ => {
                self.scanner.skip(self.depth + 4)?;
                wrong.set(field);
            }
        }
        Ok(None)
    }
}

/// What a group says of its impressions.
#[derive(Debug)]
enum List {
    Missing,
    /// `null`: how Go writes an empty list.
    Null,
    Wrong,
    /// An array, not yet stored.
    Found {
        at: usize,
    },
    Stored,
}

/// The fields of an impression whose last value is of a wrong type.
#[derive(Debug, Clone, Copy, Default)]
struct Wrong(u8);

impl Wrong {
    fn set(&mut self, field: Field) {
        self.0 |= 1 << field as u8;
    }

    fn clear(&mut self, field: Field) {
        self.0 &= !(1 << field as u8);
    }

    fn first(self) -> Option<Field> {
        FIELDS.get(self.0.trailing_zeros() as usize).copied()
    }
}

impl Dialect {
    /// Which field `name` means, if any.
    #[inline]
    fn field(&self, name: JsonText<'_>) -> Option<Field> {
        (self.field)(name.as_bytes()).or_else(|| self.field_with_escapes(name))
    }

    #[cold]
    fn field_with_escapes(&self, name: JsonText<'_>) -> Option<Field> {
        let mut fields = self.fields.into_iter().zip(FIELDS);
        let spelled = || fields.find(|(field_name, _)| name.spells(field_name)).map(|(_, field)| field);
        name.as_bytes().contains(&b'\\').then(spelled).flatten()
    }
}

/// Whether `name` spells `word`, with escapes or without.
#[inline]
fn is(name: JsonText<'_>, word: &str) -> bool {
    name.as_bytes() == word.as_bytes() || (name.as_bytes().contains(&b'\\') && name.spells(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_of_a_dialect_is_read_as_the_field_that_messages_call_so() {
        for dialect in [BULK, LISTENER] {
            for (name, field) in dialect.fields.into_iter().zip(FIELDS) {
                assert_eq!((dialect.field)(name.as_bytes()), Some(field), "{name}");
            }
        }
    }
}
