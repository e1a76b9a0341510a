//! Takes a TOML document apart, key by key, and reports what is wrong on the way.
//!
//! Every getter answers with a value that can be worked with, so that reading goes on after a mistake and one run
//! finds them all. A key that nobody asked for is unknown. Knows no key by name and no rule between two keys: that is
//! `check`.

use std::borrow::Cow;
use std::cell::RefCell;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

use super::limits::Bound;
use super::report::{Place, Report, join};
use super::suggest;
use super::units::{parse_bytes, parse_duration, show_bytes, show_duration};

/// The tables of one `[[key]]`, taken out of their document.
pub(super) type Tables<'d> = Vec<Spanned<DeValue<'d>>>;

/// Takes the tables of `[[key]]` out of the document, for [`Section::table`]: read and dropped one by one, thousands of
/// them make room for what they become. Empty where the key is something else, which [`Section::lists`] reports.
pub(super) fn take_tables<'d>(document: &mut Spanned<DeTable<'d>>, key: &str) -> Tables<'d> {
    match document.get_mut().get_mut(key).map(Spanned::get_mut) {
        Some(DeValue::Array(array)) => std::mem::replace(array, DeArray::new()).into_iter().collect(),
        _ => Vec::new(),
    }
}

/// A table being read. Call [`Section::finish`] when all is asked for.
pub(super) struct Section<'r> {
    table: Option<&'r DeTable<'r>>,
    place: Place<'r>,
    /// What kind of table it is, for [`Report::asked`]: its path without names and numbers.
    kind: String,
    asked: RefCell<Vec<&'static str>>,
}

impl<'r> Section<'r> {
    /// The document itself.
    pub(super) fn root(report: &'r Report, document: &'r Spanned<DeTable<'r>>) -> Self {
        let place = report.top();
        Self { table: Some(document.get_ref()), place, kind: String::new(), asked: RefCell::default() }
    }

