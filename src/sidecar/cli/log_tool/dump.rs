//! `forebay log dump`: the records that can be read, one line of JSON each.
//!
//! Impressions, rejects, posts and letters are decoded; of other streams a line is a frame, with the beginning of its bytes. A
//! payload that can't be decoded is shown as such and stops nothing; that records are missing is said at the end.

use std::borrow::Cow;
use std::convert::Infallible;
use std::fmt::Display;
use std::io::{self, Write};
use std::ops::ControlFlow;
use std::path::Path;

use bytes::Bytes;
use forebay::disk::Disk;
use forebay::{Inspected, LogId, SeenFrame, inspect};
use prost::Message as _;
use serde::Serialize;

use super::{LogToolError, damaged, expect_a_log, unmended};
use crate::cli::args::DumpArgs;
use crate::impression::{Impression, JsonText, Shared, StoredBatch};
use crate::ingest::{StoredReject, decode_rejects};
use crate::post::{self, Post};
use crate::proto::v1::{Letter, Letters};

/// Bytes of an opaque payload that are shown: enough for a plan, too few to flood a terminal.
const HEX_BYTES_MAX: usize = 256;

/// Writes the records that `args` names.
///
/// # Errors
/// Also when all that can be read is written, and some of what was asked for can't.
pub(super) fn dump(disk: &dyn Disk, dir: &Path, args: &DumpArgs, out: &mut impl Write) -> Result<(), LogToolError> {
    let mut dump = Dump { args, left: args.limit.unwrap_or(u64::MAX), out: io::BufWriter::new(out) };
    let mut result = Ok(());
    let seen = inspect(disk, dir, |frame| match dump.frame(frame) {
        Ok(()) if dump.left > 0 => ControlFlow::Continue(()),
        stopped => {
            result = stopped;
            ControlFlow::Break(())
        }
    })?;
    expect_a_log(dir, &seen)?;
    result?;
    dump.out.flush()?;
    match &args.stream {
        // With enough lines it stopped early, and may not have seen all names.
        Some(name) if dump.left > 0 && !seen.streams.iter().any(|stream| stream.name == *name) => {
            Err(LogToolError::NoSuchStream { name: name.clone() })
        }
        // With enough lines it wrote what was asked for.
        _ if dump.left > 0 => missing(&seen, args).map_or(Ok(()), Err),
        _ => Ok(()),
    }
}

/// What of the records that were asked for can't be read.
fn missing(seen: &Inspected, args: &DumpArgs) -> Option<LogToolError> {
    let asked = |stream: &String| args.stream.as_ref().is_none_or(|name| name == stream);
    let damage = damaged(seen).filter(|damage| damage.stream.as_ref().is_none_or(asked));
    let damage = damage.filter(|damage| damage.offsets.as_ref().is_none_or(|lost| lost.end > args.from));
    let (mut places, mut records) = (unmended(seen), 0);
    for damage in damage {
        places += 1;
        records += damage.offsets.as_ref().map_or(0, |lost| lost.end - lost.start.max(args.from));
    }
    (places > 0).then_some(LogToolError::NotAll { places, records })
}

struct Dump<'a, W: Write> {
    args: &'a DumpArgs,
    left: u64,
    out: io::BufWriter<W>,
}

/// One line.
#[derive(Serialize)]
struct Line<'a> {
    segment: u64,
    position: u32,
    stream: &'a str,
    offset: u64,
    ingest_ms: u64,
    #[serde(flatten)]
    content: Content<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum Content<'a> {
    Impression(ImpressionLine<'a>),
    Reject(RejectLine<'a>),
    Post(PostLine),
    Letter(LetterLine<'a>),
    Payload(PayloadLine),
}

#[derive(Serialize)]
struct ImpressionLine<'a> {
    flag: Cow<'a, str>,
    key: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    treatment: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    time_ms: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    change_number: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    label: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bucketing_key: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    previous_time_ms: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    properties: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "str::is_empty")]
    sdk: Cow<'a, str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    machine_name: Cow<'a, str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    machine_ip: Cow<'a, str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    mode: Cow<'a, str>,
    received_ms: u64,
    sdk_key_index: u32,
}

