//! One record batch, format v2 (magic 2).

use crate::codec::Codec;
use crate::protocol::reader::{Reader, Result};

/// One batch: its head, and its records as they are on the wire.
///
/// Messages of before batches (magic 0 and 1) have none. What a [`crate::Sink`] then gets stands
/// for one message of the set, with the messages inside if it is a wrapper (`Message::batch`): no
/// producer (id, epoch and base sequence −1), neither transactional nor control, both timestamps
/// the message's own (−1 in magic 0, which has none), the codec and, in magic 1, the timestamp type
/// in its attributes, the wire's value in its records. Offsets may have holes, so there the base
/// offset with a delta does not make a record's offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batch<'a> {
    /// 0 in Produce requests, the log's in Fetch responses.
    pub base_offset: i64,
    /// Codec, timestamp type, transactional and control bits, as on the wire.
    pub attributes: i16,
    /// The offset of the last record, counted from the first.
    pub last_offset_delta: i32,
    /// Milliseconds since 1970.
    pub base_timestamp_ms: i64,
    /// Milliseconds since 1970; the time of every record where [`Batch::is_log_append_time`].
    pub max_timestamp_ms: i64,
    /// −1 where the producer is not idempotent.
    pub producer_id: i64,
    /// The producer's epoch, −1 without one.
    pub producer_epoch: i16,
    /// The first record's sequence number of the producer, −1 without one.
    pub base_sequence: i32,
    /// As the wire says; compaction and damage may make it wrong.
    pub count: i32,
    /// Perhaps compressed.
    pub records: &'a [u8],
}

impl Batch<'_> {
    /// `None` for a codec that no release has.
    #[must_use]
    pub fn codec(&self) -> Option<Codec> {
        Codec::of(self.attributes)
    }

    /// The broker's time of append is the time of every record.
    #[must_use]
    pub fn is_log_append_time(&self) -> bool {
        self.attributes & 0x08 != 0
    }

    /// Its records are part of a transaction.
    #[must_use]
    pub fn is_transactional(&self) -> bool {
        self.attributes & 0x10 != 0
    }

    /// Holds a transaction's marker and no application record.
    #[must_use]
    pub fn is_control(&self) -> bool {
        self.attributes & 0x20 != 0
    }

    /// Whether a control batch ends a transaction by committing it; `None` for batches that end
    /// none.
    #[must_use]
    pub fn marker(&self) -> Option<bool> {
        // length, attributes, timestamp delta, offset delta, key length, then the key: version and
        // type.
        let mut reader = Reader::new(self.records, false);
        let kind = (|| -> Result<i16> {
            reader.varint("record")?;
            reader.i8("attributes")?;
            reader.varlong("timestamp delta")?;
            reader.varint("offset delta")?;
            reader.varint("key")?;
            reader.i16("control version")?;
            reader.i16("control type")
        })();
        match kind {
            Ok(0) if self.is_control() => Some(false),
            Ok(1) if self.is_control() => Some(true),
            _ => None,
        }
    }
}
