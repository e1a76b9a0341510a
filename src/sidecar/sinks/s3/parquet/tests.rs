//! Columns read back with the crate's own reader. Another implementation reads them in `.ci/run parquet`.

use bytes::Bytes;
use parquet::basic::{Compression, LogicalType, Repetition, Type};
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::{Field, Row};

use super::*;
use crate::config::S3Format;
use crate::delivery::budget::Turns;
use crate::sinks::s3::encode::encode;
use crate::sinks::s3::parts::parts;
use crate::sinks::s3::sample::{large, of};
use crate::sinks::sample;

/// The object that the job makes.
fn object(job: &LargeJob, compression: ParquetCompression) -> Bytes {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let heavy = Arc::new(Heavy::new(job.turns.clone()));
        let (writer, mut parts) = parts(job.bytes, Arc::clone(&heavy));
        let job = job.clone();
        let format = S3Format::Parquet(compression);
        let writing = tokio::task::spawn_blocking(move || encode(&job, format, &heavy, writer));
        let mut whole = Vec::new();
        while let Some(part) = parts.recv().await {
            whole.extend_from_slice(&part);
        }
        writing.await.unwrap().unwrap();
        whole.into()
    })
}

fn rows(object: Bytes) -> Vec<Row> {
    let reader = SerializedFileReader::new(object).unwrap();
    reader.get_row_iter(None).unwrap().map(|row| row.unwrap()).collect()
}

fn column(row: &Row, name: &str) -> Field {
    row.get_column_iter().find(|(other, _)| *other == name).unwrap_or_else(|| panic!("no column {name}")).1.clone()
}

fn as_json(row: &Row) -> serde_json::Value {
    let value = |field: &Field| match field {
        Field::Str(text) => text.as_str().into(),
        Field::Long(number) => (*number).into(),
        Field::Null => serde_json::Value::Null,
        other => panic!("no column of ours holds {other:?}"),
    };
    serde_json::Value::Object(row.get_column_iter().map(|(name, field)| (name.clone(), value(field))).collect())
}

fn text(text: &str) -> Field {
    Field::Str(text.to_owned())
}

const BULK: &str = r#"[
    {"f":"checkout","i":[
        {"k":"user-1","t":"on","m":1700000000001,"c":1700000000002,"r":"default rule","b":"bucket","pt":1,
         "properties":"{\"plan\":\"pro\",\"na\u00efve\":\"\ud83d\ude00\"}"},
        {"k":"","t":"control","m":1700000000003}
    ]},
    {"f":"search \"new\"","i":[{"k":"a\nb","t":"off","m":1700000000004,"c":-1,"r":null}]}
]"#;

#[test]
fn columns_are_those_that_split_documents_in_its_order() {
    let reader = SerializedFileReader::new(object(&of(sample::job_of(BULK)), ParquetCompression::Zstd)).unwrap();
    let schema = reader.metadata().file_metadata().schema_descr();
    let columns: Vec<_> = schema.columns().iter().map(|column| (column.name(), column.physical_type())).collect();
    let string = Type::BYTE_ARRAY;
    let wanted = [
        ("key", string),
        ("label", string),
        ("treatment", string),
        ("splitName", string),
        ("splitVersion", Type::INT64),
        ("properties", string),
        ("environmentId", string),
        ("trafficTypeId", string),
        ("sdk", string),
        ("sdkVersion", string),
        ("machineName", string),
        ("machineIp", string),
        ("timestamp", Type::INT64),
        ("receptionTimestamp", Type::INT64),
    ];
    assert_eq!(columns, wanted);
    for column in schema.columns() {
        let nullable = column.self_type().get_basic_info().repetition() == Repetition::OPTIONAL;
        assert_eq!(nullable, ["machineName", "machineIp"].contains(&column.name()), "{}", column.name());
        if column.physical_type() == string {
            assert_eq!(column.logical_type_ref(), Some(&LogicalType::String), "{}", column.name());
        }
    }
}

#[test]
fn what_was_sent_stands_in_the_columns_unescaped() {
    let rows = rows(object(&of(sample::job_of(BULK)), ParquetCompression::Snappy));
    assert_eq!(rows.len(), 3);
    let wanted = [
        ("key", text("user-1")),
        ("label", text("default rule")),
        ("treatment", text("on")),
        ("splitName", text("checkout")),
        ("splitVersion", Field::Long(1_700_000_000_002)),
        ("properties", text("{\"plan\":\"pro\",\"naïve\":\"😀\"}")),
        ("environmentId", text("acme-prod")),
        ("trafficTypeId", text("")),
        ("sdk", text("rust")),
        ("sdkVersion", text("1.2.3")),
        ("machineName", text("host")),
        ("machineIp", text("10.0.0.1")),
        ("timestamp", Field::Long(1_700_000_000_001)),
        ("receptionTimestamp", Field::Long(1_700_000_000_000)),
    ];
    for (name, value) in wanted {
        assert_eq!(column(&rows[0], name), value, "{name}");
    }
    for (name, value) in [("key", ""), ("label", ""), ("properties", ""), ("treatment", "control")] {
        assert_eq!(column(&rows[1], name), text(value), "{name}");
    }
    assert_eq!(column(&rows[1], "splitVersion"), Field::Long(0));
    assert_eq!(column(&rows[2], "key"), text("a\nb"));
    assert_eq!(column(&rows[2], "splitName"), text("search \"new\""));
    assert_eq!(column(&rows[2], "splitVersion"), Field::Long(-1));
}