    pub(super) fn place(&self) -> &Place<'r> {
        &self.place
    }

    /// The place of a key: its own line, or the table's where the default stands.
    pub(super) fn at(&self, key: &'static str) -> Place<'r> {
        self.get(key).map_or_else(|| self.place.default_of(key), |field| field.place)
    }

    /// Whether there is such a table: not when it is left out, nor when something else stands in its place.
    pub(super) fn exists(&self) -> bool {
        self.table.is_some()
    }

    /// Whether a key is written down.
    pub(super) fn has(&self, key: &'static str) -> bool {
        self.get(key).is_some()
    }

    /// The value of a key, if it is there.
    pub(super) fn get(&self, key: &'static str) -> Option<Field<'r>> {
        let mut asked = self.asked.borrow_mut();
        if !asked.contains(&key) {
            asked.push(key);
        }
        #[cfg(test)]
        self.place.asked(&self.kind, key);
        let (name, value) = self.table?.get_key_value(key)?;
        // A table's own span is its header's; for a value the key's line is where people look.
        let at = if matches!(value.get_ref(), DeValue::Table(_) | DeValue::Array(_)) {
            value.span().start
        } else {
            name.span().start
        };
        Some(Field { value: value.get_ref(), place: self.place.key(key, at), kind: self.kind_of(key) })
    }

    /// The value of a key that must be there.
    pub(super) fn require(&self, key: &'static str, remedy: &str) -> Option<Field<'r>> {
        let field = self.get(key);
        if field.is_none() {
            self.place.misplaced(format!("`{key}` is missing"), remedy);
        }
        field
    }

    /// A table inside this one; one that is not there reads as empty.
    pub(super) fn section(&self, key: &'static str) -> Section<'r> {
        match self.get(key) {
            Some(field) => field.section(),
            None => Self {
                table: None,
                place: self.place.default_of(key),
                kind: self.kind_of(key),
                asked: RefCell::default(),
            },
        }
    }

    /// Reports a `key` that is there and is no `[[key]]`.
    pub(super) fn lists(&self, key: &'static str) {
        if let Some(field) = self.get(key).filter(|field| !field.value.is_array()) {
            field.wrong_type("a list of tables", &format!("write [[{key}]] above each of them"));
        }
    }

    /// The tables of `[[key]]`.
    pub(super) fn sections(&self, key: &'static str) -> impl ExactSizeIterator<Item = Section<'r>> + use<'r> {
        self.lists(key);
        let items: &'r [Spanned<DeValue<'r>>] = match self.get(key) {
            Some(Field { value: DeValue::Array(items), .. }) => items,
            _ => &[],
        };
        let list = Self { table: None, place: self.at(key), kind: self.kind_of(key), asked: RefCell::default() };
        items.iter().enumerate().map(move |(i, item)| list.element(i, item))
    }

    /// One of the tables of `[[key]]`, the one at `i`.
    pub(super) fn table(&self, key: &'static str, i: usize, item: &'r Spanned<DeValue<'r>>) -> Section<'r> {
        Self { table: None, place: self.at(key), kind: self.kind_of(key), asked: RefCell::default() }.element(i, item)
    }

    /// Of a list: the table at `i`, named by its `id` where it has one.
    fn element(&self, i: usize, item: &'r Spanned<DeValue<'r>>) -> Section<'r> {
        let id = item.get_ref().get("id").and_then(|id| id.get_ref().as_str()).filter(|id| super::is_id(id));
        let label = id.map_or_else(|| i.to_string(), str::to_owned);
        let place = self.place.element(&label, item.span().start);
        Field { value: item.get_ref(), place, kind: self.kind.clone() }.section()
    }

    /// A size, or its default.
    pub(super) fn bytes(&self, key: &'static str, bound: &Bound<u64>) -> u64 {
        self.get(key).and_then(|field| field.bytes(bound)).unwrap_or(bound.default)
    }

    /// A duration, or its default.
    pub(super) fn duration(&self, key: &'static str, bound: &Bound<Duration>) -> Duration {
        self.get(key).and_then(|field| field.duration(bound)).unwrap_or(bound.default)
    }

    /// A whole number, or its default.
    pub(super) fn count(&self, key: &'static str, bound: &Bound<u32>) -> u32 {
        self.get(key).and_then(|field| field.count(bound)).unwrap_or(bound.default)
    }

    /// True or false, or the default.
    pub(super) fn flag(&self, key: &'static str, default: bool) -> bool {
        self.get(key).and_then(|field| field.flag()).unwrap_or(default)
    }

    /// One of a few words, or the first of them.
    pub(super) fn choice<T: Clone>(&self, key: &'static str, words: &[(&str, T)]) -> T {
        let first = words.first().expect("callers list at least one word").1.clone();
        let Some(field) = self.get(key) else { return first };
        let Some(text) = field.text() else { return first };
        if let Some((_, value)) = words.iter().find(|(word, _)| *word == text) {
            return value.clone();
        }
        let known = words.iter().map(|(word, _)| format!("{word:?}")).collect::<Vec<_>>().join(" or ");
        field.place.error(format!("{text:?} is not known here"), format!("write {known}"));
        first
    }

    /// Reports the keys that nobody asked for.
    pub(super) fn finish(self) {
        let asked = self.asked.into_inner();
        for (name, _) in self.table.into_iter().flatten() {
            let word = name.get_ref().as_ref();
            if !asked.contains(&word) {
                // What is written down already is not what was meant.
                let open =
                    asked.iter().copied().filter(|key| !self.table.is_some_and(|table| table.contains_key(*key)));
                let remedy = match suggest::nearest(word, open) {
                    Some(meant) => format!("did you mean `{meant}`?"),
                    None => format!("remove it; known here: {}", asked.join(", ")),
                };
                self.place.key(word, name.span().start).misplaced("unknown key", remedy);
            }
        }
    }

    fn kind_of(&self, key: &str) -> String {
        join(&self.kind, key)
    }
}

/// A value being read.
pub(super) struct Field<'r> {
    value: &'r DeValue<'r>,
    pub(super) place: Place<'r>,
    kind: String,
}

impl<'r> Field<'r> {
    /// A string.
    pub(super) fn text(&self) -> Option<&'r str> {
        let text = self.value.as_str();
        if text.is_none() {
            self.wrong_type("a string", "write it in quotes");
        }
        text
    }

    /// A list of strings, each a field of its own.
    pub(super) fn list(&self) -> Option<Vec<Field<'r>>> {
        let DeValue::Array(items) = self.value else {
            self.wrong_type("a list", "write it in brackets, such as [\"one\", \"two\"]");
            return None;
        };
        let element = |(i, item): (usize, &'r Spanned<DeValue<'r>>)| Field {
            value: item.get_ref(),
            place: self.place.element(&i.to_string(), item.span().start),
            kind: self.kind.clone(),
        };
        Some(items.iter().enumerate().map(element).collect())
    }

    /// The keys and values of a table whose keys are the operator's own.
    pub(super) fn entries(&self) -> Vec<(&'r str, Field<'r>)> {
        let DeValue::Table(table) = self.value else {
            self.wrong_type("a table", "write it in braces, such as { name = \"value\" }");
            return Vec::new();
        };
        let entry = |(name, value): (&'r Spanned<_>, &'r Spanned<DeValue<'r>>)| {
            let name: &Spanned<Cow<'r, str>> = name;
            let key: &'r str = name.get_ref();
            let place = self.place.key(key, name.span().start);
            (key, Field { value: value.get_ref(), place, kind: self.kind.clone() })
        };
        table.iter().map(entry).collect()
    }

    /// A size within bounds.
    pub(super) fn bytes(&self, bound: &Bound<u64>) -> Option<u64> {
        let bytes = match self.value {
            DeValue::Integer(_) => self.integer(),
            DeValue::String(text) => parse_bytes(text),
            _ => None,
        };
        let Some(bytes) = bytes else {
            let remedy = "write a whole number and its unit, such as \"64MiB\" or \"1GB\", or a number of bytes";
            self.place.error(format!("{} is not a size", self.quoted()), remedy);
            return None;
        };
        self.within(bytes, bound, show_bytes)
    }

    /// The number of a string such as `80%`; `None`, and no finding, for anything else.
    pub(super) fn percent(&self) -> Option<u64> {
        self.value.as_str()?.trim().strip_suffix('%')?.trim_end().parse().ok()
    }

    /// A duration within bounds.
    pub(super) fn duration(&self, bound: &Bound<Duration>) -> Option<Duration> {
        let Some(duration) = self.value.as_str().and_then(parse_duration) else {
            let remedy = "write whole numbers with their units, such as \"300ms\", \"20s\", \"1h30m\" or \"7d\"";
            self.place.error(format!("{} is not a duration", self.quoted()), remedy);
            return None;
        };
        self.within(duration, bound, show_duration)
    }

    /// A whole number within bounds.
    pub(super) fn count(&self, bound: &Bound<u32>) -> Option<u32> {
        let Some(count) = self.integer() else {
            self.place.error(format!("{} is not a whole number", self.quoted()), "write digits, without quotes");
            return None;
        };
        let bound = Bound { default: 0, least: u64::from(bound.least), most: u64::from(bound.most) };
        self.within(count, &bound, |count| count.to_string()).and_then(|count| u32::try_from(count).ok())
    }

    /// True or false.
    pub(super) fn flag(&self) -> Option<bool> {
        let DeValue::Boolean(flag) = self.value else {
            self.wrong_type("true or false", "write it without quotes");
            return None;
        };
        Some(*flag)
    }

    /// The table that this value has to be.
    fn section(self) -> Section<'r> {
        let table = match self.value {
            DeValue::Table(table) => Some(table),
            _ => {
                self.wrong_type("a table", "write [name] above its keys, or { key = value }");
                None
            }
        };
        Section { table, place: self.place, kind: self.kind, asked: RefCell::default() }
    }

    fn integer(&self) -> Option<u64> {
        let DeValue::Integer(integer) = self.value else { return None };
        u64::from_str_radix(integer.as_str(), integer.radix()).ok()
    }

    fn within<T: PartialOrd + Copy>(&self, value: T, bound: &Bound<T>, show: impl Fn(T) -> String) -> Option<T> {
        let (least, most) = (show(bound.least), show(bound.most));
        if value < bound.least {
            self.place.error(format!("{} is too small", show(value)), format!("write {least} to {most}"));
            return None;
        }
        if value > bound.most {
            self.place.error(format!("{} is too large", show(value)), format!("write {least} to {most}"));
            return None;
        }
        Some(value)
    }

    /// Names the types and not the value: it may be a secret.
    fn wrong_type(&self, wanted: &str, remedy: &str) {
        self.place.error(format!("{wanted} belongs here, not {}", self.type_name()), remedy);
    }

    fn type_name(&self) -> &'static str {
        match self.value {
            DeValue::String(_) => "a string",
            DeValue::Integer(_) | DeValue::Float(_) => "a number",
            DeValue::Boolean(_) => "true or false",
            DeValue::Datetime(_) => "a date",
            DeValue::Array(_) => "a list",
            DeValue::Table(_) => "a table",
        }
    }

    /// The value, for messages about sizes and the like; never used on what may be a secret.
    fn quoted(&self) -> String {
        match self.value {
            DeValue::String(text) => format!("{:?}", text.chars().take(40).collect::<String>()),
            DeValue::Integer(number) => number.to_string(),
            DeValue::Float(number) => number.to_string(),
            _ => self.type_name().to_owned(),
        }
    }
}
