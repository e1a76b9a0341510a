//! What an S3 destination is told: the bucket, the names and form of its objects, and as whom it comes.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{Endpoint, Secret, limits};

/// Objects in a bucket of Amazon S3, or of a store that speaks its protocol.
#[derive(Debug, Clone, Hash)]
pub struct S3Config {
    /// The bucket.
    pub bucket: String,
    /// What objects' names begin with.
    pub prefix: KeyTemplate,
    /// Where the bucket is.
    pub region: String,
    /// Another store than Amazon's.
    pub endpoint: Option<Endpoint>,
    /// The bucket stands in the path and not in the host's name.
    pub path_style: bool,
    /// What is in an object.
    pub format: S3Format,
    /// Whose keys; without them those of the surroundings: environment variables, profiles, web identity, the machine's
    /// role.
    pub keys: Option<S3Keys>,
    /// Another role to take on.
    pub assume_role: Option<AssumeRole>,
    /// What the store is asked to encrypt with. By default that is the bucket's own affair.
    pub encryption: Option<Encryption>,
    /// The class of storage, such as `STANDARD_IA`.
    pub storage_class: Option<String>,
    /// Where it may be besides: networks that are refused to every destination which does not name them.
    pub allow_addresses: Vec<IpNet>,
}

impl S3Config {
    /// A bucket with the defaults, in `us-east-1`.
    #[must_use]
    pub fn new(bucket: impl Into<String>) -> Self {
        Self {
            bucket: bucket.into(),
            prefix: KeyTemplate::parse(PARTITIONS).expect("the default is a template"),
            region: REGION.to_owned(),
            endpoint: None,
            path_style: false,
            format: S3Format::default(),
            keys: None,
            assume_role: None,
            encryption: None,
            storage_class: None,
            allow_addresses: Vec::new(),
        }
    }

    /// How objects are named, what is in them, and where they lie.
    #[must_use]
    pub fn layout(&self) -> S3Layout {
        S3Layout { prefix: self.prefix.clone(), format: self.format, location: self.location() }
    }

    /// Where objects lie. `None` for a store whose address has a path: that may be a password.
    #[must_use]
    pub fn location(&self) -> Option<S3Location> {
        let endpoint = match &self.endpoint {
            Some(endpoint) => Some(endpoint.host_alone()?),
            None => None,
        };
        Some(S3Location { bucket: self.bucket.clone(), region: self.region.clone(), endpoint })
    }

    /// The same settings for another place. `None` if its address is none.
    #[must_use]
    pub fn at(&self, location: &S3Location) -> Option<Self> {
        let S3Location { bucket, region, endpoint } = location.clone();
        let endpoint = match endpoint {
            Some(endpoint) => Some(Endpoint::parse(&endpoint).ok()?),
            None => None,
        };
        Some(Self { bucket, region, endpoint, ..self.clone() })
    }
}

/// Where objects lie.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct S3Location {
    /// The bucket.
    pub bucket: String,
    /// Its region.
    pub region: String,
    /// The store's address, where it is not Amazon's.
    pub endpoint: Option<String>,
}

/// What makes an object of a batch: its name, its bytes and its place. A batch is finished under the one that it was
/// planned in.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct S3Layout {
    /// What the name begins with.
    pub prefix: KeyTemplate,
    /// What is in it.
    pub format: S3Format,
    /// Where it lies; `None` where that was not written down: then where all go now.
    #[serde(default)]
    pub location: Option<S3Location>,
}

/// Amazon's first region, and what other stores answer to.
pub(super) const REGION: &str = "us-east-1";

/// How objects lie by default: as Hive, Athena, Spark and DuckDB read partitions.
pub(super) const PARTITIONS: &str = "environment={environment}/date={date}/hour={hour}/";

/// What is in an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum S3Format {
    /// One JSON object a line.
    JsonLines(LinesCompression),
    /// Columns.
    Parquet(ParquetCompression),
}

impl S3Format {
    /// The most memory that one object takes while it is written, of a batch of this size as it is stored. Bounded,
    /// however large the batch.
    #[must_use]
    pub const fn memory_bytes(self, batch_bytes: u64) -> u64 {
        let most = match self {
            Self::JsonLines(_) => limits::S3_LINES_MEMORY_BYTES,
            Self::Parquet(_) => limits::S3_COLUMNS_MEMORY_BYTES,
        };
        let whole = batch_bytes.saturating_mul(limits::S3_SMALL_FACTOR);
        if whole < most { whole } else { most }
    }
}

impl Default for S3Format {
    fn default() -> Self {
        Self::JsonLines(LinesCompression::default())
    }
}

/// How lines are packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LinesCompression {
    /// The least CPU and the smallest objects.
    #[default]
    Zstd,
    /// What every tool reads.
    Gzip,
    /// As they are.
    None,
}

/// How columns are packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ParquetCompression {
    /// The smallest.
    #[default]
    Zstd,
    /// What every reader has.
    Snappy,
    /// As they are, but for dictionaries.
    None,
}

/// An access key.
#[derive(Debug, Clone, Hash)]
pub struct S3Keys {
    /// Its name.
    pub access_key_id: Secret<String>,
    /// The key itself.
    pub secret_access_key: Secret<String>,
}

/// A role of somebody else's account, as a rule the customer's.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct AssumeRole {
    /// `arn:aws:iam::123456789012:role/name`.
    pub role_arn: String,
    /// What the role's owner asks for, so that nobody else's request is taken for theirs.
    pub external_id: Option<String>,
    /// What the session is called in the owner's records.
    pub session_name: String,
    /// Another address of the token service.
    pub endpoint: Option<Endpoint>,
}

