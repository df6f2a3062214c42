//! SyncGroup (key 14), versions 0–5: a member of a classic group gets its assignment.
//!
//! KIP-124 (throttle time, v1), KIP-345 (static members, v3), KIP-482 (flexible, v4), KIP-559
//! (protocol type, v5).

use super::assignment::Assignment;
use super::event::{Emit, Event, GroupProtocol, Member, MemberState};
use super::exchange::{Emits, Exchange};
use super::list::Struct;
use super::reader::{Reader, Result};

/// The [`Exchange`] of SyncGroup.
pub struct SyncGroup;

#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    pub group_id: &'a str,
    pub generation_id: i32,
    pub member_id: &'a str,
    pub group_instance_id: Option<&'a str>,
    /// From version 5 on: `consumer` for consumers; Kafka Connect and others have their own.
    pub protocol_type: Option<&'a str>,
}

impl<'a> Struct<'a> for Request<'a> {
    fn read(version: i16, body: &mut Reader<'a>) -> Result<Self> {
        let group_id = body.string("group id")?;
        let generation_id = body.i32("generation id")?;
        let member_id = body.string("member id")?;
        let group_instance_id = if version >= 3 { body.nullable_string("group instance id")? } else { None };
        let mut protocol_type = None;
        if version >= 5 {
            protocol_type = body.nullable_string("protocol type")?;
            body.nullable_string("protocol")?;
        }
        // Those of all members, from the leader alone.
        for _ in 0..body.array("assignments")? {
            body.string("member id")?;
            body.nullable_bytes("assignment")?;
            body.skip_tagged_fields()?;
        }
        body.skip_tagged_fields()?;
        Ok(Self { group_id, generation_id, member_id, group_instance_id, protocol_type })
    }
}

#[derive(Clone, Copy, Debug)]
pub struct Response<'a> {
    pub error_code: i16,
    /// As in the request.
    pub protocol_type: Option<&'a str>,
    /// What it says is a matter of the protocol type.
    pub assignment: &'a [u8],
}

impl<'a> Struct<'a> for Response<'a> {
    fn read(version: i16, body: &mut Reader<'a>) -> Result<Self> {
        if version >= 1 {
            body.i32("throttle time")?;
        }
        let error_code = body.i16("error code")?;
        let mut protocol_type = None;
        if version >= 5 {
            protocol_type = body.nullable_string("protocol type")?;
            body.nullable_string("protocol")?;
        }
        let assignment = body.nullable_bytes("assignment")?.unwrap_or_default();
        body.skip_tagged_fields()?;
        Ok(Self { error_code, protocol_type, assignment })
    }
}

impl Exchange for SyncGroup {
    const THROTTLED_SINCE: i16 = 1;
    type Request<'a> = Request<'a>;
    type Response<'a> = Response<'a>;
}

impl Emits for SyncGroup {
    fn emit(request: &Request<'_>, response: &Response<'_>, emit: &mut Emit<'_>) {
        let Request { group_id, generation_id, member_id, .. } = *request;
        emit(&Event::Member(Member {
            protocol: GroupProtocol::Classic,
            group_id,
            member_id,
            instance_id: request.group_instance_id,
            generation_or_epoch: generation_id,
            state: MemberState::Stable,
            error: response.error_code,
        }));
        // Before version 5 the protocol type is not there: if it reads as a consumer's to its end,
        // it is one.
        let protocol_type = response.protocol_type.or(request.protocol_type);
        if response.error_code != 0 || protocol_type.is_some_and(|of| of != "consumer") {
            return;
        }
        let Ok(assignment) = Assignment::of(response.assignment) else { return };
        if protocol_type.is_none() && !assignment.is_exact {
            return;
        }
        emit(&Event::AssignmentBegins { group_id, member_id, generation_or_epoch: generation_id });
        for (topic, partition) in assignment.topics.partitions() {
            emit(&Event::Assigned { group_id, member_id, topic, partition });
        }
    }
}
