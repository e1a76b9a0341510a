//! Columns read back with the crate's own reader. Another implementation reads them in `.ci/run parquet`.

use bytes::Bytes;
use parquet::basic::{Compression, Encoding, LogicalType, PageType, Repetition, Type, ZstdLevel};
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::{Field, Row};

use super::*;
use crate::config::S3Format;
use crate::delivery::budget::Turns;
use crate::sinks::s3::encode::encode;
use crate::sinks::s3::parts::{PART_BYTES, parts};
use crate::sinks::s3::sample::{digits, large, many, of};
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
            whole.extend_from_slice(&part.bytes);
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

/// The object of these records, each with its sender.
fn columns<'a>(
    compression: ParquetCompression,
    records: impl IntoIterator<Item = (Impression<'a>, Sender<'a>)>,
) -> Bytes {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let _entered = runtime.enter();
    let (writer, mut parts) = parts(0, Arc::new(Heavy::new(Turns::default())));
    let mut file = File::new(compression, writer).unwrap();
    let mut rows = Rows::new("acme-prod", u64::MAX);
    for (record, sender) in records {
        rows.push(&record);
        rows.sent_by(&sender);
        if rows.full() {
            file.write(&mut rows).unwrap();
        }
    }
    file.write(&mut rows).unwrap();
    file.file.into_inner().unwrap().finish().unwrap();
    let part = parts.blocking_recv().unwrap().bytes;
    assert!(parts.blocking_recv().is_none(), "one part");
    part
}

fn nobody() -> Sender<'static> {
    let none = JsonText::default();
    Sender { sdk: none, sdk_version: none, machine_name: None, machine_ip: None, received_ms: 5 }
}

#[test]
fn a_machine_that_was_not_given_is_null() {
    let name = JsonText::checked(b"host");
    let records = (0..3_000).map(|n| {
        let sender = Sender { machine_name: (n % 2 == 0).then_some(name), ..nobody() };
        (Impression::default(), sender)
    });
    let object = columns(ParquetCompression::None, records);
    let reader = SerializedFileReader::new(object.clone()).unwrap();
    let nulls = |column: usize| {
        reader.metadata().row_group(0).column(column).statistics().and_then(|statistics| statistics.null_count_opt())
    };
    assert_eq!((nulls(10), nulls(11), nulls(0)), (Some(1_500), Some(3_000), Some(0)));
    let found = rows(object);
    for (n, row) in found.iter().enumerate() {
        let wanted = if n % 2 == 0 { text("host") } else { Field::Null };
        assert_eq!(column(row, "machineName"), wanted);
        assert_eq!(column(row, "machineIp"), Field::Null);
    }
    assert_eq!(found.len(), 3_000);
}

#[test]
fn a_column_is_a_dictionary_where_that_is_shorter_and_else_pages_of_values() {
    let keys: Vec<String> = (0..100_000).map(|n| format!("user-{n:040}")).collect();
    let records = keys.iter().map(|key| {
        let record = Impression {
            key: JsonText::checked(key.as_bytes()),
            treatment: Some(JsonText::checked(if key.ends_with('7') { b"on" } else { b"off" })),
            time_ms: Some(key.len() as i64),
            ..Impression::default()
        };
        (record, nobody())
    });
    let object = columns(ParquetCompression::Zstd, records);
    let reader = SerializedFileReader::new(object.clone()).unwrap();
    let group = reader.get_row_group(0).unwrap();
    let pages = |column: usize| {
        let pages = group.get_column_page_reader(column).unwrap();
        pages
            .map(|page| page.map(|page| (page.page_type(), page.encoding(), page.buffer().len())).unwrap())
            .collect::<Vec<_>>()
    };
    let dictionary = [(PageType::DICTIONARY_PAGE, Encoding::PLAIN), (PageType::DATA_PAGE, Encoding::RLE_DICTIONARY)];
    let without_length =
        |pages: &[(PageType, Encoding, usize)]| pages.iter().map(|page| (page.0, page.1)).collect::<Vec<_>>();
    assert_eq!(without_length(&pages(2)), dictionary, "treatment");
    assert_eq!(without_length(&pages(12)), dictionary, "timestamp");
    let keys_pages = pages(0);
    assert!(keys_pages.len() >= 4, "{keys_pages:?}");
    for (page_type, encoding, bytes) in keys_pages {
        assert_eq!((page_type, encoding), (PageType::DATA_PAGE, Encoding::PLAIN));
        assert!(bytes <= PAGE_BYTES, "{bytes}");
    }
    assert!(group.metadata().column(0).dictionary_page_offset().is_none());
    let found: Vec<Field> = rows(object).iter().map(|row| column(row, "key")).collect();
    assert!(found == keys.iter().map(|key| text(key)).collect::<Vec<_>>());
}

#[test]
fn the_least_and_the_greatest_value_are_told_unless_they_are_long() {
    let long = "x".repeat(65);
    let records = [("m", Some("b"), 7), ("a", Some(&*long), -3), ("z\\u00e9", None, 5)].map(|(key, label, time)| {
        let record = Impression {
            key: JsonText::checked(key.as_bytes()),
            label: label.map(|label| JsonText::checked(label.as_bytes())),
            time_ms: Some(time),
            ..Impression::default()
        };
        (record, nobody())
    });
    let reader = SerializedFileReader::new(columns(ParquetCompression::Snappy, records)).unwrap();
    let extremes = |column: usize| {
        let statistics = reader.metadata().row_group(0).column(column).statistics().unwrap();
        let owned = |bytes: Option<&[u8]>| bytes.map(<[u8]>::to_vec);
        (owned(statistics.min_bytes_opt()), owned(statistics.max_bytes_opt()))
    };
    assert_eq!(extremes(0), (Some(b"a".to_vec()), Some("zé".as_bytes().to_vec())));
    assert_eq!(extremes(1), (None, None));
    let time = |ms: i64| Some(ms.to_le_bytes().to_vec());
    assert_eq!(extremes(12), (time(-3), time(7)));
    assert_eq!(extremes(10), (None, None), "nothing but nulls");
}

