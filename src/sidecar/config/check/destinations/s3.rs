//! Reads what an S3 destination is told.

use super::super::super::DeliveryConfig;
use super::super::super::raw::{Field, Section};
use super::super::super::s3::{
    AssumeRole, Encryption, KeyTemplate, LinesCompression, PARTITIONS, ParquetCompression, REGION, S3Config, S3Format,
    S3Keys, TemplateError,
};
use super::super::super::units::show_bytes;
use super::super::super::{Secret, limits};
use super::super::{Outside, values, webhook};

pub(super) fn read(section: &Section<'_>, outside: &Outside<'_>) -> Option<S3Config> {
    let bucket = section.require("bucket", "name the bucket, such as bucket = \"acme-impressions\"");
    let bucket = bucket.and_then(|field| bucket_name(&field));
    let prefix = template(section);
    let region = word(section, "region", "such as \"eu-central-1\"").unwrap_or_else(|| REGION.to_owned());
    let endpoint = section.get("endpoint").map(|field| super::url(&field, outside));
    let path_style = section.flag("path_style", false);
    let format = format(section);
    let keys = keys(section, outside);
    let assume_role = assume_role(section, outside);
    let encryption = encryption(section);
    let storage_class = word(section, "storage_class", "such as \"STANDARD_IA\"");
    let allow_addresses = webhook::allowed(section);
    Some(S3Config {
        bucket: bucket?,
        prefix: prefix?,
        region,
        endpoint: match endpoint {
            Some(endpoint) => Some(endpoint?),
            None => None,
        },
        path_style,
        format,
        keys: keys?,
        assume_role: assume_role?,
        encryption: encryption?,
        storage_class,
        allow_addresses,
    })
}

/// An object that takes more than all objects may hold together is written all the same, alone, and takes it.
pub(super) fn fits_memory(section: &Section<'_>, format: S3Format, max_bytes: u64, delivery: &DeliveryConfig) {
    let (needed, percent) = (format.memory_bytes(max_bytes), u64::from(delivery.bulk_percent).max(1));
    let bulk = delivery.batch_memory_bytes * percent / 100;
    if needed > bulk {
        let message = format!(
            "writing an object takes up to {}, and all objects together may hold {percent} % of [delivery] \
             batch_memory_bytes, {}: one is written at a time, and takes more than is counted",
            show_bytes(needed),
            show_bytes(bulk)
        );
        let key = if section.has("max_bytes") { "max_bytes" } else { "type" };
        let enough = show_bytes((needed * 100).div_ceil(percent).next_multiple_of(1 << 20));
        section.at(key).warning(message, format!("raise batch_memory_bytes to {enough} or more, or lower max_bytes"));
    }
}

/// Letters, digits, hyphens and dots, from 3 to 63: what S3 takes.
fn bucket_name(field: &Field<'_>) -> Option<String> {
    let text = field.text()?;
    let letter = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let ends = [text.bytes().next(), text.bytes().last()];
    let good = (3..=63).contains(&text.len())
        && text.bytes().all(|b| letter(b) || b == b'-' || b == b'.')
        && ends.into_iter().flatten().all(letter);
    if !good {
        let shown: String = text.chars().take(64).collect();
        let remedy = "write the bucket's name alone: 3 to 63 of a-z 0-9 - and dots, without s3:// and without a path";
        field.place.error(format!("{shown:?} can't be the name of a bucket"), remedy);
        return None;
    }
    Some(text.to_owned())
}

/// `prefix`, and behind it `partitions`.
fn template(section: &Section<'_>) -> Option<KeyTemplate> {
    let text = |key, default| match section.get(key) {
        Some(field) => field.text(),
        None => Some(default),
    };
    let (prefix, partitions) = (text("prefix", ""), text("partitions", PARTITIONS));
    let whole = format!("{}{}", prefix?, partitions?);
    match KeyTemplate::parse(&whole) {
        Ok(template) => Some(template),
        Err(error) => {
            let remedy = match error {
                TemplateError::Unknown(_) => "there are {environment}, {date} and {hour}".to_owned(),
                TemplateError::Brace => "write places as {date}".to_owned(),
                TemplateError::Slash => "begin with a name, such as \"impressions/\"".to_owned(),
                TemplateError::TooLong => format!("write {} bytes at most", limits::S3_PREFIX_BYTES_MAX),
                TemplateError::Character(_) => "write letters, digits and ! - _ . * ' ( ) / = : @ &".to_owned(),
            };
            let key = if KeyTemplate::parse(prefix?).is_err() || !section.has("partitions") {
                "prefix"
            } else {
                "partitions"
            };
            section.at(key).error(error.to_string(), remedy);
            None
        }
    }
}

fn format(section: &Section<'_>) -> S3Format {
    let parquet = section.choice("format", &[("jsonl", false), ("parquet", true)]);
    if parquet {
        use ParquetCompression as C;
        S3Format::Parquet(section.choice("compression", &[("zstd", C::Zstd), ("snappy", C::Snappy), ("none", C::None)]))
    } else {
        use LinesCompression as C;
        S3Format::JsonLines(section.choice("compression", &[("zstd", C::Zstd), ("gzip", C::Gzip), ("none", C::None)]))
    }
}

