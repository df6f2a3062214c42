//! Records and batches of `kafka-protocol`, an implementation that shares nothing with ktrace's.

use bytes::{Bytes, BytesMut};
use kafka_protocol::records::{Compression, Record, RecordBatchEncoder, RecordEncodeOptions, TimestampType};

/// A record without key, value and headers, of no transaction, a millisecond after the one before
/// it.
#[must_use]
pub fn record(offset: i64) -> Record {
    Record {
        transactional: false,
        control: false,
        delete_horizon: false,
        partition_leader_epoch: 0,
        producer_id: -1,
        producer_epoch: -1,
        timestamp_type: TimestampType::Creation,
        offset,
        // The encoder ends a batch where the sequence has a hole.
        sequence: offset as i32,
        timestamp: 1_700_000_000_000 + offset,
        key: None,
        value: None,
        headers: Default::default(),
    }
}

/// These records in batches of magic 2.
///
/// # Panics
/// If the encoder refuses them.
#[must_use]
pub fn batch(records: &[Record], compression: Compression) -> Bytes {
    let mut out = BytesMut::new();
    RecordBatchEncoder::encode(&mut out, records, &RecordEncodeOptions { version: 2, compression })
        .expect("records that can be encoded");
    out.freeze()
}
