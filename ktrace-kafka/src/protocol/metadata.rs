//! Metadata (key 3), versions 0–13: names and ids of topics, the cluster's id, its brokers.
//!
//! KIP-4 (all or no topics, v1), KIP-78 (cluster id, v2), KIP-320 (v7), KIP-430 (v8), KIP-482
//! (flexible, v9), KIP-516 (topic ids, v10), KIP-700 (v11), KIP-1102 (v13).

use super::event::{Emit, Event};
use super::exchange::{EmitsOfResponse, Exchange};
use super::list::{List, Struct};
use super::reader::{Reader, Result};
use super::topic::Topic;

/// The [`Exchange`] of Metadata.
pub struct Metadata;

/// Nothing of it is wanted.
#[derive(Clone, Copy, Debug)]
pub struct Request;

impl<'a> Struct<'a> for Request {
    fn read(version: i16, body: &mut Reader<'a>) -> Result<Self> {
        for _ in 0..body.array("topics")? {
            if version >= 10 {
                body.uuid("topic id")?;
                body.nullable_string("topic name")?;
            } else {
                body.string("topic name")?;
            }
            body.skip_tagged_fields()?;
        }
        if version >= 4 {
            body.bool("allow auto topic creation")?;
        }
        if (8..=10).contains(&version) {
            body.bool("include cluster authorized operations")?;
        }
        if version >= 8 {
            body.bool("include topic authorized operations")?;
        }
        body.skip_tagged_fields()?;
        Ok(Self)
    }
}

#[derive(Clone, Copy, Debug)]
pub struct Response<'a> {
    pub brokers: List<'a, Broker<'a>>,
    pub cluster_id: Option<&'a str>,
    pub topics: List<'a, TopicNames<'a>>,
    /// Of the request as a whole, 0 for none.
    pub error: i16,
}

/// Where a broker is reached.
#[derive(Clone, Copy, Debug)]
pub struct Broker<'a> {
    pub node_id: i32,
    pub host: &'a str,
    pub port: i32,
}

/// A topic's names. Both are there from version 10 on.
#[derive(Clone, Copy, Debug)]
pub struct TopicNames<'a> {
    /// 0 for none.
    pub id: u128,
    pub name: Option<&'a str>,
    /// 0 for none.
    pub error: i16,
}

impl<'a> TopicNames<'a> {
    /// Gives the topic, where id and name are there, and that it is refused, where it is.
    pub fn emit(&self, emit: &mut Emit<'_>) {
        let name = self.name.filter(|name| name.len() <= 249);
        if let Some(name) = name.filter(|_| self.id != 0) {
            emit(&Event::Topic { id: self.id, name });
        }
        if self.error != 0 {
            let topic = name.map(Topic::Name).or((self.id != 0).then_some(Topic::Id(self.id)));
            emit(&Event::Refused { topic, partition: None, offset: -1, group_id: None, error: self.error });
        }
    }
}

impl<'a> Struct<'a> for Response<'a> {
    fn read(version: i16, body: &mut Reader<'a>) -> Result<Self> {
        if version >= 3 {
            body.i32("throttle time")?;
        }
        let brokers = List::read(version, body, "brokers")?;
        let cluster_id = if version >= 2 { body.nullable_string("cluster id")? } else { None };
        if version >= 1 {
            body.i32("controller id")?;
        }
        let topics = List::read(version, body, "topics")?;
        if (8..=10).contains(&version) {
            body.i32("cluster authorized operations")?;
        }
        let error = if version >= 13 { body.i16("error code")? } else { 0 };
        body.skip_tagged_fields()?;
        Ok(Self { brokers, cluster_id, topics, error })
    }
}

impl<'a> Struct<'a> for Broker<'a> {
    fn read(version: i16, body: &mut Reader<'a>) -> Result<Self> {
        let broker =
            Self { node_id: body.i32("node id")?, host: body.string("host")?, port: body.i32("port")? };
        if version >= 1 {
            body.nullable_string("rack")?;
        }
        body.skip_tagged_fields()?;
        Ok(broker)
    }
}

impl<'a> Struct<'a> for TopicNames<'a> {
    fn read(version: i16, body: &mut Reader<'a>) -> Result<Self> {
        let error = body.i16("error code")?;
        let name = body.nullable_string("topic name")?;
        let id = if version >= 10 { body.uuid("topic id")? } else { 0 };
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
        body.skip_tagged_fields()?;
        Ok(Self { id, name, error })
    }
}

impl Exchange for Metadata {
    const THROTTLED_SINCE: i16 = 3;
    type Request<'a> = Request;
    type Response<'a> = Response<'a>;
}

impl EmitsOfResponse for Metadata {
    fn emit(response: &Response<'_>, emit: &mut Emit<'_>) {
        for Broker { node_id, host, port } in response.brokers.iter() {
            emit(&Event::Broker { node_id, host, port });
        }
        if let Some(id) = response.cluster_id {
            emit(&Event::Cluster { id });
        }
        if response.error != 0 {
            let error = response.error;
            emit(&Event::Refused { topic: None, partition: None, offset: -1, group_id: None, error });
        }
        response.topics.iter().for_each(|topic| topic.emit(emit));
    }
}
