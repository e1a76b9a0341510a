//! One bucket, as we use it: requests with what the destination's settings ask for, each with a time limit, and answers
//! sorted. Decides nothing between two requests; that is [`upload`](super::upload).

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_sdk_s3::Client;
use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{
    ChecksumAlgorithm, CompletedMultipartUpload, CompletedPart, MultipartUpload, ServerSideEncryption, StorageClass,
};
use bytes::Bytes;
use forebay::clock::Clock;
use tokio::time::timeout;

use crate::config::{Encryption, S3Config, S3Format};

use super::answer::{Trouble, judge};
use super::digest::Contents;

/// Only if nothing lies there.
const NOTHING_THERE: &str = "*";

/// Uploads in one answer: some hundred bytes each.
const LISTED_MAX: i32 = 500;

/// A bucket and the way to it.
pub(super) struct Store {
    pub(super) client: Client,
    pub(super) config: Arc<S3Config>,
    pub(super) clock: Arc<dyn Clock>,
}

/// A request's name and its time limit.
#[derive(Clone, Copy)]
pub(super) struct Object<'a> {
    pub(super) key: &'a str,
    pub(super) format: S3Format,
    pub(super) timeout: Duration,
}

/// An upload in parts that was begun.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Upload {
    pub(super) key: String,
    pub(super) id: String,
}

impl Store {
    /// Puts a small object as a whole, if nothing lies there.
    pub(super) async fn put(&self, object: Object<'_>, contents: &Contents, body: Bytes) -> Result<(), Trouble> {
        let mut request = self
            .client
            .put_object()
            .bucket(&self.config.bucket)
            .key(object.key)
            .if_none_match(NOTHING_THERE)
            .checksum_algorithm(ChecksumAlgorithm::Crc32)
            .set_metadata(Some(metadata(contents)))
            .content_type(content_type(object.format))
            .set_storage_class(self.storage_class())
            .body(ByteStream::from(body));
        if let Some(encryption) = &self.config.encryption {
            request = request.server_side_encryption(kind(encryption));
            if let Encryption::Kms { key_id, bucket_key } = encryption {
                request = request.set_ssekms_key_id(key_id.clone()).bucket_key_enabled(*bucket_key);
            }
        }
        self.asked(object.timeout, request.send()).await.map(drop)
    }

    /// What lies there, as far as its metadata tells.
    pub(super) async fn look(&self, object: Object<'_>) -> Result<HashMap<String, String>, Trouble> {
        let request = self.client.head_object().bucket(&self.config.bucket).key(object.key);
        Ok(self.asked(object.timeout, request.send()).await?.metadata.unwrap_or_default())
    }

    /// Begins an upload in parts.
    pub(super) async fn begin(&self, object: Object<'_>, contents: &Contents) -> Result<Upload, Trouble> {
        let mut request = self
            .client
            .create_multipart_upload()
            .bucket(&self.config.bucket)
            .key(object.key)
            .checksum_algorithm(ChecksumAlgorithm::Crc32)
            .set_metadata(Some(metadata(contents)))
            .content_type(content_type(object.format))
            .set_storage_class(self.storage_class());
        if let Some(encryption) = &self.config.encryption {
            request = request.server_side_encryption(kind(encryption));
            if let Encryption::Kms { key_id, bucket_key } = encryption {
                request = request.set_ssekms_key_id(key_id.clone()).bucket_key_enabled(*bucket_key);
            }
        }
        let begun = self.asked(object.timeout, request.send()).await?;
        let id = begun.upload_id.ok_or_else(|| Trouble::local("the store began an upload without a name"))?;
        Ok(Upload { key: object.key.to_owned(), id })
    }

