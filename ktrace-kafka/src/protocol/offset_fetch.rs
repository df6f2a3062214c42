//! OffsetFetch (key 9), versions 0–10: where a group stands.
//!
//! KIP-88 (all topics, v2), KIP-124 (throttle time, v3), KIP-320 (leader epoch, v5), KIP-482
//! (flexible, v6), KIP-447 (require stable, v7), KIP-709 (several groups, v8), KIP-848 (member,
//! v9), KIP-516 (topic ids, v10).

use super::event::{Emit, Event};
use super::exchange::{Emits, Exchange};
use super::list::{List, OfTopic, Struct};
use super::reader::{Reader, Result};

/// The [`Exchange`] of OffsetFetch.
pub struct OffsetFetch;

/// From this version on topics are named by their ids.
const TOPIC_IDS: i16 = 10;

#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Before version 8.
    pub group_id: &'a str,
}

type Asked<'a> = List<'a, OfTopic<'a, i32, TOPIC_IDS>>;

impl<'a> Struct<'a> for Request<'a> {
    fn read(version: i16, body: &mut Reader<'a>) -> Result<Self> {
        let mut group_id = "";
        if version < 8 {
            group_id = body.string("group id")?;
            Asked::read(version, body, "topics")?;
        } else {
            for _ in 0..body.array("groups")? {
                body.string("group id")?;
                if version >= 9 {
                    body.nullable_string("member id")?;
                    body.i32("member epoch")?;
                }
                Asked::read(version, body, "topics")?;
                body.skip_tagged_fields()?;
            }
        }
        if version >= 7 {
            body.bool("require stable")?;
        }
        body.skip_tagged_fields()?;
        Ok(Self { group_id })
    }
}

#[derive(Clone, Copy, Debug)]
pub struct Response<'a> {
    /// Before version 8: the request's group.
    pub alone: Option<Group<'a>>,
    pub groups: List<'a, Group<'a>>,
}

#[derive(Clone, Copy, Debug)]
pub struct Group<'a> {
    /// From version 8 on.
    pub group_id: &'a str,
    pub topics: List<'a, OfTopic<'a, Position, TOPIC_IDS>>,
    pub error_code: i16,
}

/// Where the group stands in one partition.
#[derive(Clone, Copy, Debug)]
pub struct Position {
    pub partition: i32,
    pub offset: i64,
    pub error_code: i16,
}

impl<'a> Struct<'a> for Response<'a> {
    fn read(version: i16, body: &mut Reader<'a>) -> Result<Self> {
        if version >= 3 {
            body.i32("throttle time")?;
        }
        let mut response = Self { alone: None, groups: List::empty() };
        if version >= 8 {
            response.groups = List::read(version, body, "groups")?;
        } else {
            let topics = List::read(version, body, "topics")?;
            let error_code = if version >= 2 { body.i16("error code")? } else { 0 };
            response.alone = Some(Group { group_id: "", topics, error_code });
        }
        body.skip_tagged_fields()?;
        Ok(response)
    }
}

impl<'a> Struct<'a> for Group<'a> {
    fn read(version: i16, body: &mut Reader<'a>) -> Result<Self> {
        let group = Self {
            group_id: body.string("group id")?,
            topics: List::read(version, body, "topics")?,
            error_code: body.i16("error code")?,
        };
        body.skip_tagged_fields()?;
        Ok(group)
    }
}

impl<'a> Struct<'a> for Position {
    fn read(version: i16, body: &mut Reader<'a>) -> Result<Self> {
        let partition = body.i32("partition")?;
        let offset = body.i64("committed offset")?;
        if version >= 5 {
            body.i32("committed leader epoch")?;
        }
        body.nullable_string("metadata")?;
        let error_code = body.i16("error code")?;
        body.skip_tagged_fields()?;
        Ok(Self { partition, offset, error_code })
    }
}

impl Exchange for OffsetFetch {
    const THROTTLED_SINCE: i16 = 3;
    type Request<'a> = Request<'a>;
    type Response<'a> = Response<'a>;
}

impl Emits for OffsetFetch {
    fn emit(request: &Request<'_>, response: &Response<'_>, emit: &mut Emit<'_>) {
        let alone = response.alone.map(|group| Group { group_id: request.group_id, ..group });
        for group in alone.into_iter().chain(response.groups.iter()) {
            // Else each of its partitions bears the error.
            if group.error_code != 0 && group.topics.partitions().next().is_none() {
                let (group_id, error) = (Some(group.group_id), group.error_code);
                emit(&Event::Refused { topic: None, partition: None, offset: -1, group_id, error });
            }
            for (topic, Position { partition, offset, error_code }) in group.topics.partitions() {
                let error = if group.error_code != 0 { group.error_code } else { error_code };
                emit(&Event::Position { group_id: group.group_id, topic, partition, offset, error });
            }
        }
    }
}
