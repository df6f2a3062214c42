//! StreamsGroupHeartbeat (key 88), versions 0–1: a member of a group of Kafka Streams, and its
//! tasks.
//!
//! KIP-1071, KIP-1331 (topology descriptions, v1). Version 1 of the response has the recovery lag
//! wider and at another place, and a flag more.

use super::event::{Emit, Event, GroupProtocol};
use super::exchange::{Emits, Exchange};
use super::list::{List, Struct};
use super::member::{Answer, Assignee, Heartbeat};
use super::reader::{Reader, Result};

/// The [`Exchange`] of StreamsGroupHeartbeat.
pub struct StreamsGroupHeartbeat;

#[derive(Clone, Copy, Debug)]
pub struct Request<'a>(pub Heartbeat<'a>);

impl<'a> Struct<'a> for Request<'a> {
    fn read(version: i16, body: &mut Reader<'a>) -> Result<Self> {
        let group_id = body.string("group id")?;
        let member_id = body.string("member id")?;
        let member_epoch = body.i32("member epoch")?;
        body.i32("endpoint information epoch")?;
        let instance_id = body.nullable_string("instance id")?;
        body.nullable_string("rack id")?;
        body.i32("rebalance timeout")?;
        if body.nullable_struct("topology")? {
            skip_topology(body)?;
        }
        for what in ["active tasks", "standby tasks", "warm-up tasks"] {
            List::<Tasks<'_>>::read(version, body, what)?;
        }
        body.nullable_string("process id")?;
        if body.nullable_struct("user endpoint")? {
            skip_endpoint(body)?;
        }
        skip_pairs(body, "client tags")?;
        for what in ["task offsets", "task end offsets"] {
            for _ in 0..body.array(what)? {
                body.string("subtopology id")?;
                body.i32("partition")?;
                body.i64("offset")?;
                body.skip_tagged_fields()?;
            }
        }
        body.bool("shutdown application")?;
        body.skip_tagged_fields()?;
        Ok(Self(Heartbeat { group_id, member_id, member_epoch, instance_id }))
    }
}

fn skip_topology(body: &mut Reader<'_>) -> Result<()> {
    body.i32("topology epoch")?;
    for _ in 0..body.array("subtopologies")? {
        body.string("subtopology id")?;
        body.skip_strings("source topics")?;
        body.skip_strings("source topic regex")?;
        skip_topic_infos(body, "state changelog topics")?;
        body.skip_strings("repartition sink topics")?;
        skip_topic_infos(body, "repartition source topics")?;
        for _ in 0..body.array("copartition groups")? {
            body.skip_array(2, "source topics")?;
            body.skip_array(2, "source topic regex")?;
            body.skip_array(2, "repartition source topics")?;
            body.skip_tagged_fields()?;
        }
        body.skip_tagged_fields()?;
    }
    body.skip_tagged_fields()
}

fn skip_topic_infos(body: &mut Reader<'_>, what: &'static str) -> Result<()> {
    for _ in 0..body.array(what)? {
        body.string("topic name")?;
        body.i32("partitions")?;
        body.i16("replication factor")?;
        skip_pairs(body, "topic configs")?;
        body.skip_tagged_fields()?;
    }
    Ok(())
}

fn skip_pairs(body: &mut Reader<'_>, what: &'static str) -> Result<()> {
    for _ in 0..body.array(what)? {
        body.string("key")?;
        body.string("value")?;
        body.skip_tagged_fields()?;
    }
    Ok(())
}

fn skip_endpoint(body: &mut Reader<'_>) -> Result<()> {
    body.string("host")?;
    body.i16("port")?;
    body.skip_tagged_fields()
}

#[derive(Clone, Copy, Debug)]
pub struct Response<'a> {
    pub error_code: i16,
    pub member_id: &'a str,
    pub member_epoch: i32,
    /// `None` where they have not changed.
    pub active_tasks: Option<List<'a, Tasks<'a>>>,
}

/// Tasks of one subtopology.
#[derive(Clone, Copy, Debug)]
pub struct Tasks<'a> {
    pub subtopology_id: &'a str,
    pub partitions: List<'a, i32>,
}

impl<'a> Struct<'a> for Response<'a> {
    fn read(version: i16, body: &mut Reader<'a>) -> Result<Self> {
        body.i32("throttle time")?;
        let error_code = body.i16("error code")?;
        body.nullable_string("error message")?;
        let member_id = body.string("member id")?;
        let member_epoch = body.i32("member epoch")?;
        body.i32("heartbeat interval")?;
        if version == 0 {
            body.i32("acceptable recovery lag")?;
        }
        body.i32("task offset interval")?;
        if version >= 1 {
            body.i64("acceptable recovery lag")?;
        }
        for _ in 0..body.array("status")? {
            body.i8("status code")?;
            body.string("status detail")?;
            body.skip_tagged_fields()?;
        }
        let active_tasks = List::read_nullable(version, body, "active tasks")?;
        List::<Tasks<'_>>::read(version, body, "standby tasks")?;
        List::<Tasks<'_>>::read(version, body, "warm-up tasks")?;
        if version >= 1 {
            body.bool("topology description required")?;
        }
        body.i32("endpoint information epoch")?;
        for _ in 0..body.array("partitions by user endpoint")? {
            skip_endpoint(body)?;
            for what in ["active partitions", "standby partitions"] {
                for _ in 0..body.array(what)? {
                    body.string("topic name")?;
                    body.skip_array(4, "partitions")?;
                    body.skip_tagged_fields()?;
                }
            }
            body.skip_tagged_fields()?;
        }
        body.skip_tagged_fields()?;
        Ok(Self { error_code, member_id, member_epoch, active_tasks })
    }
}

impl<'a> Struct<'a> for Tasks<'a> {
    fn read(version: i16, body: &mut Reader<'a>) -> Result<Self> {
        let subtopology_id = body.string("subtopology id")?;
        let partitions = List::read(version, body, "partitions")?;
        body.skip_tagged_fields()?;
        Ok(Self { subtopology_id, partitions })
    }
}

impl Exchange for StreamsGroupHeartbeat {
    const THROTTLED_SINCE: i16 = 0;
    type Request<'a> = Request<'a>;
    type Response<'a> = Response<'a>;
}

impl Emits for StreamsGroupHeartbeat {
    fn emit(Request(heartbeat): &Request<'_>, response: &Response<'_>, emit: &mut Emit<'_>) {
        let Response { error_code, member_id, member_epoch, active_tasks } = *response;
        let member_id = Some(member_id).filter(|id| !id.is_empty());
        let answer = Answer { error_code, member_id, member_epoch };
        let assignee = heartbeat.emit(GroupProtocol::Streams, answer, emit);
        let Some((assignee, tasks)) = assignee.zip(active_tasks) else { return };
        assignee.begin(emit);
        let Assignee { group_id, member_id, .. } = assignee;
        for Tasks { subtopology_id, partitions } in tasks.iter() {
            for partition in partitions.iter() {
                emit(&Event::AssignedTask { group_id, member_id, subtopology_id, partition });
            }
        }
    }
}
