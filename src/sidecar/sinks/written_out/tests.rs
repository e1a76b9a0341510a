use std::sync::Arc;

use allocation_counter::measure;
use forebay::clock::ManualClock;
use forebay::disk::mem::MemDisk;

use super::*;
use crate::config::{
    AmplitudeConfig, AmplitudeIdentity, Compression, Endpoint, FileConfig, SegmentConfig, SegmentIdentity,
    WebhookConfig,
};
use crate::delivery::sink::{Environment, Sink};
use crate::sinks::address_guard::AddressPolicy;
use crate::sinks::amplitude::Amplitude;
use crate::sinks::file::FileSink;
use crate::sinks::sample::{job, job_of};
use crate::sinks::segment::Segment;
use crate::sinks::webhook::Webhook;

/// What sets buffers up whatever is in them: the packer, above all.
const BESIDE: u64 = 1 << 20;

fn webhook(compression: Compression) -> Box<dyn Sink> {
    let config = WebhookConfig { compression, ..WebhookConfig::new(Endpoint::parse("http://127.0.0.1:9/").unwrap()) };
    Box::new(Webhook::new(&config, AddressPolicy::Operator, 1, Arc::default(), Arc::new(ManualClock::at(0))))
}

/// Those that write records out, by what they are called here.
fn sinks() -> Vec<(&'static str, Box<dyn Sink>)> {
    let clock = || Arc::new(ManualClock::at(1_700_000_000_000));
    let amplitude = AmplitudeConfig { identity: AmplitudeIdentity::DeviceId, ..AmplitudeConfig::new("key") };
    let segment = SegmentConfig { identity: SegmentIdentity::AnonymousId, ..SegmentConfig::new("key") };
    vec![
        ("file", Box::new(FileSink::new("archive", FileConfig::new("out"), Arc::new(MemDisk::new()), clock()))),
        ("webhook", webhook(Compression::None)),
        ("packed webhook", webhook(Compression::Gzip)),
        ("amplitude", Box::new(Amplitude::new(&amplitude, 1, Arc::default(), clock()))),
        ("segment", Box::new(Segment::new(&segment, 1, Arc::default(), clock()))),
    ]
}

#[test]
fn no_encoder_writes_more_than_is_said_and_of_usual_records_not_much_less() {
    let everything = concat!(
        r#"{"k":"\u00e4\"user","t":"on","m":-9223372036854775808,"c":-9223372036854775807,"r":"a \"rule\"","#,
        r#""b":"bucket","pt":-9223372036854775806,"properties":"{\"plan\":\"gold\",\"key\":[1,2]}"}"#
    );
    let least = r#"{"k":"someone-here"}"#;
    let long = format!(r#"{{"k":"{}","t":"{}"}}"#, "k".repeat(3_000), "t".repeat(2_000));
    let many = vec![least; 500].join(",");
    let flag = "f".repeat(4_096);
    let bulk = format!(
        r#"[{{"f":"{flag}","i":[{everything},{least},{long}]}},{{"f":"x","i":[{everything},{many}]}},{{"f":"","i":[{least}]}}]"#
    );
    let odd = Environment { id: "a\"\u{1}\\".repeat(9), name: "\n".repeat(20) };
    let under_long = job_of(&format!(r#"[{{"f":"{flag}","i":[{}]}}]"#, vec![least; 60].join(",")));
    for job in [
        job_of(&bulk),
        Job { environment: Arc::new(odd), ..job_of(&bulk) },
        under_long,
        job(3..2_007),
        job(5..6),
        job(4..4),
    ] {
        for (name, sink) in sinks() {
            let (said, written) = (sink.encoded_bytes_max(&job), sink.encode(&job).unwrap().body.len() as u64);
            assert!(written <= said, "{name}: {written} bytes, and {said} were said");
        }
    }
    for (name, sink) in sinks().into_iter().filter(|(name, _)| *name != "packed webhook") {
        let usual = job(0..1_000);
        let (said, written) = (sink.encoded_bytes_max(&usual), sink.encode(&usual).unwrap().body.len() as u64);
        assert!(said <= written * 2, "{name}: {written} bytes, and {said} were said");
    }
}

/// A post of 450 KB of anybody with an SDK key became lines of 430 MB, in one buffer, charged as 800 KB: again after each
/// start.
#[test]
fn what_small_records_with_long_names_come_to_is_known_before_and_no_encoder_takes_more_memory() {
    let flag = "f".repeat(4_096);
    let bulk = format!(r#"[{{"f":"{flag}","i":[{}]}}]"#, vec![r#"{"k":"someone-here"}"#; 10_000].join(","));
    let whole = job_of(&bulk);
    assert!(whole.bytes < 300_000, "{} bytes as stored", whole.bytes);
    for (name, sink) in sinks() {
        let said = sink.encoded_bytes_max(&whole);
        assert!(said > 40_000_000, "{name}: {said}");
        // A part that is not too long.
        let mut part = whole.clone();
        part.parts[0].take = 1_500;
        part.origin.offsets.end = part.origin.offsets.start + 1_500;
        let said = sink.encoded_bytes_max(&part);
        let mut written = 0;
        let counted = measure(|| written = sink.encode(&part).unwrap().body.len());
        assert!(name == "packed webhook" || written > 6_000_000, "{name}: {written}");
        assert!(counted.bytes_max <= said + BESIDE, "{name}: {} bytes of memory, {said} were said", counted.bytes_max);
    }
}
