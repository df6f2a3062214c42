//! DescribeTopicPartitions (key 75), version 0: names and ids of topics.
//!
//! KIP-966.

use super::event::Emit;
use super::exchange::{EmitsOfResponse, Exchange};
use super::list::{List, Struct};
use super::metadata::TopicNames;
use super::reader::{Reader, Result};

/// The [`Exchange`] of DescribeTopicPartitions.
pub struct DescribeTopicPartitions;

/// Nothing of it is wanted.
#[derive(Clone, Copy, Debug)]
pub struct Request;

impl<'a> Struct<'a> for Request {
    fn read(_version: i16, body: &mut Reader<'a>) -> Result<Self> {
        for _ in 0..body.array("topics")? {
            body.string("topic name")?;
            body.skip_tagged_fields()?;
        }
        body.i32("response partition limit")?;
        skip_cursor(body)?;
        body.skip_tagged_fields()?;
        Ok(Self)
    }
}

#[derive(Clone, Copy, Debug)]
pub struct Response<'a> {
    pub topics: List<'a, Described<'a>>,
}

/// A topic's names, in another struct than Metadata's.
#[derive(Clone, Copy, Debug)]
pub struct Described<'a>(pub TopicNames<'a>);

impl<'a> Struct<'a> for Response<'a> {
    fn read(version: i16, body: &mut Reader<'a>) -> Result<Self> {
        body.i32("throttle time")?;
        let topics = List::read(version, body, "topics")?;
        skip_cursor(body)?;
        body.skip_tagged_fields()?;
        Ok(Self { topics })
    }
}

impl<'a> Struct<'a> for Described<'a> {
    fn read(_version: i16, body: &mut Reader<'a>) -> Result<Self> {
        let error = body.i16("error code")?;
        let name = body.nullable_string("topic name")?;
        let id = body.uuid("topic id")?;
        body.bool("is internal")?;
        for _ in 0..body.array("partitions")? {
            body.i16("error code")?;
            body.i32("partition")?;
            body.i32("leader")?;
            body.i32("leader epoch")?;
            body.skip_array(4, "replicas")?;
            body.skip_array(4, "in-sync replicas")?;
            body.skip_array(4, "eligible leader replicas")?;
            body.skip_array(4, "last known eligible leader replicas")?;
            body.skip_array(4, "offline replicas")?;
            body.skip_tagged_fields()?;
        }
        body.i32("topic authorized operations")?;
        body.skip_tagged_fields()?;
        Ok(Self(TopicNames { id, name, error }))
    }
}

fn skip_cursor(body: &mut Reader<'_>) -> Result<()> {
    if body.nullable_struct("cursor")? {
        body.string("topic name")?;
        body.i32("partition")?;
        body.skip_tagged_fields()?;
    }
    Ok(())
}

impl Exchange for DescribeTopicPartitions {
    const THROTTLED_SINCE: i16 = 0;
    type Request<'a> = Request;
    type Response<'a> = Response<'a>;
}

impl EmitsOfResponse for DescribeTopicPartitions {
    fn emit(response: &Response<'_>, emit: &mut Emit<'_>) {
        response.topics.iter().for_each(|Described(topic)| topic.emit(emit));
    }
}
