//! The batches of a record set, format v2 (magic 2); older messages in its place are recognised by
//! their magic, which has one place in all formats.
//!
//! ```text
//!  0           8        12            16    17   21           23              27
//!  │base offset│ length │leader epoch │magic│crc │ attributes │last off. delta│ …
//!  27             35            43           51              57              61
//!  │base timestamp│max timestamp│producer id │producer epoch │ base sequence │ count … records
//! ```
//!
//! `length` counts from the leader epoch on. The CRC is not checked: it is the broker's and the
//! client's business, and would cost more than all the rest.

use super::batch::Batch;
use super::message::Message;
use crate::protocol::reader::{Reader, Result};

/// Bytes before those that `length` counts.
const LENGTH_END: usize = 12;
/// The smallest `length` that any format has: a message of magic 0, key and value null.
const SHORTEST_LENGTH: usize = 14;
/// The smallest `length` of a v2 batch: its head without records.
const HEAD_AFTER_LENGTH: usize = 49;

/// What stands next in a record set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next<'a> {
    /// A batch of magic 2.
    Batch(Batch<'a>),
    /// A message of magic 0 or 1.
    Message(Message<'a>),
    /// A format that no release has, of the length that is said.
    UnknownMagic(i8),
    /// The set ends inside a batch, as a slice of the log may.
    Cut,
    /// None of them; the rest of the set is unreadable.
    Malformed,
}

/// The batches of a record set, or its messages of before them, in order.
#[derive(Clone, Debug)]
pub struct Batches<'a> {
    left: &'a [u8],
}

impl<'a> Batches<'a> {
    /// Of a record set as it is on the wire.
    #[must_use]
    pub fn new(records: &'a [u8]) -> Self {
        Self { left: records }
    }

    fn read(&mut self) -> Result<Next<'a>> {
        let mut head = Reader::new(self.left, false);
        let base_offset = head.i64("base offset")?;
        let length = head.i32("batch length")?;
        let length = match usize::try_from(length) {
            Ok(length) if length >= SHORTEST_LENGTH => length,
            _ => return Ok(Next::Malformed),
        };
        let (_, whole) = self.left.split_at_checked(LENGTH_END).unwrap_or_default();
        let Some((body, rest)) = whole.split_at_checked(length) else { return Ok(Next::Cut) };
        self.left = rest;
        let mut head = Reader::new(body, false);
        head.i32("leader epoch")?;
        match head.i8("magic")? {
            2 if length >= HEAD_AFTER_LENGTH => {}
            // Here the leader epoch's place holds a CRC.
            0 | 1 => return Ok(Message::read(base_offset, body).map_or(Next::Malformed, Next::Message)),
            2 => return Ok(Next::Malformed),
            magic => return Ok(Next::UnknownMagic(magic)),
        }
        head.u32("crc")?;
        Ok(Next::Batch(Batch {
            base_offset,
            attributes: head.i16("attributes")?,
            last_offset_delta: head.i32("last offset delta")?,
            base_timestamp_ms: head.i64("base timestamp")?,
            max_timestamp_ms: head.i64("max timestamp")?,
            producer_id: head.i64("producer id")?,
            producer_epoch: head.i16("producer epoch")?,
            base_sequence: head.i32("base sequence")?,
            count: head.i32("count")?,
            records: head.left(),
        }))
    }
}

impl<'a> Iterator for Batches<'a> {
    type Item = Next<'a>;

    fn next(&mut self) -> Option<Next<'a>> {
        if self.left.is_empty() {
            return None;
        }
        // Too short for a head means that the slice of the log ends there.
        let next = self.read().unwrap_or(Next::Cut);
        if matches!(next, Next::Cut | Next::Malformed) {
            self.left = &[];
        }
        Some(next)
    }
}
