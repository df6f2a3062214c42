//! The records of a batch: read in place, one after another, without an allocation.

use std::fmt;

use super::batch::Batch;
use crate::context::{Extractor, Found, Slots};
use crate::protocol::reader::{Reader, Result};

/// One record.
#[derive(Clone, Copy)]
pub struct Record<'a> {
    /// In a Produce request with its response, and in a Fetch response: the log's. −1 where the
    /// broker gave none.
    pub offset: i64,
    /// The record's place in its batch, counted from 0 (the first record's offset delta). Of a
    /// message of before batches: its place among all the messages of its set.
    pub offset_delta: i32,
    /// Milliseconds since 1970: the producer's, or the time of append where the topic says so. −1
    /// for none (magic 0).
    pub timestamp_ms: i64,
    /// The record's key, `None` for null.
    pub key: Option<&'a [u8]>,
    /// `None` for a tombstone. It is passed over here: who looks into it keeps nothing of it.
    pub value: Option<&'a [u8]>,
    /// The record's headers.
    pub headers: Headers<'a>,
    /// What the headers say of the record's trace.
    pub context: Found<'a>,
}

impl Record<'_> {
    /// Bytes of the value, `None` for a tombstone.
    #[inline]
    #[must_use]
    pub fn value_len(&self) -> Option<usize> {
        self.value.map(<[u8]>::len)
    }
}

/// Without the value, which no log may have.
impl fmt::Debug for Record<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record")
            .field("offset", &self.offset)
            .field("offset_delta", &self.offset_delta)
            .field("timestamp_ms", &self.timestamp_ms)
            .field("key", &self.key)
            .field("value_len", &self.value_len())
            .field("context", &self.context)
            .finish_non_exhaustive()
    }
}

/// A record's headers: keys may repeat, values may be null.
#[derive(Clone, Copy, Debug)]
pub struct Headers<'a> {
    reader: Reader<'a>,
    count: i32,
}

impl<'a> Headers<'a> {
    /// What a message of before record headers has.
    pub(super) fn none() -> Self {
        Self { reader: Reader::new(&[], false), count: 0 }
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        usize::try_from(self.count).unwrap_or(0)
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count <= 0
    }

    /// Keys and values, in the order of the wire.
    pub fn iter(&self) -> impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)> + use<'a> {
        let mut reader = self.reader;
        (0..self.count).map_while(move |_| header(&mut reader).ok())
    }
}

/// Bytes behind their length, a zigzag varint; any negative one is null.
#[inline]
fn nullable<'a>(reader: &mut Reader<'a>, what: &'static str) -> Result<Option<&'a [u8]>> {
    let raw = reader.uvarint(what)?;
    if raw & 1 == 1 {
        return Ok(None);
    }
    reader.take(usize::try_from(raw >> 1).unwrap_or(usize::MAX), what).map(Some)
}

#[inline]
fn header<'a>(reader: &mut Reader<'a>) -> Result<(&'a [u8], Option<&'a [u8]>)> {
    let key = nullable(reader, "header key")?.unwrap_or(&[]);
    Ok((key, nullable(reader, "header value")?))
}

/// How a walk over a batch ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Walked {
    /// Records that were given.
    pub records: u64,
    /// Whether the records end as the batch says.
    pub whole: bool,
}

/// Gives every record of a batch to `each`. `records` are the batch's, decompressed.
pub fn walk(
    batch: &Batch<'_>,
    records: &[u8],
    extractor: &Extractor,
    mut each: impl FnMut(&Record<'_>),
) -> Walked {
    let mut left = Reader::new(records, false);
    let mut walked = Walked { records: 0, whole: true };
    // A kilobyte and more: made where there is a header.
    let mut slots = None;
    for _ in 0..batch.count.max(0) {
        if record(batch, &mut left, extractor, &mut slots, &mut each).is_err() {
            walked.whole = false;
            break;
        }
        walked.records = walked.records.saturating_add(1);
    }
    walked.whole &= left.left().is_empty();
    walked
}

#[inline]
fn record<'a>(
    batch: &Batch<'_>,
    left: &mut Reader<'a>,
    extractor: &Extractor,
    slots: &mut Option<Slots<'a>>,
    each: &mut impl FnMut(&Record<'_>),
) -> Result<()> {
    let length = usize::try_from(left.varint("record length")?).unwrap_or(usize::MAX);
    let mut reader = Reader::new(left.take(length, "record")?, false);
    reader.i8("record attributes")?;
    let timestamp_delta = reader.varlong("timestamp delta")?;
    let offset_delta = reader.varint("offset delta")?;
    let key = nullable(&mut reader, "key")?;
    let value = nullable(&mut reader, "value")?;
    let count = reader.varint("headers")?;
    let headers = Headers { reader, count };
    let mut slots = (count > 0).then(|| slots.get_or_insert_with(Slots::new));
    if let Some(slots) = &mut slots {
        slots.clear();
        for _ in 0..count {
            let key = nullable(&mut reader, "header key")?.unwrap_or(&[]);
            if let Some(value) = nullable(&mut reader, "header value")? {
                extractor.note(slots, key, value);
            }
        }
    }
    reader.end("record")?;
    each(&Record {
        offset: batch.base_offset.wrapping_add(i64::from(offset_delta)),
        offset_delta,
        timestamp_ms: if batch.is_log_append_time() {
            batch.max_timestamp_ms
        } else {
            batch.base_timestamp_ms.wrapping_add(timestamp_delta)
        },
        key,
        value,
        headers,
        context: match slots {
            Some(slots) => extractor.find(slots),
            None => Found::default(),
        },
    });
    Ok(())
}
