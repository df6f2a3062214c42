//! ShareFetch (key 78), versions 0–2: the records that a member of a share group acquires, and what
//! it acknowledges on the way.
//!
//! KIP-932, KIP-1206 (acquire mode, v2), KIP-1222 (renew, v2); version 0 was that of an early
//! access in Kafka 4.0.

use super::event::Emit;
use super::exchange::Exchange;
use super::list::{List, OfTopic, Struct};
use super::reader::{Reader, Result};
use super::share::{Acknowledgement, Acknowledger, skip_leader, skip_node_endpoints};
use super::topic::TopicPartition;

/// The [`Exchange`] of ShareFetch.
pub struct ShareFetch;

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
        body.i32("max wait")?;
        body.i32("min bytes")?;
        body.i32("max bytes")?;
        if version >= 1 {
            body.i32("max records")?;
            body.i32("batch size")?;
        }
        if version >= 2 {
            body.i8("share acquire mode")?;
            body.bool("is renew ack")?;
        }
        let topics = List::read(version, body, "topics")?;
        List::<OfTopic<'_, i32, 0>>::read(version, body, "forgotten topics")?;
        body.skip_tagged_fields()?;
        Ok(Self { group_id, member_id, topics })
    }
}

impl<'a> Struct<'a> for Asked<'a> {
    fn read(version: i16, body: &mut Reader<'a>) -> Result<Self> {
        let partition = body.i32("partition")?;
        if version == 0 {
            body.i32("partition max bytes")?;
        }
        let acknowledgements = List::read(version, body, "acknowledgement batches")?;
        body.skip_tagged_fields()?;
        Ok(Self { partition, acknowledgements })
    }
}

#[derive(Clone, Copy, Debug)]
pub struct Response<'a> {
    pub error_code: i16,
    pub topics: List<'a, OfTopic<'a, Fetched<'a>, 0>>,
}

#[derive(Clone, Copy, Debug)]
pub struct Fetched<'a> {
    pub partition: i32,
    pub error_code: i16,
    pub acknowledge_error_code: i16,
    /// Whole batches of the log: more than was acquired.
    pub records: &'a [u8],
    /// The offsets that are delivered.
    pub acquired: List<'a, Acquired>,
}

/// Offsets that the member has acquired.
#[derive(Clone, Copy, Debug)]
pub struct Acquired {
    pub first_offset: i64,
    pub last_offset: i64,
    /// 1 for the first time.
    pub delivery_count: i16,
}

impl<'a> Struct<'a> for Response<'a> {
    fn read(version: i16, body: &mut Reader<'a>) -> Result<Self> {
        body.i32("throttle time")?;
        let error_code = body.i16("error code")?;
        body.nullable_string("error message")?;
        if version >= 1 {
            body.i32("acquisition lock timeout")?;
        }
        let topics = List::read(version, body, "topics")?;
        skip_node_endpoints(body)?;
        body.skip_tagged_fields()?;
        Ok(Self { error_code, topics })
    }
}

impl<'a> Struct<'a> for Fetched<'a> {
    fn read(version: i16, body: &mut Reader<'a>) -> Result<Self> {
        let partition = body.i32("partition")?;
        let error_code = body.i16("error code")?;
        body.nullable_string("error message")?;
        let acknowledge_error_code = body.i16("acknowledge error code")?;
        body.nullable_string("acknowledge error message")?;
        skip_leader(body)?;
        let records = body.nullable_bytes("records")?.unwrap_or_default();
        let acquired = List::read(version, body, "acquired records")?;
        body.skip_tagged_fields()?;
        Ok(Self { partition, error_code, acknowledge_error_code, records, acquired })
    }
}

impl<'a> Struct<'a> for Acquired {
    fn read(_version: i16, body: &mut Reader<'a>) -> Result<Self> {
        let acquired = Self {
            first_offset: body.i64("first offset")?,
            last_offset: body.i64("last offset")?,
            delivery_count: body.i16("delivery count")?,
        };
        body.skip_tagged_fields()?;
        Ok(acquired)
    }
}

impl Exchange for ShareFetch {
    const THROTTLED_SINCE: i16 = 0;
    type Request<'a> = Request<'a>;
    type Response<'a> = Response<'a>;
}

/// Emits what the request acknowledges.
pub fn emit_acknowledged(request: &Request<'_>, response: &Response<'_>, emit: &mut Emit<'_>) {
    let acknowledger = Acknowledger { group_id: request.group_id, member_id: request.member_id };
    let asked = request.topics.partitions();
    let outcomes = response.topics.partitions();
    acknowledger.emit(
        asked.map(|(topic, of)| (TopicPartition { topic, partition: of.partition }, of.acknowledgements)),
        outcomes.map(|(topic, of)| {
            (TopicPartition { topic, partition: of.partition }, of.acknowledge_error_code)
        }),
        response.error_code,
        emit,
    );
}
