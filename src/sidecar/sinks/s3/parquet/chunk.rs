//! The columns of a group as Parquet's pages: a dictionary and where its values stand, or each value, whichever is
//! shorter; packed; with their least and greatest value.
//!
//! What always holds: the same values give the same bytes. One column's pages are in memory at a time.

use std::cmp::Ordering;
use std::io;
use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use parquet::basic::{Compression, Encoding, PageType, ZstdLevel};
use parquet::column::page::{CompressedPage, Page, PageWriter};
use parquet::column::writer::ColumnCloseResult;
use parquet::data_type::ByteArray;
use parquet::file::metadata::{ColumnChunkMetaData, PageEncodingStats};
use parquet::file::statistics::{Statistics, ValueStatistics};
use parquet::file::writer::{SerializedPageWriter, SerializedRowGroupWriter, TrackedWrite};
use parquet::schema::types::SchemaDescriptor;

use crate::config::ParquetCompression;

use super::super::encode::Stopped;
use super::super::parts::PartWriter;
use super::values::{Distinct, Run, Runs, Span, Values};
use super::{GROUP_BYTES, LENGTH_BYTES, PARSED, hybrid};

/// Bytes of one page before it is packed, and of a dictionary; what readers expect.
pub(super) const PAGE_BYTES: usize = 1 << 20;

/// Longer texts are no least and greatest value that a reader would skip by.
const EXTREME_BYTES_MAX: usize = 64;

/// The lowest level: columns are alike enough for it.
const ZSTD_LEVEL: i32 = 1;

static COLUMNS: LazyLock<SchemaDescriptor> = LazyLock::new(|| SchemaDescriptor::new(Arc::clone(&PARSED)));

/// What the values of a column are.
pub(super) trait Kind {
    /// A value as it waits.
    type Kept: Copy;

    /// Bytes of a value as it is written.
    fn bytes(&self, value: Self::Kept) -> usize;

    /// Bytes of the text in it; `None` for what is no text.
    fn text_bytes(&self, value: Self::Kept) -> Option<usize>;

    /// Appends a value.
    fn write(&self, value: Self::Kept, out: &mut Vec<u8>);

    /// Which of two comes first.
    fn compare(&self, one: Self::Kept, other: Self::Kept) -> Ordering;

    /// What is told of a column: the least and the greatest value, if there are any, and how many rows have none.
    fn statistics(&self, extremes: Option<(Self::Kept, Self::Kept)>, nulls: u64) -> Statistics;
}

/// Texts, and where they lie.
pub(super) struct Texts<'a>(pub(super) &'a [u8]);

impl Kind for Texts<'_> {
    type Kept = Span;

    fn bytes(&self, value: Span) -> usize {
        LENGTH_BYTES + value.len()
    }

    fn text_bytes(&self, value: Span) -> Option<usize> {
        Some(value.len())
    }

    #[inline]
    fn write(&self, value: Span, out: &mut Vec<u8>) {
        let length = u32::try_from(value.len()).expect("a text is shorter than its group's text");
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(value.of(self.0));
    }

    #[inline]
    fn compare(&self, one: Span, other: Span) -> Ordering {
        one.of(self.0).cmp(other.of(self.0))
    }

    fn statistics(&self, extremes: Option<(Span, Span)>, nulls: u64) -> Statistics {
        let short = extremes.filter(|(least, greatest)| least.len().max(greatest.len()) <= EXTREME_BYTES_MAX);
        let array = |value: Span| ByteArray::from(value.of(self.0).to_vec());
        let (least, greatest) = (short.map(|(least, _)| array(least)), short.map(|(_, greatest)| array(greatest)));
        Statistics::ByteArray(ValueStatistics::new(least, greatest, None, Some(nulls), false))
    }
}

/// Numbers of 64 bits.
pub(super) struct Numbers;

impl Kind for Numbers {
    type Kept = i64;

