//! Reads `[[environments]]`: ids that differ, keys that belong to one of them only.

use std::borrow::Borrow;
use std::collections::{BTreeMap, HashMap, HashSet};

use super::super::raw::{Field, Section};
use super::super::report::Place;
use super::super::{Environment, Secret, is_id, limits};
use super::{Outside, values};

/// The environments that were read, with their places.
pub(super) struct Environments<'r> {
    read: Vec<(Place<'r>, Environment)>,
    /// Every id that the file names, those of environments with other mistakes included: else one mistake would be
    /// reported again by each destination that names the environment.
    ids: BTreeMap<&'r str, usize>,
}

impl<'r> Environments<'r> {
    /// Environments of which only the ids are known.
    pub(super) fn named(ids: &'r [String]) -> Self {
        Self { read: Vec::new(), ids: ids.iter().map(|id| (id.as_str(), 0)).collect() }
    }
}

impl Environments<'_> {
    pub(super) fn into_values(self) -> Vec<Environment> {
        self.read.into_iter().map(|(_, environment)| environment).collect()
    }

    pub(super) fn knows(&self, id: &str) -> bool {
        self.ids.contains_key(id)
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = &str> {
        self.ids.keys().copied()
    }
}

pub(super) fn read<'r>(root: &Section<'r>, outside: &Outside<'_>) -> Environments<'r> {
    let sections = root.sections("environments");
    if sections.len() == 0 {
        let message = "there are no environments: every post would be refused as one with an unknown key";
        root.at("environments").misplaced(message, "add [[environments]] with an id and its sdk_keys");
    }
    too_many(root, "environments", sections.len());
    let mut environments = Environments { read: Vec::new(), ids: BTreeMap::new() };
    let mut owners = HashMap::new();
    for section in sections.take(limits::TABLES_MAX) {
        let place = section.place().clone();
        let id = values::id(&section);
        if let Some(id) = id {
            unique(&place, "an environment", id, &mut environments.ids);
        }
        let name = section.get("name").and_then(|field| name(&field));
        let sdk_keys = sdk_keys(&section, outside, &mut owners);
        section.finish();
        if let Some(id) = id {
            let name = name.unwrap_or_else(|| id.to_owned());
            environments.read.push((place, Environment { id: id.to_owned(), name, sdk_keys }));
        }
    }
    environments
}

/// Warns of environments that no destination reads.
pub(super) fn unrouted(environments: &Environments<'_>, routed: &HashSet<String>) {
    for (place, environment) in &environments.read {
        if !routed.contains(&environment.id) {
            let message =
                "no destination reads this environment: its records are kept for the replay window and go nowhere";
            place.warning(message, format!("name {:?} in the environments of a destination", environment.id));
        }
    }
}

/// Reports an id that was given before, and remembers those that were not.
pub(super) fn unique<'r, K>(place: &Place<'_>, what: &str, id: &'r str, seen: &mut BTreeMap<K, usize>)
where
    K: Ord + Borrow<str> + From<&'r str>,
{
    if let Some(line) = seen.get(id) {
        place.error(format!("{what} {id:?} exists already, in line {line}"), "give each an id of its own");
    } else {
        seen.insert(id.into(), place.line());
    }
}

/// Reports more tables than anybody writes by hand.
pub(super) fn too_many(root: &Section<'_>, key: &'static str, count: usize) {
    if count > limits::TABLES_MAX {
        let message = format!("{count} {key} are more than a file may hold, which is {}", limits::TABLES_MAX);
        root.at(key).error(message, "spread them over several sidecars");
    }
}

fn name(field: &Field<'_>) -> Option<String> {
    let text = field.text()?;
    if text.is_empty() || text.len() > limits::NAME_BYTES_MAX || text.contains(char::is_control) {
        let remedy = format!("write 1 to {} bytes of text, or leave it out", limits::NAME_BYTES_MAX);
        field.place.error("this can't be a name", remedy);
        return None;
    }
    Some(text.to_owned())
}

/// Which environment a key belongs to, and in which line.
type Owners = HashMap<String, (String, usize)>;

fn sdk_keys(section: &Section<'_>, outside: &Outside<'_>, owners: &mut Owners) -> Vec<Secret<String>> {
    let Some(list) = section.get("sdk_keys") else {
        no_keys(section.place());
        return Vec::new();
    };
    let Some(fields) = list.list() else { return Vec::new() };
    if fields.is_empty() {
        no_keys(&list.place);
    }
    fields.iter().filter_map(|field| sdk_key(field, section.place(), outside, owners)).collect()
}

fn no_keys(place: &Place<'_>) {
    place
        .warning("no SDK key belongs to this environment, so nothing comes in for it", "add sdk_keys = [\"env:NAME\"]");
}

fn sdk_key(field: &Field<'_>, owner: &Place<'_>, outside: &Outside<'_>, owners: &mut Owners) -> Option<Secret<String>> {
    let resolved = values::secret(field, outside)?;
    let key = resolved.value;
    if key.len() > limits::SDK_KEY_BYTES_MAX || !key.bytes().all(|b| b.is_ascii_graphic()) {
        let remedy = "an SDK key is one word of letters and digits; look for a space, a line break or quotes too many";
        field.place.error("this value can't be an SDK key", remedy);
        return None;
    }
    if resolved.literal {
        let remedy = "write \"env:NAME\" or \"file:PATH\" and keep the key out of the file";
        field.place.warning("an SDK key stands here for everyone who reads this file", remedy);
    }
    match owners.get(&key) {
        Some((path, line)) if path == owner.path() => {
            field.place.warning(format!("this key is the same as the one in line {line}"), "remove one of them");
        }
        Some((path, line)) => {
            let message = format!("this key belongs to {path} already, in line {line}");
            field.place.error(message, "a key tells environments apart: leave it in one of them");
        }
        None => {
            owners.insert(key.clone(), (owner.path().to_owned(), field.place.line()));
        }
    }
    Some(Secret::new(key))
}

/// The environments that a destination names.
pub(super) fn subscribed(section: &Section<'_>, environments: &Environments<'_>) -> Vec<String> {
    let remedy = "say whose impressions it gets, such as environments = [\"acme-prod\"]";
    let Some(list) = section.require("environments", remedy) else { return Vec::new() };
    let Some(fields) = list.list() else { return Vec::new() };
    if fields.is_empty() {
        list.place.error("this destination reads no environment", remedy);
    }
    let mut named = HashSet::new();
    let mut subscribed = Vec::with_capacity(fields.len());
    for field in fields {
        let Some(id) = field.text() else { continue };
        if !named.insert(id) {
            field.place.error(format!("{id:?} is named twice"), "remove one of them");
        } else if environments.knows(id) {
            subscribed.push(id.to_owned());
        } else {
            unknown(&field, id, environments);
        }
    }
    subscribed
}

fn unknown(field: &Field<'_>, id: &str, environments: &Environments<'_>) {
    let shown: String = id.chars().take(limits::ID_BYTES_MAX + 1).collect();
    let remedy = match super::super::suggest::nearest(&shown, environments.ids()) {
        Some(meant) => format!("did you mean {meant:?}?"),
        None if is_id(id) => format!("add [[environments]] with id = {id:?}, or name one that exists"),
        None => "name the id of one that exists".to_owned(),
    };
    field.place.misplaced(format!("there is no environment {shown:?}"), remedy);
}
