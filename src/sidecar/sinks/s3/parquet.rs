//! Objects of columns: Split's documented schema for S3, in its order.
//!
//! What always holds: one group of rows is in memory, of about [`GROUP_BYTES`] whatever the object's size, and where a
//! group ends follows from the records alone. Text is unescaped, as readers of columns expect it. What was not given
//! stands as an empty text or 0 where Split's schema knows no null, and as null in the two columns where it does.

mod chunk;
mod hybrid;
mod values;

use std::sync::{Arc, LazyLock};

use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use parquet::schema::types::TypePtr;

use crate::config::ParquetCompression;
use crate::delivery::heavy::Heavy;
use crate::delivery::sink::LargeJob;
use crate::impression::{Impression, JsonText, Shared, StoredBatch, each_record, sdk_name_and_version};

use super::encode::{Stopped, each_run};
use super::parts::PartWriter;
use chunk::{Group, Numbers, PAGE_BYTES, Packer, Texts, codec};
use values::{Distinct, Number, Runs, Span, Text, Values};

/// Rows of one group. Readers like large groups, memory likes small ones.
const ROWS_MAX: u32 = 128 << 10;

/// Memory of the rows that wait, from which on they are written as a group.
const GROUP_BYTES: usize = 5 << 20;

/// Stored records that come at once: what a group may be larger than its limit.
const FRAME_BYTES: usize = 256 << 10;

/// What stands before each text in a page.
const LENGTH_BYTES: usize = 4;

/// The most memory that writing takes besides parts: the rows that wait, whose lists may have room for as much again; a
/// column as it is packed; a page or a dictionary of it, packed and unpacked; a frame; and the packer's own window. No
/// group can be full of texts and of lists at once.
pub(super) const MEMORY_BYTES: u64 = 16 << 20;

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
    let mut file = File::new(compression, to)?;
    let mut rows = Rows::new(&job.environment.id, job.bytes);
    each_run(job, heavy, |run| {
        let batch = StoredBatch::decode(run.payload).map_err(crate::impression::EncodeError::from)?;
        each_record(&batch, run.skip, run.take, |_, record| rows.push(record))?;
        rows.sent_by(&Sender::of(batch.shared()));
        if rows.full() { file.write(&mut rows) } else { Ok(()) }
    })?;
    file.write(&mut rows)?;
    Ok(file.file.into_inner()?.finish()?)
}

/// The file that is written, group by group.
struct File {
    file: SerializedFileWriter<PartWriter>,
    packer: Packer,
    compression: ParquetCompression,
}

impl File {
    fn new(compression: ParquetCompression, to: PartWriter) -> Result<Self, Stopped> {
        let properties = WriterProperties::builder()
            .set_created_by(concat!("forebay ", env!("CARGO_PKG_VERSION")).to_owned())
            .build();
        let file = SerializedFileWriter::new(to, Arc::clone(&PARSED), Arc::new(properties))?;
        Ok(Self { file, packer: Packer::new(compression)?, compression })
    }

    /// Writes the rows that wait as one group, if there are any, and empties them.
    fn write(&mut self, rows: &mut Rows) -> Result<(), Stopped> {
        if rows.count == 0 {
            return Ok(());
        }
        let mut group = Group {
            group: self.file.next_row_group()?,
            packer: &mut self.packer,
            codec: codec(self.compression),
            rows: rows.count,
            column: 0,
        };
        rows.write(&mut group)?;
        group.group.close()?;
        rows.clear();
        Ok(())
    }
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
    count: u32,
    /// How many of them have a sender.
    sent: u32,
    /// The text of all columns.
    text: Vec<u8>,
    key: Texted,
    label: Texted,
    treatment: Texted,
    split_name: Texted,
    split_version: Values<i64>,
    properties: Texted,
    environment_id: Texted,
    traffic_type_id: Texted,
    sdk: Texted,
    sdk_version: Texted,
    machine_name: Nullable,
    machine_ip: Nullable,
    timestamp: Values<i64>,
    reception_timestamp: Values<i64>,
}

/// A column of texts.
#[derive(Default)]
struct Texted {
    values: Values<Span>,
    /// Bytes of the texts, each once.
    text: usize,
    /// Bytes that it takes to write the text of every row.
    every: usize,
}

/// A column of texts that knows nulls.
#[derive(Default)]
struct Nullable {
    /// 1 for rows that have a value, else 0.
    there: Runs,
    values: Distinct<Span>,
    /// Bytes of the texts, each once.
    text: usize,
}

impl Rows {
    /// None yet. `bytes_hint`: about how much text will come, unless it is more than a group's.
    fn new(environment: &str, bytes_hint: u64) -> Self {
        let room = usize::try_from(bytes_hint).unwrap_or(usize::MAX).min(GROUP_BYTES + FRAME_BYTES);
        Self { environment: environment.to_owned(), text: Vec::with_capacity(room), ..Self::default() }
    }