/// Both halves of a key, or neither. `None`: half of one.
fn keys(section: &Section<'_>, outside: &Outside<'_>) -> Option<Option<S3Keys>> {
    let (id, secret) = (section.get("access_key_id"), section.get("secret_access_key"));
    match (&id, &secret) {
        (None, None) => Some(None),
        (Some(id), Some(secret)) => {
            let id = values::secret(id, outside);
            let resolved = values::secret(secret, outside);
            let (id, resolved) = (id?, resolved?);
            if resolved.literal {
                let remedy = "write \"env:NAME\" or \"file:PATH\" and keep the key out of the file";
                secret.place.warning("this key stands here for everyone who reads this file", remedy);
            }
            let [access_key_id, secret_access_key] = [id.value, resolved.value].map(Secret::new);
            Some(Some(S3Keys { access_key_id, secret_access_key }))
        }
        (Some(alone), None) => {
            alone.place.error("the name of a key is of no use alone", "add secret_access_key = \"env:NAME\"");
            None
        }
        (None, Some(alone)) => {
            alone.place.error("a key is of no use without its name", "add access_key_id = \"env:NAME\"");
            None
        }
    }
}

/// `assume_role = { role_arn = …, external_id = …, session_name = … }`.
fn assume_role(section: &Section<'_>, outside: &Outside<'_>) -> Option<Option<AssumeRole>> {
    if !section.has("assume_role") {
        return Some(None);
    }
    let section = section.section("assume_role");
    let role = section.require("role_arn", "name the role, such as \"arn:aws:iam::123456789012:role/forebay\"");
    let role_arn = role.and_then(|field| {
        let text = field.text()?;
        if !text.starts_with("arn:") || !text.contains(":role/") || text.contains(char::is_whitespace) {
            field.place.error("this is not the ARN of a role", "it looks like arn:aws:iam::123456789012:role/name");
            return None;
        }
        Some(text.to_owned())
    });
    let external_id = word(&section, "external_id", "as the role's trust policy has it");
    let session_name = word(&section, "session_name", "such as \"forebay\"").unwrap_or_else(|| "forebay".to_owned());
    let endpoint = section.get("endpoint").map(|field| super::url(&field, outside));
    section.finish();
    let endpoint = match endpoint {
        Some(endpoint) => Some(endpoint?),
        None => None,
    };
    Some(Some(AssumeRole { role_arn: role_arn?, external_id, session_name, endpoint }))
}

/// `encryption`, `kms_key_id` and `bucket_key`.
fn encryption(section: &Section<'_>) -> Option<Option<Encryption>> {
    let kind = section.choice("encryption", &[("bucket", None), ("s3", Some(false)), ("kms", Some(true))]);
    let key_id = word(section, "kms_key_id", "a key's id or ARN");
    let bucket_key = section.flag("bucket_key", true);
    if kind != Some(true)
        && let Some(key) = ["kms_key_id", "bucket_key"].into_iter().find(|key| section.has(key))
    {
        section.at(key).error("this is for encryption = \"kms\"", "write encryption = \"kms\", or remove it");
        return None;
    }
    Some(kind.map(|kms| if kms { Encryption::Kms { key_id, bucket_key } } else { Encryption::S3 }))
}

/// A short text without spaces.
fn word(section: &Section<'_>, key: &'static str, example: &str) -> Option<String> {
    let field = section.get(key)?;
    let text = field.text()?;
    if text.is_empty()
        || text.len() > limits::NAME_BYTES_MAX
        || text.contains(|c: char| c.is_whitespace() || c.is_control())
    {
        field.place.error(format!("this can't be a {}", key.replace('_', " ")), format!("write one, {example}"));
        return None;
    }
    Some(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Surroundings, check_destination};
    use std::collections::BTreeMap;

    /// What is said of a destination of this table, where destinations share so many MiB.
    fn findings(table: &str, shared_mib: u64) -> Vec<String> {
        let text = format!(
            "[[destinations]]\nid = \"s3\"\nenvironments = [\"acme\"]\ntype = \"s3\"\nbucket = \"acme-impressions\"\n{table}"
        );
        let delivery =
            DeliveryConfig { batch_memory_bytes: shared_mib << 20, bulk_percent: 50, ..DeliveryConfig::default() };
        let around =
            Surroundings { environments: &["acme".to_owned()], delivery: &delivery, secrets: &BTreeMap::new() };
        let checked = check_destination(&text, &around);
        assert!(checked.value.is_some(), "{:?}", checked.findings);
        checked.findings.iter().map(|finding| format!("{}; {}", finding.message, finding.remedy)).collect()
    }

    #[test]
    fn an_object_that_does_not_fit_into_what_objects_may_hold_is_warned_of() {
        let parquet = "format = \"parquet\"\n";
        assert_eq!(findings(parquet, 64), [""; 0], "the defaults fit");
        assert_eq!(findings("", 40), [""; 0]);
        let [warning] = &findings(parquet, 63)[..] else { panic!("one warning") };
        assert!(warning.contains("32MiB") && warning.contains("raise batch_memory_bytes to 64MiB"), "{warning}");
        assert_eq!(findings("", 39).len(), 1);
        assert_eq!(findings(&format!("{parquet}max_bytes = \"2MiB\"\n"), 48), [""; 0], "small objects take less");
    }
}
