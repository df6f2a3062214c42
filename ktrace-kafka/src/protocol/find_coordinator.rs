//! FindCoordinator (key 10), versions 0–6: the broker that coordinates a group or a transaction.
//!
//! KIP-98 (transactions, v1), KIP-482 (flexible, v3), KIP-699 (several at once, v4), KIP-890 (v5),
//! KIP-932 (share groups, v6).

use super::event::{CoordinatorKind, Emit, Event};
use super::exchange::{Emits, Exchange};
use super::list::{List, Struct};
use super::reader::{Reader, Result};

/// The [`Exchange`] of FindCoordinator.
pub struct FindCoordinator;

#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Before version 4.
    pub key: &'a str,
    /// 0 group, 1 transaction, 2 share.
    pub key_type: i8,
}

impl<'a> Struct<'a> for Request<'a> {
    fn read(version: i16, body: &mut Reader<'a>) -> Result<Self> {
        let key = if version < 4 { body.string("key")? } else { "" };
        let key_type = if version >= 1 { body.i8("key type")? } else { 0 };
        if version >= 4 {
            body.skip_strings("coordinator keys")?;
        }
        body.skip_tagged_fields()?;
        Ok(Self { key, key_type })
    }
}

#[derive(Clone, Copy, Debug)]
pub struct Response<'a> {
    /// Before version 4: that of the request's key.
    pub alone: Option<Coordinator<'a>>,
    pub coordinators: List<'a, Coordinator<'a>>,
}

#[derive(Clone, Copy, Debug)]
pub struct Coordinator<'a> {
    /// From version 4 on.
    pub key: &'a str,
    pub node_id: i32,
    pub host: &'a str,
    pub port: i32,
    pub error_code: i16,
}

impl<'a> Struct<'a> for Response<'a> {
    fn read(version: i16, body: &mut Reader<'a>) -> Result<Self> {
        if version >= 1 {
            body.i32("throttle time")?;
        }
        let mut response = Self { alone: None, coordinators: List::empty() };
        if version >= 4 {
            response.coordinators = List::read(version, body, "coordinators")?;
        } else {
            let error_code = body.i16("error code")?;
            if version >= 1 {
                body.nullable_string("error message")?;
            }
            response.alone = Some(Coordinator {
                key: "",
                node_id: body.i32("node id")?,
                host: body.string("host")?,
                port: body.i32("port")?,
                error_code,
            });
        }
        body.skip_tagged_fields()?;
        Ok(response)
    }
}

impl<'a> Struct<'a> for Coordinator<'a> {
    fn read(_version: i16, body: &mut Reader<'a>) -> Result<Self> {
        let coordinator = Self {
            key: body.string("key")?,
            node_id: body.i32("node id")?,
            host: body.string("host")?,
            port: body.i32("port")?,
            error_code: body.i16("error code")?,
        };
        body.nullable_string("error message")?;
        body.skip_tagged_fields()?;
        Ok(coordinator)
    }
}

impl Exchange for FindCoordinator {
    const THROTTLED_SINCE: i16 = 1;
    type Request<'a> = Request<'a>;
    type Response<'a> = Response<'a>;
}

impl Emits for FindCoordinator {
    fn emit(request: &Request<'_>, response: &Response<'_>, emit: &mut Emit<'_>) {
        let kind = match request.key_type {
            0 => CoordinatorKind::Group,
            1 => CoordinatorKind::Transaction,
            2 => CoordinatorKind::Share,
            _ => return,
        };
        let alone = response.alone.map(|coordinator| Coordinator { key: request.key, ..coordinator });
        for Coordinator { key, node_id, host, port, error_code } in
            alone.into_iter().chain(response.coordinators.iter())
        {
            emit(&Event::Coordinator { kind, key, node_id, host, port, error: error_code });
        }
    }
}
