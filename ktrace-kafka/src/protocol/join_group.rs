//! JoinGroup (key 11), versions 0–9: a member of a classic group comes.
//!
//! KIP-62 (rebalance timeout, v1), KIP-124 (throttle time, v2), KIP-394 (member id required, v4),
//! KIP-345 (static members, v5), KIP-482 (flexible, v6), KIP-559 (protocol type, v7), KIP-800
//! (reason, v8), KIP-814 (skip assignment, v9).

use super::event::{Emit, Event, GroupProtocol, Member, MemberState};
use super::exchange::{Emits, Exchange};
use super::list::Struct;
use super::reader::{Reader, Result};

/// The [`Exchange`] of JoinGroup.
pub struct JoinGroup;

#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    pub group_id: &'a str,
    /// Empty at first.
    pub member_id: &'a str,
    pub group_instance_id: Option<&'a str>,
}

impl<'a> Struct<'a> for Request<'a> {
    fn read(version: i16, body: &mut Reader<'a>) -> Result<Self> {
        let group_id = body.string("group id")?;
        body.i32("session timeout")?;
        if version >= 1 {
            body.i32("rebalance timeout")?;
        }
        let member_id = body.string("member id")?;
        let group_instance_id = if version >= 5 { body.nullable_string("group instance id")? } else { None };
        body.string("protocol type")?;
        for _ in 0..body.array("protocols")? {
            body.string("protocol")?;
            body.nullable_bytes("metadata")?;
            body.skip_tagged_fields()?;
        }
        if version >= 8 {
            body.nullable_string("reason")?;
        }
        body.skip_tagged_fields()?;
        Ok(Self { group_id, member_id, group_instance_id })
    }
}

#[derive(Clone, Copy, Debug)]
pub struct Response<'a> {
    pub error_code: i16,
    pub generation_id: i32,
    /// Given to a member that had none.
    pub member_id: &'a str,
}

impl<'a> Struct<'a> for Response<'a> {
    fn read(version: i16, body: &mut Reader<'a>) -> Result<Self> {
        if version >= 2 {
            body.i32("throttle time")?;
        }
        let error_code = body.i16("error code")?;
        let generation_id = body.i32("generation id")?;
        if version >= 7 {
            body.nullable_string("protocol type")?;
        }
        body.nullable_string("protocol")?;
        body.string("leader")?;
        if version >= 9 {
            body.bool("skip assignment")?;
        }
        let member_id = body.string("member id")?;
        for _ in 0..body.array("members")? {
            body.string("member id")?;
            if version >= 5 {
                body.nullable_string("group instance id")?;
            }
            body.nullable_bytes("metadata")?;
            body.skip_tagged_fields()?;
        }
        body.skip_tagged_fields()?;
        Ok(Self { error_code, generation_id, member_id })
    }
}

impl Exchange for JoinGroup {
    const THROTTLED_SINCE: i16 = 2;
    type Request<'a> = Request<'a>;
    type Response<'a> = Response<'a>;
}

impl Emits for JoinGroup {
    fn emit(request: &Request<'_>, response: &Response<'_>, emit: &mut Emit<'_>) {
        let member_id = if response.member_id.is_empty() { request.member_id } else { response.member_id };
        emit(&Event::Member(Member {
            protocol: GroupProtocol::Classic,
            group_id: request.group_id,
            member_id,
            instance_id: request.group_instance_id,
            generation_or_epoch: response.generation_id,
            state: MemberState::Joining,
            error: response.error_code,
        }));
    }
}
