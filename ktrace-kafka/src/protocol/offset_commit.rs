//! OffsetCommit (key 8), versions 0–10: how far a group has read.
//!
//! KIP-124 (throttle time, v3), KIP-211 (no retention time, v5), KIP-320 (leader epoch, v6),
//! KIP-345 (static members, v7), KIP-482 (flexible, v8), KIP-848 (member epochs, v9), KIP-516
//! (topic ids, v10). Version 1 alone has a timestamp.

use super::answers::Answers;
use super::event::{Committed, Emit, Event, Transaction};
use super::exchange::{Emits, Exchange};
use super::list::{List, OfTopic, Struct};
use super::reader::{Reader, Result};
use super::topic::{Topic, TopicPartition};

/// The [`Exchange`] of OffsetCommit.
pub struct OffsetCommit;

/// From this version on topics are named by their ids.
const TOPIC_IDS: i16 = 10;

#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    pub group_id: &'a str,
    /// −1 before version 1.
    pub generation_or_epoch: i32,
    /// Empty before version 1.
    pub member_id: &'a str,
    pub topics: List<'a, OfTopic<'a, Commit, TOPIC_IDS>>,
}

/// What is committed for one partition.
#[derive(Clone, Copy, Debug)]
pub struct Commit {
    pub partition: i32,
    pub offset: i64,
    /// −1 if unknown.
    pub leader_epoch: i32,
}

impl<'a> Struct<'a> for Request<'a> {
    fn read(version: i16, body: &mut Reader<'a>) -> Result<Self> {
        let group_id = body.string("group id")?;
        let (mut generation_or_epoch, mut member_id) = (-1, "");
        if version >= 1 {
            generation_or_epoch = body.i32("generation id or member epoch")?;
            member_id = body.string("member id")?;
        }
        if version >= 7 {
            body.nullable_string("group instance id")?;
        }
        if (2..=4).contains(&version) {
            body.i64("retention time")?;
        }
        let topics = List::read(version, body, "topics")?;
        body.skip_tagged_fields()?;
        Ok(Self { group_id, generation_or_epoch, member_id, topics })
    }
}

impl<'a> Struct<'a> for Commit {
    fn read(version: i16, body: &mut Reader<'a>) -> Result<Self> {
        let partition = body.i32("partition")?;
        let offset = body.i64("committed offset")?;
        let leader_epoch = if version >= 6 { body.i32("committed leader epoch")? } else { -1 };
        if version == 1 {
            body.i64("commit timestamp")?;
        }
        body.nullable_string("committed metadata")?;
        body.skip_tagged_fields()?;
        Ok(Self { partition, offset, leader_epoch })
    }
}

#[derive(Clone, Copy, Debug)]
pub struct Response<'a> {
    pub topics: List<'a, OfTopic<'a, Outcome, TOPIC_IDS>>,
}

/// What became of a partition: the answer of OffsetCommit, TxnOffsetCommit and AddPartitionsToTxn.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    pub partition: i32,
    pub error_code: i16,
}

impl<'a> Struct<'a> for Response<'a> {
    fn read(version: i16, body: &mut Reader<'a>) -> Result<Self> {
        if version >= 3 {
            body.i32("throttle time")?;
        }
        let topics = List::read(version, body, "topics")?;
        body.skip_tagged_fields()?;
        Ok(Self { topics })
    }
}

impl<'a> Struct<'a> for Outcome {
    fn read(_version: i16, body: &mut Reader<'a>) -> Result<Self> {
        let outcome = Self { partition: body.i32("partition")?, error_code: body.i16("error code")? };
        body.skip_tagged_fields()?;
        Ok(outcome)
    }
}

impl Exchange for OffsetCommit {
    const THROTTLED_SINCE: i16 = 3;
    type Request<'a> = Request<'a>;
    type Response<'a> = Response<'a>;
}

impl Emits for OffsetCommit {
    fn emit(request: &Request<'_>, response: &Response<'_>, emit: &mut Emit<'_>) {
        let Request { group_id, generation_or_epoch, member_id, .. } = *request;
        let committer = Committer { group_id, generation_or_epoch, member_id, transaction: None };
        committer.emit(request.topics.partitions(), response.topics.partitions(), emit);
    }
}

/// Who commits.
#[derive(Clone, Copy, Debug)]
pub struct Committer<'a> {
    pub group_id: &'a str,
    pub generation_or_epoch: i32,
    pub member_id: &'a str,
    pub transaction: Option<Transaction<'a>>,
}

impl<'a> Committer<'a> {
    /// Emits each commit that the response answers.
    pub fn emit(
        &self,
        commits: impl Iterator<Item = (Topic<'a>, Commit)>,
        outcomes: impl Iterator<Item = (Topic<'a>, Outcome)> + Clone,
        emit: &mut Emit<'_>,
    ) {
        let Self { group_id, generation_or_epoch, member_id, transaction } = *self;
        let mut answers = Answers::new(
            outcomes.map(|(topic, of)| (TopicPartition { topic, partition: of.partition }, of.error_code)),
        );
        for (topic, Commit { partition, offset, leader_epoch }) in commits {
            let Some(error) = answers.of(TopicPartition { topic, partition }) else { continue };
            emit(&Event::Committed(Committed {
                group_id,
                member_id,
                generation_or_epoch,
                topic,
                partition,
                offset,
                leader_epoch,
                transaction,
                error,
            }));
        }
    }
}
