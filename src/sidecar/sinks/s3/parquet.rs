//! Objects of columns: Split's documented schema for S3, in its order.
//!
//! What always holds: one group of rows is in memory, at most [`ROWS_MAX`] rows and about [`TEXT_BYTES_MAX`] of text,
//! whatever the object's size. Text is unescaped, as readers of columns expect it. What was not given stands as an
//! empty text or 0 where Split's schema knows no null, and as null in the two columns where it does.

mod column;

use std::sync::{Arc, LazyLock};

use parquet::basic::{Compression, ZstdLevel};
use parquet::data_type::Int64Type;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::parser::parse_message_type;
use parquet::schema::types::TypePtr;

use crate::config::ParquetCompression;
use crate::delivery::sink::LargeJob;
use crate::impression::{Impression, JsonText, Shared, StoredBatch, each_record, sdk_name_and_version};

use super::encode::{Stopped, each_run};
use super::parts::PartWriter;
use super::turn::Heavy;
use column::Texts;

/// Rows of one group. Readers like large groups, memory likes small ones.
const ROWS_MAX: usize = 128 << 10;

/// Text in one group's columns.
const TEXT_BYTES_MAX: usize = 16 << 20;

/// As Split documents it. It marks two columns as nullable; so the others are not.
const SCHEMA: &str = "message impressions {
    REQUIRED BYTE_ARRAY key (STRING);
    REQUIRED BYTE_ARRAY label (STRING);
    REQUIRED BYTE_ARRAY treatment (STRING);
    REQUIRED BYTE_ARRAY splitName (STRING);
    REQUIRED INT64 splitVersion;
    REQUIRED BYTE_ARRAY properties (STRING);
    REQUIRED BYTE_ARRAY environmentId (STRING);
    REQUIRED BYTE_ARRAY trafficTypeId (STRING);
    REQUIRED BYTE_ARRAY sdk (STRING);
    REQUIRED BYTE_ARRAY sdkVersion (STRING);
    OPTIONAL BYTE_ARRAY machineName (STRING);
    OPTIONAL BYTE_ARRAY machineIp (STRING);
    REQUIRED INT64 timestamp;
    REQUIRED INT64 receptionTimestamp;
}";

static PARSED: LazyLock<TypePtr> =
    LazyLock::new(|| Arc::new(parse_message_type(SCHEMA).expect("the schema is a schema")));

/// Writes the job's columns.
pub(super) fn write(
    job: &LargeJob,
    compression: ParquetCompression,
    heavy: &Heavy,
    to: PartWriter,
) -> Result<(), Stopped> {
    let mut file = SerializedFileWriter::new(to, Arc::clone(&PARSED), Arc::new(properties(compression)))?;
    let mut rows = Rows::new(&job.environment.id);
    each_run(job, heavy, |run| {
        let batch = StoredBatch::decode(run.payload).map_err(crate::impression::EncodeError::from)?;
        let sender = Sender::of(batch.shared());
        each_record(&batch, run.skip, run.take, |_, record| rows.push(record, &sender))?;
        if rows.full() { rows.write(&mut file) } else { Ok(()) }
    })?;
    rows.write(&mut file)?;
    Ok(file.into_inner()?.finish()?)
}

fn properties(compression: ParquetCompression) -> WriterProperties {
    let compression = match compression {
        ParquetCompression::Zstd => Compression::ZSTD(ZstdLevel::default()),
        ParquetCompression::Snappy => Compression::SNAPPY,
        ParquetCompression::None => Compression::UNCOMPRESSED,
    };
    WriterProperties::builder()
        .set_compression(compression)
        .set_dictionary_enabled(true)
        // A group's own minimum and maximum are what readers skip by; those of single pages cost more than they save.
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_created_by(concat!("forebay ", env!("CARGO_PKG_VERSION")).to_owned())
        .build()
}

/// What all rows of a stored batch share.
#[derive(Clone, Copy)]
struct Sender<'a> {
    sdk: JsonText<'a>,
    sdk_version: JsonText<'a>,
    machine_name: Option<JsonText<'a>>,
    machine_ip: Option<JsonText<'a>>,
    received_ms: i64,
}