    /// Sends a part; `number` counts from 1.
    pub(super) async fn part(
        &self,
        upload: &Upload,
        number: i32,
        body: Bytes,
        limit: Duration,
    ) -> Result<CompletedPart, Trouble> {
        let request = self
            .client
            .upload_part()
            .bucket(&self.config.bucket)
            .key(&upload.key)
            .upload_id(&upload.id)
            .part_number(number)
            .checksum_algorithm(ChecksumAlgorithm::Crc32)
            .body(ByteStream::from(body));
        let sent = self.asked(limit, request.send()).await?;
        Ok(CompletedPart::builder()
            .part_number(number)
            .set_e_tag(sent.e_tag)
            .set_checksum_crc32(sent.checksum_crc32)
            .build())
    }

    /// Makes an object of the parts, if nothing lies there.
    pub(super) async fn complete(
        &self,
        upload: &Upload,
        parts: Vec<CompletedPart>,
        limit: Duration,
    ) -> Result<(), Trouble> {
        let parts = CompletedMultipartUpload::builder().set_parts(Some(parts)).build();
        let request = self
            .client
            .complete_multipart_upload()
            .bucket(&self.config.bucket)
            .key(&upload.key)
            .upload_id(&upload.id)
            .multipart_upload(parts)
            .if_none_match(NOTHING_THERE);
        self.asked(limit, request.send()).await.map(drop)
    }

    /// Gives up an upload and what was sent of it.
    pub(super) async fn abort(&self, upload: &Upload, limit: Duration) -> Result<(), Trouble> {
        let request =
            self.client.abort_multipart_upload().bucket(&self.config.bucket).key(&upload.key).upload_id(&upload.id);
        self.asked(limit, request.send()).await.map(drop)
    }

    /// Uploads that were begun under names of this beginning and neither completed nor given up: the first ones behind
    /// `after`. The second value says whether there are more.
    pub(super) async fn unfinished(
        &self,
        prefix: &str,
        after: Option<&Upload>,
        limit: Duration,
    ) -> Result<(Vec<Upload>, bool), Trouble> {
        let request = self
            .client
            .list_multipart_uploads()
            .bucket(&self.config.bucket)
            .prefix(prefix)
            .max_uploads(LISTED_MAX)
            .set_key_marker(after.map(|upload| upload.key.clone()))
            .set_upload_id_marker(after.map(|upload| upload.id.clone()));
        let listed = self.asked(limit, request.send()).await?;
        let named = |upload: MultipartUpload| Some(Upload { key: upload.key?, id: upload.upload_id? });
        let uploads = listed.uploads.unwrap_or_default().into_iter().filter_map(named).collect();
        Ok((uploads, listed.is_truncated.unwrap_or(false)))
    }

    /// Waits for an answer for so long.
    async fn asked<T, E>(
        &self,
        limit: Duration,
        request: impl Future<Output = Result<T, SdkError<E, HttpResponse>>>,
    ) -> Result<T, Trouble>
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
    {
        let now = || -> SystemTime { UNIX_EPOCH + Duration::from_millis(self.clock.wall_ms()) };
        match timeout(limit, request).await {
            Err(_) => Err(Trouble::timeout()),
            Ok(answer) => answer.map_err(|error| judge(&error, now())),
        }
    }

    fn storage_class(&self) -> Option<StorageClass> {
        self.config.storage_class.as_deref().map(StorageClass::from)
    }
}

fn metadata(contents: &Contents) -> HashMap<String, String> {
    contents.metadata().into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

fn kind(encryption: &Encryption) -> ServerSideEncryption {
    match encryption {
        Encryption::S3 => ServerSideEncryption::Aes256,
        Encryption::Kms { .. } => ServerSideEncryption::AwsKms,
    }
}

/// Without a content encoding for what is packed: readers go by the name's end, and clients that unpack on the way would
/// give them something else.
fn content_type(format: S3Format) -> &'static str {
    use crate::config::LinesCompression as Lines;
    match format {
        S3Format::JsonLines(Lines::Zstd) => "application/zstd",
        S3Format::JsonLines(Lines::Gzip) => "application/gzip",
        S3Format::JsonLines(Lines::None) => "application/x-ndjson",
        S3Format::Parquet(_) => "application/vnd.apache.parquet",
    }
}
