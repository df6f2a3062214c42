//! ConsumerGroupHeartbeat (key 68), versions 0–1: a member of a group of the consumer protocol, and
//! its assignment.
//!
//! KIP-848; KIP-1082 (the member makes its id, v1), subscription by regular expression (v1).

use super::assignment::{AssignedIds, read_ids, skip_ids};
use super::event::{Emit, Event, GroupProtocol};
use super::exchange::{Emits, Exchange};
use super::list::Struct;
use super::member::{Answer, Assignee, Heartbeat};
use super::reader::{Reader, Result};

/// The [`Exchange`] of ConsumerGroupHeartbeat.
pub struct ConsumerGroupHeartbeat;

#[derive(Clone, Copy, Debug)]
pub struct Request<'a>(pub Heartbeat<'a>);

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
        Ok(Self(Heartbeat { group_id, member_id, member_epoch, instance_id }))
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
    fn emit(Request(heartbeat): &Request<'_>, response: &Response<'_>, emit: &mut Emit<'_>) {
        response.emit(GroupProtocol::Consumer, heartbeat, emit);
    }
}

impl<'a> Response<'a> {
    /// Emits a member and its assignment.
    pub fn emit(&self, protocol: GroupProtocol, heartbeat: &Heartbeat<'a>, emit: &mut Emit<'_>) {
        let Self { error_code, member_id, member_epoch, assignment } = *self;
        let answer = Answer { error_code, member_id, member_epoch };
        let assignee = heartbeat.emit(protocol, answer, emit);
        let Some((assignee, topics)) = assignee.zip(assignment) else { return };
        assignee.begin(emit);
        let Assignee { group_id, member_id, .. } = assignee;
        for (topic, partition) in topics.partitions() {
            emit(&Event::Assigned { group_id, member_id, topic, partition });
        }
    }
}
