//! ApiVersions (key 18, KIP-35, KIP-511): which software the client is.

use super::reader::{Reader, Result};

/// What a client says of itself, version 3 and later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientSoftware<'a> {
    pub name: &'a str,
    pub version: &'a str,
}

/// Reads a request; `None` for versions that say nothing.
pub fn read_request(version: i16, mut body: Reader<'_>) -> Result<Option<ClientSoftware<'_>>> {
    if version < 3 {
        return Ok(None);
    }
    let name = body.string("client software name")?;
    let version = body.string("client software version")?;
    Ok(Some(ClientSoftware { name, version }))
}
