//! The messages of a message set: the format of before batches (magic 0, and since Kafka 0.10 magic
//! 1).
//!
//! ```text
//!  0        8      12    16      17           18               26
//!  │ offset │ size │ crc │ magic │ attributes │ timestamp (v1) │ key length │ key │ value length │ value
//! ```
//!
//! `size` counts from the CRC on. A compressed message is a wrapper: its value is a message set,
//! whose messages are not compressed. There are no headers, so no message says anything of a trace.
//!
//! Source: `LegacyRecord.java` and `AbstractLegacyRecordBatch.java` (`DeepRecordsIterator`) of
//! Apache Kafka 3.9.

use super::batch::Batch;
use super::walk::{Headers, Record};
use crate::codec::Codec;
use crate::context::Found;
use crate::protocol::reader::{ParseError, Reader, Result};

/// The lowest bits of the attributes.
const CODEC_BITS: i16 = 0x07;
/// The time of append is the message's, and that of all inside (magic 1).
const LOG_APPEND_TIME: i16 = 0x08;

/// The offsets of the messages inside a wrapper, and how many there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Of the first message.
    pub first: i64,
    /// Of the last message.
    pub last: i64,
    /// At least 1. Offsets may have holes.
    pub count: usize,
}

/// One message, perhaps a wrapper.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// Of a wrapper: that of the last message inside, or 0 where its producer did not care.
    pub offset: i64,
    /// 0 or 1.
    pub magic: i8,
    /// Of the wire's, the bits that this magic has: the codec, and in magic 1 the timestamp type.
    pub attributes: i16,
    /// Milliseconds since 1970; −1 in magic 0.
    pub timestamp_ms: i64,
    /// `None` for null.
    pub key: Option<&'a [u8]>,
    /// Of a wrapper, the set inside: compressed.
    pub value: Option<&'a [u8]>,
}

impl<'a> Message<'a> {
    /// Reads what stands behind a message's offset and size.
    pub(super) fn read(offset: i64, body: &'a [u8]) -> Result<Self> {
        let mut reader = Reader::new(body, false);
        reader.u32("crc")?;
        let magic = reader.i8("magic")?;
        let attributes = i16::from(reader.i8("attributes")?);
        let (bits, timestamp_ms) = match magic {
            0 => (CODEC_BITS, -1),
            1 => (CODEC_BITS | LOG_APPEND_TIME, reader.i64("timestamp")?),
            _ => return Err(ParseError::Malformed("magic")),
        };
        let key = reader.nullable_bytes("key")?;
        let value = reader.nullable_bytes("value")?;
        reader.end("message")?;
        Ok(Self { offset, magic, attributes: attributes & bits, timestamp_ms, key, value })
    }

    /// How the set inside is compressed, [`Codec::None`] where the message is no wrapper; `None`
    /// for a codec that message sets do not have.
    #[must_use]
    pub fn codec(&self) -> Option<Codec> {
        Codec::of(self.attributes).filter(|codec| *codec != Codec::Zstd)
    }

    /// The batch that stands for the message, or for those inside.
    #[must_use]
    pub fn batch(&self, inside: Option<Extent>) -> Batch<'a> {
        let alone = Extent { first: self.offset, last: self.offset, count: 1 };
        let Extent { first, last, count } = inside.unwrap_or(alone);
        Batch {
            base_offset: first,
            attributes: self.attributes,
            last_offset_delta: i32::try_from(last.saturating_sub(first)).unwrap_or(i32::MAX),
            base_timestamp_ms: self.timestamp_ms,
            max_timestamp_ms: self.timestamp_ms,
            producer_id: -1,
            producer_epoch: -1,
            base_sequence: -1,
            count: i32::try_from(count).unwrap_or(i32::MAX),
            records: self.value.unwrap_or_default(),
        }
    }

    /// The message as a record at this place of its set; `batch` is the one that stands for it.
    #[must_use]
    pub fn record(&self, batch: &Batch<'_>, place: i32) -> Record<'a> {
        Record {
            offset: self.offset,
            offset_delta: place,
            timestamp_ms: if batch.is_log_append_time() { batch.max_timestamp_ms } else { self.timestamp_ms },
            key: self.key,
            value: self.value,
            headers: Headers::none(),
            context: Found::default(),
        }
    }
}
