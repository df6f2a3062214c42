//! What clients and brokers say, in versions without compact lengths; what changes from message to
//! message is written into the bytes that are there.

use ktrace_testkit::{Fields, Record};

pub const PRODUCE: i16 = 0;
pub const FETCH: i16 = 1;
pub const LIST_OFFSETS: i16 = 2;
pub const METADATA: i16 = 3;
pub const OFFSET_COMMIT: i16 = 8;
pub const JOIN_GROUP: i16 = 11;
pub const HEARTBEAT: i16 = 12;
pub const SYNC_GROUP: i16 = 14;
pub const ADD_PARTITIONS_TO_TXN: i16 = 24;
pub const END_TXN: i16 = 26;
pub const TXN_OFFSET_COMMIT: i16 = 28;

pub const RECORDS: usize = 1000;
const VALUE: [u8; 100] = [b'v'; 100];

/// Bytes of a frame's size, before what a message's fields are.
pub const SIZE: usize = 4;

pub fn request(api: i16, version: i16, client: &str) -> Fields {
    Fields::request(api, version, 0, client)
}

pub fn response() -> Fields {
    Fields::default().i32(0)
}

pub fn write(bytes: &mut [u8], at: usize, what: &[u8]) {
    bytes[at..at + what.len()].copy_from_slice(what);
}

/// Who has written a batch.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Writer {
    Plain,
    Idempotent(i64),
    Transactional(i64),
}

impl Writer {
    pub fn id(self) -> i64 {
        match self {
            Self::Plain => -1,
            Self::Idempotent(id) | Self::Transactional(id) => id,
        }
    }
}

/// A batch of as many records as there are in one, and where its trace ids stand.
pub struct Batch {
    pub bytes: Vec<u8>,
    ids: Vec<usize>,
    writer: Writer,
}

impl Batch {
    pub fn new(writer: Writer, with_contexts: bool, records: usize) -> Self {
        const HEADER: (&str, &str) =
            ("traceparent", "00-0123456789abcdef0123456789abcdef-0123456789abcdef-01");
        let head = match writer {
            Writer::Plain => ktrace_testkit::Batch::default(),
            Writer::Idempotent(id) => ktrace_testkit::Batch::idempotent(id),
            Writer::Transactional(id) => ktrace_testkit::Batch::transactional(id),
        };
        let keys: Vec<String> = (0..records).map(|place| format!("key-{place:08}")).collect();
        let headers: &[(&str, &str)] = if with_contexts { &[HEADER] } else { &[] };
        let records =
            keys.iter().map(|key| Record { key: Some(key.as_bytes()), value: Some(&VALUE), headers });
        let bytes = head.of(&records.collect::<Vec<_>>());
        let (value, len) = (HEADER.1.as_bytes(), HEADER.1.len());
        let ids = (0..bytes.len().saturating_sub(len)).filter(|at| bytes[*at..].starts_with(value));
        // Behind the version.
        let ids = ids.map(|at| at + 3).collect();
        Self { bytes, ids, writer }
    }

    /// The marker that ends a transaction.
    pub fn marker(producer_id: i64, commits: bool) -> Vec<u8> {
        ktrace_testkit::Batch::transactional(producer_id).marker(commits)
    }
}

/// Writes a batch that stands at `at` anew: other messages than before.
pub fn renew(frame: &mut [u8], at: usize, batch: &Batch, offset: i64, time_ms: i64, sequence: i32) {
    write(frame, at, &offset.to_be_bytes());
    write(frame, at + 27, &time_ms.to_be_bytes());
    write(frame, at + 35, &time_ms.to_be_bytes());
    if batch.writer != Writer::Plain {
        write(frame, at + ktrace_testkit::Batch::HEAD - 8, &sequence.to_be_bytes());
    }
    for (place, id) in (0_u64..).zip(&batch.ids) {
        // 16 hex digits, of a number that comes once.
        let number = (time_ms as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (place << 44) ^ sequence as u64;
        let mut digits = [0; 16];
        for (place, digit) in digits.iter_mut().enumerate() {
            *digit = b"0123456789abcdef"[(number >> (4 * place)) as usize & 15];
        }
        write(frame, at + id + 16, &digits);
    }
}