impl<'a> Sender<'a> {
    fn of(shared: &Shared<'a>) -> Self {
        let (sdk, sdk_version) = sdk_name_and_version(shared.sdk);
        let given = |text: JsonText<'a>| Some(text).filter(|text| !text.is_empty());
        Self {
            sdk,
            sdk_version,
            machine_name: given(shared.machine_name),
            machine_ip: given(shared.machine_ip),
            received_ms: i64::try_from(shared.received_ms).unwrap_or(i64::MAX),
        }
    }
}

/// Rows that wait to be written as a group, column by column.
#[derive(Default)]
struct Rows {
    environment: String,
    count: usize,
    key: Texts,
    label: Texts,
    treatment: Texts,
    split_name: Texts,
    split_version: Vec<i64>,
    properties: Texts,
    environment_id: Texts,
    traffic_type_id: Texts,
    sdk: Texts,
    sdk_version: Texts,
    machine_name: Texts,
    machine_ip: Texts,
    timestamp: Vec<i64>,
    reception_timestamp: Vec<i64>,
}

impl Rows {
    fn new(environment: &str) -> Self {
        Self { environment: environment.to_owned(), ..Self::default() }
    }

    fn push(&mut self, record: &Impression<'_>, sender: &Sender<'_>) {
        self.count += 1;
        self.key.push(record.key);
        self.label.push(record.label.unwrap_or_default());
        self.treatment.push(record.treatment.unwrap_or_default());
        self.split_name.push(record.flag);
        self.split_version.push(record.change_number.unwrap_or(0));
        self.properties.push(record.properties.unwrap_or_default());
        self.environment_id.push(JsonText::checked(self.environment.as_bytes()));
        self.traffic_type_id.push(JsonText::default());
        self.sdk.push(sender.sdk);
        self.sdk_version.push(sender.sdk_version);
        self.machine_name.push_or_null(sender.machine_name);
        self.machine_ip.push_or_null(sender.machine_ip);
        self.timestamp.push(record.time_ms.unwrap_or(0));
        self.reception_timestamp.push(sender.received_ms);
    }

    /// A frame holds a few thousand rows, so a group is little larger than its limits.
    fn full(&self) -> bool {
        let texts = [
            &self.key,
            &self.label,
            &self.treatment,
            &self.split_name,
            &self.properties,
            &self.sdk,
            &self.sdk_version,
            &self.machine_name,
            &self.machine_ip,
        ];
        self.count >= ROWS_MAX || texts.into_iter().map(Texts::bytes).sum::<usize>() >= TEXT_BYTES_MAX
    }

    /// Writes what waits as one group, if there is any.
    fn write(&mut self, file: &mut SerializedFileWriter<PartWriter>) -> Result<(), Stopped> {
        if self.count == 0 {
            return Ok(());
        }
        let mut group = file.next_row_group()?;
        self.key.write(&mut group)?;
        self.label.write(&mut group)?;
        self.treatment.write(&mut group)?;
        self.split_name.write(&mut group)?;
        write_numbers(&mut self.split_version, &mut group)?;
        self.properties.write(&mut group)?;
        self.environment_id.write(&mut group)?;
        self.traffic_type_id.write(&mut group)?;
        self.sdk.write(&mut group)?;
        self.sdk_version.write(&mut group)?;
        self.machine_name.write_nullable(&mut group)?;
        self.machine_ip.write_nullable(&mut group)?;
        write_numbers(&mut self.timestamp, &mut group)?;
        write_numbers(&mut self.reception_timestamp, &mut group)?;
        group.close()?;
        self.count = 0;
        Ok(())
    }
}

/// Writes a column of numbers, and empties it.
fn write_numbers(numbers: &mut Vec<i64>, group: &mut SerializedRowGroupWriter<'_, PartWriter>) -> Result<(), Stopped> {
    let mut column = group.next_column()?.expect("the schema has this column");
    column.typed::<Int64Type>().write_batch(numbers, None, None)?;
    column.close()?;
    numbers.clear();
    Ok(())
}

#[cfg(test)]
mod tests;