#[derive(Serialize)]
struct RejectLine<'a> {
    reason: &'a str,
    raw: Cow<'a, str>,
    sdk: Cow<'a, str>,
    received_ms: u64,
    sdk_key_index: u32,
}

/// A post without its body, which may be long: what an upstream waits for.
#[derive(Serialize)]
struct PostLine {
    path: String,
    received_ms: u64,
    sdk_key_index: u32,
    bytes: usize,
}

/// A record that its destination did not take, and why.
#[derive(Serialize)]
struct LetterLine<'a> {
    id: String,
    environment: &'a str,
    reason: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    answer: &'a str,
    at_ms: u64,
    attempts: u32,
    #[serde(skip_serializing_if = "is_zero")]
    not_before_ms: u64,
    #[serde(skip_serializing_if = "str::is_empty")]
    batch_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    impression: Option<ImpressionLine<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    post: Option<PostLine>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// A frame that is not decoded, and why where that is a surprise.
#[derive(Serialize)]
struct PayloadLine {
    records: u64,
    bytes: usize,
    hex: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    undecodable: Option<String>,
}

impl<W: Write> Dump<'_, W> {
    fn frame(&mut self, frame: &SeenFrame<'_>) -> io::Result<()> {
        if self.args.stream.as_deref().is_some_and(|name| name != frame.name) || frame.offsets.end <= self.args.from {
            return Ok(());
        }
        if frame.name.starts_with("!rejects/") {
            self.rejects(frame)
        } else if frame.name.starts_with("!dead/") || frame.name.starts_with("!held/") {
            self.letters(frame)
        } else if post::stream_owner(frame.name).is_some() {
            self.post(frame)
        } else if frame.name.starts_with('!') {
            self.line(frame, frame.offsets.start, Content::Payload(payload(frame, frame.offsets.start, None)))
        } else {
            self.impressions(frame)
        }
    }

    /// Shows each record of a frame, and the rest of it in one line from where on they can't be told apart.
    fn each<T, E: Display>(
        &mut self,
        frame: &SeenFrame<'_>,
        mut records: impl Iterator<Item = Result<T, E>>,
        mut show: impl FnMut(&mut Self, u64, T) -> io::Result<()>,
    ) -> io::Result<()> {
        for offset in frame.offsets.clone() {
            match records.next() {
                Some(Ok(record)) => show(self, offset, record)?,
                Some(Err(error)) => return self.undecodable(frame, offset, error.to_string()),
                None => return self.undecodable(frame, offset, "there are fewer records than the frame says".into()),
            }
        }
        Ok(())
    }

    fn impressions(&mut self, frame: &SeenFrame<'_>) -> io::Result<()> {
        let batch = match StoredBatch::decode(frame.payload) {
            Ok(batch) => batch,
            Err(error) => return self.undecodable(frame, frame.offsets.start, error.to_string()),
        };
        self.each(frame, batch.records(), |dump, offset, record| {
            dump.line(frame, offset, Content::Impression(impression(&record, batch.shared())))
        })
    }

    fn rejects(&mut self, frame: &SeenFrame<'_>) -> io::Result<()> {
        self.each(frame, decode_rejects(frame.payload), |dump, offset, one| {
            dump.line(frame, offset, Content::Reject(reject(&one)))
        })
    }

    fn post(&mut self, frame: &SeenFrame<'_>) -> io::Result<()> {
        match post(frame.payload) {
            Ok(line) => self.line(frame, frame.offsets.start, Content::Post(line)),
            Err(why) => self.undecodable(frame, frame.offsets.start, why),
        }
    }

    fn letters(&mut self, frame: &SeenFrame<'_>) -> io::Result<()> {
        let letters = match Letters::decode(frame.payload) {
            Ok(letters) => letters.letters,
            Err(error) => return self.undecodable(frame, frame.offsets.start, error.to_string()),
        };
        let letters = letters.iter().map(Ok::<_, Infallible>);
        self.each(frame, letters, |dump, offset, one| dump.letter(frame, offset, one))
    }

    fn letter(&mut self, frame: &SeenFrame<'_>, offset: u64, letter: &Letter) -> io::Result<()> {
        let batch = StoredBatch::decode(&letter.record).ok();
        let record = batch.as_ref().and_then(|batch| batch.records().nth(letter.index as usize)?.ok());
        let impression = record.as_ref().zip(batch.as_ref()).map(|(record, batch)| impression(record, batch.shared()));
        let log = LogId(u128::from(letter.log_high) << 64 | u128::from(letter.log_low));
        let line = LetterLine {
            id: format!("{log}-{}-{}", letter.stream, letter.offset),
            environment: &letter.environment_id,
            reason: &letter.reason,
            answer: &letter.excerpt,
            at_ms: letter.at_ms,
            attempts: letter.attempts,
            not_before_ms: letter.not_before_ms,
            batch_id: &letter.batch_id,
            post: if impression.is_none() { post(&letter.record).ok() } else { None },
            impression,
        };
        self.line(frame, offset, Content::Letter(line))
    }

    /// The rest of a frame, from `offset` on, in one line.
    fn undecodable(&mut self, frame: &SeenFrame<'_>, offset: u64, why: String) -> io::Result<()> {
        self.line(frame, offset, Content::Payload(payload(frame, offset, Some(why))))
    }

    fn line(&mut self, frame: &SeenFrame<'_>, offset: u64, content: Content<'_>) -> io::Result<()> {
        let whole_frame = matches!(content, Content::Payload(_));
        if self.left == 0 || (offset < self.args.from && !whole_frame) {
            return Ok(());
        }
        let line = Line {
            segment: frame.segment.0,
            position: frame.position,
            stream: frame.name,
            offset,
            ingest_ms: frame.ingest_ms,
            content,
        };
        serde_json::to_writer(&mut self.out, &line)?;
        self.out.write_all(b"\n")?;
        self.left -= 1;
        Ok(())
    }
}

