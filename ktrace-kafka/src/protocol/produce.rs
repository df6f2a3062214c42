//! Produce (key 0), versions 0–13: the records that a producer sends and the offsets that the
//! broker gives them.
//!
//! KIP-13 (throttle time, v1), KIP-32 (append time, v2), KIP-98 (transactional id, v3), KIP-467
//! (record errors, v8), KIP-482 (flexible, v9), KIP-951 (v10), KIP-516 (topic ids, v13). Brokers of
//! 4.0 and later refuse versions 0–2 (KIP-896); their schemas are those of 3.9.

use super::exchange::Exchange;
use super::list::{List, OfTopic, Struct, topic};
use super::reader::{Reader, Result};
use super::topic::Topic;

/// The [`Exchange`] of Produce.
pub struct Produce;

/// From this version on topics are named by their ids.
const TOPIC_IDS: i16 = 13;

#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    pub transactional_id: Option<&'a str>,
    /// −1 (all), 0 or 1.
    pub acks: i16,
    pub topics: List<'a, OfTopic<'a, Produced<'a>, TOPIC_IDS>>,
}

/// One partition's records.
#[derive(Clone, Copy, Debug)]
pub struct Produced<'a> {
    pub partition: i32,
    pub records: &'a [u8],
}

impl<'a> Struct<'a> for Request<'a> {
    fn read(version: i16, body: &mut Reader<'a>) -> Result<Self> {
        let transactional_id = if version >= 3 { body.nullable_string("transactional id")? } else { None };
        let acks = body.i16("acks")?;
        body.i32("timeout")?;
        let topics = List::read(version, body, "topics")?;
        body.skip_tagged_fields()?;
        Ok(Self { transactional_id, acks, topics })
    }
}

impl<'a> Request<'a> {
    /// Gives the partitions of a request, in one pass: none behind what cannot be read.
    pub fn each_partition(
        version: i16,
        body: &mut Reader<'a>,
        mut each: impl FnMut(Topic<'a>, i32),
    ) -> Result<()> {
        if version >= 3 {
            body.nullable_string("transactional id")?;
        }
        body.i16("acks")?;
        body.i32("timeout")?;
        for _ in 0..body.array("topics")? {
            let topic = topic::<TOPIC_IDS>(version, body)?;
            for _ in 0..body.array("partitions")? {
                each(topic, Produced::read(version, body)?.partition);
            }
            body.skip_tagged_fields()?;
        }
        Ok(())
    }
}

impl<'a> Struct<'a> for Produced<'a> {
    fn read(_version: i16, body: &mut Reader<'a>) -> Result<Self> {
        let partition = body.i32("partition")?;
        let records = body.nullable_bytes("records")?.unwrap_or_default();
        body.skip_tagged_fields()?;
        Ok(Self { partition, records })
    }
}

#[derive(Clone, Copy, Debug)]
pub struct Response<'a> {
    /// How long the producer has to wait by its quota.
    pub throttle_ms: i32,
    pub topics: List<'a, OfTopic<'a, Appended, TOPIC_IDS>>,
}

/// What the broker did with one partition's records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    pub partition: i32,
    /// 0 for none.
    pub error: i16,
    /// The offset of the first record, −1 if none was given.
    pub base_offset: i64,
    /// Milliseconds since 1970 where the topic's time is that of the append, else −1.
    pub log_append_time_ms: i64,
}

impl<'a> Struct<'a> for Response<'a> {
    fn read(version: i16, body: &mut Reader<'a>) -> Result<Self> {
        let topics = List::read(version, body, "topics")?;
        let throttle_ms = if version >= 1 { body.i32("throttle time")? } else { 0 };
        body.skip_tagged_fields()?;
        Ok(Self { throttle_ms, topics })
    }
}

impl<'a> Struct<'a> for Appended {
    fn read(version: i16, body: &mut Reader<'a>) -> Result<Self> {
        let partition = body.i32("partition")?;
        let error = body.i16("error code")?;
        let base_offset = body.i64("base offset")?;
        let log_append_time_ms = if version >= 2 { body.i64("log append time")? } else { -1 };
        if version >= 5 {
            body.i64("log start offset")?;
        }
        if version >= 8 {
            for _ in 0..body.array("record errors")? {
                body.i32("batch index")?;
                body.nullable_string("record error")?;
                body.skip_tagged_fields()?;
            }
            body.nullable_string("error message")?;
        }
        body.skip_tagged_fields()?;
        Ok(Self { partition, error, base_offset, log_append_time_ms })
    }
}

impl Exchange for Produce {
    type Request<'a> = Request<'a>;
    type Response<'a> = Response<'a>;
}