/// Records, each with its sender.
type Records<'a> = Box<dyn Iterator<Item = (Impression<'a>, Sender<'a>)> + 'a>;

/// Groups full of text, groups full of small values that all differ, and groups full of senders.
#[test]
fn writing_takes_no_more_memory_than_is_charged_for_it_besides_parts() {
    let texts: Vec<String> = (0..4_500).map(digits).collect();
    let numbers: Vec<String> = (0..120_000).map(|n| n.to_string()).collect();
    let texts = texts.iter().map(|text| {
        let properties = Some(JsonText::checked(text.as_bytes()));
        (Impression { properties, ..Impression::default() }, nobody())
    });
    let small = numbers.iter().enumerate().map(|(n, text)| {
        let value = JsonText::checked(text.as_bytes());
        let (some, n) = (Some(value), Some(n as i64));
        let record = Impression {
            flag: value,
            key: value,
            treatment: some,
            label: some,
            properties: some,
            change_number: n,
            time_ms: n,
            ..Impression::default()
        };
        (record, nobody())
    });
    let senders = numbers.iter().map(|text| {
        let value = JsonText::checked(text.as_bytes());
        let sender =
            Sender { sdk: value, sdk_version: value, machine_name: Some(value), machine_ip: Some(value), ..nobody() };
        (Impression::default(), sender)
    });
    let cases: [(&str, Records<'_>); 3] =
        [("texts", Box::new(texts)), ("small values", Box::new(small)), ("senders", Box::new(senders))];
    for (name, records) in cases {
        let mut object = Bytes::new();
        let counted = allocation_counter::measure(|| object = columns(ParquetCompression::Snappy, records));
        let groups = SerializedFileReader::new(object).unwrap().metadata().num_row_groups();
        assert!(groups >= 2, "{name}: {groups} groups");
        // The parts of the object, of which this thread frees none, are charged apart.
        let most = counted.bytes_max.saturating_sub(PART_BYTES as u64);
        assert!(most <= MEMORY_BYTES && most > MEMORY_BYTES / 4, "{name}: {most} bytes");
    }
}

/// Before: a flag's name is stored once a batch and may have 4,096 bytes; anybody with an SDK key could post small records
/// of more long names than a dictionary holds, and each row's was written, hundreds of megabytes at a time.
#[test]
fn long_names_of_many_flags_end_a_group_before_they_are_written_with_every_row() {
    let flags: Vec<String> = (0..300).map(|n| format!("{n:04}{}", "x".repeat(4_000))).collect();
    let records = flags.iter().flat_map(|flag| {
        let record = Impression { flag: JsonText::checked(flag.as_bytes()), ..Impression::default() };
        std::iter::repeat_n((record, nobody()), 60)
    });
    let mut object = Bytes::new();
    let counted = allocation_counter::measure(|| object = columns(ParquetCompression::Snappy, records));
    let most = counted.bytes_max.saturating_sub(PART_BYTES as u64);
    assert!(most <= MEMORY_BYTES, "{most} bytes");
    let reader = SerializedFileReader::new(object.clone()).unwrap();
    let column = |group: usize| reader.metadata().row_group(group).column(3).clone();
    assert!((0..2).all(|group| column(group).dictionary_page_offset().is_some()), "each name once");
    let found: Vec<Field> = rows(object).iter().map(|row| self::column(row, "splitName")).collect();
    let wanted: Vec<Field> = flags.iter().flat_map(|flag| std::iter::repeat_n(text(flag), 60)).collect();
    assert!(found == wanted);
}

#[test]
fn rows_keep_their_order_over_groups_and_without_what_is_excepted() {
    let records = u64::from(ROWS_MAX) + 10_000;
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
    let most = i64::from(ROWS_MAX);
    assert!(groups[0] >= most && groups[0] < most + 5_000, "{groups:?}");
    let keys: Vec<Field> = rows(object).iter().map(|row| column(row, "key")).collect();
    let wanted: Vec<Field> = (0..records)
        .filter(|offset| !job.except.contains(*offset))
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
        return storage_tests::aloud::not_checked("Parquet with an independent reader. Run .ci/run parquet.");
    };
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../.ci/read_parquet.py");
    let dir = tempfile::tempdir().unwrap();
    for (n, compression) in
        [ParquetCompression::Zstd, ParquetCompression::Snappy, ParquetCompression::None].into_iter().enumerate()
    {
        let host = |n: usize| {
            (!n.is_multiple_of(3)).then_some(JsonText::checked(if n.is_multiple_of(2) { b"even" } else { b"odd" }))
        };
        let nulls = (0..3_000).map(|n| (Impression::default(), Sender { machine_name: host(n), ..nobody() }));
        let objects = [
            ("odd", object(&of(sample::job_of(BULK)), compression), 3),
            ("many", object(&large(0..5_000), compression), 5_000),
            ("in groups and pages", object(&many(4_000), compression), 4_000),
            ("nulls", columns(compression, nulls), 3_000),
        ];
        for (name, object, records) in objects {
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
            assert!(theirs == ours, "{name}, {compression:?}");
            assert_eq!(theirs.len(), records);
        }
    }
}