    fn bytes(&self, _: i64) -> usize {
        8
    }

    fn text_bytes(&self, _: i64) -> Option<usize> {
        None
    }

    #[inline]
    fn write(&self, value: i64, out: &mut Vec<u8>) {
        out.extend_from_slice(&value.to_le_bytes());
    }

    #[inline]
    fn compare(&self, one: i64, other: i64) -> Ordering {
        one.cmp(&other)
    }

    fn statistics(&self, extremes: Option<(i64, i64)>, nulls: u64) -> Statistics {
        let (least, greatest) = extremes.unzip();
        let statistics = ValueStatistics::new(least, greatest, None, Some(nulls), false);
        // Signed numbers are sorted alike by the fields that older readers know.
        Statistics::Int64(statistics.with_backwards_compatible_min_max(true))
    }
}

/// How the columns of the schema are packed.
pub(super) fn codec(compression: ParquetCompression) -> Compression {
    match compression {
        ParquetCompression::Zstd => {
            Compression::ZSTD(ZstdLevel::try_new(ZSTD_LEVEL).expect("it is among zstd's levels"))
        }
        ParquetCompression::Snappy => Compression::SNAPPY,
        ParquetCompression::None => Compression::UNCOMPRESSED,
    }
}

/// Packs pages, one after the other.
pub(super) enum Packer {
    Zstd(zstd::bulk::Compressor<'static>),
    /// In a box: its table is large.
    Snappy(Box<snap::raw::Encoder>),
    None,
}

impl Packer {
    pub(super) fn new(compression: ParquetCompression) -> io::Result<Self> {
        Ok(match compression {
            ParquetCompression::Zstd => Self::Zstd(zstd::bulk::Compressor::new(ZSTD_LEVEL)?),
            ParquetCompression::Snappy => Self::Snappy(Box::new(snap::raw::Encoder::new())),
            ParquetCompression::None => Self::None,
        })
    }

    fn pack(&mut self, page: Vec<u8>) -> io::Result<Bytes> {
        let packed = match self {
            Self::Zstd(zstd) => zstd.compress(&page)?,
            Self::Snappy(snappy) => snappy.compress_vec(&page).map_err(io::Error::other)?,
            Self::None => page,
        };
        Ok(packed.into())
    }
}

/// A group whose columns are written one after the other.
pub(super) struct Group<'a, 'b> {
    pub(super) group: SerializedRowGroupWriter<'a, PartWriter>,
    pub(super) packer: &'b mut Packer,
    pub(super) codec: Compression,
    pub(super) rows: u32,
    /// The column that is next.
    pub(super) column: usize,
}

impl Group<'_, '_> {
    /// Writes the next column, in which every row has a value.
    pub(super) fn write<K: Kind>(&mut self, kind: &K, values: &Values<K::Kept>) -> Result<(), Stopped> {
        let (distinct, every) = match values {
            Values::Distinct(distinct) => (&distinct.values, Size::of_runs(kind, distinct)),
            Values::Every(every) => (every, Size::of(kind, every)),
        };
        let mut chunk = TrackedWrite::new(Vec::with_capacity(every.bytes.min(GROUP_BYTES) + PAGE_BYTES / 8));
        let mut pages = Pages::new(&mut chunk, self.packer);
        match values {
            Values::Distinct(distinct) if is_shorter_as_dictionary(kind, distinct, every.bytes) => {
                pages.dictionary(kind, distinct, Vec::new(), self.rows)?;
            }
            Values::Distinct(distinct) => {
                let value = |run: &Run| std::iter::repeat_n(distinct.values[run.value as usize], run.rows as usize);
                pages.each(kind, distinct.runs.as_slice().iter().flat_map(value))?;
            }
            Values::Every(every) => pages.each(kind, every.iter().copied())?,
        }
        let written = pages.written;
        let statistics = kind.statistics(extremes(kind, distinct), 0);
        self.append(chunk.into_inner()?, &written, statistics, every.text_bytes)
    }

