//! SaslAuthenticate (key 36), versions 0–2: recognised, so that its frames confirm where a stream stands.
//!
//! KIP-152, KIP-368 (session lifetime, v1), KIP-482 (flexible, v2). It carries passwords: they are passed over where they
//! lie, no request of it is kept, and nothing is told of it.

use super::list::Struct;
use super::reader::{Reader, Result};
use super::table::Exchange;

/// See the module.
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
pub struct Response;

impl<'a> Struct<'a> for Response {
    fn read(version: i16, body: &mut Reader<'a>) -> Result<Self> {
        body.i16("error code")?;
        body.nullable_string("error message")?;
        body.nullable_bytes("auth bytes")?;
        if version >= 1 {
            body.i64("session lifetime")?;
        }
        body.skip_tagged_fields()?;
        Ok(Self)
    }
}

impl Exchange for SaslAuthenticate {
    const KEY: i16 = 36;
    type Request<'a> = Request;
    type Response<'a> = Response;
}
