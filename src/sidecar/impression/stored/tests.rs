use super::*;
use crate::proto::v1;
use crate::proto::v1::stored_batch::{Group as ProtoGroup, Impression as ProtoImpression};
use proptest::prelude::*;
use prost::Message;

fn json_text(plain: &str) -> JsonText<'_> {
    JsonText::checked(plain.as_bytes())
}

fn string(text: JsonText<'_>) -> String {
    String::from_utf8(text.as_bytes().to_vec()).unwrap()
}

/// What `prost` makes of the proto, from what was read by hand.
fn as_proto(batch: &StoredBatch<'_>) -> v1::StoredBatch {
    let mut groups: Vec<ProtoGroup> = Vec::new();
    for record in batch.records() {
        let record = record.unwrap();
        let flag = string(record.flag);
        if groups.last().is_none_or(|group| group.flag != flag) {
            groups.push(ProtoGroup { flag, impressions: Vec::new() });
        }
        groups.last_mut().unwrap().impressions.push(ProtoImpression {
            key: string(record.key),
            treatment: record.treatment.map(string),
            time_ms: record.time_ms,
            change_number: record.change_number,
            label: record.label.map(string),
            bucketing_key: record.bucketing_key.map(string),
            previous_time_ms: record.previous_time_ms,
            properties: record.properties.map(string),
        });
    }
    let shared = batch.shared();
    v1::StoredBatch {
        sdk: string(shared.sdk),
        machine_name: string(shared.machine_name),
        machine_ip: string(shared.machine_ip),
        mode: string(shared.mode),
        received_ms: shared.received_ms,
        sdk_key_index: shared.sdk_key_index,
        groups,
    }
}

/// The same batch through the writer.
fn written(batch: &v1::StoredBatch, part_bytes: usize) -> Vec<Part> {
    let shared = Shared {
        sdk: json_text(&batch.sdk),
        machine_name: json_text(&batch.machine_name),
        machine_ip: json_text(&batch.machine_ip),
        mode: json_text(&batch.mode),
        received_ms: batch.received_ms,
        sdk_key_index: batch.sdk_key_index,
    };
    let mut writer = Writer::new(&shared, part_bytes, 100);
    for group in &batch.groups {
        writer.end_group();
        for impression in &group.impressions {
            writer.push(&Impression {
                flag: json_text(&group.flag),
                key: json_text(&impression.key),
                treatment: impression.treatment.as_deref().map(json_text),
                time_ms: impression.time_ms,
                change_number: impression.change_number,
                label: impression.label.as_deref().map(json_text),
                bucketing_key: impression.bucketing_key.as_deref().map(json_text),
                previous_time_ms: impression.previous_time_ms,
                properties: impression.properties.as_deref().map(json_text),
            });
        }
    }
    writer.finish()
}

fn any_impression() -> impl Strategy<Value = ProtoImpression> {
    let text = || prop::option::of("[a-zé]{0,12}");
    (".{0,200}", text(), any::<Option<i64>>(), any::<Option<i64>>(), text(), text(), any::<Option<i64>>(), text())
        .prop_map(|(key, treatment, time_ms, change_number, label, bucketing_key, previous_time_ms, properties)| {
            ProtoImpression {
                key,
                treatment,
                time_ms,
                change_number,
                label,
                bucketing_key,
                previous_time_ms,
                properties,
            }
        })
}

/// A batch whose neighbouring groups differ in their flags and have impressions, so that there is one way to group it.
fn any_batch() -> impl Strategy<Value = v1::StoredBatch> {
    let groups = prop::collection::vec(("[a-z]{0,150}", prop::collection::vec(any_impression(), 1..6)), 0..5);
    ("[a-z.-]{0,20}", "[a-z]{0,9}", "[0-9.]{0,15}", "[A-Z]{0,9}", any::<u64>(), any::<u32>(), groups).prop_map(
        |(sdk, machine_name, machine_ip, mode, received_ms, sdk_key_index, groups)| {
            let groups = groups.into_iter().enumerate();
            let groups =
                groups.map(|(n, (flag, impressions))| ProtoGroup { flag: format!("{flag}{}", n % 2), impressions });
            v1::StoredBatch {
                sdk,
                machine_name,
                machine_ip,
                mode,
                received_ms,
                sdk_key_index,
                groups: groups.collect(),
            }
        },
    )
}

#[test]
fn fields_of_a_later_version_are_skipped_at_every_level() {
    let later = |fields: &[u8]| {
        [fields, &[0x7A, 2, b'?', b'?', 0x81, 1, 1, 2, 3, 4, 5, 6, 7, 8, 0x85, 1, 1, 2, 3, 4, 0x80, 1, 9]].concat()
    };
    let message = |tag: u8, fields: Vec<u8>| [vec![tag, u8::try_from(fields.len()).unwrap()], fields].concat();
    let impression = later(&message(0x0A, b"key".to_vec()));
    let group = later(&[message(0x0A, b"flag".to_vec()), message(0x12, impression)].concat());
    let payload = later(&message(0x3A, group));
    let batch = StoredBatch::decode(&payload).unwrap();
    let records: Vec<_> = batch.records().map(Result::unwrap).collect();
    assert_eq!(records, [Impression { flag: json_text("flag"), key: json_text("key"), ..Impression::default() }]);
}

