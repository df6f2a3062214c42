//! ConsumerGroupHeartbeat (key 68), versions 0–1: a member of a group of the consumer protocol, and its assignment.
//!
//! KIP-848; KIP-1082 (the member makes its id, v1), subscription by regular expression (v1).

use super::assignment::{AssignedIds, read_ids, skip_ids};
use super::event::{Emit, Event, GroupProtocol, Member, MemberState};
use super::exchange::{Emits, Exchange};
use super::list::Struct;
use super::reader::{Reader, Result};

/// See the module.
pub struct ConsumerGroupHeartbeat;

/// Of ShareGroupHeartbeat too.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    pub group_id: &'a str,
    pub member_id: &'a str,
    /// 0 to join, −1 to leave, −2 for a static member that leaves for a while.
    pub member_epoch: i32,
    pub instance_id: Option<&'a str>,
}

impl<'a> Struct<'a> for Request<'a> {
    fn read(version: i16, body: &mut Reader<'a>) -> Result<Self> {
        let group_id = body.string("group id")?;
        let member_id = body.string("member id")?;
        let member_epoch = body.i32("member epoch")?;
        let instance_id = body.nullable_string("instance id")?;
        body.nullable_string("rack id")?;
        body.i32("rebalance timeout")?;
        body.skip_strings("subscribed topic names")?;
        if version >= 1 {
            body.nullable_string("subscribed topic regex")?;
        }
        body.nullable_string("server assignor")?;
        skip_ids(version, body)?;
        body.skip_tagged_fields()?;
        Ok(Self { group_id, member_id, member_epoch, instance_id })
    }
}

/// Of ShareGroupHeartbeat too.
#[derive(Clone, Copy, Debug)]
pub struct Response<'a> {
    pub error_code: i16,
    pub member_id: Option<&'a str>,
    pub member_epoch: i32,
    /// `None` where it has not changed.
    pub assignment: Option<AssignedIds<'a>>,
}

impl<'a> Struct<'a> for Response<'a> {
    fn read(version: i16, body: &mut Reader<'a>) -> Result<Self> {
        body.i32("throttle time")?;
        let error_code = body.i16("error code")?;
        body.nullable_string("error message")?;
        let member_id = body.nullable_string("member id")?;
        let member_epoch = body.i32("member epoch")?;
        body.i32("heartbeat interval")?;
        let assignment = read_ids(version, body)?;
        body.skip_tagged_fields()?;
        Ok(Self { error_code, member_id, member_epoch, assignment })
    }
}

impl Exchange for ConsumerGroupHeartbeat {
    const THROTTLED_SINCE: i16 = 0;
    type Request<'a> = Request<'a>;
    type Response<'a> = Response<'a>;
}

impl Emits for ConsumerGroupHeartbeat {
    fn emit(request: &Request<'_>, response: &Response<'_>, emit: &mut Emit<'_>) {
        emit_member(GroupProtocol::Consumer, request, response, emit);
    }
}

/// Tells a member and its assignment.
pub fn emit_member(
    protocol: GroupProtocol,
    request: &Request<'_>,
    response: &Response<'_>,
    emit: &mut Emit<'_>,
) {
    let group_id = request.group_id;
    let member_id = response.member_id.unwrap_or(request.member_id);
    let granted = response.error_code == 0;
    let generation_or_epoch = if granted { response.member_epoch } else { request.member_epoch };
    emit(&Event::Member(Member {
        protocol,
        group_id,
        member_id,
        instance_id: request.instance_id,
        generation_or_epoch,
        state: MemberState::of_epoch(request.member_epoch),
        error: response.error_code,
    }));
    if let Some(topics) = response.assignment.filter(|_| granted) {
        emit(&Event::AssignmentBegins { group_id, member_id, generation_or_epoch });
        for (topic, partition) in topics.partitions() {
            emit(&Event::Assigned { group_id, member_id, topic, partition });
        }
    }
}
