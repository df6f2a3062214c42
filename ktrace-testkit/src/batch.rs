//! Record batches of magic 2 (KIP-98), laid by hand: any attributes and producer, any bytes as
//! records.

use crate::fields::Fields;
use crate::varint::varint;

/// Of `attributes`.
const TRANSACTIONAL: i16 = 0x10;
const CONTROL: i16 = 0x20;

/// A batch's head, but for what its records say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Of the first record.
    pub offset: i64,
    /// The codec in the lowest three bits, as Kafka numbers them.
    pub attributes: i16,
    /// Of all records.
    pub timestamp_ms: i64,
    /// -1: a producer that is not idempotent.
    pub producer_id: i64,
    pub producer_epoch: i16,
    pub sequence: i32,
}

impl Default for Batch {
    fn default() -> Self {
        Self {
            offset: 0,
            attributes: 0,
            timestamp_ms: 1_700_000_000_000,
            producer_id: -1,
            producer_epoch: -1,
            sequence: -1,
        }
    }
}

/// A message of a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Record<'a> {
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
    pub headers: &'a [(&'a str, &'a str)],
}

impl Batch {
    /// Where the head ends and the records begin.
    pub const HEAD: usize = 61;

    /// Of a producer that is idempotent.
    #[must_use]
    pub fn idempotent(producer_id: i64) -> Self {
        Self { producer_id, producer_epoch: 0, sequence: 0, ..Self::default() }
    }

    /// Of a producer's transaction.
    #[must_use]
    pub fn transactional(producer_id: i64) -> Self {
        Self { attributes: TRANSACTIONAL, ..Self::idempotent(producer_id) }
    }

    /// With these records, not compressed.
    #[must_use]
    pub fn of(&self, records: &[Record<'_>]) -> Vec<u8> {
        let mut bytes = vec![];
        for (place, record) in (0..).zip(records) {
            let record = record.encode(place);
            varint(&mut bytes, record.len() as i64);
            bytes.extend(record);
        }
        self.packed(records.len() as u32, &bytes)
    }

    /// With bytes that stand for `count` records, compressed or not.
    #[must_use]
    pub fn packed(&self, count: u32, records: &[u8]) -> Vec<u8> {
        let last_delta = count.wrapping_sub(1).cast_signed();
        let behind_crc = Fields::default().i16(self.attributes).i32(last_delta);
        let behind_crc = behind_crc.i64(self.timestamp_ms).i64(self.timestamp_ms).i64(self.producer_id);
        let behind_crc = behind_crc.i16(self.producer_epoch).i32(self.sequence);
        let behind_crc = behind_crc.i32(count.cast_signed()).raw(records);
        let crc = crc32c::crc32c(&behind_crc.0);
        // The leader's epoch, and the magic.
        let behind_length = Fields::default().i32(0).i8(2).raw(crc.to_be_bytes()).raw(behind_crc);
        Fields::default().i64(self.offset).bytes(behind_length).0
    }

    /// The marker that ends a producer's transaction.
    #[must_use]
    pub fn marker(&self, commits: bool) -> Vec<u8> {
        // The key is its version and the type, the value its version and the coordinator's epoch.
        let (key, value) = ([0, 0, 0, u8::from(commits)], [0; 6]);
        let marker = Record { key: Some(&key), value: Some(&value), headers: &[] };
        Self { attributes: self.attributes | TRANSACTIONAL | CONTROL, ..*self }.of(&[marker])
    }
}

impl Record<'_> {
    fn encode(&self, place: i64) -> Vec<u8> {
        // Attributes, and the difference to the batch's timestamp.
        let mut bytes = vec![0, 0];
        varint(&mut bytes, place);
        nullable(&mut bytes, self.key);
        nullable(&mut bytes, self.value);
        varint(&mut bytes, self.headers.len() as i64);
        for text in self.headers.iter().flat_map(|(name, value)| [name, value]) {
            nullable(&mut bytes, Some(text.as_bytes()));
        }
        bytes
    }
}

fn nullable(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    varint(out, bytes.map_or(-1, |bytes| bytes.len() as i64));
    out.extend(bytes.unwrap_or_default());
}

#[cfg(all(test, feature = "encoder"))]
mod tests {
    use bytes::Bytes;
    use kafka_protocol::records::{Compression, RecordBatchDecoder};

    use super::{Batch, Record};
    use crate::encoder;

    /// Another implementation reads what is laid here.
    #[test]
    fn a_batch_is_read_by_another_implementation() {
        let records = [
            Record {
                key: Some(b"k"),
                value: Some(&[b'v'; 200]),
                headers: &[("traceparent", "00"), ("b3", "")],
            },
            Record::default(),
        ];
        let batch = Batch { offset: 42, ..Batch::transactional(7) };
        let bytes = Bytes::from([batch.of(&records), batch.marker(true)].concat());
        let sets = RecordBatchDecoder::decode_all(&mut bytes.clone()).unwrap();
        let read: Vec<_> = sets.iter().flat_map(|set| &set.records).collect();
        let shown: Vec<_> = read
            .iter()
            .map(|record| {
                (record.offset, record.key.as_deref(), record.value.as_ref().map(Bytes::len), record.control)
            })
            .collect();
        let key = &[0, 0, 0, 1][..];
        let wanted = [
            (42, Some(&b"k"[..]), Some(200), false),
            (43, None, None, false),
            (42, Some(key), Some(6), true),
        ];
        assert_eq!(shown, wanted);
        assert!(read.iter().all(|record| record.transactional && record.producer_id == 7));
        assert_eq!(read[0].headers.len(), 2);
    }

    /// And it writes the same bytes.
    #[test]
    fn a_batch_is_as_another_implementation_writes_it() {
        let mut record = encoder::record(3);
        record.key = Some(Bytes::from_static(b"k"));
        let theirs = encoder::batch(&[record], Compression::None);
        let ours = Batch { offset: 3, timestamp_ms: 1_700_000_000_003, sequence: 3, ..Batch::default() };
        let ours = ours.of(&[Record { key: Some(b"k"), ..Record::default() }]);
        assert_eq!(ours, theirs[..]);
    }
}