#[test]
fn a_flag_behind_its_impressions_is_found() {
    let payload = [0x3A, 8, 0x12, 3, 0x0A, 1, b'k', 0x0A, 1, b'f'];
    let batch = StoredBatch::decode(&payload).unwrap();
    let records: Vec<_> = batch.records().map(Result::unwrap).collect();
    assert_eq!(records, [Impression { flag: json_text("f"), key: json_text("k"), ..Impression::default() }]);
}

#[test]
fn a_payload_of_another_make_is_malformed_where_it_differs() {
    let error = StoredBatch::decode(&[0x08, 1]).unwrap_err();
    assert_eq!(error, Malformed { at: 1, why: "a known field of another type" });
    let error = StoredBatch::decode(&[0x3A, 200, 1, 0]).unwrap_err();
    assert_eq!(error.to_string(), "not a stored batch at byte 3 of its payload: a length beyond the end");
    // A broken impression ends the records behind the error.
    let payload = [0x3A, 6, 0x12, 1, 0x0A, 0x12, 1, 0x0A];
    let read: Vec<_> = StoredBatch::decode(&payload).unwrap().records().collect();
    assert_eq!(read, [Err(Malformed { at: 5, why: "it ends in the middle of a number" })]);
}

#[test]
fn an_impression_larger_than_a_part_gets_one_of_its_own() {
    let impression = |length: usize| ProtoImpression { key: "k".repeat(length), ..ProtoImpression::default() };
    let impressions = vec![impression(10), impression(1_000), impression(10), impression(10)];
    let batch = v1::StoredBatch { groups: vec![ProtoGroup { flag: "f".into(), impressions }], ..Default::default() };
    let records: Vec<u32> = written(&batch, 100).iter().map(|part| part.records).collect();
    assert_eq!(records, [1, 1, 2]);
}

#[test]
fn a_batch_of_one_impression_is_these_bytes() {
    let time = 1_795_450_894_053_i64;
    let impression = ProtoImpression { key: "u".into(), time_ms: Some(time), ..ProtoImpression::default() };
    let groups = vec![ProtoGroup { flag: "flag".into(), impressions: vec![impression] }];
    let batch = v1::StoredBatch { sdk: "go-6".into(), received_ms: 300, groups, ..Default::default() };
    let mut expected = b"\x0A\x04go-6\x28\xAC\x02\x3A\x94\x80\x80\x80\x00\x0A\x04flag\x12\x0C\x0A\x01u\x19".to_vec();
    expected.extend_from_slice(&time.to_le_bytes());
    assert_eq!(written(&batch, 1_000), [Part { payload: expected, records: 1 }]);
}

proptest! {
    #[test]
    fn prost_reads_what_is_written_here(batch in any_batch()) {
        let parts = written(&batch, usize::MAX);
        prop_assert_eq!(parts.is_empty(), batch.groups.is_empty());
        for part in parts {
            prop_assert_eq!(&v1::StoredBatch::decode(&*part.payload).unwrap(), &batch);
        }
    }

    #[test]
    fn what_prost_writes_is_read_here(batch in any_batch()) {
        let payload = batch.encode_to_vec();
        prop_assert_eq!(as_proto(&StoredBatch::decode(&payload).unwrap()), batch);
    }

    #[test]
    fn parts_hold_all_impressions_in_order_and_keep_the_limit(batch in any_batch(), part_bytes in 200_usize..2_000) {
        let parts = written(&batch, part_bytes);
        let whole = batch.encode_to_vec();
        let all: Vec<_> = StoredBatch::decode(&whole).unwrap().records().map(Result::unwrap).collect();
        let decoded: Vec<_> = parts.iter().map(|part| StoredBatch::decode(&part.payload).unwrap()).collect();
        let cut: Vec<_> = decoded.iter().flat_map(StoredBatch::records).map(Result::unwrap).collect();
        prop_assert_eq!(cut, all);
        for (part, read) in parts.iter().zip(&decoded) {
            prop_assert_eq!(read.records().count(), part.records as usize);
            prop_assert!(part.records == 1 || part.payload.len() <= part_bytes);
            prop_assert_eq!(&as_proto(read).sdk, &batch.sdk);
        }
    }

    #[test]
    fn stepping_over_impressions_is_reading_and_dropping_them(batch in any_batch(), count in 0_usize..30) {
        let payload = batch.encode_to_vec();
        let decoded = StoredBatch::decode(&payload).unwrap();
        let all: Vec<_> = decoded.records().map(Result::unwrap).collect();
        let mut records = decoded.records();
        prop_assert_eq!(records.advance(count).unwrap(), count.min(all.len()));
        prop_assert_eq!(records.map(Result::unwrap).collect::<Vec<_>>(), all.get(count..).unwrap_or_default());
    }

    #[test]
    fn no_bytes_make_the_reader_panic(payload: Vec<u8>, batch in any_batch(), place: prop::sample::Index, byte: u8) {
        let read = |payload: &[u8]| StoredBatch::decode(payload).map(|batch| batch.records().count());
        _ = read(&payload);
        let mut changed = batch.encode_to_vec();
        if !changed.is_empty() {
            let place = place.index(changed.len());
            changed[place] = byte;
            _ = read(&changed);
            _ = read(&changed[..place]);
        }
    }
}
