//! Heartbeat (key 12), versions 0–4: a member of a classic group is still there.
//!
//! KIP-124 (throttle time, v1), KIP-345 (static members, v3), KIP-482 (flexible, v4).

use super::event::{Emit, Event, GroupProtocol, Member, MemberState};
use super::exchange::{Emits, Exchange};
use super::list::Struct;
use super::reader::{Reader, Result};

/// The [`Exchange`] of Heartbeat.
pub struct Heartbeat;

#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    pub group_id: &'a str,
    pub generation_id: i32,
    pub member_id: &'a str,
    pub group_instance_id: Option<&'a str>,
}

impl<'a> Struct<'a> for Request<'a> {
    fn read(version: i16, body: &mut Reader<'a>) -> Result<Self> {
        let request = Self {
            group_id: body.string("group id")?,
            generation_id: body.i32("generation id")?,
            member_id: body.string("member id")?,
            group_instance_id: if version >= 3 { body.nullable_string("group instance id")? } else { None },
        };
        body.skip_tagged_fields()?;
        Ok(request)
    }
}

#[derive(Clone, Copy, Debug)]
pub struct Response {
    pub error_code: i16,
}

impl<'a> Struct<'a> for Response {
    fn read(version: i16, body: &mut Reader<'a>) -> Result<Self> {
        if version >= 1 {
            body.i32("throttle time")?;
        }
        let error_code = body.i16("error code")?;
        body.skip_tagged_fields()?;
        Ok(Self { error_code })
    }
}

impl Exchange for Heartbeat {
    const THROTTLED_SINCE: i16 = 1;
    type Request<'a> = Request<'a>;
    type Response<'a> = Response;
}

impl Emits for Heartbeat {
    fn emit(request: &Request<'_>, response: &Response, emit: &mut Emit<'_>) {
        emit(&Event::Member(Member {
            protocol: GroupProtocol::Classic,
            group_id: request.group_id,
            member_id: request.member_id,
            instance_id: request.group_instance_id,
            generation_or_epoch: request.generation_id,
            state: MemberState::Stable,
            error: response.error_code,
        }));
    }
}
