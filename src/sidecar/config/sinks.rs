//! What a destination can be, and what of its batches follows from that.

use std::path::PathBuf;
use std::time::Duration;

use hyper::header::{HeaderName, HeaderValue};
use ipnet::IpNet;

use super::{
    AmplitudeApi, AmplitudeConfig, Endpoint, S3Config, Secret, SegmentConfig, SigningSecret, TlsSettings,
    UpstreamConfig, limits,
};

/// What a destination is.
#[derive(Debug, Clone, Hash)]
pub enum SinkConfig {
    /// `type = "webhook"`.
    Webhook(WebhookConfig),
    /// `type = "file"`.
    File(FileConfig),
    /// `type = "amplitude"`.
    Amplitude(AmplitudeConfig),
    /// `type = "segment"`.
    Segment(SegmentConfig),
    /// `type = "s3"`. In a box: it is told much.
    S3(Box<S3Config>),
    /// `type = "upstream"`.
    Upstream(UpstreamConfig),
}

impl SinkConfig {
    /// The word for a directory of files.
    pub const FILE: &'static str = "file";

    /// The word in the file.
    #[must_use]
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Webhook(_) => "webhook",
            Self::File(_) => Self::FILE,
            Self::Amplitude(_) => "amplitude",
            Self::Segment(_) => "segment",
            Self::S3(_) => "s3",
            Self::Upstream(_) => "upstream",
        }
    }

    pub(super) fn kind(&self) -> SinkKind {
        match self {
            Self::Webhook(_) => SinkKind::Webhook,
            Self::File(_) => SinkKind::File,
            Self::Amplitude(amplitude) => SinkKind::Amplitude(amplitude.api),
            Self::Segment(_) => SinkKind::Segment,
            Self::S3(_) => SinkKind::S3,
            Self::Upstream(_) => SinkKind::Upstream,
        }
    }
}

/// Split's documented JSON array, posted.
#[derive(Debug, Clone, Hash)]
pub struct WebhookConfig {
    /// Where to post.
    pub url: Endpoint,
    /// How the body is packed.
    pub compression: Compression,
    /// What to send along. Values may be secrets, so all are kept as such.
    pub headers: Vec<(HeaderName, Secret<HeaderValue>)>,
    /// What requests are signed with; more than one while a secret is replaced. Unsigned if there are none.
    pub signing: Vec<SigningSecret>,
    /// Certificates of its own.
    pub tls: TlsSettings,
    /// Where it may be besides: networks that are refused to every destination which does not name them.
    pub allow_addresses: Vec<IpNet>,
}

impl WebhookConfig {
    /// A webhook with the defaults.
    #[must_use]
    pub fn new(url: Endpoint) -> Self {
        Self {
            url,
            compression: Compression::default(),
            headers: Vec::new(),
            signing: Vec::new(),
            tls: TlsSettings::default(),
            allow_addresses: Vec::new(),
        }
    }
}

/// How a request's body is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Compression {
    /// As Split does.
    #[default]
    Gzip,
    /// As it is.
    None,
}

/// JSON lines in files.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct FileConfig {
    /// Where the files go. No other destination writes there.
    pub directory: PathBuf,
    /// A file is closed when it has this size.
    pub rotate_bytes: u64,
    /// A file is closed when it is this old.
    pub rotate_age: Duration,
    /// How lines are packed.
    pub compression: FileCompression,
}

/// How the lines of a file are packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum FileCompression {
    /// As they are, so that a file can be watched as it grows.
    #[default]
    None,
    /// One zstd frame a batch.
    Zstd,
}

impl FileConfig {
    /// A file destination with the defaults.
    #[must_use]
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
            rotate_bytes: limits::FILE_ROTATE_BYTES.default,
            rotate_age: limits::FILE_ROTATE_AGE.default,
            compression: FileCompression::default(),
        }
    }
}

/// The types of destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SinkKind {
    Webhook,
    File,
    Amplitude(AmplitudeApi),
    Segment,
    S3,
    Upstream,
}

/// What a batch may be, by type of destination.
pub(super) struct BatchBounds {
    pub(super) concurrency: limits::Bound<u32>,
    pub(super) records: limits::Bound<u32>,
    pub(super) bytes: limits::Bound<u64>,
    pub(super) wait_default: Duration,
}

impl SinkKind {
    pub(super) fn bounds(self) -> BatchBounds {
        match self {
            Self::Webhook => BatchBounds {
                concurrency: limits::CONCURRENCY,
                records: limits::WEBHOOK_RECORDS,
                bytes: limits::WEBHOOK_BYTES,
                wait_default: Duration::ZERO,
            },
            // One file is written at a time: a second batch in flight would wait for the first one's sync.
            Self::File => BatchBounds {
                concurrency: limits::Bound { default: 1, ..limits::CONCURRENCY },
                records: limits::FILE_RECORDS,
                bytes: limits::FILE_BYTES,
                wait_default: Duration::ZERO,
            },
            Self::Amplitude(AmplitudeApi::Batch) => BatchBounds {
                concurrency: limits::CONCURRENCY,
                records: limits::AMPLITUDE_BATCH_RECORDS,
                bytes: limits::AMPLITUDE_BATCH_BYTES,
                wait_default: Duration::ZERO,
            },
            Self::Amplitude(AmplitudeApi::HttpV2) => BatchBounds {
                concurrency: limits::CONCURRENCY,
                records: limits::AMPLITUDE_HTTP_RECORDS,
                bytes: limits::AMPLITUDE_HTTP_BYTES,
                wait_default: Duration::ZERO,
            },
            Self::Segment => BatchBounds {
                concurrency: limits::CONCURRENCY,
                records: limits::TO_SEGMENT_RECORDS,
                bytes: limits::TO_SEGMENT_BYTES,
                wait_default: Duration::ZERO,
            },
            Self::S3 => BatchBounds {
                concurrency: limits::S3_CONCURRENCY,
                records: limits::S3_RECORDS,
                bytes: limits::S3_BYTES,
                wait_default: limits::S3_AGE.default,
            },
            // One post is one request. Those of one key go one after the other, so it is keys that go at once.
            Self::Upstream => BatchBounds {
                concurrency: limits::Bound { default: 8, ..limits::CONCURRENCY },
                records: limits::UPSTREAM_RECORDS,
                bytes: limits::UPSTREAM_BYTES,
                wait_default: Duration::ZERO,
            },
        }
    }
}
