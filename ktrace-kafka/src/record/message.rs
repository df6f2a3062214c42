//! The messages of a message set: the format of before batches (magic 0, and since Kafka 0.10 magic 1).
//!
//! ```text
//!  0        8      12    16      17           18               26
//!  │ offset │ size │ crc │ magic │ attributes │ timestamp (v1) │ key length │ key │ value length │ value
//! ```
//!
//! `size` counts from the CRC on. A compressed message is a wrapper: its value is a message set, whose messages are
//! not compressed. There are no headers, so no message says anything of a trace.
//!
//! Source: `LegacyRecord.java` and `AbstractLegacyRecordBatch.java` (`DeepRecordsIterator`) of Apache Kafka 3.9.

use crate::codec::Codec;
use crate::context::Found;
use crate::protocol::reader::{ParseError, Reader, Result};
use crate::record::walk::Headers;
use crate::record::{Batch, Batches, Next, Record};

/// The lowest bits of the attributes.
const CODEC_BITS: i16 = 0x07;
/// The time of append is the message's, and that of all inside (magic 1).
const LOG_APPEND_TIME: i16 = 0x08;

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

    /// How the set inside is compressed, [`Codec::None`] where the message is no wrapper; `None` for a codec that
    /// message sets do not have.
    #[must_use]
    pub fn codec(&self) -> Option<Codec> {
        Codec::of(self.attributes).filter(|codec| *codec != Codec::Zstd)
    }

    /// The batch that stands for the message, or for those inside.
    #[must_use]
    pub fn batch(&self, inner: Option<&Inner<'_>>) -> Batch<'a> {
        let (first, last, count) =
            inner.map_or((self.offset, self.offset, 1), |inner| (inner.first, inner.last, inner.count));
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

/// The messages inside a wrapper, read to their end once before any is given.
#[derive(Clone, Debug)]
pub struct Inner<'a> {
    messages: Batches<'a>,
    /// What the inner offsets count from.
    base: i64,
    first: i64,
    last: i64,
    count: usize,
}

impl<'a> Inner<'a> {
    /// Reads the set inside a wrapper, decompressed; offsets are as written there.
    ///
    /// Refused: an empty set, one that is cut, and one with a wrapper or a batch inside.
    pub fn read(set: &'a [u8]) -> Result<Self> {
        let messages = Batches::new(set);
        let (mut first, mut last, mut count) = (None, 0, 0_usize);
        for next in messages.clone() {
            let Next::Message(message) = next else { return Err(ParseError::Malformed("inner message")) };
            if message.codec() != Some(Codec::None) {
                return Err(ParseError::Malformed("inner codec"));
            }
            first.get_or_insert(message.offset);
            last = message.offset;
            count = count.saturating_add(1);
        }
        let first = first.ok_or(ParseError::Truncated("inner message"))?;
        Ok(Self { messages, base: 0, first, last, count })
    }

    /// With the log's offsets: in magic 0 they are those inside; in magic 1 the wrapper has that of its last message,
    /// but for a wrapper offset of 0, which some versions of librdkafka sent, whatever is inside.
    ///
    /// Refused: a last offset past its wrapper's.
    pub fn in_log(mut self, wrapper: &Message<'_>) -> Result<Self> {
        if wrapper.magic > 0 && wrapper.offset != 0 {
            if wrapper.offset < self.last {
                return Err(ParseError::Malformed("wrapper offset"));
            }
            self.base = wrapper.offset.saturating_sub(self.last);
            self.first = self.base.saturating_add(self.first);
            self.last = wrapper.offset;
        }
        Ok(self)
    }

    /// How many there are.
    #[expect(clippy::len_without_is_empty, reason = "there is at least one")]
    #[must_use]
    pub fn len(&self) -> usize {
        self.count
    }

    /// The messages, in order.
    pub fn messages(&self) -> impl Iterator<Item = Message<'a>> + use<'a> {
        let base = self.base;
        self.messages.clone().filter_map(move |next| match next {
            Next::Message(message) => {
                Some(Message { offset: base.saturating_add(message.offset), ..message })
            }
            _ => None,
        })
    }
}
