//! ShareGroupHeartbeat (key 76), versions 0–1: a member of a share group, and its assignment.
//!
//! KIP-932; version 0 was that of an early access in Kafka 4.0 and has the same layout.

use super::consumer_group_heartbeat::Response;
use super::event::{Emit, GroupProtocol};
use super::exchange::{Emits, Exchange};
use super::list::Struct;
use super::member::Heartbeat;
use super::reader::{Reader, Result};

/// The [`Exchange`] of ShareGroupHeartbeat.
pub struct ShareGroupHeartbeat;

/// With fewer fields than in ConsumerGroupHeartbeat.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a>(pub Heartbeat<'a>);

impl<'a> Struct<'a> for Request<'a> {
    fn read(_version: i16, body: &mut Reader<'a>) -> Result<Self> {
        let heartbeat = Heartbeat {
            group_id: body.string("group id")?,
            member_id: body.string("member id")?,
            member_epoch: body.i32("member epoch")?,
            instance_id: None,
        };
        body.nullable_string("rack id")?;
        body.skip_strings("subscribed topic names")?;
        body.skip_tagged_fields()?;
        Ok(Self(heartbeat))
    }
}

impl Exchange for ShareGroupHeartbeat {
    const THROTTLED_SINCE: i16 = 0;
    type Request<'a> = Request<'a>;
    type Response<'a> = Response<'a>;
}

impl Emits for ShareGroupHeartbeat {
    fn emit(Request(heartbeat): &Request<'_>, response: &Response<'_>, emit: &mut Emit<'_>) {
        response.emit(GroupProtocol::Share, heartbeat, emit);
    }
}
