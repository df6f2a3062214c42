//! ShareAcknowledge (key 79), versions 0–2: what a member of a share group did with its records.
//!
//! KIP-932, KIP-1222 (renew, v2); version 0 was that of an early access in Kafka 4.0.

use super::event::Emit;
use super::exchange::{Emits, Exchange};
use super::list::{List, OfTopic, Struct};
use super::reader::{Reader, Result};
use super::share::{Acknowledgement, Acknowledger, skip_leader, skip_node_endpoints};
use super::topic::TopicPartition;

/// The [`Exchange`] of ShareAcknowledge.
pub struct ShareAcknowledge;

#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    pub group_id: Option<&'a str>,
    pub member_id: Option<&'a str>,
    pub topics: List<'a, OfTopic<'a, Asked<'a>, 0>>,
}

#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    pub partition: i32,
    pub acknowledgements: List<'a, Acknowledgement<'a>>,
}

impl<'a> Struct<'a> for Request<'a> {
    fn read(version: i16, body: &mut Reader<'a>) -> Result<Self> {
        let group_id = body.nullable_string("group id")?;
        let member_id = body.nullable_string("member id")?;
        body.i32("share session epoch")?;
        if version >= 2 {
            body.bool("is renew ack")?;
        }
        let topics = List::read(version, body, "topics")?;
        body.skip_tagged_fields()?;
        Ok(Self { group_id, member_id, topics })
    }
}

impl<'a> Struct<'a> for Asked<'a> {
    fn read(version: i16, body: &mut Reader<'a>) -> Result<Self> {
        let partition = body.i32("partition")?;
        let acknowledgements = List::read(version, body, "acknowledgement batches")?;
        body.skip_tagged_fields()?;
        Ok(Self { partition, acknowledgements })
    }
}

#[derive(Clone, Copy, Debug)]
pub struct Response<'a> {
    pub error_code: i16,
    pub topics: List<'a, OfTopic<'a, Outcome, 0>>,
}

#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    pub partition: i32,
    pub error_code: i16,
}

impl<'a> Struct<'a> for Response<'a> {
    fn read(version: i16, body: &mut Reader<'a>) -> Result<Self> {
        body.i32("throttle time")?;
        let error_code = body.i16("error code")?;
        body.nullable_string("error message")?;
        if version >= 2 {
            body.i32("acquisition lock timeout")?;
        }
        let topics = List::read(version, body, "topics")?;
        skip_node_endpoints(body)?;
        body.skip_tagged_fields()?;
        Ok(Self { error_code, topics })
    }
}

impl<'a> Struct<'a> for Outcome {
    fn read(_version: i16, body: &mut Reader<'a>) -> Result<Self> {
        let outcome = Self { partition: body.i32("partition")?, error_code: body.i16("error code")? };
        body.nullable_string("error message")?;
        skip_leader(body)?;
        body.skip_tagged_fields()?;
        Ok(outcome)
    }
}

impl Exchange for ShareAcknowledge {
    const THROTTLED_SINCE: i16 = 0;
    type Request<'a> = Request<'a>;
    type Response<'a> = Response<'a>;
}

impl Emits for ShareAcknowledge {
    fn emit(request: &Request<'_>, response: &Response<'_>, emit: &mut Emit<'_>) {
        let acknowledger = Acknowledger { group_id: request.group_id, member_id: request.member_id };
        let asked = request.topics.partitions();
        let outcomes = response.topics.partitions();
        acknowledger.emit(
            asked.map(|(topic, of)| (TopicPartition { topic, partition: of.partition }, of.acknowledgements)),
            outcomes.map(|(topic, of)| (TopicPartition { topic, partition: of.partition }, of.error_code)),
            response.error_code,
            emit,
        );
    }
}