#[test]
fn a_machine_that_was_not_given_is_null() {
    let mut rows = Rows::new("acme-prod");
    let sender = Sender {
        sdk: JsonText::default(),
        sdk_version: JsonText::default(),
        machine_name: None,
        machine_ip: None,
        received_ms: 5,
    };
    for n in 0..3_000 {
        let name = JsonText::checked(b"host");
        let sender = Sender { machine_name: (n % 2 == 0).then_some(name), ..sender };
        rows.push(&Impression::default(), &sender);
    }
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let _entered = runtime.enter();
    let (writer, mut parts) = parts(0, Arc::new(Heavy::new(Turns::default())));
    let mut file =
        SerializedFileWriter::new(writer, Arc::clone(&PARSED), Arc::new(properties(ParquetCompression::None))).unwrap();
    rows.write(&mut file).unwrap();
    let writer = file.into_inner().unwrap();
    std::thread::spawn(move || writer.finish().unwrap());
    let found = self::rows(parts.blocking_recv().unwrap());
    for (n, row) in found.iter().enumerate() {
        let wanted = if n % 2 == 0 { text("host") } else { Field::Null };
        assert_eq!(column(row, "machineName"), wanted);
        assert_eq!(column(row, "machineIp"), Field::Null);
    }
    assert_eq!(found.len(), 3_000);
}

#[test]
fn rows_keep_their_order_over_groups_and_without_what_is_excepted() {
    let records = ROWS_MAX as u64 + 10_000;
    let batch = sample::job(0..10_000);
    // The same stored batches over and over: only their order matters.
    let mut job = sample::job(0..0);
    for _ in 0..records / 10_000 {
        job.parts.extend(batch.parts.iter().cloned());
    }
    let records = job.parts.iter().map(|part| part.take as u64).sum();
    job.origin.offsets = 0..records;
    let job = LargeJob { except: [0, 5, records - 1].into(), ..of(job) };
    let object = object(&job, ParquetCompression::Zstd);
    let reader = SerializedFileReader::new(object.clone()).unwrap();
    let groups: Vec<i64> = reader.metadata().row_groups().iter().map(|group| group.num_rows()).collect();
    assert!(groups.len() >= 2 && groups.iter().sum::<i64>() == records as i64 - 3, "{groups:?}");
    assert!(groups[0] >= ROWS_MAX as i64 && groups[0] < ROWS_MAX as i64 + 5_000, "{groups:?}");
    let keys: Vec<Field> = rows(object).iter().map(|row| column(row, "key")).collect();
    let wanted: Vec<Field> = (0..records)
        .filter(|offset| !job.except.contains(offset))
        .map(|offset| text(&format!("user-{}", offset % 10_000)))
        .collect();
    assert!(keys == wanted);
}

#[test]
fn the_same_records_give_the_same_bytes_and_name_their_packing() {
    for (compression, named) in [
        (ParquetCompression::Zstd, Compression::ZSTD(ZstdLevel::default())),
        (ParquetCompression::Snappy, Compression::SNAPPY),
        (ParquetCompression::None, Compression::UNCOMPRESSED),
    ] {
        let first = object(&large(3..999), compression);
        assert_eq!(first, object(&large(3..999), compression));
        let reader = SerializedFileReader::new(first).unwrap();
        let metadata = reader.metadata();
        let same = |found: Compression| std::mem::discriminant(&found) == std::mem::discriminant(&named);
        assert!(metadata.row_groups()[0].columns().iter().all(|column| same(column.compression())));
        let created = metadata.file_metadata().created_by().unwrap();
        assert!(created.starts_with("forebay "), "{created}");
    }
}

/// pyarrow, where `.ci/run parquet` has installed it.
#[test]
#[expect(clippy::disallowed_methods, reason = "another process reads the file")]
fn another_implementation_reads_the_same_rows() {
    let Some(python) = std::env::var_os("FOREBAY_PYARROW") else {
        eprintln!("NOT CHECKED: Parquet with an independent reader. Run .ci/run parquet.");
        return;
    };
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../.ci/read_parquet.py");
    let dir = tempfile::tempdir().unwrap();
    for (n, compression) in
        [ParquetCompression::Zstd, ParquetCompression::Snappy, ParquetCompression::None].into_iter().enumerate()
    {
        for (name, job) in [("odd", of(sample::job_of(BULK))), ("many", large(0..5_000))] {
            let object = object(&job, compression);
            let path = dir.path().join(format!("{name}-{n}.parquet"));
            std::fs::write(&path, &object).unwrap();
            let read = std::process::Command::new(&python).arg(script).arg(&path).output().unwrap();
            assert!(read.status.success(), "{}", String::from_utf8_lossy(&read.stderr));
            let text = String::from_utf8(read.stdout).unwrap();
            let mut lines = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
            let schema: Vec<_> = lines.next().unwrap().as_array().unwrap().clone();
            assert_eq!(schema.len(), 14);
            assert_eq!(schema[4], serde_json::json!(["splitVersion", "int64", false]));
            assert_eq!(schema[10], serde_json::json!(["machineName", "string", true]));
            let theirs: Vec<_> = lines.collect();
            let ours: Vec<_> = rows(object).iter().map(as_json).collect();
            assert_eq!(theirs, ours, "{name}, {compression:?}");
            assert_eq!(theirs.len() as u64, job.origin.records());
        }
    }
}