fn impression<'a>(record: &Impression<'a>, shared: &Shared<'a>) -> ImpressionLine<'a> {
    ImpressionLine {
        flag: record.flag.unescape(),
        key: record.key.unescape(),
        treatment: record.treatment.map(JsonText::unescape),
        time_ms: record.time_ms,
        change_number: record.change_number,
        label: record.label.map(JsonText::unescape),
        bucketing_key: record.bucketing_key.map(JsonText::unescape),
        previous_time_ms: record.previous_time_ms,
        properties: record.properties.map(JsonText::unescape),
        sdk: shared.sdk.unescape(),
        machine_name: shared.machine_name.unescape(),
        machine_ip: shared.machine_ip.unescape(),
        mode: shared.mode.unescape(),
        received_ms: shared.received_ms,
        sdk_key_index: shared.sdk_key_index,
    }
}

fn post(payload: &[u8]) -> Result<PostLine, String> {
    let post = Post::read(&Bytes::copy_from_slice(payload)).map_err(|error| error.to_string())?;
    Ok(PostLine {
        path: post.path().to_owned(),
        received_ms: post.received_ms(),
        sdk_key_index: post.sdk_key_index(),
        bytes: payload.len(),
    })
}

fn reject(reject: &StoredReject) -> RejectLine<'_> {
    RejectLine {
        reason: &reject.reason,
        raw: String::from_utf8_lossy(&reject.raw),
        sdk: String::from_utf8_lossy(&reject.sdk),
        received_ms: reject.received_ms,
        sdk_key_index: reject.sdk_key,
    }
}

fn payload(frame: &SeenFrame<'_>, from: u64, undecodable: Option<String>) -> PayloadLine {
    let shown = &frame.payload[..frame.payload.len().min(HEX_BYTES_MAX)];
    PayloadLine {
        records: frame.offsets.end - from,
        bytes: frame.payload.len(),
        hex: shown.iter().map(|byte| format!("{byte:02x}")).collect(),
        undecodable,
    }
}
