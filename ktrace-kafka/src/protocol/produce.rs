//! Produce (key 0), versions 0–13: the records that a producer sends and the offsets that the broker gives them.
//!
//! KIP-13 (throttle time, v1), KIP-32 (append time, v2), KIP-98 (transactional id, v3), KIP-467 (record errors, v8),
//! KIP-482 (flexible, v9), KIP-951 (v10), KIP-516 (topic ids, v13). Brokers of 4.0 and later refuse versions 0–2
//! (KIP-896); their schemas are those of 3.9.

use super::reader::{ParseError, Reader, Result};
use super::sink::Topic;

/// Versions that are read.
pub const VERSIONS: std::ops::RangeInclusive<i16> = 0..=13;

/// A request's fields before its topics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestStart<'a> {
    pub transactional_id: Option<&'a str>,
    pub acks: i16,
}

/// Reads a request; `each` gets every partition with its record set.
pub fn read_request<'a>(
    version: i16,
    mut body: Reader<'a>,
    mut each: impl FnMut(&RequestStart<'a>, Topic<'a>, i32, &'a [u8]),
) -> Result<RequestStart<'a>> {
    if !VERSIONS.contains(&version) {
        return Err(ParseError::Unsupported("Produce"));
    }
    let transactional_id = if version >= 3 { body.nullable_string("transactional id")? } else { None };
    let acks = body.i16("acks")?;
    let start = RequestStart { transactional_id, acks };
    body.i32("timeout")?;
    for _ in 0..body.array("topics")? {
        let topic = read_topic(version, &mut body)?;
        for _ in 0..body.array("partitions")? {
            let index = body.i32("partition")?;
            let records = body.nullable_bytes("records")?.unwrap_or(&[]);
            body.skip_tagged_fields()?;
            each(&start, topic, index, records);
        }
        body.skip_tagged_fields()?;
    }
    body.skip_tagged_fields()?;
    body.end("produce request")?;
    Ok(start)
}

/// What the broker did with one partition's records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// 0 for none.
    pub error: i16,
    /// The offset of the first record, −1 if none was given.
    pub base_offset: i64,
    /// Milliseconds since 1970 where the topic's time is that of the append, else −1.
    pub log_append_time_ms: i64,
}

/// Reads a response; `each` gets every partition's result.
pub fn read_response<'a>(
    version: i16,
    mut body: Reader<'a>,
    mut each: impl FnMut(Topic<'a>, i32, Appended),
) -> Result<()> {
    if !VERSIONS.contains(&version) {
        return Err(ParseError::Unsupported("Produce"));
    }
    for _ in 0..body.array("topics")? {
        let topic = read_topic(version, &mut body)?;
        for _ in 0..body.array("partitions")? {
            let index = body.i32("partition")?;
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
            each(topic, index, Appended { error, base_offset, log_append_time_ms });
        }
        body.skip_tagged_fields()?;
    }
    if version >= 1 {
        body.i32("throttle time")?;
    }
    body.skip_tagged_fields()?;
    body.end("produce response")
}

fn read_topic<'a>(version: i16, body: &mut Reader<'a>) -> Result<Topic<'a>> {
    if version >= 13 { body.uuid("topic id").map(Topic::Id) } else { body.topic("topic").map(Topic::Name) }
}
