//! Impressions as Segment's `track` calls. Pure.
//!
//! `properties` are the objects of Split's webhook, as Split's own integration sends them. Text is copied with its
//! escapes; nothing allocates per impression.

use std::sync::Arc;

use crate::config::{SegmentConfig, SegmentIdentity};
use crate::delivery::sink::{EncodeError, Encoded, Job};
use crate::impression::escape;
use crate::sinks::events::{self, Event};
use crate::sinks::rfc3339::Times;

/// What a body begins with.
const OPENING: &[u8] = b"{\"batch\":[";

/// It takes no larger event: at the latest here, for its SDKs stop at 32,000 bytes or at 32 KiB.
const EVENT_BYTES_MAX: usize = 32 << 10;

/// How impressions become events.
pub(super) struct Events {
    /// From the opening brace to the id's opening quote.
    start: Box<[u8]>,
    identity: SegmentIdentity,
    /// What tells these events from others.
    settings: Arc<str>,
}

impl Events {
    pub(super) fn new(config: &SegmentConfig) -> Self {
        let identity = config.identity;
        let mut start = b"{\"type\":\"track\",\"event\":\"".to_vec();
        escape(config.event.as_bytes(), &mut start);
        start.extend_from_slice(b"\",\"");
        start.extend_from_slice(field(identity).as_bytes());
        start.extend_from_slice(b"\":\"");
        let settings = String::from_utf8_lossy(&start).into();
        Self { start: start.into(), identity, settings }
    }

    /// Equal where equal impressions become equal events.
    pub(super) fn settings(&self) -> Arc<str> {
        Arc::clone(&self.settings)
    }

    /// The body up to its tail.
    pub(super) fn encode(&self, job: &Job) -> Result<Encoded, EncodeError> {
        let mut times = Times::new();
        events::encode(job, self.bytes_max(job), OPENING, |event, out| {
            if event.record.key.is_empty() {
                return Err(format!("Segment takes no empty {}", field(self.identity)));
            }
            let before = out.len();
            self.write(event, &mut times, out);
            let bytes = out.len() - before;
            if bytes > EVENT_BYTES_MAX {
                return Err(format!("an event of {bytes} bytes; Segment takes at most {EVENT_BYTES_MAX}"));
            }
            Ok(())
        })
    }

    /// See [`Sink::encoded_bytes_max`](crate::delivery::sink::Sink::encoded_bytes_max).
    pub(super) fn bytes_max(&self, job: &Job) -> u64 {
        events::bytes_max(job, self.start.len())
    }

    fn write(&self, event: Event<'_, '_>, times: &mut Times, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.start);
        out.extend_from_slice(event.record.key.as_bytes());
        out.extend_from_slice(b"\",\"messageId\":\"");
        event.write_id(out);
        out.extend_from_slice(b"\",\"timestamp\":\"");
        let received_ms = i64::try_from(event.received_ms).unwrap_or(i64::MAX);
        // A time that no calendar has is an SDK's slip; it still stands among the properties as it came.
        if !times.write(event.time_ms(), out) && !times.write(received_ms, out) {
            times.write(0, out);
        }
        out.extend_from_slice(b"\",\"properties\":{");
        event.fields.write(event.record, out);
        out.extend_from_slice(b"}}");
    }
}

/// What Segment calls the identity.
fn field(identity: SegmentIdentity) -> &'static str {
    match identity {
        SegmentIdentity::UserId => "userId",
        SegmentIdentity::AnonymousId => "anonymousId",
    }
}