    #[inline]
    fn push(&mut self, record: &Impression<'_>) {
        self.count += 1;
        let text = &mut self.text;
        push(&mut self.key, record.key, 1, text);
        push(&mut self.label, record.label.unwrap_or_default(), 1, text);
        push(&mut self.treatment, record.treatment.unwrap_or_default(), 1, text);
        push(&mut self.split_name, record.flag, 1, text);
        self.split_version.push(Number(record.change_number.unwrap_or(0)), 1);
        push(&mut self.properties, record.properties.unwrap_or_default(), 1, text);
        self.timestamp.push(Number(record.time_ms.unwrap_or(0)), 1);
    }

    /// Who sent the rows that came since the last call.
    fn sent_by(&mut self, sender: &Sender<'_>) {
        let rows = self.count - self.sent;
        if rows == 0 {
            return;
        }
        self.sent = self.count;
        let text = &mut self.text;
        push(&mut self.environment_id, JsonText::checked(self.environment.as_bytes()), rows, text);
        push(&mut self.traffic_type_id, JsonText::default(), rows, text);
        push(&mut self.sdk, sender.sdk, rows, text);
        push(&mut self.sdk_version, sender.sdk_version, rows, text);
        self.machine_name.push(sender.machine_name, rows, text);
        self.machine_ip.push(sender.machine_ip, rows, text);
        self.reception_timestamp.push(Number(sender.received_ms), rows);
    }

    /// Asked frame by frame, so a group is little larger than its limits.
    fn full(&self) -> bool {
        self.count >= ROWS_MAX
            || self.bytes() >= GROUP_BYTES
            || self.texts().into_iter().any(Texted::swells)
            || self.machine_name.text >= PAGE_BYTES
            || self.machine_ip.text >= PAGE_BYTES
    }

    fn texts(&self) -> [&Texted; 9] {
        [
            &self.key,
            &self.label,
            &self.treatment,
            &self.split_name,
            &self.properties,
            &self.environment_id,
            &self.traffic_type_id,
            &self.sdk,
            &self.sdk_version,
        ]
    }

    /// Memory that the rows take.
    fn bytes(&self) -> usize {
        let numbers = [&self.split_version, &self.timestamp, &self.reception_timestamp];
        self.text.len()
            + self.texts().into_iter().map(|column| column.values.bytes()).sum::<usize>()
            + numbers.into_iter().map(Values::bytes).sum::<usize>()
            + self.machine_name.bytes()
            + self.machine_ip.bytes()
    }

    /// Writes the columns in the schema's order.
    fn write(&self, group: &mut Group<'_, '_>) -> Result<(), Stopped> {
        assert_eq!(self.sent, self.count, "each row has a sender");
        let texts = &Texts(&self.text);
        group.write(texts, &self.key.values)?;
        group.write(texts, &self.label.values)?;
        group.write(texts, &self.treatment.values)?;
        group.write(texts, &self.split_name.values)?;
        group.write(&Numbers, &self.split_version)?;
        group.write(texts, &self.properties.values)?;
        group.write(texts, &self.environment_id.values)?;
        group.write(texts, &self.traffic_type_id.values)?;
        group.write(texts, &self.sdk.values)?;
        group.write(texts, &self.sdk_version.values)?;
        group.write_nullable(texts, &self.machine_name.values, &self.machine_name.there)?;
        group.write_nullable(texts, &self.machine_ip.values, &self.machine_ip.there)?;
        group.write(&Numbers, &self.timestamp)?;
        group.write(&Numbers, &self.reception_timestamp)
    }

    fn clear(&mut self) {
        let (environment, mut text) = (std::mem::take(&mut self.environment), std::mem::take(&mut self.text));
        text.clear();
        *self = Self { environment, text, ..Self::default() };
    }
}

impl Texted {
    /// Whether with another frame it might be too many texts for a dictionary, and then every row's is written, though
    /// they are far more than what waits. What a stored batch says once, a flag's name, may be as long as names get.
    fn swells(&self) -> bool {
        self.text + FRAME_BYTES >= PAGE_BYTES && self.every >= GROUP_BYTES
    }
}

impl Nullable {
    fn push(&mut self, value: Option<JsonText<'_>>, rows: u32, text: &mut Vec<u8>) {
        self.there.push(u32::from(value.is_some()), rows);
        if let Some(value) = value {
            let before = text.len();
            plainly(value, text, |new| self.values.push(new, rows));
            self.text += text.len() - before;
        }
    }

    fn bytes(&self) -> usize {
        self.there.bytes() + self.values.bytes()
    }
}

#[inline]
fn push(column: &mut Texted, value: JsonText<'_>, rows: u32, text: &mut Vec<u8>) {
    let before = text.len();
    let mut bytes = 0;
    plainly(value, text, |new| {
        bytes = new.new.len() + LENGTH_BYTES;
        column.values.push(new, rows);
    });
    if text.len() > before {
        column.text += bytes;
    }
    column.every += bytes * rows as usize;
}

/// Hands the text over without its escapes. Nearly all texts have none, and nothing of them is copied.
#[inline]
fn plainly(value: JsonText<'_>, group: &mut Vec<u8>, push: impl FnOnce(Text<'_>)) {
    if memchr::memchr(b'\\', value.as_bytes()).is_none() {
        push(Text { new: value.as_bytes(), group });
    } else {
        push(Text { new: value.unescape().as_bytes(), group });
    }
}

#[cfg(test)]
mod tests;
