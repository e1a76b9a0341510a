//! What the store answered, sorted. Pure.
//!
//! A refusal is of the destination, never of records: a store that does not take an object takes none of that kind.

use std::error::Error;
use std::time::{Duration, SystemTime};

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};

use crate::causes;
use crate::delivery::outcome::{Failure, Outcome};
use crate::delivery::retry_after;

use super::client::Uncarried;

/// Of a store's message this many characters are shown to people.
const EXCERPT_CHARS_MAX: usize = 200;

/// The destination's settings or its owner's permissions are wrong: nothing gets through until somebody acts.
const REFUSALS: [&str; 30] = [
    "AccessDenied",
    "AccountProblem",
    "AllAccessDisabled",
    "AuthorizationHeaderMalformed",
    "ExpiredToken",
    "IllegalLocationConstraintException",
    "InvalidAccessKeyId",
    "InvalidArgument",
    "InvalidBucketName",
    "InvalidBucketState",
    "InvalidEncryptionAlgorithmError",
    "InvalidObjectState",
    "InvalidRequest",
    "InvalidSecurity",
    "InvalidStorageClass",
    "InvalidToken",
    "KeyTooLongError",
    "MethodNotAllowed",
    "MissingSecurityHeader",
    "NoSuchBucket",
    "NotImplemented",
    "NotSignedUp",
    "PermanentRedirect",
    "QuotaExceeded",
    "RequestTimeTooSkewed",
    "SignatureDoesNotMatch",
    "TemporaryRedirect",
    "TokenRefreshRequired",
    "UnauthorizedAccess",
    "XAmzContentSHA256Mismatch",
];

/// The store asks for a pause.
const PAUSES: [&str; 9] = [
    "Busy",
    "RequestLimitExceeded",
    "ServiceUnavailable",
    "SlowDown",
    "SlowDownRead",
    "SlowDownWrite",
    "Throttling",
    "ThrottlingException",
    "TooManyRequests",
];

/// An answer that is no success.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Trouble {
    /// Its HTTP status, if there was an answer.
    pub(super) status: Option<u16>,
    /// What it means for the batch.
    pub(super) outcome: Outcome,
}

impl Trouble {
    /// Nothing came from the store; the fault is on our side.
    pub(super) fn local(why: impl Into<String>) -> Self {
        Self::retry(Failure::Local(why.into()))
    }

    /// Nothing came from the store.
    pub(super) fn retry(why: Failure) -> Self {
        Self { status: None, outcome: Outcome::Retry { why } }
    }

    /// No answer in time.
    pub(super) fn timeout() -> Self {
        Self::retry(Failure::Timeout)
    }

    /// An object of this name is there already.
    pub(super) fn exists(&self) -> bool {
        self.status == Some(412)
    }
}

/// Sorts what the SDK makes of an answer, or of none.
pub(super) fn judge<E>(error: &SdkError<E, HttpResponse>, now: SystemTime) -> Trouble
where
    E: ProvideErrorMetadata + Error + 'static,
{
    match error {
        SdkError::ServiceError(service) => {
            let meta = service.err().meta();
            of_answer(service.raw(), meta.code().unwrap_or(""), meta.message().unwrap_or(""), now)
        }
        SdkError::ResponseError(response) => of_answer(response.raw(), "", "the answer can't be read", now),
        SdkError::TimeoutError(_) => Trouble::timeout(),
        other => Trouble { status: None, outcome: without_answer(other) },
    }
}

fn of_answer(answer: &HttpResponse, code: &str, message: &str, now: SystemTime) -> Trouble {
    let header = |name: &str| answer.headers().get(name);
    let wait = header("retry-after")
        .and_then(|text| retry_after::parse(text.as_bytes(), header("date").map(str::as_bytes), now))
        .or_else(|| Some(Duration::from_millis(header("x-amz-retry-after")?.trim().parse().ok()?)))
        .map(|wait| wait.min(retry_after::WAIT_MAX));
    let status = answer.status().as_u16();
    Trouble { status: Some(status), outcome: sort(status, code, message, wait) }
}

/// `wait`: for how long the answer asks to be left alone.
fn sort(status: u16, code: &str, message: &str, wait: Option<Duration>) -> Outcome {
    let why = Failure::Status { status, words: words(status, code, message), excerpt: String::new() };
    if wait.is_some() {
        // Who names a time is obeyed, whatever else it says.
        return Outcome::Throttled { retry_after: wait, why };
    }
    if code == "EntityTooLarge" {
        return Outcome::TooLarge { why };
    }
    if REFUSALS.contains(&code) || code.starts_with("KMS.") || matches!(status, 301 | 307 | 308 | 401 | 403) {
        return Outcome::Refused { why };
    }
    if PAUSES.contains(&code) || matches!(status, 429 | 503) {
        // That is about the rate, which a 503 by itself is not.
        let slow_down = code.starts_with("SlowDown").then_some(Duration::ZERO);
        return Outcome::Throttled { retry_after: slow_down, why };
    }
    Outcome::Retry { why }
}

