//! AddOffsetsToTxn (key 25), versions 0–4: a transaction commits a group's offsets.
//!
//! KIP-98, KIP-588 (v2), KIP-482 (flexible, v3), KIP-890 (v4).

use super::event::{Emit, Event, Transaction};
use super::exchange::{Emits, Exchange};
use super::list::Struct;
use super::reader::{Reader, Result};

/// The [`Exchange`] of AddOffsetsToTxn.
pub struct AddOffsetsToTxn;

#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    pub transaction: Transaction<'a>,
    pub group_id: &'a str,
}

impl<'a> Struct<'a> for Request<'a> {
    fn read(version: i16, body: &mut Reader<'a>) -> Result<Self> {
        let transaction = Transaction::read(version, body)?;
        let group_id = body.string("group id")?;
        body.skip_tagged_fields()?;
        Ok(Self { transaction, group_id })
    }
}

#[derive(Clone, Copy, Debug)]
pub struct Response {
    pub error_code: i16,
}

impl<'a> Struct<'a> for Response {
    fn read(_version: i16, body: &mut Reader<'a>) -> Result<Self> {
        body.i32("throttle time")?;
        let error_code = body.i16("error code")?;
        body.skip_tagged_fields()?;
        Ok(Self { error_code })
    }
}

impl Exchange for AddOffsetsToTxn {
    const THROTTLED_SINCE: i16 = 0;
    type Request<'a> = Request<'a>;
    type Response<'a> = Response;
}

impl Emits for AddOffsetsToTxn {
    fn emit(request: &Request<'_>, response: &Response, emit: &mut Emit<'_>) {
        let Request { transaction, group_id } = *request;
        emit(&Event::TransactionGroup { transaction, group_id, error: response.error_code });
    }
}
