//! SaslHandshake (key 17), versions 0–1: which mechanism authenticates.
//!
//! KIP-43, KIP-152 (v1). Both have one layout; the version says what follows: tokens in
//! SaslAuthenticate (v1), or raw ones in frames without any header (v0).

use super::event::{Emit, Event};
use super::exchange::{Emits, Exchange};
use super::list::Struct;
use super::reader::{Reader, Result};

/// The [`Exchange`] of SaslHandshake.
pub struct SaslHandshake;

#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    pub mechanism: &'a str,
}

impl<'a> Struct<'a> for Request<'a> {
    fn read(_version: i16, body: &mut Reader<'a>) -> Result<Self> {
        Ok(Self { mechanism: body.string("mechanism")? })
    }
}

#[derive(Clone, Copy, Debug)]
pub struct Response {
    pub error_code: i16,
}

impl<'a> Struct<'a> for Response {
    fn read(_version: i16, body: &mut Reader<'a>) -> Result<Self> {
        let error_code = body.i16("error code")?;
        body.skip_strings("mechanisms")?;
        Ok(Self { error_code })
    }
}

impl Exchange for SaslHandshake {
    type Request<'a> = Request<'a>;
    type Response<'a> = Response;
}

impl Emits for SaslHandshake {
    fn emit(request: &Request<'_>, response: &Response, emit: &mut Emit<'_>) {
        emit(&Event::Sasl { mechanism: request.mechanism, error: response.error_code });
    }
}