/// What the store encrypts with.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Encryption {
    /// Keys of S3's own.
    S3,
    /// A key of the key management service.
    Kms {
        /// Which; the account's own for S3 if none is named.
        key_id: Option<String>,
        /// One data key for many objects, so that the service is asked less often.
        bucket_key: bool,
    },
}

/// The beginning of objects' names, with places for what differs: `{environment}`, `{date}` (`2026-01-01`) and `{hour}`
/// (`00` to `23`, UTC) of the moment when an object's first record was received.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct KeyTemplate(Box<str>);

/// Why a text is no [`KeyTemplate`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// A place of another name.
    #[error("there is no {{{0}}}")]
    Unknown(String),
    /// A brace without its other half.
    #[error("a brace stands alone")]
    Brace,
    /// Names begin with no slash: it would be a folder without a name.
    #[error("it begins with a slash, which makes a folder without a name")]
    Slash,
    /// S3 takes names of up to 1,024 bytes.
    #[error("it is longer than {} bytes", limits::S3_PREFIX_BYTES_MAX)]
    TooLong,
    /// Characters that make trouble somewhere on the way.
    #[error("it holds a character that makes trouble in names: {0:?}")]
    Character(char),
}

const PLACES: [&str; 3] = ["environment", "date", "hour"];

impl KeyTemplate {
    /// Checks a text.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        if text.len() > limits::S3_PREFIX_BYTES_MAX {
            return Err(TemplateError::TooLong);
        }
        if text.starts_with('/') {
            return Err(TemplateError::Slash);
        }
        // Those that S3's documentation advises against, and a backslash's kin.
        let odd = |c: &char| c.is_control() || !c.is_ascii() || "\\^`<>\"|#%[]~?*".contains(*c);
        if let Some(character) = text.chars().find(odd) {
            return Err(TemplateError::Character(character));
        }
        for (literal, place) in pieces(text) {
            if literal.contains(['{', '}']) {
                return Err(TemplateError::Brace);
            }
            if let Some(place) = place.filter(|place| !PLACES.contains(place)) {
                return Err(TemplateError::Unknown(place.to_owned()));
            }
        }
        Ok(Self(text.into()))
    }

    /// The beginning of a name.
    #[must_use]
    pub fn fill(&self, environment: &str, date: &str, hour: &str) -> String {
        let mut filled = String::with_capacity(self.0.len() + 64);
        for (literal, place) in pieces(&self.0) {
            filled.push_str(literal);
            filled.push_str(match place {
                Some("environment") => environment,
                Some("date") => date,
                Some("hour") => hour,
                _ => "",
            });
        }
        filled
    }

    /// What all names begin with: the text before the first place.
    #[must_use]
    pub fn literal(&self) -> &str {
        pieces(&self.0).next().map_or("", |(literal, _)| literal)
    }
}

impl TryFrom<String> for KeyTemplate {
    type Error = TemplateError;

    fn try_from(text: String) -> Result<Self, TemplateError> {
        Self::parse(&text)
    }
}

impl From<KeyTemplate> for String {
    fn from(template: KeyTemplate) -> Self {
        template.0.into()
    }
}

/// Takes a template apart: texts, and behind each but the last the name of a place.
fn pieces(text: &str) -> impl Iterator<Item = (&str, Option<&str>)> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest.take()?;
        let place = text.find('{').and_then(|open| {
            let inside = &text[open + 1..];
            inside.find('}').map(|close| (open, &inside[..close], &inside[close + 1..]))
        });
        Some(match place {
            Some((open, name, behind)) => {
                rest = Some(behind);
                (&text[..open], Some(name))
            }
            None => (text, None),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn filled(text: &str) -> String {
        KeyTemplate::parse(text).unwrap().fill("acme-prod", "2026-01-01", "07")
    }

    #[test]
    fn places_are_filled_and_the_rest_stands() {
        assert_eq!(filled(PARTITIONS), "environment=acme-prod/date=2026-01-01/hour=07/");
        assert_eq!(filled("impressions/"), "impressions/");
        assert_eq!(filled(""), "");
        assert_eq!(filled("a{hour}{hour}b"), "a0707b");
        assert_eq!(KeyTemplate::parse("a/b={date}/c").unwrap().literal(), "a/b=");
        assert_eq!(KeyTemplate::parse("a/b").unwrap().literal(), "a/b");
    }

    #[test]
    fn each_slip_has_its_own_reason() {
        use TemplateError as E;
        assert_eq!(KeyTemplate::parse("a/{day}/"), Err(E::Unknown("day".to_owned())));
        assert_eq!(KeyTemplate::parse("a/{date/"), Err(E::Brace));
        assert_eq!(KeyTemplate::parse("a/date}/"), Err(E::Brace));
        assert_eq!(KeyTemplate::parse("a/{{date}}/"), Err(E::Unknown("{date".to_owned())));
        assert_eq!(KeyTemplate::parse("/a"), Err(E::Slash));
        assert_eq!(KeyTemplate::parse("ä"), Err(E::Character('ä')));
        assert_eq!(KeyTemplate::parse("a\nb"), Err(E::Character('\n')));
        assert_eq!(KeyTemplate::parse(&"a".repeat(2_000)), Err(E::TooLong));
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "([a-z/={}]|\\PC){0,30}") {
            if let Ok(template) = KeyTemplate::parse(&text) {
                prop_assert!(template.fill("e", "d", "h").starts_with(template.literal()));
            }
        }
    }
}
