//! What clients and brokers say, in versions without compact lengths; what changes from message to message is written into the
//! bytes that are there.

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

/// A frame that is put together.
#[derive(Default)]
pub struct Frame(pub Vec<u8>);

impl Frame {
    pub fn request(api: i16, version: i16, client: &str) -> Self {
        Self(vec![0; 4]).i16(api).i16(version).i32(0).text(client)
    }

    pub fn response() -> Self {
        Self(vec![0; 4]).i32(0)
    }

    pub fn i8(mut self, number: i8) -> Self {
        self.0.extend(number.to_be_bytes());
        self
    }

    pub fn i16(mut self, number: i16) -> Self {
        self.0.extend(number.to_be_bytes());
        self
    }

    pub fn i32(mut self, number: i32) -> Self {
        self.0.extend(number.to_be_bytes());
        self
    }

    pub fn i64(mut self, number: i64) -> Self {
        self.0.extend(number.to_be_bytes());
        self
    }

    pub fn text(self, text: &str) -> Self {
        self.i16(text.len() as i16).raw(text.as_bytes())
    }

    pub fn bytes(self, bytes: &[u8]) -> Self {
        self.i32(bytes.len() as i32).raw(bytes)
    }

    pub fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self
    }

    /// With its size, and the correlation id of a request or a response.
    pub fn sealed(mut self, is_request: bool, correlation_id: i32) -> Vec<u8> {
        let size = (self.0.len() - 4) as u32;
        write(&mut self.0, 0, &size.to_be_bytes());
        write(&mut self.0, if is_request { 8 } else { 4 }, &correlation_id.to_be_bytes());
        self.0
    }
}

pub fn write(bytes: &mut [u8], at: usize, what: &[u8]) {
    bytes[at..at + what.len()].copy_from_slice(what);
}

fn varint(out: &mut Vec<u8>, number: i64) {
    let mut left = ((number << 1) ^ (number >> 63)) as u64;
    while left >= 0x80 {
        out.push(left as u8 | 0x80);
        left >>= 7;
    }
    out.push(left as u8);
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

const HEAD: usize = 61;

fn head(attributes: i16, producer_id: i64, records: usize) -> Vec<u8> {
    let (epoch, sequence) = if producer_id < 0 { (-1, -1) } else { (0, 0) };
    let frame = Frame::default().i64(0).i32(0).i32(0).i8(2).i32(0).i16(attributes);
    let frame = frame.i32(records as i32 - 1).i64(0).i64(0).i64(producer_id).i16(epoch).i32(sequence);
    frame.i32(records as i32).0
}

/// A batch of as many records as there are in one, and where its trace ids stand.
pub struct Batch {
    pub bytes: Vec<u8>,
    ids: Vec<usize>,
    writer: Writer,
}

impl Batch {
    pub fn new(writer: Writer, with_contexts: bool, records: usize) -> Self {
        let attributes = if matches!(writer, Writer::Transactional(_)) { 0x10 } else { 0 };
        let (mut bytes, mut ids) = (head(attributes, writer.id(), records), vec![]);
        for place in 0..records {
            let mut record = vec![0];
            varint(&mut record, 0);
            varint(&mut record, place as i64);
            varint(&mut record, 12);
            record.extend(format!("key-{place:08}").bytes());
            varint(&mut record, VALUE.len() as i64);
            record.extend(VALUE);
            let mut id = None;
            if with_contexts {
                varint(&mut record, 1);
                varint(&mut record, 11);
                record.extend(b"traceparent");
                varint(&mut record, 55);
                id = Some(record.len() + 3);
                record.extend(b"00-0123456789abcdef0123456789abcdef-0123456789abcdef-01");
            } else {
                varint(&mut record, 0);
            }
            varint(&mut bytes, record.len() as i64);
            ids.extend(id.map(|at| bytes.len() + at));
            bytes.extend(record);
        }
        let len = (bytes.len() - 12) as u32;
        write(&mut bytes, 8, &len.to_be_bytes());
        Self { bytes, ids, writer }
    }

    /// The marker that ends a transaction.
    pub fn marker(producer_id: i64, commits: bool) -> Vec<u8> {
        let mut bytes = head(0x30, producer_id, 1);
        // key: version and type; value: version and the coordinator's epoch
        let record = [&[0, 0, 0, 8, 0, 0, 0, u8::from(commits), 12][..], &[0; 6], &[0]].concat();
        varint(&mut bytes, record.len() as i64);
        bytes.extend(record);
        let len = (bytes.len() - 12) as u32;
        write(&mut bytes, 8, &len.to_be_bytes());
        bytes
    }
}

/// Writes a batch that stands at `at` anew: other messages than before.
pub fn renew(frame: &mut [u8], at: usize, batch: &Batch, offset: i64, time_ms: i64, sequence: i32) {
    write(frame, at, &offset.to_be_bytes());
    write(frame, at + 27, &time_ms.to_be_bytes());
    write(frame, at + 35, &time_ms.to_be_bytes());
    if batch.writer != Writer::Plain {
        write(frame, at + HEAD - 8, &sequence.to_be_bytes());
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
