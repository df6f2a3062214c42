//! InitProducerId (key 22), versions 0–6: a producer gets its id.
//!
//! KIP-98, KIP-482 (flexible, v2), KIP-360 (the id that it had, v3), KIP-588 (v4), KIP-890 (v5),
//! KIP-939 (two-phase commit, v6).

use super::event::{Emit, Event};
use super::exchange::{Emits, Exchange};
use super::list::Struct;
use super::reader::{Reader, Result};

/// The [`Exchange`] of InitProducerId.
pub struct InitProducerId;

#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    pub transactional_id: Option<&'a str>,
}

impl<'a> Struct<'a> for Request<'a> {
    fn read(version: i16, body: &mut Reader<'a>) -> Result<Self> {
        let transactional_id = body.nullable_string("transactional id")?;
        body.i32("transaction timeout")?;
        if version >= 3 {
            body.i64("producer id")?;
            body.i16("producer epoch")?;
        }
        if version >= 6 {
            body.bool("enable two-phase commit")?;
            body.bool("keep prepared transaction")?;
        }
        body.skip_tagged_fields()?;
        Ok(Self { transactional_id })
    }
}

#[derive(Clone, Copy, Debug)]
pub struct Response {
    pub error_code: i16,
    pub producer_id: i64,
    pub producer_epoch: i16,
}

impl<'a> Struct<'a> for Response {
    fn read(version: i16, body: &mut Reader<'a>) -> Result<Self> {
        body.i32("throttle time")?;
        let response = Self {
            error_code: body.i16("error code")?,
            producer_id: body.i64("producer id")?,
            producer_epoch: body.i16("producer epoch")?,
        };
        if version >= 6 {
            body.i64("ongoing transaction's producer id")?;
            body.i16("ongoing transaction's producer epoch")?;
        }
        body.skip_tagged_fields()?;
        Ok(response)
    }
}

impl Exchange for InitProducerId {
    const THROTTLED_SINCE: i16 = 0;
    type Request<'a> = Request<'a>;
    type Response<'a> = Response;
}

impl Emits for InitProducerId {
    fn emit(request: &Request<'_>, response: &Response, emit: &mut Emit<'_>) {
        emit(&Event::Producer {
            transactional_id: request.transactional_id,
            producer_id: response.producer_id,
            producer_epoch: response.producer_epoch,
            error: response.error_code,
        });
    }
}
