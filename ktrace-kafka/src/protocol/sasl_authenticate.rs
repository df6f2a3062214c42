//! SaslAuthenticate (key 36), versions 0–2: recognised, so that its frames confirm where a stream
//! stands.
//!
//! KIP-152, KIP-368 (session lifetime, v1), KIP-482 (flexible, v2). It carries passwords: they are
//! passed over where they lie, no request of it is kept, and all that is said of it is that the
//! broker refuses.

use super::event::{Emit, Event};
use super::exchange::{EmitsOfResponse, Exchange};
use super::list::Struct;
use super::reader::{Reader, Result};

/// The [`Exchange`] of SaslAuthenticate.
pub struct SaslAuthenticate;

#[derive(Clone, Copy, Debug)]
pub struct Request;

impl<'a> Struct<'a> for Request {
    fn read(_version: i16, body: &mut Reader<'a>) -> Result<Self> {
        body.nullable_bytes("auth bytes")?;
        body.skip_tagged_fields()?;
        Ok(Self)
    }
}

#[derive(Clone, Copy, Debug)]
pub struct Response {
    /// 0 for none.
    pub error: i16,
}

impl<'a> Struct<'a> for Response {
    fn read(version: i16, body: &mut Reader<'a>) -> Result<Self> {
        let error = body.i16("error code")?;
        body.nullable_string("error message")?;
        body.nullable_bytes("auth bytes")?;
        if version >= 1 {
            body.i64("session lifetime")?;
        }
        body.skip_tagged_fields()?;
        Ok(Self { error })
    }
}

impl Exchange for SaslAuthenticate {
    type Request<'a> = Request;
    type Response<'a> = Response;
}

impl EmitsOfResponse for SaslAuthenticate {
    fn emit(response: &Response, emit: &mut Emit<'_>) {
        if response.error != 0 {
            let error = response.error;
            emit(&Event::Refused { topic: None, partition: None, offset: -1, group_id: None, error });
        }
    }
}
