//! Metadata (key 3), versions 0–13: names and ids of topics, the cluster's id.
//!
//! KIP-78 (cluster id, v2), KIP-516 (topic ids, v10), KIP-700 (v11), KIP-1102 (v13).

use super::reader::{ParseError, Reader, Result};

/// The newest version that is read.
pub const NEWEST: i16 = 13;

/// What a response tells, one item at a time.
pub trait Visitor {
    /// The cluster's id, if the response has one.
    fn cluster(&mut self, _id: &str) {}
    /// A topic's id and name, where both are there.
    fn topic(&mut self, _id: u128, _name: &str) {}
}

/// Reads a response to its end.
pub fn read_response(version: i16, mut body: Reader<'_>, visitor: &mut impl Visitor) -> Result<()> {
    if !(0..=NEWEST).contains(&version) {
        return Err(ParseError::Unsupported("Metadata"));
    }
    if version >= 3 {
        body.i32("throttle time")?;
    }
    for _ in 0..body.array("brokers")? {
        body.i32("node id")?;
        body.string("host")?;
        body.i32("port")?;
        if version >= 1 {
            body.nullable_string("rack")?;
        }
        body.skip_tagged_fields()?;
    }
    if version >= 2
        && let Some(id) = body.nullable_string("cluster id")?
    {
        visitor.cluster(id);
    }
    if version >= 1 {
        body.i32("controller id")?;
    }
    for _ in 0..body.array("topics")? {
        topic(version, &mut body, visitor)?;
    }
    if (8..=10).contains(&version) {
        body.i32("cluster authorized operations")?;
    }
    if version >= 13 {
        body.i16("error code")?;
    }
    body.skip_tagged_fields()?;
    body.end("metadata")
}

fn topic(version: i16, body: &mut Reader<'_>, visitor: &mut impl Visitor) -> Result<()> {
    body.i16("error code")?;
    let name = body.nullable_string("topic name")?;
    if version >= 10 {
        let id = body.uuid("topic id")?;
        if let Some(name) = name
            && id != 0
            && name.len() <= 249
        {
            visitor.topic(id, name);
        }
    }
    if version >= 1 {
        body.bool("is internal")?;
    }
    for _ in 0..body.array("partitions")? {
        body.i16("error code")?;
        body.i32("partition")?;
        body.i32("leader")?;
        if version >= 7 {
            body.i32("leader epoch")?;
        }
        body.skip_array(4, "replicas")?;
        body.skip_array(4, "in-sync replicas")?;
        if version >= 5 {
            body.skip_array(4, "offline replicas")?;
        }
        body.skip_tagged_fields()?;
    }
    if version >= 8 {
        body.i32("topic authorized operations")?;
    }
    body.skip_tagged_fields()
}
