//! ShareFetch (key 78), versions 0–2: the records that a member of a share group acquires, and what it acknowledges on
//! the way.
//!
//! KIP-932, KIP-1206 (acquire mode, v2), KIP-1222 (renew, v2); version 0 was that of an early access in Kafka 4.0.

use super::answers::Answers;
use super::event::{Emit, Event};
use super::exchange::Exchange;
use super::list::{List, OfTopic, Struct};
use super::reader::{Reader, Result};
use super::topic::Topic;

/// See the module.
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

/// What becomes of messages that were acquired before.
#[derive(Clone, Copy, Debug)]
pub struct Acknowledgement<'a> {
    pub first_offset: i64,
    pub last_offset: i64,
    /// One for each offset, or one for all.
    pub types: &'a [u8],
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

impl<'a> Struct<'a> for Acknowledgement<'a> {
    fn read(_version: i16, body: &mut Reader<'a>) -> Result<Self> {
        let first_offset = body.i64("first offset")?;
        let last_offset = body.i64("last offset")?;
        let count = body.array("acknowledge types")?;
        let types = body.take(count, "acknowledge types")?;
        body.skip_tagged_fields()?;
        Ok(Self { first_offset, last_offset, types })
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

/// Skips a partition's leader; a plain struct in these APIs.
pub fn skip_leader(body: &mut Reader<'_>) -> Result<()> {
    body.i32("leader id")?;
    body.i32("leader epoch")?;
    body.skip_tagged_fields()
}

/// Skips where the leaders are.
pub fn skip_node_endpoints(body: &mut Reader<'_>) -> Result<()> {
    for _ in 0..body.array("node endpoints")? {
        body.i32("node id")?;
        body.string("host")?;
        body.i32("port")?;
        body.nullable_string("rack")?;
        body.skip_tagged_fields()?;
    }
    Ok(())
}

impl Exchange for ShareFetch {
    const THROTTLED_SINCE: i16 = 0;
    type Request<'a> = Request<'a>;
    type Response<'a> = Response<'a>;
}

/// Tells what the request acknowledges.
pub fn emit_acknowledged(request: &Request<'_>, response: &Response<'_>, emit: &mut Emit<'_>) {
    let outcomes = response.topics.partitions();
    let mut answers =
        Answers::new(outcomes.map(|(topic, of)| ((topic, of.partition), of.acknowledge_error_code)));
    let acknowledger = Acknowledger { group_id: request.group_id, member_id: request.member_id };
    for (topic, Asked { partition, acknowledgements }) in request.topics.partitions() {
        // A partition that has neither records nor an error may be left out of the response.
        let error = answers.of((topic, partition)).unwrap_or(0);
        let error = if response.error_code != 0 { response.error_code } else { error };
        acknowledger.emit(topic, partition, &acknowledgements, error, emit);
    }
}

/// Who acknowledges.
#[derive(Clone, Copy, Debug)]
pub struct Acknowledger<'a> {
    pub group_id: Option<&'a str>,
    pub member_id: Option<&'a str>,
}

impl<'a> Acknowledger<'a> {
    /// Tells what is acknowledged of one partition.
    pub fn emit(
        &self,
        topic: Topic<'a>,
        partition: i32,
        acknowledgements: &List<'a, Acknowledgement<'a>>,
        error: i16,
        emit: &mut Emit<'_>,
    ) {
        for Acknowledgement { first_offset, last_offset, types } in acknowledgements.iter() {
            emit(&Event::Acknowledged {
                group_id: self.group_id.unwrap_or_default(),
                member_id: self.member_id.unwrap_or_default(),
                topic,
                partition,
                first_offset,
                last_offset,
                types,
                error,
            });
        }
    }
}
