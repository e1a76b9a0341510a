//! Reads `[secrets]`: values by name, for whoever may not say where they come from.

use std::collections::BTreeMap;

use super::super::raw::Section;
use super::super::{Secret, is_id, limits};
use super::{Outside, values};

pub(super) fn read(root: &Section<'_>, outside: &Outside<'_>) -> BTreeMap<String, Secret<String>> {
    let mut secrets = BTreeMap::new();
    let Some(table) = root.get("secrets") else { return secrets };
    let entries = table.entries();
    if entries.len() > limits::TABLES_MAX {
        let message =
            format!("{} secrets are more than a file may hold, which is {}", entries.len(), limits::TABLES_MAX);
        table.place.error(message, "spread them over several sidecars");
    }
    for (name, field) in entries.into_iter().take(limits::TABLES_MAX) {
        if !is_id(name) {
            let remedy = format!("write 1 to {} of the characters A-Z a-z 0-9 _ -", limits::ID_BYTES_MAX);
            field.place.error("this can't be the name of a secret", remedy);
            continue;
        }
        if let Some(resolved) = values::secret(&field, outside) {
            if resolved.literal {
                let remedy = "write \"env:NAME\" or \"file:PATH\" and keep the value out of the file";
                field.place.warning("a secret stands here for everyone who reads this file", remedy);
            }
            secrets.insert(name.to_owned(), Secret::new(resolved.value));
        }
    }
    secrets
}