/// What people are told: the store's own words, and what to do where those leave one alone. They are read out of the document
/// that a store's error is, and nothing is shown of what is none.
fn words(status: u16, code: &str, message: &str) -> String {
    let hint = match code {
        "RequestTimeTooSkewed" => "; set this machine's clock right",
        "AuthorizationHeaderMalformed" | "PermanentRedirect" => "; look at `region`, and at `endpoint`",
        "" if status == 301 => "the bucket is in another region; look at `region`",
        _ => "",
    };
    let text = match (code, message) {
        ("", message) => message.to_owned(),
        (code, "") => code.to_owned(),
        (code, message) => format!("{code}: {message}"),
    };
    let shown: String =
        text.trim().chars().take(EXCERPT_CHARS_MAX).map(|c| if c.is_control() { ' ' } else { c }).collect();
    shown + hint
}

/// No answer came: no connection, or no credentials to sign with.
fn without_answer(error: &(dyn Error + 'static)) -> Outcome {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(Uncarried(failure)) = error.downcast_ref() {
            return Outcome::Retry { why: failure.clone() };
        }
        if let Some(credentials) = error.downcast_ref::<CredentialsError>() {
            return no_credentials(credentials);
        }
        cause = error.source();
    }
    Outcome::Retry { why: Failure::Local(causes::line(error)) }
}

/// Whether waiting helps: what was not answered may be, who was told no needs somebody's help.
fn no_credentials(error: &CredentialsError) -> Outcome {
    let text = causes::line(error);
    let why = Failure::Local(format!("no credentials for the store: {text}"));
    let told_no = match error {
        CredentialsError::CredentialsNotLoaded(_) | CredentialsError::InvalidConfiguration(_) => true,
        _ => ["AccessDenied", "ExpiredToken", "InvalidClientTokenId", "InvalidIdentityToken", "SignatureDoesNotMatch"]
            .iter()
            .any(|code| text.contains(code)),
    };
    if told_no { Outcome::Refused { why } } else { Outcome::Retry { why } }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(status: u16, code: &str) -> &'static str {
        match sort(status, code, "", None) {
            Outcome::Refused { .. } => "refused",
            Outcome::Throttled { .. } => "throttled",
            Outcome::Retry { .. } => "retry",
            Outcome::TooLarge { .. } => "too large",
            other => panic!("{other:?} is not of an answer"),
        }
    }

    #[test]
    fn each_documented_answer_has_its_meaning() {
        let table = [
            (503, "SlowDown", "throttled"),
            (503, "ServiceUnavailable", "throttled"),
            (503, "", "throttled"),
            (429, "", "throttled"),
            (400, "ThrottlingException", "throttled"),
            (404, "NoSuchBucket", "refused"),
            (403, "AccessDenied", "refused"),
            (403, "InvalidAccessKeyId", "refused"),
            (403, "SignatureDoesNotMatch", "refused"),
            (403, "RequestTimeTooSkewed", "refused"),
            (403, "", "refused"),
            (400, "ExpiredToken", "refused"),
            (400, "InvalidToken", "refused"),
            (400, "KMS.NotFoundException", "refused"),
            (400, "KMS.DisabledException", "refused"),
            (301, "PermanentRedirect", "refused"),
            (400, "AuthorizationHeaderMalformed", "refused"),
            (501, "NotImplemented", "refused"),
            (409, "ConditionalRequestConflict", "retry"),
            (409, "OperationAborted", "retry"),
            (404, "NoSuchUpload", "retry"),
            (404, "", "retry"),
            (400, "RequestTimeout", "retry"),
            (400, "BadDigest", "retry"),
            (500, "InternalError", "retry"),
            (500, "", "retry"),
            (400, "", "retry"),
            (400, "EntityTooLarge", "too large"),
        ];
        for (status, code, meaning) in table {
            assert_eq!(kind(status, code), meaning, "{status} {code}");
        }
    }

    #[test]
    fn a_wait_that_is_asked_for_is_obeyed() {
        let minute = Some(Duration::from_secs(60));
        for (status, code) in
            [(503, "SlowDown"), (500, "InternalError"), (409, "OperationAborted"), (403, "AccessDenied")]
        {
            let outcome = sort(status, code, "", minute);
            assert!(matches!(outcome, Outcome::Throttled { retry_after, .. } if retry_after == minute), "{code}");
        }
    }

    #[test]
    fn to_slow_down_is_a_word_about_the_rate_and_a_503_is_not() {
        let told = |code| match sort(503, code, "", None) {
            Outcome::Throttled { retry_after, .. } => retry_after,
            other => panic!("{other:?}"),
        };
        assert_eq!(
            (told("SlowDown"), told("SlowDownWrite"), told("ServiceUnavailable")),
            (Some(Duration::ZERO), Some(Duration::ZERO), None)
        );
    }

    #[test]
    fn people_are_told_in_the_stores_words_and_what_to_do() {
        let told = |status, code, message| words(status, code, message);
        assert_eq!(told(403, "AccessDenied", "Access\nDenied"), "AccessDenied: Access Denied");
        assert!(told(403, "RequestTimeTooSkewed", "The difference is too large.").ends_with("clock right"));
        assert_eq!(told(503, "", ""), "");
        assert_eq!(told(500, "InternalError", &"x".repeat(1_000)).len(), EXCERPT_CHARS_MAX);
    }
}
