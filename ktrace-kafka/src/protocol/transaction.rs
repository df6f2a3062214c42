//! A transaction as requests name it.

use super::event::Transaction;
use super::list::Struct;
use super::reader::{Reader, Result};

/// Its three fields, where they stand side by side.
impl<'a> Struct<'a> for Transaction<'a> {
    fn read(_version: i16, body: &mut Reader<'a>) -> Result<Self> {
        Ok(Self {
            transactional_id: body.string("transactional id")?,
            producer_id: body.i64("producer id")?,
            producer_epoch: body.i16("producer epoch")?,
        })
    }
}