    /// Writes the next column, in which the rows that `there` says 1 of have a value. It always has a dictionary.
    pub(super) fn write_nullable<K: Kind>(
        &mut self,
        kind: &K,
        values: &Distinct<K::Kept>,
        there: &Runs,
    ) -> Result<(), Stopped> {
        let mut chunk = TrackedWrite::new(Vec::new());
        let mut pages = Pages::new(&mut chunk, self.packer);
        // How long the levels are, then the levels.
        let mut page = vec![0; 4];
        hybrid::write(there.as_slice(), 1, &mut page);
        let levels = u32::try_from(page.len() - 4).expect("levels take a bit a row at most");
        page[..4].copy_from_slice(&levels.to_le_bytes());
        if values.values.is_empty() {
            pages.page(page, self.rows, Encoding::PLAIN)?;
        } else {
            pages.dictionary(kind, values, page, self.rows)?;
        }
        let written = pages.written;
        let nulls = there.as_slice().iter().filter(|run| run.value == 0).map(|run| u64::from(run.rows)).sum();
        let statistics = kind.statistics(extremes(kind, &values.values), nulls);
        self.append(chunk.into_inner()?, &written, statistics, Size::of_runs(kind, values).text_bytes)
    }

    fn append(
        &mut self,
        chunk: Vec<u8>,
        written: &Written,
        statistics: Statistics,
        text_bytes: Option<usize>,
    ) -> Result<(), Stopped> {
        let encodings = written.pages.iter().map(|page| page.encoding).chain([Encoding::RLE]).collect();
        let metadata = ColumnChunkMetaData::builder(COLUMNS.column(self.column))
            .set_compression(self.codec)
            .set_encodings(encodings)
            .set_page_encoding_stats(written.pages.clone())
            .set_total_compressed_size(written.packed)
            .set_total_uncompressed_size(written.unpacked)
            .set_num_values(i64::from(self.rows))
            .set_dictionary_page_offset(written.data_from.map(|_| 0))
            .set_data_page_offset(written.data_from.unwrap_or(0))
            .set_statistics(statistics)
            .set_unencoded_byte_array_data_bytes(text_bytes.map(|bytes| bytes as i64))
            .build()?;
        let close = ColumnCloseResult {
            bytes_written: chunk.len() as u64,
            rows_written: u64::from(self.rows),
            metadata,
            bloom_filter: None,
            column_index: None,
            offset_index: None,
        };
        self.group.append_column(&Bytes::from(chunk), close)?;
        self.column += 1;
        Ok(())
    }
}

/// Bytes of all rows' values.
struct Size {
    bytes: usize,
    text_bytes: Option<usize>,
}

impl Size {
    fn of<K: Kind>(kind: &K, values: &[K::Kept]) -> Self {
        Self {
            bytes: values.iter().map(|value| kind.bytes(*value)).sum(),
            text_bytes: values.iter().map(|value| kind.text_bytes(*value)).sum(),
        }
    }

    fn of_runs<K: Kind>(kind: &K, distinct: &Distinct<K::Kept>) -> Self {
        let runs =
            || distinct.runs.as_slice().iter().map(|run| (distinct.values[run.value as usize], run.rows as usize));
        Self {
            bytes: runs().map(|(value, rows)| kind.bytes(value) * rows).sum(),
            text_bytes: runs().map(|(value, rows)| Some(kind.text_bytes(value)? * rows)).sum(),
        }
    }
}

/// Whether it takes fewer bytes than those to say each value once and where it stands. Dictionaries have the size of a
/// page at most.
fn is_shorter_as_dictionary<K: Kind>(kind: &K, distinct: &Distinct<K::Kept>, every: usize) -> bool {
    let dictionary = Size::of(kind, &distinct.values).bytes;
    let places = distinct.rows() * hybrid::width(distinct.values.len()) as usize / 8;
    dictionary <= PAGE_BYTES && dictionary + places < every
}

fn extremes<K: Kind>(kind: &K, values: &[K::Kept]) -> Option<(K::Kept, K::Kept)> {
    let least = values.iter().copied().min_by(|one, other| kind.compare(*one, *other))?;
    let greatest = values.iter().copied().max_by(|one, other| kind.compare(*one, *other))?;
    Some((least, greatest))
}

/// What a column's pages came to.
#[derive(Default)]
struct Written {
    packed: i64,
    unpacked: i64,
    /// Where data begin, if a dictionary stands before them.
    data_from: Option<i64>,
    pages: Vec<PageEncodingStats>,
}

/// Writes the pages of a column.
struct Pages<'a> {
    to: SerializedPageWriter<'a, Vec<u8>>,
    packer: &'a mut Packer,
    written: Written,
}

