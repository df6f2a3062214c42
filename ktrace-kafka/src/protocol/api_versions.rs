//! ApiVersions (key 18), versions 0–5: which software the client is.
//!
//! KIP-35, KIP-511 (client software, v3), KIP-584 (features, v3), KIP-1242 (cluster and node, v5).

use super::event::{Emit, Event};
use super::exchange::{Emits, Exchange};
use super::list::Struct;
use super::reader::{Reader, Result};

/// The [`Exchange`] of ApiVersions.
pub struct ApiVersions;

/// UNSUPPORTED_VERSION.
const UNSUPPORTED_VERSION: i16 = 35;

/// What a client says of itself; empty before version 3.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    pub client_software_name: &'a str,
    pub client_software_version: &'a str,
}

impl<'a> Struct<'a> for Request<'a> {
    fn read(version: i16, body: &mut Reader<'a>) -> Result<Self> {
        let mut request = Self { client_software_name: "", client_software_version: "" };
        if version >= 3 {
            request.client_software_name = body.string("client software name")?;
            request.client_software_version = body.string("client software version")?;
        }
        if version >= 5 {
            body.nullable_string("cluster id")?;
            body.i32("node id")?;
        }
        body.skip_tagged_fields()?;
        Ok(request)
    }
}

/// Nothing of it is wanted.
#[derive(Clone, Copy, Debug)]
pub struct Response;

impl<'a> Struct<'a> for Response {
    fn read(version: i16, body: &mut Reader<'a>) -> Result<Self> {
        let error_code = body.i16("error code")?;
        // A broker that does not know the version answers as in version 0, so that any client can
        // read it; its array has fewer elements than would begin with another byte than 0.
        // librdkafka's mock answers in the version that was asked for, which its clients do not
        // mind: the error is enough for them to ask again in version 0.
        let version =
            if error_code == UNSUPPORTED_VERSION && body.left().first().is_none_or(|first| *first == 0) {
                *body = Reader::new(body.left(), false);
                0
            } else {
                version
            };
        for _ in 0..body.array("api keys")? {
            body.take(6, "api key")?;
            body.skip_tagged_fields()?;
        }
        if version >= 1 {
            body.i32("throttle time")?;
        }
        body.skip_tagged_fields()?;
        Ok(Self)
    }
}

impl Exchange for ApiVersions {
    type Request<'a> = Request<'a>;
    type Response<'a> = Response;
}

impl Emits for ApiVersions {
    fn emit(request: &Request<'_>, _response: &Response, emit: &mut Emit<'_>) {
        if !request.client_software_name.is_empty() {
            emit(&Event::Software {
                name: request.client_software_name,
                version: request.client_software_version,
            });
        }
    }
}
