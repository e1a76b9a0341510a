//! A column of texts that waits to be written: one piece of memory for all its texts, and of equal neighbours one copy.

use std::ops::Range;

use bytes::Bytes;
use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::file::writer::SerializedRowGroupWriter;

use crate::impression::JsonText;

use super::super::encode::Stopped;
use super::super::parts::PartWriter;

/// Values that are given to the writer at once.
const CHUNK: usize = 1024;

/// The texts of a column.
#[derive(Default)]
pub(super) struct Texts {
    text: Vec<u8>,
    /// Where each value lies in `text`; `NULL` for one that is not there.
    values: Vec<Range<u32>>,
    last: Range<u32>,
}

/// No text begins behind its end.
const NULL: Range<u32> = Range { start: u32::MAX, end: 0 };

impl Texts {
    /// Adds a value.
    #[inline]
    pub(super) fn push(&mut self, value: JsonText<'_>) {
        // Nearly all texts stand for themselves, and nothing of them is copied twice.
        if memchr::memchr(b'\\', value.as_bytes()).is_none() {
            self.push_plain(value.as_bytes());
        } else {
            self.push_plain(value.unescape().as_bytes());
        }
    }

    /// Adds a value, or that there is none.
    #[inline]
    pub(super) fn push_or_null(&mut self, value: Option<JsonText<'_>>) {
        match value {
            Some(value) => self.push(value),
            None => self.values.push(NULL),
        }
    }

    #[inline]
    fn push_plain(&mut self, plain: &[u8]) {
        if self.text[within(&self.last)] != *plain {
            let start = self.text.len();
            self.text.extend_from_slice(plain);
            self.last = offset(start)..offset(self.text.len());
        }
        self.values.push(self.last.clone());
    }

    /// Bytes of text that wait.
    pub(super) fn bytes(&self) -> usize {
        self.text.len()
    }

    /// Writes the next column of the group, which knows no null, and empties this one.
    pub(super) fn write(&mut self, group: &mut SerializedRowGroupWriter<'_, PartWriter>) -> Result<(), Stopped> {
        self.write_levels(group, |_, _| false)
    }

    /// The same for a column that knows nulls.
    pub(super) fn write_nullable(
        &mut self,
        group: &mut SerializedRowGroupWriter<'_, PartWriter>,
    ) -> Result<(), Stopped> {
        self.write_levels(group, |values, levels| {
            levels.clear();
            levels.extend(values.iter().map(|value| i16::from(*value != NULL)));
            true
        })
    }

    /// `levels` says of values which of them are there, and whether the column asks.
    fn write_levels(
        &mut self,
        group: &mut SerializedRowGroupWriter<'_, PartWriter>,
        levels: impl Fn(&[Range<u32>], &mut Vec<i16>) -> bool,
    ) -> Result<(), Stopped> {
        let text = Bytes::from(std::mem::take(&mut self.text));
        let mut column = group.next_column()?.expect("the schema has this column");
        let writer = column.typed::<ByteArrayType>();
        let (mut chunk, mut defined) = (Vec::with_capacity(CHUNK), Vec::new());
        for values in self.values.chunks(CHUNK) {
            chunk.clear();
            let there = values.iter().filter(|value| **value != NULL);
            chunk.extend(there.map(|value| ByteArray::from(text.slice(within(value)))));
            let levels = levels(values, &mut defined).then_some(&*defined);
            writer.write_batch(&chunk, levels, None)?;
        }
        column.close()?;
        self.values.clear();
        self.last = 0..0;
        Ok(())
    }
}

/// A group's text is far below 4 GiB: one frame's and a limit's worth.
fn offset(at: usize) -> u32 {
    u32::try_from(at).expect("a group of rows has less than 4 GiB of text")
}

fn within(range: &Range<u32>) -> Range<usize> {
    range.start as usize..range.end as usize
}