impl<'a> Pages<'a> {
    fn new(chunk: &'a mut TrackedWrite<Vec<u8>>, packer: &'a mut Packer) -> Self {
        Self { to: SerializedPageWriter::new(chunk), packer, written: Written::default() }
    }

    /// Each value once, then where they stand, behind what `page` holds already.
    fn dictionary<K: Kind>(
        &mut self,
        kind: &K,
        distinct: &Distinct<K::Kept>,
        mut page: Vec<u8>,
        rows: u32,
    ) -> Result<(), Stopped> {
        let mut values = Vec::with_capacity(Size::of(kind, &distinct.values).bytes);
        distinct.values.iter().for_each(|value| kind.write(*value, &mut values));
        let unpacked = values.len();
        let dictionary = Page::DictionaryPage {
            buf: self.packer.pack(values)?,
            num_values: distinct.values.len() as u32,
            encoding: Encoding::PLAIN,
            is_sorted: false,
        };
        self.put(dictionary, unpacked, PageType::DICTIONARY_PAGE, Encoding::PLAIN)?;
        self.written.data_from = Some(self.written.packed);
        let width = hybrid::width(distinct.values.len());
        page.push(width as u8);
        hybrid::write(distinct.runs.as_slice(), width, &mut page);
        self.page(page, rows, Encoding::RLE_DICTIONARY)
    }

    /// Each row's value, in pages.
    fn each<K: Kind>(&mut self, kind: &K, values: impl Iterator<Item = K::Kept>) -> Result<(), Stopped> {
        let (mut page, mut rows) = (Vec::with_capacity(PAGE_BYTES), 0);
        for value in values {
            if rows > 0 && page.len() + kind.bytes(value) > PAGE_BYTES {
                self.page(std::mem::replace(&mut page, Vec::with_capacity(PAGE_BYTES)), rows, Encoding::PLAIN)?;
                rows = 0;
            }
            kind.write(value, &mut page);
            rows += 1;
        }
        self.page(page, rows, Encoding::PLAIN)
    }

    fn page(&mut self, page: Vec<u8>, rows: u32, encoding: Encoding) -> Result<(), Stopped> {
        let unpacked = page.len();
        let data = Page::DataPage {
            buf: self.packer.pack(page)?,
            num_values: rows,
            encoding,
            def_level_encoding: Encoding::RLE,
            rep_level_encoding: Encoding::RLE,
            statistics: None,
        };
        self.put(data, unpacked, PageType::DATA_PAGE, encoding)
    }

    fn put(&mut self, page: Page, unpacked: usize, page_type: PageType, encoding: Encoding) -> Result<(), Stopped> {
        let spec = self.to.write_page(CompressedPage::new(page, unpacked))?;
        self.written.packed += spec.compressed_size as i64;
        self.written.unpacked += spec.uncompressed_size as i64;
        match self.written.pages.last_mut() {
            Some(last) if last.page_type == page_type => last.count += 1,
            _ => self.written.pages.push(PageEncodingStats { page_type, encoding, count: 1 }),
        }
        Ok(())
    }
}
