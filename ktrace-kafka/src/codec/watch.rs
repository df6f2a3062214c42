//! A look at what comes out of a codec while it does: a few bytes may hold gigabytes, and most of
//! such are known by the first.
//!
//! A batch that inflates to less than [`HEAD_BYTES`] is never looked at. Beyond, its first record
//! must be one; beyond [`WALK_BYTES`] all records are counted, each time that twice as much is
//! there.

use crate::protocol::reader::{ParseError, Reader, Result};

/// Here the first record is looked at. Most batches are smaller.
const HEAD_BYTES: usize = 64 << 10;
/// Here, and at each doubling, the records so far are counted.
const WALK_BYTES: usize = 1 << 20;
/// Here the records are counted where nothing may be inflated in vain.
const STRICT_BYTES: usize = 4 << 10;

/// Bytes that each record may take without being waste: four times the largest message that Kafka
/// takes by default (`message.max.bytes`), which is one of a batch as it is on the wire.
pub const USEFUL_BYTES: usize = 4 << 20;

/// The shortest record: length, attributes, two deltas, key, value, number of headers, each of one
/// byte.
const SHORTEST_RECORD: usize = 6;
/// Offset and size of a message in a set, and the least that the size counts: CRC, magic,
/// attributes, key, value.
const MESSAGE_HEAD_BYTES: usize = 12;
const SHORTEST_MESSAGE: usize = 14;

/// What should come out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// This many records.
    Records(i32),
    /// Messages of magic 0 or 1.
    Messages,
    /// Anything: it is not looked at.
    Any,
}

/// What a look found wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// What came out cannot be what it should be.
    NotRecords,
    /// It will have more bytes than it may, by its own account.
    TooLarge,
    /// Too many bytes for the records that are in them.
    Useless,
}

/// Looks at a codec's output while it grows, and stops what cannot be records or is not worth it.
#[derive(Clone, Copy, Debug)]
pub struct Watch {
    shape: Shape,
    /// Bytes that may come out beyond what is useful.
    allowance: usize,
    /// The number of bytes at which it looks next.
    next: usize,
    /// Up to here records were counted: this many.
    at: usize,
    records: usize,
}

impl Watch {
    #[must_use]
    pub fn new(shape: Shape, allowance: usize) -> Self {
        let next = match shape {
            Shape::Any => usize::MAX,
            _ if allowance < WALK_BYTES => STRICT_BYTES,
            _ => HEAD_BYTES,
        };
        Self { shape, allowance, next, at: 0, records: 0 }
    }

    /// The number of bytes at which it wants to look.
    pub fn next(&self) -> usize {
        self.next
    }

    /// Records that were counted so far.
    pub fn records(&self) -> usize {
        self.records
    }

    /// Looks at what there is; `limit` is what there may be at most.
    #[cold]
    pub fn look(&mut self, bytes: &[u8], limit: usize) -> std::result::Result<(), Fault> {
        let (only_first, next) = match bytes.len() {
            len if len < WALK_BYTES && self.allowance >= WALK_BYTES => (true, WALK_BYTES),
            len => (false, len.saturating_mul(2).max(HEAD_BYTES)),
        };
        self.next = next;
        if self.at == 0 {
            let read = match self.shape {
                Shape::Records(_) => first_record(bytes),
                Shape::Messages => first_message(bytes),
                Shape::Any => return Ok(()),
            };
            if matches!(read, Err(ParseError::Malformed(_))) {
                return Err(Fault::NotRecords);
            }
        }
        let end = self.count(bytes, limit, only_first)?;
        let spent = end.max(bytes.len()).saturating_sub(self.records.saturating_mul(USEFUL_BYTES));
        if spent.saturating_sub(STRICT_BYTES) > self.allowance { Err(Fault::Useless) } else { Ok(()) }
    }

    /// Counts records, and gives where the one will end that is not whole yet. A look at the first
    /// alone counts none.
    fn count(&mut self, bytes: &[u8], limit: usize, only_first: bool) -> std::result::Result<usize, Fault> {
        let (mut at, mut records) = (self.at, self.records);
        let most = match self.shape {
            Shape::Records(count) => usize::try_from(count).unwrap_or(0),
            Shape::Messages | Shape::Any => usize::MAX,
        };
        let end = loop {
            let Some(left) = bytes.get(at..).filter(|left| !left.is_empty()) else { break at };
            if records >= most {
                return Err(Fault::NotRecords);
            }
            let len = match self.shape {
                Shape::Records(_) => record_len(left),
                Shape::Messages | Shape::Any => message_len(left),
            };
            let end = match len {
                Ok(len) => at.saturating_add(len),
                Err(ParseError::Truncated(_)) => break bytes.len(),
                Err(_) => return Err(Fault::NotRecords),
            };
            if end > limit {
                return Err(Fault::TooLarge);
            }
            if end > bytes.len() {
                break end;
            }
            (at, records) = (end, records.saturating_add(1));
            if only_first {
                return Ok(at);
            }
        };
        (self.at, self.records) = (at, records);
        Ok(end)
    }
}

/// The bytes of the record at the beginning, with its length.
fn record_len(bytes: &[u8]) -> Result<usize> {
    let mut reader = Reader::new(bytes, false);
    let len = usize::try_from(reader.varint("record length")?)
        .ok()
        .filter(|len| *len >= SHORTEST_RECORD)
        .ok_or(ParseError::Malformed("record length"))?;
    Ok(bytes.len().saturating_sub(reader.left().len()).saturating_add(len))
}

/// Whether the first record can be one, as far as it is there; a field that goes beyond the record
/// is malformed.
fn first_record(bytes: &[u8]) -> Result<()> {
    let len = record_len(bytes)?;
    let Some(record) = bytes.get(..len) else { return Ok(()) };
    let mut reader = Reader::new(record, false);
    let read = (|| {
        reader.varint("record length")?;
        reader.i8("record attributes")?;
        reader.varlong("timestamp delta")?;
        reader.varint("offset delta")?;
        let nullable = |reader: &mut Reader<'_>| {
            let raw = reader.uvarint("length")?;
            let len = if raw & 1 == 1 { 0 } else { usize::try_from(raw >> 1).unwrap_or(usize::MAX) };
            reader.take(len, "field").map(drop)
        };
        nullable(&mut reader)?;
        nullable(&mut reader)?;
        for _ in 0..reader.varint("headers")? {
            nullable(&mut reader)?;
            nullable(&mut reader)?;
        }
        reader.end("record")
    })();
    read.map_err(|_: ParseError| ParseError::Malformed("record"))
}

/// The bytes of the message at the beginning of a set, with its offset and size.
fn message_len(bytes: &[u8]) -> Result<usize> {
    let mut reader = Reader::new(bytes, false);
    reader.i64("offset")?;
    let len = usize::try_from(reader.i32("message size")?).ok();
    let len = len.filter(|len| *len >= SHORTEST_MESSAGE).ok_or(ParseError::Malformed("message size"))?;
    Ok(len.saturating_add(MESSAGE_HEAD_BYTES))
}

/// Whether the first message can be one.
fn first_message(bytes: &[u8]) -> Result<()> {
    message_len(bytes)?;
    let mut reader = Reader::new(bytes, false);
    reader.take(MESSAGE_HEAD_BYTES.saturating_add(4), "offset, size, CRC")?;
    match reader.i8("magic")? {
        0 | 1 => Ok(()),
        _ => Err(ParseError::Malformed("magic")),
    }
}
