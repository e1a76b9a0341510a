//! What the fuzzers of SDKs' posts and of what is stored of them call: see [`crate::fuzzing`].

use super::{
    BatchMeta, EnvironmentLabel, Form, Limits, StoredBatch, beacon_token, parse, write_json_lines, write_split_objects,
};
use serde::de::IgnoredAny;

/// `data`: the form of the post (1 byte modulo 3) and whether limits are tiny (its highest bit), then the body.
pub fn ingest(data: &[u8]) {
    let Some((how, body)) = data.split_first() else { return };
    let form = [Form::Bulk, Form::Beacon, Form::Listener][usize::from((how & 0x7f) % 3)];
    let tiny = Limits { part_bytes: 100, flag_bytes_max: 10, shared_bytes_max: 5, rejects_max: 2 };
    let limits = if how & 0x80 == 0 { Limits::default() } else { tiny };
    // Headers are any bytes: those of the body will do.
    let meta = BatchMeta { sdk: body, machine_name: b"\xff\"\n", received_ms: 7, ..BatchMeta::default() };
    let token = beacon_token(body);
    let Ok(parsed) = parse(body, form, &meta, &limits) else { return };
    assert!(json(body), "what is taken is JSON");
    assert!(form != Form::Beacon || token.is_ok(), "the token is found where the body is");
    assert_eq!(parsed.records, parsed.parts.iter().map(|part| u64::from(part.records)).sum::<u64>());
    assert!(parsed.rejects.len() as u64 <= parsed.rejected, "one by one, or several in one");
    let kept: usize = parsed.rejects.iter().map(|reject| reject.raw.len()).sum();
    assert!(kept <= body.len() + parsed.rejects.len(), "nothing is kept twice");
    for part in &parsed.parts {
        assert!(part.records > 0, "no part is empty");
        let batch = StoredBatch::decode(&part.payload).expect("what was stored is read");
        let stored = batch.records().inspect(|record| assert!(record.is_ok(), "what was stored is read")).count();
        assert_eq!(stored, part.records as usize);
        check_sent(&batch, stored);
    }
}

/// `data`: the payload of a frame that a sink is to send.
pub fn stored(data: &[u8]) {
    let Ok(batch) = StoredBatch::decode(data) else { return };
    let good = batch.records().take_while(Result::is_ok).count();
    for record in batch.records().flatten() {
        let _ = (record.key.unescape(), record.flag.unescape(), record.treatment.map(|text| text.unescape()));
    }
    let (mut out, mut first) = (Vec::new(), true);
    let written = write_split_objects(&batch, 0, good, &LABEL, &mut out, &mut first);
    assert!(written.is_ok() && first == (good == 0), "what can be read can be sent");
    assert!(write_split_objects(&batch, good, 1, &LABEL, &mut out, &mut first).is_err(), "and no more than that");
}

const LABEL: EnvironmentLabel<'_> = EnvironmentLabel { id: "acme-prod", name: "production" };

/// What sinks make of it is JSON, a line to a record.
fn check_sent(batch: &StoredBatch<'_>, records: usize) {
    let (mut array, mut first) = (vec![b'['], true);
    // In two calls, as two slices of a frame are sent.
    let half = records / 2;
    for (skip, take) in [(0, half), (half, records - half)] {
        write_split_objects(batch, skip, take, &LABEL, &mut array, &mut first).expect("all of them are there");
    }
    array.push(b']');
    assert!(json(&array), "{}", String::from_utf8_lossy(&array));
    let mut lines = Vec::new();
    write_json_lines(batch, 0, records, &LABEL, &mut lines, |place, out| {
        out.extend_from_slice(place.to_string().as_bytes());
    })
    .expect("all of them are there");
    let lines: Vec<&[u8]> = lines.strip_suffix(b"\n").expect("it ends a line").split(|byte| *byte == b'\n').collect();
    assert_eq!(lines.len(), records);
    assert!(lines.into_iter().all(json), "a record is one line of JSON");
}

fn json(bytes: &[u8]) -> bool {
    serde_json::from_slice::<IgnoredAny>(bytes).is_ok()
}
