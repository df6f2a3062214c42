//! TxnOffsetCommit (key 28), versions 0–6: how far a group has read, as a part of a transaction.
//!
//! KIP-98, KIP-320 (leader epoch, v2), KIP-447 (member, v3), KIP-482 (flexible, v3), KIP-890 (v4,
//! v5), KIP-1319 (topic ids, v6).

use super::event::{Emit, Transaction};
use super::exchange::{Emits, Exchange};
use super::list::{List, OfTopic, Struct};
use super::offset_commit::{Commit, Committer, Outcome};
use super::reader::{Reader, Result};

/// The [`Exchange`] of TxnOffsetCommit.
pub struct TxnOffsetCommit;

/// From this version on topics are named by their ids.
const TOPIC_IDS: i16 = 6;

#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    pub transaction: Transaction<'a>,
    pub group_id: &'a str,
    /// −1 before version 3.
    pub generation_or_epoch: i32,
    /// Empty before version 3.
    pub member_id: &'a str,
    pub topics: List<'a, OfTopic<'a, TxnCommit, TOPIC_IDS>>,
}

/// [`Commit`], with its fields in the versions of this API.
#[derive(Clone, Copy, Debug)]
pub struct TxnCommit(pub Commit);

impl<'a> Struct<'a> for Request<'a> {
    fn read(version: i16, body: &mut Reader<'a>) -> Result<Self> {
        let transactional_id = body.string("transactional id")?;
        let group_id = body.string("group id")?;
        let producer_id = body.i64("producer id")?;
        let producer_epoch = body.i16("producer epoch")?;
        let (mut generation_or_epoch, mut member_id) = (-1, "");
        if version >= 3 {
            generation_or_epoch = body.i32("generation id or member epoch")?;
            member_id = body.string("member id")?;
            body.nullable_string("group instance id")?;
        }
        let topics = List::read(version, body, "topics")?;
        body.skip_tagged_fields()?;
        let transaction = Transaction { transactional_id, producer_id, producer_epoch };
        Ok(Self { transaction, group_id, generation_or_epoch, member_id, topics })
    }
}

impl<'a> Struct<'a> for TxnCommit {
    fn read(version: i16, body: &mut Reader<'a>) -> Result<Self> {
        let partition = body.i32("partition")?;
        let offset = body.i64("committed offset")?;
        let leader_epoch = if version >= 2 { body.i32("committed leader epoch")? } else { -1 };
        body.nullable_string("committed metadata")?;
        body.skip_tagged_fields()?;
        Ok(Self(Commit { partition, offset, leader_epoch }))
    }
}

#[derive(Clone, Copy, Debug)]
pub struct Response<'a> {
    pub topics: List<'a, OfTopic<'a, Outcome, TOPIC_IDS>>,
}

impl<'a> Struct<'a> for Response<'a> {
    fn read(version: i16, body: &mut Reader<'a>) -> Result<Self> {
        body.i32("throttle time")?;
        let topics = List::read(version, body, "topics")?;
        body.skip_tagged_fields()?;
        Ok(Self { topics })
    }
}

impl Exchange for TxnOffsetCommit {
    const THROTTLED_SINCE: i16 = 0;
    type Request<'a> = Request<'a>;
    type Response<'a> = Response<'a>;
}

impl Emits for TxnOffsetCommit {
    fn emit(request: &Request<'_>, response: &Response<'_>, emit: &mut Emit<'_>) {
        let Request { transaction, group_id, generation_or_epoch, member_id, .. } = *request;
        let committer =
            Committer { group_id, generation_or_epoch, member_id, transaction: Some(transaction) };
        let commits = request.topics.partitions().map(|(topic, TxnCommit(commit))| (topic, commit));
        committer.emit(commits, response.topics.partitions(), emit);
    }
}
