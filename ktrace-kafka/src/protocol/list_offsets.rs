//! ListOffsets (key 2), versions 0–11: offsets of the log by time.
//!
//! KIP-79 (one offset, v1), KIP-98 (isolation, v2), KIP-124 (throttle time, v2), KIP-320 (leader
//! epoch, v4), KIP-482 (flexible, v6), KIP-734 (v7), KIP-405 (v8), KIP-1005 (v9), KIP-1075
//! (timeout, v10), KIP-1023 (v11).

use super::answers::Answers;
use super::event::{Emit, Event};
use super::exchange::{Emits, Exchange};
use super::list::{List, NO_IDS, OfTopic, Struct};
use super::reader::{Reader, Result};
use super::topic::TopicPartition;

/// The [`Exchange`] of ListOffsets.
pub struct ListOffsets;

#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The follower's broker id; negative for a client.
    pub replica_id: i32,
    pub topics: List<'a, OfTopic<'a, Asked, NO_IDS>>,
}

#[derive(Clone, Copy, Debug)]
pub struct Asked {
    pub partition: i32,
    pub timestamp: i64,
}

impl<'a> Struct<'a> for Request<'a> {
    fn read(version: i16, body: &mut Reader<'a>) -> Result<Self> {
        let replica_id = body.i32("replica id")?;
        if version >= 2 {
            body.i8("isolation level")?;
        }
        let topics = List::read(version, body, "topics")?;
        if version >= 10 {
            body.i32("timeout")?;
        }
        body.skip_tagged_fields()?;
        Ok(Self { replica_id, topics })
    }
}

impl<'a> Struct<'a> for Asked {
    fn read(version: i16, body: &mut Reader<'a>) -> Result<Self> {
        let partition = body.i32("partition")?;
        if version >= 4 {
            body.i32("current leader epoch")?;
        }
        let timestamp = body.i64("timestamp")?;
        if version == 0 {
            body.i32("max num offsets")?;
        }
        body.skip_tagged_fields()?;
        Ok(Self { partition, timestamp })
    }
}

#[derive(Clone, Copy, Debug)]
pub struct Response<'a> {
    pub topics: List<'a, OfTopic<'a, Listed, NO_IDS>>,
}

#[derive(Clone, Copy, Debug)]
pub struct Listed {
    pub partition: i32,
    pub error_code: i16,
    /// −1 for none. In version 0, which may list several, the first.
    pub offset: i64,
}

impl<'a> Struct<'a> for Response<'a> {
    fn read(version: i16, body: &mut Reader<'a>) -> Result<Self> {
        if version >= 2 {
            body.i32("throttle time")?;
        }
        let topics = List::read(version, body, "topics")?;
        body.skip_tagged_fields()?;
        Ok(Self { topics })
    }
}

impl<'a> Struct<'a> for Listed {
    fn read(version: i16, body: &mut Reader<'a>) -> Result<Self> {
        let partition = body.i32("partition")?;
        let error_code = body.i16("error code")?;
        let offset = if version >= 1 {
            body.i64("timestamp")?;
            body.i64("offset")?
        } else {
            List::<i64>::read(version, body, "old style offsets")?.iter().next().unwrap_or(-1)
        };
        if version >= 4 {
            body.i32("leader epoch")?;
        }
        body.skip_tagged_fields()?;
        Ok(Self { partition, error_code, offset })
    }
}

impl Exchange for ListOffsets {
    const THROTTLED_SINCE: i16 = 2;
    type Request<'a> = Request<'a>;
    type Response<'a> = Response<'a>;
}

impl Emits for ListOffsets {
    fn emit(request: &Request<'_>, response: &Response<'_>, emit: &mut Emit<'_>) {
        // Another replica is no client.
        if request.replica_id >= 0 {
            return;
        }
        let mut answers = Answers::new(
            response
                .topics
                .partitions()
                .map(|(topic, listed)| (TopicPartition { topic, partition: listed.partition }, listed)),
        );
        for (topic, Asked { partition, timestamp }) in request.topics.partitions() {
            let Some(Listed { offset, error_code: error, .. }) =
                answers.of(TopicPartition { topic, partition })
            else {
                continue;
            };
            emit(&Event::LogOffset { topic, partition, timestamp, offset, error });
        }
    }
}
