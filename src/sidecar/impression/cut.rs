//! Takes one record out of a stored batch: a stored batch of its own, that lives on when the other one is gone.
//!
//! What always holds: whatever is encoded of the cut is what is encoded of the record where it was.

use super::encode::{EncodeError, each_record};
use super::stored::{StoredBatch, Writer};

/// The record at `index` of the stored batch `payload`, as a stored batch of one.
///
/// # Errors
/// [`EncodeError`] if the payload is damaged or has fewer records.
pub fn cut_out(payload: &[u8], index: usize) -> Result<Vec<u8>, EncodeError> {
    let batch = StoredBatch::decode(payload)?;
    let mut writer = Writer::new(batch.shared(), usize::MAX, 0);
    each_record(&batch, index, 1, |_, record| writer.push(record))?;
    let part = writer.finish().pop().expect("each_record fails where it finds no record");
    Ok(part.payload)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::impression::{BatchMeta, EnvironmentLabel, Form, Limits, parse, write_json_lines};

    fn stored() -> (Vec<u8>, usize) {
        let body = r#"[{"f":"a","i":[{"k":"u1","t":"on","m":1,"c":5,"r":"x"},{"k":"u\"2\"","m":2,"pt":1}]},
            {"f":"caf\u00e9","i":[{"k":"u3","t":"off","b":"bucket","properties":"{\"p\":1}"}]},{"f":"a","i":[{"k":"u4"}]}]"#;
        let meta = BatchMeta {
            sdk: b"go-1.2.3",
            machine_name: b"host",
            machine_ip: b"10.0.0.1",
            mode: b"DEBUG",
            received_ms: 77,
            sdk_key_index: 2,
        };
        let mut parsed = parse(body.as_bytes(), Form::Bulk, &meta, &Limits::default()).unwrap();
        let part = parsed.parts.remove(0);
        (part.payload, part.records as usize)
    }

    fn lines(payload: &[u8], skip: usize, take: usize) -> String {
        let environment = EnvironmentLabel { id: "prod", name: "Production" };
        let mut out = Vec::new();
        let batch = StoredBatch::decode(payload).unwrap();
        write_json_lines(&batch, skip, take, &environment, &mut out, |_, out| out.push(b'x')).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_cut_says_what_the_record_said_where_it_was() {
        let (payload, records) = stored();
        assert_eq!(records, 4);
        let cut: String = (0..records).map(|index| lines(&cut_out(&payload, index).unwrap(), 0, 1)).collect();
        assert_eq!(cut, lines(&payload, 0, records));
        let one = cut_out(&payload, 2).unwrap();
        assert_eq!(StoredBatch::decode(&one).unwrap().shared(), StoredBatch::decode(&payload).unwrap().shared());
        assert_eq!(StoredBatch::decode(&one).unwrap().records().count(), 1);
    }

    #[test]
    fn where_there_is_no_such_record_nothing_is_cut() {
        let (payload, records) = stored();
        assert!(matches!(cut_out(&payload, records), Err(EncodeError::TooFew { .. })));
        assert!(matches!(cut_out(b"\xff", 0), Err(EncodeError::Malformed(_))));
    }
}
